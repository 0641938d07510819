"""A directory mirror as clients see it: behind nginx and `relbuild serve`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.backends.layout.layout_mirror import open_layout
from pipeline.mirror.references import references
from pipeline.model.manifests import Manifest
from pipeline.oci import write_layout
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.foreign_programs import crane_registry, program
from tests.support.served_mirror import Site, run, served_site
from tests.support.webserver import nginx


@pytest.fixture(scope="module", params=["nginx", "serve"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served_site(request.param, tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name podman finds short enough."""
    with tempfile.TemporaryDirectory(prefix="p-") as folder:
        yield Path(folder)


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
    put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1.0")
    mirror_images.publish(repository, store, mirror_images.image(store, 2), "2.0")
    note = mirror_images.attach(repository, put.descriptor, "a note")
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
    made = mirror_images.image(store, 1)
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
    here.point("1.0", mirror_images.cleared(image), None)
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
