"""What relbuild publishes, to a registry and to a directory behind nginx, other people's tools pull, run and verify;
what was tampered with there is refused, by relbuild and by them. All of it through the command line."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.build import BuildResult
from pipeline.digest import Digest, canonical_json
from pipeline.launch import unpack_layers
from pipeline.mirror.attestations import IMAGE_PREDICATES, INDEX_PREDICATES
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import (
    PREDICATE_TYPE_ANNOTATION,
    Statement,
    StatementSubject,
    load_signing_key,
    make_attestation,
    media_types,
    read_artifact,
)
from pipeline.oci.predicates import CYCLONEDX, PROVENANCE, SMOKE, SPDX
from pipeline.prepare import BuildEnvironment
from pipeline.progress import QUIET
from tests.support.attacks import ATTACKS, Scene
from tests.support.container_storage import Storage, container_storage, run
from tests.support.cosign import GENERATIONS, TYPES, cosign, verification
from tests.support.foreign_programs import program, reserved_port
from tests.support.patience import HUNG
from tests.support.product_builds import small_products
from tests.support.published_products import (
    ProductsToPublish,
    PublishedProducts,
    other_architecture,
    publish_products,
)
from tests.support.rpm_factory import Forge
from tests.support.sampling import drawn
from tests.support.sites import KINDS_OF_SITES, PASSWORD, Site, open_site, relbuild, relbuild_at_once
from tests.support.trees import differences, merged, read_tree

pytestmark = pytest.mark.long

PAGE = r'exec 3<>/dev/tcp/127.0.0.1/8080; printf "GET / HTTP/1.0\r\n\r\n" >&3; cat <&3'
"""For a shell in the image: asks nginx for its page."""


@pytest.fixture(scope="module")
def goods(
    built: Callable[[str], BuildResult], made: Forge, tmp_path_factory: pytest.TempPathFactory
) -> ProductsToPublish:
    small = small_products(tmp_path_factory.mktemp("products"), made)
    amd64 = small.build("1.0", name="pair")
    versions = (small.build("1.0"), small.build("1.1", note="changed"))
    return ProductsToPublish(
        built("nginx"), (amd64, other_architecture(amd64, small, "386")), versions, small.build_env.store
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: `ours.key` and `ours.pub` made by relbuild, `theirs.*` by cosign; and `no-roots.json`, cosign 2's word
    for "no authority and no log"."""
    folder = tmp_path_factory.mktemp("keys")
    done = relbuild(folder, "keygen", "ours")
    assert done.returncode == 0, done.stderr
    cosign("cosign", "generate-key-pair", "--output-key-prefix", folder / "theirs")
    (folder / "no-roots.json").write_text('{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    return folder


@pytest.fixture(scope="module", params=KINDS_OF_SITES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(request.param, tmp_path_factory.mktemp("site")) as it:
        yield it


@pytest.fixture(scope="module")
def shipped(goods: ProductsToPublish, site: Site, keys: Path, build_env: BuildEnvironment) -> PublishedProducts:
    return publish_products(goods, site, keys, build_env)


# --- pulled and run ----------------------------------------------------------------------------------------


def blobs(layout: Path) -> dict[str, int]:
    """The blobs of a layout, each of which is what its name says: digest → size."""
    found = {}
    for path in (layout / "blobs" / "sha256").iterdir():
        data = path.read_bytes()
        assert Digest.of(data).hex == path.name
        found[path.name] = len(data)
    return found


def test_skopeo_copies_the_very_bytes_that_were_tested_and_umoci_unpacks_them(
    shipped: PublishedProducts, build_env: BuildEnvironment, tmp_path: Path
) -> None:
    nginx, (amd64, i386), index = shipped.goods.nginx, shipped.goods.pair, shipped.goods.index
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{shipped.site.pulled('nginx')}", f"oci:{tmp_path}/one:x")
    assert blobs(tmp_path / "one") == blobs(nginx.layout)
    assert str(nginx.image.digest) == shipped.said["nginx"]["digest"]
    run("umoci", "unpack", "--image", f"{tmp_path}/one:x", tmp_path / "bundle")
    mine = merged(unpack_layers(nginx.image, build_env.store, QUIET))
    theirs = read_tree(tmp_path / "bundle" / "rootfs")
    assert list(map(str, differences(mine, theirs, ("relbuild", "umoci")))) == []

    source = f"docker://{shipped.site.pulled('pair')}"
    run("skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"oci:{tmp_path}/all:x")
    assert blobs(tmp_path / "all") == blobs(amd64.layout) | blobs(i386.layout) | {index.digest.hex: len(index.data)}
    assert str(index.digest) == shipped.said["pair"]["digest"]


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with container_storage() as call:
        yield call


def test_podman_pulls_it_and_runs_it_and_it_serves_its_page(shipped: PublishedProducts, storage: Storage) -> None:
    nginx = shipped.site.pulled("nginx")
    storage("podman", "pull", "--quiet", "--tls-verify=false", nginx)
    (pulled,) = json.loads(storage("podman", "image", "inspect", nginx))
    assert pulled["Digest"] == str(shipped.goods.nginx.image.digest)
    assert pulled["Id"] == shipped.goods.nginx.image.config_descriptor.digest.hex
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    container = storage("podman", "run", "--detach", "--network", "none", *limits, nginx).strip()
    deadline = time.monotonic() + HUNG
    while True:
        try:
            assert "<h1>It works</h1>" in storage("podman", "exec", container, "bash", "-c", PAGE)
            break
        except AssertionError:
            assert time.monotonic() < deadline, storage("podman", "logs", container)
            time.sleep(0.2)
    storage("podman", "stop", "--time", "10", container)
    assert storage("podman", "inspect", "--format", "{{.State.ExitCode}}", container).strip() == "0"


def test_podman_pulls_the_image_of_the_architecture_that_it_is_asked_for(
    shipped: PublishedProducts, storage: Storage
) -> None:
    for built in shipped.goods.pair:
        wanted = ("--arch", built.image.config.architecture, shipped.site.pulled("pair"))
        pulled = storage("podman", "pull", "--quiet", "--tls-verify=false", *wanted)
        assert pulled.strip() == built.image.config_descriptor.digest.hex


def test_buildah_begins_from_it(shipped: PublishedProducts, storage: Storage) -> None:
    container = storage("buildah", "from", "--tls-verify=false", "--pull-always", shipped.site.pulled("nginx")).strip()
    found = storage("buildah", "inspect", "--format", "{{.FromImageDigest}}", container)
    storage("buildah", "rm", container)
    assert found.strip() == str(shipped.goods.nginx.image.digest)


def test_oras_discovers_everything_that_was_attached(shipped: PublishedProducts) -> None:
    attached = {str(digest) for one in shipped.said.values() for digest in one["attached"]}
    for reference, digest in shipped.references():
        said = run(program("oras"), "discover", "--plain-http", "--format", "json", reference)
        document = json.loads(said)
        listed = document.get("referrers") or document.get("manifests")
        assert {item["artifactType"] for item in listed} == {media_types.SIGSTORE_BUNDLE}
        wanted = INDEX_PREDICATES if digest == shipped.goods.index.digest else IMAGE_PREDICATES
        kinds = [item["annotations"]["dev.sigstore.bundle.predicateType"] for item in listed]
        assert sorted(kinds) == sorted(wanted), reference
        assert {item["digest"] for item in listed} <= attached


# --- verified ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
def test_cosign_verifies_the_signature_of_each_image_and_of_the_index(
    shipped: PublishedProducts, generation: str
) -> None:
    for reference, digest in shipped.references():
        claims = json.loads(cosign(generation, *verification(shipped.folder, generation, "verify"), reference))
        assert {claim["critical"]["image"]["docker-manifest-digest"] for claim in claims} == {str(digest)}
    with_wrong_key = verification(shipped.folder, generation, "verify", key="theirs")
    cosign(generation, *with_wrong_key, shipped.site.pulled("pair"), accepts=False)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_cosign_verifies_what_is_attested_and_it_is_what_the_build_wrote(
    shipped: PublishedProducts, generation: str
) -> None:
    folders = {built.image.digest: built.report_folder for built in (shipped.goods.nginx, *shipped.goods.pair)}
    files = {SPDX: "sbom.spdx.json", CYCLONEDX: "sbom.cyclonedx.json", SMOKE: "evidence.json"}
    for reference, digest in shipped.references():
        for name, kind in TYPES.items():
            if digest not in folders and kind != PROVENANCE:
                continue  # of an index only its making is attested
            said = cosign(generation, *verification(shipped.folder, generation, "verify-attestation", name), reference)
            signed = json.loads(base64.b64decode(json.loads(said.splitlines()[0])["payload"]))
            assert signed["predicateType"] == kind
            assert [subject["digest"]["sha256"] for subject in signed["subject"]] == [digest.hex]
            if kind in files:
                assert signed["predicate"] == json.loads((folders[digest] / files[kind]).read_bytes())
            else:
                inputs = signed["predicate"]["buildDefinition"]["resolvedDependencies"]
                named = {item["digest"]["sha256"] for item in inputs if "sha256" in item.get("digest", {})}
                built = {one.image.digest: one for one in (shipped.goods.nginx, *shipped.goods.pair)}.get(digest)
                packages = built.bill.packages if built else ()
                wanted = [one.checksum for one in packages] or [one.image.digest for one in shipped.goods.pair]
                assert {one.hex for one in wanted} <= named
    with_wrong_key = verification(shipped.folder, generation, "verify-attestation", "slsaprovenance1", "theirs")
    cosign(generation, *with_wrong_key, shipped.site.pulled("pair"), accepts=False)


def test_relbuild_verifies_it_and_reads_the_layers_or_quickly_does_not(shipped: PublishedProducts) -> None:
    images = [built.image for built in shipped.goods.pair]
    for reference in (shipped.site.address("pair"), shipped.site.address("pair", shipped.goods.index.digest)):
        found = shipped.done("verify", reference)
        assert found["digest"] == str(shipped.goods.index.digest)
        assert sorted(found["images"]) == sorted(str(image.digest) for image in images)
        assert found["identities"] == [f"{shipped.site.host}/pair"]
        assert {digest: sorted(kinds) for digest, kinds in found["attested"].items()} == {
            **{str(image.digest): sorted(IMAGE_PREDICATES) for image in images},
            str(shipped.goods.index.digest): sorted(INDEX_PREDICATES),
        }
        sizes = {layer.blob.digest: layer.blob.size for image in images for layer in image.layers}
        configs = {image.config_descriptor.digest: image.config_descriptor.size for image in images}
        assert found["bytes_read"] == sum((sizes | configs).values())
    assert shipped.done("verify", shipped.site.address("nginx"), "--quick")["bytes_read"] == 0
    words = ("verify", shipped.site.address("nginx"), "--key", "ours.pub", "--store", shipped.goods.store.root)
    as_process = relbuild(shipped.folder, *words, password=None)
    assert as_process.returncode == 0 and not as_process.stdout
    assert "all digests, signatures and attestations are valid" in as_process.stderr


# --- tampered with -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(shipped: PublishedProducts) -> Scene:
    ours, theirs = (load_signing_key(shipped.folder / f"{name}.key", PASSWORD.encode) for name in ("ours", "theirs"))
    first, second = (built.image for built in shipped.goods.versions)
    return Scene(shipped.site, "small", "1.0", first, second, ours, theirs)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_was_tampered_with_is_refused(name: str, scene: Scene, shipped: PublishedProducts) -> None:
    attack = ATTACKS[name]
    with attack.does(scene) as reference:
        address, pulled = scene.site.address(scene.name, reference), scene.site.pulled(scene.name, reference)
        assert shipped.refused("verify", address) == (5, attack.codes_on(scene.site))
        # Both kinds of mirror are read alike: a third is verified quickly too on a registry, and by cosign in one way.
        directory = scene.site.kind == "directory"
        if directory or name in drawn("verified quickly", list(ATTACKS), len(ATTACKS) // 3):
            assert shipped.relbuild("verify", address, "--quick").returncode == (5 if attack.quick else 0)
        ways = len(attack.refusing) if directory else 1
        for generation, command in drawn(f"cosign refuses {name}", attack.refusing, ways):
            cosign(generation, *verification(shipped.folder, generation, command), pulled, accepts=False)
        if not attack.refusing:
            # What cosign has no sight of, whoever pulls finds out: the digests are in the manifest that was signed.
            copy = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{pulled}", f"dir:{shipped.folder / name}"]
            assert subprocess.run(copy, capture_output=True, check=False, timeout=HUNG).returncode != 0


def test_after_all_attacks_are_undone_it_verifies_but_with_no_other_key(
    scene: Scene, shipped: PublishedProducts
) -> None:
    address = scene.site.address("small", "1.0")
    assert shipped.done("verify", address)["digest"] == str(scene.mine.digest)
    for generation in GENERATIONS:
        for command in ("verify", "verify-attestation"):
            cosign(generation, *verification(shipped.folder, generation, command), scene.site.pulled("small", "1.0"))
    assert shipped.refused("verify", address, key="theirs.pub") == (5, {"signature-wrong-key"})


def test_an_image_that_others_pushed_is_not_signed(scene: Scene, shipped: PublishedProducts, tmp_path: Path) -> None:
    built, site = shipped.goods.pair[0], shipped.site
    manifest = Manifest(media_types.MANIFEST, built.image.manifest_bytes)
    if site.kind == "registry":
        source = f"oci:{built.layout}:{built.image.reference}"
        run("skopeo", "copy", "--dest-tls-verify=false", source, f"docker://{site.pulled('small', 'pushed')}")
    else:
        site.push("small", Artifact(manifest))  # its blobs are in the mirror, as the pair's
    with site.pointing("small", "pushed", manifest):
        address = site.address("small", "pushed")
        unsigned = (5, {"signature-missing", "attestation-missing"})
        assert shipped.refused("verify", address) == unsigned
        assert shipped.refused("promote", address, "--to", "stable") == unsigned
        assert shipped.refused("copy", address, f"oci:{tmp_path / 'carried'}") == unsigned
        for generation in GENERATIONS:
            words = verification(shipped.folder, generation, "verify")
            cosign(generation, *words, site.pulled("small", "pushed"), accepts=False)


def test_evidence_that_the_right_key_signed_is_judged_all_the_same(scene: Scene, shipped: PublishedProducts) -> None:
    """Two checks, of which one was answered wrongly and left out of the report before it was signed."""
    site, mine = shipped.site, scene.mine
    value = json.loads((shipped.goods.versions[0].report_folder / "evidence.json").read_bytes())
    value["report"]["instances"][0]["checks"].pop()
    signed = Statement(SMOKE, (StatementSubject(mine.digest),), canonical_json(value))
    kept = [
        one
        for one in site.referrers("small", mine.digest)
        if read_artifact(one.manifest).annotation(PREDICATE_TYPE_ANNOTATION) != SMOKE
    ]
    with site.attested("small", mine.digest, [*kept, make_attestation(signed, mine.manifest_descriptor, scene.ours)]):
        edited = {"gate-report-edited"}
        assert shipped.refused("verify", site.address("small", "1.0")) == (5, edited)
        assert shipped.refused("promote", site.address("small", "1.0"), "--to", "stable") == (7, edited)


def test_what_others_wrote_into_a_mirror_does_not_steer_the_terminal(scene: Scene, shipped: PublishedProducts) -> None:
    site, address = shipped.site, shipped.site.address("small", "1.0")
    (step,) = shipped.done("history", address)["history"]
    record = json.loads(site.manifest("small", step["record"]).data)
    image = json.loads(scene.mine.manifest_bytes)
    image["config"]["mediaType"] = "\x1b[2Jall is well"
    told = dict(record["annotations"], **{"org.relbuild.move.version": "\x1b[2Jall is well\nforged"})
    broken = dict(record["annotations"], **{"org.relbuild.move.at": "9" * 15})
    forged, odd, late = (
        Manifest(media_types.MANIFEST, canonical_json(document))
        for document in (image, {**record, "annotations": told}, {**record, "annotations": broken})
    )
    for manifest in (forged, odd, late):
        site.push("small", Artifact(manifest))
    store = ("--store", shipped.goods.store.root)
    with site.pointing("small", "1.0", forged):
        done = relbuild_at_once(shipped.folder, "verify", address, "--key", shipped.folder / "ours.pub", *store)
        assert done.returncode == 5 and "\\x1b[2Jall is well" in done.stderr and "\x1b" not in done.stderr
    with site.pointing("small", "move.1.0.20990101T000000000Z.abcdef", odd):
        done = relbuild_at_once(shipped.folder, "history", address, *store)
        assert done.returncode == 0 and "\\x1b[2Jall is well\\nforged" in done.stdout and "\x1b" not in done.stdout
    with site.pointing("small", "move.1.0.20990101T000000000Z.abcdef", late):
        assert shipped.refused("history", address) == (5, {"move-malformed"})


# --- what is not there, or cannot be understood ------------------------------------------------------------


def test_what_is_not_there_or_no_image_or_no_address_is_told(scene: Scene, shipped: PublishedProducts) -> None:
    site = shipped.site
    unknown = Digest.of(b"nothing")
    for address, expected in {
        site.address("small", "nothing"): (2, {"reference-missing"}),
        site.address("small", unknown): (2, {"reference-missing"}),
        site.address("nobody"): (2, {"reference-missing"}),
        site.address("small", scene.sbom().manifest.digest): (5, {"media-type"}),
        f"{site.address('small')}:bad": (2, {"address-malformed"}),
        f"{site.address('small')}@sha256:12": (2, {"address-malformed"}),
        site.to.partition(":")[2]: (2, {"address-malformed"}),
        f"{site.to.partition(':')[0]}:": (2, {"address-malformed"}),
    }.items():
        assert shipped.refused("verify", address) == expected, address
    hinted = shipped.relbuild("verify", site.address("small", "nothing")).stderr
    assert "1.0" in hinted and "latest" in hinted and "sha256-" not in hinted, hinted
    assert shipped.refused("verify", site.address("small"), key="nobody.pub") == (2, {"key-unreadable"})
    assert shipped.refused("verify", site.address("small"), key="no-roots.json") == (2, {"key-malformed"})
    # A tag whose manifest somebody removed is not told as missing itself.
    with site.pointing("small", "1.0", scene.manifest), site.altered("small", scene.mine.digest, None):
        status, codes = shipped.refused("verify", site.address("small", "1.0"))
        assert (status, codes) == (5, {"manifest-missing"})


def test_without_a_password_or_with_a_wrong_one_nothing_is_published(
    keys: Path, goods: ProductsToPublish, tmp_path: Path
) -> None:
    def publish(key: str, password: str | None) -> subprocess.CompletedProcess[str]:
        words = ("publish", goods.versions[0].layout, "--to", f"dir:{tmp_path / 'mirror'}", "--key", keys / key)
        return relbuild(keys, *words, "--store", goods.store.root, password=password)

    done = publish("ours.key", None)
    assert done.returncode == 8 and "error[key-password-missing]" in done.stderr, done.stderr
    assert "RELBUILD_KEY_PASSWORD" in done.stderr
    done = publish("ours.key", "wrong")
    assert done.returncode == 2 and "error[key-password-wrong]" in done.stderr, done.stderr
    done = publish("ours.pub", None)
    assert done.returncode == 2 and "error[key-not-private]" in done.stderr, done.stderr
    done = relbuild(keys, "keygen", "ours")
    assert done.returncode == 2 and "error[key-exists]" in done.stderr, done.stderr
    assert not (tmp_path / "mirror").exists()


def test_a_registry_that_does_not_answer_is_told(keys: Path) -> None:
    with reserved_port() as port:
        address = f"registry+http://127.0.0.1:{port}/products/small"
        done = relbuild_at_once(keys, "verify", address, "--key", keys / "ours.pub", "--store", keys / "store")
    assert done.returncode == 8 and "error[registry-unreachable]" in done.stderr, done.stderr


# --- moved and carried -------------------------------------------------------------------------------------


def test_a_channel_is_promoted_to_and_rolled_back_with_its_history_told(shipped: PublishedProducts) -> None:
    site, (first, second) = shipped.site, (built.image.digest for built in shipped.goods.versions)

    def pulled() -> Digest:
        return site.manifest("small", "stable").digest

    moved = shipped.done("promote", site.address("small", "1.0"), "--to", "stable")
    assert (moved["moved"]["from"], moved["moved"]["to"], pulled()) == (None, str(first), first)
    moved = shipped.done("promote", site.address("small", "1.1"), "--to", "stable")
    assert (moved["moved"]["from"], moved["moved"]["to"], pulled()) == (str(first), str(second), second)
    assert shipped.done("promote", site.address("small", second), "--to", "stable")["moved"] is None
    assert shipped.refused("promote", site.address("small", "1.0"), "--to", "stable") == (7, {"gate-older"})
    assert shipped.refused("promote", site.address("small"), "--to", "move.me") == (2, {"tag-reserved"})
    assert pulled() == second
    moved = shipped.done("rollback", site.address("small", "stable"))
    assert (moved["digest"], moved["version"], pulled()) == (str(first), "1.0", first)
    assert shipped.refused("rollback", site.address("small", "stable")) == (2, {"history-empty"})
    assert shipped.done("rollback", site.address("small", "stable"), "--to", str(second))["digest"] == str(second)

    told = shipped.done("history", site.address("small", "stable"))["history"]
    assert [(step["why"], step["to"]) for step in told] == [
        ("promote", str(first)), ("promote", str(second)), ("rollback", str(first)), ("rollback", str(second)),
    ]  # fmt: skip
    assert all(step["happened"] for step in told)
    sizes = [sum(layer.blob.size for layer in built.image.layers) for built in shipped.goods.versions]
    assert told[1]["changes"] == {"added": [], "removed": [], "changed": [], "fixed": [], "grew": sizes[1] - sizes[0]}


def test_what_is_carried_into_a_layout_verifies_there(shipped: PublishedProducts, tmp_path: Path) -> None:
    carried = shipped.done("copy", shipped.site.address("pair"), f"oci:{tmp_path / 'carried'}")["copied"]
    assert [one["digest"] for one in carried] == [str(shipped.goods.index.digest)]
    found = shipped.done("verify", f"oci:{tmp_path / 'carried'}")
    assert (found["digest"], len(found["attested"])) == (str(shipped.goods.index.digest), 3)
    again = shipped.done("copy", shipped.site.address("pair"), f"oci:{tmp_path / 'carried'}")["copied"]
    assert [one["uploaded"] for one in again] == [[]]
