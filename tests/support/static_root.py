"""An image with one static program and nothing else: no shell, no C library, no tool. It is a small server that
shows something of everything that can be asked from outside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SERVER = r"""
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void on_term(int number) {
    (void)number;
    write(1, "bye\n", 4);
    _exit(0);
}

static int listening(int family, int kind, int port, int local) {
    int handle = socket(family, kind, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(local ? INADDR_LOOPBACK : INADDR_ANY);
    setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(handle, (void *)&address, sizeof address) < 0) { perror("bind"); exit(8); }
    if (kind == SOCK_STREAM) listen(handle, 64);
    return handle;
}

static int on_path(const char *path) {
    int handle = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    unlink(path);
    if (bind(handle, (void *)&address, sizeof address) < 0) { perror("bind"); exit(8); }
    listen(handle, 8);
    return handle;
}

static void answer(int client) {
    char asked[4096], said[4096], body[1024];
    ssize_t count = read(client, asked, sizeof asked - 1);
    asked[count > 0 ? count : 0] = 0;
    if (!strncmp(asked, "PING", 4)) {
        dprintf(client, "PONG\n");
    } else if (!strncmp(asked, "GET /slow ", 10)) {
        dprintf(client, "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n");
        for (int i = 0; i < 600; i++) { if (write(client, "x", 1) < 1) break; usleep(50000); }
    } else {
        int known = !strncmp(asked, "GET / ", 6) || !strncmp(asked, "POST /", 6);
        snprintf(body, sizeof body, known
            ? "{\"status\": \"green\", \"nodes\": [{\"name\": \"a\", \"load\": 0.5}, {\"name\": \"b\", \"load\": 2}]}"
            : "nothing here");
        int size = snprintf(said, sizeof said, "HTTP/1.1 %s\r\nContent-Type: application/json; charset=utf-8\r\n"
            "Content-Length: %zu\r\nX-Asked-Host: %.*s\r\n\r\n%s", known ? "200 OK" : "404 Not Found", strlen(body),
            strstr(asked, "Host: ") ? (int)strcspn(strstr(asked, "Host: ") + 6, "\r\n") : 0,
            strstr(asked, "Host: ") ? strstr(asked, "Host: ") + 6 : "", body);
        write(client, said, size);
        printf("request\n");
    }
    close(client);
}

int main(int count, char **words) {
    setvbuf(stdout, NULL, _IONBF, 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_term);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    mkdir("/data/old", 0700);
    int data = open("/data/starts", O_RDWR | O_CREAT, 0640), starts = 0;
    char number[16] = "";
    if (data < 0) { perror("/data/starts"); return 7; }
    if (read(data, number, sizeof number - 1) > 0) starts = atoi(number);
    dprintf((lseek(data, 0, SEEK_SET), data), "%d\n", starts + 1);
    fsync(data);
    close(data);
    symlink("starts", "/data/link");
    mkfifo("/data/pipe", 0600);
    printf("version %s, start %d, uid %d\n", count > 1 ? words[1] : "0", starts + 1, (int)getuid());
    for (int worker = 0; worker < 2; worker++)
        if (fork() == 0) {
            strcpy(words[0], "/wrk");
            prctl(PR_SET_NAME, "worker");
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) pause();
        }
    struct pollfd waiting[] = {{listening(AF_INET, SOCK_STREAM, 80, 0), POLLIN, 0},
                               {listening(AF_INET, SOCK_STREAM, 81, 1), POLLIN, 0},
                               {on_path("/run/app.sock"), POLLIN, 0}};
    listening(AF_INET, SOCK_DGRAM, 53, 0);
    printf("ready for connections on 80\n");
    for (;;) {
        poll(waiting, 3, -1);
        for (int i = 0; i < 3; i++)
            if (waiting[i].revents & POLLIN) {
                int client = accept(waiting[i].fd, NULL, NULL);
                if (client >= 0 && fork() == 0) { answer(client); _exit(0); }
                close(client);
            }
    }
}
"""

PASSWD = "root:x:0:0:root:/root:/none\napp:x:27:28:App:/data:/sbin/nologin\n"
GROUP = "root:x:0:\napp:x:28:\nreaders:x:40:app\n"


def make_silent_root(root: Path) -> Path:
    """An unpacked layer with `/app`, below a folder that only root can enter."""
    for folder in ("etc", "data", "run", "usr/share/licenses/app"):
        (root / folder).mkdir(parents=True)
    source = root.parent / "app.c"
    source.write_text(_SERVER)
    subprocess.run(["gcc", "-O1", "-w", "-static", "-o", root / "app", source], check=True)
    (root / "etc" / "passwd").write_text(PASSWD)
    (root / "etc" / "group").write_text(GROUP)
    (root / "etc" / "app.conf").write_text("port=80\ntitle=silent\n")
    (root / "usr/share/licenses/app/COPYING").write_text("You may.\n")
    os.chown(root / "data", 27, 28)
    (root / "data").chmod(0o770)
    for folder in ("data", "run"):
        os.chown(root / folder, 27, 0)
    (root / "run").chmod(0o775)
    (root / "etc" / "app.conf").chmod(0o640)
    # Is on every machine, and not in the image.
    (root / "etc" / "outside").symlink_to("/etc/shadow")
    (root / "etc" / "loop").symlink_to("loop")
    root.chmod(0o755)
    return root
