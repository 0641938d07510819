"""Read a store's HMAC key from the environment or its file; make it; derive keys from it.

The store's own key must never leave the machine or be cached: whoever has it can forge results. A CI with ephemeral
machines gives a key from its protected secrets: then results cached by its protected runs are accepted on their next
machine, and those that anybody else put into the cache are not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError, VerificationError
from pipeline.store.durable_files import sync_file, sync_folder

KEY_FILE = "key"
"""Name of the file with the store's own key, in its root, readable by its owner only."""

KEY_SIZE = 32
"""Bytes: as many as SHA-256 has (RFC 2104, section 3)."""

KEY_VARIABLE = "RELBUILD_STORE_KEY"
"""Environment variable that holds the key that a CI gives, as text."""

KEY_FILE_VARIABLE = "RELBUILD_STORE_KEY_FILE"
"""Environment variable that names the file with that text."""

KEY_TEXT_LEAST = 32
"""Least characters of a given key. Whoever can read the cache sees values with their seals, so the key must withstand
guessing: 32 random hex digits are 128 bits."""

KEY_TEXT_MOST = 4096
"""Most characters of a given key."""


def given_key(environment: Mapping[str, str]) -> bytes | None:
    """Return the key given by the environment; None: the store's own is to be used.

    Raises UsageError `store-key-short`, `store-key-missing`.
    """
    text, place = environment.get(KEY_VARIABLE, ""), KEY_VARIABLE
    if not text and (name := environment.get(KEY_FILE_VARIABLE, "")):
        place = name
        try:
            with Path(name).open(errors="replace") as file:
                text = file.read(KEY_TEXT_MOST + 2)
        except OSError as error:
            raise UsageError(
                "store-key-missing",
                f"the store's key cannot be read: {error.strerror}",
                place=name,
                hint=f"{KEY_FILE_VARIABLE} names the file that holds it",
            ) from error
    text = text.strip()
    if not text and place == KEY_VARIABLE:
        return None
    if not KEY_TEXT_LEAST <= len(text) <= KEY_TEXT_MOST:
        raise UsageError(
            "store-key-short",
            f"the store's key must have {KEY_TEXT_LEAST} to {KEY_TEXT_MOST} characters, not {len(text)}",
            place=place,
            hint="generate one with `openssl rand -hex 32`",
        )
    return hashlib.sha256(b"relbuild store key\n" + text.encode(errors="surrogateescape")).digest()


def read_key(root: Path) -> bytes | None:
    """Read the store's own key; None if there is none yet.

    Raises VerificationError `store-key` if the file was changed, UsageError `store-of-another` if it is another user's.
    """
    path = root / KEY_FILE
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _spoiled(path) from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise _spoiled(path)
    with os.fdopen(handle, "rb") as file:
        key = file.read(KEY_SIZE + 1)
    if found.st_uid != os.geteuid():
        raise store_of_another(root, found.st_uid)
    if len(key) != KEY_SIZE or stat.S_IMODE(found.st_mode) != 0o600:
        raise _spoiled(path)
    return key


def make_key(root: Path) -> bytes:
    """Return the store's own key; make one if there is none.

    The first of several processes wins.
    """
    known = read_key(root)
    if known is not None:
        return known
    handle, name = tempfile.mkstemp(dir=root / "tmp", prefix="key-")
    try:
        with os.fdopen(handle, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(secrets.token_bytes(KEY_SIZE))
            sync_file(file)
            with contextlib.suppress(FileExistsError):
                (root / KEY_FILE).hardlink_to(name)
    finally:
        Path(name).unlink()
    sync_folder(root)
    made = read_key(root)
    assert made is not None, "it was just put there, and is never removed"
    return made


def derive_key(key: bytes, purpose: str) -> bytes:
    """Derive the key for one purpose, so that a seal of one kind is not valid for another."""
    return hmac.new(key, b"relbuild derived key\n" + purpose.encode(), hashlib.sha256).digest()


def store_of_another(root: Path, user: int) -> UsageError:
    """Return the error of a store that belongs to another user, by the user's ID."""
    import pwd  # only for errors

    try:
        name = f"'{pwd.getpwuid(user).pw_name}' (uid {user})"
    except KeyError:
        name = f"uid {user}"
    return UsageError(
        "store-of-another",
        f"the store '{root}' belongs to user {name}, and relbuild runs as uid {os.geteuid()}: what it writes there "
        "would shut that user out",
        place=str(root),
        # No `chown`: a key that a cache brought would count.
        hint="run relbuild as that user, or keep a store of your own with --store; if a cache brought the folder, "
        f"remove '{root / KEY_FILE}' if it is there, and make the rest yours, or give a key with {KEY_VARIABLE}",
    )


def _spoiled(path: Path) -> VerificationError:
    return VerificationError(
        "store-key",
        "the store's key file was changed, so results sealed with it cannot be trusted",
        place=str(path),
        hint="`relbuild store fsck` puts it aside; then build and test again before publishing",
    )
