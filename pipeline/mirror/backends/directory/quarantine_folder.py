"""Quarantine of a directory mirror: what is pruned is moved aside and can be restored.

A list says what was moved.

    .quarantine/STAMP/list.json     tags, manifests and blobs of one pruning, written before anything moves
    .quarantine/STAMP/blobs/…       the files, under the paths that they had
    .quarantine/STAMP/repositories/…

The web server has no way in (`nginx.conf` names what it serves), and only the owner may enter. Every step can be
repeated: killed half-way, a pruning leaves whole files in one of two places and a list that names both.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.mirror.atomic_files import make_folder, replace_file, sync_names
from pipeline.mirror.backends.directory.directory_inventory import take_inventory
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths, RepositoryPaths
from pipeline.mirror.references import references
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
"""The file that says what was moved aside."""

_STAMP = re.compile(r"(\d{8}T\d{6}Z)\.[0-9a-f]{8}")
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Pruning:
    """To be had from `DirectoryMirror.pruning` alone, which keeps publishers out."""

    place: MirrorPaths

    def inventory(self) -> Inventory:
        """All that is here; nothing changes it while the pruning is held."""
        return take_inventory(self.place)

    def quarantine(self, leaving: RemovalList, at: float) -> str:
        """Move tags, entries among referrers, manifests and blobs aside, in this order.

        So whatever can still be found is whole. What is not there (any more) is passed over, also a tag that points
        elsewhere. `at`: seconds since the epoch. Returns the stamp by which they can be brought back.
        """
        stamp = f"{datetime.fromtimestamp(at, UTC).strftime(_TIME)}.{secrets.token_hex(4)}"
        aside = self._folder / stamp
        if not self._folder.is_dir():
            self._folder.mkdir()
            self._folder.chmod(0o700)
            sync_names(self._folder.parent)
        aside.mkdir()
        replace_file(removal_list_json(leaving, self._times(leaving)), aside / LIST_FILE, self.place.drafts)
        sync_names(aside)
        sync_names(self._folder)
        for name, tag, digest in leaving.tags:
            paths = self.place.paths(name)
            if paths.target(tag) == digest:
                paths.drop(tag)
        going = list(self._manifests(leaving))
        for paths, manifest in going:
            paths.detach(manifest)
        for name in {name for name, *_ in leaving.tags}:
            self.place.paths(name).list_tags()
        for paths, manifest in going:
            self._aside(paths.manifest_file(manifest.descriptor), aside)
        for digest in leaving.blobs:
            self._aside(self.place.blob(digest), aside)
        self._sync(aside, [paths.name for paths, _ in going])
        return stamp

    def restore(self, stamp: str) -> RestoreResult:
        """Bring back all of one pruning: blobs, manifests, entries among referrers, tags.

        A tag that exists again is left as it is. Can be run again if it was killed. Raises UsageError
        `quarantine-unknown`.
        """
        aside = self._aside_of(stamp)
        leaving, times = _leaving(aside), read_tag_times((aside / LIST_FILE).read_bytes(), str(aside / LIST_FILE))
        blobs = sum(self._back(self.place.blob(digest), aside) for digest in leaving.blobs)
        manifests = 0
        for name, digest in leaving.manifests:
            paths = self.place.paths(name)
            for path in sorted((aside / paths.manifests.relative_to(self.place.root)).glob(f"{digest.hex}.*")):
                paths.make()
                manifests += self._back(self.place.root / path.relative_to(aside), aside)
        for paths, manifest in self._manifests(leaving):
            if references(manifest).subject is not None:
                paths.attach(manifest)
        tags: list[tuple[str, str]] = []
        kept: list[tuple[str, str]] = []
        for name, tag, digest in leaving.tags:
            paths = self.place.paths(name)
            found, wanted = paths.target(tag), paths.read(digest)
            if found not in (None, digest) or wanted is None:
                kept.append((name, tag))
            else:
                paths.move(tag, wanted.descriptor)
                if (name, tag) in times:  # rules that keep the newest go by it
                    os.utime(paths.tags / tag, ns=(times[name, tag],) * 2, follow_symlinks=False)
                tags.append((name, tag))
        self._sync(None, [name for name, _ in leaving.manifests])
        self._remove(aside)
        return RestoreResult(tuple(tags), manifests, blobs, tuple(kept))

    def quarantined(self) -> tuple[QuarantinedPruning, ...]:
        """All prunings that can be undone, oldest first."""
        return tuple(
            QuarantinedPruning(path.name, _at(path.name), _leaving(path), _bytes(path))
            for path in sorted(self._stamps())
        )

    def empty_quarantine(self, before: float) -> int:
        """Delete prunings of before `before` for good; return the bytes of their files.

        `before`: seconds since the epoch. Corrupt files that were put aside before that go too. Also finishes what a
        killed call began.
        """
        freed = 0
        for path in list(self._stamps()):
            if _at(path.name) < before:
                freed += _bytes(path)
                self._remove(path)
        for path in self._folder.glob("*"):
            # What was being deleted, and what was begun and has no list yet: nothing was moved there.
            if path.name.startswith("gone-") or (_STAMP.fullmatch(path.name) and not _listed(path)):
                shutil.rmtree(path)
        for path in (self._folder / "rotten").glob("*"):
            if path.lstat().st_ctime < before:
                path.unlink(missing_ok=True)
        return freed

    # --- where things are

    @property
    def _folder(self) -> Path:
        return self.place.root / ".quarantine"

    def _stamps(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            # Without a list nothing was moved: killed while the list was written.
            yield from (path for path in self._folder.iterdir() if _is_stamp(path.name) and _listed(path))

    def _aside_of(self, stamp: str) -> Path:
        path = self._folder / stamp
        if not _is_stamp(stamp) or not _listed(path):
            raise UsageError(
                "quarantine-unknown",
                f"no pruning with the stamp '{stamp[:60]}'; it may be deleted or restored already",
                place=str(self._folder),
                hint="the stamps are the names of the directories there",
            )
        return path

    def _times(self, leaving: RemovalList) -> list[list[str]]:
        """Return the time at which each tag was set, in nanoseconds since the epoch."""
        rows = []
        for name, tag, _ in leaving.tags:
            with contextlib.suppress(FileNotFoundError):
                rows.append([name, tag, str((self.place.paths(name).tags / tag).lstat().st_mtime_ns)])
        return rows

    def _manifests(self, leaving: RemovalList) -> Iterator[tuple[RepositoryPaths, Manifest]]:
        """Those that are in their places."""
        for name, digest in leaving.manifests:
            paths = self.place.paths(name)
            manifest = paths.read(digest)
            if manifest is not None:
                yield paths, manifest

    def _aside(self, path: Path, aside: Path) -> None:
        target = aside / path.relative_to(self.place.root)
        make_folder(target.parent)
        with contextlib.suppress(FileNotFoundError):
            path.rename(target)

    def _back(self, path: Path, aside: Path) -> bool:
        """False if it is not aside. What came anew meanwhile has the same bytes."""
        try:
            (aside / path.relative_to(self.place.root)).rename(path)
        except FileNotFoundError:
            return False
        return True

    def _sync(self, aside: Path | None, names: Sequence[str]) -> None:
        """Sync the folders of what was moved, so that the move survives a crash.

        This comes before anything else says that it was moved.
        """
        for folder in sorted(aside.rglob("*")) if aside is not None else ():
            if folder.is_dir():
                sync_names(folder)
        for folder in (self.place.blobs, *(self.place.paths(name).manifests for name in sorted(set(names)))):
            if folder.is_dir():
                sync_names(folder)

    def _remove(self, aside: Path) -> None:
        """In one step out of sight, then bit by bit."""
        gone = self._folder / f"gone-{aside.name}"
        aside.rename(gone)
        shutil.rmtree(gone)


def _leaving(aside: Path) -> RemovalList:
    return read_removal_list((aside / LIST_FILE).read_bytes(), str(aside / LIST_FILE))


def _listed(path: Path) -> bool:
    return (path / LIST_FILE).is_file()


def _is_stamp(name: str) -> bool:
    """Return whether a folder's name is a stamp, with a moment that there is."""
    try:
        return _at(name) >= 0
    except ValueError:
        return False


def _at(stamp: str) -> float:
    """Raises ValueError."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        raise ValueError(stamp)
    return datetime.strptime(found[1], _TIME).replace(tzinfo=UTC).timestamp()


def _bytes(aside: Path) -> int:
    return sum(path.lstat().st_size for path in aside.rglob("*") if path.is_file() and path.name != LIST_FILE)
