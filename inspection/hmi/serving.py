"""Where the pages may be served, and the process that serves them."""

import logging
import os
import ssl
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from inspection.config import HmiSection, StationConfig, is_loopback
from inspection.errors import ConfigError, UsageError
from inspection.hmi.accounts import Accounts
from inspection.hmi.app import make_hmi
from inspection.hmi.people_file import people_path
from inspection.log import event
from inspection.web.access import Role
from inspection.web.serve import listen, serve

NICE = 19  # the disk scheduler derives its own order from it
SOON = timedelta(days=30)


def serve_pages(config: StationConfig, *, port: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, at low priority.

    ConfigError or UsageError with what to do when the pages may not be served where the config says.
    """
    hmi = config.hmi
    if hmi.tls_certificate:
        check_certificate(Path(hmi.tls_certificate), Path(hmi.tls_key))
    if not is_loopback(hmi.host):
        check_elsewhere(hmi, people_path(Path(config.store)))
    listening = listen(hmi.host, hmi.port if port is None else port)
    try:
        app = make_hmi(config)
        try:
            _step_back()
            if not app.state.context.accounts.all():
                event(
                    "hmi.no_account",
                    level=logging.WARNING,
                    fix="lineside account add STATION.toml NAME --role engineer",
                )
            files = (Path(hmi.tls_certificate), Path(hmi.tls_key)) if hmi.tls_certificate else (None, None)
            serve(app, listening, certificate=files[0], key=files[1])
        finally:
            app.state.context.close()
    finally:
        listening.close()


def check_elsewhere(hmi: HmiSection, people: Path) -> None:
    """UsageError unless the pages may be served to other computers: under TLS, by engineers with passwords of their own.

    Others with a first password can do nothing before they have changed it, so they do not keep a service from starting.
    """
    if not hmi.tls_certificate:
        raise ConfigError(
            f"host {hmi.host} can be reached from other computers, and passwords would go there in the clear",
            fix="give tls_certificate and tls_key in [hmi], or host 127.0.0.1",
        )
    accounts = Accounts(people)
    try:
        engineers = [one for one in accounts.all() if one.role is Role.ENGINEER and not one.disabled]
    finally:
        accounts.close()
    if not engineers:
        raise UsageError(
            "no engineer has an account yet",
            fix="lineside account add STATION.toml NAME --role engineer, at the station",
        )
    waiting = [one.name for one in engineers if one.must_change]
    if waiting:
        raise UsageError(
            f"{', '.join(waiting[:10])} still {'has' if len(waiting) == 1 else 'have'} a first password that others know",
            fix="let each log in at the station (lineside hmi STATION.toml --local) and change it, or disable the "
            "account (lineside account disable STATION.toml NAME); then start again",
        )


def check_certificate(certificate: Path, key: Path) -> None:
    """ConfigError unless both can be read, belong together, and the key is not open to every user of this computer."""
    for path, name in ((certificate, "tls_certificate"), (key, "tls_key")):
        if not os.access(path, os.R_OK) or not path.is_file():
            raise ConfigError(
                f"{name} {path} is missing or cannot be read",
                fix="correct the path in [hmi], or give the user that lineside runs as the right to read it",
            )
    if key.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH | stat.S_IWGRP):
        raise ConfigError(f"tls_key {key} is open to other users of this computer", fix=f"chmod 600 {key}")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password=lambda: "")
        ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (ssl.SSLError, ValueError, OSError) as error:
        raise ConfigError(
            f"tls_certificate {certificate} and tls_key {key} cannot be used ({error})",
            fix="give a certificate (with its chain) and its own key, both as PEM, the key without a passphrase",
        ) from error
    if ends - datetime.now(UTC) < SOON:
        event("hmi.certificate_ends", level=logging.WARNING, certificate=str(certificate), ends=ends.isoformat())


def _step_back() -> None:
    """Let everything of the line go first.

    A process that is only nice is not interrupted at once when the detector wakes, and a part waits for it by milliseconds;
    one of the idle class is.  On a computer whose processors are always busy the pages then stand still, and say so.
    """
    os.nice(max(0, NICE - os.nice(0)))
    with suppress(OSError, AttributeError):  # not every system has such a class
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
