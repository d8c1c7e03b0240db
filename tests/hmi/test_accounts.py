"""Accounts, sessions, lock-out and audit on a real file."""

import sqlite3
import stat
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY
from hypothesis import given
from hypothesis import strategies as st

from inspection.errors import InspectionError, StoreError, UsageError
from inspection.hmi import lockout
from inspection.hmi.accounts import ABSOLUTE_S, MOST_SESSIONS, Accounts, LogInRefused
from inspection.hmi.accounts_page import own_path
from inspection.hmi.lockout import is_address, network_of
from inspection.hmi.passwords import NotTaken, Passwords, check_new
from inspection.hmi.people_file import LONGEST_NAME, check_name, name_key
from inspection.web.access import Role

GOOD = "correct horse battery"
HERE, ELSEWHERE = "127.0.0.1", "192.0.2.7"


@dataclass
class Clock:
    """Seconds since 1970 that pass when the test says so."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def quick_passwords() -> Passwords:
    """Hashes that cost next to nothing: what is tested here is what is done with them."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(tmp_path: Path, clock: Clock) -> Iterator[Accounts]:
    """A file with one engineer, eve, and one operator, ann."""
    made = Accounts(tmp_path / "records.sqlite.people", clock=clock, passwords=quick_passwords())
    made.add("eve", "engineer", GOOD, by="test", must_change=False)
    made.add("ann", "operator", GOOD, by="test", must_change=False)
    yield made
    made.close()


def guess(accounts: Accounts, name: str = "ann", *, address: str = ELSEWHERE) -> LogInRefused:
    with pytest.raises(LogInRefused) as refused:
        accounts.log_in(name, "a wrong password", address=address)
    return refused.value


def words(accounts: Accounts) -> list[str]:
    return [entry.what for entry in accounts.audit_entries()]


def test_right_password_begins_a_session(accounts: Accounts) -> None:
    """A person is known by a token of 256 random bits, of which only a hash is kept."""
    token = accounts.log_in("ann", GOOD, address=HERE)
    session = accounts.session(token)
    assert session is not None
    assert ("ann", Role.OPERATOR, ()) == (session.user.name, session.user.role, session.confined_to)
    assert len(token) >= 43
    assert token.encode() not in b"".join(path.read_bytes() for path in accounts.path.parent.iterdir())


def test_password_is_kept_as_argon2id_only(tmp_path: Path) -> None:
    """Whoever copies the file has no password, and pays 64 MiB and three passes for each guess."""
    with closing(Accounts(tmp_path / "people")) as accounts:
        accounts.add("ann", "operator", GOOD, by="test")
        rows = accounts._file.rows("SELECT hash FROM accounts")
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert RFC_9106_LOW_MEMORY == extract_parameters(rows[0][0])
    assert GOOD.encode() not in content


def test_file_is_for_its_owner_alone(accounts: Accounts) -> None:
    """Other users of the computer cannot read it, nor its write-ahead log."""
    for path in accounts.path.parent.iterdir():
        assert 0 == stat.S_IMODE(path.stat().st_mode) & 0o077, path


@pytest.mark.parametrize(
    ("name", "password"),
    [("ann", "a wrong password"), ("nobody", GOOD), ("", ""), ("x" * 1000, GOOD), ("ann", "x" * 99999)],
)
def test_refusal_does_not_tell_whether_the_account_exists(accounts: Accounts, name: str, password: str) -> None:
    """A wrong password, a name without account and nonsense get the same words."""
    with pytest.raises(LogInRefused) as refused:
        accounts.log_in(name, password, address=HERE)
    assert (guess(accounts).what, 0) == (refused.value.what, refused.value.wait_s)


def test_disabled_account_is_refused_in_the_same_words(accounts: Accounts) -> None:
    """Nobody learns that a person left."""
    accounts.set_disabled("ann", True, by="eve")
    with pytest.raises(LogInRefused) as refused:
        accounts.log_in("ann", GOOD, address=HERE)
    assert guess(accounts, "eve").what == refused.value.what


def test_name_without_account_takes_as_long() -> None:
    """Time does not tell which names are accounts."""
    passwords = Passwords(PasswordHasher(time_cost=2, memory_cost=16 * 1024, parallelism=1))
    stored = passwords.hashed(GOOD)
    spans = []
    for one in (stored, None):
        begun_s = time.process_time()
        assert not passwords.right("a wrong password", one)
        spans.append(time.process_time() - begun_s)
    assert spans[1] > spans[0] / 4


def test_five_guesses_on_a_name_make_it_wait(accounts: Accounts, clock: Clock) -> None:
    """From other addresses too, with the right password too, each time twice as long; a wait that is over counts again."""
    for number in range(lockout.FREE):
        assert 0 == guess(accounts, address=f"192.0.2.{number}").wait_s
    waits = []
    for number in range(8):
        with pytest.raises(LogInRefused) as locked:
            accounts.log_in("Ann ", GOOD, address=f"198.51.100.{number}")
        waits.append(locked.value.wait_s)
        clock.now += locked.value.wait_s
        guess(accounts, address=f"198.51.100.{number}")
    assert [30, 60, 120, 240, 480, 900, 900, 900] == waits


@pytest.mark.parametrize("back_s", [300.0, 86400.0])
def test_a_clock_that_is_set_back_keeps_nobody_locked(back_s: float, accounts: Accounts, clock: Clock) -> None:
    """Wrong passwords of a time that is yet to come do not count: a wait that is said is over when it is over."""
    for _ in range(lockout.FREE):
        guess(accounts)
    clock.now -= back_s
    assert () == accounts.locked()
    assert accounts.session(accounts.log_in("ann", GOOD, address=ELSEWHERE))
    for _ in range(lockout.FREE):
        guess(accounts)
    clock.now += guess(accounts).wait_s
    assert accounts.session(accounts.log_in("ann", GOOD, address=ELSEWHERE))


def test_a_clock_that_is_put_right_frees_nobody(accounts: Accounts, clock: Clock) -> None:
    """A few seconds back are no reason to guess again."""
    for _ in range(lockout.FREE):
        guess(accounts)
    clock.now -= lockout.SLACK_S - 1
    assert guess(accounts).wait_s > 0


def test_name_without_account_is_locked_alike(accounts: Accounts) -> None:
    """The lock does not tell which names are accounts."""
    for number in range(lockout.FREE):
        guess(accounts, "nobody", address=f"192.0.2.{number}")
    assert 30 == guess(accounts, "nobody", address=HERE).wait_s


def test_five_guesses_from_an_address_make_it_wait(accounts: Accounts) -> None:
    """Trying one password on many names is guessing too; other addresses go on."""
    for number in range(lockout.FREE):
        guess(accounts, f"name{number}")
    assert guess(accounts, "eve").wait_s > 0
    assert accounts.session(accounts.log_in("eve", GOOD, address=HERE))


def test_ipv6_network_counts_as_one_address(accounts: Accounts) -> None:
    """Nobody gets more guesses by choosing another of his own addresses."""
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2%eth0")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.7") == network_of("192.0.2.7")
    assert network_of("not an address") == network_of("")


def test_guesses_at_once_count_as_guesses_in_turn(accounts: Accounts) -> None:
    """Twenty threads get no more tries than one."""
    outcomes: list[str] = []

    def attempt() -> None:
        try:
            accounts.log_in("ann", "a wrong password", address=ELSEWHERE)
        except LogInRefused as refused:
            outcomes.append("locked" if refused.wait_s else "checked")
        except InspectionError:
            outcomes.append("busy")

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 20 == len(outcomes)
    assert outcomes.count("checked") <= lockout.FREE
    assert guess(accounts).wait_s > 0


def test_right_password_forgets_the_wrong_ones(accounts: Accounts) -> None:
    """Who mistypes now and then is never locked out."""
    for _ in range(4):
        for _ in range(lockout.FREE - 1):
            guess(accounts)
        accounts.log_in("ann", GOOD, address=ELSEWHERE)


def test_unlock_opens_the_name_and_the_address(accounts: Accounts) -> None:
    """The engineer at the station's console always gets in."""
    for _ in range(lockout.FREE):
        guess(accounts, "eve", address=HERE)
    accounts.unlock("EVE", by="root (console)")
    assert accounts.session(accounts.log_in("eve", GOOD, address=HERE))


def test_refusal_tells_what_is_locked(accounts: Accounts) -> None:
    """The name where that was guessed at; the address, which is named, where another name is tried from there."""
    for _ in range(lockout.FREE):
        guess(accounts, "ann", address=HERE)
    assert "wait_account" == guess(accounts, "ann", address=ELSEWHERE).word
    refused = guess(accounts, "eve", address=HERE)
    assert ("wait_address", HERE) == (refused.word, refused.named)
    assert HERE in refused.what
    assert f"unlock STATION.toml {HERE}" in refused.fix


@pytest.mark.parametrize("address", [HERE, "2001:db8::7"])
def test_address_can_be_unlocked(accounts: Accounts, address: str) -> None:
    """An address is freed by its own name, or by a name that was tried there, be it an account or not; the audit tells."""
    for unlocked in (address, network_of(address), "nobody"):
        for _ in range(lockout.FREE):
            guess(accounts, "nobody", address=address)
        assert {"nobody", network_of(address)} == {name for name, _ in accounts.locked()}
        accounts.unlock(unlocked, by="root (console)")
        assert accounts.session(accounts.log_in("eve", GOOD, address=address))
        assert () == accounts.locked()
    assert {"address unlocked", "account unlocked"} <= set(words(accounts))
    with pytest.raises(UsageError, match="no account 'nobody'"):
        accounts.unlock("nobody", by="root (console)")


@given(st.text(max_size=LONGEST_NAME) | st.ip_addresses().map(str))
def test_no_name_of_an_account_is_an_address(text: str) -> None:
    """What may be unlocked as an address can never be the name of a person; a network is its own."""
    assert network_of(text) == network_of(network_of(text))
    if is_address(text):
        with pytest.raises(NotTaken):
            check_name(text)


def test_memory_of_guesses_is_bounded(accounts: Accounts, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of names fills no disk; an hour later all is forgotten."""
    monkeypatch.setattr(lockout, "MOST_ROWS", 3)
    for number in range(3):
        guess(accounts, f"name{number}", address=f"192.0.2.{number}")
    assert guess(accounts, "other", address=HERE).wait_s > 0
    clock.now += lockout.ACCOUNT_MEMORY_S + 1
    assert accounts.session(accounts.log_in("ann", GOOD, address=HERE))


@pytest.mark.parametrize(("name", "idle_s"), [("ann", 16 * 3600), ("eve", 1800)])
def test_unused_session_ends(accounts: Accounts, clock: Clock, name: str, idle_s: float) -> None:
    """Half an hour for who may decide, a shift for who looks; use keeps it open."""
    token = accounts.log_in(name, GOOD, address=HERE)
    clock.now += idle_s - 10
    assert accounts.session(token)
    clock.now += idle_s - 10
    assert (accounts.session(token) is not None) == (2 * idle_s < ABSOLUTE_S)
    clock.now += idle_s + 10
    assert accounts.session(token) is None


def test_page_left_open_keeps_no_session(accounts: Accounts, clock: Clock) -> None:
    """What a page asks by itself is no use of a session."""
    token = accounts.log_in("eve", GOOD, address=HERE)
    for _ in range(3):
        clock.now += 590
        assert accounts.session(token, used=False)
    clock.now += 590
    assert accounts.session(token, used=False) is None


def test_session_ends_after_a_day_however_used(accounts: Accounts, clock: Clock) -> None:
    """A token that was stolen is worth a day at most."""
    token = accounts.log_in("ann", GOOD, address=HERE)
    for _ in range(24):
        clock.now += 3590
        assert accounts.session(token)
    clock.now += 600
    assert accounts.session(token) is None


def test_clock_set_back_ends_a_session(accounts: Accounts, clock: Clock) -> None:
    """No session lasts longer because of a wrong clock."""
    token = accounts.log_in("ann", GOOD, address=HERE)
    clock.now -= 7200
    assert accounts.session(token) is None


def test_session_outlives_the_program(accounts: Accounts, clock: Clock) -> None:
    """A restart of the pages sends nobody to the log-in."""
    token = accounts.log_in("ann", GOOD, address=HERE)
    with closing(Accounts(accounts.path, clock=clock)) as again:
        assert again.session(token)


def test_log_out_password_and_disabling_end_sessions(accounts: Accounts) -> None:
    """A copied cookie is worth nothing afterwards."""
    for end in (
        lambda token: accounts.log_out(token),
        lambda token: accounts.set_password("ann", "another good one", by="ann", must_change=False),
        lambda token: accounts.set_disabled("ann", True, by="eve"),
    ):
        tokens = [accounts.log_in("ann", GOOD, address=HERE)]
        end(tokens[0])
        assert accounts.session(tokens[0]) is None
        accounts.set_disabled("ann", False, by="eve")
        accounts.set_password("ann", GOOD, by="ann", must_change=False)
        assert accounts.session(tokens[0]) is None


def test_log_in_ends_the_session_it_replaces(accounts: Accounts) -> None:
    """Each log-in is a new token; the one shown before is over."""
    before = accounts.log_in("ann", GOOD, address=HERE)
    after = accounts.log_in("ann", GOOD, address=HERE, replaces=before)
    assert before != after
    assert accounts.session(before) is None


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 100_000, "\x00", "\udcff", "' OR 1=1 --"])
def test_made_up_token_is_no_session(accounts: Accounts, token: str) -> None:
    """Only what was given out counts."""
    accounts.log_in("ann", GOOD, address=HERE)
    assert accounts.session(token) is None


def test_sessions_of_a_person_are_bounded(accounts: Accounts, clock: Clock) -> None:
    """Beyond the limit the one unused for longest ends."""
    tokens = []
    for _ in range(MOST_SESSIONS + 1):
        clock.now += 1
        with accounts._file.transaction() as database:
            token = f"{len(tokens):043d}"
            accounts._begin(database, "ann", token)
        tokens.append(token)
    assert [False, *[True] * MOST_SESSIONS] == [accounts.session(token) is not None for token in tokens]


def test_role_counts_from_the_next_page(accounts: Accounts) -> None:
    """Nobody keeps rights until he logs out."""
    token = accounts.log_in("ann", GOOD, address=HERE)
    accounts.set_role("ann", "reviewer", by="eve")
    session = accounts.session(token)
    assert session is not None
    assert Role.REVIEWER is session.user.role


def test_account_made_by_another_is_confined_until_its_password_is_changed(accounts: Accounts) -> None:
    """A password that two people know opens only the page to change it."""
    accounts.add("bob", "reviewer", "first password 1", by="eve")
    session = accounts.session(accounts.log_in("bob", "first password 1", address=HERE))
    assert session is not None
    assert "/password" == session.confined_to[0]
    assert ["bob"] == [one.name for one in accounts.all() if one.must_change]
    accounts.change_own_password("bob", "first password 1", "one of his own", address=HERE)
    session = accounts.session(accounts.log_in("bob", "one of his own", address=HERE))
    assert session is not None
    assert () == session.confined_to
    assert not any(one.must_change for one in accounts.all())


def test_own_password_needs_the_old_one(accounts: Accounts) -> None:
    """A panel left open gives nobody the account; guessing the old one is guessing."""
    with pytest.raises(UsageError, match="is the old one"):
        accounts.change_own_password("ann", GOOD, GOOD, address=HERE)
    for _ in range(lockout.FREE):
        with pytest.raises(NotTaken):
            accounts.change_own_password("ann", "a wrong password", "another good one", address=HERE)
    with pytest.raises(LogInRefused, match="wait"):
        accounts.change_own_password("ann", GOOD, "another good one", address=HERE)


def test_last_engineer_stays(accounts: Accounts) -> None:
    """There is always somebody who can give accounts."""
    with pytest.raises(UsageError, match="last engineer"):
        accounts.set_role("eve", "operator", by="eve")
    with pytest.raises(UsageError, match="last engineer"):
        accounts.set_disabled("eve", True, by="eve")
    found = accounts.find("eve")
    assert found is not None
    assert (Role.ENGINEER, False) == (found.role, found.disabled)


@pytest.mark.parametrize(
    "name", ["ANN", " ann ", "ａｎｎ", "Ａnn", "an\u200bn", "аnn", "ann\n", "ann\r\nSet-Cookie: a=b", "", " ", "<b>", "x" * 65,
             "1ann",
             "a\u0000b", "a  b", "\udcff", "a\u202eb", "ann\x7f"]
)  # fmt: skip
def test_name_that_looks_like_another_is_no_second_account(accounts: Accounts, name: str) -> None:
    """Compatibility forms, letter case, invisible signs and look-alike alphabets make no new person."""
    with pytest.raises(UsageError):
        accounts.add(name, "engineer", GOOD, by="test")
    assert 2 == len(accounts.all())


@pytest.mark.parametrize("name", ["李雷", "Ola Nordmann", "J. O'Neil", "müller-2", "Иван"])
def test_names_of_people_are_taken(accounts: Accounts, name: str) -> None:
    """Names are names in any script, and any spelling of them logs in."""
    accounts.add(name, "operator", GOOD, by="test", must_change=False)
    spelled = unicodedata.normalize("NFD", name.upper())
    assert accounts.session(accounts.log_in(spelled, GOOD, address=HERE))


@given(st.text(max_size=80))
def test_key_of_a_name_is_one_for_all_its_spellings(name: str) -> None:
    """Whatever text: the shown form has the key of what was typed, and no key depends on case or compatibility form."""
    try:
        shown = check_name(name)
    except UsageError:
        return
    assert name_key(name) == name_key(shown) == name_key(name_key(shown))
    assert name_key(shown) == name_key(unicodedata.normalize("NFKD", shown))


@pytest.mark.parametrize(
    "password", ["", "short", "x" * 10, "x" * 201, "annannann1", "ann1234567890", "Password123", "1234567890", "lineside123",
     "ＡＮＮann12345"]
)  # fmt: skip
def test_easy_password_is_refused(password: str) -> None:
    """Too short, too long, the name, or what everybody tries first."""
    with pytest.raises(NotTaken):
        check_new(password, "Ann")


def test_password_in_any_script_is_taken(accounts: Accounts) -> None:
    """Two keyboards' forms of one password are one."""
    accounts.set_password("ann", "пароль для линии é", by="eve", must_change=False)
    assert accounts.log_in("ann", unicodedata.normalize("NFD", "пароль для линии é"), address=HERE)


def test_audit_cannot_be_changed(accounts: Accounts) -> None:
    """The database itself refuses."""
    accounts.audit("eve", "recipe promoted", recipe="demo-pcb")
    with closing(sqlite3.connect(accounts.path)) as database:
        for sql in ("UPDATE audit SET who = 'x'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                database.execute(sql)


def test_audit_tells_who_did_what(accounts: Accounts) -> None:
    """Every change of an account and every log-in, newest first, in pages; never a password."""
    guess(accounts)
    accounts.set_role("ann", "reviewer", by="eve")
    accounts.log_in("ann", GOOD, address=HERE)
    expected = ["logged in", "role changed", "log-in refused", "account added", "account added"]
    assert expected == words(accounts)
    entries = accounts.audit_entries(limit=2)
    assert ("ann", {"address": HERE}) == (entries[0].who, entries[0].details)
    assert {"name": "ann", "role": "reviewer", "before": "operator"} == entries[1].details
    assert "log-in refused" == accounts.audit_entries(before=entries[1].number, limit=1)[0].what
    assert b"a wrong password" not in b"".join(path.read_bytes() for path in accounts.path.parent.iterdir())


def test_audit_tells_when_a_lock_begins(accounts: Accounts) -> None:
    """Once; attempts that must wait fill neither the audit nor the disk."""
    for _ in range(lockout.FREE + 5):
        guess(accounts)
    refused = [entry.details for entry in accounts.audit_entries() if entry.what == "log-in refused"]
    assert lockout.FREE == len(refused)
    assert {"address": ELSEWHERE, "locked": "account", "locked_s": 30} == refused[0]
    assert {"address": ELSEWHERE} == refused[1]


def test_refused_change_leaves_nothing_in_the_audit(accounts: Accounts) -> None:
    """What did not happen is not told as done."""
    before = words(accounts)
    for change in (
        lambda: accounts.set_disabled("eve", True, by="eve"),
        lambda: accounts.add("Ann", "operator", GOOD, by="eve"),
        lambda: accounts.set_role("ann", "king", by="eve"),
        lambda: accounts.set_password("nobody", GOOD, by="eve", must_change=True),
    ):
        with pytest.raises(UsageError):
            change()
    assert before == words(accounts)


def test_damaged_or_newer_file_is_named(tmp_path: Path, clock: Clock) -> None:
    """Nobody is let in on a file that cannot be understood."""
    path = tmp_path / "records.sqlite.people"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="file of accounts"):
        Accounts(path, clock=clock)
    path.unlink()
    Accounts(path, clock=clock).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="schema 99"):
        Accounts(path, clock=clock)


def test_file_that_was_put_aside_lets_nobody_in(accounts: Accounts, clock: Clock) -> None:
    """Sessions of a file that is gone are over; with the file of a backup its accounts count."""
    token = accounts.log_in("ann", GOOD, address=HERE)
    accounts.path.rename(accounts.path.with_name("aside"))
    assert accounts.session(token) is None
    with closing(Accounts(accounts.path, clock=clock)) as other:
        other.add("zoe", "engineer", GOOD, by="test", must_change=False)
    assert accounts.session(accounts.log_in("zoe", GOOD, address=HERE))


@pytest.mark.parametrize("wanted", ["/", "/review", "/review?lot=A%20B", "/recipe#x"])
def test_way_on_leads_to_our_pages(wanted: str) -> None:
    """After the log-in a person is where he wanted to go."""
    assert wanted == own_path(wanted)


@given(st.one_of(st.text(), st.text(alphabet="/\\:.@ \t\r\nhtps%2Fevil", max_size=30), st.just("//evil.example")))
def test_way_on_never_leads_elsewhere(wanted: str) -> None:
    """Whatever a link says, the log-in goes on to a path of these pages that no browser reads as another site."""
    way = own_path(wanted)
    assert way.startswith("/")
    assert not way.startswith(("//", "/\\"))
    assert way.isprintable()
    assert "\\" not in way
