"""The source packages of an image go with it, signed; and what is on a mirror is looked into and cleaned up from the
command line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import build
from pipeline.digest import digest_file
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.model.rules import MirrorRules
from pipeline.oci import load_signing_key, read_artifact
from pipeline.oci.sources_artifact import SOURCES_TYPE
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.release import (
    PublishOptions,
    copy,
    publish,
    verify_reference,
)
from tests.support.cheap_keys import cheap_key
from tests.support.patience import HUNG
from tests.support.sites import relbuild_at_once


@dataclass(frozen=True, slots=True)
class Shipped:
    """nginx with its sources, on a directory mirror. `order` is what published it."""

    folder: Path
    order: PublishOptions
    build_env: BuildEnvironment

    @property
    def address(self) -> str:
        return f"dir:{self.folder}/mirror/nginx"

    @property
    def public(self) -> Path:
        path = self.folder / "release.pub"
        path.write_bytes(self.order.key.public.pem)
        return path


@pytest.fixture(scope="module")
def shipped(recipes: Path, build_env: BuildEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    folder = tmp_path_factory.mktemp("sources")
    order = BuildOptions(recipes / "nginx.yaml", recipes / "repositories.yaml", output=folder / "output", sources=True)
    built = build(order, build_env)
    assert built.report is not None and built.report.passed
    key = load_signing_key(cheap_key(b"x")[0], lambda: b"x")
    wanted = PublishOptions((built.layout,), parse_address(f"dir:{folder}/mirror"), key, sources=True)
    publish(wanted, build_env)
    yield Shipped(folder, wanted, build_env)


def test_every_source_package_is_there_under_its_name(shipped: Shipped, mirror: Path) -> None:
    access = MirrorAccess({}, shipped.build_env.progress, shipped.build_env.clock)
    with access.repository(parse_address(shipped.address)) as held:
        digest = held.resolve("latest")
        assert digest is not None
        (found,) = [one for one in held.referrers(digest) if one.artifact_type == SOURCES_TYPE]
        manifest = held.manifest(found.descriptor.digest)
        assert manifest is not None
        layers = {
            dict(one.annotations)["org.opencontainers.image.title"]: one for one in read_artifact(manifest).layers
        }
    bill = json.loads((shipped.folder / "output" / "nginx.report" / "bill.json").read_bytes())
    named = {package["source_rpm"] for package in bill["packages"]}
    assert named and {name.partition("-")[0] for name in layers} == {name.partition("-")[0] for name in named}
    by_digest = {digest_file(path): path for path in (mirror / "sources").rglob("*.src.rpm")}
    assert {one.digest for one in layers.values()} <= by_digest.keys()


def test_published_again_nothing_changes(shipped: Shipped) -> None:
    (again,) = publish(shipped.order, shipped.build_env)
    assert (again.uploaded, again.moved) == ((), ())


def test_they_are_verified_and_carried(shipped: Shipped, tmp_path: Path) -> None:
    key = shipped.order.key.public
    verify_reference(parse_address(shipped.address), key, shipped.build_env)
    there = parse_address(f"dir:{tmp_path}/second/nginx")
    copy(parse_address(shipped.address), there, key, MirrorRules(), shipped.build_env)
    verify_reference(there, key, shipped.build_env)
    largest = max((tmp_path / "second" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    sources = {digest_file(path).hex for path in (tmp_path / "second" / "blobs" / "sha256").iterdir()}
    assert largest.name in sources
    with MirrorAccess({}, shipped.build_env.progress, shipped.build_env.clock).repository(there) as held:
        digest = held.resolve("latest")
        assert digest is not None
        (found,) = [one for one in held.referrers(digest) if one.artifact_type == SOURCES_TYPE]
        manifest = held.manifest(found.descriptor.digest)
        assert manifest is not None
        victim = tmp_path / "second" / "blobs" / "sha256" / read_artifact(manifest).layers[0].digest.hex
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(VerificationError) as refused:
        verify_reference(there, key, shipped.build_env)
    assert refused.value.code == "blob-damaged"


def test_without_having_been_fetched_they_are_missed(
    shipped: Shipped, recipes: Path, build_env: BuildEnvironment, tmp_path: Path
) -> None:
    build(BuildOptions(recipes / "nginx.yaml", recipes / "repositories.yaml", output=tmp_path / "output"), build_env)
    wanted = PublishOptions(
        (tmp_path / "output" / "nginx",), parse_address(f"dir:{tmp_path}/mirror"), shipped.order.key, sources=True
    )
    with pytest.raises(UsageError) as refused:
        publish(wanted, build_env)
    assert refused.value.code == "sources-missing"
    assert "--with-sources" in (refused.value.problems[0].hint or "")


def test_a_mirror_is_looked_into_from_the_command_line(shipped: Shipped) -> None:
    latest = f"{shipped.address}:latest"
    store = ("--store", str(shipped.build_env.store.root))
    seen = relbuild_at_once(shipped.folder, "inspect", latest, "--json", *store)
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)["name"] == "nginx"
    assert relbuild_at_once(shipped.folder, "validate", latest, *store).returncode == 0
    document = relbuild_at_once(
        shipped.folder, "sbom", latest, "--format", "cyclonedx", "--key", str(shipped.public), *store
    )
    assert json.loads(document.stdout)["metadata"]["component"]["name"] == "nginx"
    without = relbuild_at_once(shipped.folder, "sbom", latest, *store)
    assert without.returncode == 2 and "key-missing" in without.stderr


def test_cleaning_up_is_shown_first_and_can_be_undone(shipped: Shipped, tmp_path: Path) -> None:
    shutil.copytree(shipped.folder / "mirror", tmp_path / "mirror", symlinks=True)
    rules = tmp_path / "rules.yaml"
    rules.write_text('retention:\n  - {tags: "1", younger-than: 1s}\ngrace: 1s\n')
    options = ("--rules", str(rules), "--json", "--store", str(shipped.build_env.store.root))
    mirror = f"dir:{tmp_path}/mirror"
    tag = tmp_path / "mirror" / "repositories" / "nginx" / "_tags" / "1"
    assert tag.is_symlink()
    deadline = time.monotonic() + HUNG
    told: dict[str, Any] = {"plan": {"tags": []}}
    while not told["plan"]["tags"]:  # the copy is younger than the rule lets go
        assert time.monotonic() < deadline
        only_shown = relbuild_at_once(shipped.folder, "prune", mirror, "--dry-run", *options)
        assert only_shown.returncode == 0 and tag.is_symlink()
        told = json.loads(only_shown.stdout)
    asked = relbuild_at_once(shipped.folder, "prune", mirror, *options)
    assert asked.returncode == 0 and tag.is_symlink() and "--yes" in asked.stderr
    done = json.loads(relbuild_at_once(shipped.folder, "prune", mirror, "--yes", *options).stdout)
    assert not tag.is_symlink()
    assert (told["dry_run"], done["dry_run"], told["bytes"]) == (True, False, done["bytes"])
    assert [(one["repository"], one["tag"]) for one in told["plan"]["tags"]] == [("nginx", "1")]
    assert done["plan"]["tags"] == told["plan"]["tags"]
    back = relbuild_at_once(shipped.folder, "prune", mirror, "--undo", done["stamp"], *options)
    assert back.returncode == 0 and tag.is_symlink()
