"""Read the manifests' files of a directory mirror, whatever was put in their place.

Whoever can write to a mirror can plant files that no publication puts there: documents of another form, links, FIFOs,
folders. Such a file is no manifest, and ends nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from pipeline.beneath import open_without_waiting
from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.backends.directory.manifest_names import manifest_file_name, parse_manifest_path
from pipeline.mirror.references import media_type_of, readable_references, referrer_of
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.oci.image_manifest import DOCUMENT_LIMIT


def manifest_files(folder: Path) -> list[tuple[Path, Digest, str]]:
    """Return path, digest and media type of each manifest in a folder, if it is one."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            named = parse_manifest_path(path)
            if named is not None:
                found.append((path, *named))
    return found


def read_regular(path: Path, limit: int = DOCUMENT_LIMIT) -> tuple[bytes, os.stat_result] | None:
    """Read a regular file, `limit` bytes and one more at most; return its status, too.

    None if it is missing, a link, or of another kind. Nothing is waited for: a FIFO is opened without blocking.
    """
    try:
        handle = open_without_waiting(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV):
            return None
        raise
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode):
            return None
        data = os.read(handle, size := min(seen.st_size, limit) + 1)
        while len(data) < size - 1 and (more := os.read(handle, size - len(data))):  # some file systems read less
            data += more
        return data, seen
    finally:
        os.close(handle)


def is_named_rightly(path: Path, data: bytes, media_type: str) -> bool:
    """Return whether a manifest's name tells its media type, or no name beside it does.

    Somebody can give a manifest a second name: the name of an index tells no layers.
    """
    said = media_type_of(data)
    if said is None or said == media_type:
        return True
    other = read_regular(path.with_name(manifest_file_name(Descriptor(said, Digest.of(data), len(data)))))
    return other is None or other[0] != data


def attached_manifests(folder: Path, subject: Digest) -> tuple[Referrer, ...]:
    """Return the referrers of `subject` among the manifests in a folder, sorted by digest.

    All are read: for a list of referrers that cannot be. What is damaged is skipped.
    """
    found: dict[Digest, Referrer] = {}
    for path, digest, media_type in manifest_files(folder):
        with contextlib.suppress(OSError):
            read = read_regular(path)
            manifest = Manifest(media_type, read[0]) if read is not None else None
            if manifest is None or manifest.digest != digest:
                continue
            said = readable_references(manifest)
            if said is not None and said.subject == subject and is_named_rightly(path, manifest.data, media_type):
                found[digest] = referrer_of(manifest)
    return tuple(found[digest] for digest in sorted(found))


def damaged_manifest(digest: Digest, path: Path) -> VerificationError:
    """Make the error of a manifest whose file has other content, or is no file."""
    return VerificationError(
        "digest-mismatch",
        f"the content of {digest} does not match its digest",
        place=str(path),
        hint="`relbuild scrub` moves it to quarantine and restores it from a good copy",
    )
