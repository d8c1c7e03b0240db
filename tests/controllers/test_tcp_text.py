"""The text interface, fault by fault: its words, its limits, and whole runs against a PLC written in another language."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inspection.controllers import StationState
from inspection.controllers import text_protocol as words
from inspection.controllers.register_map import Reject, reason_code
from inspection.controllers.tcp_text import TcpTextConfig, TcpTextController
from inspection.controllers.text_protocol import TextHandshake
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

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "deploy" / "tcp_text.md"
LIMIT_MS = 60_000
STATION = """
station_id = "text-1"
recipe = "{recipe}"
store = "records.sqlite"
threads = 1

[evidence]
folder = "evidence"

[cameras.top]
kind = "folder"
folder = "{recipe}/selftest"
loop = true

[controller]
kind = "tcp_text"
port = {port}
silent_ms = 400
"""
NOW = utc_now()
JUDGEMENTS = (
    Judgement(Verdict.OK),
    Judgement(Verdict.NG, (Reason("ng.open", "open", (Detection("open", 0.9, Region((0.0, 0.0, 1.0, 1.0))),)),)),
    error_judgement("camera.timeout", "no frame"),
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], limit_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not come about in time"
        time.sleep(0.01)


def record(trigger: Trigger, judgement: Judgement | None = None) -> Record:
    judgement = judgement or JUDGEMENTS[trigger.sequence % len(JUDGEMENTS)]
    return Record(trigger, judgement, (), ("f1",), "recipe", "model", "st1", (), True, utc_now())


class Peer:
    """A raw connection that reads line by line."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._heard = b""

    def say(self, line: str) -> None:
        self.socket.sendall(f"{line}\r\n".encode("latin-1"))

    def hear(self, *begins: str) -> str:
        """The next line that begins so; '' when the station closed the connection."""
        while True:
            while b"\r\n" not in self._heard:
                try:
                    more = self.socket.recv(65536)
                except ConnectionResetError:
                    more = b""
                if not more:
                    return ""
                self._heard += more
            line, _, self._heard = self._heard.partition(b"\r\n")
            if line.decode("ascii").startswith(begins or ("",)):
                return line.decode("ascii")

    def ask(self, line: str, *begins: str) -> str:
        self.say(line)
        return self.hear(*begins)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Bench:
    """The station's thread: answers every trigger once, and from its record when it is presented again."""

    def __init__(self, controller: TcpTextController) -> None:
        self.controller = controller
        self.records: dict[str, Record] = {}
        self.repeated = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.controller.set_state(StationState.READY)
        while not self._stop.is_set():
            trigger = self.controller.wait(50)
            if not isinstance(trigger, Trigger):
                continue
            self.controller.set_state(StationState.SINGLE_EXECUTION)
            self.controller.acquired(trigger)
            self.repeated += trigger.trigger_id in self.records
            self.controller.answer(self.records.setdefault(trigger.trigger_id, record(trigger)))
            self.controller.set_state(StationState.READY)

    def __enter__(self) -> "Bench":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)


@pytest.fixture
def station(request: pytest.FixtureRequest) -> Iterator[TcpTextController]:
    """A station; ``request.param`` is how long its writer may be silent, ms."""
    silent_ms = getattr(request, "param", 400)
    controller = TcpTextController(
        TcpTextConfig(port=free_port(), silent_ms=silent_ms, heartbeat_ms=100, connections=3)
    )
    controller.set_recipe("board-a", ("open", "short"))
    controller.set_recipes(("board-a", "board-b"))
    controller.open()
    controller.set_state(StationState.READY)
    yield controller
    controller.close()


@pytest.fixture
def plc(station: TcpTextController) -> Iterator[Peer]:
    with Peer(station.config.port) as peer:
        yield peer


def taken(station: TcpTextController) -> Trigger:
    trigger = station.wait(LIMIT_MS)
    assert isinstance(trigger, Trigger)
    return trigger


def sent(to: socket.socket, octets: bytes) -> bool:
    """Whether the connection still takes what is sent."""
    try:
        to.sendall(octets)
    except (ConnectionResetError, BrokenPipeError):
        return False
    return True


# The words, without a network


@pytest.fixture
def ready() -> TextHandshake:
    handshake = TextHandshake()
    handshake.recipe_id = "board-a"
    handshake.set_state(StationState.READY)
    return handshake


def said(handshake: TextHandshake, line: str, *, writer: bool = True) -> list[str]:
    return handshake.obey(line, lambda: writer, now=NOW)


def answered(handshake: TextHandshake) -> str:
    trigger = handshake.take()
    assert isinstance(trigger, Trigger)
    return handshake.answer(record(trigger))


def test_one_part_from_trigger_to_acknowledge(ready: TextHandshake) -> None:
    """The documented cycle, word by word."""
    assert ["ACCEPTED 7 1"] == said(ready, "TRIGGER 7 1 SN-1 LOT9 board-a")
    trigger = ready.take()
    assert isinstance(trigger, Trigger)
    assert ("SN-1", "LOT9", "board-a", 1) == (trigger.serial, trigger.lot, trigger.recipe_id, trigger.sequence)
    assert "ACQUIRED 7 1" == ready.acquired(trigger)
    kept = record(trigger)
    line = ready.answer(kept)
    assert re.fullmatch(rf"RESULT 7 1 NG 1 1 \d+ {kept.record_id}", line)
    assert [line] == said(ready, "RESULT?")
    assert ["ACKNOWLEDGED 7 1"] == said(ready, "ACK 7 1")
    assert ["NONE"] == said(ready, "RESULT?")


def test_a_dash_is_an_empty_field(ready: TextHandshake) -> None:
    """Serial, lot and recipe may be left out, each by a dash."""
    said(ready, "TRIGGER 7 1 - - -")
    trigger = ready.take()
    assert isinstance(trigger, Trigger)
    assert ("", "", "") == (trigger.serial, trigger.lot, trigger.recipe_id)


def test_the_same_part_while_busy_is_answered_once(ready: TextHandshake) -> None:
    """A repeated request is accepted again and inspected once."""
    said(ready, "TRIGGER 7 1 A - -")
    assert ["ACCEPTED 7 1"] == said(ready, "TRIGGER 7 1 A - -")
    answered(ready)
    assert ready.take() is None
    assert 1 == ready.repeats


def test_the_same_part_before_ready_finds_its_result(ready: TextHandshake) -> None:
    """A PLC that comes back right after the answer gets the result instead of a refusal."""
    said(ready, "TRIGGER 7 1 A - -")
    ready.set_state(StationState.SINGLE_EXECUTION)
    line = answered(ready)
    assert ["ACCEPTED 7 1", line] == said(ready, "TRIGGER 7 1 A - -")
    assert ready.take() is None


def test_the_same_part_after_its_answer_is_handed_out_again(ready: TextHandshake) -> None:
    """It is answered from the record: the station gets the same trigger id."""
    said(ready, "TRIGGER 7 1 A - -")
    first = ready.take()
    assert isinstance(first, Trigger)
    ready.answer(record(first))
    said(ready, "TRIGGER 7 1 A - -")
    again = ready.take()
    assert isinstance(again, Trigger)
    assert first.trigger_id == again.trigger_id


def test_a_number_of_another_part_is_refused(ready: TextHandshake) -> None:
    """Neither the answer to come nor the result that stands goes to another part of the same number."""
    said(ready, "TRIGGER 7 1 A - -")
    assert said(ready, "TRIGGER 7 1 B - -")[0].startswith("REFUSED 7 1 REUSED ")
    assert said(ready, "TRIGGER 7 1 \x07 - -")[0].startswith("REFUSED 7 1 BAD_TEXT ")
    ready.set_state(StationState.SINGLE_EXECUTION)
    answered(ready)
    assert said(ready, "TRIGGER 7 1 B - -")[0].startswith("REFUSED 7 1 REUSED ")
    ready.set_state(StationState.READY)
    assert ["ACCEPTED 7 1"] == said(ready, "TRIGGER 7 1 B - -")  # the station answers it with an ERROR of its own


def test_another_part_while_busy_is_refused(ready: TextHandshake) -> None:
    """It is never queued, and the part in progress keeps its own answer."""
    said(ready, "TRIGGER 7 1 A - -")
    assert said(ready, "TRIGGER 7 2 B - -")[0].startswith("REFUSED 7 2 BUSY ")
    assert ["BUSY 7 1"] == said(ready, "RESULT?")
    assert answered(ready).startswith("RESULT 7 1 ")
    assert ready.take() is None


@pytest.mark.parametrize("state", [state for state in StationState if state != StationState.READY])
def test_no_trigger_is_accepted_outside_ready(ready: TextHandshake, state: StationState) -> None:
    """Only in state Ready; a refused part is not kept for later."""
    ready.set_state(state)
    assert said(ready, "TRIGGER 7 1 A - -")[0].startswith("REFUSED 7 1 NOT_READY ")
    assert f"STATE {words.STATE_WORDS[state]} ready=0 busy=0 recipe=board-a" in said(ready, "STATE?")[0]
    ready.set_state(StationState.READY)
    assert ready.take() is None


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("TRIGGER 7 0 A - -", "REFUSED 7 0 BAD_SEQUENCE"),
        ("TRIGGER 7 1 " + "A" * 33 + " - -", "REFUSED 7 1 BAD_TEXT"),
        ("TRIGGER 7 1 A " + "L" * 17 + " -", "REFUSED 7 1 BAD_TEXT"),
        ("TRIGGER 7 1 A - " + "r" * 25, "REFUSED 7 1 BAD_TEXT"),
        ("TRIGGER 7 1 A\x07 - -", "REFUSED 7 1 BAD_TEXT"),
        ("TRIGGER 7 1 \xe9 - -", "REFUSED 7 1 BAD_TEXT"),
        ("TRIGGER 7 1 A -", "ERROR BAD_LINE"),
        ("TRIGGER 7 1  - -", "ERROR BAD_LINE"),
        ("TRIGGER 7 1 A B - -", "ERROR BAD_LINE"),
        ("TRIGGER 4294967296 1 A - -", "ERROR BAD_LINE"),
        ("TRIGGER -7 1 A - -", "ERROR BAD_LINE"),
        ("TRIGGER 7 \u0664 A - -", "ERROR BAD_LINE"),
        ("trigger 7 1 A - -", "ERROR BAD_LINE"),
        ("STATE? ", "ERROR BAD_LINE"),
        ("\x00\xff", "ERROR BAD_TEXT"),
        ("ACK 7 1", "ERROR NO_RESULT"),
        ("PREPARE -", "UNPREPARED - BAD_TEXT"),
        ("VERSION?", "VERSION 1 lineside"),
        ("HEARTBEAT 5", "HEARTBEAT 0"),
    ],
)
def test_each_line_has_its_answer(ready: TextHandshake, line: str, answer: str) -> None:
    """Malformed requests are refused by a code; none of them reaches the station."""
    assert said(ready, line)[0].startswith(answer)
    assert ready.take() is None


def test_an_acknowledge_said_twice_is_harmless(ready: TextHandshake) -> None:
    """A PLC that did not hear the first ACKNOWLEDGED may say ACK again."""
    said(ready, "TRIGGER 7 1 A - -")
    answered(ready)
    assert ["ACKNOWLEDGED 7 1"] * 2 == said(ready, "ACK 7 1") + said(ready, "ACK 7 1")


def test_a_lost_acknowledge_does_not_stop_the_line(ready: TextHandshake) -> None:
    """The next part replaces the result that stands, and that is counted."""
    said(ready, "TRIGGER 7 1 A - -")
    answered(ready)
    assert ["ACCEPTED 7 2"] == said(ready, "TRIGGER 7 2 B - -")
    assert 1 == ready.lost_acks
    assert "lost_acks=1" in said(ready, "STATE?")[0]
    assert said(ready, "ACK 7 1")[0].startswith("ERROR NO_RESULT")


def test_only_the_writer_triggers(ready: TextHandshake) -> None:
    """Another connection is refused with a code of its own, and may ask for the state."""
    assert said(ready, "TRIGGER 7 1 A - -", writer=False)[0].startswith("REFUSED 7 1 NOT_WRITER ")
    assert said(ready, "PREPARE board-b", writer=False)[0].startswith("UNPREPARED board-b NOT_WRITER ")
    assert said(ready, "ACK 7 1", writer=False)[0].startswith("ERROR NOT_WRITER ")
    assert said(ready, "STATE?", writer=False)[0].startswith("STATE Ready ready=1 ")
    assert ready.take() is None


def test_a_recipe_is_prepared_once_and_after_the_part(ready: TextHandshake) -> None:
    """A wish waits behind the trigger, is handed out once, and is answered when it is done."""
    ready.recipe_ids = ("board-a", "board-b")
    assert ["RECIPES 2", "RECIPE 1 board-a", "RECIPE 2 board-b"] == said(ready, "RECIPES?")
    said(ready, "TRIGGER 7 1 A - -")
    assert [] == said(ready, "PREPARE board-b") + said(ready, "PREPARE board-b")
    assert said(ready, "PREPARE board-c")[0].startswith("UNPREPARED board-c BUSY ")
    answered(ready)
    assert PrepareRecipe("board-b") == ready.take()
    assert ready.take() is None
    assert "PREPARED board-b" == ready.prepared("board-b", None)
    said(ready, "PREPARE board-x")
    refusal = Reason("recipe.refused", "no such recipe\r\nat all")
    code = reason_code("recipe.refused")
    assert f"UNPREPARED board-x FAILED {code} no such recipe??at all" == ready.prepared("board-x", refusal)


def test_no_recipe_is_prepared_out_of_service(ready: TextHandshake) -> None:
    """A halted station says so at once."""
    ready.set_state(StationState.HALTED)
    assert said(ready, "PREPARE board-b")[0].startswith("UNPREPARED board-b NOT_READY ")


@given(st.lists(st.one_of(
    st.text(st.characters(max_codepoint=255, exclude_characters="\n"), max_size=254),
    st.builds(" ".join, st.lists(st.sampled_from((*words.TAKES, "0", "1", "2", "-", "A")), max_size=7)),
), max_size=12))  # fmt: skip
def test_no_line_breaks_the_handshake(lines: list[str]) -> None:
    """Whatever is said, the answers are whole printable lines, and every accepted part can be answered once."""
    handshake = TextHandshake()
    handshake.set_state(StationState.READY)
    for line in lines:
        for answer in said(handshake, line):
            assert re.fullmatch(r"[ -~]{1,254}", answer)
        wanted = handshake.take()
        if isinstance(wanted, Trigger):
            handshake.answer(record(wanted))
        elif wanted is not None:
            handshake.prepared(wanted.recipe_id, None)


def test_the_page_names_every_word_and_code() -> None:
    """What the PLC programmer reads is complete."""
    page = PAGE.read_text(encoding="utf-8")
    codes = [code.name for code in Reject if code]
    answers = ("ACCEPTED", "REFUSED", "ACQUIRED", "RESULT", "ACKNOWLEDGED", "BUSY", "NONE", "STATE", "PREPARED",
               "UNPREPARED", "FAILED", "RECIPES", "RECIPE", "VERSION", "HEARTBEAT", "ERROR")  # fmt: skip
    for word in (*words.TAKES, *words.ERRORS, *codes, *answers, *words.STATE_WORDS.values()):
        assert re.search(rf"(?<![A-Za-z_?]){re.escape(word)}(?![A-Za-z_?])", page), word


# The server and its limits


def test_lf_alone_ends_a_line(plc: Peer) -> None:
    """LF without CR is accepted, and an empty line is no mistake."""
    plc.socket.sendall(b"\n\r\nVERSION?\nVERSION?\r\n")
    assert ["VERSION 1 lineside"] * 2 == [plc.hear("VERSION", "ERROR"), plc.hear("VERSION", "ERROR")]


def test_a_line_in_pieces_and_lines_at_once(plc: Peer) -> None:
    """TCP may cut or join what the PLC sends."""
    for octet in b"VERSION?\r\nSTA":
        plc.socket.sendall(bytes((octet,)))
    plc.socket.sendall(b"TE?\r\nRECIPES?\r\n")
    plc.hear("VERSION")
    assert plc.hear("STATE").startswith("STATE Ready")
    assert "RECIPES 2" == plc.hear("RECIPES")


def test_a_result_is_pushed_and_ready_is_told(station: TcpTextController, plc: Peer) -> None:
    """The PLC need not ask: accepted, acquired, result, and ready again come by themselves."""
    assert "ACCEPTED 7 1" == plc.ask("TRIGGER 7 1 A - -", "ACC", "REF")
    trigger = taken(station)
    station.set_state(StationState.SINGLE_EXECUTION)
    station.acquired(trigger)
    station.answer(record(trigger))
    station.set_state(StationState.READY)
    lines = [plc.hear("A", "R", "S") for _ in range(3)]
    assert ["ACQUIRED", "RESULT", "STATE"] == [line.split()[0] for line in lines]
    assert "ready=1" in lines[2]


def test_the_station_beats(plc: Peer) -> None:
    """The PLC can see that the station lives, without asking."""
    first = int(plc.hear("HEARTBEAT").split()[1])
    assert first < int(plc.hear("HEARTBEAT").split()[1])


@pytest.mark.parametrize("octets", [b"A" * 256, b"A" * 255 + b"\r\n", b"\x00" * 70_000])
def test_a_line_too_long_ends_the_connection(plc: Peer, octets: bytes) -> None:
    """No peer makes the station keep more than one line."""
    plc.socket.sendall(octets)
    assert plc.hear("ERROR").startswith("ERROR TOO_LONG")
    assert "" == plc.hear()


@pytest.mark.parametrize("station", [60_000], indirect=True)
def test_a_second_connection_reads_only(station: TcpTextController, plc: Peer) -> None:
    """While the writer is alive another one gets the state, and its trigger is refused."""
    plc.ask("RESULT?", "NONE")
    with Peer(station.config.port) as other:
        for _ in range(3):
            plc.ask("HEARTBEAT 1", "HEARTBEAT")
            assert other.ask("TRIGGER 7 1 A - -", "REF", "ACC").startswith("REFUSED 7 1 NOT_WRITER")
        assert other.ask("STATE?", "STATE").startswith("STATE Ready")
    assert station.wait(20) is None


def test_a_silent_writer_is_replaced(station: TcpTextController, plc: Peer) -> None:
    """A PLC that comes back need not wait for its old, half-open connection to be noticed."""
    assert "ACCEPTED 7 1" == plc.ask("TRIGGER 7 1 A - -", "ACC")
    station.answer(record(taken(station)))
    with Peer(station.config.port) as again:
        until(lambda: again.ask("RESULT?", "RESULT", "ERROR").startswith("RESULT 7 1 "))
        assert plc.hear("ERROR").startswith("ERROR REPLACED")
        assert "" == plc.hear()


@pytest.mark.parametrize("station", [60_000, 50], indirect=True)
def test_there_are_only_so_many_connections(station: TcpTextController) -> None:
    """One too many is told so while the others live; a silent one makes room."""
    with contextlib.ExitStack() as closed:
        for _ in range(3):
            closed.enter_context(Peer(station.config.port)).ask("VERSION?", "VERSION")
        if station.config.silent_ms > 50:
            late = closed.enter_context(Peer(station.config.port))
            assert late.hear("ERROR").startswith("ERROR TOO_MANY")
            return

        def is_let_in() -> bool:
            with Peer(station.config.port) as late:
                return sent(late.socket, b"VERSION?\r\n") and late.hear("VERSION", "ERROR").startswith("VERSION")

        until(is_let_in)


def test_an_idle_connection_is_closed() -> None:
    """A peer that says nothing, or never ends its line, does not hold its place for ever."""
    controller = TcpTextController(TcpTextConfig(port=free_port(), idle_ms=300))
    controller.open()
    try:
        with Peer(controller.config.port) as peer:
            peer.socket.sendall(b"STA")
            assert peer.hear("ERROR").startswith("ERROR IDLE")
            assert "" == peer.hear()
    finally:
        controller.close()


def test_a_peer_that_does_not_read_is_cut_off(station: TcpTextController) -> None:
    """What the station keeps for a peer is bounded, and the others are served meanwhile."""
    station.set_recipes(tuple(f"board-{number}" for number in range(1000)))
    deaf = socket.socket()
    try:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(10)
        deaf.connect(("127.0.0.1", station.config.port))
        until(lambda: not sent(deaf, b"RECIPES?\r\n"))
        with Peer(station.config.port) as plc:
            assert plc.ask("STATE?", "STATE").startswith("STATE Ready")
    finally:
        deaf.close()


def test_a_peer_that_talks_nonsense_is_cut_off(station: TcpTextController, plc: Peer) -> None:
    """A web browser or a port scanner does not fill the log."""
    for number in range(20):
        plc.say(f"GET /{number} HTTP/1.1")
    lines = [plc.hear("ERROR") for _ in range(21)]
    assert "wrong lines on end" in lines[-1]
    assert "" == plc.hear()


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes_do_no_harm(station: TcpTextController, seed: int) -> None:
    """Whatever arrives, no part comes of it and the next PLC is served."""
    import random

    noise = random.Random(seed)
    with Peer(station.config.port) as peer:
        try:
            for _ in range(40):
                peer.socket.sendall(noise.randbytes(noise.randrange(1, 400)) + noise.choice((b"", b"\n", b"\r\n")))
        except (ConnectionResetError, BrokenPipeError):
            assert "" == peer.hear("no such line")  # cut off, as it may be
    assert station.wait(20) is None
    with Peer(station.config.port) as plc:
        until(lambda: plc.ask("TRIGGER 7 1 A - -", "ACC", "REF").startswith("ACCEPTED"))
    taken(station)


def test_a_taken_port_is_named() -> None:
    """A port in use is a ControllerError with the port, the cause and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        controller = TcpTextController(TcpTextConfig(port=other.getsockname()[1]))
        with pytest.raises(ControllerError, match=r"port \d+: Address already in use\n") as caught:
            controller.open()
    assert "another port" in caught.value.fix


def test_the_port_is_free_again_after_close(station: TcpTextController, plc: Peer) -> None:
    """A station can be restarted at once, even with a PLC connected, and waiting on a closed one is an error."""
    plc.ask("VERSION?", "VERSION")
    station.close()
    station.set_state(StationState.HALTED)
    with pytest.raises(ControllerError, match="not running"):
        station.wait(LIMIT_MS)
    again = TcpTextController(station.config)
    again.open()
    again.close()


@pytest.mark.parametrize("wrong", [{"port": 0}, {"connections": 0}, {"idle_ms": 0}, {"prot": 8500}])
def test_a_wrong_config_is_refused(wrong: dict[str, int]) -> None:
    """Unknown keys and values out of range do not pass."""
    with pytest.raises(ValidationError):
        TcpTextConfig.model_validate(wrong)


# Whole runs against a PLC in another language


class NodePlc:
    """text_plc.js as a child process; ``results`` are the JSON lines it printed so far."""

    def __init__(self, port: int, run: int, first: int, last: int, manner: str = "ACK") -> None:
        node = shutil.which("node")
        if node is None:
            pytest.skip("node plays the PLC; install it with: apt-get install nodejs")
        command = [node, str(HERE / "text_plc.js"), *map(str, (port, run, first, last)), manner]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.results: list[dict[str, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                self.results.append(json.loads(line))

    def finish(self, limit_s: float = 300.0) -> None:
        assert 0 == self.process.wait(timeout=limit_s)

    def __enter__(self) -> "NodePlc":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(timeout=10)
        self._reader.join(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def matched(results: list[dict[str, str]], bench: Bench, run: int) -> None:
    """Each result has the verdict and the record of its own part, and no record stands for two parts."""
    for result in results:
        kept = bench.records[f"{run:08x}-{int(result['sequence']):010d}"]
        assert (kept.judgement.verdict.name, kept.record_id) == (result["verdict"], result["record"])
    assert len({result["record"] for result in results}) == len({result["sequence"] for result in results})


@pytest.mark.parametrize("manner", ["ACK", "MUTE"])
def test_a_thousand_parts_are_answered_once_and_rightly(station: TcpTextController, manner: str) -> None:
    """No answer is lost, doubled or another part's, whether the PLC acknowledges or never does."""
    with Bench(station) as bench, NodePlc(station.config.port, 9, 1, 1000, manner) as plc:
        plc.finish()
        until(lambda: len(plc.results) == 1000)
        assert list(range(1, 1001)) == [result["sequence"] for result in plc.results]
        matched(plc.results, bench, 9)
        assert (1000, 0) == (len(bench.records), bench.repeated)


def test_a_killed_plc_goes_on_where_it_was(station: TcpTextController) -> None:
    """Restarted with the same run, it gets the open part from its record, and none twice from a new image."""
    results: list[dict[str, str]] = []
    with Bench(station) as bench:
        for _ in range(4):
            first = int(results[-1]["sequence"]) if results else 1  # it kept the last number, not whether it was told
            with NodePlc(station.config.port, 9, first, 5000) as plc:
                seen = len(results)
                until(lambda plc=plc, seen=seen: len(plc.results) > 50 + seen % 7)
                plc.process.kill()
                plc.process.wait(timeout=10)
            results += plc.results
        matched(results, bench, 9)
        sequences = {int(result["sequence"]) for result in results}
        assert sequences == set(range(1, max(sequences) + 1))


def test_a_frozen_plc_neither_blocks_nor_loses(station: TcpTextController) -> None:
    """While it is frozen another may take over; thawed, it comes back when it may and finishes its run."""
    with Bench(station) as bench, NodePlc(station.config.port, 9, 1, 400) as plc:
        until(lambda: len(plc.results) > 50)
        plc.process.send_signal(signal.SIGSTOP)
        try:
            with Peer(station.config.port) as other:
                until(lambda: other.ask("TRIGGER 5 1 A - -", "ACC", "REF").startswith("ACCEPTED"))
                assert other.hear("RESULT").startswith("RESULT 5 1 ")
                other.ask("ACK 5 1", "ACKNOWLEDGED")
        finally:
            plc.process.send_signal(signal.SIGCONT)
        plc.finish()
        until(lambda: len(plc.results) == 400)
        assert list(range(1, 401)) == [result["sequence"] for result in plc.results]
        matched(plc.results, bench, 9)


def test_a_restarted_station_answers_from_its_records() -> None:
    """The station's process may end at any moment: the PLC presents its part again and finishes its run."""
    config = TcpTextConfig(port=free_port(), silent_ms=400)
    kept: dict[str, Record] = {}
    with NodePlc(config.port, 9, 1, 400) as plc:
        for last in (100, 250, 400):
            controller = TcpTextController(config)
            controller.open()
            try:
                bench = Bench(controller)
                bench.records = kept
                with bench:
                    until(lambda last=last: len(plc.results) >= last)
                    if last == 400:
                        plc.finish()
            finally:
                controller.close()
        assert list(range(1, 401)) == [result["sequence"] for result in plc.results]
        matched(plc.results, bench, 9)
        assert 400 == len(kept)


def answers_of(store: Path) -> dict[int, tuple[str, str]]:
    """Verdict and name of each record in the store, by its sequence."""
    with contextlib.closing(sqlite3.connect(store)) as database:
        rows = database.execute("SELECT trigger_id, verdict, record_id FROM records").fetchall()
    return {int(trigger_id.split("-")[1]): (Verdict(verdict).name, name) for trigger_id, verdict, name in rows}


def test_a_killed_station_answers_every_part_once(tmp_path: Path, root: Path) -> None:
    """The whole program killed in mid-run and started again: each part has one record, and the PLC heard that one."""
    port = free_port()
    config = tmp_path / "station.toml"
    config.write_text(STATION.format(recipe=root / "deploy" / "recipes" / "demo-pcb", port=port), encoding="utf-8")
    command = [sys.executable, "-m", "inspection", "run", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with NodePlc(port, 9, 1, 60) as plc, (tmp_path / "log").open("w") as log:
        for enough in (15, 35, 0):
            process = subprocess.Popen(command, cwd=root, stderr=log, stdout=log, env=environment)
            try:
                if enough:
                    until(lambda enough=enough: len(plc.results) >= enough, 300)
                else:
                    plc.finish()  # also after the last result it has something to hear: that its ACK was taken
            finally:
                process.kill()
                process.wait(timeout=30)
        assert list(range(1, 61)) == [result["sequence"] for result in plc.results]
    kept = answers_of(tmp_path / "records.sqlite")
    assert 60 == len(kept)
    assert kept == {int(result["sequence"]): (result["verdict"], result["record"]) for result in plc.results}


def test_a_shell_is_enough(station: TcpTextController) -> None:
    """A technician can try a part by hand."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash plays the technician; install it with: apt-get install bash")
    script = f"exec 3<>/dev/tcp/127.0.0.1/{station.config.port}; echo TRIGGER 1 17 SN-1 - - >&3; grep -m1 RESULT <&3"
    with Bench(station):
        done = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("RESULT 1 17 ")
