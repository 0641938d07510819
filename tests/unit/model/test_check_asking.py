"""Kinds of checks ask a probe, and draft checks that hold for the same one. No instance, no image, no socket."""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import pytest

from pipeline.digest import canonical_json
from pipeline.model.check_kind import CheckDeclaration, Effect, NoAnswer
from pipeline.model.checks import ANSWERS, CHECK_KINDS, SUBJECTS, attempt, declaration, judge, record_answer
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.image import Image, ImageConfig
from pipeline.model.json_form import from_json, is_canonical, to_json
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
from pipeline.model.report import CheckResult
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
    """Files by path, with their owner's number; names that end with `/` are directories. No link leads to a file."""

    contents: Mapping[str, tuple[bytes, int]]
    links: Mapping[str, bytes] = field(default_factory=dict)

    def status(self, path: str, *, follow: bool = True) -> FileStatus | None:
        if path in self.links and not follow:
            return FileStatus(stat.S_IFLNK | 0o777, 0, 0, len(self.links[path]))
        if f"{path}/" in self.contents:
            return FileStatus(stat.S_IFDIR | 0o750, 27, 28, 0)
        if path not in self.contents:
            return None
        data, owner = self.contents[path]
        return FileStatus(stat.S_IFREG | 0o640, owner, 0, len(data))

    def read(self, path: str, *, limit: int) -> bytes | None:
        return self.contents[path][0] if path in self.contents else None

    def link(self, path: str) -> bytes | None:
        return self.links.get(path)

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
    log_dropped: int = 0
    files: InstanceFiles = field(
        default_factory=lambda: Files(
            {
                "/etc/passwd": (PASSWD, 0),
                "/etc/group": (GROUP, 0),
                "/data/": (b"", 27),
                "/data/rows": (b"row\n", 27),
                "/data/\x1b": (b"", 27),
                "/usr/share/doc/app-1.0/LICENSE": (b"You may.", 0),
            },
            {"/opt/dangling": b"/none", "/opt/loop": b"loop"},
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


ASKED = [kind for kind in CHECK_KINDS if kind.effect is not Effect.RESTARTS]
"""The kinds that are asked through a probe; a restart is made by the smoke test itself."""

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
    "socket: /run/x, expect: {stdout: ^QUIT$}": "PONG",
    "http: {port: 9}": "GET / at 9: the answer is no HTTP",
    "http: {port: 80}, expect: {headers: {B: x}}": "there is no header 'B'",
    "file: {path: /data/rows, owner: root}": "its owner is 27 (app), not root",
    "file: {path: /opt/dangling, absent: true}": "'/opt/dangling' exists, as a symlink",
    "file: {path: /opt/loop, absent: true}": "'/opt/loop' exists, as a symlink",
    "file: {path: /opt/dangling}": "'/opt/dangling' does not exist",
    "log: gone": "ready for 8 connections",
    "process: {name: app, user: root}": "app",
    "listening: {ports: [80]}": "53/udp",
    "account: {user: app, uid: 28}": "27",
    "packages: {present: [gcc]}": "gcc",
    "image: {user: root}": "app",
    "licenses: [other]": "no licence text found for other",
    'licenses: {without: ["*"]}': "'without' matches every package, so none is asked",
    "stop: {exit_code: 3}": "exit code 0 after SIGTERM, not 3; last log lines: bye",
}


def spelled(folder: object, text: str) -> Check:
    (check,) = good(folder, f"smoke:\n  checks:\n    - {{name: asked, {text}}}\n").smoke.checks  # type: ignore[arg-type]
    return check


def wrong(check: Check, probe: Probe) -> str:
    return judge(check, attempt(check, probe, time.monotonic() + 1).answer, probe.image.config)


def kind_of(text: str) -> str:
    return text.partition(":")[0]


@pytest.mark.parametrize("kind", ASKED, ids=lambda kind: kind.name)
def test_every_kind_is_seen_to_be_right_and_wrong(kind: CheckDeclaration[Any, Any]) -> None:
    """Whoever adds a kind adds a line to RIGHT and one to WRONG."""
    assert kind.name in map(kind_of, RIGHT), f"say in RIGHT when '{kind.name}' is right"
    assert kind.name in map(kind_of, WRONG), f"say in WRONG when '{kind.name}' is wrong, and what it says then"


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


# --- answers of any form -----------------------------------------------------------------------------------

GARBAGE = (
    b"",
    b"\n\n",
    b"\xff\xfe\x00\x1b[2J",
    b":::\n:\napp\n",
    b"app:x:many:none:::\n",
    b"app:x:-1:" + b"9" * 5000 + b":\n",
    b"app:x:\xd9\xa3:\xc2\xb2:\n",
)
"""What an image can have in any file and can answer to anything: numbers of other scripts are digits to Python."""


@dataclass
class GarbageFiles:
    """The same bytes in every file, all of which are there."""

    data: bytes

    def status(self, path: str, *, follow: bool = True) -> FileStatus | None:
        return FileStatus(0o170000 | len(self.data), 1 << 40, -1, 1 << 60)

    def read(self, path: str, *, limit: int) -> bytes | None:
        return self.data[:limit]

    def link(self, path: str) -> bytes | None:
        return self.data

    def names(self, folder: str) -> Sequence[str] | None:
        return [self.data.decode(errors="surrogateescape"), "", "app-1"]


@dataclass
class GarbageProbe(FakeProbe):
    """An instance that says one thing to everything."""

    data: bytes = b""

    def __post_init__(self) -> None:
        self.log, self.files, self.text = self.data, GarbageFiles(self.data), self.data.decode(errors="replace")

    def execute(self, argv: Sequence[str], *, stdin: bytes, user: str, deadline: float) -> Executed:
        return Executed(-(1 << 40), self.data, self.data)

    def converse(self, port: int, socket: str, send: bytes, rules: Sequence[Rule], deadline: float) -> bytes:
        return self.data

    def request(self, request: HttpRequest, deadline: float) -> HttpReply:
        return HttpReply(-1, ((self.text, self.text), ("A", self.text), ("", "")), self.data)

    def process_count(self) -> int:
        return -1

    def processes(self) -> tuple[RunningProcess, ...]:
        return (RunningProcess(-1, self.text, self.text, self.text, 1 << 40, -1),)

    def listeners(self) -> tuple[ListeningSocket, ...]:
        return (ListeningSocket(1 << 20, self.text, False), ListeningSocket(-1, "", True))

    def installed(self) -> Sequence[Package] | None:
        return (Package(Nevra(self.text, -1, "", "", ""), (self.text, "")),)

    def stop(self, signal: str, within: float) -> StoppedInstance:
        return StoppedInstance(-(1 << 40), self.text)


@pytest.mark.parametrize("data", GARBAGE, ids=repr)
@pytest.mark.parametrize("text", RIGHT)
def test_whatever_an_instance_answers_is_recorded_and_judged(text: str, data: bytes, tmp_path: object) -> None:
    """An image may answer anything: it fails its check, and not the program."""
    check, probe = spelled(tmp_path, text), GarbageProbe(data=data)
    answer = attempt(check, probe, time.monotonic() + 1).answer
    assert isinstance(answer, (declaration(check.kind).answer, NoAnswer))
    recorded = record_answer(check, answer)
    assert is_canonical(canonical_json(to_json(CheckResult("asked", False, 1, "", recorded))))
    assert from_json(CheckResult, to_json(CheckResult("asked", False, 1, "", recorded))).answer == recorded
    assert judge(check, recorded, probe.image.config) == judge(check, answer, probe.image.config)


@pytest.mark.parametrize("data", GARBAGE, ids=repr)
@pytest.mark.parametrize("kind", CHECK_KINDS, ids=lambda kind: kind.name)
def test_whatever_an_instance_answers_checks_can_be_drafted_of(kind: CheckDeclaration[Any, Any], data: bytes) -> None:
    if kind.draft is not None:
        assert all(drafted["name"] for drafted in kind.draft.make(GarbageProbe(data=data)))


@pytest.mark.parametrize("kind", [*SUBJECTS, *ANSWERS], ids=lambda kind: kind.__name__)
def test_no_field_has_the_name_of_the_tag_that_json_tells_kinds_by(kind: type) -> None:
    names = [one.name for one in fields(kind)] if is_dataclass(kind) else []
    assert "type" not in names, f"{kind.__name__}.type would be lost in JSON: `json_form` writes the class there"
