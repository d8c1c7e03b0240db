"""What a station and the process of a camera say to each other: short JSON messages, and frames in shared memory.

Messages go over a pair of connected sockets that keep their borders, so one arrives whole or not at all, also from a
process that is killed while it writes.  Pixels lie in a block of memory without a name (memfd) whose descriptor goes
along with the message: nothing is left behind in any folder, whoever dies and however.
"""

import fcntl
import json
import mmap
import os
import select
import socket
from datetime import datetime
from typing import Any

import numpy as np

from inspection.errors import (
    CameraError,
    CameraTimeout,
    ConfigError,
    DriverMissing,
    FrameCorrupt,
    InspectionError,
    UsageError,
)
from inspection.types import Frame, Trigger

Message = dict[str, Any]
LARGEST_MESSAGE = 1 << 16  # bytes
LARGEST_BLOCK = 1 << 31  # bytes, the arrays of one frame together
_LONGEST_TEXT = 4000  # characters of an error
_STEP = 1 << 20  # a block grows by so many bytes
_ARRAYS = ("image", "raw", "golden")
_PIXELS = ("uint8", "uint16")
_ERRORS: dict[str, type[InspectionError]] = {
    kind.__name__: kind for kind in (CameraError, CameraTimeout, FrameCorrupt, ConfigError, DriverMissing, UsageError)
}


class Wire:
    """One end of the connection.  Whether ``send`` waits for room is up to the socket (``setblocking``)."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link

    def send(self, message: Message, block: int | None = None) -> None:
        """One message, with the descriptor of a new block; OSError when the other side is gone or does not read."""
        content = json.dumps(message).encode()
        if block is None:
            self.link.send(content)
        else:
            socket.send_fds(self.link, [content], [block])

    def receive(self, timeout_s: float) -> tuple[Message, int | None] | None:
        """The next message and the descriptor that came with it; None when none came in time, EOFError at the end."""
        poll = select.poll()  # unlike select, it takes descriptors above 1023
        poll.register(self.link, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return None
        try:
            content, blocks, flags, _ = socket.recv_fds(self.link, LARGEST_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # It ended before it had read all it was sent.  That is told once, and before what it has still said.
            return self.receive(timeout_s)
        block = blocks[0] if blocks else None
        if content and not flags & socket.MSG_TRUNC:
            try:
                return json.loads(content), block
            except ValueError:
                pass  # not JSON: told below, as any other end
        if block is not None:
            os.close(block)
        raise EOFError("the other side ended or sent what cannot be read")


class FrameBlock:
    """Shared memory that holds the arrays of one frame; it is made anew where a frame needs more."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def write(self, frame: Frame) -> tuple[Message, int | None]:
        """Copy the arrays in; how to read them, and the descriptor of the block where it is a new one."""
        arrays = {name: array for name in _ARRAYS if (array := getattr(frame, name)) is not None}
        memory, block = self._with_room(sum(array.nbytes for array in arrays.values()))
        layout, start = {}, 0
        for name, array in arrays.items():
            target = np.frombuffer(memory, array.dtype, array.size, start).reshape(array.shape)
            target[...] = array
            layout[name] = [list(array.shape), array.dtype.name, start]
            start += array.nbytes + -array.nbytes % 16
        return {
            "arrays": layout,
            "captured_at": frame.captured_at.isoformat(),
            "frame_id": frame.frame_id,
            "simulated": frame.simulated,
        }, block

    def attach(self, block: int) -> None:
        """Use the block of this descriptor from now on, and close the descriptor; ValueError when it is unusable."""
        try:
            size = os.fstat(block).st_size
            sealed = fcntl.fcntl(block, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            if not (sealed and 0 < size <= LARGEST_BLOCK):
                raise ValueError(f"a block of {size} bytes")
            self.close()
            self._memory = mmap.mmap(block, size, prot=mmap.PROT_READ)
        finally:
            os.close(block)

    def read(self, header: Message, camera_id: str) -> Frame:
        """The frame with arrays of its own; ValueError, KeyError or TypeError when the header does not fit the block."""
        arrays = {name: self._array(*header["arrays"][name]) for name in _ARRAYS if name in header["arrays"]}
        return Frame(
            arrays["image"], camera_id, datetime.fromisoformat(header["captured_at"]), str(header["frame_id"]),
            simulated=bool(header["simulated"]), golden=arrays.get("golden"), raw=arrays.get("raw"),
        )  # fmt: skip

    def close(self) -> None:
        """Give the memory back; it is gone when both sides have."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _with_room(self, content: int) -> tuple[mmap.mmap, int | None]:
        needed = content + 16 * len(_ARRAYS)
        if self._memory is not None and len(self._memory) >= needed:
            return self._memory, None
        size = -(-needed // _STEP) * _STEP
        if size > LARGEST_BLOCK:
            raise CameraError(
                f"a frame of {content} bytes is too large to be handed over", fix="set a smaller picture in the camera"
            )
        block = os.memfd_create("lineside-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(block, size)
        # Without the seal a process that goes mad could shrink the block and so kill the station that reads it.
        fcntl.fcntl(block, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.close()
        self._memory = mmap.mmap(block, size)
        return self._memory, block

    def _array(self, shape: list[int], pixel: str, start: int) -> Any:
        if self._memory is None or pixel not in _PIXELS or start < 0 or min(shape) < 1:
            raise ValueError(f"an array {shape} of {pixel} at {start}")
        size = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._memory, np.dtype(pixel), size, start).reshape(shape).copy()


def error_message(error: InspectionError) -> Message:
    """An error as it crosses the wire."""
    return {"error": type(error).__name__, "what": error.what[:_LONGEST_TEXT], "fix": error.fix[:_LONGEST_TEXT]}


def read_error(message: Message) -> InspectionError:
    """The error as its own class again; CameraError where it is none that a driver should raise."""
    return _ERRORS.get(str(message["error"]), CameraError)(str(message["what"]), fix=str(message["fix"]))


def trigger_message(trigger: Trigger) -> Message:
    """A trigger as it crosses the wire."""
    return {**{name: getattr(trigger, name) for name in Trigger.__slots__}, "at": trigger.at.isoformat()}


def read_trigger(message: Message) -> Trigger:
    """The trigger again."""
    return Trigger(**{**message, "at": datetime.fromisoformat(message["at"])})
