"""`lineside replay`: inspect stored frames again with the recipe that judged them, and say what differs."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.arguments import filled, in_order
from inspection.audit.findings import counted
from inspection.errors import UsageError
from inspection.moments import moment

if TYPE_CHECKING:
    from inspection.record_reader import RecordReader
    from inspection.replay import Replay, Replayer
    from inspection.replay_choice import Chosen
    from inspection.store import UnreadableRecord

_TELL = 100  # records between two words on how far it is
UNREADABLE = "record.unreadable"


def add_verb(verbs: Any) -> None:
    """Add the verb to those of `lineside`."""
    replay = verbs.add_parser(
        "replay", help="inspect the stored frames of records again, and say whether verdict and scores are the same"
    )
    replay.add_argument("config", type=Path, metavar="STATION.toml")
    replay.add_argument(
        "record", nargs="*", type=filled, metavar="RECORD", help="names of records; none: those of a span"
    )
    replay.add_argument("--since", type=moment, metavar="DATE", help="only parts judged then or later")
    replay.add_argument("--until", type=moment, metavar="DATE", help="only parts judged before")
    replay.add_argument("--lot", type=filled, default=None, help="only parts of this lot")
    replay.add_argument("--random", type=_count, metavar="N", help="N of those that left pictures, drawn at random")
    replay.add_argument("--seed", type=int, default=0, help="another number draws others (default: 0)")
    replay.add_argument(
        "--threads", type=_threads, default=0, metavar="N", help="CPU threads of the detector (default: the station's)"
    )
    replay.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    replay.set_defaults(func=_replay)


def _count(text: str, most: int = 1_000_000) -> int:
    if not text.isdecimal() or len(text) > len(str(most)) or not 0 < int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number 1..{most}")
    return int(text)


def _threads(text: str) -> int:
    return _count(text, 256)


@dataclass(slots=True)
class Tally:
    """What came of all records: how many of each outcome, how many of each kind of difference and of each hindrance."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    cannot: Counter[str] = field(default_factory=Counter)
    findings: int = 0
    measured: int = 0
    taken_over: int = 0
    same_verdict: int = 0  # of those that differ
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, replay: "Replay") -> None:
        """Count one."""
        self.outcomes[replay.outcome] += 1
        self.findings += replay.findings
        self.measured += replay.measured
        self.taken_over += bool(replay.taken_over)
        if replay.cannot:
            self.cannot[replay.cannot] += 1
        kinds = {difference.what for difference in replay.differences}
        self.kinds.update(kinds)
        self.same_verdict += replay.outcome == "differs" and "verdict" not in kinds
        for difference in replay.differences:
            self.largest[difference.what] = max(self.largest.get(difference.what, 0.0), difference.by)

    def add_unreadable(self) -> None:
        """Count a record that cannot be read."""
        self.outcomes["cannot"] += 1
        self.cannot[UNREADABLE] += 1

    def as_json(self) -> dict[str, Any]:
        """Everything as plain numbers."""
        return {
            "records": self.outcomes.total(),
            **{name: self.outcomes[name] for name in ("same", "differs", "cannot")},
            "differs_with_same_verdict": self.same_verdict,
            "findings": self.findings,
            "measured_values": self.measured,
            "verdict_partly_taken_over": self.taken_over,
            "records_by_difference": dict(self.kinds),
            "largest_difference": {name: by for name, by in self.largest.items() if by},
            "records_by_hindrance": dict(self.cannot),
        }

    def in_words(self) -> str:
        """One line, and one more for each kind of difference and of hindrance."""
        counts = self.outcomes
        lines = [
            f"{counted(counts.total(), 'records')}: {counts['same']} same, {counts['differs']} differ, "
            f"{counts['cannot']} cannot be replayed; {counted(self.findings, 'findings')} and "
            f"{counted(self.measured, 'measured values')} compared"
        ]
        if counts["differs"]:
            lines.append(f"  that differ and get the same verdict: {self.same_verdict}")
        if self.taken_over:
            lines.append(f"  of {self.taken_over} the verdict is in part the station's, and was taken over")
        for kind, count in self.kinds.most_common():
            by = f", at most by {self.largest[kind]:.3g}" if self.largest[kind] else ""
            lines.append(f"  differs in {kind}: {count}{by}")
        lines += [f"  cannot, {word}: {count}" for word, count in self.cannot.most_common()]
        return "\n".join(lines)


def _replay(args: argparse.Namespace) -> int:
    from inspection.config import load_station
    from inspection.record_reader import RecordReader
    from inspection.replay import Replayer

    in_order(args.since, args.until)
    config = load_station(args.config)
    tally, rows = Tally(), []
    reader = RecordReader(Path(config.store))
    try:
        replayer = Replayer(config, reader, threads=args.threads)
        try:
            runs_on = replayer.runs_on()
            if not args.json:
                print("replayed with " + ", ".join(f"{name} {value}" for name, value in runs_on.items()))
            for chosen in _chosen(args, reader):
                document, text = _outcome(chosen, replayer, tally)
                if args.json:
                    rows.append(document)
                else:
                    print(text)
                _tell(tally)
        finally:
            replayer.close()
    finally:
        reader.close()
    if args.json:
        print(
            json.dumps({"runs_on": runs_on, "counts": tally.as_json(), "records": rows}, ensure_ascii=False, indent=1)
        )
    else:
        print(tally.in_words())
    return 0 if tally.outcomes.total() == tally.outcomes["same"] else 1


def _outcome(chosen: "Chosen", replayer: "Replayer", tally: Tally) -> tuple[dict[str, Any], str]:
    """What comes of a record, as plain values and in words; counted."""
    from inspection.types import Record

    if not isinstance(chosen, Record):
        tally.add_unreadable()
        return _unreadable_as_json(chosen), _unreadable_in_words(chosen)
    replay = replayer.replay(chosen)
    tally.add(replay)
    return as_json(replay), in_words(replay)


def _chosen(args: argparse.Namespace, reader: "RecordReader") -> Iterator["Chosen"]:
    from inspection import replay_choice
    from inspection.record_reader import Span

    span = Span(args.since, args.until, args.lot or "")
    wide = span == Span() and args.random is None
    if args.record and not wide:
        raise UsageError(
            "records are named, and a span is given", fix="give RECORD..., or --since, --until, --lot, --random"
        )
    if args.record:
        return replay_choice.named(reader, args.record)
    if wide:
        raise UsageError("it is not said which records", fix="give RECORD..., or --since, --until, --lot, --random N")
    if args.random is None:
        return _some(replay_choice.in_span(reader, span))
    drawn = replay_choice.drawn(reader, span, args.random, args.seed)
    if len(drawn.rowids) < args.random:
        print(
            f"only {counted(len(drawn.rowids), 'records')} with pictures among the {drawn.looked_at} that were looked at",
            file=sys.stderr,
        )
    return _some(replay_choice.of_rows(reader, drawn.rowids))


def _some(records: Iterator["Chosen"]) -> Iterator["Chosen"]:
    """The records; UsageError when there are none, so that nothing replayed is never taken for all the same."""
    first = next(records, None)
    if first is None:
        raise UsageError(
            "no record is in this span", fix="see `--since`, `--until` and `--lot`; pictures: `keep` in [evidence]"
        )
    yield first
    yield from records


def _tell(tally: Tally) -> None:
    done = tally.outcomes.total()
    if done % _TELL == 0:
        print(f"{done} records replayed", file=sys.stderr)


def in_words(replay: "Replay") -> str:
    """What came of a record: one line, and below it what differs and why that may be."""
    record = replay.record
    verdict = record.judgement.verdict.name if record.late is None else f"{record.judgement.verdict.name}, late "
    if record.late is not None:
        verdict += record.late.judgement.verdict.name
    at = record.judged_at.astimezone().isoformat(" ", "seconds")
    lines = [f"{replay.outcome:8} {record.record_id} {_plain(record.serial) or '-'} {at} {verdict}"]
    if replay.outcome == "cannot":
        lines.append(f"{replay.cannot}: {replay.text}")
    lines += [difference.text for difference in replay.differences]
    lines += [f"not the inspection's: {text}" for text in replay.taken_over]
    if replay.now is not None and replay.outcome == "differs":
        rules = ", ".join(reason.rule_id for reason in replay.now.reasons)
        lines.append(f"the inspection gives now: {replay.now.verdict.name}" + (f" by {rules}" if rules else ""))
    lines += [f"known: {note}" for note in replay.notes]
    return "\n         ".join(_plain(line) for line in lines)


def _unreadable_in_words(error: "UnreadableRecord") -> str:
    """Which record it is that cannot be read, and why."""
    lines = [f"{'cannot':8} {error.record_id or '-'} row {error.row}", f"{UNREADABLE}: {error.what}", error.fix]
    return "\n         ".join(_plain(line) for line in lines)


def _unreadable_as_json(error: "UnreadableRecord") -> dict[str, Any]:
    return {
        "record_id": error.record_id, "row": error.row, "outcome": "cannot", "cannot": UNREADABLE,
        "text": f"{error.what}; {error.fix}",
    }  # fmt: skip


def as_json(replay: "Replay") -> dict[str, Any]:
    """What came of a record, as plain values."""
    record = replay.record
    return {
        "record_id": record.record_id,
        "serial": record.serial,
        "judged_at": record.judged_at.isoformat(),
        "recipe_sha256": record.recipe_sha256,
        "verdict": record.judgement.verdict.name,
        "late_verdict": None if record.late is None else record.late.judgement.verdict.name,
        "outcome": replay.outcome,
        "cannot": replay.cannot,
        "text": replay.text,
        "now": None if replay.now is None else replay.now.verdict.name,
        "differences": [asdict(difference) for difference in replay.differences],
        "taken_over": list(replay.taken_over),
        "notes": list(replay.notes),
        "findings": replay.findings,
        "measured_values": replay.measured,
    }


def _plain(text: str) -> str:
    """A text of unknown origin for a terminal: nothing in it can move the cursor."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
