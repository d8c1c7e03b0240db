"""Tries the folders that a station needs, without opening a device: there, writable, with space left."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from inspection.cameras.folder import FolderCamera, FolderCameraConfig
from inspection.cameras.opencv import OpencvCameraConfig
from inspection.cameras.pylon import PylonCameraConfig
from inspection.cameras.simulated import SimulatedCameraConfig
from inspection.config import CameraConfig, StationConfig
from inspection.errors import CameraError

LEAST_STORE_MB = 100  # below, a store would fail within a shift
_TRIED_BYTES = 65_536


def folder_faults(config: StationConfig) -> list[str]:
    """What would keep this station from its work, a sentence each; () when all folders can be used."""
    return [*_store(Path(config.store)), *_evidence(config), *_cameras(config)]


def free_space(config: StationConfig) -> str:
    """How much is left for records and pictures, in words; for folders without faults."""
    store, evidence = Path(config.store).parent, _nearest(Path(config.evidence.folder))
    return f"{_free_mb(store):,.0f} MB free for records, {_free_mb(evidence):,.0f} MB for pictures".replace(",", " ")


def _store(path: Path) -> Iterator[str]:
    folder = path.parent
    if not folder.is_dir():
        yield f"store: there is no folder {folder}: create it, or mount its disk"
        return
    yield from _written("store", folder)
    if path.exists() and not path.is_file():
        yield f"store: {path} is no file"
    elif path.exists() and not _opens(path):
        yield f"store: {path} may not be written by this user"
    if _free_mb(folder) < LEAST_STORE_MB:
        yield f"store: {_free_mb(folder):.0f} MB are free in {folder}, less than {LEAST_STORE_MB}: free space there"


def _evidence(config: StationConfig) -> Iterator[str]:
    folder = Path(config.evidence.folder)
    nearest = _nearest(folder)
    if not nearest.is_dir():
        yield f"evidence: {nearest} is no folder, so {folder} cannot be made"
        return
    yield from _written("evidence", nearest)
    if _free_mb(nearest) < config.evidence.min_free_mb:
        yield (
            f"evidence: {_free_mb(nearest):.0f} MB are free for {folder}, min_free_mb is {config.evidence.min_free_mb}: "
            "no picture would be written"
        )


def _cameras(config: StationConfig) -> Iterator[str]:
    for role, camera in config.cameras.items():
        yield from (f"camera {role}: {fault}" for fault in _camera(camera, role))


def _camera(camera: CameraConfig, role: str) -> Iterator[str]:
    """Only what lies on the disk: folders and files that take a device's place."""
    if isinstance(camera, FolderCameraConfig):
        try:
            FolderCamera(camera, camera_id=role).list_files()
        except CameraError as error:
            yield f"{error.what}: {error.fix}"
    elif isinstance(camera, OpencvCameraConfig) and camera.is_file and not Path(camera.source).is_file():
        yield f"there is no video file {camera.source}"
    elif isinstance(camera, SimulatedCameraConfig) and camera.image and not Path(camera.image).is_file():
        yield f"there is no picture {camera.image}"
    elif isinstance(camera, PylonCameraConfig) and camera.emulated_images and not Path(camera.emulated_images).is_dir():
        yield f"there is no folder {camera.emulated_images}"


def _written(what: str, folder: Path) -> Iterator[str]:
    """Whether a file can be written there: tried, because permissions alone do not tell of a disk that is read-only or full."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
    except OSError as error:
        yield f"{what}: nothing can be written in {folder} ({error.strerror}): give this user permission, or free space"


def _opens(path: Path) -> bool:
    try:
        with path.open("r+b"):
            return True
    except OSError:
        return False


def _nearest(folder: Path) -> Path:
    """The folder, or the one above it that is there: what is missing below is made with the first picture."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def _free_mb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e6
