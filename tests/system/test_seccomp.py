"""The seccomp filter of a running instance as the kernel holds it, whatever the profile says."""

from __future__ import annotations

import platform
import re
import subprocess

import pytest

from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import find_runtime, launch, open_sandbox_registry
from pipeline.sandbox.seccomp import profile
from tests.support.tiny_root import make_root, require_root
from tests.system.isolation.filters import ALLOW, answer, read_filter

pytestmark = [
    pytest.mark.brief,
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="a processor is missing that the filter is read for here: x86_64"
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, int, int, int]]:
    """The filter of a running instance."""
    require_root()
    folder = tmp_path_factory.mktemp("filter")
    folder.chmod(0o700)
    root, sandboxes = make_root(folder / "root"), open_sandbox_registry(folder / "sandboxes", find_runtime())
    sleeping = ImageConfig("amd64", 0, entrypoint=("/bin/sleep", "1000"), user="root")
    with launch(sleeping, [root], Limits(), sandboxes=sandboxes, name="filter") as instance:
        return read_filter(min(instance.slot.group.processes()))


NEWER = {
    name: number
    for number, name in enumerate(
        ("cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue"), 451
    )
}
"""Calls that the headers here may be too old for."""

NEVER = """
mount umount2 pivot_root setns unshare ptrace process_vm_readv process_vm_writev kexec_load kexec_file_load
init_module finit_module delete_module reboot swapon swapoff sethostname setdomainname iopl ioperm syslog acct
settimeofday clock_settime adjtimex clock_adjtime add_key request_key keyctl perf_event_open bpf userfaultfd
io_uring_setup io_uring_enter io_uring_register open_by_handle_at name_to_handle_at quotactl fanotify_init
kcmp open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr pidfd_getfd process_madvise vhangup
modify_ldt
"""


def test_what_reaches_beyond_is_refused_whatever_the_arguments(program: list[tuple[int, int, int, int]]) -> None:
    numbers = call_numbers()
    for name in (*NEVER.split(), "chroot"):
        for arguments in ((), (1,) * 6, (2**64 - 1,) * 6):
            assert answer(program, numbers[name], arguments) != ALLOW, name


def test_no_call_is_admitted_that_the_profile_does_not_name(program: list[tuple[int, int, int, int]]) -> None:
    rules = profile(build=False)["syscalls"]
    assert isinstance(rules, list)
    named = {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    numbers = call_numbers()
    allowed = {number for number in range(1024) if answer(program, number) == ALLOW}
    assert allowed - {numbers[name] for name in named if name in numbers} == set()
    assert len(allowed) > 250, "the filter was not understood"


def test_namespaces_and_terminal_input_are_refused_bit_by_bit(program: list[tuple[int, int, int, int]]) -> None:
    clone, ioctl = (call_numbers()[name] for name in ("clone", "ioctl"))
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(program, clone, (bit | 17,)) != ALLOW
        assert answer(program, clone, (1 << 40 | bit | 17,)) != ALLOW
    assert answer(program, clone, (0x3D0F00,)) == ALLOW, "threads are made like this"
    for request in range(0x5400, 0x5480):
        for upper in (0, 1 << 32, 0xFFFFFFFF << 32):
            expected = request not in (0x5412, 0x541C)
            assert (answer(program, ioctl, (0, request | upper)) == ALLOW) is expected, hex(request)


def call_numbers() -> dict[str, int]:
    """Numbers of calls by name, from the kernel's own header."""
    text = subprocess.run(
        ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}
    return {**NEWER, **numbers}
