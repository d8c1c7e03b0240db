"""The page's side of the process that judges images and works out the queue: starts it, hears it, ends it."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any

from datasets.manifest import Digest
from datasets.relabel.judge_all import ORDER
from datasets.relabel.judged import Judged, Row, judged_file, key_of
from inspection.model import file_sha256

_ENDS_S = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """The queue as it was worked out: names with their reasons and folded copies; ``mark`` names this content."""

    rows: tuple[dict[str, Any], ...] = ()
    mark: str = ""


@dataclass(slots=True)
class _Told:
    state: str = "starting"
    judged: int = 0
    of: int = 0
    text: str = ""
    lock: Lock = field(default_factory=Lock)


class Background:
    """Judging and ranking in a process of their own; the page works before anything of it is there."""

    def __init__(self, dataset: Path, cache: Path, model: Path | None) -> None:
        self._cache = cache
        self._told = _Told()
        self._lock = Lock()
        self._judged = Judged(judged_file(cache, file_sha256(model))) if model else None
        # One core: the editor and whatever else this computer does come first.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "datasets.relabel.judge_all", str(dataset), str(cache), str(model or "")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("pipes were asked for")
        self._held = self._process.stdin  # the process ends when this closes, also when we are killed
        self._thread = Thread(target=self._hear, args=(self._process.stdout,), name="background", daemon=True)
        self._thread.start()

    def _hear(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                fields = json.loads(line)
                with self._told.lock:
                    for name, value in fields.items():
                        setattr(self._told, name, value)
        code = self._process.wait()
        with self._told.lock:
            if self._told.state not in ("done", "failed"):
                self._told.state = "failed"
                self._told.text = f"the process that judges images ended with code {code}"

    def progress(self) -> dict[str, object]:
        """State (starting, judging, ranking, done, failed), images judged and in all, what went wrong, the order's mark."""
        with self._told.lock:
            told = {name: getattr(self._told, name) for name in ("state", "judged", "of", "text")}
        return {**told, "order": self.order().mark}

    def order(self) -> Order:
        """The queue worked out last, in this run or an earlier one; empty when there is none."""
        try:
            content = (self._cache / ORDER).read_bytes()
            return Order(tuple(json.loads(content)), hashlib.sha256(content).hexdigest()[:16])
        except (OSError, ValueError):
            return Order()

    def judged(self, digest: Digest) -> Row | None:
        """What the model says of an image; None while it has not looked, or without a model."""
        if self._judged is None:
            return None
        with self._lock:
            key = key_of(digest)
            if key not in self._judged.rows:
                self._judged.refresh()
            return self._judged.rows.get(key)

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._held.close()
        self._process.terminate()
        try:
            self._process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join(_ENDS_S)
