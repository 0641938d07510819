"""A mirror that is a directory, which any web server serves as a registry. What lies where: `mirror_paths`.

Needs symbolic links, atomic renames and flock of its file system. A tag is moved exactly: compared and swapped under
a lock that all writers of the repository take.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.mirror.atomic_files import (
    check_verified,
    fetch_verified,
    locked,
    open_unlinked,
    reaching,
    read_verified,
    sync_folder,
    write_whole,
)
from pipeline.mirror.backends.directory.directory_address import MARKER
from pipeline.mirror.backends.directory.mirror_paths import Place, Shelf
from pipeline.mirror.backends.directory.server_files import nginx_configuration, rsync_script
from pipeline.mirror.known_blobs import bring_blob, is_whole
from pipeline.mirror.protocol import NAME, TAG, Arrival, Overtaken, is_auxiliary, unheeded
from pipeline.mirror.references import references
from pipeline.model.artifact import Manifest, Referrer
from pipeline.model.image import Descriptor
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.quarantine_folder import Pruning
    from pipeline.mirror.gate import Cleared
    from pipeline.mirror.healing import Healing
    from pipeline.mirror.retention.access_log import Pulls
    from pipeline.mirror.retention.model import Inventory, Pruned, Undone
    from pipeline.model.rules import MirrorRules
    from pipeline.model.scrub import Scrubbed
    from pipeline.progress import Progress

FORMAT = 1
"""Of what lies where; another one is refused."""

NAME_LIMIT = 200
"""Characters of a repository's name: with all that stands around it, a path stays within what systems take; registries
allow 255 with the host."""

_MARKER_LIMIT = 64 << 10

_BEGUN = frozenset({".lock", ".incoming", ".scrub", "blobs", "repositories", "nginx.conf", "rsync.sh", "catalog.json"})
"""What a creation that was killed leaves: anything else in a folder is somebody's."""

_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._/-]+)?")


@dataclass(frozen=True, slots=True)
class DirectoryMirror:
    """A mirror in a directory. `host`: `HOST` or `HOST/NAMESPACE` by which people will pull what is in it.

    What keeps it is imported when it is asked for: a night in which nothing changed asks for tags only.
    """

    place: Place
    host: str

    @property
    def url(self) -> str:
        """`dir:PATH`."""
        return f"dir:{self.place.root}"

    @property
    def namespace(self) -> str:
        """None: the web server's configuration has the names as they are."""
        return ""

    def repository(self, name: str) -> DirectoryRepository:
        """The repository with a name, which need not exist yet. Raises UsageError `repository-name`."""
        if len(name) > NAME_LIMIT or not NAME.fullmatch(name):
            raise UsageError(
                "repository-name",
                f"'{name[:80]}' cannot be a repository's name",
                place=self.url,
                hint="lower-case letters and digits, with single . _ - between them, and / between parts",
            )
        return DirectoryRepository(self, self.place.shelf(name))

    def repositories(self) -> tuple[str, ...]:
        """The names of all repositories, sorted."""
        with reaching(self.url):
            return self.place.names()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """To be held while something is published: nothing is pruned meanwhile. Many may hold it at once, and one
        may hold it twice."""
        with contextlib.ExitStack() as stack:
            with reaching(self.url):
                self.place.make()
                stack.enter_context(self.place.publishing())
                self.place.sweep()
            yield

    def inventory(self) -> Inventory:
        """All that is here, as it is while nobody publishes (`pruning`) or nearly so. Raises VerificationError when a
        manifest is damaged."""
        from pipeline.mirror.backends.directory.directory_inventory import take_inventory

        with reaching(self.url):
            return take_inventory(self.place)

    def prune(
        self,
        rules: MirrorRules,
        now: int,
        *,
        pulls: Pulls | None = None,
        dry_run: bool = False,
        idle: bool = False,
    ) -> Pruned:
        """Move aside what the rules do not keep: see `prune_directory`. `idle` is not needed: publishers are kept
        out."""
        from pipeline.mirror.backends.directory.directory_prune import prune_directory

        return prune_directory(self, rules, now, pulls=pulls, dry_run=dry_run)

    def restore(self, stamp: str) -> Undone:
        """Bring back what went with a pruning and with those after it: see `directory_prune.undo`."""
        from pipeline.mirror.backends.directory.directory_prune import undo

        return undo(self, stamp)

    def scrub(self, healing: Healing, *, rate: int, progress: Progress) -> Scrubbed:
        """Read every file: see `scrub_directory`."""
        from pipeline.mirror.backends.directory.directory_scrub import scrub_directory

        return scrub_directory(self, healing, rate=rate, progress=progress)

    @contextlib.contextmanager
    def pruning(self, patience: float) -> Iterator[Pruning]:
        """To be held while something is removed or brought back: nobody publishes meanwhile. Raises EnvironmentLacking
        `mirror-busy` if others publish for `patience` seconds."""
        from pipeline.mirror.backends.directory.quarantine_folder import Pruning

        with contextlib.ExitStack() as stack:
            with reaching(self.url):
                self.place.make()
                try:
                    stack.enter_context(self.place.pruning(patience))
                except TimeoutError as error:
                    raise EnvironmentLacking(
                        "mirror-busy",
                        f"others publish to {self.url} for more than {patience:g} s",
                        place=self.url,
                        hint="prune at another time",
                    ) from error
                self.place.sweep()
            yield Pruning(self.place)


@dataclass(frozen=True, slots=True)
class DirectoryRepository:
    """A repository of a mirror in a directory: `pipeline.mirror.protocol.Repository`."""

    mirror: DirectoryMirror
    shelf: Shelf

    @property
    def name(self) -> str:
        """Below the mirror's root."""
        return self.shelf.name

    @property
    def url(self) -> str:
        """`dir:PATH/NAME`."""
        return f"{self.mirror.url}/{self.shelf.name}"

    @property
    def identity(self) -> str:
        """`HOST/NAMESPACE/NAME`. A directory does not know by which host it is reached: it was told when it was made
        (`open_directory`), or says `localhost`."""
        return f"{self.mirror.host}/{self.shelf.name}"

    def exists(self) -> bool:
        """Was anything ever put here? A link to a folder elsewhere is no repository."""
        with reaching(self.url):
            tags = self.shelf.tags
            above = (tags, *tags.parents[: len(tags.relative_to(self.mirror.place.root).parts) - 1])
            return tags.is_dir() and not any(folder.is_symlink() for folder in above)

    # --- reading

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """The manifest or index with a digest, or that a tag points to, verified; None if there is none."""
        with reaching(self.url):
            if isinstance(reference, Digest):
                return self.shelf.read(reference)
            return self.shelf.tagged(reference) if TAG.fullmatch(reference) else None

    def resolve(self, tag: str) -> Digest | None:
        """What a tag points to now; None if it does not exist."""
        with reaching(self.url):
            return self.shelf.target(tag) if TAG.fullmatch(tag) else None

    def tags(self) -> tuple[str, ...]:
        """All tags, sorted, auxiliary ones too."""
        with reaching(self.url):
            return self.shelf.tag_names()

    def has_blob(self, digest: Digest) -> bool:
        """Is the blob here? Blobs are the whole mirror's."""
        with reaching(self.url):
            return self.shelf.place.blob(digest).exists()

    def open_blob(self, digest: Digest) -> BinaryIO | None:
        """A blob that is here, to be served: no link is followed below the mirror's root."""
        with reaching(self.url):
            return open_unlinked(self.shelf.place.root, self.shelf.place.blob(digest))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A small blob, verified. Raises VerificationError."""
        with reaching(self.url):
            return read_verified(self.shelf.place.blob(descriptor.digest), descriptor)

    def fetch_blob(self, descriptor: Descriptor, store: Store) -> None:
        """Bring a blob into the store, verified. Raises VerificationError."""
        with reaching(self.url):
            fetch_verified(self.shelf.place.blob(descriptor.digest), descriptor, store)

    def check_blob(self, descriptor: Descriptor, advance: Callable[[int], None] = unheeded) -> None:
        """Read a blob to its end and keep nothing. Raises VerificationError."""
        with reaching(self.url):
            check_verified(self.shelf.place.blob(descriptor.digest), descriptor, advance)

    def file_path(self, digest: Digest) -> str:
        """As `mirror_paths` has it."""
        return f"blobs/sha256/{digest.hex}"

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """What speaks of `subject`, sorted by digest."""
        with reaching(self.url):
            return self.shelf.referrers(subject)

    # --- writing

    def put_blob(self, descriptor: Descriptor, content: bytes | Path, *, elsewhere: Sequence[str] = ()) -> Arrival:
        """Make sure that a blob is here, whole. `elsewhere` is not needed: what one repository has, all have. Raises
        VerificationError if `content` is not what `descriptor` says."""
        with reaching(self.url), self.mirror.writing():
            place = self.shelf.place
            target = place.blob(descriptor.digest)
            return bring_blob(descriptor, content, target, root=place.root, drafts=place.drafts, known=place.known)

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and its bytes are known to match its digest."""
        place = self.shelf.place
        with reaching(self.url):
            return is_whole(place.root, place.blob(descriptor.digest), descriptor.digest, descriptor.size, place.known)

    def put_manifest(self, manifest: Manifest) -> bool:
        """Put a manifest or index by its digest; False if it was there. Raises VerificationError `blob-missing`,
        `manifest-missing` if something that it refers to is not here, UsageError `media-type-unservable`."""
        with self._changing():
            return self.shelf.put(manifest)

    def attach(self, manifest: Manifest) -> bool:
        """Put a manifest that has a `subject`, and list it among the referrers; False if that was so before."""
        with self._changing():
            new = self.shelf.put(manifest)
            return self.shelf.attach(manifest) or new

    def put_auxiliary(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        """Point an auxiliary tag at a manifest, which is put. Raises ValueError, Overtaken."""
        if not TAG.fullmatch(tag) or not is_auxiliary(tag):
            raise ValueError(f"{tag} is not an auxiliary tag")
        with self._changing():
            self._expect(tag, expected)
            self.shelf.put(manifest)
            self.shelf.move(tag, manifest.descriptor)

    def point(self, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        """Point a tag at what was cleared. Nothing is written if it points there already. Raises ValueError,
        Overtaken; VerificationError `manifest-missing`, `blob-missing` if anything of it is not here (any more)."""
        if not TAG.fullmatch(tag) or is_auxiliary(tag):
            raise ValueError(f"{tag} is no tag to pull by")
        cleared.refuse_other(tag)
        with self._changing():
            self._expect(tag, expected)
            self.shelf.require(cleared.manifest)
            self.shelf.move(tag, cleared.manifest.descriptor)

    def overtaken(self, moved: Mapping[str, Digest]) -> tuple[str, ...]:
        """None: whoever moves a tag holds the lock and looks what it points to."""
        return ()

    # --- removing

    def remove_tag(self, tag: str, expected: Digest) -> None:
        """Remove a tag that points to `expected`. Raises Overtaken."""
        with self._changing():
            self._expect(tag, expected)
            self.shelf.drop(tag)

    def remove_manifest(self, digest: Digest) -> None:
        """Remove a manifest or index, with the tags that point to it and its entry among referrers."""
        with self._changing():
            manifest = self.shelf.read(digest)
            if manifest is None:
                return
            for tag in self.shelf.tag_names():
                if self.shelf.target(tag) == digest:
                    self.shelf.drop(tag)
            if references(manifest).subject is not None:
                self.shelf.detach(manifest)
            self.shelf.manifest_file(manifest.descriptor).unlink(missing_ok=True)
            sync_folder(self.shelf.manifests)

    def remove_referrer(self, digest: Digest) -> None:
        """Remove a manifest that speaks of another: a lock keeps those apart who do."""
        self.remove_manifest(digest)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Nothing is pruned, and nobody else moves a tag of this repository."""
        with reaching(self.url), self.mirror.writing():
            self.shelf.make()
            with self.shelf.locked():
                yield

    def _expect(self, tag: str, expected: Digest | None) -> None:
        found = self.shelf.target(tag)
        if found != expected:
            raise Overtaken(tag, found)


def open_directory(path: Path, *, create: bool, clock: Callable[[], float], host: str | None = None) -> DirectoryMirror:
    """Open the mirror at `path`; with `create`, make it where nothing or an empty folder is.

    `host`: `HOST` or `HOST/NAMESPACE` by which people will pull; it is written down when the mirror is made
    (`localhost` if not given) and compared later. Raises UsageError `not-a-mirror`, `mirror-format`, `mirror-host`,
    EnvironmentLacking `mirror-unreachable`.
    """
    root = path.absolute()
    if host is not None and not _HOST.fullmatch(host):
        raise UsageError("mirror-host", f"'{host[:80]}' is not HOST[:PORT][/NAMESPACE]", place=f"dir:{root}")
    with reaching(f"dir:{root}"):
        place = Place(root, clock)
        if not (root / MARKER).exists():
            if not create:
                raise UsageError(
                    "not-a-mirror",
                    f"{root} is not a mirror: it has no {MARKER}",
                    place=str(root),
                    hint="name the directory that was published to",
                )
            _make(place, host or "localhost")
        known = _known_host(root)
    if host is not None and host != known:
        raise UsageError(
            "mirror-host",
            f"{root} is pulled from as {known}, not {host}: signatures name it",
            place=str(root / MARKER),
            hint=f"publish as {known}, or make another mirror",
        )
    return DirectoryMirror(place, known)


def _make(place: Place, host: str) -> None:
    """The marker comes last: with it, the mirror is whole. Of several that make one at the same time the first does:
    who came later must not write over what was published meanwhile."""
    root = place.root
    if root.exists() and (not root.is_dir() or set(_names(root)) - _BEGUN) and not (root / MARKER).exists():
        raise UsageError(
            "not-a-mirror",
            f"{root} is neither empty nor a mirror",
            place=str(root),
            hint="name a new directory, or empty this one",
        )
    place.make()
    drafts = place.drafts
    with locked(root / ".lock" / "catalog"):
        if (root / MARKER).exists():
            return
        write_whole(nginx_configuration(root).encode(), root / "nginx.conf", drafts)
        write_whole(rsync_script().encode(), root / "rsync.sh", drafts)
        (root / "rsync.sh").chmod(0o755)
        write_whole(canonical_json({"repositories": []}), root / "catalog.json", drafts)
        write_whole(canonical_json({"format": FORMAT, "host": host}), root / MARKER, drafts)


def _names(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir())


def _known_host(root: Path) -> str:
    with (root / MARKER).open("rb") as file:
        data = file.read(_MARKER_LIMIT)
    try:
        value = json.loads(data)
        found, host = value["format"], value["host"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found, host = None, ""
    if found != FORMAT or not isinstance(host, str) or not _HOST.fullmatch(host):
        raise UsageError(
            "mirror-format",
            f"{root / MARKER} is of another format than {FORMAT}, or damaged",
            place=str(root / MARKER),
            hint="use the relbuild that made it",
        )
    return host
