"""The pure parts of the outbox: cursors, gaps, trimming, back-off, and every order of crashes."""

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from inspection import outbox as module
from inspection.errors import PublisherError, StoreError
from inspection.outbox import Delivery, Outbox, pause_s
from inspection.outbox_file import Cursor, CursorFile, OutboxReader, open_cursors
from inspection.publishers import Message
from inspection.publishers.folder import FolderConfig
from inspection.store import Store
from inspection.types import Judgement, LateResult, Record, Trigger, Verdict

AT = datetime(2026, 11, 23, tzinfo=UTC)
FAR = Path("no-such-folder")


class Receiver:
    """A publisher into a list, which loses its confirmation or its messages when told to."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.fails = ""

    def open(self) -> None:
        """Always there."""

    def publish(self, messages: Sequence[Message]) -> None:
        fails, self.fails = self.fails, ""
        whole = {"": len(messages), "before": 0, "half": len(messages) // 2, "after": len(messages)}[fails]
        self.got += messages[:whole]
        if fails:
            raise PublisherError("it did not confirm", fix="try again")

    def show_state(self, state: str) -> None:
        """No place for it."""

    def close(self) -> None:
        """Nothing is open."""


def open_store(folder: Path, name: str = "records.sqlite") -> Store:
    store = Store(folder / name, outbox=True)
    store._file._connection.execute("PRAGMA synchronous = OFF")
    return store


def add(store: Store, number: int, prefix: str = "r") -> None:
    trigger = Trigger(f"{prefix}t{number}", f"S{number}", "L1", "board-a", AT, number)
    record = Record(
        trigger, Judgement(Verdict.OK), (), ("f",), "a", "b", "st1", (), True, AT, record_id=f"{prefix}{number}"
    )
    store.accept(trigger)
    store.commit(record)


def add_many(store: Store, count: int, prefix: str = "r") -> None:
    for number in range(1, count + 1):
        add(store, number, prefix)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def reader(store: Store) -> Iterator[OutboxReader]:
    with closing(OutboxReader(store.path, station_id="st1")) as opened:
        yield opened


@pytest.fixture
def cursors(tmp_path: Path) -> Iterator[CursorFile]:
    with closing(CursorFile(tmp_path / "records.sqlite.outbox")) as opened:
        yield opened


def outbox_of(store: Store, *names: str, limit: int = 1_000_000) -> Outbox:
    """An outbox whose threads are not started."""
    return Outbox(store.path, {name: FolderConfig(folder=str(FAR)) for name in names}, station_id="st1", limit=limit)


def test_an_empty_outbox_gives_nothing(reader: OutboxReader) -> None:
    """No record, no message, no gap."""
    assert ((), 0, Cursor(0)) == (reader.after(Cursor(0), 10), reader.newest(), reader.before_oldest())


def test_a_record_is_told_as_it_was_stored(store: Store, reader: OutboxReader) -> None:
    """The body of a message is the stored JSON, its key the record id."""
    add(store, 1)
    (message,) = reader.after(Cursor(0), 10)
    assert ("record", "r1", 1) == (message.kind, message.key, message.sequence)
    assert store.find("r1") == Record.from_json(message.body)


def test_a_late_result_follows_its_record(store: Store, reader: OutboxReader) -> None:
    """It has the record's key and carries what the part would have been judged."""
    add(store, 1)
    late = LateResult(Judgement(Verdict.OK), (), (), AT)
    store.commit_late("r1", late)
    _, message = reader.after(Cursor(0), 10)
    body = json.loads(message.body)
    assert ("late", "r1", "r1") == (message.kind, message.key, body["record_id"])
    assert late == LateResult.from_json(json.dumps(body["late"]))


def test_a_store_without_outbox_puts_nothing_down(tmp_path: Path) -> None:
    """A station that tells nobody does not fill its disk for them."""
    with closing(Store(tmp_path / "plain.sqlite")) as plain:
        add(plain, 1)
        assert plain.outbox_span() == (1, 0)


def test_a_batch_ends_before_it_fills_the_memory(
    store: Store, reader: OutboxReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large records are, a batch is bounded and holds at least one."""
    monkeypatch.setattr("inspection.outbox_file.MOST_BYTES", 1)
    add_many(store, 3)
    assert [1] == [message.sequence for message in reader.after(Cursor(0), 100)]


def test_rows_that_were_dropped_are_one_gap(store: Store, reader: OutboxReader) -> None:
    """A publisher behind the oldest row first hears which sequences it missed, then what is left."""
    add_many(store, 10)
    store.drop_outbox(7)
    (gap,) = reader.after(Cursor(3), 100)
    assert ("gap", 7) == (gap.kind, gap.sequence)
    assert {"station_id": "st1", "first_sequence": 4, "last_sequence": 7} == json.loads(gap.body)
    assert [8, 9, 10] == [message.sequence for message in reader.after(Cursor(7), 100)]


def test_an_outbox_that_was_dropped_as_a_whole_is_a_gap_too(store: Store, reader: OutboxReader) -> None:
    """No row left does not mean that nothing was missed."""
    add_many(store, 4)
    store.drop_outbox(4)
    assert {"first_sequence": 2, "last_sequence": 4}.items() <= json.loads(reader.after(Cursor(1), 9)[0].body).items()
    assert () == reader.after(Cursor(4), 9)


def test_a_refused_message_stands_alone_soon(store: Store, reader: OutboxReader, cursors: CursorFile) -> None:
    """After a failure messages go one by one, then in growing batches, so that few are sent twice."""
    add_many(store, 20)
    receiver = Receiver()
    delivery = Delivery("a", receiver, Cursor(0))
    receiver.fails = "half"
    with pytest.raises(PublisherError):
        delivery.turn(reader, cursors)
    sizes = []
    while delivery.turn(reader, cursors):
        sizes.append(delivery.cursor.sequence)
    assert [1, 3, 7, 15, 20] == sizes


def test_back_off_doubles_up_to_a_bound() -> None:
    """Half a second, one, two and so on to thirty, each a quarter more or less."""
    assert [0.5, 1, 2, 4, 8, 16, 30, 30] == [pause_s(failures, 0.5) for failures in range(1, 9)]
    assert (22.5, 37.5) == (pause_s(10**6, 0.0), pause_s(10**6, 1.0))


def test_a_new_publisher_starts_with_the_oldest_row(store: Store, tmp_path: Path) -> None:
    """It is told all that is still there, and not of a gap before its time."""
    add_many(store, 10)
    store.drop_outbox(4)
    outbox_of(store, "a")
    with closing(CursorFile(tmp_path / "records.sqlite.outbox")) as file:
        assert {"a": Cursor(4)} == file.read()


def test_a_removed_publisher_holds_nothing(store: Store, tmp_path: Path) -> None:
    """The cursor of a publisher that is configured no more is forgotten."""
    outbox_of(store, "a", "b")
    outbox_of(store, "b")
    with closing(CursorFile(tmp_path / "records.sqlite.outbox")) as file:
        assert ["b"] == list(file.read())


def test_an_outbox_for_nobody_is_emptied(store: Store) -> None:
    """Rows left from a publisher that was removed do not stay for ever."""
    add_many(store, 500)
    assert outbox_of(store).trim(store) == 499


def test_unconfirmed_rows_stay(store: Store) -> None:
    """Nothing is dropped before the slowest publisher has it, as long as the limit allows."""
    add_many(store, 500)
    assert outbox_of(store, "a", "b").trim(store) == 0
    assert (1, 500) == store.outbox_span()


def test_confirmed_rows_are_dropped_but_for_the_last(store: Store, tmp_path: Path) -> None:
    """What all have is dropped; the row at the cursor stays, by which the store is known again."""
    add_many(store, 500)
    outbox_of(store, "a", "b")
    with closing(CursorFile(tmp_path / "records.sqlite.outbox")) as file:
        file.move("a", Cursor(450, "r450"), durable=True)
        file.move("b", Cursor(400, "r400"), durable=True)
    assert outbox_of(store, "a", "b").trim(store) == 399
    assert (400, 500) == store.outbox_span()


def test_the_limit_holds_whoever_is_behind(store: Store) -> None:
    """More rows than the limit are never kept for a receiver that does not come."""
    add_many(store, 500)
    outbox = outbox_of(store, "a", limit=100)
    assert outbox.trim(store) == 400
    assert outbox.trim(store) == 0
    assert (401, 500) == store.outbox_span()


def test_trimming_never_takes_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call drops a bounded number of rows; the next goes on."""
    monkeypatch.setattr(module, "TRIM_MOST", 30)
    add_many(store, 400)
    outbox = outbox_of(store, "a", limit=100)
    assert [30] * 10 + [0] == [outbox.trim(store) for _ in range(11)]


def test_a_cursor_that_a_power_cut_could_undo_drops_nothing(
    store: Store, reader: OutboxReader, cursors: CursorFile
) -> None:
    """Rows are dropped only behind cursors that are forced onto the disk, else a power cut would look like a gap."""
    add_many(store, 3)
    delivery = Delivery("a", Receiver(), Cursor(0))
    assert delivery.turn(reader, cursors)
    assert (3, 0) == (delivery.cursor.sequence, delivery.durable)
    add_many(store, 300, "x")
    while delivery.turn(reader, cursors):
        pass
    assert delivery.durable >= 203


@pytest.mark.parametrize("others", [3, 20])
def test_a_store_put_in_the_place_of_another_is_told_from_its_start(tmp_path: Path, others: int) -> None:
    """A cursor made on another store, which counts from 1 again, never skips records of this one."""
    store = open_store(tmp_path)
    add_many(store, 10)
    outbox_of(store, "a")
    with closing(CursorFile(tmp_path / "records.sqlite.outbox")) as file:
        file.move("a", Cursor(10, "r10"), durable=True)
    store.close()
    for path in tmp_path.glob("records.sqlite*"):
        if "outbox" not in path.name:
            path.unlink()
    with closing(open_store(tmp_path)) as other:
        add_many(other, others, "other")
        assert outbox_of(other, "a").status()["a"].waiting == others


def test_a_damaged_cursor_file_is_put_aside(store: Store, tmp_path: Path) -> None:
    """Better told twice than not at all: without cursors, all that waits is sent again."""
    add_many(store, 3)
    damaged = tmp_path / "records.sqlite.outbox"
    damaged.write_bytes(b"no database" * 500)
    assert outbox_of(store, "a").status()["a"].waiting == 3
    assert damaged.with_name("records.sqlite.outbox.damaged").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cursor_file_that_cannot_be_written_is_named(store: Store, tmp_path: Path) -> None:
    """The station does not start with an outbox that forgets."""
    path = tmp_path / "records.sqlite.outbox"
    path.touch(mode=0o400)
    with pytest.raises(StoreError, match=r"records\.sqlite\.outbox"):
        outbox_of(store, "a")


def test_a_cursor_file_that_is_a_folder_is_named(store: Store, tmp_path: Path) -> None:
    """The message says which file it is."""
    (tmp_path / "records.sqlite.outbox").mkdir()
    with pytest.raises(StoreError, match=r"records\.sqlite\.outbox"):
        outbox_of(store, "a")


def test_closing_an_outbox_that_was_never_opened_is_harmless(store: Store) -> None:
    """close may be called in every clean-up path."""
    outbox = outbox_of(store, "a")
    outbox.close()
    outbox.close()


class Unforeseen(Receiver):
    """A publisher whose driver raises what nobody thought of, once."""

    opened = 0

    def __init__(self, config: BaseModel, *, station_id: str) -> None:
        super().__init__()

    def open(self) -> None:
        Unforeseen.opened += 1
        if Unforeseen.opened == 1:
            raise KeyError("nobody thought of this")


class UnforeseenConfig(BaseModel):
    kind: str = "unforeseen"


def test_an_unforeseen_failure_does_not_end_a_publisher(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a driver raises is logged and tried again."""
    monkeypatch.setitem(module.PUBLISHERS, "unforeseen", f"{__name__}:Unforeseen")
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    Unforeseen.opened = 0
    add_many(store, 3)
    outbox = Outbox(store.path, {"a": UnforeseenConfig()}, station_id="st1")
    outbox.open()
    while Unforeseen.opened == 0:  # told to end before it began, it would rightly try only once
        time.sleep(0.001)
    outbox.close(timeout_s=20)
    assert (0, 3, 1) == (outbox.status()["a"].waiting, outbox.status()["a"].sent, outbox.status()["a"].failures)


Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(1, 7)),
        st.tuples(st.sampled_from(["turn", "before", "half", "after", "lost", "restart", "trim", "limit"]), st.just(0)),
    ),
    max_size=40,
)


class Line:
    """One store, one receiver, and a station that may end at any moment."""

    def __init__(self, folder: Path) -> None:
        self.store = open_store(folder)
        self.receiver = Receiver()
        self.count = 0
        self.limit = 1_000_000
        self.restart()

    def restart(self) -> None:
        self.outbox = outbox_of(self.store, "a", limit=self.limit)
        sender = self.outbox._senders["a"]
        self.delivery = sender.delivery
        self.delivery.publisher = self.receiver

    def turn(self, fails: str = "", *, remembered: bool = True) -> bool:
        """One step of the publisher's thread; not ``remembered``: the program ends before the cursor moved."""
        self.receiver.fails = fails
        cursors = self.store.path.with_name("records.sqlite.outbox")
        with (
            closing(OutboxReader(self.store.path, station_id="st1")) as reader,
            closing(open_cursors(cursors)[0]) as file,
        ):
            try:
                if remembered:
                    return self.delivery.turn(reader, file)
                self.receiver.got += reader.after(self.delivery.cursor, 100)
                self.restart()
            except PublisherError:
                return True
        return True

    def step(self, word: str, number: int) -> None:
        if word == "commit":
            for _ in range(number):
                self.count += 1
                add(self.store, self.count)
        elif word in ("trim", "limit"):
            self.outbox._limit = 5 if word == "limit" else 1_000_000
            self.outbox.trim(self.store)
        elif word == "restart":
            self.restart()
        else:
            self.turn("" if word in ("turn", "lost") else word, remembered=word != "lost")


@settings(max_examples=150)
@given(STEPS)
@example([("commit", 7), ("limit", 0), ("lost", 0), ("commit", 7), ("limit", 0), ("after", 0)])
def test_no_order_of_crashes_loses_a_record(steps: list[Step]) -> None:
    """Whatever is committed arrives, first arrivals in order, or is named in a gap; nothing is named that arrived late."""
    with tempfile.TemporaryDirectory() as name:
        line = Line(Path(name))
        with closing(line.store):
            for word, number in steps:
                line.step(word, number)
            while line.turn():
                pass
            told: list[int] = []
            for message in line.receiver.got:
                body = json.loads(message.body)
                first = body["first_sequence"] if message.kind == "gap" else message.sequence
                told += range(first, message.sequence + 1)
            assert list(range(1, line.count + 1)) == list(dict.fromkeys(told))
            assert line.delivery.cursor.sequence == line.count


def test_the_store_may_be_read_while_it_is_written(store: Store, reader: OutboxReader) -> None:
    """A publisher's reading never makes a commit wait, nor the other way round."""
    add(store, 1)
    with store.transaction() as database:
        database.execute("DELETE FROM outbox")
        assert len(reader.after(Cursor(0), 10)) == 1
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM outbox")
