"""Kinds of checks, one module each, and what an image answered, judged.

An answer says what was seen, never whether it is right; it is recorded, and enough to judge it again. Texts are
`RecordedText`,
exact to the control character; numbers of users and groups are the image's own. Every kind of check has its kind of
answer; `NoAnswer` stands for all. Pure: those who ask and those who judge a report again use the same.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from pipeline.model.check_kind import CheckDeclaration, MismatchedAnswer
from pipeline.model.checks import (
    account_check,
    command_check,
    file_check,
    http_check,
    image_check,
    licenses_check,
    listening_check,
    log_check,
    packages_check,
    process_check,
    stop_check,
    talk_check,
)
from pipeline.model.checks.account_check import AccountAnswer, AccountFacts
from pipeline.model.checks.command_check import CommandAnswer
from pipeline.model.checks.file_check import FileAnswer, FileFacts
from pipeline.model.checks.http_check import HttpAnswer, HttpRequest
from pipeline.model.checks.image_check import ImageAnswer, ImageFacts
from pipeline.model.checks.licenses_check import LicenseFacts, LicensesAnswer
from pipeline.model.checks.listening_check import ListeningAnswer, ListeningFacts
from pipeline.model.checks.log_check import LogAnswer
from pipeline.model.checks.packages_check import PackageFacts, PackagesAnswer
from pipeline.model.checks.process_check import ProcessAnswer, ProcessFacts
from pipeline.model.checks.stop_check import StopAnswer
from pipeline.model.checks.talk_check import TalkAnswer

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check

KILLED_EXIT_CODE = 137
"""Exit status of one that SIGKILL ended."""


_SCRATCH = ("/dev", "/proc", "/run", "/tmp")  # noqa: S108 - in the container
"""Paths at which every instance may write."""


class CheckKind(StrEnum):
    """Kinds of checks."""

    COMMAND = "command"
    PORT = "port"
    SOCKET = "socket"
    HTTP = "http"
    LOG = "log"
    FILE = "file"
    PROCESS = "process"
    LISTENING = "listening"
    ACCOUNT = "account"
    PACKAGES = "packages"
    IMAGE = "image"
    LICENSES = "licenses"
    RESTART = "restart"
    STOP = "stop"


class Restart(StrEnum):
    """Ways to end an instance before it is started again on the same volumes."""

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


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There was none, or none that means anything; `reason` says why. It is never right."""

    reason: str


@dataclass(frozen=True, slots=True)
class MountsAnswer:
    """The mount points at which the instance could write."""

    writable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestartAnswer:
    """The end and the new start of an instance.

    `how` it was ended, its exit code then, and what it answered to the question whether it is ready, after it was
    started again (None: nothing asks that).
    """

    how: Restart
    exit_code: int | None
    ready: CheckAnswer | None


CheckAnswer = (
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


def _restarted(check: Check, seen: RestartAnswer, config: ImageConfig, ready: Check | None) -> str:
    if seen.how is not check.subject:
        return f"it was restarted in another way: {seen.how}"
    if seen.exit_code is None:
        return "it did not end"
    if seen.how is Restart.AFTER_KILL and seen.exit_code != KILLED_EXIT_CODE:
        return f"it was not killed but ended with exit code {seen.exit_code}"
    if ready is None:
        return ""
    if seen.ready is None:
        return "whether it was ready again was not recorded"
    wrong = judge(ready, seen.ready, config)
    return f"not ready when started again: {wrong}" if wrong else ""


RESTART = CheckDeclaration(RestartAnswer, _restarted, subject=Restart)
"""Here because it asks another check, whether it is ready again, and its answer holds that one's."""


def declaration(kind: CheckKind) -> CheckDeclaration[Any]:
    """The declaration of a kind."""
    match kind:
        case CheckKind.COMMAND:
            return command_check.DECLARATION
        case CheckKind.PORT:
            return talk_check.PORT
        case CheckKind.SOCKET:
            return talk_check.SOCKET
        case CheckKind.HTTP:
            return http_check.DECLARATION
        case CheckKind.LOG:
            return log_check.DECLARATION
        case CheckKind.FILE:
            return file_check.DECLARATION
        case CheckKind.PROCESS:
            return process_check.DECLARATION
        case CheckKind.LISTENING:
            return listening_check.DECLARATION
        case CheckKind.ACCOUNT:
            return account_check.DECLARATION
        case CheckKind.PACKAGES:
            return packages_check.DECLARATION
        case CheckKind.IMAGE:
            return image_check.DECLARATION
        case CheckKind.LICENSES:
            return licenses_check.DECLARATION
        case CheckKind.RESTART:
            return RESTART
        case CheckKind.STOP:
            return stop_check.DECLARATION
        case other:
            assert_never(other)


def judge(check: Check, answer: CheckAnswer, config: ImageConfig, ready: Check | None = None) -> str:
    """Return what is wrong with an answer, for people; empty if it is right.

    `config` is of the image that was asked; `ready` is what shows that it is back after a RESTART.
    """
    if isinstance(answer, NoAnswer):
        return answer.reason or "there was no answer"
    kind = declaration(check.kind)
    try:
        if not isinstance(answer, kind.answer):
            raise MismatchedAnswer
        return kind.judge(check, answer, config, ready)
    except MismatchedAnswer:
        return f"what was recorded is no answer to a question of kind '{check.kind}'"


def judge_mounts(answer: CheckAnswer, config: ImageConfig) -> str:
    """Can nothing be written but the volumes and the scratch file systems?"""
    if isinstance(answer, NoAnswer):
        return answer.reason or "there was no answer"
    if not isinstance(answer, MountsAnswer):
        return "what was recorded is no list of mounts"
    allowed = (*_SCRATCH, *config.volumes)
    wrong = [
        where
        for where in answer.writable
        if not any(f"{where}/".startswith(f"{place.rstrip('/')}/") for place in allowed)
    ]
    return f"can be written: {', '.join(wrong)}" if wrong else ""


def record_answer(check: Check, answer: CheckAnswer) -> CheckAnswer:
    """The answer as it is recorded: long texts as excerpts that `judge` decides the same by."""
    kind = declaration(check.kind)
    excerpts: CheckAnswer = answer
    if isinstance(answer, kind.answer):
        with contextlib.suppress(MismatchedAnswer):
            excerpts = kind.record(check, answer)
    return excerpts


def place_of(check: Check) -> str:
    """Return the address of a check of a port, of a socket or by HTTP, for people."""
    return declaration(check.kind).place(check)
