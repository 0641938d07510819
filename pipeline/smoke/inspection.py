"""Facts of a running instance, as answers to a recipe's checks.

Whether they are right is not decided here.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import assert_never

from pipeline.errors import RelbuildError
from pipeline.model.checks import CheckAnswer, NoAnswer
from pipeline.model.checks.account_check import AccountAnswer, AccountFacts
from pipeline.model.checks.file_check import FileAnswer, FileFacts, FileSort
from pipeline.model.checks.image_check import ImageAnswer, ImageFacts
from pipeline.model.checks.licenses_check import LicenseFacts, LicensesAnswer
from pipeline.model.checks.listening_check import SOCKETS_MOST, ListeningAnswer, ListeningFacts, SeenSocket
from pipeline.model.checks.packages_check import PACKAGES_MOST, PackageFacts, PackagesAnswer, package_is
from pipeline.model.checks.process_check import PROCESSES_MOST, ProcessAnswer, ProcessFacts, SeenProcess
from pipeline.model.image import Image
from pipeline.model.rpm_database import database_paths
from pipeline.model.value_comparison import RecordedText, readable
from pipeline.packages import DATABASE_LIMIT, Installed, read_installed
from pipeline.sandbox import Instance, RootFs
from pipeline.sandbox.container_user import ACCOUNTS_LIMIT
from pipeline.smoke.probe_result import ProbeResult
from pipeline.smoke.procfs import list_listeners, list_processes, open_root

_FILE_LIMIT = 64 << 20
"""Bytes of a file whose content is looked at."""

_ID = re.compile(r"[0-9]{1,10}")
"""A number of an account; a longer one is none (uid_t has 32 bits)."""

_NAMES_MOST = 12
"""Names of one number that are recorded, the one that was asked for first."""

_SORTS: Mapping[FileSort, Callable[[int], bool]] = {
    FileSort.FILE: stat.S_ISREG,
    FileSort.DIRECTORY: stat.S_ISDIR,
    FileSort.SYMLINK: stat.S_ISLNK,
    FileSort.SOCKET: stat.S_ISSOCK,
    FileSort.FIFO: stat.S_ISFIFO,
    FileSort.DEVICE: lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}
_LICENSE_FOLDERS = ("/usr/share/licenses", "/usr/share/doc")
_LICENSE_NAME = re.compile(r"(?i)(copying|copyright|licen[cs]e|notice|artistic|l?gpl|mit|bsd)")


InspectedSubject = FileFacts | ProcessFacts | ListeningFacts | AccountFacts | PackageFacts | ImageFacts | LicenseFacts
"""Subjects of which is seen what they are."""


def inspect_subject(subject: InspectedSubject, instance: Instance, image: Image) -> ProbeResult:
    """Read the facts that `subject` asks for, of every kind."""
    try:
        match subject:
            case FileFacts():
                return ProbeResult(_file(subject, instance))
            case ProcessFacts():
                return ProbeResult(_processes(subject, instance))
            case ListeningFacts():
                return ProbeResult(_listening(instance))
            case AccountFacts():
                return ProbeResult(_account(subject, instance.files))
            case PackageFacts():
                return ProbeResult(_packages(subject, instance, image), settled=True)
            case ImageFacts():
                return ProbeResult(ImageAnswer(), settled=True)
            case LicenseFacts():
                return ProbeResult(_licenses(subject, instance, image), settled=True)
            case other:
                assert_never(other)
    except OSError as error:
        # Of a process that is ending the kernel says whatever fits: ESRCH, ENOENT, EINVAL, EACCES.
        return ProbeResult(NoAnswer(f"the instance is gone: {error.strerror or error}"))
    except RelbuildError as error:
        return ProbeResult(NoAnswer(str(error)))


# --- files -------------------------------------------------------------------------------------------


def _file(facts: FileFacts, instance: Instance) -> CheckAnswer:
    with open_root(instance) as root:
        follow = facts.sort is not FileSort.SYMLINK and not facts.target
        status = root.stat(facts.path, follow=follow)
        if status is None:
            return FileAnswer(there=False)
        uid, gid = status.st_uid - root.shift, status.st_gid - root.shift
        data = None
        if facts.text or facts.sha256:
            data = root.read(facts.path, limit=_FILE_LIMIT)
        return FileAnswer(
            there=True,
            sort=next((sort for sort, test in _SORTS.items() if test(status.st_mode)), None),
            mode=stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            owners=_names_of(uid, facts.owner, root, "/etc/passwd"),
            groups=_names_of(gid, facts.group, root, "/etc/group"),
            size=status.st_size,
            target=_target(facts, root) if facts.target else None,
            sha256=hashlib.sha256(data).hexdigest() if data is not None else "",
            text=RecordedText.of(data if facts.text else b"") if data is not None else None,
        )


def _target(facts: FileFacts, root: RootFs) -> RecordedText | None:
    folder, _, name = facts.path.rstrip("/").rpartition("/")
    with root.folder(folder or "/") as handle:
        try:
            return RecordedText.of(os.readlink(name, dir_fd=handle))
        except OSError:
            return None


# --- processes and sockets -----------------------------------------------------------------------------


def _processes(facts: ProcessFacts, instance: Instance) -> CheckAnswer:
    uid = instance.identity(facts.user).uid if facts.user else None
    # Counted before they are looked at, one by one.
    count = len(instance.slot.group.processes())
    if count > PROCESSES_MOST:
        return NoAnswer(f"the instance has {count} processes, more than the limit of {PROCESSES_MOST}")
    everyone = list_processes(instance)
    return ProcessAnswer(
        uid,
        tuple(
            SeenProcess(readable(one.name), readable(one.program), RecordedText.of(one.command), one.uid)
            for one in everyone
        ),
    )


def _listening(instance: Instance) -> CheckAnswer:
    seen = list_listeners(instance)
    if len(seen) > SOCKETS_MOST:
        return NoAnswer(f"the instance listens on {len(seen)} sockets, more than the limit of {SOCKETS_MOST}")
    return ListeningAnswer(tuple(SeenSocket(str(listener), listener.local) for listener in seen))


# --- accounts --------------------------------------------------------------------------------------------


def _account(facts: AccountFacts, files: RootFs) -> CheckAnswer:
    table, name = ("/etc/passwd", facts.user) if facts.user else ("/etc/group", facts.group)
    entry = next((fields for fields in _entries(files, table) if fields[0] == name), None)
    if entry is None:
        return AccountAnswer(None)
    member_of = {
        fields[0] for fields in _entries(files, "/etc/group") if len(fields) > 3 and name in fields[3].split(",")
    }
    return AccountAnswer(tuple(entry), tuple(group for group in facts.groups if group in member_of))


def _entries(files: RootFs, table: str) -> Iterator[list[str]]:
    text = (files.read(table, limit=ACCOUNTS_LIMIT) or b"").decode(errors="replace")
    # Lines as the C library has them: other separators belong to a field.
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) >= (6 if table == "/etc/passwd" else 3) and _ID.fullmatch(fields[2]):
            yield fields


def _names_of(number: int, asked: str | None, files: RootFs, table: str) -> tuple[str, ...]:
    """Return the names of a user's or group's number; nothing if nobody asks.

    A name is known by its first entry; the one that is asked for comes first.
    """
    if asked is None:
        return ()
    first: dict[str, int] = {}
    for fields in _entries(files, table):
        first.setdefault(fields[0], int(fields[2]))
    names = sorted((name for name, known in first.items() if known == number), key=lambda name: name != asked)
    return tuple(names[:_NAMES_MOST])


# --- packages ----------------------------------------------------------------------------------------------


def read_installed_packages(instance: Instance, image: Image) -> tuple[Installed, ...] | None:
    """Read the packages in the image's RPM database; None if it has none.

    Raises VerificationError `rpmdb-damaged`.
    """
    for path in database_paths(dict(image.config.labels)):
        data = instance.files.read(path, limit=DATABASE_LIMIT)
        if data is not None:
            return read_installed(data)
    return None


def _packages(facts: PackageFacts, instance: Instance, image: Image) -> CheckAnswer:
    known = read_installed_packages(instance, image)
    if known is not None:
        nevras = [str(package.nevra) for package in known]
    else:
        nevras = sorted({nevra for layer in image.layers for nevra in layer.contents})
    if len(nevras) > PACKAGES_MOST:
        wanted = (*facts.present, *facts.absent)
        nevras = [nevra for nevra in nevras if any(package_is(nevra, pattern) for pattern in wanted)][:PACKAGES_MOST]
    return PackagesAnswer(known is not None or bool(nevras), tuple(nevras))


def _licenses(facts: LicenseFacts, instance: Instance, image: Image) -> CheckAnswer:
    known = read_installed_packages(instance, image)
    marked = {package.nevra.name: package.licenses for package in known or ()}
    names = facts.packages or tuple(dict.fromkeys(package.nevra.name for package in known or () if package.nevra.arch))
    return LicensesAnswer(
        known is not None, tuple((name, _license(name, marked.get(name, ()), instance.files)) for name in names)
    )


def _license(name: str, marked: Sequence[str], files: RootFs) -> str:
    """A file that is a package's licence and not empty, or nothing."""
    for path in marked:
        status = files.stat(path)
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_size:
            return readable(path)
    for folder in _LICENSE_FOLDERS:
        for inner in (inner for inner in _listed(folder, files) if re.fullmatch(rf"{re.escape(name)}(-\d.*)?", inner)):
            for file in _listed(f"{folder}/{inner}", files):
                status = files.stat(f"{folder}/{inner}/{file}") if _LICENSE_NAME.match(file) else None
                if status is not None and stat.S_ISREG(status.st_mode) and status.st_size:
                    return readable(f"{folder}/{inner}/{file}")
    return ""


def _listed(folder: str, files: RootFs) -> list[str]:
    try:
        with files.folder(folder) as handle, os.scandir(f"/proc/self/fd/{handle}") as entries:
            return sorted(entry.name for entry in entries)
    except OSError:
        return []
