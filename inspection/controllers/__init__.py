"""Line controllers: they trigger and are answered.  One file each, found by name in ``CONTROLLERS``.

A new controller is one file here, one line in the table, one line in ``tests/contracts/test_controllers.py``.
"""

from enum import IntEnum
from typing import Protocol

from inspection.types import Record, Trigger

CONTROLLERS = {
    "simulated": "inspection.controllers.simulated:SimulatedController",
    "modbus_tcp": "inspection.controllers.modbus_tcp:ModbusTcpController",
}


class StationState(IntEnum):
    """What the station says of itself; names of OPC 40100-1, 0 is what a dead register reads."""

    PREOPERATIONAL = 0
    HALTED = 1
    ERROR = 2
    INITIALIZED = 3
    READY = 4
    SINGLE_EXECUTION = 5


class Controller(Protocol):
    """The link to the machine that moves the parts.

    All methods are called by one thread (the station's).  ``open`` starts serving and raises ControllerError when it
    cannot (port taken); ``wait`` blocks for at most ``timeout_ms`` and returns the next trigger or None;
    ``set_classes`` names the defect classes of the recipe in force, in the order of its counts;
    ``answer`` publishes the result of a committed record and returns at once; ``set_state`` publishes the state, and
    only in state READY are triggers accepted.  A trigger that was accepted before the state left READY is still returned
    by ``wait`` and has to be answered.

    A lost connection is the controller's own affair: it waits for the peer to come back.  ControllerError means that the
    line cannot be served any more; the station then stops and its service starts it again.

    The same trigger presented again (after a reconnect, or a restart of the station) is returned by ``wait`` again
    with the same ``trigger_id``: the station looks it up and answers from the record.
    """

    def open(self) -> None: ...

    def set_classes(self, classes: tuple[str, ...]) -> None: ...

    def wait(self, timeout_ms: int) -> Trigger | None: ...

    def answer(self, record: Record) -> None: ...

    def set_state(self, state: StationState) -> None: ...

    def close(self) -> None: ...
