"""From launch to the first answered probe: an instance of nginx, against plain `runc run` of the same root file system.

Both are asked the same way: a TCP connection to the server's port inside its network namespace, tried again every
millisecond, then one HTTP request answered. The plain run has what `runc spec` gives (no user namespace, no limits, no
volumes, no bandwidth); the instance has all that the product's recipe asks for. They take turns; medians and their
ratio count.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from pipeline.build import build
from pipeline.launch import unpack_layers
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.sandbox import launch
from pipeline.store import Store

ROOT = Path(__file__).parents[2]
PORT = 8080
GIVE_UP = 20.0
REQUEST = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"


def answered(connection: socket.socket) -> bool:
    """One request, one answer."""
    with connection:
        connection.settimeout(GIVE_UP)
        connection.sendall(REQUEST)
        return connection.recv(12) == b"HTTP/1.1 200"


def connect_in(pid: int) -> socket.socket | None:
    """A connection to the port inside the network namespace of a process, or None if nobody listens yet."""
    found: list[socket.socket] = []

    def enter() -> None:
        handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None).setns(handle, 0x40000000) != 0:
                return
        finally:
            os.close(handle)
        connection = socket.socket()
        try:
            connection.connect(("127.0.0.1", PORT))
            found.append(connection)
        except OSError:
            connection.close()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found[0] if found else None


def plain(bundle: Path, turn: int) -> float:
    """Seconds that `runc run` of the bundle takes to its first answer."""
    name = f"bench-{os.getpid()}-{turn}"
    begun = time.monotonic()
    subprocess.run(
        ["runc", "run", "--detach", "--pid-file", bundle / "pid", "--bundle", bundle, name],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        pid = int((bundle / "pid").read_text())
        while time.monotonic() - begun < GIVE_UP:
            connection = connect_in(pid)
            if connection is not None and answered(connection):
                return time.monotonic() - begun
            time.sleep(0.001)
        sys.exit("plain runc run never answered")
    finally:
        subprocess.run(["runc", "delete", "--force", name], check=True)


def make_bundle(layout: Path, reference: str, folder: Path) -> Path:
    """A bundle with the image's root file system and entrypoint, as `runc spec` gives it."""
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{reference}", folder], check=True)
    unpacked_config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    subprocess.run(["runc", "spec", "--bundle", folder], check=True)
    spec = json.loads((folder / "config.json").read_text())
    spec["process"]["terminal"] = False
    spec["process"]["args"] = unpacked_config["process"]["args"]
    spec["process"]["env"] = unpacked_config["process"]["env"]
    spec["process"]["user"] = {key: unpacked_config["process"]["user"][key] for key in ("uid", "gid")}
    spec["mounts"] += [
        {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
        for place in ("/tmp", "/run")
    ]
    (folder / "config.json").write_text(json.dumps(spec))
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="ci/bench launch")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    mine, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="relbuild-bench-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
        shutil.copytree(ROOT / "templates", folder / "templates")
        build_env = BuildEnvironment(Store.open(folder / "store"), QUIET, dict(os.environ), time.time)
        recipes = folder / "recipes"
        built = build(
            BuildOptions(recipes / "nginx.yaml", recipes / "repositories.yaml", smoke=False, output=folder / "output"),
            build_env,
        )
        lowers = unpack_layers(built.image, build_env.store, QUIET)
        sandboxes = build_env.sandboxes()
        bundle = make_bundle(built.layout, built.image.reference, folder / "bundle")
        for turn in range(options.runs + 1):
            seconds = plain(bundle, turn)
            begun = time.monotonic()
            with launch(
                built.image.config, lowers, built.locked.recipe.smoke.limits, sandboxes=sandboxes, name="bench"
            ) as instance:
                while True:
                    try:
                        connection = instance.connect(PORT, timeout=1.0)
                    except OSError:
                        if time.monotonic() - begun > GIVE_UP or not instance.alive:
                            sys.exit(f"the instance never answered: {instance.log.decode(errors='replace')}")
                        time.sleep(0.001)
                        continue
                    if answered(connection):
                        break
                own = time.monotonic() - begun
            if turn:  # the first is the warm-up
                theirs.append(seconds)
                mine.append(own)
    print(f"nginx, {options.runs} runs, milliseconds from launch to the first answer, min / median / max")
    for what, figures in (("relbuild", mine), ("runc run", theirs)):
        low, middle, high = (1000 * x for x in (min(figures), statistics.median(figures), max(figures)))
        print(f"  {what:<10} {low:6.0f} / {middle:6.0f} / {high:6.0f}")
    print(f"  ratio of medians {statistics.median(mine) / statistics.median(theirs):.2f} (at most 3 is promised)")


main()
