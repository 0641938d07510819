"""System calls that make, remove, rename and open names in the tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from types import MappingProxyType

from pipeline.sandbox.traced.call_context import (
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    CallContext,
    Execute,
)
from pipeline.sandbox.traced.inode_records import InodeRecord, real_mode
from pipeline.sandbox.traced.named_entries import (
    made_name,
    removed_name,
    renamed_names,
    require_not_mounted,
    require_one_file_system,
)
from pipeline.sandbox.traced.syscall_numbers import SYSCALL_NUMBERS
from pipeline.sandbox.traced.tracee import TracedCall, signed
from pipeline.sandbox.traced.tree_lookup import Place, failure
from pipeline.sandbox.traced.written_files import lose_privileges, opened_to_write, removed, renamed, settle

_O_TMPFILE = 0o20000000
_O_PATH = 0o10000000
_WRITING = os.O_WRONLY | os.O_RDWR
_READ, _WRITE = 4, 2
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2


def _open(context: CallContext, call: TracedCall, *, folder: int | None, path: int) -> int | None:
    """Let the kernel open what the path leads to; a new file is made before.

    Flags and mode are the arguments after `path`.
    """
    flags, mode = path + 1, path + 2
    wanted = call.number(flags)
    if wanted & _O_TMPFILE == _O_TMPFILE:
        raise failure(errno.EOPNOTSUPP)
    makes = bool(wanted & os.O_CREAT)
    name = call.text(path)
    descriptor = AT_FDCWD if folder is None else call.integer(folder)
    follow = not (wanted & os.O_NOFOLLOW or (makes and wanted & os.O_EXCL))
    place = context.lookup.find(call.tracee, descriptor, name, follow=follow)
    if makes and place.status is not None and wanted & os.O_EXCL:
        raise failure(errno.EEXIST)
    address = call.tracee.place(os.fsencode(place.host) + b"\0")
    if place.status is None:
        if not makes:
            raise failure(errno.ENOENT)
        if name.endswith("/"):
            raise failure(errno.EISDIR)
        inside = context.require_new(call, place)
        record = context.new_record(call, inside, call.number(mode))
        made = os.open(place.host, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(made, real_mode(record.mode, directory=False))
        os.close(made)
        context.tree.created(inside, record)
    else:
        _require_access(context, call, place, wanted)
    call.registers.set_argument(path, address)
    if makes:
        call.registers.set_argument(flags, wanted & ~(os.O_CREAT | os.O_EXCL))
    return None


def _require_access(context: CallContext, call: TracedCall, place: Place, wanted: int) -> None:
    if wanted & _O_PATH:
        return
    status = place.existing()
    writes = bool(wanted & (_WRITING | os.O_TRUNC))
    access = (_WRITE if writes else 0) | (0 if wanted & os.O_WRONLY else _READ)
    if place.path is None:
        if writes and place.host.startswith("/proc/") and not place.host.startswith(f"/proc/{call.tracee.pid}/"):
            raise failure(errno.EACCES)
        return
    if not call.tracee.credentials.may(context.tree.records.of(status), access):
        raise failure(errno.EACCES)
    if writes and stat.S_ISREG(status.st_mode):
        status = context.tree.copy_up(place.path, status)
        if wanted & os.O_TRUNC:
            lose_privileges(context, status)
        else:
            opened_to_write(context, place.path, status)


def _openat(context: CallContext, call: TracedCall) -> int | None:
    return _open(context, call, folder=0, path=1)


def _open_old(context: CallContext, call: TracedCall) -> int | None:
    return _open(context, call, folder=None, path=0)


def _creat(context: CallContext, call: TracedCall) -> int | None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    call.registers.set_call(SYSCALL_NUMBERS["open"], call.argument(0), flags, call.argument(1))
    return _open(context, call, folder=None, path=0)


def _mkdir(context: CallContext, call: TracedCall, place: Place, mode: int) -> int:
    path = context.require_new(call, place)
    record = context.new_record(call, path, mode & 0o1777, directory=True)
    os.mkdir(place.host, 0o700)
    os.chmod(place.host, real_mode(record.mode, directory=True))
    context.tree.created(path, record)
    return 0


def _mknod(context: CallContext, call: TracedCall, place: Place, mode: int) -> int:
    path = context.require_new(call, place)
    kind = stat.S_IFMT(mode)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        raise failure(errno.EPERM)
    record = context.new_record(call, path, mode)
    os.mknod(place.host, (kind or stat.S_IFREG) | 0o600)
    os.chmod(place.host, real_mode(record.mode, directory=False))
    context.tree.created(path, record)
    return 0


def _symlink(context: CallContext, call: TracedCall, target: str, place: Place) -> int:
    path = context.require_new(call, place)
    record = context.new_record(call, path, 0o777)
    if not target:
        raise failure(errno.ENOENT)
    os.symlink(target, place.host)
    context.tree.created(path, InodeRecord(0o777, record.uid, record.gid))
    return 0


def _remove(context: CallContext, call: TracedCall, folder: int | None, path: int, *, directory: bool) -> int:
    place = removed_name(context, call, folder, path, directory=directory)
    context.parent_of(call, place)
    settle(context, place.existing())
    (os.rmdir if directory else os.unlink)(place.host)
    removed(context, place.existing())
    context.tree.changed.add(place.inside())
    return 0


def _link(context: CallContext, call: TracedCall, source: Place, place: Place) -> int:
    status, path = source.existing(), context.require_new(call, place)
    if stat.S_ISDIR(status.st_mode):
        raise failure(errno.EPERM)
    named = source.path
    if named is None:
        raise failure(errno.EXDEV)
    require_one_file_system(named, path)
    settle(context, status)
    context.tree.copy_up(named, status)
    os.link(context.tree.root / named, place.host, follow_symlinks=False)
    context.tree.changed.add(path)
    return 0


def _rename(context: CallContext, call: TracedCall, names: tuple[Place, Place], flags: int = 0) -> int:
    source, place = names
    status = source.existing()
    if flags & ~(_RENAME_NOREPLACE | _RENAME_EXCHANGE):
        raise failure(errno.EINVAL)
    if flags & _RENAME_EXCHANGE:
        # In an overlay it depends on the layers; programs that ask for it do without.
        raise failure(errno.EINVAL)
    if flags & _RENAME_NOREPLACE and place.status is not None:
        raise failure(errno.EEXIST)
    old, new = source.inside(), place.inside()
    for one in (source, place):
        context.parent_of(call, one)
        require_not_mounted(one.inside())
    if stat.S_ISDIR(status.st_mode) and (status.st_dev, status.st_ino) in context.tree.records.lower:
        raise failure(errno.EXDEV)  # As in an overlay without redirects.
    context.tree.copy_up(old, status)
    context.tree.touch(old)
    settle(context, status)
    os.rename(source.host, place.host)
    if place.status is not None and not os.path.samestat(status, place.status):
        removed(context, place.status)
    renamed(context, old, new)
    context.tree.touch(new)
    return 0


def _truncate(context: CallContext, call: TracedCall) -> int:
    size = signed(call.argument(1), 64)
    if size < 0:
        raise failure(errno.EINVAL)
    place = context.at(call, None, 0)
    status = place.existing()
    if not call.tracee.credentials.may(context.tree.records.of(status), _WRITE):
        raise failure(errno.EACCES)
    lose_privileges(context, context.tree.copy_up(place.inside(), status))
    os.truncate(place.host, size)
    return 0


def _chdir(context: CallContext, call: TracedCall) -> int | None:
    place = context.at(call, None, 0)
    if not stat.S_ISDIR(place.existing().st_mode):
        raise failure(errno.ENOTDIR)
    call.registers.set_argument(0, call.tracee.place(os.fsencode(place.host) + b"\0"))
    return None


def _rewritten(path: int, *, follow: int | None = None) -> Execute:
    """Return the execution of a call that only reads what its path argument leads to."""

    def execute(context: CallContext, call: TracedCall) -> int | None:
        place = context.at(call, None, path, follow=follow is None)
        place.existing()
        call.registers.set_argument(path, call.tracee.place(os.fsencode(place.host) + b"\0"))
        return None

    return execute


def _chroot(context: CallContext, call: TracedCall) -> int:
    place = context.at(call, None, 0)
    if not stat.S_ISDIR(place.existing().st_mode):
        raise failure(errno.ENOTDIR)
    if not call.tracee.credentials.privileged:
        raise failure(errno.EPERM)
    inside = place.inside()
    call.tracee.root = tuple(inside.split("/")) if inside else ()
    return 0


def _getcwd(context: CallContext, call: TracedCall) -> int:
    data = os.fsencode(context.lookup.working_directory(call.tracee)) + b"\0"
    if len(data) > call.argument(1):
        raise failure(errno.ERANGE)
    call.tracee.write(call.argument(0), data)
    return len(data)


def _readlink(context: CallContext, call: TracedCall, place: Place, buffer: int, size: int) -> int:
    status = place.existing()
    if size <= 0:
        raise failure(errno.EINVAL)
    if place.link is None and not stat.S_ISLNK(status.st_mode):
        raise failure(errno.EINVAL)
    target = os.fsencode(place.link if place.link is not None else os.readlink(place.host))[:size]
    call.tracee.write(buffer, target)
    return len(target)


PATH_CALLS: Mapping[str, Execute] = MappingProxyType(
    {
        "open": _open_old,
        "openat": _openat,
        "creat": _creat,
        "mkdir": lambda x, c: _mkdir(x, c, made_name(x, c, None, 0, directory=True), c.number(1)),
        "mkdirat": lambda x, c: _mkdir(x, c, made_name(x, c, 0, 1, directory=True), c.number(2)),
        "mknod": lambda x, c: _mknod(x, c, made_name(x, c, None, 0), c.number(1)),
        "mknodat": lambda x, c: _mknod(x, c, made_name(x, c, 0, 1), c.number(2)),
        "symlink": lambda x, c: _symlink(x, c, c.text(0), made_name(x, c, None, 1)),
        "symlinkat": lambda x, c: _symlink(x, c, c.text(0), made_name(x, c, 1, 2)),
        "unlink": lambda x, c: _remove(x, c, None, 0, directory=False),
        "rmdir": lambda x, c: _remove(x, c, None, 0, directory=True),
        "unlinkat": lambda x, c: _remove(x, c, 0, 1, directory=bool(c.number(2) & AT_REMOVEDIR)),
        "link": lambda x, c: _link(x, c, x.at(c, None, 0, follow=False), made_name(x, c, None, 1)),
        "linkat": lambda x, c: _link(
            x,
            c,
            x.at(c, 0, 1, follow=bool(c.number(4) & AT_SYMLINK_FOLLOW)),
            made_name(x, c, 2, 3),
        ),
        "rename": lambda x, c: _rename(x, c, renamed_names(x, c, (None, 0), (None, 1))),
        "renameat": lambda x, c: _rename(x, c, renamed_names(x, c, (0, 1), (2, 3))),
        "renameat2": lambda x, c: _rename(x, c, renamed_names(x, c, (0, 1), (2, 3)), c.number(4)),
        "truncate": _truncate,
        "chdir": _chdir,
        "chroot": _chroot,
        "getcwd": _getcwd,
        "statfs": _rewritten(0),
        "inotify_add_watch": _rewritten(1),
        "readlink": lambda x, c: _readlink(x, c, x.at(c, None, 0, follow=False), c.argument(1), c.integer(2)),
        "readlinkat": lambda x, c: _readlink(x, c, x.at(c, 0, 1, follow=False), c.argument(2), c.integer(3)),
    }
)
"""The calls of this module by name."""
