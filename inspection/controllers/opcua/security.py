"""Who may connect: the server's own certificate, the clients it trusts, and users with hashed passwords."""

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from inspection.errors import ConfigError
from inspection.log import event

_SCRYPT = (1 << 14, 8, 1)  # about 40 ms and 16 MiB a password
_REFUSE_AFTER_FAILURE_S = 0.5
_YEARS_VALID = 10
_MOST_CERTIFICATES = 200
_MOST_REJECTED = 20
_SUFFIXES = (".der", ".crt", ".cer", ".pem")


def hashed(name: str, password: str) -> str:
    """The line of the users file for this user; ConfigError for a name that cannot stand in it."""
    if not name or ":" in name or not name.isprintable() or not password:
        raise ConfigError(f"{name!r} cannot be a user", fix="a name without colon, and a password that is not empty")
    n, r, p = _SCRYPT
    salt = secrets.token_bytes(16)
    return f"{name}:scrypt:{n}:{r}:{p}:{salt.hex()}:{_scrypt(password, salt, n, r, p).hex()}"


def read_users(path: Path) -> dict[str, str]:
    """Lines of the users file by user name; ConfigError with the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the users file {path}: {error}",
            fix="make one with: python -m inspection.controllers.opcua password NAME >> FILE",
        ) from error
    users = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not _well_formed(line):
            raise ConfigError(
                f"line {number} of the users file {path} is no user",
                fix="make the line with: python -m inspection.controllers.opcua password NAME",
            )
        users[line.partition(":")[0]] = line
    return users


def matches(line: str, password: str) -> bool:
    """Whether the password belongs to this line of the users file."""
    _, _, n, r, p, salt, digest = line.split(":")
    found = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(digest))


class Doorman:
    """Checks passwords.  After a wrong one it looks at no other for half a second, so that guessing stays slow and
    cannot keep the server from its running client.
    """

    def __init__(self, users: Path | None) -> None:
        self._users = users
        self._closed_until_s = 0.0

    def admits(self, name: str | None, password: str | None) -> bool:
        """Whether this user may enter; the file is read anew, so a new user needs no restart."""
        if self._users is None or not name or not password or time.monotonic() < self._closed_until_s:
            return False
        try:
            line = read_users(self._users).get(name)
        except ConfigError as error:
            event("controller.users_unreadable", what=error.what)
            return False
        # An unknown user costs the same time as a wrong password.
        if line is not None and matches(line, password):
            return True
        if line is None:
            hashed("nobody", password)
        self._closed_until_s = time.monotonic() + _REFUSE_AFTER_FAILURE_S
        return False


class Trusted:
    """The folder of client certificates that are trusted, and beside it those that were refused."""

    def __init__(self, folder: Path) -> None:
        self._trusted, self._rejected = folder / "trusted", folder / "rejected"
        for made in (folder, self._trusted, self._rejected):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)

    def holds(self, der: bytes) -> bool:
        """Whether exactly this certificate lies in trusted/ and is valid today; one that does not goes to rejected/."""
        if any(_der_of(path) == der for path in self._files(self._trusted)):
            return _valid_today(der)
        name = hashlib.sha256(der).hexdigest()[:32]
        if len(list(self._rejected.iterdir())) < _MOST_REJECTED:
            (self._rejected / f"{name}.der").write_bytes(der)
        event("controller.untrusted_certificate", sha256=name)
        return False

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES][:_MOST_CERTIFICATES]


def server_identity(folder: Path, application_uri: str, host: str) -> tuple[Path, Path]:
    """Paths of the server's certificate (DER) and key (PEM, mode 0600); both are made when there are none.

    ConfigError when one of them is missing or the folder cannot be written.
    """
    certificate, key = folder / "server_certificate.der", folder / "server_key.pem"
    if certificate.exists() != key.exists():
        raise ConfigError(
            f"{folder} holds only one of {certificate.name} and {key.name}",
            fix="put the missing one beside it, or remove both to have new ones made (clients must trust them anew)",
        )
    if not key.exists():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_identity(certificate, key, application_uri, host)
        except OSError as error:
            raise ConfigError(
                f"cannot write the server's certificate to {folder}: {error.strerror}",
                fix="let the station's user write there, or set another certificates folder",
            ) from error
        event("controller.certificate_made", certificate=str(certificate))
    return certificate, key


def _make_identity(certificate: Path, key: Path, application_uri: str, host: str) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    secret = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lineside")])
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(application_uri),
        x509.DNSName(socket.gethostname()),
    ]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS_VALID))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(secret.public_key()), critical=False)
        .sign(secret, hashes.SHA256())
    )
    pem = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.DER))


def _der_of(path: Path) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        content = path.read_bytes()
        if content.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(content).public_bytes(Encoding.DER)
    except (OSError, ValueError) as error:
        event("controller.bad_certificate", file=str(path), why=str(error))
        return b""
    return content


def _valid_today(der: bytes) -> bool:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    valid = certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc
    if not valid:
        event("controller.certificate_out_of_date", until=certificate.not_valid_after_utc.isoformat())
    return valid


def _well_formed(line: str) -> bool:
    parts = line.split(":")
    numbers = len(parts) == 7 and parts[1] == "scrypt" and all(part.isdecimal() for part in parts[2:5])
    if not numbers or int(parts[2]) > 1 << 16 or int(parts[3]) > 16 or int(parts[4]) > 4:
        return False
    try:
        return len(bytes.fromhex(parts[5])) >= 8 and len(bytes.fromhex(parts[6])) == 32
    except ValueError:
        return False


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    octets = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(octets, salt=salt, n=n, r=r, p=p, dklen=32, maxmem=256 * n * r)
