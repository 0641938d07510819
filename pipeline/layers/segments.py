"""Make a package's segment of a layer: its files as compressed tar, made once and kept.

A segment depends only on the package, the entries that it emits, the codec and the formats; it is compressed once and
remembered. It has no directories: those are the layer's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from pipeline.compression import Compression, Piece, layer_versions
from pipeline.digest import Digest, identity
from pipeline.errors import STORE_DAMAGE_HINT, VerificationError
from pipeline.layers.chunk_writer import ChunkWriter, CompressionPool, PieceTaker
from pipeline.layers.layer_formats import SEGMENT_FORMAT as FORMAT
from pipeline.layers.tar_format import read_tar, tar_header
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import from_json, to_json
from pipeline.model.tree import Entry, EntryKind
from pipeline.packages import errors_about, read_payload
from pipeline.store import BlobWriter, Store
from pipeline.streams import decompressed
from pipeline.trees import Part


@dataclass(frozen=True, slots=True)
class Segment:
    """A blob of whole compressed pieces; `tar_size` is its bytes of tar."""

    digest: Digest
    size: int
    tar_size: int


def segment_identity(part: Part, compression: Compression) -> Digest:
    """Return the identity of the segment of `part`.

    It is over the entries' tar headers, which have every byte of the entries that reaches the layer; a file's content
    is identified by the package and its index in the header.
    """
    emitted = hashlib.sha256()
    for index, entry in part.entries:
        emitted.update(b"%d %d " % (index, entry.size))
        emitted.update(tar_header(entry))
    return identity(
        "segment",
        FORMAT,
        package=part.checksum,
        emitted=emitted.hexdigest(),
        codec=compression.value,
        versions=layer_versions(),
    )


def recall_segment(name: Digest, store: Store) -> Segment | None:
    """Return the segment with the identity `name`, if the store has it."""
    segment = store.recall_as(name, lambda value: from_json(Segment, value))
    return segment if segment is not None and store.sound(segment.digest) else None


EntryWriter: TypeAlias = "Callable[[Entry, Iterator[memoryview | bytes], str], None]"
"""Takes an entry of a segment, its content, and the content's sha256 where it is compared while it is read (else "").
All of the content has to be taken."""


def make_segment(
    part: Part,
    *,
    name: Digest,
    store: Store,
    compression: Compression,
    pool: CompressionPool,
    taker: PieceTaker | None = None,
) -> Segment:
    """Stream the package's payload into compressed tar, and remember the segment.

    The package must have been verified; each file's content is compared with the header's digest again.
    `pool` compresses; `taker` is given the tar's pieces.

    Raises VerificationError `package-damaged`, `blob-missing`.
    """
    rpm = _rpm(part, store)
    with store.writer() as blob, errors_about(part.nevra, rpm):
        writer = ChunkWriter(blob, compression, pool, hashed=False, taker=taker)
        for entry, content, _ in _emitted(part, rpm):
            writer.entry(entry, content)
        writer.finish()
    segment = Segment(blob.digest, blob.size, writer.size)
    remember_segment(name, segment, store)
    return segment


def read_package(part: Part, *, store: Store, place: EntryWriter) -> None:
    """Give each entry of a package's payload to `place`, in the order of its segment.

    Conditions and errors are those of `make_segment`.
    """
    rpm = _rpm(part, store)
    with errors_about(part.nevra, rpm):
        for entry, content, digest in _emitted(part, rpm):
            place(entry, content, digest)


def package_entries(part: Part, *, store: Store) -> Generator[tuple[Entry, Iterator[memoryview]]]:
    """Yield each entry of a package's payload with its content, in the order of its segment.

    Content need not be taken. Conditions and errors are those of `make_segment`.
    """
    rpm = _rpm(part, store)
    with errors_about(part.nevra, rpm):
        for entry, content, _ in _emitted(part, rpm):
            yield entry, content


def compress_entries(
    entries: Iterable[tuple[Entry, Callable[[memoryview], int]]],
    *,
    store: Store,
    compression: Compression,
    pool: CompressionPool,
    begun: Callable[[BlobWriter], None],
) -> Segment:
    """Compress entries in the order of their segment.

    Their content is read as by `ChunkWriter.file`. The segment is not remembered: nothing proves yet that the content
    is the package's. `begun` is given its writer, whom others may follow.
    """
    with store.writer() as blob:
        begun(blob)
        # Files are read faster than pieces are compressed, so no more have to lie ready than there are threads.
        writer = ChunkWriter(blob, compression, pool, hashed=False, ahead=pool.workers)
        for entry, read in entries:
            if _content_size(entry):
                writer.file(entry, read)
            else:
                writer.entry(entry)
        writer.finish()
    return Segment(blob.digest, blob.size, writer.size)


def remember_segment(name: Digest, segment: Segment, store: Store) -> None:
    """Remember a segment that has what its package has."""
    store.remember(name, to_json(segment))


def _rpm(part: Part, store: Store) -> Path:
    rpm = store.blob(part.checksum)
    if not rpm.exists():
        raise VerificationError(
            "blob-missing", f"{part.nevra} is not in the store", place=str(part.nevra), hint=STORE_DAMAGE_HINT
        )
    return rpm


def read_segment(part: Part, segment: Segment, *, store: Store, place: EntryWriter) -> None:
    """Decompress a segment that was recalled, and give each entry to `place`.

    Raises VerificationError `layer-malformed`, `stream-damaged`.
    """
    entries = {entry.path: entry for _, entry in part.entries}
    name = str(part.nevra)
    with store.reading(segment.digest) as file:
        pieces = decompressed(file, limit=segment.tar_size, name=name, own=True)
        for member in read_tar(pieces, name):
            entry = entries.pop(member.entry.path, None)
            if entry is None or _content_size(entry) != member.entry.size:
                raise VerificationError("layer-malformed", f"the segment of {name} has /{member.entry.path}")
            place(entry, member.pieces(), "")
    if entries:
        raise VerificationError("layer-malformed", f"the segment of {name} lacks /{min(entries)}")


def _content_size(entry: Entry) -> int:
    """Return the bytes of content behind an entry's header.

    There are none behind a hard link's, whose size is its file's.
    """
    return entry.size if entry.kind is EntryKind.FILE else 0


def segment_tar(segment: Segment, *, store: Store, name: str) -> Iterator[Piece]:
    """Yield the tar bytes of a segment that was recalled.

    Raises VerificationError `stream-damaged`.
    """
    with store.reading(segment.digest) as file:
        yield from decompressed(file, limit=segment.tar_size, name=name, own=True)


def _emitted(part: Part, rpm: Path) -> Iterator[tuple[Entry, Iterator[memoryview], str]]:
    """Yield a package's entries, contents and the contents' digests, in the segment's order.

    Entries without content come first, by path; then files in the payload's order, each followed by its hard links. RPM
    has the content of hard links with the last name, which may be one that is not emitted.
    """
    by_index = dict(part.entries)
    links: dict[str, list[Entry]] = {}
    with_content = {}
    for index, entry in part.entries:
        if entry.kind is EntryKind.HARDLINK:
            links.setdefault(entry.link, []).append(entry)
        elif entry.kind is EntryKind.FILE and entry.size:
            with_content[entry.path] = index
        else:
            yield entry, iter(()), ""
    for path in [path for path in links if path not in with_content]:
        for link in links[path]:
            yield link, iter(()), ""
    if not with_content:
        return
    for file in read_payload(rpm):
        first = next(
            (by_index[index] for index in file.indices if by_index.get(index, _NONE).path in with_content), None
        )
        if first is None:
            continue
        del with_content[first.path]
        yield first, file.pieces(), file.digest
        for link in links.get(first.path, ()):
            yield link, iter(()), ""
    if with_content:
        raise VerificationError(
            "package-damaged",
            f"{part.nevra}: the payload lacks {', '.join(sorted(with_content)[:5])}",
            place=str(part.nevra),
        )


_NONE = Entry("", EntryKind.DIRECTORY)
