"""Editing the labels of a dataset folder: each save is whole, kept in the history, and makes a new dataset version.

    dataset.json     the present state, replaced whole at each save
    history.jsonl    every save: who, when, why, labels before and after; on the disk before dataset.json is replaced
    .labels.lock     held by the one process that edits

A crash at any point leaves the dataset before or after the save in progress; ``open_labels`` finishes a save that had
reached the history.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType

from datasets.class_names import require_class_names
from datasets.importers.reading import place_label
from datasets.manifest import Dataset
from datasets.manifest_file import MANIFEST
from datasets.relabel.folder import FolderLock, ImageFiles, stage, sweep, sync_folder, unwritten
from datasets.relabel.history import Change as Change
from datasets.relabel.history import HistoryFile, read_history
from datasets.relabel.history import LabelsError as LabelsError
from datasets.relabel.history import LabelSet as LabelSet
from datasets.relabel.present import Present, read_present
from datasets.relabel.recovery import finished
from datasets.sample import LabelledBox, Sample
from inspection.errors import InspectionError, UsageError
from inspection.log import event
from inspection.types import utc_now

MOST_LABELS = 5000
MOST_LETTERS = {"who": 200, "why": 2000}


class LabelConflict(InspectionError):
    """Another editor saved the sample since this one opened it; neither's work is lost.

    ``theirs`` is what is stored now (its ``revision`` is the one to save on top of), ``saved_by`` who saved it and
    ``yours`` what was not stored.
    """

    def __init__(self, name: str, theirs: LabelSet, yours: LabelSet, saved_by: str) -> None:
        super().__init__(
            f"sample {name!r} was saved{' by ' + saved_by if saved_by else ''} while you edited it",
            fix="look at both; then save again, on top of theirs",
        )
        self.name = name
        self.theirs = theirs
        self.yours = yours
        self.saved_by = saved_by


def open_labels(folder: Path) -> "Labels":
    """Open a dataset folder made by lineside for editing; a context manager, or call ``close``.

    UsageError: no valid dataset.  LabelsError: another process edits it, the disk is read-only, or dataset.json is not
    what the history ends with.
    """
    return Labels(folder)


class Labels:
    """The labels of one dataset, edited by this process alone; methods may be called by any thread.

    What is read between saves is always the state after a whole save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        if not (self.folder / MANIFEST).is_file():
            raise UsageError(f"{folder} is no dataset of lineside", fix="make one of it with `lineside data import`")
        self._mutex = Lock()
        self._images = ImageFiles()
        self._lock: FolderLock | None = None
        self._history: HistoryFile | None = None
        try:
            self._lock = FolderLock(self.folder)
            self._history = HistoryFile(self.folder)
            self._present = read_present(self.folder)
            self._recover(self._history)
            self._stamp = self._file_stamp()
        except OSError as problem:
            self.close()
            raise unwritten(self.folder, problem) from problem
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Labels":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others edit the dataset; a second call does nothing."""
        with self._mutex:
            for held in (self._history, self._lock):
                if held is not None:
                    held.close()
            self._history = self._lock = None

    # ---- what is stored

    @property
    def version(self) -> str:
        """The dataset's present version."""
        return self._present.version

    @property
    def classes(self) -> tuple[str, ...]:
        """The defect classes that labels may have."""
        return self._present.classes

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all samples, in the order of the dataset."""
        return tuple(self._present.samples)

    @property
    def dataset(self) -> Dataset:
        """The whole dataset as it is now; made anew at each call (20,000 samples: some seconds)."""
        return self._present.dataset()

    @property
    def to_draw(self) -> tuple[str, ...]:
        """Names of the escapes on which nobody has marked a defect yet; training leaves them out."""
        present = self._present
        return tuple(
            name for name in present.samples if name in present.escapes and not present.samples[name].defective
        )

    def sample(self, name: str) -> Sample:
        """A sample as it is now; UsageError when the dataset has none of this name."""
        self._known(name)
        return self._present.samples[name]

    def stored(self, name: str) -> LabelSet:
        """The labels of a sample as they are now, with their revision; UsageError for an unknown name."""
        self._known(name)
        return self._present.labels(name)

    def revision(self, name: str) -> str:
        """What to give as ``base_version`` when saving what is edited from now on; UsageError for an unknown name."""
        return self.stored(name).revision

    def image_size(self, name: str) -> tuple[int, int]:
        """Width and height of a sample's image; LabelsError when it is missing or not the one the dataset was made of."""
        sample = self.sample(name)
        return self._images.size(sample, self._present.digests[name])

    def changes(self, name: str = "") -> Iterator[Change]:
        """Every save, or those of one sample, newest first; saving ``change.before`` undoes it."""
        return (change for change in read_history(self.folder) if not name or change.sample == name)

    # ---- saving

    def save(
        self, name: str, labels: Sequence[LabelledBox], *, image_class: str, who: str, why: str, base_version: str
    ) -> str:
        """Store the labels of one sample and give the dataset's new version; on the disk when this returns.

        ``base_version`` is the ``revision`` that was edited.  The stored labels once more make no new version, whatever
        they are based on, so that a save may be repeated when its answer was lost.  Boxes that overhang the image by
        up to a pixel are clipped.

        LabelConflict: somebody else saved the sample in between.  UsageError: unknown sample or class, a box outside
        the image.  LabelsError: disk full or read-only, image missing, dataset.json changed by another hand; then
        everything is as it was.
        """
        with self._mutex:
            self._known(name)
            _check_text(who=who, why=why)
            given = self._placed(name, labels, image_class)
            before = self._present.labels(name)
            if given.revision == before.revision:
                return self._present.version
            if base_version != before.revision:
                raise LabelConflict(name, before, given, self._saved_by(name))
            return self._commit(self._present.relabelled(name, given), who, why, name, before, given)

    def add_class(self, defect_class: str, *, who: str, why: str) -> str:
        """Let labels be of one more class and give the dataset's new version; a known class changes nothing.

        UsageError: the name cannot be a class, or differs by upper and lower case only from one that is there.
        """
        with self._mutex:
            _check_text(who=who, why=why)
            if defect_class in self._present.classes:
                return self._present.version
            require_class_names([defect_class], self._present.classes)
            nothing = LabelSet(())
            return self._commit(
                self._present.with_class(defect_class), who, why, "", nothing, nothing, added_class=defect_class
            )

    def _known(self, name: str) -> None:
        if name not in self._present.samples:
            raise UsageError(f"there is no sample {name!r} in {self.folder}", fix="open the dataset anew")

    def _saved_by(self, name: str) -> str:
        try:
            return next((change.who for change in self.changes(name)), "")
        except LabelsError:  # the history is damaged; that somebody saved is certain all the same
            return ""

    def _placed(self, name: str, labels: Sequence[LabelledBox], image_class: str) -> LabelSet:
        """The labels clipped to the image; UsageError listing every one that cannot be stored."""
        present = self._present
        if len(labels) > MOST_LABELS:
            raise UsageError(f"{len(labels)} labels on one image, {MOST_LABELS} are the most", fix="mark fewer")
        size = self.image_size(name)
        named = {label.defect_class for label in labels} | ({image_class} - {""})
        faults = [f"unknown class {one!r}" for one in sorted(named - set(present.classes))]
        placed = list[LabelledBox]()
        for label in labels:
            found = place_label(label.defect_class, label.box_px, size, polygons=label.polygons_px)
            if isinstance(found, str):
                faults.append(found)
            else:
                placed.append(found)
        if faults:
            known = ", ".join(present.classes)
            raise UsageError(f"sample {name!r} was not saved: {'; '.join(faults[:20])}", fix=f"classes here: {known}")
        return LabelSet(tuple(placed), image_class)

    def _commit(
        self, state: Present, who: str, why: str, name: str, before: LabelSet, after: LabelSet, added_class: str = ""
    ) -> str:
        history = self._sound_history()
        versions = (self._present.version, state.version)
        change = Change(utc_now(), who, why, *versions, name, before, after, added_class)
        try:
            staged = stage(self.folder, state.text())  # first what needs most space
            try:
                take_back = history.append(change)
                try:
                    staged.replace(self.folder / MANIFEST)
                except BaseException:
                    take_back()
                    raise
            except BaseException:
                staged.unlink(missing_ok=True)
                raise
            self._present, self._stamp = state, self._file_stamp()
        except OSError as problem:
            raise unwritten(self.folder, problem) from problem
        return state.version

    def _sound_history(self) -> HistoryFile:
        """The history when it may be written; LabelsError when the dataset is closed or another hand changed it."""
        if self._history is None:
            raise LabelsError(f"{self.folder} is closed", fix="open it again")
        try:
            same = self._history.sound and self._file_stamp() == self._stamp
        except OSError as problem:
            raise unwritten(self.folder, problem) from problem
        if not same:
            raise LabelsError(
                f"{self.folder / MANIFEST} was changed by another program, and nothing was saved",
                fix="start the editor again; it tells whether the changed file can be used",
            )
        return self._history

    def _file_stamp(self) -> tuple[int, int, int]:
        state = (self.folder / MANIFEST).stat()
        return state.st_ino, state.st_mtime_ns, state.st_size

    # ---- after a crash

    def _recover(self, history: HistoryFile) -> None:
        """Bring the folder to the last whole save; LabelsError when dataset.json and the history do not belong together."""
        sweep(self.folder)
        whole = finished(self.folder, self._present)
        history.cut_torn()
        if whole is not self._present:
            stage(self.folder, whole.text()).replace(self.folder / MANIFEST)
            self._present = whole
            event("labels.recovered", folder=str(self.folder), version=whole.version)
        sync_folder(self.folder)


def _check_text(**texts: str) -> None:
    for name, text in texts.items():
        if len(text) > MOST_LETTERS[name]:
            raise UsageError(f"{name}: {len(text)} letters, {MOST_LETTERS[name]} are the most", fix="shorten it")
        if name != "why" and (not text.strip() or not text.isprintable()):
            raise UsageError(f"{name} {text!r} is empty or not printable", fix="give a name in plain letters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{name} {text!r} is no valid text", fix="write it anew") from None
