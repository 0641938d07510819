"""Others read what relbuild writes: skopeo, podman, umoci and oci-image-tool."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import process
from pipeline.compression import Compression
from pipeline.model.image import Image
from pipeline.oci import write_archive, write_layout
from pipeline.store import Store
from tests.support.patience import HUNG
from tests.support.tiny_image import tiny


def run(*argv: str | Path) -> str:
    return process.run(argv, timeout=HUNG).stdout.decode()


@pytest.fixture(params=list(Compression))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Image, Path]:
    store = Store.open(tmp_path / "store")
    image = tiny(store, request.param)
    write_layout(image, store=store, target=tmp_path / "tiny")
    return image, tmp_path / "tiny"


@pytest.fixture
def podman() -> Iterator[tuple[str | Path, ...]]:
    """podman with storage of its own, in a short path: it takes no run root of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="p-") as folder:
        yield ("podman", "--root", f"{folder}/r", "--runroot", f"{folder}/rr", "--storage-driver", "vfs")


def test_skopeo_names_the_same_digest_and_reads_the_config(written: tuple[Image, Path]) -> None:
    image, layout = written
    told = json.loads(run("skopeo", "inspect", f"oci:{layout}:1.0"))
    assert told["Digest"] == str(image.digest)
    assert told["Layers"] == [str(layer.blob.digest) for layer in image.layers]
    config = json.loads(run("skopeo", "inspect", "--config", f"oci:{layout}:1.0"))
    assert config["config"]["StopSignal"] == "SIGQUIT"


def test_skopeo_copies_archives_of_both_kinds(written: tuple[Image, Path], tmp_path: Path) -> None:
    image, layout = written
    for kind, transport in (("oci", "oci-archive"), ("docker", "docker-archive")):
        archive = tmp_path / f"{kind}.tar"
        write_archive(layout, archive, kind)  # type: ignore[arg-type]
        target = tmp_path / f"copy-{kind}"
        run("skopeo", "--insecure-policy", "copy", f"{transport}:{archive}", f"dir:{target}")
        manifest = json.loads((target / "manifest.json").read_bytes())
        assert manifest["config"]["digest"] == str(image.config_descriptor.digest)


def test_oci_image_tool_finds_nothing_wrong(tmp_path: Path) -> None:
    # It is older than zstd layers.
    store = Store.open(tmp_path / "store")
    write_layout(tiny(store), store=store, target=tmp_path / "tiny")
    told = process.run(
        ["oci-image-tool", "validate", "--type", "image", "--ref", "name=1.0", tmp_path / "tiny"],
        timeout=HUNG,
        check=False,
    )
    assert told.status == 0, told.stderr
    assert b"OK" in told.stdout + told.stderr


def test_umoci_unpacks_it(tmp_path: Path) -> None:
    # It is older than zstd layers.
    store = Store.open(tmp_path / "store")
    write_layout(tiny(store), store=store, target=tmp_path / "tiny")
    run("umoci", "unpack", "--image", f"{tmp_path / 'tiny'}:1.0", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "rootfs" / "srv" / "page").read_bytes() == b"a page\n"
    config = json.loads((tmp_path / "bundle" / "config.json").read_bytes())
    assert config["process"]["args"] == ["/usr/libexec/start", "--flag"]


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_podman_loads_it(
    written: tuple[Image, Path], tmp_path: Path, podman: tuple[str | Path, ...], kind: str
) -> None:
    image, layout = written
    write_archive(layout, tmp_path / "a.tar", kind)  # type: ignore[arg-type]
    run(*podman, "load", "--input", tmp_path / "a.tar")
    (told,) = json.loads(run(*podman, "inspect", "--type", "image", _loaded(podman)))
    assert told["RootFS"]["Layers"] == [str(layer.diff_id) for layer in image.layers]
    assert told["Config"]["User"] == "server"


def _loaded(podman: tuple[str | Path, ...]) -> str:
    (name,) = run(*podman, "images", "--quiet").split()
    return name
