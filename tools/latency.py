"""Measures trigger-to-answer of a whole station at several gaps between parts, with and without keep-warm.

The station runs in this process with the simulated camera (640x640) and a line without network, so that what is
measured is the station: grab, inspection, journal, commit, answer.  With and without keep-warm take turns, so that a
noisy machine disturbs both alike.

    python -m tools.latency --gaps 0,0.2,1,5 --parts 100 --threads 2

Prints, for each gap: median and p99 of the answer time, their ratio, and the share of the median that is not inspection
(camera, quality gate, registration, detector, judge).
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from inspection.config import load_station
from inspection.controllers.simulated import SimulatedController, SimulatedControllerConfig
from inspection.log import OWN
from inspection.station import Station
from inspection.types import PrepareRecipe, Record, Trigger

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "deploy" / "recipes" / "demo-pcb"
INSPECTION = ("grab", "quality", "register", "lay_over", "infer", "judge")


class TimedLine(SimulatedController):
    """A line that notes when each part was presented and when it was answered."""

    def __init__(self, config: SimulatedControllerConfig) -> None:
        super().__init__(config)
        self.answer_ms: list[float] = []
        self._presented_s = 0.0

    def wait(self, timeout_ms: int) -> Trigger | PrepareRecipe | None:
        """As the simulated line, with the moment noted."""
        trigger = super().wait(timeout_ms)
        self._presented_s = time.monotonic()
        return trigger

    def answer(self, record: Record) -> None:
        """As the simulated line, with the time since the part was presented noted."""
        self.answer_ms.append(1000 * (time.monotonic() - self._presented_s))
        super().answer(record)


def measure(folder: Path, *, gap_s: float, parts: int, threads: int, keep_warm_ms: int, keep: str) -> list[Record]:
    """One run of the station; returns its records, with the answer time as a further stage."""
    folder.mkdir()
    config = folder / "station.toml"
    config.write_text(
        f'station_id = "latency"\nrecipe = {json.dumps(str(RECIPE))}\nstore = "records.sqlite"\nthreads = {threads}\n'
        f'keep_warm_ms = {keep_warm_ms}\n[evidence]\nfolder = "evidence"\nkeep = "{keep}"\n[cameras.top]\n'
        f'kind = "simulated"\nimage = {json.dumps(str(RECIPE / "golden.png"))}\n[controller]\nkind = "simulated"\n'
        f"parts = {parts}\ninterval_ms = {round(1000 * gap_s)}\n",
        encoding="utf-8",
    )
    station = Station(load_station(config))
    line = TimedLine(station.config.controller)  # type: ignore[arg-type]
    station.controller = line
    try:
        station.open()
        station.run(lambda: line.finished)
    finally:
        station.close()
    return [
        Record.from_json(json.dumps(document | {"stage_ms": document["stage_ms"] | {"answer": spent_ms}}))
        for document, spent_ms in zip((json.loads(r.to_json()) for r in line.answers), line.answer_ms, strict=True)
    ]


def row(records: list[Record]) -> tuple[float, float, float]:
    """Median and p99 of the answer time, ms, and the share of the median that is not inspection; the first part left out."""
    stages = [dict(record.stage_ms) for record in records[1:]]
    answer = np.array([stage["answer"] for stage in stages])
    inspected = np.array([sum(stage.get(name, 0.0) for name in INSPECTION) for stage in stages])
    median = float(np.median(answer))
    return median, float(np.percentile(answer, 99)), float(np.median(answer - inspected)) / median


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    options = argparse.ArgumentParser(prog="latency", description="Trigger-to-answer of a station at several gaps.")
    options.add_argument("--gaps", default="0,0.2,1,5", help="seconds between two parts, comma list")
    options.add_argument("--parts", type=int, default=60, help="parts a gap and setting")
    options.add_argument("--threads", type=int, default=2, help="CPU threads of the detector")
    options.add_argument("--keep-warm-ms", type=int, default=50, help="the setting that is compared with 0 (never)")
    options.add_argument("--keep", choices=("all", "not-ok"), default="not-ok", help="parts that leave a picture")
    args = options.parse_args(arguments)
    logging.getLogger(OWN).setLevel(logging.ERROR)
    print(f"{args.parts} parts a row, {args.threads} threads, evidence {args.keep}")
    print("| gap s | keep-warm | median ms | p99 ms | p99/median | not inspection |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for gap_s in (float(text) for text in args.gaps.split(",")):
            found: dict[int, list[Record]] = {0: [], args.keep_warm_ms: []}
            for turn in range(2):
                for keep_warm_ms, records in found.items():
                    folder = Path(scratch) / f"{gap_s}-{keep_warm_ms}-{turn}"
                    half = max(2, args.parts // 2)
                    records += measure(
                        folder, gap_s=gap_s, parts=half, threads=args.threads, keep_warm_ms=keep_warm_ms, keep=args.keep
                    )
            for keep_warm_ms, records in found.items():
                median, p99, other = row(records)
                name = f"{keep_warm_ms} ms" if keep_warm_ms else "never"
                print(
                    f"| {gap_s:g} | {name} | {median:.1f} | {p99:.1f} | {p99 / median:.2f} | {100 * other:.0f} % |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
