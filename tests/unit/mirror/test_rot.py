"""Rot does not spread: through publishing, promoting and copying, with signatures, attestations and tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.release import (
    copy,
    promote,
    scrub,
    verify_reference,
)
from pipeline.store import Store
from tests.support.published_images import RULES, ImagePublisher, key
from tests.unit.mirror.directory.test_reuse import flip, rotten


@pytest.fixture
def maker(tmp_path: Path) -> ImagePublisher:
    return ImagePublisher.at(tmp_path)


@pytest.fixture
def mirror(tmp_path: Path, maker: ImagePublisher) -> DirectoryMirror:
    made = open_directory(tmp_path / "mirror", create=True, clock=maker.clock)
    maker.publish(made.repository("small"), maker.image("1.0"))
    return made


def test_a_new_version_is_not_published_on_a_rotten_layer(mirror: DirectoryMirror, maker: ImagePublisher) -> None:
    """The layer that both share was changed by one bit on the mirror: both versions pull afterwards."""
    shared = maker.image("1.0").layers[0].blob
    spoiled = flip(mirror.place.blob(shared.digest))
    maker.publish(mirror.repository("small"), maker.image("2.0"))
    for tag in ("latest", f"@{maker.image('1.0').digest}"):
        reference = parse_address(f"dir:{mirror.place.root}/small{tag if tag.startswith('@') else f':{tag}'}")
        verify_reference(reference, key().public, maker.build_env)
    assert rotten(mirror.place.root) == [spoiled]


def test_promote_reads_what_it_promotes(mirror: DirectoryMirror, maker: ImagePublisher) -> None:
    reference = parse_address(f"dir:{mirror.place.root}/small:latest")
    flip(mirror.place.blob(maker.image("1.0").layers[1].blob.digest))
    with pytest.raises(VerificationError) as caught:
        promote(reference, "stable", key(), RULES, maker.build_env)
    assert {one.code for one in caught.value.problems} == {"blob-damaged"}
    assert mirror.repository("small").resolve("stable") is None
    assert not scrub(parse_address(f"dir:{mirror.place.root}"), maker.build_env).lost
    promote(reference, "stable", key(), RULES, maker.build_env)
    assert mirror.repository("small").resolve("stable") == maker.image("1.0").digest


def test_what_is_copied_heals_what_is_rotten_where_it_goes(
    mirror: DirectoryMirror, maker: ImagePublisher, tmp_path: Path
) -> None:
    source = parse_address(f"dir:{mirror.place.root}/small:latest")
    target = parse_address(f"dir:{tmp_path}/there/small:latest")
    copy(source, target, key().public, RULES, maker.build_env)
    there = open_directory(tmp_path / "there", create=False, clock=maker.clock)
    shared = maker.image("1.0").layers[0].blob
    flip(there.place.blob(shared.digest))
    copy(source, target, key().public, RULES, maker.build_env)
    there.repository("small").check_blob(shared)


def test_a_scrub_heals_signatures_and_attestations_from_another_mirror(
    mirror: DirectoryMirror, maker: ImagePublisher, tmp_path: Path
) -> None:
    """Those are in no store: the other mirror has them, byte for byte."""
    copy(
        parse_address(f"dir:{mirror.place.root}/small:latest"),
        parse_address(f"dir:{tmp_path}/there/small:latest"),
        key().public,
        RULES,
        maker.build_env,
    )
    for path in [*mirror.place.blobs.iterdir(), *mirror.place.paths("small").manifests.iterdir()]:
        flip(path)
    fresh = ImagePublisher(Store.open(tmp_path / "empty"), maker.clock)
    done = scrub(
        parse_address(f"dir:{mirror.place.root}"), fresh.build_env, sources=[parse_address(f"dir:{tmp_path}/there")]
    )
    needed = [one for one in done.lost if one.thing == "blob"]
    assert not needed, needed
    verify_reference(parse_address(f"dir:{mirror.place.root}/small:latest"), key().public, fresh.build_env)
