"""Names that tell patients apart without telling who they are."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from echopulse.errors import InputError


class Pseudonyms:
    """Keyed hashes: the same salt gives the same name, and without it no name can be guessed and tried.

    Args:
        salt: any bytes; stretched by scrypt, since users choose short ones.
    """

    def __init__(self, salt: bytes) -> None:
        self._key = hashlib.scrypt(salt, salt=b"echopulse", n=2**14, r=8, p=1, dklen=32)

    def name(self, kind: str, original: str) -> str:
        """`kind` and 16 hexadecimal digits, such as `s0123456789abcdef`."""
        return kind + hmac.new(self._key, f"{kind}:{original}".encode(), hashlib.sha256).hexdigest()[:16]


def split_of(subject: str) -> str:
    """`train` (80 %), `val` or `test` (10 % each), by the hash of the patient's name in the source.

    The salt plays no part, so that a patient is in the same split of every set.
    """
    share = int.from_bytes(hashlib.sha256(f"echopulse split:{subject}".encode()).digest()[:8]) / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def salt_of(text: str | None, path: Path) -> bytes:
    """The user's salt, or a random one that is kept in `path` for its owner alone.

    Raises:
        InputError: the salt is empty, or the file holds something else.
    """
    if text is not None:
        if not text:
            raise InputError("--salt is empty; expected a secret text, or leave it out for a random one")
        return text.encode()
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    salt = path.read_text(encoding="ascii", errors="replace").strip()
    if len(salt) != 64:
        raise InputError(f"{path}: not a salt of 64 hexadecimal digits; remove it or give one with --salt")
    return salt.encode()
