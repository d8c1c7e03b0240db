"""Training runs for parts without a golden, on pictures and for a time as small as they can be."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from datasets.manifest import Dataset, Origin, make_dataset, write_dataset  # noqa: E402
from datasets.sample import LabelledBox, Sample, Split  # noqa: E402
from inspection.errors import UsageError  # noqa: E402
from inspection.images import write_png  # noqa: E402
from inspection.model import ModelCard, load_model  # noqa: E402
from inspection.predict import Request, card_criteria, predict  # noqa: E402
from inspection.types import Verdict  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.run import run_training  # noqa: E402

SIDE = 72


def picture(seed: int, *, defective: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 40, (SIDE, SIDE)).astype(np.uint8)
    image[8:64, 8:64] = rng.integers(140, 160, (56, 56))
    if defective:
        image[30:42, 30:42] = rng.integers(0, 20, (12, 12))
    return image


def make_parts(folder: Path, *, boxes: bool, good: int = 8, bad: int = 8, held: int = 2) -> Dataset:
    """Good and defective parts with a class for the whole image, or with boxes; the first of each side are val."""
    folder.mkdir(exist_ok=True)
    samples = []
    for number in range(good + bad):
        defective = number >= good
        path = folder / f"{number}.png"
        write_png(path, picture(number, defective=defective))
        labels = (LabelledBox("pit", (30, 30, 42, 42)),) if defective and boxes else ()
        split: Split = "val" if number % max(good, 1) < held else "train"
        whole = "pit" if defective and not boxes else ""
        samples.append(Sample(path, None, labels, f"{number}", split, f"{number}", whole))
    made = make_dataset("parts", samples, classes=("pit", "never"), origin=Origin("test", "made here"))
    return write_dataset(folder / "dataset", made)


def config(folder: Path, product: str, **changes: object) -> TrainConfig:
    asked = {"crop_px": 96, "input_px": 64, "batch": 4, "workers": 0, "epochs": 0.002, "product": product}
    return TrainConfig(**{**asked, "data": folder / "dataset", "out": folder / product, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More threads would only wait for each other on crops this small."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A folder with a dataset of parts that are labelled as a whole."""
    folder = tmp_path_factory.mktemp("parts")
    return folder, make_parts(folder, boxes=False)


@pytest.fixture(scope="module")
def classifier(parts: tuple[Path, Dataset]) -> ModelCard:
    """The card of a classifier trained for a few steps."""
    return load_model(run_training(config(parts[0], "classify")), threads=1).card


@pytest.fixture(scope="module")
def anomaly(parts: tuple[Path, Dataset]) -> ModelCard:
    """The card of an anomaly model trained for a few steps."""
    return load_model(run_training(config(parts[0], "anomaly")), threads=1).card


def test_classifier_judges_parts_and_shows_where(parts: tuple[Path, Dataset], classifier: ModelCard) -> None:
    """Every picture gets a verdict with a heat map; the class that no sample shows is not in the model."""
    model = load_model(parts[0] / "classify" / "model.onnx", threads=1)
    seen = [
        p.inspection for p in predict(model, [Request(s.image, None) for s in parts[1].samples], card_criteria(model))
    ]
    assert classifier.classes == ("pit",)
    assert all(one.judgement.verdict != Verdict.ERROR for one in seen)
    assert all(one.heat is not None and one.heat.shape == (8, 8) for one in seen)


def test_every_held_out_part_is_compared_with_torch(classifier: ModelCard) -> None:
    """The parity test runs over the whole val side, without a flip."""
    assert classifier.parity.startswith("4 frames, 0 verdict flips")


def test_card_brings_limits_of_the_image_quality(parts: tuple[Path, Dataset], classifier: ModelCard) -> None:
    """A dark or blurred picture, unlike any the model has seen, is refused instead of judged."""
    assert classifier.images is not None
    model = load_model(parts[0] / "classify" / "model.onnx", threads=1)
    dark = parts[0] / "dark.png"
    write_png(dark, picture(1, defective=False) // 12)
    (one,) = predict(model, [Request(dark, None)], card_criteria(model))
    assert one.inspection.judgement.verdict == Verdict.ERROR


def test_anomaly_model_never_sees_a_defective_part(parts: tuple[Path, Dataset], anomaly: ModelCard) -> None:
    """Neither training nor the choice of the threshold uses one: the card lists good images alone."""
    seen = set(anomaly.trained_on.images_sha256)
    rows = list(zip(parts[1].samples, parts[1].digests, strict=True))
    assert not any(digest.image[:12] in seen for sample, digest in rows if sample.defective)
    assert len(seen) == sum(not s.defective and s.split == "train" for s in parts[1].samples)
    assert "good parts alone" in anomaly.threshold_from


def test_defective_parts_do_not_move_the_threshold_of_an_anomaly_model(
    parts: tuple[Path, Dataset], anomaly: ModelCard, tmp_path: Path
) -> None:
    """The same good parts without any defective one give the same threshold."""
    good = tuple(sample for sample in parts[1].samples if not sample.defective)
    alone = make_dataset("parts", good, classes=("pit",), origin=Origin("test", "made here"))
    write_dataset(tmp_path / "dataset", alone)
    card = load_model(run_training(config(tmp_path, "anomaly")), threads=1).card
    assert card.threshold == pytest.approx(anomaly.threshold, abs=1e-3)


def test_good_parts_that_are_not_split_are_held_out_by_themselves(tmp_path: Path) -> None:
    """An anomaly model without a val side keeps some good parts for its threshold."""
    make_parts(tmp_path, boxes=False, good=12, bad=0, held=0)
    card = load_model(run_training(config(tmp_path, "anomaly")), threads=1).card
    assert 8 <= len(card.trained_on.images_sha256) < 12
    assert "good parts alone" in card.threshold_from


def test_detector_learns_from_boxes_and_reports_what_it_holds_out(tmp_path: Path) -> None:
    """The run ends with figures on the val side and boxes in pixels of the picture."""
    make_parts(tmp_path, boxes=True)
    card = load_model(run_training(config(tmp_path, "detect")), threads=1).card
    report = json.loads((tmp_path / "detect" / "held_out.json").read_text())
    assert (card.task, card.classes, card.tile_px) == ("detect", ("pit",), 96)
    assert report["images"] == 4
    assert "map_50" in {metric.name for metric in card.metrics}


@pytest.mark.parametrize(
    ("product", "boxes", "good", "bad", "told"),
    [
        ("classify", False, 6, 0, "no sample|no class|defective"),
        ("detect", False, 6, 6, "no box"),
        ("anomaly", False, 0, 6, "no good part"),
    ],
)
def test_data_that_cannot_teach_the_product_is_refused(
    tmp_path: Path, product: str, boxes: bool, good: int, bad: int, told: str
) -> None:
    """The error says what is missing before anything is trained."""
    make_parts(tmp_path, boxes=boxes, good=good, bad=bad, held=0)
    with pytest.raises(UsageError, match=told):
        run_training(config(tmp_path, product))


def test_few_labels_get_a_first_threshold_from_what_was_learnt(tmp_path: Path) -> None:
    """Where nothing is held out the card says that the threshold is no calibrated one."""
    make_parts(tmp_path, boxes=False, held=0)
    card = load_model(run_training(config(tmp_path, "classify")), threads=1).card
    assert "not calibrated" in card.threshold_from
    assert 0.02 <= card.threshold <= 0.99
