"""A small registry of distribution-spec 1.1 in memory, that fails when it is told to.

It has what Debian's docker-registry lacks (the referrers API, deletion of tags, uploads that can be taken up again)
and what no real registry does on demand (cut connections, limits on requests, wrong answers).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"

_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs/uploads|blobs|tags|referrers)/(?P<rest>[^/]*)")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _contents(document: dict[str, Any]) -> set[str]:
    """The digests to which a manifest or index refers, but for its subject, which may be missing."""
    config = [document["config"]] if "config" in document else []
    return {one["digest"] for one in (*config, *document.get("layers", ()), *document.get("manifests", ()))}


class Request(BaseHTTPRequestHandler):
    """One request, and how it is answered."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # Headers and body go apart: else each answer waits 40 ms for an acknowledgement.
    registry: FakeRegistry

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", headers.pop("Content_Length", str(len(body))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, **headers: str) -> None:
        self.read()
        self.answer(status, json.dumps({"errors": [{"code": code, "message": f"it is {code}"}]}).encode(), **headers)

    def read(self, most: int | None = None) -> bytes:
        """What is left of the body, or its next `most` bytes."""
        size = self.unread if most is None else min(self.unread, most)
        self.unread -= size
        return self.rfile.read(size)

    def cut(self, after: int = 0) -> None:
        """Read so many bytes of the body, and hang up without an answer."""
        self.read(after)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle_one_request()
            return
        self.close_connection = True

    def _serve(self) -> None:
        registry = self.registry
        self.unread = int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with registry.lock:
            registry.requests.append((self.command, self.path, headers))
            fault = next((one for one in registry.faults if one.fits(self.command, self.path)), None)
            if fault is not None:
                fault.times -= 1
                if not fault.times:
                    registry.faults.remove(fault)
        if fault is not None:
            fault.act(self)
        elif registry.guard is None or registry.guard(self):
            registry.serve(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815


@dataclass
class Fault:
    """What happens to the next `times` requests with a method and a path that match."""

    method: str
    path: str
    act: Callable[[Request], None]
    times: int = 1

    def fits(self, method: str, path: str) -> bool:
        return method == self.method and re.search(self.path, path) is not None


@dataclass
class Held:
    """A repository."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class FakeRegistry:
    """Runs until it is closed. `referrers`: has it the API? `page`: how many names or referrers it gives at a time.
    `guard`: answers a request and returns False, or lets it through. `requires_content`: it refuses a manifest that
    refers to what is not there, as docker-registry does. `takes_posts`: a blob may come with the POST alone."""

    def __init__(
        self, *, referrers: bool = True, page: int = 1000, tag_deletion: bool = True, requires_content: bool = False
    ) -> None:
        self.repositories: dict[str, Held] = {}
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.faults: list[Fault] = []
        self.guard: Callable[[Request], bool] | None = None
        self.upload_base = ""
        self.takes_posts = False
        self.lock = threading.RLock()
        self.lists_referrers = referrers
        self.page = page
        self._tag_deletion = tag_deletion
        self._requires_content = requires_content
        self._sessions = itertools.count(1)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Request,), {"registry": self}))
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def held(self, name: str) -> Held:
        return self.repositories.setdefault(name, Held())

    def count(self, method: str, path: str = "") -> int:
        return sum(one == method and re.search(path, where) is not None for one, where, _ in self.requests)

    # --- the protocol --------------------------------------------------------------------------

    def serve(self, request: Request) -> None:
        parts = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/v2/_catalog":
            self._names(request, sorted(self.repositories), "repositories", query)
            return
        match = _PATH.fullmatch(parts.path)
        if match is None:
            request.refuse(404, "")
            return
        serve = {
            "manifests": self._manifest,
            "blobs/uploads": self._upload,
            "blobs": self._blob,
            "tags": self._tags,
            "referrers": self._list_referrers,
        }[match["kind"]]
        with self.lock if match["kind"] != "blobs/uploads" else contextlib.nullcontext():
            serve(request, match["name"], match["rest"], query)

    def _names(self, request: Request, names: list[str], key: str, query: dict[str, str]) -> None:
        rest = [name for name in names if name > query.get("last", "")]
        page = rest[: self.page]
        more = {"Link": f'<{urlsplit(request.path).path}?last={page[-1]}>; rel="next"'} if len(rest) > len(page) else {}
        request.answer(200, json.dumps({key: page}).encode(), **more)

    def _tags(self, request: Request, name: str, _: str, query: dict[str, str]) -> None:
        if name not in self.repositories:
            request.refuse(404, "NAME_UNKNOWN")
            return
        self._names(request, sorted(self.held(name).tags), "tags", query)

    def _list_referrers(self, request: Request, name: str, subject: str, query: dict[str, str]) -> None:
        if not self.lists_referrers:
            request.refuse(404, "")
            return
        found = []
        for digest, (kind, data) in sorted(self.held(name).manifests.items()):
            document = json.loads(data)
            if document.get("subject", {}).get("digest") == subject and digest > query.get("last", ""):
                entry = {"mediaType": kind, "digest": digest, "size": len(data)}
                entry["artifactType"] = document.get("artifactType") or document["config"]["mediaType"]
                found.append({**entry, "annotations": document.get("annotations", {})})
        page = found[: self.page]
        path = urlsplit(request.path).path
        more = {"Link": f'<{path}?last={page[-1]["digest"]}>; rel="next"'} if len(found) > len(page) else {}
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": page}).encode()
        request.answer(200, body, Content_Type=INDEX, **more)

    def _manifest(self, request: Request, name: str, reference: str, _: dict[str, str]) -> None:
        held = self.held(name)
        if request.command == "PUT":
            data = request.read()
            digest = digest_of(data)
            if self._requires_content and not _contents(json.loads(data)) <= held.blobs.keys() | held.manifests.keys():
                request.refuse(400, "MANIFEST_BLOB_UNKNOWN")
                return
            held.manifests[digest] = (request.headers["Content-Type"], data)
            if not reference.startswith("sha256:"):
                held.tags[reference] = digest
            subject = json.loads(data).get("subject")
            more = {"OCI_Subject": subject["digest"]} if subject and self.lists_referrers else {}
            request.answer(201, Docker_Content_Digest=digest, **more)
            return
        digest = held.tags.get(reference, reference)
        if digest not in held.manifests:
            request.refuse(404, "MANIFEST_UNKNOWN")
        elif request.command == "DELETE":
            if reference in held.tags and not self._tag_deletion:
                request.refuse(400, "DIGEST_INVALID")
                return
            if reference not in held.tags:
                del held.manifests[digest]
            held.tags = {tag: to for tag, to in held.tags.items() if tag != reference and to in held.manifests}
            request.answer(202)
        else:
            kind, data = held.manifests[digest]
            request.answer(200, data, Content_Type=kind, Docker_Content_Digest=digest)

    def _blob(self, request: Request, name: str, digest: str, _: dict[str, str]) -> None:
        data = self.held(name).blobs.get(digest)
        if data is None:
            request.refuse(404, "BLOB_UNKNOWN")
            return
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"Docker_Content_Digest": digest, "ETag": f'"{digest}"'}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        request.answer(206 if start else 200, data[start:], **headers)

    def _upload(self, request: Request, name: str, session: str, query: dict[str, str]) -> None:
        if request.command == "POST":
            whole = request.read()
            if self.takes_posts and digest_of(whole) == query.get("digest"):
                self.held(name).blobs[query["digest"]] = whole
                request.answer(201, Docker_Content_Digest=query["digest"])
                return
            source = self.repositories.get(query.get("from", ""))
            if source and query.get("mount") in source.blobs:
                self.held(name).blobs[query["mount"]] = source.blobs[query["mount"]]
                request.answer(201, Docker_Content_Digest=query["mount"])
                return
            session = f"session-{next(self._sessions)}"
            self.uploads[session] = bytearray()
        got = self.uploads.get(session)
        if got is None:
            request.refuse(404, "BLOB_UPLOAD_UNKNOWN")
            return
        where = {
            "Location": f"{self.upload_base}/v2/{name}/blobs/uploads/{session}",
            "Range": f"0-{max(0, len(got) - 1)}",
        }
        if request.command == "DELETE":
            del self.uploads[session]
            request.answer(204)
        elif request.command in {"POST", "GET"}:
            request.answer(202 if request.command == "POST" else 204, **where)
        else:
            start = int(request.headers.get("Content-Range", f"{len(got)}-").partition("-")[0])
            if start != len(got):
                request.refuse(416, "RANGE_INVALID", **where)
                return
            got += request.read()
            where["Range"] = f"0-{len(got) - 1}"
            if request.command == "PATCH":
                request.answer(202, **where)
            elif digest_of(got) != query["digest"]:
                request.refuse(400, "DIGEST_INVALID")
            else:
                self.held(name).blobs[query["digest"]] = bytes(got)
                request.answer(201, Docker_Content_Digest=query["digest"])


@contextlib.contextmanager
def fake_registry(
    *, referrers: bool = True, page: int = 1000, tag_deletion: bool = True, requires_content: bool = False
) -> Iterator[FakeRegistry]:
    """A FakeRegistry for as long as the block lasts."""
    registry = FakeRegistry(
        referrers=referrers, page=page, tag_deletion=tag_deletion, requires_content=requires_content
    )
    try:
        yield registry
    finally:
        registry.close()
