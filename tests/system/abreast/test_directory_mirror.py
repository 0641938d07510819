"""A directory mirror as others see it: behind nginx and `relbuild serve`, while it changes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.backends.layout.layout_mirror import open_layout
from pipeline.mirror.references import references
from pipeline.mirror.retention.quarantine import Leaving
from pipeline.model.artifact import Manifest
from pipeline.model.image import Descriptor
from pipeline.oci import write_layout
from pipeline.store import Store
from tests.system.moving import moving
from tests.system.peers import crane_registry, program
from tests.system.webserver import nginx
from tests.unit import mirrored

ROOT = Path(__file__).parents[3]

_SERVE = """
import sys, time
from pathlib import Path
from pipeline.mirror.pull_server import serve
serve(Path(sys.argv[1]), "127.0.0.1", 0, clock=time.time, ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


def run(*argv: str | Path, timeout: float = 120) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def relbuild_serve(path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`pipeline.mirror.pull_server.serve` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip().removeprefix("http://"), process
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class Site:
    """A mirror that is served at `host`: an image with a note (1.0), and an index of it and another (both)."""

    host: str
    mirror: DirectoryMirror
    image: Manifest
    note: Manifest
    index: Manifest


@pytest.fixture(scope="module", params=["nginx", "serve"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    store = Store.open(folder / "store")
    mirror = open_directory(folder / "mirror", create=True, clock=time.time)
    repository = mirror.repository("team/tiny")
    made = [mirrored.image(store, number) for number in (1, 2)]
    image = mirrored.publish(repository, store, made[0], "1.0")
    note = mirrored.attach(repository, image.descriptor, "a note")
    mirrored.put(repository, store, made[1])
    both = mirrored.index(*made)
    repository.put_manifest(both)
    repository.point("both", mirrored.cleared(both), None)
    with contextlib.ExitStack() as stack:
        if request.param == "nginx":
            host = stack.enter_context(nginx(mirror.place.root, folder / "nginx"))
        else:
            host, _ = stack.enter_context(relbuild_serve(mirror.place.root))
        yield Site(host, mirror, image, note, both)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name podman finds short enough."""
    with tempfile.TemporaryDirectory(prefix="p-") as folder:
        yield Path(folder)


# --- clients


def test_skopeo_copies_an_image_and_an_index(site: Site, tmp_path: Path) -> None:
    source = f"docker://{site.host}/team/tiny"
    seen = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"{source}:1.0"))
    assert seen["Digest"] == str(site.image.digest)
    assert "1.0" in seen["RepoTags"]
    run("skopeo", "copy", "--src-tls-verify=false", f"{source}:1.0", f"oci:{tmp_path}/one:1.0")
    run("skopeo", "copy", "--all", "--src-tls-verify=false", f"{source}:both", f"oci:{tmp_path}/both:both")
    run(
        "skopeo", "copy", "--src-tls-verify=false", f"{source}@{site.image.digest}", f"oci:{tmp_path}/digest:1.0"
    )  # fmt: skip
    assert open_layout(tmp_path / "one", create=False).repository("").manifest("1.0") == site.image
    assert open_layout(tmp_path / "digest", create=False).repository("").manifest("1.0") == site.image
    layout = open_layout(tmp_path / "both", create=False).repository("")
    assert layout.manifest("both") == site.index
    assert layout.manifest(site.image.digest) == site.image


def test_umoci_unpacks_what_skopeo_copied(site: Site, tmp_path: Path) -> None:
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{site.host}/team/tiny:1.0", f"oci:{tmp_path}/one:1.0")
    run("umoci", "unpack", "--image", f"{tmp_path}/one:1.0", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "rootfs" / "srv" / "page").read_text() == "page 1\n"


@pytest.mark.parametrize("tool", ["podman", "buildah"])
def test_podman_and_buildah_pull(site: Site, short: Path, tool: str) -> None:
    storage = [tool, "--root", short / "root", "--runroot", short / "run", "--storage-driver", "vfs"]
    run(*storage, "pull", "--tls-verify=false", f"{site.host}/team/tiny:1.0")
    run(*storage, "pull", "--tls-verify=false", f"{site.host}/team/tiny@{site.image.digest}")
    (config, *_) = references(site.image).blobs
    assert config.digest.hex in run(*storage, "images", "--no-trunc", "--quiet")
    if tool == "buildah":
        name = run(*storage, "from", "--tls-verify=false", f"{site.host}/team/tiny:1.0").strip()
        mounted = Path(run(*storage, "mount", name).strip())
        assert (mounted / "srv" / "page").read_text() == "page 1\n"
        run(*storage, "rm", name)
    run(*storage, "rmi", "--all", "--force")


def test_oras_discovers_and_copies_with_referrers(site: Site, tmp_path: Path) -> None:
    reference = f"{site.host}/team/tiny:1.0"
    assert str(site.note.digest) in run(program("oras"), "discover", "--plain-http", reference)
    run(program("oras"), "pull", "--plain-http", reference, "--output", tmp_path / "pulled")
    run(program("oras"), "cp", "-r", "--from-plain-http", reference, "--to-oci-layout", f"{tmp_path}/layout:1.0")
    layout = open_layout(tmp_path / "layout", create=False).repository("")
    assert layout.manifest("1.0") == site.image
    assert [one.descriptor.digest for one in layout.referrers(site.image.digest)] == [site.note.digest]


def test_crane_finds_digests_tags_and_the_catalogue(site: Site) -> None:
    assert run(program("crane"), "digest", "--insecure", f"{site.host}/team/tiny:both").strip() == str(
        site.index.digest
    )
    assert {"1.0", "both"} <= set(run(program("crane"), "ls", "--insecure", f"{site.host}/team/tiny").split())
    assert run(program("crane"), "catalog", "--insecure", site.host).split() == ["team/tiny"]


def test_a_layout_of_ours_is_read_by_oras_and_skopeo(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    repository = open_layout(tmp_path / "layout", create=True).repository("")
    put = mirrored.publish(repository, store, mirrored.image(store, 1), "1.0")
    mirrored.publish(repository, store, mirrored.image(store, 2), "2.0")
    note = mirrored.attach(repository, put.descriptor, "a note")
    assert str(note.digest) in run(program("oras"), "discover", "--oci-layout", f"{tmp_path}/layout:1.0")
    run("skopeo", "copy", f"oci:{tmp_path}/layout:1.0", f"oci:{tmp_path}/out:1.0")
    assert open_layout(tmp_path / "out", create=False).repository("").manifest("1.0") == put
    # What oras and skopeo write into it then is read, and nothing of ours is lost.
    (tmp_path / "text").write_text("foo")
    attach = [
        program("oras"),
        "attach",
        "--oci-layout",
        "--disable-path-validation",
        "--artifact-type",
        "application/x.y",
    ]
    run(*attach, f"{tmp_path}/layout:1.0", tmp_path / "text")
    run("skopeo", "copy", f"oci:{tmp_path}/layout:2.0", f"oci:{tmp_path}/layout:3.0")
    assert {one.artifact_type for one in repository.referrers(put.digest)} == {note_type(note), "application/x.y"}
    assert repository.tags() == ("1.0", "2.0", "3.0")
    assert repository.resolve("2.0") == repository.resolve("3.0")


def test_what_cosign_signed_elsewhere_it_verifies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed by cosign of both generations at another registry, brought by oras, put into a directory."""
    monkeypatch.setenv("COSIGN_PASSWORD", "of a test")
    monkeypatch.chdir(tmp_path)
    store = Store.open(tmp_path / "store")
    made = mirrored.image(store, 1)
    write_layout(made, store=store, target=tmp_path / "made")
    run(program("cosign"), "generate-key-pair")
    sign = ["sign", "--key", "cosign.key", "--tlog-upload=false", "--yes", "--allow-http-registry"]
    signature = f"sha256-{made.digest.hex}.sig"
    with crane_registry(tmp_path / "registry") as elsewhere:
        there = f"{elsewhere}/tiny"
        run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/made:1.0", f"docker://{there}:1.0")
        run(program("cosign"), *sign, f"{there}@{made.digest}")
        run(program("cosign3"), *sign, "--use-signing-config=false", f"{there}@{made.digest}")
        for tag in ("1.0", signature):
            run(program("oras"), "cp", "-r", "--from-plain-http", f"{there}:{tag}", "--to-oci-layout", f"carried:{tag}")
    carried = open_layout(tmp_path / "carried", create=False).repository("")
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    here = mirror.repository("tiny")
    image, simple = carried.manifest("1.0"), carried.manifest(signature)
    bundles = [carried.manifest(one.descriptor.digest) for one in carried.referrers(made.digest)]
    assert image is not None and simple is not None and len(bundles) == 1
    for manifest in (image, simple, *bundles):
        assert manifest is not None
        for blob in references(manifest).blobs:
            here.put_blob(blob, carried.read_blob(blob))
    here.put_manifest(image)
    here.put_auxiliary(signature, simple, None)
    here.attach(bundles[0] or image)
    here.point("1.0", mirrored.cleared(image), None)
    verify = ["verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-http-registry"]
    with nginx(mirror.place.root, tmp_path / "nginx") as host:
        run(program("cosign"), *verify, f"{host}/tiny:1.0")
        run(program("cosign3"), *verify, f"{host}/tiny:1.0")
        here.remove_manifest((bundles[0] or image).digest)
        here.remove_tag(signature, simple.digest)
        for cosign in ("cosign", "cosign3"):
            with pytest.raises(AssertionError, match=r"no (?:matching )?signatures"):
                run(program(cosign), *verify, f"{host}/tiny:1.0")


def note_type(note: Manifest) -> str:
    return references(note).artifact_type


# --- answers


def ask(host: str, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


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
    with socket.create_connection((host, int(port)), 10) as connection:
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
    put = mirrored.publish(mirror.repository("tiny"), store, mirrored.image(store, 1), "1.0")
    mirrored.attach(mirror.repository("tiny"), put.descriptor, "a note")
    root = mirror.place.root
    secret = tmp_path / "shadow"
    secret.write_bytes(b"root:not-for-anybody")
    hexes = ["a" * 64, "b" * 64]
    shelf = root / "repositories" / "tiny"
    (root / "blobs" / "sha256" / hexes[0]).symlink_to(secret)
    (shelf / "_manifests" / f"{hexes[0]}.oci-image").symlink_to(secret)
    (shelf / "_tags" / "evil").symlink_to(secret)
    (shelf / "_tags" / f"sha256-{hexes[0]}").symlink_to(secret)
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
    put = mirrored.publish(mirror.repository("tiny"), store, mirrored.image(store, 1), "1.0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 2000
    assert hard == resource.RLIM_INFINITY or hard >= count + 200, "this test opens 2,000 connections"
    with contextlib.ExitStack() as stack:
        host, _ = stack.enter_context(relbuild_serve(mirror.place.root))
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 200, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        address = host.partition(":")[0], int(host.partition(":")[2])
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(address, 10))
            if number % 2:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")  # a head that is never finished
            if number in (200, count - 1):
                assert ask(host, "/v2/tiny/manifests/1.0")[2] == put.data


def test_what_is_in_quarantine_cannot_be_had(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    made = mirrored.image(store, 1)
    put = mirrored.publish(mirror.repository("tiny"), store, made, "1")
    blob = made.layers[0].blob.digest
    with nginx(mirror.place.root, tmp_path / "nginx") as host:
        paths = [f"/v2/tiny/manifests/{put.digest}", "/v2/tiny/manifests/1", f"/v2/tiny/blobs/{blob}"]
        assert [ask(host, path)[0] for path in paths] == [200, 200, 200]
        with mirror.pruning(1) as pruning:
            stamp = pruning.quarantine(
                Leaving((("tiny", "1", put.digest),), (("tiny", put.digest),), (blob,)), time.time()
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
        out, _ = process.communicate(timeout=10)
        assert (process.returncode, out.strip()) == (0, "ended")


# --- while it changes


def test_who_asks_nginx_while_a_tag_moves_gets_old_or_new(tmp_path: Path) -> None:
    open_directory(tmp_path / "mirror", create=True, clock=time.time)
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(nginx(tmp_path / "mirror", tmp_path / "nginx"))
        connection = http.client.HTTPConnection(host, timeout=10)
        stack.callback(connection.close)
        process = stack.enter_context(moving(tmp_path, 6, prune=False))
        seen = set()
        asked = 0
        while process.poll() is None:
            connection.request("GET", "/v2/tiny/manifests/latest")
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200
            # The digest in the header and the bytes are of one manifest.
            assert answer.headers["Docker-Content-Digest"] == f"sha256:{hashlib.sha256(body).hexdigest()}"
            seen.add(answer.headers["Docker-Content-Digest"])
            connection.request("HEAD", "/v2/tiny/manifests/latest")
            head = connection.getresponse()
            head.read()
            digest = head.headers["Docker-Content-Digest"]
            connection.request("GET", f"/v2/tiny/manifests/{digest}")
            by_digest = connection.getresponse()
            data = by_digest.read()
            assert (by_digest.status, len(data)) == (200, int(head.headers["Content-Length"]))
            for layer in json.loads(data)["layers"]:
                connection.request("HEAD", f"/v2/tiny/blobs/{layer['digest']}")
                blob = connection.getresponse()
                blob.read()
                assert blob.status == 200
            asked += 1
    assert asked > 100
    assert len(seen) > 20
    assert "[error]" not in (tmp_path / "nginx" / "error.log").read_text()


# --- speed


def test_publishing_what_the_store_has_is_a_matter_of_a_copy(tmp_path: Path) -> None:
    """100 MB, on the store's file system and on another; the figures are printed (`-s`), and the bounds are wide enough
    for a busy machine."""
    store = Store.open(tmp_path / "store")
    blobs = [Descriptor("x/y", store.put(data), len(data)) for data in (os.urandom(10 << 20) for _ in range(10))]
    taken = {}
    for name, folder in (("same", tmp_path), ("other", Path("/dev/shm"))):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            root = Path(place) / "mirror"
            mirror = open_directory(root, create=True, clock=time.time)
            repository = mirror.repository("large")
            began = time.monotonic()
            for blob in blobs:
                repository.put_blob(blob, store.blob(blob.digest))
            taken[name] = time.monotonic() - began
            assert not mirror.place.blob(blobs[0].digest).samefile(store.blob(blobs[0].digest))
    print({name: f"{seconds:.3f} s" for name, seconds in taken.items()})
    assert max(taken.values()) < 40
