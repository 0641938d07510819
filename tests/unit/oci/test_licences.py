"""License tags mean the same whether the library knows all its licences, a few, or the store remembers."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_expression import LicenseSymbol, Licensing
from spdx_tools.common.spdx_licensing import spdx_licensing

from pipeline.oci import licences
from pipeline.oci.licences import Licence, licence_expression, licence_references, own_licence, prepare_licences
from pipeline.snapshots import START
from pipeline.store import Store

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
NAMES = sorted({name for symbol in spdx_licensing.known_symbols.values() for name in (symbol.key, *symbol.aliases)})
OTHERS = (
    "GPLv2+",
    "See COPYING",
    "LicenseRef-Fedora-Public-Domain",
    "LicenseRef-scancode-x",
    "&",
    ",",
    "İ",
    "2.0",
    "\n",
)
NOW = 2e9
"""Seconds since the epoch, long after the library's files were changed."""
TAGS = ("MIT", "GPLv2+", "MIT AND LicenseRef-Fedora-Public-Domain", "", "(MIT")


@cache
def whole_list() -> Licensing:
    """Return the library with all its licences, as its makers give it, without `LicenseRef-`."""
    return Licensing(
        [
            LicenseSymbol(
                symbol.key,
                aliases=tuple(alias for alias in symbol.aliases if not _REFERENCE.fullmatch(alias)),
                is_exception=symbol.is_exception,
            )
            for key, symbol in sorted(spdx_licensing.known_symbols.items())
            if not _REFERENCE.fullmatch(key)
        ]
    )


def with_whole_list(tag: str) -> Licence:
    """Return what a tag means by the whole list."""
    try:
        parsed = whole_list().parse(tag, strict=True)
        unknown = whole_list().unknown_license_keys(parsed)
    except Exception:
        return Licence(None, ())
    if parsed is None or not all(_REFERENCE.fullmatch(key) for key in unknown):
        return Licence(None, ())
    return Licence(str(parsed), tuple(sorted(unknown)))


def meaning(tag: str) -> Licence:
    return Licence(licence_expression(tag), licence_references(tag))


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    licences._remembered.clear()
    licences._parsed.cache_clear()
    yield
    licences._remembered.clear()
    licences._parsed.cache_clear()


def test_each_name_of_the_list_means_the_same_as_with_the_whole_list() -> None:
    assert len(NAMES) > 2000
    for tag in NAMES:
        assert meaning(tag) == with_whole_list(tag), tag


WORDS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from(name.split())).map(str.upper),
    st.sampled_from(["and", "AND", "or", "OR", "with", "WITH", "(", ")"]),
    st.sampled_from(OTHERS),
)
SIMPLE = st.one_of(st.sampled_from(NAMES), st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)).map(" WITH ".join))
EXPRESSIONS = st.recursive(
    SIMPLE,
    lambda inner: st.tuples(st.sampled_from([" AND ", " or "]), st.lists(inner, min_size=2, max_size=3)).map(
        lambda both: f"({both[0].join(both[1])})"
    ),
)


@given(st.one_of(EXPRESSIONS, st.lists(st.tuples(WORDS, st.sampled_from([" ", "", "  "])), max_size=9).map(
    lambda words: "".join(text for word in words for text in word))))  # fmt: skip
def test_any_tag_means_the_same_as_with_the_whole_list(tag: str) -> None:
    assert meaning(tag) == with_whole_list(tag)


@given(st.text())
def test_our_own_name_of_a_tag_is_an_expression(tag: str) -> None:
    name = own_licence(tag)
    assert str(whole_list().parse(name, strict=True)) == name


def test_what_tags_mean_is_recalled_without_the_library(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [meaning(tag) for tag in TAGS]
    prepare_licences(TAGS, store, NOW)
    _forget(monkeypatch)
    prepare_licences(reversed([*TAGS, *TAGS]), store, NOW)
    assert [meaning(tag) for tag in TAGS] == before
    with pytest.raises(AssertionError, match="parsed"):
        licence_expression("ISC")


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget all that is kept in memory, and parse nothing from now on."""

    def parse(tag: str) -> Licence:
        raise AssertionError(f"parsed {tag}")

    licences._remembered.clear()
    monkeypatch.setattr(licences, "_parsed", parse)


def _results(store: Store) -> list[Path]:
    return [path for path in (store.root / "results").rglob("*") if path.is_file()]


def test_a_changed_library_or_parser_is_asked_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_licences(TAGS, store, NOW)
    _forget(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(licences, "version", lambda name: f"2 of {name}")
        with pytest.raises(AssertionError, match="parsed"):
            prepare_licences(TAGS, store, NOW)
    other = tmp_path / "licences.py"
    other.write_bytes(Path(licences.__file__).read_bytes().replace(b"4096", b"4095"))
    with monkeypatch.context() as patched:
        patched.setattr(licences, "_MODULE", other)
        with pytest.raises(AssertionError, match="parsed"):
            prepare_licences(TAGS, store, NOW)
    prepare_licences(TAGS, store, NOW)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in the place of the library."""
    package = tmp_path / "licence_library_made_up"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "data" / "index.json").write_text("[]")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(licences, "_LIBRARY", (package.name,))
    return package


def test_the_library_is_known_by_all_of_its_files(library: Path) -> None:
    before = licences._files_before(NOW)
    assert licences._files_before(NOW) == before is not None
    (library / "data" / "index.json").write_text("[1]")
    changed = licences._files_before(NOW)
    assert changed not in (before, None)
    (library / "more.py").write_text("")
    assert licences._files_before(NOW) not in (before, changed, None)


@pytest.mark.parametrize("change", ["a file is written", "a file is removed"])
def test_nothing_is_remembered_by_files_that_changed_since_the_process_began(
    change: str, library: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have loaded the library before."""
    (library / "more.py").write_text("")
    newest = max(path.stat().st_ctime for path in (library, *library.rglob("*")))
    began = newest + START + 0.002
    assert licences._files_before(began) is not None
    time.sleep(0.02)  # The clock of files moves on.
    if change == "a file is written":
        (library / "data" / "index.json").write_text("[1]")
    else:
        (library / "more.py").unlink()
    monkeypatch.setattr(licences, "process_started", lambda _: began)
    prepare_licences(TAGS, store, NOW)
    assert not _results(store) and meaning("MIT") == Licence("MIT", ())


@pytest.mark.parametrize("case", ["a link to nothing", "no files, as in an archive", "no library"])
def test_nothing_is_remembered_where_the_librarys_files_are_not_known(case: str, library: Path, store: Store) -> None:
    if case == "a link to nothing":
        (library / ".#lock.py").symlink_to("nothing")
    elif case == "no library":
        shutil.rmtree(library)
    else:
        for path in [path for path in library.rglob("*") if path.is_file()]:
            path.rename(path.with_suffix(".other"))
    prepare_licences(TAGS, store, NOW)
    assert not _results(store) and meaning("MIT") == Licence("MIT", ())


def test_what_changes_while_tags_are_parsed_is_not_remembered(
    library: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = licences._parsed

    def parse(tag: str) -> Licence:
        (library / "data" / "index.json").write_text("[1]")
        return real(tag)

    with monkeypatch.context() as patched:
        patched.setattr(licences, "_parsed", parse)
        prepare_licences(TAGS, store, NOW)
    assert not _results(store)
    prepare_licences(TAGS, store, NOW)
    assert _results(store)


def test_damaged_and_foreign_results_are_not_believed(store: Store, tmp_path: Path) -> None:
    prepare_licences(TAGS, store, NOW)
    (path,) = _results(store)
    sound = path.read_bytes()
    other = Store.open(tmp_path / "other")
    prepare_licences(TAGS, other, NOW)
    (foreign,) = _results(other)
    for data in (sound.replace(b"MIT", b"ISC"), foreign.read_bytes(), b""):
        path.write_bytes(data)
        licences._remembered.clear()
        prepare_licences(TAGS, store, NOW)
        assert meaning("MIT") == Licence("MIT", ())


@pytest.mark.parametrize("value", [{"meanings": []}, {"meanings": "MIT"}, {}, [], None, {"meanings": [{}]}])
def test_results_of_another_form_are_not_believed(value: object, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "recall", lambda *_: value)
    prepare_licences(TAGS, store, NOW)
    assert [meaning(tag) for tag in TAGS] == [with_whole_list(tag) for tag in TAGS]
