"""What test_rootless.py runs as an ordinary user: argv is a folder of that user's, with a tree `root` in it, and
arguments for the probes. Prints one JSON object. With `wait` it launches, says so, and waits."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from pipeline.errors import RelbuildError
from pipeline.sandbox import rootless

try:
    rootless.enter_user_namespace()
except RelbuildError as refused:
    print(json.dumps({"refused": refused.problems[0].code, "hint": refused.problems[0].hint}))
    sys.exit(0)

from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import (
    build_session,
    find_runtime,
    launch,
    open_sandbox_registry,
)

place = Path(sys.argv[1])
root = place / "root"
sandboxes = open_sandbox_registry(place / "sandbox", find_runtime())
LIMITS = Limits(milli_cpus=500, memory=64 << 20, pids=30, tmpfs=3 << 20, bandwidth=10**7)


def image(command: str, user: str = "server") -> ImageConfig:
    return ImageConfig(
        "amd64", 0, entrypoint=("/bin/sh", "-c"), command=(command,), user=user, volumes=("/var/lib/server",)
    )


if sys.argv[2:] == ["wait"]:
    with launch(image("sleep 1000"), [root], LIMITS, sandboxes=sandboxes, name="wait") as instance:
        print("up", flush=True)
        time.sleep(1000)


def zombies() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            if text.rpartition(") ")[2].startswith("Z"):
                found.append(text)
    return found


SERVER = "httpd -p 80 -h /srv; id; cat /var/lib/server/seed; stat -c %u:%g /var/lib/server; touch /etc/x; sleep 1000"
said: dict[str, object] = {"ids": Path("/proc/self/uid_map").read_text().split(), "pid": os.getpid()}
with launch(image(SERVER), [root], LIMITS, sandboxes=sandboxes, name="one") as instance:
    said["exec"] = instance.execute(["cat", "/proc/self/status"], timeout=600).stdout.decode()
    said["timed_out"] = instance.execute(["sleep", "100"], timeout=0.3).timed_out
    said["probes_root"] = instance.execute(
        ["/bin/probes", "contained", "all", *sys.argv[2:], f"hidden={place}"], user="root", timeout=600
    ).stdout.decode()
    answers = {}
    for name, address in (("loopback", None), ("wire", instance.address)):
        with instance.connect(80, timeout=600, address=address) as connection:
            connection.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            data = b""
            while piece := connection.recv(4096):
                data += piece
        answers[name] = data.decode()[-7:]
    said["answers"] = answers
    said["readings"] = {reading.name: dataclasses.asdict(reading) for reading in instance.readings()}
    said["log"] = instance.log.decode()
    said["processes"] = len(instance.slot.group.processes())
    instance.kill()
    said["processes_after"] = len(instance.slot.group.processes())
with build_session([root], sandboxes=sandboxes) as session:
    outcome = session.run(["/bin/sh", "-c", "id -u; chown 27:28 /etc/group; rm -r /srv; sleep 1000 & echo built"])
    said["build"] = [outcome.status, outcome.stdout.decode()]
    said["upper"] = {
        str(path.relative_to(session.upper)): [path.lstat().st_mode, path.lstat().st_uid]
        for path in sorted(session.upper.rglob("*"))
    }
    said["probes_build"] = session.run(
        ["/bin/probes", "contained", "all", *sys.argv[2:], f"hidden={place}"], timeout=600
    ).stdout.decode()
# Ends after its parent has: whose child is it then?
words = ["/bin/sh", "-c", "sleep 0.2 >/dev/null & echo $!"]
orphan = Path("/proc", subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
deadline = time.monotonic() + 60
while (orphan.exists() or zombies()) and time.monotonic() < deadline:
    time.sleep(0.05)
said["zombies"] = zombies()
said["left"] = [path.name for path in (sandboxes.state / "live").iterdir()]
print(json.dumps(said))
