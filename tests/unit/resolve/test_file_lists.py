"""What file lists say is remembered: a resolution without them is the one with all of them."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
import solv
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RelbuildError
from pipeline.model.recipe import Recipe
from pipeline.progress import Progress
from pipeline.repos import OpenRepository
from pipeline.resolve import file_lists, solve
from pipeline.resolve.file_lists import FileLists
from pipeline.resolve.pool import PackagePool
from pipeline.resolve.solv_cache import load_solv
from pipeline.resolve.solver import open_pool
from pipeline.store import Store
from tests.support.examples import examples
from tests.support.resolve_world import World, refusal
from tests.support.rpmmd import Rpm

PATHS = ("/usr/bin/tool", "/etc/conf", "/opt/a", "/opt/a/b", "/usr/share/x&y", "/usr/lib64/lib.so", "/opt/é")
NAMES = tuple(f"p{number}" for number in range(9))
DEPENDENCIES = (
    *PATHS, *NAMES, "/opt/a >= 2", "(/opt/a or p3)", "(p1 if /usr/lib64/lib.so)", "(p2 and /opt/a/b)", "/opt/none",
)  # fmt: skip
REQUESTS = (*PATHS, *NAMES, "/opt/none", "/opt/*", "*/lib.so", "*opt/a", "(/opt/a or p1)", "p1.noarch", "/opt/a/")

few = st.lists(st.sampled_from(DEPENDENCIES), max_size=2, unique=True).map(tuple)
rpms = st.builds(
    Rpm,
    st.sampled_from(NAMES),
    st.sampled_from(["1-1", "2-1"]),
    st.sampled_from(["noarch", "x86_64", "i686", "s390x", "src"]),
    provides=st.lists(st.sampled_from(["v", "/opt/a = 1", "/opt/a"]), max_size=1).map(tuple),
    requires=few,
    pre=few,
    conflicts=st.lists(st.sampled_from(DEPENDENCIES), max_size=1).map(tuple),
    obsoletes=st.lists(st.sampled_from(NAMES), max_size=1).map(tuple),
    recommends=few,
    supplements=few,
    files=st.lists(st.sampled_from(PATHS), max_size=4, unique=True).map(tuple),
)
repositories = st.lists(st.lists(rpms, max_size=7, unique_by=lambda one: one.nevra), min_size=1, max_size=3)
recipes = st.lists(
    st.tuples(
        st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3, unique=True),
        st.booleans(),
        st.sampled_from([(), ("p0",), ("p1", "p2")]),
        st.sampled_from([(), ("/opt/none",), ("v",)]),
    ),
    min_size=1,
    max_size=4,
)


class AllLoaded(FileLists):
    """File lists that are all loaded before anything is asked, of which nothing is remembered."""

    def owners(self, path: str) -> list[int]:
        self.load()
        return [int(one.id) for one in self._pool.select(path, solv.Selection.SELECTION_FILELIST).solvables()]

    def recall_provides(self) -> bool | None:
        self.load()
        return True


def solved(world: World, recipe: Recipe, store: Store, pool: PackagePool | None = None) -> object:
    try:
        return solve(recipe, world.platform, "x86_64", world.opened(store), store=store, package_pool=pool)
    except RelbuildError as error:
        return [(one.code, one.message, one.hint) for one in error.problems]


def without_file_lists(folder: Path) -> None:
    repomd = folder / "repodata" / "repomd.xml"
    repomd.write_text(re.sub(r'<data type="filelists">.*?</data>', "", repomd.read_text()))


@settings(max_examples=examples(60), deadline=None)
@given(repositories, recipes, st.integers(0, 3))
def test_what_is_remembered_gives_the_resolution_of_all_file_lists(
    worlds: list[list[Rpm]], asked: list[tuple[list[str], bool, tuple[str, ...], tuple[str, ...]]], bare: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for number, packages in enumerate(worlds):
            world.add(f"r{number}", *packages, priority=99 - number % 2)
            if number + 1 == bare:
                without_file_lists(Path(folder) / f"r{number}")
        wanted = [
            world.recipe(texts, weak_dependencies=weak, excludes=excludes, assume_installed=assumed)
            for texts, weak, excludes, assumed in asked
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.resolve.pool.FileLists", AllLoaded)
            store = Store.open(world.store.root)  # That the documents are parsed once.
            expected = [solved(world, one, store) for one in wanted]
        assert [solved(world, one, world.store) for one in wanted] == expected
        again = Store.open(world.store.root)
        assert [solved(world, one, again) for one in wanted] == expected
        pool = open_pool("x86_64", world.opened(again), store=again)
        assert [solved(world, one, again, pool) for one in wanted] == expected


# --- what is loaded --------------------------------------------------------------------------------


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
    )


@pytest.mark.parametrize(
    ("first", "then", "loaded"),
    [
        (["app"], ["app"], False),
        (["app", "lib"], ["app"], False),
        (["app"], ["app", "lib"], False),
        (["/opt/tool"], ["/opt/tool"], False),
        (["/opt/tool", "/opt/deep"], ["/opt/deep", "app"], False),
        (["/opt/tool"], ["app", "/usr/bin/tool", "/usr/bin/*"], False),
        (["app"], ["/opt/tool"], True),
        (["/opt/tool"], ["/opt/t*"], True),
    ],
)
def test_file_lists_are_loaded_for_what_is_not_remembered(
    tmp_path: Path, loads: list[str], first: list[str], then: list[str], loaded: bool
) -> None:
    world = deep(tmp_path)
    world.names(first)
    assert "filelists" in loads
    loads.clear()
    fresh = World(tmp_path / "fresh")
    names = world.names(then)
    assert loads == ["primary", "filelists"][: 1 + loaded]
    fresh._repositories = world._repositories
    assert fresh.names(then) == names


def test_what_another_repository_adds_to_dependencies_is_looked_up(tmp_path: Path, loads: list[str]) -> None:
    world = deep(tmp_path)
    world.names(["app"])
    world.add("more", Rpm("asks", requires=("/opt/tool",)))
    loads.clear()
    assert world.names(["asks"]) == ["asks-1-1.noarch", "tool-1-1.noarch"]
    assert loads.count("filelists") == 2
    loads.clear()
    assert world.names(["asks"]) == ["asks-1-1.noarch", "tool-1-1.noarch"]
    assert "filelists" not in loads


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


@pytest.mark.parametrize("odd", [[], {}, {"owners": "x"}, {"owners": [-1]}, {"owners": [77]}, [["/opt/deep", 0, 77]],
                                 [["/opt/deep", 9, 0]], [["/opt/deep", 0, True, 1]], "x", 7])  # fmt: skip
def test_an_odd_record_is_found_out_and_made_again(tmp_path: Path, odd: object) -> None:
    """Also under the store's own seal, as another version of relbuild may leave it."""
    world = deep(tmp_path)
    expected = [world.names(["app"]), world.names(["/opt/tool"])]
    for path in (world.store.root / "results").rglob("*"):
        if path.is_file() and any(sign in path.read_bytes() for sign in (b'"owners"', b'["/opt/deep",0,')):
            path.unlink()
    opened = world.opened()[0]
    pool = PackagePool("x86_64", store=world.store)
    pool.add_repository(opened)
    lists = pool._file_lists
    paths = lists._paths()
    assert paths is not None
    for name in (lists._provides_name(paths), file_lists._owners_name(opened, "/opt/tool")):
        if odd != [] or name != lists._provides_name(paths):  # No provides at all are a form that is right.
            world.store.remember(name, odd)
    assert [world.names(["app"]), world.names(["/opt/tool"])] == expected
    assert json.dumps(world.store.recall(file_lists._owners_name(opened, "/opt/tool"))) == '{"owners": [4]}'


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
