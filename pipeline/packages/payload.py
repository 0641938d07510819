"""Stream the files in a package's payload, with their digests checked.

Decompressed by `pipeline.streams` and taken apart by `cpio`, which are bounded by the sizes in the package's header: a
header that says less than its payload has is refused when the first byte too many comes.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.compression import LZMA
from pipeline.digest import CHUNK
from pipeline.errors import BuildError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.packages.cpio import ArchivedFile, CpioReader, MalformedCpio
from pipeline.packages.package_signature import _PGP_SHA256
from pipeline.packages.rpm_file_layout import package_damaged, read_rpm_layout
from pipeline.packages.rpm_header import consistent, file_names, hard_links, open_header
from pipeline.packages.rpm_library import rpm
from pipeline.streams import PieceReader, decompressed

_CODECS = frozenset({"gzip", "bzip2", "xz", "lzma", "zstd"})

_MEMBER_BYTES = 128
"""Bytes of a member of a cpio archive beside its name and content: 110 of its header, `./`, a NUL, and padding."""

_ARCHIVE_BYTES = 64 << 10
"""Bytes of an archive beside its members: the trailer and padding to a block."""


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """A regular file of the payload, with its content.

    `indices` are the places in the header's files of all names that it has (hard links), in the header's
    order; RPM carries their data once, with the last of them. `pieces` gives the bytes, each piece at most
    1 MiB, once, and must be used before the next file is asked for. It raises VerificationError
    `package-damaged` at the end if the bytes are not those that the header's digest names: `digest`, a sha256 in hex,
    or "" where the header has none of that algorithm.
    """

    indices: tuple[int, ...]
    size: int
    pieces: Callable[[], Iterator[memoryview]]
    digest: str = ""


def read_payload(path: Path) -> Iterator[PayloadFile]:
    """Yield the regular files with content of a verified RPM, in the payload's order.

    Empty files and other types are in the header alone and not yielded. No more is decompressed than the sizes in the
    header account for. Raises VerificationError `package-damaged`, BuildError `payload-unsupported`.
    """
    header = open_header(path)
    codec = LZMA if _compressor(header, path) == LZMA.name else None
    digests = header[rpm.RPMTAG_FILEDIGESTS] if header[rpm.RPMTAG_FILEDIGESTALGO] == _PGP_SHA256 else None
    with consistent(path):
        names, links = file_names(header), hard_links(header)
        archived = _archived(header, links)
    start = read_rpm_layout(path).payload
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    file = io.FileIO(handle, "rb", closefd=False)
    # A file that was yielded can be read also when nobody holds the iterator any more.
    weakref.finalize(file, os.close, handle)
    file.seek(start)
    with _damage(path):
        unpacked = decompressed(file, limit=_most_bytes(names, archived), name=path.name, codec=codec)
        places = {_raw(name).lstrip(b"/"): place for place, name in enumerate(names)}
        reader = CpioReader(PieceReader(unpacked), archived, places)
        for index, size in reader.members():
            if not size or index not in links:
                continue
            expected = digests[index] if digests else None
            yield PayloadFile(links[index], size, _pieces(reader, names[index], expected, path), expected or "")


def _archived(header: rpm.hdr, links: Mapping[int, Sequence[int]]) -> list[ArchivedFile]:
    """Return each file of a header with the sizes that its content may have in the archive.

    The content of several names of one file stands at the last of them. That of a symbolic link is its target,
    whatever size the header states: nobody reads it, and payload limits do not count it.
    """
    found = []
    targets = header[rpm.RPMTAG_FILELINKTOS]
    for index, (mode, size) in enumerate(
        zip(header[rpm.RPMTAG_FILEMODES], header[rpm.RPMTAG_LONGFILESIZES], strict=True)
    ):
        if index in links:
            several = len(links[index]) > 1
            last = links[index][-1] == index
            found.append(ArchivedFile(frozenset({size, 0} if several else {size}), size if last else 0))
        elif stat.S_ISLNK(mode & 0xFFFF):
            length = min(size, len(_raw(targets[index])))
            found.append(ArchivedFile(frozenset({length, 0}), length))
        else:
            found.append(ArchivedFile(frozenset({0}), 0))
    return found


def _most_bytes(names: Sequence[str], archived: Sequence[ArchivedFile]) -> int:
    """Return how many bytes an archive of a header's files can have at most.

    The content of hard links counts once. Sizes in a header are believed no further: an archive of more bytes is not
    that of these files.
    """
    named = sum(len(_raw(name)) + _MEMBER_BYTES for name in names)
    return sum(file.stripped for file in archived) + named + _ARCHIVE_BYTES


def _raw(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Raise what is wrong with a payload as VerificationError `package-damaged`."""
    try:
        yield
    except MalformedCpio as error:
        raise package_damaged(path, f"its payload is not what its header says: {error}") from error
    except VerificationError as error:
        if error.code == "stream-too-large":
            raise package_damaged(path, "its payload has more bytes than its header says") from error
        if error.code == "stream-damaged":
            raise package_damaged(path, f"its payload cannot be decompressed: {error}") from error
        raise


def _pieces(reader: CpioReader, name: str, expected: str | None, path: Path) -> Callable[[], Iterator[memoryview]]:
    def pieces() -> Iterator[memoryview]:
        found = hashlib.sha256()
        with _damage(path):
            while piece := reader.read(CHUNK):
                found.update(piece)
                yield piece
        if expected and found.hexdigest() != expected:
            raise package_damaged(path, f"the content of {name} does not match the digest in the header")

    return pieces


def _compressor(header: rpm.hdr, path: Path) -> str:
    compressor = header[rpm.RPMTAG_PAYLOADCOMPRESSOR] or "gzip"
    kind = header[rpm.RPMTAG_PAYLOADFORMAT] or "cpio"
    if compressor not in _CODECS or kind != "cpio":
        raise BuildError(
            "payload-unsupported", f"{path.name}: unsupported payload: {kind}, compressed with {compressor}"
        )
    return str(compressor)


def read_payload_files(path: Path, paths: Sequence[str], *, limit: int = 1 << 20) -> dict[str, bytes]:
    """Read the content of those of `paths` that are regular files in the package.

    `paths` are as the header spells them; each file has at most `limit` bytes. Raises as `read_payload`, and BuildError
    `file-too-large`.
    """
    header = open_header(path)
    names, sizes = file_names(header), header[rpm.RPMTAG_LONGFILESIZES]
    wanted = set(paths)
    found: dict[str, bytes] = {}
    places = {index: name for index, name in enumerate(names) if name in wanted}
    missing = {name for index, name in places.items() if sizes[index]}
    if not missing:
        return found
    for file in read_payload(path):
        here = [places[index] for index in file.indices if index in places]
        if not here:
            continue
        if file.size > limit:
            raise BuildError("file-too-large", f"{path.name}: {here[0]} has more than {limit} bytes")
        content = b"".join(file.pieces())
        found.update(dict.fromkeys(here, content))
        missing.difference_update(here)
        if not missing:
            break
    return found
