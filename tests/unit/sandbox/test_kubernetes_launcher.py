"""The launcher by a Kubernetes cluster: manifest, command lines, what it refuses, and what is read of a pod."""

from __future__ import annotations

import errno
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import process
from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError
from pipeline.model.check_kind import Expectation
from pipeline.model.checks import CheckKind
from pipeline.model.image import Image
from pipeline.model.limits import LIMITS, Limits
from pipeline.model.smoke import Check, Neighbours, SmokePlan, Variant
from pipeline.model.value_rules import Rule
from pipeline.oci import make_image
from pipeline.sandbox.container_user import Identity
from pipeline.sandbox.launchers.engine_launcher import ASKED_FROM_OUTSIDE
from pipeline.sandbox.launchers.kubectl import Kubectl, with_variables
from pipeline.sandbox.launchers.kubernetes_launcher import (
    KubernetesLauncher,
    image_text,
    require_pod_answers,
    require_running_image,
)
from pipeline.sandbox.launchers.launcher_kinds import parse_kubernetes, parse_launcher
from pipeline.sandbox.launchers.pod_instance import POD_LIMITS
from pipeline.sandbox.launchers.pod_manifest import PodStart, pod_manifest
from pipeline.sandbox.launchers.pod_watch import PodStatus, PodWatch, pod_status, watch_events
from tests.support.kubectl_folder import KubectlFolder, kubectl_folder, refused
from tests.support.patience import HUNG
from tests.support.tiny_image import CONFIG

PLACE = "registry.example:5000/tests/tiny"
DIGEST = "sha256:" + "a" * 64
KUBECTL = Kubectl(("kubectl", "--context", "test"), "1.31.2")
LIMITED = Limits(milli_cpus=500, memory=64 << 20, pids=50, tmpfs=1 << 20, volume=2 << 20)
START = PodStart(
    "mark-tiny-1-ab",
    "tiny-1",
    f"{PLACE}@{DIGEST}",
    "amd64",
    LIMITED,
    Identity(27, 28, (29,)),
    volumes=("/var/lib/server",),
    probed=3306,
)


# --- manifest and command lines ------------------------------------------------------------------------------


def test_the_manifest_has_the_digest_the_limits_and_no_privileges() -> None:
    assert pod_manifest(START) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mark-tiny-1-ab", "labels": {"app.kubernetes.io/managed-by": "relbuild"}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 3600,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": "tiny-1",
            "nodeSelector": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
            "securityContext": {
                "runAsUser": 27,
                "runAsGroup": 28,
                "runAsNonRoot": True,
                "supplementalGroups": [29],
                "seccompProfile": {"type": "RuntimeDefault"},
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "containers": [
                {
                    "name": "tested",
                    "image": f"{PLACE}@{DIGEST}",
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "privileged": False,
                        "readOnlyRootFilesystem": True,
                    },
                    "resources": {"limits": {"cpu": "500m", "memory": "67108864"}},
                    "volumeMounts": [
                        {"name": "volume-0", "mountPath": "/var/lib/server"},
                        {"name": "volume-1", "mountPath": "/tmp"},
                        {"name": "volume-2", "mountPath": "/run"},
                        {"name": "volume-3", "mountPath": "/dev/shm"},
                    ],
                    "readinessProbe": {"tcpSocket": {"port": 3306}, "periodSeconds": 1, "failureThreshold": 1},
                }
            ],
            "volumes": [
                {"name": "volume-0", "emptyDir": {"sizeLimit": "2097152"}},
                {"name": "volume-1", "emptyDir": {"medium": "Memory", "sizeLimit": "1048576"}},
                {"name": "volume-2", "emptyDir": {"medium": "Memory", "sizeLimit": "1048576"}},
                {"name": "volume-3", "emptyDir": {"medium": "Memory", "sizeLimit": "1048576"}},
            ],
        },
    }


def test_root_no_limits_and_no_probe_are_left_as_they_are() -> None:
    spec: Any = pod_manifest(replace(START, identity=Identity(0, 0), limits=Limits(), probed=0))["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is False
    assert spec["containers"][0]["resources"] == {"limits": {}} and "readinessProbe" not in spec["containers"][0]


def test_every_command_of_kubectl() -> None:
    call = ["kubectl", "--context", "test"]
    assert KUBECTL.create() == [*call, "create", "--filename", "-"]
    watch = ["get", "pod", "p", "--watch", "--output-watch-events", "--output", "json"]
    assert KUBECTL.watch("p") == [*call, *watch]
    assert KUBECTL.exists("p") == [*call, "get", "pod", "p", "--output", "name"]
    assert KUBECTL.look_up("p") == [*call, "get", "pod", "p", "--ignore-not-found", "--output", "name"]
    assert KUBECTL.logs("p") == [*call, "logs", "--follow", "p", "--container", "tested"]
    executed = [*call, "exec", "--stdin", "p", "--container", "tested", "--", "id", "-u"]
    assert KUBECTL.execute("p", ("id", "-u")) == executed
    assert KUBECTL.forward("p", 80) == [*call, "port-forward", "--address", "127.0.0.1", "pod/p", ":80"]
    delete, options = [*call, "delete", "pod"], ["--ignore-not-found", "--grace-period"]
    assert KUBECTL.delete("p", 50) == [*delete, "p", *options, "50", "--wait=false"]
    assert KUBECTL.remove("p") == [*delete, *options, "1", "--timeout", "50s", "p"]
    assert KUBECTL.within(Path("/s")).create() == [*call, "--cache-dir", "/s/kubectl", "create", "--filename", "-"]


def test_the_variables_by_which_the_cluster_is_found_reach_the_reaper_too() -> None:
    given = {"HOME": "/h", "KUBECONFIG": "/h/a:/h/b", "AWS_SECRET_ACCESS_KEY": "s", "PATH": "/p"}
    assert with_variables("kubectl", given) == ("env", "HOME=/h", "KUBECONFIG=/h/a:/h/b", "kubectl")
    assert with_variables("kubectl", {}) == ("kubectl",)
    here = with_variables("kubectl", {"KUBECONFIG": "own/config:"})
    assert here == ("env", f"KUBECONFIG={Path.cwd()}/own/config", "kubectl"), "the reaper is in another folder"


def test_each_limit_has_a_reason_why_it_reads_as_unenforced() -> None:
    assert set(POD_LIMITS) == {limit.name for limit in LIMITS}


# --- the value of --launcher -----------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> KubectlFolder:
    return kubectl_folder(tmp_path / "bin")


def test_a_cluster_is_named_with_the_repository_that_it_pulls_from_and_options(cluster: KubectlFolder) -> None:
    found = parse_kubernetes(f"{cluster.program}:{PLACE} --namespace tests", {"KUBECONFIG": "/k"})
    assert found is not None
    kubectl, address = found
    assert kubectl.command == ("env", "KUBECONFIG=/k", str(cluster.program), "--namespace", "tests")
    named = "kubernetes 1.31.2 (cluster 0f1e2d3c-0000-4000-8000-00000000cafe) --namespace tests"
    assert (str(kubectl), address) == (named, f"registry://{PLACE}")
    assert cluster.calls("version") == [["version", "--output", "json"]]
    plain = parse_kubernetes(f"{cluster.program}:registry+http://localhost:5001/a", {})
    assert plain is not None and plain[1] == "registry+http://localhost:5001/a"


@pytest.mark.parametrize("told", ["forbidden", "", "no such\nnamespace", "x" * 99])
def test_a_cluster_that_does_not_tell_its_own_uid_is_not_identified(cluster: KubectlFolder, told: str) -> None:
    cluster.says(cluster=told)
    found = parse_kubernetes(f"{cluster.program}:{PLACE}", {})
    assert found is not None and str(found[0]) == "kubernetes 1.31.2 (cluster not identified)"
    launcher = KubernetesLauncher(*found, None, lambda image, address: None)  # type: ignore[arg-type]
    assert not launcher.identified


@pytest.mark.parametrize("place", ["", "redis", "r.example/a:latest", f"r.example/a@{DIGEST}", "r.example/A", "a/"])
def test_without_a_repository_to_pull_from_nothing_is_launched(place: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_kubernetes(f"kubernetes:{place}", {})
    assert refused(error)[0] == "launcher-place" and "kubernetes:HOST/NAME" in error.value.problems[0].hint


def test_kubectl_that_is_missing_or_has_no_cluster_is_said(
    cluster: KubectlFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.program.write_text("#!/bin/sh\necho 'connection refused' >&2\necho '{}'\nexit 1\n")
    with pytest.raises(EnvironmentLacking) as error:
        parse_kubernetes(f"{cluster.program}:{PLACE}", {})
    assert refused(error) == ("cluster-unreachable", "kubectl does not reach its cluster: connection refused")
    monkeypatch.setattr(process, "find_program", lambda program: None)
    with pytest.raises(EnvironmentLacking) as missing:
        parse_kubernetes(f"kubernetes:{PLACE}", {})
    assert refused(missing)[0] == "launcher-missing" and "'kubectl'" in refused(missing)[1]


def test_other_launchers_are_no_clusters_and_the_hint_names_them() -> None:
    assert parse_kubernetes("podman --root /a", {}) is None and parse_kubernetes("'", {}) is None
    with pytest.raises(UsageError) as error:
        parse_launcher("lxc")
    assert "kubernetes:HOST/NAME" in error.value.problems[0].hint


# --- what is refused before anything is launched ---------------------------------------------------------------


def check(kind: CheckKind, **more: object) -> Check:
    return Check("mine", kind, 5000, **more)  # type: ignore[arg-type]


def lacking(plan: SmokePlan) -> str:
    with pytest.raises(UsageError) as error:
        require_pod_answers(plan)
    code, message = refused(error)
    assert code == "launcher-lacks" and message.endswith("cannot be done by the launcher kubernetes")
    return message


@pytest.mark.parametrize("kind", list(CheckKind), ids=str)
def test_kinds_that_look_from_the_host_are_refused_by_name(kind: CheckKind) -> None:
    plan = SmokePlan(None, (check(kind),))
    if str(kind) in ASKED_FROM_OUTSIDE:
        assert require_pod_answers(plan) == 0
    else:
        assert f"the check 'mine' ({kind})" in lacking(plan)


def test_what_kubectl_cannot_do_is_refused_by_name() -> None:
    assert "'smoke.neighbours'" in lacking(SmokePlan(neighbours=Neighbours()))
    assert "'smoke.upgrade_from'" in lacking(SmokePlan(upgrade_from="old"))
    assert "read-only" in lacking(SmokePlan(variants=(Variant.READ_ONLY,)))
    assert "'user' of the check 'mine'" in lacking(SmokePlan(check(CheckKind.COMMAND, user="27")))
    assert "'signal' of the check 'mine'" in lacking(SmokePlan(None, (check(CheckKind.STOP, signal="SIGINT"),)))
    assert require_pod_answers(SmokePlan(variants=(Variant.ARBITRARY_UID,))) == 0


def test_one_port_may_be_asked_for_connections_alone_because_a_pod_has_one_probe() -> None:
    bare = check(CheckKind.PORT, port=80)
    answers = replace(bare, port=81, expect=Expectation(stdout=(Rule(matches="hello"),)))
    silent = replace(bare, port=81, expect=Expectation(stdout=(Rule(lacks="error"),)))
    assert require_pod_answers(SmokePlan(bare, (answers, bare))) == 80
    assert "a second port, 81" in lacking(SmokePlan(bare, (silent,)))


# --- what a cluster tells ----------------------------------------------------------------------------------------


def test_a_container_is_waiting_runs_or_has_ended() -> None:
    assert pod_status({}) == pod_status(None) == pod_status({"status": {"containerStatuses": 3}}) == WAITING
    evicted = {"status": {"phase": "Failed", "reason": "Evicted", "message": "low on disk"}}
    assert pod_status(evicted) == PodStatus(exit_code=137, reason="Evicted", message="low on disk")
    nowhere = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    unscheduled = pod_status({"status": {"phase": "Pending", "conditions": [nowhere]}})
    assert unscheduled == replace(WAITING, reason="Unschedulable", message="0/3 nodes")
    killed = {"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "imageID": "i"}
    ended = pod_status({"status": {"phase": "Failed", "containerStatuses": [killed]}})
    assert ended == PodStatus(exit_code=137, image_id="i", reason="OOMKilled")
    assert pod_status({"status": {"phase": "Running"}}, deleted=True).exit_code == 137


WAITING = PodStatus(waiting=True)


def test_events_are_read_wherever_they_are_cut() -> None:
    event = {"type": "MODIFIED", "object": {"status": {"phase": "Failed", "message": "ä"}}}
    expired = {"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "reason": "Expired"}}
    data = "\n".join(json.dumps(one, indent=4, ensure_ascii=False) for one in (event, expired, event)).encode()
    pieces = iter([data[at : at + 1] for at in range(len(data))])
    found = list(watch_events(lambda: next(pieces, b"")))
    assert found == [PodStatus(exit_code=137, message="ä")] * 2


IMAGE: Image = make_image("tiny", "1.0", replace(CONFIG, exposed_ports=("80/tcp",)), ())


@pytest.mark.parametrize("form", ["{place}@{manifest}", "docker-pullable://{place}@{manifest}", "{config}"])
def test_the_tested_image_is_known_by_its_manifest_or_configuration(form: str) -> None:
    told = form.format(place=PLACE, manifest=IMAGE.digest, config=IMAGE.config_descriptor.digest)
    require_running_image(told, IMAGE)


@pytest.mark.parametrize("told", ["", f"{PLACE}@{DIGEST}", DIGEST, f"{PLACE}:latest"])
def test_another_image_is_refused(told: str) -> None:
    with pytest.raises(RelbuildError) as error:
        require_running_image(told, IMAGE)
    assert refused(error)[0] == "launcher-image" and str(IMAGE.digest) in refused(error)[1]


def test_accounts_are_read_from_the_uppermost_layer_that_has_them(tmp_path: Path) -> None:
    lowers = [tmp_path / name for name in ("a", "b", "c")]
    for lower in lowers:
        (lower / "etc").mkdir(parents=True)
    (lowers[0] / "etc/passwd").write_text("old")
    (lowers[1] / "etc/passwd").write_text("new")
    assert image_text(lowers, "etc/passwd") == "new" and image_text(lowers, "etc/group") == ""
    (lowers[2] / "etc/passwd").symlink_to("/etc/hostname")
    assert image_text(lowers, "etc/passwd") == ""


def test_a_watch_ends_no_group_whose_client_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = tmp_path / "kubectl"
    event = {"type": "DELETED", "object": {}}
    client.write_text(f"#!/bin/sh\necho '{json.dumps(event)}'\n")
    client.chmod(0o755)
    watch = PodWatch(Kubectl((str(client),)), "p")
    watch.start()
    assert watch.wait_for(lambda status: status.exit_code is not None, HUNG).exit_code == 137
    assert watch._thread is not None
    watch._thread.join(HUNG)
    monkeypatch.setattr(process, "kill_group", lambda _: pytest.fail("its number may be another process's"))
    watch.close()


def test_a_client_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watch = PodWatch(Kubectl((str(tmp_path / "kubectl"),)), "p")
    tried = threading.Semaphore(0)

    def refused(*_: object, **__: object) -> None:
        tried.release()
        raise OSError(errno.EAGAIN, "no process more")

    monkeypatch.setattr(process, "start", refused)
    watch.start()
    assert tried.acquire(timeout=HUNG) and tried.acquire(timeout=HUNG)
    watch.close()
    assert watch.status.exit_code is None


def test_what_a_pod_ran_is_known_also_when_its_end_does_not_say_it() -> None:
    watch = PodWatch(KUBECTL, "p")
    watch._tell(PodStatus(running=True, image_id="registry/x@sha256:1"))
    watch._tell(PodStatus(exit_code=137, reason="Evicted"))
    assert (watch.status.image_id, watch.status.exit_code) == ("registry/x@sha256:1", 137)
