"""A recipe that a former process loaded is taken from the store, unless anything that it was read from changed."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.beneath import ReadCache, logged_reads
from pipeline.digest import Digest
from pipeline.errors import RecipeError
from pipeline.model.platform import Platform
from pipeline.model.recipe import Recipe
from pipeline.recipes import PlatformTarget, find_platform, load_documents, load_recipe
from pipeline.store import Store

LOADING: Any = importlib.import_module("pipeline.recipes.document_loading")
"""The module; in the room its function has nearly all of its name."""

TOP = """\
name: top
version: "{{ packages['bash'].version }}"
platform: local
include: [more.yaml, given.yaml]
from: below.yaml
layers: [{name: base, packages: [sed]}]
files: [{template: a.j2, path: /etc/a}]
values: {port: 1, share: 0.5, deep: {list: [1, two]}}
image: {entrypoint: [/usr/bin/bash]}
smoke: {checks: [{name: lists, command: [ls], expect: {stdout: x}}]}
"""
MORE = "platforms: {local: {packages: {sed: [sed]}}, any: {}}\nexclude: [one]\n"
BELOW = 'name: below\nversion: "1"\nplatform: local\nlayers: [{name: low, packages: [bash]}]\n'
DEFINITIONS = """\
platforms:
  local:
    description: for tests
    families: []
    dnf-vars: [vars, none]
    repositories: [{id: own, baseurls: ["file:///own"], keys: [key]}, {file: repos.d/more.repo}]
"""
REPO_FILE = "[more]\nname=more\nbaseurl=file:///more\ngpgkey=file:///key\n"


class Folder:
    """A folder with a recipe, an included one, a parent, a template, and platforms; and a store."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self._monkeypatch = place, monkeypatch
        self.store = Store.open(place / "store", tell=self._tell)
        self.told: list[str] = []
        (place / "recipes/templates").mkdir(parents=True)
        (place / "recipes/repos.d").mkdir()
        (place / "recipes/vars").mkdir()
        (place / "recipes/none").mkdir()
        texts = {
            "top.yaml": TOP,
            "more.yaml": MORE,
            "given.yaml": "values: {given: 1}\n",
            "below.yaml": BELOW,
            "templates/a.j2": "port {{ port }}\n",
            "repositories.yaml": DEFINITIONS,
            "repos.d/more.repo": REPO_FILE,
            "vars/one": "1",
        }
        for name, text in texts.items():
            (place / "recipes" / name).write_text(text)
        self.forget()

    def _tell(self, text: str) -> None:
        self.told.append(text)

    def path(self, name: str) -> Path:
        return self.place / "recipes" / name

    def forget(self) -> None:
        """Begin as another process would."""
        for name in ("_recipes", "_platforms", "_included"):
            self._monkeypatch.setattr(LOADING, name, ReadCache(8))

    def load(self, *, started: float | None = None) -> tuple[Recipe, Platform, bool]:
        """Load as another process; return recipe, platform and whether they were read."""
        self.forget()
        read: list[Path] = []
        merge = importlib.import_module("pipeline.recipes.merge")
        real = merge.merge_recipe

        def merged(path: Path, target: PlatformTarget) -> Recipe:
            read.append(path)
            return real(path, target)

        target = PlatformTarget(self.path("repositories.yaml"))
        with self._monkeypatch.context() as patched:
            patched.setattr(merge, "merge_recipe", merged)
            now = time.time() if started is None else started
            load_documents(self.path("top.yaml"), target, self.store, started=now)
            recipe = load_recipe(self.path("top.yaml"), target)
            platform = find_platform(target.definitions, recipe.platform, add_ons=recipe.add_ons)
        return recipe, platform, bool(read)

    def results(self) -> list[Path]:
        return [path for path in (self.store.root / "results").rglob("*") if path.is_file()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(LOADING, "START", -3600.0)  # The tests of a checkout run while somebody edits it.
    return Folder(tmp_path, monkeypatch)


def test_the_next_process_reads_no_recipe(folder: Folder) -> None:
    recipe, platform, read = folder.load()
    assert read
    again, same, read = folder.load()
    assert not read
    assert (again, same) == (recipe, platform)
    assert again.files[0].place == recipe.files[0].place == "top.yaml:7: files[0]"
    assert same.description == platform.description == "for tests"
    assert [one.id for one in same.repositories] == ["own", "more"]
    assert not folder.told


def test_the_parent_and_the_included_files_are_loaded_too(folder: Folder) -> None:
    folder.load()
    recipe, platform, _ = folder.load()
    assert recipe.parent is not None
    target = PlatformTarget(folder.path("repositories.yaml"), platform.full_name)
    with logged_reads() as log:
        assert load_recipe(recipe.parent.path, target) == recipe.parent
    assert str(folder.path("below.yaml")) in log.contents
    # Twice: with the entries of `platforms`, and whole.
    keys = [key[:3] for key in LOADING._included._kept]
    assert keys == [
        (folder.path("more.yaml"), folder.path("."), ("any", "local")),
        (folder.path("given.yaml"), folder.path("."), None),
    ]


def test_what_was_read_is_logged_as_if_it_were_read_again(folder: Folder) -> None:
    with logged_reads() as first:
        folder.load()
    with logged_reads() as second:
        folder.load()
    for name in ("contents", "looked", "listed"):
        assert getattr(second, name) == getattr(first, name)
    assert any(path.endswith("/pydantic/__init__.py") for path in second.programs)
    assert {"pydantic", "yaml", "jinja2"} <= second.modules


def _swap(path: Path, old: str, new: str) -> None:
    """Change a file, and keep size and time."""
    before, text = path.stat(), path.read_text()
    assert len(old) == len(new) and old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _behind_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize(
    "change",
    [
        lambda of: _swap(of("top.yaml"), "port: 1", "port: 2"),
        lambda of: _swap(of("more.yaml"), "[one]", "[two]"),
        lambda of: _swap(of("given.yaml"), "given: 1", "given: 2"),
        lambda of: _swap(of("below.yaml"), "bash", "dash"),
        lambda of: _swap(of("templates/a.j2"), "port", "Port"),
        lambda of: _swap(of("repositories.yaml"), "tests", "Tests"),
        lambda of: _swap(of("repos.d/more.repo"), "file:///more", "file:///less"),
        lambda of: _swap(of("vars/one"), "1", "2"),
        lambda of: of("vars/two").write_text("2"),
        lambda of: of("vars/one").unlink(),
        lambda of: of("a.j2").write_text("another, which is found first\n"),
        lambda of: _behind_link(of("top.yaml")),
        lambda of: _behind_link(of("given.yaml")),
        lambda of: _behind_link(of("templates")),
        lambda of: _behind_link(of("none")),
    ],
)
def test_whatever_changes_is_read_again(folder: Folder, change: Callable[[Callable[[str], Path]], object]) -> None:
    before = folder.load()[:2]
    change(folder.path)
    *after, read = folder.load()
    assert read
    assert folder.load() == (*after, False)
    assert before is not None


def test_a_folder_whose_name_is_not_utf8_is_one_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOADING, "START", -3600.0)
    place = tmp_path / os.fsdecode(b"n\xff")
    place.mkdir()
    monkeypatch.chdir(place)
    odd = Folder(place, monkeypatch)
    before = odd.load()
    assert odd.load() == (*before[:2], False)
    with odd.store.locked(f"output-{place}"):
        pass


def test_an_error_is_told_each_time_and_not_remembered(folder: Folder) -> None:
    folder.load()
    known = folder.results()
    folder.path("templates/a.j2").unlink()
    for _ in range(2):
        with pytest.raises(RecipeError) as raised:
            folder.load()
        assert [one.code for one in raised.value.problems] == ["template-missing"]
    assert folder.results() == known
    folder.path("templates/a.j2").write_text("port {{ port }}\n")
    assert not folder.load()[2]


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"~", lambda data: data[: len(data) // 2]])
def test_what_was_damaged_in_the_store_is_read_anew(folder: Folder, damage: Callable[[bytes], bytes]) -> None:
    recipe, *_ = folder.load()
    (kept,) = folder.results()
    kept.write_bytes(damage(kept.read_bytes()))
    again, _, read = folder.load()
    assert read and again == recipe
    assert any("changed after this store wrote it" in text for text in folder.told)
    assert not folder.load()[2]


def test_what_a_power_cut_left_empty_is_read_anew_without_a_word(folder: Folder) -> None:
    recipe, *_ = folder.load()
    (kept,) = folder.results()
    kept.write_bytes(b"")
    again, _, read = folder.load()
    assert read and again == recipe and not folder.told
    assert not folder.load()[2]


def test_what_another_program_wrote_is_not_even_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its nouns may have other fields: that is no defect of the store, and nothing is told."""
    folder.load()
    with monkeypatch.context() as patched:
        patched.setattr(LOADING, "program_digest", lambda *_: ("another", 0))
        patched.setattr(LOADING, "from_whole_json", lambda _: pytest.fail("it is read"))
        assert folder.load()[2]
    assert not folder.told
    assert folder.load()[2], "the digest of this program is another one again"


def test_a_missing_file_of_the_program_is_a_change(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    library = folder.place / "library.py"
    library.touch()
    monkeypatch.setattr(LOADING, "loaded_files", lambda: [str(library)])
    folder.load()
    assert not folder.load()[2]
    library.write_text("# changed")
    assert folder.load()[2]
    library.unlink()
    monkeypatch.setattr(LOADING, "loaded_files", list)
    assert folder.load()[2]


def test_a_program_that_changed_while_it_started_is_not_remembered(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOADING, "START", 2.0)
    changed = folder.place / "library.py"
    changed.touch()
    monkeypatch.setattr(LOADING, "loaded_files", lambda: [str(changed)])
    folder.load(started=changed.stat().st_ctime + 1)
    assert folder.results() == []


def test_what_the_successor_of_a_running_program_wrote_is_not_taken(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = folder.place / "library.py"
    changed.touch()
    monkeypatch.setattr(LOADING, "loaded_files", lambda: [str(changed)])
    folder.load()
    monkeypatch.setattr(LOADING, "START", 2.0)
    assert folder.load(started=changed.stat().st_ctime + 1)[2]


def test_what_is_made_of_recalled_recipes_names_the_program_that_read_them(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = folder.place / "library.py"
    library.touch()
    monkeypatch.setattr(LOADING, "loaded_files", lambda: [str(library)])
    folder.load()
    (first,) = folder.results()
    monkeypatch.setattr(LOADING, "loaded_files", list)
    assert not folder.load()[2]
    target = PlatformTarget(folder.path("repositories.yaml"), "local")  # As that of `below` in memory.
    load_documents(folder.path("below.yaml"), target, folder.store, started=time.time())
    (second,) = set(folder.results()) - {first}
    value = folder.store.recall(Digest(second.name))
    assert isinstance(value, dict)
    assert str(library) in value["programs"]
    assert {"pydantic", "yaml"} <= set(value["modules"])


def test_each_recipe_of_a_line_is_written_once(folder: Folder) -> None:
    folder.path("sub").mkdir()  # A parent in another folder has other places for messages when it is loaded alone.
    for number in range(5):
        above = f"from: {'sub/' if number == 4 else ''}r{number - 1}.yaml\n" if number else ""
        text = f'name: r{number}\nversion: "1"\nplatform: local\nlayers: [{{name: l{number}, packages: [sed]}}]\n'
        text += f"values: {{marker: a-marker-{number}}}\n{above}"
        folder.path(f"r{number}.yaml" if number == 4 else f"sub/r{number}.yaml").write_text(text)
    target = PlatformTarget(folder.path("repositories.yaml"))
    whole = []
    for _ in range(2):
        folder.forget()
        load_documents(folder.path("r4.yaml"), target, folder.store, started=time.time())
        whole.append(repr(load_recipe(folder.path("r4.yaml"), target)))
    assert whole[0] == whole[1]
    (kept,) = folder.results()
    for number in range(5):
        assert 1 <= kept.read_bytes().count(b"a-marker-%d" % number) <= 2


def test_large_recipes_are_not_remembered(folder: Folder) -> None:
    folder.path("given.yaml").write_text(f"values: {{given: {'é' * (400 << 10)}}}\n")
    folder.path("more.yaml").write_text(MORE + f"values: {{more: {'é' * (400 << 10)}}}\n")
    folder.load()
    assert folder.results() == []


@pytest.mark.parametrize("error", [TypeError, ValueError, LookupError, OSError])
def test_what_cannot_be_remembered_is_no_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(_: object) -> None:
        raise error("no form")

    monkeypatch.setattr(LOADING, "to_whole_json", refuse)
    assert folder.load()[0].name == "top"
    assert folder.results() == []


@pytest.mark.parametrize("error", [ImportError, AttributeError, TypeError, ValueError, KeyError])
def test_what_cannot_be_read_from_the_store_is_read_anew(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    folder.load()

    def refuse(_: object) -> None:
        raise error("no noun")

    with monkeypatch.context() as patched:
        patched.setattr(LOADING, "from_whole_json", refuse)
        assert folder.load()[2]
    assert any("another format" in text for text in folder.told)


def test_a_source_file_that_is_opened_is_not_remembered(folder: Folder) -> None:
    """Its content is no part of what is compared."""
    folder.path("beside").touch()
    folder.path("given.yaml").write_text("files: [{source: beside, path: /etc/b}]\n")
    assert folder.load()[2]
    assert folder.load()[2]
    assert folder.results() == []


def test_a_full_disk_is_no_error(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "remember", full)
    assert folder.load()[0].name == "top"


_LOAD = """
import json, sys, time
from pathlib import Path
from pipeline.recipes import PlatformTarget, document_loading, load_documents
from pipeline.store import Store
sys.modules["pipeline.recipes.document_loading"].START = -3600.0
folder = Path(sys.argv[1])
target = PlatformTarget(folder / "recipes/repositories.yaml")
load_documents(folder / "recipes/top.yaml", target, Store.open(folder / "store"), started=time.time())
print(json.dumps(sorted(sys.modules)))
"""


def test_an_unchanged_recipe_loads_nothing_that_reads_recipes(folder: Folder) -> None:
    heavy = {"jinja2", "pydantic", "pydantic_core", "yaml", "pipeline.recipes.merge", "pipeline.recipes.platforms"}
    loaded = []
    for _ in range(2):
        words = [sys.executable, "-c", _LOAD, str(folder.place)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        loaded.append(heavy & set(json.loads(done.stdout)))
    assert loaded == [heavy, set()]
