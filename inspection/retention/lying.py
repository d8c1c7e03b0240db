"""The files of a record that should lie on the disk now, by the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass

from inspection.evidence_ledger import Compressed, Picture, Rows, compressed_of, deleted_of, pictures_of
from inspection.retention.folder import EvidenceFolder

_RAW = "_raw"


@dataclass(frozen=True, slots=True)
class Lying:
    """A file that should lie on the disk."""

    record_id: str
    file: str
    sha256: str
    bytes: int

    @property
    def jpeg(self) -> str:
        """What it is called when it is compressed."""
        return f"{self.file.removesuffix('.png')}.jpg"


def lying_of(ledger: Rows, record_id: str) -> list[Lying]:
    """The files of a record that should lie on the disk now."""
    compressed = compressed_of(ledger, record_id)
    buried = {file for tombstone in deleted_of(ledger, record_id) for file, _ in tombstone.named}
    now = [_now(picture, compressed.get(picture.file)) for picture in pictures_of(ledger, record_id)]
    return [one for one in now if one.file not in buried]


def refusal_of(folder: EvidenceFolder, files: Sequence[Lying]) -> str:
    """Why one of the files can neither be replaced nor removed; "" when nothing speaks against it."""
    return next(filter(None, (folder.refusal(one.file) for one in files)), "")


def raw_of(files: Sequence[Lying]) -> list[Lying]:
    """What the sensor gave beside a frame: more than a JPEG can hold."""
    stems = {one.file.removesuffix(".png") for one in files}
    return [one for one in files if one.file.endswith(f"{_RAW}.png") and one.file.removesuffix(f"{_RAW}.png") in stems]


def frames_of(files: Sequence[Lying]) -> list[Lying]:
    """The PNGs that a JPEG can stand for."""
    raw = raw_of(files)
    return [one for one in files if one.file.endswith(".png") and one not in raw]


def _now(picture: Picture, compressed: Compressed | None) -> Lying:
    if compressed is None:
        return Lying(picture.record_id, picture.file, picture.sha256, picture.bytes)
    return Lying(picture.record_id, compressed.new_file, compressed.new_sha256, compressed.new_bytes)
