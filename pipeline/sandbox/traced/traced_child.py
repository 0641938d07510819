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
_PTRACE_TRACEME = 0
_UMASK = 0o022


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def main(plan: str) -> None:
    """Execute the command of a plan, a JSON object.

    It has `argv`, `environment`, `folder`, `filter`, `limits`."""
    wanted = json.loads(plan)
    libc = ctypes.CDLL(None, use_errno=True)
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
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    _required(libc, libc.ptrace(_PTRACE_TRACEME, 0, None, None))
    os.kill(os.getpid(), signal.SIGSTOP)
    _required(
        libc, libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(program) // 8, program)))
    )
    os.execve(argv[0], argv, environment)  # noqa: S606 - the tracer finds it in the tree


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
