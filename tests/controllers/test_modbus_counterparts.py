"""Modbus against programs that share no code with us: mbpoll, and PLCs written in C with libmodbus, killed and frozen."""

import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import ModbusTcpClient

from inspection.controllers import Controller, StationState
from inspection.controllers import register_map as at
from inspection.controllers.modbus_client import ModbusClientConfig, ModbusClientController
from inspection.controllers.modbus_frames import (
    Access,
    BadTelegram,
    Refusal,
    decode_access,
    decode_header,
    decode_reply,
    encode_access,
    encode_refusal,
    encode_reply,
    encode_telegram,
)
from inspection.controllers.modbus_tcp import ModbusTcpConfig, ModbusTcpController
from inspection.types import Detection, Judgement, PrepareRecipe, Reason, Record, Region, Trigger, Verdict, utc_now

HERE = Path(__file__).parent
CLASSES = ("open", "short")
PARTS = 1000
HAS_LIBMODBUS = shutil.which("gcc") is not None and Path("/usr/include/modbus/modbus.h").exists()
needs_libmodbus = pytest.mark.skipif(
    not HAS_LIBMODBUS, reason="gcc or libmodbus is missing: apt-get install -y gcc libmodbus-dev"
)
needs_mbpoll = pytest.mark.skipif(shutil.which("mbpoll") is None, reason="mbpoll is missing: apt-get install -y mbpoll")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], limit_s: float = 120.0) -> Any:
    """The first true value of ``condition``, asked again and again for a bounded time."""
    deadline_s = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, "did not come about in time"
        time.sleep(0.005)
    return value


def judged(serial: str) -> Judgement:
    """A verdict that follows from the serial alone, so that an answer to another part is found out."""
    number = int(serial.removeprefix("SN-"))
    verdict, count = Verdict(number % 4), number % 5 + 1
    if verdict == Verdict.OK:
        return Judgement(verdict)
    boxes = [Region((float(x), 0.0, x + 1.0, 1.0)) for x in range(count if verdict != Verdict.ERROR else 0)]
    found = tuple(Detection(CLASSES[index % 2], 0.9, box) for index, box in enumerate(boxes))
    return Judgement(verdict, (Reason(f"{verdict.name.lower()}.x", "text", found),))


def record(trigger: Trigger) -> Record:
    judgement = judged(trigger.serial)
    return Record(trigger, judgement, (), ("f",), "r", "m", "st", (), True, utc_now())


@dataclass(frozen=True)
class Line:
    """One line in the log of a PLC."""

    part: int
    run: int
    verdict: int
    findings: int
    first_count: int
    second_count: int
    took_us: int

    def is_right(self) -> bool:
        """Whether this is the answer that the serial asks for."""
        judgement = judged(f"SN-{self.part:06d}")
        found = [one.defect_class for reason in judgement.reasons for one in reason.detections]
        counts = (len(found), found.count("open"), found.count("short"))
        return (judgement.verdict, *counts) == (self.verdict, self.findings, self.first_count, self.second_count)


def lines(log: Path) -> list[Line]:
    text = log.read_text() if log.exists() else ""
    return [Line(*map(int, row.split())) for row in text.splitlines(keepends=True) if row.endswith("\n")]


class Station:
    """A station without cameras: answers at once, and a part it knows from its record."""

    def __init__(self, make: Callable[[], Controller]) -> None:
        self._make = make
        self.records: dict[str, Record] = {}
        self.wishes: list[str] = []
        self._stop = threading.Event()
        self._start()

    def _start(self) -> None:
        self._stop.clear()
        self.controller = self._make()
        self.controller.set_recipe("board-a", CLASSES)
        self.controller.open()
        self.controller.set_state(StationState.READY)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            taken = self.controller.wait(50)
            if isinstance(taken, PrepareRecipe):
                self.wishes.append(taken.recipe_id)
                self.controller.prepared(
                    taken.recipe_id, None if taken.recipe_id == "b" else Reason("recipe.unknown", "?")
                )
            elif taken is not None:
                self.controller.set_state(StationState.SINGLE_EXECUTION)
                self.controller.acquired(taken)
                known = self.records.setdefault(taken.trigger_id, record(taken))
                self.controller.answer(known)
                self.controller.set_state(StationState.READY)

    def restart(self) -> None:
        """As after a restart of the service: another controller, the same records."""
        self.close()
        self._start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.controller.close()


class CPlc:
    """A PLC of its own process; started again it takes a new run and goes on behind the last part in its log."""

    def __init__(self, program: Path, port: int, log: Path, last: int = PARTS) -> None:
        self._program, self._port, self.log, self._last = program, port, log, last
        self._run = 0
        self.start()

    def start(self) -> None:
        self._run += 1
        first = lines(self.log)[-1].part + 1 if lines(self.log) else 1
        numbers = map(str, (self._port, self._run, first, self._last))
        self.process = subprocess.Popen([str(self._program), *numbers, str(self.log)])

    def answered(self, count: int) -> None:
        """Wait until so many parts are in the log."""
        until(lambda: len(lines(self.log)) >= count, limit_s=300)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self, frozen_s: float) -> None:
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(frozen_s)
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled PLCs."""
    folder = tmp_path_factory.mktemp("plc")
    for name in ("plc_client", "plc_server"):
        source = str(HERE / f"{name}.c")
        command = [
            "gcc",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I/usr/include/modbus",
            "-o",
            str(folder / name),
            source,
            "-lmodbus",
        ]
        subprocess.run(command, check=True, timeout=60)
    return folder


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def served(port: int) -> Iterator[Station]:
    """A station that is the Modbus server."""
    config = ModbusTcpConfig(port=port, heartbeat_ms=20, writer_idle_ms=1000, idle_ms=3000)
    station = Station(lambda: ModbusTcpController(config))
    yield station
    station.close()


@pytest.fixture
def patient(port: int) -> Iterator[Station]:
    """A station that is the Modbus server, and whose connections may be silent for longer than any test lasts."""
    config = ModbusTcpConfig(port=port, heartbeat_ms=20, writer_idle_ms=600_000, idle_ms=600_000)
    station = Station(lambda: ModbusTcpController(config))
    yield station
    station.close()


@pytest.fixture
def polling(port: int) -> Iterator[Station]:
    """A station that is the Modbus client."""
    config = ModbusClientConfig(host="127.0.0.1", port=port, poll_ms=1, timeout_ms=300, heartbeat_ms=20)
    station = Station(lambda: ModbusClientController(config))
    yield station
    station.close()


def check(answers: list[Line], station: Station, *, lives: int, parts: int = PARTS) -> None:
    """No answer lost, doubled or mismatched; no part inspected twice but one for each life of the PLC."""
    assert [line.part for line in answers] == list(range(1, parts + 1))
    assert [line for line in answers if not line.is_right()] == []
    for line in answers:
        assert station.records[f"{line.run:08x}-{line.part:010d}"].trigger.serial == f"SN-{line.part:06d}"
    assert parts <= len(station.records) < parts + lives


def tell(name: str, answers: list[Line], took_s: float) -> None:
    """Print the figures (pytest -s)."""
    took_ms = sorted(line.took_us / 1000 for line in answers)
    middle, slow = statistics.median(took_ms), took_ms[int(0.99 * len(took_ms))]
    print(f"\n{name}: {len(answers) / took_s:.0f} parts/s, trigger to result median {middle:.2f} ms, p99 {slow:.2f} ms")


# A PLC in C as the client of our server


@needs_libmodbus
def test_a_c_plc_gets_every_answer_from_our_server(programs: Path, port: int, served: Station, tmp_path: Path) -> None:
    """A thousand parts by the documented handshake: each answered once, with the verdict of its own serial."""
    began_s = time.monotonic()
    plc = CPlc(programs / "plc_client", port, tmp_path / "log")
    try:
        assert plc.process.wait(timeout=120) == 0
    finally:
        plc.kill()
    tell("libmodbus client", lines(plc.log), time.monotonic() - began_s)
    check(lines(plc.log), served, lives=1)


@needs_libmodbus
def test_a_c_plc_that_dies_and_freezes_gets_every_answer(
    programs: Path, port: int, served: Station, tmp_path: Path
) -> None:
    """Killed, frozen and started again in mid-run, and the station restarted: no answer lost, doubled or mismatched."""
    plc = CPlc(programs / "plc_client", port, tmp_path / "log")
    try:
        for count in (100, 250, 400):
            plc.answered(count)
            plc.kill()
            plc.start()
        plc.answered(550)
        plc.freeze(1.5)
        plc.answered(700)
        served.restart()
        plc.answered(850)
        plc.freeze(0.1)
        assert plc.process.wait(timeout=120) == 0
    finally:
        plc.kill()
    check(lines(plc.log), served, lives=4)


# A PLC in C that only serves


@needs_libmodbus
def test_a_c_plc_that_only_serves_gets_every_answer(
    programs: Path, port: int, polling: Station, tmp_path: Path
) -> None:
    """The station polls a libmodbus server, which was not there at first: a thousand parts, each answered once."""
    time.sleep(0.2)
    began_s = time.monotonic()
    plc = CPlc(programs / "plc_server", port, tmp_path / "log")
    try:
        plc.answered(PARTS)
    finally:
        plc.kill()
    tell("libmodbus server", lines(plc.log), time.monotonic() - began_s)
    check(lines(plc.log), polling, lives=1)


@needs_libmodbus
def test_a_c_plc_that_only_serves_dies_and_freezes(programs: Path, port: int, polling: Station, tmp_path: Path) -> None:
    """Killed, frozen and started again in mid-run, and the station restarted: no answer lost, doubled or mismatched."""
    plc = CPlc(programs / "plc_server", port, tmp_path / "log")
    try:
        for count in (100, 250, 400):
            plc.answered(count)
            plc.kill()
            plc.start()
        plc.answered(550)
        plc.freeze(1.0)  # longer than the station waits for a reply
        plc.answered(700)
        polling.restart()
        plc.answered(850)
        plc.freeze(0.1)
        plc.answered(PARTS)
    finally:
        plc.kill()
    check(lines(plc.log), polling, lives=4)


@needs_libmodbus
def test_a_plc_without_the_registers_is_named(
    programs: Path, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A PLC that refuses the station's telegrams is said to do so, with what to check, and not once for every try."""
    caplog.set_level("INFO", logger="lineside")
    config = ModbusClientConfig(host="127.0.0.1", port=port, station_block_at=180, timeout_ms=10_000)
    plc = CPlc(programs / "plc_server", port, tmp_path / "log", last=0)
    station = Station(lambda: ModbusClientController(config))
    try:
        until(lambda: said("exception 2; check plc_block_at", caplog))
        time.sleep(1.0)
    finally:
        station.close()
        plc.kill()
    assert said("exception 2", caplog) == 1
    assert said("", caplog, "controller.plc_reached") == 0


@needs_libmodbus
def test_a_silent_plc_is_noticed_by_the_polling_station(
    programs: Path, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A frozen PLC is one log event, its return another, and the station's own wait goes on all the time."""
    caplog.set_level("INFO", logger="lineside")
    config = ModbusClientConfig(host="127.0.0.1", port=port, timeout_ms=2000, extended=False)
    plc = CPlc(programs / "plc_server", port, tmp_path / "log", last=0)
    station = Station(lambda: ModbusClientController(config))
    try:
        until(lambda: said("", caplog, "controller.plc_reached") == 1)
        lost = said("", caplog)
        plc.process.send_signal(signal.SIGSTOP)
        until(lambda: said("", caplog) == lost + 1)
        time.sleep(2.5)  # it is missed in one further try at least
        plc.process.send_signal(signal.SIGCONT)
        until(lambda: said("", caplog, "controller.plc_reached") == 2)
        assert said("", caplog) == lost + 1
    finally:
        station.close()
        plc.kill()


def said(text: str, caplog: pytest.LogCaptureFixture, word: str = "controller.plc_lost") -> int:
    """How many log events of this name have ``text`` in theirs."""
    rows = [vars(row)["fields"] for row in list(caplog.records) if row.getMessage() == word]
    return sum(text in str(row.get("text", "")) for row in rows)


# mbpoll


@needs_mbpoll
def test_mbpoll_prepares_a_recipe_and_reads_what_is_new(port: int, served: Station) -> None:
    """mbpoll, which shares no code with us, uses the registers behind 42 and behind 132 with the page's commands."""

    def mbpoll(*arguments: str) -> str:
        command = ["mbpoll", "-m", "tcp", "-p", str(port), "-a", "1", "-0", "-t", "4", "-o", "10", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    def shown(address: int, count: int) -> list[int]:
        rows = re.findall(r"^\[(\d+)\]:\s+(\d+)", mbpoll("-r", str(address), "-c", str(count), "-1", "127.0.0.1"), re.M)
        return [int(value) for _, value in rows]

    assert at.decode_text(shown(at.RECIPE_IN_FORCE.start, 12)) == "board-a"
    mbpoll("-r", "43", "127.0.0.1", "--", "0x6200", *["0"] * 11, "1")
    until(lambda: shown(146, 2) == [2, 0])
    mbpoll("-r", "55", "127.0.0.1", "--", "0")
    mbpoll("-r", "43", "127.0.0.1", "--", "0x7878", *["0"] * 11, "1")
    until(lambda: shown(146, 2) == [3, 50])
    assert served.wishes == ["b", "xx"]


# Who may write, and how long silence is borne


@pytest.fixture
def connect(port: int) -> Iterator[Callable[[], ModbusTcpClient]]:
    """Makes connections of an independent client (pymodbus), closed in the end."""
    made = []

    def one() -> ModbusTcpClient:
        made.append(ModbusTcpClient("127.0.0.1", port=port, timeout=30, retries=0))
        assert made[-1].connect()
        return made[-1]

    yield one
    for connection in made:
        connection.close()


def beats(plc: ModbusTcpClient) -> int:
    """The exception code of a write to the heartbeat register, 0 when it was taken."""
    reply = plc.write_registers(at.PLC_HEARTBEAT.start, [1])
    return int(reply.exception_code) if reply.isError() else 0


def test_only_one_connection_writes(
    port: int, patient: Station, caplog: pytest.LogCaptureFixture, connect: Callable[[], ModbusTcpClient]
) -> None:
    """The first writer keeps the write side; another gets exception 6 and a log event, but may read; until it closes."""
    first, second = connect(), connect()
    assert (beats(first), beats(second), beats(second), beats(first)) == (0, 6, 6, 0)
    assert second.read_holding_registers(100, count=33).registers[0] == at.PROTOCOL_VERSION
    assert [row.getMessage() for row in caplog.records].count("controller.second_writer") == 1
    first.close()
    until(lambda: beats(second) == 0)


def test_a_refused_writer_changes_nothing(port: int, patient: Station, connect: Callable[[], ModbusTcpClient]) -> None:
    """No part of a refused telegram is taken over, with each of the writing functions."""
    first, second = connect(), connect()
    assert not first.write_registers(0, [1, 2, 3, 4]).isError()
    replies = [
        second.write_registers(0, [9, 9]),
        second.write_register(0, 9),
        second.mask_write_register(address=0, and_mask=0, or_mask=9),
        second.readwrite_registers(read_address=0, read_count=1, write_address=0, values=[9]),
    ]
    assert [reply.exception_code for reply in replies] == [6] * 4
    assert second.read_holding_registers(0, count=4).registers == [1, 2, 3, 4]


def test_every_function_of_the_page_works(port: int, patient: Station, connect: Callable[[], ModbusTcpClient]) -> None:
    """FC03, 04, 06, 16, 22 and 23 do what the standard says, and coils are refused with exception 1."""
    plc = connect()
    assert not plc.write_register(4, 0x4142).isError()
    assert not plc.mask_write_register(address=4, and_mask=0xFF00, or_mask=0x0043).isError()
    assert plc.read_input_registers(4, count=1).registers == [0x4143]
    reply = plc.readwrite_registers(read_address=4, read_count=2, write_address=5, values=[0x4400])
    assert reply.registers == [0x4143, 0x4400]
    assert plc.read_coils(0, count=8).exception_code == 1
    assert plc.read_holding_registers(50, count=60).exception_code == 2


def test_a_silent_writer_gives_way(port: int, served: Station, connect: Callable[[], ModbusTcpClient]) -> None:
    """A writer that sends nothing for writer_idle_ms is replaced by the next one, and refused when it wakes up."""
    first, second, began_s = connect(), connect(), [time.monotonic()]

    def gives_way() -> bool:
        began_s.append(time.monotonic())
        return beats(second) == 0

    assert beats(first) == 0
    until(gives_way)
    assert time.monotonic() - began_s[0] > 1.0
    refusal = beats(first)
    assert refusal == 6 or time.monotonic() - began_s[-1] > 1.0  # on a busy machine the second was silent as long


def test_an_idle_connection_is_closed(port: int, served: Station, connect: Callable[[], ModbusTcpClient]) -> None:
    """A connection without any telegram for idle_ms ends; one that reads goes on."""
    began_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as idle:
        reader = connect()
        idle.settimeout(0.05)
        while True:
            assert not reader.read_holding_registers(100, count=33).isError()
            assert time.monotonic() - began_s < 120
            try:
                if idle.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
        assert time.monotonic() - began_s > 1.5


def test_a_half_open_connection_dies(port: int, connect: Callable[[], ModbusTcpClient]) -> None:
    """A peer that vanished without a word (power cut) loses the write side within the time of the keep-alive."""
    config = ModbusTcpConfig(port=port, writer_idle_ms=600_000, idle_ms=600_000)
    station = Station(lambda: ModbusTcpController(config))
    try:
        vanished, other = socket.create_connection(("127.0.0.1", port)), connect()
        write = encode_telegram(1, 1, encode_access(Access(16, write_at=at.PLC_HEARTBEAT.start, words=(1,))))
        vanished.sendall(write)
        assert len(vanished.recv(64)) == 12
        assert beats(other) == 6
        peer_port = vanished.getsockname()[1]
        until(lambda: keep_alive_within(port, peer_port, seconds=6))
        if vanish(vanished):
            until(lambda: beats(other) == 0, limit_s=25)
        vanished.close()
    finally:
        station.close()


def keep_alive_within(port: int, peer_port: int, *, seconds: float) -> bool:
    """Whether the kernel's keep-alive timer (kind 02, in hundredths of a second) runs on the server's socket."""
    wanted = rf"\w+:{port:04X} \w+:{peer_port:04X} 01 \S+ 02:(\w+)"
    found = re.search(wanted, Path("/proc/net/tcp").read_text())
    return found is not None and int(found[1], 16) <= 100 * seconds


def vanish(peer: socket.socket) -> bool:
    """Close ``peer`` without a word on the wire; False where that right is missing."""
    tcp_repair = 19
    try:
        peer.setsockopt(socket.IPPROTO_TCP, tcp_repair, 1)
    except PermissionError:
        return False
    peer.close()
    return True


# Rubbish


@given(st.binary(min_size=1, max_size=253))
def test_any_pdu_is_understood_or_refused(pdu: bytes) -> None:
    """Whatever bytes come, they are an access within the limits of the standard, or one exception."""
    with suppress(Refusal):
        access = decode_access(pdu)
        assert 0 <= access.read_count <= 125
        assert len(access.words) <= 123
        assert access.writes or access.read_count


@given(st.binary(min_size=7, max_size=7))
def test_any_header_is_one_telegram_or_none(header: bytes) -> None:
    """A header leads to a PDU of 1..253 bytes or ends the connection."""
    try:
        assert 1 <= decode_header(header)[2] <= 253
    except BadTelegram:
        assert header[2:4] != b"\0\0" or not 2 <= int.from_bytes(header[4:6], "big") <= 254


words = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=121).map(tuple)


@given(st.sampled_from([3, 4, 6, 16, 22, 23]), st.integers(0, 0xFFFF), words, words)
def test_both_sides_of_a_telegram_agree(
    function: int, address: int, written: tuple[int, ...], read: tuple[int, ...]
) -> None:
    """What our client asks our server decodes, and the reply comes back as it was sent."""
    asked = Access(16, write_at=address, words=written) if function > 4 else Access(3, address, len(read))
    assert decode_access(encode_access(asked)) == asked
    sent = [] if function > 4 else list(read)
    assert decode_reply(asked, encode_reply(asked, sent)) == sent
    with pytest.raises(Refusal, match="exception 6"):
        decode_reply(asked, encode_refusal(asked.function, 6))


@given(st.binary(max_size=253))
def test_any_reply_is_the_right_one_or_an_error(pdu: bytes) -> None:
    """Our client takes nothing for a reply that does not fit its question."""
    asked = Access(3, 0, 2)
    with suppress(Refusal, BadTelegram):
        assert len(decode_reply(asked, pdu)) == 2


READ = encode_telegram(7, 1, encode_access(Access(3, 100, 33)))


def received(connection: socket.socket, count: int) -> bytes:
    octets = b""
    while len(octets) < count and (part := connection.recv(count - len(octets))):
        octets += part
    return octets


def test_telegrams_in_one_packet_are_all_answered(port: int, patient: Station) -> None:
    """A client that does not wait for replies gets one for each telegram, in order."""
    asked = [encode_telegram(number, 1, encode_access(Access(3, 100, 1))) for number in range(1, 51)]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"".join(asked))
        replies = received(connection, 50 * 11)
    assert [int.from_bytes(replies[at_ : at_ + 2], "big") for at_ in range(0, 550, 11)] == list(range(1, 51))


def test_a_slow_telegram_is_answered(port: int, served: Station) -> None:
    """A telegram that comes byte by byte is a telegram."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in READ:
            connection.sendall(bytes([octet]))
            time.sleep(0.01)
        assert len(received(connection, 75)) == 75


def test_half_a_telegram_is_not_waited_for(port: int, served: Station) -> None:
    """A connection that leaves a telegram unfinished ends after two seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(READ[:9])
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


@pytest.mark.parametrize("header", ["000100000001", "0001000000ff", "00010007000601", "47455420"])
def test_what_is_no_modbus_ends_the_connection(port: int, served: Station, header: str) -> None:
    """A wrong length, a wrong protocol number, or HTTP: closed at once, without a reply."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(bytes.fromhex(header) + b"/ HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def flood(chance: random.Random, port: int) -> list[socket.socket]:
    """One kind of rubbish; the connections that are to be held open."""
    head = chance.choice([b"\0\1\0\0\0\0\1", b"\0\1\0\0\0\1\1", b"\0\1\0\0\xff\xff\1", b"\0\1\0\7\0\6\1\3\0\0\0\1"])
    kinds = [
        chance.randbytes(1_000_000),
        head + chance.randbytes(300),
        READ[: chance.randrange(1, len(READ))],
        b"",
        b"\0\1\0\0\0\x20\1" + chance.randbytes(31),
        READ * 2000,  # and never reads a reply
        READ + chance.randbytes(40),
    ]
    content = chance.choice(kinds)
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=1)
    except OSError:
        return []  # it takes no more at this moment
    try:
        connection.sendall(content)
    except OSError:
        connection.close()  # the server had enough
        return []
    return [connection]


def resident_mb() -> float:
    """What this process, the server within, holds of the memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@needs_libmodbus
def test_rubbish_on_the_port_does_not_disturb_the_plc(
    programs: Path, port: int, served: Station, tmp_path: Path
) -> None:
    """Garbage, half telegrams, wrong lengths, floods and dozens of connections: the PLC's cycle goes on, memory stays."""
    chance, held, sent = random.Random(5), list[socket.socket](), 0
    plc = CPlc(programs / "plc_client", port, tmp_path / "log", last=300)
    try:
        plc.answered(10)
        before_mb, began_s = resident_mb(), time.monotonic()
        while plc.process.poll() is None:
            held += flood(chance, port)
            sent += 1
            time.sleep(0.002)
            if len(held) > 50:
                held.pop(chance.randrange(len(held))).close()
        assert plc.process.returncode == 0
    finally:
        plc.kill()
        for connection in held:
            connection.close()
    assert sent > 20
    assert resident_mb() - before_mb < 64
    tell(f"libmodbus client beside {sent} rubbish connections", lines(plc.log), time.monotonic() - began_s)
    check(lines(plc.log), served, lives=1, parts=300)


def test_more_connections_than_allowed_are_closed(
    port: int, patient: Station, connect: Callable[[], ModbusTcpClient]
) -> None:
    """Of fifty connections that say nothing at most eight live; those that sent a telegram are not displaced by them."""
    with ExitStack() as last_to_first:
        plc = connect()
        assert beats(plc) == 0
        silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(50)]
        for connection in silent:
            last_to_first.callback(connection.close)
        until(lambda: sum(map(lives, silent)) <= 7)
        assert beats(plc) == 0
        late = connect()
        assert not late.read_holding_registers(100, count=33).isError()


def lives(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
