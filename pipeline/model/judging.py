"""Is what an image answered what a check wants? Pure: those who ask and those who judge a report again use the same."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar, assert_never

from pipeline.model.answers import (
    AccountAnswer,
    Answer,
    CommandAnswer,
    FileAnswer,
    HttpAnswer,
    ImageAnswer,
    LicensesAnswer,
    ListeningAnswer,
    LogAnswer,
    MountsAnswer,
    NoAnswer,
    PackagesAnswer,
    ProcessAnswer,
    RestartAnswer,
    SeenProcess,
    StopAnswer,
    TalkAnswer,
)
from pipeline.model.image import ImageConfig
from pipeline.model.image_keys import IMAGE_KEYS, NAMED, UNORDERED, ConfigForm, KeyForm
from pipeline.model.probes import (
    AccountFacts,
    FileFacts,
    HttpRequest,
    ImageFacts,
    LicenseFacts,
    ListeningFacts,
    PackageFacts,
    ProcessFacts,
    Restart,
    Rule,
    Rules,
)
from pipeline.model.smoke import Check, CheckKind
from pipeline.model.values import SHOWN, differs, misses, recorded, shown

DEFAULT_SIGNAL = "SIGTERM"
"""What stops an image that names no signal (config.md, StopSignal)."""

KILLED = 137
"""Exit status of one that SIGKILL ended."""

SCRATCH = ("/dev", "/proc", "/run", "/tmp")  # noqa: S108 - in the container
"""Where every instance may write."""

_NAMED = 12
"""How many things a report names of a longer list."""

_LAST_WORDS = 500
"""Characters of a file that are shown."""

_Kind = TypeVar("_Kind")


class _Unfit(Exception):
    """An answer is not of the kind that the question is of."""


def judge(check: Check, answer: Answer, config: ImageConfig, ready: Check | None = None) -> str:
    """What is wrong with an answer, for people; empty if it is right. `config` is of the image that was asked; `ready`
    is what shows that it is back after a RESTART."""
    if isinstance(answer, NoAnswer):
        return answer.reason or "there was no answer"
    try:
        return _judge_of(check.kind)(check, answer, config, ready)
    except _Unfit:
        return f"what was recorded is no answer to a question of kind '{check.kind}'"


def judge_mounts(answer: Answer, config: ImageConfig) -> str:
    """Can nothing be written but the volumes and the scratch file systems?"""
    if isinstance(answer, NoAnswer):
        return answer.reason or "there was no answer"
    if not isinstance(answer, MountsAnswer):
        return "what was recorded is no list of mounts"
    allowed = (*SCRATCH, *config.volumes)
    wrong = [
        where
        for where in answer.writable
        if not any(f"{where}/".startswith(f"{place.rstrip('/')}/") for place in allowed)
    ]
    return f"can be written: {', '.join(wrong)}" if wrong else ""


def recordable(check: Check, answer: Answer) -> Answer:
    """The answer as it is recorded: long texts as excerpts that `judge` decides the same by."""
    expect, subject = check.expect, check.subject
    match answer:
        case CommandAnswer():
            return replace(
                answer, stdout=recorded(expect.stdout, answer.stdout), stderr=recorded(expect.stderr, answer.stderr)
            )
        case TalkAnswer():
            return TalkAnswer(recorded(expect.stdout, answer.said))
        case HttpAnswer():
            return replace(answer, body=recorded(expect.body, answer.body))
        case LogAnswer():
            return LogAnswer(recorded(check.log, answer.log))
        case FileAnswer():
            if isinstance(subject, FileFacts) and answer.text is not None:
                return replace(answer, text=recorded(subject.text, answer.text))
            return answer
        case ProcessAnswer():
            if not isinstance(subject, ProcessFacts):
                return answer
            rules = _command_rules(subject)
            kept = [replace(one, command=recorded(rules, one.command)) for one in answer.processes]
            return replace(answer, processes=tuple(kept))
        case (
            NoAnswer()
            | ListeningAnswer()
            | AccountAnswer()
            | PackagesAnswer()
            | ImageAnswer()
            | LicensesAnswer()
            | StopAnswer()
            | MountsAnswer()
            | RestartAnswer()
        ):
            return answer
        case other:
            assert_never(other)


def _of(kind: type[_Kind], value: object) -> _Kind:
    if not isinstance(value, kind):
        raise _Unfit
    return value


# --- what is said --------------------------------------------------------------------------------------


def _command(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    seen, expect = _of(CommandAnswer, answer), check.expect
    if seen.status is None:
        wrong = "the command did not end"
    elif expect.exit_code is not None and seen.status != expect.exit_code:
        wrong = f"exit code {seen.status}, not {expect.exit_code}"
    else:
        wrong = misses(expect.stdout, seen.stdout, "stdout") or misses(expect.stderr, seen.stderr, "stderr")
    if not wrong:
        return ""
    streams = (("stdout", seen.stdout.text), ("stderr", seen.stderr.text))
    printed = "; ".join(f"{name}: {shown(text)}" for name, text in streams if text.strip())
    return f"{wrong}; {printed or 'it printed nothing'}"


def _talk(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    said = _of(TalkAnswer, answer).said
    wrong = misses(check.expect.stdout, said, "the answer")
    return f"{place_of(check)}: {wrong}: {shown(said.text)}" if wrong else ""


def place_of(check: Check) -> str:
    """Where a check of a port, of a socket or by HTTP asks, for people."""
    if isinstance(check.subject, HttpRequest):
        return f"{check.subject.method} {check.subject.path} at {check.subject.socket or check.subject.port}"
    return f"port {check.port}" if check.kind is CheckKind.PORT else f"socket {check.socket}"


def _http(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    seen = _of(HttpAnswer, answer)
    wrong = differs(check.expect.status, str(seen.status), "the status", tell=True)
    headers = dict(seen.headers)
    for name, rules in check.expect.headers:
        value = headers.get(name)
        wrong = wrong or (
            f"there is no header '{name}'" if value is None else misses(rules, value, f"header '{name}'", tell=True)
        )
    wrong = wrong or misses(check.expect.body, seen.body, "the body")
    return f"{place_of(check)}: {wrong}; it said {seen.status}: {shown(seen.body.text)}" if wrong else ""


def _log(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    log = _of(LogAnswer, answer).log
    wrong = misses(check.log, log, "the log")
    if not wrong:
        return ""
    return f"{wrong}; it {'ends' if log.excerpts is None else 'begins'} with: {log.text[-SHOWN:].strip()}"


# --- what is seen --------------------------------------------------------------------------------------


def _file(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    facts, seen = _of(FileFacts, check.subject), _of(FileAnswer, answer)
    if not seen.there:
        return "" if facts.absent else f"{facts.path} is not there"
    if facts.absent:
        return f"{facts.path} is there, as {_sort(seen)}"
    wrong = _attributes(facts, seen)
    if not wrong and facts.target:
        wrong = (
            "it is no symlink" if seen.target is None else misses(facts.target, seen.target, "its target", tell=True)
        )
    if not wrong and (facts.text or facts.sha256):
        wrong = _content(facts, seen)
    return f"{facts.path}: {wrong}" if wrong else ""


def _attributes(facts: FileFacts, seen: FileAnswer) -> str:
    if facts.sort is not None and seen.sort is not facts.sort:
        return f"it is {_sort(seen)}, not a {facts.sort}"
    if facts.mode is not None and seen.mode != facts.mode:
        return f"its mode is {seen.mode:04o}, not {facts.mode:04o}"
    for what, wanted, number, names in (
        ("owner", facts.owner, seen.uid, seen.owners),
        ("group", facts.group, seen.gid, seen.groups),
    ):
        if wanted is not None and (int(wanted) != number if wanted.isdecimal() else wanted not in names):
            return f"its {what} is {number}{f' ({names[0]})' if names else ''}, not {wanted}"
    return differs(facts.size, str(seen.size), "its size")


def _content(facts: FileFacts, seen: FileAnswer) -> str:
    if seen.text is None:
        return "it is no regular file"
    if facts.sha256 and seen.sha256 != facts.sha256:
        return f"its sha256 is {seen.sha256}, not {facts.sha256}"
    wrong = misses(facts.text, seen.text, "its text")
    return f"{wrong}; it reads: {shown(seen.text.text[:8000], _LAST_WORDS)}" if wrong else ""


def _sort(seen: FileAnswer) -> str:
    return f"a {seen.sort}" if seen.sort is not None else "something else"


def _processes(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    facts, seen = _of(ProcessFacts, check.subject), _of(ProcessAnswer, answer)
    number = sum(_meets(process, facts, seen.user) for process in seen.processes)
    wrong = differs(facts.count, str(number), "the number of such processes", tell=True)
    if not wrong:
        return ""
    told = [f"{process.name} (user {process.uid}): {shown(process.command.text, 80)}" for process in seen.processes]
    return f"{wrong}; there are: {_some(told)}"


def _meets(process: SeenProcess, facts: ProcessFacts, user: int | None) -> bool:
    # The kernel keeps 15 characters of a name; the program's own is in its command line.
    named = not facts.name or process.program == facts.name or process.name == facts.name[:15]
    return (
        named
        and not misses(_command_rules(facts), process.command, "")
        and (not facts.user or (user is not None and process.uid == user))
    )


def _command_rules(facts: ProcessFacts) -> Rules:
    return (Rule(matches=facts.command),) if facts.command else ()


def _listening(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    facts, seen = _of(ListeningFacts, check.subject), _of(ListeningAnswer, answer).sockets
    wanted = config.exposed_ports if facts.ports is None else facts.ports
    reachable = {socket.port for socket in seen if not socket.local}
    local = {socket.port for socket in seen if socket.local}
    wrong = [f"nothing listens on {port}" for port in wanted if port not in reachable | local]
    wrong += [f"{port} is on the loopback only, out of reach" for port in wanted if port in local]
    wrong += [f"{port} listens too" for port in sorted(reachable - set(wanted))]
    wrong += [f"{port} listens too, on the loopback" for port in sorted(local - set(wanted) - set(facts.local))]
    return "; ".join(wrong)


# --- what the image holds --------------------------------------------------------------------------------


def _account(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    facts, seen = _of(AccountFacts, check.subject), _of(AccountAnswer, answer)
    what, name = ("user", facts.user) if facts.user else ("group", facts.group)
    if seen.entry is None:
        return "" if facts.absent else f"there is no {what} '{name}' in {'/etc/passwd' if facts.user else '/etc/group'}"
    entry = (*seen.entry, *("",) * 7)
    if facts.absent:
        return f"there is a {what} '{name}', with number {entry[2]}"
    if entry[0] != name:
        return f"what was recorded is the entry of '{entry[0]}', not of '{name}'"
    asked: tuple[tuple[str, int | str | None, str], ...] = (("gid", facts.gid, entry[2]),)
    if facts.user:
        asked = (
            ("uid", facts.uid, entry[2]),
            ("gid", facts.gid, entry[3]),
            ("home", facts.home, entry[5]),
            ("shell", facts.shell, entry[6]),
        )
    for key, wanted, has in asked:
        if wanted is not None and str(wanted) != has:
            return f"{what} '{name}' has {key} {has}, not {wanted}"
    missing = [group for group in facts.groups if group not in seen.groups]
    return f"user '{name}' is not in {', '.join(missing)}" if missing else ""


def _packages(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    facts, seen = _of(PackageFacts, check.subject), _of(PackagesAnswer, answer)
    if not seen.known:
        return "the image has no RPM database, and does not say what it is made of"
    wrong = [
        f"{pattern} is not there"
        for pattern in facts.present
        if not any(package_is(nevra, pattern) for nevra in seen.packages)
    ]
    for pattern in facts.absent:
        there = [nevra for nevra in sorted(seen.packages) if package_is(nevra, pattern)]
        wrong += [f"{', '.join(there)} is there"] if there else []
    return "; ".join(wrong)


def package_is(nevra: str, pattern: str) -> bool:
    """Is it the package, or one of those, that a pattern (`*` for any characters) of names or NEVRAs means?"""
    name = re.sub(r"-[^-]+-[^-]+$", "", nevra)
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(nevra, pattern)


def _licenses(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    facts, seen = _of(LicenseFacts, check.subject), _of(LicensesAnswer, answer)
    texts = dict(seen.texts)
    names = facts.packages or tuple(
        name for name in texts if not any(fnmatch.fnmatchcase(name, pattern) for pattern in facts.without)
    )
    if not names or (not seen.known and not facts.packages):
        return "the image has no RPM database, so name the packages"
    without = [name for name in names if not texts.get(name)]
    return f"there is no text of a licence of {_some(without)}" if without else ""


def _image(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    facts = _of(ImageFacts, check.subject)
    _of(ImageAnswer, answer)
    for key in IMAGE_KEYS:
        if key.form in NAMED:
            continue
        wanted, has = getattr(facts, key.name), getattr(config, key.name) or key.default
        if key.form in UNORDERED:
            wanted, has = _sorted(wanted), _sorted(has or ())
        elif key.stored is not ConfigForm.STRING:
            has = has or ()
        if wanted is not None and wanted != has:
            return f"{key.name} is {_written(has)}, not {_written(wanted)}"
    for key in IMAGE_KEYS:
        value = getattr(config, key.name)
        match key.form:
            case KeyForm.VARIABLES:
                named = {name: text for name, _, text in (line.partition("=") for line in value)}
            case KeyForm.LABELS:
                named = dict(value)
            case _:
                continue
        if wrong := _among(key.one, getattr(facts, key.name), named.get):
            return wrong
    return ""


def _among(what: str, wanted: Iterable[tuple[str, Rules]], get: Callable[[str], str | None]) -> str:
    for name, rules in wanted:
        value = get(name)
        wrong = (
            f"there is no {what} '{name}'" if value is None else differs(rules, value, f"{what} '{name}'", tell=True)
        )
        if wrong:
            return wrong
    return ""


# --- how it ends -----------------------------------------------------------------------------------------


def _stop(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    seen = _of(StopAnswer, answer)
    wanted = check.signal or config.stop_signal or DEFAULT_SIGNAL
    if seen.signal != wanted:
        return f"it was stopped with {seen.signal}, not with {wanted}"
    if seen.exit_code is None:
        return f"it still runs {check.within} ms after {seen.signal}; {seen.words}"
    if check.expect.exit_code is not None and seen.exit_code != check.expect.exit_code:
        return f"exit code {seen.exit_code} after {seen.signal}, not {check.expect.exit_code}; {seen.words}"
    return ""


def _restart(check: Check, answer: Answer, config: ImageConfig, ready: Check | None) -> str:
    seen = _of(RestartAnswer, answer)
    if seen.how is not check.subject:
        return f"it was restarted in another way: {seen.how}"
    if seen.exit_code is None:
        return "it did not end"
    if seen.how is Restart.AFTER_KILL and seen.exit_code != KILLED:
        return f"it was not killed but ended with exit code {seen.exit_code}"
    if ready is None:
        return ""
    if seen.ready is None:
        return "whether it was ready again was not recorded"
    wrong = judge(ready, seen.ready, config)
    return f"not ready when started again: {wrong}" if wrong else ""


def _sorted(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(sorted(values))


def _written(value: object) -> str:
    return " ".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value) or "empty"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _judge_of(kind: CheckKind) -> Callable[[Check, Answer, ImageConfig, Check | None], str]:
    match kind:
        case CheckKind.COMMAND:
            return _command
        case CheckKind.PORT | CheckKind.SOCKET:
            return _talk
        case CheckKind.HTTP:
            return _http
        case CheckKind.LOG:
            return _log
        case CheckKind.FILE:
            return _file
        case CheckKind.PROCESS:
            return _processes
        case CheckKind.LISTENING:
            return _listening
        case CheckKind.ACCOUNT:
            return _account
        case CheckKind.PACKAGES:
            return _packages
        case CheckKind.IMAGE:
            return _image
        case CheckKind.LICENSES:
            return _licenses
        case CheckKind.RESTART:
            return _restart
        case CheckKind.STOP:
            return _stop
        case other:
            assert_never(other)
