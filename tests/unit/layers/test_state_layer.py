"""The state layer as the store remembers it: what is recalled, made again, and never kept."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest
from pipeline.errors import BuildError
from pipeline.layers import state_layer
from pipeline.layers.scriptlet_failures import judge_failure
from pipeline.layers.state_layer import StateInputs, StateLayer, build_state_layer
from pipeline.layers.state_plan import StatePlan
from pipeline.layers.state_session import OverlayStateSession
from pipeline.layers.transaction import ScriptStep
from pipeline.model.accounts import AccountTable, ScriptAccount
from pipeline.model.header import ScriptletPhase
from pipeline.model.image import Descriptor, Layer
from pipeline.model.recipe import User
from pipeline.model.rpm_database import DatabaseFormat, RpmDatabase
from pipeline.model.scriptlets import ScriptletFailure, ScriptletMode, ScriptletName, ScriptletRules, Waiver
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.packages import database_file_names
from pipeline.progress import QUIET
from pipeline.sandbox import RootFs
from pipeline.store import Store

INPUTS = StateInputs((), (), {}, {}, Tree({}), AccountTable((), ()), (), (), RpmDatabase("/var/lib/rpm"), 2, 5)
STRICT = ScriptletRules()
RPM = ScriptletRules(ScriptletMode.RPM)
WAIVED = ScriptletRules(waivers=(Waiver("a", ScriptletName.POST, "a test"),))


class Machine:
    """Makes the state layer without a sandbox: its scripts fail as `failures` says, which a test may change."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.failures: tuple[ScriptletFailure, ...] = ()
        self.made = 0

    def make(self, inputs: StateInputs, rules: ScriptletRules, *_: object, **__: object) -> state_layer._Known:
        self.made += 1
        for failure in self.failures:
            judge_failure(failure, rules)
        with self.store.writer() as blob:
            blob.write(b"a layer" if not self.failures else b"a layer without what failed")
        layer = Layer("state", DiffId(blob.digest.hex), Descriptor("layer", blob.digest, blob.size), blob.size)
        return state_layer._Known(layer, (), self.failures)

    def build(self, rules: ScriptletRules) -> StateLayer:
        unused: Any = None
        return build_state_layer(
            INPUTS,
            rules,
            StatePlan((), None),
            store=self.store,
            prepared=unused,
            compression=Compression.GZIP,
            progress=QUIET,
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(Store.open(tmp_path / "store"))
    monkeypatch.setattr(state_layer, "_make", made.make)
    return made


def failed(*, bound: bool = False) -> ScriptletFailure:
    return ScriptletFailure("a-1-1.noarch", "a", ScriptletName.POST, "scriptlet-failed", "%post of a failed", bound)


def test_a_layer_is_recalled_with_the_failures_that_the_recipe_tolerates(machine: Machine) -> None:
    machine.failures = (failed(),)
    assert not machine.build(RPM).reused
    for rules in (RPM, WAIVED):
        again = machine.build(rules)
        assert again.reused and again.failures == (failed(),)
    assert machine.made == 1


def test_a_failure_that_the_recipe_does_not_tolerate_may_have_passed(machine: Machine) -> None:
    machine.failures = (failed(),)
    machine.build(RPM)
    with pytest.raises(BuildError, match="%post of a failed"):
        machine.build(STRICT)
    machine.failures = ()
    passed = machine.build(STRICT)
    assert not passed.reused and passed.failures == ()
    assert machine.build(RPM).failures == (), "what succeeded is remembered instead"
    assert machine.made == 3


def test_a_layer_of_which_a_limit_ended_a_script_is_not_remembered(machine: Machine) -> None:
    machine.failures = (failed(bound=True),)
    assert machine.build(WAIVED).failures == (failed(bound=True),)
    machine.failures = ()
    assert machine.build(WAIVED).failures == ()
    assert machine.made == 2


def test_a_layer_that_was_damaged_is_made_again(machine: Machine) -> None:
    first = machine.build(STRICT)
    assert machine.build(STRICT).reused
    machine.store.blob(first.layer.blob.digest).unlink()
    assert machine.build(STRICT).layer == first.layer and machine.made == 2
    assert first.layer.blob.digest == Digest.of(b"a layer")


@pytest.mark.parametrize("asking", ["a-1-1.noarch", "not-here-1-1.noarch"])
def test_every_account_is_written_whether_or_not_the_scriptlet_that_makes_it_ran(
    asking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(state_layer, "run_script", lambda *_: None)
    monkeypatch.setattr(
        state_layer,
        "write_accounts",
        lambda _, accounts, __: written.append(" ".join(user.name for user in accounts.users)),
    )
    table = AccountTable((User("root", 0), User("x", 999)), ())
    tree = Tree.of({"usr/sbin/useradd": Entry("usr/sbin/useradd", EntryKind.FILE)})
    inputs = replace(
        INPUTS, accounts=table, tree=tree, scripted=(ScriptAccount("user", "x", asking, ScriptletPhase.PRE),)
    )
    steps = [ScriptStep("", ScriptletPhase.PRE, "a-1-1.noarch", "a", ("/bin/sh",), "", ())]
    session: Any = None
    watch: Any = SimpleNamespace(record_step=lambda _: None)
    assert list(state_layer._run_scripts(inputs, steps, session, bound=Path(), watch=watch)) == [None]
    assert written == ["root", "root x"]


def test_a_layer_with_the_database_in_another_format_is_another() -> None:
    """The usual format counts as it did when there was no other, so layers of old are still known."""
    usual, other = (
        state_layer._identity(replace(INPUTS, rpm_database=one), StatePlan((), None), Compression.GZIP)
        for one in (RpmDatabase("/var/lib/rpm"), RpmDatabase("/var/lib/rpm", DatabaseFormat.BDB))
    )
    assert usual != other and RpmDatabase("/var/lib/rpm").inputs == ["/var/lib/rpm"]


def test_what_scripts_that_called_rpm_left_beside_the_database_is_removed(tmp_path: Path) -> None:
    upper, made = tmp_path / "upper", tmp_path / "made"
    for path in ("Packages", "__db.001", ".rpm.lock", "rpmdb.sqlite-wal", "notes"):
        (upper / "var/lib/rpm").mkdir(parents=True, exist_ok=True)
        (upper / "var/lib/rpm" / path).write_text("left")
    made.mkdir()
    (made / "Packages").write_bytes(b"new")
    place(made, upper)
    assert sorted(path.name for path in (upper / "var/lib/rpm").iterdir()) == [".rpm.lock", "Packages", "notes"]
    assert (upper / "var/lib/rpm/Packages").read_bytes() == b"new"


@pytest.mark.parametrize("link", ["var", "var/log", "var/cache", "var/cache/ldconfig", "var/log/inner", "var/tmp"])
def test_cleaning_follows_no_symlink_of_the_image(tmp_path: Path, link: str) -> None:
    """Before commit b4bddd0 (traced sessions) too, cleaning an overlay followed links above the last name."""
    paths = [Path("var", path) for path in ("log/x", "log/inner/y", "cache/ldconfig/aux-cache", "tmp/z")]
    upper, outside = tmp_path / "upper", tmp_path / "machine"
    for path in (root / path for root in (upper, outside) for path in paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"written")
    shutil.rmtree(upper / link)
    (upper / link).symlink_to(outside / link)
    session: Any = SimpleNamespace(upper=upper)
    state_layer._clean(OverlayStateSession(session), INPUTS)
    assert all((outside / path).read_bytes() == b"written" for path in paths)
    left = [path for path in paths if not path.is_relative_to(link)]
    assert all((upper / path).read_bytes() == b"" for path in left if path.is_relative_to("var/log"))
    assert not any((upper / path).exists() for path in left if not path.is_relative_to("var/log"))


def place(made: Path, root: Path) -> None:
    handle = os.open(root, os.O_PATH | os.O_DIRECTORY)
    session: Any = SimpleNamespace(upper=root, files=RootFs(handle, os.geteuid()))
    state_layer._place_database(made, "var/lib/rpm", OverlayStateSession(session), 1)
    os.close(handle)


def tree_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink())


@pytest.mark.parametrize("form", DatabaseFormat)
def test_a_parent_s_database_of_another_format_or_folder_is_removed(form: DatabaseFormat, tmp_path: Path) -> None:
    """So that an image has one database, whoever reads it."""
    root, made = tmp_path / "root", tmp_path / "made"
    made.mkdir()
    own = database_file_names(form)
    for name in own:
        (made / name).write_bytes(b"new")
    for folder in ("var/lib/rpm", "usr/lib/sysimage/rpm", "opt/rpm"):
        (root / folder).mkdir(parents=True)
        for other in DatabaseFormat:
            for name in database_file_names(other):
                (root / folder / name).write_bytes(b"parent")
    (root / "var/lib/rpm/notes").write_bytes(b"kept")
    place(made, root)
    kept = [path for path in tree_of(root) if not path.startswith("opt/")]
    assert kept == sorted(f"var/lib/rpm/{name}" for name in ("notes", *own))
    assert (root / "var/lib/rpm" / own[0]).read_bytes() == b"new" and (root / "opt/rpm" / own[0]).exists()


def test_another_path_of_the_same_database_is_kept(tmp_path: Path) -> None:
    root, made = tmp_path / "root", tmp_path / "made"
    made.mkdir()
    (made / "rpmdb.sqlite").write_bytes(b"new")
    (root / "usr/lib/sysimage/rpm").mkdir(parents=True)
    (root / "usr/share/rpm").mkdir(parents=True)
    (root / "usr/share/rpm/rpmdb.sqlite").symlink_to("../../../var/lib/rpm/rpmdb.sqlite")
    (root / "var/lib").mkdir(parents=True)
    (root / "var/lib/rpm").symlink_to("../../usr/lib/sysimage/rpm")
    place(made, root)
    place(made, root)
    assert tree_of(root) == ["usr/lib/sysimage/rpm/rpmdb.sqlite", "usr/share/rpm/rpmdb.sqlite", "var/lib/rpm"]


def test_files_that_only_have_an_index_s_name_are_kept(tmp_path: Path) -> None:
    root, made = tmp_path / "root", tmp_path / "made"
    made.mkdir()
    (made / "rpmdb.sqlite").write_bytes(b"new")
    (root / "usr/share/rpm/Packages").mkdir(parents=True)
    (root / "usr/share/rpm/Name").write_bytes(b"")
    place(made, root)
    assert tree_of(root) == ["usr/share/rpm/Name", "var/lib/rpm/rpmdb.sqlite"]


def test_a_layer_from_which_something_is_removed_over_a_link_is_another(store: Store) -> None:
    tree = Tree(
        {"bin": Entry("bin", EntryKind.SYMLINK, link="usr/bin"), "usr/bin/a": Entry("usr/bin/a", EntryKind.FILE)}
    )

    def identity(path: str, tree: Tree) -> Digest:
        return state_layer._identity(replace(INPUTS, remove=(path,), tree=tree), StatePlan((), None), Compression.GZIP)

    assert identity("/bin/a", tree) != identity("/bin/a", Tree({}))
    assert identity("/usr/bin/a", tree) == identity("/usr/bin/a", Tree({}))
