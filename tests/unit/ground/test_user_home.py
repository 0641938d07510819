"""The user's home directory: from HOME, else of the account."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cli.argument_values import instance_values
from pipeline.errors import EnvironmentLacking
from pipeline.repos.repository_access import secrets_folder
from pipeline.store import cache_folder
from pipeline.transfer import netrc_path
from pipeline.user_home import home_folder, require_home, with_home

ACCOUNTS = {1234: "/srv/of-1234"}
NO_ACCOUNT = 4321
PLACES: Mapping[str, tuple[Callable[[Mapping[str, str]], Path], str]] = {
    "cache": (cache_folder, ".cache/relbuild"),
    "secrets": (secrets_folder, ".config/relbuild/secrets"),
    "netrc": (netrc_path, ".netrc"),
}


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that makes this process that of a user, as far as it looks."""

    def account(uid: int) -> SimpleNamespace:
        return SimpleNamespace(pw_dir=ACCOUNTS[uid])

    monkeypatch.setattr(pwd, "getpwuid", account)
    return lambda uid: monkeypatch.setattr(os, "geteuid", lambda: uid)


@pytest.mark.parametrize("given", [{}, {"HOME": ""}])
@pytest.mark.parametrize("place", PLACES)
def test_without_home_a_folder_is_in_the_accounts_home(
    place: str, given: Mapping[str, str], user: Callable[[int], None]
) -> None:
    find, below = PLACES[place]
    user(1234)
    assert find(given) == Path("/srv/of-1234", below)
    assert find({"HOME": "/elsewhere"}) == Path("/elsewhere", below)
    assert with_home({**given, "A": "1"}) == {"HOME": "/srv/of-1234", "A": "1"}


@pytest.mark.parametrize("place", PLACES)
def test_a_user_without_account_is_told_unless_a_variable_says_where(place: str, user: Callable[[int], None]) -> None:
    find, _ = PLACES[place]
    user(NO_ACCOUNT)
    with pytest.raises(EnvironmentLacking, match=str(NO_ACCOUNT)) as caught:
        find({})
    assert caught.value.code == "home-unknown" and "RELBUILD_STORE" in str(caught.value.problems[0].hint)
    given = {"XDG_CACHE_HOME": "/given", "NETRC": "/given/netrc", "RELBUILD_SECRETS": "/given/secrets"}
    assert find(given).is_relative_to("/given")
    assert home_folder({}) is None and with_home({}) == {}
    with pytest.raises(EnvironmentLacking, match="HOME is not set"):
        require_home({"HOME": ""})


@pytest.mark.parametrize("given", ["", "cache", "./cache", "~/cache"])
def test_a_cache_directory_that_is_no_absolute_path_is_ignored(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The XDG Base Directory Specification: "must be absolute"; a store in each working directory is nobody's wish."""
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": given}
    assert cache_folder(environment) == tmp_path / ".cache/relbuild"
    (tmp_path / ".cache/relbuild/store/instances/one-1").mkdir(parents=True)
    monkeypatch.delenv("RELBUILD_STORE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert list(instance_values("")) == ["one-1"]


def test_instances_are_completed_from_the_accounts_home(
    tmp_path: Path, user: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".cache/relbuild/store/instances/one-1").mkdir(parents=True)
    for name in ("HOME", "XDG_CACHE_HOME", "RELBUILD_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(ACCOUNTS, 1234, str(tmp_path))
    user(1234)
    assert list(instance_values("")) == ["one-1"]
    user(NO_ACCOUNT)
    assert list(instance_values("")) == []


def test_the_accounts_are_not_read_where_home_is_known() -> None:
    script = (
        "import sys, pwd; pwd.getpwuid = None\n"
        "from pipeline.user_home import home_folder, with_home\n"
        "print(home_folder({'HOME': '/a'}), with_home({'HOME': '/a'})['HOME'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "/a /a\n"
