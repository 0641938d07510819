"""Nights in which something fails: the rest is published, and what failed is told. Real packages, images, processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.catalogue import PASSWORD, SmallCatalogue
from tests.support.night_answers import outcomes, product, tags, text_of
from tests.support.patience import HUNG

pytestmark = pytest.mark.long


class TestFailures:
    def test_the_rest_is_published_and_all_is_told(self, small: SmallCatalogue) -> None:
        """One recipe broken, one scriptlet failing, one check failing, one repository down, in one night."""
        small.edit("third", "platform: small", "platfrom: small")
        small.package("lone", "2", script="echo what went wrong >&2\nexit 3")
        small.edit("child", "text: child", "text: something else")
        small.package("busybox", "2")
        small.index("small")
        shutil.rmtree(small.folder / "other" / "repodata")
        pointed = tags(small)
        code, night = small.nightly()
        assert code == 1 == night["exit_code"]
        assert outcomes(night) == {
            "base": "built", "child": "failed", "lone": "failed", "third": "failed", "away": "failed"
        }  # fmt: skip
        failures = {one["name"]: one["failure"] for one in night["products"] if one["failure"]}
        assert (failures["third"]["stage"], failures["third"]["code"]) == ("recipe", "key-unknown")
        assert "third.yaml:" in failures["third"]["place"]
        assert failures["lone"]["stage"] == "build"
        assert "what went wrong" in failures["lone"]["message"] + "\n".join(failures["lone"]["log"])
        assert failures["child"]["stage"] == "smoke"
        assert any("ready" in line for line in failures["child"]["log"])
        assert failures["away"]["code"] and "repomd.xml" in failures["away"]["message"]
        assert any(state["problem"] for state in night["repositories"] if state["platform"] == "other")
        for name, failure in failures.items():
            assert failure["command"].startswith("relbuild build ")
            assert f"{name}.yaml" in failure["command"]
        moved = {name for name, target in tags(small).items() if pointed.get(name) not in (None, target)}
        assert {name.split("/")[0] for name in moved} == {"base"}
        page = text_of(small)
        for words in ("4 of 5", "what went wrong", "key-unknown", "third.yaml", "repomd.xml", "something else"):
            assert words in page, words
        for name, failure in failures.items():
            assert failure["command"] in page, name
        # What stands on the mirror is still told of what failed.
        assert all(one["digest"] and one["packages"] for one in night["products"])

    def test_files_that_are_no_recipes_keep_no_failure_from_the_pages(self, small: SmallCatalogue) -> None:
        """An editor's lock, a name that no product can have, a link that leads to itself."""
        recipes = small.folder / "recipes"
        (recipes / ".#lone.yaml").symlink_to("somebody@host.1234")
        (recipes / "my app.yaml").write_text("name: ../it\n")
        (recipes / "loop.yaml").symlink_to("loop.yaml")
        small.edit("lone", "text: lone", "text: something else")
        code, night = small.nightly("--junit", "junit.xml", "--summary", "summary.md")
        assert code == 1 == night["exit_code"]
        failed = {name for name, outcome in outcomes(night).items() if outcome != "unchanged"}
        assert failed == {"lone", "loop", "my-app"}
        assert product(night, "my-app")["failure"]["place"] == "recipes/my app.yaml:1: name"
        page = text_of(small)
        for words in (
            "lone, loop and my-app failed",
            "recipes/my app.yaml",
            "Too many levels of symbolic links",
            "something else",
        ):
            assert words in page, words
        assert str(small.folder) not in page, "all paths were typed relative"
        for report in ("junit.xml", "summary.md"):
            assert re.search(r"my\\?-app", (small.folder / report).read_text())
        (recipes / "my app.yaml").unlink()
        (recipes / "loop.yaml").unlink()
        small.edit("lone", "text: something else", "text: lone")
        assert (small.nightly()[0], "up to date" in text_of(small)) == (0, True)

    def test_the_command_shows_the_failure_again(self, small: SmallCatalogue) -> None:
        small.edit("child", "text: child", "text: something else")
        _, night = small.nightly()
        command = product(night, "child")["failure"]["command"].split()
        assert command.pop(0) == "relbuild"
        done = small.relbuild(*command)
        assert done.returncode == 6
        assert "child" in done.stderr

    def test_the_command_publishes_what_the_mirror_did_not_take(self, small: SmallCatalogue) -> None:
        blobs = small.mirror / "blobs"
        blobs.rename(small.folder / "aside")
        blobs.write_text("in the way")
        small.edit("lone", "labels: {", "labels: {new: label, ")
        failure = product(small.nightly()[1], "lone")["failure"]
        assert failure["code"] == "mirror-unreachable"
        assert failure["command"] == "relbuild nightly recipes --to dir:mirror --key night.key --only lone"
        blobs.unlink()
        (small.folder / "aside").rename(blobs)
        done = small.relbuild(*failure["command"].split()[1:])
        assert done.returncode == 0 and "built     lone" in done.stderr, done.stderr

    def test_nothing_is_published_on_a_base_that_failed(self, small: SmallCatalogue) -> None:
        small.package("addon", "2")
        small.edit("base", "text: base", "text: something else")
        small.index("small")
        before = tags(small)
        code, night = small.nightly()
        assert (code, outcomes(night)["base"], outcomes(night)["child"]) == (1, "failed", "blocked")
        assert product(night, "child")["failure"]["stage"] == "parent"
        assert "base" in product(night, "child")["failure"]["hint"]
        assert tags(small) == before

    def test_a_killed_worker_costs_its_product_only(self, small: SmallCatalogue) -> None:
        small.package("busybox", "2")
        small.edit("lone", "echo ready;", "sleep 600; echo ready;")
        small.edit("lone", "within: 20s", "within: 550s")
        small.index("small")
        command = [sys.executable, "-m", "pipeline", "nightly", "recipes", "--json", "--to", "dir:mirror"]
        command += ["--key", "night.key", "--jobs", "2", "--store", "store"]
        with subprocess.Popen(
            command,
            env={**small.environment, "RELBUILD_KEY_PASSWORD": PASSWORD},
            cwd=small.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as night:
            os.kill(_worker_of(night.pid), signal.SIGKILL)
            # Its containers end with it, although the night goes on.
            deadline = time.monotonic() + HUNG
            while left := list((small.folder / "store" / "sandbox" / "live").glob("*-lone-*")):
                assert time.monotonic() < deadline, left
                time.sleep(0.05)
            answer, _ = night.communicate(timeout=HUNG)
        told = json.loads(answer)
        assert night.returncode == 1
        assert outcomes(told) == {
            "base": "built", "child": "built", "lone": "failed", "third": "built", "away": "unchanged"
        }  # fmt: skip
        failure = product(told, "lone")["failure"]
        assert (failure["stage"], failure["code"]) == ("worker", "worker-lost")
        assert "signal 9" in failure["message"]

    def test_two_recipes_of_one_name_are_refused(self, small: SmallCatalogue) -> None:
        shutil.copy(small.recipe("lone"), small.recipe("lone-again"))
        code, night = small.nightly()
        assert (code, product(night, "lone")["failure"]["code"]) == (1, "name-twice")

    def test_a_wrong_password_stops_the_night_at_once(self, small: SmallCatalogue) -> None:
        small.package("lone", "2")
        small.index("small")
        before = small.contents()
        done = small.relbuild("nightly", "recipes", "--to", "dir:mirror", "--key", "night.key", password="another")
        assert done.returncode == 2
        assert "password" in done.stderr
        assert small.contents() == before


def _worker_of(driver: int) -> int:
    """The process that works at the product that waits: one below the night's own, with a container that sleeps."""
    until = time.monotonic() + HUNG
    while time.monotonic() < until:
        for pid in _below(driver):
            if any("sleep 600" in _command(child) for child in _below(pid)) and "forkserver" in _command(pid):
                parents = [one for one in _below(driver) if pid in _below(one)]
                if parents:
                    return pid
        time.sleep(0.1)
    raise AssertionError("no worker was seen")


def _below(pid: int) -> Iterator[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    for child in map(int, found.split()):
        yield child
        yield from _below(child)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
