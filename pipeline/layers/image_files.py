"""Find, read and list files of an image in its layers' blobs.

Nothing is unpacked, no privilege is needed. Layers are read from the uppermost down, and only as far as the answer
needs. Each one that is read is verified by digest and diff_id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace

from pipeline.errors import UsageError, VerificationError
from pipeline.layers.unpack_layer import layer_members
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Image, Layer
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import Store
from pipeline.trees import resolve_symlinks


@dataclass(frozen=True, slots=True)
class _Listing:
    """The entries of a layer by path.

    `opaque`: directories that hide what lower layers have there.
    """

    entries: Mapping[str, Entry]
    opaque: frozenset[str]


def _in_store(layer: Layer) -> None:
    pass


@dataclass(slots=True)
class ImageFiles:
    """The files of an image. `obtain` brings a layer's blob into the store before it is read."""

    image: Image
    store: Store
    obtain: Callable[[Layer], None] = _in_store
    _listings: dict[int, _Listing] = field(default_factory=dict)

    def find(self, path: str) -> Entry | None:
        """Return the entry that a path leads to, symlinks followed; None if there is none.

        Raises VerificationError, BuildError `too-deep`.
        """
        real = resolve_symlinks(path, self._link)
        if real is None:
            return None
        return self._root() if not real else self._uppermost(real)

    def real_path(self, path: str) -> str | None:
        """Return the absolute path of an entry, symlinks followed; of a hard link its own one.

        None if there is none. Raises as `find`.
        """
        real = resolve_symlinks(path, self._link)
        return None if real is None else f"/{real}"

    def read(self, path: str, limit: int) -> tuple[Entry, bytes]:
        """Return the entry and content of a regular file.

        Raises UsageError `image-file-missing`, `image-file-irregular`, `image-file-too-large`; VerificationError.
        """
        entry = self.find(path)
        if entry is None:
            raise UsageError(
                "image-file-missing",
                f"the image has no file '{path}'",
                hint="`relbuild show IMAGE FOLDER` lists what is in a folder",
            )
        if entry.kind is not EntryKind.FILE:
            raise UsageError("image-file-irregular", f"'{path}' in the image is a {entry.kind}, not a file")
        if entry.size > limit:
            raise UsageError("image-file-too-large", f"'{path}' in the image has {entry.size} bytes, more than {limit}")
        for layer_number, layer in reversed(list(enumerate(self.image.layers))):
            if self._listing(layer_number).entries.get(entry.path) is entry:
                for member in layer_members(layer, store=self.store):
                    if member.entry.path == entry.path and member.entry.kind is EntryKind.FILE:
                        return entry, b"".join(map(bytes, member.pieces()))
        raise AssertionError("what was found is in a layer")

    def list_folder(self, path: str) -> tuple[Entry, ...]:
        """Return the entries in a directory, by name, symlinks as they are.

        Raises UsageError `image-file-missing`, `image-file-irregular`; VerificationError.
        """
        entry = self.find(path)
        if entry is None:
            raise UsageError("image-file-missing", f"the image has no directory '{path}'")
        if entry.kind is not EntryKind.DIRECTORY:
            raise UsageError("image-file-irregular", f"'{path}' in the image is a {entry.kind}, not a directory")
        prefix = f"{entry.path}/" if entry.path else ""
        names = {
            prefix + below.removeprefix(prefix).partition("/")[0]
            for number in range(len(self.image.layers))
            for below in self._listing(number).entries
            if below.startswith(prefix)
        }
        found = ((name, self._uppermost(name)) for name in sorted(names))
        return tuple(replace(one, path=name) for name, one in found if one is not None)  # A hard link by its own name.

    def _root(self) -> Entry:
        return self._uppermost("") or Entry("", EntryKind.DIRECTORY, 0o755)

    def _link(self, path: str) -> str | None:
        entry = self._uppermost(path)
        return entry.link if entry is not None and entry.kind is EntryKind.SYMLINK else None

    def _uppermost(self, path: str) -> Entry | None:
        """Return what the merged layers have at a canonical path."""
        above = ["/".join(path.split("/")[:length]) for length in range(1, path.count("/") + 1)]
        for number in reversed(range(len(self.image.layers))):
            listing = self._listing(number)
            entry = listing.entries.get(path)
            if entry is not None:
                return self._named(listing, entry)
            hidden = (listing.entries.get(folder) for folder in above)
            if any(one is not None and one.kind is not EntryKind.DIRECTORY for one in hidden):
                return None
            if any(folder in listing.opaque for folder in above):
                return None
        return None

    @staticmethod
    def _named(listing: _Listing, entry: Entry) -> Entry | None:
        if entry.kind is EntryKind.WHITEOUT:
            return None
        return listing.entries.get(entry.link) if entry.kind is EntryKind.HARDLINK else entry

    def _listing(self, number: int) -> _Listing:
        """List a layer the first time that it is needed."""
        if number not in self._listings:
            layer = self.image.layers[number]
            self.obtain(layer)
            entries: dict[str, Entry] = {}
            opaque: set[str] = set()
            for member in layer_members(layer, store=self.store):
                path = member.entry.path
                if member.entry.kind is EntryKind.OPAQUE:
                    opaque.add(path)
                    continue
                # As where layers are unpacked; the size of the one would be compared and the other be read.
                if path and path in entries:
                    raise VerificationError("layer-malformed", f"layer '{layer.name}': /{path} appears twice")
                entries[path] = member.entry
            self._listings[number] = _Listing(entries, frozenset(opaque))
        return self._listings[number]
