"""A whole station signs what it records, and `lineside audit` verifies it."""

import json
import sqlite3
from contextlib import closing

import pytest
from line_bench import Bench, simulated_line

from inspection.cli import main
from inspection.signing_keys import make_key
from inspection.station_link import read_status

SIGNED = '[audit]\nkey = "station.key"\ncheckpoint_s = 1\n'


def test_what_a_station_records_is_signed_and_verified(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """From the first part to the last: signed when the station has ended, and an altered record is named afterwards."""
    make_key(bench.folder / "station.key")
    for serial in ("A1", "A2", "A3"):
        bench.frame(serial, bench.sealed_frame("OK" if serial == "A1" else "NG"))
    config = bench.config(simulated_line("A1", "A2", "A3"), evidence=SIGNED)
    records = bench.play(config)
    assert len(records) == 3
    bench.stations.pop().close()
    assert main(["audit", str(config), "--json", "--pictures"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["files"][0]["proven"], said["files"][0]["newer"]) == (3, 0)
    assert said["checkpoints"]["signed"] == said["checkpoints"]["lines"] >= 2
    with closing(sqlite3.connect(bench.store)) as database:
        database.execute("DROP TRIGGER records_keep")
        database.execute("UPDATE records SET verdict = 1 WHERE serial = 'A2'")
        database.commit()
    assert main(["audit", str(config)]) == 1
    out = capsys.readouterr().out
    assert "row 2 of records is not as it was written" in out
    assert "the trigger records_keep is missing" in out


def test_a_station_says_that_its_store_was_exchanged(bench: Bench) -> None:
    """Started on another record store than the one it signed last, the station names the file in its status."""
    make_key(bench.folder / "station.key")
    bench.frame("A1", bench.sealed_frame("OK"))
    config = bench.config(simulated_line("A1"), evidence=SIGNED)
    for exchanged in (False, True):
        bench.play(config)
        bench.stations.pop().close()
        said = read_status(bench.store)
        assert said is not None
        assert (str(bench.store) in said.contradicted) == exchanged
        bench.store.unlink()


def test_a_station_whose_key_others_may_read_does_not_start(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """`lineside check` says so before, `lineside run` refuses: a key that others have proves nothing."""
    make_key(bench.folder / "station.key")
    (bench.folder / "station.key").chmod(0o644)
    config = bench.config(simulated_line("A1"), evidence=SIGNED)
    for verb in ("check", "run"):
        assert main([verb, str(config)]) == 2
        assert "chmod 600" in capsys.readouterr().err
