"""The manifest of a pod in which an image is tested (Pod v1).

Its fields are those of kubernetes.io/docs/reference/kubernetes-api.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limits import Limits
from pipeline.model.limits.cpus import LIMIT as CPUS
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.limits.tmpfs import LIMIT as TMPFS
from pipeline.model.limits.volume import LIMIT as VOLUME
from pipeline.sandbox.container_user import Identity
from pipeline.sandbox.launchers.container_engine import SCRATCH
from pipeline.sandbox.launchers.kubectl import CONTAINER

LABELS: Mapping[str, str] = {"app.kubernetes.io/managed-by": "relbuild"}
"""Labels of all pods, by which an operator finds those that were left."""

POD_LIFETIME = 3600
"""Seconds after which Kubernetes ends a pod that nobody has removed: longer than any smoke test takes."""

_MEMORY_FOLDERS = (*SCRATCH, "/dev/shm")  # noqa: S108 - in the container


@dataclass(frozen=True, slots=True)
class PodStart:
    """The values that a pod is started with.

    `image` is HOST/NAME@DIGEST, `volumes` are the image's mount points. `probed` is the port that the node connects to
    again and again, so that the pod is "ready" while it takes connections; 0: none.
    """

    name: str
    hostname: str
    image: str
    architecture: str
    limits: Limits
    identity: Identity
    volumes: Sequence[str] = ()
    probed: int = 0


def pod_manifest(start: PodStart) -> Mapping[str, object]:
    """Return the manifest of a pod with one container, as `kubectl create` takes it."""
    volumes, mounts = _volumes(start)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": start.name, "labels": dict(LABELS)},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": POD_LIFETIME,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": start.hostname,
            "nodeSelector": {"kubernetes.io/os": "linux", "kubernetes.io/arch": start.architecture},
            "securityContext": _user(start.identity),
            "containers": [_container(start, mounts)],
            "volumes": volumes,
        },
    }


def _user(identity: Identity) -> Mapping[str, object]:
    """Return the user by its numbers: Kubernetes cannot tell of a name that it is not root's."""
    return {
        "runAsUser": identity.uid,
        "runAsGroup": identity.gid,
        "runAsNonRoot": identity.uid != 0,
        "supplementalGroups": list(identity.groups),
        "seccompProfile": {"type": "RuntimeDefault"},
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
    }


def _container(start: PodStart, mounts: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    limits: dict[str, str] = {}
    cpus, memory = start.limits[CPUS], start.limits[MEMORY]
    if cpus is not None:
        limits["cpu"] = f"{cpus}m"
    if memory is not None:
        limits["memory"] = str(memory)
    probe = {"tcpSocket": {"port": start.probed}, "periodSeconds": 1, "failureThreshold": 1}
    return {
        "name": CONTAINER,
        "image": start.image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "resources": {"limits": limits},
        "volumeMounts": list(mounts),
        **({"readinessProbe": probe} if start.probed else {}),
    }


def _volumes(start: PodStart) -> tuple[list[Mapping[str, object]], list[Mapping[str, object]]]:
    """Return the volumes of a pod, all of which end with it, and where they are mounted."""
    sizes = {path: {"sizeLimit": str(start.limits[VOLUME])} for path in sorted(set(start.volumes))}
    sizes |= {path: {"medium": "Memory", "sizeLimit": str(start.limits[TMPFS])} for path in _MEMORY_FOLDERS}
    named = [(f"volume-{number}", path, size) for number, (path, size) in enumerate(sizes.items())]
    return (
        [{"name": name, "emptyDir": size} for name, _, size in named],
        [{"name": name, "mountPath": path} for name, path, _ in named],
    )
