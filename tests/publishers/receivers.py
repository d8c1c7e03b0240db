"""Real receivers as child processes, each of which can be killed, frozen and started again where it was."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion

from inspection.publishers import Message
from inspection.publishers.folder import FolderConfig
from inspection.publishers.mqtt import MqttConfig
from inspection.publishers.postgres import PostgresConfig
from inspection.publishers.webhook import WebhookConfig
from inspection.store import Store
from inspection.types import Judgement, LateResult, Reason, Record, Trigger, Verdict

STATION = "st1"
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
PG_BIN = Path("/usr/lib/postgresql")
SECRET = "s3cret-Pa55"
WEB_SERVER = Path(__file__).with_name("web_server.py")
PATIENT_S = 30.0  # no machine is so slow that a receiver that lives needs longer
HASTY_S = 1.0  # for receivers that are not to answer

Arrived = list[tuple[str, str]]  # kind and key, in the order of arrival


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], limit_s: float = 120.0) -> Any:
    """The first true value of ``condition``, asked again and again for a bounded time."""
    deadline_s = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, "did not come about in time"
        time.sleep(0.02)
    return value


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_record(number: int, *, serial: str = "") -> Record:
    trigger = Trigger(f"t{number}", serial or f"S{number}", "L1", "board-a", AT, number)
    judgement = Judgement(Verdict.NG, (Reason("ng.short", "a short, 0.9"),)) if number % 2 else Judgement(Verdict.OK)
    return Record(
        trigger, judgement, (), ("f",), "a", "b", STATION, (("total", 1.5),), True, AT, record_id=f"r{number:06d}"
    )


def make_late() -> LateResult:
    return LateResult(Judgement(Verdict.OK), (), (), AT)


def message(number: int, *, serial: str = "") -> Message:
    made = make_record(number, serial=serial)
    return Message(number, "record", made.record_id, made.to_json())


def late_message(number: int, of: int) -> Message:
    return Message(number, "late", f"r{of:06d}", f'{{"record_id":"r{of:06d}","late":{make_late().to_json()}}}')


def gap_message(first: int, last: int) -> Message:
    return Message(last, "gap", "", json.dumps({"station_id": STATION, "first_sequence": first, "last_sequence": last}))


def open_store(path: Path) -> Store:
    """A store with outbox that does not wait for the disk: power cuts are not what these tests are about."""
    store = Store(path, outbox=True)
    store._file._connection.execute("PRAGMA synchronous = OFF")
    return store


def fill(store: Store, numbers: range) -> None:
    for number in numbers:
        made = make_record(number)
        store.accept(made.trigger)
        store.commit(made)


def first_arrivals(arrived: Arrived) -> Arrived:
    return list(dict.fromkeys(arrived))


def make_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """PEM files of an authority, and of a server's certificate and key for 127.0.0.1 that it signed."""
    now, issuer = datetime.now(UTC), f"authority of {folder.name}"
    paths = folder / "ca.pem", folder / "server.pem", folder / "server.key"

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
        )  # fmt: skip

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = builder(issuer, authority).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder("server", server).add_extension(address, False)
    paths[0].write_bytes(ca.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(signed.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        server.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


class Process:
    """A child process that can be stopped in every way."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None

    def family(self) -> Iterator[psutil.Process]:
        """The process, then those it has started, which are looked up when it has got the signal and starts no more."""
        assert self.child is not None
        parent = psutil.Process(self.child.pid)
        yield parent
        yield from parent.children(recursive=True)

    def signal(self, number: signal.Signals) -> None:
        for one in self.family():
            with suppress(psutil.NoSuchProcess):  # a database ends helpers of its own at any time
                one.send_signal(number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        child, self.child = self.child, None
        if child is None:
            return
        family = [psutil.Process(child.pid)] if child.poll() is None else []
        if family:
            child.send_signal(signal.SIGSTOP)  # it starts no further one that nobody would kill
            until(lambda: family[0].status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE))
            family += family[0].children(recursive=True)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        child.wait(timeout=10)
        psutil.wait_procs(family[1:], timeout=10)


class Mosquitto(Process):
    """A broker with a subscriber whose session survives the broker's end."""

    def __init__(self, folder: Path, *, settings: str = "", config: dict[str, Any] | None = None) -> None:
        super().__init__()
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(program).exists():
            pytest.skip("mosquitto is missing: apt-get install -y mosquitto")
        self.folder = folder / "mosquitto"
        self.folder.mkdir()
        self.port = free_port()
        self.program = program
        self.extra = config or {}
        self.settings = settings or "allow_anonymous true\n"
        self.arrived_messages: list[tuple[str, str, bool]] = []
        self.subscriber: paho.Client | None = None
        self.local = free_port()

    def config(self, **more: Any) -> MqttConfig:
        fields = {"host": "127.0.0.1", "port": self.port, "keepalive_s": 60, "timeout_s": PATIENT_S}
        return MqttConfig(**{**fields, **self.extra, **more})

    def start(self) -> None:
        conf = self.folder / "mosquitto.conf"
        # The second port is the subscriber's: it needs neither password nor certificate.
        conf.write_text(
            f"per_listener_settings true\nuser root\npersistence true\npersistence_location {self.folder}/\n"
            "autosave_on_changes true\nautosave_interval 1\nmax_inflight_messages 0\nmax_queued_messages 0\n"
            f"listener {self.local} 127.0.0.1\nallow_anonymous true\n"
            f"listener {self.port} 127.0.0.1\n{self.settings}"
        )
        self.child = subprocess.Popen([self.program, "-c", conf], stderr=subprocess.DEVNULL)
        until(lambda: listens(self.local) and listens(self.port))
        if self.subscriber is None:
            self._subscribe()

    def _subscribe(self) -> None:
        ready = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="test-reader", clean_session=False)
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda *_: client.subscribe("#", qos=1)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = lambda _, __, got: self.arrived_messages.append(
            (got.topic, got.payload.decode(), got.retain)
        )
        client.connect("127.0.0.1", self.local, keepalive=60)
        client.loop_start()
        assert ready.wait(60)
        until(self._keeps_the_subscriber)
        self.subscriber = client

    def _keeps_the_subscriber(self) -> bool:
        """Whether client and subscription are on the disk: a broker that is killed before that forgets them."""
        kept = self.folder / "mosquitto.db"
        return kept.exists() and kept.read_bytes().count(b"test-reader") >= 2

    def states(self) -> list[str]:
        return [payload for topic, payload, _ in list(self.arrived_messages) if topic.endswith("/state")]

    def arrived(self) -> Arrived:
        kinds = {"records": "record", "late": "late", "gaps": "gap"}
        found = []
        for topic, payload, _ in list(self.arrived_messages):
            kind = kinds.get(topic.rsplit("/", 1)[1])
            if kind:
                found.append((kind, json.loads(payload).get("record_id", "")))
        return found

    def close(self) -> None:
        if self.subscriber is not None:
            self.subscriber.disconnect()
            self.subscriber.loop_stop()
        self.kill()


class WebServer(Process):
    """A server in a process of its own that writes down what it accepts; what it answers can be changed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder / "web"
        self.folder.mkdir()
        self.port = free_port()
        self.log = self.folder / "requests.jsonl"
        self.log.touch()

    def config(self, **more: Any) -> WebhookConfig:
        return WebhookConfig(
            **{"url": f"http://127.0.0.1:{self.port}/records?key=hidden", "timeout_s": PATIENT_S, **more}
        )

    def start(self) -> None:
        self.child = subprocess.Popen([sys.executable, WEB_SERVER, str(self.port), self.folder])
        until(lambda: listens(self.port))

    def answer(self, status: int, key: str = "") -> None:
        """What is answered from now on: to all, or to one idempotency key only."""
        draft = self.folder / "answer.part"
        draft.write_text(f"{status} {key}")
        draft.replace(self.folder / "answer")

    def requests(self) -> list[dict[str, Any]]:
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def arrived(self) -> Arrived:
        return [
            (one["headers"]["lineside-kind"], json.loads(one["body"]).get("record_id", ""))
            for one in self.requests()
            if one["status"] < 300
        ]

    def close(self) -> None:
        self.kill()


class Postgres(Process):
    """A database of its own in a new folder, run by a user that is not root."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        found = sorted(PG_BIN.glob("*/bin/initdb"))
        if not found:
            pytest.skip("PostgreSQL is missing: apt-get install -y postgresql")
        self.programs = found[-1].parent
        self.user = pwd.getpwnam("postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
        # pytest's own folder is closed to other users.
        self.folder = Path(tempfile.mkdtemp(prefix="lineside-pg-"))
        self.password_file = folder / "pg-password"
        self.password_file.write_text(SECRET + "\n")
        self.port = free_port()
        self._prepare()

    def _as_user(self) -> dict[str, Any]:
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        password = self.folder / "pw"
        password.write_text(SECRET)
        password.chmod(0o644)
        subprocess.run(
            [self.programs / "initdb", "-D", self.folder / "db", "-U", "line", f"--pwfile={password}", "-A",
             "scram-sha-256", "--no-sync", "-E", "UTF8", "--no-locale"],
            check=True, capture_output=True, timeout=120, cwd=self.folder, **self._as_user(),
        )  # fmt: skip

    def config(self, **more: Any) -> PostgresConfig:
        fields = {"host": "127.0.0.1", "port": self.port, "database": "postgres", "user": "line"}
        return PostgresConfig(**{**fields, "timeout_s": PATIENT_S, "password_file": str(self.password_file), **more})

    def use_tls(self, certificate: Path, key: Path) -> None:
        """Offer encryption from the next start on."""
        for source, target in ((certificate, "server.crt"), (key, "server.key")):
            placed = self.folder / "db" / target
            placed.write_bytes(source.read_bytes())
            placed.chmod(0o600)
            if os.geteuid() == 0:
                os.chown(placed, self.user.pw_uid, self.user.pw_gid)
        with (self.folder / "db" / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\n")

    def start(self) -> None:
        (self.folder / "db" / "postmaster.pid").unlink(missing_ok=True)
        self.child = subprocess.Popen(
            [self.programs / "postgres", "-D", self.folder / "db", "-p", str(self.port), "-k", self.folder,
             "-c", "listen_addresses=127.0.0.1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, **self._as_user(),
        )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        try:
            self.rows("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, dbname="postgres", user="line", password=SECRET, connect_timeout=5
        ) as connection:
            return connection.execute(sql).fetchall()

    def arrived(self) -> Arrived:
        try:
            found = [("record", row[0]) for row in self.rows("SELECT record_id FROM lineside_records ORDER BY ctid")]
            found += [
                ("late", row[0]) for row in self.rows("SELECT record_id FROM lineside_late_results ORDER BY ctid")
            ]
            return found + [("gap", "") for _ in self.rows("SELECT 1 FROM lineside_gaps")]
        except psycopg.errors.UndefinedTable:
            return []

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Folder:
    """A folder that can be taken away, as a share is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "share"
        self.away = folder / "share-away"
        self.folder.mkdir()

    def config(self, **more: Any) -> FolderConfig:
        return FolderConfig(**{"folder": str(self.folder), "formats": ("jsonl", "csv"), **more})

    def start(self) -> None:
        if self.away.exists():
            self.away.rename(self.folder)

    def kill(self) -> None:
        self.folder.rename(self.away)

    def lines(self) -> list[dict[str, Any]]:
        found = sorted(self.folder.glob("records-*.jsonl"))
        whole = [path.read_text().rpartition("\n")[0] for path in found]  # what follows the last is still being written
        return [json.loads(line) for text in whole for line in text.splitlines()]

    def arrived(self) -> Arrived:
        return [(line["kind"], line["record_id"]) for line in self.lines()]

    def close(self) -> None:
        """Nothing runs."""


Receiver = Mosquitto | WebServer | Postgres | Folder
RECEIVERS: dict[str, Callable[[Path], Receiver]] = {
    "folder": Folder,
    "mqtt": Mosquitto,
    "postgres": Postgres,
    "webhook": WebServer,
}
