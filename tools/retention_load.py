"""Measures what retention costs a running station: trigger-to-answer with and without it at work, in turns.

The station runs in this process with the simulated camera and keeps a picture of every part; retention runs as it does
in production, a process of its own, on a folder with plenty of old pictures to compress and delete.

    python -m tools.retention_load --parts 200 --old 2000 --budget-ms 100

Prints median and p99 of the answer time with and without, pictures handled a second, and the share of time spent.
"""

import argparse
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from inspection.config import load_station
from inspection.evidence_ledger import EvidenceLedger, Picture, ledger_path
from inspection.log import OWN
from inspection.station import Station
from inspection.types import new_id, utc_now
from tools.latency import RECIPE, TimedLine

ROOT = Path(__file__).resolve().parent.parent
FRAMES = ("two-defects.png", "four-defects.png")


def config_of(folder: Path, args: argparse.Namespace) -> Path:
    """The station's config, with rules that compress half of the old pictures and delete the other half."""
    path = folder / "station.toml"
    rule = '[[retention.rules]]\nverdicts = ["{}"]\nafter_days = 0.5\nkeep = "{}"\n'
    path.write_text(
        f'station_id = "load"\nrecipe = {json.dumps(str(RECIPE))}\nstore = "records.sqlite"\nthreads = {args.threads}\n'
        f'[evidence]\nfolder = "evidence"\nkeep = "all"\n[retention]\nbudget_ms_per_s = {args.budget_ms}\nevery_s = 1\n'
        f'{rule.format("OK", "compressed")}{rule.format("ERROR", "nothing")}[cameras.top]\nkind = "simulated"\n'
        f'image = {json.dumps(str(RECIPE / "golden.png"))}\n[controller]\nkind = "simulated"\nparts = {args.parts}\n'
        f"interval_ms = {args.interval_ms}\n",
        encoding="utf-8",
    )
    return path


def plant(folder: Path, count: int) -> None:
    """Old pictures with their rows; the ledger's verdict decides on OK, and ERROR parts get a record."""
    from inspection.store import Store
    from inspection.types import Record, Trigger, error_judgement

    contents = [(RECIPE / "selftest" / name).read_bytes() for name in FRAMES]
    at = utc_now() - timedelta(days=3)
    place = folder / "evidence" / at.date().isoformat() / "LOT"
    place.mkdir(parents=True)
    rows = []
    with closing(Store(folder / "records.sqlite")) as store:
        for number in range(count):
            record_id, content = new_id(), contents[number // 2 % len(contents)]
            (place / f"{record_id}_top.png").write_bytes(content)
            verdict = ("OK", "ERROR")[number % 2]
            digest = hashlib.sha256(content).hexdigest()
            file = f"{place.parent.name}/LOT/{record_id}_top.png"
            rows.append(Picture(record_id, file, digest, len(content), at.isoformat(), verdict))
            if verdict == "ERROR":
                trigger = Trigger(new_id(), "S", "LOT", "r", at)
                judged = error_judgement("planted", "old part")
                store.accept(trigger)
                store.commit(
                    Record(
                        trigger, judged, (), (), "", "", "load", (), True, at, file.removesuffix("_top.png"), record_id
                    )
                )
    with closing(EvidenceLedger(ledger_path(folder / "records.sqlite"))) as ledger:
        ledger.enter(rows)


def answers_ms(config: Path) -> list[float]:
    """One run of the station; the answer time of each part but the first."""
    station = Station(load_station(config))
    line = TimedLine(station.config.controller)  # type: ignore[arg-type]
    station.controller = line
    try:
        station.open()
        station.run(lambda: line.finished)
    finally:
        station.close()
    return line.answer_ms[1:]


def handled(folder: Path) -> int:
    """How many files were compressed or deleted by now."""
    with closing(EvidenceLedger(ledger_path(folder / "records.sqlite"))) as ledger:
        return sum(
            int(row[0])
            for row in ledger.rows("SELECT (SELECT count(*) FROM compressed) + (SELECT count(*) FROM deleted)")
        )


def measure(folder: Path, args: argparse.Namespace, *, at_work: bool) -> dict[str, Any]:
    """One run with or without retention at work."""
    folder.mkdir()
    plant(folder, args.old)
    config = config_of(folder, args)
    process = None
    log = (folder / "retention.log").open("wb")
    try:
        if at_work:
            command = [sys.executable, "-m", "inspection", "retention", str(config)]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            end_s = time.monotonic() + 120
            while not handled(folder) and time.monotonic() < end_s:
                time.sleep(0.1)
        before, began_s = handled(folder), time.monotonic()
        times = answers_ms(config)
        rate = (handled(folder) - before) / (time.monotonic() - began_s)
    finally:
        if process is not None:
            process.terminate()
            process.wait(timeout=120)
        log.close()
    lines = [
        json.loads(line)
        for line in (folder / "retention.log").read_text(encoding="utf-8").splitlines()
        if line[:1] == "{"
    ]
    shares = [line["busy_share"] for line in lines if line["event"] == "retention.pass"]
    return {"times": times, "rate": rate, "share": shares[-1] if shares else None}


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    options = argparse.ArgumentParser(prog="retention_load", description="What retention costs a running station.")
    options.add_argument("--parts", type=int, default=200, help="parts a run")
    options.add_argument("--old", type=int, default=2000, help="old pictures that retention finds")
    options.add_argument("--interval-ms", type=int, default=100, help="pause between two parts")
    options.add_argument("--threads", type=int, default=1, help="CPU threads of the detector")
    options.add_argument("--budget-ms", type=int, default=100, help="retention's time in each second")
    options.add_argument("--turns", type=int, default=2, help="runs of each kind, in turns")
    args = options.parse_args(arguments)
    logging.getLogger(OWN).setLevel(logging.ERROR)
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(args.turns):
            for at_work, runs in found.items():
                folder = Path(scratch) / f"{turn}-{at_work}"
                runs.append(measure(folder, args, at_work=at_work))
                shutil.rmtree(folder)
    print("| retention | median ms | p99 ms | pictures/s | busy share |\n|---|---|---|---|---|")
    for at_work, runs in found.items():
        times = np.concatenate([run["times"] for run in runs])
        rate = float(np.mean([run["rate"] for run in runs]))
        print(
            f"| {'at work' if at_work else 'none'} | {np.median(times):.1f} | {np.percentile(times, 99):.1f} | {rate:.1f} | "
            f"{runs[-1]['share'] or '-'} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
