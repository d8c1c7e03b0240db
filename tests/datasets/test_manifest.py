import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.manifest import (
    MANIFEST,
    Dataset,
    Digest,
    Origin,
    changed_files,
    content_version,
    load_dataset,
    make_dataset,
    open_dataset,
    write_dataset,
)
from datasets.sample import SPLITS, LabelledBox, Sample
from inspection.errors import InspectionError, UsageError

CLASSES = ("scratch", "dent")
side = st.floats(0, 1000, allow_nan=False, width=32)
polygons = st.lists(st.lists(st.tuples(side, side), min_size=3, max_size=5).map(tuple), max_size=2).map(tuple)
boxes = st.builds(
    lambda name, x, y, w, h, outline: LabelledBox(name, (x, y, x + w + 1, y + h + 1), outline),
    st.sampled_from(CLASSES),
    *[side] * 4,
    polygons,
)
digests = st.integers(0, 2**64).map(lambda n: f"{n:064x}")
rows = st.lists(
    st.tuples(
        st.lists(boxes, max_size=3),
        st.sampled_from("abc"),
        st.sampled_from(SPLITS),
        digests,
        st.sampled_from(("", *CLASSES)),
    ),
    max_size=6,
)
Rows = list[tuple[list[LabelledBox], str, str, str, str]]


def dataset_of(rows: Rows, *, prefix: str = "s", source: str = "", golden: str = "") -> Dataset:
    samples = tuple(
        Sample(
            Path(f"{prefix}{i}.png"),
            None,
            tuple(labels),
            group,
            split,  # type: ignore[arg-type]
            f"{prefix}{i}",
            image_class,
        )
        for i, (labels, group, split, _, image_class) in enumerate(rows)
    )
    return Dataset(
        "d" + source, CLASSES, samples, tuple(Digest(row[3], golden) for row in rows), Origin("test", source)
    )


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_version_does_not_depend_on_order_names_or_source(rows: Rows, random: Random) -> None:
    """The same content has the same version in any order, under any names, from anywhere."""
    shuffled = [(random.sample(labels, len(labels)), *rest) for labels, *rest in random.sample(rows, len(rows))]
    assert dataset_of(rows).version == dataset_of(shuffled, prefix="other", source="elsewhere").version


@settings(max_examples=60, deadline=None)
@given(rows, rows)
def test_version_depends_on_the_content(one: Rows, other: Rows) -> None:
    """Two datasets have the same version only when their content is the same."""

    def content(rows: Rows) -> list[str]:
        key = lambda label: (label.defect_class, label.box_px, sorted(label.polygons_px))  # noqa: E731
        return sorted(repr((sorted(map(key, labels)), *rest)) for labels, *rest in rows)

    same = content(one) == content(other)
    assert same == (dataset_of(one).version == dataset_of(other).version)


OUTLINE = ((1, 2), (3, 2), (3, 4))
ROW = ([LabelledBox("dent", (1, 2, 3, 4))], "a", "train", "0" * 64, "")


@pytest.mark.parametrize(
    "changed",
    [
        ([LabelledBox("dent", (1, 2, 3, 4.5))], *ROW[1:]),
        ([LabelledBox("scratch", (1, 2, 3, 4))], *ROW[1:]),
        ([], *ROW[1:]),
        (ROW[0] * 2, *ROW[1:]),
        (ROW[0], "b", *ROW[2:]),
        (*ROW[:2], "val", *ROW[3:]),
        (*ROW[:3], "1" * 64, ""),
        (*ROW[:4], "dent"),
        ([LabelledBox("dent", (1, 2, 3, 4), (OUTLINE,))], *ROW[1:]),
    ],
    ids=["box", "class", "no label", "label twice", "group", "split", "image", "image class", "outline"],
)
def test_every_part_of_the_content_changes_the_version(changed: tuple) -> None:
    """Changing one thing that matters changes the version."""
    assert dataset_of([ROW]).version != dataset_of([changed]).version


def test_golden_and_classes_change_the_version() -> None:
    """Another golden or another list of classes is another version."""
    plain = dataset_of([ROW])
    assert plain.version != dataset_of([ROW], golden="2" * 64).version
    assert plain.version != replace(plain, classes=("dent", "scratch")).version


def test_whole_numbers_and_floats_are_the_same_box() -> None:
    """An importer that reads integers gives the version of one that reads floats."""
    sample = dataset_of([ROW]).samples[0]
    as_float = replace(sample, labels=(LabelledBox("dent", (1.0, 2.0, 3.0, 4.0)),))
    digest = [Digest("0" * 64, "")]
    assert content_version(CLASSES, [sample], digest) == content_version(CLASSES, [as_float], digest)


def test_version_of_boxes_alone_is_that_of_earlier_releases() -> None:
    """Datasets without polygons and image classes keep the version they had before there were any."""
    assert "6dfb66f23ef2ba7d6aaf549ec97c23b62f81363f282b2edfd88d2a5393994863" == dataset_of([ROW]).version


@settings(max_examples=30, deadline=None)
@given(rows)
def test_every_content_survives_writing(rows: Rows) -> None:
    """Labels, polygons, image classes, groups and splits are read back as they were written."""
    with TemporaryDirectory() as folder:
        samples = [replace(s, image=Path(folder) / s.image) for s in dataset_of(rows).samples]
        for sample in samples:
            sample.image.write_text(sample.name, encoding="utf-8")
        made = make_dataset("d", samples, classes=CLASSES, origin=Origin("test", ""))
        loaded = write_dataset(Path(folder) / "out", made)
    assert made.version == loaded.version
    assert samples == [replace(new, image=old.image) for new, old in zip(loaded.samples, samples, strict=True)]


def test_manifest_without_the_newer_keys_is_read(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """A dataset of boxes is written as by earlier releases, which know neither polygons nor image classes."""
    write_dataset(tmp_path / "out", gather(make_sample("a")))
    row = json.loads((tmp_path / "out" / MANIFEST).read_text(encoding="utf-8"))["samples"][0]
    assert set(row) == {"name", "image", "image_sha256", "golden", "golden_sha256", "labels", "group", "split"}
    assert set(row["labels"][0]) == {"defect_class", "box_px"}


def test_round_trip(tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]) -> None:
    """A written dataset is read back with the same classes, samples, origin and version."""
    made = gather(make_sample("a", golden=True, split="train"), make_sample("b", group="lot 7"))
    written = write_dataset(tmp_path / "out", made)
    loaded = load_dataset(tmp_path / "out")
    assert loaded == written
    assert (made.version, made.classes, made.name, made.origin) == (
        loaded.version,
        loaded.classes,
        loaded.name,
        loaded.origin,
    )
    assert [s.labels for s in made.samples] == [s.labels for s in loaded.samples]
    assert [s.image.name for s in loaded.samples] == ["a.png", "b.png"]
    assert all(s.image.is_absolute() and s.image.is_relative_to(tmp_path / "out") for s in loaded.samples)
    assert changed_files(loaded) == ()


def test_dataset_can_be_moved(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """A dataset folder keeps its version wherever it is moved, and needs its source no more."""
    version = write_dataset(tmp_path / "out", gather(make_sample("a", golden=True))).version
    shutil.rmtree(tmp_path / "source")
    moved = (tmp_path / "out").rename(tmp_path / "moved ü")
    assert version == open_dataset(moved).version
    assert changed_files(load_dataset(moved)) == ()


def test_same_base_name_in_two_folders_is_kept_apart(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """Two different images of one base name both survive, each with its base name."""
    a, b = make_sample("a"), make_sample("b")
    twin = tmp_path / "twin" / "A.png"
    twin.parent.mkdir()
    b.image.rename(twin)
    loaded = write_dataset(tmp_path / "out", gather(a, replace(b, image=twin)))
    assert [s.image.name for s in loaded.samples] == ["a.png", "A.png"]
    assert changed_files(loaded) == ()


def test_shared_golden_is_stored_once(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """Frames of one product share one golden file."""
    a, b = make_sample("a", golden=True), make_sample("b")
    loaded = write_dataset(tmp_path / "out", gather(a, replace(b, golden=a.golden)))
    assert loaded.samples[0].golden == loaded.samples[1].golden
    assert len(list((tmp_path / "out" / "goldens").iterdir())) == 1


def test_writing_the_same_version_again_changes_nothing(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """Repeating an import is harmless."""
    made = gather(make_sample("a"))
    write_dataset(tmp_path / "out", made)
    before = (tmp_path / "out" / MANIFEST).read_bytes()
    write_dataset(tmp_path / "out", made)
    assert before == (tmp_path / "out" / MANIFEST).read_bytes()


def test_other_content_is_never_overwritten(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """A folder that holds another dataset, or anything else, is refused and left as it is."""
    write_dataset(tmp_path / "out", gather(make_sample("a")))
    with pytest.raises(UsageError, match="another dataset"):
        write_dataset(tmp_path / "out", gather(make_sample("b")))
    with pytest.raises(UsageError, match="not an empty folder"):
        write_dataset(tmp_path / "source", gather(make_sample("b")))
    assert [sample.name for sample in load_dataset(tmp_path / "out").samples] == ["a"]


def test_empty_folder_is_filled(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """A folder that exists and is empty can be given."""
    (tmp_path / "out").mkdir()
    assert len(write_dataset(tmp_path / "out", gather(make_sample("a"))).samples) == 1


@pytest.mark.parametrize("spoil", [Path.unlink, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"other")])
def test_failed_write_leaves_nothing(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset], spoil: Callable[[Path], object]
) -> None:
    """When a source file vanishes or changes meanwhile there is no half dataset."""
    sample = make_sample("b")
    made = gather(make_sample("a"), sample)
    spoil(sample.image)
    with pytest.raises(InspectionError):
        write_dataset(tmp_path / "out", made)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_changed_and_missing_files_are_found(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """Verifying names each image or golden that is gone or no longer the same."""
    loaded = write_dataset(tmp_path / "out", gather(make_sample("a", golden=True), make_sample("b")))
    a, b = loaded.samples
    assert a.golden is not None
    a.golden.write_bytes(a.golden.read_bytes() + b"!")
    b.image.unlink()
    assert (a.golden, b.image) == changed_files(loaded)


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(document)
    (folder / MANIFEST).write_text(json.dumps(document), encoding="utf-8")


def row_edit(key: str, value: object) -> Callable[[dict], object]:
    return lambda d: d["samples"][0].update({key: value})


EDITS: dict[str, tuple[Callable[[dict], object], str]] = {
    "label moved": (lambda d: d["samples"][0]["labels"][0].update(box_px=[1, 2, 31, 40]), "was edited"),
    "sample removed": (lambda d: d["samples"].pop(), "was edited"),
    "split changed": (row_edit("split", "val"), "was edited"),
    "unknown split": (row_edit("split", "training"), r"samples\.0\.split"),
    "unknown key": (lambda d: d.update(colour="red"), "colour"),
    "other schema": (lambda d: d.update(schema=2), "schema"),
    "degenerate box": (lambda d: d["samples"][0]["labels"][0].update(box_px=[5, 2, 5, 40]), "x2 > x1"),
    "three sides": (lambda d: d["samples"][0]["labels"][0].update(box_px=[5, 2, 5]), "box_px"),
    "unknown class": (lambda d: d["samples"][0]["labels"][0].update(defect_class="rust"), "'rust'"),
    "unknown image class": (row_edit("image_class", "rust"), "is of class 'rust'"),
    "image class changed": (row_edit("image_class", "dent"), "was edited"),
    "two corners": (lambda d: d["samples"][0]["labels"][0].update(polygons_px=[[[1, 2], [3, 4]]]), "three or more"),
    "half a point": (lambda d: d["samples"][0]["labels"][0].update(polygons_px=[[[1, 2], [3]]]), "polygons_px"),
    "class twice": (lambda d: d.update(classes=["dent", "scratch", "dent"]), "unique"),
    "name twice": (row_edit("name", "b"), "2 samples are named 'b'"),
    "no name": (lambda d: d.update(name=" "), "has no name"),
    "absolute path": (row_edit("image", "/etc/passwd"), "out of the folder"),
    "path above": (row_edit("image", "images/../../x.png"), "out of the folder"),
    "golden without digest": (row_edit("golden", "goldens/x.png"), "go together"),
    "no digest": (row_edit("image_sha256", "abc"), "image_sha256"),
}


@pytest.mark.parametrize("case", EDITS)
def test_edited_manifest_is_refused(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset], case: str
) -> None:
    """A dataset.json that was edited by hand is refused, saying where."""
    change, text = EDITS[case]
    write_dataset(tmp_path / "out", gather(make_sample("a"), make_sample("b")))
    edit(tmp_path / "out", change)
    with pytest.raises(UsageError, match=text) as caught:
        load_dataset(tmp_path / "out")
    assert MANIFEST in caught.value.what


def test_many_mistakes_are_listed_at_once(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """All mistakes in a manifest come in one message, twenty of them in full."""
    write_dataset(tmp_path / "out", gather(make_sample("a")))
    edit(tmp_path / "out", lambda d: d.update({f"extra{i}": i for i in range(25)}))
    with pytest.raises(UsageError, match="and 5 more"):
        load_dataset(tmp_path / "out")


def test_torn_manifest_is_refused(tmp_path: Path) -> None:
    """A dataset.json that is no whole JSON document is refused."""
    (tmp_path / MANIFEST).write_text('{"schema": 1, "na')
    with pytest.raises(UsageError, match="not a valid dataset"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("make", "text"),
    [(Path.mkdir, "is no dataset"), (Path.touch, "is not a folder"), (lambda p: None, "does not exist")],
    ids=["empty folder", "file", "nothing"],
)
def test_open_dataset_lists_what_is_accepted(tmp_path: Path, make: Callable[[Path], object], text: str) -> None:
    """Anything else than a dataset or a known layout is answered with what is accepted."""
    make(tmp_path / "x")
    with pytest.raises(UsageError, match=text) as caught:
        open_dataset(tmp_path / "x")
    assert "dataset.json" in caught.value.fix
    assert "DeepPCB" in caught.value.fix


def test_load_without_manifest_is_refused(tmp_path: Path) -> None:
    """Loading names the file that is missing."""
    with pytest.raises(UsageError, match=MANIFEST):
        load_dataset(tmp_path)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda p: p.write_bytes(b"")], ids=["missing", "empty"])
def test_dataset_of_unreadable_files_cannot_be_made(
    make_sample: Callable[..., Sample], gather: Callable[..., Dataset], spoil: Callable[[Path], object]
) -> None:
    """A missing or empty image is named when the dataset is made."""
    sample = make_sample("a")
    spoil(sample.image)
    with pytest.raises(UsageError, match=r"a\.png"):
        gather(sample)


def test_samples_of_unknown_class_make_no_dataset(make_sample: Callable[..., Sample]) -> None:
    """A label must have one of the classes of its dataset."""
    with pytest.raises(UsageError, match="'scratch'"):
        make_dataset("d", [make_sample("a")], classes=("dent",), origin=Origin("test", ""))


def test_digests_must_match_the_samples() -> None:
    """A dataset cannot exist with more samples than digests."""
    with pytest.raises(ValueError, match="1 samples have 0 digests"):
        Dataset("d", CLASSES, dataset_of([ROW]).samples, (), Origin("test", ""))
