"""The answers of a directory mirror behind nginx and `relbuild serve`, to those who mean well and to others."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.references import references
from pipeline.mirror.retention.quarantine import RemovalList
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.patience import HUNG
from tests.support.served_mirror import Site, ask, relbuild_serve, served_site
from tests.support.webserver import nginx


@pytest.fixture(scope="module", params=["nginx", "serve"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served_site(request.param, tmp_path_factory.mktemp("site")) as made:
        yield made


def test_head_and_get_tell_the_same(site: Site) -> None:
    for reference, wanted in (("1.0", site.image), ("both", site.index), (site.index.digest, site.index)):
        for method in ("HEAD", "GET"):
            status, headers, body = ask(site.host, f"/v2/team/tiny/manifests/{reference}", method)
            assert status == 200
            assert headers["Content-Type"] == wanted.media_type
            assert headers["Docker-Content-Digest"] == str(wanted.digest)
            assert headers["Content-Length"] == str(len(wanted.data))
            assert body == (wanted.data if method == "GET" else b"")


def test_a_blob_is_resumed(site: Site) -> None:
    blob = references(site.image).blobs[1]
    path = f"/v2/team/tiny/blobs/{blob.digest}"
    whole_status, headers, data = ask(site.host, path)
    assert (whole_status, headers["Content-Type"]) == (200, "application/octet-stream")
    assert Digest.of(data) == blob.digest
    assert ask(site.host, path, Range="bytes=7-")[::2] == (206, data[7:])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written(site: Site, method: str) -> None:
    for path in ("/v2/team/tiny/manifests/1.0", "/v2/team/tiny/blobs/uploads/"):
        status, headers, body = ask(site.host, path, method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert json.loads(body)["errors"][0]["code"] == "UNSUPPORTED"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/team/tiny/manifests/9", "MANIFEST_UNKNOWN"),
        (f"/v2/team/tiny/manifests/sha256:{'0' * 64}", "MANIFEST_UNKNOWN"),
        (f"/v2/team/tiny/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
        ("/v2/other/tags/list", "NAME_UNKNOWN"),
    ],
)
def test_what_is_unknown_is_said_as_registries_do(site: Site, path: str, code: str) -> None:
    status, _, body = ask(site.host, path)
    assert (status, json.loads(body)["errors"][0]["code"]) == (404, code)


def test_no_referrers_are_an_empty_index(site: Site) -> None:
    status, headers, body = ask(site.host, f"/v2/team/tiny/referrers/sha256:{'0' * 64}")
    assert (status, headers["Content-Type"]) == (200, "application/vnd.oci.image.index.v1+json")
    assert json.loads(body)["manifests"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/relbuild-mirror.json",
        "/v2/../relbuild-mirror.json",
        "/v2/team/tiny/manifests/..%2f..%2f..%2f..%2frelbuild-mirror.json",
        "/v2/team/tiny/manifests/%2e%2e",
        "/v2/team/../../relbuild-mirror.json",
        "/v2/team/tiny/_tags/1.0",
        "/repositories/team/tiny/_tags/1.0",
        "/v2/.quarantine/manifests/1.0",
        "/.quarantine/",
        "/.lock/prune",
        "/blobs/sha256/",
        "/v2/team/tiny/blobs/sha256:..%2f..%2frelbuild-mirror.json",
        "/etc/passwd",
        "/v2/%00",
    ],
)
def test_no_path_leads_out_of_what_is_served(site: Site, path: str) -> None:
    host, _, port = site.host.partition(":")
    with socket.create_connection((host, int(port)), HUNG) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split()[1] in (b"404", b"400"), answer
    assert b'"format"' not in answer
    assert b"schemaVersion" not in answer


@pytest.mark.parametrize("kind", ["nginx", "serve"])
def test_a_planted_link_leads_nowhere(tmp_path: Path, kind: str) -> None:
    """Whoever can write to a mirror must not read the host's files through its server."""
    store = Store.open(tmp_path / "store")
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    put = mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    mirror_images.attach(mirror.repository("tiny"), put.descriptor, "a note")
    root = mirror.place.root
    secret = tmp_path / "shadow"
    secret.write_bytes(b"root:not-for-anybody")
    hexes = ["a" * 64, "b" * 64]
    repository_folder = root / "repositories" / "tiny"
    (root / "blobs" / "sha256" / hexes[0]).symlink_to(secret)
    (repository_folder / "_manifests" / f"{hexes[0]}.oci-image").symlink_to(secret)
    (repository_folder / "_tags" / "evil").symlink_to(secret)
    (repository_folder / "_tags" / f"sha256-{hexes[0]}").symlink_to(secret)
    other = tmp_path / "other"
    (other / "_manifests").mkdir(parents=True)
    (other / "_tags").mkdir()
    (other / "_tags.json").symlink_to(secret)
    (other / "_manifests" / f"{hexes[1]}.oci-index").write_bytes(secret.read_bytes())
    (root / "repositories" / "linked").symlink_to(other)
    (root / "nightly").mkdir()
    (root / "nightly" / "page.html").symlink_to(secret)
    (root / "nightly" / "deeper").symlink_to(tmp_path)
    with nginx(root, tmp_path / "nginx") if kind == "nginx" else relbuild_serve(root) as opened:
        host = opened if isinstance(opened, str) else opened[0]
        for path in (
            f"/v2/tiny/blobs/sha256:{hexes[0]}",
            f"/blobs/sha256/{hexes[0]}",
            f"/v2/tiny/manifests/sha256:{hexes[0]}",
            "/v2/tiny/manifests/evil",
            f"/v2/tiny/referrers/sha256:{hexes[0]}",
            f"/v2/linked/manifests/sha256:{hexes[1]}",
            "/v2/linked/tags/list",
            "/nightly/page.html",
            "/nightly/deeper/shadow",
        ):
            status, _, body = ask(host, path)
            assert b"not-for-anybody" not in body, path
            assert status == (200 if "/referrers/" in path else 404), path
        # What is there for everybody is still given: a tag, the list of referrers, which is a tag as well.
        status, headers, body = ask(host, f"/v2/tiny/referrers/{put.digest}")
        assert (status, headers["Content-Type"]) == (200, "application/vnd.oci.image.index.v1+json")
        assert len(json.loads(body)["manifests"]) == 1
        assert ask(host, "/v2/tiny/manifests/1.0")[2] == put.data


def test_nginx_has_nothing_to_say_about_the_configuration(tmp_path: Path) -> None:
    """With nothing but this site in it: no `duplicate MIME type`."""
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    with nginx(mirror.place.root, tmp_path / "nginx") as host:
        assert ask(host, "/v2/")[0] == 200
    assert "[warn]" not in (tmp_path / "nginx" / "error.log").read_text()
    assert "[warn]" not in (tmp_path / "nginx" / "output").read_text()


def test_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    store = Store.open(tmp_path / "store")
    put = mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 2000
    wanted = count + 1000  # those that run in this process before it leave some hundred open
    assert hard == resource.RLIM_INFINITY or hard >= wanted, "this test opens 2,000 connections"
    with contextlib.ExitStack() as stack:
        host, _ = stack.enter_context(relbuild_serve(mirror.place.root))
        if soft != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        address = host.partition(":")[0], int(host.partition(":")[2])
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(address, HUNG))
            if number % 2:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")  # a head that is never finished
            if number in (200, count - 1):
                assert ask(host, "/v2/tiny/manifests/1.0")[2] == put.data


def test_what_is_in_quarantine_cannot_be_had(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    made = mirror_images.image(store, 1)
    put = mirror_images.publish(mirror.repository("tiny"), store, made, "1")
    blob = made.layers[0].blob.digest
    with nginx(mirror.place.root, tmp_path / "nginx") as host:
        paths = [f"/v2/tiny/manifests/{put.digest}", "/v2/tiny/manifests/1", f"/v2/tiny/blobs/{blob}"]
        assert [ask(host, path)[0] for path in paths] == [200, 200, 200]
        with mirror.pruning(1) as pruning:
            stamp = pruning.quarantine(
                RemovalList((("tiny", "1", put.digest),), (("tiny", put.digest),), (blob,)), time.time()
            )
        inside = f"/.quarantine/{stamp}/list.json"
        assert [ask(host, path)[0] for path in (*paths, inside)] == [404] * 4
        with mirror.pruning(1) as pruning:
            pruning.restore(stamp)
        assert [ask(host, path)[0] for path in paths] == [200, 200, 200]


def test_serve_ends_cleanly_when_interrupted(tmp_path: Path) -> None:
    open_directory(tmp_path / "mirror", create=True, clock=time.time)
    with relbuild_serve(tmp_path / "mirror") as (host, process):
        assert ask(host, "/v2/")[0] == 200
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=HUNG)
        assert (process.returncode, out.strip()) == (0, "ended")
