"""The training path from crops to the exported file, on boards and for a time as small as they can be."""

import gc
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from datasets.manifest import load_dataset  # noqa: E402
from datasets.synth.camera import CameraModel  # noqa: E402
from datasets.synth.defects import PCB_CLASSES, DefectStyle  # noqa: E402
from inspection.errors import ModelError, UsageError  # noqa: E402
from inspection.images import read_image, write_png  # noqa: E402
from inspection.model import ModelCard, file_sha256, load_model  # noqa: E402
from inspection.predict import Request, card_criteria, predict  # noqa: E402
from training.augment import frame_photometry, turn  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.export import check_parity, export_onnx  # noqa: E402
from training.graphs import GoldenGraph  # noqa: E402
from training.lessons.golden import GoldenLesson  # noqa: E402
from training.lessons.golden_crops import Supply, draw_crop  # noqa: E402
from training.lessons.golden_targets import detection_loss, heat_targets  # noqa: E402
from training.models.golden_net import STRIDE, GoldenNet, decode  # noqa: E402
from training.run import run_training  # noqa: E402
from training.train import train  # noqa: E402

STEPS_OF_AN_EPOCH = 2000  # of two crops


def config(out: Path, boards: Path | None, steps: int, **changes: object) -> TrainConfig:
    asked = TrainConfig(out=out, data=boards, crop_px=128, batch=2, workers=0, command="a test")
    return replace(asked, epochs=steps / STEPS_OF_AN_EPOCH, **changes)  # type: ignore[arg-type]


def supply(golden: np.ndarray, *, style: DefectStyle = DefectStyle(box_margin_px=3)) -> Supply:  # noqa: B008
    return Supply(PCB_CLASSES, (), (golden,), (0.0, 1.0, 0.0), style, CameraModel(binarise=1.0), True, 128, 1)


def board(size: int = 160) -> np.ndarray:
    rng, image = np.random.default_rng(size), np.full((size, size), 255, np.uint8)
    for x, y in rng.integers(0, size, (size // 8, 2)):
        cv2.circle(image, (int(x), int(y)), int(rng.integers(4, 11)), 0, -1)
        cv2.line(image, (int(x), int(y)), (int(x), int(rng.integers(size))), 0, int(rng.integers(3, 8)))
    return image


def broken_off(run: TrainConfig, goldens: tuple[np.ndarray, ...]) -> tuple[type, str]:
    """How a run that cannot end ended; what it left open is collected here and now."""
    try:
        train(run, GoldenLesson(replace(supply(board()), goldens=goldens), ()))
    except (KeyboardInterrupt, UsageError) as stopped:
        return type(stopped), str(stopped)
    finally:
        gc.collect()
    return type(None), ""


@pytest.fixture(scope="module")
def finished(boards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 60 steps that held group b out."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert out / "model.onnx" == run_training(config(out, boards, 60, hold_out=("b",)))
    return out


def card_of(run: Path) -> ModelCard:
    return load_model(run / "model.onnx", threads=1).card


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def step_of(run: Path) -> int:
    return int(torch.load(run / "checkpoint.pt", weights_only=True)["step"])


def test_run_ends_with_a_model_that_says_what_it_saw(finished: Path, boards: Path) -> None:
    """The card names groups, held-out groups, images, command and parity of this very run."""
    card, digests = card_of(finished), {digest.image[:12] for digest in load_dataset(boards).digests}
    assert (("a",), ("b",), 3, 3) == (
        card.trained_on.groups, card.trained_on.held_out, card.trained_on.labelled_frames, card.trained_on.goldens,
    )  # fmt: skip
    assert len(digests & set(card.trained_on.images_sha256)) == 3
    assert card.command == "a test"
    assert "3 frames, 0 verdict flips" in card.parity
    assert ModelCard.model_validate_json((finished / "card.json").read_text()) == card


def test_threshold_and_figures_come_from_the_held_out_group(finished: Path) -> None:
    """What was measured says on which images, and that the threshold was chosen there."""
    card = card_of(finished)
    assert "held-out groups b" in card.threshold_from
    assert {"map_33", "map_50", "map_50_95", "f_33", "auroc"} == {metric.name for metric in card.metrics}
    assert {3} == {metric.images for metric in card.metrics}
    assert json.loads((finished / "held_out.json").read_text())["images"] == 3


def test_run_leaves_its_measurements_and_curves(finished: Path) -> None:
    """Losses and held-out figures are one JSON line each, and are drawn."""
    rows = rows_of(finished)
    assert {"train", "val"} == {row["kind"] for row in rows}
    assert all(math.isfinite(row["heat_loss"] + row["box_loss"]) for row in rows if row["kind"] == "train")
    assert [50] == [row["step"] for row in rows if row["kind"] == "train"]
    assert read_image(finished / "curves.png").ndim == 3


def test_exported_model_judges_images(finished: Path, boards: Path) -> None:
    """The file a run leaves works on the runtime's path, whatever its verdicts are after 60 steps."""
    model = load_model(finished / "model.onnx", threads=1)
    requests = [Request(sample.image, sample.golden) for sample in load_dataset(boards).samples]
    made = list(predict(model, requests, card_criteria(model)))
    assert len(made) == 6
    assert all(found.defect_class in PCB_CLASSES for one in made for found in one.inspection.detections)


def test_resumed_run_goes_on_from_its_step(finished: Path, boards: Path, tmp_path: Path) -> None:
    """A run that is resumed for longer adds the missing steps and time, and keeps what it had measured."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = torch.load(run / "checkpoint.pt", weights_only=True)
    run_training(config(run, boards, 110, hold_out=("b",), resume=True))
    after = torch.load(run / "checkpoint.pt", weights_only=True)
    assert (60, 110) == (before["step"], after["step"])
    assert after["trained_s"] > before["trained_s"]
    assert [50, 100] == [row["step"] for row in rows_of(run) if row["kind"] == "train"]


def test_run_that_is_done_is_only_exported_again(finished: Path, boards: Path, tmp_path: Path) -> None:
    """Resuming a finished run trains no further step and gives the same net."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    run_training(config(run, boards, 60, hold_out=("b",), resume=True))
    assert step_of(run) == 60
    one, other = (torch.load(folder / "checkpoint.pt", weights_only=True)["average"] for folder in (finished, run))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_earlier_run_is_not_overwritten(finished: Path, boards: Path) -> None:
    """A folder that holds a run takes no other one."""
    with pytest.raises(UsageError, match="holds an earlier run"):
        run_training(config(finished, boards, 60))


def test_resuming_nothing_is_refused(boards: Path, tmp_path: Path) -> None:
    """Without a checkpoint there is nothing to go on from."""
    with pytest.raises(UsageError, match="no checkpoint"):
        run_training(config(tmp_path / "new", boards, 60, resume=True))


class Interrupting(tuple[np.ndarray, ...]):
    """Goldens of which one, later, cannot be had because the user pressed Ctrl-C."""

    left = 7

    def __getitem__(self, index: object) -> np.ndarray:  # type: ignore[override]
        Interrupting.left -= 1
        if Interrupting.left < 0:
            raise KeyboardInterrupt
        return super().__getitem__(index)  # type: ignore[index,return-value]


def test_interrupted_run_leaves_a_checkpoint_to_resume(finished: Path, boards: Path, tmp_path: Path) -> None:
    """A run that the user breaks off keeps every step it made, and can be finished from there."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    how, _ = broken_off(config(run, None, 70, resume=True), Interrupting((board(),)))
    gc.collect()
    assert (KeyboardInterrupt, 63) == (how, step_of(run))
    run_training(config(run, boards, 66, resume=True))
    assert step_of(run) == 66


def test_loss_that_is_no_number_stops_the_run(finished: Path, tmp_path: Path) -> None:
    """A diverged run ends at once with what to do, and keeps the checkpoint of when it was sound."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    how, told = broken_off(config(run, None, 90, resume=True, learning_rate=1e38), (board(),))
    gc.collect()
    assert (UsageError, 60) == (how, step_of(run))
    assert "the loss became" in told
    assert "--resume" in told


def test_borrowed_threshold_says_whence(finished: Path, tmp_path: Path) -> None:
    """A run on everything takes its threshold from the run that held groups out, and from nothing else."""
    run_training(
        config(tmp_path / "all", None, 2, threshold_of=finished / "model.onnx", init=finished / "checkpoint.pt")
    )
    card, other = card_of(tmp_path / "all"), card_of(finished)
    assert card.threshold == other.threshold
    assert "held-out groups b" in card.threshold_from
    assert all("held them out" in metric.on for metric in card.metrics)
    assert card.trained_on.labelled_frames == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hold_out": ("c",)}, "no group is called c"),
        ({"hold_out": ("a", "b")}, "no sample is left"),
        ({"data": None, "goldens": Path("empty")}, "holds no golden"),
    ],
)
def test_run_that_cannot_start_says_why(
    boards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, told: str
) -> None:
    """Mistakes are told before anything is trained."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=told):
        run_training(replace(config(tmp_path / "run", boards, 2), **changes))
    assert not (tmp_path / "run" / "model.onnx").exists()


def test_goldens_alone_are_enough(tmp_path: Path) -> None:
    """From one golden picture, without any label, comes a model whose card says so, and names the picture."""
    write_png(tmp_path / "golden.png", board())
    run_training(replace(config(tmp_path / "run", None, 2), goldens=tmp_path / "golden.png"))
    card = card_of(tmp_path / "run")
    assert "golden images" in card.trained_on.source
    assert (card.trained_on.labelled_frames, card.trained_on.goldens) == (0, 1)
    assert (file_sha256(tmp_path / "golden.png")[:12],) == card.trained_on.images_sha256
    assert "not calibrated" in card.threshold_from


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[GoldenNet, Path]:
    """A net and the file made of it."""
    net = GoldenNet(len(PCB_CLASSES))
    net.load_state_dict(torch.load(finished / "checkpoint.pt", weights_only=True)["average"])
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(GoldenGraph(net), card_of(finished), path)
    return net, path


def test_export_judges_as_the_net(exported: tuple[GoldenNet, Path]) -> None:
    """File and net agree on frames of several sizes."""
    pairs = [(board(size)[: size - 21], board(size)[: size - 21]) for size in (128, 160, 333)]
    parity = check_parity(GoldenGraph(exported[0]), exported[1], pairs)
    assert (parity.frames, parity.flips) == (3, 0)


def test_file_of_another_net_fails_the_parity_check(exported: tuple[GoldenNet, Path]) -> None:
    """An exported file whose scores or verdicts differ from those of the net it should be is refused."""
    net, path = exported
    tampered = GoldenNet(len(PCB_CLASSES))
    tampered.load_state_dict(net.state_dict())
    torch.nn.init.constant_(tampered.heat.bias, 6.0)
    with pytest.raises(ModelError, match="does not judge as the trained net does"):
        check_parity(GoldenGraph(tampered), path, [(board(), board())])


def test_slightly_different_file_fails_the_parity_check(exported: tuple[GoldenNet, Path]) -> None:
    """Scores that differ by more than rounding are refused although no verdict flips."""
    net, path = exported
    tampered = GoldenNet(len(PCB_CLASSES))
    tampered.load_state_dict(net.state_dict())
    with torch.no_grad():
        tampered.heat.bias += 0.5
    frame = board()
    cv2.circle(frame, (80, 80), 6, 0, -1)
    with pytest.raises(ModelError, match="does not judge as the trained net"):
        check_parity(GoldenGraph(tampered), path, [(frame, board())])


SIZE = 128
LABEL = st.tuples(st.floats(1, 90), st.floats(1, 90), st.floats(6, 36), st.floats(6, 36), st.integers(0, 5)).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3], v[4])
)


def answer(boxes: np.ndarray) -> torch.Tensor:
    """The distances (1, 4, s, s) a net would give that regresses exactly the wanted boxes."""
    rows, columns = np.mgrid[0 : boxes.shape[1], 0 : boxes.shape[2]] + 0.5
    sides = [columns - boxes[0], rows - boxes[1], boxes[2] - columns, boxes[3] - rows]
    return torch.from_numpy(np.stack(sides).astype(np.float32))[None]


@given(LABEL)
def test_target_peaks_in_the_cell_of_the_centre(label: tuple[float, ...]) -> None:
    """Exactly one cell of one class is 1, the one that holds the box's centre, and nothing exceeds it."""
    heat, boxes = heat_targets(np.array([label], np.float32), 6, SIZE)
    centre = [int(np.float32(label[a] + label[a + 2]) / 2 / STRIDE) for a in (1, 0)]
    assert [[int(label[4]), *centre]] == np.argwhere(heat == 1).tolist()
    assert heat.max() == 1
    assert heat.min() >= 0
    np.testing.assert_allclose(boxes[:4, centre[0], centre[1]] * STRIDE, label[:4], rtol=1e-5)


@given(LABEL)
def test_decoding_the_target_gives_the_box_back(label: tuple[float, ...]) -> None:
    """A perfect answer of the net is decoded to the very box, class and score 1, and to nothing else."""
    heat, boxes = heat_targets(np.array([label], np.float32), 6, SIZE)
    found, scores, labels = decode(torch.from_numpy(heat)[None], answer(boxes), keep=20)
    np.testing.assert_allclose(found[0, 0], label[:4], atol=1e-3)
    assert scores[0, 0] == 1
    assert int(labels[0, 0]) == label[4]
    assert int((scores > 0.5).sum()) == 1


def test_decoding_gives_all_of_several_boxes_back() -> None:
    """Boxes of equal and of different classes, side by side, come back each once."""
    wanted = np.array([[4, 4, 28, 30, 0], [60, 8, 84, 30, 0], [10, 70, 30, 100, 3], [70, 70, 120, 110, 5]], np.float32)
    heat, boxes = heat_targets(wanted, 6, SIZE)
    found, scores, labels = (out[0].numpy() for out in decode(torch.from_numpy(heat)[None], answer(boxes), keep=20))
    rows = sorted(
        [*box.round(3), float(label)] for box, label, score in zip(found, labels, scores, strict=True) if score > 0.9
    )
    np.testing.assert_allclose(rows, sorted(wanted.tolist()), atol=1e-2)


def test_crop_without_defect_has_an_empty_target() -> None:
    """A good crop asks for nothing, and its loss is finite."""
    heat, boxes = heat_targets(np.zeros((0, 5), np.float32), 6, SIZE)
    assert not heat.any()
    assert not boxes.any()
    wanted = (torch.from_numpy(heat)[None], torch.from_numpy(boxes)[None])
    losses = detection_loss(torch.zeros(1, 6, 16, 16), torch.ones(1, 4, 16, 16), wanted)
    assert all(math.isfinite(float(loss)) for loss in losses)


def test_perfect_answer_has_nearly_no_loss() -> None:
    """The loss falls towards zero as the answer comes near the target, and rises when the box is wrong."""
    heat, boxes = heat_targets(np.array([[40, 40, 70, 80, 2]], np.float32), 6, SIZE)
    wanted = (torch.from_numpy(heat)[None], torch.from_numpy(boxes)[None])
    sure = torch.where(wanted[0] == 1, 12.0, -12.0)
    heat_loss, box_loss = detection_loss(sure, answer(boxes), wanted)
    assert float(heat_loss) < 1e-3
    assert float(box_loss) < 1e-3
    assert float(detection_loss(-sure, 2 * answer(boxes), wanted)[0]) > 1
    assert float(detection_loss(sure, 2 * answer(boxes), wanted)[1]) > 0.1


@given(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 36), st.integers(1, 36)), st.integers(0, 7))
def test_turning_keeps_what_is_in_the_box(box: tuple[int, int, int, int], k: int) -> None:
    """Under each symmetry of the square the label goes where its pixels go, on both images."""
    x, y, width, height = box
    image = np.zeros((100, 100), np.uint8)
    patch = np.random.default_rng(width).integers(1, 256, (height, width), dtype=np.uint8)
    image[y : y + height, x : x + width] = patch
    (frame, golden), labels = turn((image, image), np.array([[x, y, x + width, y + height, 4]], np.float32), k)
    x1, y1, x2, y2, label = (int(v) for v in labels[0])
    assert sorted(patch.ravel()) == sorted(frame[y1:y2, x1:x2].ravel())
    assert int(np.count_nonzero(frame)) == patch.size
    assert np.array_equal(frame, golden)
    assert label == 4


def test_there_are_eight_turns() -> None:
    """No symmetry is given twice, and the first leaves everything as it is."""
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    turned = [turn((image,), np.zeros((0, 5), np.float32), k)[0][0] for k in range(8)]
    assert len({one.tobytes() for one in turned}) == 8
    assert np.array_equal(image, turned[0])


@pytest.mark.parametrize("seed", range(3))
def test_augmentation_never_moves_a_label_off_its_defect(seed: int) -> None:
    """Whatever is done to a crop, what differs from the golden lies in a box, and each box holds a difference."""
    bare = np.full((200, 200), 255, np.uint8)
    bare[40:46, 60:66] = bare[150:156, 90:96] = 0
    style = DefectStyle(box_margin_px=3)
    camera = CameraModel(blur_px=0.4, edge_px=0, noise=0, binarise=1.0, jpeg_quality=95)
    made = replace(supply(bare, style=style), camera=camera)
    rng, photometry, stock = np.random.default_rng(seed), frame_photometry(seed), []
    boxes = stray = 0
    for _ in range(60):
        frame, golden, labels = draw_crop(made, rng, photometry, stock)
        level = cv2.threshold(frame, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]
        pads = cv2.dilate((golden < 200).astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
        added = (frame <= min(level, 128)) & (frame != golden) & ~pads
        for x1, y1, x2, y2, _ in labels.astype(int):
            boxes += 1
            near = (slice(y1, y2 + 1), slice(x1, x2 + 1))
            assert added[near].any() or pads[near].any()
            added[near] = False
        stray += int(added.sum())
    assert boxes > 60
    assert stray < 100  # noise and what the crop's border cut off, over sixty crops


def test_crops_depend_on_the_seed_alone() -> None:
    """The same seed gives the same crops again."""
    made = []
    for _ in range(2):
        rng, photometry, stock = np.random.default_rng(5), frame_photometry(5), []
        made.append([draw_crop(supply(board()), rng, photometry, stock) for _ in range(6)])
    for one, other in zip(*made, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
