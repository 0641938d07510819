"""Whole lives of pods, launched with a program as kubectl: no cluster is asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import RelbuildError, UsageError
from pipeline.model.check_kind import Expectation
from pipeline.model.checks import CheckKind
from pipeline.model.image import Image
from pipeline.model.limits import Limits
from pipeline.model.smoke import Check, SmokePlan
from pipeline.model.value_rules import Rule
from pipeline.oci import make_image
from pipeline.sandbox.launchers.kubectl import Kubectl
from pipeline.sandbox.launchers.kubernetes_launcher import (
    KubernetesLauncher,
)
from pipeline.sandbox.launchers.pod_instance import NOT_ISOLATED, PodInstance
from pipeline.sandbox.removals import run_removals
from pipeline.smoke.run import smoke
from tests.support.kubectl_folder import KubectlFolder, kubectl_folder, refused
from tests.support.patience import HUNG
from tests.support.tiny_image import CONFIG

PLACE = "registry.example:5000/tests/tiny"
DIGEST = "sha256:" + "a" * 64
LIMITED = Limits(milli_cpus=500, memory=64 << 20, pids=50, tmpfs=1 << 20, volume=2 << 20)
IMAGE: Image = make_image("tiny", "1.0", replace(CONFIG, exposed_ports=("80/tcp",)), ())


def check(kind: CheckKind, **more: object) -> Check:
    return Check("mine", kind, int(HUNG * 1000), **more)  # type: ignore[arg-type]


@pytest.fixture
def cluster(tmp_path: Path) -> KubectlFolder:
    return kubectl_folder(tmp_path / "bin")


@dataclass
class Slots:
    """Stands for the registry of sandboxes: folders whose removals are executed at the end."""

    folder: Path
    made: list[Path] = field(default_factory=list)

    @contextlib.contextmanager
    def slot(self, label: str) -> Iterator[SimpleNamespace]:
        made = self.folder / f"Mark.1-{label}-0123"
        made.mkdir(parents=True)
        self.made.append(made)
        try:
            yield SimpleNamespace(name=made.name, folder=made)
        finally:
            run_removals(made)


@dataclass
class Launched:
    cluster: KubectlFolder
    launcher: KubernetesLauncher
    lower: Path
    pushed: list[tuple[str, str]]

    def instance(self, user: str = "") -> contextlib.AbstractContextManager[PodInstance]:
        return self.launcher.launch(IMAGE, [self.lower], LIMITED, name="tiny-1", user=user, volumes=None)


@pytest.fixture
def launched(cluster: KubectlFolder, tmp_path: Path) -> Launched:
    lower, pushed = tmp_path / "lower", list[tuple[str, str]]()
    (lower / "etc").mkdir(parents=True)
    (lower / "etc/passwd").write_text("server:x:27:28::/srv:/sbin/nologin\n")
    (lower / "etc/group").write_text("more:x:29:server\n")
    launcher = KubernetesLauncher(
        Kubectl((str(cluster.program),), "1.31.2", "cafe"),
        f"registry://{PLACE}",
        Slots(tmp_path / "live"),  # type: ignore[arg-type]
        lambda image, address: pushed.append((str(image.digest), address)),
    )
    return Launched(cluster, launcher, lower, pushed)


def test_a_smoke_test_of_a_pod_from_push_to_removal(launched: Launched) -> None:
    plan = SmokePlan(
        check(CheckKind.PORT, port=80),
        (
            replace(check(CheckKind.PORT, port=81), expect=Expectation(stdout=(Rule(matches="^hello from 81$"),))),
            replace(check(CheckKind.COMMAND, command=("cat",), stdin="abc"), expect=Expectation(stdout=(Rule("abc"),))),
            check(CheckKind.LOG, log=(Rule(matches="^serving$"),)),
            replace(check(CheckKind.STOP), within=60_000),
        ),
        LIMITED,
    )
    report = smoke(IMAGE, [launched.lower], plan, sandboxes=launched.launcher, clock=time.time)
    assert report.passed, [one.detail for one in report.instances[0].checks]
    assert report.runtime == "kubernetes 1.31.2 (cluster cafe)" and launched.pushed == [
        (str(IMAGE.digest), f"registry://{PLACE}")
    ]
    (instance,) = report.instances
    assert instance.loopback_ports is None, "its sockets cannot be seen from here"
    assert instance.exit_code == 0 and instance.log == "serving\nbye\n"
    assert [reading.enforced for reading in instance.limits] == [False] * len(instance.limits)
    names = {reading.name: reading.reason for reading in instance.limits}
    assert set(names) >= {"cpus", "memory", "pids", "tmpfs", "volume /var/lib/server", "isolation"}
    assert names["isolation"] == NOT_ISOLATED
    cluster = launched.cluster
    spec = cluster.pod["spec"]
    assert cluster.pod["metadata"]["name"] == spec["hostname"].replace("tiny-1", "mark-1-tiny-1-0123")
    assert spec["containers"][0]["image"] == f"{PLACE}@{IMAGE.digest}"
    assert spec["containers"][0]["readinessProbe"]["tcpSocket"] == {"port": 80}
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["supplementalGroups"]) == (27, [29])
    stopped, removed = cluster.calls("delete")
    assert stopped[-3:] == ["--grace-period", "90", "--wait=false"] and removed[-2] == "50s"


def test_commands_have_their_own_exit_status_and_stderr(launched: Launched) -> None:
    with launched.instance(user="1234:0") as instance:
        assert launched.cluster.pod["spec"]["securityContext"]["runAsUser"] == 1234
        failed = instance.execute(["false"])
        assert (failed.status, failed.stderr) == (7, b"no\n")
        missing = instance.execute(["missing"])
        assert missing.status == 127 and b"not found" in missing.stderr
        assert instance.execute(["id"], environment={"A": "b"}).stdout == b"env A=b id\n"
        with pytest.raises(RelbuildError) as error:
            instance.execute(["id"], user="root")
        assert refused(error)[0] == "command-user"
        assert instance.identity("server").uid == 27 and instance.main_user == (1234, 0)
        assert instance.alive and instance.kill() == 0 and not instance.processes()
    assert instance.wait(0) == 0


def test_of_a_pods_command_that_floods_a_bound_is_kept_and_its_exit_status(launched: Launched) -> None:
    with launched.instance() as instance:
        done = instance.execute(("flood",))
    assert (done.status, len(done.stdout), len(done.stderr)) == (7, 1 << 20, 1 << 20)
    assert done.dropped >= 2 * (3_000_000 - (1 << 20))


def test_a_port_is_not_connected_to_until_the_node_says_that_it_answers(launched: Launched) -> None:
    launched.cluster.says(ready=False)
    launched.launcher.refuse(SmokePlan(check(CheckKind.PORT, port=80)))
    with launched.instance() as instance:
        with pytest.raises(ConnectionRefusedError, match="not ready"):
            instance.connect(80, timeout=HUNG)
        for _ in range(2):
            with instance.connect(81, timeout=HUNG) as connection:
                assert connection.recv(100) == b"hello from 81"
        assert len(launched.cluster.calls("port-forward")) == 1
        instance.kill()
        with pytest.raises(ConnectionRefusedError, match="ended"):
            instance.connect(81, timeout=HUNG)


def test_a_pod_without_memory_has_ended_for_that_reason(launched: Launched) -> None:
    launched.cluster.says(terminated={"exitCode": 137, "reason": "OOMKilled"})
    with launched.instance() as instance:
        assert instance.wait(HUNG) == 137 and instance.usage().oom_kills == 1


def test_a_pod_that_somebody_else_removed_has_ended(launched: Launched) -> None:
    launched.cluster.says(vanishes=True)
    with launched.instance() as instance:
        (launched.cluster.folder / "deleted").touch()
        assert instance.wait(HUNG) == 137


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        ({"refusal": 'pods is forbidden: violates PodSecurity "restricted"'}, "pod-refused", "violates PodSecurity"),
        ({"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}, "not-started", "no such host"),
        ({"terminated": {"exitCode": 128, "reason": "StartError"}}, "not-started", "StartError"),
        ({"image_id": f"{PLACE}@{DIGEST}"}, "launcher-image", DIGEST),
    ],
)
def test_a_pod_that_cannot_be_tested_is_removed_and_says_why(
    launched: Launched, told: dict[str, object], code: str, words: str
) -> None:
    launched.cluster.says(**told)
    with pytest.raises(RelbuildError) as error, launched.instance():
        pass
    assert refused(error)[0] == code and words in refused(error)[1]
    assert "--timeout" in launched.cluster.calls("delete")[-1]


def test_volumes_that_outlive_a_pod_are_refused(launched: Launched) -> None:
    with pytest.raises(UsageError) as error:
        launched.launcher.volumes("tiny-1")
    assert refused(error)[0] == "launcher-lacks"
