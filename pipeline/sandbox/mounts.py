"""Mounts of one instance, made before it starts: scratch file systems, volumes, host files."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from pipeline.errors import BuildError, SmokeError, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limit import FileSystemSize
from pipeline.sandbox import kernel
from pipeline.sandbox.mount_namespace import MountNamespace
from pipeline.sandbox.overlay import Overlay
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime_bundle import Mount
from pipeline.sandbox.sandbox_registry import SandboxSlot
from pipeline.sandbox.tree_copy import copy_attributes, copy_tree, create_copy
from pipeline.sandbox.volumes import Volume, Volumes, mount_volume

_VOLUME_COPY_LIMIT = 4 << 30
"""Bytes of the image's content that are copied into a volume."""

SYSTEM_FOLDERS = ("/proc", "/dev", "/run", "/tmp")  # noqa: S108 - in the container
"""Mount points of every container."""


@dataclass(frozen=True, slots=True)
class BindMount:
    """A bind mount of the host's file or directory `source` at `target`.

    Owners appear as they are on the host. `begun`: it is a directory, which is created with the image's content of
    `target` if it does not exist.
    """

    source: Path
    target: str
    read_only: bool = True
    begun: bool = False


@dataclass(frozen=True, slots=True)
class WritableFileSystems:
    """Descriptors of the writable file systems of an instance, by path.

    `volumes` are the paths of volumes, `loose` maps volumes without a size limit to the reason.
    """

    handles: dict[str, int] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    loose: dict[str, str] = field(default_factory=dict)

    def space(self, path: str) -> FileSystemSize:
        """Return the size of the file system at `path`, as the kernel reports it."""
        if path in self.loose:
            return FileSystemSize(path, None, why=self.loose[path])
        status = os.fstatvfs(self.handles[path])
        return FileSystemSize(path, status.f_blocks * status.f_frsize, status.f_files)

    def limited(self) -> list[str]:
        """Volumes that are file systems of their own."""
        return [path for path in self.volumes if path not in self.loose]

    def devices(self) -> list[int]:
        """Return the block devices of `limited`, as `st_dev`."""
        return [os.fstat(self.handles[path]).st_dev for path in self.limited()]

    def full(self) -> tuple[str, ...]:
        """List file systems with less than a hundredth free: `/tmp (bytes)`, `/data (inodes)`."""
        found = []
        for path, handle in self.handles.items():
            if path in self.loose:
                continue
            status = os.fstatvfs(handle)
            if status.f_bavail * 100 < status.f_blocks:
                found.append(f"{path} (bytes)")
            if status.f_ffree * 100 < status.f_files:
                found.append(f"{path} (inodes)")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class InstanceMounts:
    """Maker of an instance's mounts. Descriptors are closed by `closing`."""

    mntns: MountNamespace
    slot: SandboxSlot
    overlay: Overlay
    files: RootFs
    userns: int
    closing: contextlib.ExitStack
    file_systems: WritableFileSystems = field(default_factory=WritableFileSystems)

    def scratch(self, size: int) -> list[Mount]:
        """Make the instance's /tmp, /run and /dev/shm, and return their mounts.

        They are made here and not by the runtime, so that their usage is known even of an instance that ends at once.
        /run is as the image has it, with owner, mode and entries: where images run elsewhere it is the image's own.
        """
        base = self.slot.base
        tmp = self.mntns.tmpfs("tmp", size=size, mode=0o1777, uid=base, gid=base)
        run = self.mntns.tmpfs("run", size=size, mode=0o755, uid=base, gid=base)
        shm = self.mntns.tmpfs("shm", size=size, mode=0o1777, uid=base, gid=base)
        for point in (*SYSTEM_FOLDERS, "/etc"):
            self.files.require_mount_point(point)
        for path, folder in (("/tmp", tmp), ("/run", run), ("/dev/shm", shm)):  # noqa: S108
            handle = self.mntns.call(os.open, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.closing.callback(os.close, handle)
            self.file_systems.handles[path] = handle
        with self.files.folder("/run") as source:
            copy_tree(source, self.file_systems.handles["/run"], limit=size)
            copy_attributes(self.file_systems.handles["/run"], source, 0)
        return [Mount(tmp, "/tmp"), Mount(run, "/run"), Mount(shm, "/dev/shm", executable=False)]  # noqa: S108

    def provided(self, hostname: str, address: str | None) -> list[Mount]:
        """Return mounts of the files that container runtimes provide: hosts, hostname, resolv.conf.

        Where the image has no regular file but a symlink, there is no mount.
        """
        contents = {
            "/etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{address or '127.0.1.1'}\t{hostname}\n",
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
            file = self.mntns.file(f"provided{path}", text.encode(), owner=self.slot.base)
            mounts.append(Mount(file, path, read_only=True, executable=False))
        return mounts

    def volumes(self, paths: Sequence[str], volumes: Volumes, size: int) -> list[Mount]:
        """Return mounts of volumes; a new one is filled with the image's content at its path."""
        mounts = []
        for path in sorted(set(paths)):
            self.ensure_directory(path)
            try:
                with self.files.folder(path) as source:
                    place = self.mntns.call(_place, source, self.overlay.path)
                    if place in ("/", "/proc", "/dev"):
                        raise SmokeError("volume-impossible", f"'{path}' is not allowed as a volume", place=path)
                    if place not in SYSTEM_FOLDERS:
                        mounts.append(Mount(self._volume(source, volumes.volume(place, size)), place))
            except NotADirectoryError as error:
                raise SmokeError(
                    "volume-impossible", f"volume '{path}' is not a directory in the image", place=path
                ) from error
        return mounts

    def _volume(self, source: int, volume: Volume) -> Path:
        seen, handle = mount_volume(volume, self.mntns, self.userns)
        self.closing.callback(os.close, handle)
        self.file_systems.handles[volume.path] = handle
        self.file_systems.volumes.append(volume.path)
        if volume.device is None:
            self.file_systems.loose[volume.path] = volume.unlimited
        if volume.fresh:
            try:
                copy_tree(source, handle, limit=_VOLUME_COPY_LIMIT, shift=self.slot.base)
            except (OSError, BuildError) as error:
                raise SmokeError(
                    "volume-too-small",
                    f"cannot copy the image's content of '{volume.path}' into the volume: {error}",
                    place=volume.path,
                    hint="raise the limit 'volume'",
                ) from error
            copy_attributes(handle, source, self.slot.base)
            volume.fresh = False
        return seen

    def bindings(self, bindings: Sequence[BindMount]) -> list[Mount]:
        """Return bind mounts of files and directories of the host.

        To be called before `scratch` and `volumes`, which copy the mount points that this creates.
        """
        mounts = []
        for number, binding in enumerate(bindings):
            there, folder = self.files.stat(binding.target), binding.begun or binding.source.is_dir()
            if there is not None and not binding.begun and stat.S_ISDIR(there.st_mode) != folder:
                here, inside = ("folder", "file") if folder else ("file", "folder")
                raise UsageError(
                    "bind-impossible",
                    f"'{binding.source}' is a {here}, and '{binding.target}' is a {inside} in the image",
                    hint="mount a file over a file, and a folder over a folder",
                )
            try:
                if folder:
                    self.ensure_directory(binding.target)
                elif there is None:
                    self.ensure_directory(binding.target.rpartition("/")[0] or "/")
                    self.files.write_file(binding.target, b"", mode=0o644)
            except BuildError as error:  # A person's path, and no package's.
                raise UsageError.of(error.problems) from error
            handle = kernel.openat2(
                self.files.handle,
                binding.target,
                os.O_PATH,
                resolve=kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS,
            )
            try:
                place = self.mntns.call(_place, handle, self.overlay.path)
            finally:
                os.close(handle)
            if place in ("/", *SYSTEM_FOLDERS) or place.startswith(("/proc/", "/dev/")):
                raise UsageError("bind-elsewhere", f"bind mounts are not allowed at '{binding.target}'")
            if binding.begun:
                self._create_source(binding)
            name = f"bound{number}"
            seen = self.mntns.bind(binding.source.resolve(), name, read_only=binding.read_only, userns=self.userns)
            mounts.append(Mount(seen, place, read_only=binding.read_only))
        return mounts

    def _create_source(self, binding: BindMount) -> None:
        """Create the directory of a binding with the image's content, unless it exists."""
        try:
            with self.files.folder(binding.target) as source:
                create_copy(binding.source, source, limit=_VOLUME_COPY_LIMIT, shift=self.slot.base)
        except NotADirectoryError as error:
            raise SmokeError(
                "volume-impossible",
                f"volume '{binding.target}' is not a directory in the image",
                place=binding.target,
            ) from error
        except (OSError, BuildError) as error:
            raise SmokeError(
                "volume-not-filled",
                f"cannot copy the image's content of '{binding.target}' into the volume: {error}",
                place=binding.target,
                hint="check the free space on the store's disk",
            ) from error

    def know(self, root: int, *paths: str) -> None:
        """Register file systems that the runtime has made, so that their usage is known.

        `root` is a descriptor of the container's root.
        """
        for path in paths:
            resolve = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS | kernel.RESOLVE_NO_SYMLINKS
            with contextlib.suppress(OSError):
                handle = kernel.openat2(root, path, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
                self.closing.callback(os.close, handle)
                self.file_systems.handles[path] = handle

    def ensure_directory(self, path: str) -> None:
        """Create a directory that the image config names, if the image has none."""
        if self.files.stat(path) is None:
            self.files.make_directory(path)


def _place(handle: int, root: Path) -> str:
    """Return the path in the root of the file or directory `handle`, symlinks resolved.

    To be called in the mount namespace, which sees the mounts.
    """
    seen = Path(f"/proc/self/fd/{handle}").readlink()
    return "/" + str(seen.relative_to(root)) if seen != root else "/"
