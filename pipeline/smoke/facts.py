"""What stands in a running instance, and what its image says of itself, held against a recipe's checks."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.errors import RelbuildError
from pipeline.model.image import Image
from pipeline.model.probes import (
    AccountFacts,
    FileFacts,
    FileSort,
    ImageFacts,
    LicenseFacts,
    ListeningFacts,
    PackageFacts,
    ProcessFacts,
    Rules,
    Subject,
)
from pipeline.packages import DATABASE_LIMIT, DATABASE_PATHS, Installed, read_installed
from pipeline.sandbox import Instance, RootFs
from pipeline.sandbox.users import ACCOUNTS_LIMIT
from pipeline.smoke.answer import Answer
from pipeline.smoke.sight import Process, listeners, processes, root_of
from pipeline.smoke.values import differs, found, shown

FILE_LIMIT = 64 << 20
"""Bytes of a file whose content is looked at."""

_NAMED = 12
"""How many things a report names of a longer list."""

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


def look(subject: Subject | None, instance: Instance, image: Image) -> Answer:
    """Is it as the subject says? For every kind of facts."""
    try:
        match subject:
            case FileFacts():
                wrong = _file(subject, instance)
            case ProcessFacts():
                wrong = _processes(subject, instance)
            case ListeningFacts():
                wrong = _listening(subject, instance, image)
            case AccountFacts():
                wrong = _account(subject, instance.files)
            case PackageFacts():
                return Answer(not (wrong := _packages(subject, instance, image)), wrong, settled=True)
            case ImageFacts():
                return Answer(not (wrong := _image(subject, image)), wrong, settled=True)
            case LicenseFacts():
                return Answer(not (wrong := _licenses(subject, instance)), wrong, settled=True)
            case _:
                raise TypeError(f"{subject!r} is nothing to look at")
    except (ProcessLookupError, FileNotFoundError) as error:
        return Answer(False, f"the instance is gone: {error.strerror or error}")
    except RelbuildError as error:
        return Answer(False, str(error))
    return Answer(not wrong, wrong)


# --- files -------------------------------------------------------------------------------------------


def _file(facts: FileFacts, instance: Instance) -> str:
    with root_of(instance) as root:
        follow = facts.sort is not FileSort.SYMLINK and not facts.target
        status = root.stat(facts.path, follow=follow)
        if status is None:
            return "" if facts.absent else f"{facts.path} is not there"
        if facts.absent:
            return f"{facts.path} is there, as {_sort(status.st_mode)}"
        wrong = _attributes(facts, status, root)
        if not wrong and facts.target:
            wrong = _target(facts, root)
        if not wrong and (facts.text or facts.sha256):
            wrong = _content(facts, root)
        return f"{facts.path}: {wrong}" if wrong else ""


def _attributes(facts: FileFacts, status: os.stat_result, root: RootFs) -> str:
    mode = stat.S_IMODE(status.st_mode)
    if facts.sort is not None and not _SORTS[facts.sort](status.st_mode):
        return f"it is {_sort(status.st_mode)}, not a {facts.sort}"
    if facts.mode is not None and mode != facts.mode:
        return f"its mode is {mode:04o}, not {facts.mode:04o}"
    for what, wanted, number, table in (
        ("owner", facts.owner, status.st_uid - root.shift, "/etc/passwd"),
        ("group", facts.group, status.st_gid - root.shift, "/etc/group"),
    ):
        if wanted is not None and number != _number_of(wanted, root, table):
            names = [fields[0] for fields in _entries(root, table) if fields[2] == str(number)]
            return f"its {what} is {number}{f' ({names[0]})' if names else ''}, not {wanted}"
    return differs(facts.size, str(status.st_size), "its size")


def _target(facts: FileFacts, root: RootFs) -> str:
    folder, _, name = facts.path.rstrip("/").rpartition("/")
    with root.folder(folder or "/") as handle:
        try:
            return differs(facts.target, os.readlink(name, dir_fd=handle), "its target", tell=True)
        except OSError:
            return "it is no symlink"


def _content(facts: FileFacts, root: RootFs) -> str:
    data = root.read(facts.path, limit=FILE_LIMIT)
    if data is None:
        return "it is no regular file"
    digest = hashlib.sha256(data).hexdigest()
    if facts.sha256 and digest != facts.sha256:
        return f"its sha256 is {digest}, not {facts.sha256}"
    wrong = differs(facts.text, data.decode(errors="replace"), "its text")
    return f"{wrong}; it reads: {shown(data[:8000], 500)}" if wrong else ""


def _sort(mode: int) -> str:
    return next((f"a {sort}" for sort, test in _SORTS.items() if test(mode)), "something else")


# --- processes and sockets -----------------------------------------------------------------------------


def _processes(facts: ProcessFacts, instance: Instance) -> str:
    uid = instance.identity(facts.user).uid if facts.user else None
    everyone = processes(instance)
    number = sum(_meets(process, facts, uid) for process in everyone)
    wrong = differs(facts.count, str(number), "the number of such processes", tell=True)
    if not wrong:
        return ""
    told = [f"{process.name} (user {process.uid}): {shown(process.command, 80)}" for process in everyone]
    return f"{wrong}; there are: {_some(told)}"


def _meets(process: Process, facts: ProcessFacts, uid: int | None) -> bool:
    # The kernel keeps 15 characters of a name; the program's own is in its command line.
    named = not facts.name or process.program == facts.name or process.name == facts.name[:15]
    return named and (not facts.command or found(facts.command, process.command)) and uid in (None, process.uid)


def _listening(facts: ListeningFacts, instance: Instance, image: Image) -> str:
    wanted = image.config.exposed_ports if facts.ports is None else facts.ports
    seen = listeners(instance)
    reachable = {str(listener) for listener in seen if not listener.local}
    local = {str(listener) for listener in seen if listener.local}
    wrong = [f"nothing listens on {port}" for port in wanted if port not in reachable | local]
    wrong += [f"{port} is on the loopback only, out of reach" for port in wanted if port in local]
    wrong += [f"{port} listens too" for port in sorted(reachable - set(wanted))]
    wrong += [f"{port} listens too, on the loopback" for port in sorted(local - set(wanted) - set(facts.local))]
    return "; ".join(wrong)


# --- accounts --------------------------------------------------------------------------------------------


def _account(facts: AccountFacts, files: RootFs) -> str:
    table, name = ("/etc/passwd", facts.user) if facts.user else ("/etc/group", facts.group)
    what = "user" if facts.user else "group"
    entry = next((fields for fields in _entries(files, table) if fields[0] == name), None)
    if entry is None:
        return "" if facts.absent else f"there is no {what} '{name}' in {table}"
    if facts.absent:
        return f"there is a {what} '{name}', with number {entry[2]}"
    asked: Mapping[str, tuple[object, str]]
    if facts.user:
        asked = {
            "uid": (facts.uid, entry[2]),
            "gid": (facts.gid, entry[3]),
            "home": (facts.home, entry[5]),
            "shell": (facts.shell, entry[6] if len(entry) > 6 else ""),
        }
    else:
        asked = {"gid": (facts.gid, entry[2])}
    for key, (wanted, has) in asked.items():
        if wanted is not None and str(wanted) != has:
            return f"{what} '{name}' has {key} {has}, not {wanted}"
    member_of = {
        fields[0] for fields in _entries(files, "/etc/group") if len(fields) > 3 and name in fields[3].split(",")
    }
    missing = [group for group in facts.groups if group not in member_of]
    return f"user '{name}' is not in {', '.join(missing)}" if missing else ""


def _entries(files: RootFs, table: str) -> Iterator[list[str]]:
    text = (files.read(table, limit=ACCOUNTS_LIMIT) or b"").decode(errors="replace")
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= (6 if table == "/etc/passwd" else 3) and fields[2].isdecimal():
            yield fields


def _number_of(name: str, files: RootFs, table: str) -> int:
    """An account's number; -1 if there is none of this name."""
    if name.isdecimal():
        return int(name)
    return next((int(fields[2]) for fields in _entries(files, table) if fields[0] == name), -1)


# --- packages ----------------------------------------------------------------------------------------------


def installed(instance: Instance) -> tuple[Installed, ...] | None:
    """What the image's RPM database says; None if it has none. Raises VerificationError `rpmdb-damaged`."""
    for path in DATABASE_PATHS:
        data = instance.files.read(path, limit=DATABASE_LIMIT)
        if data is not None:
            return read_installed(data)
    return None


def _packages(facts: PackageFacts, instance: Instance, image: Image) -> str:
    known = installed(instance)
    if known is not None:
        names = {package.nevra.name for package in known}
        nevras = {str(package.nevra) for package in known}
    else:
        nevras = {nevra for layer in image.layers for nevra in layer.contents}
        names = {re.sub(r"-[^-]+-[^-]+$", "", nevra) for nevra in nevras}
        if not nevras:
            return "the image has no RPM database, and does not say what it is made of"
    everything = names | nevras
    wrong = [f"{pattern} is not there" for pattern in facts.present if not fnmatch.filter(everything, pattern)]
    for pattern in facts.absent:
        there = [nevra for nevra in sorted(nevras) if _is(nevra, pattern)]
        wrong += [f"{', '.join(there)} is there" if there else ""]
    return "; ".join(text for text in wrong if text)


def _is(nevra: str, pattern: str) -> bool:
    name = re.sub(r"-[^-]+-[^-]+$", "", nevra)
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(nevra, pattern)


def _licenses(facts: LicenseFacts, instance: Instance) -> str:
    known = installed(instance)
    marked = {package.nevra.name: package.licenses for package in known or ()}
    names = facts.packages or tuple(
        package.nevra.name
        for package in known or ()
        if package.nevra.arch and not any(fnmatch.fnmatchcase(package.nevra.name, name) for name in facts.without)
    )
    if not names:
        return "the image has no RPM database, so name the packages"
    without = [name for name in names if not _has_license(name, marked.get(name, ()), instance.files)]
    return f"there is no text of a licence of {_some(without)}" if without else ""


def _has_license(name: str, marked: Sequence[str], files: RootFs) -> bool:
    for path in marked:
        status = files.stat(path)
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_size:
            return True
    for folder in _LICENSE_FOLDERS:
        for inner in (inner for inner in _listed(folder, files) if re.fullmatch(rf"{re.escape(name)}(-\d.*)?", inner)):
            for file in _listed(f"{folder}/{inner}", files):
                status = files.stat(f"{folder}/{inner}/{file}") if _LICENSE_NAME.match(file) else None
                if status is not None and stat.S_ISREG(status.st_mode) and status.st_size:
                    return True
    return False


def _listed(folder: str, files: RootFs) -> list[str]:
    try:
        with files.folder(folder) as handle, os.scandir(f"/proc/self/fd/{handle}") as entries:
            return sorted(entry.name for entry in entries)
    except OSError:
        return []


# --- the image's configuration -------------------------------------------------------------------------------


def _image(facts: ImageFacts, image: Image) -> str:
    config = image.config
    exactly: tuple[tuple[str, object, object], ...] = (
        ("entrypoint", facts.entrypoint, config.entrypoint),
        ("command", facts.command, config.command),
        ("user", facts.user, config.user),
        ("working_directory", facts.working_directory, config.working_directory),
        ("exposed_ports", _sorted(facts.exposed_ports), _sorted(config.exposed_ports)),
        ("volumes", _sorted(facts.volumes), _sorted(config.volumes)),
        ("stop_signal", facts.stop_signal, config.stop_signal or "SIGTERM"),
    )
    for key, wanted, has in exactly:
        if wanted is not None and wanted != has:
            return f"{key} is {_written(has)}, not {_written(wanted)}"
    variables = {name: value for name, _, value in (line.partition("=") for line in config.environment)}
    return _among("environment variable", facts.environment, variables.get) or _among(
        "label", facts.labels, dict(config.labels).get
    )


def _among(what: str, wanted: Sequence[tuple[str, Rules]], get: Callable[[str], str | None]) -> str:
    for name, rules in wanted:
        value = get(name)
        wrong = (
            f"there is no {what} '{name}'" if value is None else differs(rules, value, f"{what} '{name}'", tell=True)
        )
        if wrong:
            return wrong
    return ""


def _sorted(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(sorted(values))


def _written(value: object) -> str:
    return " ".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value) or "empty"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
