"""A registry as a mirror, against Debian's docker-registry; what is pushed is read by other people's clients."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.protocol import Arrival, TagConflict
from pipeline.mirror.references import fallback_tag
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.oci.image_manifest import descriptor_json
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import Network
from tests.support import foreign_programs
from tests.support.cutting_proxy import cutting
from tests.support.registry_fake import fake_registry
from tests.support.tested_images import stand_in
from tests.support.tiny_image import tiny
from tests.support.tokens import Identity, token_server

NETWORK = Network(backoff=0.05)
EMPTY = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One registry for the tests that need nothing particular of it; each has a namespace of its own."""
    with foreign_programs.docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


def opened(host: str, namespace: str, *, scheme: str = "registry+http", **environment: str) -> RegistryMirror:
    return open_registry(f"{scheme}://{host}/{namespace}", environment=environment, progress=QUIET, network=NETWORK)


@pytest.fixture
def mirror(host: str, request: pytest.FixtureRequest) -> Iterator[RegistryMirror]:
    namespace = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    with opened(host, namespace) as mirror:
        yield mirror


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def push(repository: RegistryRepository, image: Image, store: Store) -> list[Arrival]:
    """What a publisher does, without its gate."""
    how = [repository.put_blob(layer.blob, store.blob(layer.blob.digest)) for layer in image.layers]
    config = image.config_bytes
    how.append(repository.put_blob(Descriptor(media_types.CONFIG, Digest.of(config), len(config)), config))
    repository.put_manifest(Manifest(media_types.MANIFEST, image.manifest_bytes))
    return how


def note(number: int, subject: Manifest) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "artifactType": "application/vnd.relbuild.test",
        "config": descriptor_json(EMPTY),
        "layers": [descriptor_json(EMPTY)],
        "subject": descriptor_json(subject.descriptor),
        "annotations": {"number": str(number)},
    }
    return Manifest(media_types.MANIFEST, canonical_json(document))


def clients(*argv: str | Path, **environment: str) -> str:
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def test_a_push_that_changes_nothing_reads_it_once_and_sends_nothing(mirror: RegistryMirror, store: Store) -> None:
    image, app = tiny(store), mirror.repository("app")
    push(app, image, store)
    cleared = stand_in(Manifest(media_types.MANIFEST, image.manifest_bytes))
    app.point("1.0", cleared, None)
    blobs = len(image.layers) + 1
    for read in (blobs, 0):  # what was read in this run is known to be whole
        before = mirror.traffic
        assert set(push(app, image, store)) == {Arrival.PRESENT}
        app.point("1.0", cleared, cleared.manifest.digest)
        traffic = mirror.traffic - before
        assert traffic.sent == 0
        assert (traffic.count("HEAD"), traffic.count("GET"), traffic.count()) == (
            blobs + 2,
            read + 1,  # and the manifest
            blobs + read + 3,
        )


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


# --- logging in ------------------------------------------------------------------------------------


def login(folder: Path, host: str, user: str = "user", password: str = "secret") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    (folder / "auth.json").write_text(json.dumps({"auths": {host: entry}}))
    return str(folder / "auth.json")


def bcrypt(password: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crypt

        return crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=1 << 5))


def test_basic_authentication_with_podmans_file(tmp_path: Path, store: Store) -> None:
    (tmp_path / "htpasswd").write_text(f"user:{bcrypt('secret')}\n")
    guard = {"htpasswd": {"realm": "it", "path": str(tmp_path / "htpasswd")}}
    with foreign_programs.docker_registry(tmp_path / "registry", auth=guard) as host:
        image = tiny(store)
        file = login(tmp_path, f"{host}/ns")
        with opened(host, "ns", REGISTRY_AUTH_FILE=file) as mirror:
            push(mirror.repository("app"), image, store)
            assert mirror.repositories() == ("app",)
        inspected = f"docker://{host}/ns/app@{Digest.of(image.manifest_bytes)}"
        clients("skopeo", "inspect", "--tls-verify=false", "--raw", inspected, REGISTRY_AUTH_FILE=file)
        for wrong in ({}, {"REGISTRY_AUTH_FILE": login(tmp_path / "wrong", host, password="guess")}):
            with opened(host, "ns", **wrong) as mirror, pytest.raises(EnvironmentLacking) as caught:
                mirror.repository("app").tags()
            assert caught.value.code == "registry-denied"
            assert f"podman login {host}" in str(caught.value)


def test_tls_with_an_own_authority(tmp_path: Path, store: Store) -> None:
    certificate, key = Identity.make().write(tmp_path / "tls")
    with foreign_programs.docker_registry(
        tmp_path / "registry", tls={"certificate": str(certificate), "key": str(key)}
    ) as host:
        with opened(host, "ns", scheme="registry", HOME=str(tmp_path)) as mirror:
            with pytest.raises(EnvironmentLacking, match="CERTIFICATE_VERIFY_FAILED") as caught:
                mirror.repository("app").tags()
            assert caught.value.code == "registry-unreachable"
        folder = tmp_path / ".config/containers/certs.d" / host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate.read_bytes())
        with opened(host, "ns", scheme="registry", HOME=str(tmp_path)) as mirror:
            push(mirror.repository("app"), tiny(store), store)
        environment = {"SSL_CERT_FILE": str(certificate)}
        with open_registry(f"registry://{host}/ns", environment=environment, progress=QUIET) as mirror:
            assert mirror.repositories() == ("app",)


def test_a_client_certificate_is_shown_to_who_asks_for_it(tmp_path: Path, store: Store) -> None:
    certificate, key = Identity.make().write(tmp_path / "tls")
    theirs, our_key = Identity.make().write(tmp_path / "client")
    tls = {"certificate": str(certificate), "key": str(key), "clientcas": [str(theirs)]}
    with foreign_programs.docker_registry(tmp_path / "registry", tls=tls) as host:
        folder = tmp_path / ".config/containers/certs.d" / host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate.read_bytes())
        with opened(host, "ns", scheme="registry", HOME=str(tmp_path)) as mirror, pytest.raises(EnvironmentLacking):
            mirror.repository("app").tags()
        (folder / "it.cert").write_bytes(theirs.read_bytes())
        (folder / "it.key").write_bytes(our_key.read_bytes())
        with opened(host, "ns", scheme="registry", HOME=str(tmp_path)) as mirror:
            push(mirror.repository("app"), tiny(store), store)


def test_nothing_goes_out_without_tls_because_a_registry_says_so(tmp_path: Path, store: Store) -> None:
    """A registry behind a proxy that does not know of TLS names an upload's place with http://."""
    certificate, key = Identity.make().write(tmp_path / "tls")
    tls = {"certificate": str(certificate), "key": str(key)}
    with foreign_programs.docker_registry(
        tmp_path / "registry", tls=tls, host=f"http://127.0.0.1:{foreign_programs.free_port()}"
    ) as host:
        environment = {"SSL_CERT_FILE": str(certificate)}
        with (
            open_registry(f"registry://{host}/ns", environment=environment, progress=QUIET) as mirror,
            pytest.raises(VerificationError, match="without TLS") as caught,
        ):
            mirror.repository("app").put_blob(EMPTY, b"{}")
        assert caught.value.code == "redirect-refused"


def test_tokens_are_for_what_is_done_and_mounts_name_both_repositories(tmp_path: Path, store: Store) -> None:
    with token_server() as tokens:
        bundle, _ = tokens.identity.write(tmp_path / "tokens")
        guard = {"token": {"realm": tokens.realm, "service": "registry", "issuer": "it", "rootcertbundle": str(bundle)}}
        with foreign_programs.docker_registry(tmp_path / "registry", auth=guard) as host:
            file = login(tmp_path, host)
            image = tiny(store)
            with opened(host, "ns", REGISTRY_AUTH_FILE=file, RELBUILD_TOKEN_SERVERS=f"{host}={tokens.host}") as mirror:
                base, app = mirror.repository("base"), mirror.repository("app")
                push(base, image, store)
                assert base.tags() == ()
                assert tokens.asked == [["repository:ns/base:pull,push"]]
                (layer, *_) = image.layers
                before = mirror.traffic
                assert app.put_blob(layer.blob, store.blob(layer.blob.digest), elsewhere=["base"]) is Arrival.MOUNTED
                assert (mirror.traffic - before).sent == 0
                assert tokens.asked[-1] == ["repository:ns/app:pull,push", "repository:ns/base:pull"]
                assert mirror.repositories() == ("app", "base")
                app.put_blob(EMPTY, b"{}")
                assert app.attach(note(1, Manifest(media_types.MANIFEST, image.manifest_bytes)))
                base.remove_manifest(Digest.of(image.manifest_bytes))
                assert not base.has_manifest(Digest.of(image.manifest_bytes))
            tokens.asked.clear()
            with opened(host, "ns", REGISTRY_AUTH_FILE=file, RELBUILD_TOKEN_SERVERS=f"{host}={tokens.host}") as mirror:
                assert mirror.repository("app").tags() == (fallback_tag(Digest.of(image.manifest_bytes)),)
                assert tokens.asked == [["repository:ns/app:pull"]]
            tokens.forbidden = {"ns/base:push"}
            with (
                opened(host, "ns", REGISTRY_AUTH_FILE=file, RELBUILD_TOKEN_SERVERS=f"{host}={tokens.host}") as mirror,
                pytest.raises(EnvironmentLacking) as caught,
            ):
                mirror.repository("base").put_blob(Descriptor("a/b", Digest.of(b"new"), 3), b"new")
            assert caught.value.code == "registry-denied"
            assert "ns/base" in str(caught.value)


def test_a_token_that_expires_between_two_requests_is_renewed(tmp_path: Path, store: Store) -> None:
    with token_server() as tokens:
        bundle, _ = tokens.identity.write(tmp_path / "tokens")
        tokens.lasts = 2
        guard = {"token": {"realm": tokens.realm, "service": "registry", "issuer": "it", "rootcertbundle": str(bundle)}}
        with (
            foreign_programs.docker_registry(tmp_path / "registry", auth=guard) as host,
            opened(
                host,
                "ns",
                REGISTRY_AUTH_FILE=login(tmp_path, host),
                RELBUILD_TOKEN_SERVERS=f"{host}={tokens.host}",
            ) as mirror,
        ):
            app = mirror.repository("app")
            push(app, tiny(store), store)
            time.sleep(2.2)
            assert set(push(app, tiny(store), store)) == {Arrival.PRESENT}
            refused = sum(number for _, status, number in mirror.traffic.requests if status == 401)
            assert refused == 1
            assert len(tokens.asked) >= 2


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
        with opened(host, "rot") as mirror, pytest.raises(VerificationError) as caught:
            mirror.repository("tiny").put_blob(layer, store.blob(layer.digest))
        assert caught.value.code == "mirror-rotten"
        with opened(host, "rot") as mirror, pytest.raises((VerificationError, EnvironmentLacking)):
            mirror.repository("tiny").put_manifest(Manifest(media_types.MANIFEST, image.manifest_bytes))
        for path in stored.values():  # as the error says
            path.unlink()
        with opened(host, "rot") as mirror:
            push(mirror.repository("tiny"), image, store)
            mirror.repository("tiny").check_blob(layer)
            assert mirror.repository("tiny").manifest(image.digest) is not None
