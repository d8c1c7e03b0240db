import json
import shutil
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspection.check_sheet import INSPECT, KEEP_OUT, with_regions
from inspection.cli import main
from inspection.images import read_grey, read_image, write_png
from inspection.rois import Roi

REGIONS = """
[[views.top.rois]]
id = "connector"
box_px = [250, 280, 360, 390]

[[views.top.rois]]
id = "label"
kind = "keep_out"
box_px = [10, 160, 120, 360]

[[views.top.rules]]
defect_class = "pin-hole"
roi = "connector"
ng_score = 0.9
review_score = 0.5
"""


@pytest.fixture
def casting(root: Path) -> Path:
    """The sealed recipe of the casting; never written to."""
    return root / "deploy" / "recipes" / "demo-casting"


@pytest.fixture
def recipe(demo_recipe: Path, tmp_path: Path) -> Path:
    """A copy of the sealed demo recipe."""
    return Path(shutil.copytree(demo_recipe, tmp_path / "recipe"))


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["recipe", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_new_recipe_of_a_board_is_made_checked_and_signed(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, tmp_path: Path
) -> None:
    """One command gives a sealed recipe with limits from its frames, the numbers of each frame, and the picture."""
    tests, made, key = demo_recipe / "selftest", tmp_path / "board", tmp_path / "anna"
    assert run(capsys, "key", key)[0] == 0
    code, out, err = run(
        capsys, "new", made, "--model", demo_recipe / "model.onnx", "--golden", demo_recipe / "golden.png",
        "--samples", tests / "good.png", "--selftest", tests / "good.png", tests / "two-defects.png",
        "--try", tests, "-o", tmp_path / "check.png", "--key", key,
    )  # fmt: skip
    assert (code, err) == (0, "")
    for words in (
        "good: OK",
        "two-defects: NG",
        "registration 1.00 (>= 0.50), shift",
        "sharpness 255 (>= ",
        "signed with",
    ):
        assert words in out
    document = tomllib.loads((made / "recipe.toml").read_text())
    assert (2, "board", ["top"]) == (document["schema_version"], document["recipe_id"], list(document["views"]))
    assert (
        100 < document["views"]["top"]["quality"]["min_sharpness"] < 112
    )  # half of what the least sharp picture shows
    assert read_image(tmp_path / "check.png").shape[2] == 3
    code, out, _ = run(capsys, "verify", made, "--trusted", f"{key}.pub")
    assert (code, "2 self-test frames give the sealed verdicts" in out) == (0, True)


def test_new_recipe_of_a_casting_keeps_the_limits_of_its_model(
    capsys: pytest.CaptureFixture[str], casting: Path, tmp_path: Path
) -> None:
    """Limits that come from the images a model was trained on go before those of a few samples."""
    good, made = casting / "selftest" / "good.png", tmp_path / "part"
    code, _, err = run(capsys, "new", made, "--model", casting / "model.onnx", "--samples", good, "--selftest", good)
    new, old = (tomllib.loads((folder / "recipe.toml").read_text())["views"]["top"] for folder in (made, casting))
    assert (code, new["quality"], new["rules"]) == (0, old["quality"], old["rules"])
    assert "no self-test is NG" in err


def test_new_recipe_of_two_cameras(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, casting: Path, tmp_path: Path
) -> None:
    """Each view has its model and golden, and frames are told apart by the role in their name or folder."""
    for role, product in (("top", demo_recipe), ("side", casting)):
        (tmp_path / "tried" / role).mkdir(parents=True)
        (tmp_path / "tests").mkdir(exist_ok=True)
        for name in ("good", "two-defects"):
            shutil.copyfile(product / "selftest" / f"{name}.png", tmp_path / "tried" / role / f"{name}.png")
            shutil.copyfile(product / "selftest" / f"{name}.png", tmp_path / "tests" / f"{name}.{role}.png")
    code, out, err = run(
        capsys, "new", tmp_path / "two", "--view", f"top={demo_recipe}/model.onnx,{demo_recipe}/golden.png",
        "--view", f"side={casting}/model.onnx", "--selftest", tmp_path / "tests", "--try", tmp_path / "tried",
        "-o", tmp_path / "check.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "good: OK" in out
    assert "camera side: 2 findings of anomaly" in out
    rows = json.loads((tmp_path / "two" / "selftest" / "expected.json").read_text())
    assert [("OK", "good.side.png"), ("NG", "two-defects.side.png")] == [
        (r["verdict"], r["frames"]["side"]) for r in rows
    ]
    assert run(capsys, "verify", tmp_path / "two")[0] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give either --model"),
        (("--model", "m.onnx", "--view", "top=m.onnx"), "give either --model"),
        (("--view", "top=m.onnx", "--golden", "g.png"), "give either --model"),
        (("--view", "m.onnx"), "is not ROLE=MODEL"),
        (("--view", "a=m.onnx", "--view", "a=n.onnx"), "same role"),
        (("--model", "m.onnx", "--mm-per-px", "top"), "is not ROLE=VALUE"),
        (("--model", "MODEL"), "compares with a golden template"),
        (("--model", "MODEL", "--golden", "missing.png"), "missing.png"),
        (("--model", "MODEL", "--golden", "GOLDEN", "--selftest", "missing.png"), "missing.png"),
        (("--model", "MODEL", "--golden", "GOLDEN", "--try", "missing"), "missing"),
        (("--model", "MODEL", "--golden", "GOLDEN", "--selftest", "GOLDEN", "GOLDEN"), "several self-test frames"),
        (("--model", "MODEL", "--golden", "GOLDEN", "--camera", "../a"), "views."),
        (("--model", "MODEL", "--golden", "GOLDEN", "--key", "missing"), "cannot read the key"),
    ],
)
def test_new_with_something_wrong_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    """A mistake is named, exit code 2, and there is no half-made recipe."""
    files = {"MODEL": str(demo_recipe / "model.onnx"), "GOLDEN": str(demo_recipe / "golden.png")}
    code, _, err = run(capsys, "new", tmp_path / "made", *(files.get(word, word) for word in words))
    assert (code, told in err) == (2, True)
    assert [] == list(tmp_path.iterdir())


def test_new_never_overwrites(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    """A folder that exists is left as it is."""
    code, _, err = run(capsys, "new", recipe, "--model", recipe / "model.onnx", "--golden", recipe / "golden.png")
    assert (code, "exists already" in err) == (2, True)


def test_a_picture_that_cannot_be_written_is_called_by_its_name(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    """Where -o names no folder, the message names the picture that was asked for and no temporary file."""
    code, _, said = run(capsys, "check", recipe, recipe / "selftest" / "good.png", "-o", tmp_path / "none" / "x.png")
    assert code == 2
    assert str(tmp_path / "none" / "x.png") in said
    assert ".partial" not in said


def test_check_shows_what_counts_and_what_does_not(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    """Findings in a keep-out or tolerated by a region's rule are listed as not counted, and the regions are drawn."""
    with (recipe / "recipe.toml").open("a") as file:
        file.write(REGIONS)
    code, out, _ = run(capsys, "check", recipe, recipe / "selftest", "-o", tmp_path / "check.png")
    assert code == 0
    assert "pin-hole 0.76 at 281,315, 49x30 px, region connector" in out
    assert "region label, not counted" in out
    assert "3 parts: NG 1, OK 1, REVIEW 1" in out
    picture = read_image(tmp_path / "check.png")
    for colour in (INSPECT, KEEP_OUT):  # on the golden and on three frames
        near = np.abs(picture.astype(int) - colour).max(2) < 40
        columns = near.any(0).nonzero()[0]
        assert len(columns) > 100


def test_check_warns_of_what_is_near_a_limit(capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path) -> None:
    """Limits that nearly refuse good frames, and limits that refuse nothing, are both named."""
    loose = run(capsys, "check", recipe, recipe / "selftest" / "good.png", "-o", tmp_path / "a.png")[1]
    assert "min_sharpness 12 is far below what the frames show (255 and more)" in loose
    with (recipe / "recipe.toml").open("a") as file:
        file.write("\n[views.top.quality]\nmin_sharpness = 220\n[views.top.registration]\nmax_shift_px = 7\n")
    tight = run(capsys, "check", recipe, recipe / "selftest" / "good.png", "-o", tmp_path / "b.png")[1]
    assert "sharpness 255 is near its limit 220" in tight
    assert "is near its limit 7: check the fixture, or widen the limit" in tight
    assert "min_sharpness 220 is close to what the frames show" in tight


def test_check_warns_of_a_blurred_golden(capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path) -> None:
    """A golden out of focus makes every finding doubtful, and is named beside the sharpness of the frames."""
    golden = read_grey(recipe / "golden.png")
    write_png(recipe / "golden.png", np.asarray(cv2.GaussianBlur(golden, (0, 0), 4), np.uint8))
    out = run(capsys, "check", recipe, recipe / "selftest" / "good.png", "-o", tmp_path / "a.png")[1]
    assert "camera top: the golden is too blurred" in out


def test_check_warns_of_a_region_partly_outside(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    """A region that was drawn beyond the golden is named with its share."""
    with (recipe / "recipe.toml").open("a") as file:
        file.write(REGIONS.replace("[10, 160, 120, 360]", "[-100, 160, 100, 360]"))
    out = run(capsys, "check", recipe, recipe / "selftest" / "good.png", "-o", tmp_path / "a.png")[1]
    assert "50 % of region label lies outside the golden" in out


def test_check_of_frames_that_cannot_be_judged_ends_with_1(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    """A torn file and a frame of another product are listed as ERROR with their reason; the others are judged."""
    tried = tmp_path / "tried"
    tried.mkdir()
    shutil.copyfile(recipe / "selftest" / "good.png", tried / "good.png")
    content = (recipe / "selftest" / "good.png").read_bytes()
    (tried / "torn.png").write_bytes(content[: len(content) // 2])
    write_png(tried / "blank.png", np.full((640, 640), 128, np.uint8))
    code, out, _ = run(capsys, "check", recipe, tried, "-o", tmp_path / "a.png")
    assert code == 1
    assert all(words in out for words in ("torn: ERROR", "blank: ERROR", "good: OK", "is truncated or damaged"))


def test_check_of_rules_in_millimetres_asks_for_the_scale(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    """Without a scale nothing is judged; with one the area decides."""
    toml = recipe / "recipe.toml"
    toml.write_text(toml.read_text().replace('"spur"', '"spur"\nmin_area_mm2 = 50'))
    words = ("check", recipe, recipe / "selftest" / "two-defects.png", "-o", tmp_path / "a.png")
    code, _, err = run(capsys, *words)
    assert (code, "--mm-per-px ROLE=VALUE" in err) == (2, True)
    code, out, _ = run(capsys, *words, "--mm-per-px", "top=0.1")
    assert (code, "not counted" in out) == (0, True)


def test_selftests_are_renewed_only_when_asked(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    """After rules were changed, sealing alone leaves the old expectation, which then refuses; renewing says what changed."""
    with (recipe / "recipe.toml").open("a") as file:
        file.write(REGIONS)
    assert run(capsys, "seal", recipe)[0] == 0
    code, _, err = run(capsys, "verify", recipe)
    assert (code, "expected NG" in err) == (2, True)
    code, out, _ = run(capsys, "seal", recipe, "--renew-selftests")
    assert (code, "two-defects.png: NG ['pin-hole', 'spur'] becomes REVIEW []" in out) == (0, True)
    assert run(capsys, "verify", recipe)[0] == 0


def test_private_key_inside_the_recipe_is_refused(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    """A key that travels with the recipe would sign anything."""
    run(capsys, "key", recipe / "key")
    code, _, err = run(capsys, "seal", recipe, "--key", recipe / "key")
    assert (code, "lies in the recipe itself" in err) == (2, True)


def test_regions_are_drawn_where_they_lie() -> None:
    """An inspect region is an outline that leaves its inside as it is; a keep-out is hatched."""
    plain = np.full((300, 300, 3), 255, np.uint8)
    box = ((100.0, 100.0), (200.0, 100.0), (200.0, 200.0), (100.0, 200.0))
    outline = with_regions(plain, [Roi("a", "inspect", box)])
    hatched = with_regions(plain, [Roi("a", "keep_out", box)])
    assert (plain == 255).all()
    assert (outline[140:190, 110:190] == 255).all()
    assert 0.05 < (hatched[140:190, 110:190] != 255).any(2).mean() < 0.5
    for drawn in (outline, hatched):
        assert (drawn[198:203, 110:190] != 255).any()
        assert (drawn[:90] == 255).all()
