"""The contract of a line controller, held by every implementation; then the Modbus handshake, fault by fault."""

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from itertools import cycle
from typing import Any

import pytest
from asyncua import ua
from asyncua.sync import Client as OpcUaClient
from pydantic import ValidationError
from pymodbus.client import ModbusTcpClient

from inspection.controllers import CONTROLLERS, Controller, StationState
from inspection.controllers import register_map as at
from inspection.controllers.modbus_client import ModbusClientConfig, ModbusClientController
from inspection.controllers.modbus_tcp import ModbusTcpConfig, ModbusTcpController
from inspection.controllers.opcua.config import OpcUaConfig
from inspection.controllers.opcua.controller import OpcUaController
from inspection.controllers.register_map import PrepareStatus, Reject, Request, Result
from inspection.controllers.simulated import SimulatedController, SimulatedControllerConfig
from inspection.controllers.tcp_text import TcpTextConfig, TcpTextController
from inspection.errors import ControllerError
from inspection.types import (
    Detection,
    Judgement,
    PrepareRecipe,
    Reason,
    Record,
    Region,
    Trigger,
    Verdict,
    error_judgement,
    utc_now,
)

CLASSES = ("open", "short")
LIMIT_MS = 60_000
PART = Request(0xC0FFEE, 7, "SN-7", "LOT9", "board-a")
NEXT = Request(0xC0FFEE, 8, "SN-8", "LOT9", "board-a")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], limit_s: float = 60.0) -> Any:
    """The first true value of ``condition``, asked again and again for a bounded time."""
    deadline_s = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, "did not come about in time"
        time.sleep(0.002)
    return value


def record(trigger: Trigger, judgement: Judgement | None = None) -> Record:
    judgement = judgement or Judgement(Verdict.OK)
    return Record(trigger, judgement, (), ("f1",), "recipe", "model", "st1", (), True, utc_now())


def ng(count: int) -> Judgement:
    found = tuple(Detection("short", 0.9, Region((float(x), 0.0, x + 1.0, 1.0))) for x in range(count))
    return Judgement(Verdict.NG, (Reason("ng.short", "shorts", found),))


class Plc:
    """The PLC's side: a real client that writes requests and reads the station block."""

    def __init__(self, port: int) -> None:
        self._client = ModbusTcpClient("127.0.0.1", port=port, timeout=30, retries=0)
        assert self._client.connect()

    def write(self, address: int, words: list[int]) -> Any:
        return self._client.write_registers(address, words)

    def flag(self, register: slice, value: int) -> None:
        assert not self.write(register.start, [value]).isError()

    def block(self, request: Request) -> list[int]:
        words = at.encode_request(request)
        words[at.TRIGGER] = [1]
        return words

    def present(self, request: Request) -> None:
        """The documented way: trigger low, the block, trigger high."""
        self.flag(at.TRIGGER, 0)
        assert not self.write(0, at.encode_request(request)).isError()
        self.flag(at.TRIGGER, 1)

    def acknowledge(self) -> None:
        assert not self.write(at.ACKNOWLEDGE.start, [1, 0]).isError()
        self.flag(at.ACKNOWLEDGE, 0)

    def image(self) -> list[int]:
        """The station block in one telegram, at the addresses of the register map."""
        reply = self._client.read_holding_registers(100, count=33)
        return [0] * 100 + list(reply.registers)

    def read(self, register: slice) -> int:
        words = self.image()[register]
        return words[0] if len(words) == 1 else at.decode_u32(words)

    def result(self) -> Result | None:
        image = self.image()
        return at.decode_result(image[at.RESULT]) if image[at.VALID] == [1] else None

    def more(self, register: slice) -> list[int]:
        """Registers behind 132."""
        return list(self._client.read_holding_registers(register.start, count=register.stop - register.start).registers)

    def rejected(self) -> tuple[int, int, int]:
        image = self.image()
        return image[at.REJECTS][0], image[at.REJECT_CODE][0], at.decode_u32(image[at.REJECT_SEQUENCE])

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def station(port: int) -> Iterator[ModbusTcpController]:
    controller = ModbusTcpController(ModbusTcpConfig(port=port, heartbeat_ms=10, plc_timeout_ms=200), classes=CLASSES)
    controller.open()
    controller.set_state(StationState.READY)
    yield controller
    controller.close()


@pytest.fixture
def plc(station: ModbusTcpController) -> Iterator[Plc]:
    client = Plc(station.config.port)
    yield client
    client.close()


def taken(station: Controller) -> Trigger:
    trigger = station.wait(LIMIT_MS)
    assert isinstance(trigger, Trigger)
    return trigger


# The contract, every implementation


class SimulatedLine:
    """The simulated controller needs nobody to present parts."""

    def __init__(self) -> None:
        config = SimulatedControllerConfig(serials=("SN-7", "SN-8"), recipe_id="board-a", faults=("double",))
        self.controller: Controller = SimulatedController(config)
        self.controller.open()

    def present(self) -> None:
        """The line presents by itself, each part twice."""

    def close(self) -> None:
        self.controller.close()


class ModbusLine:
    """The Modbus server with a real client, which presents the same part again and again."""

    def __init__(self) -> None:
        self.controller: Controller = ModbusTcpController(ModbusTcpConfig(port=free_port()), classes=CLASSES)
        self.controller.open()
        self._plc = Plc(self.controller.config.port)  # type: ignore[attr-defined]

    def present(self) -> None:
        self._plc.present(PART)

    def close(self) -> None:
        self._plc.close()
        self.controller.close()


class TextLine:
    """The text server with a plain socket, which presents the same part again and again."""

    def __init__(self) -> None:
        config = TcpTextConfig(port=free_port())
        self.controller: Controller = TcpTextController(config)
        self.controller.open()
        self._plc = socket.create_connection(("127.0.0.1", config.port), timeout=30)

    def present(self) -> None:
        """Until the station has heard it, as its answer shows."""
        self._plc.sendall(f"TRIGGER {PART.run} {PART.sequence} SN-7 LOT9 board-a\r\n".encode())
        heard = b""
        while not (b"ACCEPTED" in heard or b"REFUSED" in heard):
            heard += self._plc.recv(4096)

    def close(self) -> None:
        self._plc.close()
        self.controller.close()


class OpcUaLine:
    """The OPC UA server with a client of the same library, which presents the same part again and again."""

    def __init__(self) -> None:
        config = OpcUaConfig(port=free_port())
        self.controller: Controller = OpcUaController(config)
        self.controller.open()
        self._client = OpcUaClient(config.endpoint, timeout=30)
        self._client.connect()
        self._client.load_data_type_definitions()
        path = "3:Lineside/2:VisionStateMachine/2:AutomaticModeStateMachine"
        self._automatic = self._client.nodes.objects.get_child(path.split("/"))

    def present(self) -> None:
        types: Any = ua
        ids = types.MeasIdDataType(Id="line-7"), types.PartIdDataType(Id="SN-7")
        self._automatic.call_method("2:StartSingleJob", *ids, types.RecipeIdExternalDataType(Id="board-a"), None, None)

    def close(self) -> None:
        with suppress(ConnectionError, TimeoutError):  # the server may be gone by now
            self._client.disconnect()
        self.controller.close()


PLC_MEMORY = """
import asyncio, sys
from pymodbus.server import StartAsyncTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
memory = SimDevice(id=0, simdata=[SimData(0, count=200, datatype=DataType.REGISTERS)])
asyncio.run(StartAsyncTcpServer(memory, address=("127.0.0.1", int(sys.argv[1]))))
"""


class PolledLine:
    """A PLC that only serves (pymodbus, a process of its own): its program writes into its own memory."""

    def __init__(self) -> None:
        port = free_port()
        self._memory = subprocess.Popen([sys.executable, "-c", PLC_MEMORY, str(port)])
        config = ModbusClientConfig(host="127.0.0.1", port=port, poll_ms=1)
        self.controller: Controller = ModbusClientController(config, classes=CLASSES)
        self.controller.open()  # the PLC need not be there yet
        try:
            until(lambda: serves(port), limit_s=120.0)
            self.plc = Plc(port)
            until(lambda: self.plc.read(at.VERSION) == at.PROTOCOL_VERSION, limit_s=120.0)
        except BaseException:
            self._memory.kill()
            self._memory.wait()
            raise

    def present(self) -> None:
        self._trigger(0)
        assert not self.plc.write(0, at.encode_request(PART)).isError()
        self._trigger(1)

    def _trigger(self, value: int) -> None:
        self.plc.flag(at.TRIGGER, value)
        until(lambda: self.plc.more(at.TRIGGER_SEEN) == [value])

    def close(self) -> None:
        self.plc.close()
        self.controller.close()
        self._memory.kill()
        self._memory.wait()


def serves(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


LINES = {
    "simulated": SimulatedLine,
    "modbus_tcp": ModbusLine,
    "modbus_client": PolledLine,
    "tcp_text": TextLine,
    "opcua": OpcUaLine,
}


@pytest.fixture(params=sorted(CONTROLLERS))
def line(request: pytest.FixtureRequest) -> Iterator[SimulatedLine | ModbusLine]:
    made = LINES[request.param]()
    yield made
    made.close()


@pytest.mark.parametrize("name", sorted(CONTROLLERS))
def test_the_name_table_leads_to_a_class(name: str) -> None:
    """Every name in the table is a class in that module."""
    module, _, attribute = CONTROLLERS[name].partition(":")
    assert attribute == getattr(import_module(module), attribute).__name__


def test_no_trigger_comes_before_the_station_is_ready(line: SimulatedLine | ModbusLine) -> None:
    """Only in state READY does wait return a trigger; otherwise it returns None when its time is up."""
    line.controller.set_state(StationState.INITIALIZED)
    line.present()
    started_s = time.monotonic()
    assert line.controller.wait(30) is None
    assert 0.03 <= time.monotonic() - started_s < 20.0


def test_a_trigger_carries_what_the_line_said(line: SimulatedLine | ModbusLine) -> None:
    """Serial, recipe and sequence reach the station, and the identity ends in the sequence."""
    line.controller.set_state(StationState.READY)
    line.present()
    trigger = taken(line.controller)
    assert (trigger.serial, trigger.recipe_id) == ("SN-7", "board-a")
    assert trigger.trigger_id.endswith(f"-{trigger.sequence:010d}")


def test_a_part_in_progress_is_not_handed_out_twice(line: SimulatedLine | ModbusLine) -> None:
    """Between wait and answer there is no further trigger, whatever the line does."""
    line.controller.set_state(StationState.READY)
    line.present()
    taken(line.controller)
    line.present()
    assert line.controller.wait(20) is None


def test_a_part_presented_again_keeps_its_identity(line: SimulatedLine | ModbusLine) -> None:
    """The same part presented after its answer comes with the same trigger_id, to be answered from the record."""
    line.controller.set_state(StationState.READY)
    line.present()
    first = taken(line.controller)
    line.controller.answer(record(first))
    line.present()
    assert first.trigger_id == taken(line.controller).trigger_id


def test_an_answer_for_another_part_is_an_error(line: SimulatedLine | ModbusLine) -> None:
    """A record can only answer its own trigger."""
    line.controller.set_state(StationState.READY)
    line.present()
    trigger = taken(line.controller)
    other = Trigger("ffffffff-0000000099", "x", "", "", utc_now(), sequence=99)
    with pytest.raises(ControllerError, match=rf"ffffffff-0000000099 .* {trigger.trigger_id}"):
        line.controller.answer(record(other))


def test_a_record_kept_under_a_name_of_its_own_answers_its_trigger(line: SimulatedLine | ModbusLine) -> None:
    """A reused trigger number, recorded as "<trigger id>#...", is still answered."""
    line.controller.set_state(StationState.READY)
    line.present()
    trigger = taken(line.controller)
    renamed = replace(trigger, trigger_id=f"{trigger.trigger_id}#abc")
    line.controller.answer(record(renamed, error_judgement("trigger.reused", "count up")))
    line.present()
    assert line.controller.wait(LIMIT_MS) is not None


def test_a_part_is_answered_once(line: SimulatedLine | ModbusLine) -> None:
    """A second answer for the same presentation is an error."""
    line.controller.set_state(StationState.READY)
    line.present()
    trigger = taken(line.controller)
    line.controller.answer(record(trigger))
    with pytest.raises(ControllerError, match="no part is in progress"):
        line.controller.answer(record(trigger))


def test_closing_twice_is_harmless(line: SimulatedLine | ModbusLine) -> None:
    """close may be called in every clean-up path."""
    line.controller.close()
    line.controller.close()


# The simulated line


def drive(controller: SimulatedController) -> list[str]:
    """Answer everything; the serials in order."""
    controller.open()
    controller.set_state(StationState.READY)
    serials = []
    while (trigger := controller.wait(LIMIT_MS)) is not None:
        serials.append(trigger.serial)
        controller.answer(record(trigger))
    return serials


def test_the_simulated_line_presents_each_part_once_and_finishes() -> None:
    """So many parts give so many answers, then wait gives None and finished is true."""
    controller = SimulatedController(SimulatedControllerConfig(parts=3, recipe_id="r"))
    assert not controller.finished
    assert drive(controller) == ["SIM-000001", "SIM-000002", "SIM-000003"]
    assert controller.finished
    assert [answer.trigger.sequence for answer in controller.answers] == [1, 2, 3]


def test_the_simulated_double_presents_each_part_twice() -> None:
    """The fault "double" repeats each part with its trigger_id."""
    controller = SimulatedController(SimulatedControllerConfig(serials=("A", "B"), recipe_id="r", faults=("double",)))
    assert drive(controller) == ["A", "A", "B", "B"]
    assert len({answer.trigger.trigger_id for answer in controller.answers}) == 2


def test_the_simulated_line_keeps_its_pace() -> None:
    """A part is not due before its interval is over, and wait gives None until then."""
    controller = SimulatedController(SimulatedControllerConfig(parts=2, interval_ms=10_000, recipe_id="r"))
    controller.open()
    controller.set_state(StationState.READY)
    controller.answer(record(taken(controller)))
    assert controller.wait(20) is None
    assert not controller.finished


def test_each_opening_of_the_simulated_line_is_a_new_run() -> None:
    """A second demo on the same store is inspected, not answered from the first one's records."""
    config = SimulatedControllerConfig(parts=1, recipe_id="r")
    first, second = SimulatedController(config), SimulatedController(config)
    drive(first)
    drive(second)
    assert first.answers[0].trigger.trigger_id != second.answers[0].trigger.trigger_id


def test_the_run_number_of_the_simulated_line_can_be_given() -> None:
    """A given run number makes the trigger ids repeatable."""
    controller = SimulatedController(SimulatedControllerConfig(parts=1, recipe_id="r", run_number=0xAB))
    drive(controller)
    assert controller.answers[0].trigger.trigger_id == "000000ab-0000000001"


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (SimulatedControllerConfig, {"recipe_id": "r", "parts": 3, "serials": ("A",)}),
        (SimulatedControllerConfig, {"recipe_id": "r", "speed": 3}),
        (SimulatedControllerConfig, {"recipe_id": "r", "serials": ("",)}),
        (ModbusTcpConfig, {"port": 0}),
        (ModbusTcpConfig, {"heartbeat_ms": 0}),
        (ModbusTcpConfig, {"prot": 1502}),
        (ModbusTcpConfig, {"max_connections": 0}),
        (ModbusClientConfig, {}),
        (ModbusClientConfig, {"host": "plc", "station_block_at": 55}),
        (ModbusClientConfig, {"host": "plc", "plc_block_at": 120}),
    ],
)
def test_a_wrong_config_is_refused(config: Any, wrong: dict[str, Any]) -> None:
    """Unknown keys, contradictions and values out of range do not pass."""
    with pytest.raises(ValidationError):
        config(**wrong)


# The Modbus server: opening and closing


def test_a_taken_port_is_named(port: int) -> None:
    """A port in use is a ControllerError with the port, the cause and what to do."""
    with socket.create_server(("127.0.0.1", port)):
        controller = ModbusTcpController(ModbusTcpConfig(port=port), classes=CLASSES)
        with pytest.raises(ControllerError, match=rf"port {port}: Address already in use") as caught:
            controller.open()
    assert "another port" in caught.value.fix


def test_the_port_is_free_again_after_close(station: ModbusTcpController, plc: Plc) -> None:
    """A station can be restarted at once, even with a PLC connected."""
    station.close()
    again = ModbusTcpController(station.config, classes=CLASSES)
    again.open()
    again.close()


def test_waiting_on_a_closed_server_is_an_error(station: ModbusTcpController) -> None:
    """A station never waits for triggers that cannot come."""
    station.close()
    with pytest.raises(ControllerError, match="not running"):
        station.wait(LIMIT_MS)


def test_the_server_needs_no_package() -> None:
    """A station that serves Modbus TCP installs nothing but the base dependencies."""
    program = (
        "import sys; sys.modules['pymodbus'] = None\n"
        "from inspection.controllers.modbus_tcp import ModbusTcpConfig, ModbusTcpController\n"
        "controller = ModbusTcpController(ModbusTcpConfig(port=int(sys.argv[1])), classes=())\n"
        "controller.open(); controller.close(); print('served')\n"
    )
    command = [sys.executable, "-c", program, str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "served"


# The Modbus server: the handshake


def test_one_part_from_trigger_to_acknowledge(station: ModbusTcpController, plc: Plc) -> None:
    """The documented cycle: ready, busy, valid with the part's own numbers, acknowledged, cleared."""
    assert (plc.read(at.TRIGGER_READY), plc.read(at.BUSY)) == (1, 0)
    plc.present(PART)
    trigger = taken(station)
    assert (
        trigger.trigger_id,
        trigger.serial,
        trigger.lot,
        trigger.recipe_id,
        trigger.sequence,
    ) == ("00c0ffee-0000000007", "SN-7", "LOT9", "board-a", 7)
    assert (plc.read(at.TRIGGER_READY), plc.read(at.BUSY), plc.result()) == (0, 1, None)
    station.answer(record(trigger, ng(3)))
    result = plc.result()
    assert result is not None
    assert (PART.run, 7, Verdict.NG, 1, 3, (0, 3, 0, 0, 0, 0, 0, 0)) == (
        result.run,
        result.sequence,
        result.verdict,
        result.reason_code,
        result.findings,
        result.class_counts,
    )
    plc.acknowledge()
    assert plc.image()[at.RESULT.start : at.VALID.stop] == [0] * 19
    assert (plc.read(at.TRIGGER_READY), plc.read(at.BUSY)) == (1, 0)


def test_the_state_is_shown(station: ModbusTcpController, plc: Plc) -> None:
    """The PLC sees every state, and trigger_ready only in READY."""
    shown = []
    for state in StationState:
        station.set_state(state)
        shown.append((plc.read(at.STATE), plc.read(at.TRIGGER_READY)))
    assert shown == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 0), (6, 0)]


def test_the_heartbeat_counts_while_a_part_is_inspected(station: ModbusTcpController, plc: Plc) -> None:
    """The heartbeat does not depend on the station's thread."""
    plc.present(PART)
    taken(station)
    seen = plc.read(at.HEARTBEAT)
    until(lambda: plc.read(at.HEARTBEAT) not in (seen, seen + 1))
    assert plc.read(at.BUSY) == 1


def test_a_double_trigger_while_busy_is_answered_once(station: ModbusTcpController, plc: Plc) -> None:
    """The same request again while busy changes nothing but the repeat counter."""
    plc.present(PART)
    trigger = taken(station)
    plc.present(PART)
    assert station.wait(20) is None
    station.answer(record(trigger))
    assert station.wait(20) is None
    assert (plc.read(at.REPEATS), plc.read(at.REJECTS)) == (1, 0)


def test_a_result_that_stands_stays_when_its_part_is_presented_before_ready(
    station: ModbusTcpController, plc: Plc
) -> None:
    """A PLC that comes back right after the answer finds the result instead of a rejection."""
    plc.present(PART)
    trigger = taken(station)
    station.set_state(StationState.SINGLE_EXECUTION)
    station.answer(record(trigger))
    plc.present(PART)
    result = plc.result()
    assert result is not None
    assert (result.sequence, plc.read(at.REPEATS), plc.read(at.REJECTS)) == (7, 1, 0)


def test_a_cyclic_writer_triggers_once(station: ModbusTcpController, plc: Plc) -> None:
    """A PLC that writes its whole block in every cycle gets one inspection and one standing answer."""
    for _ in range(5):
        plc.write(0, plc.block(PART))
    station.answer(record(taken(station)))
    for _ in range(5):
        plc.write(0, plc.block(PART))
    assert station.wait(20) is None
    assert plc.result() is not None
    assert plc.read(at.REPEATS) == 0


def test_a_new_request_in_one_telegram_needs_no_falling_trigger(station: ModbusTcpController, plc: Plc) -> None:
    """After a PLC restart with trigger still 1, one telegram with a new identity is a new request."""
    plc.write(0, plc.block(PART))
    station.answer(record(taken(station)))
    plc.write(0, plc.block(NEXT))
    assert taken(station).sequence == 8


def test_a_request_without_its_trigger_is_not_taken(station: ModbusTcpController, plc: Plc) -> None:
    """A block that is still being written word by word is never inspected, even with the old trigger at 1."""
    plc.present(PART)
    station.answer(record(taken(station)))
    for address, word in enumerate(at.encode_request(NEXT)[: at.PLC_HEARTBEAT.start]):
        plc.write(address, [word])
    assert station.wait(20) is None


def test_another_part_while_busy_is_refused(station: ModbusTcpController, plc: Plc) -> None:
    """A new sequence while busy is counted, coded and attributed; the part in progress keeps its own answer."""
    plc.present(PART)
    trigger = taken(station)
    plc.present(NEXT)
    assert plc.rejected() == (1, Reject.BUSY, 8)
    assert plc.read(at.REJECT_RUN) == NEXT.run
    station.answer(record(trigger))
    result = plc.result()
    assert result is not None
    assert result.sequence == 7
    assert station.wait(20) is None


def test_a_refused_part_is_taken_when_presented_again(station: ModbusTcpController, plc: Plc) -> None:
    """Refusal is not held against a part: presented when ready, it is inspected, and it is no repeat."""
    plc.present(PART)
    trigger = taken(station)
    plc.present(NEXT)
    station.answer(record(trigger))
    plc.present(NEXT)
    assert taken(station).sequence == 8
    assert plc.read(at.REPEATS) == 0


def test_a_trigger_while_not_ready_is_refused(station: ModbusTcpController, plc: Plc) -> None:
    """Outside READY a request is refused with a code of its own, and not kept for later."""
    station.set_state(StationState.HALTED)
    plc.present(PART)
    assert plc.rejected() == (1, Reject.NOT_READY, 7)
    station.set_state(StationState.READY)
    assert station.wait(20) is None


def test_a_part_accepted_before_the_halt_is_still_handed_out(station: ModbusTcpController, plc: Plc) -> None:
    """An accepted trigger gets its answer even when the station leaves READY before it is taken."""
    plc.present(PART)
    station.set_state(StationState.HALTED)
    station.answer(record(taken(station), error_judgement("station.restarted", "halted")))
    result = plc.result()
    assert result is not None
    assert (result.verdict, result.reason_code) == (Verdict.ERROR, 42)


def test_sequence_zero_is_refused(station: ModbusTcpController, plc: Plc) -> None:
    """A request that nobody numbered is not inspected."""
    plc.present(Request(1, 0, "S", "L", "r"))
    assert plc.rejected() == (1, Reject.BAD_SEQUENCE, 0)
    assert station.wait(20) is None


def test_a_serial_that_is_not_ascii_is_refused(station: ModbusTcpController, plc: Plc) -> None:
    """A malformed serial never becomes a record under a guessed name."""
    words = plc.block(PART)
    words[at.SERIAL.start] = 0xC3A9
    plc.write(0, words)
    assert plc.rejected() == (1, Reject.BAD_TEXT, 7)
    assert station.wait(20) is None


def test_a_lost_acknowledge_does_not_stop_the_line(station: ModbusTcpController, plc: Plc) -> None:
    """A new part while the old result stands is accepted, clears it, and is counted."""
    plc.present(PART)
    station.answer(record(taken(station)))
    plc.present(NEXT)
    assert (plc.result(), plc.read(at.LOST_ACKS)) == (None, 1)
    assert taken(station).sequence == 8


def test_a_held_acknowledge_does_not_swallow_the_next_result(station: ModbusTcpController, plc: Plc) -> None:
    """Only the change from 0 to 1 acknowledges."""
    plc.present(PART)
    station.answer(record(taken(station)))
    plc.write(at.ACKNOWLEDGE.start, [1, 0])
    plc.flag(at.TRIGGER, 0)
    assert not plc.write(0, at.encode_request(NEXT)[: at.ACKNOWLEDGE.start]).isError()
    plc.flag(at.TRIGGER, 1)
    station.answer(record(taken(station)))
    plc.flag(at.PLC_HEARTBEAT, 1)
    assert plc.result() is not None


def test_a_result_waits_for_a_plc_that_comes_back(station: ModbusTcpController, plc: Plc) -> None:
    """A connection lost in mid-cycle costs nothing: the result stands until it is acknowledged."""
    plc.present(PART)
    trigger = taken(station)
    plc.close()
    station.answer(record(trigger))
    back = Plc(station.config.port)
    result = back.result()
    back.acknowledge()
    assert back.result() is None
    back.close()
    assert result is not None
    assert (PART.run, PART.sequence) == (result.run, result.sequence)


def test_a_restarted_plc_is_a_new_run(station: ModbusTcpController, plc: Plc) -> None:
    """The same sequence in a new run is another part, not a repeat."""
    plc.present(PART)
    station.answer(record(taken(station)))
    plc.present(Request(1, PART.sequence, "SN-1", "LOT9", "board-a"))
    assert taken(station).trigger_id == "00000001-0000000007"
    assert plc.read(at.REPEATS) == 0


def test_a_silent_plc_raises_the_alarm_until_it_moves(station: ModbusTcpController, plc: Plc) -> None:
    """A heartbeat of the PLC that stands still is shown in the alarm register, and only as long as it does."""
    until(lambda: plc.read(at.ALARMS) == at.ALARM_PLC_SILENT)
    beats = cycle((1, 0))

    def is_heard() -> bool:
        plc.flag(at.PLC_HEARTBEAT, next(beats))
        return plc.read(at.ALARMS) == 0

    until(is_heard)


def test_a_plc_without_heartbeat_is_no_alarm_when_not_watched(port: int) -> None:
    """With plc_timeout_ms 0 nobody is missed."""
    controller = ModbusTcpController(ModbusTcpConfig(port=port, heartbeat_ms=10), classes=CLASSES)
    controller.open()
    plc = Plc(port)
    until(lambda: plc.read(at.HEARTBEAT) > 10)
    alarms = plc.read(at.ALARMS)
    plc.close()
    controller.close()
    assert alarms == 0


@pytest.mark.parametrize("address", [at.STATION_BLOCK.start, at.VALID.start, at.PREPARE_BLOCK.stop])
def test_the_plc_cannot_write_what_is_not_its_own(station: ModbusTcpController, plc: Plc, address: int) -> None:
    """A write outside the PLC's registers is refused with exception 2 and changes nothing."""
    before = plc.image()[at.STATE.start :]
    reply = plc.write(address, [1])
    assert (reply.isError(), reply.exception_code) == (True, 2)
    assert before == plc.image()[at.STATE.start :]


def test_a_flag_other_than_0_or_1_is_refused_whole(station: ModbusTcpController, plc: Plc) -> None:
    """A telegram with a nonsense flag is refused with exception 3 and not taken over in part."""
    reply = plc.write(at.PLC_HEARTBEAT.start, [77, 0, 2])
    assert (reply.isError(), reply.exception_code) == (True, 3)
    plc.present(PART)
    assert taken(station).sequence == 7


def test_a_number_of_the_part_in_progress_is_refused_to_another_part(station: ModbusTcpController, plc: Plc) -> None:
    """The result of one part is never shown as that of another serial: refused as REUSED, with and without an edge."""
    other = replace(PART, serial="SN-X")
    plc.present(PART)
    trigger = taken(station)
    plc.present(other)
    assert plc.rejected() == (1, Reject.REUSED, 7)
    plc.present(PART)  # the part itself again: a repeat
    assert plc.rejected()[0] == 1
    for _ in range(3):
        plc.write(0, plc.block(other))  # as a PLC does that writes its block in every cycle
    assert plc.rejected() == (2, Reject.REUSED, 7)
    station.set_state(StationState.SINGLE_EXECUTION)
    station.answer(record(trigger))
    plc.present(other)
    assert plc.rejected() == (3, Reject.REUSED, 7)
    assert station.wait(20) is None


def test_the_part_may_move_when_its_pictures_are_taken(station: ModbusTcpController, plc: Plc) -> None:
    """acquired rises before the result, stays, and falls with the next part; another part's does not raise it."""
    plc.present(PART)
    trigger = taken(station)
    station.acquired(replace(trigger, trigger_id="other"))
    assert plc.more(at.ACQUIRED) == [0]
    station.acquired(trigger)
    assert (plc.more(at.ACQUIRED), plc.read(at.BUSY)) == ([1], 1)
    station.answer(record(trigger))
    plc.acknowledge()
    assert plc.more(at.ACQUIRED) == [1]
    plc.present(NEXT)
    assert plc.more(at.ACQUIRED) == [0]


def test_the_recipe_in_force_is_shown(station: ModbusTcpController, plc: Plc) -> None:
    """The PLC can read which recipe a part without recipe_id would be inspected with."""
    station.set_recipe("board-b", ("short",))
    assert at.decode_text(plc.more(at.RECIPE_IN_FORCE)) == "board-b"


def wish(plc: Plc, recipe_id: str) -> None:
    plc.flag(at.PREPARE, 0)
    assert not plc.write(at.PREPARE_RECIPE_ID.start, [*at.encode_text(recipe_id, 12), 1]).isError()


def test_a_recipe_is_prepared_on_request(station: ModbusTcpController, plc: Plc) -> None:
    """The wish reaches the station, its outcome the PLC, and the flag's fall clears it."""
    wish(plc, "board-b")
    assert plc.more(at.PREPARE_STATUS) == [PrepareStatus.PREPARING]
    assert station.wait(LIMIT_MS) == PrepareRecipe("board-b")
    assert station.wait(20) is None
    station.prepared("board-b", None)
    assert plc.more(at.PREPARE_STATUS) == [PrepareStatus.PREPARED]
    plc.flag(at.PREPARE, 0)
    assert plc.more(at.PREPARE_STATUS) == [PrepareStatus.NONE]


def test_a_refused_recipe_has_its_reason(station: ModbusTcpController, plc: Plc) -> None:
    """A refusal shows the number of its rule; an empty or garbled name is refused at once."""
    wish(plc, "nope")
    assert station.wait(LIMIT_MS) == PrepareRecipe("nope")
    station.prepared("nope", Reason("recipe.refused", "its seal is broken"))
    shown = slice(at.PREPARE_STATUS.start, at.PREPARE_REASON.stop)
    assert plc.more(shown) == [PrepareStatus.REFUSED, 51]
    wish(plc, "")
    assert (plc.more(shown), station.wait(20)) == ([PrepareStatus.REFUSED, 50], None)


def test_the_last_wish_counts(station: ModbusTcpController, plc: Plc) -> None:
    """A wish that was replaced is not answered in the name of the new one, and a part goes before any wish."""
    wish(plc, "a")
    assert station.wait(LIMIT_MS) == PrepareRecipe("a")
    wish(plc, "b")
    plc.present(PART)
    station.prepared("a", None)
    assert plc.more(at.PREPARE_STATUS) == [PrepareStatus.PREPARING]
    assert taken(station).sequence == 7
    assert station.wait(LIMIT_MS) == PrepareRecipe("b")


def test_a_request_and_a_wish_fit_one_telegram(station: ModbusTcpController, plc: Plc) -> None:
    """A PLC that writes 0..55 in every cycle triggers once and prepares once."""
    words = [*plc.block(PART), *at.encode_text("b", 12), 1]
    for _ in range(3):
        assert not plc.write(0, words).isError()
    assert taken(station).sequence == 7
    assert station.wait(LIMIT_MS) == PrepareRecipe("b")
    assert station.wait(20) is None


def test_the_count_registers_follow_the_recipe(station: ModbusTcpController, plc: Plc) -> None:
    """After a change of recipe the counts stand in the order of its classes."""
    station.set_recipe("r", ("short", "open"))
    plc.present(PART)
    station.answer(record(taken(station), ng(2)))
    result = plc.result()
    assert result is not None
    assert result.class_counts[:2] == (2, 0)


def test_every_single_read_is_consistent(station: ModbusTcpController, plc: Plc) -> None:
    """However telegrams and answers interleave, a read shows no result or the whole result of one part."""
    parts = 60
    seen: list[list[int]] = []
    stop = threading.Event()

    def answer_all() -> None:
        for _ in range(parts):
            trigger = taken(station)
            station.answer(record(trigger, ng(trigger.sequence)))

    def watch() -> None:
        watcher = Plc(station.config.port)
        while not stop.is_set():
            seen.append(watcher.image())
        watcher.close()

    threads = [threading.Thread(target=answer_all), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    for sequence in range(1, parts + 1):
        plc.present(Request(5, sequence, "S", "L", "r"))
        until(plc.result)
        if sequence == parts:
            until(lambda: seen and seen[-1][at.VALID] == [1])
        plc.acknowledge()
    stop.set()
    for thread in threads:
        thread.join()
    for image in seen:
        result = at.decode_result(image[at.RESULT])
        counted = (result.sequence, result.findings, result.class_counts[1], result.verdict)
        shown = result.sequence if image[at.VALID] == [1] else 0
        assert counted == (shown, shown, shown, Verdict.NG if shown else Verdict.ERROR)
        assert image[at.BUSY] == [0] or image[at.VALID] == [0]
    assert any(image[at.VALID] == [1] for image in seen)


@pytest.mark.skipif(shutil.which("mbpoll") is None, reason="mbpoll is missing: apt-get install -y mbpoll")
def test_an_independent_client_runs_a_cycle(station: ModbusTcpController) -> None:
    """mbpoll, which shares no code with us, writes a request and reads its result with the page's commands."""

    def mbpoll(*arguments: str) -> str:
        port = str(station.config.port)
        command = ["mbpoll", "-m", "tcp", "-p", port, "-a", "1", "-0", "-t", "4", "-o", "10", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    mbpoll("-r", "0", "127.0.0.1", "--", "0", "1", "0", "17", "0x4142")
    mbpoll("-r", "42", "127.0.0.1", "--", "1")
    trigger = taken(station)
    assert (trigger.trigger_id, trigger.serial) == ("00000001-0000000017", "AB")
    station.answer(record(trigger, ng(2)))
    shown = mbpoll("-r", "100", "-c", "33", "-1", "127.0.0.1")
    words = dict(line.split(":") for line in shown.splitlines() if line.startswith("["))
    values = {int(address.strip("[]")): int(word.split()[0]) for address, word in words.items()}
    assert tuple(values[address] for address in (115, 117, 118, 120, 132)) == (1, 17, 2, 2, 1)
    mbpoll("-r", "41", "127.0.0.1", "--", "1", "0")
    assert "[132]: \t0" in mbpoll("-r", "132", "-c", "1", "-1", "127.0.0.1")
