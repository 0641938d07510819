"""Launch an image from its unpacked blobs: to smoke-test it, run it, or draft checks.

The layers are unpacked from the blobs that are published, with digest and diff_id checked, or were written while these
were made, with the same diff_id (docs/decisions/0053-one-pass-from-payload-to-tree.md).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from pipeline import layers, sandbox
from pipeline import smoke as smoke_room
from pipeline.beneath import GivenFolder, PathEscape, escape_error
from pipeline.digest import Digest, identity
from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import Expectation
from pipeline.model.checks import CheckKind, listening_check, port_check, stop_check
from pipeline.model.checks.listening_check import ListeningFacts
from pipeline.model.evidence import Contents, Evidence
from pipeline.model.image import Image
from pipeline.model.json_form import from_json, to_json
from pipeline.model.limits import Limits
from pipeline.model.published_port import PublishedPort
from pipeline.model.report import SmokeReport
from pipeline.model.smoke import Check, SmokePlan
from pipeline.oci import load_layout_image
from pipeline.progress import Progress
from pipeline.store import Store

FORMAT = 9
"""To be raised when the same image, checks and runtime may give another verdict."""

CONTENTS_FORMAT = 3
"""To be raised when the same image may give other contents."""

STOP_TIMEOUT = 10.0
"""Seconds that an instance gets to end after its stop signal when a person stops it, as `docker stop` gives."""

SHELLS = ("/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh")

_ALL_NAMESPACES = ("--user", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--root", "--wd")
_NAMESPACES_WITHOUT_FILES = ("--net", "--pid", "--ipc", "--uts")


# --- smoke tests -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """A smoke report, whether it is a remembered one, and its evidence if it passed."""

    report: SmokeReport
    reused: bool
    evidence: Evidence | None


def run_tests(
    image: Image,
    plan: SmokePlan,
    *,
    store: Store,
    sandboxes: sandbox.SandboxRegistry | sandbox.Launcher,
    progress: Progress,
    clock: Callable[[], float],
    again: bool = False,
    full: bool = False,
    folder: Path = Path(),
    holding: smoke_room.FailureHold | None = None,
) -> SmokeResult:
    """Launch `image` under the limits of `plan` and ask its checks.

    Its neighbours are tested only if `full`. The layers are unpacked from the store's blobs, with digest and diff_id
    checked on the way. A passing verdict on the same image, the same plan and the same runtime is reused unless
    `again`, or unless the launcher cannot tell which runtime it has. An image that does not pass is no error here: the
    report says so. `folder` is the recipe's, which `upgrade_from` is relative to.

    Raises UsageError `upgrade-from-missing`; EnvironmentLacking, such as `architecture-foreign`; VerificationError
    `diff-id-mismatch` if a tree is found to be damaged meanwhile, or again and again before.
    """
    whole, plan = plan, plan_to_test(plan, full=full)
    launcher = sandbox.as_launcher(sandboxes)
    launcher.refuse(plan)
    checks, runtime = smoke_room.plan_digest(plan), str(launcher)
    older = _older(plan, folder, store) if plan.upgrade_from else None
    images = (image, older) if older else (image,)
    tested = [layer for one in images for layer in one.layers]
    damages = layers.lower_damages(tested, store)
    emulator = sandbox.emulator_label(image.config.architecture)
    label = {"emulator": emulator} if emulator else {}

    def name() -> Digest:
        parts = {"plan": checks, "runtime": runtime, "older": older.digest if older else None, **label}
        return identity("smoke", FORMAT, image=image.digest, **parts, **layers.damages_identity(damages))

    known = None if again or not launcher.identified else store.recall_as(name(), _read_report)
    if known is not None and known.passed and known.image == image.digest:
        contents = _contents(image, store, progress)
        if damages == layers.lower_damages(tested, store):
            smoke_room.warn_of_loopback(known, image.name, progress)
            evidence = Evidence(image.digest, checks, runtime, plan == whole, known, contents)
            return SmokeResult(known, reused=True, evidence=evidence)
    lowers, damages = layers.unpack_undamaged(  # A damaged tree is unpacked again, as after a power cut.
        lambda: [unpack_layers(one, store, progress) for one in images], tested, damages, store
    )
    report = smoke_room.smoke(
        image,
        lowers[0],
        plan,
        sandboxes=launcher,
        progress=progress,
        clock=clock,
        older=(older, lowers[1]) if older else None,
        holding=holding,
        emulator=emulator,
    )
    found = _contents(image, store, progress) if report.passed else None
    layers.require_undamaged(tested, damages, store, "the image was tested")
    smoke_room.warn_of_loopback(report, image.name, progress)
    if found is None:
        return SmokeResult(report, reused=False, evidence=None)
    store.remember(name(), smoke_room.report_json(report))
    evidence = Evidence(image.digest, checks, runtime, plan == whole, report, found)
    return SmokeResult(report, reused=False, evidence=evidence)


def plan_to_test(plan: SmokePlan, *, full: bool) -> SmokePlan:
    """Return the part of a recipe's plan that is to be tested: its neighbours only if `full`."""
    return plan if full else replace(plan, neighbours=None)


def _read_report(value: object) -> SmokeReport:
    if not isinstance(value, dict):
        raise TypeError("a report is an object")
    return smoke_room.read_report(value)


def _contents(image: Image, store: Store, progress: Progress) -> Contents:
    """Read the packages and privileged files of an image; remembered per image."""
    damages = layers.lower_damages(image.layers, store)
    name = identity("contents", CONTENTS_FORMAT, image=image.digest, **layers.damages_identity(damages))
    known = store.recall_as(name, lambda value: from_json(Contents, value))
    if known is not None:
        return replace(known, name=image.name)
    contents = layers.read_contents(image, unpack_layers(image, store, progress))
    store.remember(name, to_json(contents))
    return contents


def unpack_layers(image: Image, store: Store, progress: Progress) -> tuple[Path, ...]:
    """Unpack the layers of an image in the store, unless they are; return folders, lowest first."""
    return layers.lower_folders(image.layers, store=store, progress=progress)


def _older(plan: SmokePlan, folder: Path, store: Store) -> Image:
    path = folder / plan.upgrade_from
    try:
        there = GivenFolder(folder).has_folder(path)
    except PathEscape as error:
        raise escape_error(error, "smoke.upgrade_from") from None
    if not there:
        raise UsageError(
            "upgrade-from-missing",
            f"the older image for the upgrade test was not found: '{path}'",
            hint="put an OCI layout of the older version there, or remove smoke.upgrade_from",
        )
    return load_layout_image(path, store=store)


def default_smoke_plan(image: Image) -> SmokePlan:
    """Return a smoke plan for an image without a recipe.

    Its checks hold for any image: it listens on its exposed ports and no others, and stops at its stop signal.
    """
    ports = image.config.tcp_ports
    ready = (
        Check("ready", CheckKind(port_check.DECLARATION.name), 60_000, Expectation(exit_code=None), port=ports[0])
        if ports
        else None
    )
    checks = (
        Check("listens where it says", CheckKind(listening_check.DECLARATION.name), 10_000, subject=ListeningFacts()),
        Check("stops when told to", CheckKind(stop_check.DECLARATION.name), 20_000, Expectation(exit_code=None)),
    )
    return SmokePlan(ready, checks)


# --- run ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostMount:
    """A file or folder of the host, mounted at `path` in the container.

    `named`: `source` is a volume's name in the store, one for each instance, kept from run to run.
    """

    source: str
    path: str
    named: bool = False
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `relbuild run`: instances, limits, ports, mounts, environment.

    `name`: of a single instance; "": they are named after the image and numbered.
    """

    instances: int = 1
    limits: Limits = Limits()
    publish: tuple[PublishedPort, ...] = ()
    mounts: tuple[HostMount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


_STOP_SLICE = 0.1
"""Seconds between looks whether instances that stop are to be killed sooner."""


@dataclass(frozen=True, slots=True)
class ImageRun:
    """Instances that run for a person. `ports`: for each instance, (host, container)."""

    instances: tuple[sandbox.Instance, ...]
    ports: tuple[tuple[tuple[int, int], ...], ...]
    stop_signal: str

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all have ended; return whether they have."""
        for instance in self.instances:
            if instance.alive:
                return instance.wait(timeout) is not None and all(not other.alive for other in self.instances)
        return True

    def stop(self, within: Callable[[], float] = lambda: STOP_TIMEOUT) -> None:
        """Send all the image's stop signal, and kill what still runs after `within()` seconds.

        `within` is asked again while they stop: somebody may want it sooner.
        """
        began = time.monotonic()
        for instance in self.instances:
            instance.stop(self.stop_signal, 0.0)
        while (left := began + within() - time.monotonic()) > 0 and not self.wait(min(left, _STOP_SLICE)):
            pass
        for instance in self.instances:
            if instance.alive:
                instance.kill()

    @property
    def exit_code(self) -> int:
        """The first exit code that is not 0, else 0."""
        return next((instance.exit_code for instance in self.instances if instance.exit_code), 0)


@contextlib.contextmanager
def run_image(
    image: Image,
    options: RunOptions,
    *,
    store: Store,
    sandboxes: sandbox.SandboxRegistry,
    progress: Progress,
    follow: Callable[[str, bytes], None],
    configured: Callable[[RunOptions], RunOptions] = lambda options: options,
) -> Iterator[ImageRun]:
    """Run instances of `image` for as long as the block lasts, in one network.

    They can connect to one another. `follow` is called with an instance's name and a piece of its output, in a thread
    of its own. Ports are reserved before anything else, also before `configured`, in which a person may edit files. It
    returns the options with other mounts, names and variables. Raises SmokeError, UsageError, EnvironmentLacking.
    """
    with contextlib.ExitStack() as closing:
        # First, so that a port that is taken is told before anything was done for it.
        reserved = deque(
            closing.enter_context(_reserved(port, number))
            for number in range(options.instances)
            for port in options.publish
        )
        try:
            options = configured(options)
            lowers = unpack_layers(image, store, progress)
            network = closing.enter_context(sandbox.open_network(talk=True))
            instances, ports = [], []
            for number in range(options.instances):
                name = options.name or f"{image.name}-{number + 1}"
                launched = sandbox.launch(
                    image.config,
                    lowers,
                    options.limits,
                    sandboxes=sandboxes,
                    name=name,
                    network=network,
                    environment=options.environment,
                    bindings=[_binding(mount, number, store) for mount in options.mounts],
                    follow=_follower(name, follow),
                )
                instances.append(closing.enter_context(launched))
                ports.append(tuple(_publish(closing, instances[-1], reserved, options.publish)))
        except BaseException:
            for listening in reserved:  # Before instances are ended: nothing will answer who connects.
                listening.close()
            raise
        yield ImageRun(tuple(instances), tuple(ports), image.config.stop_signal)


def _publish(
    closing: contextlib.ExitStack,
    instance: sandbox.Instance,
    reserved: deque[socket.socket],
    ports: Sequence[PublishedPort],
) -> Iterator[tuple[int, int]]:
    """Forward the next reserved ports to an instance; yield (host, container) of each."""
    for port in ports:
        yield closing.enter_context(sandbox.publish_port(instance, reserved[0], port.container)), port.container
        reserved.popleft()


def _follower(name: str, follow: Callable[[str, bytes], None]) -> Callable[[bytes], None]:
    return lambda piece: follow(name, piece)


def _reserved(port: PublishedPort, number: int) -> contextlib.AbstractContextManager[socket.socket]:
    return sandbox.reserve_port(port.host + number if port.host else 0)


def _volume_folder(mount: HostMount, number: int, store: Store) -> Path:
    return store.volume(f"{mount.source}-{number + 1}")


def _binding(mount: HostMount, number: int, store: Store) -> sandbox.BindMount:
    if mount.named:
        # A new volume is filled once the image's root is mounted.
        source = _volume_folder(mount, number, store)
        return sandbox.BindMount(source, mount.path, read_only=mount.read_only, begun=True)
    source = Path(mount.source).absolute()
    if not source.exists():
        raise UsageError(
            "file-missing", f"the bind mount source '{source}' for '{mount.path}' does not exist", hint="check the path"
        )
    if source.is_char_device() or source.is_block_device():
        raise UsageError(
            "bind-impossible",
            f"'{source}' is a device, which a container cannot have",
            hint="mount an empty file to hide one of the image's",
        )
    return sandbox.BindMount(source, mount.path, read_only=mount.read_only)


def shell_of(instance: sandbox.LaunchedInstance) -> str | None:
    """Find a shell in the image, or None."""
    for path in SHELLS:
        status = instance.files.stat(path)
        if status is not None and status.st_mode & 0o111:
            return path
    return None


def enter_command(instance: sandbox.LaunchedInstance) -> tuple[str, ...]:
    """Return a command line of the host that opens a shell in the instance.

    The shell is the image's own, as its user, or where it has none the host's, in all namespaces but that of the
    files (these are in /proc/PID/root).
    """
    target = ("nsenter", "--target", str(instance.pid))
    shell = shell_of(instance)
    if shell is None:
        return (*target, *_NAMESPACES_WITHOUT_FILES, "--", "/bin/sh")
    uid, gid = instance.main_user
    user = ("--setuid", str(uid), "--setgid", str(gid))
    return (*target, *_ALL_NAMESPACES, *user, "--", shell)


# --- drafts ----------------------------------------------------------------------------------------------


def draft_smoke_checks(
    image: Image,
    plan: SmokePlan,
    *,
    store: Store,
    sandboxes: sandbox.SandboxRegistry,
    progress: Progress,
    settling: float,
) -> str:
    """Launch an image and draft `smoke` of a recipe from the running instance, as YAML.

    The instance is observed once it is ready and has run `settling` seconds more. Raises SmokeError if the image does
    not start.
    """
    lowers = unpack_layers(image, store, progress)
    name = f"{image.name}-record"
    with sandbox.launch(image.config, lowers, plan.limits, sandboxes=sandboxes, name=name) as instance:
        return smoke_room.draft_checks(instance, image, plan, settling=settling, pause=threading.Event().wait)
