"""A recipe that a child process reads is in this process as if it were read here; where the child fails, it is."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import forked_call
from pipeline.beneath import ReadCache, ReadLog, logged_reads
from pipeline.digest import Digest
from pipeline.errors import RecipeError
from pipeline.recipes import PlatformTarget, find_platform, load_recipe, loading_documents
from pipeline.store import Store

LOADING: Any = importlib.import_module("pipeline.recipes.document_loading")
"""The module; in the room its function has nearly all of its name."""

TOP = """\
name: top
version: "{{ packages['bash'].version }}"
platform: local
include: [more.yaml]
from: below.yaml
layers: [{name: base, packages: [sed]}]
files: [{template: a.j2, path: /etc/a}]
values: {port: 1, share: 0.5, deep: {list: [1, two]}}
image: {entrypoint: [/usr/bin/bash]}
smoke: {checks: [{name: lists, command: [ls], expect: {stdout: x}}]}
"""
BELOW = 'name: below\nversion: "1"\nplatform: local\nlayers: [{name: low, packages: [bash]}]\n'
PLATFORM = "platforms: {local: {families: [], repositories: [{id: own, baseurls: ['file:///own'], keys: [key]}]}}\n"


class Folder:
    """A folder with a recipe, an included one, a parent, a template, platforms and a store."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self._monkeypatch = place, monkeypatch
        self.store = Store.open(place / "store")
        self.reader: list[int] = []
        (place / "templates").mkdir()
        self.write("templates/a.j2", "port {{ port }}\n")
        self.write("top.yaml", TOP)
        self.write("more.yaml", "exclude: [one]\n")
        self.write("below.yaml", BELOW)
        self.write("repositories.yaml", PLATFORM)

    def write(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)

    @property
    def target(self) -> PlatformTarget:
        return PlatformTarget(self.place / "repositories.yaml")

    def load(self, *, forked: bool = True, meanwhile: Callable[[], object] = lambda: None) -> tuple[Any, ReadLog, bool]:
        """Load as another process; return what the caches have, the log, and whether this process read it."""
        for name in ("_recipes", "_platforms", "_included"):
            self._monkeypatch.setattr(LOADING, name, ReadCache(8))
        here: list[Path] = []
        merge = importlib.import_module("pipeline.recipes.merge")
        real = merge.merge_recipe
        with self._monkeypatch.context() as patched:
            patched.setattr(merge, "merge_recipe", lambda *given: here.append(given[0]) or real(*given))
            path, target = self.place / "top.yaml", self.target
            with loading_documents(path, target, self.store, started=time.time(), forked=forked) as loading:
                meanwhile()
                with logged_reads() as log:
                    loading.finish()
            caches = {name: dict(getattr(LOADING, name)._kept) for name in ("_recipes", "_platforms", "_included")}
            read = bool(here)
            recipe = load_recipe(path, target)
            find_platform(target.definitions, recipe.platform, add_ons=recipe.add_ons)
            assert read == bool(here), "the caches have it"
        return caches, log, read

    def results(self) -> list[Path]:
        return [path for path in (self.store.root / "results").rglob("*") if path.is_file()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.setattr(LOADING, "START", -3600.0)  # The tests of a checkout run while somebody edits it.
    monkeypatch.setattr(forked_call, "usable_processors", lambda: 2.0)
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: ["1"] if path == "/proc/self/task" else listed(path))
    before = _children()
    yield Folder(tmp_path, monkeypatch)
    assert _children() - before == set()


def _children() -> set[str]:
    """Return this process's children, zombies too, but for the one in which templates are evaluated."""
    numbers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {one for one in numbers if "limited/child.py" not in Path(f"/proc/{one}/cmdline").read_text()}


def _values(caches: dict[str, Any]) -> object:
    """Return keys and values with every field, and what was read for them."""
    shown = ("contents", "looked", "listed", "places")
    return {
        name: {
            key: (repr(value), *(dict(getattr(read, field)) for field in shown)) for key, (value, read) in kept.items()
        }
        for name, kept in caches.items()
    }


def test_what_a_child_has_read_is_what_this_process_would_have_read(folder: Folder) -> None:
    """All fields, places for messages too; the keys in the caches; and what was read, in the log."""
    direct, logged, read = folder.load(forked=False)
    assert read
    (kept,) = folder.results()
    remembered = folder.store.recall(Digest(kept.name))
    kept.unlink()
    handed, also_logged, read = folder.load()
    assert not read
    assert {name: {key: repr(value) for key, (value, _) in one.items()} for name, one in handed.items()} == {
        name: {key: repr(value) for key, (value, _) in one.items()} for name, one in direct.items()
    }
    for name in ("contents", "looked", "listed"):
        assert getattr(also_logged, name) == getattr(logged, name)
    assert (kept,) == tuple(folder.results())
    again = folder.store.recall(Digest(kept.name))
    assert isinstance(remembered, dict) and isinstance(again, dict)
    assert (again["loaded"], again["read"]) == (remembered["loaded"], remembered["read"])


def test_it_is_what_is_remembered_for_the_next_process(folder: Folder) -> None:
    handed, logged, _ = folder.load()
    recalled, also_logged, read = folder.load()
    assert not read
    assert _values(recalled) == _values(handed)
    assert vars(also_logged) | {"_clock": None} == vars(logged) | {"_clock": None}


def test_the_log_names_the_program_that_read_it(folder: Folder) -> None:
    """An unchanged build is compared with it, though this process may not have loaded it."""
    _, log, _ = folder.load()
    assert any(path.endswith("/pydantic/__init__.py") for path in log.programs)
    assert {"pydantic", "yaml", "jinja2"} <= log.modules


def test_remembered_documents_need_no_child(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.load()
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a child is made"))
    assert not folder.load()[2]


def test_a_changed_recipe_is_read_by_a_child(folder: Folder) -> None:
    folder.load()
    folder.write("more.yaml", "values: {given: two}\n")
    caches, _, read = folder.load()
    assert not read
    assert any("'two'" in repr(value) for value, _ in caches["_recipes"].values())


def test_what_changes_after_the_child_has_read_it_is_read_again(folder: Folder) -> None:
    with loading_documents(
        folder.place / "top.yaml", folder.target, folder.store, started=time.time(), forked=True
    ) as loading:
        while loading.is_running:
            time.sleep(0.01)
        folder.write("more.yaml", "values: {given: two}\n")
        loading.finish()
    assert "'two'" in repr(load_recipe(folder.place / "top.yaml", folder.target))


def test_an_invalid_recipe_has_the_same_errors(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("top.yaml", TOP.replace("port: 1", "port: 1, port: 2") + "nonsense: 1\n")
    raised = []
    for forked in (False, True):
        with pytest.raises(RecipeError) as caught:
            folder.load(forked=forked)
        raised.append(repr(caught.value.problems))
    assert raised[0] == raised[1]
    assert capfd.readouterr() == ("", "")
    assert folder.results() == []


_FAILURES: dict[str, Callable[[], object]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crashed": os.abort,
    "gone": lambda: os._exit(0),
    "interrupted": lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    "out of memory": lambda: (_ for _ in ()).throw(MemoryError),
    "a warning": lambda: sys.stderr.write("a warning"),
}


@pytest.mark.parametrize("failure", _FAILURES)
def test_a_child_that_fails_is_harmless(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], failure: str
) -> None:
    own, real = os.getpid(), LOADING._load_all

    def load(*given: object) -> object:
        if os.getpid() != own:
            _FAILURES[failure]()
        return real(*given)

    monkeypatch.setattr(LOADING, "_load_all", load)
    caches, _, read = folder.load()
    assert read and len(caches["_recipes"]) == 2
    assert capfd.readouterr() == ("", "")
    assert not folder.load()[2], "it is remembered as ever"


@pytest.mark.parametrize(
    "told",
    [None, [], {}, {"value": {}, "lasting": True}, {"value": {"loaded": {"value": 1, "classes": []}}}],
)
def test_what_a_child_does_not_tell_is_read_here(folder: Folder, monkeypatch: pytest.MonkeyPatch, told: object) -> None:
    monkeypatch.setattr(LOADING, "_told", lambda *_: told)
    assert folder.load()[2]


def test_where_there_is_no_child_it_is_read_here(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked_call, "usable_processors", lambda: 1.0)
    assert folder.load()[2]
    assert not folder.load()[2]


def test_what_cannot_be_handed_over_is_read_by_one_process_alone_the_next_time(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was opened is no part of what is compared; nor is what is large."""
    folder.write("beside", "")
    folder.write("more.yaml", "files: [{source: beside, path: /etc/b}]\n")
    assert folder.load()[2]
    (kept,) = folder.results()
    assert folder.store.recall(Digest(kept.name)) == {"read_here": True}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", lambda: pytest.fail("a child is made"))
        assert folder.load()[2]
        folder.write("more.yaml", "exclude: [one]\n")
        assert folder.load()[2]
        assert not folder.load()[2], "from then on it is remembered"


@pytest.mark.parametrize("secret", ["https://user:a-secret-word@host/x", "-----BEGIN PRIVATE KEY----- a-secret-word"])
def test_a_recipe_that_may_hold_a_secret_is_handed_over_and_not_written(folder: Folder, secret: str) -> None:
    folder.write("more.yaml", f"values: {{place: '{secret}'}}\n")
    for _ in range(2):
        caches, _, read = folder.load()
        assert not read
        assert any("a-secret-word" in repr(value) for value, _ in caches["_recipes"].values())
    assert folder.results() == []
    for path in folder.store.root.rglob("*"):
        assert path.is_dir() or b"a-secret-word" not in path.read_bytes()


def test_what_a_changing_program_has_read_is_handed_over_and_not_remembered(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOADING, "START", 3600.0)
    assert not folder.load()[2]
    assert folder.results() == []


def test_the_child_ends_with_a_command_that_does_not_wait_for_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []
    real = forked_call.ForkedCall.end

    def end(self: forked_call.ForkedCall) -> None:
        real(self)
        ended.append(self.has_child)

    monkeypatch.setattr(forked_call.ForkedCall, "end", end)
    monkeypatch.setattr(LOADING, "_told", lambda *_: time.sleep(600))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.load(meanwhile=interrupt)
    assert ended and not any(ended)
