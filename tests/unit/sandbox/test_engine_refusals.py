"""What launchers by a container engine refuse, and what they leave unenforced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError
from pipeline.model.checks import CheckKind
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.enforcement import enforcement, unenforced
from pipeline.model.limit import LimitReading
from pipeline.model.limits import Limits
from pipeline.model.smoke import Check, Neighbours, SmokePlan, Variant
from pipeline.oci import make_image
from pipeline.sandbox.cgroups import Cgroup, Hierarchies
from pipeline.sandbox.launchers import engine_launcher
from pipeline.sandbox.launchers.container_engine import ContainerEngine
from pipeline.sandbox.launchers.engine_cgroup import engine_cgroup
from pipeline.sandbox.launchers.engine_instance import ISOLATION, EngineInstance
from pipeline.sandbox.launchers.engine_launcher import (
    ASKED_FROM_OUTSIDE,
    EngineLauncher,
    require_launchable,
    require_same_image,
)
from pipeline.sandbox.launchers.podman import Podman
from pipeline.sandbox.sandbox_registry import SandboxSlot
from tests.support.engine_starts import IMAGE, PODMAN, RUNSC, start
from tests.support.tested_images import report
from tests.support.tiny_image import CONFIG

pytestmark = pytest.mark.usefixtures("unlimited")


def lacking(engine: ContainerEngine, plan: SmokePlan) -> str:
    with pytest.raises(UsageError) as refused:
        require_launchable(engine, plan)
    (problem,) = refused.value.problems
    assert problem.code == "launcher-lacks" and "--launcher" in problem.hint
    return problem.message


def check(kind: CheckKind, **more: object) -> Check:
    return Check("mine", kind, 1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(CheckKind), ids=str)
def test_an_engine_in_sight_can_ask_all_kinds_and_another_refuses_by_name(kind: CheckKind) -> None:
    plan = SmokePlan(None, (check(kind),))
    require_launchable(PODMAN, plan)
    if str(kind) in ASKED_FROM_OUTSIDE:
        require_launchable(RUNSC, plan)
    else:
        assert f"the check 'mine' ({kind}) cannot be done by the launcher runsc" in lacking(RUNSC, plan)


def test_a_socket_in_the_image_and_its_authorities_are_out_of_sight_of_some() -> None:
    for asked in (HttpRequest(socket="/run/a"), HttpRequest(port=1, tls=True, trust="/etc/ca.pem")):
        assert "'mine'" in lacking(RUNSC, SmokePlan(check(CheckKind.HTTP, subject=asked)))
    require_launchable(RUNSC, SmokePlan(check(CheckKind.HTTP, subject=HttpRequest(port=1))))


def test_neighbours_and_the_read_only_variant_need_the_own_sandbox() -> None:
    assert "'smoke.neighbours'" in lacking(PODMAN, SmokePlan(neighbours=Neighbours()))
    assert "read-only" in lacking(PODMAN, SmokePlan(variants=(Variant.READ_ONLY,)))
    require_launchable(PODMAN, SmokePlan(variants=(Variant.ARBITRARY_UID,)))


@pytest.mark.parametrize("told", [["b" * 64], ["sha256:" + "b" * 64, IMAGE], ["a" * 64, "sha256:" + "c" * 64], []])
def test_another_image_than_the_tested_one_is_refused(told: list[str]) -> None:
    with pytest.raises(Exception, match="image") as refused:
        require_same_image(["a" * 64, "b" * 64], told, PODMAN)
    assert refused.value.problems[0].code == "launcher-image"  # type: ignore[attr-defined]


def test_the_same_image_is_known_by_one_digest_or_both() -> None:
    for told in (["a" * 64], [IMAGE], [IMAGE, "sha256:" + "b" * 64]):
        require_same_image(["a" * 64, "b" * 64], told, PODMAN)


class Slots:
    """A registry whose slots are folders, without root."""

    hierarchies = Hierarchies({})

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def slot(self, label: str) -> Iterator[SandboxSlot]:
        folder = self.folder / label
        folder.mkdir(exist_ok=True)
        yield SandboxSlot(label, folder, Cgroup(self.hierarchies, label, folder), 0, 0)


def launched_by(script: str, folder: Path) -> EngineInstance:
    """Launch an image by a program that answers as Podman, and return the instance."""
    image = make_image("tiny", "1.0", CONFIG, ())
    program = folder / "podman"
    config = image.config_descriptor.digest.hex
    program.write_text(f"#!/bin/sh\nconfig={config} manifest={image.digest.hex}\ncase $1 in\n{script}\nesac\n")
    program.chmod(0o755)
    launcher = EngineLauncher(
        Podman((str(program),)),
        Slots(folder),  # type: ignore[arg-type]
        lambda image, target, form: target.mkdir(),
    )
    with launcher.opened(), launcher.launch(image, (), Limits(), name="one", user="", volumes=None) as instance:
        return instance


ENDED = f"image) echo $config;; run) exit 0;; inspect) echo 0 $config {'c' * 64};; load|kill) ;;"


RUNNING = "image) echo $config sha256:$manifest;; run) exec sleep 600;; load|kill) ;;"


@pytest.mark.parametrize(
    ("container", "code"),
    [
        (f"echo 1 {'b' * 64} {'c' * 64}", "launcher-image"),
        # Process 1 is of this machine, and of no such container.
        (f"echo 1 $config {'c' * 64}", "launcher-elsewhere"),
    ],
)
def test_what_is_not_the_container_of_the_image_on_this_machine_is_refused_and_its_client_ended(
    container: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_launcher, "_END_SEEN", 0.1)
    with pytest.raises(RelbuildError) as refused:
        launched_by(f"{RUNNING} inspect) {container};;", tmp_path)
    assert refused.value.code == code
    assert [path for path in Path("/proc").glob("[0-9]*/cwd") if is_link_to(path, tmp_path / "one")] == []


def test_an_engine_that_cannot_load_is_at_fault_and_not_the_image(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacking) as refused:
        launched_by("load) echo no space >&2; exit 125;;", tmp_path)
    assert refused.value.code == "launcher-failed" and "no space" in str(refused.value)


def is_link_to(path: Path, target: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.readlink() == target
    return False


def test_of_a_command_that_floods_a_bound_is_kept(tmp_path: Path) -> None:
    done = launched_by(f"{ENDED} exec) head -c 3000000 /dev/zero;;", tmp_path).execute(("flood",))
    assert (done.status, len(done.stdout), done.dropped) == (0, 1 << 20, 3_000_000 - (1 << 20))
    assert not done.stderr_dropped
    (other := tmp_path / "other").mkdir()
    done = launched_by(f"{ENDED} exec) head -c 3000000 /dev/zero >&2;;", other).execute(("flood",))
    assert (len(done.stderr), done.dropped, done.stderr_dropped) == (1 << 20, *[3_000_000 - (1 << 20)] * 2)


def test_a_comma_in_an_images_volume_begins_no_other_option() -> None:
    line = PODMAN.run(start(volumes={'/x,type=bind,source=/,"y"': "v-0"}))
    assert line[line.index("--mount") + 1] == 'type=volume,source=v-0,"destination=/x,type=bind,source=/,""y"""'


def test_what_a_launcher_lacks_reads_as_unenforced_so_that_a_rule_can_refuse_it() -> None:
    reading = LimitReading(ISOLATION, 1, 0, False, PODMAN.not_isolated)
    whole = report(make_image("tiny", "1.0", CONFIG, ()))
    found = enforcement(replace(whole, instances=(replace(whole.instances[0], limits=(reading,)),)))
    assert unenforced(["isolation*"], found) == (f"isolation ({PODMAN.not_isolated})",)


def test_a_group_is_found_by_the_first_process(tmp_path: Path) -> None:
    for name in ("memory", "cpu"):
        (tmp_path / name / "pod/x").mkdir(parents=True)
        (tmp_path / name / "pod/x/cgroup.procs").write_text("7\n8\n")
    (tmp_path / "memory/pod/x/memory.limit_in_bytes").write_text("4096\n")
    v1 = Hierarchies({name: tmp_path / name for name in ("memory", "cpu", "cpuacct")} | {"cpuacct": tmp_path / "cpu"})
    group = engine_cgroup("x", "5:memory:/pod/x\n3:cpu,cpuacct:/pod/x\n0::/pod/x\n", v1)
    assert group.number("memory", "memory.limit_in_bytes") == 4096 and group.processes() == {7, 8}
    ended = engine_cgroup("x", "5:memory:/\n3:cpu,cpuacct:/\n0::/\n", v1)
    assert ended.folders == {} and ended.usage().peak_memory is None and ended.usage().cpu_time is None
    v2 = engine_cgroup("x", "0::/pod/x\n", Hierarchies({}, tmp_path / "memory"))
    assert v2.folder("memory") == v2.folder("cpu") == tmp_path / "memory/pod/x"


def test_what_an_engine_out_of_sight_was_told_reads_as_unenforced(tmp_path: Path) -> None:
    instance = launched_by(ENDED, tmp_path)
    instance.engine = RUNSC
    found = {one.name: one.enforced for one in instance.readings()}
    assert found["tmpfs"] is False and not any(found.values())
