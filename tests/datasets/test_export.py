import argparse
import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from faster_coco_eval import COCO
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.cli import add_verb
from datasets.export import export
from datasets.manifest import Dataset, Origin, load_dataset, make_dataset, open_dataset, write_dataset
from datasets.sample import SPLITS, LabelledBox, Polygon, Sample
from inspection.errors import UsageError
from inspection.images import write_png

CLASSES = ("scratch", "dent: 'ü' \"quoted\"")
WIDTH, HEIGHT = 80, 64
Gather, Build = Callable[..., Dataset], Callable[..., Sample]


def outlined(name: str, polygon: Polygon) -> LabelledBox:
    xs, ys = zip(*polygon, strict=True)
    return LabelledBox(name, (min(xs), min(ys), max(xs), max(ys)), (polygon,))


names = st.sampled_from(CLASSES)
at = st.floats(0, 40, width=32)
side = st.floats(1, 20, width=32)
boxes = st.builds(lambda name, x, y, w, h: LabelledBox(name, (x, y, x + w, y + h)), names, at, at, side, side)
outlines = st.builds(
    lambda name, x, y, w, h: outlined(name, ((x, y), (x + w, y), (x + w / 2, y + h))), names, at, at, side, side
)
either = st.one_of(st.lists(boxes, max_size=3), st.lists(outlines, max_size=3))
file_names = st.sampled_from(["Teil 1", "größe", "a.b", "x_1", "ok", "7"])
rows = st.lists(st.tuples(file_names, either, st.sampled_from(SPLITS)), min_size=1, unique_by=lambda row: row[0])
Rows = list[tuple[str, list[LabelledBox], str]]


@contextlib.contextmanager
def dataset_of(rows: Rows) -> Iterator[tuple[Dataset, Path]]:
    """A dataset of these names, labels and splits, and a folder to write to."""
    with TemporaryDirectory() as folder:
        samples = []
        for number, (name, labels, split) in enumerate(rows):
            file = Path(folder) / "source" / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(cv2.imencode(".png", np.full((HEIGHT, WIDTH), number, np.uint8))[1].tobytes())
            samples.append(Sample(file, None, tuple(labels), name, split, name))  # type: ignore[arg-type]
        yield make_dataset("d", samples, classes=CLASSES, origin=Origin("test", "")), Path(folder) / "out"


def numbers(label: LabelledBox) -> list[float]:
    return [*label.box_px, *(v for polygon in label.polygons_px for point in polygon for v in point)]


def assert_same(one: Dataset, other: Dataset) -> None:
    """The same images, names, splits, classes and groups; boxes and outlines to a thousandth of a pixel."""
    first, second = (sorted(zip(d.samples, d.digests, strict=True), key=lambda x: x[0].name) for d in (one, other))
    assert one.classes == other.classes
    for (a, digest), (b, other_digest) in zip(first, second, strict=True):
        assert (digest, a.name, a.split, a.group, a.image_class) == (
            *(other_digest, b.name, b.split, b.group, b.image_class),
        )
        assert [label.defect_class for label in a.labels] == [label.defect_class for label in b.labels]
        assert [len(label.polygons_px) for label in a.labels] == [len(label.polygons_px) for label in b.labels]
        for label, again in zip(a.labels, b.labels, strict=True):
            assert np.allclose(numbers(label), numbers(again), atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", ["coco", "yolo"])
@settings(max_examples=25, deadline=None)
@given(rows)
def test_export_is_read_back_the_same(form: str, rows: Rows) -> None:
    """Exporting and importing again changes nothing."""
    with dataset_of(rows) as (dataset, folder):
        export(form, dataset, folder, lossy=False)
        assert_same(dataset, open_dataset(folder))


def test_coco_keeps_what_other_layouts_cannot(tmp_path: Path, make_sample: Build, gather: Gather) -> None:
    """Goldens, groups, classes of whole images and outlines in parts survive in COCO."""
    a = make_sample("a", golden=True, group="lot 7")
    parts = (((0, 0), (4, 0), (4, 4)), ((9, 9), (30, 9), (30, 40)))
    b = replace(make_sample("b"), labels=(LabelledBox("dent", (0, 0, 30, 40), parts),), image_class="scratch")
    c = replace(make_sample("c"), labels=(), image_class="dent", golden=a.golden)
    dataset = gather(a, b, c)
    notes = export("coco", dataset, tmp_path / "out", lossy=False)
    assert dataset.version == open_dataset(tmp_path / "out").version
    assert any("1 (c) have no box" in note for note in notes)
    assert any("2 (a, c) keep theirs only" in note for note in notes)


def test_coco_is_read_by_another_program(tmp_path: Path) -> None:
    """The COCO class of another package finds images, boxes, areas and outlines, numbered from one."""
    triangle = outlined(CLASSES[1], ((2.0, 4.0), (12.0, 4.0), (12.0, 24.0)))
    with dataset_of([("a", [LabelledBox(CLASSES[0], (1, 2, 11, 7)), triangle], "val"), ("b", [], "val")]) as (
        d,
        folder,
    ):
        export("coco", d, folder, lossy=False)
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(folder / "annotations/instances_val.json"))
        assert all((folder / "images/val" / row["file_name"]).is_file() for row in coco.imgs.values())
    assert (sorted(coco.imgs), sorted(coco.anns), sorted(coco.cats)) == ([1, 2], [1, 2], [1, 2])
    assert [coco.cats[number]["name"] for number in (1, 2)] == list(CLASSES)
    assert [coco.anns[number]["area"] for number in (1, 2)] == [50, 100]
    assert coco.anns[1]["bbox"] == [1, 2, 10, 5]
    assert coco.annToMask(coco.anns[2]).sum() == pytest.approx(100, abs=12)
    assert all(row["iscrowd"] == 0 for row in coco.anns.values())


def test_yolo_lines_are_those_of_ultralytics(tmp_path: Path) -> None:
    """A line is the number of the class and shares of width and height; the YAML file names folders and classes."""
    import yaml

    with dataset_of([("a b", [LabelledBox(CLASSES[1], (20, 16, 60, 48))], "train"), ("c", [], "")]) as (d, folder):
        notes = export("yolo", d, folder, lossy=False)
        assert (folder / "labels/train/a b.txt").read_text() == "1 0.5 0.5 0.5 0.5\n"
        assert (folder / "labels/default/c.txt").read_text() == ""
        told = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    assert told == {"train": ["images/train", "images/default"], "names": dict(enumerate(CLASSES))}
    assert notes == ("no sample is in val: trainers want both",)


TRIANGLE = ((1.0, 2.0), (30.0, 2.0), (30.0, 40.0))
LOSSES: dict[str, tuple[dict[str, object], str]] = {
    "image class": ({"image_class": "dent"}, "class of the whole image: 1 (a)"),
    "group": ({"group": "lot"}, "group: 1 (a)"),
    "mixed": ({"labels": (LabelledBox("dent", (1, 2, 3, 4)), outlined("dent", TRIANGLE))}, "outlines beside boxes"),
    "parts": ({"labels": (LabelledBox("dent", (1, 2, 30, 40), (TRIANGLE, TRIANGLE)),)}, "in several parts"),
    "own box": ({"labels": (LabelledBox("dent", (0, 2, 30, 40), (TRIANGLE,)),)}, "with a box of their own"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_yolo_refuses_what_it_cannot_hold(tmp_path: Path, make_sample: Build, gather: Gather, case: str) -> None:
    """Nothing is lost unasked; with lossy it is left out, listed, and boxes and classes stay."""
    changes, text = LOSSES[case]
    dataset = gather(replace(make_sample("a"), **changes), make_sample("b"))  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        export("yolo", dataset, tmp_path / "out", lossy=False)
    assert text in caught.value.what
    assert not (tmp_path / "out").exists()
    notes = export("yolo", dataset, tmp_path / "out", lossy=True)
    assert any(note.startswith("left out: ") and text in note for note in notes)
    again = {sample.name: sample for sample in open_dataset(tmp_path / "out").samples}
    assert [x.defect_class for x in again["a"].labels] == [x.defect_class for x in dataset.samples[0].labels]


def test_golden_is_a_loss_to_yolo(tmp_path: Path, make_sample: Build, gather: Gather) -> None:
    """A sample judged against its golden is not the same without."""
    with pytest.raises(UsageError, match=r"golden template: 1 \(a\)"):
        export("yolo", gather(make_sample("a", golden=True)), tmp_path / "out", lossy=False)


def test_names_that_no_system_allows_are_changed(tmp_path: Path, make_sample: Build, gather: Gather) -> None:
    """File names are legal and unique everywhere; COCO keeps the names of the samples."""
    odd = [replace(make_sample(f"s{i}"), name=name, group=name) for i, name in enumerate(("a/b", "a:b", "A?B", ".."))]
    export("coco", gather(*odd), tmp_path / "out", lossy=False)
    files = {file.name for file in (tmp_path / "out/images/default").iterdir()}
    assert files == {"a_b.png", "a_b-2.png", "A_B-3.png", "image.png"}
    assert {"a/b", "a:b", "A?B", ".."} == {sample.name for sample in open_dataset(tmp_path / "out").samples}


def test_changed_image_is_not_exported(tmp_path: Path, make_sample: Build, gather: Gather) -> None:
    """Labels are never written beside other pictures than theirs."""
    dataset = gather(make_sample("a"), make_sample("b"))
    write_png(dataset.samples[1].image, np.zeros((64, 80), np.uint8))
    with pytest.raises(UsageError, match=r"1 image\(s\) are missing or changed.*b\.png"):
        export("coco", dataset, tmp_path / "out", lossy=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_full_folder_is_left_alone(tmp_path: Path, make_sample: Build, gather: Gather) -> None:
    """An export goes to a new or empty folder only."""
    with pytest.raises(UsageError, match="not an empty folder"):
        export("coco", gather(make_sample("a")), tmp_path / "source", lossy=False)


def lineside(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_verb(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", *map(str, words)])
    return int(args.func(args))


def test_export_verb_prints_what_was_left_out(
    tmp_path: Path, make_sample: Build, gather: Gather, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes the folder and prints the number of samples and what is not in it."""
    write_dataset(tmp_path / "ds", gather(make_sample("a", group="lot"), make_sample("b")))
    with pytest.raises(UsageError, match="group"):
        lineside("export", "yolo", tmp_path / "ds", "-o", tmp_path / "out")
    assert lineside("export", "yolo", tmp_path / "ds", "-o", tmp_path / "out", "--lossy") == 0
    out = capsys.readouterr().out
    assert "2 samples as yolo" in out
    assert "left out: group: 1 (a)" in out


def test_import_finds_the_layout_by_itself(
    tmp_path: Path, make_sample: Build, gather: Gather, capsys: pytest.CaptureFixture[str]
) -> None:
    """With auto the layout is found, printed and kept as origin."""
    export("coco", gather(make_sample("a")), tmp_path / "coco", lossy=False)
    assert lineside("import", "auto", tmp_path / "coco", "-o", tmp_path / "ds") == 0
    assert load_dataset(tmp_path / "ds").origin.importer == "coco"
    assert "read as coco" in capsys.readouterr().out


def test_good_folders_are_named_on_the_command_line(
    tmp_path: Path, make_sample: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    """--good says which folders hold good parts, or with no name that none does; other layouts refuse it."""
    for name in ("fine", "ok"):
        (tmp_path / "set" / name).mkdir(parents=True)
        make_sample(name).image.rename(tmp_path / "set" / name / "1.png")
    lineside("import", "folders", tmp_path / "set", "-o", tmp_path / "one", "--good", "fine")
    assert [sample.image_class for sample in load_dataset(tmp_path / "one").samples] == ["", "ok"]
    lineside("import", "auto", tmp_path / "set", "-o", tmp_path / "two", "--good")
    assert [sample.image_class for sample in load_dataset(tmp_path / "two").samples] == ["fine", "ok"]
    assert "good parts: fine" in capsys.readouterr().out
    with pytest.raises(UsageError, match="does not take --good"):
        lineside("import", "coco", tmp_path / "set", "-o", tmp_path / "three", "--good", "fine")


def test_document_is_plain_json(tmp_path: Path) -> None:
    """COCO files hold the keys that readers ask for."""
    with dataset_of([("a", [], "")]) as (dataset, folder):
        export("coco", dataset, folder, lossy=False)
        document = json.loads((folder / "annotations/instances_default.json").read_text(encoding="utf-8"))
    assert {"info", "licenses", "images", "annotations", "categories"} == set(document)
