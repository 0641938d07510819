"""Parse scriptlets for the accounts that their `useradd` and `groupadd` calls request.

File owners need numbers before a layer is made, and so before any scriptlet runs. The requests are read from the
scriptlet's text: commands are split as a shell splits them, options are parsed as getopt_long of shadow-utils does
(useradd(8), groupadd(8)), and variables have the values that the script assigns. A number that only the run determines,
such as one from a command substitution, is marked `unread`. The script runs later and makes the account;
`state_accounts.check_accounts` then compares its number with the expected one.
"""

from __future__ import annotations

import getopt
import posixpath
import re
import shlex
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.header import PackageHeader, Scriptlet, ScriptletPhase

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "busybox"})

_USERADD = frozenset({"useradd", "adduser"})
"""On Enterprise Linux and Fedora `adduser` is a link to `useradd`."""

_GROUPADD = frozenset({"groupadd", "addgroup"})

_USERADD_SHORT = "b:c:d:De:f:Fg:G:hk:K:lmMnNop:rR:P:s:u:UZ:"
_USERADD_LONG = [
    *("base-dir=", "comment=", "home-dir=", "defaults", "expiredate=", "inactive=", "gid=", "groups=", "skel=", "key="),
    *("no-log-init", "create-home", "no-create-home", "no-user-group", "non-unique", "password=", "system", "root="),
    *("prefix=", "shell=", "uid=", "user-group", "selinux-user=", "badname", "badnames", "btrfs-subvolume-home"),
    *("add-subids-for-system", "help"),
]
_GROUPADD_SHORT = "fg:hK:op:rR:P:U:"
_GROUPADD_LONG = [
    *("force", "gid=", "key=", "non-unique", "password=", "system", "root=", "prefix=", "users=", "help"),
]

_SCRIPT_LIMIT = 64 << 10
"""Maximum characters of a scriptlet that is parsed; no accounts are read from a longer one.

The longest of 71 real ones has 4,103.
"""

_LEXED_TIMES = 4
"""Times its length that a scriptlet may be lexed; what follows is not read.

Once is enough where all quotes are closed. A line that opens one which no line closes (an apostrophe in a
here-document) costs the lines that were searched.
"""

_TEXT_LIMIT = 4096
"""Maximum characters of a word or value with its variables expanded, as a path has (PATH_MAX); longer is unknown.

Without, `a=$a$a` repeated doubles a value each time.
"""

_QUOTED_LINES_LIMIT = 50
"""Maximum lines that a quoted word may span."""

_SUBSTITUTION = re.compile(r"\$\([^()\n]*\)|`[^`\n]*`")
_UNKNOWN = "$?"
"""Placeholder for text that only the run determines."""

_REDIRECTION = re.compile(r"""(?<![\w"'])\d*(?:&>>?|>>|>&|>|<)[ \t]*&?[^\s;|&()]+""")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_SEPARATORS = frozenset("();<>|&")
_NUMBER = re.compile(r"[0-9]{1,10}")
_NUMBER_MAX = (1 << 32) - 2
"""Highest account number: uid_t has 32 bits, and its highest value means none."""


@dataclass(frozen=True, slots=True)
class AccountRequest:
    """An account that a scriptlet of a package requests.

    `kind` is `user` or `group`. `number` is None if the call states none, or one that only the run determines
    (`unread`). `group` is the user's primary group, by name or number; `groups` are the supplementary ones. `shared`:
    the call allows a number that another account has (`-o`). Texts that the call does not state are empty.
    """

    kind: str
    name: str
    phase: ScriptletPhase
    number: int | None = None
    unread: bool = False
    group: str | int | None = None
    groups: tuple[str, ...] = ()
    home: str = ""
    shell: str = ""
    comment: str = ""
    shared: bool = False

    @property
    def numbered(self) -> bool:
        """Return whether the script requests a certain number, be it read or not."""
        return self.number is not None or self.unread


def account_requests(header: PackageHeader) -> tuple[AccountRequest, ...]:
    """Return the accounts that a package's scriptlets request, in the order in which these run."""
    order = list(ScriptletPhase)
    scriptlets = sorted(header.scriptlets, key=lambda one: order.index(one.moment))
    return tuple(request for scriptlet in scriptlets for request in _of_scriptlet(scriptlet))


def _of_scriptlet(scriptlet: Scriptlet) -> Iterator[AccountRequest]:
    if posixpath.basename(scriptlet.interpreter[0]) not in _SHELLS or len(scriptlet.body) > _SCRIPT_LIMIT:
        return
    if "add" not in scriptlet.body:
        return
    variables: dict[str, str] = {}
    for command in _commands(scriptlet.body):
        words = deque(command)
        while words and (assigned := _ASSIGNMENT.fullmatch(words[0])):
            variables[assigned[1]] = _expanded(assigned[2], variables)
            words.popleft()
        program = posixpath.basename(words.popleft()) if words else ""
        arguments = [_expanded(word, variables) for word in words]
        request = None
        if program in _USERADD:
            request = _user(arguments, scriptlet.moment)
        elif program in _GROUPADD:
            request = _group(arguments, scriptlet.moment)
        if request is not None:
            yield request


# --- the calls -----------------------------------------------------------------------------------


def _user(arguments: list[str], phase: ScriptletPhase) -> AccountRequest | None:
    parsed = _parsed(arguments, _USERADD_SHORT, _USERADD_LONG)
    if parsed is None:
        return None
    options, name = parsed
    number, unread = _number(options, "-u", "--uid")
    base = _text(options, "-b", "--base-dir")
    group = _text(options, "-g", "--gid")
    listed = options.get("-G", options.get("--groups", "")).split(",")
    return AccountRequest(
        "user",
        name,
        phase,
        number,
        unread,
        int(group) if _NUMBER.fullmatch(group) else (group or None),
        tuple(one for one in listed if _NAME.fullmatch(one)),
        _text(options, "-d", "--home-dir") or (posixpath.join(base, name) if base else ""),
        _text(options, "-s", "--shell"),
        _text(options, "-c", "--comment"),
        "-o" in options or "--non-unique" in options,
    )


def _group(arguments: list[str], phase: ScriptletPhase) -> AccountRequest | None:
    parsed = _parsed(arguments, _GROUPADD_SHORT, _GROUPADD_LONG)
    if parsed is None:
        return None
    options, name = parsed
    number, unread = _number(options, "-g", "--gid")
    return AccountRequest("group", name, phase, number, unread, shared="-o" in options or "--non-unique" in options)


def _parsed(arguments: list[str], short: str, long: list[str]) -> tuple[Mapping[str, str], str] | None:
    """Return the options of a call and the name that it adds, None if it cannot be parsed."""
    try:
        options, rest = getopt.gnu_getopt(arguments, short, long)
    except getopt.GetoptError:
        return None
    given = dict(options)
    elsewhere = {"-R", "--root", "-P", "--prefix", "-D", "--defaults", "-h", "--help"}
    if len(rest) != 1 or not _NAME.fullmatch(rest[0]) or elsewhere & given.keys():
        return None
    return given, rest[0]


def _number(options: Mapping[str, str], short: str, long: str) -> tuple[int | None, bool]:
    """Return the number that a call requests, and whether it requests one that cannot be read."""
    stated = options.get(short, options.get(long))
    if stated is None:
        return None, False
    if _NUMBER.fullmatch(stated) and int(stated) <= _NUMBER_MAX:
        return int(stated), False
    return None, True


def _text(options: Mapping[str, str], short: str, long: str) -> str:
    """Return an option's text.

    It is empty if the option is absent, if only the run determines it, or if it is invalid in /etc/passwd.
    """
    stated = options.get(short, options.get(long, ""))
    return "" if "$" in stated or ":" in stated or "\n" in stated else stated


# --- the shell -----------------------------------------------------------------------------------


def _commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell script.

    Reserved words (`if`, `then`, `!`) before a command are left out.
    """
    text = _SUBSTITUTION.sub(_UNKNOWN, script.replace("\\\n", " "))
    lines = _REDIRECTION.sub(" ", text).split("\n")
    index, lexed = 0, 0
    while index < len(lines) and lexed <= _LEXED_TIMES * len(script):
        words = _WordLexer(lines[index : index + _QUOTED_LINES_LIMIT])
        tokens = words.tokens()
        index += words.lines if tokens is not None else 1
        lexed += words.characters
        command: list[str] = []
        for token in [*(tokens or ()), ";"]:
            if token and set(token) <= _SEPARATORS:
                yield from ([command] if command else ())
                command = []
            elif command or token not in _RESERVED:
                command.append(token)


_RESERVED = frozenset(
    [
        *("if", "then", "else", "elif", "fi", "while", "until", "do", "done", "!", "{", "}", "time"),
        *("exec", "command", "export", "local", "readonly"),
    ]
)


class _WordLexer:
    """Lexer of the words of a line, and of the lines that its quoted words span.

    It is also the file that `shlex` reads, which ends with the first line that ends outside of quotes.
    """

    def __init__(self, following: Sequence[str]) -> None:
        self._following = following
        self._lexer = shlex.shlex(self, posix=True, punctuation_chars="();<>|&")  # type: ignore[arg-type]
        self._lexer.whitespace_split = True
        self._at = 0
        self.lines, self.characters = 1, 0

    def tokens(self) -> list[str] | None:
        """Return the words, None if a quote is not closed."""
        try:
            return list(self._lexer)
        except ValueError:
            return None

    def read(self, _size: int) -> str:
        """Return the next character, for `shlex`."""
        line = self._following[self.lines - 1]
        self.characters += 1
        if self._at < len(line):
            self._at += 1
            return line[self._at - 1]
        state = self._lexer.state  # type: ignore[attr-defined] # typeshed lacks it
        if not state or state not in self._lexer.quotes + self._lexer.escape or self.lines == len(self._following):
            return ""
        self.lines, self._at = self.lines + 1, 0
        return "\n"

    def readline(self) -> str:
        """Pass over a comment, for `shlex`."""
        self._at = len(self._following[self.lines - 1])
        return ""


def _expanded(word: str, variables: Mapping[str, str]) -> str:
    """Return a word with its known variables expanded; unknown ones keep their `$`."""
    length = len(word) + sum(len(variables.get(found[1] or found[2], "")) for found in _VARIABLE.finditer(word))
    if length > _TEXT_LIMIT:
        return _UNKNOWN
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], found[0]), word)
