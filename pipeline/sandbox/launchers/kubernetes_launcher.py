"""Launch images as pods of a Kubernetes cluster: push by digest, create, watch, remove.

Written by Kubernetes' documents; tests hold the manifest and the command lines, and not more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Protocol

from pipeline import process
from pipeline.errors import EnvironmentLacking, SmokeError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.account_files import ACCOUNTS_LIMIT
from pipeline.model.image import Image
from pipeline.model.limits import Limits
from pipeline.model.smoke import Check, SmokePlan, Variant
from pipeline.model.value_comparison import mismatch
from pipeline.sandbox.container_user import resolve_user
from pipeline.sandbox.instance_launch import LOG_LIMIT
from pipeline.sandbox.launchers.client_command import CLIENT_OUTPUT_TIMEOUT, end_client
from pipeline.sandbox.launchers.engine_launcher import asked_from_outside
from pipeline.sandbox.launchers.kubectl import Kubectl
from pipeline.sandbox.launchers.launcher import KeptVolumes, Launcher, launcher_lacks
from pipeline.sandbox.launchers.pod_instance import PodInstance
from pipeline.sandbox.launchers.pod_manifest import PodStart, pod_manifest
from pipeline.sandbox.launchers.pod_watch import PodStatus, PodWatch
from pipeline.sandbox.launchers.port_forwards import PortForwards
from pipeline.sandbox.output import Capture
from pipeline.sandbox.removals import RemovalCommand, write_removals
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.sandbox_registry import SandboxRegistry, SandboxSlot

_CREATE_TIMEOUT = 60.0

_START_TIMEOUT = 600.0
"""Seconds for a pod to get a node, which pulls the image: 400 MB over a slow network."""

_NEVER_STARTED = ("StartError", "ContainerCannotRun")
"""Reasons of containers that have ended without having been started."""

_FINAL = (
    *("ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
)
"""Reasons of containers that wait for something that nobody will change meanwhile."""


class ImagePush(Protocol):
    """Puts an image where a cluster can pull it."""

    def __call__(self, image: Image, address: str) -> None:
        """Push `image` without a tag to the repository at `address`, registry://HOST/NAME."""


@dataclass(slots=True)
class KubernetesLauncher(Launcher):
    """A launcher by a Kubernetes cluster.

    `address` is the repository from which it pulls, registry://HOST/NAME; `sandboxes` are the folders in which what was
    made is recorded, so that it is removed, also by the reaper.
    """

    kubectl: Kubectl
    address: str
    sandboxes: SandboxRegistry
    push: ImagePush
    _probed: int = 0
    _pushed: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return str(self.kubectl)

    @property
    def identified(self) -> bool:
        """As `Launcher` says: another cluster of this version may have other nodes."""
        return bool(self.kubectl.cluster)

    @property
    def place(self) -> str:
        """The repository as pods name it, HOST/NAME."""
        return self.address.partition("://")[2]

    def refuse(self, plan: SmokePlan) -> None:
        """As `Launcher` says; the port that pods' nodes probe is the plan's."""
        self._probed = require_pod_answers(plan)

    def opened(self) -> contextlib.AbstractContextManager[None]:
        """As `Launcher` says: they share nothing."""
        return contextlib.nullcontext()

    def volumes(self, name: str) -> contextlib.AbstractContextManager[KeptVolumes]:
        """As `Launcher` says. Raises UsageError `launcher-lacks`: the volumes of a pod end with it."""
        raise launcher_lacks("kubernetes", "a restart on the same volumes")

    @contextlib.contextmanager
    def launch(
        self, image: Image, lowers: Sequence[Path], limits: Limits, *, name: str, user: str, volumes: KeptVolumes | None
    ) -> Iterator[PodInstance]:
        """As `Launcher` says; the image is pushed with its first instance.

        Raises EnvironmentLacking `pod-refused`, VerificationError `launcher-image`.
        """
        assert volumes is None
        with self._lock:
            if str(image.digest) not in self._pushed:
                self.push(image, self.address)
                self._pushed.add(str(image.digest))
        passwd, group = (image_text(lowers, path) for path in ("etc/passwd", "etc/group"))
        with contextlib.ExitStack() as closing:
            slot = closing.enter_context(self.sandboxes.slot(name))
            start = PodStart(
                _plain_name(slot.name),
                hostname=_plain_name(name),
                image=f"{self.place}@{image.digest}",
                architecture=image.config.architecture,
                limits=limits,
                identity=resolve_user(user or image.config.user, passwd, group),
                volumes=image.config.volumes,
                probed=self._probed,
            )
            instance = self._created(start, name, slot, closing)
            instance.passwd, instance.group = passwd, group
            require_running_image(instance.watch.status.image_id, image)
            yield instance

    def _created(self, start: PodStart, name: str, slot: SandboxSlot, closing: contextlib.ExitStack) -> PodInstance:
        """Create a pod, and return it once its container has been started."""
        kubectl = self.kubectl.within(slot.folder)
        pod = start.name
        write_removals(slot.folder, RemovalCommand(self.kubectl.remove(pod), self.kubectl.exists(pod)))
        manifest = json.dumps(pod_manifest(start)).encode()
        created = process.run(kubectl.create(), stdin=manifest, timeout=_CREATE_TIMEOUT, check=False)
        if created.status or created.timed_out:
            said = created.stderr.decode(errors="replace").strip()[-2000:] or "no reason given"
            raise EnvironmentLacking(
                "pod-refused",
                f"kubectl could not create a pod: {said}",
                hint="check the context and the namespace, and that relbuild's account may create, get, list, watch "
                "and delete pods there, and use pods/log, pods/exec and pods/portforward",
            )
        watch = PodWatch(kubectl, pod)
        closing.callback(watch.close)
        watch.start()
        status = watch.wait_for(_settled, _START_TIMEOUT)
        if not _was_started(status):
            why = ": ".join(filter(None, (status.reason, status.message))) or "no reason given"
            raise SmokeError(
                "not-started",
                f"the pod could not be started: {why}",
                hint=f"check that the cluster may pull from {self.place} and has room for the pod, and that the "
                "entrypoint and its interpreter are in the image and executable",
            )
        uid, gid = os.geteuid(), os.getegid()
        output = closing.enter_context(Capture(LOG_LIMIT, uid=uid, gid=gid, last=CLIENT_OUTPUT_TIMEOUT))
        following = process.start(kubectl.logs(pod), stdout=output.write_end, stderr=output.write_end)
        closing.callback(end_client, following)
        output.started()
        forwards = PortForwards(kubectl, pod, slot.folder)
        closing.callback(forwards.close)
        empty = slot.folder / "none"
        empty.mkdir()
        root = os.open(empty, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        closing.callback(os.close, root)
        instance = PodInstance(name, start, kubectl, RootFs(root, 0), watch, forwards, output)
        closing.callback(instance.kill)
        return instance


def _plain_name(name: str) -> str:
    """Return a name of the form that pods and hosts have (RFC 1123 label)."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[-63:].lstrip("-")


def _settled(status: PodStatus) -> bool:
    return (status.running and bool(status.image_id)) or status.exit_code is not None or status.reason in _FINAL


def _was_started(status: PodStatus) -> bool:
    if status.running:
        return True
    return status.exit_code is not None and bool(status.image_id) and status.reason not in _NEVER_STARTED


def image_text(lowers: Sequence[Path], path: str) -> str:
    """Return the content of a file in an image, "" if it has none.

    `lowers` are its unpacked layers, the lowest first.
    """
    for lower in reversed(lowers):
        handle = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            files = RootFs(handle, 0)
            found = files.stat(path, follow=False)
            if found is not None:
                # A whiteout is a device (overlayfs.rst), and nothing else but a file is read.
                regular = stat.S_ISREG(found.st_mode)
                return (files.read(path, limit=ACCOUNTS_LIMIT) or b"").decode(errors="replace") if regular else ""
        finally:
            os.close(handle)
    return ""


def require_running_image(told: str, image: Image) -> None:
    """Require that the image which a node runs is the tested one.

    `told` is `imageID` of a container's status: a reference with the manifest's digest, or, of some runtimes, the
    digest of the configuration. Raises VerificationError `launcher-image`.
    """
    digest = told.rpartition("@")[2].rpartition("/")[2]
    if digest not in (str(image.digest), str(image.config_descriptor.digest)):
        raise VerificationError(
            "launcher-image",
            f"the cluster runs another image: {image.digest} was pushed, its node tells '{told[:300]}'",
            hint="check the registry that the cluster pulls from, and what stands between",
        )


def require_pod_answers(plan: SmokePlan) -> int:
    """Refuse a plan of which a pod cannot be asked something, before anything is launched.

    Returns the port that only has to take connections, which the pod's node probes; 0 if there is none. Raises
    UsageError `launcher-lacks`.
    """
    if plan.neighbours is not None:
        raise launcher_lacks("kubernetes", "'smoke.neighbours'")
    if plan.upgrade_from:
        raise launcher_lacks("kubernetes", "'smoke.upgrade_from'")
    if Variant.READ_ONLY in plan.variants:
        raise launcher_lacks("kubernetes", f"'smoke.variants' {Variant.READ_ONLY}")
    probed = 0
    for check in (*((plan.ready,) if plan.ready else ()), *plan.checks):
        what = f"the check '{check.name}'"
        if not asked_from_outside(check):
            raise launcher_lacks("kubernetes", f"{what} ({check.kind})")
        if check.user:
            raise launcher_lacks("kubernetes", f"'user' of {what}")
        if check.signal:
            raise launcher_lacks("kubernetes", f"'signal' of {what}")
        if _asks_for_connections(check):
            if probed not in (0, check.port):
                raise launcher_lacks("kubernetes", f"{what} of a second port, {check.port}, without 'expect'")
            probed = check.port
    return probed


def _asks_for_connections(check: Check) -> bool:
    """Return whether a check is of a port and content with no answer."""
    return bool(check.port) and not mismatch(check.expect.stdout, "", "the answer")
