"""Recipes that are built from another recipe's image, with small packages: what each promise comes to."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.build import (
    BuildResult,
    build,
    explain_package,
    lock,
)
from pipeline.cli.commands.lock import locked_as_lines
from pipeline.compression import Compression
from pipeline.errors import BuildError, RelbuildError, ResolutionError, SmokeError
from pipeline.launch import unpack_layers
from pipeline.model.provenance import MaterialKind
from pipeline.oci import validate_layout
from pipeline.oci.sbom import SbomForm
from pipeline.prepare import BuildEnvironment
from pipeline.progress import QUIET
from pipeline.reports import read_bill, read_build_record, read_sbom
from pipeline.resolve import LockMode, read_lock
from pipeline.store import Store
from tests.support.derived_images import (
    Family,
    lines,
    packages,
    unpack,
)
from tests.support.patience import HUNG
from tests.support.product_builds import SmallProducts, small_products
from tests.support.rpm_factory import Forge
from tests.support.rpm_install import install_with_rpm, rpm

SMALL = "platform: small\narchitectures: [x86_64]\nlayers: [{name: base, packages: [small-base, small, watcher]}]\n"
RUNS = (
    "image:\n  entrypoint: [/usr/bin/busybox, sh, -c, "
    "\"trap 'exit 0' TERM; echo up; while :; do sleep 1; done & wait\"]\n"
    "  environment: {A: parent, B: parent}\n  exposed_ports: [80]\n  labels: {kept: parent, said: parent}\n"
)
CHECKS = "smoke: {ready: {log: up, within: 20s}, checks: [{name: runs, file: {path: %s}}]}\n"
CHILD = (
    "from: base\nlayers: [{name: more, packages: [addon]}]\n"
    "files: [{content: 'mine', path: /etc/mine}]\n"
    "image: {environment: {B: child, C: child}, labels: {said: child}, user: addon}\n"
)


@pytest.fixture(scope="module")
def small(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A signed repository in which a watcher has triggers on what others bring, and an addon brings it."""
    products: SmallProducts = small_products(tmp_path_factory.mktemp("small") / "it", made)
    log = "var/lib/watcher/log"
    found = [
        made.package(
            "watcher",
            install=(
                "mkdir -p var/lib/watcher usr/lib/shared usr/bin; echo same >usr/lib/shared/file;"
                f" touch {log} -d @1700000000; touch -d @1700000000 usr/lib/shared/file; ln -s busybox usr/bin/sh"
            ),
            files=["/var/lib/watcher", "/usr/lib/shared", "/usr/bin/sh"],
            header="Requires: small\nProvides: user(watcher)",
            sections=(
                f"%post -p /usr/bin/sh\necho watcher post $1 >>/{log}\n"
                f"%triggerin -p /usr/bin/sh -- addon\necho watcher triggerin $1 $2 >>/{log}\n"
                f"%filetriggerin -p /usr/bin/sh -- /usr/lib\n"
                f'while read -r path; do echo "watcher file $path" >>/{log}; done\n'
                f"%transfiletriggerin -p /usr/bin/sh -- /usr/lib/shared\n"
                f'while read -r path; do echo "watcher transfile $path" >>/{log}; done\n'
            ),
        ),
        made.package(
            "addon",
            install="mkdir -p usr/lib/shared; echo same >usr/lib/shared/file; echo own >usr/lib/shared/own;"
            " touch -d @1700000000 usr/lib/shared/file usr/lib/shared/own",
            files=["/usr/lib/shared/file", "%attr(0640, root, addon) /usr/lib/shared/own"],
            header="Requires: /usr/bin/sh\nProvides: user(addon)\nProvides: group(addon)",
            sections=(
                f"%pre -p /usr/bin/sh\necho addon pre $1 >>/{log}\n%post -p /usr/bin/sh\necho addon post $1 >>/{log}\n"
            ),
        ),
        made.package("modern", header="Requires: watcher >= 2"),
        made.package("enemy", header="Conflicts: watcher"),
    ]
    for package in found:
        shutil.copy(package, products.folder / "repository")
    subprocess.run(["createrepo_c", "--quiet", products.folder / "repository"], check=True)
    return Family(products.folder, products.build_env)


@pytest.fixture(scope="module")
def pair(small: Family) -> tuple[BuildResult, BuildResult]:
    """The small parent and its child, both tested."""
    small.write("base", SMALL + RUNS + CHECKS % "/usr/bin/sh")
    order = small.write("child", CHILD + CHECKS % "/etc/mine")
    child = build(replace(order, smoke=True), small.build_env)
    return build(replace(order, recipe=small.folder / "base.yaml", smoke=True), small.build_env), child


def test_the_parent_is_built_tested_and_left_in_the_output_with_the_child(
    small: Family, pair: tuple[BuildResult, BuildResult]
) -> None:
    parent, child = pair
    assert parent.verdict_reused and parent.report is not None and parent.report.passed
    assert child.report is not None and child.report.passed
    assert (small.folder / "output" / "base" / "index.json").exists()
    assert (small.folder / "output" / "base.report" / "evidence.json").exists()


def test_a_child_that_is_not_tested_leaves_the_evidence_of_its_parent_alone(
    small: Family, pair: tuple[BuildResult, BuildResult]
) -> None:
    order = replace(small.write("child", CHILD + CHECKS % "/etc/mine"), smoke=False)
    (told,) = locked_as_lines(lock(order, small.build_env))
    assert told.endswith("child.lock is fresh: 3 of the parent image 'base' and 1 packages")
    explain_package(order, small.build_env, "addon")
    assert build(order, small.build_env).image.digest == pair[1].image.digest
    assert (small.folder / "output" / "base.report" / "evidence.json").exists()


def test_only_the_childs_scripts_run_and_what_they_set_off(
    small: Family, pair: tuple[BuildResult, BuildResult], tmp_path: Path
) -> None:
    """rpm's own log of two transactions is the expectation."""
    parent, child = pair
    root = tmp_path / "root"
    root.mkdir()
    logs = []
    for built in pair:
        install_with_rpm(root, built, small.build_env)
        logs.append((root / "var/lib/watcher/log").read_text().splitlines())
    assert logs == [lines(small, built, "var/lib/watcher/log") for built in (parent, child)]
    assert [line for line in logs[1][len(logs[0]) :] if line.startswith("addon")] == ["addon pre 1", "addon post 1"]
    for line in ("triggerin 1 1", "file /usr/lib/shared/own", "transfile /usr/lib/shared/own"):
        assert f"watcher {line}" in logs[1]


def test_a_file_that_the_parent_has_is_not_there_again(small: Family, pair: tuple[BuildResult, BuildResult]) -> None:
    own = unpack_layers(pair[1].image, small.build_env.store, QUIET)[-2]
    held = sorted(str(path.relative_to(own)) for path in own.rglob("*") if not path.is_dir())
    assert held == ["usr/lib/shared/own"]


def test_accounts_of_the_parent_keep_their_numbers_and_new_ones_get_others(
    small: Family, pair: tuple[BuildResult, BuildResult]
) -> None:
    parent, child = (built.locked.accounts for built in pair)
    watcher, addon = parent.uid("watcher"), child.uid("addon")
    assert watcher is not None and child.uid("watcher") == watcher
    assert addon is not None and addon != watcher
    assert small.tree(pair[1])["usr/lib/shared/own"].gid == child.gid("addon")
    assert {line.split(":")[0] for line in lines(small, pair[1], "etc/passwd")} >= {"root", "watcher", "addon"}
    order = small.write("renumbers", CHILD + "accounts: {users: [{name: watcher, uid: 77}]}\n")
    with pytest.raises(BuildError) as caught:
        build(order, small.build_env)
    assert caught.value.code == "account-differs" and "user 'watcher' has ID 77" in str(caught.value)


def test_the_configuration_is_merged_as_the_reference_says(pair: tuple[BuildResult, BuildResult]) -> None:
    parent, child = (built.image.config for built in pair)
    assert child.entrypoint == parent.entrypoint and child.exposed_ports == ("80/tcp",)
    assert child.environment == ("A=parent", "B=child", "C=child")
    assert child.user == "addon"
    labels = dict(child.labels)
    assert (labels["kept"], labels["said"]) == ("parent", "child")
    assert labels["org.opencontainers.image.title"] == "child"


def test_the_lock_holds_what_the_child_adds_and_its_parent_by_digest(
    small: Family, pair: tuple[BuildResult, BuildResult]
) -> None:
    read = read_lock(small.folder / "child.lock")
    assert read is not None
    (section,) = read.sections
    assert [one.package.nevra.name for one in section.resolution.chosen] == ["addon"]
    assert section.parent is not None
    assert (section.parent.recipe, section.parent.digest) == ("base", pair[0].image.digest)
    assert section.build_time == pair[1].image.config.created


def test_report_bill_sboms_and_materials_tell_of_all(pair: tuple[BuildResult, BuildResult]) -> None:
    parent, child = pair
    everything = ["addon-1-1.noarch", "small-1-1.x86_64", "small-base-1-1.noarch", "watcher-1-1.noarch"]
    assert packages(child) == everything
    bill = read_bill(child.report_folder)
    assert {str(one.nevra): one.layer for one in bill.packages} == {
        "addon-1-1.noarch": "more",
        **dict.fromkeys(everything[1:], "base/base"),
    }
    assert [layer.name for layer in bill.layers] == ["base/base", "base/state", "more", "state"]
    for form in SbomForm:
        document = read_sbom(child.report_folder, form, child.image.digest).decode()
        assert all(name.rsplit("-", 2)[0] in document for name in everything)
    materials = read_build_record(child.report_folder).provenance.materials
    (below,) = [one for one in materials if one.kind is MaterialKind.PARENT]
    assert (below.name, str(below.sha256)) == ("base", str(parent.image.digest))
    assert [one.name for one in materials if one.kind is MaterialKind.PACKAGE] == ["addon-1-1.noarch"]


def test_explain_says_what_comes_from_the_parent(small: Family, pair: tuple[BuildResult, BuildResult]) -> None:
    order = replace(small.write("child", CHILD + CHECKS % "/etc/mine"), smoke=False)
    (told,) = explain_package(order, small.build_env, "small").values()
    assert "from the parent image 'base'" in told and "the recipe 'base' asks for 'small'" in told
    assert "the recipe asks for 'addon'" in explain_package(order, small.build_env, "addon")["x86_64"]


def test_nothing_unchanged_is_redone(small: Family, pair: tuple[BuildResult, BuildResult]) -> None:
    again = build(replace(small.write("child", CHILD + CHECKS % "/etc/mine"), smoke=True), small.build_env)
    assert again.image == pair[1].image and again.verdict_reused and not again.locked.wrote
    assert set(again.reused) == {layer.name for layer in again.image.layers}


def test_the_same_digest_comes_from_an_empty_store_and_offline_from_locks_and_packages_alone(
    small: Family, pair: tuple[BuildResult, BuildResult], tmp_path: Path
) -> None:
    order = replace(small.write("child", CHILD + CHECKS % "/etc/mine"), mode=LockMode.LOCKED, output=tmp_path / "out")
    digests = []
    for name, offline in (("empty", False), ("packages", True)):
        (tmp_path / name).mkdir(mode=0o700)
        store = Store.open(tmp_path / name)
        if offline:
            for header in pair[1].locked.all_headers:
                store.put(small.build_env.store.read(header.checksum, limit=1 << 30))
        digests.append(
            build(order, BuildEnvironment(store, QUIET, {"HOME": "/"}, time.time, offline=offline)).image.digest
        )
    assert digests == [pair[1].image.digest] * 2


def test_another_compression_is_the_same_parent_to_the_lock(
    small: Family, pair: tuple[BuildResult, BuildResult]
) -> None:
    order = replace(
        small.write("child", CHILD + CHECKS % "/etc/mine"), mode=LockMode.LOCKED, compression=Compression.ZSTD
    )
    zstd = build(replace(order, output=small.folder / "zstd"), small.build_env)
    assert zstd.image.config_descriptor == pair[1].image.config_descriptor
    assert zstd.image.digest != pair[1].image.digest and not zstd.locked.wrote
    assert {layer.blob.media_type.rpartition("+")[2] for layer in zstd.image.layers} == {"zstd"}


def test_another_parent_makes_the_lock_stale(small: Family) -> None:
    small.write("changing", SMALL + RUNS)
    order = small.write("follower", CHILD.replace("from: base", "from: changing"))
    first = build(order, small.build_env)
    small.write("changing", SMALL + RUNS.replace("kept: parent", "kept: differently"))
    with pytest.raises(ResolutionError) as caught:
        build(replace(order, mode=LockMode.LOCKED), small.build_env)
    assert caught.value.code == "lock-stale"
    assert first.locked.parent is not None
    assert f"the parent image changed (config {first.locked.parent.config} → sha256:" in str(caught.value)
    second = build(order, small.build_env)
    assert second.locked.wrote and "~ parent changing" in second.locked.changes[0]
    assert [layer.diff_id for layer in second.image.layers] == [layer.diff_id for layer in first.image.layers]


def test_nothing_is_built_on_a_parent_that_fails(small: Family) -> None:
    small.write("broken", SMALL + RUNS + CHECKS % "/not/there")
    order = replace(small.write("hopeful", CHILD.replace("from: base", "from: broken")), smoke=True)
    with pytest.raises(SmokeError) as caught:
        build(order, small.build_env)
    assert caught.value.code == "parent-failed" and "'broken'" in str(caught.value)
    assert not (small.folder / "output" / "hopeful").exists()


def test_children_that_are_built_side_by_side_share_their_parent(small: Family) -> None:
    small.write("shared", SMALL + RUNS + CHECKS % "/usr/bin/sh")
    for number in range(3):
        small.write(f"beside-{number}", CHILD.replace("from: base", "from: shared") + CHECKS % "/etc/mine")
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "pipeline", "build", str(small.folder / f"beside-{number}.yaml"), "--json"),
                *("--output", str(small.folder / "together"), "--store", str(small.build_env.store.root)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        for number in range(3)
    ]
    told = [process.communicate(timeout=HUNG) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], told
    parents = [json.loads(out)["built"][0]["parent"] for out, _ in told]
    assert {parent["recipe"] for parent in parents} == {"shared"} and len({p["digest"] for p in parents}) == 1
    assert all(b"from shared sha256:" in err for _, err in told)
    assert validate_layout(small.folder / "together" / "shared") == ()
    assert (small.folder / "together" / "shared.report" / "evidence.json").exists()


REFUSED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "modern": ("requirement-missing", ("watcher >= 2",)),
    "enemy": ("parent-fixed", ("enemy-1-1.noarch conflicts with watcher", "rebuild 'base' without watcher-1-1.noarch")),
    "watcher >= 2": ("package-missing", ("watcher >= 2",)),
}


@pytest.mark.parametrize("wanted", REFUSED)
def test_what_would_change_the_parents_packages_is_refused(
    wanted: str, small: Family, pair: tuple[BuildResult, BuildResult]
) -> None:
    code, said = REFUSED[wanted]
    order = small.write("greedy", f"from: base\nlayers: [{{name: more, packages: ['{wanted}']}}]\n")
    with pytest.raises(RelbuildError) as caught:
        build(order, small.build_env)
    told = f"{caught.value} {caught.value.problems[0].hint}"
    assert caught.value.code == code
    assert all(words in told for words in said), told


def test_a_newer_package_in_the_repository_asks_for_a_new_parent(
    small: Family, pair: tuple[BuildResult, BuildResult], made: Forge, tmp_path: Path
) -> None:
    """The requests to rebuild it with do what they promise."""
    folder = tmp_path / "moved"
    shutil.copytree(small.folder, folder, ignore=shutil.ignore_patterns("store", "output"))
    text = (folder / "repositories.yaml").read_text().replace(str(small.folder), str(folder))
    (folder / "repositories.yaml").write_text(text)
    moved = Family(folder, small.build_env)
    moved.build("base", SMALL + RUNS)
    newer = made.package("watcher", version="2", header="Requires: small", files=[])
    other = made.package("replacer", header="Obsoletes: small-base < 5\nProvides: small-base = 5")
    for package in (newer, other):
        shutil.copy(package, folder / "repository")
    subprocess.run(["createrepo_c", "--quiet", folder / "repository"], check=True)
    order = moved.write("greedy", "from: base\nlayers: [{name: more, packages: [modern]}]\n")
    with pytest.raises(ResolutionError) as caught:
        build(order, small.build_env)
    assert caught.value.code == "parent-fixed"
    assert "modern-1-1.noarch requires watcher >= 2" in str(caught.value)
    assert "rebuild it with 'watcher >= 2-1'" in (caught.value.problems[0].hint or "")
    replacing = moved.write("replacing", "from: base\nlayers: [{name: more, packages: [replacer]}]\n")
    with pytest.raises(
        ResolutionError, match=r"replacer-1-1\.noarch obsoletes small-base < 5, which is small-base-1-1"
    ):
        build(replacing, small.build_env)
    lock(replace(order, recipe=folder / "base.yaml", mode=LockMode.UPGRADE), small.build_env)
    assert packages(build(order, small.build_env))[0] == "modern-1-1.noarch"


def test_a_grandchild_without_packages_stands_on_two_images(
    small: Family, pair: tuple[BuildResult, BuildResult], tmp_path: Path
) -> None:
    text = (
        "from: child\nfiles: [{content: 'third', path: /etc/third}]\n"
        "remove: [/usr/lib/shared/own]\nimage: {command: [], environment: {C: third}}\n"
    )
    third = small.build("third", text)
    names = [layer.name for layer in third.image.layers]
    assert names == ["base/base", "base/state", "child/more", "child/state", "state"]
    assert [layer.diff_id for layer in third.image.layers[:-1]] == [layer.diff_id for layer in pair[1].image.layers]
    assert third.image.config.environment == ("A=parent", "B=child", "C=third")
    root = unpack(third, tmp_path)
    assert (root / "etc/mine").read_text() == "mine" and (root / "etc/third").read_text() == "third"
    assert not (root / "usr/lib/shared/own").exists()
    assert len(rpm(root, "-qa").split()) == 4
    assert "shared/own" not in rpm(root, "-V", "--nodeps", "addon", check=False)
    assert {change.cause.partition(", ")[2] for change in third.changes} == {"in the image 'child'", ""}
    assert lines(small, third, "var/lib/watcher/log") == lines(small, pair[1], "var/lib/watcher/log")
