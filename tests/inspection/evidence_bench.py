"""A bench for retention: a station's folder with records, pictures of any age, their ledger, and reviews."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from inspection.config import StationConfig, load_station
from inspection.evidence_ledger import EvidenceLedger, Picture, ledger_path
from inspection.images import encode_png
from inspection.retention.run import Retention
from inspection.retention.stop import Stop
from inspection.retention.summary import Summary
from inspection.reviews import ReviewStore, reviews_path
from inspection.store import Store
from inspection.types import (
    Detection,
    Judgement,
    LateResult,
    Reason,
    Record,
    Region,
    Review,
    Trigger,
    Verdict,
    new_id,
    utc_now,
)

NOISE = np.random.default_rng(7).integers(0, 256, (48, 64), dtype=np.uint8)
SOFT = cv2.GaussianBlur(NOISE, (0, 0), 3)  # a JPEG of it is smaller than the PNG
RAW = NOISE.astype(np.uint16) * 16


def judgement(verdict: str, *classes: str) -> Judgement:
    found = tuple(Detection(name, 0.9, Region((1, 1, 9, 9)), camera="top") for name in classes or ("short",))
    if verdict == "OK":
        return Judgement(Verdict.OK)
    reasons = (Reason(f"{verdict.lower()}.rule", "as planted", () if verdict == "ERROR" else found),)
    return Judgement(Verdict[verdict], reasons)


@dataclass
class PictureBench:
    """One station's folder; nothing is kept open."""

    folder: Path
    recipe: Path

    @property
    def store(self) -> Path:
        return self.folder / "records.sqlite"

    @property
    def evidence(self) -> Path:
        return self.folder / "evidence"

    def config(self, retention: str = "", *, more: str = "") -> StationConfig:
        """Write and load station.toml; ``retention`` is what stands below [retention]."""
        path = self.folder / "station.toml"
        section = f"[retention]\n{retention}\n" if retention else ""
        path.write_text(
            f'station_id = "bench-1"\nrecipe = {json.dumps(str(self.recipe))}\nstore = "records.sqlite"\n{more}\n'
            f'[evidence]\nfolder = "evidence"\nmin_free_mb = 0\n{section}'
            '[cameras.top]\nkind = "simulated"\n[controller]\nkind = "simulated"\n',
            encoding="utf-8",
        )
        return load_station(path)

    def add(
        self, verdict: str = "OK", *, days: float = 0.0, classes: tuple[str, ...] = (), late: str = "",
        raw: bool = False, image: np.ndarray = SOFT, stored: bool = True,
    ) -> Record:  # fmt: skip
        """A part that was judged so many days ago, with its pictures and their rows in the ledger."""
        at = utc_now() - timedelta(days=days, seconds=60)
        record_id = new_id()
        evidence = f"{at.date()}/LOT/{record_id}"
        trigger = Trigger(new_id(), f"S-{record_id[:6]}", "LOT", "r", at)
        record = Record(
            trigger, judgement(verdict, *classes), (), ("f",), "", "", "bench-1", (), True, at, evidence, record_id
        )
        store = Store(self.store)
        if stored:
            store.accept(trigger)
            store.commit(record)
            if late:
                store.commit_late(record_id, LateResult(judgement(late, *classes), (), (), at))
        store.close()
        pictures = {"top": image} | ({"top_raw": RAW} if raw else {})
        rows = [
            Picture(record_id, f"{evidence}_{name}.png", *self._written(f"{evidence}_{name}.png", pixels), at.isoformat(), verdict)
            for name, pixels in pictures.items()
        ]  # fmt: skip
        ledger = EvidenceLedger(ledger_path(self.store))
        ledger.enter(rows)
        ledger.close()
        return record

    def _written(self, file: str, image: np.ndarray) -> tuple[str, int]:
        content = encode_png(image)
        path = self.evidence / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest(), len(content)

    def add_record(self, record_id: str, evidence: str) -> None:
        """A record alone, that names these pictures."""
        trigger = Trigger(new_id(), "S", "L", "r", utc_now())
        store = Store(self.store)
        store.accept(trigger)
        store.commit(
            Record(trigger, judgement("NG"), (), ("f",), "", "", "b", (), True, utc_now(), evidence, record_id)
        )
        store.close()

    def review(self, record: Record, disposition: str, by: str = "ann") -> None:
        """What a person says of a part."""
        reviews = ReviewStore(reviews_path(self.store))
        reviews.add(Review(record.record_id, disposition, by, datetime.now(UTC)), key=new_id())  # type: ignore[arg-type]
        reviews.close()

    def run(self, retention: str = "", *, more: str = "") -> Summary:
        """One pass of retention, now."""
        work = Retention(self.config(f"budget_ms_per_s = 1000\n{retention}", more=more), Stop())
        try:
            return work.one_pass()
        finally:
            work.close()

    def files(self, record: Record) -> list[str]:
        """What lies on the disk of a record: the ends of the names, as ``top.png``."""
        found = (self.evidence / record.evidence).parent.glob(f"{record.record_id}_*")
        return sorted(path.name.removeprefix(f"{record.record_id}_") for path in found)
