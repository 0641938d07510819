"""`Mirror` implementation for a directory that any web server serves; create or open one.

`mirror_paths` has the layout of its files.

The file system must have symbolic links, atomic renames and flock. A tag is compared and swapped under a lock that all
writers of the repository take.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import canonical_json
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import file_locked, make_folder, mirror_errors, replace_file
from pipeline.mirror.backends.directory.directory_address_form import (
    MARKER,
    is_unmarked,
    marker_missing,
    refuse_nested,
)
from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.backends.directory.mirror_marker import read_host, require_pull_host, write_marker
from pipeline.mirror.backends.directory.mirror_owner import is_foreign, open_own
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths
from pipeline.mirror.backends.directory.server_files import nginx_configuration, rsync_script
from pipeline.mirror.protocol import NAME
from pipeline.model.rules import RULES_FILE
from pipeline.transfer.counters import TrafficCounts

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.quarantine_folder import Pruning
    from pipeline.mirror.repair_sources import RepairSources
    from pipeline.mirror.retention.access_log import Pulls
    from pipeline.mirror.retention.pruning import Inventory, PruningResult, UndoResult
    from pipeline.model.rules import MirrorRules
    from pipeline.model.scrub import ScrubResult
    from pipeline.progress import Progress

REPOSITORY_NAME_LIMIT = 200
"""Characters of a repository's name, so that paths stay within the limits of file systems; registries allow 255 with
the host."""

_FOLDERS = frozenset({".lock", ".incoming", ".scrub", "blobs", "repositories"})
_FILES = frozenset({"nginx.conf", "rsync.sh", "catalog.json"})
"""Files that a killed creation of a mirror can leave: a folder with anything else is not made a mirror."""


@dataclass(frozen=True, slots=True)
class DirectoryMirror:
    """A mirror in a directory: see `Mirror`.

    `host`: the `HOST` or `HOST/NAMESPACE` by which clients pull from it.

    Inventory, pruning and scrubbing are imported when called: a nightly run without changes only reads tags.
    """

    place: MirrorPaths
    host: str

    @property
    def url(self) -> str:
        """`dir:PATH`."""
        return f"dir:{self.place.root}"

    @property
    def traffic(self) -> TrafficCounts:
        """No request is sent to a folder."""
        return TrafficCounts()

    @property
    def namespace(self) -> str:
        """Empty: the web server's configuration maps the repositories' names as they are."""
        return ""

    def repository(self, name: str) -> DirectoryRepository:
        """Return the repository `name`, which need not exist. Raises UsageError `repository-name`."""
        if len(name) > REPOSITORY_NAME_LIMIT or not NAME.fullmatch(name):
            raise UsageError(
                "repository-name",
                f"invalid repository name: '{name[:80]}'",
                place=self.url,
                hint="use lower-case letters and digits, with single . _ - between them, and / between parts",
            )
        return DirectoryRepository(self, self.place.paths(name))

    def existing(self, name: str) -> DirectoryRepository | None:
        """Return the repository `name` if it exists, None otherwise."""
        repository = self.repository(name) if len(name) <= REPOSITORY_NAME_LIMIT else None
        return repository if repository is not None and repository.exists() else None

    def repositories(self) -> tuple[str, ...]:
        """Return the names of all repositories, sorted."""
        with mirror_errors(self.url):
            return self.place.names()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the shared lock of publishers within the block: nothing is pruned meanwhile.

        Many can hold it at once, and one process several times.
        """
        with contextlib.ExitStack() as stack:
            with mirror_errors(self.url):
                self.place.make()
                stack.enter_context(self.place.publishing())
                self.place.sweep()
            yield

    def inventory(self) -> Inventory:
        """List all that the mirror holds; exact only while nobody publishes (see `pruning`).

        Raises VerificationError when a manifest is damaged.
        """
        from pipeline.mirror.backends.directory.directory_inventory import take_inventory

        with mirror_errors(self.url):
            return take_inventory(self.place)

    def prune(
        self,
        rules: MirrorRules,
        now: int,
        *,
        pulls: Pulls | None = None,
        dry_run: bool = False,
        idle: bool = False,
    ) -> PruningResult:
        """Move what the rules do not keep into quarantine: see `prune_directory`.

        `idle` is ignored: a lock excludes publishers.
        """
        from pipeline.mirror.backends.directory.directory_prune import prune_directory

        return prune_directory(self, rules, now, pulls=pulls, dry_run=dry_run)

    def restore(self, stamp: str) -> UndoResult:
        """Undo a pruning and those after it: see `directory_prune.undo_prunings`."""
        from pipeline.mirror.backends.directory.directory_prune import undo_prunings

        return undo_prunings(self, stamp)

    def scrub(self, healing: RepairSources, *, rate: int, progress: Progress) -> ScrubResult:
        """Read and verify every file: see `scrub_directory`."""
        from pipeline.mirror.backends.directory.directory_scrub import scrub_directory

        return scrub_directory(self, healing, rate=rate, progress=progress)

    @contextlib.contextmanager
    def pruning(self, timeout: float) -> Iterator[Pruning]:
        """Hold the exclusive lock within the block: meanwhile nobody publishes.

        Raises EnvironmentLacking `mirror-busy` if others publish for `timeout` seconds.
        """
        from pipeline.mirror.backends.directory.quarantine_folder import Pruning

        with contextlib.ExitStack() as stack:
            with mirror_errors(self.url):
                self.place.make()
                try:
                    stack.enter_context(self.place.pruning(timeout))
                except TimeoutError as error:
                    raise EnvironmentLacking(
                        "mirror-busy",
                        f"{self.url} is locked by other publishers for more than {timeout:g} s",
                        place=self.url,
                        hint="run prune again later",
                    ) from error
                self.place.sweep()
            yield Pruning(self.place)


def open_directory(
    path: Path, *, create: bool, clock: Callable[[], float], host: str | None = None, signs: bool = False
) -> DirectoryMirror:
    """Open the mirror at `path`; with `create`, make one where `can_be_made`.

    `host`: the `HOST` or `HOST/NAMESPACE` by which clients pull; it is recorded when the mirror is made (`localhost` if
    not given) and compared later. `signs`: none is made in a folder that is not one's own. Raises UsageError
    `not-a-mirror`, `mirror-nested`, `mirror-format`, `mirror-host`, `mirror-not-own`, VerificationError
    `marker-missing`, `marker-damaged`, EnvironmentLacking `mirror-unreachable`.
    """
    root = path.absolute()
    if host is not None:
        require_pull_host(host, root)
    with mirror_errors(f"dir:{root}"):
        place = MirrorPaths(root, clock)
        if not os.path.lexists(root / MARKER):
            if is_unmarked(root):
                raise marker_missing(root)
            refuse_nested(root)
            if not create:
                raise UsageError(
                    "not-a-mirror",
                    f"'{root}' is not a mirror: it has no {MARKER}",
                    place=str(root),
                    hint="give the directory that images were published to",
                )
            _make(place, host or "localhost", signs=signs)
        known = read_host(root)
    if host is not None and host != known:
        raise UsageError(
            "mirror-host",
            f"mirror '{root}' has the name {known}, not {host}; signatures contain the name",
            place=str(root / MARKER),
            hint=f"publish as {known}, or create another mirror",
        )
    return DirectoryMirror(place, known)


def _make(place: MirrorPaths, host: str, *, signs: bool) -> None:
    """Make a directory mirror; its marker file is written last.

    With the marker, the mirror is complete. If several processes make one at the same time, only the first does: a
    later one must not overwrite what was published meanwhile.
    """
    root = place.root
    if not can_be_made(root) and not (root / MARKER).exists():
        raise UsageError(
            "not-a-mirror",
            f"'{root}' is neither empty nor a mirror",
            place=str(root),
            hint="choose a new directory",
        )
    if signs:
        make_folder(root)
        os.close(open_own(root))  # nobody exchanges it from here on
    place.make()
    drafts = place.drafts
    with file_locked(root / ".lock" / "catalog"):
        if (root / MARKER).exists():
            return
        replace_file(nginx_configuration(root).encode(), root / "nginx.conf", drafts)
        replace_file(rsync_script().encode(), root / "rsync.sh", drafts)
        (root / "rsync.sh").chmod(0o755)
        replace_file(canonical_json({"repositories": []}), root / "catalog.json", drafts)
        write_marker(place, host)


def can_be_made(root: Path) -> bool:
    """Return whether a mirror can be made at a path: nothing is there, or an empty folder.

    Empty is one, too, with no more than a killed creation of a mirror leaves, and with the mirror's rules, unless
    another user put them into a folder that all share.
    """
    if not root.is_dir():
        return not root.exists()
    folders = (root / "blobs" / "sha256", root / "repositories")
    names, rules = set(_names(root)), root / RULES_FILE
    return (
        not names - _FOLDERS - _FILES - {RULES_FILE}
        and (".incoming" in names or not names & _FILES)  # Else they are a person's: the folder is made before them.
        and (RULES_FILE not in names or (rules.is_file() and not is_foreign(rules)))
        and not set(_names(root / "blobs")) - {"sha256"}
        and not any(name for folder in folders for name in _names(folder))
    )


def _names(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir()) if folder.is_dir() else iter(())
