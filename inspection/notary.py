"""Signs the ends of a station's chains now and then, in a thread of its own: the line never waits for it.

A chain alone proves nothing against somebody who can write its file: he can make all of it anew.  He cannot make the
signatures anew without the key, so what was recorded before a checkpoint cannot be changed unnoticed after it.
"""

import logging
from pathlib import Path
from threading import Event, Thread

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.checkpoints import (
    NO_HEAD,
    Checkpoint,
    Checkpoints,
    Heads,
    chained_files,
    checkpoints_path,
    heads_of,
    link_at,
)
from inspection.config import StationConfig
from inspection.errors import ConfigError, StoreError, UsageError
from inspection.log import event
from inspection.signing_keys import read_private_key
from inspection.types import utc_now

CLOSE_S = 10.0  # how long the end of a station waits for the last checkpoint


def station_key(config: StationConfig) -> Ed25519PrivateKey | None:
    """The key that signs checkpoints, None where the config names none; ConfigError when it cannot be used."""
    if not config.audit.key:
        return None
    try:
        return read_private_key(Path(config.audit.key))
    except UsageError as error:
        raise ConfigError(f"the key of [audit] cannot be used: {error.what}", fix=error.fix) from error


class Notary:
    """Writes a checkpoint at the start, then every ``checkpoint_s`` when a chain has grown, and at the end.

    ``fault`` says why the last one could not be written, "" when it was; it is tried again at the next turn.
    ``contradicted`` says which file is not as a checkpoint has it; that stays until the station is started anew, and is
    found again then as long as the first checkpoint with records is not borne out.  ConfigError when the key cannot be
    used.
    """

    def __init__(self, config: StationConfig) -> None:
        self._store = Path(config.store)
        self._every_s = config.audit.checkpoint_s
        self._file = Checkpoints(checkpoints_path(self._store), config.station_id, station_key(config))
        self._signs = bool(config.audit.key)
        self.fault = ""
        self.contradicted = ""
        self._closing = Event()
        self._thread: Thread | None = None

    def open(self) -> None:
        """Begin; what was recorded before is signed at once."""
        if not self._signs:
            event(
                "checkpoint.unsigned", level=logging.WARNING,
                what="the config has no [audit] key: whoever can write the files can change records unnoticed",
                fix="make a key with `lineside recipe key FILE` and name it as `key` in [audit]",
            )  # fmt: skip
        self._thread = Thread(target=self._run, name="notary", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sign what was recorded last, and end; a second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing.set()
        thread.join(CLOSE_S)
        if thread.is_alive():
            event("checkpoint.failed", level=logging.ERROR, what=f"the last checkpoint took more than {CLOSE_S:.0f} s")

    def _run(self) -> None:
        said: Heads | None = None
        while True:
            closing = self._closing.is_set()
            try:
                said = self._turn(said)
                fault = ""
            except StoreError as error:
                fault = error.what
                if fault != self.fault:
                    event("checkpoint.failed", level=logging.ERROR, what=error.what, fix=error.fix)
            except Exception as error:  # a notary that is gone would be missed only at the next audit
                fault = f"unforeseen {type(error).__name__}: {error}"
                event("checkpoint.failed", level=logging.ERROR, error=error, what=fault)
            if self.fault and not fault:
                event("checkpoint.recovered")
            self.fault = fault
            if closing:
                return
            self._closing.wait(self._every_s)

    def _turn(self, said: Heads | None) -> Heads:
        """Write a checkpoint unless nothing was added since the one of ``said``; the ends that are written now."""
        heads = heads_of(self._store)
        if heads == said:
            return heads
        last = self._file.last()
        if said is None and (first := self._file.first()) is not None:
            self._look_back(first, heads)
        if last is not None:
            self._look_back(last, heads)
        self._file.add(heads, utc_now())
        return heads

    def _look_back(self, last: Checkpoint, heads: Heads) -> None:
        """Say at once when what was written last is no longer in a file; the audit says more."""
        for name, path in chained_files(self._store).items():
            sequence, link = was = getattr(last.heads, name)
            if was in (NO_HEAD, getattr(heads, name)):
                continue
            if link_at(path, sequence) != link:
                self.contradicted = f"{path}, entry {sequence}, signed at {last.at:%Y-%m-%d %H:%M} UTC"
                event(
                    "checkpoint.contradicted", level=logging.ERROR, file=str(path), entry=sequence,
                    checkpoint=last.number, signed_at=last.at.isoformat(),
                    fix="run `lineside audit`: the file was exchanged, cut or rewritten since that checkpoint",
                )  # fmt: skip
