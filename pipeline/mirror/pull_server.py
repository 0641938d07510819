"""Read-only registry server over a directory mirror or an OCI layout (`relbuild serve`).

For a developer's machine and for tests, not for the internet: there is no TLS and no access control; connections are
limited (`pipeline.mirror.connections`). It gives the same responses as a web server with the mirror's configuration
(distribution-spec 1.1, "Pull"), and also pages of tags and referrers filtered by type. Symlinks below the served folder
are not followed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.digest import Digest, canonical_json
from pipeline.errors import RelbuildError, UsageError
from pipeline.mirror.address_parser import ADDRESS_FORMS
from pipeline.mirror.protocol import NAME, TAG
from pipeline.mirror.pull_source import PullableRepository, PullSource
from pipeline.mirror.references import listed_repositories, listed_tags, referrers_index
from pipeline.oci import media_types
from pipeline.system_errors import port_unavailable

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

_BACKLOG = 256
"""Connections that wait to be accepted: as many as can be open."""

_SHUTDOWN_GRACE = 3
"""Seconds that requests in progress get when the server is told to stop."""

WARNING = "this server has no TLS and no access control; put a web server in front of a mirror that others use"

_PATH = re.compile(
    rf"/v2/(?P<name>{NAME.pattern})/(?:"
    r"manifests/sha256:(?P<manifest>[0-9a-f]{64})"
    rf"|manifests/(?P<tag>{TAG.pattern})"
    r"|blobs/sha256:(?P<blob>[0-9a-f]{64})"
    r"|referrers/sha256:(?P<subject>[0-9a-f]{64})"
    r"|(?P<tags>tags/list))"
)


def open_pull_source(path: Path, *, clock: Callable[[], float]) -> PullSource:
    """Open the directory mirror or layout at `path`. Raises UsageError `not-a-mirror`."""
    for form in ADDRESS_FORMS:
        found = form.pull_source(path, clock)
        if found is not None:
            return found
    raise UsageError(
        "not-a-mirror",
        f"'{path}' is neither a mirror nor an OCI layout",
        place=str(path),
        hint="give the directory that images were published to",
    )


def serve_mirror(
    path: Path,
    host: str,
    port: int,
    *,
    clock: Callable[[], float],
    ready: Callable[[str], None],
    anywhere: bool = False,
) -> None:
    """Serve the directory mirror or layout at `path` until the process is interrupted.

    `port` 0: any free one. `ready` is called with the URL when the socket listens; whoever shows the URL should show
    `WARNING` too. `clock` returns seconds since the epoch. `anywhere`: other than loopback addresses are allowed.

    Raises UsageError `not-for-the-internet`, `not-a-mirror`, EnvironmentLacking `port-unavailable`.
    """
    import uvicorn

    from pipeline.mirror.connections import BoundedConnection, limit_requests

    source = open_pull_source(path, clock=clock)
    listener = _listen(host, port, anywhere)
    try:
        config = uvicorn.Config(
            limit_requests(application(source), _error(503, "TOOMANYREQUESTS", "too many requests at once: ask again")),
            http=BoundedConnection,
            log_config=None,
            log_level="error",  # Clients that try TLS first are not worth a warning each.
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_GRACE,
        )
        address, number = listener.getsockname()[:2]
        ready(f"http://{f'[{address}]' if ':' in address else address}:{number}")
        # uvicorn ends by itself on an interrupt, and raises it again when it has ended.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()


def application(source: PullSource) -> Starlette:
    """Return the ASGI application that answers requests from `source`."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    def answer(request: Request) -> Response:
        try:
            return _answer(source, request)
        except RelbuildError:
            # Serve no damaged content and reveal no local path; the client can try another mirror.
            return _error(500, "UNKNOWN", "the stored content is damaged or unreadable")

    def read_only(request: Request, error: Exception) -> Response:
        refused = _error(405, "UNSUPPORTED", "this mirror is read only")
        refused.headers["Allow"] = "GET, HEAD"
        return refused

    return Starlette(
        routes=[Route("/{path:path}", answer, methods=["GET", "HEAD"])], exception_handlers={405: read_only}
    )


def _answer(source: PullSource, request: Request) -> Response:
    path = str(request.scope["path"])
    if path in ("/v2/", "/v2"):
        return _document(b"{}", "application/json")
    if path == "/v2/_catalog":
        return _document(listed_repositories(source.names()), "application/json")
    found = _PATH.fullmatch(path)
    if found is None:
        return _error(404, "UNSUPPORTED", "not found")
    name = found["name"]
    repository = source.repository(name)
    if repository is None:
        return _error(404, "NAME_UNKNOWN", "repository unknown")
    if found["blob"]:
        return _blob(repository, Digest(found["blob"]))
    if found["subject"]:
        return _referrers(repository, Digest(found["subject"]), request)
    if found["tags"]:
        return _tags(repository, name, request)
    manifest = repository.manifest(Digest(found["manifest"]) if found["manifest"] else found["tag"])
    if manifest is None:
        return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
    return _document(manifest.data, manifest.media_type, manifest.digest)


def _blob(repository: PullableRepository, digest: Digest) -> Response:
    file = repository.open_blob(digest)
    if file is None:
        return _error(404, "BLOB_UNKNOWN", "blob unknown")
    return _file(file, {"Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'})


def _file(file: BinaryIO, headers: dict[str, str]) -> Response:
    """Make a response that reads an open file by its descriptor, not by its path."""
    from starlette.responses import FileResponse

    class OpenFileResponse(FileResponse):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            with file:
                await super().__call__(scope, receive, send)

    return OpenFileResponse(f"/proc/self/fd/{file.fileno()}", media_type="application/octet-stream", headers=headers)


def _referrers(repository: PullableRepository, subject: Digest, request: Request) -> Response:
    wanted = request.query_params.get("artifactType")
    listed = repository.referrers(subject)
    if wanted:
        listed = tuple(one for one in listed if one.artifact_type == wanted)
    response = _document(referrers_index(listed).data, media_types.INDEX)
    if wanted:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    return response


def _tags(repository: PullableRepository, name: str, request: Request) -> Response:
    """Return all tags, or `n` of them after `last` (distribution-spec 1.1, "Listing Tags")."""
    last = request.query_params.get("last", "")
    tags = tuple(tag for tag in repository.tags() if tag > last)
    count = request.query_params.get("n")
    if count is None:
        return _document(listed_tags(name, tags), "application/json")
    if not re.fullmatch(r"\d{1,9}", count):
        return _error(400, "PAGINATION_NUMBER_INVALID", "n is not a number")
    page = tags[: int(count)]
    response = _document(listed_tags(name, page), "application/json")
    if page and len(page) < len(tags):
        response.headers["Link"] = f'</v2/{name}/tags/list?n={count}&last={page[-1]}>; rel="next"'
    return response


def _document(data: bytes, media_type: str, digest: Digest | None = None) -> Response:
    from starlette.responses import Response

    headers = {"Docker-Distribution-API-Version": "registry/2.0", "Cache-Control": "no-cache"}
    if digest is not None:
        headers |= {"Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'}
    return Response(data, headers={"Content-Type": media_type, **headers})


def _error(status: int, code: str, message: str) -> Response:
    from starlette.responses import Response

    body = canonical_json({"errors": [{"code": code, "message": message}]})
    return Response(body, status, headers={"Content-Type": "application/json"})


def _listen(host: str, port: int, anywhere: bool) -> socket.socket:
    """Open a listening socket. Raises UsageError, EnvironmentLacking."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if not anywhere and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise UsageError(
                "not-for-the-internet",
                f"{host} is not a loopback address: {WARNING}",
                place=host,
                hint="use 127.0.0.1, or allow other addresses with --anywhere",
            )
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except socket.gaierror as error:
        raise UsageError(
            "host-unknown",
            f"'{host}' is no address to listen on: {error.strerror}",
            place="--host",
            hint="write an address of this machine, such as 127.0.0.1 or ::1",
        ) from error
    except OSError as error:
        raise port_unavailable(host, port, error) from error
    return listener
