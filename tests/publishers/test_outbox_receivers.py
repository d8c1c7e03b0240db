"""The outbox with real receivers: nothing is lost, in order, whatever is killed, frozen or away."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receivers import HASTY_S, RECEIVERS, Folder, Receiver, fill, first_arrivals, make_late, open_store, until

from inspection.outbox import Outbox
from inspection.store import Store

COUNT = 1000
EXPECTED = [("record", f"r{number:06d}") for number in range(COUNT)]
PROGRAM = Path(__file__).with_name("publishing_process.py")


@pytest.fixture(params=sorted(RECEIVERS))
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    made = RECEIVERS[request.param](tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "records.sqlite")
    yield opened
    opened.close()


def opened(store: Store, receiver: Receiver, **more: Any) -> Outbox:
    outbox = Outbox(store.path, {"plant": receiver.config()}, station_id="st1", **more)
    outbox.open()
    return outbox


def arrived_all(receiver: Receiver, expected: list[tuple[str, str]]) -> bool:
    return len(set(receiver.arrived())) >= len(expected)


def test_a_thousand_records_arrive_in_order(
    receiver: Receiver, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """What waited before the start and what is committed later is told once, in the order of the commits."""
    fill(store, range(COUNT // 2))
    outbox = opened(store, receiver)
    try:
        for number in range(COUNT // 2, COUNT):
            fill(store, range(number, number + 1))
            outbox.notify()
        until(lambda: arrived_all(receiver, EXPECTED), 300)
        assert EXPECTED == receiver.arrived()
        until(lambda: outbox.status()["plant"].waiting == 0)
        status = outbox.status()["plant"]
        assert (True, 0, COUNT, 0, "") == (
            status.connected,
            status.waiting,
            status.sent,
            status.gaps,
            status.last_error,
        )
    finally:
        outbox.close()


def test_a_receiver_that_is_killed_and_comes_back_misses_nothing(receiver: Receiver, store: Store) -> None:
    """Records made before, while and after the receiver was gone arrive, first arrivals in order."""
    fill(store, range(300))
    outbox = opened(store, receiver)
    try:
        until(lambda: len(receiver.arrived()) > 20)
        receiver.kill()
        fill(store, range(300, 700))
        outbox.notify()
        until(lambda: outbox.status()["plant"].last_error)
        receiver.start()
        fill(store, range(700, COUNT))
        until(lambda: arrived_all(receiver, EXPECTED), 300)
        assert EXPECTED == first_arrivals(receiver.arrived())
    finally:
        outbox.close()


def test_a_receiver_that_freezes_is_noticed_and_misses_nothing(receiver: Receiver, store: Store) -> None:
    """A receiver that no longer answers but keeps its connections is given up within the time limit, and told again."""
    if isinstance(receiver, Folder):
        pytest.skip("a folder does not freeze: needs the right to mount a share")
    fill(store, range(300))
    outbox = Outbox(store.path, {"plant": receiver.config(timeout_s=HASTY_S)}, station_id="st1")
    outbox.open()
    try:
        until(lambda: len(receiver.arrived()) > 20)
        before = outbox.status()["plant"].failures  # a busy machine may have missed the short limit already
        receiver.freeze()
        fill(store, range(300, COUNT))
        outbox.notify()
        # Between its tries: a web server that accepts connections counts as connected until it fails to answer.
        until(lambda: (now := outbox.status()["plant"]).failures > before and now.last_error and not now.connected)
        receiver.thaw()
        until(lambda: arrived_all(receiver, EXPECTED), 300)
        assert EXPECTED == first_arrivals(receiver.arrived())
    finally:
        receiver.thaw()
        outbox.close()


def publishing(store: Store, kind: str, receiver: Receiver) -> "subprocess.Popen[str]":
    command = [sys.executable, PROGRAM, store.path, kind, receiver.config().model_dump_json()]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    return child


def test_a_publishing_process_that_is_killed_goes_on_where_it_was(
    receiver: Receiver, store: Store, request: pytest.FixtureRequest
) -> None:
    """After kill -9 at any moment every record still arrives, with its key, first arrivals in order."""
    kind = request.node.callspec.params["receiver"]
    for part in range(4):
        child = publishing(store, kind, receiver)
        try:
            fill(store, range(part * 250, part * 250 + 250))
            until(lambda part=part: len(set(receiver.arrived())) > part * 250 + 10)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()  # type: ignore[union-attr]
    child = publishing(store, kind, receiver)
    try:
        until(lambda: arrived_all(receiver, EXPECTED), 300)
        assert EXPECTED == first_arrivals(receiver.arrived())
    finally:
        child.kill()
        child.wait()
        child.stdout.close()  # type: ignore[union-attr]


def test_a_receiver_that_stays_away_too_long_is_told_of_the_gap(receiver: Receiver, store: Store) -> None:
    """Beyond the limit the oldest rows are dropped, the disk stays bounded, and the receiver hears which are missing."""
    receiver.kill()
    outbox = opened(store, receiver, limit=100)
    try:
        for start in range(0, COUNT, 50):
            fill(store, range(start, start + 50))
            outbox.trim(store)
            oldest, newest = store.outbox_span()
            assert newest - oldest < 200
        store.commit_late("r000999", make_late())
        first = store.outbox_span()[0]
        receiver.start()
        kept = [("record", f"r{number:06d}") for number in range(first - 1, COUNT)]
        expected = [("gap", ""), *kept, ("late", "r000999")]
        until(lambda: arrived_all(receiver, expected), 300)
        assert sorted(expected) == sorted(first_arrivals(receiver.arrived()))
        assert [one for one in expected if one[0] == "record"] == [
            one for one in receiver.arrived() if one[0] == "record"
        ]
        until(lambda: outbox.status()["plant"].waiting == 0)
        assert outbox.status()["plant"].gaps == 1
    finally:
        outbox.close()


def test_an_absent_receiver_does_not_hold_up_the_others(receiver: Receiver, store: Store, tmp_path: Path) -> None:
    """One publisher's back-off is its own affair, and closing waits for nobody for ever."""
    receiver.kill()
    other = RECEIVERS["folder"](tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    assert isinstance(other, Folder)
    outbox = Outbox(store.path, {"away": receiver.config(), "there": other.config()}, station_id="st1")
    outbox.open()
    try:
        fill(store, range(COUNT))
        outbox.notify()
        until(lambda: arrived_all(other, EXPECTED))
        until(lambda: outbox.status()["away"].last_error)
        assert (COUNT, 0) == (outbox.status()["away"].waiting, outbox.status()["away"].sent)
    finally:
        started_s = time.monotonic()
        outbox.close(timeout_s=1.0)
        assert time.monotonic() - started_s < 20
        receiver.start()
