"""A recipe that a child process reads is in this process as if it were read here; where the child fails, it is."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import forked_call, forked_child
from pipeline.digest import Digest
from pipeline.errors import RecipeError
from pipeline.recipes import load_recipe, loading_documents
from tests.support.recipe_documents import LOADING, TOP, RecipeDocuments


@pytest.fixture(autouse=True)
def may_fork(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have two processors and one thread, as a command has at its start; leave no child behind.

    A child of a machine with other work has the time that it needs.
    """
    monkeypatch.setattr(forked_child, "usable_processors", lambda: 2.0)
    monkeypatch.setattr(forked_call, "ANSWER_DEADLINE", 60.0)
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: ["1"] if path == "/proc/self/task" else listed(path))
    before = _children()
    yield
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


def test_what_a_child_has_read_is_what_this_process_would_have_read(documents: RecipeDocuments) -> None:
    """All fields, places for messages too; the keys in the caches; and what was read, in the log."""
    direct, logged, read = documents.load_beside(forked=False)
    assert read
    (kept,) = documents.results()
    remembered = documents.store.recall(Digest(kept.name))
    kept.unlink()
    handed, also_logged, read = documents.load_beside()
    assert not read
    assert {name: {key: repr(value) for key, (value, _) in one.items()} for name, one in handed.items()} == {
        name: {key: repr(value) for key, (value, _) in one.items()} for name, one in direct.items()
    }
    for name in ("contents", "looked", "listed"):
        assert getattr(also_logged, name) == getattr(logged, name)
    assert (kept,) == tuple(documents.results())
    again = documents.store.recall(Digest(kept.name))
    assert isinstance(remembered, dict) and isinstance(again, dict)
    assert (again["loaded"], again["read"]) == (remembered["loaded"], remembered["read"])


def test_it_is_what_is_remembered_for_the_next_process(documents: RecipeDocuments) -> None:
    handed, logged, _ = documents.load_beside()
    recalled, also_logged, read = documents.load_beside()
    assert not read
    assert _values(recalled) == _values(handed)
    assert vars(also_logged) | {"_clock": None} == vars(logged) | {"_clock": None}


def test_the_log_names_the_program_that_read_it(documents: RecipeDocuments) -> None:
    """An unchanged build is compared with it, though this process may not have loaded it."""
    _, log, _ = documents.load_beside()
    assert any(path.endswith("/pydantic/__init__.py") for path in log.programs)
    assert {"pydantic", "yaml", "jinja2"} <= log.modules


def test_remembered_documents_need_no_child(documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch) -> None:
    documents.load_beside()
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a child is made"))
    assert not documents.load_beside()[2]


def test_a_changed_recipe_is_read_by_a_child(documents: RecipeDocuments) -> None:
    documents.load_beside()
    documents.write("given.yaml", "values: {given: two}\n")
    caches, _, read = documents.load_beside()
    assert not read
    assert any("'two'" in repr(value) for value, _ in caches["_recipes"].values())


def test_what_changes_after_the_child_has_read_it_is_read_again(documents: RecipeDocuments) -> None:
    with loading_documents(
        documents.path("top.yaml"), documents.target, documents.store, started=time.time(), forked=True
    ) as loading:
        while loading.is_running:
            time.sleep(0.01)
        documents.write("given.yaml", "values: {given: two}\n")
        loading.finish()
    assert "'two'" in repr(load_recipe(documents.path("top.yaml"), documents.target))


def test_an_invalid_recipe_has_the_same_errors(documents: RecipeDocuments, capfd: pytest.CaptureFixture[str]) -> None:
    documents.write("top.yaml", TOP.replace("port: 1", "port: 1, port: 2") + "nonsense: 1\n")
    raised = []
    for forked in (False, True):
        with pytest.raises(RecipeError) as caught:
            documents.load_beside(forked=forked)
        raised.append(repr(caught.value.problems))
    assert raised[0] == raised[1]
    assert capfd.readouterr() == ("", "")
    assert documents.results() == []


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
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], failure: str
) -> None:
    own, real = os.getpid(), LOADING._load_all

    def load(*given: object) -> object:
        if os.getpid() != own:
            _FAILURES[failure]()
        return real(*given)

    monkeypatch.setattr(LOADING, "_load_all", load)
    caches, _, read = documents.load_beside()
    assert read and len(caches["_recipes"]) == 2
    assert capfd.readouterr() == ("", "")
    assert not documents.load_beside()[2], "it is remembered as ever"


@pytest.mark.parametrize(
    "told",
    [None, [], {}, {"value": {}, "lasting": True}, {"value": {"loaded": {"value": 1, "classes": []}}}],
)
def test_what_a_child_does_not_tell_is_read_here(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch, told: object
) -> None:
    monkeypatch.setattr(LOADING, "_told", lambda *_: told)
    assert documents.load_beside()[2]


def test_where_there_is_no_child_it_is_read_here(documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked_child, "usable_processors", lambda: 1.0)
    assert documents.load_beside()[2]
    assert not documents.load_beside()[2]


def test_what_cannot_be_handed_over_is_read_by_one_process_alone_the_next_time(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was opened is no part of what is compared; nor is what is large."""
    documents.write("beside", "")
    documents.write("more.yaml", "files: [{source: beside, path: /etc/b}]\n")
    assert documents.load_beside()[2]
    (kept,) = documents.results()
    assert documents.store.recall(Digest(kept.name)) == {"read_here": True}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", lambda: pytest.fail("a child is made"))
        assert documents.load_beside()[2]
        documents.write("more.yaml", "exclude: [one]\n")
        assert documents.load_beside()[2]
        assert not documents.load_beside()[2], "from then on it is remembered"


@pytest.mark.parametrize("secret", ["https://user:a-secret-word@host/x", "-----BEGIN PRIVATE KEY----- a-secret-word"])
def test_a_recipe_that_may_hold_a_secret_is_handed_over_and_not_written(
    documents: RecipeDocuments, secret: str
) -> None:
    documents.write("more.yaml", f"values: {{place: '{secret}'}}\n")
    for _ in range(2):
        caches, _, read = documents.load_beside()
        assert not read
        assert any("a-secret-word" in repr(value) for value, _ in caches["_recipes"].values())
    assert documents.results() == []
    for path in documents.store.root.rglob("*"):
        assert path.is_dir() or b"a-secret-word" not in path.read_bytes()


def test_what_a_changing_program_has_read_is_handed_over_and_not_remembered(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOADING, "START", 3600.0)
    assert not documents.load_beside()[2]
    assert documents.results() == []


def test_the_child_ends_with_a_command_that_does_not_wait_for_it(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch
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
        documents.load_beside(meanwhile=interrupt)
    assert ended and not any(ended)
