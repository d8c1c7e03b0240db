"""Records to a folder, on this machine or a mounted share: one file a day, JSON lines or CSV, whole lines only."""

import csv
import errno
import io
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from inspection.errors import PublisherError
from inspection.publishers import Message

COLUMNS = (
    "sequence", "kind", "record_id", "station_id", "judged_at", "verdict", "serial", "lot", "recipe_id", "simulated",
    "reasons", "detections",
)  # fmt: skip
_REMEMBERED = 2000  # lines; more than the outbox ever offers again
_TAIL_BYTES = 8_000_000


class FolderConfig(BaseModel):
    """Which folder, and in which forms."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    FILES: ClassVar[tuple[str, ...]] = ("folder",)

    kind: Literal["folder"] = "folder"
    folder: str = Field(min_length=1, description="an existing folder; files are named records-YYYY-MM-DD (UTC)")
    formats: tuple[Literal["jsonl", "csv"], ...] = Field(
        default=("jsonl",), min_length=1, description="jsonl has everything, csv a line for a spreadsheet"
    )
    keep_days: int = Field(default=0, ge=0, le=36500, description="older files are deleted, 0 = never")


class FolderPublisher:
    """Appends each message to the file of the day on which the part was judged, and forces it onto the disk.

    A line is ``{"sequence", "kind", "record_id", "body"}``.  A torn last line, left by a crash, is cut off; a message
    that is offered again is not written again when it is among the last lines.  A share that hangs holds up this
    publisher only: the system has no time limit for files.
    """

    def __init__(self, config: FolderConfig, *, station_id: str) -> None:
        self.config = config
        self._station_id = station_id
        self._folder = Path(config.folder)
        self._files: dict[str, _DayFile] = {}
        self._day = ""

    def open(self) -> None:
        """PublisherError when the folder is not there: it may be a share that is not mounted, so it is never made."""
        self.close()
        if not self._folder.is_dir():
            raise PublisherError(
                f"there is no folder {self._folder} for the records", fix="create it, or mount the share it lies on"
            )

    def publish(self, messages: Sequence[Message]) -> None:
        """Append what is not there yet; PublisherError when the folder does not take it."""
        try:
            for message in messages:
                body = json.loads(message.body)
                self._turn_to(_day_of(body))
                for kind, file in self._files.items():
                    file.add(message, _json_line(message) if kind == "jsonl" else _csv_line(message, body))
            for file in self._files.values():
                file.sync()
        except OSError as error:
            self.close()
            raise PublisherError(
                f"cannot write records into {self._folder} ({error.strerror or error})",
                fix="check free space, permissions and that the share is mounted",
            ) from None

    def show_state(self, state: str) -> None:
        """Nothing to do: a folder of records has no place for it."""

    def close(self) -> None:
        """Close the files."""
        files, self._files, self._day = self._files, {}, ""
        for file in files.values():
            file.close()

    def _turn_to(self, day: str) -> None:
        if day == self._day:
            return
        for file in self._files.values():
            file.sync()
        self.close()
        self._files = {form: _DayFile(self._folder / f"records-{day}.{form}") for form in self.config.formats}
        self._day = day
        _sync_folder(self._folder)
        self._drop_old()

    def _drop_old(self) -> None:
        if not self.config.keep_days:
            return
        first = (datetime.now(UTC).date() - timedelta(days=self.config.keep_days)).isoformat()
        for path in self._folder.glob("records-????-??-??.*"):
            day = path.name.removeprefix("records-")[:10]
            if path.suffix in (".jsonl", ".csv") and _is_day(day) and day < first and day != self._day:
                path.unlink()


class _DayFile:
    """One file that is appended to, made with its heading when missing."""

    def __init__(self, path: Path) -> None:
        self._path, self._form = path, path.suffix
        self._file = path.open("a+b", buffering=0)
        try:
            self._lines: deque[str] = deque(self._repaired(), maxlen=_REMEMBERED)
        except OSError:
            self._file.close()
            raise
        self._written = set(self._lines)
        self._waiting = io.BytesIO()
        if self._form == ".csv" and self._file.tell() == 0:
            self._waiting.write(_row(COLUMNS))

    def add(self, message: Message, line: bytes) -> None:
        """Put down one line for the next ``sync``, unless it was written before."""
        identity = _identity(message.sequence, message.kind, message.key)
        if identity in self._written:
            return
        if len(self._lines) == self._lines.maxlen:
            self._written.discard(self._lines[0])
        self._lines.append(identity)
        self._written.add(identity)
        self._waiting.write(line)

    def sync(self) -> None:
        """Write what waits and force it onto the disk; OSError when that fails, the file is then to be closed."""
        rest = self._waiting.getvalue()
        while rest:
            rest = rest[self._file.write(rest) :]
        self._waiting = io.BytesIO()
        os.fsync(self._file.fileno())
        # Whoever moved or deleted the file meanwhile would otherwise be told for the rest of the day what nobody sees.
        if not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno())):
            raise OSError(errno.ESTALE, "the file was replaced by another program")

    def close(self) -> None:
        self._file.close()

    def _repaired(self) -> Iterator[str]:
        """Cut off a torn last line; the identities of the last whole lines."""
        size = self._file.seek(0, os.SEEK_END)
        start = self._file.seek(max(0, size - _TAIL_BYTES))
        tail = self._file.read(size - start)
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) < len(tail):
            self._file.truncate(start + len(whole))
        self._file.seek(0, os.SEEK_END)
        # The first of several may be the rest of a line.
        for line in whole.splitlines()[1 if start else 0 :][-_REMEMBERED:]:
            yield from _read_identity(line.decode("utf-8", "replace"), self._form)


def _identity(sequence: int | str, kind: str, key: str) -> str:
    # A late result and its record have one key; a store that was put in the place of another counts from 1 again.
    return f"{sequence} {kind} {key}"


def _read_identity(line: str, form: str) -> Iterator[str]:
    """The identity of a line; nothing for one that we did not write."""
    try:
        if form == ".jsonl":
            fields = json.loads(line)
            yield _identity(fields["sequence"], fields["kind"], fields["record_id"])
        else:
            row = next(csv.reader([line]))
            yield _identity(row[0], row[1], row[2])
    except (ValueError, KeyError, TypeError, IndexError, StopIteration, csv.Error):
        return


def _json_line(message: Message) -> bytes:
    head = json.dumps({"sequence": message.sequence, "kind": message.kind, "record_id": message.key})
    # Some readers take these for the end of a line; within JSON they can only stand in a text.
    body = message.body.translate({0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"})
    return f'{head[:-1]}, "body": {body}}}\n'.encode()


def _csv_line(message: Message, body: dict[str, Any]) -> bytes:
    judged = body.get("late") or body if message.kind == "late" else body
    trigger = body.get("trigger", {})
    judgement = judged.get("judgement", {})
    return _row((
        message.sequence, message.kind, message.key, body.get("station_id", ""), judged.get("judged_at", ""),
        judgement.get("verdict", ""), body.get("read_serial") or trigger.get("serial", ""), trigger.get("lot", ""),
        body.get("recipe_id") or trigger.get("recipe_id", ""), body.get("simulated", ""),
        "; ".join(reason["text"] for reason in judgement.get("reasons", ())) or _gap_text(message, body),
        len(judged.get("detections", ())),
    ))  # fmt: skip


def _gap_text(message: Message, body: dict[str, Any]) -> str:
    return f"lost {body['first_sequence']} to {body['last_sequence']}" if message.kind == "gap" else ""


def _row(values: Sequence[object]) -> bytes:
    """One line of CSV; a field never holds a line break, so that each line is whole, nor what a spreadsheet would run."""
    fields = [" ".join(str(value).splitlines()) for value in values]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([f"'{one}" if one[:1] in "=+-@" and one else one for one in fields])
    return text.getvalue().encode()


def _day_of(body: dict[str, Any]) -> str:
    judged_at = body.get("judged_at") or (body.get("late") or {}).get("judged_at")
    moment = datetime.fromisoformat(judged_at) if judged_at else datetime.now(UTC)
    return moment.astimezone(UTC).date().isoformat()


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Force the names of new files onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
