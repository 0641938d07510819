"""A program that answers as kubectl's documents say, of a cluster with one pod.

It is copied to a folder of its own, in which it records its calls (`calls`, a line of JSON each) and keeps the pod:
`pod.json` is its manifest, `deleted` is there once it is deleted. `says.json` there changes what is told.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DELETED = HERE / "deleted"
PAUSE = 0.01


def said(name: str, usual: Any) -> Any:
    with contextlib.suppress(FileNotFoundError):
        return json.loads((HERE / "says.json").read_text()).get(name, usual)
    return usual


def show(kind: str, phase: str, state: dict[str, Any], **more: object) -> None:
    pod = json.loads((HERE / "pod.json").read_text())
    image = said("image_id", pod["spec"]["containers"][0]["image"])
    container = {"name": "tested", "state": state, "imageID": "" if "waiting" in state else image, **more}
    pod["status"] = {"phase": phase, "containerStatuses": [container]}
    print(json.dumps({"type": kind, "object": pod}, indent=4), flush=True)


def watch() -> None:
    show("ADDED", "Pending", {"waiting": {"reason": "ContainerCreating"}})
    if waiting := said("waiting", None):
        show("MODIFIED", "Pending", {"waiting": waiting})
        time.sleep(60)
    if ended := said("terminated", None):
        show("MODIFIED", "Failed", {"terminated": ended})
        time.sleep(60)
    running = {"running": {"startedAt": "2026-11-27T00:00:00Z"}}
    show("MODIFIED", "Running", running, ready=False)
    show("MODIFIED", "Running", running, ready=said("ready", True))
    until_deleted()
    if not said("vanishes", False):
        show("MODIFIED", "Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})
        show("DELETED", "Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})
        time.sleep(60)


def until_deleted() -> None:
    while not DELETED.exists():
        time.sleep(PAUSE)


def get(words: list[str]) -> int:
    if words[1] == "namespace":
        print(said("cluster", "0f1e2d3c-0000-4000-8000-00000000cafe"), end="")
        return int(said("cluster", "") == "forbidden")
    if "--watch" in words:
        watch()
    elif (HERE / "pod.json").exists() and not DELETED.exists():
        print(f"pod/{words[2]}")
    elif "--ignore-not-found" not in words:
        print(f'Error from server (NotFound): pods "{words[2]}" not found', file=sys.stderr)
        return 1
    return 0


def execute(argv: list[str], stdin: bytes) -> int:
    if argv == ["cat"]:
        sys.stdout.buffer.write(stdin)
    elif argv[0] == "false":
        print("no\ncommand terminated with exit code 7", file=sys.stderr)
        return 7
    elif argv[0] == "flood":
        for stream in (sys.stdout, sys.stderr):
            stream.write("x" * 3_000_000)
        print("\ncommand terminated with exit code 7", file=sys.stderr)
        return 7
    elif argv[0] == "missing":
        print('error: exec: "missing": executable file not found in $PATH', file=sys.stderr)
        return 1
    else:
        print(" ".join(argv))
    return 0


def forward(port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"Forwarding from 127.0.0.1:{server.getsockname()[1]} -> {port}", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"hello from " + port.encode())


def logs() -> None:
    print("serving", flush=True)
    if not said("terminated", None):
        until_deleted()
    print("bye", flush=True)


def main(words: list[str]) -> int:
    while words[0].startswith("--"):
        words = words[2:]
    stdin = sys.stdin.buffer.read() if words[0] in ("create", "exec") else b""
    with (HERE / "calls").open("a") as calls:
        calls.write(json.dumps([words, stdin.decode()]) + "\n")
    match words[0]:
        case "version":
            print(json.dumps({"clientVersion": {"gitVersion": "v1.30.0"}, "serverVersion": {"gitVersion": "v1.31.2"}}))
        case "create":
            if refusal := said("refusal", ""):
                print(refusal, file=sys.stderr)
                return 1
            (HERE / "pod.json").write_text(stdin.decode())
        case "get":
            return get(words)
        case "exec":
            return execute(words[words.index("--") + 1 :], stdin)
        case "port-forward":
            forward(words[-1].removeprefix(":"))
        case "logs":
            logs()
        case "delete":
            DELETED.touch()
        case other:
            raise AssertionError(other)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
