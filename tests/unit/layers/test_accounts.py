"""Where the numbers of an image's accounts come from."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.errors import BuildError
from pipeline.layers.account_numbers import (
    changed_numbers,
    complete_group,
    complete_passwd,
    complete_shadow,
    number_accounts,
)
from pipeline.model.accounts import AccountTable
from pipeline.model.header import Dependency, FileRecord, PackageHeader
from pipeline.model.package import Nevra
from pipeline.model.recipe import Group, User


def package(name: str, *, owners: Sequence[str] = (), provides: Sequence[tuple[str, str]] = ()) -> PackageHeader:
    return PackageHeader(
        nevra=Nevra(name, 0, "1", "1", "noarch"),
        checksum=Digest.of(name.encode()),
        files=(
            *(FileRecord(f"/{name}/{o}", 0o100644, o, o, 0, 0, None) for o in owners),
            FileRecord("/etc/passwd", 0o100644, "root", "root", 1, 0, Digest.of(b"")),
            FileRecord("/etc/group", 0o100644, "root", "root", 1, 0, Digest.of(b"")),
            FileRecord("/usr/lib/sysusers.d/x.conf", 0o100644, "root", "root", 1, 0, Digest.of(b"")),
        ),
        scriptlets=(),
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
