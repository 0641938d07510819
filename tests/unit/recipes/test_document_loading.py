"""A recipe that a former process loaded is taken from the store, unless anything that it was read from changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.beneath import logged_reads
from pipeline.digest import Digest
from pipeline.errors import RecipeError
from pipeline.recipes import PlatformTarget, load_recipe
from pipeline.store import Store
from tests.support.recipe_documents import LOADING, MORE, RecipeDocuments, load_now


def test_the_next_process_reads_no_recipe(documents: RecipeDocuments) -> None:
    recipe, platform, read = documents.load()
    assert read
    again, same, read = documents.load()
    assert not read
    assert (again, same) == (recipe, platform)
    assert again.files[0].place == recipe.files[0].place == "top.yaml:7: files[0]"
    assert same.description == platform.description == "for tests"
    assert [one.id for one in same.repositories] == ["own", "more"]
    assert not documents.told


def test_the_parent_and_the_included_files_are_loaded_too(documents: RecipeDocuments) -> None:
    documents.load()
    recipe, platform, _ = documents.load()
    assert recipe.parent is not None
    target = PlatformTarget(documents.path("repositories.yaml"), platform.full_name)
    with logged_reads() as log:
        assert load_recipe(recipe.parent.path, target) == recipe.parent
    assert str(documents.path("below.yaml")) in log.contents
    # Twice: with the entries of `platforms`, and whole.
    keys = [key[:3] for key in LOADING._included._kept]
    assert keys == [
        (documents.path("more.yaml"), documents.path("."), ("any", "local")),
        (documents.path("given.yaml"), documents.path("."), None),
    ]


def test_what_was_read_is_logged_as_if_it_were_read_again(documents: RecipeDocuments) -> None:
    with logged_reads() as first:
        documents.load()
    with logged_reads() as second:
        documents.load()
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
def test_whatever_changes_is_read_again(
    documents: RecipeDocuments, change: Callable[[Callable[[str], Path]], object]
) -> None:
    before = documents.load()[:2]
    change(documents.path)
    *after, read = documents.load()
    assert read
    assert documents.load() == (*after, False)
    assert before is not None


def test_a_folder_whose_name_is_not_utf8_is_one_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOADING, "START", -3600.0)
    place = tmp_path / os.fsdecode(b"n\xff")
    place.mkdir()
    monkeypatch.chdir(place)
    odd = RecipeDocuments(place, monkeypatch)
    before = odd.load()
    assert odd.load() == (*before[:2], False)
    with odd.store.locked(f"output-{place}"):
        pass


def test_an_error_is_told_each_time_and_not_remembered(documents: RecipeDocuments) -> None:
    documents.load()
    known = documents.results()
    documents.path("templates/a.j2").unlink()
    for _ in range(2):
        with pytest.raises(RecipeError) as raised:
            documents.load()
        assert [one.code for one in raised.value.problems] == ["template-missing"]
    assert documents.results() == known
    documents.path("templates/a.j2").write_text("port {{ port }}\n")
    assert not documents.load()[2]


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"~", lambda data: data[: len(data) // 2]])
def test_what_was_damaged_in_the_store_is_read_anew(
    documents: RecipeDocuments, damage: Callable[[bytes], bytes]
) -> None:
    recipe, *_ = documents.load()
    (kept,) = documents.results()
    kept.write_bytes(damage(kept.read_bytes()))
    again, _, read = documents.load()
    assert read and again == recipe
    assert any("changed after this store wrote it" in text for text in documents.told)
    assert not documents.load()[2]


def test_what_a_power_cut_left_empty_is_read_anew_without_a_word(documents: RecipeDocuments) -> None:
    recipe, *_ = documents.load()
    (kept,) = documents.results()
    kept.write_bytes(b"")
    again, _, read = documents.load()
    assert read and again == recipe and not documents.told
    assert not documents.load()[2]


def test_what_another_program_wrote_is_not_even_read(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its nouns may have other fields: that is no defect of the store, and nothing is told."""
    documents.load()
    with monkeypatch.context() as patched:
        patched.setattr(LOADING, "program_digest", lambda *_: ("another", 0))
        patched.setattr(LOADING, "from_whole_json", lambda _: pytest.fail("it is read"))
        assert documents.load()[2]
    assert not documents.told
    assert documents.load()[2], "the digest of this program is another one again"


def test_a_missing_file_of_the_program_is_a_change(documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch) -> None:
    library = documents.place / "library.py"
    library.touch()
    monkeypatch.setattr(LOADING, "loaded_files", lambda: [str(library)])
    documents.load()
    assert not documents.load()[2]
    library.write_text("# changed")
    assert documents.load()[2]
    library.unlink()
    monkeypatch.setattr(LOADING, "loaded_files", list)
    assert documents.load()[2]


def test_a_program_that_changed_while_it_started_is_not_remembered(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOADING, "START", 2.0)
    changed = documents.place / "library.py"
    changed.touch()
    monkeypatch.setattr(LOADING, "loaded_files", lambda: [str(changed)])
    documents.load(started=changed.stat().st_ctime + 1)
    assert documents.results() == []


def test_what_the_successor_of_a_running_program_wrote_is_not_taken(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = documents.place / "library.py"
    changed.touch()
    monkeypatch.setattr(LOADING, "loaded_files", lambda: [str(changed)])
    documents.load()
    monkeypatch.setattr(LOADING, "START", 2.0)
    assert documents.load(started=changed.stat().st_ctime + 1)[2]


def test_what_is_made_of_recalled_recipes_names_the_program_that_read_them(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = documents.place / "library.py"
    library.touch()
    monkeypatch.setattr(LOADING, "loaded_files", lambda: [str(library)])
    documents.load()
    (first,) = documents.results()
    monkeypatch.setattr(LOADING, "loaded_files", list)
    assert not documents.load()[2]
    target = PlatformTarget(documents.path("repositories.yaml"), "local")  # As that of `below` in memory.
    load_now(documents.path("below.yaml"), target, documents.store)
    (second,) = set(documents.results()) - {first}
    value = documents.store.recall(Digest(second.name))
    assert isinstance(value, dict)
    assert str(library) in value["programs"]
    assert {"pydantic", "yaml"} <= set(value["modules"])


def test_each_recipe_of_a_line_is_written_once(documents: RecipeDocuments) -> None:
    documents.path("sub").mkdir()  # A parent in another folder has other places for messages when it is loaded alone.
    for number in range(5):
        above = f"from: {'sub/' if number == 4 else ''}r{number - 1}.yaml\n" if number else ""
        text = f'name: r{number}\nversion: "1"\nplatform: local\nlayers: [{{name: l{number}, packages: [sed]}}]\n'
        text += f"values: {{marker: a-marker-{number}}}\n{above}"
        documents.path(f"r{number}.yaml" if number == 4 else f"sub/r{number}.yaml").write_text(text)
    target = PlatformTarget(documents.path("repositories.yaml"))
    whole = []
    for _ in range(2):
        documents.forget()
        load_now(documents.path("r4.yaml"), target, documents.store)
        whole.append(repr(load_recipe(documents.path("r4.yaml"), target)))
    assert whole[0] == whole[1]
    (kept,) = documents.results()
    for number in range(5):
        assert 1 <= kept.read_bytes().count(b"a-marker-%d" % number) <= 2


def test_large_recipes_are_not_remembered(documents: RecipeDocuments) -> None:
    documents.path("given.yaml").write_text(f"values: {{given: {'é' * (400 << 10)}}}\n")
    documents.path("more.yaml").write_text(MORE + f"values: {{more: {'é' * (400 << 10)}}}\n")
    documents.load()
    assert documents.results() == []


@pytest.mark.parametrize("error", [TypeError, ValueError, LookupError, OSError])
def test_what_cannot_be_remembered_is_no_error(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(_: object) -> None:
        raise error("no form")

    monkeypatch.setattr(LOADING, "to_whole_json", refuse)
    assert documents.load()[0].name == "top"
    assert documents.results() == []


@pytest.mark.parametrize("error", [ImportError, AttributeError, TypeError, ValueError, KeyError])
def test_what_cannot_be_read_from_the_store_is_read_anew(
    documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    documents.load()

    def refuse(_: object) -> None:
        raise error("no noun")

    with monkeypatch.context() as patched:
        patched.setattr(LOADING, "from_whole_json", refuse)
        assert documents.load()[2]
    assert any("another format" in text for text in documents.told)


def test_a_source_file_that_is_opened_is_not_remembered(documents: RecipeDocuments) -> None:
    """Its content is no part of what is compared."""
    documents.path("beside").touch()
    documents.path("given.yaml").write_text("files: [{source: beside, path: /etc/b}]\n")
    assert documents.load()[2]
    assert documents.load()[2]
    assert documents.results() == []


def test_a_full_disk_is_no_error(documents: RecipeDocuments, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "remember", full)
    assert documents.load()[0].name == "top"


_LOAD = """
import json, sys, time
from pathlib import Path
from pipeline.recipes import PlatformTarget, document_loading, loading_documents
from pipeline.store import Store
sys.modules["pipeline.recipes.document_loading"].START = -3600.0
folder = Path(sys.argv[1])
target = PlatformTarget(folder / "recipes/repositories.yaml")
store = Store.open(folder / "store")
with loading_documents(folder / "recipes/top.yaml", target, store, started=time.time()) as loading:
    loading.finish()
print(json.dumps(sorted(sys.modules)))
"""


def test_an_unchanged_recipe_loads_nothing_that_reads_recipes(documents: RecipeDocuments) -> None:
    heavy = {"jinja2", "pydantic", "pydantic_core", "yaml", "pipeline.recipes.merge", "pipeline.recipes.platforms"}
    loaded = []
    for _ in range(2):
        words = [sys.executable, "-c", _LOAD, str(documents.place)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        loaded.append(heavy & set(json.loads(done.stdout)))
    assert loaded == [heavy, set()]
