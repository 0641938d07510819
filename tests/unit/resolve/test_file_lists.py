"""Owners of requested paths are remembered: a resolution without file lists is the one with all of them."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
import solv
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RelbuildError
from pipeline.model.recipe import Recipe
from pipeline.resolve import solve
from pipeline.resolve.pool import PackagePool
from pipeline.resolve.solver import open_pool
from pipeline.store import Store
from tests.support import rpmmd
from tests.support.examples import examples
from tests.support.resolve_world import World
from tests.support.rpmmd import Rpm

PATHS = (
    "/usr/bin/tool", "/etc/conf", "/opt/a", "/opt/a/b", "/usr/share/x&y", "/usr/lib64/lib.so", "/opt/é",
    "/opt/b(64bit)",
)  # fmt: skip
NAMES = tuple(f"p{number}" for number in range(9))
DEPENDENCIES = (
    *PATHS, *NAMES, "/opt/a >= 2", "(/opt/a or p3)", "(p1 if /usr/lib64/lib.so)", "(p2 and /opt/a/b)", "/opt/none",
    "(/opt/b(64bit) or p4)", "(/usr/bin/tool or p5)",
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


class AllLoaded(PackagePool):
    """A pool with file lists in its index before anything is asked, in which nothing is remembered of them."""

    def index(self) -> None:
        self._file_lists.load()
        super().index()
        self.has_filelists = True

    def listed(self, text: str, *, glob: bool, everywhere: bool) -> list[int]:
        flags = solv.Selection.SELECTION_FILELIST | (solv.Selection.SELECTION_GLOB if glob else 0)
        return self.enabled(self.pool.select(text, flags).solvables())


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
    """In a new store, in the same again, after other recipes in it, and in one pool."""
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
            patch.setattr("pipeline.resolve.solver.PackagePool", AllLoaded)
            store = Store.open(world.store.root)  # That the documents are parsed once.
            expected = [solved(world, one, store) for one in wanted]
        assert [solved(world, one, world.store) for one in wanted] == expected
        again = Store.open(world.store.root)
        assert [solved(world, one, again) for one in wanted] == expected
        pool = open_pool("x86_64", world.opened(again), store=again)
        assert [solved(world, one, again, pool) for one in wanted] == expected


ODD: dict[str, tuple[tuple[Rpm, ...], tuple[tuple[str, ...], ...]]] = {
    "brackets": (
        (
            Rpm("app", requires=("(/opt/foo(64bit) or fallback)",)),
            Rpm("aown", files=("/opt/foo(64bit)",)),
            Rpm("fallback"),
            Rpm("srv", conflicts=("/opt/bad(1)",)),
            Rpm("bad", files=("/opt/bad(1)",)),
            Rpm("weak", recommends=("/opt/rec(1)",)),
            Rpm("rec", files=("/opt/rec(1)",)),
            Rpm("close", requires=("(/opt/close)x or nothing)",)),
            Rpm("closed", files=("/opt/close)x",)),
            Rpm("sendmail", requires=("/usr/lib/sendmail)x",), files=("/usr/lib/sendmail)x",)),
        ),
        (("app",), ("app", "/opt/foo(64bit)"), ("srv", "bad"), ("srv", "/opt/bad(1)"), ("weak",), ("close",),
         ("sendmail",)),
    ),
    "spaces": (
        (
            Rpm("app", requires=("RAW /opt/my app/x",)),
            Rpm("my", files=("/opt/my app/x",)),
            Rpm("line", requires=("RAW (/opt/none or\n/opt/x)",)),
            Rpm("tab", requires=("RAW (app and \t/opt/x)",)),
            Rpm("twice", requires=("RAW //opt/x",)),
            Rpm("comma", requires=("RAW /opt/a,b",)),
            Rpm("commas", files=("/opt/a,b",)),
            Rpm("versions", requires=("RAW (/opt/x>=2 or p1)",)),
            Rpm("slash", requires=("RAW /opt/x/",)),
            Rpm("x", files=("/opt/x",)),
        ),
        (("app",), ("line",), ("tab",), ("twice",), ("comma",), ("versions",), ("slash",), ("/opt/x",),
         ("/opt/my app/x",)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("bare", [False, True])
def test_answers_do_not_depend_on_what_the_store_has_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, bare: bool
) -> None:
    """Odd dependencies: a new store, again, after all others in one store, and with a path that is remembered."""
    entry = rpmmd._entry

    def raw(text: str, *, pre: bool = False) -> str:
        return f"<rpm:entry name={quoteattr(text[4:])}/>" if text.startswith("RAW ") else entry(text, pre=pre)

    monkeypatch.setattr(rpmmd, "_entry", raw)
    if bare:  # Primary metadata has no files.
        monkeypatch.setattr(rpmmd, "_PRIMARY", re.compile("(?!)"))
    rpms, asked = ODD[kind]
    tool = (Rpm("needs", requires=("(/usr/bin/tool or lib)",)), Rpm("lib"), Rpm("tool", files=("/usr/bin/tool",)))
    tool = (*tool, Rpm("other", requires=("/opt/data",)), Rpm("data", files=("/opt/data", "/usr/bin/data")))
    world = World(tmp_path).add("r", *rpms, *tool)
    more = (("needs",), ("other",), ("/opt/data",), ("/usr/bin/tool",), ("/usr/bin/t*",), ("/opt/none",))
    every = [*asked, *more, *((*texts, "/opt/data") for texts in (*asked, *more[:2], *more[3:]))]
    recipes = [world.recipe(list(texts), weak_dependencies=weak) for texts in every for weak in (False, True)]
    fresh = [solved(world, one, Store.open(tmp_path / f"fresh{at}")) for at, one in enumerate(recipes)]
    for order in (1, 1, -1):
        found = [solved(world, one, world.store) for one in recipes[::order]][::order]
        assert found == fresh
    nights = [Store.open(tmp_path / "night"), Store.open(tmp_path / "night"), world.store]
    one_pool = []
    for store in nights:
        pool = open_pool("x86_64", world.opened(store), store=store)
        one_pool.append([solved(world, one, store, pool) for one in recipes])
    assert one_pool[0] == one_pool[1] == one_pool[2]
