"""The program that sets limits, tracing and filter, and then becomes a traced command.

It is run by its path and without `site`, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 1, 24, 47, 4
_CAPABILITY_ABI = 0x2008_0522
_CAPABILITIES = 64
"""Bits of the kernel's sets of capabilities (linux/capability.h)."""
_PTRACE_TRACEME = 0
_UMASK = 0o022


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def main(plan: str) -> None:
    """Execute the command of a plan, a JSON object.

    It has `argv`, `environment`, `folder`, `filter`, `limits`."""
    wanted = json.loads(plan)
    libc = ctypes.CDLL(None, use_errno=True)
    _required(libc, libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    program = bytes.fromhex(wanted["filter"])
    for name, value in wanted["limits"].items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (bound, bound))
    os.umask(_UMASK)
    os.chdir(wanted["folder"])
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Which Python ignores.
        signal.signal(number, signal.SIG_DFL)
    argv = [os.fsencode(word) for word in wanted["argv"]]
    environment = {os.fsencode(name): os.fsencode(value) for name, value in wanted["environment"].items()}
    _required(libc, libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _drop_capabilities(libc)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    _required(libc, libc.ptrace(_PTRACE_TRACEME, 0, None, None))
    os.kill(os.getpid(), signal.SIGSTOP)
    _required(
        libc, libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(program) // 8, program)))
    )
    os.execve(argv[0], argv, environment)  # noqa: S606 - the tracer finds it in the tree


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up all capabilities that root has: what a script may do, the tracer does for it."""
    for number in range(_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # Fails without CAP_SETPCAP; no_new_privs does as well.
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_ABI, 0), (ctypes.c_uint32 * 6)()
    _required(libc, libc.capset(header, none))


def _required(libc: ctypes.CDLL, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OSError as error:
        os.write(2, f"{error.strerror}".encode())
        os._exit(127)
