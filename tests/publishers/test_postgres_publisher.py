"""The PostgreSQL publisher with a real server: rows, rights, encryption."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError
from receivers import SECRET, Postgres, gap_message, late_message, make_certificates, message

from inspection.errors import PublisherError
from inspection.publishers.postgres import PostgresConfig, PostgresPublisher


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    made = Postgres(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


def publish(config: PostgresConfig, *messages: Any) -> None:
    publisher = PostgresPublisher(config, station_id="st1")
    try:
        publisher.open()
        publisher.publish(messages)
        publisher.show_state("READY")
    finally:
        publisher.close()


def execute(server: Postgres, *statements: str) -> None:
    with psycopg.connect(
        host="127.0.0.1", port=server.port, dbname="postgres", user="line", password=SECRET, autocommit=True
    ) as connection:
        for statement in statements:
            connection.execute(statement)


def test_rows_hold_what_a_plant_asks_for(server: Postgres) -> None:
    """Columns to look for, and the whole record as JSON."""
    publish(server.config(), message(1, serial="A\0B"), late_message(2, of=1), gap_message(3, 9))
    assert [("r000001", "st1", 1, "A\ufffdB", "L1", "board-a", "NG", True, "a short, 0.9")] == server.rows(
        "SELECT record_id, station_id, sequence, serial, lot, recipe_id, verdict, simulated, "
        "json #>> '{judgement,reasons,0,text}' FROM lineside_records"
    )
    assert [("r000001", "OK")] == server.rows("SELECT record_id, verdict FROM lineside_late_results")
    assert [("st1", 3, 9)] == server.rows("SELECT station_id, first_sequence, last_sequence FROM lineside_gaps")
    assert [("st1", "READY")] == server.rows("SELECT station_id, state FROM lineside_stations")


def test_a_batch_is_there_as_a_whole_or_not_at_all(server: Postgres) -> None:
    """What the database refuses takes its batch along, and is an error."""
    publish(server.config(), message(1))
    execute(server, "ALTER TABLE lineside_records ADD CHECK (serial <> 'S3')")
    with pytest.raises(PublisherError) as raised:
        publish(server.config(), message(2), message(3))
    assert "violates check constraint" in str(raised.value)
    assert "Failing row" not in str(raised.value)
    assert [("r000001",)] == server.rows("SELECT record_id FROM lineside_records")


def test_a_role_that_may_only_insert_can_use_tables_that_are_there(server: Postgres) -> None:
    """The station's role need not own the database."""
    publish(server.config(), message(1))
    execute(
        server,
        f"CREATE ROLE writer LOGIN PASSWORD '{SECRET}'",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        "GRANT USAGE ON SCHEMA public TO writer",
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO writer",
    )
    publish(server.config(user="writer"), message(2))
    assert [(2,)] == server.rows("SELECT count(*) FROM lineside_records")
    with pytest.raises(PublisherError, match="permission denied"):
        publish(server.config(user="writer", prefix="other"), message(3))


def test_a_table_that_is_locked_is_an_error_in_time(server: Postgres) -> None:
    """Somebody who holds the table does not hold the publisher for ever."""
    publish(server.config(), message(1))
    with psycopg.connect(
        host="127.0.0.1", port=server.port, dbname="postgres", user="line", password=SECRET
    ) as connection:
        connection.execute("LOCK TABLE lineside_records")
        with pytest.raises(PublisherError, match=r"timeout|closed"):
            publish(server.config(timeout_s=1.0), message(2))


def test_a_wrong_password_is_named_without_being_shown(server: Postgres, tmp_path: Path) -> None:
    """The error says that the login failed, not with what."""
    wrong = tmp_path / "wrong"
    wrong.write_text(f"{SECRET}-wrong\n")
    with pytest.raises(PublisherError) as raised:
        publish(server.config(password_file=str(wrong)), message(1))
    assert "password authentication failed" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_records_travel_encrypted_to_the_right_server_only(server: Postgres, tmp_path: Path) -> None:
    """verify-full takes a server with a certificate of the plant's authority, and no other."""
    server.kill()
    ca, certificate, key = make_certificates(tmp_path)
    server.use_tls(certificate, key)
    server.start()
    publish(server.config(tls="verify-full", ca_file=str(ca)), message(1))
    (tmp_path / "other").mkdir()
    stranger, _, _ = make_certificates(tmp_path / "other")
    with pytest.raises(PublisherError, match="certificate"):
        publish(server.config(tls="verify-full", ca_file=str(stranger)), message(2))
    assert [(1,)] == server.rows("SELECT count(*) FROM lineside_records")


def test_a_server_without_encryption_is_refused_where_it_is_required(server: Postgres) -> None:
    """require never falls back to plain text."""
    with pytest.raises(PublisherError, match="SSL"):
        publish(server.config(tls="require"), message(1))


def test_no_descriptor_is_left_behind(server: Postgres) -> None:
    """A publisher that reconnects for days does not use up the process's files."""
    publish(server.config(), message(1))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        publish(server.config(), message(number))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.mark.parametrize("wrong", [{"prefix": "a;b"}, {"prefix": "A"}, {"tls": "maybe"}, {"password": SECRET}])
def test_a_wrong_config_is_refused(wrong: dict[str, Any]) -> None:
    """Names that are no plain names, and passwords in the config, do not pass."""
    with pytest.raises(ValidationError):
        PostgresConfig(**{"host": "h", "database": "d", "user": "u", **wrong})
