"""License tags mean the same whether the library knows all its licences, a few, or the store remembers."""

from __future__ import annotations

import re
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
    prepare_licences(TAGS, store)
    _forget(monkeypatch)
    prepare_licences(reversed([*TAGS, *TAGS]), store)
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


def test_a_changed_library_is_asked_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_licences(TAGS, store)
    library = licences._library()
    monkeypatch.setattr(licences, "_library", lambda: {"other": library})
    _forget(monkeypatch)
    with pytest.raises(AssertionError, match="parsed"):
        prepare_licences(TAGS, store)


def test_the_library_is_known_by_all_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "licence_library_made_up"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    index = package / "data" / "index.json"
    index.write_text("[]")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(licences, "_LIBRARY", (package.name,))
    before = licences._library.__wrapped__()
    assert licences._library.__wrapped__() == before
    index.write_text("[1]")
    assert licences._library.__wrapped__() != before


def test_damaged_and_foreign_results_are_not_believed(store: Store, tmp_path: Path) -> None:
    prepare_licences(TAGS, store)
    (path,) = _results(store)
    sound = path.read_bytes()
    other = Store.open(tmp_path / "other")
    prepare_licences(TAGS, other)
    (foreign,) = _results(other)
    for data in (sound.replace(b"MIT", b"ISC"), foreign.read_bytes(), b""):
        path.write_bytes(data)
        licences._remembered.clear()
        prepare_licences(TAGS, store)
        assert meaning("MIT") == Licence("MIT", ())


@pytest.mark.parametrize("value", [{"meanings": []}, {"meanings": "MIT"}, {}, [], None, {"meanings": [{}]}])
def test_results_of_another_form_are_not_believed(value: object, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "recall", lambda *_: value)
    prepare_licences(TAGS, store)
    assert [meaning(tag) for tag in TAGS] == [with_whole_list(tag) for tag in TAGS]
