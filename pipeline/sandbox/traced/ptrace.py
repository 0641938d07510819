"""The door to ptrace(2): stop processes at system calls, read and change their registers.

Requests must come from the thread that started the process. Every function raises OSError.
"""

from __future__ import annotations

import ctypes
import os

_TRACEME, _CONT, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS, _GETEVENTMSG = 0, 7, 12, 13, 24, 0x4200, 0x4201
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x10_0000
"""PTRACE_O_TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, TRACESECCOMP, EXITKILL."""

EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_SECCOMP = 1, 2, 3, 4, 7
EVENT_NONE = 0

WAIT_ALL, WAIT_OWN_THREAD = 0x4000_0000, 0x2000_0000
"""__WALL and __WNOTHREAD (waitpid(2)): threads as well, and only what the calling thread traces."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)

_NUMBER, _RESULT, _POINTER = 15, 10, 16
_ARGUMENTS = (14, 13, 12, 7, 9, 8)
"""Places in struct user_regs_struct of x86_64 (sys/user.h): orig_rax, rax, rip; rdi, rsi, rdx, r10, r8, r9."""
_INSTRUCTION = 2
"""Bytes of the instruction `syscall`."""
_NONE = (1 << 64) - 1

Registers = ctypes.c_uint64 * 27
"""struct user_regs_struct of x86_64."""


def _request(request: int, pid: int, address: object = None, data: object = None) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "ptrace")


def trace_me() -> None:
    """Let this process be traced by the thread that started it."""
    _request(_TRACEME, 0)


def set_options(pid: int) -> None:
    """Set the events at which a stopped process, and all that it starts, stop.

    They are killed when the tracer ends."""
    _request(_SETOPTIONS, pid, None, _OPTIONS)


def resume(pid: int, *, signal: int = 0, to_exit: bool = False) -> None:
    """Resume a stopped process with a signal; `to_exit`: until its call has been executed."""
    _request(_SYSCALL if to_exit else _CONT, pid, None, signal)


def event_message(pid: int) -> int:
    """Return what an event tells: the new process's ID, or the former ID at an exec."""
    value = ctypes.c_ulong()
    _request(_GETEVENTMSG, pid, None, ctypes.byref(value))
    return value.value


class CallRegisters:
    """The registers of a process that is stopped at a system call."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._values = Registers()
        _request(_GETREGS, pid, None, self._values)

    @property
    def number(self) -> int:
        """The call's number."""
        return self._values[_NUMBER]

    @property
    def result(self) -> int:
        """The call's result, at its exit: negative for an error's number."""
        value = self._values[_RESULT]
        return value - (1 << 64) if value >> 63 else value

    def argument(self, index: int) -> int:
        """Return an argument, unsigned."""
        return self._values[_ARGUMENTS[index]]

    def copy(self) -> CallRegisters:
        """Return a copy, to restore the registers from."""
        other = object.__new__(CallRegisters)
        other._pid, other._values = self._pid, Registers(*self._values)
        return other

    def differs(self, other: CallRegisters) -> bool:
        """Return whether the call or an argument is another."""
        return any(self._values[place] != other._values[place] for place in (_NUMBER, *_ARGUMENTS))

    def restore(self, other: CallRegisters) -> None:
        """Put back the number and the arguments of a call that has ended."""
        for place in (_NUMBER, *_ARGUMENTS):
            self._values[place] = other._values[place]
        self._write()

    def set_call(self, number: int, *arguments: int) -> None:
        """Replace the call and its first arguments."""
        self._values[_NUMBER] = number
        for place, value in zip(_ARGUMENTS, arguments, strict=False):
            self._values[place] = value & _NONE
        self._write()

    def set_argument(self, index: int, value: int) -> None:
        """Replace one argument."""
        self._values[_ARGUMENTS[index]] = value & _NONE
        self._write()

    def skip(self, result: int) -> None:
        """Have the call not executed, with this result."""
        self._values[_NUMBER] = _NONE
        self._values[_RESULT] = result & _NONE
        self._write()

    def repeat(self) -> None:
        """Have the process make the call once more, by these registers."""
        self._values[_RESULT] = self._values[_NUMBER]
        self._values[_POINTER] -= _INSTRUCTION
        self._write()

    def _write(self) -> None:
        _request(_SETREGS, self._pid, None, self._values)
