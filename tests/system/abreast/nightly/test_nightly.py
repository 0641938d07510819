"""Nights over a small catalogue, as a person or a CI job runs them: real packages, real images, a real mirror."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.oci.predicates import LOCK, SMOKE
from pipeline.recipes import load_platforms, load_recipe
from pipeline.repos import open_repositories
from pipeline.resolve import open_pool, read_lock, solve
from pipeline.store import Store
from tests.support.catalogue import SmallCatalogue
from tests.support.night_answers import attested, outcomes, product, tags, text_of
from tests.support.repository_metadata import add_updateinfo
from tests.support.sites import open_site
from tests.support.updateinfo import Fixed, Update

pytestmark = pytest.mark.long


class TestFirstNight:
    def test_all_is_published_in_order(self, published: tuple[SmallCatalogue, Any]) -> None:
        _, night = published
        assert set(outcomes(night).values()) == {"built"}
        assert [one["name"] for one in night["products"]].index("base") < [
            one["name"] for one in night["products"]
        ].index("child")
        assert product(night, "child")["parent"] == "base"
        for one in night["products"]:
            assert one["digest"] and one["uploaded"] > 0 and "latest" in one["tags"] and one["packages"]
            assert all(check["passed"] for check in one["checks"]) and one["checks"]

    def test_what_is_published_verifies(self, published: tuple[SmallCatalogue, Any]) -> None:
        small, night = published
        for one in night["products"]:
            done = small.in_this_process("verify", f"dir:mirror/{one['name']}:latest", "--key", "night.pub")
            assert done.returncode == 0, done.stderr

    def test_the_lock_is_attested(self, published: tuple[SmallCatalogue, Any]) -> None:
        small, night = published
        for one in night["products"]:
            (record,) = attested(small, one["name"], Digest.parse(one["digest"]), LOCK)
            assert f'recipe = "{one["name"]}"' in record["lock"]
            assert record["facts"]


class TestNothingChanged:
    def test_nothing_is_done(self, small: SmallCatalogue) -> None:
        before, pointed = small.contents(), tags(small)
        code, night = small.nightly()
        assert code == 0
        assert set(outcomes(night).values()) == {"unchanged"}
        assert sum(one["uploaded"] for one in night["products"]) == 0
        assert small.contents() == before
        assert tags(small) == pointed

    def test_what_was_known_is_still_told(self, small: SmallCatalogue, published: tuple[SmallCatalogue, Any]) -> None:
        _, first = published
        _, night = small.nightly()
        for one in night["products"]:
            before = product(first, one["name"])
            for key in ("digest", "tags", "immutable", "version", "packages", "layers", "checks", "built", "attached"):
                assert one[key] == before[key], key

    def test_a_new_store_learns_it_from_the_mirror(self, small: SmallCatalogue) -> None:
        before = small.contents()
        code, night = small.nightly(store="another")
        assert code == 0
        assert outcomes(night)["base"] == "unchanged"
        assert set(outcomes(night).values()) == {"unchanged"}
        assert small.contents() == before

    def test_an_image_that_is_gone_from_the_mirror_is_published_again(self, small: SmallCatalogue) -> None:
        shutil.rmtree(small.mirror / "repositories" / "lone")
        code, night = small.nightly()
        assert (code, outcomes(night)["lone"], outcomes(night)["third"]) == (0, "built", "unchanged")

    def test_a_tag_that_a_person_moved_back_stays(self, small: SmallCatalogue) -> None:
        small.package("lone", "2")
        small.index()
        small.nightly()
        back = small.relbuild("rollback", "dir:mirror/lone:latest", "--key", "night.key")
        assert back.returncode == 0, back.stderr
        pointed = tags(small)
        _, night = small.nightly()
        assert outcomes(night)["lone"] == "unchanged"
        assert tags(small) == pointed
        _, night = small.nightly("--only", "lone", "--retest")
        said = product(night, "lone")
        assert (said["outcome"], said["moved"], tags(small)) == ("retested", [], pointed)
        assert "requested; the image is identical; 'latest' stays at " in said["why"]
        assert ": it was moved back, or the mirror shows less" in said["why"]

    def test_a_tag_that_was_moved_back_before_the_first_night_stays(self, small: SmallCatalogue) -> None:
        shutil.rmtree(small.mirror)
        for made in ("first", "second"):
            small.edit("lone", "labels: {", f"labels: {{{made}: made, ")
            assert small.relbuild("build", "recipes/lone.yaml").returncode == 0
            done = small.relbuild("publish", "output/lone", "--to", "dir:mirror", "--key", "night.key")
            assert done.returncode == 0, done.stderr
        back = small.relbuild("rollback", "dir:mirror/lone:latest", "--key", "night.key")
        assert back.returncode == 0, back.stderr
        pointed = tags(small)
        done = small.run("--only", "lone", store="another")
        assert done.returncode == 0, done.stderr
        assert "no record of a night that could be verified; 'latest' stays at " in done.stderr
        assert tags(small) == pointed


class TestQuiet:
    """What a night that is told at once must not miss. Each test has one whole night before."""

    def test_it_is_told_at_once(self, small: SmallCatalogue) -> None:
        _, whole = small.nightly()
        before = small.contents()
        done = small.run("--json", "--progress", "json")
        night = json.loads(done.stdout)
        assert set(outcomes(night).values()) == {"unchanged"}
        assert not done.stderr.count('"event": "start"'), "nothing is opened, resolved or read"
        assert small.contents() == before
        for one in night["products"]:
            last = product(whole, one["name"])
            assert {key: value for key, value in one.items() if key not in {"why", "began", "took", "steps"}} == {
                key: value for key, value in last.items() if key not in {"why", "began", "took", "steps"}
            }

    def test_results_are_told_before_reports_that_cannot_be_written(self, small: SmallCatalogue) -> None:
        shutil.rmtree(small.mirror / "nightly")
        (small.mirror / "nightly").write_text("in the way")
        done = small.run("--json", "--junit", "/dev/full", "--summary", "summary.md")
        assert done.returncode == 8, "that of the first report which failed"
        assert set(outcomes(json.loads(done.stdout)).values()) == {"unchanged"}
        told = [line.split()[0] for line in done.stderr.splitlines() if line.startswith(("unchanged", "error["))]
        assert told == ["unchanged"] * 5 + ["error[disk-full]", "error[site-unwritable]"], done.stderr
        assert (small.folder / "summary.md").read_text()

    @pytest.mark.parametrize("change", ["package", "recipe", "check", "new recipe", "lost tag", "lost recipe"])
    def test_a_change_is_seen(self, small: SmallCatalogue, change: str) -> None:
        small.nightly()
        match change:
            case "package":
                small.package("lone", "2")
                small.index("small")
            case "recipe":
                small.edit("lone", 'mode: "0644"}', 'mode: "0600"}')
            case "check":
                small.edit("lone", "  checks:\n", "  checks:\n    - {name: once more, file: {path: /etc/lone}}\n")
            case "new recipe":
                text = small.recipe("lone").read_text()
                small.recipe("new").write_text(text.replace("name: lone", "name: new", 1))
            case "lost tag":
                for path in (small.mirror / "repositories" / "lone" / "_tags").glob("1-*"):
                    path.unlink()
            case "lost recipe":
                small.recipe("lone").unlink()
        _, night = small.nightly()
        found = {name: outcome for name, outcome in outcomes(night).items() if outcome != "unchanged"}
        assert (
            found
            == {
                "package": {"lone": "built"},
                "recipe": {"lone": "built"},
                "check": {"lone": "retested"},
                "new recipe": {"new": "built"},
                "lost tag": {"lone": "built"},
                "lost recipe": {},
            }[change]
        )
        assert ("lone" in outcomes(night)) == (change != "lost recipe")

    def test_a_template_that_comes_to_be_is_seen(self, small: SmallCatalogue) -> None:
        """One that another includes if there is one, in a folder that is there; and one nearer to the recipe."""
        templates = small.folder / "recipes" / "templates"
        (templates / "parts").mkdir(parents=True)
        (templates / "page.j2").write_text("{% include 'parts/site.j2' ignore missing %}")
        (templates / "parts" / "other.j2").write_text("other")
        small.edit("lone", "files:\n", "files:\n  - {template: page.j2, path: /etc/page}\n")
        assert outcomes(small.nightly()[1])["lone"] == "built"
        for place in (templates / "parts" / "site.j2", small.folder / "recipes" / "page.j2"):
            assert outcomes(small.nightly()[1])["lone"] == "unchanged"
            place.write_text(place.name)
            said = product(small.nightly()[1], "lone")
            assert (said["outcome"], said["why"]) == ("built", "a template changed"), place
        assert outcomes(small.nightly(store="another")[1])["lone"] == "unchanged"

    def test_a_repository_that_is_down_is_told(self, small: SmallCatalogue) -> None:
        small.nightly()
        shutil.rmtree(small.folder / "other" / "repodata")
        code, night = small.nightly()
        assert (code, outcomes(night)["away"], outcomes(night)["lone"]) == (1, "failed", "unchanged")

    def test_another_place_of_the_repositories_is_seen(self, small: SmallCatalogue) -> None:
        small.nightly()
        (small.folder / "small").rename(small.folder / "elsewhere")
        code, night = small.nightly()
        assert (code, outcomes(night)["lone"]) == (1, "failed")

    def test_a_failed_night_is_never_told_again(self, small: SmallCatalogue) -> None:
        small.edit("lone", "text: lone", "text: something else")
        assert [small.nightly()[0] for _ in range(2)] == [1, 1]


class TestOneThingChanged:
    def test_a_package_rebuilds_only_what_contains_it(self, small: SmallCatalogue) -> None:
        small.package("lone", "2")
        small.index()
        before = tags(small)
        code, night = small.nightly()
        assert code == 0
        changed = {name for name, outcome in outcomes(night).items() if outcome != "unchanged"}
        assert changed == {"lone"}
        lone = product(night, "lone")
        assert [(one["name"], one["before"], one["after"]) for one in lone["changes"]] == [("lone", "1-1", "2-1")]
        assert "packages changed" in lone["why"]
        moved = {name for name, target in tags(small).items() if before.get(name) not in (None, target)}
        assert moved == {"lone/_tags/latest"}
        assert "this product's packages did not" in product(night, "third")["why"]
        assert "packages changed" in text_of(small)
        assert all(words in text_of(small, "lone") for words in ("1-1", "2-1"))

    def test_a_package_of_a_base_rebuilds_what_is_built_on_it(self, small: SmallCatalogue) -> None:
        small.package("busybox", "2")
        small.index("small")
        code, night = small.nightly()
        assert code == 0
        assert outcomes(night) == {
            "base": "built", "child": "built", "lone": "built", "third": "built", "away": "unchanged"
        }  # fmt: skip
        child = product(night, "child")
        assert ("busybox", "1-1", "2-1") in [(one["name"], one["before"], one["after"]) for one in child["changes"]]

    def test_a_package_of_a_child_leaves_its_base_alone(self, small: SmallCatalogue) -> None:
        small.package("addon", "2")
        small.index("small")
        _, night = small.nightly()
        assert {name for name, outcome in outcomes(night).items() if outcome == "built"} == {"child"}

    def test_a_check_alone_tests_again_and_builds_nothing(self, small: SmallCatalogue) -> None:
        for name in ("lone", "child"):
            small.edit(name, "  checks:\n", f"  checks:\n    - {{name: once more, file: {{path: /etc/{name}}}}}\n")
        pointed = tags(small)
        code, night = small.nightly()
        assert code == 0
        assert outcomes(night) == {
            "base": "unchanged", "child": "retested", "lone": "retested", "third": "unchanged", "away": "unchanged"
        }  # fmt: skip
        for name in ("lone", "child"):
            one = product(night, name)
            assert "the checks changed" in one["why"]
            assert {check["name"] for check in one["checks"]} >= {"once more", "is what it says"}
            assert not {step for step, _ in one["steps"]} & {"layer", "state", "fetch"}
            assert len(attested(small, name, Digest.parse(one["digest"]), SMOKE)) == 2
        assert tags(small) == pointed
        _, again = small.nightly()
        assert set(outcomes(again).values()) == {"unchanged"}

    def test_a_check_alone_with_a_new_store_fetches_the_image(self, small: SmallCatalogue) -> None:
        small.edit("lone", "  checks:\n", "  checks:\n    - {name: once more, file: {path: /etc/lone}}\n")
        code, night = small.nightly("--only", "lone", store="another")
        assert (code, outcomes(night)) == (0, {"lone": "retested"})
        assert not {step for step, _ in product(night, "lone")["steps"]} & {"layer", "state"}

    def test_a_comment_changes_nothing(self, small: SmallCatalogue) -> None:
        small.edit("lone", "smoke:\n", "# said in passing\nsmoke:\n")
        _, night = small.nightly()
        assert set(outcomes(night).values()) == {"unchanged"}

    def test_a_file_in_a_recipe_is_built_in(self, small: SmallCatalogue) -> None:
        small.edit("lone", 'mode: "0644"}', 'mode: "0600"}')
        _, night = small.nightly()
        assert {name for name, outcome in outcomes(night).items() if outcome == "built"} == {"lone"}
        assert "the recipe changed" in product(night, "lone")["why"]


class TestLocks:
    def test_locks_are_written_back_and_built(self, small: SmallCatalogue) -> None:
        assert not list((small.folder / "recipes").glob("*.lock"))
        small.nightly("--write-locks")
        locks = {path.stem: read_lock(path) for path in (small.folder / "recipes").glob("*.lock")}
        assert set(locks) == {"base", "child", "lone", "third", "away"}
        small.package("lone", "2")
        small.index("small")
        code, night = small.nightly("--locked")
        assert code == 0
        assert set(outcomes(night).values()) == {"unchanged"}
        code, night = small.nightly("--write-locks")
        assert outcomes(night)["lone"] == "built"
        lock = read_lock(small.folder / "recipes" / "lone.lock")
        assert lock is not None
        assert "2" in {one.package.nevra.version for one in lock.sections[0].resolution.chosen}

    def test_a_stale_lock_fails_its_product(self, small: SmallCatalogue) -> None:
        small.nightly("--write-locks")
        small.edit("lone", "packages: [lone]", "packages: [lone, third]")
        code, night = small.nightly("--locked")
        assert code == 1
        assert product(night, "lone")["failure"]["code"] == "lock-stale"
        assert outcomes(night)["third"] == "unchanged"


def test_layers_that_group_themselves_stay_from_night_to_night(small: SmallCatalogue) -> None:
    small.edit("lone", "packages: [lone]}", "packages: [lone, third], auto: true}")
    _, night = small.nightly()
    layers = {layer["name"]: layer["digest"] for layer in product(night, "lone")["layers"]}
    where = {package["name"]: package["layer"] for package in product(night, "lone")["packages"]}
    assert where["lone"] != where["third"]
    assert {where["lone"], where["third"]} <= set(layers)
    small.package("addon", "2")
    small.index("small")
    _, night = small.nightly()
    assert outcomes(night)["lone"] == "unchanged"
    assert "same packages" in product(night, "lone")["why"]
    small.package("lone", "2")
    small.index("small")
    _, night = small.nightly(store="another")
    assert outcomes(night)["lone"] == "built"
    after = {layer["name"]: layer["digest"] for layer in product(night, "lone")["layers"]}
    assert {name for name in layers if after.get(name) != layers[name]} == {where["lone"], "state"}


def test_a_missing_fix_fails_the_night_until_it_came_in(small: SmallCatalogue) -> None:
    issued = str(int(time.time()) - 9 * 86400)
    fixed = (Fixed("lone", "2-1"), Fixed("busybox", "1-1"))
    advisory = Update("FIX-1", severity="Important", title="what it is", issued=issued, fixed=fixed)
    add_updateinfo(small.folder / "small", advisory)
    code, night = small.nightly("--threshold", "important:7")
    assert (code, night["exit_code"]) == (9, 9)
    assert set(outcomes(night).values()) == {"unchanged"}
    assert [fix["advisory"] for fix in product(night, "lone")["missing"]] == ["FIX-1"]
    assert not product(night, "third")["missing"]
    (sentence,) = night["exceeded"]
    assert "lone lacks FIX-1" in sentence and "9 days" in sentence
    states = {state["repository"]: state["advisories"] for state in night["repositories"]}
    assert states == {"small": True, "other": False}
    for words, expected in (((), 0), (("--threshold", "important:10"), 0), (("--threshold", "important:7"), 9)):
        for _ in range(2):  # a night that is told at once says the same
            assert small.nightly(*words)[0] == expected
    small.package("lone", "2")
    small.index("small")
    add_updateinfo(small.folder / "small", advisory)
    code, night = small.nightly("--threshold", "important:7")
    assert (code, outcomes(night)["lone"]) == (0, "built")
    assert not product(night, "lone")["missing"]
    assert [(fix["advisory"], fix["version"]) for fix in product(night, "lone")["fixes"]] == [("FIX-1", "2-1")]
    for words in ((), ("--only", "lone"), ("--label", "team=web")):
        assert [fix["advisory"] for fix in product(small.nightly(*words)[1], "lone")["fixes"]] == ["FIX-1"]


def test_a_registry_is_as_good(small: SmallCatalogue, tmp_path: Path) -> None:
    """The whole round on a real registry: built, nothing, one package, a check, a new store."""
    with open_site("registry", tmp_path / "site") as site:
        code, night = small.nightly(to=site.to)
        assert (code, set(outcomes(night).values())) == (0, {"built"})
        for store in ("store", "another"):
            _, night = small.nightly(to=site.to, store=store)
            assert set(outcomes(night).values()) == {"unchanged"}
            assert sum(one["uploaded"] for one in night["products"]) == 0
        small.package("addon", "2")
        small.index("small")
        small.edit("third", "  checks:\n", "  checks:\n    - {name: once more, file: {path: /etc/third}}\n")
        code, night = small.nightly(to=site.to)
        assert code == 0
        assert {name: outcome for name, outcome in outcomes(night).items() if outcome != "unchanged"} == {
            "child": "built",
            "third": "retested",
        }


def test_one_universe_gives_what_each_alone_gives(mirror: Path, tmp_path: Path) -> None:
    """All products of the project, resolved in one universe one after the other, forwards and backwards.

    But for relbuild itself, which has a platform of its own.
    """
    store = Store.open(tmp_path / "store")
    platform = load_platforms(Path("recipes/repositories.yaml")).find("local", place="here")
    variables = {"RELBUILD_MIRROR": str(mirror), "HOME": str(tmp_path)}
    opened = open_repositories(platform, "x86_64", variables=variables, store=store)
    others = {"repositories", "relbuild"}
    recipes = [load_recipe(path) for path in sorted(Path("recipes").glob("*.yaml")) if path.stem not in others]
    alone = {one.name: solve(one, platform, "x86_64", opened, store=store) for one in recipes}
    for order in (recipes, recipes[::-1]):
        package_pool = open_pool("x86_64", opened, store=store)
        for one in order:
            assert solve(one, platform, "x86_64", opened, store=store, package_pool=package_pool) == alone[one.name]
