"""Stream the files in a package's payload, by rpm's library, with their digests checked.

rpm's own reader is used: it knows files over 4 GiB (which libarchive 3.6 does not), tells which file of the
header each member is, and is as fast: measured with a zstd payload of 190 MB (mysql-server), rpm 1335 MB/s,
libarchive 1336 MB/s; with gzip, 302 and 343 MB/s. It releases Python's lock while it works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.digest import CHUNK
from pipeline.errors import BuildError
from pipeline.model.header import FileFlag
from pipeline.packages.package_signature import _PGP_SHA256
from pipeline.packages.rpm_file_layout import package_damaged, read_rpm_layout
from pipeline.packages.rpm_header import inode_numbers, open_header
from pipeline.packages.rpm_library import rpm

_IO = {"gzip": "gzdio", "bzip2": "bzdio", "xz": "xzdio", "lzma": "lzdio", "zstd": "zstdio"}


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """A regular file of the payload, with its content.

    `indices` are the places in the header's files of all names that it has (hard links), in the header's
    order; RPM carries their data once, with the last of them. `pieces` gives the bytes, each piece at most
    1 MiB, once, and must be used before the next file is asked for. It raises VerificationError
    `package-damaged` at the end if the bytes are not those that the header's digest names.
    """

    indices: tuple[int, ...]
    size: int
    pieces: Callable[[], Iterator[bytes]]


def read_payload(path: Path) -> Iterator[PayloadFile]:
    """Yield the regular files with content of a verified RPM, in the payload's order.

    Empty files and other types are in the header alone and not yielded. Raises VerificationError
    `package-damaged`, BuildError `payload-unsupported`.
    """
    header = open_header(path)
    digests = header[rpm.RPMTAG_FILEDIGESTS] if header[rpm.RPMTAG_FILEDIGESTALGO] == _PGP_SHA256 else None
    members: dict[int, list[int]] = {}
    inodes = inode_numbers(header)
    for index, (inode, flags) in enumerate(zip(inodes, header[rpm.RPMTAG_FILEFLAGS], strict=True)):
        if not flags & FileFlag.GHOST:
            members.setdefault(inode, []).append(index)
    with path.open("rb") as file:
        file.seek(read_rpm_layout(path).payload)
        try:
            archive = rpm.files(header).archive(_decompressing(file.fileno(), header, path), write=False)
            for member in archive:
                if not archive.hascontent() or member.size == 0:
                    continue
                expected = digests[member.fx] if digests else None
                yield PayloadFile(
                    tuple(members[inodes[member.fx]]), member.size, _reader(archive, member, expected, path)
                )
        except (OSError, rpm.error) as error:
            raise package_damaged(path, f"rpm cannot read its payload: {error}") from error


def _reader(archive: rpm.archive, member: rpm.file, expected: str | None, path: Path) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        left, found = member.size, hashlib.sha256()
        while left:
            piece: bytes = archive.read(min(CHUNK, left))
            if not piece:
                raise package_damaged(path, f"the payload ends in the middle of {member.name}")
            left -= len(piece)
            found.update(piece)
            yield piece
        if expected and found.hexdigest() != expected:
            raise package_damaged(path, f"the content of {member.name} does not match the digest in the header")

    return pieces


def _decompressing(handle: int, header: rpm.hdr, path: Path) -> rpm.fd:
    compressor = header[rpm.RPMTAG_PAYLOADCOMPRESSOR] or "gzip"
    kind = header[rpm.RPMTAG_PAYLOADFORMAT] or "cpio"
    if compressor not in _IO or kind != "cpio":
        raise BuildError(
            "payload-unsupported", f"{path.name}: unsupported payload: {kind}, compressed with {compressor}"
        )
    return rpm.fd(handle, "r", _IO[compressor])


def read_payload_files(path: Path, paths: Sequence[str], *, limit: int = 1 << 20) -> dict[str, bytes]:
    """Read the content of those of `paths` that are regular files in the package.

    `paths` are as the header spells them; each file has at most `limit` bytes. Raises as `read_payload`, and BuildError
    `file-too-large`.
    """
    header = open_header(path)
    names, sizes = header[rpm.RPMTAG_FILENAMES], header[rpm.RPMTAG_LONGFILESIZES]
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
