"""The page of the recipes: what is in force, changeover by an operator, rollback by an engineer."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hmi_site import PANEL, PHONE, Browser, Seen, Site, open_site, port_of_our_own, until
from status_writer import saying

from inspection import station_link
from inspection.recipe import lock_sha256, open_recipe, seal
from inspection.recipe_lock import file_hashes
from inspection.recipe_versions import history, promote
from inspection.station_link import RefusedRecipe, read_status, requests_folder
from inspection.types import utc_now
from inspection.web.texts import LANGUAGES

ROOT = Path(__file__).resolve().parents[2]


def named(recipe: Path, folder: Path, name: str) -> Path:
    """A sealed copy of a recipe under another id, without self-test."""
    made = folder / name
    shutil.copytree(recipe, made, ignore=shutil.ignore_patterns("selftest", "recipe.lock"))
    toml = made / "recipe.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace('"demo-pcb"', f'"{name}"', 1), encoding="utf-8")
    seal(made)
    return made


@pytest.fixture
def two(tmp_path: Path, demo_recipe: Path, seen: dict[str, Seen]) -> Iterator[Site]:
    """A site whose station may change between two recipes."""
    with ExitStack() as stack:
        named(demo_recipe, tmp_path / "recipe", "other-pcb")
        yield open_site(
            stack, tmp_path, demo_recipe, seen, top='recipes = "recipe"',
            controller=f'kind = "modbus_tcp"\nport = {stack.enter_context(port_of_our_own())}',
        )  # fmt: skip


@contextmanager
def station(site: Site) -> Iterator[None]:
    """A real station on the site's config, in a process of its own; the pages bear with one that stands still a while."""
    command = [sys.executable, "-m", "inspection", "run", str(site.folder / "station.toml")]
    frame = ROOT / "deploy" / "recipes" / "demo-pcb" / "selftest" / "good.png"
    shutil.copy(frame, site.folder / "frames" / "part.png")
    with (site.folder / "station.log").open("wb") as log:
        child = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        until(lambda: child.poll() is not None or getattr(read_status(site.store_path), "state", "") == "READY")
        assert child.poll() is None, (site.folder / "station.log").read_text(encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(station_link, "STALE_S", 60.0)
            yield
    finally:
        child.kill()
        child.wait(timeout=30)


def audited(site: Site) -> list[str]:
    return [entry.what for entry in site.context.accounts.audit_entries()]


def test_operator_changes_the_recipe_of_a_running_station(two: Site, browser: Browser) -> None:
    """One tap and its confirmation: the station puts the recipe in force, the page says so, the audit names who."""
    with station(two):
        page = browser.open(two, "/recipe", "ann")
        page.get_by_role("link", name="Change to this other-pcb").click()
        page.wait_for_selector("h1:has-text('Change the recipe?')")
        assert "demo-pcb" == read_status(two.store_path).recipe_id  # type: ignore[union-attr]
        page.get_by_role("button", name="Change the recipe").click()
        page.wait_for_selector("text=The station has put in force")
        assert "other-pcb" == read_status(two.store_path).recipe_id  # type: ignore[union-attr]
        page.wait_for_selector(".large:has-text('other-pcb')")  # by itself: the page does not contradict itself
        page.get_by_role("link", name="Show", exact=True).click()
        page.wait_for_selector(".large:has-text('other-pcb')")
    assert "recipe.asked_for" in audited(two)
    asked = next(e for e in two.context.accounts.audit_entries() if e.what == "recipe.asked_for")
    assert "ann" == asked.who


def test_nothing_is_asked_of_a_station_that_does_not_run(two: Site) -> None:
    """A wish that nobody would hear is refused at once, and so is one for a recipe that is not there."""
    client = two.client("ann")
    refused = client.post("/recipe/change", data={"recipe": "other-pcb"})
    assert (409, True) == (refused.status_code, "does not run" in refused.text)
    with saying(two):
        for name in ("unknown", "../../etc", "<script>", ""):
            refused = client.post("/recipe/change", data={"recipe": name})
            assert (409, True) == (refused.status_code, "no such recipe" in refused.text)
            assert "<script>" not in refused.text
            assert 409 == client.get("/recipe/change", params={"recipe": name}).status_code
    assert not requests_folder(two.store_path).exists()
    assert "recipe.asked_for" not in audited(two)


def test_version_that_the_station_did_not_take_is_not_called_in_force(two: Site) -> None:
    """What lies on the disk is not what judges until the station has taken it."""
    words = "the station still judges by another version"
    with saying(two) as said:
        assert words not in two.client("ann").get("/recipe").text
        said.say(recipe_sha256="0" * 64)
        assert words in two.client("ann").get("/recipe").text


@pytest.mark.parametrize(
    ("language", "said"), [("en", "not as they were sealed, so the station would refuse it"), ("zh", "工位会拒绝启用")]
)
def test_recipe_that_was_edited_is_told_before_it_is_asked_for(two: Site, language: str, said: str) -> None:
    """The page that asks once more names the file that is not as it was sealed, and offers no change to that recipe."""
    client = two.client("ann")
    asked = {"recipe": "other-pcb", "lang": language}
    with saying(two):
        sound = client.get("/recipe/change", params=asked)
        assert (200, True) == (sound.status_code, 'action="/recipe/change"' in sound.text)
        toml = Path(two.config.recipe).parent / "other-pcb" / "recipe.toml"
        toml.write_text(toml.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
        edited = client.get("/recipe/change", params=asked)
    assert (409, False) == (edited.status_code, 'action="/recipe/change"' in edited.text)
    assert said in edited.text
    assert "recipe.toml was changed" in edited.text


def test_recipe_that_was_edited_while_the_station_had_it_in_memory_is_refused(two: Site) -> None:
    """Also a recipe that judged before is verified when it is asked for again: the station refuses it and goes on."""
    client = two.client("ann")

    def asked_for(name: str) -> str:
        request = client.post("/recipe/change", data={"recipe": name}).headers["location"].partition("=")[2]

        def answer() -> str:
            text = client.get(f"/recipe/request/{request}").text
            return "" if 'hx-trigger="load delay' in text else text

        return str(until(answer))

    with station(two):
        assert "has put in force" in asked_for("other-pcb")
        assert "has put in force" in asked_for("demo-pcb")
        toml = Path(two.config.recipe).parent / "other-pcb" / "recipe.toml"
        toml.write_text(toml.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
        refused = asked_for("other-pcb")
        assert "The station refused" in refused
        assert "recipe.toml was changed" in refused
        assert "demo-pcb" == getattr(read_status(two.store_path), "recipe_id", "")


@pytest.mark.parametrize(
    ("language", "heading", "said"),
    [
        ("en", "This version cannot be put in force.", "This station has no such recipe."),
        ("zh", "无法启用此版本。", "本工位没有此配方。"),
    ],
)
def test_refusals_are_in_the_language_of_the_page(two: Site, language: str, heading: str, said: str) -> None:
    """What the page itself refuses is said in the reader's language; the program's own words stand below such a heading."""
    client = two.client("eve", "engineer")
    unknown = client.get("/recipe/rollback", params={"recipe": "nope", "to": "0" * 64, "lang": language}).text
    assert (True, True) == (heading in unknown, said in unknown)
    assert ("no such recipe" in unknown) == (language == "en")
    sent = {"recipe": "demo-pcb", "to": "0" * 64, "why": "x"}
    refused = client.post("/recipe/rollback", data=sent).text
    assert (True, True) == (heading in refused, 'lang="en">version' in refused)


def test_versions_to_choose_between_are_shown_alike(site: Site) -> None:
    """The page that asks once more names both versions by the same number of digits; the whole of each is in its title."""
    first, second = with_versions(site)
    text = site.client("eve", "engineer").get("/recipe/rollback", params={"recipe": "demo-pcb", "to": first}).text
    for sha256 in (first, second):
        assert f'title="{sha256}">{sha256[:16]}</code>' in text
    assert "earlier" not in text


def test_change_needs_the_token_of_the_page(two: Site) -> None:
    """A form of another site changes no recipe."""
    client = two.client("ann")
    del client.headers["X-CSRF-Token"]
    with saying(two):
        assert 403 == client.post("/recipe/change", data={"recipe": "other-pcb"}).status_code
    assert not requests_folder(two.store_path).exists()


def with_versions(site: Site) -> tuple[str, str]:
    """Promote a challenger made by hand; gives the SHA-256 of the version before and of the one in force."""
    recipe = Path(site.config.recipe)
    first, newer = lock_sha256(recipe), site.folder / "newer"
    shutil.copytree(recipe, newer, ignore=shutil.ignore_patterns("recipe.lock", "selftest"))
    model = open_recipe(recipe, threads=1).model_sha256
    names = ("escape_bound", "overkill", "returned_escapes", "latency")
    comparison = {
        "schema": 1, "recipe_id": "demo-pcb", "champion_sha256": first, "champion_model_sha256": model,
        "challenger_model_sha256": model, "challenger_files": file_hashes(newer), "changed": [],
        "gates": [{"name": name, "held": True, "champion": 1, "challenger": 1, "text": "1 -> 1"} for name in names],
    }  # fmt: skip
    (newer / "comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    seal(newer)
    return first, promote(newer, recipe, who="eve", why="<b>better</b>")


def test_engineer_puts_the_earlier_version_back(site: Site, browser: Browser) -> None:
    """Rollback asks for the reason and once more, then the earlier version is in force; history and audit name who."""
    first, second = with_versions(site)
    page = browser.open(site, "/recipe", "eve", "engineer")
    assert "<b>better</b>" in page.locator("main").inner_text()
    page.get_by_role("link", name=f"Put in force {first[:16]}").click()
    page.get_by_label("Why").fill("too many <i>false</i> calls")
    page.get_by_role("button", name="Put it in force").click()
    page.wait_for_selector("text=The version is in force", timeout=60000)
    assert first == lock_sha256(Path(site.config.recipe))
    last = history(Path(site.config.recipe))[-1]
    assert ("eve", "rollback", second, first) == (last.who, last.what, last.from_sha256, last.to_sha256)
    assert "recipe.rollback" in audited(site)
    assert "false</i>" in page.locator("main").inner_text()


def test_what_is_in_force_follows_a_rollback_by_itself(two: Site, browser: Browser) -> None:
    """After a rollback the page shows what the station took, without being loaded again, and then rests."""
    first, second = with_versions(two)
    with station(two):
        page = browser.open(two, f"/recipe/rollback?recipe=demo-pcb&to={first}", "eve", "engineer")
        page.get_by_label("Why").fill("false calls")
        page.get_by_role("button", name="Put it in force").click()
        page.wait_for_selector("text=The version is in force", timeout=60000)
        page.wait_for_selector(f"#now dd code:text-is('{first}')", timeout=60000)
        page.wait_for_selector("#now:not([hx-get])")
        assert second not in page.locator("#now").inner_text()


def test_version_in_force_that_was_edited_is_told(site: Site) -> None:
    """The seal of the version in force is looked at: a changed file is named, and what that means."""
    client = site.client("ann")
    with saying(site):
        assert "not as it was sealed" not in client.get("/recipe").text
        with (Path(site.config.recipe) / "golden.png").open("ab") as file:
            file.write(b"x")
        told = client.get("/recipe").text
        assert "The version in force is not as it was sealed" in told
        assert "golden.png was changed" in told


def test_rollback_is_for_engineers(site: Site) -> None:
    """Operators and reviewers neither see nor reach it."""
    first, second = with_versions(site)
    for name, role in (("ann", "operator"), ("rob", "reviewer")):
        client = site.client(name, role)
        assert "/recipe/rollback" not in client.get("/recipe").text
        assert 403 == client.get("/recipe/rollback", params={"recipe": "demo-pcb", "to": first}).status_code
        sent = {"recipe": "demo-pcb", "to": first, "why": "x"}
        assert 403 == client.post("/recipe/rollback", data=sent).status_code
    assert second == lock_sha256(Path(site.config.recipe))


@pytest.mark.parametrize(
    ("to", "why", "said"),
    [("0" * 64, "a reason", "not kept here"), ("", "", "who makes it"), ("../..", "x", "not kept here")],
)
def test_rollback_that_cannot_be_is_refused_in_words(site: Site, to: str, why: str, said: str) -> None:
    """A version that is not kept, or no reason, changes nothing; the page says why, and the audit keeps the attempt."""
    _, second = with_versions(site)
    sent = {"recipe": "demo-pcb", "to": to, "why": why}
    answer = site.client("eve", "engineer").post("/recipe/rollback", data=sent)
    assert (409, True) == (answer.status_code, said in answer.text)
    assert second == lock_sha256(Path(site.config.recipe))
    assert "recipe.rollback_refused" in audited(site)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [PANEL, PHONE])
def test_recipes_fit_and_can_be_used_by_everybody(
    two: Site, browser: Browser, language: str, size: tuple[int, int]
) -> None:
    """On panel and phone nothing is cut off, targets are large, and axe finds no serious fault."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='pip install -e ".[dev]" brings axe')
    first, _ = with_versions(two)
    with saying(two) as said:
        said.say(refused=RefusedRecipe(recipe_id="bad", text="the lock is wrong " + "x" * 90, at=utc_now()))
        for path in (
            "/recipe", "/recipe/change?recipe=other-pcb", f"/recipe/rollback?recipe=demo-pcb&to={first}",
        ):  # fmt: skip
            page: Any = browser.open(
                two, f"{path}{'&' if '?' in path else '?'}lang={language}", "eve", "engineer", size=size
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            small = page.evaluate(
                """[...document.querySelectorAll('main a, main button')].map(e => e.getBoundingClientRect())
                   .filter(r => r.height < 43.5 || r.width < 43.5).length"""
            )
            assert 0 == small
            found = axe.Axe().run(page).response["violations"]
            assert [] == [
                (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
            ]
            if folder := os.environ.get("LINESIDE_SHOTS"):
                name = path.partition("?")[0].strip("/").replace("/", "-")
                page.screenshot(path=f"{folder}/{name}-{size[0]}-{language}.png", full_page=True)


def test_recipe_that_cannot_be_read_is_told(two: Site) -> None:
    """A recipe whose file is broken is listed with what is wrong; the page itself still works."""
    broken = Path(two.config.recipe).parent / "other-pcb" / "recipe.toml"
    broken.write_text("recipe_id = ", encoding="utf-8")
    answer = two.client("ann").get("/recipe")
    assert (200, True) == (answer.status_code, "other-pcb" in answer.text)
    assert "recipe.toml" in answer.text


def test_unknown_request_keeps_waiting(site: Site) -> None:
    """Until the station answers, and when it is gone, the page says so and asks again."""
    client = site.client("ann")
    assert "does not answer" in client.get("/recipe/request/abc").text
    with saying(site):
        assert "was asked" in client.get("/recipe/request/abc").text
