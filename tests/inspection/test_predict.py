import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.manifest import Origin, make_dataset, write_dataset
from datasets.sample import LabelledBox, Sample
from inspection.cli import main
from inspection.errors import UsageError
from inspection.images import read_grey, write_png
from inspection.model import LoadedModel
from inspection.predict import Request, card_criteria, predict, requests_for

GOOD_KEYS = {"image", "verdict", "score", "detections", "ms"}


@pytest.fixture
def bad(demo_recipe: Path) -> Path:
    """A frame of the demo board with defects."""
    return demo_recipe / "selftest" / "four-defects.png"


@pytest.fixture
def folder(tmp_path: Path, demo_recipe: Path, bad: Path) -> Path:
    """Two frames, each with its golden beside it."""
    made = tmp_path / "images"
    made.mkdir()
    for name, frame in (("a", demo_recipe / "selftest" / "good.png"), ("b", bad)):
        shutil.copyfile(frame, made / f"{name}_test.png")
        shutil.copyfile(demo_recipe / "golden.png", made / f"{name}_temp.png")
    return made


def run(capsys: pytest.CaptureFixture[str], demo_recipe: Path, *arguments: object) -> tuple[int, str, str]:
    code = main(["predict", str(demo_recipe / "model.onnx"), *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out, told.err


def rows_of(capsys: pytest.CaptureFixture[str], demo_recipe: Path, *arguments: object) -> list[dict]:
    code, out, _ = run(capsys, demo_recipe, *arguments)
    assert code == 0
    return json.loads(out)


def one(demo_model: LoadedModel, image: Path, golden: Path | None) -> dict:
    (made,) = predict(demo_model, [Request(image, golden)], card_criteria(demo_model))
    return made.as_json()


def test_folder_gives_one_object_an_image(capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path) -> None:
    """Goldens beside frames are used and not judged; rows come in name order."""
    rows = rows_of(capsys, demo_recipe, folder)
    assert [("a_test.png", "OK"), ("b_test.png", "NG")] == [(row["image"], row["verdict"]) for row in rows]


def test_format_is_exactly_the_fixed_one(capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path) -> None:
    """Other programs rely on these keys and types, in this nesting, and on nothing else being there."""
    rows = rows_of(capsys, demo_recipe, folder)
    assert [list(row) for row in rows] == [["image", "verdict", "score", "detections", "ms"]] * 2
    for row in rows:
        assert type(row["score"]) is float
        assert type(row["ms"]) is float
        assert row["ms"] > 0
    for found in rows[1]["detections"]:
        assert list(found) == ["class", "score", "box"]
        assert [type(value) for value in found["box"]] == [float] * 4
        assert 0 < found["score"] <= 1


def test_score_is_that_of_the_surest_finding(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path
) -> None:
    """The score is of being NG; findings come best first, far below the threshold too."""
    row = rows_of(capsys, demo_recipe, folder)[1]
    scores = [found["score"] for found in row["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == row["score"]


def test_boxes_are_in_pixels_of_the_image_as_given(
    demo_model: LoadedModel, demo_golden: np.ndarray, demo_recipe: Path, tmp_path: Path
) -> None:
    """On a moved frame the box lies where the defect is seen, not where it would lie on the golden."""
    board = demo_golden.copy()
    light = cv2.distanceTransform((board > 128).astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(int(np.argmax(light[60:-60, 60:-60])), (520, 520))
    cv2.circle(board, (int(x) + 60, int(y) + 60), 7, 0, -1)
    moved = cv2.warpAffine(board, np.array([[1, 0, 15.0], [0, 1, -12.0]]), (640, 640), borderMode=cv2.BORDER_REPLICATE)
    write_png(tmp_path / "moved.png", moved)
    best = one(demo_model, tmp_path / "moved.png", demo_recipe / "golden.png")["detections"][0]["box"]
    assert abs((best[0] + best[2]) / 2 - (x + 75)) < 5
    assert abs((best[1] + best[3]) / 2 - (y + 48)) < 5


def test_output_file_holds_the_list(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path, tmp_path: Path
) -> None:
    """With -o the list goes to the file, and stdout tells the counts."""
    code, out, _ = run(capsys, demo_recipe, folder, "-o", tmp_path / "out.json")
    assert code == 0
    assert "2 images: NG 1, OK 1" in out
    assert [GOOD_KEYS] * 2 == [set(row) for row in json.loads((tmp_path / "out.json").read_text())]
    assert [] == list(tmp_path.glob("*.partial"))


def test_given_golden_serves_all_images(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--golden goes before goldens that lie beside; lying among the images it is not judged itself."""
    for golden in folder.glob("*_temp.png"):
        golden.unlink()
    shutil.copyfile(demo_recipe / "golden.png", folder / "board.png")
    monkeypatch.chdir(folder.parent)
    rows = rows_of(capsys, demo_recipe, folder, "--golden", Path("images/board.png"))
    assert ["OK", "NG"] == [row["verdict"] for row in rows]


def test_files_and_folders_mix(capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path, bad: Path) -> None:
    """Files are judged in the order given, whatever they are called."""
    rows = rows_of(capsys, demo_recipe, bad, folder, "--golden", demo_recipe / "golden.png")
    assert ["four-defects.png", "a_test.png", "b_test.png"] == [row["image"] for row in rows]


def test_golden_named_beside_a_frame_is_found(
    demo_model: LoadedModel, demo_recipe: Path, bad: Path, tmp_path: Path
) -> None:
    """NAME.golden.png beside NAME.png is the other way to bring a golden along."""
    shutil.copyfile(bad, tmp_path / "S1.png")
    shutil.copyfile(demo_recipe / "golden.png", tmp_path / "S1.golden.png")
    (request,) = requests_for([tmp_path], None)
    assert request == Request(tmp_path / "S1.png", tmp_path / "S1.golden.png")
    assert one(demo_model, request.image, request.golden)["verdict"] == "NG"


def test_dataset_brings_its_goldens(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, bad: Path, tmp_path: Path
) -> None:
    """--data judges each image of a dataset with its own golden."""
    samples = [
        Sample(image, demo_recipe / "golden.png", (LabelledBox("open", (1, 2, 30, 40)),), "g", "", image.stem)
        for image in (demo_recipe / "selftest" / "good.png", bad)
    ]
    made = make_dataset("parts", samples, classes=("open",), origin=Origin("test", "made here"))
    write_dataset(tmp_path / "parts", made)
    rows = rows_of(capsys, demo_recipe, "--data", tmp_path / "parts")
    assert {("good.png", "OK"), ("four-defects.png", "NG")} == {(row["image"], row["verdict"]) for row in rows}


def test_missing_golden_is_an_error_row(demo_model: LoadedModel, bad: Path) -> None:
    """An image that nothing can be compared with is not judged at all."""
    row = one(demo_model, bad, None)
    assert "no golden" in row["reason"]
    assert ("ERROR", 0.0, []) == (row["verdict"], row["score"], row["detections"])


def broken(kind: str, source: Path, target: Path) -> Path:
    """A file that cannot be judged."""
    content, image = source.read_bytes(), read_grey(source)
    if kind == "truncated":
        target.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        target.touch()
    elif kind == "text":
        target.write_text("this is no picture")
    elif kind == "wrong size":
        write_png(target, image[:600])
    elif kind == "16 bit":
        target.write_bytes(cv2.imencode(".png", image.astype(np.uint16) * 256)[1].tobytes())
    elif kind == "another board":
        write_png(target, np.ascontiguousarray(image.T[::-1]))
    elif kind == "black":
        write_png(target, np.zeros_like(image))
    elif kind == "blurred":
        write_png(target, cv2.GaussianBlur(image, (0, 0), 40))
    return target


REASONS = {
    "truncated": "truncated", "empty": "empty", "text": "is no PNG", "wrong size": "640x600", "16 bit": "16 bits",
    "another board": "does not fit", "black": "mean grey", "blurred": "sharpness", "missing": "there is no file",
}  # fmt: skip


@pytest.mark.parametrize("kind", REASONS)
def test_image_that_cannot_be_judged_is_an_error_row(
    demo_model: LoadedModel, demo_recipe: Path, bad: Path, tmp_path: Path, kind: str
) -> None:
    """Whatever is wrong with an image, its row says ERROR with the reason, has no finding, and is never OK."""
    row = one(demo_model, broken(kind, bad, tmp_path / "S-77.png"), demo_recipe / "golden.png")
    assert REASONS[kind] in row["reason"]
    assert set(row) == GOOD_KEYS | {"reason"}
    assert ("S-77.png", "ERROR", 0.0, []) == (row["image"], row["verdict"], row["score"], row["detections"])


@pytest.mark.parametrize("kind", ["truncated", "text", "missing"])
def test_broken_golden_is_an_error_row(
    demo_model: LoadedModel, demo_recipe: Path, bad: Path, tmp_path: Path, kind: str
) -> None:
    """A golden that cannot be read passes nothing, and the images after it are judged again."""
    golden = broken(kind, demo_recipe / "golden.png", tmp_path / "golden.png")
    whole = demo_recipe / "golden.png"
    requests = [Request(bad, whole), Request(bad, golden), Request(bad, golden), Request(bad, whole)]
    made = predict(demo_model, requests, card_criteria(demo_model))
    assert ["NG", "ERROR", "ERROR", "NG"] == [prediction.as_json()["verdict"] for prediction in made]


def test_one_broken_image_does_not_end_the_run(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path
) -> None:
    """Rows before and after a torn file are there, in order, and the exit code is still 0."""
    broken("truncated", demo_recipe / "golden.png", folder / "aa_test.png")
    rows = rows_of(capsys, demo_recipe, folder)
    assert ["OK", "ERROR", "NG"] == [row["verdict"] for row in rows]


def test_threshold_moves_the_verdict_and_not_the_list(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path
) -> None:
    """A threshold above every score makes the part OK; all candidates are listed as before."""
    plain = rows_of(capsys, demo_recipe, folder)[1]
    strict = rows_of(capsys, demo_recipe, folder, "--threshold", 0.9999)[1]
    assert ("NG", "OK") == (plain["verdict"], strict["verdict"])
    assert plain["detections"] == strict["detections"]


def test_low_threshold_is_kept(demo_model: LoadedModel) -> None:
    """A threshold below the usual floor lowers the floor with it."""
    assert card_criteria(demo_model, 0.003).floor == 0.003


@pytest.mark.parametrize("threshold", ["0", "1", "-1", "nan"])
def test_threshold_out_of_range_is_refused(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path, threshold: str
) -> None:
    """A threshold that passes or rejects everything is a mistake in the command line."""
    code, out, err = run(capsys, demo_recipe, folder, f"--threshold={threshold}")
    assert (code, out) == (2, "")
    assert "--threshold" in err


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: [], "IMAGES or --data"),
        (lambda folder: [folder / "none"], "no image or folder"),
        (lambda folder: [folder / "empty"], "holds no image"),
        (lambda folder: [folder, "--data", folder], "IMAGES or --data"),
        (lambda folder: [folder, "--golden", folder / "none.png"], "no golden"),
        (lambda folder: ["--data", folder / "empty"], "is no dataset"),
        (lambda folder: [folder, "-o", folder / "none" / "out.json"], "cannot write"),
    ],
    ids=["nothing", "missing", "empty folder", "both", "missing golden", "no dataset", "no such output folder"],
)
def test_wrong_command_line_is_exit_2(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path, make: object, told: str
) -> None:
    """What cannot be done at all is said in two lines on stderr, with exit code 2 and nothing on stdout."""
    (folder / "empty").mkdir()
    code, out, err = run(capsys, demo_recipe, *make(folder))  # type: ignore[operator]
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.strip().splitlines()) == 2 or "dataset" in told


def test_folder_with_nothing_but_goldens_is_refused(folder: Path) -> None:
    """Goldens alone are nothing to judge."""
    for frame in folder.glob("*_test.png"):
        frame.unlink()
    with pytest.raises(UsageError, match="holds no image"):
        requests_for([folder], None)
