"""The OPC UA controller with node-opcua as the line: nothing lost, nothing doubled, and nobody let in who must not."""

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inspection.controllers import StationState
from inspection.controllers.opcua.config import OpcUaConfig
from inspection.controllers.opcua.controller import OpcUaController
from inspection.controllers.opcua.jobs import (
    RESULTS_KEPT,
    Automatic,
    Jobs,
    JobStarted,
    Order,
    Refusal,
    Result,
    ResultState,
    Vision,
)
from inspection.controllers.opcua.security import hashed, matches, read_users, server_identity
from inspection.errors import ConfigError, ControllerError
from inspection.types import (
    Detection,
    Judgement,
    PrepareRecipe,
    Reason,
    Record,
    Region,
    Trigger,
    Verdict,
    utc_now,
)

HERE = Path(__file__).resolve().parent
LIMIT_S = 120.0
PART = Order("line-7", "SN-7", "board-a", "", "L9")
VISION_STATE = "/2:VisionStateMachine/CurrentState"
AUTOMATIC_STATE = "/2:VisionStateMachine/2:AutomaticModeStateMachine/CurrentState"


def node_modules() -> Path | None:
    """Where node-opcua is installed."""
    root = Path(__file__).resolve().parents[2]
    named = os.environ.get("LINESIDE_NODE_MODULES")
    places = [Path(named)] if named else []
    places += [root / "node_modules", Path("/usr/lib/node_modules")]
    return next((place for place in places if (place / "node-opcua").is_dir()), None)


needs_node = pytest.mark.skipif(
    shutil.which("node") is None or node_modules() is None,
    reason="node-opcua is missing: npm install node-opcua@2.182.2 (and name its node_modules in LINESIDE_NODE_MODULES)",
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline_s = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, "did not come about in time"
        time.sleep(0.01)
    return value


def judged(trigger: Trigger) -> Record:
    """A record whose verdict follows from the part's number: NG for every third one, with a finding."""
    found = Detection("short", 0.75, Region((1.0, 2.0, 3.0, 4.0)))
    bad = Judgement(Verdict.NG, (Reason("ng.short", "a short", (found,)),))
    judgement = bad if trigger.sequence % 3 == 0 else Judgement(Verdict.OK)
    return Record(trigger, judgement, (found,), ("f",), "sha", "model", "st1", (), True, utc_now(), recipe_id="board-a")


class Stand:
    """A station reduced to its loop: one record a trigger, repeats answered from the record."""

    def __init__(self, config: OpcUaConfig) -> None:
        self.controller = OpcUaController(config)
        self.records: dict[str, Record] = {}
        self.asked_again = 0
        self.refuses = ""
        self.go_on = threading.Event()
        self.go_on.set()
        self.holds = threading.Event()  # a part is in hand and waits until it may go on
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.controller.set_recipe("board-a", ("short",))
        self.controller.set_recipes(("board-a", "board-b", "board-c"))
        self.controller.open()
        self._thread.start()
        until(lambda: self.controller._jobs.shown.automatic == Automatic.READY)

    @property
    def url(self) -> str:
        return self.controller.config.endpoint

    def _run(self) -> None:
        while not self._stop.is_set():
            self.controller.set_state(StationState.READY)
            wanted = self.controller.wait(50)
            if isinstance(wanted, PrepareRecipe):
                refused = wanted.recipe_id == self.refuses
                self.controller.prepared(wanted.recipe_id, Reason("recipe.seal", "seal broken") if refused else None)
            elif wanted is not None:
                self._serve(wanted)

    def _serve(self, trigger: Trigger) -> None:
        self.controller.set_state(StationState.SINGLE_EXECUTION)
        self.controller.acquired(trigger)
        if not self.go_on.is_set():
            self.holds.set()
            self.go_on.wait(LIMIT_S)
        if trigger.trigger_id in self.records:
            self.asked_again += 1
        self.controller.answer(self.records.setdefault(trigger.trigger_id, judged(trigger)))

    def close(self) -> None:
        self._stop.set()
        self.go_on.set()
        self._thread.join()
        self.controller.close()


class Plc:
    """A node-opcua client in a process of its own."""

    def __init__(self, store: Path) -> None:
        environment = {
            **os.environ,
            "NODE_PATH": str(node_modules()),
            "HOME": str(store),
            "XDG_CONFIG_HOME": str(store),
        }
        command = ["node", str(HERE / "opcua_line.js")]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._store = store
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("> "):
                self._answers.put(json.loads(line[2:]))

    def send(self, act: str, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"act": act, **command}) + "\n")
        self.process.stdin.flush()

    def next(self) -> dict[str, Any]:
        return self._answers.get(timeout=LIMIT_S)

    def ask(self, act: str, **command: Any) -> dict[str, Any]:
        self.send(act, **command)
        return self.next()

    def connect(self, url: str, **security: Any) -> dict[str, Any]:
        return self.ask("connect", url=url, store=str(self._store / "store"), **security)

    def call(self, on: str, method: str, *arguments: Any) -> Any:
        """Output arguments; a status that is not Good in their place."""
        done = self.ask("call", object=on, method=method, arguments=list(arguments))
        return done["out"] if done.get("status") == "Good" else done.get("status", done)

    def start(self, number: int | str, method: str = "StartSingleJob", prefix: str = "line", **other: Any) -> Any:
        part, recipe, lot = (
            other.get("part", f"SN-{number}"),
            other.get("recipe", "board-a"),
            other.get("lot", "lot=L9"),
        )
        meas = {"meas": f"{prefix}-{number}"} if prefix else None
        return self.call("automatic", method, meas, {"part": part}, {"recipe": recipe}, None, {"list": [lot]})

    def heard(self, name: str, **fits: Any) -> dict[str, Any]:
        event = self.ask("heard", fits={"name": name, **fits})["event"]
        assert event is not None, f"no event {name} {fits}"
        return dict(event)

    def states(self) -> tuple[str, str]:
        return self.ask("read", path=VISION_STATE)["value"], self.ask("read", path=AUTOMATIC_STATE)["value"]

    def parts(self, count: int, first: int = 1, prefix: str = "line") -> Iterator[dict[str, Any]]:
        self.send("parts", first=first, count=count, prefix=prefix)
        return self.answers()

    def answers(self) -> Iterator[dict[str, Any]]:
        while "done" not in (answer := self.next()):
            yield answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where node-opcua keeps its certificates: made once."""
    return tmp_path_factory.mktemp("node-opcua")


@pytest.fixture
def stand() -> Iterator[Stand]:
    made = Stand(OpcUaConfig(port=free_port()))
    yield made
    made.close()


@pytest.fixture
def plcs(store: Path) -> Iterator[Callable[[], Plc]]:
    made: list[Plc] = []

    def another() -> Plc:
        made.append(Plc(store))
        return made[-1]

    yield another
    for plc in made:
        plc.close()


@pytest.fixture
def plc(stand: Stand, plcs: Callable[[], Plc]) -> Plc:
    return joined(stand, plcs())


def joined(stand: Stand, plc: Plc) -> Plc:
    assert plc.connect(stand.url) == {}
    assert plc.ask("listen") == {}
    return plc


def check(answer: dict[str, Any], number: int) -> None:
    """This result belongs to this part and says what the station judged."""
    verdict = Verdict.NG if number % 3 == 0 else Verdict.OK
    assert (answer["part"], answer["state"], answer["results"], answer["ready"]) == (f"SN-{number}", 1, 1, True), answer
    ng = verdict == Verdict.NG
    assert answer["content"] == [
        int(verdict), verdict.name, int(ng), int(ng), ["ng.short"] * ng, ["a short"] * ng, ["short"] * ng, [0.75] * ng,
        [1.0, 2.0, 3.0, 4.0] * ng, f"SN-{number}",
    ]  # fmt: skip


# Many parts, and clients that fail


@needs_node
def test_a_thousand_parts_are_answered_once_each_with_their_own_result(stand: Stand, plc: Plc) -> None:
    """No answer is lost, doubled or mismatched in a thousand parts, and each has one record."""
    answers = list(plc.parts(1000))
    for number, answer in enumerate(answers, 1):
        check(answer, number)
    assert len({answer["job"] for answer in answers}) == len({answer["result"] for answer in answers}) == 1000
    assert (len(stand.records), stand.asked_again) == (1000, 0)
    assert {record.trigger.lot for record in stand.records.values()} == {"L9"}
    ms = sorted(answer["ms"] for answer in answers)
    print(f"call to ResultReady: median {ms[500]:.1f} ms, p99 {ms[990]:.1f} ms, largest {ms[-1]:.1f} ms")


@needs_node
def test_a_client_killed_in_mid_run_gets_what_it_missed(stand: Stand, plcs: Callable[[], Plc]) -> None:
    """After a kill the line asks by JobId, by ResultId and by the same MeasId, and hears the same result each time."""
    first = joined(stand, plcs())
    for number, answer in zip(range(1, 21), first.parts(1000), strict=False):
        check(answer, number)
    stand.go_on.clear()
    until(stand.holds.is_set)
    first.process.send_signal(signal.SIGKILL)
    missed = stand.controller._jobs._job
    assert missed is not None
    stand.go_on.set()
    until(lambda: missed.job_id in stand.records)
    number = missed.trigger.sequence

    again = joined(stand, plcs())
    by_job = again.call("results", "GetResultById", {"result": missed.job_id}, {"int": 0})[1]
    assert (by_job["partId"], by_job["measId"]) == (f"SN-{number}", f"line-{number}")
    by_id = again.call("results", "GetResultById", {"result": by_job["resultId"]}, {"int": 0})[1]
    assert by_id == by_job
    (repeated,) = again.parts(1, first=number)
    check(repeated, number)
    assert (repeated["job"], repeated["result"]) == (missed.job_id, by_job["resultId"])
    assert len(stand.records) == number
    for following, answer in enumerate(again.parts(50, first=number + 1), number + 1):
        check(answer, following)


@needs_node
def test_a_frozen_client_does_not_hold_up_another_and_loses_nothing(stand: Stand, plcs: Callable[[], Plc]) -> None:
    """While one client stands still another one works; woken up, the first goes on where it was."""
    frozen, other = joined(stand, plcs()), joined(stand, plcs())
    run = frozen.parts(200, prefix="frozen")
    for number, answer in zip(range(1, 31), run, strict=False):
        check(answer, number)
    frozen.process.send_signal(signal.SIGSTOP)
    for number, answer in enumerate(other.parts(50, prefix="other"), 1):
        check(answer, number)
    frozen.process.send_signal(signal.SIGCONT)
    answers = [answer for answer in run if "error" not in answer]
    for number, answer in enumerate(answers, 31):
        check(answer, number)
    assert len(stand.records) == 250


@needs_node
def test_the_same_measid_while_in_progress_is_one_job(stand: Stand, plc: Plc) -> None:
    """A call whose reply was lost can be made again: same JobId, one record, one ResultReady."""
    stand.go_on.clear()
    first, again = plc.start(1), plc.start(1)
    assert first == again
    assert first[1] == 0
    stand.go_on.set()
    plc.heard("Ready", job=first[0])
    names = [event["name"] for event in plc.ask("events")["events"] if event["job"] == first[0]]
    assert names == ["JobStarted", "AcquisitionDone", "ResultReady", "Ready"]
    assert len(stand.records) == 1


@needs_node
def test_a_second_client_is_refused_while_a_job_is_in_progress(stand: Stand, plcs: Callable[[], Plc]) -> None:
    """One part at a time, whoever asks: the second one hears BUSY and its part is not inspected."""
    one, two = joined(stand, plcs()), joined(stand, plcs())
    stand.go_on.clear()
    assert one.start(1)[1] == Refusal.NONE
    assert two.start(2) == ["", Refusal.BUSY]
    stand.go_on.set()
    one.heard("Ready")
    assert two.start(2)[1] == Refusal.NONE
    two.heard("ResultReady", part="SN-2")
    assert len(stand.records) == 2


# Methods and states


@needs_node
def test_methods_and_states(stand: Stand, plc: Plc) -> None:
    """Halt, Reset and SelectModeAutomatic lead through the states, shown with their ids and numbers."""
    assert plc.states() == ("Operational", "Ready")
    assert [plc.ask("read", path=f"{AUTOMATIC_STATE}/{what}")["value"] for what in ("Id", "Number")] == [
        "ns=2;i=5057",
        6,
    ]
    assert plc.call("automatic", "Stop", {"int": 0}, {"text": ""}) == [Refusal.WRONG_STATE]
    assert plc.call("machine", "Halt", {"int": 0}, {"text": "maintenance"}) == [0]
    assert plc.heard("StateChanged", to="Halted")
    assert [plc.ask("read", path=f"{VISION_STATE}/{what}")["value"] for what in ("Id", "Number")] == ["ns=2;i=5029", 2]
    assert plc.start(1) == ["", Refusal.HALTED]
    assert plc.call("machine", "SelectModeAutomatic") == [Refusal.HALTED]
    assert plc.call("machine", "Reset", {"int": 0}, {"text": ""}) == [0]
    assert plc.heard("StateChanged", to="Preoperational")
    assert plc.start(1) == ["", Refusal.NOT_READY]
    assert plc.call("machine", "SelectModeAutomatic") == [0]
    plc.heard("StateChanged", to="Operational")
    assert plc.states() == ("Operational", "Ready")
    assert plc.start(1)[1] == 0
    plc.heard("ResultReady", part="SN-1")


@needs_node
def test_recipes_are_listed_prepared_and_taken_away(stand: Stand, plc: Plc) -> None:
    """The list is the station's; without a prepared recipe there is no job; a refusal is told with its reason."""
    stand.refuses = "board-c"
    listed = plc.call("recipes", "GetRecipeListFiltered", None, None, {"int": 2}, {"uint": 0}, {"uint": 0}, {"int": 0})
    assert listed == [True, 3, 0, ["board-a", "board-b", "board-c"], 0]
    assert plc.call("recipes", "UnprepareRecipe", {"recipe": "board-a"}, None) == ["board-a", 0]
    plc.heard("StateChanged", to="Initialized")
    assert plc.start(1) == ["", Refusal.NOT_READY]
    assert plc.call("recipes", "PrepareRecipe", {"recipe": "board-x"}, None)[2] == Refusal.UNKNOWN_RECIPE
    assert plc.call("recipes", "PrepareRecipe", {"recipe": "board-c"}, None) == [
        "board-c",
        False,
        Refusal.RECIPE_REFUSED,
    ]
    assert "seal broken" in plc.ask("read", path="/3:Station/3:LastRefusal")["value"]
    assert plc.call("recipes", "PrepareRecipe", None, {"internal": "board-b"}) == ["board-b", True, 0]
    assert plc.heard("RecipePrepared", recipe="board-b")
    plc.heard("StateChanged", to="Ready")
    assert plc.start(1)[1] == 0


@needs_node
def test_what_is_wrong_with_a_job_is_told_by_number(stand: Stand, plc: Plc) -> None:
    """Control characters, an unknown recipe, an unknown parameter and too few arguments start nothing."""
    assert plc.start(1, part="SN\x07") == ["", Refusal.BAD_TEXT]
    assert plc.start(1, part="x" * 129) == ["", Refusal.BAD_TEXT]
    assert plc.start(1, recipe="board-x") == ["", Refusal.UNKNOWN_RECIPE]
    assert plc.start(1, lot="colour=red") == ["", Refusal.BAD_PARAMETER]
    assert plc.call("automatic", "StartSingleJob") == "BadArgumentsMissing"
    assert plc.call("results", "GetResultById", {"result": "nobody"}, {"int": 0})[2] == Refusal.UNKNOWN_RESULT
    assert stand.records == {}


@needs_node
def test_continuous_execution_until_stop(stand: Stand, plc: Plc) -> None:
    """Part follows part with a running number, each a job of its own, and Stop ends after the part in hand."""
    job, error = plc.start("run", "StartContinuous", part="BOARD")
    assert error == 0
    plc.heard("ResultReady", part="BOARD-000005")
    assert plc.start(1) == ["", Refusal.BUSY]
    assert plc.call("automatic", "Stop", {"int": 0}, {"text": ""}) == [0]
    plc.heard("Ready")
    count = len(stand.records)
    results = [event for event in plc.ask("events")["events"] if event["name"] == "ResultReady"]
    assert [event["part"] for event in results] == [f"BOARD-{number:06d}" for number in range(1, count + 1)]
    assert results[0]["job"] == job
    assert plc.states() == ("Operational", "Ready")


@needs_node
def test_an_aborted_job_has_one_record_and_never_passes_its_part(stand: Stand, plc: Plc) -> None:
    """Abort is answered by one ResultReady with ResultState 3 and verdict ERROR, and the record is still made."""
    stand.go_on.clear()
    job, _ = plc.start(1)
    assert plc.call("automatic", "Abort", {"int": 0}, {"text": ""}) == [0]
    assert plc.start(2) == ["", Refusal.BUSY]
    stand.go_on.set()
    plc.heard("Ready", job=job)
    results = [event for event in plc.ask("events")["events"] if event["name"] == "ResultReady"]
    assert [(event["state"], event["content"][:2]) for event in results] == [(ResultState.ABORTED, [0, "ERROR"])]
    assert list(stand.records) == [job]


@needs_node
def test_nothing_can_be_written_and_only_what_is_served_is_shown(stand: Stand, plc: Plc) -> None:
    """States and results are read only, and parts of the specification that are not served are not there."""
    status = plc.ask("write", path="/3:Station/3:LastVerdict", type="Int32", value=1)["status"]
    assert status == "BadUserAccessDenied"
    assert set(plc.ask("browse", path="")["names"]) == {
        "RecipeManagement", "ResultManagement", "VisionStateMachine", "Station",
    }  # fmt: skip
    before = plc.ask("read", path="/3:Station/3:Heartbeat")["value"]
    until(lambda: plc.ask("read", path="/3:Station/3:Heartbeat")["value"] > before)
    assert plc.start(3)[1] == 0
    until(lambda: plc.ask("read", path="/3:Station/3:LastPartId")["value"] == "SN-3")
    until(lambda: plc.ask("read", path="/3:Station/3:LastVerdictName")["value"] == "NG")


@needs_node
def test_results_are_listed_by_part(stand: Stand, plc: Plc) -> None:
    """GetResultListFiltered finds the results of one part among others."""
    list(plc.parts(5))
    empty = [{"int": 0}, None]
    rest = [None, None, None, None, None, None, {"uint": 0}, {"uint": 0}, {"int": 0}]
    whole, count, _, results, error = plc.call("results", "GetResultListFiltered", *empty, {"part": "SN-4"}, *rest)
    assert (whole, count, error, [one["partId"] for one in results]) == (True, 1, 0, ["SN-4"])
    assert plc.call("results", "GetResultListFiltered", *empty, None, *rest)[1] == 5


# Who is let in


def client_certificate(folder: Path, name: str, *, days: int = 30) -> tuple[dict[str, str], bytes]:
    """A self-signed certificate of a client: what the client needs, and its DER for the trusted folder."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject, now, uri = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
        datetime.now(UTC),
        f"urn:{name}",
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {"certificate": str(certificate), "key": str(secret), "uri": uri}, made.public_bytes(
        serialization.Encoding.DER
    )


@needs_node
def test_only_trusted_clients_with_the_right_password_come_in(tmp_path: Path, plcs: Callable[[], Plc]) -> None:
    """Wrong password, no password, untrusted certificate and an unencrypted channel are refused; the right one works."""
    users = tmp_path / "users"
    users.write_text(hashed("plc", "s3cret") + "\n")
    folder = tmp_path / "certificates"
    (folder / "trusted").mkdir(parents=True)
    good, der = client_certificate(tmp_path, "good")
    (folder / "trusted" / "good.der").write_bytes(der)
    bad, bad_der = client_certificate(tmp_path, "stranger")
    stand = Stand(
        OpcUaConfig(port=free_port(), security="sign_and_encrypt", users=str(users), certificates=str(folder))
    )
    try:
        right = {"user": "plc", "password": "s3cret"}
        for refused in ({**good, "user": "plc", "password": "wrong"}, good, {**bad, **right}, right):
            assert "failed" in plcs().connect(stand.url, **refused), refused
            time.sleep(0.6)  # after a wrong password the next ones are not looked at for half a second
        assert [path.read_bytes() for path in (folder / "rejected").iterdir()] == [bad_der]
        plc = plcs()
        assert plc.connect(stand.url, **good, **right) == {}
        assert plc.ask("listen") == {}
        for number, answer in enumerate(plc.parts(20), 1):
            check(answer, number)
        assert len(stand.records) == 20
    finally:
        stand.close()


def test_a_session_must_be_activated_on_its_own_connection(stand: Stand) -> None:
    """Before it has logged in, and with the number of another's session, a connection may not do anything."""
    import asyncio

    from asyncua import Client, ua

    async def read(client: Client) -> Any:
        return await client.get_node(ua.ObjectIds.Server_ServerStatus_State).read_value()

    async def attack() -> None:
        client = Client(stand.url)
        async with client:
            assert await read(client) is not None
            token = client.uaclient.protocol.authentication_token  # type: ignore[union-attr]
            thief = Client(stand.url)
            await thief.connect_socket()
            await thief.send_hello()
            await thief.open_secure_channel()
            with pytest.raises(ua.UaStatusCodeError, match="BadSessionIdInvalid"):
                await read(thief)
            thief.uaclient.protocol.authentication_token = token  # type: ignore[union-attr]
            with pytest.raises(ua.UaStatusCodeError):
                await thief.activate_session()
            with pytest.raises(ua.UaStatusCodeError, match="BadSessionIdInvalid"):
                await read(thief)
            await thief.create_session()
            with pytest.raises(ua.UaStatusCodeError, match="BadSessionNotActivated"):
                await read(thief)
            thief.disconnect_socket()
            assert await read(client) is not None

    asyncio.run(attack())


@needs_node
def test_hostile_bytes_do_not_disturb_the_running_client(stand: Stand, plc: Plc) -> None:
    """Random bytes, half greetings, huge sizes, slow senders and fifty idle connections: every part is still answered."""
    run = plc.parts(150)
    check(next(run), 1)
    address = ("127.0.0.1", stand.controller.config.port)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(address))
        attacks = [
            os.urandom(4096), b"HELF", b"HELF\x20\x00\x00\x00\x00", b"HELF\xff\xff\xff\xff" + b"A" * 3_000_000,
            b"MSGF\x00\x00\x00\x00", b"OPNF\x10\x00\x00\x00" + bytes(8), b"GET / HTTP/1.1\r\n\r\n",
            b"MSGF\x18\x00\x00\x00" + os.urandom(16), b"HELF\x08\x00\x00\x00",
        ]  # fmt: skip
        for attack in attacks:
            rude = stack.enter_context(socket.create_connection(address))
            rude.settimeout(5)
            with contextlib.suppress(ConnectionError, TimeoutError):
                rude.sendall(attack)
        slow = stack.enter_context(socket.create_connection(address))
        with contextlib.suppress(ConnectionError):  # where that takes too long it is cut off, as it may be
            for octet in b"HELF\x20\x00\x00\x00":
                slow.sendall(bytes([octet]))
                time.sleep(0.02)
        for number, answer in enumerate(run, 2):
            check(answer, number)
    assert len(stand.records) == 150


# The server's own affairs


def test_a_taken_port_is_named() -> None:
    """A port in use is a ControllerError with the port and the cause."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ControllerError, match=rf"port {port}: Address already in use"):
            OpcUaController(OpcUaConfig(port=port)).open()


def test_missing_asyncua_names_the_install_line() -> None:
    """Without asyncua the module imports and configures; only open fails, with the pip line."""
    program = (
        "import sys; sys.modules['asyncua'] = None\n"
        "from inspection.controllers.opcua.config import OpcUaConfig\n"
        "from inspection.controllers.opcua.controller import OpcUaController\n"
        "from inspection.errors import DriverMissing\n"
        "try: OpcUaController(OpcUaConfig()).open()\n"
        "except DriverMissing as error: print(error.fix)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert done.stdout.strip() == 'pip install "lineside[opcua]"'


@pytest.mark.parametrize(
    "wrong",
    [{"host": "0.0.0.0"}, {"security": "sign_and_encrypt"}, {"path": "a b"}, {"port": 0}, {"secrity": "none"}],
)
def test_a_config_that_lets_nobody_in_or_everybody_unasked_is_refused(wrong: dict[str, Any]) -> None:
    """Anonymous clients come in from this machine only, unless it is said that they may."""
    with pytest.raises(ValidationError):
        OpcUaConfig(**wrong)


def test_anonymous_clients_can_be_allowed_on_purpose() -> None:
    """allow_anonymous says it; a users file takes the loopback's leave away."""
    assert OpcUaConfig(host="0.0.0.0", allow_anonymous=True).anonymous
    assert OpcUaConfig().anonymous
    assert not OpcUaConfig(users="users").anonymous


def test_paths_count_from_the_station_file(tmp_path: Path) -> None:
    """users and certificates lie beside station.toml."""
    config = OpcUaConfig(users="users").from_folder(tmp_path)
    assert (config.users, config.certificates) == (str(tmp_path / "users"), str(tmp_path / "opcua-certificates"))


def test_the_password_command_writes_a_line_that_opens(tmp_path: Path) -> None:
    """The line on stdout is a user whose password fits, and no other one does."""
    command = [sys.executable, "-m", "inspection.controllers.opcua", "password", "plc"]
    done = subprocess.run(command, input="pässword\n", capture_output=True, text=True, check=True, timeout=LIMIT_S)
    (tmp_path / "users").write_text(done.stdout, encoding="utf-8")
    line = read_users(tmp_path / "users")["plc"]
    assert matches(line, "pässword")
    assert not matches(line, "password")
    assert "word" not in line


@pytest.mark.parametrize("line", ["plc", "plc:scrypt:1:2", "plc:md5:1:8:1:00:00", "plc:scrypt:99999999:8:1:00:00"])
def test_a_broken_users_file_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    """Nothing that is not a user is passed over."""
    (tmp_path / "users").write_text(f"# users\n{line}\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_users(tmp_path / "users")


def test_the_servers_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """Key and certificate survive a restart; the key is readable by nobody else; half a pair is refused."""
    certificate, key = server_identity(tmp_path / "c", "urn:a", "127.0.0.1")
    before = certificate.read_bytes(), key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
    server_identity(tmp_path / "c", "urn:a", "127.0.0.1")
    assert before == (certificate.read_bytes(), key.read_bytes())
    certificate.unlink()
    with pytest.raises(ConfigError, match="only one"):
        server_identity(tmp_path / "c", "urn:a", "127.0.0.1")


# The exchange without network


def ready() -> Jobs:
    jobs = Jobs(recipe_ids=("board-a",))
    jobs.set_state(StationState.READY)
    jobs.drain()
    return jobs


def test_a_measid_always_gives_the_same_trigger() -> None:
    """In another run of the station too: it is answered from its record."""
    first, second = ready(), ready()
    ids = [jobs.start_single(PART, now=utc_now())[0] for jobs in (first, second)]
    assert ids[0] == ids[1]
    assert ids[0].endswith("-0000000007")
    without = [jobs.start_single(replace(PART, meas_id=""), now=utc_now())[0] for jobs in (ready(), ready())]
    assert without[0] != without[1]


@given(st.text())
def test_any_text_is_taken_whole_or_refused(text: str) -> None:
    """A serial reaches the record as the line wrote it, or the job is refused as BAD_TEXT."""
    jobs = ready()
    _, refusal = jobs.start_single(Order(part_id=text), now=utc_now())
    trigger = jobs.take(now=utc_now())
    assert refusal == (Refusal.NONE if len(text) <= 128 and text.isprintable() else Refusal.BAD_TEXT)
    assert (trigger.serial if isinstance(trigger, Trigger) else None) == (None if refusal else text)


@given(st.lists(st.sampled_from(["start", "again", "series", "stop", "abort", "halt", "reset", "auto", "turn"])))
def test_every_accepted_job_ends_with_one_result(steps: list[str]) -> None:
    """Whatever the line does in whatever order: as many results as jobs, each under its own number."""
    jobs, heard, number = ready(), list[Any](), 0

    def turn() -> None:
        jobs.set_state(StationState.READY)
        heard.extend(jobs.drain())
        wanted = jobs.take(now=utc_now())
        if isinstance(wanted, Trigger):
            jobs.set_state(StationState.SINGLE_EXECUTION)
            jobs.answer(judged(wanted))
            jobs.set_state(StationState.READY)

    for step in steps:
        number += step != "again"
        order = Order(f"m-{number}", f"S{number}")
        {
            "start": lambda order=order: jobs.start_single(order, now=utc_now()),
            "again": lambda order=order: jobs.start_single(order, now=utc_now()),
            "series": lambda order=order: jobs.start_continuous(order, now=utc_now()),
            "stop": jobs.stop,
            "abort": jobs.abort,
            "halt": jobs.halt,
            "reset": jobs.reset,
            "auto": jobs.select_automatic,
            "turn": turn,
        }[step]()
        heard += jobs.drain()
    jobs.stop()
    turn()
    heard += jobs.drain()
    started = [one.job_id for one in heard if isinstance(one, JobStarted)]
    ended = [one.job_id for one in heard if isinstance(one, Result)]
    assert started == ended
    assert jobs.shown.automatic in (Automatic.NONE, Automatic.READY)
    assert (jobs.shown.vision == Vision.OPERATIONAL) == (jobs.shown.automatic == Automatic.READY)


def test_the_last_thousand_results_are_kept() -> None:
    """Older ones are forgotten here; the station has their records."""
    jobs = ready()
    for number in range(RESULTS_KEPT + 5):
        jobs.start_single(Order(f"m-{number}"), now=utc_now())
        trigger = jobs.take(now=utc_now())
        assert isinstance(trigger, Trigger)
        jobs.answer(judged(trigger))
        jobs.set_state(StationState.READY)
        jobs.drain()
    assert len(jobs.results) == RESULTS_KEPT
    assert jobs.find("m-4") is None
    assert jobs.find("m-5") is not None
