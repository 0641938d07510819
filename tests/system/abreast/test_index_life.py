"""An index of two architectures on a directory and on a registry: copied, promoted, rolled back, pruned, scrubbed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.mirror.address import Address
from pipeline.mirror.address_parser import parse_address
from pipeline.model.image import Image
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.model.scrub import RepairOutcome
from pipeline.oci import make_index
from pipeline.release import copy, promote, prune, rollback, scrub, verify_reference
from pipeline.release.current_images import mirror_access
from tests.support.foreign_programs import docker_registry
from tests.support.published_images import ImagePublisher, key
from tests.support.webserver import nginx
from tests.system.abreast.test_clients import run

ARCHITECTURES = ("amd64", "arm64")
DAY = 86_400
GRACE_PASSED = 9 * DAY
KEEP_STABLE = MirrorRules(retention=(RetentionRule(tags="stable"), RetentionRule(keep=0)))


@contextlib.contextmanager
def mirror_of(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The address of an empty mirror, and the one that clients pull `NAME` from."""
    if kind == "registry":
        with docker_registry(folder) as host:
            yield f"registry+http://{host}/team", f"{host}/team"
        return
    (folder / "mirror").mkdir(parents=True)
    with nginx(folder / "mirror", folder / "nginx") as host:
        yield f"dir:{folder}/mirror", host


def pulled(host: str, tag: str, folder: Path) -> dict[str, bytes]:
    """The manifest that a client of each architecture pulls."""
    found = {}
    for number, name in enumerate(ARCHITECTURES):
        target = folder / f"{tag}-{number}-{len(list(folder.iterdir()))}"
        asked = ("--override-arch", name, "copy", "--quiet", "--src-tls-verify=false")
        run("skopeo", *asked, f"docker://{host}/small:{tag}", f"dir:{target}")
        found[name] = (target / "manifest.json").read_bytes()
    return found


def manifests(images: list[Image]) -> dict[str, bytes]:
    return {image.config.architecture: image.manifest_bytes for image in images}


@pytest.mark.parametrize("kind", ["directory", "registry"])
def test_an_index_is_whole_through_all_that_happens_to_it(kind: str, tmp_path: Path) -> None:
    maker = ImagePublisher.at(tmp_path / "maker")
    env, here, pulls = maker.build_env, f"dir:{tmp_path}/here", tmp_path / "pulls"
    pulls.mkdir()
    versions = {one: [maker.image(one, architecture=name) for name in ARCHITECTURES] for one in ("1.0", "2.0")}
    with mirror_access(env).mirror(parse_address(here), create=True) as mirror:
        for version, images in versions.items():
            maker.publish(mirror.repository("small"), *images, tags=(version, "latest"))
    old, new = (make_index(images) for images in versions.values())
    with mirror_of(kind, tmp_path / "there") as (there, host):

        def at(tag: str) -> Address:
            return parse_address(f"{there}/small:{tag}")

        def verified(tag: str) -> list[str]:
            held = verify_reference(at(tag), key().public, env).held
            return [str(held.digest), *(image.config.architecture for image in held.images)]

        for version in versions:
            copy(parse_address(f"{here}/small:{version}"), at(version), key(), MirrorRules(), env)
            promote(at(version), "stable", key(), MirrorRules(), env)
        assert verified("stable") == [str(new.digest), *ARCHITECTURES]
        assert pulled(host, "stable", pulls) == manifests(versions["2.0"])
        assert rollback(at("stable"), None, key(), MirrorRules(), env).digest == old.digest
        assert verified("stable") == [str(old.digest), *ARCHITECTURES]
        maker.clock.now += GRACE_PASSED
        gone = prune(parse_address(there), KEEP_STABLE, env)
        assert not gone.refused
        with mirror_access(env).repository(at("stable")) as repository:
            assert repository.resolve("2.0") is None
            left = {one: repository.manifest(one.digest) is not None for one in versions["1.0"] + versions["2.0"]}
        assert list(left.values()) == [True, True, False, False]
        assert scrub(parse_address(there), env).findings == ()
        if kind == "directory":
            # A layer of one member alone rots: it is found, and comes back from where the index was copied from.
            rotten = versions["1.0"][1].layers[1].blob.digest
            (file,) = [path for path in (tmp_path / "there").rglob(rotten.hex) if path.is_file()]
            file.write_bytes(b"rotten")
            empty = replace(env, store=ImagePublisher.at(tmp_path / "empty").store)
            found = scrub(parse_address(there), empty, sources=[parse_address(here)])
            assert [(one.name, one.fate) for one in found.findings] == [(str(rotten), RepairOutcome.HEALED)]
        assert verified("stable") == [str(old.digest), *ARCHITECTURES]
        assert pulled(host, "stable", pulls) == manifests(versions["1.0"])
