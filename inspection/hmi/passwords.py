"""Which passwords are taken, and how they are kept: as argon2id hashes, never as text."""

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from inspection.errors import InspectionError, UsageError

SHORTEST, LONGEST = 10, 200  # characters
WAITING = 8  # log-ins that may wait for the one whose password is being checked
_COMMON = """
    password passwort contrasena qwertyuiop qwerty123456 1234567890 0123456789 12345678910 123456789a 1q2w3e4r5t
    1qaz2wsx3edc abcdefghij abcd123456 asdfghjkl1 iloveyou12 letmein123 letmein1234 administrator administrator1
    password123 password1234 password12345 password!1 welcome123 welcome1234 changeme123 changeme1234 qwerty12345
    lineside12 lineside123 lineside1234 inspection inspection1 operator12 operator123 operator1234 reviewer12
    reviewer123 reviewer1234 engineer12 engineer123 engineer1234 admin12345 admin123456 woaini1314 a123456789
    aa12345678 5201314520 1233211234567 qwer123456 zxcvbnm123 asdf123456 q1w2e3r4t5 football123 monkey12345
"""


class NotTaken(UsageError):
    """A name, password or change that is refused; ``word`` names the text that a page says it with."""

    def __init__(self, what: str, *, fix: str, word: str) -> None:
        super().__init__(what, fix=fix)
        self.word = word


class Busy(InspectionError):
    """More log-ins wait at once than this station checks."""

    word = "busy"


def plain(password: str) -> str:
    """The form of a password that counts: what two keyboards send for the same keys is one password."""
    return unicodedata.normalize("NFKC", password)


def check_new(password: str, name: str) -> None:
    """NotTaken saying why a password is not taken for the account ``name``."""
    text = plain(password[: LONGEST + 1])
    folded = text.casefold()
    person = plain(name).casefold()
    rest = folded.replace(person, "") if person else folded
    what, word = (
        (f"it has fewer than {SHORTEST} characters", "too_short") if len(text) < SHORTEST
        else (f"it has more than {LONGEST} characters", "too_long") if max(len(text), len(password)) > LONGEST
        else ("it is the name", "is_name") if not rest.strip("0123456789!.,-_ ")
        else ("everybody tries it first", "is_common") if folded in _COMMON.split() or len(set(folded)) < 4
        else ("", "")
    )  # fmt: skip
    if what:
        raise NotTaken(
            f"this password is not taken: {what}",
            fix=f"choose at least {SHORTEST} characters that nobody guesses",
            word=word,
        )


class Passwords:
    """Hashes and checks, one at a time: a hash takes 64 MiB and a core, which the line must not miss."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobodys = self._hasher.hash("nobody has this one")  # so that a name without account takes as long
        self._turn = threading.Lock()
        self._room = threading.BoundedSemaphore(WAITING + 1)

    def hashed(self, password: str) -> str:
        """The argon2id hash that is kept.  Takes about a tenth of a second."""
        with self._turn:
            return self._hasher.hash(_bytes(password))

    def right(self, password: str, stored: str | None) -> bool:
        """Whether a password belongs to a hash; as slow for no hash (an account that is none).  Busy when many wait."""
        if not self._room.acquire(blocking=False):
            raise Busy("too many people are logging in at this moment", fix="try again in a few seconds")
        try:
            with self._turn:
                return self._verify(password, stored)
        finally:
            self._room.release()

    def _verify(self, password: str, stored: str | None) -> bool:
        try:
            self._hasher.verify(stored if stored is not None else self._nobodys, _bytes(password[: LONGEST + 1]))
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None and len(password) <= LONGEST


def _bytes(password: str) -> bytes:
    return plain(password).encode("utf-8", "surrogatepass")
