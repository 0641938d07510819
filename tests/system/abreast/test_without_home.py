"""Commands of ordinary users that are started without HOME, as some services and containers start them."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.added_user import NAME, added_user
from tests.support.tiny_root import require_root

ROOT = Path(__file__).parents[3]
# What root alone may read is loaded before the process becomes the user's.
BECOME = """
import contextlib, os, sys
from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.api import enter_user_namespace
from pipeline.user_home import home_folder
import_commands("ps")
with contextlib.suppress(SystemExit):
    app(["ps", "--store", sys.argv[2]])
uid = int(sys.argv[1])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
"""


def run(script: str, uid: int, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BECOME + script, str(uid), str(folder / "store")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("uid", "code"), [(65534, "no-permission] /nonexistent/"), (987654, "home-unknown")])
def test_an_ordinary_users_store_is_never_roots(uid: int, code: str, tmp_path: Path) -> None:
    """With an account whose home is not there, and with none."""
    require_root()
    done = run("app(['ps'])", uid, tmp_path)
    assert done.returncode == 8, done.stderr
    assert f"error[{code}" in done.stderr and "/root" not in done.stderr, done.stderr


def test_the_home_is_the_users_also_where_the_user_became_root_of_a_namespace(tmp_path: Path) -> None:
    require_root()
    with added_user():
        account = pwd.getpwnam(NAME)
        script = "enter_user_namespace(); print(os.geteuid(), home_folder(os.environ), flush=True)"
        done = run(script, account.pw_uid, tmp_path)
    assert done.stdout.splitlines()[-1:] == [f"0 {account.pw_dir}"], done.stderr
