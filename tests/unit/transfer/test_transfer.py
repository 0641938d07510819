"""Downloads against a real HTTP server on loopback that misbehaves on demand."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, RecipeError, UsageError, VerificationError
from pipeline.progress import QUIET
from pipeline.store import Store, content_store
from pipeline.transfer import Download, Network, download, fetch, fetch_document
from pipeline.transfer.server_access import ServerAccess
from tests.support.recorded_pools import recorded_pools

CONTENT = bytes(range(256)) * 2000
DIGEST = Digest.of(CONTENT)
NETWORK = Network(timeout=5.0, backoff=0.001, attempts=3)


class Server:
    """Serves CONTENT at every path; the path's first word says how."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.etag = '"one"'
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = (
                True  # Headers and body go apart: else each answer waits 40 ms for an acknowledgement.
            )

            def do_GET(self) -> None:
                owner.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                getattr(owner, f"serve_{urlsplit(self.path).path.split('/')[1]}")(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, path: str) -> int:
        return sum(one == path for one, _ in self.requests)

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        data: bytes,
        status: int = 200,
        length: int | None = None,
        **more: str,
    ) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.send_header("ETag", self.etag)
        for name, value in more.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    def serve_good(self, handler: BaseHTTPRequestHandler, data: bytes = CONTENT) -> None:
        wanted = handler.headers.get("Range")
        if wanted and handler.headers.get("If-Range", self.etag) == self.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self._send(handler, b"", 416, Content_Range=f"bytes */{len(data)}")
                return
            self._send(handler, data[start:], 206, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self._send(handler, data)

    def serve_wrong(self, handler: BaseHTTPRequestHandler) -> None:
        self.serve_good(handler, CONTENT[:-1] + b"?")

    def serve_long(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, CONTENT + b"more")

    def serve_norange(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, CONTENT)

    def serve_truncated(self, handler: BaseHTTPRequestHandler) -> None:
        """Promises all, sends a part, and hangs up; each time goes a little further."""
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        piece = CONTENT[start : start + 200_000]
        status = 206 if start else 200
        ranged = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
        self._send(handler, piece, status, length=len(CONTENT) - start, **ranged)
        handler.close_connection = True

    def serve_short(self, handler: BaseHTTPRequestHandler) -> None:
        """Says that half is all."""
        self._send(handler, CONTENT[: len(CONTENT) // 2])

    def serve_busy(self, handler: BaseHTTPRequestHandler) -> None:
        if self.count(handler.path) < 3:
            self._send(handler, b"", 503)
        else:
            self._send(handler, CONTENT)

    def serve_missing(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, b"", 404)

    def serve_to(self, handler: BaseHTTPRequestHandler) -> None:
        """Redirects to what follows."""
        self._send(handler, b"", 302, Location=handler.path.removeprefix("/to"))

    def serve_loop(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, b"", 302, Location="/loop")

    def serve_tofile(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, b"", 302, Location="file:///etc/passwd")

    def serve_encoded(self, handler: BaseHTTPRequestHandler) -> None:
        self._send(handler, CONTENT, Content_Encoding="gzip")


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def get(store: Store, *urls: str, size: int | None = len(CONTENT), target: Digest | None = DIGEST) -> Digest:
    (digest,) = fetch(store, [Download(urls, target, size, "thing")], progress=QUIET, network=NETWORK)
    return digest


def partial(store: Store, data: bytes) -> Path:
    folder = store.metadata / "partial"
    folder.mkdir(exist_ok=True)
    path = folder / DIGEST.hex
    path.write_bytes(data)
    return path


def test_what_is_fetched_stands_in_the_store_and_is_not_asked_for_again(server: Server, store: Store) -> None:
    assert get(store, f"{server.url}/good") == DIGEST
    assert store.blob(DIGEST).read_bytes() == CONTENT
    assert get(store, f"{server.url}/good") == DIGEST
    assert len(server.requests) == 1
    assert list((store.metadata / "partial").iterdir()) == []


def test_what_is_fetched_is_hashed_while_it_is_written_and_not_once_more(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(store, f"{server.url}/good")
    monkeypatch.setattr(content_store, "stamp_of_whole", lambda *_: pytest.fail("hashed again"))
    assert store.verify_once(DIGEST) == store.stamp(DIGEST)
    monkeypatch.undo()
    store.blob(DIGEST).write_bytes(CONTENT[1:])
    with pytest.raises(VerificationError, match="damaged"):
        store.verify_once(DIGEST)


def test_a_part_that_an_earlier_run_left_is_not_fetched_again(server: Server, store: Store) -> None:
    partial(store, CONTENT[:300_000])
    get(store, f"{server.url}/good")
    assert server.requests[0][1]["range"] == "bytes=300000-"
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_all_again(server: Server, store: Store) -> None:
    partial(store, CONTENT[:300_000])
    get(store, f"{server.url}/norange")
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_damaged_part_costs_one_more_download(server: Server, store: Store) -> None:
    partial(store, b"damaged" * 1000)
    get(store, f"{server.url}/good")
    assert [request[1].get("range") for request in server.requests] == ["bytes=7000-", None]
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_whole_part_needs_no_request(server: Server, store: Store) -> None:
    partial(store, CONTENT)
    get(store, f"{server.url}/good")
    get(store, f"{server.url}/good", size=None)
    assert server.requests == []


def test_a_part_that_is_longer_than_the_file_is_dropped(server: Server, store: Store) -> None:
    partial(store, CONTENT + b"x")
    get(store, f"{server.url}/good", size=None)
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_transfers_that_break_off_are_resumed_with_the_validator_of_the_first_part(
    server: Server, store: Store
) -> None:
    get(store, f"{server.url}/truncated")
    assert [request[1].get("range") for request in server.requests] == [None, "bytes=200000-", "bytes=400000-"]
    assert {request[1].get("if-range") for request in server.requests[1:]} == {'"one"'}


def test_a_transfer_that_always_breaks_off_leaves_its_part_for_the_next_run(server: Server, store: Store) -> None:
    once = Network(backoff=0.001, attempts=1)
    with pytest.raises(EnvironmentLacking) as caught:
        fetch(
            store,
            [Download((f"{server.url}/truncated",), DIGEST, len(CONTENT), "thing")],
            progress=QUIET,
            network=once,
        )
    assert caught.value.code == "network-unreachable"
    assert (store.metadata / "partial" / DIGEST.hex).read_bytes() == CONTENT[:200_000]


class Passing:
    """What passed by of each file, and the inode that the store had it under."""

    def __init__(self) -> None:
        self.content = b""
        self.inode = 0

    def update(self, piece: bytes | memoryview) -> None:
        self.content += piece

    def copied(self, status: os.stat_result) -> None:
        self.inode = status.st_ino


def get_passing(store: Store, url: str) -> Passing | None:
    made: list[Passing] = []

    def passing(target: Digest) -> Passing:
        assert target == DIGEST
        made.append(Passing())
        return made[-1]

    fetch(store, [Download((url,), DIGEST, len(CONTENT), "thing")], progress=QUIET, network=NETWORK, passing=passing)
    return made[-1] if made else None


def test_what_is_copied_from_this_machine_passes_by_as_a_whole(store: Store, tmp_path: Path) -> None:
    (tmp_path / "thing").write_bytes(CONTENT)
    found = get_passing(store, (tmp_path / "thing").as_uri())
    assert found is not None and found.content == CONTENT
    assert found.inode == store.blob(DIGEST).stat().st_ino
    assert stat.S_IMODE(store.blob(DIGEST).stat().st_mode) == 0o644
    assert list((store.metadata / "partial").iterdir()) == []


def test_a_copy_that_was_begun_by_a_killed_run_is_ended_and_does_not_pass_by(store: Store, tmp_path: Path) -> None:
    (tmp_path / "thing").write_bytes(CONTENT)
    for left in (CONTENT[:300_000], CONTENT):
        partial(store, left)
        found = get_passing(store, (tmp_path / "thing").as_uri())
        assert found is not None and not found.content and not found.inode
        assert store.blob(DIGEST).read_bytes() == CONTENT
        store.blob(DIGEST).unlink()


def test_a_copy_of_other_bytes_is_not_told_of(store: Store, tmp_path: Path) -> None:
    (tmp_path / "thing").write_bytes(CONTENT[:-1] + b"?")
    made: list[Passing] = []

    def passing(target: Digest) -> Passing:
        made.append(Passing())
        return made[-1]

    one = Download(((tmp_path / "thing").as_uri(),), DIGEST, len(CONTENT), "thing")
    with pytest.raises(VerificationError):
        fetch(store, [one], progress=QUIET, network=NETWORK, passing=passing)
    assert [found.inode for found in made] == [0]


def test_a_file_that_cannot_be_closed_is_no_blob(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full NFS, where close(2) tells of what could not be written."""
    (tmp_path / "thing").write_bytes(CONTENT)
    real, failed = os.close, list[int]()

    def close(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        real(handle)
        if path.name == DIGEST.hex and not failed:
            failed.append(handle)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as full:
        full.setattr(os, "close", close)
        with pytest.raises(OSError, match="quota") as caught:
            get_passing(store, (tmp_path / "thing").as_uri())
    assert failed and caught.value.filename == str(store.metadata / "partial" / DIGEST.hex)
    assert not store.has(DIGEST)
    get_passing(store, (tmp_path / "thing").as_uri())
    assert store.sound(DIGEST)


def test_what_comes_over_a_network_does_not_pass_by(server: Server, store: Store) -> None:
    assert get_passing(store, f"{server.url}/good") is None
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_file_that_comes_in_place_of_the_written_one_is_not_noted_as_whole(store: Store, tmp_path: Path) -> None:
    (tmp_path / "written").write_bytes(CONTENT)
    store.blob(DIGEST).write_bytes(CONTENT[1:])
    store.note_whole(DIGEST, (tmp_path / "written").stat())
    assert not store.sound(DIGEST)


@pytest.mark.parametrize("how", ["wrong", "long"])
def test_other_bytes_than_promised_are_refused_and_nothing_is_kept(server: Server, store: Store, how: str) -> None:
    with pytest.raises(VerificationError) as caught:
        get(store, f"{server.url}/{how}")
    assert caught.value.code == "download-mismatch"
    assert f"{server.url}/{how}" in str(caught.value)
    assert not store.has(DIGEST)
    assert list((store.metadata / "partial").iterdir()) == []


def test_a_file_that_is_shorter_than_promised_is_refused(server: Server, store: Store) -> None:
    with pytest.raises(EnvironmentLacking, match="ended after 256000 of 512000 bytes"):
        get(store, f"{server.url}/short")
    assert not store.has(DIGEST)


def test_a_wrong_mirror_is_passed_over_for_a_good_one(server: Server, store: Store) -> None:
    get(store, f"{server.url}/wrong", f"{server.url}/missing", f"{server.url}/good")
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_after_a_pause(server: Server, store: Store) -> None:
    get(store, f"{server.url}/busy")
    assert server.count("/busy") == 3


def test_what_no_place_has_is_missing_and_not_a_network_that_is_down(server: Server, store: Store) -> None:
    with pytest.raises(EnvironmentLacking) as caught:
        get(store, f"{server.url}/missing/a", f"{server.url}/missing/b")
    assert caught.value.code == "download-missing"
    assert [path for path, _ in server.requests] == ["/missing/a", "/missing/b"] * 2  # a second look at both


def test_an_unreachable_server_is_named(store: Store) -> None:
    with pytest.raises(EnvironmentLacking, match=r"127\.0\.0\.1:1/x") as caught:
        get(store, "http://127.0.0.1:1/x")
    assert caught.value.code == "network-unreachable"


def test_redirections_are_followed_and_bounded(server: Server, store: Store) -> None:
    get(store, f"{server.url}/to/to/good")
    with pytest.raises(VerificationError) as caught:
        fetch_document([f"{server.url}/loop"], limit=10, network=NETWORK)
    assert caught.value.code == "redirect-refused"
    assert server.count("/loop") == 12  # twice, as whatever is wrong


def test_no_redirection_leads_to_a_file_of_this_machine(server: Server) -> None:
    with pytest.raises(VerificationError) as caught:
        fetch_document([f"{server.url}/tofile"], limit=1 << 20, network=NETWORK)
    assert caught.value.code == "redirect-refused"


def test_an_encoded_answer_is_refused(server: Server) -> None:
    with pytest.raises(EnvironmentLacking, match="Content-Encoding"):
        fetch_document([f"{server.url}/encoded"], limit=1 << 20, network=NETWORK)


def test_offline_only_files_are_read(server: Server, store: Store, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(CONTENT)
    download = Download((f"{server.url}/good",), DIGEST, len(CONTENT), "thing")
    with pytest.raises(EnvironmentLacking) as caught:
        fetch(store, [download], progress=QUIET, offline=True)
    assert caught.value.code == "offline-miss"
    assert server.requests == []
    local = Download((f"{server.url}/good", (tmp_path / "here").as_uri()), DIGEST, len(CONTENT), "thing")
    assert fetch(store, [local], progress=QUIET, offline=True) == (DIGEST,)


@pytest.mark.parametrize("more", ["?x", "?", "#x", "?/../there"])
def test_a_query_or_fragment_of_a_file_is_refused(tmp_path: Path, more: str) -> None:
    (tmp_path / "there").write_bytes(CONTENT)
    assert fetch_document([(tmp_path / "there").as_uri()], limit=1 << 20, network=NETWORK) == CONTENT
    with pytest.raises(EnvironmentLacking, match="no query or fragment"):
        fetch_document([(tmp_path / "there").as_uri() + more], limit=1 << 20, network=NETWORK)


def test_a_file_with_other_bytes_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(CONTENT[:-1])
    with pytest.raises(VerificationError) as caught:
        get(store, (tmp_path / "there").as_uri())
    assert caught.value.code == "download-mismatch"


def test_bytes_without_a_known_digest_are_named_by_theirs(server: Server, store: Store) -> None:
    assert get(store, f"{server.url}/good", target=None) == DIGEST
    with pytest.raises(VerificationError):
        get(store, f"{server.url}/good", target=None, size=1000)


def test_many_downloads_come_back_in_their_order(store: Store, tmp_path: Path) -> None:
    contents = [f"file {number}".encode() for number in range(20)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    wanted = [
        Download(((tmp_path / str(number)).as_uri(),), Digest.of(content), len(content), str(number))
        for number, content in enumerate(contents)
    ]
    doubled = [*wanted, wanted[3]]
    assert fetch(store, doubled, progress=QUIET, parallel=4) == tuple(one.target for one in doubled)


@pytest.mark.parametrize(("processors", "local", "mixed"), [(1, 1, 4), (3, 3, 4), (16, 4, 4)])
def test_local_files_are_copied_by_as_many_threads_as_there_are_processors(
    server: Server,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processors: int,
    local: int,
    mixed: int,
) -> None:
    monkeypatch.setattr(download, "whole_processors", lambda: processors)
    pools = recorded_pools(monkeypatch)
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
    first, second = (
        Download(((tmp_path / name).as_uri(),), Digest.of(name.encode()), 3, name) for name in ("one", "two")
    )
    fetch(store, [first], progress=QUIET, parallel=4)
    fetch(store, [second, Download((f"{server.url}/good",), DIGEST, None, "url")], progress=QUIET, parallel=4)
    assert pools == [local, mixed]


def test_a_document_is_bounded(server: Server) -> None:
    assert fetch_document([f"{server.url}/good"], limit=len(CONTENT), network=NETWORK) == CONTENT
    with pytest.raises(VerificationError) as caught:
        fetch_document([f"{server.url}/good"], limit=1000, network=NETWORK)
    assert caught.value.code == "download-too-large"


def test_proxies_come_from_the_variables_that_are_passed_in() -> None:
    network = Network.of({"https_proxy": "http://proxy:1", "HTTP_PROXY": "http://cgi:2", "NO_PROXY": "inside, .near"})
    assert (network.https_proxy, network.http_proxy) == ("http://proxy:1", None)
    assert network.no_proxy == ("inside", ".near")


@pytest.mark.parametrize("proxy", ["http://[v1.a]", "http://1.2.3.999", f"http://a{chr(0x2603) * 32}.test"])
def test_a_proxy_that_only_the_http_library_refuses_is_an_error_with_a_code(proxy: str) -> None:
    with pytest.raises(UsageError) as caught, Network.of({"https_proxy": proxy}).client():
        pass
    assert (caught.value.code, caught.value.problems[0].place) == ("network-variable", "https_proxy")
    with pytest.raises(RecipeError) as refused, Network(access=ServerAccess(proxy=proxy)).client():
        pass
    assert refused.value.code == "access-incomplete"


def test_hosts_without_a_proxy_may_be_addresses_and_nonsense() -> None:
    network = Network.of({"http_proxy": "http://proxy:1", "no_proxy": "::1,[::2],fe80::/10,1.2.3.999,10.0.0.0/8,a:b:c"})
    with network.client() as client:
        assert client._transport_for_url(httpx.URL("http://[::1]:80/")) is client._transport
        assert client._transport_for_url(httpx.URL("http://[::2]/")) is client._transport
        assert client._transport_for_url(httpx.URL("http://[::3]/")) is not client._transport


def test_authorities_at_no_possible_path_are_an_error_with_a_code() -> None:
    with pytest.raises(EnvironmentLacking) as caught, Network(ca_file=Path("/a\0b")).client():
        pass
    assert caught.value.code == "certificates-unreadable"


def test_plain_requests_go_through_the_proxy(server: Server) -> None:
    through = Network(http_proxy=server.url, timeout=5.0)
    assert fetch_document(["http://elsewhere.invalid/good"], limit=1 << 20, network=through) == CONTENT
    assert server.requests[0][1]["host"] == "elsewhere.invalid"
    direct = Network(http_proxy="http://127.0.0.1:1", no_proxy=("127.0.0.1",), timeout=5.0, attempts=1)
    assert fetch_document([f"{server.url}/good"], limit=1 << 20, network=direct) == CONTENT
