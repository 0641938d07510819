"""Environments: whose rights relbuild has in each, and whose digests its builds must have."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sessions import InContainer, OnMachine, Session, container, podman_command
from stage import WITH_IDS, WITHOUT_IDS, Place, Stage

NOBODY, POD_USER = 65534, 1000
"""Users without an account, or whose account does not matter."""

_AS = ("setpriv", "--init-groups", "--reuid")
_MACHINE_ROOT = ("--rootfs", "/:O")
"""The machine's own root file system under an overlay: in a container, and with the same rpm as root's builds."""

_POD = ("--cap-drop", "all", "--security-opt", "no-new-privileges", "--read-only", "--read-only-tmpfs=false")
"""A pod's `securityContext` (restricted), as podman has it: allowPrivilegeEscalation false, capabilities dropped,
readOnlyRootFilesystem. The folder `work` is its emptyDir; there is no other place to write, no /tmp either."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One row of the table.

    `uid` owns its folder; `reference` names the environment that its digests are compared with.
    """

    name: str
    title: str
    open: Callable[[Stage, Place], contextlib.AbstractContextManager[Session]]
    uid: int = 0
    reference: str = "root"
    read_only_home: bool = False
    own_image: bool = False


def _wrapped(*words: str) -> Callable[[Stage, Place], contextlib.AbstractContextManager[Session]]:
    return lambda stage, place: contextlib.nullcontext(OnMachine(stage, place, words))


def _filtered(stage: Stage, place: Place) -> contextlib.AbstractContextManager[Session]:
    program = ("/usr/bin/python3", stage.without_privileges, str(NOBODY))
    return contextlib.nullcontext(OnMachine(stage, place, program))


def _home_read_only(stage: Stage, place: Place) -> contextlib.AbstractContextManager[Session]:
    words = (*_AS, WITH_IDS[0], "--regid", WITH_IDS[0])
    return contextlib.nullcontext(OnMachine(stage, place, words, {"RELBUILD_STORE": f"{place.work}/store"}))


def _machine_root(
    name: str, *rights: str, store: bool = False
) -> Callable[..., contextlib.AbstractContextManager[Session]]:
    @contextlib.contextmanager
    def opened(stage: Stage, place: Place) -> Iterator[Session]:
        podman = stage.enter(*podman_command(place.storage))
        variables = stage.variables(place)
        if store:
            variables |= {"RELBUILD_STORE": f"{place.work}/store", "HOME": str(place.work)}
        folders = [f"{stage.libraries}:{stage.libraries}:ro", f"{stage.mirror}:{stage.mirror}:ro"]
        folders += [f"{path}:{path}" for path in ((place.work,) if store else (place.home, place.work))]
        options = [*rights, *(word for folder in folders for word in ("--volume", folder))]
        options += [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
        with container(podman, name, options, (*_MACHINE_ROOT, "sleep", "infinity")):
            yield InContainer(podman, name, ("/usr/bin/python3", "-m", "pipeline"), str(place.work))

    return opened


def _own_image(
    name: str, *rights: str, rootless: bool = False, store: str = "/var/lib/relbuild/store"
) -> Callable[..., contextlib.AbstractContextManager[Session]]:
    @contextlib.contextmanager
    def opened(stage: Stage, place: Place) -> Iterator[Session]:
        place.work.chmod(0o777)  # The user of the image is another one than the folder's.
        (place.work / "recipes").chmod(0o777)  # Locks are written there.
        podman = stage.enter(*podman_command(place.storage))
        if rootless:
            account = (*_AS, WITH_IDS[0], "--regid", WITH_IDS[0])
            own = ("env", f"HOME={place.home}", f"XDG_RUNTIME_DIR={place.home}", "--chdir=/")
            podman = stage.enter(*account, *own, *podman_command(place.storage))
        variables = {**stage.common_variables(), "RELBUILD_MIRROR": "/mirror", "RELBUILD_STORE": store}
        options = [*rights, "--volume", f"{stage.mirror}:/mirror:ro", "--volume", f"{place.work}:/work"]
        options += ["--volume", f"{stage.folder}:{stage.folder}:ro"]
        options += [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
        with container(podman, name, options, (f"oci:{stage.own_image}:{stage.own_tag()}",)):
            yield InContainer(podman, name, ("relbuild",), "/work")

    return opened


ENVIRONMENTS = (
    Environment("root", "root", _wrapped()),
    Environment(
        "root-without-capabilities",
        "root without capabilities",
        _wrapped("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
    ),
    Environment(
        "user-with-sub-ids",
        "an ordinary user with sub-ids",
        _wrapped(*_AS, WITH_IDS[0], "--regid", WITH_IDS[0]),
        uid=WITH_IDS[1],
    ),
    Environment(
        "user-without-sub-ids",
        "an ordinary user without sub-ids",
        _wrapped(*_AS, WITHOUT_IDS[0], "--regid", WITHOUT_IDS[0]),
        uid=WITHOUT_IDS[1],
    ),
    Environment(
        "no-user-namespaces",
        "uid 65534 without account and capabilities, a filter refuses namespaces and mounts",
        _filtered,
        uid=NOBODY,
    ),
    Environment(
        "read-only-home",
        "an ordinary user with sub-ids whose home is read-only, `RELBUILD_STORE` elsewhere",
        _home_read_only,
        uid=WITH_IDS[1],
        read_only_home=True,
    ),
    Environment(
        "podman",
        "podman's default profile (root in the container), this machine's root file system",
        _machine_root("podman"),
    ),
    Environment(
        "pod",
        "a pod: uid 1000, no capability, no privilege escalation, read-only root file system, an emptyDir and nothing "
        "else to write in",
        _machine_root("pod", "--user", str(POD_USER), *_POD, store=True),
        uid=POD_USER,
    ),
    Environment(
        "own-image-privileged",
        "relbuild's image, `--privileged --user 0`",
        _own_image("privileged", "--privileged", "--user", "0"),
        reference="own-image-privileged",
        own_image=True,
    ),
    Environment(
        "own-image",
        "relbuild's image, podman's default profile (the image's user)",
        _own_image("default"),
        reference="own-image-privileged",
        own_image=True,
    ),
    Environment(
        "own-image-rootless",
        "relbuild's image, podman's default profile, rootless podman of an ordinary user with sub-ids",
        _own_image("rootless", rootless=True),
        uid=WITH_IDS[1],
        reference="own-image-privileged",
        own_image=True,
    ),
    Environment(
        "own-image-pod",
        "relbuild's image in a pod as above",
        _own_image("pod", "--user", str(POD_USER), *_POD, "--env", "HOME=/work", store="/work/store"),
        uid=POD_USER,
        reference="own-image-privileged",
        own_image=True,
    ),
)
