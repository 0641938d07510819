"""A registry as a mirror, against Debian's docker-registry; what is pushed is read by other people's clients."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.protocol import Arrival, TagConflict
from pipeline.mirror.references import fallback_tag
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import foreign_programs
from tests.support.cutting_proxy import cutting
from tests.support.opened_registry import EMPTY, clients, note, opened, push
from tests.support.registry_fake import fake_registry
from tests.support.tested_images import stand_in
from tests.support.tiny_image import tiny


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One registry for the tests that need nothing particular of it; each has a namespace of its own."""
    with foreign_programs.docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def mirror(host: str, request: pytest.FixtureRequest) -> Iterator[RegistryMirror]:
    namespace = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    with opened(host, namespace) as mirror:
        yield mirror


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def discovered(reference: str) -> set[str]:
    """The referrers that oras finds."""
    found = json.loads(
        clients(foreign_programs.program("oras"), "discover", "--plain-http", "--format", "json", reference)
    )
    return {one["digest"] for one in found.get("referrers") or found.get("manifests") or []}


# --- pushing ---------------------------------------------------------------------------------------


def test_what_is_pushed_is_what_skopeo_and_oras_read(mirror: RegistryMirror, store: Store, tmp_path: Path) -> None:
    image = tiny(store)
    app = mirror.repository("app")
    assert set(push(app, image, store)) == {Arrival.UPLOADED}
    manifest = Manifest(media_types.MANIFEST, image.manifest_bytes)
    app.point("1.0", stand_in(manifest), None)
    assert (app.resolve("1.0"), app.tags(), mirror.repositories()) == (manifest.digest, ("1.0",), ("app",))
    reference = f"docker://{app.identity}:1.0"
    assert json.loads(clients("skopeo", "inspect", "--tls-verify=false", reference))["Digest"] == str(manifest.digest)
    clients("skopeo", "copy", "--src-tls-verify=false", reference, f"dir:{tmp_path / 'copy'}")
    assert (tmp_path / "copy/manifest.json").read_bytes() == image.manifest_bytes
    fetched = clients(foreign_programs.program("oras"), "manifest", "fetch", "--plain-http", f"{app.identity}:1.0")
    assert fetched.encode() == image.manifest_bytes


def test_a_push_that_changes_nothing_sends_nothing_and_reads_no_blob(mirror: RegistryMirror, store: Store) -> None:
    image, app = tiny(store), mirror.repository("app")
    push(app, image, store)
    cleared = stand_in(Manifest(media_types.MANIFEST, image.manifest_bytes))
    app.point("1.0", cleared, None)
    with open_registry(mirror.url, environment={}, progress=QUIET) as later:
        # What one process found it does not ask for again: blobs, and the manifest that a tag named.
        for asked in (len(image.layers) + 3, 1):
            before, again = later.traffic, later.repository("app")
            assert set(push(again, image, store)) == {Arrival.PRESENT}
            again.point("1.0", cleared, cleared.manifest.digest)
            traffic = later.traffic - before
            assert (traffic.sent, traffic.received) == (0, 0)
            assert traffic.requests == (("HEAD", 200, asked),)


def test_a_blob_of_another_repository_is_mounted_without_a_byte(mirror: RegistryMirror, store: Store) -> None:
    image = tiny(store)
    push(mirror.repository("base"), image, store)
    before = mirror.traffic
    for layer in image.layers:
        how = mirror.repository("app").put_blob(layer.blob, store.blob(layer.blob.digest), elsewhere=["none", "base"])
        assert how is Arrival.MOUNTED
    assert (mirror.traffic - before).sent == 0
    assert all(mirror.repository("app").has_blob(layer.blob.digest) for layer in image.layers)


def test_parallel_uploads_of_one_repository_arrive(mirror: RegistryMirror) -> None:
    app = mirror.repository("app")
    blobs = [os.urandom(300_000) for _ in range(24)]
    descriptors = [Descriptor("a/b", Digest.of(data), len(data)) for data in blobs]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(app.put_blob, descriptors, blobs)) == {Arrival.UPLOADED}
    assert [app.read_blob(descriptor) for descriptor in descriptors] == blobs
    assert mirror.traffic.sent == 24 * 300_000


def test_an_upload_survives_connections_that_break(host: str, store: Store, tmp_path: Path) -> None:
    data = os.urandom(90 << 20)
    (tmp_path / "big").write_bytes(data)
    descriptor = Descriptor("a/b", Digest.of(data), len(data))
    with cutting(int(host.partition(":")[2])) as cutter, opened(f"127.0.0.1:{cutter.port}", "broken") as mirror:
        cutter.budgets = [5 << 20, 70 << 20]
        assert mirror.repository("app").put_blob(descriptor, tmp_path / "big") is Arrival.UPLOADED
        assert cutter.cuts == 2
        assert mirror.repository("app").put_blob(descriptor, tmp_path / "big") is Arrival.PRESENT
        mirror.repository("app").fetch_blob(descriptor, store)
    store.verify(descriptor.digest)


def test_another_registry_is_spoken_to_as_well(tmp_path: Path, store: Store) -> None:
    """crane's: other words for the same protocol, and no referrers API either."""
    data = os.urandom(70 << 20)
    with foreign_programs.crane_registry(tmp_path / "crane") as host, opened(host, "ns") as mirror:
        image, app = tiny(store), mirror.repository("app")
        push(app, image, store)
        big = Descriptor("a/b", Digest.of(data), len(data))
        assert app.put_blob(big, data) is Arrival.UPLOADED
        app.fetch_blob(big, store)
        subject = Manifest(media_types.MANIFEST, image.manifest_bytes)
        app.point("1.0", stand_in(subject), None)
        app.put_blob(EMPTY, b"{}")
        assert app.attach(note(1, subject))
        assert not app.attach(note(1, subject))
        assert discovered(f"{app.identity}:1.0") == {str(note(1, subject).digest)}
        app.remove_tag("1.0", subject.digest)
        assert app.tags() == (fallback_tag(subject.digest),)
        assert app.has_manifest(subject.digest)


# --- referrers and removal -------------------------------------------------------------------------


def test_twenty_who_attach_at_the_same_time_are_all_listed(mirror: RegistryMirror, host: str, store: Store) -> None:
    """Ten threads of this process, and ten with a mirror of their own, who know nothing of each other."""
    image, app = tiny(store), mirror.repository("app")
    push(app, image, store)
    app.put_blob(EMPTY, b"{}")
    subject = Manifest(media_types.MANIFEST, image.manifest_bytes)
    app.point("1.0", stand_in(subject), None)
    notes = [note(number, subject) for number in range(20)]
    namespace = mirror.url.rpartition("/")[2]

    def attach(number: int) -> bool:
        if number % 2:
            return app.attach(notes[number])
        with opened(host, namespace) as own:
            return own.repository("app").attach(notes[number])

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(attach, range(20))) == [True] * 20
    wanted = {one.digest for one in notes}
    assert {one.descriptor.digest for one in app.referrers(subject.digest)} == wanted
    assert {one.annotation("number") for one in app.referrers(subject.digest)} == {str(n) for n in range(20)}
    assert discovered(f"{app.identity}:1.0") == {str(digest) for digest in wanted}
    before = mirror.traffic
    assert not any(app.attach(one) for one in notes)
    assert (mirror.traffic - before).sent == 0


def annotate(app: RegistryRepository, subject: Manifest, folder: Path) -> None:
    """oras attaches something."""
    (folder / "file").write_bytes(b"of oras")
    reference = f"{app.identity}@{subject.digest}"
    oras = [
        foreign_programs.program("oras"),
        "attach",
        "--plain-http",
        "--disable-path-validation",
        "--artifact-type",
        "test/oras",
    ]
    clients(*oras, reference, str(folder / "file"))


@pytest.mark.parametrize("api", [False, True])
def test_what_oras_attaches_and_what_is_attached_here_are_listed_by_both(
    host: str, store: Store, tmp_path: Path, api: bool
) -> None:
    """Without the referrers API, and with it."""
    with fake_registry() as fake, opened(fake.host if api else host, "both") as mirror:
        image, app = tiny(store), mirror.repository("app")
        push(app, image, store)
        app.put_blob(EMPTY, b"{}")
        subject = Manifest(media_types.MANIFEST, image.manifest_bytes)
        app.attach(note(1, subject))
        annotate(app, subject, tmp_path)
        app.attach(note(2, subject))
        found = app.referrers(subject.digest)
        assert sorted(one.artifact_type for one in found) == ["application/vnd.relbuild.test"] * 2 + ["test/oras"]
        assert discovered(f"{app.identity}@{subject.digest}") == {str(one.descriptor.digest) for one in found}
        assert app.tags() == (() if api else (fallback_tag(subject.digest),))


def test_a_tag_is_removed_and_its_manifest_stays(mirror: RegistryMirror, store: Store) -> None:
    image, app = tiny(store), mirror.repository("app")
    push(app, image, store)
    manifest = Manifest(media_types.MANIFEST, image.manifest_bytes)
    for tag in ("1.0", "latest"):
        app.point(tag, stand_in(manifest), None)
    app.remove_tag("1.0", manifest.digest)
    assert app.tags() == ("latest",)
    assert app.resolve("latest") == manifest.digest
    with pytest.raises(TagConflict):
        app.remove_tag("1.0", manifest.digest)


def test_a_manifest_is_removed_with_its_tags_and_its_entry_among_the_referrers(
    mirror: RegistryMirror, store: Store
) -> None:
    image, app = tiny(store), mirror.repository("app")
    push(app, image, store)
    app.put_blob(EMPTY, b"{}")
    subject = Manifest(media_types.MANIFEST, image.manifest_bytes)
    app.point("1.0", stand_in(subject), None)
    notes = [note(number, subject) for number in range(2)]
    for one in notes:
        app.attach(one)
    app.remove_manifest(notes[0].digest)
    assert [one.descriptor.digest for one in app.referrers(subject.digest)] == [notes[1].digest]
    app.remove_manifest(subject.digest)
    assert app.tags() == (fallback_tag(subject.digest),)
    assert app.manifest(subject.digest) is None


def test_a_registry_that_forbids_deletion_is_left_as_it_was(tmp_path: Path, store: Store) -> None:
    with foreign_programs.docker_registry(tmp_path / "registry", delete=False) as host, opened(host, "ns") as mirror:
        image, app = tiny(store), mirror.repository("app")
        push(app, image, store)
        manifest = Manifest(media_types.MANIFEST, image.manifest_bytes)
        app.point("1.0", stand_in(manifest), None)
        for remove in (lambda: app.remove_tag("1.0", manifest.digest), lambda: app.remove_manifest(manifest.digest)):
            with pytest.raises(EnvironmentLacking) as caught:
                remove()
            assert caught.value.code == "delete-unsupported"
        assert app.resolve("1.0") == manifest.digest


def test_rot_that_the_registry_keeps_is_refused_with_a_way_out(tmp_path: Path, store: Store) -> None:
    """docker-registry takes what it has under a digest for whole, and serves whatever its disk holds."""
    image = tiny(store)
    layer = image.layers[0].blob
    with foreign_programs.docker_registry(tmp_path / "registry") as host, opened(host, "rot") as first:
        push(first.repository("tiny"), image, store)
        folder = tmp_path / "registry" / "data" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        stored = {digest: folder / digest.hex[:2] / digest.hex / "data" for digest in (layer.digest, image.digest)}
        for path in stored.values():
            data = path.read_bytes()
            path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
        with opened(host, "rot", read_back=True) as mirror, pytest.raises(VerificationError) as caught:
            mirror.repository("tiny").put_blob(layer, store.blob(layer.digest))
        assert caught.value.code == "mirror-rotten"
        with opened(host, "rot", read_back=True) as mirror, pytest.raises((VerificationError, EnvironmentLacking)):
            mirror.repository("tiny").put_manifest(Manifest(media_types.MANIFEST, image.manifest_bytes))
        for path in stored.values():  # as the error says
            path.unlink()
        with opened(host, "rot") as mirror:
            push(mirror.repository("tiny"), image, store)
            mirror.repository("tiny").check_blob(layer)
            assert mirror.repository("tiny").manifest(image.digest) is not None
