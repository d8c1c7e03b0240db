"""Readers of foreign dataset layouts.  A layout is one file here, one line in ``IMPORTERS``, one contract test case."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from datasets.sample import Sample
from inspection.errors import UsageError
from inspection.plugins import resolve

IMPORTERS: dict[str, str] = {"deeppcb": "datasets.importers.deeppcb:DeepPcbImporter"}
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps a sample from being imported: the file, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Survey:
    """All that a folder holds: the samples that can be used, and every problem with the others."""

    source: Path
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]

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
        """The samples without a problem; UsageError when not one is left."""
        if not self.samples:
            listed = "".join(f"\n  {problem}" for problem in self.problems[:_LISTED])
            raise UsageError(f"{self.source} holds no usable sample{listed}", fix="give the folder that holds the data")
        return self.samples


class Importer(Protocol):
    """Reads one foreign layout.  Pure reading: nothing is written, the samples point at the files where they lie."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The defect classes of the layout, in the order of its numbers."""

    @property
    def layout(self) -> str:
        """One line that shows what the folder must look like."""

    def recognises(self, path: Path) -> bool:
        """Whether the folder looks like this layout; fast, opens no image, raises nothing."""

    def survey(self, path: Path) -> Survey:
        """Read every sample, opening every image once; problems are collected.  UsageError: another layout."""

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample of the folder; UsageError listing all problems at once when there are any."""


def open_importer(name: str) -> Importer:
    """The importer of this name; ConfigError listing the known ones when there is none."""
    return cast(Importer, resolve(IMPORTERS, name, "importer")())


def recognise(path: Path) -> str | None:
    """The name of the importer that recognises the folder, or None."""
    return next((name for name in IMPORTERS if open_importer(name).recognises(path)), None)
