"""Reads a TOML file into a typed section, telling every mistake at once with its key and what is allowed."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from inspection.errors import ConfigError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # of a file, role, recipe or station: leads out of no folder


class Section(BaseModel):
    """A table of a config file: cannot be changed after loading, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Document = TypeVar("Document", bound=Section)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; ConfigError when it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror})", fix="check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is no text file: byte {error.start} is {error.object[error.start]:#04x}, which no UTF-8 text holds there",
            fix="give the TOML file itself, and save it as UTF-8",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", fix="correct the line named above") from error


def checked(path: Path, document: dict[str, Any], kind: type[Document]) -> Document:
    """What was read from ``path`` as a section; ConfigError listing every mistake."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        entries = error.errors()
        # Items that are wrong are not counted, so a list of them is called too short as well: that is no mistake.
        wrong = {entry["loc"][:depth] for entry in entries for depth in range(1, len(entry["loc"]))}
        entries = [entry for entry in entries if entry["type"] != "too_short" or entry["loc"] not in wrong]
        mistakes = [_mistake(entry["loc"], entry["msg"], entry["type"], kind) for entry in entries]
        count = f"{len(mistakes)} mistake" + ("s" if len(mistakes) > 1 else "")
        raise ConfigError(
            f"{path} has {count}: " + "; ".join(mistakes), fix="correct every key named above; nothing was started"
        ) from error


def _mistake(loc: tuple[int | str, ...], message: str, kind: str, model: type[Section]) -> str:
    where = ".".join(str(part) for part in loc) or "(whole file)"
    if kind == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields)) if len(loc) == 1 else ""
        return f"{where}: unknown key" + (f" (known: {known})" if known else "")
    return f"{where}: {message[0].lower()}{message[1:]}"
