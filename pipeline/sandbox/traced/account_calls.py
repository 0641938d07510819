"""System calls about accounts, capabilities, signals, names of the machine and sockets."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pipeline.sandbox.runtime_bundle import BUILD_CAPABILITIES
from pipeline.sandbox.traced.call_context import AT_FDCWD, CallContext, Execute
from pipeline.sandbox.traced.tracee import TracedCall
from pipeline.sandbox.traced.tree_lookup import failure

_KEEP = 0xFFFF_FFFF
_GROUPS_MOST = 65536
"""Supplementary groups of a process (NGROUPS_MAX)."""

_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_CHROOT": 18,
    "CAP_SETFCAP": 31,
}
_HELD = sum(1 << _CAPABILITIES[name] for name in BUILD_CAPABILITIES)
_CAPABILITY_REVISION = 0x2008_0522
"""_LINUX_CAPABILITY_REVISION_3 (capget(2))."""

_NAME_SIZE = 65
"""Bytes of each field of struct utsname."""
HOST_NAME = "build"
"""The machine's name as scriptlets see it, as in containers."""

_AF_UNIX, _AF_NETLINK = 1, 16
_ADDRESS_MOST = 128
"""Bytes of a socket's address (struct sockaddr_storage)."""


def _ids(call: TracedCall, *, groups: bool) -> list[int]:
    return call.tracee.credentials.groups if groups else call.tracee.credentials.users


def _get(index: int, *, groups: bool = False) -> Execute:
    return lambda _, call: _ids(call, groups=groups)[index]


def _get_three(*, groups: bool) -> Execute:
    def execute(_: CallContext, call: TracedCall) -> int:
        for index, value in enumerate(_ids(call, groups=groups)[:3]):
            call.tracee.write(call.argument(index), struct.pack("<I", value))
        return 0

    return execute


def _set_one(*, groups: bool) -> Execute:
    """Return the execution of setuid(2) or setgid(2)."""

    def execute(_: CallContext, call: TracedCall) -> int:
        ids, wanted = _ids(call, groups=groups), call.number(0)
        if call.tracee.credentials.privileged:
            ids[:] = [wanted] * 4
        elif wanted in (ids[0], ids[2]):
            ids[1] = ids[3] = wanted
        else:
            raise failure(errno.EPERM)
        return 0

    return execute


def _set_three(*, groups: bool, saved: bool) -> Execute:
    """Return the execution of setresuid(2) or setresgid(2), else of setreuid(2) or setregid(2)."""

    def execute(_: CallContext, call: TracedCall) -> int:
        ids = _ids(call, groups=groups)
        wanted = [call.number(index) for index in range(3 if saved else 2)]
        may = call.tracee.credentials.privileged
        if not may and any(value not in (_KEEP, *ids[:3]) for value in wanted):
            raise failure(errno.EPERM)
        real, effective = (old if new == _KEEP else new for old, new in zip(ids[:2], wanted[:2], strict=True))
        last = wanted[2] if saved else _KEEP
        if not saved and (wanted[0] != _KEEP or (wanted[1] != _KEEP and wanted[1] != ids[0])):
            last = effective
        ids[:] = [real, effective, ids[2] if last == _KEEP else last, effective]
        return 0

    return execute


def _set_for_files(*, groups: bool) -> Execute:
    def execute(_: CallContext, call: TracedCall) -> int:
        ids, wanted = _ids(call, groups=groups), call.number(0)
        before = ids[3]
        if call.tracee.credentials.privileged or wanted in ids:
            ids[3] = wanted
        return before

    return execute


def _getgroups(_: CallContext, call: TracedCall) -> int:
    groups, room = call.tracee.credentials.supplementary, call.integer(0)
    if room and room < len(groups):
        raise failure(errno.EINVAL)
    if room and groups:
        call.tracee.write(call.argument(1), struct.pack(f"<{len(groups)}I", *groups))
    return len(groups)


def _setgroups(_: CallContext, call: TracedCall) -> int:
    count = call.integer(0)
    if not call.tracee.credentials.privileged:
        raise failure(errno.EPERM)
    if not 0 <= count <= _GROUPS_MOST:
        raise failure(errno.EINVAL)
    data = call.tracee.read(call.argument(1), 4 * count) if count else b""
    call.tracee.credentials.supplementary = [*struct.unpack(f"<{count}I", data)]
    return 0


def _capget(_: CallContext, call: TracedCall) -> int | None:
    version, _pid = struct.unpack("<Ii", call.tracee.read(call.argument(0), 8))
    if version != _CAPABILITY_REVISION or not call.argument(1):
        return None
    held = _HELD if call.tracee.credentials.privileged else 0
    call.tracee.write(call.argument(1), struct.pack("<6I", held, held, 0, 0, 0, 0))
    return 0


def _capset(_: CallContext, call: TracedCall) -> int:
    effective, permitted, _inheritable = struct.unpack("<3I", call.tracee.read(call.argument(1), 12))
    if (effective | permitted) & ~(_HELD if call.tracee.credentials.privileged else 0):
        raise failure(errno.EPERM)
    return 0


def _uname(_: CallContext, call: TracedCall) -> int:
    here = os.uname()
    fields = (here.sysname, HOST_NAME, here.release, here.version, here.machine, "(none)")
    data = b"".join(os.fsencode(one)[: _NAME_SIZE - 1].ljust(_NAME_SIZE, b"\0") for one in fields)
    call.tracee.write(call.argument(0), data)
    return 0


def _of_process(index: int, *, kind: tuple[int, int] | None = None) -> Execute:
    """Return the execution of a call that changes another process: only of the command's.

    `index` is the argument with its ID, 0 for itself. `kind` is the argument that says whose ID it is, and its value
    for a process: a group's or user's processes, which may be others than the command's, are not found.
    """

    def execute(context: CallContext, call: TracedCall) -> int | None:
        target = call.integer(index)
        if (kind and call.integer(kind[0]) != kind[1]) or (target and target not in context.tracees):
            raise failure(errno.ESRCH)
        return None

    return execute


def _kill(context: CallContext, call: TracedCall) -> int | None:
    """Let a process signal the command's processes and no other."""
    target = call.integer(0)
    if target > 0:
        known = target in context.tracees
    else:
        known = target == 0 or (target < -1 and -target in {_group(pid) for pid in context.tracees})
    if not known:
        raise failure(errno.ESRCH)
    return None


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _signal_thread(index: int) -> Execute:
    """Return the execution of a call that names a process or thread in an argument."""

    def execute(context: CallContext, call: TracedCall) -> int | None:
        if call.integer(index) not in context.tracees:
            raise failure(errno.ESRCH)
        return None

    return execute


def _address(call: TracedCall, pointer: int, length: int) -> bytes:
    return call.tracee.read(call.argument(pointer), min(call.number(length), _ADDRESS_MOST))


def _connect(context: CallContext, call: TracedCall) -> int | None:
    return _with_socket(context, call, makes=False)


def _bind(context: CallContext, call: TracedCall) -> int | None:
    return _with_socket(context, call, makes=True)


def _with_socket(context: CallContext, call: TracedCall, *, makes: bool) -> int | None:
    """Lead a Unix socket's path into the tree.

    Names without a path reach nothing, as in a network of its own."""
    data = _address(call, 1, 2)
    family = struct.unpack_from("<H", data)[0] if len(data) >= 2 else 0
    if family == _AF_NETLINK:
        return None
    if family != _AF_UNIX:
        raise failure(errno.ENETUNREACH)
    name = os.fsdecode(data[2:].partition(b"\0")[0])
    if not name:
        if makes:
            return None
        raise failure(errno.ECONNREFUSED)
    place = context.lookup.find(call.tracee, AT_FDCWD, name, follow=not makes)
    if makes:
        if place.status is not None:
            raise failure(errno.EADDRINUSE)
        context.parent_of(call, place)
        context.tree.changed.add(place.inside())
        context.tree.records.purge()  # The kernel makes the socket: it must not get a removed file's record.
    else:
        place.existing()
    folder, _, last = place.host.rpartition("/")
    # The whole path may be longer than an address.
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    call.tracee.keep(handle)
    short = f"/proc/{os.getpid()}/fd/{handle}/{last}"
    address = struct.pack("<H", _AF_UNIX) + os.fsencode(short) + b"\0"
    if len(address) > 2 + 108:
        raise failure(errno.ENAMETOOLONG)
    call.registers.set_argument(1, call.tracee.place(address))
    call.registers.set_argument(2, len(address))
    return None


def _send(pointers: Sequence[int]) -> Execute:
    """Return the execution of a call that sends to an address: only the kernel's (netlink)."""

    def execute(_: CallContext, call: TracedCall) -> int | None:
        pointer, length = pointers
        data = _address(call, pointer, length)
        if len(data) >= 2 and struct.unpack_from("<H", data)[0] != _AF_NETLINK:
            raise failure(errno.ECONNREFUSED)
        return None

    return execute


def _sendmsg(_: CallContext, call: TracedCall) -> int | None:
    name, size = struct.unpack("<QI4x", call.tracee.read(call.argument(1), 16))
    if name and size >= 2 and struct.unpack("<H", call.tracee.read(name, 2))[0] != _AF_NETLINK:
        raise failure(errno.ECONNREFUSED)
    return None


ACCOUNT_CALLS: Mapping[str, Execute] = MappingProxyType(
    {
        "getuid": _get(0),
        "geteuid": _get(1),
        "getgid": _get(0, groups=True),
        "getegid": _get(1, groups=True),
        "getresuid": _get_three(groups=False),
        "getresgid": _get_three(groups=True),
        "setuid": _set_one(groups=False),
        "setgid": _set_one(groups=True),
        "setreuid": _set_three(groups=False, saved=False),
        "setregid": _set_three(groups=True, saved=False),
        "setresuid": _set_three(groups=False, saved=True),
        "setresgid": _set_three(groups=True, saved=True),
        "setfsuid": _set_for_files(groups=False),
        "setfsgid": _set_for_files(groups=True),
        "getgroups": _getgroups,
        "setgroups": _setgroups,
        "capget": _capget,
        "capset": _capset,
        "uname": _uname,
        "kill": _kill,
        "prlimit64": _of_process(0),
        "sched_setaffinity": _of_process(0),
        "sched_setattr": _of_process(0),
        "sched_setparam": _of_process(0),
        "sched_setscheduler": _of_process(0),
        "setpriority": _of_process(1, kind=(0, 0)),
        "ioprio_set": _of_process(1, kind=(0, 1)),
        "tkill": _signal_thread(0),
        "tgkill": _signal_thread(1),
        "rt_sigqueueinfo": _signal_thread(0),
        "rt_tgsigqueueinfo": _signal_thread(1),
        "pidfd_open": _signal_thread(0),
        "connect": _connect,
        "bind": _bind,
        "sendto": _send((4, 5)),
        "sendmsg": _sendmsg,
    }
)
"""The calls of this module by name; `sendto` only with an address."""
