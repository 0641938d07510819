"""Drafts of checks, made from a running image: `relbuild smoke --record`.

They are drafted from what the image shows, for a person to keep.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException

from pipeline.errors import SmokeError
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.image import Image
from pipeline.model.smoke import SmokePlan
from pipeline.sandbox import Instance
from pipeline.smoke.inspection import read_installed_packages
from pipeline.smoke.network_probes import exchange_http
from pipeline.smoke.probes import describe_exit, last_lines, run_check
from pipeline.smoke.procfs import (
    InstanceProcess,
    Listener,
    list_listeners,
    list_processes,
    open_root,
)

_FILES_MOST = 12
"""Files of a volume that are drafted: a person looks at each."""
_LINES_MOST = 3
_NAME_MOST = 15
"""Characters that the kernel keeps of a process's name."""
_READY_WORDS = re.compile(r"(?i)\b(ready|listening|accept\w*|started|up|serving|running)\b")
_HTTP_PATIENCE = 1.0
_STOP_PATIENCE = 20.0

_Drafted = dict[str, object]


def draft_checks(
    instance: Instance, image: Image, plan: SmokePlan, *, settling: float, pause: Callable[[float], object]
) -> str:
    """Draft `smoke:` of a recipe as YAML, from a running instance.

    Waits until the instance is ready as `plan` says, or until it listens, and `settling` seconds more; then stops it,
    to see how it ends.

    Raises SmokeError `not-recordable` if it ends by itself.
    """
    if plan.ready is not None:
        run_check(plan.ready, instance, image)
    else:
        _wait_until_it_listens(instance, settling, pause)
    pause(settling)
    try:
        seen = list_listeners(instance)
        checks = [*_ports(seen, instance), *_processes(instance), *_files(instance, image), *_log(instance)]
    except ProcessLookupError as error:
        raise SmokeError(
            "not-recordable",
            f"the instance ended with {describe_exit(instance)}",
            hint="check its output; add what it needs under 'image' or 'files'",
        ) from error
    checks += [*_image(image), *_packages(instance, image), *_stop(instance, image)]
    signs: list[_Drafted] = [{"port": found.port} for found in seen if found.protocol == "tcp"]
    signs += [{"log": check["log"]} for check in checks if "log" in check]
    lines = ["smoke:", *(f"  ready: {_yaml(sign)}" for sign in signs[:1])]
    lines.append("  checks:")
    lines += [f"    - {_yaml(check)}" for check in checks]
    return "\n".join(lines) + "\n"


def _wait_until_it_listens(instance: Instance, settling: float, pause: Callable[[float], object]) -> None:
    deadline = time.monotonic() + max(10 * settling, 1.0)
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline and not list_listeners(instance):
            pause(0.05)


def _ports(seen: tuple[Listener, ...], instance: Instance) -> Iterator[_Drafted]:
    local = [_port(listener) for listener in seen if listener.local]
    ports = [_port(listener) for listener in seen if not listener.local]
    wanted: object = {"ports": ports, "local": local} if local else ports
    yield {"name": "listens on its ports and no other", "listening": wanted}
    for listener in seen:
        if listener.protocol == "tcp":
            yield _conversation(listener.port, instance)


def _port(listener: Listener) -> object:
    return listener.port if listener.protocol == "tcp" else str(listener)


def _conversation(port: int, instance: Instance) -> _Drafted:
    """A check by HTTP where that is understood, else that connections are taken."""
    try:
        deadline = time.monotonic() + _HTTP_PATIENCE
        status, headers, _ = exchange_http(HttpRequest(port), instance, deadline)
    except (OSError, HTTPException):
        return {"name": f"accepts connections on {port}", "port": port}
    expect: _Drafted = {"status": status}
    kind = headers.get("Content-Type")
    if kind:
        expect["headers"] = {"Content-Type": f"^{re.escape(kind.partition(';')[0])}"}
    return {"name": f"answers on {port}", "http": {"port": port}, "expect": expect}


def _processes(instance: Instance) -> Iterator[_Drafted]:
    names = _account_names(instance, "/etc/passwd")
    counted = Counter((_name(process), process.uid) for process in list_processes(instance))
    for (name, uid), count in sorted(counted.items()):
        if _printable(name):
            user = names.get(uid, str(uid))
            facts: _Drafted = {"name": name, "user": user, "count": {"min": 1, "max": max(2 * count, 2)}}
            yield {"name": f"runs {name} as {user}", "process": facts}


def _name(process: InstanceProcess) -> str:
    """The kernel's name, unless it is cut off: a command line may be anything (setproctitle(3))."""
    cut_off = len(process.name) == _NAME_MOST and process.program.startswith(process.name)
    return process.program if cut_off else process.name


def _files(instance: Instance, image: Image) -> Iterator[_Drafted]:
    owners, groups = _account_names(instance, "/etc/passwd"), _account_names(instance, "/etc/group")
    with open_root(instance) as root:
        for volume in image.config.volumes:
            try:
                with root.folder(volume) as handle, os.scandir(f"/proc/self/fd/{handle}") as entries:
                    names = heapq.nsmallest(_FILES_MOST, (one.name for one in entries if _printable(one.name)))
            except OSError:
                continue
            for path in (volume, *(f"{volume.rstrip('/')}/{name}" for name in names)):
                status = root.stat(path, follow=False)
                if status is None:
                    continue
                facts: _Drafted = {"path": path, "type": _sort(status.st_mode)}
                if not stat.S_ISLNK(status.st_mode):
                    uid, gid = status.st_uid - root.shift, status.st_gid - root.shift
                    facts["mode"] = f"{stat.S_IMODE(status.st_mode):04o}"
                    facts["owner"], facts["group"] = owners.get(uid, str(uid)), groups.get(gid, str(gid))
                yield {"name": f"has {path}", "file": facts}


def _sort(mode: int) -> str:
    for test, name in ((stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symlink"), (stat.S_ISSOCK, "socket")):
        if test(mode):
            return name
    return "fifo" if stat.S_ISFIFO(mode) else "file" if stat.S_ISREG(mode) else "device"


def _log(instance: Instance) -> Iterator[_Drafted]:
    lines = [line.strip() for line in last_lines(instance.log, 1 << 16).splitlines()]
    told = [line for line in lines if _READY_WORDS.search(line) and _printable(line)]
    tails = [_tail(line) for line in told or [line for line in lines if _printable(line)][-1:]]
    for tail in list(dict.fromkeys(tails))[-_LINES_MOST:]:
        yield {"name": f"says {tail[:60]}", "log": _pattern(tail)}


def _tail(line: str) -> str:
    """Return the part of a log line after its date and tags."""
    return re.split(r"\]\s+|\s\|\s", line[:400])[-1] or line[:400]


def _pattern(text: str) -> str:
    """The text with what differs from run to run as patterns."""
    return re.sub(r"\d+", lambda _: r"\d+", re.escape(text)).replace(r"\ ", " ")


def _image(image: Image) -> Iterator[_Drafted]:
    facts: _Drafted = {"user": image.config.user} if image.config.user else {}
    if image.config.exposed_ports:
        facts["exposed_ports"] = list(image.config.exposed_ports)
    if facts:
        yield {"name": "is configured as it was", "image": facts}


def _packages(instance: Instance, image: Image) -> Iterator[_Drafted]:
    known = read_installed_packages(instance, image)
    if known:
        absent = ["gcc", "make", "*-devel", "telnet*"]
        names = {package.nevra.name for package in known}
        yield {
            "name": "holds no tools to build with",
            "packages": {"absent": [name for name in absent if name not in names]},
        }


def _stop(instance: Instance, image: Image) -> Iterator[_Drafted]:
    begun = time.monotonic()
    code = instance.stop(image.config.stop_signal, _STOP_PATIENCE)
    if code is not None:
        took = max(1, round(3 * (time.monotonic() - begun)))
        yield {"name": "stops", "stop": {"within": f"{max(10, took)}s", "exit_code": code}}


def _account_names(instance: Instance, table: str) -> Mapping[int, str]:
    text = (instance.files.read(table, limit=1 << 20) or b"").decode(errors="replace")
    lines = [line.split(":") for line in text.split("\n")]
    return {
        int(fields[2]): fields[0]
        for fields in reversed(lines)
        if len(fields) > 2
        and re.fullmatch(r"[0-9]{1,10}", fields[2])
        and re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", fields[0])
    }


def _printable(text: str) -> bool:
    """Can it stand in a recipe as it is? Invalid UTF-8, control characters and templates cannot."""
    return bool(text) and text.isprintable() and "{{" not in text and "{%" not in text and "{#" not in text


def _yaml(value: object) -> str:
    """A value in YAML's flow style, on one line; all texts are quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z][\w-]*", key) else json.dumps(key)
