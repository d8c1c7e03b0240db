"""The pictures of records: the right ones, at the right place, or a sentence why there is none."""

import hashlib
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hmi_site import Seen, Site, until
from hypothesis import given
from hypothesis import strategies as st
from status_writer import saying

from inspection.byte_cache import ByteCache
from inspection.evidence import evidence_files
from inspection.evidence_ledger import EvidenceLedger, Picture, ledger_path
from inspection.hmi.drawing import WIDTHS, width_for, window_around
from inspection.hmi.findings import counted, detections_of
from inspection.hmi.placeholder import placeholder
from inspection.images import decode_image, read_grey, write_png
from inspection.recipe import lock_sha256, seal
from inspection.recipe_lock import write_lock
from inspection.retention.run import Retention
from inspection.retention.section import RetentionRule, RetentionSection
from inspection.retention.stop import Stop
from inspection.types import Judgement, LateResult, Record, Verdict, error_judgement, utc_now


def grey(content: bytes) -> np.ndarray:
    picture = decode_image(content, "answer")
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.astype(float).ravel(), other.astype(float).ravel())[0, 1])


def test_frame_is_given_as_it_was_stored(site: Site) -> None:
    """The PNG is the very file of the evidence, and may be kept by the browser."""
    record = site.add_part("NG")
    answer = site.client("ann").get(f"/picture/{record.record_id}/top.png")
    stored = evidence_files(Path(site.config.evidence.folder), record.evidence)[0]
    assert stored.read_bytes() == answer.content
    assert "immutable" in answer.headers["cache-control"]


def test_frame_is_scaled_and_never_enlarged(site: Site) -> None:
    """A JPEG is at most as wide as asked for, rounded up to one of few widths."""
    record, client = site.add_part("NG"), site.client("ann")
    shapes = [
        grey(client.get(f"/picture/{record.record_id}/top.jpg", params={"w": width}).content).shape[1]
        for width in ("100", "320", "9999", "-1", "x")
    ]
    assert [160, 320, 640, 640, 640] == shapes


def test_findings_are_outlined_where_they_are(site: Site, seen: dict[str, Seen]) -> None:
    """With marks the picture differs from the plain one around each counted finding, and nowhere far from all."""
    record, client = site.add_part("NG4"), site.client("ann")
    plain, marked = (
        grey(client.get(f"/picture/{record.record_id}/top.jpg", params={"w": 640, "marks": marks}).content).astype(int)
        for marks in ("0", "1")
    )
    different = np.abs(plain - marked) > 40
    far = np.ones_like(different)
    for finding in counted(record):
        x1, y1, x2, y2 = (round(side) for side in finding.detection.region.xyxy_px)
        around = np.s_[max(0, y1 - 40) : y2 + 12, max(0, x1 - 40) : x2 + 12]
        assert different[around].any()
        far[around] = False
    assert 4 == len(counted(record))
    assert not (different & far).any()


def test_golden_beside_a_finding_shows_the_same_place(site: Site) -> None:
    """The golden is laid over the frame: both cut-outs are alike but for the defect."""
    record, client = site.add_part("NG"), site.client("ann")
    for finding in counted(record):
        frame, golden = (
            grey(client.get(f"/finding/{record.record_id}/{finding.index}/{side}").content)
            for side in ("frame", "golden")
        )
        assert frame.shape == golden.shape
        assert alike(frame, golden) > 0.7
        assert np.abs(frame.astype(int) - golden.astype(int)).max() > 60  # the defect


def test_golden_is_that_of_the_version_that_judged(site: Site) -> None:
    """After a new version came into force, an old record is shown with its own golden, or none is shown."""
    record, client = site.add_part("NG"), site.client("ann")
    recipe = Path(site.config.recipe)
    kept = recipe.parent / ".versions" / "demo-pcb" / record.recipe_sha256[:16]
    shutil.copytree(recipe, kept)
    blank = np.full_like(read_grey(recipe / "golden.png"), 128)
    cv2.imwrite(str(recipe / "golden.png"), blank)
    seal(recipe)
    assert 200 == client.get(f"/golden/{record.record_id}/top.jpg").status_code
    shutil.rmtree(kept)
    other = site.add_part("NG", change=lambda made: replace(made, recipe_sha256="0" * 64))
    for one in (record, other):
        answer = client.get(f"/finding/{one.record_id}/0/golden?w=480", headers={"Accept": "application/json"})
        assert (404, "no_recipe") == (answer.status_code, answer.json()["word"])


def test_golden_that_was_changed_is_not_shown(site: Site) -> None:
    """A golden that is not what the lock says is refused."""
    record = site.add_part("NG")
    path = Path(site.config.recipe) / "golden.png"
    path.write_bytes(path.read_bytes() + b"x")
    answer = site.client("ann").get(f"/golden/{record.record_id}/top.jpg", headers={"Accept": "application/json"})
    assert (404, "recipe_changed") == (answer.status_code, answer.json()["word"])


def test_no_golden_is_asked_for_where_the_recipe_has_none(site: Site) -> None:
    """The operator's page and that of a part show the finding alone, and ask for no picture that cannot be."""
    recipe, client = Path(site.config.recipe), site.client("ann")
    before = site.add_part("NG")
    assert f"/finding/{before.record_id}/0/golden" in client.get(f"/part/{before.record_id}").text
    toml = recipe / "recipe.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace('golden = "golden.png"', 'golden = ""'), encoding="utf-8")
    sha256 = write_lock(recipe)
    record = site.add_part("NG", change=lambda made: replace(made, recipe_sha256=sha256))
    with saying(site):
        for path in ("/", f"/part/{record.record_id}"):
            text = until(lambda path=path: record.record_id in (shown := client.get(path).text) and shown)
            assert f"/finding/{record.record_id}/0/frame" in text
            assert "/golden" not in text.replace(f"/golden/{before.record_id}", "")


def skipped(record: Record) -> Record:
    return replace(record, evidence="skipped: queue full")


def climbing(record: Record) -> Record:
    return replace(record, evidence="../../../etc/passwd")


def no_frame(record: Record) -> Record:
    return replace(record, frame_ids=(), evidence="")


@pytest.mark.parametrize(
    ("verdict", "change", "word"),
    [("NG", skipped, "skipped"), ("NG", climbing, "not_written"), ("ERROR", no_frame, "no_frame"), ("OK", no_frame, "none")],
)  # fmt: skip
def test_missing_picture_says_why(site: Site, verdict: str, change: object, word: str) -> None:
    """A picture that is not there is a drawing with the reason, and JSON for a script."""
    old = utc_now().replace(year=2024)
    record = site.add_part(verdict, pictures=False, at=old, change=change)  # type: ignore[arg-type]
    client = site.client("ann")
    answer = client.get(f"/picture/{record.record_id}/top.jpg")
    assert (404, "image/svg+xml") == (answer.status_code, answer.headers["content-type"])
    assert b"<text" in answer.content
    told = client.get(f"/picture/{record.record_id}/top.jpg", headers={"Accept": "application/json"}).json()
    assert word == told["word"]


def test_recipes_that_cannot_be_read_leave_the_page_standing(site: Site) -> None:
    """A folder of recipes that is gone or a file costs the golden and nothing else."""
    record = site.add_part("NG")
    pictures = site.context.pictures
    broken = site.config.model_copy(update={"recipe": "/dev/null", "recipes": str(site.folder / "gone")})
    pictures.recipes._config = broken
    assert ("top",) == pictures.roles(record)
    client = site.client("ann")
    assert 200 == client.get(f"/picture/{record.record_id}/top.jpg?marks=1").status_code
    assert 404 == client.get(f"/golden/{record.record_id}/top.jpg").status_code


def test_hostile_names_lead_nowhere(site: Site) -> None:
    """Names in an address are looked for among what the record has, and are no paths."""
    own = site.add_part("NG", at=utc_now().replace(year=2024)).record_id
    client = site.client("ann")
    for path in (
        "/picture/none/top.png", f"/picture/{own}/..%2f..%2fetc%2fpasswd", f"/picture/{own}/side.png",
        f"/finding/{own}/99/frame", f"/finding/{own}/0/else", f"/golden/{own}/side.jpg", f"/heat/{own}/side.jpg",
        f"/picture/{own}/%00.png",
    ):  # fmt: skip
        assert 404 == client.get(path).status_code, path


def test_model_without_a_heat_map_says_so(site: Site) -> None:
    """A model of places has no heat map: a sentence says that."""
    client = site.client("ann")
    record = site.add_part("NG")
    told = client.get(f"/heat/{record.record_id}/top.jpg", headers={"Accept": "application/json"})
    assert (404, "no_heat") == (told.status_code, told.json()["word"])


def test_part_page_offers_no_heat_map_where_there_is_none(site: Site) -> None:
    """A button that could only refuse is not shown; where the model cannot be known it is, and says why."""
    client = site.client("ann")
    record = site.add_part("NG")
    shown = client.get(f"/part/{record.record_id}").text
    assert f"/golden/{record.record_id}/top.jpg" in shown
    assert "/heat/" not in shown
    lost = site.add_part("NG", change=lambda one: replace(one, recipe_sha256="0" * 64))
    assert f"/heat/{lost.record_id}/top.jpg" in client.get(f"/part/{lost.record_id}").text


@pytest.mark.parametrize(
    ("keep", "word"), [("not-ok", "ok_not_kept"), ("not-ok-and-sample", "ok_not_drawn"), ("all", "none")]
)
def test_good_part_without_a_picture_says_by_which_rule(site: Site, keep: str, word: str) -> None:
    """Why an OK part has no picture depends on what the station keeps: nothing, those drawn for review, or all."""
    record = site.add_part("OK", pictures=False)
    evidence = site.config.evidence.model_copy(update={"keep": keep})
    site.context.pictures.config = site.config.model_copy(update={"evidence": evidence})
    told = site.client("ann").get(f"/picture/{record.record_id}/top.png", headers={"Accept": "application/json"})
    assert (404, word) == (told.status_code, told.json()["word"])


def test_heat_map_of_a_casting(site: Site, root: Path) -> None:
    """The heat map is made by the very model that judged, and is hot in some places only."""
    casting = root / "deploy" / "recipes" / "demo-casting"
    rows = json.loads((casting / "selftest" / "expected.json").read_text(encoding="utf-8"))
    frame = read_grey(casting / "selftest" / next(row["frame"] for row in rows if row["verdict"] == "NG"))
    recipes = site.context.pictures.recipes
    recipes._config = site.config.model_copy(update={"recipe": str(casting)})
    record = site.add_part("NG", change=lambda made: replace(made, recipe_sha256=lock_sha256(casting)))
    heat, limit = recipes.heat(record, "top", frame)
    assert heat.max() >= limit > heat.min()


def test_late_result_is_shown(site: Site) -> None:
    """A part that missed its deadline is shown with the findings and the picture that came later."""
    whole = site.seen["NG"].record
    stored = site.add_part("NG")

    def late(record: Record) -> Record:
        result = LateResult(whole.judgement, whole.detections, (), utc_now(), ("f",), stored.evidence)
        return replace(
            record, judgement=error_judgement("station.deadline", "late"), detections=(), evidence="", late=result
        )

    record = late(stored)
    assert whole.detections == detections_of(record)
    assert 2 == len(counted(record))
    assert site.context.pictures.missing(record) is None


def test_picture_of_a_new_record_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence is written behind the line: a browser that is quicker gets the picture all the same."""
    monkeypatch.setattr("inspection.hmi.pictures.NEW_S", 3600.0)
    monkeypatch.setattr("inspection.hmi.pictures.UNWRITTEN_S", 60.0)
    stored = site.add_part("NG")
    folder = Path(site.config.evidence.folder)
    path = evidence_files(folder, stored.evidence)[0]
    hidden = path.rename(path.with_name("hidden"))
    client = site.client("ann")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get, f"/picture/{stored.record_id}/top.png")
        time.sleep(0.4)
        hidden.rename(path)
        assert 200 == asked.result(timeout=30).status_code


def test_nobody_sees_pictures_without_a_session(site: Site) -> None:
    """Pictures are for those who have logged in."""
    record = site.add_part("NG")
    assert (
        401
        == site.client().get(f"/picture/{record.record_id}/top.png", headers={"Accept": "application/json"}).status_code
    )


def test_damaged_picture_is_told(site: Site) -> None:
    """Half a file is not shown as a picture."""
    record = site.add_part("NG")
    path = evidence_files(Path(site.config.evidence.folder), record.evidence)[0]
    path.write_bytes(path.read_bytes()[:1000])
    answer = site.client("ann").get(f"/picture/{record.record_id}/top.jpg", headers={"Accept": "application/json"})
    assert (404, "damaged") == (answer.status_code, answer.json()["word"])


def entered(site: Site, record: Record) -> Path:
    """The picture of a record, with its row in the ledger as the station would have entered it."""
    folder = Path(site.config.evidence.folder)
    (path,) = evidence_files(folder, record.evidence)
    content = path.read_bytes()
    name = path.relative_to(folder).as_posix()
    row = Picture(
        record.record_id, name, hashlib.sha256(content).hexdigest(), len(content), record.judged_at.isoformat(),
        record.judgement.verdict.name,
    )  # fmt: skip
    with closing(EvidenceLedger(ledger_path(site.store_path))) as ledger:
        ledger.enter([row])
    return path


def retained(site: Site, keep: str) -> None:
    """One pass of retention over OK parts of any age."""
    rule = RetentionRule(verdicts=("OK",), after_days=0, keep=keep)  # type: ignore[arg-type]
    section = RetentionSection(rules=(rule,), budget_ms_per_s=1000, jpeg_level=75)
    with closing(Retention(site.config.model_copy(update={"retention": section}), Stop())) as retention:
        retention.one_pass()


def test_deleted_picture_says_by_which_rule_and_when(site: Site) -> None:
    """A picture that retention deleted is not simply missing; one that is gone without a tombstone is."""
    deleted, gone = (site.add_part("OK", at=utc_now() - timedelta(minutes=5)) for _ in range(2))
    entered(site, deleted)
    days = {f"{utc_now():%Y-%m-%d}"}
    retained(site, "nothing")
    days.add(f"{utc_now():%Y-%m-%d}")
    entered(site, gone).unlink()
    client = site.client("ann")
    told, other = (
        client.get(f"/picture/{record.record_id}/top.jpg", headers={"Accept": "application/json"}).json()
        for record in (deleted, gone)
    )
    assert ("deleted", "missing") == (told["word"], other["word"])
    assert "rule 1: OK after 0 days keep nothing" in told["what"]
    assert any(day in told["what"] for day in days)


def test_compressed_picture_is_shown_and_called_so(site: Site) -> None:
    """The page of the part says that a JPEG is left, by which rule, and shows it."""
    record = site.add_part("OK", at=utc_now() - timedelta(minutes=5))
    path = entered(site, record)
    client = site.client("ann")
    before = grey(client.get(f"/picture/{record.record_id}/top.png").content)
    retained(site, "compressed")
    assert not path.exists()
    answer = client.get(f"/picture/{record.record_id}/top.png")
    assert (200, "image/jpeg") == (answer.status_code, answer.headers["content-type"])
    assert alike(before, grey(answer.content)) > 0.95
    text = client.get(f"/part/{record.record_id}").text
    assert "compressed" in text
    assert "rule 1: OK after 0 days keep compressed" in text


def test_altered_picture_is_not_shown(site: Site) -> None:
    """A whole picture that is not the one that was written is refused as evidence, also after it was shown before."""
    record = site.add_part("NG", at=utc_now() - timedelta(minutes=5))
    path, client = entered(site, record), site.client("ann")
    assert 200 == client.get(f"/picture/{record.record_id}/top.jpg").status_code
    write_png(path, np.zeros((640, 640), np.uint8))
    told = client.get(f"/picture/{record.record_id}/top.jpg", headers={"Accept": "application/json"})
    assert (404, "altered") == (told.status_code, told.json()["word"])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=80))
def test_cache_never_outgrows_its_limit(asked: list[tuple[int, int]]) -> None:
    """Whatever is asked for, it is given, and what is kept stays within the bytes allowed."""
    cache: ByteCache[bytes] = ByteCache(100, len)
    for key, size in asked:
        made = cache.get((key, size), lambda size=size: bytes(size))  # type: ignore[misc]
        assert size == len(made)
        assert cache.bytes <= 100


@given(st.floats(-50, 700), st.floats(-50, 700), st.floats(0.1, 900), st.integers(1, 700), st.integers(1, 700))
def test_cut_out_lies_within_the_frame(x: float, y: float, side: float, width: int, height: int) -> None:
    """Around a finding at any place and of any size there is a window within the frame."""
    x1, y1, x2, y2 = window_around((x, y, x + side, y + side / 2), (height, width))
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height


def test_widths_are_few() -> None:
    """A request cannot have a picture made in each of thousands of sizes."""
    assert {width_for(wanted) for wanted in range(0, 5000)} <= set(WIDTHS)


@given(st.text(max_size=400))
def test_placeholder_takes_any_text(text: str) -> None:
    """Whatever a record holds, the drawing stays a drawing."""
    drawn = ElementTree.fromstring(placeholder(text))
    assert drawn.tag.endswith("svg")
    assert not list(drawn.iter("{http://www.w3.org/2000/svg}script"))


def test_findings_are_numbered_once(seen: dict[str, Seen]) -> None:
    """A finding that two reasons name has one number."""
    record = seen["NG4"].record
    doubled = replace(record, judgement=Judgement(Verdict.NG, record.judgement.reasons * 2))
    assert [1, 2, 3, 4] == [finding.number for finding in counted(doubled)]
