"""A root file system of a few files, made in a moment: busybox, and a static C program that tries things."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.sandbox.cgroups import usable_hierarchies
from pipeline.sandbox.rootless import in_user_namespace

_APPLETS = """
sh cat chmod chown dd echo env fallocate false grep head httpd id kill ln ls mkdir mount nc ps readlink rm sed seq sleep
stat tail tar test touch true umount unshare wget yes
"""

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nserver:x:27:28:Server:/var/lib/server:/bin/sh\n"
_GROUP = "root:x:0:\nserver:x:28:\nreaders:x:40:server\nwriters:x:41:server,other\nothers:x:42:other\n"

_PROBE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void try(const char *name, long result) {
    printf("%s %d\n", name, result < 0 ? errno : 0);
    fflush(stdout);
}

static int calls(void) {
    char buffer[64];
    try("getpid", syscall(SYS_getpid));
    try("mount", syscall(SYS_mount, "x", "/tmp", "tmpfs", 0, ""));
    try("unshare", syscall(SYS_unshare, 0x10000000));
    try("clone_newuser", syscall(SYS_clone, 0x10000000 | 17, 0, 0, 0, 0));
    try("clone3", syscall(SYS_clone3, buffer, 64));
    try("setns", syscall(SYS_setns, 0, 0));
    try("ptrace", syscall(SYS_ptrace, 0, 0, 0, 0));
    try("keyctl", syscall(SYS_keyctl, 0, -4, 1));
    try("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -2));
    try("bpf", syscall(SYS_bpf, 0, buffer, 64));
    try("perf_event_open", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
    try("userfaultfd", syscall(SYS_userfaultfd, 0));
    try("io_uring_setup", syscall(SYS_io_uring_setup, 1, buffer));
    try("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, buffer, 0));
    try("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    try("open_tree", syscall(SYS_open_tree, -100, "/", 1));
    try("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    try("unknown", syscall(999));
    try("af_unix", socket(AF_UNIX, SOCK_STREAM, 0));
    try("af_inet", socket(AF_INET, SOCK_STREAM, 0));
    try("af_inet6", socket(AF_INET6, SOCK_STREAM, 0));
    try("af_packet", socket(AF_PACKET, SOCK_RAW, 0));
    try("af_vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    try("af_alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
    try("netlink_route", socket(AF_NETLINK, SOCK_RAW, 0));
    try("netlink_audit", socket(AF_NETLINK, SOCK_RAW, 9));
    try("chroot", chroot("/"));
    return 0;
}

int main(int count, char **words) {
    long number = count > 2 ? atol(words[2]) : 0;
    if (!strcmp(words[1], "calls")) return calls();
    if (!strcmp(words[1], "hog")) {
        for (long done = 0; done < number; done += 1 << 20) {
            char *piece = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (piece == MAP_FAILED) return 9;
            memset(piece, 1, 1 << 20);
        }
        puts("had it all");
        return 0;
    }
    if (!strcmp(words[1], "forks")) {
        long made = 0;
        for (; made < number; made++) {
            pid_t child = fork();
            if (child < 0) break;
            if (child == 0) { pause(); _exit(0); }
        }
        printf("made %ld\n", made);
        fflush(stdout);
        return 0;
    }
    if (!strcmp(words[1], "stray")) {
        int file = open(words[2], O_CREAT | O_WRONLY, 0644);
        if (file < 0) return 3;
        if (fork() == 0) {
            if (setuid(atoi(words[3]))) _exit(1);
            usleep(600000);
            _exit(write(file, "late", 4) != 4);
        }
        return 0;
    }
    if (!strcmp(words[1], "connection")) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(3306), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(server, (void *)&at, sizeof at) || listen(server, 1)) return errno;
        if (connect(client, (void *)&at, sizeof at)) return 3;
        int served = accept(server, 0, 0);
        char byte;
        close(served);
        return read(client, &byte, 1) != 0;
    }
    if (!strcmp(words[1], "spin")) for (;;) ;
    if (!strcmp(words[1], "segment")) return shmget(7, 4096, 01600) < 0;
    return 2;
}
"""


def require_root(what: str = "mount layers and limit processes") -> None:
    """Skips a test of an ordinary user, who may not do `what`."""
    if os.geteuid() != 0:
        pytest.skip(f"root is missing, which it takes to {what}")


def ordinary() -> bool:
    """Are these the tests of an ordinary user, who is root of a user namespace only (test_as_ordinary_user.py)?"""
    return in_user_namespace()


def unenforced(what: str) -> NoReturn:
    """Ends a test of what an ordinary user does not get, after what that user gets instead was tested."""
    pytest.skip(f"unenforced for an ordinary user: {what}")


def without_groups() -> bool:
    """Is this an ordinary user to whom no control groups were handed over?"""
    return ordinary() and usable_hierarchies().version == 0


def require_groups(what: str) -> None:
    """Nothing that only control groups contain is started by an ordinary user to whom none were handed over."""
    if without_groups():
        unenforced(f"{what}, without control groups")


def make_root(root: Path) -> Path:
    """A tree as an unpacked layer is: the image's ids, root-owned, below a folder that only root can enter."""
    for folder in ("bin", "etc", "root", "usr", "var/lib/server", "run/server", "srv"):
        (root / folder).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox is missing: ci/setup test installs busybox-static"
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in _APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    source = root.parent / "probe.c"
    source.write_text(_PROBE)
    subprocess.run(["gcc", "-O1", "-static", "-o", root / "bin" / "probe", source], check=True)
    (root / "etc" / "passwd").write_text(_PASSWD)
    (root / "etc" / "group").write_text(_GROUP)
    (root / "srv" / "page").write_text("a page\n")
    (root / "var/lib/server" / "seed").write_text("from the image\n")
    for path in (root / "var/lib/server", root / "var/lib/server/seed", root / "run/server"):
        os.chown(path, 27, 28)
    (root / "var/lib/server").chmod(0o750)
    root.chmod(0o755)
    return root


def processes_of(first: int, count: int = 65536) -> list[int]:
    """Living processes (no zombies) whose user is in a range of ids. All sandboxes of an ordinary user have the same
    ids as the tests: then, those that are in another process namespace."""
    found = []
    own = _process_namespace(Path("/proc/self"))
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            # Before its state: of what is dead or gone it cannot be told.
            inside = not ordinary() or _process_namespace(path) != own
            try:
                owner = path.stat().st_uid
                state = (path / "stat").read_text().rpartition(") ")[2][:1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z" and inside and first <= owner < first + count:
                found.append(int(path.name))
    return found


def _process_namespace(path: Path) -> str:
    """Empty if it may not be seen, which counts as another than the tests' own."""
    try:
        return str((path / "ns" / "pid").readlink())
    except OSError:
        return ""


def add_program(root: Path, program: str) -> None:
    """Copy a program of the machine into a root, with its dynamic linker and libraries."""
    found = shutil.which(program)
    assert found is not None, f"{program} is missing"
    place = root / "bin" / Path(found).name
    place.unlink(missing_ok=True)
    shutil.copy(found, place)
    listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
    for library in {word for word in listed.split() if word.startswith("/")}:
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
