"""The state layer: scripts in rpm's order, in the sandbox, and nothing left that is no function of the inputs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from pipeline.build import BuildResult, build
from pipeline.compression import Compression
from pipeline.errors import VerificationError
from pipeline.launch import unpack_layers
from pipeline.oci import validate_layout, write_archive
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from tests.support.rpm_install import install_with_rpm, rpm
from tests.support.trees import merged

BASE = "setup, filesystem, glibc, bash, coreutils, shadow-utils"


class Make(Protocol):
    """Build a recipe with the given packages and more keys, without testing it."""

    def __call__(self, packages: str, more: str = "") -> BuildResult: ...


@pytest.fixture
def make(recipes: Path, build_env: BuildEnvironment, tmp_path: Path) -> Make:
    """See `Make`."""

    def act(packages: str, more: str = "") -> BuildResult:
        path = recipes / "state.yaml"
        path.write_text(
            f"name: state\nversion: '1'\nplatform: local\narchitectures: [x86_64]\n"
            f"layers: [{{name: base, packages: [{packages}], without: [docs, man]}}]\n{more}"
        )
        path.with_suffix(".lock").unlink(missing_ok=True)
        return build(
            BuildOptions(path, recipes / "repositories.yaml", smoke=False, output=tmp_path / "output"), build_env
        )

    return act


def test_scripts_run_in_the_order_with_the_arguments_and_input_that_rpm_gives_them(
    make: Make, build_env: BuildEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hardcase-scriptlets` has every kind of scriptlet and trigger, and each appends to a log what it was told;
    rpm's own log of the same transaction is the expectation."""
    monkeypatch.setattr("pipeline.layers.state_layer.LOG_FOLDER", "no/logs/are/emptied")
    others = "hardcase-lua, hardcase-identical, hardcase-hardlinks, hardcase-config, hardcase-account"
    result = make(f"{BASE}, hardcase-scriptlets, {others}")
    root = tmp_path / "root"
    root.mkdir()
    install_with_rpm(root, result, build_env)
    theirs = (root / "var/log/hardcase-scriptlets.log").read_text()
    ours = (unpack_layers(result.image, build_env.store, QUIET)[-1] / "var/log/hardcase-scriptlets.log").read_text()
    kinds = {line.split()[0] for line in theirs.splitlines()}
    assert kinds == {"pretrans", "pre", "post", "posttrans", "triggerin", "filetriggerin", "transfiletriggerin"}
    assert ours == theirs


def test_logs_that_scripts_wrote_are_emptied_and_keep_their_owners(make: Make, build_env: BuildEnvironment) -> None:
    result = make(f"{BASE}, hardcase-scriptlets")
    log = unpack_layers(result.image, build_env.store, QUIET)[-1] / "var/log/hardcase-scriptlets.log"
    assert log.stat().st_size == 0 and log.stat().st_mode & 0o7777 == 0o644


def test_the_recipes_files_have_their_owner_mode_and_the_build_time(make: Make, build_env: BuildEnvironment) -> None:
    more = (
        "accounts: {users: [{name: me, uid: 77}]}\n"
        "files:\n"
        "  - {content: 'secret', path: /etc/deep/down/key, mode: '0640', owner: root, group: me}\n"
        "  - {directory: /srv/data, mode: '1770', owner: me}\n"
        "  - {symlink: ../deep/down/key, path: /etc/link}\n"
        "remove: [/usr/bin/sha512sum]\n"
    )
    result = make(BASE, more)
    tree = merged(unpack_layers(result.image, build_env.store, QUIET))
    when = result.locked.section.build_time
    key, data, link = tree["etc/deep/down/key"], tree["srv/data"], tree["etc/link"]
    assert (key.mode, key.uid, key.gid, key.size, key.mtime) == (0o640, 0, 77, 6, when)
    assert (data.kind, data.mode, data.uid, data.gid) == ("d", 0o1770, 77, 77)
    assert (link.kind, link.link, link.mtime) == ("l", "../deep/down/key", when)
    assert tree["etc/deep"].mode == 0o755
    assert "usr/bin/sha512sum" not in tree and "usr/bin/sha256sum" in tree
    assert ("usr/bin/sha512sum", "remove in the recipe") in {(c.path, c.cause) for c in result.changes}


def test_what_is_removed_is_not_installed_to_rpm(make: Make, tmp_path: Path) -> None:
    result = make(BASE, "remove: [/usr/bin/sha512sum]\n")
    subprocess.run(
        ["umoci", "unpack", "--image", f"{result.layout}:{result.image.reference}", tmp_path / "bundle"],
        check=True,
    )
    lines = rpm(tmp_path / "bundle" / "rootfs", "-V", "--nodeps", "coreutils", check=False)
    assert lines == ""


def test_a_change_of_a_template_makes_the_state_layer_anew_and_no_other(make: Make) -> None:
    first = make(BASE, "files: [{content: one, path: /etc/x, mode: '0644'}]\n")
    again = make(BASE, "files: [{content: two, path: /etc/x, mode: '0644'}]\n")
    assert again.reused == ("base",)
    assert again.image.layers[0] == first.image.layers[0]
    assert again.image.digest != first.image.digest


def test_both_compressions_hold_the_same_tar(
    make: Make, recipes: Path, build_env: BuildEnvironment, tmp_path: Path
) -> None:
    gzip = make(BASE)
    order = BuildOptions(
        recipes / "state.yaml", recipes / "repositories.yaml", smoke=False, output=tmp_path / "zstd",
        compression=Compression.ZSTD,
    )  # fmt: skip
    zstd = build(order, build_env)
    assert [layer.diff_id for layer in zstd.image.layers] == [layer.diff_id for layer in gzip.image.layers]
    assert {layer.blob.media_type.rpartition("+")[2] for layer in zstd.image.layers} == {"zstd"}
    assert validate_layout(zstd.layout) == ()


def test_an_archive_is_one_file_that_others_load(make: Make, tmp_path: Path) -> None:
    result = make(BASE)
    for kind in ("oci", "docker"):
        target = tmp_path / f"image.{kind}.tar"
        write_archive(result.layout, target, kind)  # type: ignore[arg-type]
        seen = subprocess.run(
            ["skopeo", "inspect", f"{kind}-archive:{target}"], capture_output=True, text=True, check=True
        )
        assert json.loads(seen.stdout)["Layers"]


def test_a_recipe_can_bring_a_hotfix_leave_packages_out_pin_and_choose_languages(
    make: Make, recipes: Path, mirror: Path, build_env: BuildEnvironment
) -> None:
    (hotfix,) = (mirror / "updates").glob("hardcase-update-1.1-*.rpm")
    shutil.copy(hotfix, recipes / "hotfix.rpm")
    sha256 = hashlib.sha256(hotfix.read_bytes()).hexdigest()
    more = (
        "exclude: ['hardcase-update-1.1-1.local1', hardcase-weak-recommended]\n"
        "pins: {hardcase-update: '1.1'}\n"
        "weak-dependencies: true\n"
        "languages: [de]\n"
        "assume-installed: [hardcase-nowhere]\n"
    )
    packages = f"{BASE}, hardcase-languages, hardcase-weak, {{path: hotfix.rpm, sha256: {sha256}}}"
    result = make(packages, more)
    chosen = {c.package.nevra.name: c for c in result.locked.section.resolution.chosen}
    assert chosen["hardcase-update"].package.repository == "@file"
    assert chosen["hardcase-update"].package.checksum.hex == sha256
    assert "hardcase-weak-supplement" in chosen and "hardcase-weak-recommended" not in chosen
    (header,) = [h for h in result.locked.headers if h.nevra.name == "hardcase-languages"]
    tree = merged(unpack_layers(result.image, build_env.store, QUIET))
    spoken = {file.path.lstrip("/"): file.languages for file in header.files if file.languages}
    assert {path for path, tags in spoken.items() if path in tree} == {p for p, tags in spoken.items() if "de" in tags}
    assert len(spoken) > 1


def test_a_hotfix_that_is_not_what_the_recipe_says_is_refused(make: Make, recipes: Path, mirror: Path) -> None:
    (hotfix,) = (mirror / "updates").glob("hardcase-update-1.1-*.rpm")
    shutil.copy(hotfix, recipes / "hotfix.rpm")
    with pytest.raises(VerificationError) as caught:
        make(f"{BASE}, {{path: hotfix.rpm, sha256: {'f' * 64}}}")
    assert "hotfix.rpm" in str(caught.value)
