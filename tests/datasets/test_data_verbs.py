import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.cli import add_verb
from datasets.manifest import Dataset, changed_files, load_dataset, write_dataset
from datasets.sample import Sample
from inspection.errors import UsageError
from inspection.images import read_grey, write_png

Build, Gather = Callable[..., Sample], Callable[..., Dataset]


def lineside(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_verb(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", *map(str, words)])
    return int(args.func(args))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two boards in DeepPCB's layout."""
    for number, group in enumerate(("00041", "12000")):
        images, labels = (tmp_path / "PCBData" / f"group{group}" / name for name in (group, f"{group}_not"))
        images.mkdir(parents=True)
        labels.mkdir()
        for kind in ("test", "temp"):
            write_png(
                images / f"{group}000_{kind}.png", np.random.default_rng(number).integers(0, 256, (48, 64), np.uint8)
            )
        (labels / f"{group}000.txt").write_text("3 4 20 30 1\n")
    return tmp_path / "PCBData"


@pytest.fixture
def stored(tmp_path: Path, make_sample: Build, gather: Gather) -> Path:
    """A written dataset of two groups."""
    write_dataset(tmp_path / "stored", gather(make_sample("a"), make_sample("b")))
    return tmp_path / "stored"


def test_import_prints_the_version(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Importing writes a dataset named like its folder and prints its version."""
    assert lineside("import", "deeppcb", source, "-o", tmp_path / "boards") == 0
    dataset = load_dataset(tmp_path / "boards")
    assert (dataset.name, len(dataset.samples), dataset.origin.importer) == ("boards", 2, "deeppcb")
    assert dataset.version in capsys.readouterr().out


def test_import_with_a_problem_writes_nothing(source: Path, tmp_path: Path) -> None:
    """Without --skip-bad one bad file stops the import."""
    next(source.rglob("*_temp.png")).unlink()
    with pytest.raises(UsageError, match="golden is missing"):
        lineside("import", "deeppcb", source, "-o", tmp_path / "boards")
    assert not (tmp_path / "boards").exists()


def test_skip_bad_lists_what_was_left_out(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --skip-bad the rest is imported and each omission is printed."""
    next(source.rglob("12000000_temp.png")).unlink()
    assert lineside("import", "deeppcb", source, "-o", tmp_path / "x", "--skip-bad", "--name", "few") == 0
    assert [sample.name for sample in load_dataset(tmp_path / "x").samples] == ["00041000"]
    assert "12000000_temp.png: golden is missing" in capsys.readouterr().out


def test_import_refuses_names_that_no_class_may_have(tmp_path: Path) -> None:
    """Folders that differ by case alone, or that are called good and were not meant so, are no classes."""
    for number, folder in enumerate(("train/ok", "train/open", "val/Open", "val/good")):
        (tmp_path / "source" / folder).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64), np.uint8)
        write_png(tmp_path / "source" / folder / f"{number}.png", pixels)
    words = ("import", "folders", tmp_path / "source", "-o", tmp_path / "out", "--good", "ok")
    with pytest.raises(UsageError, match="cannot be a defect class") as refused:
        lineside(*words)
    assert "'good' means a part without a defect; 'open' and" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_check_prints_tables_and_findings(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dataset without errors exits 0 and shows counts per split and group."""
    assert lineside("check", stored) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["split", "samples", "good", "scratch", "dent"] in [line.split() for line in lines]
    assert ["(none)", "2", "0", "2", "2"] in [line.split() for line in lines]
    assert lines[-1] == "0 error(s), 0 warning(s), 1 note(s)"


def test_check_exits_1_on_errors(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error makes the exit code 1; --json gives the same findings to programs."""
    (stored / "images" / "a.png").unlink()
    assert lineside("check", stored, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["findings"][0]["samples"] == ["a"]
    assert document["groups"][0] == {"name": "a", "samples": 1, "good": 0, "boxes": {"scratch": 1, "dent": 1}}


def test_check_shortens_long_lists(
    tmp_path: Path, make_sample: Build, gather: Gather, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text form shows ten findings of a kind and forty groups, and counts the others."""
    write_dataset(tmp_path / "out", gather(*(make_sample(f"s{i}") for i in range(43))))
    for file in (tmp_path / "out" / "images").iterdir():
        file.unlink()
    assert lineside("check", tmp_path / "out") == 1
    out = capsys.readouterr().out
    assert out.count("error: file:") == 10
    assert "file: 33 more" in out
    assert "(3 more)" in out


def test_check_reads_a_foreign_layout(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A DeepPCB folder can be checked where it lies."""
    assert lineside("check", source) == 0
    assert "group12000" in capsys.readouterr().out


def test_split_by_holdout(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Splitting writes a new dataset, leaves the old one, and prints counts of both sides."""
    version = load_dataset(stored).version
    assert lineside("split", stored, "-o", tmp_path / "out", "--holdout", "b") == 0
    assert [sample.split for sample in load_dataset(tmp_path / "out").samples] == ["train", "val"]
    assert version == load_dataset(stored).version
    assert ["val", "1", "0", "1", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_split_by_fraction(stored: Path, tmp_path: Path) -> None:
    """A fraction draws the groups."""
    assert lineside("split", stored, "-o", tmp_path / "out", "--fraction", 0.5, "--seed", 4) == 0
    assert {"train", "val"} == {sample.split for sample in load_dataset(tmp_path / "out").samples}


@pytest.fixture
def alike(tmp_path: Path, make_sample: Build, gather: Gather) -> Path:
    """A written dataset of four groups; b is a mirrored, c an upside down."""
    cells = np.random.default_rng(0).integers(0, 256, (2, 24, 24), dtype=np.uint8)
    one, other = (np.ascontiguousarray(np.kron(c, np.ones((5, 5), np.uint8))) for c in cells)
    images = {"a": one, "b": np.ascontiguousarray(one[:, ::-1]), "c": np.ascontiguousarray(one[::-1]), "d": other}
    write_dataset(tmp_path / "alike", gather(*[make_sample(name, image=image) for name, image in images.items()]))
    return tmp_path / "alike"


def test_split_keeps_look_alikes_together(alike: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A group that is held out pulls along those with its look-alikes, and that is said."""
    assert lineside("split", alike, "-o", tmp_path / "out", "--holdout", "b") == 0
    assert [s.split for s in load_dataset(tmp_path / "out").samples] == ["val", "val", "val", "train"]
    assert (
        len({s.group for s in load_dataset(tmp_path / "out").samples}) == 2
    )  # so that nobody counts a photograph twice
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "3 of 4 samples are in 1 group(s) of look-alikes",
        "3 groups hold look-alikes of each other and become 1",
        "held out as well, for they hold look-alikes: a, c",
    ]


def test_split_by_groups_only(alike: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The search can be turned off."""
    assert lineside("split", alike, "-o", tmp_path / "out", "--holdout", "b", "--groups-only") == 0
    assert [s.split for s in load_dataset(tmp_path / "out").samples] == ["train", "val", "train", "train"]
    assert "look-alikes were not looked for" in capsys.readouterr().out


def test_split_into_folds(alike: Path, tmp_path: Path) -> None:
    """Each fold is a dataset of its own; every group is val in one of them, look-alikes in the same one."""
    assert lineside("split", alike, "-o", tmp_path / "out", "--folds", 2) == 0
    folds = [load_dataset(tmp_path / "out" / f"fold{number}") for number in (1, 2)]
    val = [{sample.name for sample in fold.samples if sample.split == "val"} for fold in folds]
    assert sorted(val, key=len) == [{"d"}, {"a", "b", "c"}]


def test_split_needs_one_way_to_choose(stored: Path, tmp_path: Path) -> None:
    """Neither or both of --holdout and --fraction is refused by the command line."""
    for words in ((), ("--holdout", "a", "--fraction", 0.5)):
        with pytest.raises(SystemExit) as caught:
            lineside("split", stored, "-o", tmp_path / "out", *words)
        assert caught.value.code == 2


def test_version(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The version alone goes to stdout."""
    assert lineside("version", stored) == 0
    assert capsys.readouterr().out == f"{load_dataset(stored).version}\n"


def test_version_as_json(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json gives name, version and number of samples."""
    assert lineside("version", stored, "--json") == 0
    expected = {"name": "parts", "version": load_dataset(stored).version, "samples": 2}
    assert expected == json.loads(capsys.readouterr().out)


def test_verify_finds_a_changed_image(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tampered image makes the exit code 1 and is named, in text and in JSON."""
    assert lineside("version", stored, "--verify") == 0
    write_png(stored / "images" / "b.png", np.zeros((64, 80), np.uint8))
    assert lineside("version", stored, "--verify") == 1
    assert "b.png" in capsys.readouterr().out
    assert lineside("version", stored, "--verify", "--json") == 1
    assert [str(stored / "images" / "b.png")] == json.loads(capsys.readouterr().out)["changed"]


def test_synth_refuses_bad_numbers(tmp_path: Path) -> None:
    """No board, or a negative number of defects, is refused."""
    with pytest.raises(UsageError, match="--boards"):
        lineside("synth", "-o", tmp_path / "out", "--boards", 0)


def test_synth_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Generated boards are a dataset with goldens and boxes; the same seed gives the same version."""
    assert lineside("synth", "-o", tmp_path / "a", "--boards", 2, "--seed", 7) == 0
    assert str(tmp_path / "a" / "contact_sheet.png") in capsys.readouterr().out
    assert (tmp_path / "a" / "contact_sheet.png").is_file()
    lineside("synth", "-o", tmp_path / "b", "--boards", 2, "--seed", 7)
    dataset = load_dataset(tmp_path / "a")
    assert dataset.version == load_dataset(tmp_path / "b").version
    assert changed_files(dataset) == ()
    assert all(sample.golden and sample.image for sample in dataset.samples)
    assert any(sample.labels for sample in dataset.samples)


def test_synth_of_good_and_defective_boards(tmp_path: Path) -> None:
    """A share of the boards has defects, the others are good parts with a golden as well."""
    words = ("--boards", 4, "--defective", 0.5, "--defects", 4)
    assert lineside("synth", "-o", tmp_path / "out", *words) == 0
    samples = load_dataset(tmp_path / "out").samples
    assert [False, False, True, True] == sorted(sample.defective for sample in samples)
    assert all(sample.golden for sample in samples)


def test_synth_from_goldens(tmp_path: Path) -> None:
    """Given goldens set size and group of the generated samples."""
    (tmp_path / "goldens").mkdir()
    stripes = np.where((np.arange(320) // 20 % 2).astype(bool), 255, 0).astype(np.uint8)
    write_png(tmp_path / "goldens" / "panel.png", np.repeat(stripes[None], 256, axis=0))
    words = ("--boards", 2, "--golden", tmp_path / "goldens", "--defects", 3, "--copper", "light")
    assert lineside("synth", "-o", tmp_path / "out", *words) == 0
    samples = load_dataset(tmp_path / "out").samples
    assert {sample.group for sample in samples} == {"panel"}
    assert {read_grey(sample.image).shape for sample in samples} == {(256, 320)}


def test_synth_without_a_golden_in_the_folder_is_refused(tmp_path: Path) -> None:
    """An empty folder of goldens is a mistake, not a reason to draw boards from nothing."""
    with pytest.raises(UsageError, match="no image"):
        lineside("synth", "-o", tmp_path / "out", "--boards", 1, "--golden", tmp_path)
