"""System calls that read and change owners, modes, times and attributes of files."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from pipeline.sandbox.traced.call_context import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    CallContext,
    Execute,
)
from pipeline.sandbox.traced.recorded_tree import owned_by
from pipeline.sandbox.traced.tracee import TracedCall
from pipeline.sandbox.traced.tree_lookup import Place, failure
from pipeline.sandbox.traced.written_files import settle

_STAT = struct.Struct("<QQQIIIIQqqqQQQQQQ24x")
"""struct stat of x86_64 (asm/stat.h)."""
_STATX = struct.Struct("<IIQIIIHHQQQQqIiqIiqIiqIiIIIIQII96x")
"""struct statx (linux/stat.h)."""
_STATX_BASIC = 0x7FF
_TIMES = struct.Struct("<qqqq")
_UTIME_NOW, _UTIME_OMIT = 0x3FFF_FFFF, 0x3FFF_FFFE
_NANO = 1_000_000_000
_READ, _WRITE, _EXECUTE = 4, 2, 1

_XATTR_NAME_MOST, _XATTR_MOST = 256, 65536
"""Bytes of an attribute's name and of its value (xattr(7))."""
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_BASE = frozenset({0x01, 0x04, 0x20})
"""Tags of the entries for owner, group and others."""
_CAPABILITY = "security.capability"


def _descriptor(context: CallContext, call: TracedCall, index: int = 0) -> Place:
    return context.lookup.open_file(call.tracee, call.integer(index))


def _named(context: CallContext, call: TracedCall, flags: int) -> Place:
    """Look up the first two arguments, a directory's descriptor and a path, under AT_ flags."""
    if flags & AT_EMPTY_PATH and not call.text(1):
        if call.integer(0) == AT_FDCWD:
            return context.lookup.find(call.tracee, AT_FDCWD, ".", follow=True)
        return _descriptor(context, call)
    return context.at(call, 0, 1, follow=not flags & AT_SYMLINK_NOFOLLOW)


def _split(nanoseconds: int) -> tuple[int, int]:
    return nanoseconds // _NANO, nanoseconds % _NANO


def _stat(context: CallContext, call: TracedCall, place: Place, buffer: int) -> int:
    found = place.existing()
    settle(context, found, changes=False)
    mode, uid, gid = context.tree.records.as_in_image(found)
    data = _STAT.pack(
        found.st_dev,
        found.st_ino,
        found.st_nlink,
        mode,
        uid,
        gid,
        0,
        found.st_rdev,
        found.st_size,
        found.st_blksize,
        found.st_blocks,
        *_split(found.st_atime_ns),
        *_split(found.st_mtime_ns),
        *_split(found.st_ctime_ns),
    )
    call.tracee.write(call.argument(buffer), data)
    return 0


def _statx(context: CallContext, call: TracedCall) -> int:
    found = _named(context, call, call.number(2)).existing()
    settle(context, found, changes=False)
    mode, uid, gid = context.tree.records.as_in_image(found)

    def moment(nanoseconds: int) -> tuple[int, int, int]:
        return (*_split(nanoseconds), 0)

    data = _STATX.pack(
        _STATX_BASIC,
        found.st_blksize,
        0,
        found.st_nlink,
        uid,
        gid,
        mode,
        0,
        found.st_ino,
        found.st_size,
        found.st_blocks,
        0,
        *moment(found.st_atime_ns),
        *(0, 0, 0),
        *moment(found.st_ctime_ns),
        *moment(found.st_mtime_ns),
        os.major(found.st_rdev),
        os.minor(found.st_rdev),
        os.major(found.st_dev),
        os.minor(found.st_dev),
        *(0, 0, 0),
    )
    call.tracee.write(call.argument(4), data)
    return 0


def _access(context: CallContext, call: TracedCall, place: Place, wanted: int) -> int:
    status = place.existing()
    record = context.tree.records.of(status)
    if not call.tracee.credentials.may(record, wanted & 0o7):
        raise failure(errno.EACCES)
    if wanted & _EXECUTE and not stat.S_ISDIR(status.st_mode) and not record.mode & 0o111:
        raise failure(errno.EACCES)
    return 0


def _chmod(context: CallContext, call: TracedCall, place: Place, mode: int) -> int:
    status = place.existing()
    settle(context, status)
    record = context.tree.records.of(status)
    context.require_owner(call, record)
    if stat.S_ISLNK(status.st_mode):
        raise failure(errno.EOPNOTSUPP)
    credentials = call.tracee.credentials
    if not credentials.privileged and record.gid not in (credentials.groups[3], *credentials.supplementary):
        mode &= ~stat.S_ISGID
    if place.path is None:
        context.tree.records.change(status, mode=mode & 0o7777)
    else:
        _require_one_name(context, place, status)
        context.tree.set_mode(place.path, status, mode)
    return 0


def _chown(context: CallContext, call: TracedCall, place: Place, owners: int) -> int:
    status = place.existing()
    uid, gid = call.integer(owners), call.integer(owners + 1)
    uid, gid = (number if number == -1 else number & 0xFFFF_FFFF for number in (uid, gid))
    settle(context, status)
    record = context.tree.records.of(status)
    credentials = call.tracee.credentials
    if not credentials.privileged:
        allowed = (-1, record.gid, credentials.groups[3], *credentials.supplementary)
        if credentials.users[3] != record.uid or uid not in (-1, record.uid) or gid not in allowed:
            raise failure(errno.EPERM)
    if place.path is None:
        context.tree.records.set(status, owned_by(record, uid, gid, keeps_bits=True))
    else:
        _require_one_name(context, place, status)
        context.tree.set_owner(place.path, status, uid, gid)
    return 0


def _require_one_name(context: CallContext, place: Place, status: os.stat_result) -> None:
    """Refuse what an overlay would do to one name only of a file that is already open."""
    lower = (status.st_dev, status.st_ino) in context.tree.records.lower
    if place.host.startswith("/proc/") and lower and status.st_nlink > 1:
        context.unsupported = f"a change to the open file /{place.path}, which has several names"
        raise failure(errno.EPERM)


def _change_times(context: CallContext, call: TracedCall, place: Place, times: tuple[int, int] | None) -> int:
    status = place.existing()
    record = context.tree.records.of(status)
    if not (times is None and call.tracee.credentials.may(record, _WRITE)):
        context.require_owner(call, record)
    if place.path is None:
        raise failure(errno.EPERM)
    _require_one_name(context, place, status)
    context.tree.copy_up(place.path, status)
    link = place.host.startswith("/proc/")
    if times is None:
        os.utime(place.host, follow_symlinks=link)
    else:
        os.utime(place.host, ns=times, follow_symlinks=link)
    return 0


def _utimensat(context: CallContext, call: TracedCall) -> int:
    given = call.argument(2)
    seconds, nanos, later, more = _TIMES.unpack(call.tracee.read(given, _TIMES.size)) if given else (0, 0, 0, 0)
    if any(not 0 <= one < _NANO and one not in (_UTIME_NOW, _UTIME_OMIT) for one in (nanos, more)):
        raise failure(errno.EINVAL)
    if nanos == more == _UTIME_OMIT:
        return 0
    place = _named(context, call, call.number(3)) if call.argument(1) else _descriptor(context, call)
    if not given:
        return _change_times(context, call, place, None)
    if nanos == more == _UTIME_NOW:
        return _change_times(context, call, place, None)
    status = place.existing()
    now = _now(place) if _UTIME_NOW in (nanos, more) else 0

    def chosen(second: int, nano: int, kept: int) -> int:
        return {_UTIME_NOW: now, _UTIME_OMIT: kept}.get(nano, second * _NANO + nano)

    times = (chosen(seconds, nanos, status.st_atime_ns), chosen(later, more, status.st_mtime_ns))
    return _change_times(context, call, place, times)


def _now(place: Place) -> int:
    """Return the present time by the file system's clock."""
    os.utime(place.host, follow_symlinks=place.host.startswith("/proc/"))
    return os.stat(place.host, follow_symlinks=place.host.startswith("/proc/")).st_mtime_ns


def _old_times(scale: int, form: str, path: int, times: int, folder: int | None = None) -> Execute:
    """Return the execution of utime(2), utimes(2) or futimesat(2), with `scale` units a second."""
    layout = struct.Struct(form)

    def execute(context: CallContext, call: TracedCall) -> int:
        place = context.at(call, folder, path)
        if not call.argument(times):
            return _change_times(context, call, place, None)
        values = layout.unpack(call.tracee.read(call.argument(times), layout.size))
        if len(values) == 2:
            return _change_times(context, call, place, (values[0] * _NANO, values[1] * _NANO))
        if not all(0 <= part < scale for part in values[1::2]):
            raise failure(errno.EINVAL)
        accessed, modified = (second * _NANO + part * (_NANO // scale) for second, part in (values[:2], values[2:]))
        return _change_times(context, call, place, (accessed, modified))

    return execute


# --- extended attributes ------------------------------------------------------------------------------


def _attribute_name(call: TracedCall) -> str:
    name = os.fsdecode(call.tracee.read_string(call.argument(1), _XATTR_NAME_MOST))
    if "." not in name:
        raise failure(errno.EOPNOTSUPP)
    return name


def _require_storable(name: str, status: os.stat_result) -> None:
    """Raise the error that a container has for an attribute that is not for an image."""
    if name.startswith(("trusted.", "security.")) and name != _CAPABILITY:
        raise failure(errno.EPERM)
    if name != _CAPABILITY and not name.startswith("user."):
        raise failure(errno.EOPNOTSUPP)
    if name.startswith("user.") and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise failure(errno.EPERM)


def _set_attribute(context: CallContext, call: TracedCall, place: Place) -> int:
    name, status = _attribute_name(call), place.existing()
    size = call.argument(3)
    if size > _XATTR_MOST:
        raise failure(errno.E2BIG)
    if name.startswith("system.posix_acl_"):
        # A list that says no more than the mode is what copying programs set; they fall back to the mode.
        if _grants_more(name, call.tracee.read(call.argument(2), size)):
            context.unsupported = f"an access control list for {_shown(place)}"
        raise failure(errno.EOPNOTSUPP)
    _require_storable(name, status)
    settle(context, status)
    record = context.tree.records.of(status)
    context.require_owner(call, record)
    if name == _CAPABILITY and not call.tracee.credentials.privileged:
        raise failure(errno.EPERM)
    known = dict(record.xattrs)
    flags = call.integer(4)
    if flags & os.XATTR_CREATE and name in known:
        raise failure(errno.EEXIST)
    if flags & os.XATTR_REPLACE and name not in known:
        raise failure(errno.ENODATA)
    known[name] = call.tracee.read(call.argument(2), size) if size else b""
    return _replace_attributes(context, place, status, known)


def _grants_more(name: str, value: bytes) -> bool:
    """Return whether an access control list says more than a mode (linux/posix_acl_xattr.h)."""
    tags = [tag for tag, _, _ in _ACL_ENTRY.iter_unpack(value[4:])] if len(value) % _ACL_ENTRY.size == 4 else []
    return bool(tags) and (name != "system.posix_acl_access" or not _ACL_BASE.issuperset(tags))


def _shown(place: Place) -> str:
    return f"/{place.path}" if place.path is not None else place.host


def _remove_attribute(context: CallContext, call: TracedCall, place: Place) -> int:
    name, status = _attribute_name(call), place.existing()
    settle(context, status)
    record = context.tree.records.of(status)
    known = dict(record.xattrs)
    if name not in known:
        raise failure(errno.ENODATA if name.startswith(("user.", "security.", "system.posix")) else errno.EOPNOTSUPP)
    context.require_owner(call, record)
    del known[name]
    return _replace_attributes(context, place, status, known)


def _replace_attributes(
    context: CallContext, place: Place, status: os.stat_result, attributes: Mapping[str, bytes]
) -> int:
    _require_one_name(context, place, status)
    status = context.tree.copy_up(place.inside(), status)
    context.tree.records.change(status, xattrs=tuple(sorted(attributes.items())))
    return 0


def _get_attribute(context: CallContext, call: TracedCall, place: Place) -> int:
    name, status = _attribute_name(call), place.existing()
    settle(context, status, changes=False)
    value = dict(context.tree.records.of(status).xattrs).get(name)
    if value is None:
        raise failure(errno.ENODATA)
    return _fill(call, 2, value)


def _list_attributes(context: CallContext, call: TracedCall, place: Place) -> int:
    status = place.existing()
    settle(context, status, changes=False)
    names = [name for name, _ in context.tree.records.of(status).xattrs]
    return _fill(call, 1, b"".join(os.fsencode(name) + b"\0" for name in names))


def _fill(call: TracedCall, buffer: int, data: bytes) -> int:
    size = call.argument(buffer + 1)
    if size and len(data) > size:
        raise failure(errno.ERANGE)
    if size:
        call.tracee.write(call.argument(buffer), data)
    return len(data)


def _attribute_calls(name: str, act: Callable[[CallContext, TracedCall, Place], int]) -> dict[str, Execute]:
    """Return the three forms of a call: by path, by path of a symlink itself, by descriptor."""
    return {
        name: lambda x, c: act(x, c, x.at(c, None, 0)),
        f"l{name}": lambda x, c: act(x, c, x.at(c, None, 0, follow=False)),
        f"f{name}": lambda x, c: act(x, c, _descriptor(x, c)),
    }


METADATA_CALLS: Mapping[str, Execute] = MappingProxyType(
    {
        "stat": lambda x, c: _stat(x, c, x.at(c, None, 0), 1),
        "lstat": lambda x, c: _stat(x, c, x.at(c, None, 0, follow=False), 1),
        "fstat": lambda x, c: _stat(x, c, _descriptor(x, c), 1),
        "newfstatat": lambda x, c: _stat(x, c, _named(x, c, c.number(3)), 2),
        "statx": _statx,
        "access": lambda x, c: _access(x, c, x.at(c, None, 0), c.number(1)),
        "faccessat": lambda x, c: _access(x, c, x.at(c, 0, 1), c.number(2)),
        "faccessat2": lambda x, c: _access(x, c, _named(x, c, c.number(3)), c.number(2)),
        "chmod": lambda x, c: _chmod(x, c, x.at(c, None, 0), c.number(1)),
        "fchmod": lambda x, c: _chmod(x, c, _descriptor(x, c), c.number(1)),
        "fchmodat": lambda x, c: _chmod(x, c, x.at(c, 0, 1), c.number(2)),
        "fchmodat2": lambda x, c: _chmod(x, c, _named(x, c, c.number(3)), c.number(2)),
        "chown": lambda x, c: _chown(x, c, x.at(c, None, 0), 1),
        "lchown": lambda x, c: _chown(x, c, x.at(c, None, 0, follow=False), 1),
        "fchown": lambda x, c: _chown(x, c, _descriptor(x, c), 1),
        "fchownat": lambda x, c: _chown(x, c, _named(x, c, c.number(4)), 2),
        "utimensat": _utimensat,
        "utime": _old_times(1, "<qq", 0, 1),
        "utimes": _old_times(1_000_000, "<qqqq", 0, 1),
        "futimesat": _old_times(1_000_000, "<qqqq", 1, 2, 0),
        **_attribute_calls("setxattr", _set_attribute),
        **_attribute_calls("getxattr", _get_attribute),
        **_attribute_calls("listxattr", _list_attributes),
        **_attribute_calls("removexattr", _remove_attribute),
    }
)
"""The calls of this module by name."""
