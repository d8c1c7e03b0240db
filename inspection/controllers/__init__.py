"""Line controllers: they trigger and are answered.  One file each, found by name in ``CONTROLLERS``.

A new controller is one file here, one line in the table, one line in ``tests/contracts/test_controllers.py``.
"""

from enum import IntEnum
from typing import Protocol

from inspection.types import PrepareRecipe, Reason, Record, Trigger

CONTROLLERS = {
    "simulated": "inspection.controllers.simulated:SimulatedController",
    "modbus_tcp": "inspection.controllers.modbus_tcp:ModbusTcpController",
    "opcua": "inspection.controllers.opcua.controller:OpcUaController",
    "modbus_client": "inspection.controllers.modbus_client:ModbusClientController",
    "tcp_text": "inspection.controllers.tcp_text:TcpTextController",
}


class StationState(IntEnum):
    """What the station says of itself; names of OPC 40100-1, 0 is what a dead register reads."""

    PREOPERATIONAL = 0
    HALTED = 1
    ERROR = 2
    INITIALIZED = 3
    READY = 4
    SINGLE_EXECUTION = 5
    CONTINUOUS_EXECUTION = 6


class Controller(Protocol):
    """The link to the machine that moves the parts.

    All methods are called by one thread (the station's); none but ``open`` and ``wait`` blocks.

    * ``open`` starts serving and raises ControllerError when it cannot (port taken).
    * ``set_recipe`` names the recipe in force and its defect classes, in the order of the counts; ``set_recipes`` names
      all that may be asked for.  Both are called before ``open`` and again, between two parts, when they change.
    * ``wait`` blocks for at most ``timeout_ms`` and returns the next trigger, a wish to have a recipe prepared, or None.
    * ``acquired`` tells that every camera has its frame of the trigger in progress: the part may move.
    * ``answer`` publishes the result of a committed record and returns at once.
    * ``prepared`` answers a ``PrepareRecipe``: the recipe is at hand (``refusal`` None), or why it is not.
    * ``set_state`` publishes the state, and only in state READY are triggers accepted.  A trigger that was accepted
      before the state left READY is still returned by ``wait`` and has to be answered.

    One handshake for all protocols: the line names a part by a number of its own (run and sequence); a request is refused
    with a reason, or accepted and then answered exactly once, and an answer always carries the number of its part.
    While a part is in progress the station is busy and refuses others.  A result stands until it is acknowledged or the
    next part is accepted.  Each side can see that the other is alive.

    A lost connection is the controller's own affair: it waits for the peer to come back.  ControllerError means that the
    line cannot be served any more; the station then stops and its service starts it again.

    The same trigger presented again (after a reconnect, or a restart of the station) is returned by ``wait`` again
    with the same ``trigger_id``: the station looks it up and answers from the record.
    """

    def open(self) -> None: ...

    def set_recipe(self, recipe_id: str, classes: tuple[str, ...]) -> None: ...

    def set_recipes(self, recipe_ids: tuple[str, ...]) -> None: ...

    def wait(self, timeout_ms: int) -> Trigger | PrepareRecipe | None: ...

    def acquired(self, trigger: Trigger) -> None: ...

    def answer(self, record: Record) -> None: ...

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None: ...

    def set_state(self, state: StationState) -> None: ...

    def close(self) -> None: ...
