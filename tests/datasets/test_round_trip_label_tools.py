"""Labels go out to CVAT and Label Studio and come back by the COCO that each of them writes.

``label_tools/`` holds what the programs' own exporters wrote for one small project: Label Studio's SDK 2.1.2, and the
Datumaro 1.13.12, whose COCO exporter CVAT uses.  The dressings below are checked against them.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.export import export
from datasets.importers.coco import CocoImporter
from datasets.manifest import Dataset, load_dataset, write_dataset
from datasets.relabel.history import read_history
from datasets.relabel.labels import open_labels
from datasets.relabel.merge import Merged, Wishes, merge_labels
from datasets.sample import LabelledBox, Sample
from inspection.cli import main
from inspection.errors import UsageError
from inspection.images import read_image

RECORDED = Path(__file__).parent / "label_tools"
Document = dict[str, Any]
Dress = Callable[[Path, Path], Path]


def exported_documents(folder: Path) -> list[tuple[str, Document]]:
    """Split and content of each file of our own export."""
    files = sorted((folder / "annotations").glob("*.json"))
    return [(file.stem.removeprefix("instances_"), json.loads(file.read_text(encoding="utf-8"))) for file in files]


def as_cvat(folder: Path, out: Path) -> Path:
    """One task with all images: ids from 1 across splits, own keys gone, rounded boxes, names in sub-folders."""
    images, rows = list[Document](), list[Document]()
    categories = list[Document]()
    for split, document in exported_documents(folder):
        categories = document["categories"]
        for image in document["images"]:
            name = f"{split}/{image['file_name']}"
            (out / "images" / "default" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "images" / name, out / "images" / "default" / name)
            images.append({"id": len(images) + 1, "width": image["width"], "height": image["height"], "file_name": name,
                           "license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0})  # fmt: skip
            for row in document["annotations"]:
                if row["image_id"] == image["id"]:
                    box = [round(side, 2) for side in row["bbox"]]
                    rows.append({"id": len(rows) + 1, "image_id": len(images), "category_id": row["category_id"],
                                 "segmentation": row["segmentation"], "area": box[2] * box[3], "bbox": box, "iscrowd": 0,
                                 "attributes": {"occluded": False, "rotation": 0.0}})  # fmt: skip
    info = dict.fromkeys(("contributor", "date_created", "description", "url", "version", "year"), "")
    licences = [{"name": "", "id": 0, "url": ""}]
    document = {"licenses": licences, "info": info, "categories": categories, "images": images, "annotations": rows}
    return written(out / "annotations" / "instances_default.json", document)


def as_label_studio(folder: Path, out: Path) -> Path:
    """One project: ids from 0, uploaded names behind eight digits, boxes by way of percent, what it is at the end."""
    images, rows = list[Document](), list[Document]()
    categories = list[Document]()
    for split, document in exported_documents(folder):
        categories = [{"id": row["id"] - 1, "name": row["name"]} for row in document["categories"]]
        for image in document["images"]:
            upload = f"{0x1A2B3C4D + len(images):08x}-{image['file_name'].replace(' ', '_').replace('&', '')}"
            (out / "images").mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "images" / split / image["file_name"], out / "images" / upload)
            width, height = image["width"], image["height"]
            images.append({"width": width, "height": height, "id": len(images), "file_name": f"images/{upload}"})
            for row in document["annotations"]:
                if row["image_id"] == image["id"]:
                    sides = zip(row["bbox"], (width, height) * 2, strict=True)
                    box = [side / length * 100 * length / 100 for side, length in sides]
                    rows.append({"id": len(rows), "image_id": len(images) - 1, "category_id": row["category_id"] - 1,
                                 "segmentation": [], "bbox": box, "ignore": 0, "iscrowd": 0,
                                 "area": box[2] * box[3]})  # fmt: skip
    info = {"year": 2026, "version": "1.0", "description": "", "contributor": "Label Studio", "url": "",
            "date_created": "2026-11-23 14:02:40.724868"}  # fmt: skip
    return written(out / "result.json", {"images": images, "categories": categories, "annotations": rows, "info": info})


def written(path: Path, document: Document) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return path


def edit(path: Path, change: Callable[[Document], None]) -> None:
    """Change a COCO file as a person does with the program's page."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    written(path, document)


@pytest.fixture
def folder(tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]) -> Path:
    """A dataset with goldens, groups, splits, a good part, an outline and a name that programs change."""
    thirds = LabelledBox("dent", (10 / 3, 20 / 3, 100 / 3, 121 / 3))
    outlined = LabelledBox("scratch", (10, 10, 30, 25), (((10, 10), (30, 12), (20, 25)),))
    samples = [
        replace(make_sample("a", golden=True, group="lot 1", split="train"), labels=(thirds, outlined)),
        make_sample("b & c", golden=True, group="lot 1", split="train"),
        replace(make_sample("d", group="lot 2", split="val"), labels=()),
        replace(make_sample("e", group="lot 2", split="val"), image_class="dent"),
    ]
    write_dataset(tmp_path / "parts", gather(*samples))
    return tmp_path / "parts"


@pytest.fixture(params=[as_cvat, as_label_studio], ids=["cvat", "label-studio"])
def dressed(folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The dataset's export as one of the programs writes it."""
    export("coco", load_dataset(folder), tmp_path / "out", lossy=False)
    path: Path = request.param(tmp_path / "out", tmp_path / "back")
    return path


def merge(folder: Path, path: Path, **more: Any) -> Merged:
    with open_labels(folder) as labels:
        return merge_labels(labels, path, Wishes("carla", "edited outside", **more))


def rows_of(document: Document, start: str) -> tuple[Document, list[Document]]:
    """The row of the image whose name holds ``start``, and those of its boxes."""
    (image,) = [row for row in document["images"] if start in row["file_name"]]
    return image, [row for row in document["annotations"] if row["image_id"] == image["id"]]


@pytest.mark.parametrize(
    ("name", "dress"), [("label_studio.json", as_label_studio), ("cvat.json", as_cvat)], ids=["label-studio", "cvat"]
)
def test_the_dressing_is_what_the_program_writes(folder: Path, tmp_path: Path, name: str, dress: Dress) -> None:
    """Files, rows and numbering have the keys, kinds and first ids of a file that the program's own exporter wrote."""
    export("coco", load_dataset(folder), tmp_path / "out", lossy=False)
    ours = json.loads(dress(tmp_path / "out", tmp_path / "back").read_text(encoding="utf-8"))
    theirs = json.loads((RECORDED / name).read_text(encoding="utf-8"))
    assert list(ours) == list(theirs)
    assert ours["info"].keys() == theirs["info"].keys()
    for rows in ("images", "annotations", "categories"):
        assert set(ours[rows][0]) == set(theirs[rows][0]), rows
        assert ours[rows][0]["id"] == theirs[rows][0]["id"], rows
    plain = next(row for row in theirs["annotations"] if not row["segmentation"])
    assert set(plain) == set(ours["annotations"][0])


def test_imported_as_a_new_dataset_the_boxes_are_the_same(dressed: Path, folder: Path) -> None:
    """Read by the importer, every image has the boxes and classes it left with, to a hundredth of a pixel."""
    root = dressed.parent if dressed.parent.name != "annotations" else dressed.parents[1]
    survey = CocoImporter().survey(root)
    assert survey.problems == ()
    dataset = load_dataset(folder)
    assert survey.classes == dataset.classes
    back = {read_image(sample.image).tobytes(): sample for sample in survey.complete()}
    for sample in dataset.samples:
        came = back[read_image(sample.image).tobytes()]
        assert [label.defect_class for label in came.labels] == [label.defect_class for label in sample.labels]
        for label, was in zip(came.labels, sample.labels, strict=True):
            assert label.box_px == pytest.approx(was.box_px, abs=0.011)


def test_merged_unedited_nothing_changes(dressed: Path, folder: Path) -> None:
    """What comes back as it went, but for rounding and lost outlines, makes no new version and loses no outline."""
    before = load_dataset(folder)
    merged = merge(folder, dressed)
    assert (merged.saved, merged.problems, merged.unchanged, merged.bare) == ([], [], 4, [])
    assert load_dataset(folder) == before


def test_edited_boxes_come_back_into_the_same_dataset(dressed: Path, folder: Path) -> None:
    """Moved, added, reclassed and removed boxes are saves with who and why; golden, group and split stay."""

    def change(document: Document) -> None:
        _, (first, second) = rows_of(document, "a.png")
        first["bbox"] = [5, 6, 20, 21]
        second["category_id"] = first["category_id"]
        second["segmentation"] = []
        good, _ = rows_of(document, "d.png")
        document["annotations"].append({**first, "id": 77, "image_id": good["id"]})
        _, (_, gone) = rows_of(document, "e.png")
        document["annotations"].remove(gone)

    before = {sample.name: sample for sample in load_dataset(folder).samples}
    edit(dressed, change)
    merged = merge(folder, dressed)
    after = {sample.name: sample for sample in load_dataset(folder).samples}
    assert (sorted(merged.saved), merged.problems) == (["a", "d", "e"], [])
    assert [(label.defect_class, label.box_px) for label in after["a"].labels] == [
        ("dent", (5, 6, 25, 27)), ("dent", (10, 10, 30, 25)),
    ]  # fmt: skip
    assert after["d"].labels == (LabelledBox("dent", (5, 6, 25, 27)),)
    assert after["e"].labels == before["e"].labels[:1]
    for name, sample in after.items():
        assert replace(sample, labels=()) == replace(before[name], labels=())
    assert {(change.who, change.why) for change in read_history(folder)} == {("carla", "edited outside")}
    version = load_dataset(folder).version
    assert merge(folder, dressed).saved == []
    assert load_dataset(folder).version == version


def test_a_fault_of_many_annotations_is_told_once(
    dressed: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Annotations of one unknown category are one line with their number, the samples concerned another one."""

    def change(document: Document) -> None:
        for row in document["annotations"]:
            row["category_id"] = 999

    edit(dressed, change)
    count = len(json.loads(dressed.read_text(encoding="utf-8"))["annotations"])
    assert main(["data", "merge-labels", str(folder), str(dressed), "--who", "carla", "--why", "x"]) == 1
    told = capsys.readouterr().out
    assert f"annotations[0] and {count - 1} more: unknown category 999" in told
    assert 1 == told.count("999")
    assert "were not taken over, for an annotation of theirs is wrong: a" in told


def test_a_new_class_that_reads_like_another_is_not_added(dressed: Path, folder: Path) -> None:
    """Of the classes that the other program added, those that may not be are listed, and the others are added."""

    def change(document: Document) -> None:
        known = document["categories"][0]
        names = {901: "good", 902: known["name"].upper(), 903: "hair"}
        document["categories"] += [{**known, "id": number, "name": name} for number, name in names.items()]
        for row, number in zip(document["annotations"], names, strict=False):
            row["category_id"] = number

    edit(dressed, change)
    before = load_dataset(folder).classes
    with open_labels(folder) as labels:
        merged = merge_labels(labels, dressed, Wishes("carla", "edited outside", new_classes=True))
    assert load_dataset(folder).classes == (*before, "hair")
    told = [problem.what for problem in merged.problems]
    assert "'good' means a part without a defect" in told
    assert any("differ only by upper and lower case" in what for what in told)


def test_a_sample_edited_on_both_sides_is_a_conflict(dressed: Path, folder: Path) -> None:
    """Labels changed here since the export are not overwritten unless that is asked for; the others are merged."""
    exported = load_dataset(folder).version
    with open_labels(folder) as labels:
        for name in ("a", "b & c"):
            labels.save(
                name, [LabelledBox("dent", (1, 1, 9, 9))], image_class="", who="anna", why="",
                base_version=labels.revision(name),
            )  # fmt: skip

    def change(document: Document) -> None:
        rows_of(document, "a.png")[1][0]["bbox"] = [5, 6, 20, 21]
        rows_of(document, "e.png")[1][0]["bbox"] = [5, 6, 20, 21]

    edit(dressed, change)
    merged = merge(folder, dressed)
    assert merged.saved == ["e"]
    assert [problem.where for problem in merged.problems] == ["a", "b & c"]
    merged = merge(folder, dressed, base=exported[:12])
    (problem,) = merged.problems
    assert problem.where == "a"
    assert "edited here by anna" in problem.what
    merged = merge(folder, dressed, base=exported[:12], replace=True)
    assert merged.saved == ["a"]
    kept = {sample.name: sample for sample in load_dataset(folder).samples}
    assert kept["a"].labels[0].box_px == (5, 6, 25, 27)
    assert kept["b & c"].labels == (LabelledBox("dent", (1, 1, 9, 9)),)


def test_images_without_boxes_keep_theirs(dressed: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task that nobody has opened yet has no boxes in the file: its sample loses none unless that is asked for."""

    def change(document: Document) -> None:
        _, rows = rows_of(document, "a.png")
        document["annotations"] = [row for row in document["annotations"] if row not in rows]

    edit(dressed, change)
    command = ["data", "merge-labels", str(folder), str(dressed), "--who", "carla", "--why", "x"]
    version = load_dataset(folder).version
    assert main(command) == 0
    assert "1 sample(s) have no boxes in the file and keep theirs (--empty removes them): a" in capsys.readouterr().out
    assert load_dataset(folder).version == version
    assert main([*command, "--empty"]) == 0
    assert load_dataset(folder).samples[0].labels == ()


def test_what_cannot_be_merged_is_listed(dressed: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown names and classes, masks, other sizes and doubled images are named, and their samples stay as they are."""

    def change(document: Document) -> None:
        first, boxes = rows_of(document, "a.png")
        boxes[0]["bbox"] = [5, 6, 20, 21]
        document["images"].append({**first, "id": 50})
        document["images"].append({**first, "id": 51, "file_name": "../../etc/passwd"})
        _, rows = rows_of(document, "c.png")
        rows[0]["iscrowd"] = 1
        other, _ = rows_of(document, "d.png")
        other["width"] = 81
        document["categories"].append({"id": 9, "name": "<b>rust</b>"})
        rows_of(document, "e.png")[1][0]["category_id"] = 9

    before = load_dataset(folder)
    edit(dressed, change)
    command = ["data", "merge-labels", str(folder), str(dressed), "--who", "carla", "--why", "x"]
    assert main(command) == 1
    out = capsys.readouterr().out
    for said in (
        "are all sample 'a'",
        "1 image(s) are none of this dataset's: ../../etc/passwd",
        "marks a crowd",
        "has 80x64",
        "class '<b>rust</b>'",
    ):
        assert said in out
    assert load_dataset(folder) == before
    assert main([*command, "--new-classes"]) == 1
    after = load_dataset(folder)
    assert after.classes[-1] == "<b>rust</b>"
    assert [label.defect_class for label in after.samples[3].labels] == ["<b>rust</b>", "dent"]


def test_label_studio_without_the_pictures(folder: Path, tmp_path: Path) -> None:
    """An export that could not load the images names addresses and no sizes; the boxes are merged all the same."""
    export("coco", load_dataset(folder), tmp_path / "out", lossy=False)
    path = as_label_studio(tmp_path / "out", tmp_path / "back")

    def change(document: Document) -> None:
        for image in document["images"]:
            image.update(width=None, height=None, file_name="/data/upload/1/" + image["file_name"].split("/")[1])
        rows_of(document, "a.png")[1][0]["bbox"] = [5, 6, 20, 21]

    edit(path, change)
    assert merge(folder, path).saved == ["a"]


def test_our_own_export_tells_what_went_out(folder: Path, tmp_path: Path) -> None:
    """Where the description is kept, edits made here since are told from those made outside without --base."""
    export("coco", load_dataset(folder), tmp_path / "out", lossy=False)
    with open_labels(folder) as labels:
        labels.save("a", [], image_class="", who="anna", why="", base_version=labels.revision("a"))
    merged = merge(folder, tmp_path / "out" / "annotations" / "instances_train.json")
    assert (merged.saved, merged.problems, merged.unchanged) == ([], [], 2)
    assert merged.not_in_file == ["d", "e"]


def test_a_missing_image_is_listed(dressed: Path, folder: Path) -> None:
    """A sample whose image is gone is named, and the others are merged."""
    edit(dressed, lambda document: rows_of(document, "e.png")[1][0].update(bbox=[5, 6, 20, 21]))
    load_dataset(folder).samples[0].image.unlink()
    merged = merge(folder, dressed)
    assert merged.saved == ["e"]
    assert ["missing" in problem.what for problem in merged.problems] == [True]


@pytest.mark.parametrize("content", ["", "{}", '{"images": []}', '{"images":[],"annotations":[],"categories":[]}'])
def test_what_is_no_coco_file_is_refused(folder: Path, tmp_path: Path, content: str) -> None:
    """A file of another kind, or none, is refused before anything is saved."""
    (tmp_path / "x.json").write_text(content)
    for path in (tmp_path / "x.json", tmp_path / "none.json"):
        with pytest.raises(UsageError, match=r"no COCO file|no file"):
            merge(folder, path)


def test_undrawn_escapes_can_be_drawn_outside(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """`data export --undrawn` sends escapes out; a box drawn there takes the sample off the list."""
    bare = replace(make_sample("b"), labels=())
    write_dataset(tmp_path / "parts", replace(gather(make_sample("a"), bare), escapes=frozenset({"b"})))
    assert main(["data", "export", "coco", str(tmp_path / "parts"), "-o", str(tmp_path / "plain")]) == 0
    assert len(exported_documents(tmp_path / "plain")[0][1]["images"]) == 1
    assert main(["data", "export", "coco", str(tmp_path / "parts"), "-o", str(tmp_path / "out"), "--undrawn"]) == 0
    path = as_label_studio(tmp_path / "out", tmp_path / "back")

    def draw(document: Document) -> None:
        image, _ = rows_of(document, "-b.png")
        document["annotations"].append({**document["annotations"][0], "id": 9, "image_id": image["id"]})

    edit(path, draw)
    assert merge(tmp_path / "parts", path).saved == ["b"]
    assert load_dataset(tmp_path / "parts").to_draw == ()
