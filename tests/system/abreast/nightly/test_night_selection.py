"""What a night would do, and with which products: `--plan`, and the options that select some of a catalogue."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.support.catalogue import PASSWORD, SmallCatalogue
from tests.support.cheap_keys import write_cheap_key

pytestmark = pytest.mark.long


class TestSelection:
    def plan(self, small: SmallCatalogue, *words: str) -> dict[str, tuple[str, str]]:
        done = small.planned("--plan", *words, "--json")
        assert done.returncode == 0, done.stderr
        return {one["product"]: (one["action"], one["why"]) for one in json.loads(done.stdout)["plan"]}

    def test_a_plan_says_what_and_why_and_does_nothing(self, small: SmallCatalogue) -> None:
        small.package("busybox", "2")
        small.edit("away", "  checks:\n", "  checks:\n    - {name: once more, file: {path: /etc/away}}\n")
        small.index("small")
        before = small.contents()
        plan = self.plan(small)
        assert plan["base"] == ("build", "packages changed")
        assert plan["child"][0] == "after base"
        assert plan["away"] == ("test", "the checks changed")
        assert small.contents() == before

    def test_a_recipe_that_is_left_out_for_its_ending_is_warned_of(self, small: SmallCatalogue) -> None:
        """By each night: one that left something out is not told at once the next time."""
        small.recipe("third").rename(small.recipe("third").with_suffix(".yml"))
        for _ in range(2):
            done = small.run()
            assert done.returncode == 0, done.stderr
            assert "'recipes/third.yml' is not part of the catalogue, whose recipes end in .yaml" in done.stderr
            assert "4 unchanged" in done.stderr

    def test_pages_go_nowhere_where_they_would_replace_what_is_there(self, small: SmallCatalogue) -> None:
        before = small.contents()
        (small.folder / "pages").mkdir()
        (small.folder / "pages" / "index.html").write_text("mine")
        small.package("lone", "2")
        small.index("small")
        for site in ("pages", "mirror", "recipes", "."):
            done = small.planned("--site", site)
            assert done.returncode == 2 and "error[site-not-own]" in done.stderr, done.stderr
        assert "leave --site out: the pages are written to mirror/nightly" in small.planned("--site", "mirror").stderr
        assert small.contents() == before and (small.folder / "pages" / "index.html").read_text() == "mine"

    def test_what_only_a_worker_can_tell_is_planned_as_that(self, small: SmallCatalogue) -> None:
        small.package("lone", "2")
        small.index("small")
        plan = self.plan(small)
        assert {name: action for name, (action, _) in plan.items()} == {
            "base": "nothing", "child": "resolve", "lone": "build", "third": "nothing", "away": "nothing"
        }  # fmt: skip

    def test_a_plan_takes_the_key_of_the_environment_as_the_night_does(self, small: SmallCatalogue) -> None:
        write_cheap_key(small.folder, "other", PASSWORD)

        def planned(key: str) -> tuple[str, str]:
            words = ("nightly", "recipes", "--to", "dir:mirror", "--plan", "--json", "--only", "lone")
            done = small.in_this_process(*words, environment={"RELBUILD_KEY_FILE": key})
            assert done.returncode == 0, done.stderr
            (lone,) = json.loads(done.stdout)["plan"]
            return lone["action"], lone["why"]

        unchanged = ("nothing", "no input of its build or tests changed")
        assert planned("night.key") == planned("night.pub") == unchanged
        assert planned("other.key")[0] == "build"
        assert planned("") == ("build", "without --key it cannot be verified what the published image was made from")
        assert small.run("--only", "lone").returncode == 0  # From here on, the store remembers it.
        assert planned("other.key") == ("build", "the signing key changed")
        assert planned("night.key") == planned("") == unchanged

    def test_a_plan_in_which_something_fails_ends_as_its_night(self, small: SmallCatalogue) -> None:
        small.edit("third", "platform: small", "platfrom: small")
        small.edit("base", "packages: [busybox]", "packages: [nosuchpackage]")
        shutil.rmtree(small.folder / "other" / "repodata")
        done = small.planned("--plan", "--json")
        answer = json.loads(done.stdout)
        assert done.returncode == answer["exit_code"] == 1
        plan = {one["product"]: (one["action"], one["failure"]) for one in answer["plan"]}
        assert {name for name, (action, _) in plan.items() if action == "failed"} == {"base", "child", "third", "away"}
        assert plan["lone"] == ("nothing", None)
        codes = {name: failure["code"] for name, (_, failure) in plan.items() if failure and name != "away"}
        assert codes == {"third": "key-unknown", "base": "package-missing", "child": "parent-failed"}
        assert "third.yaml:" in plan["third"][1]["place"] and "'platform'" in plan["third"][1]["hint"]
        lines = done.stderr.splitlines()
        (at,) = (number for number, line in enumerate(lines) if line.startswith("failed    third: recipes/third.yaml:"))
        assert lines[at].endswith("[key-unknown]") and lines[at + 1] == "          → did you mean 'platform'?"
        night = small.run()
        assert night.returncode == 1
        assert [line for line in night.stderr.splitlines() if "third.yaml:" in line and "[key-unknown]" in line]

    def test_by_name_with_what_it_is_built_from(self, small: SmallCatalogue) -> None:
        assert set(self.plan(small, "--only", "child")) == {"base", "child"}

    def test_by_label(self, small: SmallCatalogue) -> None:
        assert set(self.plan(small, "--label", "team=data")) == {"third", "away"}

    def test_by_package(self, small: SmallCatalogue) -> None:
        assert set(self.plan(small, "--containing", "addon")) == {"base", "child"}
        assert set(self.plan(small, "--containing", "busybox")) == {"base", "child", "lone", "third", "away"}

    def test_by_changed_files(self, small: SmallCatalogue) -> None:
        git(small, "init", "-q")
        git(small, "add", "recipes")
        git(small, "commit", "-qm", "before")
        assert self.changed(small) == set()
        small.recipe("base").write_text(small.recipe("base").read_text() + "# changed\n")
        assert self.changed(small) == {"base", "child"}
        small.recipe("new").write_text(small.recipe("lone").read_text().replace("name: lone", "name: new", 1))
        assert self.changed(small) == {"base", "child", "new"}
        unknown = small.planned("--plan", "--changed-since", "nosuch").stderr
        assert "'nosuch' failed" in unknown and "shallow clones" in unknown

    def changed(self, small: SmallCatalogue) -> set[str]:
        return set(self.plan(small, "--changed-since", "HEAD"))

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("--only", "nobody"), "product-unknown"),
            (("--label", "team=nobody"), "label-unknown"),
            (("--label", "team"), "label-malformed"),
            (("--containing", "nothing"), "package-unknown"),
            (("--changed-since", "HEAD"), "revision-unknown] recipes: --changed-since needs a git repository"),
            (("--locked", "--write-locks"), "options-contradict"),
            (("--junit", "nosuch/junit.xml"), "report-unwritable] --junit:"),
            (("--summary", "recipes"), "report-unwritable] --summary:"),
        ],
    )
    def test_what_is_not_there_is_said(self, small: SmallCatalogue, words: tuple[str, ...], code: str) -> None:
        done = small.planned(*words)
        assert done.returncode == 2
        assert f"error[{code}" in done.stderr
        assert "→" in done.stderr


def git(small: SmallCatalogue, *words: str) -> None:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.invalid")
    subprocess.run(["git", "-C", small.folder, *who, *words], check=True, env=small.environment)
