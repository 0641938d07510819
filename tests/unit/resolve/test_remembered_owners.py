"""Owners of requested paths are remembered: which are, how many, and what is loaded for the others."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import solv

from pipeline.errors import RelbuildError
from pipeline.progress import Progress
from pipeline.repos import OpenRepository
from pipeline.resolve import file_lists, solve
from pipeline.resolve.solv_cache import load_solv
from pipeline.resolve.solver import open_pool
from pipeline.store import Store
from pipeline.store.authenticated_values import VALUE_LIMIT
from tests.support.resolve_world import World, refusal
from tests.support.rpmmd import Rpm


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of documents that are loaded."""
    found: list[str] = []

    def load(repo: solv.Repo, opened: OpenRepository, kind: str, *, store: Store, progress: Progress) -> None:
        found.append(kind)
        load_solv(repo, opened, kind, store=store, progress=progress)

    for module in ("pool", "file_lists"):
        monkeypatch.setattr(f"pipeline.resolve.{module}.load_solv", load)
    return found


def deep(folder: Path) -> World:
    return World(folder).add(
        "r",
        Rpm("app", requires=("/opt/deep", "(/opt/other if lib)")),
        Rpm("deep", files=("/opt/deep",)),
        Rpm("other", files=("/opt/other",)),
        Rpm("lib"),
        Rpm("tool", files=("/opt/tool", "/usr/bin/tool")),
        Rpm("gives", provides=("/opt/given",)),
    )


@pytest.mark.parametrize(
    ("first", "then", "loaded"),
    [
        (["app"], ["app"], True),  # A dependency needs them.
        (["/opt/tool"], ["/opt/tool"], False),
        (["/opt/tool"], ["/opt/tool", "lib", "/usr/bin/tool", "/usr/bin/*"], False),
        (["/opt/tool", "/opt/deep"], ["/opt/deep"], False),
        (["/opt/tool"], ["/opt/tool", "app"], True),
        (["/opt/tool", "app"], ["/opt/tool"], False),
        (["/opt/none"], ["/opt/tool"], True),
        (["app"], ["/opt/tool"], True),
        (["/opt/tool"], ["/opt/t*"], True),
        (["/opt/given"], ["/opt/given"], True),  # A package provides it, and who owns it counts if it is depended on.
    ],
)
def test_file_lists_are_loaded_for_what_is_not_remembered(
    tmp_path: Path, loads: list[str], first: list[str], then: list[str], loaded: bool
) -> None:
    world = deep(tmp_path)
    if first == ["/opt/none"]:
        refusal(world, first)
    else:
        world.names(first)
    assert "filelists" in loads
    loads.clear()
    fresh = World(tmp_path / "fresh")
    names = world.names(then)
    assert loads == ["primary", "filelists"][: 1 + loaded]
    fresh._repositories = world._repositories
    assert fresh.names(then) == names


def test_another_version_of_the_file_lists_is_asked_anew(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", Rpm("app", requires=("/opt/x",)), Rpm("a", files=("/opt/x",)), Rpm("b"))
    for texts in (["app"], ["/opt/x"]):
        assert "a-1-1.noarch" in world.names(texts)
    text = (tmp_path / "r" / "repodata" / "repomd.xml").read_text()
    other = World(tmp_path / "other").add("r", Rpm("app", requires=("/opt/x",)), Rpm("a"), Rpm("b", files=("/opt/x",)))
    assert text != (tmp_path / "other" / "r" / "repodata" / "repomd.xml").read_text()
    other.store = world.store
    for texts in (["app"], ["/opt/x"]):
        assert "b-1-1.noarch" in other.names(texts) and "a-1-1.noarch" not in other.names(texts)


@pytest.mark.parametrize(
    "odd",
    [{}, [7], [["/opt/tool"]], [["/opt/tool", 7]], [["/opt/tool", [-1]]], [["/opt/tool", [77]]], [["/opt/tool", ["0"]]],
     [["/opt/none", [0], 1]], "x", 7],
)  # fmt: skip
def test_an_odd_record_is_found_out_and_made_again(tmp_path: Path, odd: object) -> None:
    """Also under the store's own seal, as another version of relbuild may leave it."""
    world = deep(tmp_path)
    name = file_lists._name(world.opened()[0])
    world.store.remember(name, odd)
    assert world.names(["/opt/tool"]) == ["tool-1-1.noarch"]
    assert world.store.recall(name) == [["/opt/tool", [4]]]


# --- bounds ----------------------------------------------------------------------------------------


def records(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (store.root / "results").rglob("*") if path.is_file()}


def test_the_newest_paths_are_remembered_in_one_record(
    tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lists, "PATHS_MOST", 3)
    world = World(tmp_path).add("r", *(Rpm(f"p{number}", files=(f"/opt/{number}",)) for number in range(5)))
    name = file_lists._name(world.opened()[0])
    world.names(["/opt/0"])
    before = set(records(world.store))
    for number in (1, 2, 3, 4):
        world.names([f"/opt/{number}"])
    assert set(records(world.store)) == before
    assert world.store.recall(name) == [["/opt/2", [2]], ["/opt/3", [3]], ["/opt/4", [4]]]
    for path, loaded in (("/opt/2", False), ("/opt/0", True), ("/opt/4", False), ("/opt/2", True)):
        loads.clear()
        assert world.names([path]) == [f"p{path[-1]}-1-1.noarch"]
        assert ("filelists" in loads) == loaded
    assert world.store.recall(name) == [["/opt/4", [4]], ["/opt/0", [0]], ["/opt/2", [2]]]


def test_paths_that_nobody_owns_leave_nothing_behind(tmp_path: Path) -> None:
    world = deep(tmp_path).add("more", Rpm("another"))
    world.names(["/opt/tool"])
    before = records(world.store)
    for number in range(3):
        assert "no package matches" in str(refusal(world, [f"/opt/mistyped{number}"]))
    assert records(world.store) == before


def test_a_path_is_remembered_also_of_repositories_where_nobody_owns_it(tmp_path: Path, loads: list[str]) -> None:
    world = deep(tmp_path).add("more", Rpm("another")).add("empty")
    for count in (2, 0):
        loads.clear()
        assert world.names(["/opt/tool"]) == ["tool-1-1.noarch"]
        assert loads.count("filelists") == count
    world.add("later", Rpm("newer", files=("/opt/tool",)), priority=1)
    assert world.names(["/opt/tool"]) == ["newer-1-1.noarch"]


def test_a_path_of_too_many_packages_is_not_remembered(
    tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lists, "OWNERS_MOST", 3)
    world = World(tmp_path).add("r", *(Rpm(f"p{number}", files=("/opt/many",)) for number in range(4)))
    name = file_lists._name(world.opened()[0])
    for _ in range(2):
        loads.clear()
        assert len(world.names(["/opt/many"])) == 1
        assert "filelists" in loads
    assert world.store.recall(name) is None
    monkeypatch.setattr(file_lists, "OWNERS_MOST", 4)
    monkeypatch.setattr(file_lists, "LENGTH_MOST", 8)
    world.names(["/opt/many"])
    assert world.store.recall(name) is None
    monkeypatch.setattr(file_lists, "LENGTH_MOST", 9)
    world.names(["/opt/many"])
    assert world.store.recall(name) == [["/opt/many", [0, 1, 2, 3]]]


def test_the_largest_record_is_far_from_what_the_store_accepts() -> None:
    numbers = len("100000,") * file_lists.OWNERS_MOST
    escaped = len("\\u00e9") * file_lists.LENGTH_MOST
    assert file_lists.PATHS_MOST * (numbers + escaped + 10) < VALUE_LIMIT / 16


def test_a_full_disk_keeps_nothing_and_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = deep(tmp_path)
    world.names(["/opt/deep"])
    before = records(world.store)

    def refuse(*given: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.store.content_store.write_result_file", refuse)
    assert world.names(["/opt/tool"]) == ["tool-1-1.noarch"]
    assert records(world.store) == before


# --- stores and documents that fail, other architectures -------------------------------------------


def test_a_store_that_cannot_be_written_answers_what_it_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = deep(tmp_path)
    expected = [world.names(["app"]), world.names(["/opt/tool"]), world.names(["/opt/d*"])]

    def refuse(*given: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pipeline.store.content_store.os.replace", refuse, raising=False)
    monkeypatch.setattr(Path, "replace", refuse)
    assert [world.names(["app"]), world.names(["/opt/tool"]), world.names(["/opt/d*"])] == expected


def test_file_lists_that_could_not_be_loaded_are_missed_by_the_next_recipe_too(tmp_path: Path) -> None:
    world = deep(tmp_path)
    opened = world.opened()
    pool = open_pool("x86_64", opened, store=world.store)
    (document,) = (tmp_path / "r" / "repodata").glob("*-filelists.xml.gz")
    document.rename(tmp_path / "away")
    for texts in (["app"], ["/opt/tool"], ["/opt/t*"]):
        with pytest.raises(RelbuildError, match="filelists"):
            solve(world.recipe(texts), world.platform, "x86_64", opened, store=world.store, package_pool=pool)
    (tmp_path / "away").rename(document)
    for texts, names in ((["app"], ["app", "deep"]), (["/opt/tool"], ["tool"])):
        section = solve(world.recipe(texts), world.platform, "x86_64", opened, store=world.store, package_pool=pool)
        assert [one.package.nevra.name for one in section.resolution.chosen] == names


def test_what_is_remembered_of_one_architecture_is_not_taken_for_another(tmp_path: Path) -> None:
    world = World(tmp_path).add(
        "r",
        Rpm("app", requires=("/opt/x",)),
        Rpm("arm", arch="aarch64", files=("/opt/x",)),
        Rpm("intel", arch="x86_64", files=("/opt/x",)),
        Rpm("source", arch="src", files=("/opt/x", "/opt/source")),
        Rpm("foreign", arch="s390x", files=("/opt/foreign",)),
    )
    for _ in range(2):
        for arch, owner in (("x86_64", "intel"), ("aarch64", "arm")):
            for texts in (["app"], ["/opt/x"]):
                section = solve(world.recipe(texts), world.platform, arch, world.opened(), store=world.store)
                assert {one.package.nevra.name for one in section.resolution.chosen} - {"app"} == {owner}
        for path in ("/opt/foreign", "/opt/source"):
            assert [problem.code for problem in refusal(world, [path]).problems] == ["package-missing"]
        excluded = refusal(world, ["/opt/x"], excludes=("intel",)).problems
        assert [problem.code for problem in excluded] == ["package-missing"]
