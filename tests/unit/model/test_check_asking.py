"""Kinds of checks ask a probe, and draft checks that hold for the same one. No instance, no image, no socket."""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pipeline.model.checks import CHECK_KINDS, attempt, judge
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.image import Image, ImageConfig
from pipeline.model.package import Nevra
from pipeline.model.probe import (
    Executed,
    FileStatus,
    HttpReply,
    InstanceFiles,
    ListeningSocket,
    Probe,
    RunningProcess,
    StoppedInstance,
    Unanswered,
)
from pipeline.model.smoke import Check
from pipeline.model.value_rules import Rule
from pipeline.oci import make_image
from pipeline.smoke.check_drafts import draft_yaml
from tests.support.recipe_folder import good

CONFIG = ImageConfig("amd64", 0, user="app", exposed_ports=("80/tcp", "53/udp"), volumes=("/data",))
PASSWD = b"root:x:0:0::/:/bin/sh\napp:x:27:28::/data:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:28:\nreaders:x:40:app\n"


@dataclass
class Files:
    """Files by path, with their owner's number; names that end with `/` are directories."""

    contents: Mapping[str, tuple[bytes, int]]

    def status(self, path: str, *, follow: bool = True) -> FileStatus | None:
        if f"{path}/" in self.contents:
            return FileStatus(stat.S_IFDIR | 0o750, 27, 28, 0)
        if path not in self.contents:
            return None
        data, owner = self.contents[path]
        return FileStatus(stat.S_IFREG | 0o640, owner, 0, len(data))

    def read(self, path: str, *, limit: int) -> bytes | None:
        return self.contents[path][0] if path in self.contents else None

    def link(self, path: str) -> bytes | None:
        return None

    def names(self, folder: str) -> Sequence[str] | None:
        inside = {
            path.removeprefix(f"{folder}/").split("/")[0] for path in self.contents if path.startswith(f"{folder}/")
        }
        return sorted(inside - {""}) or None


@dataclass
class Package:
    nevra: Nevra
    licenses: tuple[str, ...] = ()


@dataclass
class FakeProbe:
    """An instance in memory."""

    image: Image = field(default_factory=lambda: make_image("x", "x:1", CONFIG, ()))
    log: bytes = b"2026-01-01 [note] ready for 8 connections\n"
    files: InstanceFiles = field(
        default_factory=lambda: Files(
            {
                "/etc/passwd": (PASSWD, 0),
                "/etc/group": (GROUP, 0),
                "/data/": (b"", 27),
                "/data/rows": (b"row\n", 27),
                "/data/\x1b": (b"", 27),
                "/usr/share/doc/app-1.0/LICENSE": (b"You may.", 0),
            }
        )
    )
    gone: bool = False

    @contextlib.contextmanager
    def root(self) -> Iterator[InstanceFiles]:
        if self.gone:
            raise Unanswered("the instance is gone: it ended")
        yield self.files

    def execute(self, argv: Sequence[str], *, stdin: bytes, user: str, deadline: float) -> Executed:
        return Executed(0, b" ".join([*map(str.encode, argv), stdin, user.encode()]), b"")

    def converse(self, port: int, socket: str, send: bytes, rules: Sequence[Rule], deadline: float) -> bytes:
        if port == 81:
            raise Unanswered("timed out", timed_out=True)
        return b"PONG"

    def request(self, request: HttpRequest, deadline: float) -> HttpReply:
        if request.port != 80:
            raise Unanswered("the answer is no HTTP")
        return HttpReply(200, (("content-type", "text/html; charset=x"), ("A", "1"), ("a", "2")), b"hello")

    def process_count(self) -> int:
        return 1

    def processes(self) -> tuple[RunningProcess, ...]:
        if self.gone:
            raise Unanswered("the instance is gone: it ended")
        return (RunningProcess(9, "app", "/app 1", "app", 27, 1),)

    def listeners(self) -> tuple[ListeningSocket, ...]:
        return (ListeningSocket(53, "udp", False), ListeningSocket(80, "tcp", False), ListeningSocket(81, "tcp", True))

    def user_number(self, user: str) -> int:
        return {"app": 27, "root": 0}[user]

    def installed(self) -> Sequence[Package] | None:
        return (Package(Nevra("app", 0, "1.0", "1", "x86_64")),)

    def stop(self, signal: str, within: float) -> StoppedInstance:
        return StoppedInstance(0, "bye")


RIGHT = [
    "command: [app, -v], stdin: x, user: app, expect: {stdout_is: app -v x app}",
    "port: 80, expect: {stdout: ^PONG$}",
    "socket: /run/x, send: PING, expect: {stdout: PONG}",
    'http: {port: 80}, expect: {headers: {a: "^1, 2$", Content-Type: html}, body: hello}',
    "log: ready",
    "file: {path: /data/rows, type: file, owner: app, group: root, mode: '0640', text: ^row$, size: 4}",
    "file: {path: /none, absent: true}",
    "process: {name: app, user: app, count: 1}",
    "listening: {local: [81]}",
    "account: {user: app, uid: 27, groups: [readers]}",
    "packages: {present: [app], absent: [gcc]}",
    "image: {user: app}",
    "licenses: all",
    "stop: {exit_code: 0}",
]

WRONG = {
    "command: [app], expect: {exit_code: 3}": "exit code 0, not 3",
    "port: 81": "port 81: timed out",
    "http: {port: 9}": "GET / at 9: the answer is no HTTP",
    "http: {port: 80}, expect: {headers: {B: x}}": "there is no header 'B'",
    "file: {path: /data/rows, owner: root}": "its owner is 27 (app), not root",
    "licenses: [other]": "no licence text found for other",
    "stop: {exit_code: 3}": "exit code 0 after SIGTERM, not 3; last log lines: bye",
}


def spelled(folder: object, text: str) -> Check:
    (check,) = good(folder, f"smoke:\n  checks:\n    - {{name: asked, {text}}}\n").smoke.checks  # type: ignore[arg-type]
    return check


def wrong(check: Check, probe: Probe) -> str:
    return judge(check, attempt(check, probe, time.monotonic() + 1).answer, probe.image.config)


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_so_is_right(text: str, tmp_path: object) -> None:
    assert wrong(spelled(tmp_path, text), FakeProbe()) == ""


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_so_is_wrong_and_says_what_is(text: str, tmp_path: object) -> None:
    assert WRONG[text] in wrong(spelled(tmp_path, text), FakeProbe())


def test_all_that_an_instance_that_has_ended_says_is_why(tmp_path: object) -> None:
    gone = FakeProbe(gone=True)
    for text in ("file: {path: /data/rows}", "process: {name: app}"):
        assert wrong(spelled(tmp_path, text), gone) == "the instance is gone: it ended"
    seen = attempt(spelled(tmp_path, "port: 81"), FakeProbe(), 0)
    assert seen.cut_off and not seen.settled


DRAFTED = """\
smoke:
  ready: {port: 80}
  checks:
    - {name: "listens on its ports and no other", listening: {ports: ["53/udp", 80], local: [81]}}
    - {name: "answers on 80", http: {port: 80}, expect: {status: 200, headers: {Content-Type: "^text/html"}}}
    - {name: "accepts connections on 81", port: 81}
    - {name: "runs app as app", process: {name: "app", user: "app", count: {min: 1, max: 2}}}
    - {name: "has /data", file: {path: "/data", type: "directory", mode: "0750", owner: "app", group: "app"}}
    - {name: "has /data/rows", file: {path: "/data/rows", type: "file", mode: "0640", owner: "app", group: "root"}}
    - {name: "says ready for 8 connections", log: "ready for \\\\d+ connections"}
    - {name: "is configured as it was", image: {user: "app", exposed_ports: ["80/tcp", "53/udp"]}}
    - {name: "holds no tools to build with", packages: {absent: ["gcc", "make", "*-devel", "telnet*"]}}
    - {name: "stops", stop: {within: "10s", exit_code: 0}}
"""


def test_what_is_drafted_of_an_instance_is_the_same_and_holds(tmp_path: object) -> None:
    probe = FakeProbe()
    drafted = draft_yaml(probe)
    assert drafted == DRAFTED
    checks = good(tmp_path, drafted).smoke.checks  # type: ignore[arg-type]
    assert [str(check.kind) for check in checks if wrong(check, probe)] == ["port"]


def test_every_kind_that_is_drafted_is_tried() -> None:
    assert all(f"{kind.name}: " in DRAFTED for kind in CHECK_KINDS if kind.draft is not None)
