import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.check import CountRow, check, count_by_group, count_by_split
from datasets.manifest import Dataset, Origin
from datasets.sample import LabelledBox, Sample
from inspection.images import write_png

Build, Gather = Callable[..., Sample], Callable[..., Dataset]


def board(seed: int) -> np.ndarray:
    """A random pattern of blots, alike only to itself."""
    noise = np.random.default_rng(seed).standard_normal((128, 160)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5)
    return cv2.normalize(smooth, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def kinds(dataset: Dataset, severity: str = "") -> list[str]:
    return [finding.kind for finding in check(dataset) if severity in ("", finding.severity)]


def test_clean_dataset_has_no_finding(make_sample: Build, gather: Gather) -> None:
    """A split dataset with all classes on both sides and no copies gives no finding."""
    samples = (make_sample("a", image=board(1), split="train"), make_sample("b", image=board(2), split="val"))
    assert check(gather(*samples)) == ()


def test_unsplit_dataset_is_noted(make_sample: Build, gather: Gather) -> None:
    """Without splits the leak checks cannot run, and that is said."""
    assert kinds(gather(make_sample("a"))) == ["not-split"]


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes()[:-9]),
        lambda p: write_png(p, board(9)),
    ],
    ids=["missing", "empty", "truncated", "changed"],
)
@pytest.mark.parametrize("role", ["image", "golden"])
def test_broken_file_is_an_error(
    make_sample: Build, gather: Gather, spoil: Callable[[Path], object], role: str
) -> None:
    """A file that is missing, unreadable or no longer the same is an error that names sample and file."""
    dataset = gather(make_sample("a", golden=True), make_sample("b"))
    file = getattr(dataset.samples[0], role)
    spoil(file)
    finding = check(dataset)[0]
    assert (finding.severity, finding.kind, finding.samples) == ("error", "file", ("a",))
    assert file.name in finding.text


def test_box_outside_is_an_error(make_sample: Build, gather: Gather) -> None:
    """A box that reaches over the border is an error."""
    outside = dataclasses.replace(make_sample("a"), labels=(LabelledBox("dent", (0, 0, 80.5, 10)),))
    assert "box-outside" in kinds(gather(outside), "error")


def test_tiny_and_repeated_boxes_are_warnings(make_sample: Build, gather: Gather) -> None:
    """A box under 2 px and one that is there twice are warnings."""
    labels = (LabelledBox("dent", (0, 0, 1.5, 10)), *[LabelledBox("scratch", (1, 1, 9, 9))] * 2)
    found = kinds(gather(dataclasses.replace(make_sample("a"), labels=labels)), "warning")
    assert found == ["box-tiny", "box-repeated"]


def test_image_sizes_are_noted(make_sample: Build, gather: Gather) -> None:
    """A mixture of image sizes is noted with its counts."""
    samples = [make_sample(name, image=board(i)[: 100 + 28 * (i > 1)]) for i, name in enumerate("abc")]
    (note,) = (finding for finding in check(gather(*samples)) if finding.kind == "image-sizes")
    assert note.text == "images have 2 sizes: 160x100 (2), 160x128 (1)"


def test_golden_of_another_size_is_a_warning(make_sample: Build, gather: Gather) -> None:
    """A golden that does not have the size of its frame is a warning."""
    assert "golden-size" in kinds(gather(make_sample("a", image=board(1), golden=True)), "warning")


def test_class_without_samples_is_a_warning(make_sample: Build, gather: Gather) -> None:
    """A class nobody marked cannot be learned; one that a split lacks cannot be scored there."""
    scratches = (LabelledBox("scratch", (1, 2, 30, 40)),)
    train = dataclasses.replace(make_sample("a", image=board(1), split="train"), labels=scratches)
    val = dataclasses.replace(make_sample("b", image=board(2), split="val"), labels=())
    texts = [finding.text for finding in check(gather(train, val)) if finding.kind.startswith("class")]
    assert texts == [
        "class 'scratch' is shown by no sample in split 'val' (1 samples)",
        "class 'dent' is shown by no sample of the whole dataset",
    ]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "train"), [("warning", "duplicate")]),
        (("train", "val"), [("error", "duplicate-across-splits"), ("warning", "duplicate")]),
    ],
)
def test_exact_duplicates(
    make_sample: Build, gather: Gather, splits: tuple[str, str], expected: list[tuple[str, str]]
) -> None:
    """The same image twice is a warning, on both sides of a split an error; it is no near duplicate as well."""
    samples = [make_sample(name, image=board(1), split=split) for name, split in zip("ab", splits, strict=True)]
    assert [(f.severity, f.kind) for f in check(gather(*samples)) if "duplicate" in f.kind] == expected


def test_duplicate_with_other_labels_is_an_error(make_sample: Build, gather: Gather) -> None:
    """One image that is good here and defective there cannot be learned."""
    good = dataclasses.replace(make_sample("a", image=board(1)), labels=())
    assert "duplicate-labelled-differently" in kinds(gather(good, make_sample("b", image=board(1))), "error")


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relit": lambda image: cv2.convertScaleAbs(image, alpha=0.8, beta=20),
    "smaller": lambda image: cv2.resize(image, (120, 96), interpolation=cv2.INTER_AREA),
    "noisy": lambda image: np.clip(image + np.random.default_rng(5).normal(0, 10, image.shape), 0, 255).astype(
        np.uint8
    ),
    "recompressed": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 0),
    "moved": lambda image: np.roll(image, 2, axis=1),
    "with a defect": lambda image: cv2.circle(image.copy(), (60, 60), 6, 0, -1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_duplicate_across_a_split_is_found(make_sample: Build, gather: Gather, change: str) -> None:
    """A changed copy on the other side of a split is found among other images."""
    samples = [make_sample(f"t{i}", image=board(i), split="train") for i in range(5)]
    samples += [make_sample(f"v{i}", image=board(i + 100), split="val") for i in range(5)]
    samples.append(make_sample("copy", image=CHANGES[change](board(3)), split="val"))
    (finding,) = (f for f in check(gather(*samples)) if f.kind == "near-duplicate-across-splits")
    assert finding.samples == ("t3", "copy")


@pytest.mark.parametrize("splits", [("train", "train"), ("", ""), ("train", "")])
def test_near_duplicates_on_one_side_are_no_finding(
    make_sample: Build, gather: Gather, splits: tuple[str, str]
) -> None:
    """Similar frames of one board are expected as long as they lie on one side."""
    images = (board(1), CHANGES["noisy"](board(1)))
    samples = [make_sample(n, image=i, split=s) for n, i, s in zip("ab", images, splits, strict=True)]
    assert "near-duplicate-across-splits" not in kinds(gather(*samples))


def test_turned_copies_across_a_split_are_one_finding(make_sample: Build, gather: Gather) -> None:
    """A group of look-alikes is reported once, with all its names."""
    copies = [board(3), np.ascontiguousarray(np.rot90(board(3))), np.ascontiguousarray(board(3)[::-1])]
    samples = [make_sample(n, image=i, split=s) for n, i, s in zip("abc", copies, ("train", "val", "val"), strict=True)]
    (finding,) = (f for f in check(gather(*samples)) if f.kind.startswith("near"))
    assert (finding.kind, finding.samples) == ("near-duplicate-across-splits", ("a", "b", "c"))
    assert "'train', 'val'" in finding.text


def test_near_duplicates_labelled_differently(make_sample: Build, gather: Gather) -> None:
    """One photograph that is good here and defective there, turned, is a warning; other boxes are none."""
    first, second = make_sample("a", image=board(1)), make_sample("b", image=np.ascontiguousarray(board(1)[::-1]))
    good = dataclasses.replace(second, labels=())
    (finding,) = (f for f in check(gather(first, good)) if f.kind.startswith("near"))
    assert (finding.severity, finding.kind) == ("warning", "near-duplicate-labelled-differently")
    assert "1 without and 1 with a defect" in finding.text
    scratched = dataclasses.replace(second, labels=(LabelledBox("scratch", (0, 0, 9, 9)),))
    assert not any("near" in kind for kind in kinds(gather(first, scratched)))


def test_look_alikes_of_an_unsplit_dataset_are_noted(make_sample: Build, gather: Gather) -> None:
    """How many copies there are tells that a random split would leak."""
    images = [board(1), board(2), np.ascontiguousarray(board(2)[:, ::-1]), CHANGES["relit"](board(2))]
    dataset = gather(*[make_sample(name, image=image) for name, image in zip("abcd", images, strict=True)])
    (note,) = (f for f in check(dataset) if f.kind == "look-alikes")
    assert note.severity == "note"
    assert note.text.startswith("3 of 4 samples fall into 1 group(s) of look-alikes (largest 3)")


def test_golden_like_its_frame_is_no_duplicate(make_sample: Build, gather: Gather) -> None:
    """Goldens are not compared with frames."""
    a, b = make_sample("a", image=board(1), split="train"), make_sample("b", image=board(2), split="val")
    assert check(gather(dataclasses.replace(a, golden=b.image), dataclasses.replace(b, golden=a.image))) == ()


def test_uniform_images_look_like_nothing(make_sample: Build, gather: Gather) -> None:
    """Two plain images of different grey are not called near duplicates."""
    samples = [make_sample(s, image=np.full((40, 40), g, np.uint8), split=s) for s, g in (("train", 90), ("val", 160))]
    assert "near-duplicate-across-splits" not in kinds(gather(*samples))


def test_what_all_images_share_makes_no_near_duplicates(make_sample: Build, gather: Gather) -> None:
    """Photographs of one product from one place look alike; only real copies are reported."""
    product = board(0).astype(np.float32)
    images = [
        np.clip(product + 0.4 * (board(i).astype(np.float32) - 128), 0, 255).astype(np.uint8) for i in range(1, 61)
    ]
    samples = [
        make_sample(f"s{i}", image=image, split="train" if i % 2 else "val")
        for i, image in enumerate([*images, images[0]])
    ]
    samples[-1] = make_sample("s60", image=CHANGES["relit"](images[1]), split="val")
    pairs = [f.samples for f in check(gather(*samples)) if f.kind == "near-duplicate-across-splits"]
    assert pairs == [("s1", "s60")]


def test_group_on_both_sides_is_its_own_finding(make_sample: Build, gather: Gather) -> None:
    """A group in train and in val is named with its counts."""
    samples = [
        make_sample(n, image=board(i), group="lot 7", split="val" if i else "train") for i, n in enumerate("abc")
    ]
    (finding,) = (f for f in check(gather(*samples)) if f.kind == "group-across-splits")
    assert "'lot 7'" in finding.text
    assert "1 in 'train', 2 in 'val'" in finding.text


def test_errors_come_first(make_sample: Build, gather: Gather) -> None:
    """Findings are ordered by severity."""
    samples = (make_sample("a", image=board(1), group="g", split="train"), make_sample("b", group="g", split="val"))
    dataset = gather(*samples)
    dataset.samples[1].image.unlink()
    assert [finding.severity for finding in check(dataset)] == ["error", "warning"]


def test_counts(make_sample: Build, gather: Gather) -> None:
    """Samples, good ones and boxes are counted per split and per group, boxes in the order of the classes."""
    empty = dataclasses.replace(make_sample("c", group="x", split="val"), labels=())
    dataset = gather(make_sample("a", group="x", split="train"), make_sample("b", group="y", split="train"), empty)
    assert count_by_split(dataset) == (CountRow("train", 2, 0, (2, 2)), CountRow("val", 1, 1, (0, 0)))
    assert count_by_group(dataset) == (CountRow("x", 2, 1, (1, 1)), CountRow("y", 1, 0, (1, 1)))


def test_dataset_without_samples_can_be_checked() -> None:
    """No sample, no crash."""
    empty = Dataset("d", ("dent",), (), (), Origin("test", ""))
    assert [finding.kind for finding in check(empty)] == ["class-empty", "not-split"]
