"""From a recipe to locked and verified packages: what is read, what is fetched, what is asked twice and what never."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import repos
from pipeline.errors import (
    BuildError,
    EnvironmentLacking,
    RelbuildError,
    ResolutionError,
    VerificationError,
)
from pipeline.model.accounts import NumberedAccounts
from pipeline.model.change import Change
from pipeline.model.lock import Lock, LockMode, LockSection
from pipeline.model.tree import Tree
from pipeline.prepare import as_parent, locked_recipe
from pipeline.prepare import build_options as ordering
from pipeline.prepare.locked_packages import locked_packages
from pipeline.repos import RepositoryKey
from pipeline.resolve import LockAction, read_lock, write_lock
from tests.support.builds import (
    ARCH,
    DEMO_RECIPE,
    NOBODY,
    PLATFORM,
    build_env,
    header,
    image,
    locked,
    opened,
    order,
    package,
    parent,
    recipe,
    section,
)
from tests.support.journal import Journal, Told

A, B = "a-1-1.noarch", "b-2-1.x86_64"

# --- the plan of a lock ------------------------------------------------------------------------------------

NONE = NumberedAccounts(NOBODY, ())


def planned(folder: Path, journal: Journal, mode: LockMode = LockMode.DEFAULT, **more: Any) -> Any:
    journal.stand_in(locked_recipe, locked_recipe.load_keys, gives=(RepositoryKey("base", "F", b"armored"),))
    return locked_recipe.plan_lock(order(folder, mode=mode), build_env(folder, **more), None)


def stood(folder: Path, plan: Any, **more: Any) -> LockSection:
    """Write a lock that says what a plan found today, but for what is given."""
    made = section(package(A), inputs=plan.inputs, **more)
    write_lock(folder / "demo.lock", Lock("demo", (made,)))
    return made


def test_a_lock_is_used_as_long_as_its_inputs_are_todays(folder: Path, journal: Journal) -> None:
    first = planned(folder, journal)
    assert first.action is LockAction.RESOLVE and first.lock is None and first.resolves
    assert first.why == ("no lock for this platform and architecture",)
    made = stood(folder, first)
    again = planned(folder, journal)
    assert (again.action, again.why, again.section) == (LockAction.USE, (), made) and not again.resolves
    (folder / "demo.yaml").write_text(DEMO_RECIPE.replace("[a]", "[a, b]"))
    changed = planned(folder, journal)
    assert (changed.action, changed.section) == (LockAction.RESOLVE, made)
    assert changed.why == ("the requested packages changed",)


def test_a_stale_lock_is_refused_where_nothing_may_change_it_and_renewed_where_it_is_wished(
    folder: Path, journal: Journal
) -> None:
    stood(folder, planned(folder, journal))
    assert planned(folder, journal, LockMode.UPGRADE).resolves
    (folder / "demo.yaml").write_text(DEMO_RECIPE.replace("[a]", "[b]"))
    with pytest.raises(ResolutionError) as caught:
        planned(folder, journal, LockMode.LOCKED)
    assert caught.value.code == "lock-stale"


def test_that_other_versions_made_a_lock_is_told_when_it_is_used(folder: Path, journal: Journal) -> None:
    progress = Told()
    stood(folder, planned(folder, journal), versions=(("libsolv", "0.1"),))
    assert not planned(folder, journal, progress=progress).resolves
    (warning,) = progress.warnings
    assert warning.startswith("demo.lock: ") and "libsolv" in warning
    planned(folder, journal, LockMode.UPGRADE, progress=progress)
    assert len(progress.warnings) == 1, "what is resolved anew needs no warning"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"platform": "el8"}, "platform-unknown"),
        ({"architectures": ("x86_64", "aarch64")}, "architectures-several"),
        ({"architectures": ("s390x",)}, "architecture-unknown"),
    ],
)
def test_what_cannot_be_built_for_is_refused_before_a_key_is_read(
    asked: dict[str, Any], code: str, folder: Path, journal: Journal
) -> None:
    journal.stand_in(locked_recipe, locked_recipe.load_keys)
    with pytest.raises(RelbuildError) as caught:
        locked_recipe.plan_lock(order(folder, **asked), build_env(folder), None)
    assert caught.value.code == code and journal.calls == []


def test_the_order_overrides_the_recipes_architecture_and_locks_may_stand_elsewhere(
    folder: Path, journal: Journal
) -> None:
    journal.stand_in(locked_recipe, locked_recipe.load_keys, gives=())
    asked = order(folder, architectures=("aarch64",), locks=folder / "locks")
    plan = locked_recipe.plan_lock(asked, build_env(folder), None)
    assert plan.cache.arch == "aarch64" and plan.path == folder / "locks" / "demo.lock"


# --- resolving and fetching --------------------------------------------------------------------------------


def lock_plan(folder: Path, **more: Any) -> locked_recipe.LockPlan:
    here = more.pop("build_env", None) or build_env(folder)
    given = {
        "recipe": recipe(folder),
        "platform": PLATFORM,
        "path": folder / "demo.lock",
        "lock": None,
        "section": None,
        "inputs": (),
        "keys": (),
        "why": (),
        "action": LockAction.RESOLVE,
        "cache": ordering.RepositoryCache(PLATFORM, ARCH, here),
        "parent": None,
        **more,
    }
    return locked_recipe.LockPlan(**given)


def test_resolving_opens_the_repositories_and_tells_warnings(folder: Path, journal: Journal) -> None:
    progress = Told()
    found = section(package(A))
    found = replace(found, resolution=replace(found.resolution, warnings=("it is odd",)))
    journal.stand_in(repos, repos.open_repositories, gives=opened("base"))
    journal.stand_in(locked_recipe, locked_recipe.solve, gives=found)
    plan = lock_plan(
        folder, build_env=build_env(folder, progress=progress), parent=parent("base"), inputs=(("a", "b"),)
    )
    assert locked_recipe.resolve(plan) is found
    assert journal.names == ["open_repositories", "solve"]
    assert journal.last(locked_recipe.solve).args == (plan.recipe, PLATFORM, ARCH, opened("base"))
    assert journal.last(locked_recipe.solve).options["inputs"] == (("a", "b"),)
    assert journal.last(locked_recipe.solve).options["parent"] is plan.parent
    assert progress.warnings == ["it is odd"] and progress.tasks[0].notes == ["1 packages"]


# --- repositories that change ------------------------------------------------------------------------------

GONE = EnvironmentLacking("download-missing", "it is gone")


class Changing:
    """Repositories whose state is another each time they are opened, up to the last of `states`."""

    def __init__(self, folder: Path, journal: Journal, *states: bytes, **more: Any) -> None:
        self.progress = Told()
        left = list(states)
        journal.stand_in(
            repos,
            repos.open_repositories,
            lambda *given, **more: opened("base", state=left.pop(0) if len(left) > 1 else left[0]),
        )
        self.plan = lock_plan(folder, build_env=build_env(folder, progress=self.progress), **more)
        self.asked = 0

    def obtain(self, *results: Any) -> Any:
        """Ask `steadily` for something whose attempts come to `results`."""
        left = list(results)

        def attempt() -> Any:
            self.asked += 1
            self.plan.cache.repositories()
            result = left.pop(0)
            if isinstance(result, Exception):
                raise result
            return result

        return locked_recipe.retry_if_changed(self.plan, attempt)


def test_what_changed_while_it_was_read_is_read_once_more_and_told(folder: Path, journal: Journal) -> None:
    changing = Changing(folder, journal, b"before", b"after")
    assert changing.obtain(GONE, "found") == "found"
    assert changing.asked == 2 and len(changing.progress.warnings) == 1
    assert len(journal.of(repos.open_repositories)) == 2, "opened again for the comparison, and used so"


def test_what_changes_twice_ends_with_an_error_that_says_so(folder: Path, journal: Journal) -> None:
    changing = Changing(folder, journal, b"one", b"two", b"three")
    with pytest.raises(EnvironmentLacking) as caught:
        changing.obtain(GONE, GONE)
    assert caught.value.code == "repository-changing" and changing.asked == 2


@pytest.mark.parametrize(
    ("states", "error", "more"),
    [
        ((b"same",), GONE, {}),
        ((b"before", b"after"), VerificationError("signature-bad", "it is not signed"), {}),
        ((b"before", b"after"), GONE, {"section": section(package(A)), "action": LockAction.USE}),
    ],
    ids=["nothing-changed", "another-error", "a-lock-is-used"],
)
def test_an_error_that_is_not_of_a_change_is_told_as_it_is(
    states: tuple[bytes, ...], error: Exception, more: dict[str, Any], folder: Path, journal: Journal
) -> None:
    changing = Changing(folder, journal, *states, **more)
    with pytest.raises(RelbuildError) as caught:
        changing.obtain(error)
    assert caught.value is error and changing.asked == 1 and changing.progress.warnings == []


def test_repositories_are_opened_once_and_never_again_offline(folder: Path, journal: Journal) -> None:
    journal.stand_in(repos, repos.open_repositories, gives=opened("base"))
    cache = ordering.RepositoryCache(PLATFORM, ARCH, build_env(folder, offline=True))
    assert not cache.changed(GONE), "nothing was opened"
    assert cache.repositories() == cache.repositories() == opened("base")
    assert not cache.changed(GONE)
    assert len(journal.calls) == 1 and journal.calls[0].options["offline"]


# --- owners, locks in a folder -----------------------------------------------------------------------------


def test_numbers_of_owners_are_kept_from_the_lock_of_before(folder: Path, journal: Journal) -> None:
    journal.stand_in(
        locked_recipe, locked_recipe.number_accounts, gives=NumberedAccounts(NOBODY, (("user", "a", 901),))
    )
    old = section(package(A), accounts=(("user", "a", 901),))
    plan = lock_plan(folder, section=old, parent=parent("base"))
    fresh, accounts = locked_recipe.number_owners(plan, section(package(B), accounts=(("user", "a", 5),)), ())
    assert journal.last(locked_recipe.number_accounts).options["kept"] == old.accounts
    assert journal.last(locked_recipe.number_accounts).options["parent"] is plan.parent.accounts
    assert fresh.accounts == (("user", "a", 901),) and accounts.table is NOBODY
    locked_recipe.number_owners(lock_plan(folder), section(package(B), accounts=(("user", "b", 5),)), ())
    assert journal.last(locked_recipe.number_accounts).options["kept"] == (("user", "b", 5),)


def test_accounts_that_do_not_fit_are_told_with_the_recipe(folder: Path, journal: Journal) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BuildError("account-number-taken", "two have the ID 1")

    journal.stand_in(locked_recipe, locked_recipe.number_accounts, does=refuse)
    plan = lock_plan(folder)
    with pytest.raises(BuildError) as caught:
        locked_recipe.number_owners(plan, section(package(B)), ())
    assert caught.value.problems[0].place == plan.recipe.path.name


def test_the_packages_that_locks_name_are_found_and_locks_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    for name, nevra in (("demo", A), ("deep/other", B), (".git/hidden", "c-1-1.noarch")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_lock(tmp_path / f"{name}.lock", Lock("demo", (section(package(nevra)),)))
    (tmp_path / "poetry.lock").write_text("[[package]]\n")
    (tmp_path / "link.lock").symlink_to(tmp_path / "nowhere")
    assert locked_packages(tmp_path) == {package(A).checksum, package(B).checksum}


def test_a_lock_beside_its_recipe_that_cannot_be_read_is_an_error_because_what_it_needs_would_be_lost(
    folder: Path,
) -> None:
    (folder / "demo.lock").write_text("<<<<<<< mine\n")
    with pytest.raises(ResolutionError):
        locked_packages(folder)
    (folder / "demo.yaml").write_text("nothing: of ours\n")
    assert locked_packages(folder) == frozenset()


def test_a_folder_of_locks_that_is_none_is_an_error_because_what_they_need_would_be_lost(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locked_packages(tmp_path / "nosuch")
    write_lock(tmp_path / "demo.lock", Lock("demo", (section(package(A)),)))
    with pytest.raises(NotADirectoryError):
        locked_packages(tmp_path / "demo.lock")


def test_the_lock_that_is_kept_is_what_the_next_build_reads(folder: Path) -> None:
    plan = lock_plan(folder)
    made = locked_recipe.keep_lock(plan, section(package(A)), (header(A),), NONE, LockMode.DEFAULT)
    found = read_lock(plan.path)
    assert found is not None and found.sections == (made.section,) and made.first and made.wrote


# --- a built image as a parent -----------------------------------------------------------------------------


def test_what_stands_in_an_image_becomes_what_a_child_is_built_on(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.prepare import built_parent

    journal.stand_in(built_parent, built_parent.parent_tree_and_accounts, gives=("tree", "accounts"))
    old = Change("etc/old", "z-1", "%post of z, in the image 'root'")
    below = parent("root", "z-1-1.noarch", changes=(old,))
    middle = replace(locked(recipe(folder, "middle"), A), parent=below)
    made = image("middle", "root/base", "root/state", "base", "state")
    states = {"z-1-1.noarch": (1,), A: (0,)}
    new = Change("etc/new", "a-1", "%post of a")
    here = build_env(folder)
    found = as_parent(made, middle, Tree.of({}), states=states, changes=(old, new), store=here.store)
    assert [one.name for one in found.image.layers] == ["root/base", "root/state", "middle/base", "middle/state"]
    assert [(one.header.nevra.name, one.chosen.layer, one.states) for one in found.packages] == [
        ("z", "root/base", (1,)),
        ("a", "middle/base", (0,)),
    ]
    assert (found.tree, found.accounts) == ("tree", "accounts")
    assert found.changes == (old, replace(new, cause="%post of a, in the image 'middle'"))
    assert found.digest == made.digest
