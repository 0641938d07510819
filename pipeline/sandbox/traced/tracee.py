"""A traced process or thread: its memory, its accounts, its present system call."""

from __future__ import annotations

import errno
import os
from dataclasses import field

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.traced.inode_records import InodeRecord
from pipeline.sandbox.traced.ptrace import CallRegisters

_PAGE = 4096
PATH_MOST = 4096
"""Bytes of a path, its end included (PATH_MAX)."""

_SCRATCH_LEAST = 16384


class ScratchNeeded(Exception):
    """A process needs memory for what its registers are to point to; `size` in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = max(_SCRATCH_LEAST, -(-size // _PAGE) * _PAGE)


@dataclass(slots=True)
class ProcessIds:
    """The IDs of a process as it sees them: real, effective, saved, for files; groups."""

    users: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    groups: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    supplementary: list[int] = field(default_factory=list)

    def copy(self) -> ProcessIds:
        """Return those of a new process."""
        return ProcessIds([*self.users], [*self.groups], [*self.supplementary])

    @property
    def privileged(self) -> bool:
        """True if it is root."""
        return self.users[1] == 0

    def may(self, record: InodeRecord, wanted: int) -> bool:
        """Return whether the permission bits give the access `wanted` (4 read, 2 write, 1 execute)."""
        if self.users[3] == 0:
            return True
        if self.users[3] == record.uid:
            allowed = record.mode >> 6
        elif record.gid in (self.groups[3], *self.supplementary):
            allowed = record.mode >> 3
        else:
            allowed = record.mode
        return wanted & ~allowed & 0o7 == 0


@dataclass(slots=True)
class Tracee:
    """The state of a traced process or thread.

    `root` is where a chroot has put it, as names below the tree; `program` is the path of its program in the image,
    `starting` that of the one that it is about to execute. `scratch` and `scratch_size` are memory of its own that the
    tracer writes arguments to. `restoring` are the registers to restore at the end of its call.
    """

    pid: int
    credentials: ProcessIds
    root: tuple[str, ...] = ()
    program: str = ""
    starting: str = ""
    scratch: int = 0
    scratch_size: int = 0
    used: int = 0
    injecting: CallRegisters | None = None
    injected_size: int = 0
    restoring: CallRegisters | None = None
    _memory: int = -1
    _kept: int = -1

    def child(self, pid: int, *, shares_memory: bool) -> Tracee:
        """Return the state of a process that it has just started."""
        scratch = (0, 0) if shares_memory else (self.scratch, self.scratch_size)
        return Tracee(pid, self.credentials.copy(), self.root, self.program, "", *scratch)

    def executed(self) -> None:
        """Take note of a new program, with new memory."""
        self.program, self.starting = self.starting or self.program, ""
        self.scratch = self.scratch_size = 0
        self.restoring = None
        self.close()

    def keep(self, descriptor: int) -> None:
        """Keep a descriptor of this process open until its next call; -1 for none."""
        if self._kept >= 0:
            os.close(self._kept)
        self._kept = descriptor

    def close(self) -> None:
        """Close the descriptors of its memory and of its call."""
        self.keep(-1)
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _handle(self) -> int:
        if self._memory < 0:
            self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        return self._memory

    def read(self, address: int, size: int) -> bytes:
        """Read memory. Raises OSError EFAULT."""
        try:
            data = os.pread(self._handle(), size, address)
        except (OSError, OverflowError) as error:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from error
        if len(data) != size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return data

    def read_string(self, address: int, most: int = PATH_MOST) -> bytes:
        """Read a string that ends with a zero byte. Raises OSError EFAULT, ENAMETOOLONG."""
        found = bytearray()
        while len(found) < most:
            piece = self.read(address, min(_PAGE - address % _PAGE, 256))
            end = piece.find(b"\0")
            if end >= 0:
                return bytes(found + piece[:end])
            found += piece
            address += len(piece)
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    def write(self, address: int, data: bytes) -> None:
        """Write memory. Raises OSError EFAULT."""
        try:
            written = os.pwrite(self._handle(), data, address)
        except (OSError, OverflowError) as error:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from error
        if written != len(data):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def place(self, data: bytes) -> int:
        """Put data into its scratch memory, behind the present call's; return its address."""
        if self.scratch_size < self.used + len(data):
            raise ScratchNeeded(self.used + len(data))
        address = self.scratch + self.used
        self.write(address, data)
        self.used += -(-len(data) // 8) * 8
        return address

    def umask(self) -> int:
        """Return its mask of permission bits for new files."""
        with open(f"/proc/{self.pid}/status", "rb", buffering=0) as file:
            for line in file.read(512).splitlines():
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
        return 0


def signed(value: int, bits: int = 32) -> int:
    """Return an argument as a C int (or of another size)."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


@dataclass(slots=True)
class TracedCall:
    """A system call that a process is stopped at."""

    tracee: Tracee
    registers: CallRegisters

    def argument(self, index: int) -> int:
        """Return an argument, unsigned."""
        return self.registers.argument(index)

    def integer(self, index: int) -> int:
        """Return an argument as a C int."""
        return signed(self.registers.argument(index))

    def number(self, index: int) -> int:
        """Return an argument as a C unsigned int."""
        return self.registers.argument(index) & 0xFFFF_FFFF

    def text(self, index: int) -> str:
        """Return the string that an argument points to. Raises OSError."""
        return os.fsdecode(self.tracee.read_string(self.registers.argument(index)))
