"""A limit for publishing to a registry: the same blobs and manifests, sent from memory in the fewest requests.

A blob is a POST and a PUT (docker-registry takes none in one request), a manifest a PUT for each of its tags, on one
kept connection for each core. Nothing is asked, compared, signed or read back. As a program (FOLDER HOST) it prints the
seconds: a process of its own, as relbuild and its peers are, shares no interpreter with what counts the bytes.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from threading import local
from urllib.parse import urlsplit

from turns import BenchFailed, run

REPOSITORIES = Path("data", "docker", "registry", "v2", "repositories")
REGISTRY_SECONDS = 60.0
"""That the registry gets for one answer."""


@dataclass(frozen=True, slots=True)
class SentBlob:
    """A blob, and the repository that it goes to."""

    repository: str
    digest: str
    data: bytes


@dataclass(frozen=True, slots=True)
class SentManifest:
    """A manifest or an index, the repository that it goes to, and under which tag or digest."""

    repository: str
    reference: str
    media_type: str
    data: bytes
    is_index: bool


def sent_anew(folder: Path, host: str) -> float:
    """Send what the docker-registry of `folder` has to another one, in a process; return the seconds of the sending."""
    return float(run(sys.executable, __file__, folder, host))


def registry_contents(folder: Path) -> tuple[list[SentBlob], list[SentManifest]]:
    """Return what the docker-registry whose data is in `folder` has, as it is to be sent to another one."""
    blobs, manifests = list[SentBlob](), list[SentManifest]()
    root = folder / REPOSITORIES
    for place in sorted(path.parent for path in root.rglob("_manifests")):
        repository = place.relative_to(root).as_posix()
        revisions = _links(place / "_manifests" / "revisions" / "sha256")
        layers = [digest for digest in _links(place / "_layers" / "sha256") if digest not in revisions]
        blobs += [SentBlob(repository, digest, _content(folder, digest)) for digest in layers]
        tags = {path.parent.parent.name: path.read_text() for path in place.glob("_manifests/tags/*/current/link")}
        untagged = {digest: digest for digest in revisions if digest not in tags.values()}
        manifests += _manifests(folder, repository, tags | untagged)
    return blobs, manifests


def _links(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("*/link"))]


def _content(folder: Path, digest: str) -> bytes:
    value = digest.partition(":")[2]
    return (folder / REPOSITORIES.parent / "blobs" / "sha256" / value[:2] / value / "data").read_bytes()


def _manifests(folder: Path, repository: str, references: Mapping[str, str]) -> Iterator[SentManifest]:
    for reference, digest in references.items():
        data = _content(folder, digest)
        document = json.loads(data)
        yield SentManifest(repository, reference, document["mediaType"], data, "manifests" in document)


def publication_seconds(host: str, blobs: Iterable[SentBlob], manifests: Iterable[SentManifest]) -> float:
    """Return the seconds that sending takes, blobs first, then manifests, then indices, which refer to them.

    Raises BenchFailed if the registry refuses something.
    """
    manifests, connections = list(manifests), local()
    with ExitStack() as opened:

        def connect() -> None:
            connections.own = opened.enter_context(closing(http.client.HTTPConnection(host, timeout=REGISTRY_SECONDS)))

        def send_blob(blob: SentBlob) -> None:
            upload = _request(connections.own, "POST", f"/v2/{blob.repository}/blobs/uploads/")
            _request(connections.own, "PUT", _with_digest(upload, blob.digest), blob.data, "application/octet-stream")

        def send_manifest(one: SentManifest) -> None:
            target = f"/v2/{one.repository}/manifests/{one.reference}"
            _request(connections.own, "PUT", target, one.data, one.media_type)

        began = time.monotonic()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), initializer=connect) as pool:
            list(pool.map(send_blob, sorted(blobs, key=lambda blob: -len(blob.data))))
            for is_index in (False, True):
                list(pool.map(send_manifest, [one for one in manifests if one.is_index is is_index]))
        return time.monotonic() - began


def _with_digest(upload: str, digest: str) -> str:
    """Return the target of the PUT that ends an upload, whose address may be absolute and have a query."""
    address = urlsplit(upload)
    query = f"{address.query}&digest={digest}" if address.query else f"digest={digest}"
    return f"{address.path}?{query}"


def _request(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes = b"", media_type: str = ""
) -> str:
    """Send a request, read its answer so that the connection can be used again, and return the answer's Location."""
    try:
        connection.request(method, target, body, {"Content-Type": media_type} if media_type else {})
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchFailed(f"{method} {target}: {type(error).__name__}: {error}") from None
    if answer.status not in {http.client.CREATED, http.client.ACCEPTED}:
        raise BenchFailed(f"{method} {target}: status {answer.status}: {said[:200].decode(errors='replace')}")
    return answer.getheader("Location", "")


if __name__ == "__main__":
    try:
        print(publication_seconds(sys.argv[2], *registry_contents(Path(sys.argv[1]))))
    except BenchFailed as error:
        sys.exit(str(error))
