"""The seccomp profile: the system calls that a container may make, as runtime-spec JSON.

See runtime-spec, config-linux.md, Seccomp. It is an allow-list. Other calls fail with ENOSYS, so that programs fall
back as they do on an old kernel; calls that programs expect to be refused fail with EPERM. The usual profiles allow
mount, unshare, keyctl or ptrace and rely on capabilities; this one does not, whatever capabilities there are.
"""

from __future__ import annotations

import errno
import platform

_ALLOWED = """
accept accept4 access alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod
fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr
fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list
get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername
getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr
link linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise
map_shadow_stack membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd
msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal
pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64
process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom
recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir
rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto
set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid
setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat
shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs
statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill
truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid
write writev
"""
"""Calls that shells, libraries and servers use. None reaches beyond the container's namespaces; those that need
capabilities (chown, setuid, mknod of a device) still need them."""

_BUILD_EXTRAS = ("chroot",)
"""Further calls for scriptlets: rpm-based tools prepare trees with chroot (`ldconfig -r`)."""

_REFUSED = """
acct add_key adjtimex bpf clock_adjtime clock_settime delete_module fanotify_init finit_module fsconfig fsmount
fsopen fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
kexec_load keyctl lookup_dcookie lsm_set_self_attr mount mount_setattr move_mount name_to_handle_at nfsservctl
open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise process_vm_readv
process_vm_writev ptrace quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday
swapoff swapon syslog umount umount2 unshare userfaultfd vhangup
"""
"""Calls that fail with EPERM, which programs that try them expect."""

_NAMESPACES = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (sched.h)."""

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK, _AF_LAST = 1, 2, 10, 16, 64
_NETLINK_ROUTE = 0

_KINDS = (1, 2, 5)
"""SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, below the flags; SOCK_RAW and SOCK_PACKET are not among them."""

_KIND_MASK = 0xF

_PROTOCOLS = (0, 1, 6, 17, 58)
"""Protocols of internet sockets: the default, ICMP (pings without a raw socket), TCP, UDP, ICMPv6. Another, such as
SCTP or DCCP, would make the kernel load a module."""

_IPPROTO_MPTCP = 262
"""Multipath TCP: much kernel code, with vulnerabilities, that is of no use with one link. Programs that try it (Go's
listeners do) fall back to TCP when the protocol is not supported."""

_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX (ioctl_tty(2)), which insert input into a terminal."""

_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, each with UNAME26, and asking which it is: as in the containers' default profile."""

_ARCHITECTURES = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
    "riscv64": "SCMP_ARCH_RISCV64",
}
"""The kernel's names of machines → seccomp's. Calls that an architecture lacks are left out by the runtime."""

_OF_ARCHITECTURE = {
    "ppc64le": ("recv", "send", "swapcontext", "sync_file_range2", "ugetrlimit"),
    "riscv64": ("riscv_flush_icache", "riscv_hwprobe"),
}
"""Calls that one architecture alone has, and libraries there use: send(2), recv(2) and getrlimit(2) as glibc makes them
there, contexts of setcontext(3), and what makes instructions seen that were just written."""

_SOCKETCALL_REFUSED = frozenset({"ppc64le"})
"""Architectures that have socketcall(2) as well, whose arguments a filter cannot read. libseccomp admits each call
through it that is admitted by itself, so it is refused before; glibc makes the calls themselves there."""

_SOCKETS_UNFILTERED = frozenset({"s390x"})
"""Architectures on which glibc and Go use socketcall(2): without it there are no sockets, and with it a filter cannot
see what kind of socket is asked for."""

_CLONE_FLAGS = {"s390x": 1}
"""The argument of clone(2) that has its flags, where it is not the first (CONFIG_CLONE_BACKWARDS2)."""

_NIBBLE = 4

_Rule = dict[str, object]
_Argument = tuple[int, str, int] | tuple[int, str, int, int]
"""Index, comparison, value, and for a masked comparison the value behind the mask."""


def profile(*, build: bool, machine: str | None = None) -> dict[str, object]:
    """Return the `linux.seccomp` object of the build or run profile on this architecture.

    Only the native calls are allowed: 32-bit programs would bring a second table of calls, in which arguments of
    socket(2) cannot be filtered.
    """
    here = machine or platform.machine()
    rules: list[_Rule] = [
        _rule(sorted([*_ALLOWED.split(), *_OF_ARCHITECTURE.get(here, ()), *(_BUILD_EXTRAS if build else ())])),
        _rule(sorted([*_REFUSED.split(), *(() if build else _BUILD_EXTRAS)]), error=errno.EPERM),
        _rule(["clone"], (_CLONE_FLAGS.get(here, 0), "SCMP_CMP_MASKED_EQ", _NAMESPACES, 0)),
        # Its flags are in memory, which a filter cannot read. glibc falls back to clone on ENOSYS.
        _rule(["clone3"], error=errno.ENOSYS),
        *(_rule(["personality"], (0, "SCMP_CMP_EQ", value)) for value in _PERSONALITIES),
        *_ioctls(),
        *([_rule(["socket"])] if here in _SOCKETS_UNFILTERED else _sockets()),
    ]
    if here in _SOCKETCALL_REFUSED:
        rules.insert(0, _rule(["socketcall"], error=errno.EPERM))
    architecture = _ARCHITECTURES.get(here)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.ENOSYS,
        **({"architectures": [architecture]} if architecture else {}),
        "syscalls": rules,
    }


def _ioctls() -> list[_Rule]:
    """Return rules that allow every ioctl(2) request but those of _TERMINAL_INPUT.

    The kernel reads 32 bits of the request and a filter compares 64, so "not equal" could be circumvented by a higher
    bit. Therefore requests are allowed that differ in one of the upper 28 of the 32 bits, and the fourteen others in
    the last four.
    """
    first = _TERMINAL_INPUT[0]
    rules = [_rule(["ioctl"], (1, "SCMP_CMP_MASKED_EQ", 1 << bit, ~first & (1 << bit))) for bit in range(_NIBBLE, 32)]
    near = range(first >> _NIBBLE << _NIBBLE, (first >> _NIBBLE) + 1 << _NIBBLE)
    rules += [
        _rule(["ioctl"], (1, "SCMP_CMP_MASKED_EQ", 0xFFFF_FFFF, request))
        for request in near
        if request not in _TERMINAL_INPUT
    ]
    refused = [
        _rule(["ioctl"], (1, "SCMP_CMP_MASKED_EQ", 0xFFFF_FFFF, request), error=errno.EPERM)
        for request in _TERMINAL_INPUT
    ]
    return rules + refused


def _sockets() -> list[_Rule]:
    def kind(number: int) -> _Argument:
        return (1, "SCMP_CMP_MASKED_EQ", _KIND_MASK, number)

    allowed = [_rule(["socket"], (0, "SCMP_CMP_EQ", _AF_UNIX))]
    allowed += [
        _rule(["socket"], (0, "SCMP_CMP_EQ", family), kind(number), (2, "SCMP_CMP_EQ", protocol))
        for family in (_AF_INET, _AF_INET6)
        for number in _KINDS
        for protocol in _PROTOCOLS
    ]
    netlink = (0, "SCMP_CMP_EQ", _AF_NETLINK)
    # glibc asks the routing table for addresses; libaudit takes EPROTONOSUPPORT for "no audit here".
    allowed.append(_rule(["socket"], netlink, (2, "SCMP_CMP_EQ", _NETLINK_ROUTE)))
    refused = [
        _rule(["socket"], netlink, (2, "SCMP_CMP_NE", _NETLINK_ROUTE), error=errno.EPROTONOSUPPORT),
        _rule(["socket"], (0, "SCMP_CMP_GE", _AF_LAST), error=errno.EAFNOSUPPORT),
    ]
    refused += [
        _rule(["socket"], (0, "SCMP_CMP_EQ", family), kind(number), error=errno.EPERM)
        for family in (_AF_INET, _AF_INET6)
        for number in range(_KIND_MASK + 1)
        if number not in _KINDS
    ]
    refused += [
        _rule(
            ["socket"],
            (0, "SCMP_CMP_EQ", family),
            kind(number),
            (2, "SCMP_CMP_EQ", _IPPROTO_MPTCP),
            error=errno.EPROTONOSUPPORT,
        )
        for family in (_AF_INET, _AF_INET6)
        for number in _KINDS
    ]
    known = (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)
    refused += [
        _rule(["socket"], (0, "SCMP_CMP_EQ", family), error=errno.EAFNOSUPPORT)
        for family in range(_AF_LAST)
        if family not in known
    ]
    return allowed + refused


def _rule(names: list[str], *arguments: _Argument, error: int | None = None) -> _Rule:
    rule: _Rule = {"names": names, "action": "SCMP_ACT_ALLOW" if error is None else "SCMP_ACT_ERRNO"}
    if error is not None:
        rule["errnoRet"] = error
    if arguments:
        rule["args"] = [
            {
                "index": argument[0],
                "op": argument[1],
                "value": argument[2],
                **({"valueTwo": argument[3]} if len(argument) == 4 else {}),
            }
            for argument in arguments
        ]
    return rule
