"""Launching an image: root, volumes, scratch file systems, the files that every runtime provides, and who it
runs as."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.errors import SmokeError
from pipeline.model.image import ImageConfig
from pipeline.model.smoke import Limits
from pipeline.sandbox.bundle import DEFAULT_PATH, ContainerPlan, Mount, ProcessPlan, write_bundle
from pipeline.sandbox.ending import end
from pipeline.sandbox.idmap import user_namespace
from pipeline.sandbox.instance import Instance, identity_in, started
from pipeline.sandbox.keeper import Keeper, keep
from pipeline.sandbox.output import Capture
from pipeline.sandbox.overlay import Overlay, mount_overlay
from pipeline.sandbox.rootfs import RootFs, copy_tree, keep_attributes
from pipeline.sandbox.runtime import last_message
from pipeline.sandbox.station import Berth, Station
from pipeline.sandbox.users import Identity

LOG_LIMIT = 8 << 20
"""Bytes kept of what an instance prints."""

OPEN_FILES = 65536
"""Descriptors per process where the recipe does not say: enough for a server, and the same everywhere."""

VOLUME_LIMIT = 4 << 30
"""Bytes that a volume may take from the image."""

_SYSTEM = ("/proc", "/dev", "/run", "/tmp")  # noqa: S108 - in the container
"""Where every container has something mounted."""

_STARTING = 30.0
"""Seconds for the runtime to make a container; it takes 0.03."""


@contextlib.contextmanager
def launch(
    config: ImageConfig, lowers: Sequence[Path], limits: Limits, *, station: Station, name: str
) -> Iterator[Instance]:
    """Start an image from its unpacked layers (lowest first) as its config says, and end it with the block.

    The root is read-only. Volumes are writable, with what the image has there; /tmp and /run are scratch file
    systems of `limits.tmpfs` bytes, /run with what the image has there and belonging to the image's user.
    Raises SmokeError when the image cannot be started, EnvironmentLacking when the machine cannot.
    """
    argv = (*config.entrypoint, *config.command)
    if not argv:
        raise SmokeError(
            "nothing-to-run", "the image has neither entrypoint nor command", hint="give it one under `image`"
        )
    with (
        station.berth(name) as berth,
        user_namespace(berth.base) as userns,
        keep() as keeper,
        contextlib.ExitStack() as closing,
    ):
        overlay = mount_overlay(
            keeper,
            lowers,
            folder=berth.folder,
            userns=userns,
            base=berth.base,
            mount_points=(*_SYSTEM, "/etc"),
        )
        closing.callback(os.close, overlay.handle)
        stage = _Stage(keeper, berth, overlay, RootFs(overlay.handle, berth.base))
        identity = identity_in(stage.files, config.user)
        mounts = [*stage.scratch(limits.tmpfs, identity), *stage.provided(name), *stage.volumes(config.volumes)]
        directory = config.working_directory or "/"
        stage.ensure_directory(directory)
        plan = ProcessPlan(
            argv,
            _environment(config, identity, name),
            directory,
            identity.uid,
            identity.gid,
            identity.groups,
            open_files=_open_files(limits),
        )
        write_bundle(
            berth.folder,
            ContainerPlan(
                process=plan,
                root=overlay.path,
                base=berth.base,
                cgroup=berth.group.path,
                build=False,
                hostname=name,
                shm=limits.tmpfs,
                mounts=mounts,
                milli_cpus=limits.milli_cpus,
                memory=limits.memory,
                pids=limits.pids,
                limit_swap=berth.group.limits_swap,
                # Servers bind to ports below 1024 without a capability: the namespace is theirs.
                sysctl={"net.ipv4.ip_unprivileged_port_start": "0"},
            ),
        )
        yield _start(station, stage, plan=plan, limits=limits, name=name, closing=closing)


def _start(
    station: Station,
    stage: _Stage,
    *,
    plan: ProcessPlan,
    limits: Limits,
    name: str,
    closing: contextlib.ExitStack,
) -> Instance:
    berth = stage.berth
    pid_file, log = berth.folder / "pid", berth.folder / "runtime.log"
    owner = {"uid": berth.base + plan.uid, "gid": berth.base + plan.gid}
    output = closing.enter_context(Capture(LOG_LIMIT, **owner))
    command: list[str | Path] = [station.runtime.path, "--root", berth.folder / "runtime"]
    command += ["--log", log, "--log-format", "json", "run", "--bundle", berth.folder, "--pid-file", pid_file]
    command += [*(["--keep"] if station.runtime.keeps_ended else []), berth.name]
    running = stage.keeper.do(process.start, command, stdout=output.write_end, stderr=output.write_end)
    output.started()

    closing.callback(end, running, berth.group)
    pid = started(
        running,
        pid_file,
        lambda: last_message(log) or output.kept.decode(errors="replace").strip()[-2000:] or "no reason given",
        within=_STARTING,
    )
    pidfd, network = _handles(pid, berth, closing)
    return Instance(
        name,
        station,
        berth,
        stage.files,
        plan,
        limits,
        stage.scratch_size(),
        stage.keeper,
        running,
        output,
        pid,
        pidfd,
        network,
        berth.group.usage(),
    )


def _handles(pid: int, berth: Berth, closing: contextlib.ExitStack) -> tuple[int, int]:
    """Descriptors of the first process and of its network namespace; -1 if it has ended already."""
    try:
        pidfd = os.pidfd_open(pid)
        closing.callback(os.close, pidfd)
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        closing.callback(os.close, network)
    except (ProcessLookupError, FileNotFoundError):
        return -1, -1
    # Were it gone, its number might be somebody else's by now: signals go to nobody but our own.
    return (pidfd, network) if pid in berth.group.processes() else (-1, -1)


@dataclass(frozen=True, slots=True)
class _Stage:
    """What is made for one instance before it starts."""

    keeper: Keeper
    berth: Berth
    overlay: Overlay
    files: RootFs

    def scratch(self, size: int, identity: Identity) -> list[Mount]:
        """The instance's /tmp and /run."""
        base = self.berth.base
        owner = {"uid": base + identity.uid, "gid": base + identity.gid}
        tmp = self.keeper.tmpfs("tmp", size=size, mode=0o1777, uid=base, gid=base)
        run = self.keeper.tmpfs("run", size=size, mode=0o755, **owner)
        for point in _SYSTEM:
            self.files.require_mount_point(point)
        with self.files.folder("/run") as source:
            target = self.keeper.do(os.open, run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with _closing(target):
                copy_tree(source, target, limit=size)
        return [Mount(tmp, "/tmp"), Mount(run, "/run")]  # noqa: S108

    def scratch_size(self) -> int:
        """Bytes of /tmp, as the kernel has it."""
        status = self.keeper.do(os.statvfs, "tmp")
        return status.f_blocks * status.f_frsize

    def provided(self, hostname: str) -> list[Mount]:
        """The files that every container runtime provides. Where the image has a symlink, it keeps it."""
        contents = {
            "/etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n",
            "/etc/hostname": f"{hostname}\n",
            "/etc/resolv.conf": "# no network\n",
        }
        mounts = []
        for path, text in contents.items():
            there = self.files.stat(path, follow=False)
            if there is not None and not stat.S_ISREG(there.st_mode):
                continue
            if there is None:
                self.files.write_file(path, b"", mode=0o644)
            file = self.berth.folder / path.rpartition("/")[2]
            file.write_text(text)
            file.chmod(0o644)
            seen = self.keeper.bind(file, f"provided/{file.name}", read_only=True)
            mounts.append(Mount(seen, path, read_only=True, executable=False))
        return mounts

    def volumes(self, paths: Sequence[str]) -> list[Mount]:
        """A writable directory for each volume, with what the image has at its path."""
        mounts = []
        for number, path in enumerate(sorted(set(paths))):
            self.ensure_directory(path)
            folder = self.berth.folder / f"volume{number}"
            folder.mkdir(mode=0o700)
            try:
                with self.files.folder(path) as source, _closing(os.open(folder, os.O_RDONLY)) as target:
                    copy_tree(source, target, limit=VOLUME_LIMIT)
                    keep_attributes(target, os.fstat(source))
                    place = self.keeper.do(_place, source, self.overlay.path)
            except NotADirectoryError as error:
                raise SmokeError(
                    "volume-impossible", f"volume {path} is not a directory in the image", place=path
                ) from error
            if place in ("/", "/proc", "/dev"):
                raise SmokeError("volume-impossible", f"{path} cannot be a volume", place=path)
            if place not in _SYSTEM:
                mounts.append(Mount(self.keeper.bind(folder, f"volume{number}", read_only=False), place))
        return mounts

    def ensure_directory(self, path: str) -> None:
        """A directory that the config names; runtimes make it if the image has none."""
        if self.files.stat(path) is None:
            self.files.make_directory(path)


def _place(handle: int, root: Path) -> str:
    """Where a directory of the root really is, symlinks resolved. In the keeper: it sees the mounts."""
    seen = Path(f"/proc/self/fd/{handle}").readlink()
    return "/" + str(seen.relative_to(root)) if seen != root else "/"


@contextlib.contextmanager
def _closing(handle: int) -> Iterator[int]:
    try:
        yield handle
    finally:
        os.close(handle)


def _environment(config: ImageConfig, identity: Identity, hostname: str) -> tuple[str, ...]:
    """The image's, and what runtimes add where it says nothing."""
    said = {line.partition("=")[0] for line in config.environment}
    given = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname, "HOME": identity.home}
    return (*config.environment, *(f"{key}={value}" for key, value in given.items() if key not in said))


def _open_files(limits: Limits) -> int:
    """Without CAP_SYS_RESOURCE nobody can have more than the hard limit; the reading then says so."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.open_files if limits.open_files is not None else OPEN_FILES
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
