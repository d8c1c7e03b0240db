"""``lineside data diff | from-records | merge-labels``: what changes a dataset's labels, and how it is looked at."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datasets.diff import DatasetDiff, SampleDiff, diff
from datasets.from_records import LEFT_OUT, Gathered, counted, from_records
from datasets.manifest import Dataset, open_dataset
from datasets.manifest_file import MANIFEST
from datasets.relabel.past import labels_at
from inspection.config import load_station
from inspection.errors import UsageError
from inspection.moments import moment

_LISTED = 20


def add_diff(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``lineside data diff``."""
    parser.add_argument("before", type=Path, metavar="A", help="the earlier dataset, or with --from the only one")
    parser.add_argument("after", type=Path, nargs="?", metavar="B", help="the later dataset")
    parser.add_argument(
        "--from", dest="version", default="", metavar="VERSION", help="compare A with what it was at this version"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE.html", help="write a page with pictures as well")
    parser.set_defaults(func=_diff)


def _diff(args: argparse.Namespace) -> int:
    if (args.after is None) == (not args.version):
        raise UsageError("give either a second dataset or --from VERSION", fix="lineside data diff A B [-o PAGE.html]")
    if args.version:
        if not (args.before / MANIFEST).is_file():
            raise UsageError(f"{args.before} is no dataset of lineside", fix="only these have versions to go back to")
        found = diff(labels_at(args.before, args.version), open_dataset(args.before, whole=True))
    else:
        found = diff(open_dataset(args.before, whole=True), open_dataset(args.after, whole=True))
    print("\n".join(_diff_lines(found)))
    if args.output is not None:
        from datasets.diff_page import write_page

        write_page(args.output, found)
        print(f"page: {args.output}")
    return 0


def _diff_lines(found: DatasetDiff) -> Iterator[str]:
    before, after = found.before, found.after
    yield f"from version {before.version[:12]} ({len(before.samples)} samples) to {after.version[:12]} ({len(after.samples)})"
    counts = [(len(found.changed), "changed"), (len(found.added), "added"), (len(found.removed), "removed")]
    yield "samples: " + ", ".join(f"{count} {word}" for count, word in counts)
    yield "boxes of samples in both: " + ", ".join(f"{count} {kind}" for kind, count in found.boxes.items())
    for row in found.classes:
        yield (
            f"class {row.name}: {row.before} to {row.after}"
            if row.before != row.after
            else f"class {row.name}: {row.after}"
        )
    for word, samples in (("changed", found.changed), ("added", found.added), ("removed", found.removed)):
        for sample in samples[:_LISTED]:
            yield f"  {word} {sample.name}: {_told(sample)}"
        if len(samples) > _LISTED:
            yield f"  and {len(samples) - _LISTED} more {word}"


def _told(sample: SampleDiff) -> str:
    kinds = [change.kind for change in sample.changes]
    boxes = [f"{kinds.count(kind)} box(es) {kind}" for kind in dict.fromkeys(kinds)]
    return "; ".join([*sample.facts, *boxes]) or "no boxes"


def add_from_records(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``lineside data from-records``."""
    parser.add_argument("config", type=Path, metavar="STATION.toml", help="config of the station that judged the parts")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="new folder")
    parser.add_argument(
        "--since",
        type=moment,
        metavar="DATE",
        help="only parts judged then or later, as 2026-11-23 or 2026-11-23T06:00",
    )
    parser.add_argument("--lot", default="", help="only parts of this lot")
    parser.add_argument(
        "--recipe", default="", metavar="ID", help="only parts that this recipe judged (default: of all)"
    )
    parser.add_argument(
        "--camera",
        default="",
        metavar="ROLE",
        help="only the pictures of this camera; needed where several look at the parts. An escape of theirs counts as "
        "missed by this camera from when somebody has drawn the defect in its picture; until then nothing learns from it",
    )
    parser.add_argument(
        "--by-lot",
        action="store_true",
        help="parts of one lot are one group, which a split keeps on one side (default: each serial is a group)",
    )
    parser.add_argument(
        "--labels-from", type=Path, metavar="DATASET", help="made from these records earlier: keep what was drawn there"
    )
    parser.set_defaults(func=_from_records)


def _from_records(args: argparse.Namespace) -> int:
    dataset, gathered = from_records(
        load_station(args.config),
        args.output,
        since=args.since,
        lot=args.lot,
        recipe=args.recipe,
        camera=args.camera,
        by_lot=args.by_lot,
        labels_from=args.labels_from,
    )
    print("\n".join(_gathered_lines(args.output, dataset, gathered, by_lot=args.by_lot)))
    if len(gathered.recipes) > 1:
        print(
            "warning: recipes are mixed in this dataset, with their products, goldens and classes; "
            "give --recipe ID to make one for each",
            file=sys.stderr,
        )
    return 0


def _gathered_lines(folder: Path, dataset: Dataset, gathered: Gathered, *, by_lot: bool) -> Iterator[str]:
    defective = sum(sample.defective for sample in dataset.samples)
    escapes = len(dataset.to_draw)
    yield f"{folder}: {len(dataset.samples)} samples, version {dataset.version}"
    yield f"judged by recipe {counted(gathered.recipes)}"
    yield f"{len(dataset.samples) - defective - escapes} good, {defective} defective, {escapes} escapes to be drawn"
    if escapes:
        yield f"draw them with `lineside relabel {folder}`; until then nothing learns from them"
    maybe = len(dataset.unplaced_yet)
    if maybe:
        yield f"{maybe} of them may show in another camera alone: leave undrawn what this one does not show"
    lots = len(set(gathered.lots) - {""})
    if lots > 1 and not by_lot:
        yield f"the parts are of {lots} lots and grouped by serial; --by-lot keeps a lot on one side of a split"
    if gathered.drawn_before:
        yield f"{len(gathered.drawn_before)} keep the labels that were drawn before"
    if gathered.reviewed_anew:
        yield f"{len(gathered.reviewed_anew)} were drawn before and reviewed otherwise since, so the review counts"
    if gathered.unsure:
        yield f"{gathered.unsure} record(s) are reviewed as unsure and did not enter"
    if gathered.left_out:
        yield f"{len(gathered.left_out)} left out, listed in {folder / LEFT_OUT}:"
        for why, count in Counter(one.why for one in gathered.left_out).most_common(_LISTED):
            yield f"  {count}: {why}"


def add_merge_labels(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``lineside data merge-labels``."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="the dataset that was exported; it is edited")
    parser.add_argument("coco", type=Path, metavar="COCO.json", help="what CVAT or Label Studio exported as COCO")
    parser.add_argument("--who", required=True, metavar="NAME", help="who edited the labels")
    parser.add_argument("--why", required=True, metavar="TEXT", help="what for; stands in the history")
    parser.add_argument(
        "--base", default="", metavar="VERSION", help="version that was exported, as the export told it"
    )
    parser.add_argument(
        "--replace", action="store_true", help="where a sample was also edited here, take the file's labels"
    )
    parser.add_argument(
        "--empty", action="store_true", help="images without boxes in the file are good parts (else theirs are kept)"
    )
    parser.add_argument("--new-classes", action="store_true", help="add classes that the dataset does not have")
    parser.set_defaults(func=_merge_labels)


def _merge_labels(args: argparse.Namespace) -> int:
    from datasets.relabel.labels import open_labels
    from datasets.relabel.merge import Wishes, merge_labels

    with open_labels(args.dataset) as labels:
        wishes = Wishes(args.who, args.why, args.base, args.replace, args.new_classes, args.empty)
        merged = merge_labels(labels, args.coco, wishes)
        print(f"{args.dataset}: {len(merged.saved)} samples saved, {merged.unchanged} as they were")
        print(f"version {labels.version}")
    for text, names in (
        ("have no boxes in the file and keep theirs (--empty removes them)", merged.bare),
        ("were not taken over, for an annotation of theirs is wrong", merged.spoilt),
        ("are not in the file", merged.not_in_file),
    ):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            print(f"{len(names)} sample(s) {text}: {', '.join(names[:_LISTED])}{more}")
    if merged.problems:
        print(f"{len(merged.problems)} problem(s), not taken over:")
        print("\n".join(f"  {problem}" for problem in merged.problems))
    return int(bool(merged.problems))
