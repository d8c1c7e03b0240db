"""The lock of a recipe folder: the SHA-256 of every file, and the signature of who approved them.

``recipe.lock`` is JSON: ``files`` (name to SHA-256) and, where it was signed, ``signature`` with the public key
(hexadecimal), its fingerprint (SHA-256 of the key) and an Ed25519 signature (RFC 8032) over the canonical JSON of ``files``.
The SHA-256 of the lock itself names the recipe in each record.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from inspection.errors import ConfigError
from inspection.images import write_whole
from inspection.model import file_sha256
from inspection.signing_keys import fingerprint_of, raw_public, read_public_key

LOCK = "recipe.lock"
SCHEMA = 1
_PURPOSE = b"lineside recipe.lock 1\n"  # what was signed can be taken for nothing else
_ODD = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_HASH = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signed: the public key, and the signature over the files."""

    public: bytes
    signed: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, hexadecimal."""
        return fingerprint_of(self.public)


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock says: the hash of each file, and who signed it."""

    files: dict[str, str]
    signature: Signature | None


def lock_sha256(folder: Path) -> str:
    """SHA-256 of the lock file, or "" for an unsealed recipe."""
    lock = folder / LOCK
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""


def file_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a recipe but its lock, by name; ConfigError for links, devices and odd names."""
    return {name: file_sha256(path) for name, path in _files(folder).items()}


def write_lock(folder: Path, key: Ed25519PrivateKey | None = None) -> str:
    """Write ``recipe.lock`` over every file of the folder, signed where a key is given; returns its SHA-256."""
    hashes = file_hashes(folder)
    document: dict[str, Any] = {"schema": SCHEMA, "files": hashes}
    if key is not None:
        public = raw_public(key.public_key())
        document["signature"] = {
            "fingerprint": fingerprint_of(public),
            "public_key": public.hex(),
            "ed25519": key.sign(_message(hashes)).hex(),
        }
    write_whole(folder / LOCK, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
    return lock_sha256(folder)


def verify(folder: Path, trusted_keys: Sequence[str | Path] = ()) -> None:
    """Compare every file with the lock; ConfigError naming each one that changed, went or came.

    A signature must be valid where there is one; with ``trusted_keys`` (files of public keys) there must be one, by one
    of them.
    """
    lock = read_lock(folder)
    _check_signature(folder, lock, trusted_keys)
    present = _files(folder)
    wrong = [f"{name} is missing" for name in sorted(set(lock.files) - set(present))]
    wrong += [f"{name} is not in the lock" for name in sorted(set(present) - set(lock.files))]
    wrong += [
        f"{name} was changed"
        for name, path in present.items()
        if name in lock.files and file_sha256(path) != lock.files[name]
    ]
    if wrong:
        raise ConfigError(
            f"the recipe {folder} is not what was sealed: " + "; ".join(wrong),
            fix="restore the folder from its source, or review the change and seal it again",
        )


def read_lock(folder: Path) -> Lock:
    """What the lock says; ConfigError when there is none, it is damaged, or it names files outside the folder."""
    path = folder / LOCK
    if not folder.is_dir():
        raise ConfigError(f"there is no recipe folder {folder}", fix="check the path")
    if path.is_symlink() or not path.is_file():
        raise ConfigError(
            f"{folder} is not sealed: it has no {LOCK}", fix=f"check it, then `lineside recipe seal {folder}`"
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        return _lock(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error})", fix="restore the recipe folder from its source") from error


def _lock(document: Any) -> Lock:
    if document["schema"] != SCHEMA or not isinstance(document["files"], dict):
        raise ValueError(f"schema {document['schema']!r}, files {type(document['files']).__name__}")
    files: dict[str, str] = {}
    for name, value in document["files"].items():
        if _is_odd(name) or not isinstance(value, str) or not _HASH.fullmatch(value):
            raise ValueError(f"the entry {name!r} is none of a file in this folder")
        files[name] = value
    row = document.get("signature")
    if row is None:
        return Lock(files, None)
    signature = Signature(bytes.fromhex(row["public_key"]), bytes.fromhex(row["ed25519"]))
    if (len(signature.public), len(signature.signed)) != (32, 64) or row["fingerprint"] != signature.fingerprint:
        raise ValueError("the signature is not in the form of Ed25519")
    return Lock(files, signature)


def _is_odd(name: str) -> bool:
    """Whether a name leads out of the folder, or could be read as another one."""
    parts = name.split("/")
    return bool(_ODD.search(name)) or len(name) > 240 or any(part in ("", ".", "..") for part in parts)


def _files(folder: Path) -> dict[str, Path]:
    """Every file of a recipe by its name; ConfigError for links, devices and names that could mislead."""
    found: dict[str, Path] = {}
    odd = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()) or _is_odd(name):
            odd.append(repr(name))
        elif path.is_file() and name != LOCK:
            found[name] = path
    if odd:
        raise ConfigError(
            f"{folder} holds links, devices or odd names: {', '.join(odd[:8])}",
            fix="a recipe is made of plain files with plain names; remove or rename these",
        )
    return found


def _message(hashes: dict[str, str]) -> bytes:
    return _PURPOSE + json.dumps(hashes, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _check_signature(folder: Path, lock: Lock, trusted_keys: Sequence[str | Path]) -> None:
    if lock.signature is None:
        if trusted_keys:
            raise ConfigError(
                f"the recipe {folder} is not signed, and this station takes only signed ones",
                fix=f"have it approved: `lineside recipe seal {folder} --key FILE`",
            )
        return
    signature = lock.signature
    trusted = [raw_public(read_public_key(Path(path))) for path in trusted_keys]
    if trusted and signature.public not in trusted:
        raise ConfigError(
            f"the recipe {folder} is signed with the key {signature.fingerprint[:16]}, which this station does not trust "
            f"(trusted: {', '.join(fingerprint_of(key)[:16] for key in trusted)})",
            fix="have it approved by who holds a trusted key, or name the key in trusted_keys of the station config",
        )
    try:
        Ed25519PublicKey.from_public_bytes(signature.public).verify(signature.signed, _message(lock.files))
    except (InvalidSignature, ValueError) as error:
        raise ConfigError(
            f"the signature of the recipe {folder} is not valid: what was signed is not what its lock says",
            fix="restore the folder from its source, or review the change and have it sealed again",
        ) from error
