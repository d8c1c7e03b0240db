"""Generates the station of a whole month: records, reviews, chains, recipe versions, pictures.

    python -m tools.month FOLDER --parts 1000000 --ng 30000 --reviews 5000 --seed 1 [--days 30] [--pictures 200] [--lean]

FOLDER then holds station.toml, recipes/ (the demo recipe and an earlier version of it), records.sqlite with its reviews,
chains and signed checkpoints, evidence/, and planted.json: what was planted where, and the exact counts.  The same seed
gives the same records; only the key that signs is new each time.  Among what is planted: a class that drifts for sixteen
hours, a lens that gets dirty over three days, a hot spot of shorts on the board, a change of the model and one of the
recipe, a serial used twice, a clock set back by an hour for five hours.

``--lean`` leaves the measured values and the weak findings out of the OK records, for stores of many millions.
"""

import argparse
import json
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from inspection.checkpoints import NO_HEAD, Checkpoints, Heads, checkpoints_path
from inspection.errors import InspectionError, UsageError
from inspection.evidence import is_sampled
from inspection.images import read_image
from inspection.recipe import lock_sha256, open_recipe
from inspection.recipe_lock import write_lock
from inspection.reviews import reviews_path
from inspection.signing_keys import make_key, read_private_key
from inspection.store import Store
from inspection.types import Verdict
from inspection.version_folder import changing, store
from tools.month_findings import ROLE, Period, Shown
from tools.month_parts import Row, part_rows
from tools.month_plan import Plan, Wanted, make_plan
from tools.month_reviews import Candidate, add_reviews
from tools.month_store import bulk, insert_parts

RECIPE = Path(__file__).resolve().parent.parent / "deploy" / "recipes" / "demo-pcb"
REVIEWED_FOR_H = 40  # so long after the last part the last review is given
OK_SHARE = 0.002  # of the OK parts, drawn for review
STATION, KEY = "line-7", "station.key"
STATION_TOML = """\
station_id = "line-7"
recipe = "recipes/demo-pcb"
store = "records.sqlite"
threads = 1

[evidence]
folder = "evidence"
keep = "not-ok-and-sample"
min_free_mb = 0

[hmi]
review_ok_share = {share}

[audit]
key = "{key}"
checkpoint_s = 3600

[cameras.top]
kind = "folder"
folder = "recipes/demo-pcb/selftest"

[controller]
kind = "simulated"
"""


def make_month(folder: Path, wanted: Wanted) -> dict[str, object]:
    """Write the month into ``folder``, which is made and must not hold one; gives what planted.json says."""
    if (folder / "records.sqlite").exists():
        raise UsageError(f"there is a month in {folder} already", fix="name another folder, or delete this one")
    folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(wanted)
    periods, shown = _recipes(folder / "recipes", plan), _shown() if wanted.pictures else ()
    counts: Counter[str] = Counter()
    candidates: list[Candidate] = []
    path = folder / "records.sqlite"
    Store(path).close()
    with closing(bulk(path)) as database:
        rows = _watched(part_rows(wanted, plan, periods, shown), folder / "evidence", counts, candidates)
        heads = insert_parts(database, rows, periods)
    counts["reviews"] = add_reviews(path, wanted, candidates)
    _write_station(folder)
    counts["checkpoints"] = _add_checkpoints(folder, heads)
    document = {
        "counts": dict(sorted(counts.items())), "seed": wanted.seed, "days": wanted.days,
        "since": wanted.since.isoformat(), "planted": plan.planted.document(),
        "judged_by": [[period.first_row, period.recipe_sha256, period.model_sha256] for period in periods],
    }  # fmt: skip
    (folder / "planted.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


# ---- recipes and pictures


def _recipes(recipes: Path, plan: Plan) -> tuple[Period, ...]:
    """Three versions: one that is not kept here, one kept under .versions, and the one in force."""
    inforce = recipes / RECIPE.name
    shutil.copytree(RECIPE, inforce)
    loaded = open_recipe(inforce, threads=1)
    view = loaded.views[ROLE]
    earlier = recipes / "earlier"
    shutil.copytree(inforce, earlier)
    text = (earlier / "recipe.toml").read_text(encoding="utf-8")
    (earlier / "recipe.toml").write_text(text.replace("ng_score = 0.440", "ng_score = 0.500"), encoding="utf-8")
    write_lock(earlier)
    stricter = tuple(replace(rule, ng_score=0.5) for rule in view.criteria.rules)
    before = lock_sha256(earlier)
    with changing(inforce, loaded.recipe_id) as versions:
        store(versions, earlier, before)
    shutil.rmtree(earlier)
    name, planted, model = loaded.recipe_id, plan.planted, loaded.model_sha256
    return (
        Period(1, name, "0d" * 32, "0e" * 32, stricter, kept=False),
        Period(planted.model_change_row, name, before, model, stricter),
        Period(planted.recipe_change_row, name, loaded.sha256, model, view.criteria.rules),
    )


def _shown() -> tuple[Shown, ...]:
    loaded = open_recipe(RECIPE, threads=1)
    files = sorted(path for path in (RECIPE / "selftest").glob("*.png") if path.stem != "good")
    seen = [(path, loaded.inspect_image(read_image(path))) for path in files]
    return tuple(Shown(str(path), one.judgement, one.detections, one.measured) for path, one in seen)


def _watched(rows: Iterator[Row], evidence: Path, counts: Counter[str], candidates: list[Candidate]) -> Iterator[Row]:
    """The rows; counted, with their pictures written, and noted where a person may review them."""
    for row in rows:
        verdict = Verdict(row.verdict)
        counts["parts"] += 1
        counts[verdict.name] += 1
        counts["late"] += bool(row.late)
        if row.picture:
            target = evidence / f"{row.evidence}_{ROLE}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(row.picture, target)
            counts["pictures"] += 1
        if verdict in (Verdict.NG, Verdict.REVIEW) or (verdict == Verdict.OK and is_sampled(row.record_id, OK_SHARE)):
            candidates.append(Candidate(row.record_id, row.verdict, row.judged_at, row.false_call_odds))
        yield row


# ---- the station's own files


def _write_station(folder: Path) -> None:
    make_key(folder / KEY)
    (folder / "station.toml").write_text(STATION_TOML.format(share=OK_SHARE, key=KEY), encoding="utf-8")


def _add_checkpoints(folder: Path, heads: Sequence[tuple[Heads, datetime]]) -> int:
    """Sign what the chains were in each hour of the month, and what they are when the last review is there."""
    path = folder / "records.sqlite"
    sql = "SELECT sequence, link, at FROM chain JOIN reviews ON review_id = sequence ORDER BY sequence"
    with closing(sqlite3.connect(reviews_path(path))) as database:
        reviews = [(datetime.fromisoformat(at), (number, link.hex())) for number, link, at in database.execute(sql)]
    signed, given, newest = [], 0, NO_HEAD
    for head_, at in _every_hour(heads):
        while given < len(reviews) and reviews[given][0] <= at:
            newest, given = reviews[given][1], given + 1
        signed.append((replace(head_, reviews=newest), at))
    Checkpoints(checkpoints_path(path), STATION, read_private_key(folder / KEY)).add_many(signed)
    return len(signed)


def _every_hour(heads: Sequence[tuple[Heads, datetime]]) -> Iterator[tuple[Heads, datetime]]:
    """The same, with the hours filled in between in which no part was judged, and those after the last."""
    end = (heads[-1][0], heads[-1][1] + timedelta(hours=REVIEWED_FOR_H))
    for (head_, at), (_, following) in pairwise((*heads, end)):
        yield head_, at
        hours = int((following - at) / timedelta(hours=1))
        yield from ((head_, at + timedelta(hours=hour)) for hour in range(1, hours + 1))


def main(arguments: list[str] | None = None) -> int:
    """Generate a month; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.month", description="Generate the records of a month.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--parts", type=int, default=1_000_000)
    parser.add_argument("--ng", type=int, default=30_000)
    parser.add_argument("--reviews", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--since", type=lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC), metavar="DATE")
    parser.add_argument(
        "--pictures",
        type=int,
        default=0,
        metavar="N",
        help="real pictures of the last N NG parts whose recipe version is kept",
    )
    parser.add_argument("--lean", action="store_true", help="OK records without measured values and weak findings")
    args = parser.parse_args(arguments)
    try:
        since = {"since": args.since} if args.since else {}
        wanted = Wanted(
            args.parts, args.ng, args.reviews, args.seed, args.days, pictures=args.pictures, lean=args.lean, **since
        )
        document = make_month(args.folder, wanted)
    except InspectionError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(document["counts"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
