"""What a model says of the images of a dataset, kept in the dataset's cache folder: one file a model, one line an image."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from datasets.manifest import Digest
from inspection.inspect_frame import Inspection
from inspection.predict import Prediction
from inspection.types import Detection, Judgement, Reason, Region, Verdict

CACHE = ".cache"
_MOST_FINDINGS = 200  # of one image that are kept, the best
Row = Mapping[str, Any]


def cache_folder(dataset: Path) -> Path:
    """The folder of what can be worked out again; may not exist."""
    return dataset / CACHE / "relabel"


def judged_file(cache: Path, model_sha256: str) -> Path:
    """The file of one model."""
    return cache / f"judged-{model_sha256[:32]}.jsonl"


def key_of(digest: Digest) -> str:
    """What an outcome belongs to: the bytes of image and golden, whatever their names."""
    return f"{digest.image}{digest.golden[:16]}"


class Judged:
    """Reads the file of one model while another process writes it."""

    def __init__(self, file: Path) -> None:
        self.rows: dict[str, Row] = {}
        self._file = file
        self._read = 0

    def refresh(self) -> None:
        """Take in what was written since; a torn or damaged line does not count.  OSError when it cannot be read."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        self._read += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                self.rows[row["key"]] = row["row"]
            except (ValueError, KeyError, TypeError):
                continue


def open_for_writing(file: Path) -> BinaryIO:
    """The file, ready for another line; what a killed program left of a line stands alone, and does not count."""
    opened = file.open("ab")
    if opened.tell():
        with file.open("rb") as content:
            content.seek(-1, os.SEEK_END)
            if content.read(1) != b"\n":
                opened.write(b"\n")
    return opened


def write_row(file: BinaryIO, key: str, prediction: Prediction) -> None:
    """Add the outcome of one image."""
    row = prediction.as_json()
    detections: Any = row["detections"]
    row["detections"] = sorted(detections, key=lambda found: -found["score"])[:_MOST_FINDINGS]
    file.write(json.dumps({"key": key, "row": row}, ensure_ascii=False).encode() + b"\n")
    file.flush()


def prediction_of(row: Row) -> Prediction:
    """The outcome a row stands for, without heat map and stage times; KeyError or ValueError for a damaged one."""
    found = tuple(Detection(one["class"], float(one["score"]), Region(tuple(one["box"]))) for one in row["detections"])
    verdict = Verdict[row["verdict"]]
    reasons = () if verdict == Verdict.OK else (Reason("kept", row.get("reason") or "kept from before", found),)
    return Prediction(row["image"], Inspection(Judgement(verdict, reasons), found, ()), float(row["ms"]))
