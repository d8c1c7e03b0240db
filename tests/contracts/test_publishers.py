"""The contract of a publisher, held by every implementation with a real receiver."""

import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "publishers"))
from receivers import (
    HASTY_S,
    RECEIVERS,
    SECRET,
    Folder,
    Postgres,
    Receiver,
    first_arrivals,
    gap_message,
    late_message,
    message,
    until,
)

from inspection.config import StationConfig
from inspection.errors import PublisherError
from inspection.plugins import resolve
from inspection.publishers import PUBLISHERS, Publisher

LIMIT_S = 20.0  # many times what a hasty publisher allows


@pytest.fixture(params=sorted(PUBLISHERS))
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    made = RECEIVERS[request.param](tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


def publisher_of(receiver: Receiver, **more: Any) -> Publisher:
    config = receiver.config(**more)
    made: Publisher = resolve(PUBLISHERS, config.kind, "publisher")(config, station_id="st1")
    return made


def hasty(receiver: Receiver) -> Publisher:
    """A publisher that gives a receiver up soon; a folder has no time limit."""
    return publisher_of(receiver, **({} if isinstance(receiver, Folder) else {"timeout_s": HASTY_S}))


@pytest.fixture
def publisher(receiver: Receiver) -> Iterator[Publisher]:
    made = publisher_of(receiver)
    made.open()
    yield made
    made.close()


@pytest.mark.parametrize("name", sorted(PUBLISHERS))
def test_the_name_table_leads_to_a_class(name: str) -> None:
    """Every name in the table is a class in that module, and a kind that a station config may name."""
    module, _, attribute = PUBLISHERS[name].partition(":")
    assert attribute == getattr(import_module(module), attribute).__name__
    assert f"'{name}'" in str(StationConfig.model_fields["publishers"].annotation) or name in str(
        StationConfig.model_json_schema()["$defs"]
    )


def test_what_is_published_arrives_in_order(receiver: Receiver, publisher: Publisher) -> None:
    """When publish returns, every message was confirmed, in the order given."""
    publisher.publish([message(number) for number in range(1, 251)])
    publisher.publish([message(251)])
    expected = [("record", f"r{number:06d}") for number in range(1, 252)]
    until(lambda: len(receiver.arrived()) >= 251)
    assert expected == receiver.arrived()


def test_late_results_and_gaps_arrive(receiver: Receiver, publisher: Publisher) -> None:
    """All three kinds are told, in one batch too, and can be told apart."""
    publisher.publish([message(1), late_message(2, of=1), gap_message(3, 9), message(10)])
    expected = [("record", "r000001"), ("late", "r000001"), ("gap", ""), ("record", "r000010")]
    until(lambda: len(receiver.arrived()) >= 4)
    assert sorted(expected) == sorted(receiver.arrived())


def test_a_message_told_twice_has_one_key(receiver: Receiver, publisher: Publisher) -> None:
    """What is offered again, also by a new connection, comes under the same key, or is not taken twice."""
    batch = [message(1), late_message(2, of=1), gap_message(3, 9)]
    publisher.publish(batch)
    publisher.publish(batch)
    again = publisher_of(receiver)
    again.open()
    again.publish(batch)
    again.close()
    keeps_one = isinstance(receiver, Folder | Postgres)
    until(lambda: len(receiver.arrived()) >= (3 if keeps_one else 9))
    assert {("record", "r000001"), ("late", "r000001"), ("gap", "")} == set(receiver.arrived())
    assert len(receiver.arrived()) == (3 if keeps_one else 9)


def test_a_closed_publisher_opens_again(receiver: Receiver, publisher: Publisher) -> None:
    """After close, open makes a new connection; close may be called twice."""
    publisher.publish([message(1)])
    publisher.close()
    publisher.close()
    publisher.open()
    publisher.publish([message(2)])
    until(lambda: len(receiver.arrived()) >= 2)
    assert [("record", "r000001"), ("record", "r000002")] == first_arrivals(receiver.arrived())


def test_a_closed_publisher_publishes_nothing(receiver: Receiver) -> None:
    """Before open, publish is an error, or opens what it needs: it never drops a message."""
    made = publisher_of(receiver)
    try:
        made.publish([message(1)])
    except PublisherError:
        made.open()
        made.publish([message(1)])
    finally:
        made.close()
    until(lambda: receiver.arrived() == [("record", "r000001")])


def test_showing_the_state_is_taken(receiver: Receiver, publisher: Publisher) -> None:
    """Every publisher takes a state, whether its receiver has a place for it or not."""
    publisher.show_state("READY")
    publisher.show_state("OFFLINE")
    publisher.publish([message(1)])
    until(lambda: receiver.arrived() == [("record", "r000001")])


def reach(publisher: Publisher) -> None:
    publisher.open()
    publisher.publish([message(1)])


def attempt(publisher: Publisher) -> float:
    """Seconds until open or publish says that the receiver is not there."""
    started_s = time.monotonic()
    with pytest.raises(PublisherError) as raised:
        reach(publisher)
    assert raised.value.fix
    assert SECRET not in str(raised.value)
    assert "hidden" not in str(raised.value)
    publisher.close()
    return time.monotonic() - started_s


def test_a_receiver_that_is_gone_is_an_error_in_time(receiver: Receiver) -> None:
    """An unreachable receiver is a PublisherError within the time limit, without any secret in it."""
    receiver.kill()
    assert attempt(hasty(receiver)) < LIMIT_S
    receiver.start()


def test_a_receiver_that_froze_is_an_error_in_time(receiver: Receiver) -> None:
    """A receiver that accepts connections and says nothing is a PublisherError within the time limit."""
    if isinstance(receiver, Folder):
        pytest.skip("a folder does not freeze: needs the right to mount a share")
    receiver.freeze()
    try:
        assert attempt(hasty(receiver)) < LIMIT_S
    finally:
        receiver.thaw()


def test_a_receiver_that_freezes_later_is_an_error_in_time(receiver: Receiver) -> None:
    """The same holds for a connection that worked a moment ago."""
    if isinstance(receiver, Folder):
        pytest.skip("a folder does not freeze: needs the right to mount a share")
    made = publisher_of(receiver, timeout_s=LIMIT_S / 4)
    made.open()
    made.publish([message(1)])
    receiver.freeze()
    try:
        started_s = time.monotonic()
        with pytest.raises(PublisherError):
            made.publish([message(2)])
        made.close()
        assert time.monotonic() - started_s < LIMIT_S
    finally:
        receiver.thaw()
    made.open()
    made.publish([message(2)])
    made.close()
    until(lambda: ("record", "r000002") in receiver.arrived())


def test_awkward_text_arrives(receiver: Receiver, publisher: Publisher) -> None:
    """Serials with quotes, line breaks, umlauts, NUL and formulas stop nobody."""
    publisher.publish([message(1, serial='=A1;"x",\r\nü\u2028\0 \U0001f600'), message(2)])
    until(lambda: len(receiver.arrived()) >= 2)
    assert [("record", "r000001"), ("record", "r000002")] == receiver.arrived()
