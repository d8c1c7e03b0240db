"""`lineside calibrate` on a model whose score is the brightness of the picture, so that every score is known."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from torch import Tensor, nn  # noqa: E402

from datasets.manifest import Dataset, Origin, make_dataset, write_dataset  # noqa: E402
from datasets.sample import Sample, Split  # noqa: E402
from inspection.errors import UsageError  # noqa: E402
from inspection.images import write_png  # noqa: E402
from inspection.model import ModelCard, Task, TrainedOn, load_model  # noqa: E402
from inspection.predict import Request, card_criteria, predict  # noqa: E402
from training.calibrate import Calibrated, as_text, calibrate, pick  # noqa: E402
from training.cli import add_calibrate  # noqa: E402
from training.export import export_onnx  # noqa: E402
from training.graphs import planes  # noqa: E402
from training.promise import Wish  # noqa: E402

GOOD, BAD, UNREADABLE = 0.2, 0.8, 0.0


class Brightness(nn.Module):
    """Scores (N, 1) or score (N): the mean of the image; heat map: the image."""

    def __init__(self, anomaly: bool) -> None:
        super().__init__()
        self.anomaly = anomaly

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        heat = planes(image)[:, 0]
        score = heat.mean((1, 2))
        return (score if self.anomaly else torch.stack([score, 0 * score], 1)), heat


def make_model(path: Path, *, anomaly: bool = False, seen: tuple[str, ...] = ("0" * 12,)) -> Path:
    """A model of the classes scratch and dent - which it never sees - or an anomaly model."""
    task: Task = "anomaly" if anomaly else "classify"
    card = ModelCard(
        name="brightness", task=task, classes=("anomaly",) if anomaly else ("scratch", "dent"), golden_guided=False,
        threshold=0.6, threshold_from="a test", trained_on=TrainedOn(source="nothing", images_sha256=seen), trainer="none",
        trainer_licence="Apache-2.0", command="a test", seed=0, trained_minutes=0,
    )  # fmt: skip
    export_onnx(Brightness(anomaly), card, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


def part(folder: Path, name: str, score: float, *, bad: bool, split: Split = "val", group: str = "") -> Sample:
    """A part that the model scores so."""
    noise = np.random.default_rng(sum(name.encode())).integers(-30, 31, (32, 32))
    image = np.clip(255 * score + (noise - noise.mean()) * (score > 0), 0, 255).astype(np.uint8)
    path = folder / f"{name}.png"
    write_png(path, image)
    return Sample(path, None, (), group or name, split, name, "scratch" if bad else "")


def lot(folder: Path, bad: Sequence[float], good: Sequence[float], **common: str) -> Dataset:
    """A dataset of defective and good parts with these scores."""
    samples = [part(folder, f"b{n}", s, bad=True, **common) for n, s in enumerate(bad)]  # type: ignore[arg-type]
    samples += [part(folder, f"g{n}", s, bad=False, **common) for n, s in enumerate(good)]  # type: ignore[arg-type]
    return make_dataset("lot", samples, classes=("scratch", "dent"), origin=Origin("test", "made here"))


def calibrated(
    model: Path, dataset: Dataset, wish: Wish, *, split: str = "val", allow_seen: bool = False
) -> Calibrated:
    loaded = load_model(model, threads=1)
    samples, digests = pick(dataset, split=split, groups=(), card=loaded.card, allow_seen=allow_seen)
    return calibrate(loaded, samples, digests, wish, dataset, split)


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_calibrate(parser.add_subparsers())
    args = parser.parse_args(["calibrate", *map(str, words)])
    return int(args.func(args))


def test_promise_goes_into_the_card(model: Path, pictures: Path) -> None:
    """59 defective parts without a miss: 5 % at 95 %, with the limit between the two kinds of parts."""
    made = calibrated(model, lot(pictures, [BAD] * 59, [GOOD] * 20), Wish(0.05))
    card, claim = made.card, made.card.calibration
    assert made.kept
    assert claim is not None
    assert (claim.escape_bound, claim.defective, claim.escapes, claim.good, claim.overkill) == (0.05, 59, 0, 20, 0)
    assert "At most 5 % of defective parts pass as OK, with 95 % confidence (0 of 59 defective parts" in claim.statement
    assert card.escape_bound in claim.statement
    assert "val of lot" in card.threshold_from
    scratch, dent = card.limits
    assert GOOD < scratch.review_score == scratch.ng_score < BAD
    assert card.threshold == min(scratch.ng_score, dent.ng_score)


def test_class_that_no_part_shows_is_named(model: Path, pictures: Path) -> None:
    """It keeps the model's limit, and no claim covers it."""
    made = calibrated(model, lot(pictures, [BAD] * 59, [GOOD] * 20), Wish(0.05))
    assert made.card.calibration is not None
    assert made.card.calibration.not_covered == ("dent",)
    assert (made.card.limits[1].ng_score, made.report["classes"][1]["bound"]) == (0.6, None)
    assert "No part shows dent" in made.report["statement"]


def test_too_few_defective_parts_get_limits_but_no_claim(model: Path, pictures: Path) -> None:
    """The statement says how many are missing."""
    made = calibrated(model, lot(pictures, [BAD] * 20, [GOOD] * 20), Wish(0.05))
    assert not made.kept
    assert made.card.calibration is not None
    assert (made.card.calibration.escape_bound, made.card.escape_bound) == (None, "")
    assert "20 defective parts are too few; 5 % at 95 % confidence needs 59 without a miss, 39 more" in as_text(made)
    assert GOOD < made.card.limits[0].ng_score < BAD


def test_good_parts_alone_claim_overkill_and_say_that_escapes_are_unknown(pictures: Path, tmp_path: Path) -> None:
    """An anomaly model in a plant that has no defective part."""
    model = make_model(tmp_path / "anomaly.onnx", anomaly=True)
    dataset = lot(pictures, [], [0.2 + 0.001 * n for n in range(59)])
    made = calibrated(model, dataset, Wish(0.05, overkill_rate=0.05))
    assert not made.kept
    assert made.card.calibration is not None
    assert (made.card.calibration.escape_bound, made.card.calibration.overkill_bound) == (None, 0.05)
    assert "No escape rate is claimed: there is no defective part" in made.report["statement"]
    assert "At most 5 % of good parts are rejected" in made.report["statement"]
    assert made.card.limits[0].ng_score > 0.258
    with pytest.raises(UsageError, match="all good"):
        calibrated(model, dataset, Wish(0.05))


def test_too_few_good_parts_say_how_many_are_needed(pictures: Path, tmp_path: Path) -> None:
    """Ten good parts cannot show 1 %."""
    model = make_model(tmp_path / "anomaly.onnx", anomaly=True)
    made = calibrated(model, lot(pictures, [], [GOOD] * 10), Wish(0.05, overkill_rate=0.01))
    assert "10 good parts are too few; 1 % at 95 % confidence needs 299, 289 more" in made.report["statement"]


def test_any_defect_is_an_anomaly(pictures: Path, tmp_path: Path) -> None:
    """The classes of the dataset need not be known to an anomaly model."""
    model = make_model(tmp_path / "anomaly.onnx", anomaly=True)
    made = calibrated(model, lot(pictures, [BAD] * 59, [GOOD] * 5), Wish(0.05))
    assert made.kept
    assert made.report["classes"][0]["defective"] == 59


def test_parts_seen_in_training_are_refused_or_cost_the_claim(pictures: Path, tmp_path: Path) -> None:
    """Whether the card knows the image or the dataset calls it train."""
    dataset = lot(pictures, [BAD] * 59, [GOOD] * 5)
    knows = make_model(tmp_path / "knows.onnx", seen=tuple(d.image[:12] for d in dataset.digests[:1]))
    count = sum(digest.image == dataset.digests[0].image for digest in dataset.digests)
    with pytest.raises(UsageError, match=f"{count} of the 64 samples"):
        calibrated(knows, dataset, Wish(0.05))
    made = calibrated(knows, dataset, Wish(0.05), allow_seen=True)
    assert not made.kept
    assert f"No escape rate is claimed: {count} of the 64 samples were seen in training" in made.report["statement"]
    new = make_model(tmp_path / "new.onnx")
    with pytest.raises(UsageError, match="64 of the 64 samples"):
        calibrated(new, lot(pictures, [BAD] * 59, [GOOD] * 5, split="train"), Wish(0.05), split="train")


def test_groups_are_what_counts(model: Path, pictures: Path) -> None:
    """Sixty pictures of one lot are one; counted part by part the statement says what that means."""
    dataset = lot(pictures, [BAD] * 60, [GOOD] * 5, group="one lot")
    made = calibrated(model, dataset, Wish(0.05))
    assert not made.kept
    assert "1 group with defective parts are too few" in made.report["statement"]
    assert "part by part 0 passed (bound 4.87 %" in made.report["statement"]
    made = calibrated(model, dataset, Wish(0.05, count="parts"))
    assert made.kept
    assert "lie in 1 groups and were counted as independent" in made.report["statement"]


def test_defective_part_that_cannot_be_judged_is_no_proof(model: Path, pictures: Path) -> None:
    """A black frame is refused by the image-quality gate: 59 parts of which one was refused are 58."""
    made = calibrated(model, lot(pictures, [BAD] * 58 + [UNREADABLE], [GOOD] * 5), Wish(0.05))
    assert not made.kept
    assert (made.report["defective"], made.report["errors"]) == (58, 1)
    assert "1 parts could not be judged" in made.report["statement"]


def test_review_band_takes_what_neither_promise_allows(model: Path, pictures: Path) -> None:
    """Where both kinds score alike, parts between the limits are passed by no one but a person."""
    rng = np.random.default_rng(0)
    dataset = lot(pictures, rng.uniform(0.4, 0.8, 120), rng.uniform(0.2, 0.6, 120))
    made = calibrated(model, dataset, Wish(0.05, overkill_rate=0.05))
    assert made.kept
    assert made.card.limits[0].review_score < made.card.limits[0].ng_score
    assert made.report["review"] > 0
    assert made.report["escapes"] <= 2
    assert made.report["overkill"] <= 2


def test_command_writes_a_model_that_judges_by_its_new_limits(model: Path, pictures: Path, tmp_path: Path) -> None:
    """The new file gives the verdicts that the report counts; exit 0 when kept, 1 when not; nothing is overwritten."""
    rng = np.random.default_rng(0)
    made = lot(pictures, rng.uniform(0.4, 0.8, 120), rng.uniform(0.2, 0.6, 200))
    dataset = write_dataset(tmp_path / "set", made)
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    asked = (model, tmp_path / "set", "--escape-rate", 0.05, "--cost-escape", 1, "--cost-overkill", 50, "-o", out)
    assert command(*asked, "--json", report) == 0
    told, loaded = json.loads(report.read_text()), load_model(out, threads=1)
    requests = [Request(sample.image, None) for sample in dataset.samples if sample.defective]
    said = [p.inspection.judgement.verdict.name for p in predict(loaded, requests, card_criteria(loaded))]
    assert told["escapes"] == said.count("OK") > 0
    assert told["classes"][0]["ng_score"] == loaded.card.limits[0].ng_score
    with pytest.raises(UsageError, match="exists already"):
        command(*asked)
    assert command(model, tmp_path / "set", "--escape-rate", 0.001, "-o", tmp_path / "other.onnx") == 1
    assert {"out.onnx", "other.onnx", "report.json", "set"} == {path.name for path in tmp_path.iterdir()}


def test_command_can_change_the_model_itself(pictures: Path, tmp_path: Path) -> None:
    """In place, the net stays and the card changes."""
    model = make_model(tmp_path / "model.onnx")
    before = load_model(model, threads=1).sha256
    write_dataset(tmp_path / "set", lot(pictures, [BAD] * 59, [GOOD] * 5))
    assert command(model, tmp_path / "set", "--escape-rate", 0.05, "--in-place") == 0
    after = load_model(model, threads=1)
    assert before != after.sha256
    assert after.card.calibration is not None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--escape-rate", "5"), "--escape-rate is 5"),
        (("--escape-rate", "0.05", "--cost-escape", "3"), "one cost alone"),
        (("--escape-rate", "0.05", "--defect-rate", "0.1"), "--defect-rate weighs costs"),
        (("--escape-rate", "0.05", "--split", "test"), "no sample of lot was chosen \\(10 in val\\)"),
        (("--escape-rate", "0.05", "--groups", "nowhere"), "no sample of lot was chosen"),
    ],
)
def test_command_refuses_nonsense(
    model: Path, pictures: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    """And writes nothing."""
    write_dataset(tmp_path / "lot", lot(pictures, [BAD] * 5, [GOOD] * 5))
    with pytest.raises(UsageError, match=says):
        command(model, tmp_path / "lot", "-o", tmp_path / "out.onnx", *words)
    assert not (tmp_path / "out.onnx").exists()


def test_escape_rate_has_no_default(model: Path, tmp_path: Path) -> None:
    """The plant says what it can live with."""
    with pytest.raises(SystemExit):
        command(model, tmp_path, "-o", tmp_path / "out.onnx")


def test_class_that_the_model_does_not_know_is_refused(model: Path, pictures: Path) -> None:
    """A defect that it cannot name cannot be promised."""
    sample = part(pictures, "strange", BAD, bad=True)
    odd = Sample(sample.image, None, (), "odd", "val", "odd", "rust")
    dataset = make_dataset("lot", [odd], classes=("rust",), origin=Origin("test", "made here"))
    with pytest.raises(UsageError, match="does not know the classes rust"):
        calibrated(model, dataset, Wish(0.05))
