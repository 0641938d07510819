"""Mount image layers with overlayfs as a container's root, with mapped IDs.

The layers keep the image's ids on disk and are mounted idmapped; writes go to an upper directory with the container's
ids. No feature of overlayfs is used that would put something into the upper directory that cannot be packed into a
layer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox import kernel
from pipeline.sandbox.mount_namespace import MOUNT_BASE, MountNamespace
from pipeline.sandbox.rootless import in_user_namespace

_LAYERS_MOST = 64
"""Layers in one overlay: their paths must fit into the one page of options that mount(2) takes."""

_OPTIONS = "metacopy=off,index=off,xino=off,volatile"
# volatile: nothing here is needed after a crash of the host, so nothing needs to be synced to disk.


@dataclass(frozen=True, slots=True)
class Overlay:
    """A mounted overlay file system.

    `path` is below MOUNT_BASE, `handle` an O_PATH descriptor of its root that works in every thread, `upper`
    where writes land, on the host.
    """

    path: Path
    handle: int
    upper: Path


def each_once(lowers: Sequence[Path]) -> tuple[Path, ...]:
    """Return `lowers` (lowest first) without those that come again above.

    overlayfs takes none twice (ELOOP), and layers of equal content, as layers that add nothing, have one tree. What a
    layer adds, replaces or hides, it does at its highest place whatever is between: the merged tree is the same.
    """
    return tuple(reversed(dict.fromkeys(reversed(lowers))))


def mount_overlay(
    mntns: MountNamespace,
    lowers: Sequence[Path],
    *,
    folder: Path,
    userns: int,
    base: int,
    mount_points: Iterable[str] = (),
) -> Overlay:
    """Mount `lowers` (lowest first) with a new upper directory in `folder`.

    One of them may come several times. `mount_points` are folders that will exist in the root, in a lower directory: a
    runtime would create them in the upper one. The caller closes `handle`. Raises EnvironmentLacking
    `no-idmapped-mounts` or `no-overlay`, UsageError `too-many-layers`.
    """
    lowers = each_once(lowers)
    if len(lowers) > _LAYERS_MOST:
        raise UsageError(
            "too-many-layers",
            f"the image has {len(lowers)} layers, more than {_LAYERS_MOST}",
            hint="merge layers in the recipe",
        )
    skeleton = mntns.folder("skeleton", owner=base)
    for path in mount_points:
        mntns.folder(f"skeleton/{path.lstrip('/')}", owner=base)
    names = [skeleton.name]
    for number, lower in enumerate(lowers):
        try:
            mntns.bind(lower, f"l{number}", read_only=True, userns=userns)
        except OSError as error:
            raise EnvironmentLacking(
                "no-idmapped-mounts",
                f"the store's file system does not support ID-mapped mounts: {error}",
                place=str(lower),
                hint="put the store on ext4, xfs, btrfs or tmpfs, with Linux 5.19 or newer",
            ) from error
        names.append(f"l{number}")
    upper = folder / "upper"
    upper.mkdir()
    (folder / "work").mkdir()
    # The merged root takes mode and owner from the upper directory.
    status = lowers[-1].stat() if lowers else folder.stat()
    upper.chmod(status.st_mode & 0o7777 if lowers else 0o755)
    os.chown(upper, base, base)
    target = mntns.folder("root")

    def mount() -> int:
        # Relative to MOUNT_BASE, because 64 absolute paths would not fit. The upper directory is named by a
        # descriptor, because its path may be long.
        here = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            options = (
                f"lowerdir={':'.join(reversed(names))},"
                f"upperdir=/proc/self/fd/{here}/upper,workdir=/proc/self/fd/{here}/work,{_OPTIONS},"
                # In a user namespace overlayfs may only use `user.*` attributes; then there are no redirects, and
                # the option that turns them off is refused.
                + ("userxattr" if in_user_namespace() else "redirect_dir=off")
            )
            os.chdir(MOUNT_BASE)
            kernel.mount("overlay", target.name, "overlay", kernel.MS_NODEV, options)
        finally:
            os.close(here)
        return os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    try:
        handle = mntns.call(mount)
    except OSError as error:
        raise EnvironmentLacking(
            "no-overlay",
            f"cannot mount the layers with overlayfs: {error}",
            place=str(folder),
            hint="load the kernel module `overlay`, and put the store on ext4, xfs or tmpfs",
        ) from error
    return Overlay(target, handle, upper)


def mount_without_path(mntns: MountNamespace, source: str, name: str) -> Path:
    """Mount a directory below MOUNT_BASE read-only under another name, without its path.

    /proc/self/mountinfo shows a bind mount's path on the host, but not an overlay's. `source` must not change any more.
    Raises OSError.
    """
    target, nothing = mntns.folder(name), mntns.folder(f"{name}-nothing")

    def mount() -> None:
        os.chdir(MOUNT_BASE)
        kernel.mount(
            "overlay",
            target.name,
            "overlay",
            kernel.MS_RDONLY | kernel.MS_NODEV | kernel.MS_NOSUID,
            # Without an upper directory overlayfs wants two lower ones.
            f"lowerdir={source}:{nothing.name}" + (",userxattr" if in_user_namespace() else ""),
        )

    mntns.call(mount)
    return target
