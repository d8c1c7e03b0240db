"""Image files given on the command line, put together as parts with one frame of each camera."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspection.errors import UsageError
from inspection.images import IMAGE_SUFFIXES, is_golden


@dataclass(frozen=True, slots=True)
class PartFiles:
    """The frames of one part by camera role."""

    name: str
    frames: dict[str, Path]


def parts_of(paths: Iterable[Path], roles: Sequence[str]) -> list[PartFiles]:
    """Parts from files and folders, in the order given.

    With one camera each image is a part.  With several, the frames of a part are NAME.ROLE.png, or ROLE/NAME.png.
    UsageError for a path that does not exist, a folder without images, and a part that lacks a frame.
    """
    files = [file for path in paths for file in _files(path)]
    if len(roles) == 1:
        return [PartFiles(file.stem, {roles[0]: file}) for file in files]
    parts: dict[str, dict[str, Path]] = {}
    for file in files:
        name, role = _name_and_role(file, roles)
        if role in parts.setdefault(name, {}):
            raise UsageError(f"{file} and {parts[name][role]} are the same frame of {name}", fix="give one of them")
        parts[name][role] = file
    for name, frames in parts.items():
        missing = [role for role in roles if role not in frames]
        if missing:
            raise UsageError(
                f"part {name} has no frame of camera {', '.join(missing)}", fix=f"add {name}.{missing[0]}.png"
            )
    return [PartFiles(name, {role: frames[role] for role in roles}) for name, frames in parts.items()]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"there is no image or folder {path}", fix="check the path")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and not is_golden(file))
    if not found:
        raise UsageError(f"{path} holds no image", fix=f"known suffixes: {', '.join(IMAGE_SUFFIXES)}")
    return found


def _name_and_role(file: Path, roles: Sequence[str]) -> tuple[str, str]:
    name, _, role = file.stem.rpartition(".")
    if name and role in roles:
        return name, role
    if file.parent.name in roles:
        return file.stem, file.parent.name
    raise UsageError(
        f"{file} does not say which camera took it",
        fix=f"name it {file.stem}.ROLE{file.suffix} (cameras: {', '.join(roles)})",
    )
