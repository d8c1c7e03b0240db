"""Records to PostgreSQL, a row each, for the view of a whole plant."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from inspection.errors import DriverMissing, PublisherError
from inspection.publishers import Message
from inspection.publishers.credentials import read_secret

_TABLES = {
    "records": """record_id text PRIMARY KEY, station_id text NOT NULL, sequence bigint NOT NULL, serial text NOT NULL,
        lot text NOT NULL, recipe_id text NOT NULL, verdict text NOT NULL, simulated boolean NOT NULL,
        judged_at timestamptz NOT NULL, received_at timestamptz NOT NULL DEFAULT now(), json jsonb NOT NULL""",
    "late_results": """record_id text PRIMARY KEY, station_id text NOT NULL, sequence bigint NOT NULL,
        verdict text NOT NULL, judged_at timestamptz NOT NULL, received_at timestamptz NOT NULL DEFAULT now(),
        json jsonb NOT NULL""",
    "gaps": """station_id text NOT NULL, first_sequence bigint NOT NULL, last_sequence bigint NOT NULL,
        received_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (station_id, first_sequence, last_sequence)""",
    "stations": "station_id text PRIMARY KEY, state text NOT NULL, at timestamptz NOT NULL",
}
_INDEXES = (("records", "judged_at"), ("records", "serial"), ("records", "lot"))
_LOCK = 0x6C696E65  # one station makes the tables, the others wait for it
_OF_KIND = {"record": "records", "late": "late_results", "gap": "gaps"}


class PostgresConfig(BaseModel):
    """Which database; its tables are PREFIX_records, PREFIX_late_results, PREFIX_gaps and PREFIX_stations."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    FILES: ClassVar[tuple[str, ...]] = ("password_file", "ca_file")

    kind: Literal["postgres"] = "postgres"
    host: str = Field(min_length=1, description="name or address of the server")
    port: int = Field(default=5432, ge=1, le=65535, description="TCP port")
    database: str = Field(min_length=1, description="name of the database, which must exist")
    user: str = Field(min_length=1, description="a role that may create tables there, or insert into them")
    password_file: str = Field(default="", description="file whose first line is the password, empty = ~/.pgpass")
    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer", description="encryption; only verify-full also makes sure that it is the right server"
    )
    ca_file: str = Field(default="", description="PEM file of the authority, for verify-ca and verify-full")
    prefix: str = Field(
        default="lineside", pattern=r"^[a-z_][a-z0-9_]*$", max_length=40, description="beginning of each table's name"
    )
    timeout_s: float = Field(default=10.0, ge=0.5, le=120, description="longest wait for the server, seconds")


class PostgresPublisher:
    """One connection; each call is one transaction, so a batch is there as a whole or not at all."""

    def __init__(self, config: PostgresConfig, *, station_id: str) -> None:
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise DriverMissing(
                f"the publisher 'postgres' needs psycopg 3, which cannot be imported: {error}",
                fix='pip install "lineside[postgres]"',
            ) from error
        self.config = config
        self._station_id = station_id
        self._connection: Any = None

    def open(self) -> None:
        """Connect, and create the tables where they are missing; PublisherError when that fails or takes too long."""
        import psycopg

        self.close()
        config = self.config
        password = read_secret(config.password_file, "password") if config.password_file else None
        limit_ms = int(config.timeout_s * 1000)
        with self._named():
            self._connection = psycopg.connect(
                host=config.host, port=config.port, dbname=config.database, user=config.user, password=password,
                sslmode=config.tls, sslrootcert=config.ca_file or None, application_name=f"lineside {self._station_id}",
                connect_timeout=max(2, round(config.timeout_s)), tcp_user_timeout=limit_ms, autocommit=True,
                options=f"-c statement_timeout={limit_ms} -c lock_timeout={limit_ms} -c synchronous_commit=on",
            )  # fmt: skip
        self._run(self._create)

    def publish(self, messages: Sequence[Message]) -> None:
        """Insert what is not there yet and commit; PublisherError when the server does not confirm in time."""
        self._run(lambda cursor: self._insert(cursor, messages))

    def show_state(self, state: str) -> None:
        """Keep the state and when it was told, one row a station."""
        sql = f"""INSERT INTO {self.config.prefix}_stations VALUES (%s, %s, now())
                  ON CONFLICT (station_id) DO UPDATE SET state = excluded.state, at = excluded.at"""
        self._run(lambda cursor: cursor.execute(sql, (self._station_id, state)))

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _create(self, cursor: Any) -> None:
        prefix = self.config.prefix
        cursor.execute(
            "SELECT count(to_regclass(name)) FROM unnest(%s::text[]) AS name", ([f"{prefix}_{t}" for t in _TABLES],)
        )
        if cursor.fetchone()[0] == len(_TABLES):
            return  # so a role without the right to create can use tables that were made for it
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        for table, columns in _TABLES.items():
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {prefix}_{table} ({columns})")
        for table, column in _INDEXES:
            cursor.execute(f"CREATE INDEX IF NOT EXISTS {prefix}_{table}_{column} ON {prefix}_{table} ({column})")

    def _insert(self, cursor: Any, messages: Sequence[Message]) -> None:
        start = 0
        while start < len(messages):
            kind, end = messages[start].kind, start + 1
            while end < len(messages) and messages[end].kind == kind:
                end += 1
            rows = [_ROWS[kind](message, self._station_id) for message in messages[start:end]]
            names = ", ".join(rows[0])
            places = ", ".join(["%s"] * len(rows[0]))
            sql = (
                f"INSERT INTO {self.config.prefix}_{_OF_KIND[kind]} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING"
            )
            cursor.executemany(sql, [tuple(row.values()) for row in rows])
            start = end

    def _run(self, work: Callable[[Any], object]) -> None:
        connection = self._connection
        if connection is None:
            raise self._failed("is not connected")
        with (
            self._named(), _cut_after(self.config.timeout_s, connection), connection.transaction(),
            connection.cursor() as cursor,
        ):  # fmt: skip
            work(cursor)

    @contextmanager
    def _named(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            # The first line only: the next ones may show the row.
            lines = str(error).strip().splitlines()
            raise self._failed(f"failed: {lines[0] if lines else type(error).__name__}") from None

    def _failed(self, how: str) -> PublisherError:
        return PublisherError(
            f"the database {self.config.database} on {self.config.host} port {self.config.port} {how}",
            fix="check that the server runs, its address, user, password, encryption and the rights of the user",
        )


@contextmanager
def _cut_after(limit_s: float, connection: Any) -> Iterator[None]:
    """Cut the connection when the server needs longer.

    A frozen server's system still acknowledges what it receives, so no time limit of TCP or of the server's own helps.
    """
    # The socket is doubled now: a descriptor that is looked up later may belong to another connection by then.
    with socket.socket(fileno=os.dup(connection.fileno())) as line:

        def cut() -> None:
            with suppress(OSError):  # it is gone already
                line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(limit_s, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _record_row(message: Message, station_id: str) -> dict[str, object]:
    body = _storable(json.loads(message.body))
    trigger = body["trigger"]
    return {
        "record_id": message.key, "station_id": body["station_id"], "sequence": message.sequence,
        "serial": body.get("read_serial") or trigger["serial"], "lot": trigger["lot"],
        "recipe_id": body.get("recipe_id") or trigger["recipe_id"], "verdict": body["judgement"]["verdict"],
        "simulated": body["simulated"], "judged_at": body["judged_at"], "json": json.dumps(body, ensure_ascii=False),
    }  # fmt: skip


def _late_row(message: Message, station_id: str) -> dict[str, object]:
    late = _storable(json.loads(message.body)["late"])
    return {
        "record_id": message.key, "station_id": station_id, "sequence": message.sequence,
        "verdict": late["judgement"]["verdict"], "judged_at": late["judged_at"],
        "json": json.dumps(late, ensure_ascii=False),
    }  # fmt: skip


def _gap_row(message: Message, station_id: str) -> dict[str, object]:
    body = json.loads(message.body)
    return {
        "station_id": station_id, "first_sequence": body["first_sequence"], "last_sequence": body["last_sequence"],
    }  # fmt: skip


_ROWS = {"record": _record_row, "late": _late_row, "gap": _gap_row}


def _storable(value: Any) -> Any:
    """The same without NUL characters, which PostgreSQL cannot keep: one such serial would block all that follow."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_storable(one) for one in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(one) for key, one in value.items()}
    return value
