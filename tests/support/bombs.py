"""A static program that misbehaves in every way that a limit is there for, and looks at what is left of it. Every bomb
is bounded by a clock of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from tests.support.patience import HUNG
from tests.support.tiny_root import make_root

_BOMB = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char block[1 << 16];
static time_t deadline;
static int late(void) { return time(NULL) > deadline; }

static int fill(const char *folder) {
    char path[256];
    long total = 0, wrote;
    snprintf(path, sizeof path, "%s/fill", folder);
    int file = open(path, O_WRONLY | O_CREAT, 0600);
    if (file < 0) return 9;
    while (!late() && (wrote = write(file, block, sizeof block)) > 0) total += wrote;
    printf("filled %ld %s\n", total, strerrorname_np(errno));
    fflush(stdout);
    return 0;
}

static int files(const char *folder) {
    char path[256];
    long made = 0;
    for (; !late(); made++) {
        snprintf(path, sizeof path, "%s/f%ld", folder, made);
        int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (file < 0) break;
        close(file);
    }
    printf("made %ld %s\n", made, strerrorname_np(errno));
    fflush(stdout);
    return 0;
}

static int serve(int port) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, listening = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listening, (void *)&where, sizeof where) || listen(listening, 100)) return 9;
    signal(SIGCHLD, SIG_IGN);
    puts("serving");
    fflush(stdout);
    for (;;) {
        int got = accept(listening, 0, 0);
        char what;
        if (got < 0 || fork()) { close(got); continue; }
        if (read(got, &what, 1) != 1) _exit(1);
        if (what == 's') while (!late() && send(got, block, sizeof block, MSG_NOSIGNAL) > 0) ;
        if (what == 'r') while (!late() && read(got, block, sizeof block) > 0) ;
        if (what == 'e') {
            /* Echoes only when all has been read: the answer needs a half-closed connection. */
            size_t size = 0;
            ssize_t count;
            char *all = malloc(1 << 22);
            while ((count = read(got, all + size, (1 << 22) - size)) > 0) size += count;
            for (size_t sent = 0; sent < size; sent += count)
                if ((count = send(got, all + sent, size - sent, MSG_NOSIGNAL)) <= 0) break;
        }
        _exit(0);
    }
}

int main(int count, char **words) {
    const char *what = words[1];
    deadline = time(NULL) + 40;
    memset(block, 'x', sizeof block);
    if (!strcmp(what, "fork")) {
        for (time_t end = time(NULL) + 2; time(NULL) <= end;) fork();
        pause();
    }
    if (!strcmp(what, "heap")) for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    if (!strcmp(what, "shared")) {
        for (;;) {
            char *piece = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            if (piece == MAP_FAILED) return 9;
            memset(piece, 1, 1 << 20);
        }
    }
    if (!strcmp(what, "fill")) return fill(words[2]);
    if (!strcmp(what, "files")) return files(words[2]);
    if (!strcmp(what, "spin")) for (;;) ;
    if (!strcmp(what, "stubborn")) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, 0);
        puts("spinning");
        fflush(stdout);
        for (int i = 0; i < 3; i++)
            if (!fork()) {
                setsid();
                if (fork()) _exit(0);
                while (!late()) ;
                _exit(0);
            }
        while (!late()) ;
        return 0;
    }
    if (!strcmp(what, "flood")) {
        long total = 0;
        while (!late() && (count > 2 || total < (40 << 20))) total += write(1, block, sizeof block);
        return 0;
    }
    if (!strcmp(what, "serve")) return serve(atoi(words[2]));
    return 2;
}
"""


LIMITS = Limits(milli_cpus=1000, memory=64 << 20, pids=40, bandwidth=10**8, tmpfs=8 << 20, volume=16 << 20)


def make_bomb_root(closed: Path) -> Path:
    """The tiny root with the program as /bin/bomb, and an empty /data."""
    made = make_root(closed / "root")
    (closed / "bomb.c").write_text(_BOMB)
    subprocess.run(["gcc", "-O1", "-static", "-o", made / "bin" / "bomb", closed / "bomb.c"], check=True)
    (made / "data").mkdir(mode=0o755)
    os.chown(made / "data", 27, 28)
    return made


def bomb(*words: str, **changes: object) -> ImageConfig:
    base = ImageConfig("amd64", 0, entrypoint=("/bin/bomb", *words), user="server")
    return replace(base, **changes)  # type: ignore[arg-type]


def eventually(condition: Callable[[], object], seconds: float = HUNG) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def holders(namespace: int) -> list[str]:
    """Who is in a network namespace, or holds it open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            paths = [process / "ns" / "net", *(process / "fd").iterdir()]
        except OSError:  # It has ended.
            continue
        for path in paths:
            with contextlib.suppress(OSError):
                if str(path.readlink()) == f"net:[{namespace}]":
                    found.append(str(path))
    return found


def cables() -> list[str]:
    """The machine's own."""
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def blocks(mark: str) -> list[str]:
    """Block devices that are files of ours."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if mark in text:
            found.append(text)
    return found


def echo(connection: socket.socket, data: bytes) -> bytes:
    """What the server's echo says, which it says only to a half-closed connection."""
    with connection:
        connection.settimeout(20)
        connection.sendall(b"e" + data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def pour(connection: socket.socket, ends: threading.Event) -> None:
    """Send until told, or take what is sent."""
    connection.settimeout(0.5)
    while not ends.is_set():
        try:
            if not connection.send(bytes(65536)):
                return
        except TimeoutError:
            continue
        except OSError:
            return


def drain(connection: socket.socket, ends: threading.Event) -> None:
    connection.settimeout(0.5)
    while not ends.is_set():
        try:
            if not connection.recv(65536):
                return
        except TimeoutError:
            continue
