"""A recipe for two architectures: built, run, tested and published here, the foreign one through an emulator."""

from __future__ import annotations

import base64
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import IndexResult, build_architectures
from pipeline.errors import BuildError, EnvironmentLacking
from pipeline.launch import run_tests
from pipeline.layers import state_layer
from pipeline.mirror.address_parser import parse_address
from pipeline.model.configuration import oci_architecture
from pipeline.oci import validate_layout
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.release import PublishOptions, publish, verify_reference
from pipeline.resolve import read_lock
from pipeline.sandbox import emulation, instance_launch
from pipeline.store import Store
from tests.support.machines import machines
from tests.support.patience import HUNG
from tests.support.product_builds import signed_repository
from tests.support.rpm_factory import Forge
from tests.support.sampling import SOAK
from tests.support.signing_examples import KEY, PRIVATE
from tests.support.static_programs import server, success
from tests.support.tiny_root import require_root
from tests.support.webserver import nginx
from tests.system.abreast.test_clients import podman, run  # noqa: F401  a fixture

ROOT = Path(__file__).parents[3]
ARCHITECTURES = ("x86_64", "aarch64")
FOREIGN = next(arch for arch in ARCHITECTURES if arch != platform.machine())
RECIPE = """
name: tiny
version: "{{ packages['tiny'].version }}"
platform: small
architectures: [x86_64, aarch64]
layers: [{name: base, packages: [tiny]}]
image: {entrypoint: [/usr/bin/serve], stop_signal: SIGKILL}
smoke:
  limits: {memory: 64MiB, pids: 10}
  ready: {log: serving, within: 60s}
  checks:
    - {name: runs, process: {command: "^/usr/bin/serve$", count: {is: 1}}}
"""


def package(made: Forge, arch: str, release: str = "1", scriptlet: str = "") -> Path:
    """The product: a server, and a scriptlet in a program of the package's own architecture, or of `scriptlet`."""
    programs = {"serve": server(arch), "succeed": success(scriptlet or arch)}
    encoded = {name: base64.b64encode(program).decode() for name, program in programs.items()}
    install = "mkdir -p usr/bin etc dev proc run sys tmp; " + "; ".join(
        f"echo {text} | base64 -d >usr/bin/{name}; chmod 755 usr/bin/{name}" for name, text in encoded.items()
    )
    files = ["/etc", *(f"/usr/bin/{name}" for name in programs)]
    sections = "%post -p /usr/bin/succeed\n"
    return made.package(
        "tiny", release=release, arch=arch, install=install, files=files, sections=sections, target=arch
    )


@pytest.fixture(scope="module")
def folder(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and a repository with packages of both architectures."""
    folder = tmp_path_factory.mktemp("architectures")
    text = signed_repository(folder, made.key, *(package(made, arch) for arch in ARCHITECTURES))
    (folder / "repositories.yaml").write_text(text.replace("[x86_64]", "[x86_64, aarch64]"))
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "store").mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="module")
def env(folder: Path) -> BuildEnvironment:
    return BuildEnvironment(Store.open(folder / "store"), QUIET, {"HOME": str(folder)}, time.time)


@pytest.fixture(scope="module")
def options(folder: Path) -> BuildOptions:
    return BuildOptions(folder / "tiny.yaml", folder / "repositories.yaml", output=folder / "output")


@pytest.fixture(scope="module")
def both(options: BuildOptions, env: BuildEnvironment) -> IndexResult:
    return build_architectures(options, env)


def test_each_image_is_of_its_architecture_and_tested_as_this_machine_can(
    both: IndexResult, options: BuildOptions
) -> None:
    reports = {}
    for arch, made in zip(ARCHITECTURES, both.members, strict=True):
        assert [str(one.package.nevra) for one in made.locked.all_chosen] == [f"tiny-1-1.{arch}"]
        assert made.layout == options.output / f"tiny.{arch}"
        assert made.report is not None and made.report.passed, made.report
        reports[arch] = json.loads((made.report_folder / "report.json").read_text())["smoke"]
    assert reports[platform.machine()]["emulator"] == ""
    assert reports[FOREIGN]["emulator"].startswith("qemu-")
    assert both.index is not None and both.layout == options.output / "tiny"
    assert validate_layout(both.layout) == ()
    lock = read_lock(both.members[0].locked.path)
    assert lock is not None
    assert sorted(section.resolution.arch for section in lock.sections) == sorted(ARCHITECTURES)


@pytest.mark.parametrize("running", [False, True], ids=["before it starts", "while it runs"])
def test_an_image_that_says_another_architecture_than_its_program_has_fails(
    both: IndexResult, env: BuildEnvironment, monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    if running:  # As if a script had started it.
        monkeypatch.setattr(instance_launch, "require_entry_program", lambda *_: None)
    for member, said in zip(both.members, ("arm64", "amd64"), strict=True):
        image = replace(member.image, config=replace(member.image.config, architecture=said))
        plan = replace(member.report.asked, variants=()) if member.report and member.report.asked else None
        assert plan is not None
        tested = run_tests(
            image, plan, store=env.store, sandboxes=env.sandboxes(), progress=QUIET, clock=env.clock, again=True
        )
        assert not tested.report.passed and tested.evidence is None
        results = {check.name: check.detail for check in tested.report.instances[0].checks if not check.passed}
        assert "the program '/usr/bin/serve' is for" in results["starts"], results
        assert f"the image is for {said}" in results["starts"]


def test_one_publication_is_an_index_that_clients_pull_by_platform(
    both: IndexResult,
    env: BuildEnvironment,
    tmp_path: Path,
    podman: Callable[..., str],  # noqa: F811
) -> None:
    address = parse_address(f"dir:{tmp_path}/mirror")
    (done,) = publish(PublishOptions((both.layout,), address, KEY, known_as="mirror.test/team"), env)
    assert both.index is not None and done.digest == both.index.digest
    verified = verify_reference(parse_address(f"dir:{tmp_path}/mirror/tiny:latest"), KEY.public, env)
    assert verified.held.digest == done.digest
    with nginx(tmp_path / "mirror", tmp_path / "nginx") as host:
        for name, made in zip(("amd64", "arm64"), both.members, strict=True):
            copied = tmp_path / name
            asked = ("--override-arch", name, "copy", "--quiet", "--src-tls-verify=false")
            run("skopeo", *asked, f"docker://{host}/tiny:latest", f"dir:{copied}")
            assert (copied / "manifest.json").read_bytes() == made.image.manifest_bytes
            podman("pull", "--quiet", "--tls-verify=false", "--arch", name, f"{host}/tiny:latest")
            seen = json.loads(podman("image", "inspect", f"{host}/tiny:latest"))[0]
            assert (seen["Architecture"], seen["Digest"]) == (name, str(done.digest))


def test_a_night_builds_both_publishes_one_index_and_knows_it_again(folder: Path, tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name in ("tiny.yaml", "repositories.yaml"):
        shutil.copy(folder / name, recipes)
    (tmp_path / "night.key").write_bytes(PRIVATE)

    def night() -> Any:
        command = [sys.executable, "-m", "pipeline", "nightly", "recipes", "--to", "dir:mirror", "--key", "night.key"]
        done = subprocess.run(
            [*command, "--store", folder / "store", "--json"],
            cwd=tmp_path,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=HUNG,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (product,) = json.loads(done.stdout)["products"]
        return product

    built = night()
    assert (built["outcome"], built["arch"]) == ("built", "x86_64,aarch64"), built
    by = {one["architecture"]: one["emulator"] for one in built["executions"]}
    assert list(by) == ["amd64", "arm64"] and sorted(map(bool, by.values())) == [False, True]
    listed = json.loads(run("skopeo", "inspect", "--raw", f"oci:{tmp_path}/output/tiny"))["manifests"]
    assert [one["platform"]["architecture"] for one in listed] == ["amd64", "arm64"]
    assert night()["outcome"] == "unchanged"
    # Other checks: both are tested again, and the index stays what it is.
    recipe = recipes / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("name: runs", "name: still runs"))
    again = night()
    assert (again["outcome"], again["digest"]) == ("retested", built["digest"])


def test_a_night_on_a_cluster_gives_each_member_to_a_worker_that_can_run_it(
    folder: Path, tmp_path: Path, made: Forge
) -> None:
    require_root()
    signed_repository(tmp_path / "packages", made.key, *(package(made, arch) for arch in ARCHITECTURES))
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name in ("tiny.yaml", "repositories.yaml"):
        text = (folder / name).read_text().replace(str(folder), str(tmp_path / "packages"))
        (recipes / name).write_text(text)
    (tmp_path / "night.key").write_bytes(PRIVATE)
    with machines(tmp_path) as net:
        net.scheduler()
        net.worker("native", "--no-emulation")
        net.worker("emulating")

        def night() -> Any:
            words = ["--to", "dir:mirror", "--key", "night.key", "--scheduler", net.address, "--plain-scheduler"]
            done = subprocess.run(
                [sys.executable, "-m", "pipeline", "nightly", "recipes", *words, "--store", "store", "--json"],
                cwd=tmp_path,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=HUNG,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr + net.made["emulating"].said
            (product,) = json.loads(done.stdout)["products"]
            return product

        built = night()
        assert (built["outcome"], built["why"]) == ("built", "not published yet"), built
        ran = {one["architecture"]: one for one in built["executions"]}
        foreign = ran.pop(oci_architecture(FOREIGN))
        assert foreign["worker"] == "emulating" and foreign["emulator"].startswith("qemu-")
        (own,) = ran.values()
        assert own["emulator"] == "" and own["worker"] in ("native", "emulating")
        address = parse_address(f"dir:{tmp_path}/mirror/tiny:latest")
        env = BuildEnvironment(Store.open(tmp_path / "checked"), QUIET, {"HOME": str(folder)}, time.time)
        verified = verify_reference(address, KEY.public, env)
        assert str(verified.held.digest) == built["digest"] and len(verified.held.images) == 2
        # A package of one architecture changes: its image alone is built, and the index has the other one again.
        shutil.copy(package(made, FOREIGN, "2"), tmp_path / "packages" / "repository")
        subprocess.run(["createrepo_c", "--quiet", tmp_path / "packages" / "repository"], check=True)
        updated = night()
    # Whichever worker found that the other image is unchanged is named too.
    assert updated["outcome"] == "built" and "emulating" in updated["worker"].split(", "), updated
    now = verify_reference(address, KEY.public, env).held
    assert str(now.digest) == updated["digest"] != built["digest"]
    common = {image.digest for image in now.images} & {image.digest for image in verified.held.images}
    assert [image.config.architecture for image in now.images if image.digest in common] == [own["architecture"]]


def test_a_scriptlets_program_of_another_architecture_fails_the_build(
    folder: Path, env: BuildEnvironment, options: BuildOptions, tmp_path: Path, made: Forge
) -> None:
    signed_repository(tmp_path, made.key, package(made, FOREIGN, "2", scriptlet=platform.machine()))
    for name in ("tiny.yaml", "repositories.yaml"):
        (tmp_path / name).write_text((folder / name).read_text().replace(str(folder), str(tmp_path)))
    odd = replace(options, recipe=tmp_path / "tiny.yaml", repositories=tmp_path / "repositories.yaml")
    with pytest.raises(BuildError) as caught:
        build_architectures(replace(odd, architectures=(FOREIGN,), output=tmp_path / "output"), env)
    assert caught.value.code == "program-foreign" and "'/usr/bin/succeed' is for" in str(caught.value)


def test_without_an_emulator_nothing_is_built_and_the_error_names_the_way_out(
    options: BuildOptions, env: BuildEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation.find_emulator, "__kwdefaults__", {"machine": None, "registrations": tmp_path})
    elsewhere = replace(options, output=tmp_path / "output")
    with pytest.raises(EnvironmentLacking) as caught:
        build_architectures(elsewhere, env)
    assert caught.value.code == "architecture-foreign" and "qemu-user-static" in (caught.value.problems[0].hint or "")
    assert not elsewhere.output.exists()
    # Nor is an untested image made where scriptlets cannot run.
    untested = replace(elsewhere, smoke=False, architectures=(FOREIGN,))
    monkeypatch.setattr(state_layer, "FORMAT", state_layer.FORMAT + 1000)
    with pytest.raises(EnvironmentLacking):
        build_architectures(untested, env)


@pytest.mark.skipif(not SOAK, reason="takes ten minutes, and a mirror of aarch64: RELBUILD_SOAK=1")
@pytest.mark.parametrize("name", ["nginx", "redis", "mysql"])
def test_real_products_pass_their_tests_on_both(
    name: str, recipes: Path, mirror: Path, build_env: BuildEnvironment, tmp_path: Path
) -> None:
    run(ROOT / "ci/mirror", "--output", mirror, "--arch", "aarch64", "--quiet", timeout=1800)
    wanted = BuildOptions(
        recipes / f"{name}.yaml", recipes / "repositories.yaml", architectures=ARCHITECTURES, output=tmp_path
    )
    made = build_architectures(wanted, build_env)
    assert [one.report is not None and one.report.passed for one in made.members] == [True, True]
    assert [bool(one.report and one.report.emulator) for one in made.members].count(True) == 1
    assert validate_layout(made.layout) == ()
