"""Packages that stand beside a recipe are chosen before those of repositories, and held to what they require."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pipeline.packages as packages_room
from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.model.header import Dependency, PackageHeader
from pipeline.model.package import Nevra
from pipeline.model.recipe import LayerPlan, LocalPackage, Request
from tests.support.resolve_world import World, refusal
from tests.support.rpmmd import Rpm


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def local(world: World, monkeypatch: pytest.MonkeyPatch, header: PackageHeader) -> LayerPlan:
    (world.folder / "fix.rpm").write_bytes(b"rpm")
    monkeypatch.setattr(packages_room, "read_header", lambda path, checksum: replace(header, checksum=checksum))
    item = LocalPackage(Path("fix.rpm"), Digest.of(b"rpm"), "r.yaml:9")
    return LayerPlan("layer0", (Request("b", "r.yaml:1"),), (item,))


def header(evr: str = "0-1", **more: object) -> PackageHeader:
    version, _, release = evr.partition("-")
    plain = PackageHeader(Nevra("a", 0, version, release, "noarch"), Digest("0" * 64), (), (), (), (), (), 77)
    return replace(plain, **more)  # type: ignore[arg-type]


def test_a_local_package_wins_over_newer_ones_and_brings_its_requirements(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("r", Rpm("a", "2-1"), Rpm("b", requires=("a",)), Rpm("c"))
    plan = local(world, monkeypatch, header(requires=(Dependency("c"), Dependency("rpmlib(X)", 8, "1"))))
    section = world.solve(layers=(plan,))
    found = {one.package.nevra.name: one for one in section.resolution.chosen}
    assert str(found["a"].package.nevra) == "a-0-1.noarch"
    assert found["a"].package.repository == "@file"
    assert found["a"].package.location == "fix.rpm"
    assert found["a"].reasons[0].kind == "local"
    assert found["c"].reasons[0].by == "a-0-1.noarch"
    assert world.store.has(Digest.of(b"rpm"))


def test_a_local_package_that_breaks_a_requirement_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("r", Rpm("a", "2-1"), Rpm("b", requires=("a >= 1",)))
    plan = local(world, monkeypatch, header())
    assert "b-1-1.noarch requires a >= 1" in str(refusal(world, layers=(plan,)))


def test_a_local_package_with_other_bytes_is_refused(world: World) -> None:
    world.add("r", Rpm("b"))
    (world.folder / "fix.rpm").write_bytes(b"other")
    item = LocalPackage(Path("fix.rpm"), Digest.of(b"rpm"), "r.yaml:9")
    with pytest.raises(VerificationError) as caught:
        world.solve(layers=(LayerPlan("layer0", (), (item,)),))
    assert caught.value.code == "download-mismatch"
