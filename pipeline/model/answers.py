"""What a running image answered, as it is recorded: enough to judge it again (`pipeline.model.judging`).

An answer says what was seen, never whether it is right. Texts are `Said`, exact to the control character; numbers of
users and groups are the image's own. Every kind of check has its kind of answer; `NoAnswer` stands for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.probes import FileSort, Restart
from pipeline.model.values import NOTHING_SAID, Said

PROCESSES_MOST = 4096
"""Processes of an instance that are recorded: what a generous limit leaves it."""

SOCKETS_MOST = 4096
"""Sockets that listen, likewise."""

PACKAGES_MOST = 10_000
"""Packages that are recorded: three times a full desktop."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There was none, or none that means anything; `reason` says why. It is never right."""

    reason: str


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """A command's exit status (None: it did not end in time) and what it printed."""

    status: int | None
    stdout: Said
    stderr: Said


@dataclass(frozen=True, slots=True)
class TalkAnswer:
    """A port or socket took the connection, and sent this."""

    said: Said = NOTHING_SAID


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, body, and the headers that were asked for (None: it is not there)."""

    status: int
    headers: tuple[tuple[str, Said | None], ...]
    body: Said


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """What the instance had printed by then."""

    log: Said


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """What stands at a path. `sort` None: something that has no name here. `owners` and `groups` are names that the
    image has for `uid` and `gid`. `target`: where a symlink points, if that was asked; `sha256` (64 hex digits) and
    `text` likewise, and empty or None if it is no regular file."""

    there: bool
    sort: FileSort | None = None
    mode: int = 0
    uid: int = 0
    gid: int = 0
    owners: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    size: int = 0
    target: Said | None = None
    sha256: str = ""
    text: Said | None = None


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """A process: the kernel's name for it (15 characters), its program, its command line, its user's number."""

    name: str
    program: str
    command: Said
    uid: int


@dataclass(frozen=True, slots=True)
class ProcessAnswer:
    """All processes of the instance. `user` is the number of the user that was asked for (None: of none)."""

    user: int | None
    processes: tuple[SeenProcess, ...]


@dataclass(frozen=True, slots=True)
class SeenSocket:
    """A socket that listens: `8080/tcp`; `local`: on the loopback only."""

    port: str
    local: bool


@dataclass(frozen=True, slots=True)
class ListeningAnswer:
    """All sockets that listen."""

    sockets: tuple[SeenSocket, ...]


@dataclass(frozen=True, slots=True)
class AccountAnswer:
    """The fields of the account's line (None: there is none), and which groups name it as a member."""

    entry: tuple[str, ...] | None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PackagesAnswer:
    """NEVRAs that the image's RPM database has, or else its build says. `known` False: there is neither."""

    known: bool
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """The image's configuration was looked at, which the report has anyway."""


@dataclass(frozen=True, slots=True)
class LicensesAnswer:
    """For each package that was looked at, by name, a file that is its licence ("": none was found). `known` False: the
    image has no RPM database that would say which packages there are."""

    known: bool
    texts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StopAnswer:
    """The signal that was sent, and the exit code (None: it ran on). `words`: the last that it printed."""

    signal: str
    exit_code: int | None
    words: str = ""


@dataclass(frozen=True, slots=True)
class MountsAnswer:
    """Where the instance could write: mount points."""

    writable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestartAnswer:
    """How it was ended, its exit code then, and what it answered to the question whether it is ready, after it was
    started again (None: nothing asks that)."""

    how: Restart
    exit_code: int | None
    ready: Answer | None


Answer = (
    NoAnswer
    | CommandAnswer
    | TalkAnswer
    | HttpAnswer
    | LogAnswer
    | FileAnswer
    | ProcessAnswer
    | ListeningAnswer
    | AccountAnswer
    | PackagesAnswer
    | ImageAnswer
    | LicensesAnswer
    | StopAnswer
    | MountsAnswer
    | RestartAnswer
)
