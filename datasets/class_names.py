"""What a new defect class may be called: one rule for labels drawn here, imported and brought back."""

import unicodedata
from collections.abc import Iterable, Sequence

from inspection.errors import UsageError

MOST_LETTERS = 200
NO_DEFECT = "good"  # what tables, pages and folders call a part without a defect


def class_name_faults(names: Iterable[str], known: Sequence[str] = ()) -> dict[str, str]:
    """What is wrong with each of the names that cannot be a class beside ``known`` and the names before it."""
    taken = {_read(name): name for name in known}
    faults = {}
    for name in names:
        fault = _form(name) or _twin(name, taken)
        if fault:
            faults[name] = fault
        taken.setdefault(_read(name), name)
    return faults


def require_class_names(names: Iterable[str], known: Sequence[str] = ()) -> None:
    """UsageError listing the names that cannot be a class beside ``known``."""
    faults = class_name_faults(names, known)
    if faults:
        raise UsageError(
            f"{len(faults)} name(s) cannot be a defect class: {'; '.join(list(faults.values())[:20])}",
            fix="rename them in what the labels came from, or give another name",
        )


def _form(name: str) -> str:
    if _read(name) == NO_DEFECT:
        return f"{name!r} means a part without a defect"
    if len(name) > MOST_LETTERS:
        return f"{name[:20]!r}... has {len(name)} letters, {MOST_LETTERS} are the most"
    if name != name.strip() or not name or not name.isprintable():  # a lone surrogate is not printable either
        return f"{name!r} is empty, not printable, or has blanks around it"
    return ""


def _twin(name: str, taken: dict[str, str]) -> str:
    twin = taken.get(_read(name), name)
    return "" if twin == name else f"{name!r} and {twin!r} differ only by upper and lower case or forms of letters"


def _read(name: str) -> str:
    """The name as a person reads it."""
    return unicodedata.normalize("NFKC", name).strip().casefold()
