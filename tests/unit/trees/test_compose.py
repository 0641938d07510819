"""Composition: packages laid over one another, from headers alone."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.errors import BuildError
from pipeline.model.header import FileFlag, FileRecord, PackageHeader
from pipeline.model.package import Nevra
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.trees import (
    STATE_NORMAL,
    STATE_NOT_INSTALLED,
    STATE_WRONG_COLOR,
    ComposeOptions,
    Composition,
    compose,
    diff_trees,
)
from tests.support.composed_packages import ACCOUNTS, composed, directory, emitted, package, problems, regular, symlink
from tests.support.examples import examples

# --- sharing and conflict --------------------------------------------------------------------------------


def test_an_identical_file_is_emitted_once_by_the_first_package_by_name() -> None:
    composition = composed(package("b", regular("/s")), package("a", regular("/s")))
    assert emitted(composition) == {"s": "a-1-1.noarch"}
    assert set(composition.states.values()) == {(STATE_NORMAL,)}


@pytest.mark.parametrize(
    "other",
    [
        regular("/s", "y"),
        regular("/s", mode=stat.S_IFREG | 0o600),
        regular("/s", user="mysql"),
        regular("/s", group="mysql"),
        regular("/s", digest=None),
        symlink("/s", "x"),
        directory("/s"),
    ],
)
def test_a_file_that_differs_is_a_conflict_that_names_both(other: FileRecord) -> None:
    ((code, message),) = problems(package("a", regular("/s")), package("b", other))
    assert code == "file-conflict"
    assert all(word in message for word in ("/s", "a-1-1.noarch", "b-1-1.noarch"))


def test_all_conflicts_are_reported_at_once() -> None:
    found = problems(
        package("a", regular("/1"), regular("/2"), directory("/d")),
        package("b", regular("/1", "y"), regular("/2", "y"), directory("/d", 0o700)),
        package("c", regular("/1", "z"), regular("/own", user="nobody"), regular("/bad/../x")),
    )
    assert sorted(code for code, _ in found) == ["file-conflict"] * 4 + ["owner-unknown", "unsafe-path"]


def test_times_and_capabilities_do_not_make_a_conflict_as_with_rpm() -> None:
    composed(package("a", regular("/s")), package("b", regular("/s", mtime=9, capabilities="cap_kill=p")))


def test_a_file_beneath_another_packages_file_is_a_conflict() -> None:
    ((code, message),) = problems(package("a", regular("/s")), package("b", regular("/s/x")))
    assert code == "file-conflict"
    assert "b-1-1" in message


def test_a_ghost_is_not_emitted_and_never_conflicts() -> None:
    composition = composed(
        package("a", regular("/log", flags=FileFlag.GHOST), directory("/run/a", flags=FileFlag.GHOST)),
        package("b", regular("/log", "real", mode=stat.S_IFREG | 0o600)),
    )
    assert emitted(composition) == {"log": "b-1-1.noarch"}
    assert "run" not in composition.tree.entries
    assert composition.states["a-1-1.noarch"] == (STATE_NORMAL, STATE_NORMAL)


def test_the_64_bit_file_wins_and_the_32_bit_one_is_recorded_as_lost() -> None:
    composition = composed(
        package("tool", regular("/bin/t", "32", color=1), arch="i686"),
        package("tool", regular("/bin/t", "64", color=2), arch="x86_64"),
    )
    assert emitted(composition) == {"bin/t": "tool-1-1.x86_64"}
    assert composition.states == {"tool-1-1.i686": (STATE_WRONG_COLOR,), "tool-1-1.x86_64": (STATE_NORMAL,)}


def test_colour_decides_nothing_where_one_file_has_none() -> None:
    assert [
        code for code, _ in problems(package("a", regular("/t", "1", color=1)), package("b", regular("/t", "2")))
    ] == ["file-conflict"]


def test_an_owner_without_a_number_is_named_once_with_its_packages() -> None:
    found = problems(
        package("a", regular("/1", user="who"), regular("/2", user="who")), package("b", regular("/3", user="who"))
    )
    assert len(found) == 1
    assert all(word in found[0][1] for word in ("who", "a-1-1.noarch", "b-1-1.noarch"))


# --- what is left out ------------------------------------------------------------------------------------


DOCUMENTED = package(
    "d",
    directory("/usr/share/doc/d", flags=FileFlag.DOC),
    regular("/usr/share/doc/d/README", flags=FileFlag.DOC),
    regular("/usr/share/doc/d/COPYING", flags=FileFlag.DOC | FileFlag.LICENSE),
    regular("/usr/share/licenses/d/LICENSE", flags=FileFlag.LICENSE),
    directory("/usr/share/man/man9"),
    regular("/usr/share/man/man9/d.9"),
    regular("/usr/bin/d"),
)


def test_documents_are_left_out_and_recorded_and_licences_stay() -> None:
    composition = composed(DOCUMENTED, docs={"all": False})
    assert set(emitted(composition)) == {
        "usr/share/doc/d/COPYING",
        "usr/share/licenses/d/LICENSE",
        "usr/share/man/man9/d.9",
        "usr/bin/d",
    }
    assert [index for index, state in enumerate(composition.states["d-1-1.noarch"]) if state] == [0, 1]


def test_manual_pages_are_left_out_with_the_directory_that_they_empty() -> None:
    composition = composed(DOCUMENTED, man={"all": False})
    assert not any("man" in path for path in composition.tree.entries)
    states = composition.states["d-1-1.noarch"]
    assert states[4:] == (STATE_NOT_INSTALLED, STATE_NOT_INSTALLED, STATE_NORMAL)


def test_what_is_left_out_of_one_layer_stays_in_another() -> None:
    other = replace(DOCUMENTED, nevra=Nevra("e", 0, "1", "1", "noarch"))
    composition = compose([("low", [DOCUMENTED]), ("high", [other])], ACCOUNTS, ComposeOptions(docs={"low": False}))
    assert "usr/share/doc/d/README" not in emitted(composition, 0)
    assert set(emitted(composition, 1)) == {"usr/share/doc/d/README"}


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ((), {"plain", "de", "de_AT", "both"}),
        (("all",), {"plain", "de", "de_AT", "both"}),
        (("de",), {"plain", "de", "both"}),
        (("de_AT",), {"plain", "de", "de_AT", "both"}),
        (("fr",), {"plain", "both"}),
        (("ja",), {"plain"}),
    ],
)
def test_languages_are_chosen_by_prefix_as_rpm_does(wanted: tuple[str, ...], kept: set[str]) -> None:
    spoken = package(
        "l",
        regular("/plain"),
        regular("/de", languages=("de",)),
        regular("/de_AT", languages=("de_AT",)),
        regular("/both", languages=("de", "fr")),
    )
    assert set(emitted(composed(spoken, languages=wanted))) == kept


# --- layers ----------------------------------------------------------------------------------------------


def test_a_layer_holds_all_directories_of_its_entries_with_their_modes_and_its_own_time() -> None:
    base = package("base", directory("/opt", 0o750, group="mysql"), directory("/opt/empty"), built=100)
    product = package("product", regular("/opt/product/bin/x"), built=200)
    composition = compose([("base", [base]), ("product", [product])], ACCOUNTS, ComposeOptions())
    low, high = ([(d.path, d.mode, d.gid, d.mtime) for d in layer.directories] for layer in composition.layers)
    assert low == [("opt", 0o750, 27, 100), ("opt/empty", 0o755, 0, 100)]
    assert high == [
        ("opt", 0o750, 27, 200),
        ("opt/product", 0o755, 0, 200),
        ("opt/product/bin", 0o755, 0, 200),
    ]
    assert composition.build_time == 200


def test_a_lower_layer_does_not_depend_on_the_layers_above() -> None:
    base = package("base", regular("/usr/share/x/a"), regular("/s"))
    above = package("above", directory("/usr/share/x", 0o700), regular("/s"), regular("/usr/share/x/b"))
    alone = compose([("base", [base])], ACCOUNTS).layers[0]
    both = compose([("base", [base]), ("above", [above])], ACCOUNTS)
    assert both.layers[0] == alone
    assert both.tree.entries["usr/share/x"].mode == 0o700
    assert set(emitted(both, 1)) == {"usr/share/x/b"}


def test_the_first_name_of_a_file_is_the_file_and_the_others_are_links() -> None:
    linked = [regular(path, inode=7, nlink=3) for path in ("/z", "/b/a", "/m")]
    tree = composed(package("a", *linked)).tree
    assert [(e.path, e.kind, e.link) for e in tree if e.kind is not EntryKind.DIRECTORY] == [
        ("b/a", EntryKind.FILE, ""),
        ("m", EntryKind.HARDLINK, "b/a"),
        ("z", EntryKind.HARDLINK, "b/a"),
    ]


def test_a_hard_link_never_names_what_another_package_emits() -> None:
    composition = composed(
        package("a", regular("/1")),
        package("b", regular("/1", inode=3, nlink=2), regular("/2", inode=3, nlink=2)),
    )
    assert composition.tree.entries["2"].kind is EntryKind.FILE


def test_the_root_directory_is_an_entry_when_a_package_gives_it_a_mode() -> None:
    composition = compose(
        [("low", [package("filesystem", directory("/", 0o555))]), ("high", [package("a", regular("/x"))])], ACCOUNTS
    )
    assert [[(d.path, d.mode) for d in layer.directories] for layer in composition.layers] == [
        [("", 0o555)],
        [("", 0o555)],
    ]


def test_only_what_a_parent_image_lacks_is_emitted() -> None:
    parent = composed(package("base", directory("/etc"), regular("/etc/a"), symlink("/bin", "usr/bin"))).tree
    composition = composed(package("child", regular("/etc/a"), regular("/bin/b")), below=parent)
    assert emitted(composition) == {"usr/bin/b": "child-1-1.noarch"}
    assert composition.tree.entries["etc/a"].owner == "base-1-1.noarch"


def test_a_file_that_a_parent_image_has_otherwise_is_a_conflict_if_a_package_owns_it_there() -> None:
    parent = composed(package("base", regular("/owned"))).tree
    loose = Tree.of({"loose": Entry("loose", EntryKind.FILE, mode=0o644, content=Digest.of(b"y"))})
    assert [code for code, _ in problems(package("c", regular("/owned", "z")), below=parent)] == ["file-conflict"]
    assert emitted(composed(package("c", regular("/loose")), below=loose)) == {"loose": "c-1-1.noarch"}


# --- laws ------------------------------------------------------------------------------------------------

contents = st.sampled_from(["x", "y"])
some_paths = st.sampled_from(["/a", "/b", "/d/a", "/d/b", "/d/e/f", "/l/a", "/l/e/g"])
some_files = st.builds(regular, some_paths, contents, color=st.sampled_from([0, 0, 1, 2])) | st.just(symlink("/l", "d"))


@st.composite
def some_packages(draw: st.DrawFn) -> list[PackageHeader]:
    found = draw(st.lists(st.lists(some_files, max_size=4, unique_by=lambda file: file.path), min_size=1, max_size=4))
    return [package(f"p{number}", *files) for number, files in enumerate(found)]


def outcome(packages: Sequence[PackageHeader]) -> object:
    try:
        return composed(*packages)
    except BuildError as error:
        return sorted(str(problem) for problem in error.problems)


@settings(max_examples=examples(300))
@given(some_packages(), st.randoms())
def test_the_order_in_which_packages_are_given_changes_nothing(packages: list[PackageHeader], random: object) -> None:
    shuffled = list(packages)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert outcome(shuffled) == outcome(packages)


@settings(max_examples=examples(300))
@given(some_packages())
def test_a_composed_layer_is_sound(packages: list[PackageHeader]) -> None:
    """No path twice, every parent a directory of the layer, nothing beneath a symlink, links name files."""
    result = outcome(packages)
    if not isinstance(result, Composition):
        return
    (layer,) = result.layers
    leaves = [entry for part in layer.parts for _, entry in part.entries]
    directories = {entry.path for entry in layer.directories}
    every = [*directories, *(entry.path for entry in leaves)]
    assert len(every) == len(set(every)) == len(result.tree)
    for path in every:
        parent = path.rpartition("/")[0]
        assert not parent or parent in directories
    files = {entry.path for entry in leaves if entry.kind is EntryKind.FILE}
    assert all(entry.link in files for entry in leaves if entry.kind is EntryKind.HARDLINK)


@settings(max_examples=examples(100))
@given(some_packages())
def test_a_tree_differs_from_itself_in_nothing(packages: list[PackageHeader]) -> None:
    result = outcome(packages)
    if isinstance(result, Composition):
        assert diff_trees(result.tree, result.tree) == ()


def test_a_difference_says_what_differs() -> None:
    old, new = (
        composed(package("a", regular("/1"), regular("/2"))),
        composed(package("a", regular("/1", "y"), regular("/3"))),
    )
    assert [(c.path, c.old is None, c.new is None, c.what) for c in diff_trees(old.tree, new.tree)] == [
        ("1", False, False, ("content",)),
        ("2", False, True, ()),
        ("3", True, False, ()),
    ]
