"""Checks of every kind, and answers to them that are right, wrong, or anything.

Those of a kind that is not named here are made from its declared types.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from pipeline.model.checks import CheckAnswer, CheckKind, declaration
from pipeline.model.checks.account_check import AccountAnswer, AccountFacts
from pipeline.model.checks.command_check import CommandAnswer
from pipeline.model.checks.file_check import FileAnswer, FileFacts, FileSort
from pipeline.model.checks.http_check import HttpAnswer, HttpRequest
from pipeline.model.checks.image_check import ImageAnswer, ImageFacts
from pipeline.model.checks.licenses_check import LicenseFacts, LicensesAnswer
from pipeline.model.checks.listening_check import ListeningAnswer, ListeningFacts, SeenSocket
from pipeline.model.checks.log_check import LogAnswer
from pipeline.model.checks.packages_check import PackageFacts, PackagesAnswer
from pipeline.model.checks.port_check import TalkAnswer
from pipeline.model.checks.process_check import ProcessAnswer, ProcessFacts, SeenProcess
from pipeline.model.checks.restart_check import Restart, RestartAnswer
from pipeline.model.checks.stop_check import StopAnswer
from pipeline.model.smoke import Check, Expectation
from pipeline.model.value_comparison import TEXT_LIMIT, RecordedText
from pipeline.model.value_rules import Rule, Rules

WORDS = st.sampled_from(["ok", "ERROR", "7", '{"a": [1, "ok"], "b": 7}', "\x1b[31m", "\x00", "é", "\ufffd", " ok\n"])
SHORT = st.lists(WORDS, max_size=6).map("\n".join)
LONG = st.tuples(SHORT, st.sampled_from(["x", "x\n", " "]), SHORT).map(
    lambda parts: (parts[1] * TEXT_LIMIT).join(parts[::2])
)
SAID = (SHORT | LONG).map(RecordedText.of)
RULE = st.sampled_from(
    [
        Rule(equals="ok"),
        Rule(matches="^ok$"),
        Rule(matches="ok"),
        Rule(lacks="ERROR"),
        Rule(matches="ok", lacks="ERROR"),
        Rule(least=7, most=7.5),
        Rule(at="$.a[1]", equals="ok"),
        Rule(at="$.b", most=7),
        Rule(at="$.c", equals="1"),
    ]
)
RULES: st.SearchStrategy[Rules] = st.lists(RULE, max_size=2).map(tuple)
NAME = st.sampled_from(["app", "root", "lib", "x"])
PORTS = st.sampled_from(["80/tcp", "53/udp", "22/tcp"])
NEVRAS = st.sampled_from(["app-1:1.0-1.x86_64", "lib-x-2-1.noarch", "gcc-12-1.x86_64", "gpg-pubkey-a-b."])


def _check(kind: CheckKind, **more: object) -> Check:
    return Check(str(kind), kind, 1000, **more)  # type: ignore[arg-type]


def _expecting(kind: CheckKind, **more: object) -> st.SearchStrategy[Check]:
    expect = st.builds(
        Expectation,
        st.none() | st.integers(0, 2),
        RULES,
        RULES,
        st.just((Rule(least=200, most=299),)),
        st.just(()) | st.tuples(st.tuples(st.just("A"), RULES)),
        RULES,
    )
    return expect.map(lambda expect: replace(_check(kind, **more), expect=expect))


def _about(kind: CheckKind, *subjects: object) -> st.SearchStrategy[Check]:
    return st.sampled_from([_check(kind, subject=subject) for subject in subjects])


CHECKS: dict[CheckKind, st.SearchStrategy[Check]] = {
    CheckKind.COMMAND: _expecting(CheckKind.COMMAND, command=("true",)),
    CheckKind.PORT: _expecting(CheckKind.PORT, port=80),
    CheckKind.SOCKET: _expecting(CheckKind.SOCKET, socket="/run/x"),
    CheckKind.HTTP: _expecting(CheckKind.HTTP, subject=HttpRequest(80)),
    CheckKind.LOG: RULES.map(lambda rules: _check(CheckKind.LOG, log=rules)),
    CheckKind.FILE: st.builds(
        FileFacts,
        st.just("/x"),
        st.booleans(),
        st.none() | st.sampled_from(FileSort),
        st.none() | st.just(0o640),
        st.none() | NAME,
        st.none() | st.sampled_from(["0", "app"]),
        st.just(()) | st.just((Rule(most=5),)),
        st.sampled_from(["", "0" * 64]),
        RULES,
        RULES,
    ).map(lambda facts: _check(CheckKind.FILE, subject=facts)),
    CheckKind.PROCESS: _about(
        CheckKind.PROCESS,
        ProcessFacts("app"),
        ProcessFacts(command="ok$", user="app", count=(Rule(equals="1"),)),
        ProcessFacts("x", count=(Rule(equals="0"),)),
    ),
    CheckKind.LISTENING: _about(CheckKind.LISTENING, ListeningFacts(), ListeningFacts(("53/udp",), ("22/tcp",))),
    CheckKind.ACCOUNT: _about(
        CheckKind.ACCOUNT,
        AccountFacts(user="app", uid=27, shell="/bin/sh", groups=("lib",)),
        AccountFacts(group="app", gid=27),
        AccountFacts(user="app", absent=True),
    ),
    CheckKind.PACKAGES: _about(
        CheckKind.PACKAGES, PackageFacts(("app", "lib-*")), PackageFacts(absent=("gcc", "*-devel")), PackageFacts()
    ),
    CheckKind.IMAGE: _about(CheckKind.IMAGE, ImageFacts(user="app"), ImageFacts(user="root"), ImageFacts()),
    CheckKind.LICENSES: _about(CheckKind.LICENSES, LicenseFacts(), LicenseFacts(("app",)), LicenseFacts((), ("x",))),
    CheckKind.RESTART: _about(CheckKind.RESTART, Restart.SAME_DATA, Restart.AFTER_KILL),
    CheckKind.STOP: st.sampled_from([_check(CheckKind.STOP), _check(CheckKind.STOP, signal="SIGINT")]),
}

_TALK = st.builds(TalkAnswer, SAID)
ANSWERS: dict[CheckKind, st.SearchStrategy[CheckAnswer]] = {
    CheckKind.COMMAND: st.builds(CommandAnswer, st.none() | st.integers(0, 2), SAID, SAID),
    CheckKind.PORT: _TALK,
    CheckKind.SOCKET: _TALK,
    CheckKind.HTTP: st.builds(
        HttpAnswer,
        st.sampled_from([200, 404]),
        st.just(()) | st.tuples(st.tuples(st.just("A"), st.none() | SHORT.map(RecordedText.of))),
        SAID,
    ),
    CheckKind.LOG: st.builds(LogAnswer, SAID),
    CheckKind.FILE: st.just(FileAnswer(there=False))
    | st.builds(
        FileAnswer,
        st.just(True),
        st.none() | st.sampled_from(FileSort),
        st.sampled_from([0o640, 0o4755]),
        st.integers(0, 30),
        st.integers(0, 1),
        st.lists(NAME, max_size=2).map(tuple),
        st.lists(NAME, max_size=2).map(tuple),
        st.integers(0, 9),
        st.none() | SHORT.map(RecordedText.of),
        st.sampled_from(["", "0" * 64]),
        st.none() | SAID,
    ),
    CheckKind.PROCESS: st.builds(
        ProcessAnswer,
        st.none() | st.just(27),
        st.lists(st.builds(SeenProcess, NAME, NAME, SAID, st.sampled_from([0, 27])), max_size=2).map(tuple),
    ),
    CheckKind.LISTENING: st.builds(
        ListeningAnswer, st.lists(st.builds(SeenSocket, PORTS, st.booleans()), max_size=3).map(tuple)
    ),
    CheckKind.ACCOUNT: st.builds(
        AccountAnswer,
        st.sampled_from(
            [None, ("app", "x", "27", "28", "", "/", "/bin/sh"), ("app", "x", "27", ""), ("root", "x", "0")]
        ),
        st.lists(NAME, max_size=2).map(tuple),
    ),
    CheckKind.PACKAGES: st.builds(PackagesAnswer, st.booleans(), st.lists(NEVRAS, max_size=4).map(tuple)),
    CheckKind.IMAGE: st.just(ImageAnswer()),
    CheckKind.LICENSES: st.builds(
        LicensesAnswer,
        st.booleans(),
        st.lists(st.tuples(NAME, st.sampled_from(["", "/usr/share/licenses/app/COPYING"])), max_size=3).map(tuple),
    ),
    CheckKind.RESTART: st.builds(
        RestartAnswer, st.sampled_from(Restart), st.sampled_from([None, 0, 137]), st.none() | _TALK
    ),
    CheckKind.STOP: st.builds(StopAnswer, st.sampled_from(["SIGTERM", "SIGINT"]), st.none() | st.integers(0, 1), SHORT),
}


def _any(declared: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type, from few words, so that answers may be right."""
    known = {str: NAME, int: st.integers(0, 3), RecordedText: SAID, Rules: RULES}
    if declared in known:
        return known[declared]
    if get_origin(declared) is tuple:
        return st.lists(_any(get_args(declared)[0]), max_size=3).map(tuple)
    return st.from_type(declared)


def _built(made: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(made)
    return st.builds(made, **{field.name: _any(hints[field.name]) for field in fields(made)})


def _asking(kind: CheckKind) -> st.SearchStrategy[Check]:
    subject = declaration(kind).subject
    assert subject is not None, f"no checks of kind '{kind}' can be made; name some in CHECKS"
    return _built(subject).map(lambda subject: _check(kind, subject=subject))


for _kind in CheckKind:
    CHECKS.setdefault(_kind, st.deferred(lambda kind=_kind: _asking(kind)))  # type: ignore[misc]
    ANSWERS.setdefault(_kind, st.deferred(lambda kind=_kind: _built(declaration(kind).answer)))  # type: ignore[misc]
