"""Move pruned files of a directory mirror into quarantine, restore them, delete old ones.

    .quarantine/STAMP/list.json     tags, manifests and blobs of one pruning, written before anything is moved
    .quarantine/STAMP/blobs/…       the files, under the paths that they had
    .quarantine/STAMP/repositories/…

The web server cannot serve it (`nginx.conf` lists what it serves), and only the owner may enter. Every step can be
repeated: a pruning that was killed leaves each file whole in one of two places, and a list that names all of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import make_folder, replace_file, sync_names
from pipeline.mirror.backends.directory.directory_inventory import take_inventory
from pipeline.mirror.backends.directory.manifest_files import read_regular
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths, RepositoryPaths
from pipeline.mirror.known_blobs import is_folder, make_quarantine, regular_file
from pipeline.mirror.references import readable_references
from pipeline.mirror.retention.pruning import Inventory
from pipeline.mirror.retention.quarantine import (
    QuarantinedPruning,
    RemovalList,
    RestoreResult,
    read_removal_list,
    read_tag_times,
    removal_list_json,
)
from pipeline.model.manifests import Manifest

LIST_FILE = "list.json"
"""Name of the file that lists what one pruning removed."""

LIST_LIMIT = 256 << 20
"""Bytes of that file: a million manifests."""

_STAMP = re.compile(r"(\d{8}T\d{6}Z)\.[0-9a-f]{8}")
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Pruning:
    """Quarantine operations under the pruning lock; get one from `DirectoryMirror.pruning`."""

    place: MirrorPaths

    def inventory(self) -> Inventory:
        """List all that the mirror holds; nothing changes it while the lock is held."""
        return take_inventory(self.place)

    def quarantine(self, leaving: RemovalList, at: float) -> str:
        """Remove tags and referrers entries, then move manifests and blobs into quarantine.

        In this order everything that can still be found is complete. Items that are missing are skipped, and tags that
        point elsewhere. `at`: seconds since the epoch. Returns the stamp by which `restore` finds them.
        """
        stamp = f"{datetime.fromtimestamp(at, UTC).strftime(_TIME)}.{secrets.token_hex(4)}"
        aside = make_quarantine(self.place.root) / stamp
        aside.mkdir()
        replace_file(removal_list_json(leaving, self._times(leaving)), aside / LIST_FILE, self.place.drafts)
        sync_names(aside)
        sync_names(self._folder)
        for name, tags in groupby(sorted(leaving.tags, key=itemgetter(0)), itemgetter(0)):
            # All at once: the list of tags is written for each repository, and not for each tag.
            paths = self.place.paths(name)
            paths.drop(*(tag for _, tag, digest in tags if paths.target(tag) == digest))
        going = list(self._manifests(leaving))
        for paths, manifest in going:
            paths.detach(manifest)
        for name in {name for name, *_ in leaving.tags}:
            self.place.paths(name).list_tags()
        for paths, manifest in going:
            self._move_to_quarantine(paths.manifest_file(manifest.descriptor), aside)
        for digest in leaving.blobs:
            self._move_to_quarantine(self.place.blob(digest), aside)
        self._sync(aside, [paths.name for paths, _ in going])
        return stamp

    def restore(self, stamp: str) -> RestoreResult:
        """Restore all that one pruning removed: blobs, manifests, referrers entries, tags.

        A tag that exists again is left as it is. Can be run again if it was killed. Raises UsageError
        `quarantine-unknown`.
        """
        aside = self._folder_of(stamp)
        leaving, times = _read_list(aside), read_tag_times(_list_bytes(aside), str(aside / LIST_FILE))
        blobs = sum(self._move_back(self.place.blob(digest), aside) for digest in leaving.blobs)
        manifests = 0
        for name, digest in leaving.manifests:
            paths = self.place.paths(name)
            for path in sorted((aside / paths.manifests.relative_to(self.place.root)).glob(f"{digest.hex}.*")):
                paths.make()
                manifests += self._move_back(self.place.root / path.relative_to(aside), aside)
        for paths, manifest in self._manifests(leaving):
            said = readable_references(manifest)
            if said is not None and said.subject is not None:
                paths.attach(manifest)
        tags: list[tuple[str, str]] = []
        kept: list[tuple[str, str]] = []
        for name, tag, digest in leaving.tags:
            paths = self.place.paths(name)
            found, wanted = paths.target(tag), paths.read(digest)
            if found not in (None, digest) or wanted is None:
                kept.append((name, tag))
            else:
                paths.move(tag, wanted.descriptor, listing=False)
                if (name, tag) in times:  # rules that keep the newest tags compare it
                    os.utime(paths.tags / tag, ns=(times[name, tag],) * 2, follow_symlinks=False)
                tags.append((name, tag))
        for name in {name for name, *_ in leaving.tags}:
            self.place.paths(name).list_tags()
        self._sync(None, [name for name, _ in leaving.manifests])
        self._remove(aside)
        return RestoreResult(tuple(tags), manifests, blobs, tuple(kept))

    def quarantined(self) -> tuple[QuarantinedPruning, ...]:
        """Return all prunings that can be undone, oldest first; without one whose list is malformed."""
        found = []
        for path in sorted(self._stamps()):
            with contextlib.suppress(VerificationError):
                found.append(QuarantinedPruning(path.name, _at(path.name), _read_list(path), _bytes(path)))
        return tuple(found)

    def empty_quarantine(self, before: float) -> int:
        """Delete prunings and corrupt files older than `before`; return the prunings' bytes.

        `before`: seconds since the epoch. Also finishes deletions of a killed call.
        """
        freed = 0
        for path in list(self._stamps()):
            if _at(path.name) < before:
                freed += _bytes(path)
                self._remove(path)
        for path in self._folder.glob("*") if is_folder(self._folder) else ():
            # Deletions in progress, and prunings killed before they had a list: nothing was moved there.
            if path.name.startswith("gone-") or (_STAMP.fullmatch(path.name) and not _has_list(path)):
                _delete(path)
        rotten = self._folder / "rotten"
        for path in rotten.glob("*") if is_folder(self._folder) and is_folder(rotten) else ():
            if path.lstat().st_ctime < before:
                _delete(path)
        return freed

    # --- paths and moves

    @property
    def _folder(self) -> Path:
        return self.place.root / ".quarantine"

    def _stamps(self) -> Iterator[Path]:
        if is_folder(self._folder):  # no link to one, where nothing of the mirror is
            # Without a list nothing was moved yet.
            yield from (path for path in self._folder.iterdir() if _is_stamp(path.name) and _has_list(path))

    def _folder_of(self, stamp: str) -> Path:
        path = self._folder / stamp
        if not _is_stamp(stamp) or not _has_list(path):
            raise UsageError(
                "quarantine-unknown",
                f"no pruning with the stamp '{stamp[:60]}'; it may be deleted or restored already",
                place=str(self._folder),
                hint="the stamps are the names of the directories there",
            )
        return path

    def _times(self, leaving: RemovalList) -> list[list[str]]:
        """Return rows of repository, tag, time when it was set (nanoseconds since the epoch)."""
        rows = []
        for name, tag, _ in leaving.tags:
            with contextlib.suppress(FileNotFoundError):
                rows.append([name, tag, str((self.place.paths(name).tags / tag).lstat().st_mtime_ns)])
        return rows

    def _manifests(self, leaving: RemovalList) -> Iterator[tuple[RepositoryPaths, Manifest]]:
        """Yield those manifests of the list that are in the mirror, not in quarantine."""
        for name, digest in leaving.manifests:
            paths = self.place.paths(name)
            manifest = paths.read(digest)
            if manifest is not None:
                yield paths, manifest

    def _move_to_quarantine(self, path: Path, aside: Path) -> None:
        target = aside / path.relative_to(self.place.root)
        make_folder(target.parent)
        with contextlib.suppress(FileNotFoundError):
            path.rename(target)

    def _move_back(self, path: Path, aside: Path) -> bool:
        """Move a file back; False if it is not in quarantine.

        A file that was published again meanwhile is overwritten: it has the same bytes.
        """
        try:
            (aside / path.relative_to(self.place.root)).rename(path)
        except FileNotFoundError:
            return False
        return True

    def _sync(self, aside: Path | None, names: Sequence[str]) -> None:
        """Sync the folders from and to which files were moved, so that the moves survive a crash."""
        for folder in sorted(aside.rglob("*")) if aside is not None else ():
            if folder.is_dir():
                sync_names(folder)
        for folder in (self.place.blobs, *(self.place.paths(name).manifests for name in sorted(set(names)))):
            if folder.is_dir():
                sync_names(folder)

    def _remove(self, aside: Path) -> None:
        """Delete one pruning: its folder is renamed first, so that a killed deletion is recognised."""
        gone = self._folder / f"gone-{aside.name}"
        aside.rename(gone)
        shutil.rmtree(gone)


def find_pruning(paths: RepositoryPaths, reference: Digest | str) -> str:
    """Return the stamp of the newest pruning that removed a repository's manifest or tag, or "".

    Raises OSError.
    """
    pruning = Pruning(paths.place)
    for aside in sorted(pruning._stamps(), reverse=True):
        with contextlib.suppress(VerificationError):  # a malformed list
            leaving = _read_list(aside)
            tags = ((name, tag) for name, tag, _ in leaving.tags)
            if (paths.name, reference) in (*tags, *leaving.manifests):
                return aside.name
    return ""


def _read_list(aside: Path) -> RemovalList:
    return read_removal_list(_list_bytes(aside), str(aside / LIST_FILE))


def _list_bytes(aside: Path) -> bytes:
    read = read_regular(aside / LIST_FILE, LIST_LIMIT)
    return read[0] if read is not None else b""


def _has_list(path: Path) -> bool:
    return is_folder(path) and regular_file(path / LIST_FILE) is not None


def _delete(path: Path) -> None:
    """Delete a file or a folder; of a link, the link."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_stamp(name: str) -> bool:
    """Return whether a folder's name is a stamp with a valid date."""
    try:
        return _at(name) >= 0
    except ValueError:
        return False


def _at(stamp: str) -> float:
    """Return the time of a stamp, in seconds since the epoch. Raises ValueError."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        raise ValueError(stamp)
    return datetime.strptime(found[1], _TIME).replace(tzinfo=UTC).timestamp()


def _bytes(aside: Path) -> int:
    return sum(path.lstat().st_size for path in aside.rglob("*") if path.is_file() and path.name != LIST_FILE)
