"""What every importer must do.  A new importer adds one builder of a tiny folder in its layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.importers import IMPORTERS, open_importer, recognise
from datasets.manifest import open_dataset
from datasets.sample import Sample
from inspection.errors import ConfigError, UsageError
from inspection.images import read_image, write_png


def build_deeppcb(root: Path) -> Path:
    """Two boards with one labelled pair each, one of them without defects; gives a file that belongs to a sample."""
    for number, group in enumerate(("00041", "12000")):
        images, labels = (root / "PCBData" / f"group{group}" / name for name in (group, f"{group}_not"))
        images.mkdir(parents=True)
        labels.mkdir()
        for kind in ("test", "temp"):
            picture = np.random.default_rng(number).integers(0, 256, (48, 64), dtype=np.uint8)
            write_png(images / f"{group}000_{kind}.png", picture)
        (labels / f"{group}000.txt").write_text("3 4 20 30 1\n" * number)
    return images / f"{group}000_test.png"


BUILDERS: dict[str, Callable[[Path], Path]] = {"deeppcb": build_deeppcb}


@pytest.fixture(params=sorted(IMPORTERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_importer_has_a_builder() -> None:
    """No importer goes without this suite."""
    assert set(IMPORTERS) == set(BUILDERS)


def test_own_layout_is_recognised(name: str, tmp_path: Path) -> None:
    """An importer recognises its own layout, and is found by it."""
    BUILDERS[name](tmp_path)
    assert name == recognise(tmp_path)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_text("x"), lambda p: None])
def test_other_things_are_not_recognised(name: str, tmp_path: Path, make: Callable[[Path], object]) -> None:
    """An empty folder, a file or nothing at all is no source, and reading it says so."""
    make(tmp_path / "other")
    importer = open_importer(name)
    assert not importer.recognises(tmp_path / "other")
    with pytest.raises(UsageError) as caught:
        importer.survey(tmp_path / "other")
    assert importer.layout in caught.value.fix


def test_samples_are_usable(name: str, tmp_path: Path) -> None:
    """Samples have readable images, unique names, known classes and boxes inside the image."""
    BUILDERS[name](tmp_path)
    importer = open_importer(name)
    samples = list(importer.read(tmp_path))
    assert samples
    assert len(samples) == len({sample.name for sample in samples})
    for sample in samples:
        height, width = read_image(sample.image).shape[:2]
        assert all(label.inside(width, height) for label in sample.labels)
        assert {label.defect_class for label in sample.labels} <= set(importer.classes)


def test_reading_twice_gives_the_same(name: str, tmp_path: Path) -> None:
    """The order of samples does not depend on the file system."""
    BUILDERS[name](tmp_path)
    first: list[Sample] = list(open_importer(name).read(tmp_path))
    assert first == list(open_importer(name).read(tmp_path))
    assert open_dataset(tmp_path).version == open_dataset(tmp_path).version


def test_damaged_image_is_reported_and_left_out(name: str, tmp_path: Path) -> None:
    """A truncated image stops the import; a survey goes on with the other samples and names the file."""
    file = BUILDERS[name](tmp_path)
    file.write_bytes(file.read_bytes()[:-20])
    survey = open_importer(name).survey(tmp_path)
    assert any(file.name in problem.where for problem in survey.problems)
    assert file not in {sample.image for sample in survey.usable()}
    with pytest.raises(UsageError, match=file.name):
        open_importer(name).read(tmp_path)


def test_source_is_not_changed(name: str, tmp_path: Path) -> None:
    """Reading writes nothing."""
    BUILDERS[name](tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    list(open_importer(name).read(tmp_path))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_unknown_importer_lists_the_known_ones() -> None:
    """A wrong name is answered with the right ones."""
    with pytest.raises(ConfigError) as caught:
        open_importer("nonsense")
    assert all(known in caught.value.fix for known in IMPORTERS)
