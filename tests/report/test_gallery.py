"""The gallery: real frames of a generated station beside their goldens, and the reason where there is no picture."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("polars", reason='needs polars: pip install "lineside[report]"')

from inspection.config import StationConfig, load_station
from inspection.evidence import evidence_files, evidence_of
from inspection.evidence_ledger import Compressed, EvidenceLedger, Picture, Tombstone, ledger_path
from inspection.record_reader import RecordReader
from inspection.report import gallery
from inspection.report.contents import GalleryItem
from inspection.report.gallery import SIDE_PX, with_pictures
from inspection.types import Record

AT = "2026-11-20T08:00:00+00:00"


@dataclass(frozen=True)
class Line:
    """A station of a generated day with the pictures of its last parts."""

    config: StationConfig
    folder: Path
    records: tuple[Record, ...]

    def items(self) -> list[GalleryItem]:
        """The best finding of each part with pictures."""
        return [item_of(record) for record in self.records]

    def png(self, record: Record) -> Path:
        """The stored frame of a record."""
        return evidence_files(Path(self.config.evidence.folder), evidence_of(record))[0]


def item_of(record: Record) -> GalleryItem:
    best = max(record.detections, key=lambda one: one.score)
    return GalleryItem(
        record.record_id, record.serial, record.judged_at, best.defect_class, best.camera, best.region.xyxy_px,
        best.score, record.judgement.verdict.name, "",
    )  # fmt: skip


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A generated station, made once."""
    folder = tmp_path_factory.mktemp("day") / "station"
    command = [sys.executable, "-m", "tools.month", str(folder), "--parts", "400", "--ng", "30", "--reviews", "5"]
    subprocess.run([*command, "--days", "2", "--pictures", "8"], cwd=root, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture
def line(day: Path, tmp_path: Path) -> Line:
    """A copy of it that may be spoiled."""
    folder = tmp_path / "station"
    shutil.copytree(day, folder)
    config = load_station(folder / "station.toml")
    with closing(RecordReader(Path(config.store))) as reader:
        found = [record for _, record in reader.newest(400)]
    pictured = [
        one for one in found if one.detections and evidence_files(Path(config.evidence.folder), evidence_of(one))
    ]
    return Line(config, folder, tuple(pictured))


def entered(line: Line, record: Record) -> tuple[str, str]:
    """The frame of a record, entered into the ledger as it lies there: its file and SHA-256."""
    path = line.png(record)
    file, digest = (
        path.relative_to(line.config.evidence.folder).as_posix(),
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    with closing(EvidenceLedger(ledger_path(Path(line.config.store)))) as ledger:
        ledger.enter([Picture(record.record_id, file, digest, path.stat().st_size, AT, record.judgement.verdict.name)])
    return file, digest


def altered(line: Line, record: Record) -> None:
    """Another picture in place of the one that was written."""
    entered(line, record)
    frame = cv2.imread(str(line.png(record)), cv2.IMREAD_UNCHANGED)
    frame[:40, :40] = 0
    cv2.imwrite(str(line.png(record)), frame)


def deleted(line: Line, record: Record) -> None:
    """Deleted by a rule, with its tombstone."""
    file, digest = entered(line, record)
    stone = Tombstone(record.record_id, json.dumps([[file, digest]]), "ng older than 30 days", AT, "1")
    with closing(EvidenceLedger(ledger_path(Path(line.config.store)))) as ledger:
        ledger.put_down([], [stone])
    line.png(record).unlink()


def removed(line: Line, record: Record) -> None:
    """Gone, and no rule did it."""
    entered(line, record)
    line.png(record).unlink()


def torn(line: Line, record: Record) -> None:
    """Half of the file, and the ledger knows that half."""
    path = line.png(record)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    entered(line, record)


def compressed(line: Line, record: Record) -> None:
    """A JPEG in place of the PNG, as retention leaves it."""
    file, digest = entered(line, record)
    path = line.png(record)
    jpg = path.with_suffix(".jpg")
    cv2.imwrite(str(jpg), cv2.imread(str(path), cv2.IMREAD_UNCHANGED), [cv2.IMWRITE_JPEG_QUALITY, 90])
    new, new_digest = str(Path(file).with_suffix(".jpg")), hashlib.sha256(jpg.read_bytes()).hexdigest()
    row = Compressed(record.record_id, file, digest, new, new_digest, jpg.stat().st_size, "ng after 7 days", AT, "1")
    with closing(EvidenceLedger(ledger_path(Path(line.config.store)))) as ledger:
        ledger.begin_making([new])
        ledger.put_down([row], [])
    path.unlink()


def decoded(jpg: bytes | None) -> np.ndarray:
    assert jpg is not None
    return np.asarray(cv2.imdecode(np.frombuffer(jpg, np.uint8), cv2.IMREAD_COLOR))


def test_shows_the_frame_with_its_finding_beside_the_golden(line: Line) -> None:
    """Each part with a stored frame has its cut-out with an outline and the golden's place, both of the page's size."""
    items = with_pictures(line.config, line.items())
    assert len(items) >= 6
    for item in items:
        frame, golden = decoded(item.frame_jpg), decoded(item.golden_jpg)
        assert SIDE_PX == max(frame.shape[:2]) == max(golden.shape[:2])
        red = (frame[:, :, 2].astype(int) - frame[:, :, 0]) > 90
        assert red.sum() > 40  # the outline, on grey frames
        assert item.why_not == ""


@pytest.mark.parametrize(
    ("spoil", "word"), [(altered, "altered"), (deleted, "deleted"), (removed, "not_written"), (torn, "damaged")]
)
def test_a_picture_that_is_not_the_one_says_so(line: Line, spoil: Callable[[Line, Record], None], word: str) -> None:
    """What was altered, deleted, lost or torn gives no picture and its reason; all others are shown as before."""
    spoil(line, line.records[0])
    items = with_pictures(line.config, line.items())
    assert items[0].frame_jpg is None
    assert items[0].golden_jpg is None
    assert word == items[0].why_not.partition(":")[0]
    assert all(item.frame_jpg for item in items[1:])


def test_a_compressed_picture_is_shown_and_said_to_be_one(line: Line) -> None:
    """A frame that is only there as JPEG is shown with its golden, and the page says that it is compressed."""
    compressed(line, line.records[0])
    item = with_pictures(line.config, line.items()[:1])[0]
    assert item.frame_jpg
    assert item.golden_jpg
    assert item.why_not.startswith("compressed")


def test_without_the_recipe_the_frame_is_shown_alone(line: Line) -> None:
    """A recipe version that is not here any more takes the golden away, not the frame."""
    (line.folder / "recipes" / "demo-pcb" / "recipe.lock").write_text("{}", encoding="utf-8")
    item = with_pictures(line.config, line.items()[:1])[0]
    assert item.frame_jpg
    assert item.golden_jpg is None
    assert item.why_not


def test_an_unknown_record_is_no_path(line: Line) -> None:
    """An item whose record is not in the store gives a reason, whatever its id looks like."""
    items = [replace(line.items()[0], record_id=name) for name in ("../../etc/passwd", "", "<b>", "\x00")]
    assert ["no_record"] * 4 == [item.why_not for item in with_pictures(line.config, items)]


def test_count_and_bytes_are_bounded(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gallery grows beyond its number of pictures and bytes; what is left out says so."""
    many = line.items()[:1] * (gallery.MOST_ITEMS + 3)
    assert 3 == sum(item.why_not == "bounded" for item in with_pictures(line.config, many))
    monkeypatch.setattr(gallery, "MOST_BYTES", 1)
    assert [False, True, True] == [item.why_not == "bounded" for item in with_pictures(line.config, many[:3])]


def test_nothing_chosen_reads_nothing(line: Line) -> None:
    """Without items no file is opened."""
    (line.folder / "records.sqlite").unlink()
    assert () == with_pictures(line.config, ())
