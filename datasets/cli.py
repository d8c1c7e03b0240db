"""``lineside data import | export | check | split | version | synth``, and the verbs of ``cli_versions``.

Functions parse, call the library, print.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import numpy as np

from datasets.check import SEVERITIES, CountRow, Finding, check, count_by_group, count_by_split
from datasets.cli_versions import add_diff, add_from_records, add_merge_labels
from datasets.export import FORMATS, export
from datasets.importers import IMPORTERS, open_importer, require_importer
from datasets.look_alikes import look_alike_groups
from datasets.manifest import Dataset, Origin, changed_files, make_dataset, open_dataset, write_dataset
from datasets.sample import LabelledBox, Sample, load_grey
from datasets.split import (
    choose_folds,
    choose_holdout,
    joined_groups,
    split_by_group,
    with_joined_groups,
    with_look_alikes,
)
from inspection.errors import UsageError
from inspection.images import IMAGE_SUFFIXES, Image, write_png

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_LISTED = 10  # findings of one kind, lines of one list
_ON_SHEET = 24
_PARTS_ON_SHEET = 120
_MOST_DEFECTS = {"pcb": 6, "casting": 3}
_DEFECTIVE = {"pcb": 1.0, "casting": 0.5}  # share of them all
_GROUPS = 40  # rows of the table of groups
_SIZE_PX = (640, 640)  # of boards drawn from nothing


def add_verb(subparsers: Verbs) -> None:
    """Add ``lineside data`` and its verbs; each sets ``func``: parsed arguments in, exit code out."""
    parser = subparsers.add_parser("data", help="import, check, split and generate labelled images")
    verbs = parser.add_subparsers(dest="data_verb", required=True, metavar="VERB")
    _add_import(verbs)
    _add_export(verbs)
    _add_check(verbs)
    _add_split(verbs)
    _add_version(verbs)
    _add_synth(verbs)
    add_diff(_verb(verbs, "diff", "compare two datasets, or a dataset with an earlier version of itself"))
    add_from_records(_verb(verbs, "from-records", "make a dataset of the reviewed records of a station"))
    add_merge_labels(_verb(verbs, "merge-labels", "take labels edited in CVAT or Label Studio back into their dataset"))


def _verb(verbs: Verbs, name: str, text: str) -> argparse.ArgumentParser:
    return verbs.add_parser(name, help=text, description=text)


def _add(verbs: Verbs, name: str, func: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser = _verb(verbs, name, text)
    parser.set_defaults(func=func)
    return parser


def _add_import(verbs: Verbs) -> None:
    parser = _add(verbs, "import", _import, "copy labelled images of a foreign layout into a dataset")
    parser.add_argument("importer", choices=["auto", *sorted(IMPORTERS)], help="layout of the source; auto finds it")
    parser.add_argument("source", type=Path, metavar="SRC", help="folder that holds the source")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DATASET", help="new folder")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what cannot be used, and list it")
    parser.add_argument("--name", default="", help="name of the dataset (default: that of the new folder)")
    parser.add_argument(
        "--good", nargs="*", metavar="FOLDER", help="folders: those of good parts, by name; may be none"
    )


def _import(args: argparse.Namespace) -> int:
    layout = require_importer(args.source) if args.importer == "auto" else args.importer
    options = {} if args.good is None else {"good": tuple(args.good)}
    importer = open_importer(layout, **options)
    survey = importer.survey(args.source)
    samples = survey.usable() if args.skip_bad else survey.complete()
    origin = Origin(layout, str(args.source))
    name = args.name or args.output.absolute().name
    dataset = write_dataset(args.output, make_dataset(name, samples, classes=survey.classes, origin=origin))
    print(f"{args.output}: {len(dataset.samples)} samples, version {dataset.version}")
    print("\n".join([f"read as {layout}", *survey.notes]))
    if survey.problems:
        print(f"left out for {len(survey.problems)} problem(s):")
    for problem in survey.problems:
        print(f"  {problem}")
    return 0


def _add_export(verbs: Verbs) -> None:
    parser = _add(verbs, "export", _export, "write a dataset in a layout that other programs read")
    parser.add_argument("format", choices=sorted(FORMATS), help="layout to write")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="dataset, or a folder in a known layout")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="new folder")
    parser.add_argument("--lossy", action="store_true", help="leave out what the layout cannot hold, and list it")
    parser.add_argument(
        "--undrawn", action="store_true", help="with escapes whose defects nobody has drawn yet, to draw them elsewhere"
    )


def _export(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.dataset, whole=args.undrawn)
    notes = export(args.format, dataset, args.output, lossy=args.lossy)
    print(f"{args.output}: {len(dataset.samples)} samples as {args.format}, version {dataset.version}")
    print("\n".join(notes), end="\n" * bool(notes))
    return 0


def _add_check(verbs: Verbs) -> None:
    parser = _add(verbs, "check", _check, "look for broken files, wrong boxes, duplicates and leaks; exit 1 on errors")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="dataset, or a folder in a known layout")
    parser.add_argument("--json", action="store_true", help="print one JSON object that lists everything")


def _check(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.dataset, whole=True)
    findings = check(dataset)
    if args.json:
        print(json.dumps(_report(dataset, findings), ensure_ascii=False))
    else:
        print(f"{dataset.name}: {len(dataset.samples)} samples, version {dataset.version}")
        print("\n".join([*_table("split", dataset, count_by_split(dataset)), ""]))
        print("\n".join([*_table("group", dataset, count_by_group(dataset)), ""]))
        print("\n".join(_lines(findings)))
    return int(any(finding.severity == "error" for finding in findings))


def _report(dataset: Dataset, findings: Sequence[Finding]) -> dict[str, object]:
    def rows(counts: Sequence[CountRow]) -> list[dict[str, object]]:
        return [
            {
                "name": row.key,
                "samples": row.samples,
                "good": row.good,
                "boxes": dict(zip(dataset.classes, row.boxes, strict=True)),
            }
            for row in counts
        ]

    return {
        "name": dataset.name,
        "version": dataset.version,
        "samples": len(dataset.samples),
        "splits": rows(count_by_split(dataset)),
        "groups": rows(count_by_group(dataset)),
        "findings": [asdict(finding) for finding in findings],
    }


def _table(title: str, dataset: Dataset, rows: Sequence[CountRow]) -> Iterator[str]:
    """Samples, good ones and marks per class, one line a row, a sum below; very many rows are shortened."""
    total = tuple(sum(row.boxes[i] for row in rows) for i in range(len(dataset.classes)))
    cells = [(title, "samples", "good", *dataset.classes)]
    cells += [(row.key or "(none)", str(row.samples), str(row.good), *map(str, row.boxes)) for row in rows[:_GROUPS]]
    cells += [(f"({len(rows) - _GROUPS} more)", *[""] * (2 + len(total)))] * (len(rows) > _GROUPS)
    cells += [("all", str(len(dataset.samples)), str(sum(row.good for row in rows)), *map(str, total))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        yield "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))])


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """The findings as text: at most ten of a kind, the rest as a number."""
    shown: Counter[str] = Counter()
    for finding in findings:
        shown[finding.kind] += 1
        if shown[finding.kind] <= _LISTED:
            yield f"{finding.severity}: {finding.kind}: {finding.text}"
    for kind, count in shown.items():
        if count > _LISTED:
            yield f"{kind}: {count - _LISTED} more, --json lists all"
    severities = Counter(finding.severity for finding in findings)
    yield ", ".join(f"{severities[severity]} {severity}(s)" for severity in SEVERITIES)


def _add_split(verbs: Verbs) -> None:
    parser = _add(verbs, "split", _split, "write a copy of a dataset that is divided into train and val by groups")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="dataset, or a folder in a known layout")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="new folder")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--holdout", nargs="+", metavar="GROUP", help="groups for val")
    choice.add_argument("--fraction", type=float, metavar="F", help="draw groups with about this share of the samples")
    choice.add_argument("--folds", type=int, metavar="K", help="write OUT/fold1 to foldK; each group is val in one")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument(
        "--groups-only", action="store_true", help="do not look for look-alikes, which keep their groups together"
    )


def _split(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.dataset, whole=True)
    alike = () if args.groups_only else look_alike_groups(dataset)
    if args.folds is not None:
        folds = choose_folds(dataset, args.folds, seed=args.seed, alike=alike)
        targets = [(args.output / f"fold{number}", holdout) for number, holdout in enumerate(folds, 1)]
    elif args.holdout:
        targets = [(args.output, with_look_alikes(dataset, args.holdout, alike))]
    else:
        targets = [(args.output, choose_holdout(dataset, args.fraction, seed=args.seed, alike=alike))]
    written = []
    for folder, holdout in targets:
        divided = with_joined_groups(split_by_group(dataset, holdout), alike)
        written.append((folder, holdout, write_dataset(folder, divided)))
    print("\n".join(_look_alike_lines(dataset, alike, args)))
    for folder, holdout, divided in written:
        print(f"{folder}: {len(divided.samples)} samples, version {divided.version}")
        print(f"val: {_some(sorted(set(holdout)))}")
        print("\n".join(_table("split", divided, count_by_split(divided))))
    return 0


def _look_alike_lines(dataset: Dataset, alike: Sequence[Sequence[str]], args: argparse.Namespace) -> Iterator[str]:
    """What look-alikes did to the split."""
    if args.groups_only:
        yield "look-alikes were not looked for"
        return
    joined = joined_groups(dataset, alike)
    yield f"{sum(map(len, alike))} of {len(dataset.samples)} samples are in {len(alike)} group(s) of look-alikes"
    if joined:
        yield f"{sum(map(len, joined))} groups hold look-alikes of each other and become {len(joined)}"
    pulled = sorted(set(with_look_alikes(dataset, args.holdout or (), alike)) - set(args.holdout or ()))
    if pulled:
        yield f"held out as well, for they hold look-alikes: {_some(pulled)}"
    test = {sample.name for sample in dataset.samples if sample.split == "test"}
    torn = [names for names in alike if 0 < sum(name in test for name in names) < len(names)]
    if torn:
        yield f"{len(torn)} group(s) of look-alikes lie partly in 'test', for example {_some(torn[0])}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _GROUPS
    return ", ".join(names[:_GROUPS]) + (f" and {more} more" if more > 0 else "")


def _add_version(verbs: Verbs) -> None:
    parser = _add(verbs, "version", _version, "print the version of a dataset; exit 1 when --verify finds a change")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="dataset, or a folder in a known layout")
    parser.add_argument("--verify", action="store_true", help="compare every image with its stored SHA-256")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _version(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.dataset, whole=True)
    changed = [str(path) for path in changed_files(dataset)] if args.verify else []
    if args.json:
        document = {"name": dataset.name, "version": dataset.version, "samples": len(dataset.samples)}
        print(json.dumps(document | ({"changed": changed} if args.verify else {}), ensure_ascii=False))
        return int(bool(changed))
    print(dataset.version)
    if args.verify:
        print(f"{len(changed)} file(s) missing or changed" if changed else "every file is as it was")
    for path in changed:
        print(f"  {path}")
    return int(bool(changed))


def _add_synth(verbs: Verbs) -> None:
    parser = _add(verbs, "synth", _synth, "generate boards or castings with labelled defects")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="new folder")
    parser.add_argument(
        "--product", choices=sorted(_MOST_DEFECTS), default="pcb", help="what to generate (default: pcb)"
    )
    parser.add_argument("--boards", type=int, metavar="N", help="pcb: how many pairs of frame and golden")
    parser.add_argument("--golden", type=Path, metavar="FOLDER", help="pcb: golden images to use in turn")
    parser.add_argument("--copper", choices=("dark", "light"), help="pcb: what copper looks like (default: dark)")
    parser.add_argument("--parts", type=int, metavar="N", help="casting: how many parts of one product")
    parser.add_argument(
        "--defective", type=float, metavar="SHARE", help="share of bad ones (default: pcb 1, casting 0.5)"
    )
    parser.add_argument("--defects", type=int, metavar="N", help="most defects on one (default: pcb 6, casting 3)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images (default: 0)")


def _synth(args: argparse.Namespace) -> int:
    _check_synth(args)
    generate = _generate if args.product == "pcb" else _generate_castings
    with tempfile.TemporaryDirectory() as scratch:
        dataset = generate(args, Path(scratch), args.output / "contact_sheet.png")
    print(f"{args.output}: {len(dataset.samples)} samples, version {dataset.version}")
    print(f"contact sheet: {args.output / 'contact_sheet.png'}")
    return 0


def _check_synth(args: argparse.Namespace) -> None:
    """Fill in what was not given; UsageError for a wrong number or an option of the other product."""
    wanted, others = ("boards", ("parts",)), ("parts", ("boards", "golden", "copper"))
    amount, foreign = wanted if args.product == "pcb" else others
    strays = [f"--{name}" for name in foreign if getattr(args, name) is not None]
    if strays:
        raise UsageError(f"{', '.join(strays)} does not go with --product {args.product}", fix=f"give --{amount} N")
    args.copper = args.copper or "dark"
    args.defective = _DEFECTIVE[args.product] if args.defective is None else args.defective
    args.defects = _MOST_DEFECTS[args.product] if args.defects is None else args.defects
    if (getattr(args, amount) or 0) < 1 or args.defects < 0 or args.seed < 0:
        raise UsageError(f"--{amount} must be 1 or more, --defects and --seed 0 or more", fix="correct these numbers")
    if not 0 <= args.defective <= 1:
        raise UsageError(f"--defective is a share from 0 to 1, got {args.defective:g}", fix="give for instance 0.5")


def _generate(args: argparse.Namespace, scratch: Path, sheet: Path) -> Dataset:
    """Draw all boards into ``scratch``, make a dataset of them and a sheet of the first ones."""
    from datasets.synth.boards import BoardPair, generate_pair
    from datasets.synth.camera import CameraModel
    from datasets.synth.casting_set import defective_parts
    from datasets.synth.defects import PCB_CLASSES
    from datasets.synth.sheet import defect_sheet

    goldens = _golden_files(args.golden) if args.golden else []
    bad = defective_parts(args.boards, args.defective, args.seed)
    pairs: list[BoardPair] = []
    samples = []
    for number in range(args.boards):
        source = goldens[number % len(goldens)] if goldens else None
        golden = load_grey(source) if source else None
        pair = generate_pair(
            np.random.default_rng([args.seed, number]),
            golden,
            size_px=_SIZE_PX,
            dark_copper=args.copper == "dark",
            defects=args.defects if bad[number] else 0,
            camera=CameraModel(),
        )
        labels = tuple(LabelledBox(defect.defect_class, defect.box_px) for defect in pair.defects)
        name = f"board{number:06d}"
        paths = _write_pair(scratch, name, pair.frame, pair.golden)
        samples.append(Sample(*paths, labels, source.stem if source else name, "", name))
        pairs += [pair] * (number < _ON_SHEET)
    origin = Origin(
        "synth", f"{args.boards} boards, {int(bad.sum())} with defects, seed {args.seed}, {args.copper} copper"
    )
    made = make_dataset(args.output.absolute().name, samples, classes=PCB_CLASSES, origin=origin)
    dataset = write_dataset(args.output, made)
    defect_sheet(pairs, sheet)
    return dataset


def _generate_castings(args: argparse.Namespace, scratch: Path, sheet: Path) -> Dataset:
    """Draw all parts into ``scratch``, make a dataset of them and a sheet of the first ones of each kind."""
    from datasets.synth.casting_defects import CASTING_CLASSES
    from datasets.synth.casting_set import defective_parts, draw_part, draw_product, write_part
    from datasets.synth.casting_sheet import casting_sheet

    design, bad = draw_product(args.seed), defective_parts(args.parts, args.defective, args.seed)
    shown, samples = [], []
    for number in range(args.parts):
        part = draw_part(design, (args.seed, number), defects=args.defects if bad[number] else 0)
        samples.append(write_part(scratch, number, part))
        shown += [part] * (number < _PARTS_ON_SHEET)
    origin = Origin("synth", f"{args.parts} castings ({design.kind}), {int(bad.sum())} defective, seed {args.seed}")
    made = make_dataset(args.output.absolute().name, samples, classes=CASTING_CLASSES, origin=origin)
    dataset = write_dataset(args.output, made)
    casting_sheet(shown, sheet)
    return dataset


def _write_pair(folder: Path, name: str, frame: Image, golden: Image) -> tuple[Path, Path]:
    paths = (folder / f"{name}_frame.png", folder / f"{name}_golden.png")
    write_png(paths[0], frame)
    write_png(paths[1], golden)
    return paths


def _golden_files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not files:
        raise UsageError(f"there is no image in {folder}", fix=f"give a folder with {' '.join(IMAGE_SUFFIXES)} files")
    return files
