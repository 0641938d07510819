"""Set, lift and read back I/O limits of an instance's volumes, in bytes per second.

The volumes are block devices of their own.

v2 limits a group by `io.max`, and with the memory controller also the kernel's write-back for it. v1 limits reads,
direct writes and syncs of the group's processes (`blkio.throttle.*_bps_device`); write-back counts as the root group's,
so the root group gets the same limit on these devices, to which it writes nothing else. Sources: the kernel's
Documentation/admin-guide/cgroup-v1/blkio-controller.rst, cgroup-v2.rst (Writeback).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.model.limit import VolumeRates
from pipeline.sandbox.cgroups import Cgroup, Hierarchies

_UNLIMITED = 10**15
"""A rate that is never reached: since Linux 6.10 v1 counts bytes only where there is a limit."""

_WAYS = ("read", "write")
_RECORD = "written-back"
"""File in the sandbox's folder with the devices on which the root group is limited, for cleaning up after a kill."""

_VOLUME = re.compile(r"/live/[^/]+/volume\d+\.ext4$")


def limit_io(group: Cgroup, folder: Path, devices: Sequence[int], limit: int | None) -> None:
    """Limit the I/O of a running instance to `limit` bytes per second, each way and per device.

    `devices` are given as `st_dev`; without a limit, only let v1 count. `folder` is the sandbox's. Refusals are not
    raised: `read_io_limits` returns what the kernel has taken.
    """
    if group.hierarchies.version == 2:
        if limit is not None:
            for device in devices:
                _write(group.folder("io"), "io.max", f"{_name(device)} rbps={limit} wbps={limit}")
        return
    root = _true_root(group.hierarchies)
    if limit is not None and root is not None and devices:
        (folder / _RECORD).write_text("".join(f"{_name(one)} {_backing(_name(one))}\n" for one in devices))
    for device in devices:
        for way in _WAYS:
            _write(group.folder("blkio"), _bps(way), f"{_name(device)} {limit or _UNLIMITED}")
        # Also without a limit, to clear one that a killed relbuild may have left there. 0: no limit.
        _write(root, _bps("write"), f"{_name(device)} {limit or 0}")


def lift_io_limits(group: Cgroup, folder: Path) -> None:
    """Lift a group's I/O limits, so that its processes can be killed.

    A process cannot end while the kernel delays its last I/O. The byte counters go on.
    """
    if group.hierarchies.version == 2:
        for device in _rates(group.read("io", "io.max")):
            _write(group.folder("io"), "io.max", f"{device} rbps=max wbps=max")
        return
    for way in _WAYS:
        for device in _rates(group.read("blkio", _bps(way))):
            _write(group.folder("blkio"), _bps(way), f"{device} {_UNLIMITED}")
    record = folder / _RECORD
    if record.exists():
        for line in record.read_text().splitlines():
            device, _, ours = line.partition(" ")
            now = _backing(device)
            # The device may be another sandbox's by now, with a limit of its own.
            if now == ours or not _VOLUME.search(now):
                _write(_true_root(group.hierarchies), _bps("write"), f"{device} 0")
        record.unlink()


def read_io_limits(group: Cgroup, devices: Sequence[int]) -> VolumeRates:
    """Return the I/O limits that the kernel has for an instance on its `devices`."""
    if not devices:
        return VolumeRates()
    names = [_name(device) for device in devices]
    if group.hierarchies.version == 2:
        rates = _rates(group.read("io", "io.max"))
        why = "" if group.hierarchies.has("memory") else "the memory controller is not available"
    else:
        of_ways = [_rates(group.read("blkio", _bps(way))) for way in _WAYS]
        rates = {name: tuple(rate for one in of_ways for rate in one.get(name, (_UNLIMITED,))) for name in names}
        root = _true_root(group.hierarchies)
        back = _rates(_text(root, _bps("write")))
        why = "" if root is not None else "the root of the blkio hierarchy is not visible"
        if not why and any(max(back.get(name, (_UNLIMITED,))) > max(rates[name]) for name in names):
            why = "the root of the blkio hierarchy did not accept the limit"
    found = max(max(rates.get(name, (_UNLIMITED,))) for name in names)
    if found >= _UNLIMITED:
        return VolumeRates(None, "")
    return VolumeRates(found, f"the kernel's write-back is not limited: {why}" if why else "")


def _rates(text: str | None) -> dict[str, tuple[int, ...]]:
    """Parse I/O limits into bytes per second by device.

    `text` is of v1 (`7:0 1048576`) and v2 (`7:0 rbps=1048576 wbps=max riops=max wiops=max`).
    """
    found: dict[str, tuple[int, ...]] = {}
    for line in (text or "").splitlines():
        device, *words = line.split()
        values = [word.partition("=")[2] or word for word in words if "iops=" not in word]
        if values:
            found[device] = tuple(int(value) if value.isdigit() else _UNLIMITED for value in values)
    return found


def _true_root(hierarchies: Hierarchies) -> Path | None:
    """Return v1's real root group, or None if it is not visible.

    In a cgroup namespace another group is mounted at the same path; only the real root has this file.
    """
    root = hierarchies.controllers.get("blkio")
    return root if root is not None and (root / "cgroup.sane_behavior").exists() else None


def _bps(way: str) -> str:
    return f"blkio.throttle.{way}_bps_device"


def _name(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _backing(device: str) -> str:
    """Return the backing file of a loop device; "" if it has none."""
    return _text(Path("/sys/dev/block", device, "loop"), "backing_file").strip()


def _text(folder: Path | None, file: str) -> str:
    with contextlib.suppress(OSError):
        return "" if folder is None else (folder / file).read_text()
    return ""


def _write(folder: Path | None, file: str, text: str) -> None:
    """Write to a control file, ignoring refusals.

    `read_io_limits` shows whether the kernel took it.
    """
    with contextlib.suppress(OSError):
        # Not created where it is missing: in tests the control files are plain files.
        if folder is not None and (folder / file).exists():
            (folder / file).write_text(text)
