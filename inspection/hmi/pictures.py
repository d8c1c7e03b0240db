"""The pictures of records: frames, cut-outs of findings, the golden beside them, heat maps.

    /picture/RECORD/ROLE.png          the frame as it is stored: a JPEG where retention compressed it
    /picture/RECORD/ROLE.jpg?w=640    the same, at most so wide; with &marks=1 its counted findings outlined and numbered
    /golden/RECORD/ROLE.jpg?w=640     the golden of the version that judged, laid over that frame
    /finding/RECORD/N/frame?w=320     cut-out around finding N of ``findings.detections_of`` (from 0), w its longer side
    /finding/RECORD/N/golden?w=320    the same place on the golden
    /heat/RECORD/ROLE.jpg?w=640       the heat map over the frame, where the model gives one

What cannot be shown is answered 404, with a drawing that says why (``placeholder``).  Nothing that a record or a request
names becomes a path but through ``evidence_files``.  Two threads make the pictures, however many browsers ask.  They have the
low priority of the whole process, not a lower one: a thread that starves may hold the interpreter's lock, and the pages
would stand still with it.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspection.byte_cache import ByteCache
from inspection.config import StationConfig
from inspection.errors import InspectionError, StoreError
from inspection.evidence import SKIPPED, evidence_of, file_name, picture_of
from inspection.heat_picture import lay_heat
from inspection.hmi.drawing import cut_out, fitted, jpeg, outlined, width_for, window_around
from inspection.hmi.findings import counted, detections_of
from inspection.hmi.placeholder import placeholder
from inspection.images import read_bytes, read_image
from inspection.log import event
from inspection.no_picture import NoPicture, sentence
from inspection.picture_state import PictureLedger, PictureState
from inspection.recipe_of_record import RecipesOfRecords
from inspection.record_reader import RecordReader
from inspection.types import Detection, Record, Verdict, utc_now
from inspection.web.shell import Refused, page, wants_json

if TYPE_CHECKING:
    from inspection.hmi.context import Context

Image = NDArray[np.uint8]
Make = Callable[[], bytes]
THREADS = 2
MOST_WAITING = 64  # pictures that may wait for a thread
FRAMES_BYTES = 120_000_000
MADE_BYTES = 80_000_000
MOST_SOUND = 10_000  # files that need not be hashed again
UNWRITTEN_S = 3.0  # evidence is written behind the line: so long a picture of a new record is waited for
NEW_S = 15.0
_LOOK_S = 0.1
_KEEP = "private, max-age=86400, immutable"  # what a record's pictures show never changes


# Why an OK part has no picture, by `keep` of the station's evidence.
_OK_WITHOUT = {"not-ok": "ok_not_kept", "not-ok-and-sample": "ok_not_drawn"}


class Pictures:
    """Makes the pictures of one station's records.  ``close`` ends its threads."""

    def __init__(self, config: StationConfig, reader: Callable[[], RecordReader]) -> None:
        self.config = config
        self.recipes = RecipesOfRecords(config)
        self._reader = reader
        self._folder = Path(config.evidence.folder)
        self._frames: ByteCache[Image] = ByteCache(FRAMES_BYTES, lambda frame: int(frame.nbytes))
        self._made: ByteCache[bytes] = ByteCache(MADE_BYTES, len)
        self._ledger = PictureLedger(config)
        self._sound: dict[tuple[Path, int, int], None] = {}  # files that were found to be what was written
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._pool = ThreadPoolExecutor(THREADS, "pictures", initializer=_one_core)

    def close(self) -> None:
        """End the threads; what still waits is not made."""
        self._pool.shutdown(cancel_futures=True)
        self._ledger.close()

    def record(self, record_id: str) -> Record:
        """The record of this id; Refused (404) when there is none."""
        record = self._reader().find(record_id)
        if record is None:
            raise Refused(404, "record")
        return record

    def roles(self, record: Record) -> tuple[str, ...]:
        """The cameras that looked at a part, those with findings first; the station's where its recipe is not here."""
        try:
            known = tuple(self.recipes.version(record).recipe.views)
        except NoPicture:
            known = tuple(self.config.cameras)
        found = [finding.detection.camera for finding in counted(record)]
        return tuple(dict.fromkeys([*(role for role in found if role in known), *known]))

    def missing(self, record: Record) -> NoPicture | None:
        """Why a record can have no picture, as far as the record says; None when it should have one."""
        evidence = evidence_of(record)
        if evidence.startswith(SKIPPED):
            return NoPicture("skipped", evidence.removeprefix(SKIPPED).strip())
        if evidence:
            return None
        if record.judgement.verdict == Verdict.OK:
            return NoPicture(_OK_WITHOUT.get(self.config.evidence.keep, "none"))
        return NoPicture("no_frame" if not record.frame_ids else "none")

    def unseen(self, record: Record, at: datetime) -> bool:
        """Whether nobody can have seen a picture of a record at a moment: none was kept, or retention had deleted them."""
        if self.missing(record) is not None:
            return True
        states = self._states(record)
        gone = [state.at for state in states if state.state == "deleted" and state.at is not None]
        return bool(gone) and max(gone) <= at and not any(state.path for state in states)

    async def frame_file(self, record: Record, role: str) -> Path:
        """The stored frame of a camera; NoPicture when there is none, or it was altered.  A new record's is waited for."""
        refused = self.missing(record)
        if refused is not None:
            raise refused
        left = UNWRITTEN_S if abs((utc_now() - record.judged_at).total_seconds()) < NEW_S else 0.0
        while (path := self._stored(record, role)) is None and left > 0:
            await asyncio.sleep(_LOOK_S)
            left -= _LOOK_S
        await run_in_threadpool(self._vouch, record, role, path)
        if path is None:
            raise NoPicture("not_written")
        return path

    def _stored(self, record: Record, role: str) -> Path | None:
        return picture_of(self._folder, evidence_of(record), role)

    def _vouch(self, record: Record, role: str, path: Path | None) -> None:
        """NoPicture where the ledger says that the file was deleted, should be there, or is not what was written."""
        key = None if path is None else _version(path)
        if key is not None and key in self._sound:
            return
        wanted = file_name(role, "no-role")
        for state in self._states(record):
            if state.name == wanted and state.state == "deleted":
                raise NoPicture("deleted", f"{state.rule}, {state.at:%Y-%m-%d %H:%M} UTC")
            if state.name == wanted and state.state in ("altered", "missing", "returned"):
                raise NoPicture("altered" if state.state == "returned" else state.state)
        if key is not None:
            if len(self._sound) >= MOST_SOUND:
                self._sound.clear()
            self._sound[key] = None

    def _states(self, record: Record) -> tuple[PictureState, ...]:
        try:
            return self._ledger.states(record)
        except StoreError as error:  # what the files show is still shown; the audit says that the ledger cannot be read
            event("pictures.ledger", what=error.what)
            return ()

    async def made(self, key: tuple[object, ...], make: Make) -> bytes:
        """What ``make`` gives, made by one of the threads, or kept from before; HTTPException 503 when too many wait."""
        if not self._room.acquire(blocking=False):
            raise HTTPException(503, "too many pictures were asked for at once: load the page again")
        try:
            future = self._pool.submit(self._made.get, key, make)
        except RuntimeError as error:
            self._room.release()
            raise HTTPException(503, "the pages are being closed") from error
        future.add_done_callback(lambda done: self._room.release())
        return await asyncio.wrap_future(future)

    def frame(self, path: Path) -> Image:
        """The pixels of a stored frame."""
        try:
            return self._frames.get(path, lambda: read_image(path))
        except InspectionError as error:
            raise NoPicture("damaged", error.what) from error

    # ---- what the addresses give

    async def show_frame(self, record: Record, role: str, width: int, *, marks: bool) -> bytes:
        """The frame as JPEG, with numbered outlines where ``marks``."""
        path = await self.frame_file(record, role)

        def make() -> bytes:
            frame = self.frame(path)
            small = fitted(frame, width)
            if not marks:
                return jpeg(small)
            boxes = [
                (found.number, found.detection.region.xyxy_px)
                for found in counted(record)
                if self._role(record, found.detection) == role
            ]
            return jpeg(outlined(small, boxes, small.shape[1] / frame.shape[1]))

        return await self.made(("frame", record.record_id, role, width, marks), make)

    async def show_golden(self, record: Record, role: str, width: int) -> bytes:
        """The golden as the camera would have seen it, as JPEG."""
        path = await self.frame_file(record, role)

        def make() -> bytes:
            frame = self.frame(path)
            whole = (0, 0, frame.shape[1], frame.shape[0])
            return jpeg(fitted(self.recipes.golden_around(record, role, frame, whole), width))

        return await self.made(("golden", record.record_id, role, width), make)

    async def show_finding(self, record: Record, index: int, side: str, width: int) -> bytes:
        """The place of a finding on the frame or on the golden, as JPEG."""
        found = detections_of(record)
        if index >= len(found):
            raise HTTPException(404, f"the record has {len(found)} findings")
        detection = found[index]
        role = self._role(record, detection)
        path = await self.frame_file(record, role)

        def make() -> bytes:
            frame = self.frame(path)
            window = window_around(detection.region.xyxy_px, frame.shape)
            if side == "frame":
                return jpeg(cut_out(frame, window, width))
            golden = self.recipes.golden_around(record, role, frame, window)
            return jpeg(cut_out(golden, (0, 0, golden.shape[1], golden.shape[0]), width))

        return await self.made(("finding", record.record_id, index, side, width), make)

    async def show_heat(self, record: Record, role: str, width: int) -> bytes:
        """The heat map over the frame, as JPEG."""
        path = await self.frame_file(record, role)

        def make() -> bytes:
            frame = self.frame(path)
            heat, limit = self.recipes.heat(record, role, frame)
            return jpeg(fitted(lay_heat(frame, heat, outlined=bool(counted(record)), limit=limit), width))

        return await self.made(("heat", record.record_id, role, width), make)

    def _role(self, record: Record, detection: Detection) -> str:
        """The camera of a finding; records of one camera need not name it."""
        return detection.camera or next(iter(self.roles(record)), "")


def routes(context: "Context") -> list[Route]:
    """The addresses of the pictures, for everybody who has logged in."""
    pictures = context.pictures
    return [
        page("/picture/{record_id}/{name}", _answering(pictures, _frame)),
        page("/golden/{record_id}/{name}", _answering(pictures, _golden)),
        page("/heat/{record_id}/{name}", _answering(pictures, _heat)),
        page("/finding/{record_id}/{index:int}/{side}", _answering(pictures, _finding)),
    ]


async def _frame(pictures: Pictures, request: Request, record: Record) -> Response:
    role, kind = _named(request)
    if kind == "png":
        path = await pictures.frame_file(record, role)
        content = await pictures.made(("file", path), _reading(path))
        return Response(content, media_type="image/png" if path.suffix == ".png" else "image/jpeg")
    marks = request.query_params.get("marks") == "1"
    return _jpeg(await pictures.show_frame(record, role, _width(request), marks=marks))


async def _golden(pictures: Pictures, request: Request, record: Record) -> Response:
    return _jpeg(await pictures.show_golden(record, _named(request)[0], _width(request)))


async def _heat(pictures: Pictures, request: Request, record: Record) -> Response:
    return _jpeg(await pictures.show_heat(record, _named(request)[0], _width(request)))


async def _finding(pictures: Pictures, request: Request, record: Record) -> Response:
    side = request.path_params["side"]
    if side not in ("frame", "golden"):
        raise HTTPException(404, "a finding has a frame and a golden")
    return _jpeg(await pictures.show_finding(record, request.path_params["index"], side, _width(request, 320)))


def _answering(
    pictures: Pictures, show: Callable[[Pictures, Request, Record], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        record = await run_in_threadpool(pictures.record, request.path_params["record_id"])
        try:
            response = await show(pictures, request, record)
        except NoPicture as refused:
            return _instead(request, refused)
        response.headers["Cache-Control"] = _KEEP
        return response

    return answer


def _instead(request: Request, refused: NoPicture) -> Response:
    text = sentence(request.state.language, refused.word, refused.detail)
    if wants_json(request):
        return JSONResponse({"what": text, "fix": refused.fix, "word": refused.word}, status_code=404)
    return Response(placeholder(text), status_code=404, media_type="image/svg+xml")


def _named(request: Request) -> tuple[str, str]:
    """Role and kind of ROLE.png and ROLE.jpg; a name without a kind is a role."""
    name: str = request.path_params["name"]
    stem, _, kind = name.rpartition(".")
    return (stem, kind) if stem and kind in ("png", "jpg") else (name, "jpg")


def _width(request: Request, usual: int = 1280) -> int:
    text = request.query_params.get("w", "")
    return width_for(int(text) if text.isdecimal() and len(text) < 6 else usual)


def _reading(path: Path) -> Make:
    return lambda: read_bytes(path)


def _jpeg(content: bytes) -> Response:
    return Response(content, media_type="image/jpeg")


def _version(path: Path) -> tuple[Path, int, int] | None:
    """What changes when a file does; None when it is gone."""
    try:
        about = path.stat()
    except OSError:
        return None
    return path, about.st_mtime_ns, about.st_size


def _one_core() -> None:
    """Leave OpenCV's own threads out of it."""
    cv2.setNumThreads(1)
