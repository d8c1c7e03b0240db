"""Secrets and certificates, read from files when a publisher connects; none of them ever stands in an error or a log."""

import ssl
from pathlib import Path

from inspection.errors import PublisherError


def read_secret(path: str, what: str) -> str:
    """The first line of the file ``path``, which holds a password, token or key; PublisherError when there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise PublisherError(
            f"cannot read the {what} from {path} ({reason})", fix="create the file, readable by the station's user only"
        ) from None
    if not lines or not lines[0]:
        raise PublisherError(f"the file {path} holds no {what}", fix=f"write the {what} into its first line")
    return lines[0]


def tls_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """A context that checks the server's certificate and name; PublisherError when a file cannot be used.

    Without ``ca_file`` the system's authorities count.  ``cert_file`` and ``key_file`` are the client's own, or empty.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        if cert_file:
            # An encrypted key would otherwise ask for its password on the terminal, for ever.
            context.load_cert_chain(cert_file, key_file or None, password=lambda: "")
    except OSError as error:
        named = ", ".join(filter(None, (ca_file, cert_file, key_file)))
        raise PublisherError(
            f"cannot use the certificates or the key in {named} ({error.strerror or type(error).__name__})",
            fix="give PEM files, readable by the station's user, the key without a password",
        ) from None
    return context
