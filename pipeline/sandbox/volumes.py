"""Volumes: ext4 file systems of limited size in sparse files, made and mounted.

A volume can outlive the instance that wrote it. It is an ext4 file system of its own in a sparse file on the store's
disk, so that bytes and inodes are limited without quotas of the host, and writes count as disk, not as the instance's
memory. Making one takes some 10 ms and 200 KB. It has no journal and no barriers, and does not survive a crash of the
host. Where there are no loop devices, a volume is a plain directory, and its limit is reported as unenforced.

Owners are stored as the image's IDs and mapped when mounted, so that another instance, which has other IDs on the
host, can use the volume.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox import kernel, loop_device
from pipeline.sandbox.mount_namespace import MountNamespace
from pipeline.sandbox.rootless import in_user_namespace
from pipeline.sandbox.sandbox_registry import SandboxRegistry

_FEATURES = "none,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,uninit_bg,extra_isize"
"""ext4 features, given because distributions' defaults differ. uninit_bg: inode tables are written when first used."""

_BYTES_PER_INODE = 32768
_INODES_MIN = 1024
VOLUME_MOUNT_OPTIONS = "barrier=0,noinit_itable,errors=remount-ro"
_MKFS_TIMEOUT = 60.0
_DATA = "data"
"""Folder of the file system that is mounted: servers refuse a data directory with `lost+found` in it."""


@dataclass(slots=True)
class Volume:
    """One volume of an instance.

    `device` is a block device, or None: then it is the directory `folder`, for the reason `unlimited`. `fresh`: it was
    not filled with the image's content yet.
    """

    path: str
    number: int
    folder: Path
    device: Path | None
    unlimited: str = ""
    fresh: bool = True


@dataclass(slots=True)
class Volumes:
    """The volumes of instances that run one after the other, made by `open_volumes`.

    Their files are in `folder`.
    """

    folder: Path
    _known: dict[str, Volume] = field(default_factory=dict)
    _handles: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def volume(self, path: str, size: int) -> Volume:
        """Return the volume at `path` of the image; make one of `size` bytes if there is none."""
        known = self._known.get(path)
        if known is None:
            number = len(self._known)
            known = self._known[path] = self._make(path, number, size)
        return known

    def close(self) -> None:
        """Detach the block devices; the caller removes `folder`."""
        self._handles.close()

    def _make(self, path: str, number: int, size: int) -> Volume:
        folder, file = self.folder / f"volume{number}", self.folder / f"volume{number}.ext4"
        try:
            _format(file, size)
            device, handle = loop_device.attach_loop_device(file)
        except (OSError, process.CommandFailed, EnvironmentLacking) as error:
            file.unlink(missing_ok=True)
            folder.mkdir(mode=0o700)
            return Volume(path, number, folder, None, f"cannot create a loop device: {error}")
        self._handles.callback(os.close, handle)
        return Volume(path, number, folder, device)


def mount_volume(volume: Volume, mntns: MountNamespace, userns: int) -> tuple[Path, int]:
    """Mount a volume below MOUNT_BASE, its owners mapped through `userns`.

    Returns the mount's path, and a descriptor of the volume with the image's owners, through which root can write; the
    caller closes it. Raises OSError.
    """
    source = volume.folder
    if volume.device is None and in_user_namespace():
        return _mount_folder(volume, mntns)
    if volume.device is not None:
        disk = mntns.folder(f"disk{volume.number}", mode=0o700)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        mntns.call(kernel.mount, str(volume.device), str(disk), "ext4", flags, VOLUME_MOUNT_OPTIONS)
        source = disk / _DATA
        if volume.fresh:
            mntns.call(source.mkdir)
    seen = mntns.bind(source, f"volume{volume.number}", read_only=False, userns=userns)
    return seen, mntns.call(os.open, source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_folder(volume: Volume, mntns: MountNamespace) -> tuple[Path, int]:
    """Mount a directory as the upper one of an overlay whose lower one is empty.

    Writes go straight there, and a container sees no path of the host in /proc/self/mountinfo. Only in a user
    namespace: otherwise IDs must be mapped, which overlayfs cannot.
    """
    data, work = volume.folder / _DATA, volume.folder / "work"
    data.mkdir(mode=0o700, exist_ok=True)
    work.mkdir(mode=0o700, exist_ok=True)
    seen = mntns.folder(f"volume{volume.number}")
    nothing = mntns.folder(f"volume{volume.number}-nothing")

    def attach() -> None:
        here = os.open(volume.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            folder = f"/proc/self/fd/{here}"
            # Not volatile, as a build's are: a volatile upper directory cannot be mounted a second time.
            options = f"lowerdir={nothing},upperdir={folder}/{_DATA},workdir={folder}/work,userxattr,xino=off,index=off"
            kernel.mount("overlay", str(seen), "overlay", kernel.MS_NOSUID | kernel.MS_NODEV, options)
        finally:
            os.close(here)

    mntns.call(attach)
    return seen, mntns.call(os.open, seen, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def open_volumes(sandboxes: SandboxRegistry, label: str = "data") -> Iterator[Volumes]:
    """Open volumes for several instances, one after the other; removed at the end of the block."""
    with sandboxes.slot(label) as slot:
        volumes = Volumes(slot.folder)
        try:
            yield volumes
        finally:
            volumes.close()


def _format(file: Path, size: int) -> None:
    with file.open("wb") as made:
        made.truncate(size)
    inodes = max(_INODES_MIN, size // _BYTES_PER_INODE)
    command: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0"]
    command += ["-O", _FEATURES, "-N", str(inodes), "-E", "lazy_itable_init=1,nodiscard", file]
    process.run(command, timeout=_MKFS_TIMEOUT)
