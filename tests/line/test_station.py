"""A whole station, trigger to answer: every verdict, one record and one answer for each trigger."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest
from line_bench import Bench, Image, answers, found, run_until_finished, simulated_line

from inspection.evidence import evidence_files
from inspection.recipe import open_recipe
from inspection.store import Store
from inspection.types import Record, Trigger, Verdict, utc_now

VERDICTS = {
    "GOOD": ("OK", ""),
    "BAD": ("NG", "ng."),
    "TORN": ("ERROR", "camera.corrupt"),
    "BLACK": ("ERROR", "quality.brightness"),
    "EMPTY": ("ERROR", "quality.contrast"),
    "BLURRED": ("ERROR", "quality.sharpness"),
    "WRONG-BOARD": ("ERROR", "golden.registration"),
}


def lay_out(bench: Bench) -> None:
    """One frame for each verdict path."""
    good = bench.sealed_frame("OK")
    bench.frame("GOOD", good)
    bench.frame("BAD", bench.sealed_frame("NG"))
    bench.frame("BLACK", np.zeros_like(good))
    bench.frame("EMPTY", np.full_like(good, 120))
    bench.frame("BLURRED", cv2.GaussianBlur(good, (0, 0), 40).astype(np.uint8))
    bench.frame("WRONG-BOARD", np.ascontiguousarray(good[:, ::-1]))
    torn = bench.frame("TORN", good)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])


def first_rule(record: Record) -> str:
    return record.judgement.reasons[0].rule_id if record.judgement.reasons else ""


def outcomes(records: list[Record]) -> list[tuple[str, str]]:
    return [(record.judgement.verdict.name, first_rule(record)) for record in records]


@pytest.fixture(scope="module")
def shift(tmp_path_factory: pytest.TempPathFactory, demo_recipe: Path) -> Iterator[tuple[Bench, list[Record]]]:
    """One run over all frames, each part presented twice: the bench and the answers in order."""
    bench = Bench(tmp_path_factory.mktemp("shift"), demo_recipe)
    lay_out(bench)
    yield bench, bench.play(bench.config(simulated_line(*VERDICTS, more='faults = ["double"]')))
    bench.close()


@pytest.mark.parametrize("serial", VERDICTS)
def test_each_frame_gets_its_verdict(shift: tuple[Bench, list[Record]], serial: str) -> None:
    """A frame that shows a good part is OK, a defect NG, and whatever cannot be judged ERROR with the reason."""
    verdict, rule = VERDICTS[serial]
    (record,) = [record for record in shift[0].records() if record.trigger.serial == serial]
    assert (verdict, True) == (record.judgement.verdict.name, first_rule(record).startswith(rule))
    assert bool(record.judgement.reasons) == (verdict != "OK")


def test_each_trigger_has_one_record_and_each_presentation_that_answer(shift: tuple[Bench, list[Record]]) -> None:
    """A part presented again is answered from its record, field by field, and recorded once."""
    bench, given = shift
    records = bench.records()
    assert list(VERDICTS) == [record.trigger.serial for record in records]
    assert [record for record in records for _ in range(2)] == given
    assert bench.open_triggers() == 0


def test_records_name_what_judged_and_that_it_was_no_production(shift: tuple[Bench, list[Record]]) -> None:
    """Every record, those of failures too, carries recipe, model, station, total time, and that it was simulated."""
    bench, given = shift
    recipe = open_recipe(bench.sealed)
    for record in given:
        assert (recipe.sha256, recipe.model_sha256) == (record.recipe_sha256, record.model_sha256)
        assert ("bench-1", True) == (record.station_id, record.simulated)
        assert "total" in dict(record.stage_ms)


def test_a_part_that_is_not_ok_leaves_its_frame_as_evidence(shift: tuple[Bench, list[Record]]) -> None:
    """The frame is kept bit for bit for NG and ERROR; an OK part and a frame that never came leave none."""
    bench, _ = shift
    for record in bench.records():
        files = evidence_files(bench.folder / "evidence", record.evidence)
        assert len(files) == (record.trigger.serial not in ("GOOD", "TORN"))
        kept = bench.folder / "frames" / f"{record.trigger.serial}.png"
        assert all(file.read_bytes() == kept.read_bytes() for file in files)


def faint(bench: Bench) -> tuple[Image, float]:
    """A frame of which the model is neither sure that it is good nor that it is bad, and its score."""
    recipe = open_recipe(bench.sealed, threads=1)
    golden = bench.golden
    for strength in np.linspace(0.1, 0.9, 41):
        frame = golden.astype(np.float32)
        patch = frame[300:314, 300:314]
        frame[300:314, 300:314] = (1 - strength) * patch + strength * (255 - patch)
        image = frame.round().astype(np.uint8)
        score = max((found.score for found in recipe.inspect_image(image).detections), default=0.0)
        if 0.1 < score < 0.9:
            return image, score
    pytest.fail("no frame found that the model is unsure of")


def test_a_finding_between_the_thresholds_goes_to_review(bench: Bench) -> None:
    """A score above review_score and below ng_score of the recipe gives REVIEW."""
    image, score = faint(bench)

    def widen(toml: str) -> str:
        wide = toml.splitlines()
        wide = [f"ng_score = {min(0.95, score + 0.05)}" if line.startswith("ng_score") else line for line in wide]
        return "\n".join(f"review_score = {score - 0.05}" if line.startswith("review_score") else line for line in wide)

    bench.frame("FAINT", image)
    (answer,) = bench.play(bench.config(simulated_line("FAINT"), recipe=bench.recipe("wide", widen)))
    assert ("REVIEW", True) == (answer.judgement.verdict.name, first_rule(answer).startswith("review."))
    assert [answer] == bench.records()


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("missing", "camera.timeout"),
        ("late", "camera.timeout"),
        ("stale", "camera.timeout"),
        ("torn", "camera.corrupt"),
    ],
)
def test_a_camera_that_misbehaves_gives_error(bench: Bench, fault: str, rule: str) -> None:
    """No frame, a late one, the last part's frame and a torn one are never judged: each part is ERROR."""
    camera = (
        f'kind = "simulated"\nimage = "{bench.sealed / "golden.png"}"\nfaults = [{{every_n = 1, kind = "{fault}"}}]'
    )
    recipe = bench.recipe("hasty", lambda toml: toml.replace("[views.top]", "deadline_ms = 300\n[views.top]", 1))
    given = bench.play(bench.config(simulated_line("A", "B"), camera=camera, recipe=recipe))
    records = bench.records()
    assert [Verdict.ERROR] * 2 == [record.judgement.verdict for record in given]
    assert [("ERROR", rule)] * 2 == [(found(one).verdict.name, found(one).reasons[0].rule_id) for one in records]
    assert given == [record if record in given else replace(record, late=None) for record in records]
    assert all(record.simulated for record in given)


def test_the_simulated_camera_shows_a_good_part(bench: Bench) -> None:
    """The golden picture with sensor noise is OK."""
    camera = f'kind = "simulated"\nimage = "{bench.sealed / "golden.png"}"'
    given = bench.play(bench.config(simulated_line("A"), camera=camera))
    assert [("OK", "")] == outcomes(given)


def test_a_verdict_after_the_deadline_is_error(bench: Bench) -> None:
    """What was judged too late is not passed, whatever the judgement was; the findings and the frame are kept."""
    camera = f'kind = "simulated"\nimage = "{bench.sealed / "golden.png"}"'
    recipe = bench.recipe("hasty", lambda toml: toml.replace("[views.top]", "deadline_ms = 10\n[views.top]", 1))
    given = bench.play(bench.config(simulated_line("A"), camera=camera, recipe=recipe))
    assert [("ERROR", "station.deadline")] == outcomes(given)
    late = bench.records()[0].late
    assert late is not None
    assert evidence_files(bench.folder / "evidence", late.evidence)


def test_another_recipe_than_the_one_in_force_is_error(bench: Bench) -> None:
    """A part that asks for another recipe is not judged by this one."""
    lay_out(bench)
    given = bench.play(bench.config(simulated_line("GOOD", more='recipe_id = "other-board"')))
    assert [("ERROR", "recipe.unknown")] == outcomes(given)
    assert given == bench.records()


def test_a_camera_without_further_frames_gives_error(bench: Bench) -> None:
    """When the folder has been played, the following parts are ERROR, each with its record."""
    bench.frame("ONE", bench.sealed_frame("OK"))
    given = bench.play(bench.config('kind = "simulated"\nparts = 3'))
    assert [("OK", ""), ("ERROR", "camera.timeout"), ("ERROR", "camera.timeout")] == outcomes(given)
    assert given == bench.records()


def test_a_number_used_for_another_part_is_error_once(bench: Bench) -> None:
    """A sequence that an earlier part had gets an ERROR record of its own; both parts keep their one answer."""
    lay_out(bench)
    answer_to = {}
    for serial in ("GOOD", "BAD", "BAD", "GOOD"):
        (answer_to[serial],) = bench.play(bench.config(simulated_line(serial, more="run_number = 7")))
    first, second = bench.records()
    assert [("OK", ""), ("ERROR", "trigger.reused")] == outcomes([first, second])
    assert (first, second) == (answer_to["GOOD"], answer_to["BAD"])
    assert first.trigger.trigger_id == "00000007-0000000001"


def test_a_restart_records_error_for_what_was_cut_off(bench: Bench) -> None:
    """A part that was accepted and never recorded is ERROR after a restart, and is answered so."""
    lay_out(bench)
    cut = Trigger("00000007-0000000001", "GOOD", "SIM", "", utc_now(), sequence=1)
    store = Store(bench.store)
    store.accept(cut)
    store.close()
    given = bench.play(bench.config(simulated_line("GOOD", "BAD", more="run_number = 7")))
    assert [("ERROR", "station.restarted"), "NG"] == [outcomes(given)[0], given[1].judgement.verdict.name]
    assert given == bench.records()
    assert cut == given[0].trigger


class HeldImage(np.ndarray):
    """A picture that is only looked at when the gate opens: a disk that hangs."""

    gate: Event

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override,type-arg]
        self.gate.wait(60)
        return super().dtype


def test_a_full_evidence_queue_is_told_in_the_record(bench: Bench) -> None:
    """A part whose picture finds no room is judged all the same; its record says that there is no picture."""
    lay_out(bench)
    station = bench.station(bench.config(simulated_line("BAD", "BAD"), evidence="queue = 1"))
    station.open()
    held = np.zeros((8, 8), np.uint8).view(HeldImage)
    held.gate = Event()
    station.evidence.offer("held", "ballast", [("top", held)])
    run_until_finished(station)
    held.gate.set()
    given = answers(station)
    assert [Verdict.NG] * 2 == [record.judgement.verdict for record in given]
    assert ["skipped: queue full"] * 2 == [record.evidence for record in given]
    assert (given, 2) == (bench.records(), station.evidence.skipped)


def test_with_keep_all_an_ok_part_leaves_its_frame_too(bench: Bench) -> None:
    """The station config decides which parts leave a picture."""
    lay_out(bench)
    (answer,) = bench.play(bench.config(simulated_line("GOOD"), evidence='keep = "all"'))
    assert len(evidence_files(bench.folder / "evidence", answer.evidence)) == 1
