"""One dataset under edit: what the pages ask of it and store in it."""

from datetime import UTC, datetime
from hashlib import sha256
from threading import Lock
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from datasets.manifest_file import LabelRow, label_of
from datasets.relabel.background import Background
from datasets.relabel.history import LabelsError
from datasets.relabel.judged import cache_folder
from datasets.relabel.labels import Labels
from datasets.relabel.proposals import Kept, of_model
from datasets.relabel.vouched import Word, add_word
from datasets.relabel.worklist import Last, Worklist


class Save(BaseModel):
    """A save as a browser sends it; ``base`` is the revision that was edited."""

    model_config = ConfigDict(extra="forbid")

    sample: str
    base: str = Field(max_length=64)
    labels: list[LabelRow]
    image_class: str
    why: str


class Desk:
    """One dataset under edit: its labels, its queue, what is proposed, and who sits at it."""

    def __init__(self, labels: Labels, background: Background, *, who: str, by_name: bool = False) -> None:
        self.labels = labels
        self.background = background
        self.who = who
        self.key = sha256(str(labels.folder.resolve()).encode()).hexdigest()[:16]
        self.worklist = Worklist(labels, by_name=by_name)
        self._by_name = by_name
        dataset = labels.dataset
        self.name = dataset.name
        self.digests = {sample.name: digest for sample, digest in zip(dataset.samples, dataset.digests, strict=True)}
        self.uploaded = Kept(cache_folder(labels.folder))
        self._lock = Lock()

    def save(self, given: Save) -> dict[str, Any]:
        """Store what a browser sent; the same once more does no harm.  LabelConflict, UsageError, LabelsError."""
        labels = [label_of(row) for row in given.labels]
        with self._lock:  # so that the revision in the answer is that of this save
            before = self.labels.revision(given.sample)
            version = self.labels.save(
                given.sample,
                labels,
                image_class=given.image_class,
                who=self.who,
                why=given.why,
                base_version=given.base,
            )
            now, revision = datetime.now(UTC), self.labels.revision(given.sample)
            known = self.worklist.last(given.sample)
            if before == revision and known is None:
                self._vouch(
                    Word(at=now.isoformat(), who=self.who, why=given.why, sample=given.sample, revision=revision)
                )
            if before != revision or known is None:
                self.worklist.note(given.sample, Last(now, self.who, given.why))
        return {"version": version, "revision": revision}

    def _vouch(self, word: Word) -> None:
        try:
            add_word(self.labels.folder, word)
        except OSError as problem:
            raise LabelsError(
                f"cannot write {self.labels.folder}: {problem.strerror}; nothing was saved",
                fix="check the disk, its space and your permissions; then save again",
            ) from problem

    def progress(self) -> dict[str, object]:
        """How far judging is; ``order`` names the queue worked out last, "" where the order is that of the names."""
        told = self.background.progress()
        return {**told, "order": "" if self._by_name else told["order"]}

    def proposals(self, name: str) -> tuple[list[dict[str, object]], bool, str]:
        """What is proposed for a sample, whether the model has looked at it, and why it could not."""
        row = self.background.judged(self.digests[name])
        found = [] if row is None else of_model(row)
        return [*found, *self.uploaded.of(name)], row is not None, "" if row is None else str(row.get("reason", ""))
