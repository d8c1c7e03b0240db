import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inspection.evidence import EvidenceWriter, evidence_files, file_name
from inspection.images import read_image
from inspection.types import new_id, utc_now

IMAGE = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[EvidenceWriter]:
    opened = EvidenceWriter(tmp_path / "evidence", queue_size=8, min_free_mb=0)
    yield opened
    opened.close()


class SlowImage(np.ndarray):
    """An image that is only looked at when the gate opens: a disk that hangs."""

    gate: Event

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override,type-arg]
        self.gate.wait(60)
        return super().dtype


def slow(gate: Event) -> np.ndarray:  # type: ignore[type-arg]
    image = IMAGE.view(SlowImage)
    image.gate = gate
    return image


def wait_until(reached: Callable[[], bool]) -> None:
    """Wait for the writer's thread, for at most a minute."""
    assert any(reached() or time.sleep(0.01) for _ in range(6000))


def test_images_are_written_losslessly_under_date_and_lot(writer: EvidenceWriter) -> None:
    """The text for the record names the files, and they hold the very pixels."""
    record_id, before = new_id(), utc_now()
    text = writer.offer(record_id, "LOT-7", [("frame", IMAGE), ("golden", IMAGE[..., 0])])
    writer.close()
    assert text in {f"{now.date()}/LOT-7/{record_id}" for now in (before, utc_now())}
    frame, golden = evidence_files(writer.folder, text)
    assert [f"{record_id}_frame.png", f"{record_id}_golden.png"] == [frame.name, golden.name]
    assert np.array_equal(IMAGE, read_image(frame))
    assert np.array_equal(IMAGE[..., 0], read_image(golden))


def test_nothing_but_whole_files_is_left(writer: EvidenceWriter) -> None:
    """No temporary file remains beside the pictures."""
    writer.offer(new_id(), "L", [("frame", IMAGE)])
    writer.close()
    assert [".png"] == [path.suffix for path in writer.folder.rglob("*") if path.is_file()]


def test_full_queue_skips_counts_and_says_so(writer: EvidenceWriter) -> None:
    """When the disk hangs the line is not held up: the record says that its picture was skipped."""
    gate = Event()
    taken = [writer.offer(new_id(), "L", [("frame", slow(gate))]) for _ in range(8)]
    refused = [writer.offer(new_id(), "L", [("frame", IMAGE)]) for _ in range(3)]
    assert not any(text.startswith("skipped") for text in taken)
    assert ["skipped: queue full"] * 3 == refused
    assert writer.skipped == 3
    gate.set()
    writer.close()
    assert all(len(evidence_files(writer.folder, text)) == 1 for text in taken)


def test_room_returns_when_pictures_were_written(writer: EvidenceWriter) -> None:
    """After a jam the writer takes pictures again."""
    gate = Event()
    first = [writer.offer(new_id(), "L", [("frame", slow(gate))]) for _ in range(8)]
    gate.set()
    wait_until(lambda: sum(len(evidence_files(writer.folder, text)) for text in first) == 8)
    wait_until(lambda: not writer.offer(new_id(), "L", [("frame", IMAGE)]).startswith("skipped"))
    assert writer.failed == 0


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """Stopping the station loses no picture that was taken in."""
    writer = EvidenceWriter(tmp_path, queue_size=50, min_free_mb=0)
    texts = [writer.offer(new_id(), "L", [("frame", IMAGE)]) for _ in range(40)]
    writer.close()
    writer.close()
    assert all(evidence_files(tmp_path, text) for text in texts)


def test_closing_does_not_wait_for_ever(tmp_path: Path) -> None:
    """Pictures that a hanging disk did not take in time count as failed."""
    writer, gate = EvidenceWriter(tmp_path, queue_size=4, min_free_mb=0), Event()
    for _ in range(3):
        writer.offer(new_id(), "L", [("frame", slow(gate))])
    writer.close(timeout_s=0.05)
    gate.set()
    assert writer.failed >= 2
    assert "not written" in writer.last_error


def test_offer_after_closing_is_skipped(writer: EvidenceWriter) -> None:
    """A late picture is named as skipped instead of disappearing."""
    writer.close()
    assert writer.offer(new_id(), "L", [("frame", IMAGE)]) == "skipped: writer closed"
    assert writer.skipped == 1


def test_too_little_space_is_a_failure_that_says_so(tmp_path: Path) -> None:
    """Below min_free_mb no picture is written, so that the record store keeps its space."""
    writer = EvidenceWriter(tmp_path / "e", queue_size=2, min_free_mb=10**9)
    text = writer.offer(new_id(), "L", [("frame", IMAGE)])
    writer.close()
    assert () == evidence_files(writer.folder, text)
    assert writer.failed == 1
    assert "min_free_mb" in writer.last_error


def test_full_disk_counts_as_failed_and_leaves_no_half_picture(tmp_path: Path) -> None:
    """On a really full disk the thread goes on, counts, and removes what it had begun."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        writer = EvidenceWriter(disk, queue_size=9, min_free_mb=0)
        noise = np.random.default_rng(2).integers(0, 256, (200, 200), dtype=np.uint8)
        texts = [writer.offer(new_id(), "L", [("frame", noise)]) for _ in range(4)]
        writer.close()
        assert writer.failed == 3
        assert "No space left" in writer.last_error
        assert sum(len(evidence_files(disk, text)) for text in texts) == 1
        assert [".png"] == [path.suffix for path in disk.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_folder_that_cannot_be_made_counts_as_failed(tmp_path: Path) -> None:
    """A file where the folder should be costs pictures, and no exception reaches the line."""
    (tmp_path / "file").write_text("x")
    writer = EvidenceWriter(tmp_path / "file" / "evidence", queue_size=4, min_free_mb=0)
    for _ in range(2):
        writer.offer(new_id(), "L", [("frame", IMAGE)])
    writer.close()
    assert writer.failed == 2


def test_image_of_a_wrong_form_counts_as_failed_and_the_next_is_written(writer: EvidenceWriter) -> None:
    """One bad picture does not end the thread."""
    writer.offer(new_id(), "L", [("frame", np.zeros((2, 2), np.float32))])  # type: ignore[list-item]
    text = writer.offer(new_id(), "L", [("frame", IMAGE)])
    writer.close()
    assert writer.failed == 1
    assert len(evidence_files(writer.folder, text)) == 1


@pytest.mark.parametrize("lot", ["../../etc", "/abs", "a/b", "..", "", "CON", "\0", "ü" * 300, "\ud800", "-rf", ".git"])
def test_no_text_leads_out_of_the_folder(writer: EvidenceWriter, lot: str) -> None:
    """Lot and record id come from outside; their files stay two folders deep."""
    text = writer.offer(lot, lot, [(lot, IMAGE)])
    writer.close()
    (path,) = evidence_files(writer.folder, text)
    assert writer.failed == 0
    assert len(path.relative_to(writer.folder).parts) == 3


@given(st.text())
def test_file_names_are_plain_and_short(text: str) -> None:
    """Any text gives a name of letters, digits, - and _ only."""
    name = file_name(text, "none")
    assert 0 < len(name) <= 64
    assert all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name)
    assert name[0] not in "-_"


@given(st.text(), st.text())
@example("", "none")
def test_different_texts_get_different_names(one: str, other: str) -> None:
    """Two lots never share a folder by cleaning."""
    assert (one == other) == (file_name(one, "none") == file_name(other, "none"))


@pytest.mark.parametrize("text", ["", "skipped: queue full", "../..", "2026-01-01/L/none", "/etc/passwd"])
def test_text_without_files_gives_none(tmp_path: Path, text: str) -> None:
    """A record whose picture was skipped, failed or tampered with has no files."""
    assert () == evidence_files(tmp_path, text)
