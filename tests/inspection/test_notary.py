import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from audit_bench import KEY, STORE, add_records, at, make, verify
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.checkpoints import NO_HEAD, Checkpoints, Heads, checkpoints_path, heads_of, parse, places
from inspection.config import AuditSection
from inspection.errors import ConfigError, StoreError
from inspection.notary import Notary
from inspection.signing_keys import make_key, read_public_key
from inspection.store import Store


def config(path: Path, **audit: Any) -> Any:
    """What a notary reads of a station's config."""
    return SimpleNamespace(store=str(path), station_id="cell-1", audit=AuditSection(**audit))


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not happen within 30 s"
        time.sleep(0.02)


def lines_of(path: Path) -> list[dict[str, Any]]:
    file = checkpoints_path(path)
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def test_checkpoints_are_written_at_the_start_while_records_come_and_at_the_end(tmp_path: Path) -> None:
    """Each names the newest entry at its time and the line before; the audit takes the signatures for good."""
    path = tmp_path / STORE
    make_key(tmp_path / "key")
    notary = Notary(config(path, key=str(tmp_path / "key"), checkpoint_s=1))
    with closing(Store(path)) as store:
        add_records(store, 1, 3)
        notary.open()
        try:
            wait_for(lambda: len(lines_of(path)) == 1)
            add_records(store, 4, 4)  # one at a time: a checkpoint may come between any two
            wait_for(lambda: len(lines_of(path)) == 2)
            add_records(store, 5, 5)
        finally:
            notary.close()
    notary.close()
    lines = lines_of(path)
    assert [line["records"][0] for line in lines] == [3, 4, 5]
    assert [line["number"] for line in lines] == [1, 2, 3]
    result = verify(path, public_keys=[read_public_key(tmp_path / "key.pub")])
    assert (result.good, result.checkpoints.signed, result.files[0].proven) == (True, 3, 5)


def test_no_checkpoint_is_written_while_nothing_is_added(tmp_path: Path) -> None:
    """A station that stands still writes one line at its start."""
    path = tmp_path / STORE
    with closing(Store(path)):
        notary = Notary(config(path, checkpoint_s=1))
        notary.open()
        try:
            wait_for(lambda: len(lines_of(path)) == 1)
            time.sleep(2.2)
        finally:
            notary.close()
    assert [line["records"] for line in lines_of(path)] == [list(NO_HEAD)]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of a Unix system: run the tests on one")
@pytest.mark.parametrize(
    "spoil", [lambda key: key.unlink(), lambda key: key.chmod(0o644), lambda key: key.write_text("no key")]
)
def test_a_key_that_cannot_be_used_stops_the_start(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A key that is missing, readable by others or no key is refused, with what to do."""
    make_key(tmp_path / "key")
    spoil(tmp_path / "key")
    with pytest.raises(ConfigError, match=r"\[audit\]") as refused:
        Notary(config(tmp_path / STORE, key=str(tmp_path / "key")))
    assert "lineside recipe key" in refused.value.fix or "chmod 600" in refused.value.fix


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from audit_bench import KEY, at
from inspection.checkpoints import Checkpoints, Heads
from inspection.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path({path!r})
checkpoints = Checkpoints(path, "cell-1", KEY)
checkpoints.add(Heads(records=(1, "11" * 32)), at(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, resource.RLIM_INFINITY))
try:
    checkpoints.add(Heads(records=(2, "22" * 32)), at(2))
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
checkpoints.add(Heads(records=(3, "33" * 32)), at(3))
"""


@pytest.mark.skipif(
    os.name != "posix", reason="a limit on file sizes stands for the full disk: run the tests on a Unix system"
)
def test_a_line_that_a_full_disk_tore_stays_and_the_next_vouches_for_it(tmp_path: Path) -> None:
    """What was written of the line is not deleted; the next one stands on a line of its own, and the chain of lines holds."""
    path = tmp_path / "checkpoints"
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(here=str(Path(__file__).parent), path=str(path))],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "tried again" in done.stdout
    with path.open("rb") as file:
        found = list(places(file))
    assert [place.checkpoint.number if place.checkpoint else None for place in found] == [1, None, 2]
    last = found[2].checkpoint
    assert last is not None
    assert last.before == found[2].follows


def test_a_disk_that_takes_nothing_is_said_and_tried_again(tmp_path: Path) -> None:
    """The notary says what is wrong, goes on, and writes as soon as it can."""
    path = tmp_path / STORE
    checkpoints_path(path).mkdir()  # nothing can be written there, whoever runs the test
    with closing(Store(path)):
        notary = Notary(config(path, checkpoint_s=1))
        notary.open()
        try:
            wait_for(lambda: "could not be written" in notary.fault or "cannot read" in notary.fault)
            checkpoints_path(path).rmdir()
            wait_for(lambda: len(lines_of(path)) == 1)
            wait_for(lambda: notary.fault == "")
        finally:
            notary.close()


def test_a_store_that_was_exchanged_is_said_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A checkpoint that the files do not bear out any more is an error in the log, not only in the next audit."""
    path = make(tmp_path)
    path.unlink()
    with closing(Store(path)) as store, caplog.at_level("ERROR", logger="lineside"):
        add_records(store, 1, 2)
        notary = Notary(config(path))
        notary.open()
        notary.close()
    assert "checkpoint.contradicted" in caplog.messages
    assert str(path) in notary.contradicted


def test_an_exchanged_store_is_said_at_every_start_until_it_is_back(tmp_path: Path) -> None:
    """A restart does not make the fault go away; the right store does, and so does a store with checkpoints of its own."""
    path = make(tmp_path)
    aside = tmp_path / "aside"
    path.rename(aside)
    with closing(Store(path)) as store:
        add_records(store, 1, 2)
    for _ in range(2):
        assert str(path) in started_and_ended(path)
    path.unlink()
    aside.rename(path)
    assert str(path) in started_and_ended(path)  # the checkpoints of the other one are contradicted now
    assert started_and_ended(path) == ""
    checkpoints_path(path).unlink()
    path.unlink()
    with closing(Store(path)) as store:
        add_records(store, 1, 2)
    path.with_name(f"{STORE}.evidence").unlink()
    path.with_name(f"{STORE}.reviews").unlink()
    assert started_and_ended(path) == ""


def started_and_ended(path: Path) -> str:
    """What a station says of the files after one start."""
    notary = Notary(config(path))
    notary.open()
    notary.close()
    assert notary.fault == ""
    return notary.contradicted


def test_a_lock_on_the_store_makes_the_notary_wait_and_nobody_else(tmp_path: Path) -> None:
    """Reading the ends takes no lock: a part is committed while a checkpoint is read, and the other way round."""
    path = tmp_path / STORE
    with closing(Store(path)) as store:
        add_records(store, 1, 2)
        with store.transaction():
            assert heads_of(path).records[0] == 2


@settings(max_examples=60)
@given(torn=st.binary(max_size=60), cut=st.integers(1, 500), more=st.integers(0, 2))
def test_whatever_a_power_cut_leaves_the_lines_go_on(
    tmp_path_factory: pytest.TempPathFactory, torn: bytes, cut: int, more: int
) -> None:
    """Behind any torn end the next line gets the next number and names what it stands on."""
    path = tmp_path_factory.mktemp("torn") / "checkpoints"
    checkpoints = Checkpoints(path, "cell-1", KEY)
    checkpoints.add(Heads(records=(1, "11" * 32)), at(1))
    checkpoints.add(Heads(records=(2, "22" * 32)), at(2))
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    path.write_bytes(content[: max(first, len(content) - cut)] + torn)
    whole = 2 if cut == 1 and not torn.strip(b"\n") else 1
    for number in range(more + 1):
        checkpoints.add(Heads(records=(3 + number, "33" * 32)), at(3))
    with path.open("rb") as file:
        found = [place for place in places(file) if place.checkpoint]
    assert [place.checkpoint.number for place in found if place.checkpoint] == list(range(1, whole + more + 2))
    assert all(place.checkpoint.before == place.follows for place in found if place.checkpoint)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_no_other_line_is_taken_for_a_checkpoint(line: bytes) -> None:
    """Whatever lies in the file, it is read as a checkpoint or as none."""
    assert parse(line) is None


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A folder in place of the file is a StoreError with what to do."""
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(StoreError, match="cannot read"):
        Checkpoints(tmp_path / "checkpoints", "cell-1", None).last()
