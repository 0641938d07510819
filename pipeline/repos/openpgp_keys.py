"""OpenPGP keys of repositories, and the signatures that they make over repomd.xml.

The cryptography is GnuPG's: `gpg --show-keys` tells what a file of keys holds, `gpgv` judges a detached
signature, each in an empty home of its own. Verdicts come from exit status and status lines, which GnuPG
documents (doc/DETAILS), never from its prose.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.beneath import read_file
from pipeline.errors import RecipeError, VerificationError
from pipeline.model.platform import Platform
from pipeline.process import run
from pipeline.repos.document_fetcher import DocumentFetcher
from pipeline.repos.repository_access import is_own_origin, repository_network
from pipeline.repos.variables import expand_repository, platform_variables
from pipeline.store import Store
from pipeline.transfer import Network
from pipeline.urls import shown_url

KEYS_LIMIT = 1 << 20
"""Bytes of one file of keys: distributions' have a few KiB."""

SIGNATURE_LIMIT = 64 << 10

_GPG_TIME = 30.0
"""Seconds; it takes milliseconds."""

KEY_BLOCKS_MOST = 200
"""Armored blocks in one file: each costs a run of gpg. The largest collections of keys have some dozen."""

_BEGIN = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END = b"-----END PGP PUBLIC KEY BLOCK-----"
_BAD = (b"BADSIG", b"ERRSIG", b"EXPSIG", b"EXPKEYSIG", b"REVKEYSIG")


@dataclass(frozen=True, slots=True)
class RepositoryKey:
    """A primary key that a repository's packages may be signed with.

    `armored` is the armored block that it stands in; keys that share a block share its text.
    """

    repository: str
    fingerprint: str
    armored: bytes


def load_keys(
    platform: Platform,
    arch: str,
    *,
    variables: Mapping[str, str],
    store: Store,
    offline: bool = False,
    network: Network | None = None,
) -> tuple[RepositoryKey, ...]:
    """The keys of every repository of the platform, sorted by repository and fingerprint.

    `variables` is the environment. Keys that come by URL are kept in the store for `offline`. Raises
    RecipeError `key-unreadable`, VerificationError `key-malformed`, and as `pipeline.transfer`.
    """
    way = network or Network.of(variables)
    documents = DocumentFetcher(store, offline=offline, network=way)
    own = platform_variables(platform, arch, variables)
    keys: set[RepositoryKey] = set()
    for repository in platform.repositories:
        expanded = expand_repository(repository, own, variables)
        for place in expanded.keys:
            reader = documents
            if not offline and is_own_origin(expanded, place):  # A server that wants to know who asks has its key too.
                to_it = repository_network(expanded, way, variables, now=None)
                reader = DocumentFetcher(store, network=to_it)
            keys.update(_load(place, repository.id, reader))
    return tuple(sorted(keys, key=lambda key: (key.repository, key.fingerprint, key.armored)))


def _load(place: str, repository: str, documents: DocumentFetcher) -> tuple[RepositoryKey, ...]:
    if place.startswith(("http://", "https://", "file:/")):
        return documents.get(place, limit=KEYS_LIMIT, read=lambda data: read_keys(repository, data, place))
    path = Path(place)
    try:
        if not path.is_absolute():
            raise OSError("not an absolute path")
        data = read_file(path, KEYS_LIMIT)
    except (OSError, ValueError) as error:
        raise RecipeError(
            "key-unreadable",
            f"the key {shown_url(place)} cannot be read: {error}",
            place=f"repository {repository}",
            hint="write an absolute path, ~/…, or a URL",
        ) from error
    return read_keys(repository, data, place)


def read_keys(repository: str, data: bytes, name: str) -> tuple[RepositoryKey, ...]:
    """All keys in an armored file. Raises VerificationError `key-malformed` if there is none."""
    keys = []
    for number, armored in enumerate(_blocks(data)):
        if number >= KEY_BLOCKS_MOST:
            why = f"{shown_url(name)} has more than {KEY_BLOCKS_MOST} armored keys"
            raise VerificationError("key-malformed", why, place=f"repository {repository}")
        keys += [RepositoryKey(repository, fingerprint, armored) for fingerprint in _fingerprints(armored)]
    if not keys:
        raise VerificationError(
            "key-malformed",
            f"{shown_url(name)} has no armored OpenPGP public key",
            place=f"repository {repository}",
            hint="the file must begin with -----BEGIN PGP PUBLIC KEY BLOCK-----",
        )
    return tuple(keys)


def _blocks(data: bytes) -> Iterator[bytes]:
    """Yield the armored blocks, each with line feeds alone.

    One pass: a block begins anew at each line that says so.
    """
    block: list[bytes] = []
    for line in data.split(b"\n"):
        bare = line.rstrip(b" \t\r")
        if bare == _BEGIN:
            block = [bare]
        elif block and bare == _END:
            yield b"\n".join((*block, bare)) + b"\n"
            block = []
        elif block:
            block.append(line.removesuffix(b"\r"))


def _fingerprints(armored: bytes) -> list[str]:
    """Return the fingerprints of the primary keys of one armored block.

    In gpg's doc/DETAILS: the `fpr` line after a `pub` line.
    """
    with tempfile.TemporaryDirectory(prefix="relbuild-gpg-") as home:
        # --no-autostart: no agent or keybox daemon may outlive this call.
        command = ["gpg", "--homedir", home, "--batch", "--no-autostart", "--no-options"]
        shown = run([*command, "--with-colons", "--show-keys"], stdin=armored, timeout=_GPG_TIME, check=False)
    found = []
    primary = False
    for line in shown.stdout.decode(errors="replace").splitlines():
        fields = line.split(":")
        if fields[0] in {"pub", "sub"}:
            primary = fields[0] == "pub"
        elif fields[0] == "fpr" and primary and len(fields) > 9:
            found.append(fields[9].upper())
            primary = False
    return found


def verify_detached(data: bytes, signature: bytes, keys: Sequence[RepositoryKey], *, name: str) -> str:
    """Verify a detached signature over `data`, made by one of `keys`.

    Returns the primary key's fingerprint.

    Raises VerificationError `metadata-signature-bad`. Expired and revoked keys are refused: whoever takes over
    an old key could sign old metadata again.
    """
    if not keys:
        raise VerificationError(
            "metadata-signature-bad",
            f"{name} must be signed, but the repository has no keys",
            place=name,
            hint="add the repository's key under 'keys'",
        )
    with tempfile.TemporaryDirectory(prefix="relbuild-gpg-") as home:
        folder = Path(home)
        (folder / "keys.gpg").write_bytes(b"".join(dearmor(block) for block in sorted({k.armored for k in keys})))
        (folder / "data").write_bytes(data)
        (folder / "signature").write_bytes(signature)
        judged = run(
            [
                *("gpgv", "--homedir", home, "--keyring", folder / "keys.gpg"),
                *("--weak-digest", "SHA1", "--status-fd", "1", folder / "signature", folder / "data"),
            ],
            timeout=_GPG_TIME,
            check=False,
        )
    status = [line.split()[1:] for line in judged.stdout.splitlines() if line.startswith(b"[GNUPG:] ")]
    valid = [words[-1].decode() for words in status if words and words[0] == b"VALIDSIG"]
    bad = [words[0].decode() for words in status if words and words[0] in _BAD]
    if judged.status != 0 or bad or not valid or not {*valid} <= {key.fingerprint for key in keys}:
        detail = judged.stderr.decode(errors="replace").strip().splitlines()
        raise VerificationError(
            "metadata-signature-bad",
            f"{name} is not signed by a key of its repository ({'; '.join(detail[-2:]) or 'no verdict'})",
            place=name,
            hint="check 'keys' of the repository; if they are correct, do not use this mirror",
        )
    return valid[0]


def dearmor(armored: bytes) -> bytes:
    """The packets of an armored block (RFC 9580, 6.2). Raises VerificationError `key-malformed`."""
    lines = armored.strip().splitlines()
    try:
        body = lines[lines.index(b"") + 1 : -1]
        return base64.b64decode(b"".join(line for line in body if not line.startswith(b"=")), validate=True)
    except (ValueError, binascii.Error) as error:
        raise VerificationError("key-malformed", f"invalid armored key: {error}") from error
