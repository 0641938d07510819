"""Building on another recipe's image: composing, numbering, scripts, configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.digest import Digest
from pipeline.errors import BuildError
from pipeline.layers.account_numbers import final_accounts, number_accounts
from pipeline.layers.transaction import plan_scripts
from pipeline.model.accounts import AccountTable
from pipeline.model.configuration import inherited
from pipeline.model.header import (
    Dependency,
    FileRecord,
    PackageHeader,
    Scriptlet,
    ScriptletPhase,
    Trigger,
    TriggerKind,
)
from pipeline.model.image import ImageConfig
from pipeline.model.parent_image import (
    ParentImage,
    layer_in_child,
    recipe_of_layer,
)
from pipeline.model.recipe import Group, User
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.trees import (
    STATE_NOT_INSTALLED,
    STATE_WRONG_COLOR,
    ComposeOptions,
    Composition,
    apply_layer_entries,
    compose,
)
from tests.support.parent_images import ROOT, file, header, parent

# --- composing ---------------------------------------------------------------------------------------------


def laid(below: ParentImage, *headers: PackageHeader) -> Composition:
    return compose([("more", list(headers))], ROOT, ComposeOptions(below=below.tree, installed=below.packages))


def emitted(composition: Composition) -> list[str]:
    return [entry.path for layer in composition.layers for part in layer.parts for _, entry in part.entries]


def test_a_file_that_a_parents_script_changed_is_shared_and_stays_changed() -> None:
    low = header("low", "1-1", file("/etc/a"))
    changed = apply_layer_entries(
        parent(low).tree, [Entry("etc/a", EntryKind.FILE, mode=0o600, content=Digest.of(b"changed"))]
    )
    composition = laid(parent(low, tree=changed), header("high", "1-1", file("/etc/a"), file("/etc/b")))
    assert emitted(composition) == ["etc/b"]
    entry = composition.tree.entries["etc/a"]
    assert (entry.mode, entry.content, entry.owner) == (0o600, Digest.of(b"changed"), "low-1-1.noarch")


def test_directories_have_the_mode_and_owner_that_they_have_in_the_parent() -> None:
    low = header("low", "1-1", file("/etc", mode=0o040755))
    changed = apply_layer_entries(parent(low).tree, [Entry("etc", EntryKind.DIRECTORY, mode=0o700, uid=7)])
    (layer,) = laid(parent(low, tree=changed), header("high", "1-1", file("/etc/b"))).layers
    assert [(one.path, one.mode, one.uid) for one in layer.directories] == [("etc", 0o700, 7)]


def test_what_the_parent_removed_is_brought_again_by_who_has_it() -> None:
    low = header("low", "1-1", file("/etc/a"), file("/etc/b"))
    gone = apply_layer_entries(parent(low).tree, [Entry("etc/a", EntryKind.WHITEOUT)])
    below = parent(low, tree=gone, states={"low": (STATE_NOT_INSTALLED, 0)})
    composition = laid(below, header("high", "1-1", file("/etc/a", "other"), file("/etc/b")))
    assert emitted(composition) == ["etc/a"]
    assert composition.states["low-1-1.noarch"] == (STATE_NOT_INSTALLED, 0)


@pytest.mark.parametrize("other", [file("/etc/a", "y"), file("/etc/a", mode=0o100600)])
def test_a_different_file_of_the_parents_packages_is_a_conflict(other: FileRecord) -> None:
    with pytest.raises(BuildError, match=r"low-1-1\.noarch of the parent image and in high-1-1\.noarch") as caught:
        laid(parent(header("low", "1-1", file("/etc/a"))), header("high", "1-1", other))
    assert caught.value.code == "file-conflict"


def test_a_directory_cannot_take_the_place_of_what_is_none_in_the_parent() -> None:
    low = header("low", "1-1", file("/etc/b"))
    made = apply_layer_entries(parent(low).tree, [Entry("srv", EntryKind.SYMLINK, mode=0o777, link="etc")])
    with pytest.raises(BuildError, match="a directory in high") as caught:
        laid(parent(low, tree=made), header("high", "1-1", file("/srv", mode=0o040755)))
    assert caught.value.code == "file-conflict"


def test_of_two_colours_the_preferred_one_wins_also_over_the_parent() -> None:
    thin, wide = file("/usr/bin/x", "32", 0o100755, 1), file("/usr/bin/x", "64", 0o100755, 2)
    below = parent(header("x", "1-1", thin, arch="i686"))
    composition = laid(below, header("x", "1-1", wide, arch="x86_64"))
    assert emitted(composition) == ["usr/bin/x"]
    assert composition.states["x-1-1.i686"] == (STATE_WRONG_COLOR,)
    below = parent(header("x", "1-1", wide, arch="x86_64"))
    composition = laid(below, header("x", "1-1", thin, arch="i686"))
    assert emitted(composition) == []
    assert composition.states["x-1-1.i686"] == (STATE_WRONG_COLOR,)


def test_layers_are_stacked_as_an_overlay_shows_them() -> None:
    lower = Tree.of(
        {
            path: Entry(path, kind, owner="p")
            for path, kind in (
                ("d", EntryKind.DIRECTORY), ("d/a", EntryKind.FILE), ("e", EntryKind.DIRECTORY),
                ("e/a", EntryKind.FILE), ("f", EntryKind.FILE),
                ("g", EntryKind.DIRECTORY), ("g/a", EntryKind.FILE),
            )
        }
    )  # fmt: skip
    upper = [
        Entry("d", EntryKind.DIRECTORY),
        Entry("d", EntryKind.OPAQUE),
        Entry("d/b", EntryKind.FILE),
        Entry("e", EntryKind.WHITEOUT),
        Entry("f", EntryKind.FILE, mode=5),
        Entry("g", EntryKind.SYMLINK, link="f"),
    ]
    tree = apply_layer_entries(lower, upper)
    assert list(tree.entries) == ["d", "d/b", "f", "g"]
    assert (tree.entries["f"].owner, tree.entries["f"].mode) == ("p", 5)
    assert tree.entries["g"].owner == tree.entries["d/b"].owner == ""


# --- accounts ----------------------------------------------------------------------------------------------


def numbered(
    below: AccountTable, *users: User, groups: tuple[Group, ...] = (), wants: tuple[str, ...] = ()
) -> AccountTable:
    one = header("p", provides=tuple(f"user({name})" for name in wants))
    return number_accounts([one], users=users, groups=groups, read=lambda *_: {}, kept=(), parent=below).table


def test_the_parents_numbers_hold_and_new_accounts_get_free_ones() -> None:
    below = final_accounts(ROOT, "root:x:0:0::/:/bin/sh\nsrv:x:999:50:S:/srv:/bin/sh\n", "root:x:0:\nsrv:x:50:\n")
    table = numbered(below, wants=("srv", "new"))
    assert (table.uid("srv"), table.gid("srv"), table.uid("new")) == (999, 50, 998)
    assert next(user for user in table.users if user.name == "srv") == User("srv", 999, 50, "/srv", "/bin/sh", "S")


@pytest.mark.parametrize(
    ("users", "groups"),
    [((User("srv", 7),), ()), ((User("srv", 999, 7),), ()), ((), (Group("srv", 7),))],
)
def test_a_recipe_cannot_renumber_the_parents_accounts(users: tuple[User, ...], groups: tuple[Group, ...]) -> None:
    below = AccountTable((*ROOT.users, User("srv", 999, 50)), (*ROOT.groups, Group("srv", 50)))
    assert numbered(below, User("srv", 999, 50), groups=(Group("srv", 50),)).uid("srv") == 999
    with pytest.raises(BuildError, match="in the parent image") as caught:
        numbered(below, *users, groups=groups)
    assert caught.value.code == "account-differs"


# --- scripts -----------------------------------------------------------------------------------------------


def test_scriptlets_are_the_childs_and_triggers_are_everybodys() -> None:
    def trigger(kind: TriggerKind, on: str) -> Trigger:
        return Trigger(kind, ("sh",), "", (Dependency(on),))

    low = header(
        "low",
        scriptlets=(Scriptlet(ScriptletPhase.POST, ("sh",), ""),),
        triggers=(
            trigger(TriggerKind.IN, "high"),
            trigger(TriggerKind.FILE_IN, "/f"),
            trigger(TriggerKind.TRANSACTION_FILE_IN, "/f"),
        ),
    )
    high = header(
        "high",
        scriptlets=(Scriptlet(ScriptletPhase.POST, ("sh",), ""),),
        triggers=(trigger(TriggerKind.IN, "low"), trigger(TriggerKind.TRANSACTION_FILE_IN, "/f")),
    )
    present = {"low-1-1.noarch": ("/f/low",), "high-1-1.noarch": ("/f/high",)}
    steps = plan_scripts([high], present=present, compare=lambda a, b: 0, below=[low])
    assert [(step.label.replace("-1-1.noarch", ""), step.arguments, step.input) for step in steps] == [
        ("%filetriggerin of low", ("0", "0"), b"/f/high\n"),
        ("%post of high", ("1",), b""),
        ("%triggerin on high of low", ("1", "1"), b""),
        ("%triggerin on low of high", ("1", "1"), b""),
        ("%transfiletriggerin of low", ("0", "0"), b"/f/high\n"),
        ("%transfiletriggerin of high", ("0", "0"), b"/f/low\n/f/high\n"),
    ]


def test_a_second_package_of_a_name_is_told_that_there_are_two() -> None:
    second = header("kernel", "2-1", scriptlets=(Scriptlet(ScriptletPhase.POST, ("sh",), ""),))
    (step,) = plan_scripts([second], present={}, compare=lambda a, b: 0, below=[header("kernel")])
    assert step.arguments == ("2",)


# --- configuration -----------------------------------------------------------------------------------------


def test_what_is_given_wins_and_what_is_left_out_is_the_parents() -> None:
    below = ImageConfig(
        "amd64", 1, entrypoint=("a",), command=("b",), user="u", environment=("A=1", "B=1"), exposed_ports=("1/tcp",),
        volumes=("/v",), stop_signal="SIGQUIT", labels=(("k", "1"), ("l", "1")),
    )  # fmt: skip
    own = ImageConfig("amd64", 2, environment=("B=2",), labels=(("l", "2"),))
    found = inherited(own, {"volumes"}, below)
    assert replace(found, labels=()) == replace(below, created=2, environment=("A=1", "B=2"), volumes=(), labels=())
    assert dict(found.labels) == {"k": "1", "l": "2"}


def test_a_command_goes_with_its_entrypoint() -> None:
    base = ImageConfig("amd64", 1, entrypoint=("a",), command=("b",))
    found = inherited(ImageConfig("amd64", 1, entrypoint=("c",)), {"entrypoint"}, base)
    assert (found.entrypoint, found.command) == (("c",), ())
    found = inherited(ImageConfig("amd64", 1, command=("d",)), {"command"}, base)
    assert (found.entrypoint, found.command) == (("a",), ("d",))


def test_a_layer_keeps_the_name_of_the_recipe_that_made_it() -> None:
    assert layer_in_child("state", "base") == "base/state"
    assert layer_in_child("base/state", "child") == "base/state"
    assert (recipe_of_layer("base/state"), recipe_of_layer("state")) == ("base", None)
