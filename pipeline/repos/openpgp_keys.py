"""Load repositories' OpenPGP keys as certificates, with GnuPG's verdict on each key.

rpm reads an armored block as one certificate, and refuses a whole certificate for one revoked subkey. So rpm gets each
certificate in a block of its own, without its expired or revoked keys. Which these are is GnuPG's verdict:
`gpg --show-keys` in an empty home, by its colon lines (doc/DETAILS), never by its messages.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

from pipeline.beneath import Folder, note_read, read_file
from pipeline.errors import RecipeError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.signing_key import KeyFault, UnusableKey
from pipeline.openpgp_packets import (
    CERTIFICATE_PACKETS,
    KEY_PACKETS,
    KEYRING_PACKETS,
    MalformedPacket,
    OpenPgpKey,
    Packet,
    PacketKind,
    armor,
    armor_blocks,
    certificate_keys,
    dearmor,
    prune_certificate,
    read_public_key,
    read_signature,
    split_certificates,
)
from pipeline.progress import QUIET, Progress
from pipeline.repos.document_fetcher import DocumentFetcher
from pipeline.repos.repository_access import key_network
from pipeline.repos.variables import environment_behind, expand_repository, platform_variables
from pipeline.store import Store
from pipeline.transfer import Network
from pipeline.transfer.url_stream import url_file
from pipeline.urls import is_http_url, shown_url

KEYS_LIMIT = 1 << 20
"""Maximum bytes of one key file: distributions' have a few KiB."""

KEYS_MOST = 200
"""Maximum certificates in one file: each one unreadable to GnuPG costs a run of it. Large files have some dozen."""

_GPG_TIME = 30.0
"""Timeout in seconds; it takes milliseconds."""

_GPG_VERSIONS = frozenset({4})
"""Versions of OpenPGP keys that GnuPG and rpm read."""

_TYPES_SHOWN = 8
"""Packet types that a warning names: there are 64."""

_FAULTS = {"e": KeyFault.EXPIRED, "r": KeyFault.REVOKED, "i": KeyFault.UNREADABLE}
"""The fault for gpg's letter of validity (doc/DETAILS, field 2). A key that gpg does not list counts as `i`."""

_NO_BINDING = "no valid signature of its own key stands with it"


@dataclass(frozen=True, slots=True)
class RepositoryKey:
    """A certificate of a repository: a primary key that signs its packages, with its subkeys.

    `armored` is the certificate in a block of its own: the file's own armor where it holds no other certificate. It
    identifies the key in locks and provenance; rpm never gets it (`prune_certificate`). `unusable` are its keys of
    which no signature counts today.
    """

    repository: str
    fingerprint: str
    armored: bytes
    unusable: tuple[UnusableKey, ...] = ()


def load_keys(
    platform: Platform,
    arch: str,
    *,
    variables: Mapping[str, str],
    store: Store,
    offline: bool = False,
    network: Network | None = None,
    progress: Progress = QUIET,
) -> tuple[RepositoryKey, ...]:
    """Load the keys of every repository of the platform, sorted by repository and fingerprint.

    `variables` is the environment. Keys fetched from a URL are kept in the store for `offline`; unusable keys and
    ignored blocks are warned of through `progress`. Raises RecipeError `key-unreadable`, VerificationError
    `key-malformed`, `key-not-pinned`, and the errors of `pipeline.transfer`.
    """
    way = network or Network.of(variables)
    documents = DocumentFetcher(store, offline=offline, network=way)
    own = platform_variables(platform, arch, variables)
    keys: set[RepositoryKey] = set()
    told: set[str] = set()

    def warn(text: str) -> None:
        if text not in told:
            told.add(text)
            progress.warn(text)

    for repository in platform.repositories:
        expanded = expand_repository(repository, own, variables)
        found: set[RepositoryKey] = set()
        for key, place in zip(repository.keys, expanded.keys, strict=True):
            reader = documents
            if not offline and is_http_url(place):
                reader = DocumentFetcher(store, network=key_network(expanded, place, way, variables))
            found.update(_load(place, expanded, reader, warn, partial(_key_hint, key, place, platform)))
        if expanded.fingerprints and not found:
            raise _none_pinned(expanded)
        keys |= found
    return tuple(sorted(keys, key=lambda key: (key.repository, key.fingerprint, key.armored)))


def counting_certificates(
    keys: Sequence[RepositoryKey], *, locked_at: int | None = None
) -> tuple[tuple[bytes, ...], tuple[UnusableKey, ...]]:
    """Return the certificates without the keys that do not count, and these keys.

    The certificates are armored anew and sorted. A key that is revoked in one of them is removed from all: a file from
    before the revocation may stand beside the one that has it. Of two dates of expiry the later counts, and where
    `locked_at` is given, a key that expired after it.
    """
    certificates: set[bytes] = set()
    unusable: dict[UnusableKey, None] = {}
    revoked = {one.fingerprint for key in keys for one in key.unusable if one.fault is KeyFault.REVOKED}
    for key in keys:
        lost = [one for one in key.unusable if not _counts(one, locked_at)]
        certificates.add(prune_certificate(key.armored, {one.fingerprint for one in lost} | revoked))
        unusable |= dict.fromkeys(lost)
    return tuple(sorted(certificates - {b""})), tuple(unusable)


def _counts(key: UnusableKey, locked_at: int | None) -> bool:
    return locked_at is not None and key.fault is KeyFault.EXPIRED and key.since > locked_at


def _none_pinned(repository: PackageRepository) -> VerificationError:
    return VerificationError(
        "key-not-pinned",
        f"no key of {', '.join(map(shown_url, repository.keys))} has a fingerprint that the repository names",
        place=f"repository {repository.id}",
        hint="if the vendor announced another key, write its fingerprint; else do not trust this server",
    )


def _key_hint(key: str, place: str, platform: Platform) -> str:
    """Return the way out of a key that cannot be read.

    `key` is its path as the platform has it, `place` the path that this became.
    """
    import difflib  # Most keys are there.

    path = Path(place)
    with contextlib.suppress(OSError, ValueError):
        if path.is_absolute() and not path.exists():
            near = difflib.get_close_matches(path.name, os.listdir(path.parent), 1)  # noqa: PTH208  names alone
            if near:
                return f"did you mean '{near[0]}', in the same folder?"
    if depends := environment_behind(key, platform):
        return f"it comes from the environment variable {' or '.join(depends)}: set that to a folder that has the key"
    return "write a path relative to repositories.yaml, one from the root, ~/…, or a URL"


def _load(
    place: str,
    repository: PackageRepository,
    documents: DocumentFetcher,
    warn: Callable[[str], None],
    way_out: Callable[[], str],
) -> tuple[RepositoryKey, ...]:
    def read(data: bytes) -> tuple[RepositoryKey, ...]:
        return read_keys(repository.id, data, place, warn, repository.fingerprints)

    def read_noted(data: bytes) -> tuple[RepositoryKey, ...]:
        note_read(url_file(place), data)
        return read(data)

    if place.startswith("file:/"):
        return documents.get(place, limit=KEYS_LIMIT, read=read_noted)
    if place.startswith(("http://", "https://")):
        return documents.get(place, limit=KEYS_LIMIT, read=read)
    path = Path(place)
    try:
        if not path.is_absolute():
            raise OSError("not an absolute path")
        if repository.folder and path.is_relative_to(repository.folder):
            data = Folder(repository.folder).read(path.relative_to(repository.folder), KEYS_LIMIT)
        else:
            data = read_file(path, KEYS_LIMIT)
    except (OSError, ValueError) as error:
        raise RecipeError(
            "key-unreadable",
            f"the key {shown_url(place)} cannot be read: {error}",
            place=f"repository {repository.id}",
            hint=way_out(),
        ) from error
    return read(data)


def read_keys(
    repository: str,
    data: bytes,
    name: str,
    warn: Callable[[str], None] = lambda text: None,
    fingerprints: Collection[str] = (),
) -> tuple[RepositoryKey, ...]:
    """Read all keys in a file: armored, in one block or several, or a binary keyring.

    Where `fingerprints` are given, only primary keys that have one of them are taken, which may be none. `warn` is
    called for each ignored block and unusable key. Raises VerificationError `key-malformed` if there is no key.
    """
    found: dict[bytes, _Certificate] = {}
    problems: list[str] = []
    for number, read in enumerate(_blocks(data), 1):
        try:
            for certificate in read():
                found.setdefault(certificate.data, certificate)
                if len(found) > KEYS_MOST:
                    why = f"{shown_url(name)} has more than {KEYS_MOST} keys"
                    raise VerificationError("key-malformed", why, place=f"repository {repository}")
        except MalformedPacket as error:
            problems.append(f"block {number}: {error}")
    if not found:
        reason = f" ({'; '.join(problems[:3])})" if problems else ""
        raise VerificationError(
            "key-malformed",
            f"{shown_url(name)} has no OpenPGP public key{reason}",
            place=f"repository {repository}",
            hint="the file must hold public keys, armored (-----BEGIN PGP PUBLIC KEY BLOCK-----) or binary",
        )
    wanted = [one for one in found.values() if not fingerprints or one.key.fingerprint in fingerprints]
    for certificate in wanted:
        strange = sorted({packet.kind for packet in certificate.packets} - CERTIFICATE_PACKETS - KEYRING_PACKETS)
        if strange:
            types = ", ".join(map(str, strange[:_TYPES_SHOWN]))
            primary = certificate.key.fingerprint
            warn(f"{shown_url(name)}: the key {primary} stands with packets of types {types}, left out")
    keys = _judged(repository, wanted)
    for problem in problems:
        warn(f"{shown_url(name)}: {problem}; this block is ignored")
    for key in keys:
        shown = [one for one in key.unusable if not one.subkey] or key.unusable  # It disables its subkeys.
        for one in shown:
            warn(f"{shown_url(name)}: {one}; no signature by it counts")
    return keys


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A primary key, all packets of its certificate, and these as an armored block."""

    key: OpenPgpKey
    packets: tuple[Packet, ...]
    armored: bytes

    @property
    def data(self) -> bytes:
        """Input for GnuPG: the packets of a certificate and of keyrings, and no others."""
        known = CERTIFICATE_PACKETS | KEYRING_PACKETS
        return b"".join(packet.raw for packet in self.packets if packet.kind in known)


def _blocks(data: bytes) -> Iterator[Callable[[], list[_Certificate]]]:
    """Yield a function to read each armored block, or a single one to read a binary file."""
    if data[:1] and data[0] & 0x80:
        yield lambda: _certificates(data, b"")
        return
    for block in armor_blocks(data):
        yield lambda block=block: _certificates(dearmor(block), block)  # type: ignore[misc]


def _certificates(data: bytes, block: bytes) -> list[_Certificate]:
    """Raises MalformedPacket."""
    parts = split_certificates(data)
    return [
        _Certificate(read_public_key(packets[0].body), packets, block if block and len(parts) == 1 else armor(packets))
        for packets in parts
    ]


def _judged(repository: str, certificates: Sequence[_Certificate]) -> tuple[RepositoryKey, ...]:
    """Return the keys, each with GnuPG's verdict."""
    readable = [one for one in certificates if one.key.version in _GPG_VERSIONS]
    # Two certificates of one key in one file (such as with different expiry dates) need a run of gpg for each.
    alone = len({one.key.fingerprint for one in readable}) < len(readable)
    verdicts = {} if alone else _verdicts(b"".join(one.data for one in readable))
    keys = []
    for one in certificates:
        own = verdicts.get(one.key.fingerprint)
        if own is None and one.key.version in _GPG_VERSIONS:
            own = _verdicts(one.data).get(one.key.fingerprint)  # gpg stops at the first that it cannot read.
        unusable = _unusable(one, own)
        keys.append(RepositoryKey(repository, one.key.fingerprint, one.armored, unusable))
    return tuple(keys)


_VERDICTS_KEPT = 60.0
"""Seconds for which gpg's verdicts on the same keys are not asked for again: a key may expire meanwhile."""

_Verdicts = dict[str, tuple[str, int]]
"""Fingerprint of a primary key or subkey → gpg's letter of its validity, and its date of expiry (0: none)."""


def _verdicts(data: bytes) -> dict[str, _Verdicts]:
    """Return gpg's verdicts on each certificate's keys, by the primary key's fingerprint.

    By doc/DETAILS, an `fpr` line follows each `pub` or `sub` line, whose second field is the validity and whose
    seventh is the expiry date.
    """
    return _asked_gpg(data, int(time.monotonic() // _VERDICTS_KEPT)) if data else {}


@lru_cache(KEYS_MOST)
def _asked_gpg(data: bytes, _: int) -> dict[str, _Verdicts]:
    """Ask gpg, in a period of time once for the same keys.

    Several repositories have the same key, and a command reads it more than once.
    """
    import tempfile

    from pipeline.process import run

    with tempfile.TemporaryDirectory(prefix="relbuild-gpg-") as home:
        # --no-autostart: no agent or keybox daemon may outlive this call.
        command = ["gpg", "--homedir", home, "--batch", "--no-autostart", "--no-options"]
        shown = run([*command, "--with-colons", "--show-keys"], stdin=data, timeout=_GPG_TIME, check=False)
    found: dict[str, _Verdicts] = {}
    current: _Verdicts = {}
    about: list[str] = []
    for line in shown.stdout.decode(errors="replace").splitlines():
        fields = line.split(":")
        if fields[0] in {"pub", "sub"} and len(fields) > 9:
            about = fields
        elif fields[0] == "fpr" and about and len(fields) > 9:
            fingerprint = fields[9].upper()
            if about[0] == "pub":
                current = found.setdefault(fingerprint, {})
            current[fingerprint] = (about[1], int(about[6]) if about[6].isdigit() else 0)
            about = []
    return found


def _unusable(certificate: _Certificate, verdicts: _Verdicts | None) -> tuple[UnusableKey, ...]:
    """Return the unusable keys of a certificate, the primary key first.

    If the primary key is unusable, its subkeys are too. They are listed only where it has expired, and only for another
    fault or an earlier date of their own: a lock may count the primary key still, and must not count them.
    """
    key = certificate.key
    keys = tuple(certificate_keys(certificate.packets))
    ids = tuple(one.key_id for _, one in keys)
    if verdicts is None:
        known = key.version in _GPG_VERSIONS
        why = "GnuPG does not read it" if known else f"it is of OpenPGP v{key.version}, which this rpm cannot check"
        return (UnusableKey(key.fingerprint, ids, KeyFault.UNREADABLE, detail=why),)
    found = []
    primary = None  # Of an expired one, gpg calls all subkeys expired that have no other fault.
    for index, one in keys:
        letter, expiry = verdicts.get(one.fingerprint, ("i", 0))
        fault = _FAULTS.get(letter)
        if fault is None:
            continue
        since = _revoked(certificate.packets[index + 1 :]) if fault is KeyFault.REVOKED else expiry
        detail = _NO_BINDING if fault is KeyFault.UNREADABLE else ""
        if index == 0:
            primary = UnusableKey(one.fingerprint, ids, fault, since=since, detail=detail)
            if fault is not KeyFault.EXPIRED:
                return (primary,)
            found.append(primary)
        elif primary is None or fault is not KeyFault.EXPIRED or 0 < since < primary.since:
            found.append(UnusableKey(one.fingerprint, (one.key_id,), fault, True, since, detail))
    return tuple(found)


def _revoked(packets: Sequence[Packet]) -> int:
    """Return the date of the first revocation among the signatures that follow a key, else 0."""
    for packet in packets:
        if packet.kind in KEY_PACKETS:
            break
        if packet.kind == PacketKind.SIGNATURE:
            try:
                signature = read_signature(packet.body)
            except MalformedPacket:
                continue
            if signature.revokes:
                return signature.created
    return 0
