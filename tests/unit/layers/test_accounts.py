"""Where the numbers of an image's accounts come from."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.errors import BuildError
from pipeline.layers.account_numbers import number_accounts
from pipeline.layers.passwd_files import changed_numbers, complete_group, complete_passwd, complete_shadow
from pipeline.layers.placed_files import _number
from pipeline.layers.state_accounts import check_accounts, other_numbers, scripted_accounts, still_expected
from pipeline.layers.transaction import ScriptStep
from pipeline.model.accounts import AccountTable, NumberedAccounts, ScriptAccount
from pipeline.model.header import Dependency, FileRecord, PackageHeader, Scriptlet, ScriptletPhase, TriggerKind
from pipeline.model.package import Nevra
from pipeline.model.recipe import Group, User
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.sandbox.rootfs import RootFs


def package(
    name: str, *, owners: Sequence[str] = (), provides: Sequence[tuple[str, str]] = (), pre: str = ""
) -> PackageHeader:
    return PackageHeader(
        nevra=Nevra(name, 0, "1", "1", "noarch"),
        checksum=Digest.of(name.encode()),
        files=(
            *(FileRecord(f"/{name}/{o}", 0o100644, o, o, 0, 0, None) for o in owners),
            FileRecord("/etc/passwd", 0o100644, "root", "root", 1, 0, Digest.of(b"")),
            FileRecord("/etc/group", 0o100644, "root", "root", 1, 0, Digest.of(b"")),
            FileRecord("/usr/lib/sysusers.d/x.conf", 0o100644, "root", "root", 1, 0, Digest.of(b"")),
        ),
        scriptlets=(Scriptlet(ScriptletPhase.PRE, ("/bin/sh",), pre),) if pre else (),
        triggers=(),
        provides=tuple(Dependency(provide, 8, evr) for provide, evr in provides),
        requires=(),
        build_time=0,
    )


def number(
    *headers: PackageHeader,
    users: Sequence[User] = (),
    groups: Sequence[Group] = (),
    files: Mapping[str, str] | None = None,
    kept: Sequence[tuple[str, str, int]] = (),
) -> tuple[AccountTable, tuple[tuple[str, str, int], ...]]:
    made = numbered(*headers, users=users, groups=groups, files=files, kept=kept)
    return made.table, made.allocated


def numbered(
    *headers: PackageHeader,
    users: Sequence[User] = (),
    groups: Sequence[Group] = (),
    files: Mapping[str, str] | None = None,
    kept: Sequence[tuple[str, str, int]] = (),
) -> NumberedAccounts:
    def read(header: PackageHeader, paths: Sequence[str]) -> Mapping[str, bytes]:
        return {path: (files or {}).get(path, "").encode() for path in paths}

    return number_accounts(headers, users=users, groups=groups, read=read, kept=kept)


def test_the_recipe_wins_over_what_packages_say() -> None:
    table, allocated = number(
        package("a", owners=["mysql"]),
        users=[User("mysql", 27)],
        files={"/etc/passwd": "mysql:x:99:98:db:/db:/bin/sh\n"},
    )
    assert (table.uid("mysql"), table.gid("mysql"), allocated) == (27, 27, ())


def test_a_base64_provide_carries_a_sysusers_line() -> None:
    line = base64.b64encode(b'u redis 990:991 "Redis" /var/lib/redis /sbin/nologin\0').decode()
    table, _ = number(package("a", provides=[("user(redis)", line), ("group(redis)", "")]))
    (redis,) = [user for user in table.users if user.name == "redis"]
    assert (redis.uid, redis.gid, redis.home, redis.comment) == (990, 991, "/var/lib/redis", "Redis")


def test_sysusers_files_name_numbers_groups_and_members() -> None:
    table, _ = number(
        package("a"),
        files={"/usr/lib/sysusers.d/x.conf": "# comment\ng web 80\nu www 81:web - /srv\nm www tty\n"},
    )
    assert (table.uid("www"), table.gid("web")) == (81, 80)
    assert next(user.gid for user in table.users if user.name == "www") == 80
    assert table.members == (("tty", "www"),)


def test_an_owner_that_nothing_numbers_gets_one_that_the_lock_keeps() -> None:
    table, allocated = number(package("a", owners=["nobody-knows"]))
    assert allocated == (("group", "nobody-knows", 999), ("user", "nobody-knows", 999))
    again, kept = number(package("a", owners=["aaa", "nobody-knows"]), kept=allocated)
    assert again.uid("nobody-knows") == table.uid("nobody-knows")
    assert ("user", "aaa", 998) in kept


def test_two_names_for_one_number_are_refused_when_the_recipe_is_one_of_them() -> None:
    with pytest.raises(BuildError) as caught:
        number(package("a"), users=[User("mine", 33)], files={"/etc/passwd": "www-data:x:33:33::/:/bin/sh\n"})
    assert caught.value.code == "account-number-taken"
    assert "mine" in str(caught.value) and "www-data" in str(caught.value)


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_packages_does_not_matter(order: list[str]) -> None:
    packages = {name: package(name, owners=[name, "shared"]) for name in "abcd"}
    assert number(*(packages[name] for name in order)) == number(*packages.values())


def test_completed_files_keep_their_lines_and_gain_the_missing() -> None:
    table, _ = number(
        package("a"),
        users=[User("db", 27, home="/db")],
        groups=[Group("web", 80)],
        files={"/etc/group": "web:x:80:\n"},
    )
    assert complete_passwd("root:x:0:0:r:/r:/bin/zsh\n", table) == (
        "root:x:0:0:r:/r:/bin/zsh\ndb:x:27:27::/db:/sbin/nologin\n"
    )
    assert complete_group("web:x:80:me\n", table) == "web:x:80:me\nroot:x:0:\ndb:x:27:\n"
    assert complete_shadow("root:*:1::::::\n", ["root", "db"], fields=9) == "root:*:1::::::\ndb:!:::::::\n"


def test_a_scriptlet_that_renumbers_an_account_is_noticed() -> None:
    table, _ = number(package("a"), users=[User("db", 27)])
    assert changed_numbers(table, "db:x:28:27::/:/bin/sh\n", "db:x:27:\n") == ("user 'db' has ID 28 instead of 27",)
    assert changed_numbers(table, "db:x:27:27::/:/bin/sh\nnew:x:5:5::/:\n", "db:x:27:\n") == ()


def test_a_number_in_a_packages_own_file_is_not_laid_to_a_scriptlet(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("bin:x:1:1::/bin:/sbin/nologin\ndb:x:27:27::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text("bin:x:1:\ndb:x:27:\n")
    table = AccountTable((User("bin", 77, 77), User("db", 27, 27)), (Group("bin", 77), Group("db", 27)))
    handle = os.open(tmp_path, os.O_PATH)
    try:
        session: Any = SimpleNamespace(files=RootFs(handle, 0))
        others = other_numbers(session, table)
        assert others == ("user 'bin' has ID 1 instead of 77", "group 'bin' has ID 1 instead of 77")
        with pytest.raises(BuildError) as caught:
            check_accounts(session, table, others)
        assert caught.value.code == "account-differs" and "accounts" in (caught.value.problems[0].hint or "")
        (tmp_path / "etc/group").write_text("bin:x:1:\ndb:x:28:\n")
        with pytest.raises(BuildError) as caught:
            check_accounts(session, table, others)
        assert caught.value.code == "scriptlet-renumbers"
    finally:
        os.close(handle)


@pytest.mark.parametrize("odd", ["²", "٣", "9" * 5000, "-1", "", "1e3"])
def test_a_number_that_is_none_makes_no_account_and_no_internal_error(odd: str) -> None:
    table, _ = number(
        package("a"),
        files={
            "/etc/passwd": f"odd:x:{odd}:0::/:/bin/sh\nother:x:0:{odd}::/:/bin/sh\n",
            "/etc/group": f"odd:x:{odd}:\n",
            "/usr/lib/sysusers.d/x.conf": f"u fine {odd}\ng grouped {odd}\nu both {odd}:{odd}\n",
        },
    )
    assert table.uid("odd") is None
    assert table.gid("odd") is None
    assert changed_numbers(table, f"fine:x:{odd}:0::/:/bin/sh\n", f"grouped:x:{odd}:\n") == ()


@pytest.mark.parametrize("odd", ["²", "٣", "9" * 5000])
def test_a_number_that_a_scriptlet_wrote_and_that_is_none_is_no_internal_error(odd: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"odd:x:{odd}:0::/:/bin/sh\nfine:x:5:5::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text(f"odd:x:{odd}:\nfine:x:6:\n")
    handle = os.open(tmp_path, os.O_PATH)
    try:
        session: Any = SimpleNamespace(files=RootFs(handle, 0))
        assert check_accounts(session, AccountTable((), ())) == {("user", "fine"): 5, ("group", "fine"): 6}
    finally:
        os.close(handle)


@pytest.mark.parametrize("odd", ["²", "٣", "9" * 5000])
def test_an_owner_that_is_no_number_is_looked_up_as_a_name(odd: str) -> None:
    with pytest.raises(BuildError) as caught:
        _number("user", odd, {}, "demo.yaml:3")
    assert caught.value.code == "owner-unknown"
    assert _number("user", "4294967294", {}, "demo.yaml:3") == 4294967294


# --- what scriptlets ask for ------------------------------------------------------------------------

APACHE = "groupadd -g 48 -r apache\nuseradd -r -u 48 -g apache -s /bin/false -d /usr/share/httpd -c Apache apache\n"


def account(made: NumberedAccounts, name: str) -> tuple[int | None, int | None, str, str, str]:
    (user,) = [user for user in made.table.users if user.name == name]
    return user.uid, user.gid, user.home, user.shell, user.comment


def test_an_owner_has_the_number_home_shell_and_comment_that_its_scriptlet_asks_for() -> None:
    made = numbered(package("httpd", owners=["apache"], pre=APACHE))
    assert account(made, "apache") == (48, 48, "/usr/share/httpd", "/bin/false", "Apache")
    assert made.table.gid("apache") == 48
    assert made.allocated == ()


def test_a_lock_from_before_does_not_hold_a_number_that_a_scriptlet_asks_for() -> None:
    kept = [("group", "apache", 999), ("user", "apache", 999), ("group", "other", 48), ("user", "other", 48)]
    made = numbered(package("a", owners=["other"]), package("httpd", owners=["apache"], pre=APACHE), kept=kept)
    assert (made.table.uid("apache"), made.table.gid("apache")) == (48, 48)
    assert made.allocated == (("group", "other", 999), ("user", "other", 999))


def test_what_a_scriptlet_asks_for_goes_to_nobody_else_even_where_it_owns_no_file() -> None:
    quiet = package("quiet", pre="groupadd -g 999 daemon1\nuseradd -u 998 -g 7 daemon2\nuseradd -u 997 daemon3\n")
    made = numbered(package("a", owners=["x"]), quiet)
    assert (made.table.uid("x"), made.table.gid("x")) == (999, 998)
    made = numbered(package("a", owners=["x", "y", "z"]), quiet)
    assert {made.table.uid(name) for name in "xyz"}.isdisjoint({998, 997})
    assert {made.table.gid(name) for name in "xyz"}.isdisjoint({999, 997})
    assert made.table.uid("daemon2") is None


def test_useradd_without_a_group_makes_one_of_the_same_name_and_number() -> None:
    made = numbered(package("a", owners=["apache"], pre="useradd -r -u 48 -d /srv apache"))
    assert account(made, "apache")[:3] == (48, 48, "/srv")
    assert made.table.gid("apache") == 48
    assert made.scripted == tuple(
        ScriptAccount(kind, "apache", "a-1-1.noarch", ScriptletPhase.PRE) for kind in ("group", "user")
    )


def test_an_open_number_leaves_the_account_to_relbuild_with_what_the_scriptlet_says_of_it() -> None:
    made = numbered(package("a", owners=["www"], pre="useradd -r -d /srv/www -s /bin/sh -c 'The web' -G tty www"))
    assert account(made, "www") == (999, 999, "/srv/www", "/bin/sh", "The web")
    assert made.scripted == ()
    assert made.table.members == (("tty", "www"),)


def test_a_number_that_cannot_be_read_is_the_scriptlets_own() -> None:
    made = numbered(package("a", owners=["x"], pre="useradd -r -u $(cat /id) x"))
    assert {one.name for one in made.scripted} == {"x"}
    assert made.table.uid("x") == 999  # ... and one that comes out otherwise is `scriptlet-renumbers`.


def test_a_number_that_cannot_be_read_is_of_the_package_that_asks_not_of_one_that_names_the_account() -> None:
    made = numbered(
        package("first", provides=[("user(x)", ""), ("group(x)", "")]),
        package("second", owners=["x"], pre="groupadd -g $(cat /id) x\nuseradd -r -u $(cat /id) -g x x"),
    )
    assert made.scripted == tuple(
        ScriptAccount(kind, "x", "second-1-1.noarch", ScriptletPhase.PRE) for kind in ("group", "user")
    )


def test_the_recipe_and_what_packages_say_come_before_scriptlets() -> None:
    made = numbered(
        package("httpd", owners=["apache"], pre=APACHE), users=[User("apache", 77, home="/", shell="/bin/zsh")]
    )
    assert account(made, "apache") == (77, 77, "/", "/bin/zsh", "Apache")
    assert made.scripted == ()
    line = base64.b64encode(b'u apache 50 - "/srv"').decode()
    made = numbered(package("httpd", owners=["apache"], pre=APACHE, provides=[("user(apache)", line)]))
    assert made.table.uid("apache") == 50
    assert [one for one in made.scripted if one.kind == "user"] == []


def test_one_number_for_two_names_by_scriptlets_is_refused_unless_they_allow_it() -> None:
    first = package("a", owners=["one"], pre="groupadd -g 70 one\nuseradd -u 70 -g one one")
    second = "groupadd -g 71 two\nuseradd {} -u 70 -g two two"
    with pytest.raises(BuildError) as caught:
        numbered(first, package("b", owners=["two"], pre=second.format("")))
    assert caught.value.code == "account-number-taken"
    assert "'one' (a-1-1.noarch)" in str(caught.value) and "'two' (b-1-1.noarch)" in str(caught.value)
    made = numbered(first, package("b", owners=["two"], pre=second.format("-o")))
    assert (made.table.uid("one"), made.table.uid("two")) == (70, 70)


def test_an_account_is_expected_until_its_scriptlet_ran() -> None:
    made = numbered(package("httpd", owners=["apache"], pre=APACHE))
    tree = Tree.of({"usr/sbin/useradd": Entry("usr/sbin/useradd", EntryKind.FILE)})
    expected = scripted_accounts(made.scripted, tree)
    assert expected == made.scripted and len(expected) == 2
    assert scripted_accounts(made.scripted, Tree.of({})) == ()
    before = made.table.without(expected)
    assert (before.uid("apache"), before.gid("apache"), before.uid("root")) == (None, None, 0)

    def step(package: str, kind: ScriptletPhase | TriggerKind) -> ScriptStep:
        return ScriptStep("", kind, package, "", ("/bin/sh",), "", ())

    assert still_expected(expected, step("other-1-1.noarch", ScriptletPhase.PRE)) == expected
    assert still_expected(expected, step("httpd-1-1.noarch", TriggerKind.PREIN)) == expected
    assert still_expected(expected, step("httpd-1-1.noarch", ScriptletPhase.PRE)) == ()
