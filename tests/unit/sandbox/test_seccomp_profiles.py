"""The seccomp profile of each architecture, compiled by libseccomp as runtimes do, and the filter's verdicts."""

from __future__ import annotations

import ctypes
import errno
import struct
import tempfile
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.sandbox.seccomp import profile

TOKENS = {
    "x86_64": 0xC000_003E,
    "aarch64": 0xC000_00B7,
    "ppc64le": 0xC000_0015,
    "s390x": 0x8000_0016,
    "riscv64": 0xC000_00F3,
}
"""AUDIT_ARCH_* of linux/audit.h."""
ALLOW, ERRNO, NO_ERROR = 0x7FFF_0000, 0x0005_0000, 0
COMPARISONS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_MASKED_EQ": 7}
UNKNOWN = -1
DIRECT = {
    "ppc64le": {"socket": 326, "send": 334, "recv": 336},
    "s390x": {"socket": 359},
}
"""Numbers of calls for which libseccomp has a sign instead, which means socketcall(2) too (syscall.tbl)."""
NEWUSER, SIGCHLD = 0x1000_0000, 17
TIOCSTI, TIOCLINUX, TCGETS = 0x5412, 0x541C, 0x5401
AF_UNIX, AF_INET, AF_ALG, AF_VSOCK = 1, 2, 38, 40
STREAM, RAW = 1, 3


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` of seccomp.h."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("behind", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Filter:
    """A compiled filter: its instructions, and the numbers of calls."""

    arch: str
    code: tuple[tuple[int, int, int, int], ...]

    def verdict(self, name: str, *arguments: int) -> int:
        """What a call gives: NO_ERROR, or the errno with which it fails."""
        number = library().seccomp_syscall_resolve_name_arch(TOKENS[self.arch], name.encode())
        if number < 0:
            number = DIRECT[self.arch].get(name, number)
        assert number >= 0, f"{self.arch} has no call {name}"
        order = ">" if self.arch == "s390x" else "<"
        padded = (*arguments, *(0 for _ in range(6 - len(arguments))))
        data = struct.pack(f"{order}iIQ6Q", number, TOKENS[self.arch], 0, *padded)
        returned = self._run(lambda at: int(struct.unpack_from(f"{order}I", data, at)[0]))
        if returned == ALLOW:
            return NO_ERROR
        assert returned & 0xFFFF_0000 == ERRNO, hex(returned)
        return returned & 0xFFFF

    def _run(self, load: Any) -> int:
        """Run the instructions that libseccomp makes (linux/bpf_common.h)."""
        accumulator = at = 0
        while True:
            code, yes, no, k = self.code[at]
            at += 1
            if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
                accumulator = load(k)
            elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= k
            elif code == 0x05:  # BPF_JMP | BPF_JA
                at += k
            elif code in (0x15, 0x25, 0x35):  # JEQ, JGT, JGE
                true = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
                at += yes if true else no
            elif code == 0x06:  # BPF_RET | BPF_K
                # libseccomp turns some of what another byte order returns, and leaves the rest.
                return k if k == ALLOW or k >> 16 == ERRNO >> 16 else struct.unpack("<I", struct.pack(">I", k))[0]
            else:
                raise AssertionError(hex(code))


def library() -> Any:
    """libseccomp, which runc and crun compile profiles with."""
    found = ctypes.CDLL("libseccomp.so.2")
    found.seccomp_init.restype = ctypes.c_void_p
    return found


def compiled(arch: str, *, build: bool = False) -> Filter:
    """Compile a profile as runc does: names that are unknown are left out, and what is refused by default anyway."""
    seccomp, value = library(), profile(build=build, machine=arch)
    default = ERRNO | int(str(value["defaultErrnoRet"]))
    context = ctypes.c_void_p(seccomp.seccomp_init(default))
    native = seccomp.seccomp_arch_native() & 0xFFFF_FFFF
    if native != TOKENS[arch]:
        assert seccomp.seccomp_arch_remove(context, native) == 0
        assert seccomp.seccomp_arch_add(context, TOKENS[arch]) == 0
    rules: Any = value["syscalls"]
    for rule in rules:
        action = ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | rule["errnoRet"]
        comparisons = [
            Comparison(one["index"], COMPARISONS[one["op"]], one["value"], one.get("valueTwo", 0))
            for one in rule.get("args", ())
        ]
        for name in rule["names"]:
            number = seccomp.seccomp_syscall_resolve_name(name.encode())
            if number == UNKNOWN or action == default:
                continue
            given = (Comparison * len(comparisons))(*comparisons)
            failed = seccomp.seccomp_rule_add_array(context, action, number, len(comparisons), given)
            assert failed == 0, f"{name}: a runtime cannot start a container with this rule ({failed})"
    with tempfile.TemporaryFile() as out:
        assert seccomp.seccomp_export_bpf(context, out.fileno()) == 0
        seccomp.seccomp_release(context)
        out.seek(0)
        order = ">" if arch == "s390x" else "<"
        return Filter(arch, tuple(struct.iter_unpack(f"{order}HBBI", out.read())))


@pytest.fixture(scope="module", params=sorted(TOKENS))
def filter_(request: pytest.FixtureRequest) -> Filter:
    return compiled(request.param)


def test_the_profile_names_its_architecture(filter_: Filter) -> None:
    assert profile(build=False, machine=filter_.arch)["architectures"] == [f"SCMP_ARCH_{filter_.arch.upper()}"]


@pytest.mark.parametrize(
    "name", ["read", "openat", "execve", "mmap", "futex", "rt_sigreturn", "wait4", "exit_group", "getrandom", "ppoll"]
)
def test_what_programs_need_is_admitted(filter_: Filter, name: str) -> None:
    assert filter_.verdict(name) == NO_ERROR


@pytest.mark.parametrize("name", ["mount", "ptrace", "bpf", "keyctl", "unshare", "setns", "chroot", "io_uring_setup"])
def test_what_reaches_beyond_the_container_is_refused(filter_: Filter, name: str) -> None:
    assert filter_.verdict(name) == errno.EPERM


def test_a_process_is_made_and_a_namespace_is_not(filter_: Filter) -> None:
    """s390x has the flags in the second argument, behind the stack."""
    stack = 0x3FF_7E00_0000  # with every bit of a namespace's flag
    first, second = (stack, SIGCHLD) if filter_.arch == "s390x" else (SIGCHLD, stack)
    assert filter_.verdict("clone", first, second) == NO_ERROR
    first, second = (stack, NEWUSER | SIGCHLD) if filter_.arch == "s390x" else (NEWUSER | SIGCHLD, stack)
    assert filter_.verdict("clone", first, second) == errno.ENOSYS
    assert filter_.verdict("clone3") == errno.ENOSYS


@pytest.mark.parametrize("above", [0, 1 << 32])
def test_no_input_is_put_into_a_terminal(filter_: Filter, above: int) -> None:
    assert filter_.verdict("ioctl", 0, TIOCSTI | above) in (errno.EPERM, errno.ENOSYS)
    assert filter_.verdict("ioctl", 0, TIOCLINUX | above) in (errno.EPERM, errno.ENOSYS)
    assert filter_.verdict("ioctl", 0, TCGETS) == NO_ERROR


def test_sockets_are_those_of_the_internet_and_unix(filter_: Filter) -> None:
    for family in (AF_UNIX, AF_INET):
        assert filter_.verdict("socket", family, STREAM, 0) == NO_ERROR
    refused = [filter_.verdict("socket", AF_INET, RAW, 0)]
    refused += [filter_.verdict("socket", family, STREAM, 0) for family in (AF_ALG, AF_VSOCK)]
    if filter_.arch == "s390x":
        assert refused == [NO_ERROR] * 3, "docs/sandbox.md, Gaps, says that kinds of sockets are not filtered there"
    else:
        assert refused == [errno.EPERM, errno.EAFNOSUPPORT, errno.EAFNOSUPPORT]


def test_socketcall_is_no_way_round(filter_: Filter) -> None:
    if filter_.arch == "ppc64le":
        assert filter_.verdict("socketcall", 1, 0) == errno.EPERM
    elif filter_.arch == "s390x":
        assert filter_.verdict("socketcall", 1, 0) == NO_ERROR


@pytest.mark.parametrize("name", ["send", "recv", "ugetrlimit", "swapcontext"])
def test_calls_that_glibc_makes_on_powerpc_alone_are_admitted(name: str) -> None:
    assert compiled("ppc64le").verdict(name) == NO_ERROR


@pytest.mark.parametrize("arch", sorted(TOKENS))
def test_scriptlets_may_also_change_their_root(arch: str) -> None:
    assert compiled(arch, build=True).verdict("chroot") == NO_ERROR
