"""What a station promises a line: deadlines, changeover, cameras that go away, serials, health for others to see."""

import json
import os
import shutil
import socket
import urllib.request

import numpy as np
import pytest
from line_bench import (
    FOLDER,
    Bench,
    answers,
    found,
    free_port,
    modbus_line,
    run_until_finished,
    simulated_line,
    until,
)

from inspection.config import load_station
from inspection.errors import ConfigError, ControllerError
from inspection.images import write_png
from inspection.shelf import Refusal, Shelf
from inspection.types import Record, Verdict
from tools.jumping_clock import JumpingClock


@pytest.fixture
def frames(bench: Bench) -> None:
    """A good and a defective board for any serial that begins so."""
    bench.frame("G1", bench.sealed_frame("OK"))
    bench.frame("N1", bench.sealed_frame("NG"))


def renamed(name: str, **numbers: int) -> "type[str]":
    """A change of recipe.toml: its id, and further top-level numbers."""

    def change(text: str) -> str:
        more = "".join(f"{key} = {value}\n" for key, value in numbers.items())
        return more + text.replace('recipe_id = "demo-pcb"', f'recipe_id = "{name}"')

    return change  # type: ignore[return-value]


# ---- deadline


def test_a_result_after_the_deadline_is_error_and_the_truth_is_kept(bench: Bench, frames: None) -> None:
    """The controller hears ERROR when the deadline passes; the record carries the true result beside it."""
    recipe = bench.recipe("fast", renamed("fast", deadline_ms=10))
    records = bench.play(bench.config(simulated_line("N1", "G1"), recipe=recipe))
    assert [record.judgement.verdict for record in records] == [Verdict.ERROR] * 2
    assert {record.judgement.reasons[0].rule_id for record in records} == {"station.deadline"}
    stored = bench.records()
    assert [record.late is not None for record in stored] == [True, True]
    assert [record.late.judgement.verdict for record in stored if record.late] == [Verdict.NG, Verdict.OK]
    assert [record.judgement.verdict for record in stored] == [Verdict.ERROR] * 2


def test_a_late_part_is_finished_before_the_next_is_accepted(bench: Bench, frames: None) -> None:
    """A part that missed its deadline never costs the next one its own result."""
    recipe = bench.recipe("fast", renamed("fast", deadline_ms=10))
    serials = ("N1", "G1") * 5
    bench.play(bench.config(simulated_line(*serials), recipe=recipe))
    true = [record.late.judgement.verdict for record in bench.records() if record.late]
    assert true == [Verdict.NG, Verdict.OK] * 5


def test_a_late_result_that_comes_while_the_error_is_stored_is_kept(bench: Bench, frames: None) -> None:
    """However long the disk takes for the record that the deadline passed, the true result stands beside it."""
    recipe = bench.recipe("fast", renamed("fast", deadline_ms=10))
    station = bench.station(bench.config(simulated_line("N1", "G1", "N1", "G1"), recipe=recipe))
    station.open()
    commit = station.store.commit

    def slow_commit(record: Record) -> None:
        commit(record)
        until(lambda: not station.inspector.busy)

    station.store.commit = slow_commit  # type: ignore[method-assign]
    run_until_finished(station)
    station.close()
    true = [record.late.judgement.verdict for record in bench.records() if record.late]
    assert true == [Verdict.NG, Verdict.OK] * 2


# ---- changeover


def test_each_part_is_judged_by_the_recipe_it_asks_for(bench: Bench, frames: None) -> None:
    """A recipe id that differs from the one in force changes over between two parts."""
    shelf = bench.folder / "recipes"
    shelf.mkdir()
    for name in ("first", "second"):
        bench.recipe(f"recipes/{name}", renamed(name))
    config = bench.config(
        simulated_line("G1", "N1", more='recipe_id = "second"'), recipe=shelf / "first", top='recipes = "recipes"'
    )
    records = bench.play(config)
    assert [record.recipe_id for record in records] == ["second", "second"]
    assert [record.judgement.verdict for record in records] == [Verdict.OK, Verdict.NG]


@pytest.mark.parametrize("asked", ["unknown", "../first", "a/b", "second "])
def test_an_unknown_recipe_is_error_and_the_old_one_stays(bench: Bench, frames: None, asked: str) -> None:
    """A part that asks for a recipe that is not there is ERROR; nothing outside the recipes folder is ever looked at."""
    bench.recipe("first", renamed("first"))
    (bench.folder / "recipes").mkdir()
    config = bench.config(
        simulated_line("G1", more=f"recipe_id = {json.dumps(asked)}"),
        recipe=bench.folder / "first", top='recipes = "recipes"',
    )  # fmt: skip
    station = bench.station(config)
    station.open()
    run_until_finished(station)
    assert [reason.rule_id for reason in answers(station)[0].judgement.reasons] == ["recipe.unknown"]
    assert station.recipe.recipe_id == "first"


def test_a_recipe_with_a_broken_lock_never_comes_into_force(bench: Bench, frames: None) -> None:
    """A recipe that was changed after sealing is refused with its reason, and with `hold` no part is accepted then."""
    bench.recipe("first", renamed("first"))
    (bench.folder / "recipes").mkdir()
    broken = bench.recipe("recipes/broken", renamed("broken"))
    (broken / "recipe.toml").write_text((broken / "recipe.toml").read_text() + "\n# changed\n")
    more = 'recipe_id = "broken"'
    config = bench.config(
        simulated_line("G1", more=more), recipe=bench.folder / "first",
        top='recipes = "recipes"\nrefused_recipe = "hold"',
    )  # fmt: skip
    station = bench.station(config)
    station.open()
    states = set()
    station.run(lambda: states.add(station.state.name) or "INITIALIZED" in states)
    reason = answers(station)[0].judgement.reasons[0]
    assert reason.rule_id == "recipe.refused"
    assert "recipe.toml was changed" in reason.text
    assert station.recipe.recipe_id == "first"


def test_a_recipe_sealed_anew_is_loaded_anew(bench: Bench, frames: None) -> None:
    """What was promoted on disk is loaded in the background; until it is there, the version in memory judges."""
    from inspection.recipe import seal

    (bench.folder / "recipes").mkdir()
    other = bench.recipe("recipes/other", renamed("other"))
    bench.recipe("first", renamed("first"))
    shelf = Shelf(
        load_station(bench.config(simulated_line("G1"), recipe=bench.folder / "first", top='recipes = "recipes"'))
    )
    before = shelf.take("other").sha256
    assert shelf.take("other").sha256 == before
    toml = other / "recipe.toml"
    toml.write_text(toml.read_text().replace('product = "demo-pcb"', 'product = "newer"'), encoding="utf-8")
    seal(other)
    assert shelf.take("other").sha256 == before
    shelf.watch()
    try:
        ended = until(shelf.finished)
        assert [(one.recipe_id, one.refusal, one.renewed) for one in ended] == [("other", None, True)]
        assert shelf.take("other").sha256 != before
    finally:
        shelf.close()


def test_recipes_are_prepared_in_the_background(bench: Bench, frames: None) -> None:
    """A prepared recipe is at hand without a pause; one that is refused names its reason."""
    (bench.folder / "recipes").mkdir()
    bench.recipe("recipes/other", renamed("other"))
    bench.recipe("first", renamed("first"))
    shelf = Shelf(
        load_station(bench.config(simulated_line("G1"), recipe=bench.folder / "first", top='recipes = "recipes"'))
    )
    assert shelf.ids() == ("first", "other")
    shelf.prepare("other")
    shelf.prepare("nowhere")
    ended: dict[str, object] = {}
    until(lambda: ended.update((one.recipe_id, one.refusal) for one in shelf.finished()) or len(ended) == 2)
    assert ended["other"] is None
    assert ended["nowhere"] is not None
    with pytest.raises(Refusal, match="no recipe 'nowhere'"):
        shelf.take("nowhere")
    shelf.close()


# ---- cameras


def two_views(text: str) -> str:
    head, view = text.split("[views.top]", 1)
    return head + "[views.top]" + view + "\n[views.side]" + view.replace("views.top", "views.side")


def test_two_cameras_judge_one_part(bench: Bench) -> None:
    """A defect in either view makes the part NG, and the record names both frames and the view of each finding."""
    for role in ("top", "side"):
        (bench.folder / role).mkdir()
    good, bad = bench.sealed_frame("OK"), bench.sealed_frame("NG")
    for serial, top, side in (("A", good, good), ("B", good, bad), ("C", bad, good)):
        write_png(bench.folder / "top" / f"{serial}.png", top)
        write_png(bench.folder / "side" / f"{serial}.png", side)
    recipe = bench.recipe("two", two_views)
    camera = 'kind = "folder"\nfolder = "top"\n[cameras.side]\nkind = "folder"\nfolder = "side"'
    records = bench.play(
        bench.config(simulated_line("A", "B", "C"), camera=camera, recipe=recipe, evidence='keep = "all"')
    )
    assert [record.judgement.verdict for record in records] == [Verdict.OK, Verdict.NG, Verdict.NG]
    assert {found.camera for found in records[1].judgement.reasons[0].detections} == {"side"}
    assert {found.camera for found in records[2].judgement.reasons[0].detections} == {"top"}
    assert all(len(record.frame_ids) == 2 for record in records)
    names = {path.name.rpartition("_")[2] for path in (bench.folder / "evidence").rglob("*.png")}
    assert names == {"top.png", "side.png"}


def test_a_missing_second_frame_is_error(bench: Bench, frames: None) -> None:
    """A part of which one camera gave no frame is never passed."""
    (bench.folder / "side").mkdir()
    write_png(bench.folder / "side" / "X.png", bench.sealed_frame("OK"))
    camera = f'{FOLDER}\n[cameras.side]\nkind = "simulated"\nfaults = [{{every_n = 1, kind = "missing"}}]'
    recipe = bench.recipe("two", lambda text: "deadline_ms = 400\n" + two_views(text))
    (answer,) = bench.play(bench.config(simulated_line("G1"), camera=camera, recipe=recipe))
    assert answer.judgement.verdict == Verdict.ERROR
    assert [reason.rule_id for reason in found(bench.records()[0]).reasons] == ["camera.timeout"]


def test_a_recipe_that_wants_a_camera_this_station_lacks_is_refused(bench: Bench, frames: None) -> None:
    """A view without its camera is a mistake that is told before the first part."""
    recipe = bench.recipe("two", two_views)
    with pytest.raises(ConfigError, match="looks through camera 'side'"):
        bench.station(bench.config(simulated_line("G1"), recipe=recipe))


# ---- health for others to see


def test_metrics_are_served_on_loopback(bench: Bench, frames: None) -> None:
    """Prometheus reads parts by verdict, state and cameras."""
    port = free_port()
    station = bench.station(bench.config(simulated_line("G1", "N1"), top=f"metrics_port = {port}"))
    station.open()
    run_until_finished(station)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
        text = reply.read().decode()
    assert 'lineside_parts_total{verdict="OK"} 1.0' in text
    assert 'lineside_parts_total{verdict="NG"} 1.0' in text
    assert 'lineside_state{state="halted"} 1.0' in text
    assert 'lineside_camera_up{camera="top"} 1.0' in text


def test_a_taken_metrics_port_is_a_device_error(bench: Bench, frames: None) -> None:
    """The port is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        station = bench.station(bench.config(simulated_line("G1"), top=f"metrics_port = {port}"))
        with pytest.raises(ControllerError, match=str(port)):
            station.open()


def test_systemd_is_told_ready_alive_and_stopping(bench: Bench, frames: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service of Type=notify with a watchdog sees the station's states."""
    address = bench.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(120)
        monkeypatch.setitem(os.environ, "NOTIFY_SOCKET", str(address))
        child = bench.start(bench.config(modbus_line(free_port()))).ready()
        try:
            told = [systemd.recv(4096).decode()]
            while "WATCHDOG=1" not in told:
                told.append(systemd.recv(4096).decode())
            child.ask_to_stop()
            while told[-1] != "STOPPING=1":  # read on: the socket holds only so many
                told.append(systemd.recv(4096).decode())
            assert child.ended() == 0
        finally:
            child.close()
    assert told[0].startswith("READY=1")


def test_a_clock_that_is_set_back_changes_no_verdict_and_no_duration(
    bench: Bench, frames: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines and durations are measured on a clock that cannot jump; only the dates of records follow the system's."""
    if shutil.which("gcc") is None:
        pytest.skip("the clock of a program is set by a small library: apt install gcc libc6-dev")
    clock = JumpingClock(bench.folder)
    for name, value in clock.environment.items():
        monkeypatch.setitem(os.environ, name, value)
    # More parts than it will judge: it must not be at its end before the clock has jumped.
    child = bench.start(bench.config(simulated_line(*["G1", "N1"] * 1500, more="interval_ms = 100")))
    try:
        for seconds in (-7200, 86400, -86400, 0):
            wanted = len(child.events("part.judged")) + 4
            until(lambda wanted=wanted: len(child.events("part.judged")) >= wanted)
            clock.jump(seconds)
        wanted = len(child.events("part.judged")) + 4
        until(lambda: len(child.events("part.judged")) >= wanted)
        assert child.stop() == 0
    finally:
        child.close()
    records = bench.records()
    wanted_verdicts = [Verdict.OK, Verdict.NG] * len(records)
    assert [record.judgement.verdict for record in records] == wanted_verdicts[: len(records)]
    assert all(0 < dict(record.stage_ms)["total"] < 60_000 for record in records)
    assert np.ptp([record.judged_at.timestamp() for record in records]) > 3600
