"""Another product under a tag is refused: what is signed is the name too, wherever a reference is believed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.errors import RelbuildError
from pipeline.mirror.address import Address
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import read_published
from pipeline.mirror.signed_identity import ExpectedIdentity, SignedIdentity, require_identity
from pipeline.model.rules import IdentityRule
from pipeline.model.smoke import SmokePlan
from pipeline.oci.sbom import SbomForm
from pipeline.release import (
    AuditOptions,
    attested_sbom,
    copy,
    promote,
    read_audited_contents,
    rollback,
    verify_reference,
)
from pipeline.release.retest import retest
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.tested_images import READY


def mirror_of(folder: Path, maker: ImagePublisher, host: str = "registry.example/prod") -> Path:
    """A mirror with two products."""
    opened = open_directory(folder, create=True, clock=maker.clock, host=host or None)
    for name in ("nginx", "memcached"):
        maker.publish(opened.repository(name), maker.image("1.0", name))
    return folder


@pytest.fixture
def mirror(tmp_path: Path, maker: ImagePublisher) -> Path:
    return mirror_of(tmp_path / "mirror", maker)


@pytest.fixture
def swapped(mirror: Path) -> Path:
    """memcached's manifest and all that speaks of it, put under nginx by one who can write to the mirror."""
    theirs, ours = (mirror / "repositories" / name for name in ("memcached", "nginx"))
    for path in (theirs / "_manifests").iterdir():
        shutil.copy(path, ours / "_manifests" / path.name)
    for path in (theirs / "_tags").iterdir():
        target = ours / "_tags" / path.name
        target.unlink(missing_ok=True)
        target.symlink_to(path.readlink())
    return mirror


def at(mirror: Path, name: str = "nginx", tag: str = "latest") -> Address:
    return parse_address(f"dir:{mirror}/{name}:{tag}")


def opened(mirror: Path, maker: ImagePublisher, name: str = "nginx") -> DirectoryRepository:
    return open_directory(mirror, create=False, clock=maker.clock).repository(name)


def refused(act: object, *codes: str) -> None:
    assert callable(act)
    with pytest.raises(RelbuildError) as caught:
        act()
    assert {problem.code for problem in caught.value.problems} == set(codes or ("identity-mismatch",))


def test_another_product_under_a_tag_is_refused_wherever_a_reference_is_believed(
    swapped: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    reference, work = at(swapped), maker.build_env
    digest = opened(swapped, maker).resolve("latest")
    assert digest is not None
    refused(lambda: verify_reference(reference, key().public, work))
    refused(lambda: promote(reference, "stable", key(), RULES, work))
    refused(lambda: rollback(reference, digest, key(), RULES, work))
    refused(lambda: copy(reference, at(tmp_path / "there"), key().public, RULES, work))
    refused(lambda: attested_sbom(reference, SbomForm.SPDX, key().public, work))
    refused(lambda: read_audited_contents(AuditOptions(reference, Path("none"), key().public), work))
    refused(lambda: retest(opened(swapped, maker), digest, SmokePlan(READY, ()), key(), work))
    assert opened(swapped, maker).resolve("stable") is None
    assert not (tmp_path / "there" / "repositories" / "nginx" / "_tags" / "latest").is_symlink()
    verify_reference(at(swapped, "memcached"), key().public, work)


def test_another_product_that_is_named_by_its_digest_is_refused_too(swapped: Path, maker: ImagePublisher) -> None:
    digest = opened(swapped, maker).resolve("latest")
    refused(lambda: verify_reference(parse_address(f"dir:{swapped}/nginx@{digest}"), key().public, maker.build_env))


def test_another_namespaces_product_of_the_same_name_is_refused(mirror: Path, maker: ImagePublisher) -> None:
    staging = open_directory(mirror, create=False, clock=maker.clock).repository("staging/nginx")
    maker.publish(staging, maker.image("2.0", "nginx"))
    digest = staging.resolve("latest")
    ours = mirror / "repositories" / "nginx"
    for path in (mirror / "repositories" / "staging" / "nginx" / "_manifests").iterdir():
        shutil.copy(path, ours / "_manifests" / path.name)
    for path in (mirror / "repositories" / "staging" / "nginx" / "_tags").iterdir():
        (ours / "_tags" / path.name).unlink(missing_ok=True)
        (ours / "_tags" / path.name).symlink_to(path.readlink())
    assert opened(mirror, maker).resolve("latest") == digest
    refused(lambda: verify_reference(at(mirror), key().public, maker.build_env))


def test_a_mirror_that_was_copied_elsewhere_holds_under_the_name_that_it_is_said_to_be_a_copy_of(
    mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    """As on another host, where the address says another name: here the copy says so itself."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(mirror, elsewhere, symlinks=True)
    verify_reference(at(elsewhere), key().public, maker.build_env)  # a folder that was moved knows its name
    marker = elsewhere / "relbuild-mirror.json"
    marker.write_text(marker.read_text().replace("registry.example/prod", "copy.example/all"))
    refused(lambda: verify_reference(at(elsewhere), key().public, maker.build_env))
    stated = ExpectedIdentity("registry.example/prod/nginx")
    mapped = ExpectedIdentity(rules=(IdentityRule("copy.example/all", "registry.example/prod"),))
    for identity in (stated, mapped):
        found = verify_reference(at(elsewhere), key().public, maker.build_env, identity=identity)
        assert found.identities == ("registry.example/prod/nginx",)
    refused(lambda: verify_reference(at(elsewhere, "memcached"), key().public, maker.build_env, identity=stated))


def test_what_is_in_a_layout_goes_into_the_repository_of_its_own_name_alone(
    mirror: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    disk = parse_address(f"oci:{tmp_path / 'disk'}")
    copy(at(mirror), disk, key().public, RULES, maker.build_env)
    verify_reference(parse_address(f"{disk.url}:latest"), key().public, maker.build_env)  # a layout has no name
    named = ExpectedIdentity("registry.example/prod/memcached")
    refused(
        lambda: verify_reference(parse_address(f"{disk.url}:latest"), key().public, maker.build_env, identity=named)
    )
    there = mirror_of(tmp_path / "there", maker, host="")
    target = parse_address(f"dir:{there}/memcached")
    refused(lambda: copy(disk, target, key().public, RULES, maker.build_env))
    copy(disk, parse_address(f"dir:{there}/copied/nginx"), key().public, RULES, maker.build_env)


def test_a_member_of_an_index_that_is_not_signed_is_refused(mirror: Path, maker: ImagePublisher) -> None:
    repository: Repository = opened(mirror, maker, "pair")
    maker.publish(repository, maker.image("1.0", "pair"), maker.image("1.0", "pair", "arm64"))
    verify_reference(at(mirror, "pair"), key().public, maker.build_env)
    held = read_published(repository, "latest")
    tag = f"sha256-{held.images[1].digest.hex}.sig"
    digest = repository.resolve(tag)
    assert digest is not None
    repository.remove_tag(tag, digest)
    refused(lambda: verify_reference(at(mirror, "pair"), key().public, maker.build_env), "signature-missing")
    require_identity(repository, held.manifest, key().public)  # the index itself is signed


@pytest.mark.parametrize(
    ("expected", "signed", "covered"),
    [
        ("r.example/prod/nginx", "r.example/prod/nginx", True),
        ("r.example/prod/nginx", "r.example/prod/nginx:1.0", True),
        ("r.example:5000/prod/nginx", "r.example:5000/prod/nginx:1.0@sha256:0", True),
        ("r.example/prod/nginx", "other.example/prod/nginx", False),
        ("r.example/prod/nginx", "r.example/staging/nginx", False),
        ("r.example/prod/nginx", "localhost/nginx", True),
        ("r.example/prod/nginx", "localhost/prod/nginx", True),
        ("r.example/prod/nginx", "localhost/x/nginx", False),
        ("r.example/prod/nginx", "localhost/inx", False),
        ("r.example/prod/nginx", "localhost:5000/nginx", False),
        ("r.example/prod/nginx", "localhost/", False),
        ("localhost/nginx", "r.example/prod/nginx", True),
        ("localhost/nginx", "r.example/prod/memcached", False),
    ],
)
def test_names_are_compared_whole_and_without_a_host_by_the_end_of_their_paths(
    expected: str, signed: str, covered: bool
) -> None:
    assert SignedIdentity(expected).covers(signed) is covered
    assert SignedIdentity(expected, exact=True).covers(signed) is (covered and "localhost" not in (expected + signed))
