"""Protocol by which smoke checks query a running instance, and its result types.

`pipeline.smoke` implements it. A kind of check asks through it alone, so that judging a report again loads neither the
sandbox nor sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.value_rules import Rule

if TYPE_CHECKING:
    from pipeline.model.checks.http_check import HttpRequest
    from pipeline.model.image import Image
    from pipeline.model.package import Nevra


class Unanswered(Exception):
    """A probe without an answer; the text says why.

    `timed_out`: the deadline passed before there could be one. `settled`: asking again would not change it.
    """

    def __init__(self, reason: str, *, timed_out: bool = False, settled: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out
        self.settled = settled


@dataclass(frozen=True, slots=True)
class Executed:
    """The exit status of a command (None: it did not end in time) and its output.

    `stdout_dropped` and `stderr_dropped` are the bytes beyond what is kept.
    """

    status: int | None
    stdout: bytes
    stderr: bytes
    stdout_dropped: int = 0
    stderr_dropped: int = 0


@dataclass(frozen=True, slots=True)
class HttpReply:
    """Status, headers in their order, and the beginning of the body.

    `whole`: that is all of it.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool = True

    def values(self, name: str) -> tuple[str, ...]:
        """All values of a header, whose name may be written in either case."""
        return tuple(value for key, value in self.headers if key.lower() == name.lower())


@dataclass(frozen=True, slots=True)
class FileStatus:
    """The status of a file: `st_mode` (inode(7)), ids as the image has them, bytes."""

    mode: int
    uid: int
    gid: int
    size: int


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process of an instance.

    `pid` is its number on the host, `name` its name (15 characters at most), `command` its command line with
    single spaces, `uid` its user's number in the image. `inside` is its number in the instance.
    """

    pid: int
    name: str
    command: str
    program: str
    uid: int
    inside: int


@dataclass(frozen=True, slots=True, order=True)
class ListeningSocket:
    """A socket that others can send to: `tcp` or `udp`; `local`: only from the same instance.

    `addresses`, sorted, are all that the port is bound to.
    """

    port: int
    protocol: str
    local: bool
    addresses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class StoppedInstance:
    """The exit code of an instance that was told to end, and the end of its log.

    None: it ran on.
    """

    exit_code: int | None
    last_lines: str


class InstanceFiles(Protocol):
    """Files below a root of the image, out of which no link leads. Methods raise Unanswered."""

    def status(self, path: str, *, follow: bool = True) -> FileStatus | None:
        """Return the status of a file, None if there is none."""
        ...

    def read(self, path: str, *, limit: int) -> bytes | None:
        """Return the content of a regular file of at most `limit` bytes, None if there is none."""
        ...

    def link(self, path: str) -> bytes | str | None:
        """Return the target of a symbolic link, None if there is none."""
        ...

    def names(self, folder: str) -> Sequence[str] | None:
        """Return the names in a directory, sorted, None if there is none."""
        ...


class LicensedPackage(Protocol):
    """A package in the image's RPM database, with the files that it marks as its licence."""

    @property
    def nevra(self) -> Nevra: ...

    @property
    def licenses(self) -> tuple[str, ...]: ...


class Probe(Protocol):
    """The operations of a check on a running instance.

    Deadlines are of `time.monotonic`. All that ask the instance raise Unanswered where it has ended, or where there is
    no answer; `execute` also raises SmokeError `user-unknown`. `log`, `files`, `user_number` and `installed` tell of
    its output and its image, and do so also after its end.
    """

    @property
    def image(self) -> Image:
        """The image that the instance was made from."""
        ...

    @property
    def log(self) -> bytes:
        """The beginning of the output of the instance so far."""
        ...

    @property
    def log_dropped(self) -> int:
        """Bytes of its output beyond what `log` has."""
        ...

    @property
    def files(self) -> InstanceFiles:
        """The files of the image, without volumes and scratch file systems."""
        ...

    def root(self) -> AbstractContextManager[InstanceFiles]:
        """Return the files as the instance sees them."""
        ...

    def execute(self, argv: Sequence[str], *, stdin: bytes, user: str, deadline: float) -> Executed:
        """Run a command in the instance, as `user` ("": the image's), until it ends."""
        ...

    def converse(self, port: int, socket: str, send: bytes, rules: Sequence[Rule], deadline: float) -> bytes:
        """Send to a port, or to a unix socket by its path, and return an answer.

        It takes what comes back until it meets the rules, and no beginning whose rest may break them.
        """
        ...

    def request(self, request: HttpRequest, deadline: float) -> HttpReply:
        """Ask by HTTP."""
        ...

    def process_count(self) -> int:
        """Return the number of processes, counted without reading each."""
        ...

    def processes(self) -> tuple[RunningProcess, ...]:
        """All processes but zombies, in the order of their numbers."""
        ...

    def listeners(self) -> tuple[ListeningSocket, ...]:
        """All sockets that listen, sorted."""
        ...

    def user_number(self, user: str) -> int:
        """Return the number of a user of the image."""
        ...

    def installed(self) -> Sequence[LicensedPackage] | None:
        """Return the packages in the image's RPM database, None if it has none."""
        ...

    def stop(self, signal: str, within: float) -> StoppedInstance:
        """Send a signal and wait `within` seconds for the end.

        Raises Unanswered if it had ended before.
        """
        ...
