import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from inspection.errors import ConfigError, UsageError
from inspection.recipe_lock import LOCK, lock_sha256, read_lock, verify, write_lock
from inspection.signing_keys import make_key, read_private_key, read_public_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files to be sealed."""
    made = tmp_path / "recipe"
    (made / "selftest").mkdir(parents=True)
    (made / "recipe.toml").write_text("a = 1\n")
    (made / "selftest" / "good.png").write_bytes(b"picture")
    return made


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Two private keys with their public keys beside them."""
    made = tmp_path / "anna", tmp_path / "ben"
    for key in made:
        make_key(key)
    return made


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def refusal(folder: Path, *trusted: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        verify(folder, trusted)
    assert refused.value.fix
    return refused.value.what


def change_lock(folder: Path, **changes: object) -> None:
    document = json.loads((folder / LOCK).read_text())
    document["signature"].update(changes)
    (folder / LOCK).write_text(json.dumps(document))


def test_signed_recipe_is_taken_where_its_key_is_trusted(folder: Path, keys: tuple[Path, Path]) -> None:
    """One trusted key among several is enough, and a station without trusted keys takes it too."""
    assert write_lock(folder, read_private_key(keys[0])) == lock_sha256(folder)
    verify(folder, [public(keys[1]), public(keys[0])])
    verify(folder)


def test_folder_that_is_not_there_is_not_said_to_be_unsealed(tmp_path: Path) -> None:
    """Whoever mistypes a path is not told to seal it."""
    assert refusal(tmp_path / "nowhere") == f"there is no recipe folder {tmp_path / 'nowhere'}"


def test_unsigned_recipe_is_refused_where_keys_are_trusted(folder: Path, keys: tuple[Path, Path]) -> None:
    """A station that trusts keys takes nothing that nobody signed; one that names none takes it."""
    write_lock(folder)
    assert "is not signed" in refusal(folder, public(keys[0]))
    verify(folder)


def test_recipe_signed_by_somebody_else_is_refused(folder: Path, keys: tuple[Path, Path]) -> None:
    """A valid signature of a foreign key is no approval; both keys are named."""
    write_lock(folder, read_private_key(keys[1]))
    what = refusal(folder, public(keys[0]))
    assert "does not trust" in what
    signature = read_lock(folder).signature
    assert signature is not None
    assert signature.fingerprint[:16] in what


@pytest.mark.parametrize("trusting", [True, False])
def test_changed_and_relocked_recipe_is_refused(folder: Path, keys: tuple[Path, Path], trusting: bool) -> None:
    """Who changes a file and its hash in the lock cannot make the signature fit, trusted keys or not."""
    write_lock(folder, read_private_key(keys[0]))
    signed = json.loads((folder / LOCK).read_text())["signature"]
    (folder / "recipe.toml").write_text("a = 2\n")
    write_lock(folder)
    document = json.loads((folder / LOCK).read_text())
    (folder / LOCK).write_text(json.dumps({**document, "signature": signed}))
    assert "is not valid" in refusal(folder, *([public(keys[0])] if trusting else []))


def test_changed_file_below_a_valid_signature_is_named(folder: Path, keys: tuple[Path, Path]) -> None:
    """The signature covers the hashes, and the hashes the files."""
    write_lock(folder, read_private_key(keys[0]))
    (folder / "recipe.toml").write_text("a = 2\n")
    assert "recipe.toml was changed" in refusal(folder, public(keys[0]))


def test_signature_under_the_name_of_another_key_is_refused(folder: Path, keys: tuple[Path, Path]) -> None:
    """A trusted public key pasted over a foreign one does not fit the signature."""
    write_lock(folder, read_private_key(keys[0]))
    trusted = json.loads((folder / LOCK).read_text())["signature"]
    write_lock(folder, read_private_key(keys[1]))
    change_lock(folder, public_key=trusted["public_key"], fingerprint=trusted["fingerprint"])
    assert "is not valid" in refusal(folder, public(keys[0]))


@pytest.mark.parametrize(
    "changes",
    [
        {"ed25519": "00"}, {"ed25519": "zz"}, {"ed25519": 3}, {"public_key": ""}, {"fingerprint": "00"}, {"ed25519": None},
    ],
)  # fmt: skip
def test_damaged_signature_is_refused(folder: Path, keys: tuple[Path, Path], changes: dict[str, object]) -> None:
    """A signature that is there must be whole; it is never passed over as if there were none."""
    write_lock(folder, read_private_key(keys[0]))
    change_lock(folder, **changes)
    assert "is damaged" in refusal(folder)


def test_signing_twice_gives_the_same_recipe(folder: Path, keys: tuple[Path, Path]) -> None:
    """The hash of a signed recipe depends on its files and its key alone."""
    key = read_private_key(keys[0])
    assert write_lock(folder, key) == write_lock(folder, key)


def test_private_key_is_readable_by_its_owner_alone(keys: tuple[Path, Path]) -> None:
    """A key that others can read proves nothing, and is refused."""
    assert keys[0].stat().st_mode & 0o777 == 0o600
    keys[0].chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        read_private_key(keys[0])


def test_keys_are_never_overwritten(keys: tuple[Path, Path]) -> None:
    """A private key that is lost cannot be made again, so neither of the two files may be there."""
    before = keys[0].read_bytes()
    for there in (keys[0], public(keys[1])):
        if there == public(keys[1]):
            keys[1].unlink()
        with pytest.raises(UsageError, match="exists already"):
            make_key(keys[0] if there == keys[0] else keys[1])
    assert before == keys[0].read_bytes()


def test_files_that_are_no_keys_are_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """A public key is no private one, a picture is none at all, and another kind of key signs nothing here."""
    rsa = generate_private_key(65537, 2048)
    other = tmp_path / "rsa"
    other.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    other_public = tmp_path / "rsa.pub"
    other_public.write_bytes(rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    picture = tmp_path / "picture"
    picture.write_bytes(b"\x89PNG")
    shutil.copyfile(public(keys[0]), tmp_path / "copy")
    for path in (other, picture, tmp_path / "copy", tmp_path / "missing"):
        if path.exists():
            path.chmod(0o600)
        with pytest.raises(UsageError):
            read_private_key(path)
    for path in (other_public, picture, keys[0], tmp_path / "missing.pub"):
        with pytest.raises(ConfigError):
            read_public_key(path)
