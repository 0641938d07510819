"""The filter of system calls for traced processes, as a program for seccomp(2).

It is the profile of scriptlets in containers (`pipeline.sandbox.seccomp`), but for calls that the tracer executes, and
for sockets of the internet, which are refused: there is no network namespace to contain them.
"""

from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.sandbox.seccomp import profile
from pipeline.sandbox.traced.syscall_numbers import SYSCALL_NUMBERS

FILTER_MACHINE = "x86_64"
"""The kernel's name of the only machine whose registers and calls the tracer knows."""

_AUDIT_ARCH = 0xC000_003E
_X32 = 0x4000_0000
"""Calls from this number on are those of x32 programs."""

_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
_EQUAL, _GREATER, _AT_LEAST = 0x15, 0x25, 0x35
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data (linux/seccomp.h)."""

_ALLOW, _TRACE, _ERROR, _KILL = 0x7FFF_0000, 0x7FF0_0000, 0x0005_0000, 0x8000_0000
_LOW = 0xFFFF_FFFF

_ABSENT = ("openat2", "execveat", "setxattrat", "getxattrat", "listxattrat", "removexattrat", "sendmmsg")
"""Calls that libraries try and do without: their arguments would have to be read from memory."""

_AF_INET, _AF_INET6 = 2, 10
_PR_SET_DUMPABLE = 4

_NEXT = -1
"""Target of a jump to the next rule, until it is known."""

_Instruction = tuple[int, int, int, int]


def filter_program(traced: Sequence[str]) -> bytes:
    """Return the filter as an array of struct sock_filter; `traced` are the tracer's calls."""
    plain, conditional = _verdicts(profile(build=True, machine=FILTER_MACHINE))
    plain |= {SYSCALL_NUMBERS[name]: _TRACE for name in traced}
    plain |= {SYSCALL_NUMBERS[name]: _ERROR | errno.ENOSYS for name in _ABSENT}
    number = SYSCALL_NUMBERS
    conditional[number["sendto"]] = [([(4, "SCMP_CMP_NE", 0)], _TRACE), ([], _ALLOW)]
    # The tracer could not read the memory of a process that is not dumpable.
    conditional[number["prctl"]] = [([(0, "SCMP_CMP_EQ", _PR_SET_DUMPABLE)], _ERROR), ([], _ALLOW)]
    refused = [([(0, "SCMP_CMP_EQ", family)], _ERROR | errno.EAFNOSUPPORT) for family in (_AF_INET, _AF_INET6)]
    conditional[number["socket"]] = [*refused, *conditional[number["socket"]]]
    for one in conditional:
        plain.pop(one, None)
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for first, last, verdict in _runs(plain):
        program += [(_AT_LEAST, 0, 2, first), (_GREATER, 1, 0, last), (_RETURN, 0, 0, verdict)]
    for one, rules in sorted(conditional.items()):
        block = [instruction for arguments, verdict in rules for instruction in _rule(arguments, verdict)]
        block.append((_RETURN, 0, 0, _ERROR | errno.ENOSYS))
        program += [(_EQUAL, 1, 0, one), (_JUMP, 0, 0, len(block)), *block]
    program.append((_RETURN, 0, 0, _ERROR | errno.ENOSYS))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


_Argument = tuple[Any, ...]
_Rules = list[tuple[list[_Argument], int]]


def _verdicts(rules: Mapping[str, Any]) -> tuple[dict[int, int], dict[int, _Rules]]:
    """Return verdicts by number, and rules of calls whose arguments are compared."""
    plain: dict[int, int] = {}
    conditional: dict[int, _Rules] = {}
    for rule in rules["syscalls"]:
        verdict = _ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERROR | rule["errnoRet"]
        compared = [
            (one["index"], one["op"], one["value"], *([one["valueTwo"]] if "valueTwo" in one else []))
            for one in rule.get("args", ())
        ]
        for name in rule["names"]:
            number = SYSCALL_NUMBERS.get(name)
            if number is None:  # A call of other architectures.
                continue
            if compared:
                conditional.setdefault(number, []).append((compared, verdict))
            else:
                plain[number] = verdict
    return plain, conditional


def _runs(verdicts: Mapping[int, int]) -> Iterator[tuple[int, int, int]]:
    """Yield runs of adjacent numbers with one verdict, so that the program is short."""
    ordered = sorted(verdicts.items())
    for _, group in itertools.groupby(enumerate(ordered), key=lambda one: (one[1][0] - one[0], one[1][1])):
        members = [item for _, item in group]
        yield members[0][0], members[-1][0], members[0][1]


def _rule(arguments: Sequence[_Argument], verdict: int) -> list[_Instruction]:
    """Return instructions that give the verdict if all arguments compare, else go on.

    The call's number is what the accumulator held before; nothing needs it after the first rule of a call.
    """
    body = [instruction for argument in arguments for instruction in _comparison(argument)]
    body.append((_RETURN, 0, 0, verdict))
    made = []
    for index, (code, yes, no, value) in enumerate(body):
        ahead = len(body) - index - 1
        made.append((code, ahead if yes == _NEXT else yes, ahead if no == _NEXT else no, value))
    return made


def _comparison(argument: _Argument) -> list[_Instruction]:
    index, operator, value, *more = argument
    low, high = _ARGUMENTS + 8 * index, _ARGUMENTS + 8 * index + 4
    match operator:
        case "SCMP_CMP_EQ":
            return [
                (_LOAD, 0, 0, high),
                (_EQUAL, 0, _NEXT, value >> 32),
                (_LOAD, 0, 0, low),
                (_EQUAL, 0, _NEXT, value & _LOW),
            ]
        case "SCMP_CMP_MASKED_EQ":
            wanted = more[0]
            return [
                (_LOAD, 0, 0, high),
                (_AND, 0, 0, value >> 32),
                (_EQUAL, 0, _NEXT, wanted >> 32),
                (_LOAD, 0, 0, low),
                (_AND, 0, 0, value & _LOW),
                (_EQUAL, 0, _NEXT, wanted & _LOW),
            ]
        case "SCMP_CMP_NE":
            return [
                (_LOAD, 0, 0, high),
                (_EQUAL, 0, 2, value >> 32),
                (_LOAD, 0, 0, low),
                (_EQUAL, _NEXT, 0, value & _LOW),
            ]
        case "SCMP_CMP_GE":
            return [
                (_LOAD, 0, 0, high),
                (_GREATER, 2, 0, value >> 32),
                (_LOAD, 0, 0, low),
                (_AT_LEAST, 0, _NEXT, value & _LOW),
            ]
    raise AssertionError(operator)
