"""A trace as lines of text for a terminal."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from inspection.audit.findings import counted
from inspection.chain_place import NOT_WRITTEN
from inspection.chain_place import WHY_NOT as WHY_NOT_CHAINED
from inspection.sealed_version import WHY_NOT as WHY_NO_VERSION
from inspection.sealed_version import RuleLimits, SealedVersion
from inspection.trace import NO_PICTURES, Finding, PartTrace, SerialTrace, lots_of
from inspection.trace_queries import Line, Tally
from inspection.trace_search import Found, Spot
from inspection.types import MEASURING_SCHEMA, Record, Review, Verdict

HASH = 16  # digits shown of a SHA-256
LIMIT_LINES = 40
NAMED = 8  # lots that are named
NOT_AS_WRITTEN = "NOT as it was written: {what}; do not rely on what follows, and run `lineside audit STATION.toml`"
ASSUMED = "by the golden of the version in force, for the version that judged is not kept on this computer"


def plain(text: str) -> str:
    """Text from outside as it may go to a terminal: nothing in it moves the cursor or turns the writing around."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def when(at: datetime) -> str:
    """A time in local time, with its offset."""
    return at.astimezone().isoformat(" ", "seconds")


# ---- one part


def serial_lines(trace: SerialTrace) -> Iterator[str]:
    """All records of a serial, newest first."""
    name = plain(trace.serial)
    if trace.count > 1:
        lots = [plain(lot) or "(no lot)" for lot in lots_of(trace.parts)[:NAMED]]
        where = f"in the lot{'s' if len(lots) > 1 else ''} {', '.join(lots)}"
        yield f"serial {name} was used {trace.count} times, {where}: these may be several parts, or one judged again"
    for error in trace.unreadable:
        yield f"{plain(error.what)}; {plain(error.fix)}"
        yield ""
    for part in trace.parts:
        yield from part_lines(part)
        yield ""
    yield from _lines(trace.more)
    left = trace.count - len(trace.parts) - len(trace.unreadable) - len(trace.more)
    if left > 0:
        yield f"{left} more {'records' if left > 1 else 'record'} of this serial, all older; --limit shows more"


def part_lines(part: PartTrace) -> Iterator[str]:
    """Everything about one record; the first line says so where it is not as it was written."""
    record = part.record
    if part.chain.altered:
        since = f" after chain entry {part.chain.sequence} was made" if part.chain.sequence else ""
        yield NOT_AS_WRITTEN.format(what=" and ".join(NOT_WRITTEN[word] for word in part.chain.altered) + since)
    serial, lot = plain(record.serial) or "(no serial)", plain(record.trigger.lot) or "(no lot)"
    verdict = f"now says {record.judgement.verdict.name}" if part.chain.altered else record.judgement.verdict.name
    yield f"{serial}  {verdict}  {when(record.judged_at)}  lot {lot}  station {plain(record.station_id)}"
    rows: list[tuple[str, Iterable[str]]] = [
        ("record", (f"{record.record_id}, row {part.row}, schema {record.schema}{_simulated(record)}",)),
        ("trigger", (_trigger(record),)),
        ("why", _reasons(record)),
        ("findings", _findings(part)),
        ("judged by", (_judged_by(record, part.version),)),
        ("judged on", (", ".join(f"{plain(name)} {plain(value)}" for name, value in record.judged_on),)),
        ("limits", _limits(part.version)),
        ("frames", _pictures(part)),
        ("golden", _goldens(part.version)),
        ("measured", _measured(record)),
        ("times", (", ".join(f"{name} {ms:.1f} ms" for name, ms in record.stage_ms),)),
        ("reviews", _reviews(part.reviews, part.stands)),
        ("chain", (_chain(part),)),
        ("alike", (_alike(part),)),
        ("again", (f"lineside replay STATION.toml {record.record_id}",) if part.pictures else ()),
    ]
    for name, texts in rows:
        for text in filter(None, texts):
            yield f"  {name:10} {text}"
            name = ""


def _simulated(record: Record) -> str:
    return ", SIMULATED: no production part" if record.simulated else ""


def _trigger(record: Record) -> str:
    trigger = record.trigger
    read = f"; serial {plain(record.read_serial)} read from the frame" if record.read_serial else ""
    return f"{plain(trigger.trigger_id)} at {when(trigger.at)}, asked for the recipe {plain(trigger.recipe_id) or '(any)'}{read}"


def _reasons(record: Record) -> Iterator[str]:
    for reason in record.judgement.reasons:
        yield f"{plain(reason.rule_id)}: {plain(reason.text)}"
    if record.late is not None:
        late = record.late
        yield f"late result, {when(late.judged_at)}: {late.judgement.verdict.name} (the controller had been told ERROR)"
        for reason in late.judgement.reasons:
            yield f"  {plain(reason.rule_id)}: {plain(reason.text)}"


def _findings(part: PartTrace) -> Iterator[str]:
    yield from map(_finding, part.findings)
    if part.places_by_version_in_force:
        yield f"places on the golden are {ASSUMED}"


def _finding(finding: Finding) -> str:
    one = finding.detection
    x1, y1, x2, y2 = one.region.xyxy_px
    golden = finding.on_golden_px
    where = f"on the golden {golden[0]:.0f},{golden[1]:.0f}" if golden else "its place on the golden is not known"
    roi = f" in {plain(one.roi_id)}" if one.roi_id else ""
    notes = "decides" if finding.decides else "does not count"
    late = ", late" if finding.late else ""
    camera = f"{plain(one.camera)} " if one.camera else ""
    at = f"{camera}{x1:.0f},{y1:.0f}..{x2:.0f},{y2:.0f} px"
    return f"{plain(one.defect_class)} {one.score:.3f}{roi} at {at}, {where}; {notes}{late}"


def _judged_by(record: Record, version: SealedVersion) -> str:
    recipe = (
        f"recipe {plain(record.recipe_id or record.trigger.recipe_id)} {record.recipe_sha256[:HASH] or '(not sealed)'}"
    )
    model = ", ".join(sha[:HASH] for sha in record.model_sha256.split(","))
    if not version.folder:
        return f"{recipe} ({WHY_NO_VERSION[version.why_not]}), model {model}"
    state = "in force" if version.in_force else "kept, not in force any more"
    signed = f"signed with the key {version.signed_by[:HASH]}" if version.signed_by else "not signed"
    return f"{recipe} ({state}, {signed}: {plain(version.folder)}), model {model}"


def _limits(version: SealedVersion) -> Iterator[str]:
    if not version.folder:
        yield f"not known: {WHY_NO_VERSION[version.why_not]}"
    for limits in version.limits[:LIMIT_LINES]:
        yield _limit(limits)
    if len(version.limits) > LIMIT_LINES:
        yield f"{len(version.limits) - LIMIT_LINES} more; --json gives all"


def _limit(limits: RuleLimits) -> str:
    more = "".join(f", {name} {plain(value)}" for name, value in limits.more)
    name = f"{plain(limits.camera)} {plain(limits.defect_class)}"
    return f"{name}: NG from {limits.ng_score:.3f}, REVIEW from {limits.review_score:.3f}{more}"


def _pictures(part: PartTrace) -> Iterator[str]:
    if part.pictures_why:
        yield NO_PICTURES[part.pictures_why] + (f": {plain(part.pictures_detail)}" if part.pictures_detail else "")
    if part.pictures:
        from inspection.picture_state import in_words

        for picture in part.pictures:
            yield f"{plain(picture.name) or '(all)'}: {plain(str(picture.path or picture.file))}: {in_words(picture)}"


def _goldens(version: SealedVersion) -> Iterator[str]:
    for golden in version.goldens:
        if golden.state == "with-frame":
            yield f"{plain(golden.camera)}: each frame brought its own"
            continue
        size = f"{golden.size_px[0]}x{golden.size_px[1]} px, " if all(golden.size_px) else ""
        state = {"sealed": "as sealed", "changed": "CHANGED since it was sealed", "missing": "MISSING"}[golden.state]
        yield f"{plain(golden.camera)}: {plain(version.folder)}/{plain(golden.file)}: {size}{state}"


def _measured(record: Record) -> Iterator[str]:
    yield ", ".join(f"{plain(name)} {value:g}" for name, value in record.measured)
    if not record.measured and record.schema < MEASURING_SCHEMA:
        yield f"nothing: records of schema {record.schema} hold no measured values"


def _reviews(reviews: tuple[Review, ...], stands: Review | None) -> Iterator[str]:
    for review in reviews:
        comment = f": {plain(review.comment)}" if review.comment else ""
        mark = " (stands)" if review is stands else ""
        yield f"{review.disposition} by {plain(review.reviewer)}, {when(review.at)}{mark}{comment}"
    if not reviews:
        yield "none"


def _chain(part: PartTrace) -> str:
    place = part.chain
    if not place.sequence:
        return WHY_NOT_CHAINED[place.why_not]
    text = f"entry {place.sequence}, link {place.link[:HASH]}"
    if place.altered:
        return f"{text}: NOT what the record says now, so no signature speaks for it; `lineside audit` tells more"
    if place.checkpoint is None:
        return f"{text}; no checkpoint holds it yet"
    signed = place.checkpoint
    key = f"signed with the key {plain(signed.key)[:HASH]}" if signed.key else "not signed"
    at = when(signed.moment) if signed.moment else plain(signed.at)
    return f"{text}; first held by checkpoint {signed.number} of {at} ({key}); `lineside audit` checks it"


def _alike(part: PartTrace) -> str:
    first, last = part.rows_alike
    alike = f"the same recipe and model judged the rows {first} to {last}; " if first else ""
    return f"{alike}{counted(part.lot_parts, 'records')} in this lot"


# ---- lists


def found_lines(found: Found, limit: int) -> Iterator[str]:
    """What a search found."""
    if found.slow:
        yield "the store is of an earlier schema, without an index for this: all of it was read"
    if found.unsound:
        rows = ", ".join(str(line.rowid) for line in found.unsound[:NAMED]) + (", ..." if found.unsound[NAMED:] else "")
        yield (
            f"{len(found.unsound)} of the {counted(len(found.lines), 'parts')} listed: NOT as written, or cannot be read "
            f"(row {rows}); do not rely on the counts, and run `lineside audit STATION.toml`"
        )
    yield tally_line(found.tally)
    if found.slow:
        yield "counted by the columns of the store, which has no chain to check them against"
    elif found.tally.parts > len(found.lines):
        but = f" but for the {len(found.lines)} listed" if found.lines else ""
        yield f"counted by the columns of the store, unchecked{but}; `lineside audit STATION.toml` checks all"
    for period in found.periods:
        point = period.point
        yield (
            f"  rows {point.first_row} to {period.last_row}: {counted(period.tally.parts, 'parts')}, "
            f"recipe {plain(point.recipe_id)} {point.recipe_sha256[:HASH] or '(not sealed)'}, model {point.model_sha256[:HASH]}"
        )
    if found.uncorrected:
        yield (
            f"{counted(found.uncorrected, 'parts')} compared where the finding lay on the frame, for want of a record of how "
            "the golden lay"
        )
    if found.assumed:
        yield f"the place of {counted(found.assumed, 'parts')} is told {ASSUMED}"
    if found.unreadable:
        records = counted(found.unreadable, "records")
        yield f"{records} could not be read, and not counted; `lineside audit` names what was altered"
    yield from map(_spot, found.spots) if found.spots else _lines(found.lines)
    left = found.tally.parts - len(found.lines)
    if left > 0:
        yield f"{left} more, all older; --limit {limit} was asked for"


def tally_line(tally: Tally) -> str:
    """How many parts, of which verdict, from when to when."""
    counts = ", ".join(f"{tally.counts[verdict]} {verdict.name}" for verdict in Verdict if tally.counts.get(verdict))
    span = f"; first {when(tally.first)}, last {when(tally.last)}" if tally.first and tally.last else ""
    return counted(tally.parts, "parts") + (f": {counts}" if counts else "") + span


def _lines(lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        yield _line(line)


def _line(line: Line) -> str:
    lot = plain(line.lot) or "(no lot)"
    simulated = "  SIMULATED" if line.simulated else ""
    altered = f"  NOT AS WRITTEN, now says {line.verdict.name}" if line.as_written is False else ""
    unreadable = "" if line.readable else "  CANNOT BE READ"
    verdict = line.verdict.name if line.sound else "------"
    name = f"{plain(line.serial)}  {lot}  {plain(line.record_id)}"
    return f"{when(line.judged_at)}  {verdict:6}  {name}{simulated}{altered}{unreadable}"


def _spot(spot: Spot) -> str:
    where = "on the golden" if spot.on_golden else "on the frame"
    return f"{_line(spot.line)}  {spot.score:.3f} at {spot.place_px[0]:.0f},{spot.place_px[1]:.0f} {where}"
