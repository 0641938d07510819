"""What the probes are for: the names are those of the C sources beside this file."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

REFUSALS = (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""What the filter answers."""


@dataclass(frozen=True)
class Probe:
    """`control`: what happens on the machine as root: `gained`; `refused` with the kernel's own errno, because
    succeeding would do harm; `lacking`: succeeds where the kernel has it at all. `filtered`: the filter's errno is
    to be seen in the container."""

    tries: str
    control: str = "gained"
    filtered: bool = False


def _filtered(tries: str, control: str = "gained") -> Probe:
    return Probe(tries, control, True)


PROBES: Mapping[str, Probe] = {
    "mount": _filtered("mount(2) of a tmpfs"),
    "mount-bind": _filtered("a bind mount of /proc"),
    "mount-proc": _filtered("another proc, with nothing masked"),
    "mount-sysfs": _filtered("sysfs"),
    "mount-remount-root": _filtered("making the root writable"),
    "mount-propagation": _filtered("making mounts shared with others"),
    "mount-new-calls": _filtered("fsopen, fsconfig, fsmount, move_mount"),
    "fsconfig": _filtered("fsconfig by itself, no good arguments", "refused"),
    "fsmount": _filtered("fsmount by itself, no good arguments", "refused"),
    "fspick": _filtered("fspick by itself, no good arguments", "refused"),
    "move_mount": _filtered("move_mount by itself, no good arguments", "refused"),
    "open_tree": _filtered("a detached copy of the root's mount"),
    "mount_setattr": _filtered("taking read-only away with mount_setattr"),
    "umount-masked": _filtered("unmounting what masks /proc/kallsyms"),
    "umount-read-only": _filtered("unmounting the read-only /proc/sys"),
    "remove-masked": Probe("unlinking or renaming a masked path"),
    "read-masked": Probe("reading kcore, kallsyms, keys, timer_list, iomem …"),
    "write-sysctl": Probe("opening vm.swappiness to write"),
    "write-core_pattern": Probe("opening kernel.core_pattern to write"),
    "write-kernel-sysctl": Probe("opening another kernel sysctl to write"),
    "write-hostname-sysctl": Probe("opening kernel.hostname to write"),
    "write-net-sysctl": Probe("opening net.ipv4.ip_forward to write"),
    "write-sysrq": Probe("opening /proc/sysrq-trigger to write", "lacking"),
    "see-sys": Probe("listing /sys/kernel"),
    "write-sys": Probe("opening a file of /sys to write"),
    "pivot_root": _filtered("another root for all"),
    "chroot": Probe("chroot(2)"),
    "leave-root-by-chroot": Probe("climbing out of the root with a second chroot"),
    "mknod-char": Probe("making a character device and opening it"),
    "mknod-block": Probe("making a block device"),
    "open-device": Probe("opening any device but null, zero, full, random, urandom, tty, ptmx"),
    "mount-cgroup2": _filtered("mounting control groups"),
    "release_agent": _filtered("mounting a v1 hierarchy and opening release_agent"),
    "write-cgroup": Probe("joining another control group"),
    "open_by_handle_at": _filtered("a file of the machine by its handle"),
    "name_to_handle_at": _filtered("asking for a file's handle"),
    "see-file-of-the-machine": Probe("a file of the machine by path, /proc/1/root, /proc/self/cwd/…"),
    "mount-tables": Probe("the store's path in mountinfo, mounts, mountstats"),
    "init_module": _filtered("loading a module, no good arguments", "refused"),
    "finit_module": _filtered("loading a module from a file, no good arguments", "refused"),
    "delete_module": _filtered("unloading a module that is not there", "refused"),
    "kexec_load": _filtered("another kernel, no good arguments", "refused"),
    "kexec_file_load": _filtered("another kernel from a file, no good arguments", "refused"),
    "reboot": _filtered("reboot(2) with wrong magic numbers", "refused"),
    "swapon": _filtered("swapping to a file that is not there", "refused"),
    "swapoff": _filtered("no swapping from a file that is not there", "refused"),
    "acct": _filtered("accounting to a file that is not there", "refused"),
    "quotactl": _filtered("quotas of a device that is not there", "refused"),
    "clock_settime": _filtered("setting the clock to an impossible moment", "refused"),
    "settimeofday": _filtered("the same, the old way", "refused"),
    "adjtimex": _filtered("the clock's discipline"),
    "clock_adjtime": _filtered("the same, by clock"),
    "setns-no-namespace": _filtered("entering a namespace, no good descriptor", "refused"),
    "iopl": _filtered("the processor's ports, no good level", "refused"),
    "ioperm": _filtered("the processor's ports, no good range", "refused"),
    "lsm_set_self_attr": _filtered("a security module's attribute, none that exists", "refused"),
    "keyctl": _filtered("a new session keyring"),
    "add_key": _filtered("a key"),
    "request_key": _filtered("a key that nobody has", "refused"),
    "keyctl-persistent": _filtered("a user's persistent keyring"),
    "bpf": _filtered("a BPF map"),
    "perf_event_open": _filtered("a performance counter"),
    "userfaultfd": _filtered("page faults handled by a program"),
    "io_uring_setup": _filtered("an io_uring"),
    "io_uring_enter": _filtered("io_uring_enter, no good descriptor", "refused"),
    "io_uring_register": _filtered("io_uring_register, no good descriptor", "refused"),
    "fanotify_init": _filtered("watching files of everybody"),
    "syslog": _filtered("reading the kernel's log"),
    "vhangup": _filtered("hanging up the terminal"),
    "memfd_secret": _filtered("memory that the kernel cannot see"),
    "modify_ldt": _filtered("the processor's segment table"),
    "32-bit-calls": _filtered("the table of 32-bit calls (int 0x80)"),
    "sethostname": _filtered("another host name (its own UTS namespace: refused all the same)"),
    "setdomainname": _filtered("another domain name (as above)"),
    "ptrace-machine-process": _filtered("attaching to a process of the machine"),
    "ptrace-seize": _filtered("seizing it"),
    "ptrace-own-child": _filtered("attaching to an own child"),
    "ptrace-traceme": _filtered("being traced"),
    "process_vm_readv": _filtered("reading the memory of a process of the machine"),
    "process_vm_writev": _filtered("writing it"),
    "process_vm_readv-self": _filtered("reading the own memory by that call"),
    "proc-mem-of-machine-process": Probe("/proc/PID/mem of a process of the machine"),
    "pidfd_getfd": Probe("a descriptor of a process of the machine"),
    "pidfd_getfd-self": _filtered("an own descriptor by that call"),
    "signal-machine-process": Probe("a signal to a process of the machine"),
    "prlimit-machine-process": Probe("the limits of a process of the machine"),
    "process_madvise": _filtered("advice on another's memory, no good descriptor", "refused"),
    "kcmp": _filtered("comparing kernel objects"),
    "see-machine-processes": Probe("a process of the machine in /proc"),
    "unshare-user": _filtered("a user namespace by unshare"),
    "unshare-others": _filtered("every other namespace by unshare"),
    "clone-user": _filtered("a user namespace by clone"),
    "clone-others": _filtered("every other namespace by clone"),
    "clone-user-high-bits": _filtered("the same with the flags' upper half set"),
    "clone3-user": _filtered("a user namespace by clone3"),
    "clone3": _filtered("clone3 at all: its flags cannot be seen"),
    "setns-own": _filtered("entering the own namespace"),
    "setns-of-pid-1": _filtered("entering another process's network"),
    "setuid-program": Probe("a set-user-id root program"),
    "file-capability-program": Probe("a program with file capabilities"),
    "capset": Probe("giving itself CAP_SYS_ADMIN"),
    "no_new_privs-off": Probe("running without no_new_privs"),
    "seccomp-off": Probe("running without a filter"),
    "real-time-scheduling": Probe("SCHED_FIFO"),
    "nice-below-0": Probe("a priority above everybody's"),
    "io-real-time": Probe("I/O before everybody's"),
    "uid-beyond-range": Probe("an id beyond the container's own"),
    "TIOCSTI": _filtered("typing into a terminal"),
    "TIOCSTI-high-bits": _filtered("the same with the request's upper half set"),
    "dev-tty": Probe("a controlling terminal"),
    "descriptors-beyond-2": Probe("any open descriptor but 0, 1, 2"),
    "socket-packet": _filtered("frames of the network"),
    "socket-raw": _filtered("raw IPv4 packets"),
    "socket-raw6": _filtered("raw IPv6 packets"),
    "socket-old-packet": _filtered("SOCK_PACKET"),
    "socket-vsock": _filtered("the hypervisor"),
    "socket-alg": _filtered("the kernel's cryptography", "lacking"),
    "socket-netlink-audit": _filtered("the audit log"),
    "socket-netlink-uevent": _filtered("device events"),
    "socket-netlink-netfilter": _filtered("the packet filter"),
    "socket-netlink-diag": _filtered("everybody's sockets"),
    "socket-xdp": _filtered("AF_XDP"),
    "socket-vsock-high-bits": _filtered("the hypervisor, with the family's upper half set"),
    "socket-udplite": _filtered("a protocol besides TCP, UDP and ICMP"),
    "socket-mptcp": _filtered("MPTCP"),
    "socket-mptcp6": _filtered("MPTCP over IPv6"),
    "new-interface": Probe("a new network interface"),
    "change-interface": Probe("changing an interface's flags"),
    "machine-loopback": Probe("a port on the machine's 127.0.0.1"),
    "abstract-socket": Probe("an abstract unix socket of the machine"),
    "sysv-shared-memory": Probe("System V shared memory of the machine"),
    "sysv-semaphore": Probe("a System V semaphore of the machine"),
    "sysv-message-queue": Probe("a System V message queue of the machine"),
    "posix-shared-memory": Probe("POSIX shared memory of the machine"),
    "posix-message-queue": Probe("a POSIX message queue of the machine"),
}

ADMITTED: Mapping[str, Mapping[str, str]] = {
    "build": {"chroot": "CAP_SYS_CHROOT over its own tree; `leave-root-by-chroot` shows where it leads"},
}
"""By place: what succeeds there, and why that is no harm."""


def table(answers: Mapping[str, Mapping[str, str]]) -> str:
    """The table in Markdown. `answers` by place and probe."""

    def mark(place: str, name: str) -> str:
        text = answers[place][name]
        return f"**{text}** (admitted)" if name in ADMITTED.get(place, {}) else text

    def control(name: str) -> str:
        text = answers["control"][name]
        if text == "gained":
            return "succeeds"
        return f"not in this kernel ({text})" if PROBES[name].control == "lacking" else f"the kernel's own {text}"

    rows = [
        f"| `{name}` | {probe.tries} | {mark('root', name)} | {mark('user', name)} | {mark('build', name)} |"
        f" {control(name)} |"
        for name, probe in PROBES.items()
    ]
    head = "| probe | what it tries | run, as root | run, as its user | build | control on the machine |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows]) + "\n"
