"""Sessions whose commands run one after the other in one container, for each shell, and what is compared of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.sandbox import BuildSession, CommandResult, SandboxRegistry, build_session
from tests.support.sandbox_images import left_behind
from tests.support.tiny_root import add_program, make_root, require_groups

TARGET = "/run/relbuild"
SHELLS = ("busybox", "bash", "dash")

PROBE = r"""
echo "words $# [$1] [$2] $0"; pwd; umask; cat; echo =child; cat /proc/self/status
for file in limits cgroup mountinfo environ oom_score_adj loginuid; do echo =$file; cat /proc/$$/$file; done
echo =descriptors; ls /proc/$$/fd; ls /proc/self/fd; ls -l /proc/$$/exe
for name in mnt net ipc uts user pid cgroup; do [ -e /proc/$$/ns/$name ] && echo $name; done; ls /dev /dev/shm /run /tmp
echo reopened >/dev/stdout; echo error >/dev/stderr; echo more >>/dev/stdout
trap; kill -l >/dev/null; exit 9
"""
"""Says all that a script can tell of its process and its files."""

OWN = re.compile(
    r"^(Pid|PPid|Tgid|Ngid|NStgid|NSpid|Vm\w+|Rss\w+|Hugetlb\w+|SigQ|\w*ctxt_switches|Cpus_allowed\w*|Mems\w*|State"
    r"|Name|FDSize):.*\n",
    re.MULTILINE,
)
"""What a process has of its own; groups, session, signals, capabilities and filters are compared."""


@pytest.fixture(scope="module", params=SHELLS)
def root(closed: Path, request: pytest.FixtureRequest) -> Path:
    folder = closed / request.param
    folder.mkdir()
    made = make_root(folder / "root")
    if request.param != "busybox":
        add_program(made, request.param)
        add_program(made, "env")
        (made / "bin" / "sh").unlink()
        (made / "bin" / "sh").symlink_to(request.param)
    return made


class InTurn:
    """A session with a shell: `script` runs a script in it, as scriptlets are run."""

    def __init__(self, session: BuildSession) -> None:
        require_groups("commands one after the other")
        self.session = session
        self.folder = session.share(TARGET)
        self.begin()

    def begin(self) -> None:
        self.session.begin_commands(self.folder, TARGET)

    def script(self, text: str, *words: str, timeout: float = 30.0, stdin: bytes = b"") -> CommandResult:
        (self.folder / "script").write_text(text)
        argv = ["/bin/sh", f"{TARGET}/script", *words]
        return self.session.run(argv, stdin=stdin, environment={"TZ": "UTC", "A": "b 'c' $d"}, timeout=timeout)

    def container(self) -> str:
        """The container that the next command gets, "" if a new one."""
        driver = self.session._shell and self.session._shell._driver
        return driver.container.bundle.name if driver else ""


@pytest.fixture
def turn(root: Path, sandboxes: SandboxRegistry) -> Iterator[InTurn]:
    with build_session([root], sandboxes=sandboxes, label="test") as session:
        yield InTurn(session)
    assert left_behind(sandboxes) == []


def comparable(ended: CommandResult) -> tuple[int, str, bytes]:
    """A result without what each process has of its own."""
    text = OWN.sub("", ended.stdout.decode())
    # Numbers of mounts and of their devices are the kernel's: those of /proc, /dev … are made for each container.
    text = re.sub(r"^\d+ \d+ \d+:\d+ ", "", text, flags=re.MULTILINE)
    text = re.sub(r"\b(command|gate|out|err)\.[0-9a-f]{16}\n", "", text)
    text = re.sub(r" \w{3} [ \d]\d \d\d:\d\d (?=/proc/)", " ", text)  # Its link was made when it was looked at.
    return ended.status, re.sub(r"/proc/\d+/", "/proc/N/", text), ended.stderr
