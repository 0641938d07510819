"""An OCI layout with one index of images for several architectures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import UsageError, VerificationError
from pipeline.model.image import Image
from pipeline.oci import make_image, read_layout, read_layout_index, validate_layout, write_index_layout, write_layout
from pipeline.release.publish import member_layouts
from pipeline.store import Store
from tests.support.tiny_image import CONFIG, layer


def images(store: Store) -> list[Image]:
    """An image for x86_64 and one for aarch64, which share a layer."""
    shared = layer(store, "base", {"etc": None, "etc/one": b"1\n"})
    return [
        make_image(
            "tiny",
            "1.0",
            replace(CONFIG, architecture=architecture),
            [shared, layer(store, "product", {"srv": None, "srv/arch": architecture.encode()})],
        )
        for architecture in ("arm64", "amd64")
    ]


@pytest.fixture
def layout(store: Store, tmp_path: Path) -> Path:
    """The layout of the index, with those of its members beside it, as a build leaves them."""
    arm, intel = images(store)
    write_layout(arm, store=store, target=tmp_path / "tiny.aarch64")
    write_layout(intel, store=store, target=tmp_path / "tiny.x86_64")
    write_index_layout([intel, arm], store=store, target=tmp_path / "tiny")
    return tmp_path / "tiny"


def test_it_names_the_index_alone_and_holds_every_image(store: Store, layout: Path) -> None:
    arm, intel = images(store)
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "1.0"}
    listed = read_layout_index(layout)
    assert [(descriptor.digest, arch) for descriptor, arch in listed] == [
        (intel.digest, "x86_64"),
        (arm.digest, "aarch64"),
    ]
    assert len(list((layout / "blobs/sha256").iterdir())) == 1 + 2 + 2 + 3
    assert not validate_layout(layout)


def test_the_order_of_building_does_not_matter_and_the_same_index_is_not_written_again(
    store: Store, layout: Path
) -> None:
    before = (layout / "index.json").stat()
    arm, intel = images(store)
    write_index_layout([arm, intel], store=store, target=layout)
    assert (layout / "index.json").stat().st_ino == before.st_ino


def test_it_is_no_layout_of_one_image(layout: Path) -> None:
    with pytest.raises(UsageError, match="several architectures") as caught:
        read_layout(layout)
    assert caught.value.code == "several-images" and f"{layout}.x86_64" in (caught.value.problems[0].hint or "")
    assert read_layout_index(layout.with_name("tiny.x86_64")) == ()


def test_publishing_it_publishes_the_layouts_of_its_images(store: Store, layout: Path) -> None:
    assert member_layouts(layout) == (layout.with_name("tiny.x86_64"), layout.with_name("tiny.aarch64"))
    alone = layout.with_name("tiny.aarch64")
    assert member_layouts(alone) == (alone,)
    _, intel = images(store)
    write_layout(intel, store=store, target=alone)
    with pytest.raises(UsageError, match="the image for aarch64") as caught:
        member_layouts(layout)
    assert caught.value.code == "index-outdated"


def test_validating_it_finds_what_is_wrong_with_a_member(store: Store, layout: Path) -> None:
    arm, intel = images(store)
    (layout / "blobs/sha256" / arm.config_descriptor.digest.hex).unlink()
    (layout / "blobs/sha256" / intel.layers[1].blob.digest.hex).write_bytes(b"no layer")
    assert {problem.code for problem in validate_layout(layout)} >= {"blob-missing", "digest-mismatch"}


def test_a_damaged_index_is_refused(layout: Path) -> None:
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    (layout / "blobs/sha256" / entry["digest"].removeprefix("sha256:")).write_bytes(b"{}")
    with pytest.raises(VerificationError) as caught:
        read_layout_index(layout)
    assert caught.value.code == "blob-damaged"
