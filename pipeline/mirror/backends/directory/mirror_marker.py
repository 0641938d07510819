"""Read, write and restore the marker of a directory mirror: format, and name in signatures.

Whoever can write to a mirror can write another mirror's name there, under which publishers would sign. So a store
remembers the name of each mirror that was opened with it.

A mirror that lost its marker is told apart from one of another format and from a folder that is none: its content is
there. What the marker says can be restored, since signatures have the mirror's name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.beneath import open_without_waiting
from pipeline.digest import Digest, canonical_json, identity
from pipeline.errors import RelbuildError, UsageError, VerificationError
from pipeline.mirror.atomic_files import file_locked, mirror_errors, replace_file
from pipeline.mirror.backends.directory.directory_address_form import MARKER, SCRUB_WRITES_MARKER, is_unmarked
from pipeline.mirror.backends.directory.mirror_owner import open_own, require_own_marker
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths
from pipeline.mirror.known_blobs import set_aside
from pipeline.model.publication import NO_HOST
from pipeline.store import recall_seen, remember_seen

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
    from pipeline.model.scrub import DamageKind, Finding
    from pipeline.store import Store

FORMAT = 1
"""Format of the layout of files; a mirror with another one is refused."""

_MARKER_LIMIT = 64 << 10

_SIGNATURES_READ = 200
"""Signatures of a repository that are read for the mirror's name, at most: each of them has it."""

_SIGNATURE_TAG = re.compile(r"sha256-[0-9a-f]{64}\.sig")

_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._/-]+)?")


def require_pull_host(host: str, root: Path) -> None:
    """Refuse a text that is not `HOST[:PORT][/NAMESPACE]`: raises UsageError `mirror-host`."""
    if not _HOST.fullmatch(host):
        raise UsageError("mirror-host", f"'{host[:80]}' is not HOST[:PORT][/NAMESPACE]", place=f"dir:{root}")


def write_marker(place: MirrorPaths, host: str) -> None:
    """Write a mirror's marker; `host`: the `HOST` or `HOST/NAMESPACE` by which clients pull."""
    replace_file(canonical_json({"format": FORMAT, "host": host}), place.root / MARKER, place.drafts)


def read_host(root: Path) -> str:
    """Return the host in a mirror's marker.

    Raises UsageError `mirror-format` for another format, VerificationError `marker-damaged`, OSError.
    """
    return _parse_marker(root, _read_marker(root)[0])


def require_own_host(root: Path, host: str) -> None:
    """Refuse a mirror that is not one's own, or has another host than was read from its marker.

    Another user may have exchanged its folder meanwhile. What is looked at is what is read; nobody can exchange it
    afterwards. Raises UsageError `mirror-not-own`, `mirror-host`, EnvironmentLacking if it is gone; as `read_host`.
    """
    with mirror_errors(f"dir:{root}"):
        folder = open_own(root)
        try:
            data, seen = _read_marker(root, folder)
            require_own_marker(root, folder, seen)
        finally:
            os.close(folder)
    known = _parse_marker(root, data)
    if known != host:
        raise UsageError(
            "mirror-host",
            f"mirror '{root}' had the name {host} when it was opened, and has {known} now; signatures contain the name",
            place=str(root / MARKER),
            hint="publish again; if that comes back, another user exchanges the folder: publish to one where only you "
            "can write",
        )


def _parse_marker(root: Path, data: bytes) -> str:
    try:
        value = json.loads(data)
        found, host = value["format"], value.get("host")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        found, host = None, ""
    number = found if isinstance(found, int) and not isinstance(found, bool) else None
    if number is not None and number != FORMAT:
        raise UsageError(
            "mirror-format",
            f"'{root / MARKER}' has format {str(found)[:20]}, this version of relbuild reads {FORMAT}",
            place=str(root / MARKER),
            hint="use the relbuild version that created it; if this version published to it, somebody wrote that: run "
            f"`relbuild scrub dir:{root} --as` with its name",
        )
    if number is None or not isinstance(host, str) or not _HOST.fullmatch(host):
        raise VerificationError(
            "marker-damaged",
            f"'{root / MARKER}' is damaged: it says neither format nor name",
            place=str(root / MARKER),
            hint=SCRUB_WRITES_MARKER.format(root) if _has_folders(root) else "publish to a new directory",
        )
    return host


def _read_marker(root: Path, folder: int | None = None) -> tuple[bytes, os.stat_result]:
    """Return a marker's content and status; no content of what is no regular file, as a link.

    `folder`: the descriptor of the mirror's folder, where that is open.
    """
    path = root / MARKER if folder is None else Path(MARKER)
    seen = os.lstat(path) if folder is None else os.lstat(path, dir_fd=folder)
    if not stat.S_ISREG(seen.st_mode):
        return b"", seen
    handle = open_without_waiting(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(handle, "rb") as file:
        seen = os.fstat(handle)
        return file.read(_MARKER_LIMIT) if stat.S_ISREG(seen.st_mode) else b"", seen


def remembered_host(root: Path, store: Store) -> str:
    """Return the host of a mirror when this store was last used to write to it, or ""."""
    known = recall_seen(store, _memory(root))
    return known if isinstance(known, str) else ""


def require_remembered_host(root: Path, host: str, store: Store, *, stated: bool) -> None:
    """Refuse a mirror whose name has changed since this store knows it; remember a new one.

    `stated`: a person gave the name just now. Raises UsageError `mirror-host`.
    """
    known = remembered_host(root, store)
    if known not in ("", host) and not stated:
        raise _renamed(root, host, known)
    if known != host:
        remember_seen(store, _memory(root), host)


def _memory(root: Path) -> Digest:
    return identity("mirror-host", 1, mirror=str(root))


def _renamed(root: Path, host: str, known: str) -> UsageError:
    return UsageError(
        "mirror-host",
        f"mirror '{root}' had the name {known}, and has {host} now; signatures contain the name",
        place=str(root / MARKER),
        hint=f"`relbuild scrub dir:{root} --as {known}` writes the former one; if it is another mirror, or its name "
        f"was meant to change, run scrub with --as {host}",
    )


def restore_marker(
    root: Path,
    clock: Callable[[], float],
    stated: str,
    known: str = "",
    warn: Callable[[str], None] = lambda message: None,
) -> Finding | None:
    """Write a mirror's marker anew if it is lost or damaged, or has another name.

    Its name is the `stated` one, else the `known` one that this store remembers, else that in the signatures of its
    images. A whole marker is written anew only with the stated name, where the store knows it or images are signed
    under it. `warn` is told of another name than the known one, or under which no image is signed. Returns None if
    nothing was to be restored.
    Raises UsageError `mirror-host`, `mirror-format`, `marker-ambiguous` if the signatures have several names or there
    are none, EnvironmentLacking.
    """
    from pipeline.mirror.backends.directory.misplaced_files import put_misplaced_aside
    from pipeline.model.scrub import Finding, RepairOutcome, ScrubbedObject

    if stated:
        require_pull_host(stated, root)
    with mirror_errors(f"dir:{root}"):
        place = MirrorPaths(root, clock)
        before = _readable_host(root)
        repair = _repair(place, stated, known, warn)
        if repair is None:
            return None
        wrong, host, source = repair
        put_misplaced_aside(place, warn)
        with file_locked(root / ".lock" / "catalog"):
            if _readable_host(root) != before:  # Another process restored it meanwhile.
                return None
            set_aside(root, root / MARKER, stays=True)
            write_marker(place, host)
    return Finding(ScrubbedObject.MARKER, wrong, MARKER, "", RepairOutcome.HEALED, f"{source}: {host}")


def _repair(
    place: MirrorPaths, stated: str, known: str, warn: Callable[[str], None]
) -> tuple[DamageKind, str, str] | None:
    """Return what is wrong with a marker, the right name, and its source; None if nothing is.

    Another format is wrong only where a person states a name by which the store knows the mirror, or under which images
    are signed that lie where this format has them. Raises as `restore_marker`.
    """
    from pipeline.model.scrub import DamageKind

    try:
        wrong = _damage(place.root)
    except UsageError:
        if not stated or (stated != known and stated not in _all_signed_hosts(place)):
            raise
        return DamageKind.ROTTEN, stated, "--as"
    if wrong is not None:
        return wrong, *_lost_name(place, stated, known)
    renamed = _other_name(place, stated, known, warn)
    return (DamageKind.ROTTEN, renamed, "--as") if renamed else None


def _lost_name(place: MirrorPaths, stated: str, known: str) -> tuple[str, str]:
    """Return the name of a mirror without a readable marker, and its source.

    Raises UsageError `mirror-host` where images are signed under other names than that which the store remembers.
    """
    if stated:
        return stated, "--as"
    signed = _all_signed_hosts(place) if known else set()
    if known and (known in signed or not signed):
        return known, "the name that this store remembers"
    host = _signed_host(place)
    if known:
        raise _renamed(place.root, host, known)
    return host, "the names in signatures"


def _readable_host(root: Path) -> str | None:
    with contextlib.suppress(RelbuildError, FileNotFoundError):
        return read_host(root)
    return None


def _all_signed_hosts(place: MirrorPaths) -> set[str]:
    return {name for one in _repositories(place) for names in _signed_hosts(one) for name in names}


def _other_name(place: MirrorPaths, stated: str, known: str, warn: Callable[[str], None]) -> str:
    """Return the name that a mirror with a whole marker should have, "" for the one that it has.

    Only a stated name is written over another one: it may have been meant to change, and `warn` is told.
    """
    if not os.path.lexists(place.root / MARKER) or not _has_folders(place.root):
        return ""
    host = read_host(place.root)
    if host in (stated, "" if stated else known):
        return ""
    if stated:
        return stated if stated == known or stated in _all_signed_hosts(place) else ""
    signed = set() if known else _all_signed_hosts(place)
    if known:
        problem = _renamed(place.root, host, known).problems[0]
        warn(f"{problem.message}: {problem.hint}")
    elif signed and host not in signed:
        names = sorted(signed)
        warn(
            f"'{place.root}' has the name {host}, and its images are signed as {', '.join(names)}: right for a copy "
            f"made with the public key; if its name was changed, run scrub with --as {' or --as '.join(names)}"
        )
    return ""


def _damage(root: Path) -> DamageKind | None:
    """Return what is wrong with a mirror's marker; None if nothing is, or it is no mirror."""
    from pipeline.model.scrub import DamageKind

    try:
        read_host(root)
    except VerificationError:
        return DamageKind.ROTTEN if _has_folders(root) else None
    except FileNotFoundError:
        return DamageKind.MISSING if is_unmarked(root) else None
    return None


def _has_folders(root: Path) -> bool:
    return (root / "repositories").is_dir() and (root / "blobs" / "sha256").is_dir()


def _signed_host(place: MirrorPaths) -> str:
    """Return the host under which a mirror's images, or the moves of their tags, are signed.

    An image that was copied here is signed under its source's name as well, and its tags are not.
    """
    signed: list[set[str]] = []
    moved: set[str] = set()
    for repository in _repositories(place):
        found = [hosts for hosts in _signed_hosts(repository) if hosts]
        signed += found
        moved |= _moving_hosts(repository, {host for hosts in found for host in hosts})
    if not signed:
        raise _nothing_signed(place.root)
    known = moved or set.intersection(*signed) or set.union(*signed)
    if len(known) > 1:
        names = sorted(known)
        raise UsageError(
            "marker-ambiguous",
            f"'{place.root}' has lost its {MARKER}, and its images are signed under several names: {', '.join(names)}",
            place=str(place.root),
            hint=f"add the name by which people pull from it: --as {' or --as '.join(names)}",
        )
    return known.pop()


def _nothing_signed(root: Path) -> UsageError:
    """Make the error of what may be a mirror, or folders that somebody made to look like one."""
    return UsageError(
        "marker-ambiguous",
        f"'{root}' has the content of a mirror and no {MARKER}, but nothing in it is signed under a mirror's name",
        place=str(root),
        hint=f"if it is a mirror, add the name by which people pull from it, such as --as {NO_HOST}; if not, move "
        "its folders 'blobs' and 'repositories' away",
    )


def _repositories(place: MirrorPaths) -> Iterator[DirectoryRepository]:
    from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror

    mirror = DirectoryMirror(place, NO_HOST)
    for name in place.names():
        with contextlib.suppress(RelbuildError):
            yield mirror.repository(name)


def _signed_hosts(repository: DirectoryRepository) -> Iterator[set[str]]:
    """Yield the hosts under which each image of a repository is signed; nothing is verified."""
    from pipeline.mirror.attestations import signature_payloads
    from pipeline.oci.simple_signing import claimed_identity

    tags = [tag for tag in repository.tags() if _SIGNATURE_TAG.fullmatch(tag)]
    for tag in tags[:_SIGNATURES_READ]:
        with contextlib.suppress(RelbuildError):
            manifest = repository.manifest(tag)
            payloads = signature_payloads(repository, manifest) if manifest is not None else {}
            names = {claimed_identity(payload) for payload in payloads.values()}
            ends = f"/{repository.name}"
            hosts = {name.removesuffix(ends) for name in names if name.endswith(ends)}
            yield {host for host in hosts if _HOST.fullmatch(host)}


def _moving_hosts(repository: DirectoryRepository, hosts: Collection[str]) -> set[str]:
    """Return those of the hosts under which moves of the repository's tags are signed."""
    from pipeline.mirror.references import fallback_tag
    from pipeline.mirror.tag_statements import anchor_manifest

    tags = set(repository.tags())

    def has_moves(host: str) -> bool:
        anchors = (anchor_manifest(f"{host}/{repository.name}", tag) for tag in tags)
        return any(fallback_tag(anchor.digest) in tags for anchor in anchors)

    return {host for host in hosts if has_moves(host)}
