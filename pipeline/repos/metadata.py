"""Fetch, verify and decompress metadata documents: into the store, or piece by piece.

Both the compressed and the decompressed content are verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from pipeline.digest import Digest, chunks, digest_json, identity
from pipeline.errors import VerificationError
from pipeline.progress import QUIET, Progress
from pipeline.repos.repomd import RECORD_SIZE_LIMIT, MetadataRecord
from pipeline.repos.repository import OpenRepository
from pipeline.store import Store
from pipeline.streams import open_compressed
from pipeline.transfer import Download, fetch

COMPRESSION_RATIO_MOST = 200
"""Compression ratio at most where repomd.xml has no open size. Real file lists reach 30."""


def metadata_file(
    opened: OpenRepository, kind: str, *, store: Store, progress: Progress = QUIET
) -> tuple[Path, str] | None:
    """Return a repository's metadata document, decompressed: its path and its checksum.

    `kind` is `primary`, `filelists`, `updateinfo` or `modules`; the path is one in the store, the checksum a text. None
    if the repository has no such document.

    It is fetched if the store lacks it, and compared with both checksums and sizes in repomd.xml; without an open size,
    COMPRESSION_RATIO_MOST bounds it. Raises VerificationError `metadata-mismatch`, `download-mismatch`.
    """
    record = opened.records.get(kind)
    if record is None:
        return None
    name = identity("metadata", 1, checksum=str(record.checksum))
    known = store.recall_as(name, digest_json)
    if known is not None and store.sound(known):
        return store.blob(known), str(record.checksum)
    with store.writer() as blob:
        for piece in metadata_pieces(opened, kind, store=store, progress=progress):
            blob.write(piece)
    store.remember(name, str(blob.digest))
    return store.blob(blob.digest), str(record.checksum)


def metadata_pieces(opened: OpenRepository, kind: str, *, store: Store, progress: Progress = QUIET) -> Iterator[bytes]:
    """Yield the decompressed content of a document that repomd.xml lists.

    Only the compressed document is kept. That the content is all there and right is known at the end only: nothing made
    of it may be used before. Errors as `metadata_file`.
    """
    record = opened.records[kind]
    path = store.blob(_stored(opened, record, store, progress))
    limit = record.open_size or min(RECORD_SIZE_LIMIT, COMPRESSION_RATIO_MOST * path.stat().st_size + (1 << 20))
    hashed = hashlib.new(record.open_checksum.algorithm) if record.open_checksum else None
    size = 0
    with open_compressed(path, limit=limit) as file:
        for piece in chunks(file):
            size += len(piece)
            if hashed is not None:
                hashed.update(piece)
            yield piece
    if record.open_size is not None and size != record.open_size:
        raise _mismatch(record, opened.repository.id, f"it has {size} bytes uncompressed, not {record.open_size}")
    if hashed is not None and record.open_checksum and hashed.hexdigest() != record.open_checksum.hex:
        raise _mismatch(record, opened.repository.id, "the checksum of the uncompressed content differs")


def _stored(opened: OpenRepository, record: MetadataRecord, store: Store, progress: Progress) -> Digest:
    """Fetch the document as it is in the repository, and verify it."""
    label = f"{record.kind} of {opened.repository.id}"
    urls = tuple(f"{base}/{quote(record.location)}" for base in opened.base_urls)
    algorithm, promised = record.checksum.algorithm, record.checksum.hex
    wanted = (
        Download(urls, Digest(promised), record.size, label)
        if algorithm == "sha256"
        else Download(urls, None, record.size, label, (algorithm, promised))
    )
    (digest,) = fetch(
        store,
        [wanted],
        progress=progress,
        offline=opened.offline,
        network=opened.network,
        label=label,
    )
    return digest


def _mismatch(record: MetadataRecord, repository: str, what: str) -> VerificationError:
    return VerificationError(
        "metadata-mismatch",
        f"'{record.kind}' does not match repomd.xml: {what}",
        place=f"repository {repository}",
        hint="the repository or the mirror is inconsistent; try again later, or use another mirror",
    )
