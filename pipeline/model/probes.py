"""What a check asks about: the things that can be seen of a running image from outside, and rules for values."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline.model.image_keys import IMAGE_KEYS, NAMED, ConfigForm, ImageKey


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold of one value, which is a text or a number written as one; all that is given must.

    `equals` compares without white space at the ends; `matches` and `lacks` are regular expressions that are
    searched for; `least` and `most` bound a number, both included. With `at` (`pipeline.model.jsonpath`) the
    value is first looked up in the text, which is JSON then.
    """

    equals: str | None = None
    matches: str | None = None
    lacks: str | None = None
    least: float | None = None
    most: float | None = None
    at: str = ""


Rules = tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to `port`, or to the unix socket at `socket`. `tls` speaks HTTPS; `trust` is a file in the
    image with the authorities that the certificate must come from ("": any certificate will do)."""

    port: int = 0
    socket: str = ""
    path: str = "/"
    method: str = "GET"
    host: str = "localhost"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    tls: bool = False
    trust: str = ""


class FileSort(StrEnum):
    """What can stand at a path."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    SOCKET = "socket"
    FIFO = "fifo"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What stands at `path` in the running instance. Links are followed unless `sort` is SYMLINK. `sha256` is
    64 hex digits; `owner` and `group` are names of the image's accounts, or numbers; None: any."""

    path: str
    absent: bool = False
    sort: FileSort | None = None
    mode: int | None = None
    owner: str | None = None
    group: str | None = None
    size: Rules = ()
    sha256: str = ""
    text: Rules = ()
    target: Rules = ()


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """Processes of the instance whose name is `name`, whose command line matches `command`, that run as `user`,
    as far as these are given; `count` holds of how many they are."""

    name: str = ""
    command: str = ""
    user: str = ""
    count: Rules = (Rule(least=1),)


@dataclass(frozen=True, slots=True)
class ListeningFacts:
    """Sockets that listen: `ports` (`8080/tcp`; None: the image's exposed ones) on more than the loopback, and
    `local` (may be there, on the loopback only). Any other is wrong."""

    ports: tuple[str, ...] | None = None
    local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """An entry of the image's /etc/passwd (`user`) or /etc/group (`group`)."""

    user: str = ""
    group: str = ""
    uid: int | None = None
    gid: int | None = None
    home: str | None = None
    shell: str | None = None
    groups: tuple[str, ...] = ()
    absent: bool = False


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """Names of packages, or NEVRAs, with `*` for any characters."""

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def _fact(key: ImageKey) -> tuple[str, Any, Any]:
    if key.form in NAMED:
        return key.name, tuple[tuple[str, Rules], ...], field(default=())
    return key.name, (str if key.stored is ConfigForm.STRING else tuple[str, ...]) | None, field(default=None)


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class _ImageFacts:
        """Stands for the fields, which are those of the table of image keys."""

        def __init__(self, **asked: object) -> None: ...

else:
    _ImageFacts = make_dataclass("_ImageFacts", [_fact(key) for key in IMAGE_KEYS], frozen=True, slots=True)


class ImageFacts(_ImageFacts):
    """Settings that the image's configuration has; None or empty: not asked. Of environment and labels only the named
    ones are looked at."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LicenseFacts:
    """Packages that must bring the text of their licence; empty: all that the image has, but those in
    `without`."""

    packages: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


class Restart(StrEnum):
    """How an instance ends before it is started again on the same volumes."""

    SAME_DATA = "same-data"
    AFTER_KILL = "after-kill"


Subject = (
    HttpRequest
    | FileFacts
    | ProcessFacts
    | ListeningFacts
    | AccountFacts
    | PackageFacts
    | ImageFacts
    | LicenseFacts
    | Restart
)
