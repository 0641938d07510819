"""What scriptlets of packages ask `useradd` and `groupadd` for, read from their text.

The scripts are those of real packages (httpd of Rocky 8 and of CentOS 7, tipidee of skarnet, postgresql) and forms that
shells allow besides.
"""

from __future__ import annotations

import pytest

from pipeline.digest import Digest
from pipeline.layers import script_accounts
from pipeline.layers.script_accounts import AccountRequest, account_requests
from pipeline.model.header import PackageHeader, Scriptlet, ScriptletPhase
from pipeline.model.package import Nevra

PRE = ScriptletPhase.PRE


def requests(body: str, interpreter: str = "/bin/sh", phase: ScriptletPhase = PRE) -> tuple[AccountRequest, ...]:
    scriptlet = Scriptlet(phase, (interpreter,), body)
    header = PackageHeader(Nevra("a", 0, "1", "1", "noarch"), Digest.of(b"a"), (), (scriptlet,), (), (), (), 0)
    return account_requests(header)


def user(body: str) -> AccountRequest:
    (found,) = [one for one in requests(body) if one.kind == "user"]
    return found


ROCKY = """getent group apache >/dev/null || groupadd -g 48 -r apache
getent passwd apache >/dev/null || \\
  useradd -r -u 48 -g apache -s /sbin/nologin \\
    -d /usr/share/httpd -c "Apache" apache
exit 0"""

CENTOS = """# Add the "apache" group and user
/usr/sbin/groupadd -g 48 -r apache 2> /dev/null || :
/usr/sbin/useradd -c "Apache" -u 48 -g apache \\
\t-s /sbin/nologin -r -d /usr/share/httpd apache 2> /dev/null || :"""


@pytest.mark.parametrize("script", [ROCKY, CENTOS])
def test_apache_of_real_packages_is_48_with_home_shell_and_comment(script: str) -> None:
    assert requests(script) == (
        AccountRequest("group", "apache", PRE, 48),
        AccountRequest(
            "user", "apache", PRE, 48, group="apache", home="/usr/share/httpd", shell="/sbin/nologin", comment="Apache"
        ),
    )


def test_a_call_without_a_number_asks_for_home_shell_and_comment_alone() -> None:
    body = """
# generated from tipidee.sysusers
getent group 'www' >/dev/null || groupadd -r 'www' || :
getent passwd 'www' >/dev/null || \\
    useradd -r -g 'www' -d '/home/www' -s '/sbin/nologin' -c 'user for tipidee' 'www' || :
"""
    www = user(body)
    assert (www.number, www.unread, www.numbered) == (None, False, False)
    assert (www.group, www.home, www.shell, www.comment) == ("www", "/home/www", "/sbin/nologin", "user for tipidee")


@pytest.mark.parametrize(
    "call",
    [
        "useradd -u48 x",
        "useradd -ru 48 x",
        "useradd --uid=48 x",
        "useradd --uid 48 --system x",
        "useradd x -u 48",
        "adduser -r -u 48 x",
        "if ! id x >/dev/null 2>&1; then useradd -u 48 x; fi",
        "getent passwd x &>/dev/null || { /usr/sbin/useradd -u 48 x >& /dev/null; }",
        "[ $1 -gt 1 ] && exit 0\nLANG=C useradd -u '48' x # the web's user",
        'NAME=x\nexport ID=48\nuseradd -u ${ID} "$NAME"',
        "(useradd -u 48 x) 2>/dev/null",
        "case $1 in 1) useradd -u 48 x;; esac",
        "# don't\nuseradd -u 48 x",
        'echo "two\nlines"\nuseradd -u 48 x',
    ],
)
def test_every_form_of_a_call_is_read(call: str) -> None:
    found = user(call)
    assert (found.name, found.number, found.unread) == ("x", 48, False)


@pytest.mark.parametrize(
    "call",
    [
        "useradd -u $(cat /etc/id) x",
        "useradd -u `cat /etc/id` x",
        "useradd -u $ID x",
        "useradd -u ${ID:-48} x",
        "useradd -u 99999999999 x",
        "useradd -u 4294967295 x",
    ],
)
def test_a_number_that_only_a_run_can_tell_is_asked_for_and_not_read(call: str) -> None:
    found = user(call)
    assert (found.name, found.number, found.unread, found.numbered) == ("x", None, True, True)


@pytest.mark.parametrize(
    "text",
    [
        "useradd -u 48 $NAME",
        "useradd -u 48",
        "useradd -D -s /bin/sh",
        "useradd -R /other -u 48 x",
        "useradd --prefix /other -u 48 x",
        "useradd --no-such-option x",
        "useradd -u 48 x y",
        "echo useradd -u 48 x",
        "# useradd -u 48 x",
        "userdel -r x",
        "useradd 'unclosed",
        "",
    ],
)
def test_what_adds_no_account_that_can_be_read_is_no_request(text: str) -> None:
    assert requests(text) == ()


def test_other_languages_than_the_shell_are_not_read() -> None:
    assert requests("useradd -u 48 x", "<lua>") == ()
    assert requests("useradd -u 48 x", "/usr/bin/python3") == ()
    assert requests("useradd -u 48 x", "/usr/bin/bash")[0].number == 48


def test_texts_that_cannot_stand_in_passwd_are_left_out() -> None:
    found = user("useradd -u 48 -c 'a:b' -d $HOME/x -s '/bin/a\nb' x")
    assert (found.comment, found.home, found.shell) == ("", "", "")


def test_supplementary_groups_a_base_folder_and_shared_numbers() -> None:
    found = user("useradd -M -o -b /srv -G video,tty,$X -g 26 -u 26 postgres")
    assert (found.groups, found.home, found.group, found.shared) == (("video", "tty"), "/srv/postgres", 26, True)


def test_scriptlets_are_read_in_the_order_in_which_they_run() -> None:
    header = PackageHeader(
        Nevra("a", 0, "1", "1", "noarch"),
        Digest.of(b"a"),
        (),
        tuple(
            Scriptlet(phase, ("/bin/sh",), f"groupadd -g {number} {phase}")
            for number, phase in ((3, ScriptletPhase.POST), (2, PRE), (1, ScriptletPhase.PRETRANS))
        ),
        (),
        (),
        (),
        0,
    )
    assert [one.number for one in account_requests(header)] == [1, 2, 3]


def test_text_that_grows_beyond_a_path_is_unknown() -> None:
    """`a=$a$a` doubles a value: twenty-four lines came to 160 MB."""
    doubled = "a=xxxxxxxxxx\n" + "a=$a$a\n" * 8
    assert user(f"{doubled}useradd -c $a x").comment == "x" * 2560
    assert user(f"{doubled}useradd -c $a$a x").comment == ""
    assert user(f"{doubled}{'a=$a$a' * 16}\nuseradd -u $a x").unread
    assert user("a=xxxxxxxxxx\n" + "a=$a$a\n" * 14 + "useradd -c $a -u 48 x") == AccountRequest("user", "x", PRE, 48)


@pytest.mark.parametrize("line", ["\\''" + "a" * 300, "'", "don't '\""])
def test_lines_whose_quotes_never_close_are_lexed_a_few_times(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each was lexed fifty times for fifty lines: 20 kB took seconds."""
    body = f"useradd -u 48 x\n{'# nothing' * 5}\n" + f"{line}\n" * 151
    lexed = 0
    read_one = script_accounts._WordLexer.read

    def read(words: script_accounts._WordLexer, size: int) -> str:
        nonlocal lexed
        lexed += 1
        return read_one(words, size)

    monkeypatch.setattr(script_accounts._WordLexer, "read", read)
    assert requests(body)[0].number == 48
    assert len(body) < lexed <= 5 * len(body)


def test_an_apostrophe_that_nothing_closes_hides_no_account() -> None:
    heredoc = "cat <<END\nIt isn't closed\nEND\n" + "echo done\n" * 60
    assert user(f"{heredoc}useradd -u 48 x").number == 48


def test_a_script_longer_than_any_real_one_is_not_read() -> None:
    assert requests("useradd -u 48 x\n" + "#" * (64 << 10)) == ()
    assert requests("useradd -u 48 x\n" + "#" * (63 << 10))[0].number == 48
