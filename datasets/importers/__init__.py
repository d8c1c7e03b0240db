"""Readers of foreign dataset layouts.  A layout is one file here, one line in ``IMPORTERS``, one contract test case."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from datasets.class_names import require_class_names
from datasets.sample import Sample
from inspection.errors import UsageError
from inspection.plugins import resolve

# In the order in which a folder is offered to them: a layout that another could be taken for comes later.
IMPORTERS: dict[str, str] = {
    "deeppcb": "datasets.importers.deeppcb:DeepPcbImporter",
    "mvtec": "datasets.importers.mvtec:MvtecImporter",
    "yolo": "datasets.importers.yolo:YoloImporter",
    "coco": "datasets.importers.coco:CocoImporter",
    "voc": "datasets.importers.voc:VocImporter",
    "masks": "datasets.importers.masks:MaskImporter",
    "folders": "datasets.importers.folders:FolderImporter",
}
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps a sample from being imported: the file, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}"  # names of files and classes in it come from outside
        return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


@dataclass(frozen=True, slots=True)
class Survey:
    """All that a folder holds: the samples that can be used, and every problem with the others.

    ``classes`` are the defect classes in the order of the layout, ``notes`` what was assumed and is worth knowing.
    """

    source: Path
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def complete(self) -> tuple[Sample, ...]:
        """The samples; UsageError listing the problems when there are any, or when there is no sample."""
        if self.problems:
            listed = "".join(f"\n  {problem}" for problem in self.problems[:_LISTED])
            more = len(self.problems) - _LISTED
            raise UsageError(
                f"{self.source} has {len(self.problems)} problem(s):{listed}" + (f"\n  and {more} more" * (more > 0)),
                fix="correct these files, or import with --skip-bad to leave the samples concerned out",
            )
        return self.usable()

    def usable(self) -> tuple[Sample, ...]:
        """The samples without a problem; UsageError when not one is left, or a class has a name that none may have."""
        require_class_names(self.classes)
        if not self.samples:
            listed = "".join(f"\n  {problem}" for problem in self.problems[:_LISTED])
            raise UsageError(f"{self.source} holds no usable sample{listed}", fix="give the folder that holds the data")
        return self.samples


class Importer(Protocol):
    """Reads one foreign layout.  Pure reading: nothing is written, the samples point at the files where they lie."""

    @property
    def layout(self) -> str:
        """One line that shows what the folder must look like."""

    def recognises(self, path: Path) -> bool:
        """Whether the folder looks like this layout; fast, opens no image, raises nothing."""

    def survey(self, path: Path) -> Survey:
        """Read every sample, opening every image once; problems are collected.  UsageError: another layout."""

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample of the folder; UsageError listing all problems at once when there are any."""


def open_importer(name: str, **options: tuple[str, ...]) -> Importer:
    """The importer of this name; ConfigError listing the known ones when there is none.

    Options are those of one importer, as ``good`` of "folders"; UsageError when this one does not take them.
    """
    importer_class = resolve(IMPORTERS, name, "importer")
    for option in options.keys() - inspect.signature(importer_class).parameters.keys():
        raise UsageError(f"importer {name!r} does not take --{option}", fix="leave it out, or name another importer")
    return cast(Importer, importer_class(**options))


def recognise(path: Path) -> str | None:
    """The name of the first importer that recognises the folder, or None."""
    return next((name for name in IMPORTERS if open_importer(name).recognises(path)), None)


def require_importer(path: Path) -> str:
    """The name of the importer that recognises the folder; UsageError listing the known layouts when none does."""
    name = recognise(path)
    if name is None:
        known = "".join(f"\n  {open_importer(known).layout}" for known in IMPORTERS)
        state = "is in no known layout" if path.is_dir() else "is not a folder" if path.exists() else "does not exist"
        raise UsageError(f"{path} {state}", fix=f"give a folder in a known layout:{known}")
    return name
