"""What people say of the parts of a generated month (`tools.month`)."""

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from inspection.chain import append_many
from inspection.errors import UsageError
from inspection.reviews import ReviewStore, reviews_path
from inspection.types import Verdict
from tools.month_plan import Wanted
from tools.month_store import bulk

REVIEWERS = ("li.wei", "m.jones", "zhang.min")
COMMENTS = ("", "", "", "solder splash", "dust on the lens", "灰尘", "seen under the microscope")


class Candidate(NamedTuple):
    """A record that a person may have reviewed; the odds are those of a false call."""

    record_id: str
    verdict: int
    judged_at: str
    odds: float


def add_reviews(path: Path, wanted: Wanted, candidates: Sequence[Candidate]) -> int:
    """Exactly as many reviews as wanted, four of five of parts that are not OK as far as there are; in order of time."""
    rng = random.Random(f"{wanted.seed} reviews")
    rows = sorted(_reviews(rng, wanted.reviews, candidates))
    drawn = {one.record_id for one in candidates if one.verdict == Verdict.OK}
    ReviewStore(reviews_path(path)).close()
    with closing(bulk(reviews_path(path))) as database:
        database.execute("BEGIN IMMEDIATE")
        columns = [
            (number, f"month-{number:08d}", record_id, disposition, who, at, comment, int(record_id in drawn))
            for number, (at, record_id, disposition, who, comment) in enumerate(rows, 1)
        ]
        database.executemany("INSERT INTO reviews VALUES (?, ?, ?, ?, ?, ?, ?, ?)", columns)
        append_many(database, (("review", row[2], row) for row in columns))
        database.execute("COMMIT")
    return len(rows)


def _reviews(
    rng: random.Random, count: int, candidates: Sequence[Candidate]
) -> Iterator[tuple[str, str, str, str, str]]:
    """Time, record, disposition, reviewer, comment; some records get a second opinion."""
    sampled = [one for one in candidates if one.verdict == Verdict.OK]
    doubtful = [one for one in candidates if one.verdict != Verdict.OK]
    second = count // 50
    of_ok = min(count // 5, len(sampled))
    if count - second - of_ok > len(doubtful):
        raise UsageError(f"there are not enough parts to review for {count} reviews", fix="give a smaller --reviews")
    chosen = rng.sample(doubtful, count - second - of_ok) + rng.sample(sampled, of_ok)
    for number, (record_id, verdict, judged_at, odds) in enumerate(chosen):
        at = datetime.fromisoformat(judged_at) + timedelta(seconds=rng.uniform(600, 100_000))
        who, other = rng.sample(REVIEWERS, 2)
        says = _says(rng, verdict, odds)
        if number < second:
            yield at.isoformat(), record_id, "unsure", other, "somebody else please"
            at += timedelta(seconds=rng.uniform(60, 30_000))
        yield at.isoformat(), record_id, says, who, rng.choice(COMMENTS)


def _says(rng: random.Random, verdict: int, odds: float) -> str:
    if verdict == Verdict.OK:
        return "escape" if rng.random() < 0.01 else "confirmed"
    return "false_call" if rng.random() < odds else "confirmed"
