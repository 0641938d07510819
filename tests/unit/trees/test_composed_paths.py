"""Paths of packages that are composed: resolved through each other's symlinks, and refused where unsafe."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BuildError
from pipeline.model.tree import EntryKind
from pipeline.trees import (
    CanonicalPaths,
    canonical_path,
    split_path,
)
from tests.support.composed_packages import composed, directory, emitted, package, problems, regular, symlink


def test_files_land_behind_the_directory_symlinks_of_other_packages() -> None:
    tree = composed(
        package("filesystem", symlink("/bin", "usr/bin"), symlink("/lib64", "usr/lib64"), directory("/usr/bin")),
        package("bash", regular("/bin/bash"), regular("/lib64/libbash.so")),
    ).tree
    assert [entry.path for entry in tree if entry.kind is EntryKind.FILE] == ["usr/bin/bash", "usr/lib64/libbash.so"]
    assert tree.entries["bin"].link == "usr/bin"


def test_the_same_file_by_both_its_paths_is_one() -> None:
    composition = composed(
        package("filesystem", symlink("/bin", "usr/bin")),
        package("a", regular("/bin/tool")),
        package("b", regular("/usr/bin/tool")),
    )
    assert emitted(composition) == {"bin": "filesystem-1-1.noarch", "usr/bin/tool": "a-1-1.noarch"}


@pytest.mark.parametrize(
    ("links", "path", "canonical"),
    [
        ([("/var/run", "../run")], "/var/run/x/y", "run/x/y"),
        ([("/var/run", "/run"), ("/run", "srv/r")], "/var/run/x", "srv/r/x"),
        ([("/a", "b"), ("/b/c", "../d")], "/a/c/x", "d/x"),
        ([("/a/link", "../b"), ("/a", "c")], "/a/link/x", "b/x"),
        ([("/up", "../../..")], "/up/etc/x", "etc/x"),
        ([("/bin", "usr/bin")], "/bin", "bin"),
        ([("/a", "./b//c/")], "/a/x", "b/c/x"),
    ],
)
def test_a_path_is_resolved_as_the_kernel_would(links: list[tuple[str, str]], path: str, canonical: str) -> None:
    for order in permutations(links):
        assert CanonicalPaths.of(order).path(split_path(path)) == canonical


def test_a_loop_of_symlinks_is_refused_and_not_followed_for_ever() -> None:
    found = problems(package("a", symlink("/a", "b"), symlink("/b", "a"), regular("/a/x")))
    assert [code for code, _ in found] == ["unsafe-path"]


def test_symlinks_that_double_at_every_step_are_refused_quickly() -> None:
    links = [symlink(f"/{n}", f"{n + 1}/../{n + 1}") for n in range(60)]
    assert {code for code, _ in problems(package("a", *links, regular("/0/x")))} == {"unsafe-path"}


@pytest.mark.parametrize(
    "path",
    [
        *("", "relative", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\0b"),
        *("/" + "n" * 256, "/x" * 2049, "/.wh.a", "/.wh..wh..opq/x"),
    ],
)
def test_an_unsafe_path_is_refused(path: str) -> None:
    assert [code for code, _ in problems(package("a", regular(path)))] == ["unsafe-path"]


@pytest.mark.parametrize("to", [".wh.etc", "b/.wh..wh..opq", "n" * 256, "/".join(["x" * 200] * 21)])
def test_a_path_is_unsafe_too_where_a_symlink_leads(to: str) -> None:
    found = problems(package("a", symlink("/a", to)), package("b", regular("/a/x")))
    assert [code for code, _ in found] == ["unsafe-path"]
    assert emitted(composed(package("a", symlink("/a", to)))) == {"a": "a-1-1.noarch"}


@given(st.lists(st.text("ab./\0", min_size=1, max_size=5), max_size=5).map("/".join))
def test_a_path_that_is_taken_has_no_way_out(path: str) -> None:
    try:
        names = split_path(path)
    except BuildError:
        return
    assert path == "/" + "/".join(names)
    assert not {"", ".", ".."} & set(names)


def test_the_canonical_path_in_a_composed_tree_is_the_one_composed() -> None:
    tree = composed(package("f", symlink("/bin", "usr/bin")), package("a", regular("/bin/x"))).tree
    assert canonical_path("/bin/x", tree) == "usr/bin/x"
