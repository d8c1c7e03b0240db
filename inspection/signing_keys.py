"""Keys that sign recipes: Ed25519, a private key in a file that only its owner reads, and its public key beside it."""

import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from inspection.errors import ConfigError, UsageError
from inspection.images import write_whole

PUBLIC_END = ".pub"
_OTHERS_MAY = 0o077


def make_key(path: Path) -> str:
    """Write a new private key (readable by its owner alone) and its public key FILE.pub; returns the fingerprint.

    UsageError when one of the two files is there already: a key that is lost cannot be made again.
    """
    public = path.with_name(path.name + PUBLIC_END)
    for file in (path, public):
        if file.exists():
            raise UsageError(f"{file} exists already", fix="choose another name; keys are never overwritten")
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file_:
        file_.write(content)
        file_.flush()
        os.fsync(file_.fileno())
    write_whole(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return fingerprint_of(raw_public(key.public_key()))


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a file; UsageError when it is missing, no such key, or readable by others."""
    try:
        if os.name == "posix" and path.stat().st_mode & _OTHERS_MAY:
            raise UsageError(f"the private key {path} can be read by others", fix=f"chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except PermissionError as error:
        raise UsageError(
            f"cannot read the key {path} ({error.strerror})",
            fix="run this as the user who owns the key, or give the file to the user that lineside runs as (chown, mode 600)",
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot read the key {path} ({error.strerror})", fix="make one with `lineside recipe key FILE`"
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is no private key without a password", fix="make one: `lineside recipe key FILE`"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is no Ed25519 key", fix="make one with `lineside recipe key FILE`")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a file; ConfigError when it is missing or no such key."""
    fix = "give the .pub file that `lineside recipe key FILE` wrote"
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the public key {path} ({error.strerror})", fix=fix) from error
    except ValueError as error:
        raise ConfigError(f"{path} is no public key", fix=fix) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} is no Ed25519 key", fix=fix)
    return key


def raw_public(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def fingerprint_of(public: bytes) -> str:
    """SHA-256 of a public key's 32 bytes, hexadecimal."""
    return hashlib.sha256(public).hexdigest()
