"""`lineside audit`: verify that records and reviews are as they were written, and say what is proven and what is not."""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.audit.findings import HOW_ENTERED, counted
from inspection.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from inspection.audit.findings import AuditResult, FileAudit, Finding, LinesAudit, Unknown
    from inspection.config import StationConfig

PROVES = """\
What it proves: each row has an entry in a chain of SHA-256 sums, and the station signs the end of the chain now and then
(checkpoints).  Without the private key nobody can change, take out, add or move a row that a checkpoint covers so that this
command does not name it.
"""
PROVES_NOT = """\
What it does not prove:
  - who holds the private key and the disk can make chain and checkpoints anew, from the first line after the last copy of the
    checkpoints that is kept elsewhere (compare with --checkpoints COPY); so can whoever exchanges the public key: note its
    fingerprint elsewhere, or give --public
  - rows newer than the last checkpoint can be changed or cut off unnoticed; so can all rows behind a checkpoint line if the
    lines after it are cut off too: the count of newer rows, and a copy kept elsewhere, bound that
  - without a key whoever can write the files can change everything
  - times are those of the station's clock, which may be wrong or set
  - that what was recorded was true: only that it is what was recorded
  - not covered: triggers without a record, what waits for publishers, accounts; rows from before there was a chain; picture
    files, unless --pictures is given
"""
_WORDS = {
    "altered": "altered", "missing": "missing", "added": "added", "moved": "moved", "chain": "broken links of the chain",
    "rewritten": "chain rewritten", "cut": "cut off", "unsigned": "not signed in time", "checkpoint": "bad checkpoints",
    "change_point": "wrong change point", "damaged": "faults of the file", "schema": "faults of the schema",
    "picture": "pictures that are not as they were written", "unverified": "could not be verified",
}  # fmt: skip
_MOST = 10  # findings of a file that are printed


def add_verb(verbs: Any) -> None:
    """Add the verb to those of `lineside`."""
    audit = verbs.add_parser(
        "audit",
        help="verify that records and reviews are as they were written",
        description="Verify that records, late results, reviews and the ledger of pictures are as they were written; reads only, "
        "also while the station runs.  Exit code 0: they are; 1: something is named, or signed with a key that was not given; 3: a "
        "file or pictures may not be read.",
        epilog=PROVES + PROVES_NOT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument("config", type=Path, metavar="STATION.toml")
    audit.add_argument(
        "--public", type=Path, action="append", default=[], metavar="KEY.pub",
        help="public key that signed (default: the one beside the config's key); may be given more than once",
    )  # fmt: skip
    audit.add_argument(
        "--checkpoints",
        type=Path,
        metavar="COPY",
        help="a copy of the checkpoints that was kept elsewhere, to compare with",
    )
    audit.add_argument(
        "--pictures", action="store_true", help="also read every picture file and compare it with the ledger"
    )
    audit.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    audit.set_defaults(func=_audit)


def _audit(args: argparse.Namespace) -> int:
    from inspection.audit.run import audit
    from inspection.config import load_station

    config = load_station(args.config)
    result = audit(
        Path(config.store),
        public_keys=_public_keys(config, args.public),
        checkpoint_s=config.audit.checkpoint_s,
        copy=args.checkpoints,
        pictures=Path(config.evidence.folder) if args.pictures else None,
    )
    if args.json:
        print(json.dumps(as_json(result), indent=1))  # in ASCII: what lies in a damaged file may be no text
    else:
        sys.stdout.writelines(f"{line}\n" for line in in_words(result))
    return 1 if not result.good else 0 if result.complete else 3


def _public_keys(config: "StationConfig", given: list[Path]) -> list["Ed25519PublicKey"]:
    from inspection.signing_keys import PUBLIC_END, read_public_key

    if given or not config.audit.key:
        return [read_public_key(path) for path in given]
    beside = Path(config.audit.key + PUBLIC_END)
    if not beside.exists():
        raise UsageError(
            f"there is no public key {beside}", fix="give --public KEY.pub, the file that was made with the key"
        )
    return [read_public_key(beside)]


def as_json(result: "AuditResult") -> dict[str, Any]:
    """The result as JSON: times as ISO text, spans in seconds."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(result), default=_plain), object_hook=_without_place)
    document["good"] = result.good and result.complete
    document["proves"], document["proves_not"] = PROVES, PROVES_NOT
    return document


def _without_place(document: dict[str, Any]) -> dict[str, Any]:
    document.pop("place", None)  # it only orders the findings
    return document


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else float(value.total_seconds())  # type: ignore[attr-defined]


def in_words(result: "AuditResult") -> Iterator[str]:
    """The result as lines for people."""
    for file in result.files:
        yield from _file(file, result.checkpoints.unverified)
    yield from _lines("checkpoints", result.checkpoints)
    if result.copy is not None:
        yield from _lines("copy of the checkpoints", result.copy)
    if result.pictures is not None:
        yield from _pictures(result.pictures, result.unknown, result.complete)
        yield from _aside("that may not be read here: nothing is said of them", result.unreadable)
        yield from _aside(
            "that may not be read here: what lies there and the ledger does not know does not show",
            result.closed,
            "folders",
        )
        yield from _aside("whose deletion retention began: they still lie there, until it goes on", result.begun)
    for remark in result.remarks:
        yield f"note: {printable(remark)}"
    yield f"{_said(result)}; {result.seconds:.1f} s"
    yield ""
    yield from PROVES.splitlines()
    yield from PROVES_NOT.splitlines()


def _said(result: "AuditResult") -> str:
    if not result.good and not result.only_unverified:
        return "NOT AS IT WAS WRITTEN"
    if not result.good:
        if result.checkpoints.unverified:
            return "nothing could be proven: no signature is of a key that was given"
        return "not all could be proven: some signatures are of keys that were not given"
    words = (
        (result.unknown, "pictures", "that nobody vouches for"),
        (result.begun, "pictures", "whose deletion was begun"),
        (result.unreadable, "pictures", "that may not be read here"),
        (result.closed, "folders", "that may not be read here"),
    )
    apart = ", ".join(
        f"{counted(some.files, name)} {what}" for some, name, what in words if some is not None and some.files
    )
    return "all as it was written" + (f", except {apart}" if apart else "")


def _aside(what: str, some: "Unknown | None", name: str = "pictures") -> Iterator[str]:
    """Pictures of which neither good nor bad is said, and folders."""
    if some is not None and some.files:
        yield f"  {counted(some.files, name)} {what}; first {', '.join(map(printable, some.first))}"


def _pictures(file: "FileAudit", unknown: "Unknown | None", complete: bool) -> Iterator[str]:
    """What is said of the pictures; ``unknown`` are those beside the ledger, ``complete``: all could be read."""
    if unknown is None or not unknown.files:
        yield from _file(file, complete=complete)
        return
    if file.there or not file.good:
        yield from _file(file, complete=complete)
    else:
        yield f"pictures: there is no ledger of them ({file.path})"
    first = ", ".join(map(printable, unknown.first))
    yield f"  {counted(unknown.files, 'pictures')} that the ledger does not know: nothing vouches for them; first {first}"
    yield f"  ({HOW_ENTERED})"


def _file(file: "FileAudit", unverified: bool = False, complete: bool = True) -> Iterator[str]:
    if not file.there and file.good:
        yield f"{file.name}: none yet ({file.path})"
        return
    counts = ", ".join(counted(count, name.replace("_", " ")) for name, count in file.rows.items()) or "nothing read"
    how = "good" if file.good and complete else "good where they can be read" if file.good else "NOT GOOD"
    how = "not verified" if file.counts.keys() == {"unverified"} else how
    yield f"{file.name}: {counts}; {how} ({file.path})"
    if file.proven_at is not None:
        upto = f"row {file.proven_row} (record {printable(file.proven_record)})"
        yield f"  proven: {counted(file.proven, 'rows')}, up to {upto}, signed {file.proven_at.isoformat(timespec='seconds')}"
    if file.newer and unverified:
        yield f"  nothing of {counted(file.newer, 'rows')} is proven: the checkpoints could not be verified"
    elif file.newer:
        yield f"  {counted(file.newer, 'newer rows')} not in a checkpoint yet"
    if file.first is not None:
        yield f"  first: {_finding(file.first)}"
        rest = [finding for finding in (*file.damage, *file.findings) if finding is not file.first]
        yield from (f"  also:  {_finding(finding)}" for finding in rest[: _MOST - 1])
        yield f"  in all: {_counted(file.counts)}"


def _lines(name: str, lines: "LinesAudit") -> Iterator[str]:
    keys = ", ".join(key[:16] for key in lines.keys) or "none"
    span = f", {_time(lines.first_at)} to {_time(lines.last_at)}" if lines.lines else ""
    count = counted(lines.lines, "lines")
    yield f"{name}: {count}, {lines.signed} with a good signature, key {printable(keys)}{span} ({lines.path})"
    for finding in lines.findings[:_MOST]:
        yield f"  {_finding(finding)}"
    if sum(lines.counts.values()) > 1:
        yield f"  in all: {_counted(lines.counts)}"


def _time(at: datetime | None) -> str:
    return "?" if at is None else at.isoformat(timespec="seconds")


def _finding(finding: "Finding") -> str:
    known = {"record": finding.record_id, "serial": finding.serial, "at": finding.at}
    facts = ", ".join(f"{name} {value}" for name, value in known.items() if value)
    return printable(f"{finding.what} [{facts}]" if facts else finding.what)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {_WORDS.get(kind, kind)}" for kind, count in counts.items())


def printable(text: str) -> str:
    """Text of any origin on one line, without what a terminal would obey."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in whole)
