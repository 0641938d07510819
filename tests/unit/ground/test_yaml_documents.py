"""Documents: YAML with places, safe and bounded."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import yaml_documents
from pipeline.errors import RecipeError
from pipeline.yaml_documents import load_yaml, parse_yaml


def test_numbers_are_known_as_they_were_written() -> None:
    document = parse_yaml('a: {b: [1.10, "1.10", x], c: 0o17}\nd: True\ne: ~\nf: 1\n', "r.yaml")
    assert document.numbers == {("a", "b", 0): "1.10", ("a", "c"): "0o17", ("d",): "True", ("f",): "1"}
    assert document.part(document.value, "a").numbers == {("b", 0): "1.10", ("c",): "0o17"}


def refused(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "r.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30:45", "12:30:45"),
        ("2026-01-02", "2026-01-02"),
        ("0644", 644),
        ("0o644", 0o644),
        ("0x1F", 31),
        ("+1", 1),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        (".5e1", 5.0),
        ("-.inf", -math.inf),
        ("~", None),
        ("", None),
        ("True", True),
        ("'true'", "true"),
        ('"1"', "1"),
        ("|\n 1\n", "1\n"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    parsed = parse_yaml(text, "r.yaml").value
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_key_is_its_text() -> None:
    assert parse_yaml("1: a\nyes: b\nnull: c\n", "r.yaml").value == {"1": "a", "yes": "b", "null": "c"}


def test_a_place_is_the_line_of_the_key_or_item() -> None:
    document = parse_yaml("a:\n  - x\n  -\n    b: |\n      text\n    c: 1\n", "r.yaml")
    assert document.place(("a",)) == "r.yaml:1"
    assert document.place(("a", 0)) == "r.yaml:2"
    assert document.place(("a", 1, "b")) == "r.yaml:4"
    assert document.place(("a", 1, "c")) == "r.yaml:6"


def test_the_place_of_what_does_not_exist_is_what_is_around_it() -> None:
    document = parse_yaml("a:\n  b: 1\n", "r.yaml")
    assert document.place(("a", "nothing", 3)) == "r.yaml:1"
    assert document.place(("nothing",)) == "r.yaml:1"
    assert parse_yaml("", "empty.yaml").place(("a",)) == "empty.yaml"


@pytest.mark.parametrize(
    ("text", "code", "place", "hint"),
    [
        ("a: 1\nb: 2\na: 3\n", "yaml-duplicate-key", "r.yaml:3:1", "merge"),
        ("a: {x: 1, 'x': 2}", "yaml-duplicate-key", "r.yaml:1:11", "merge"),
        ("a: !!str 1", "yaml-tag", "r.yaml:1:4", "quote"),
        ("a: !custom {}", "yaml-tag", "r.yaml:1:4", "quote"),
        ("a: &x 1", "yaml-alias", "r.yaml:1:4", "'&'"),
        ("a: 1\nb: *x", "yaml-alias", "r.yaml:2:4", "'*'"),
        ("a:\n  <<: {}", "yaml-alias", "r.yaml:2:3", "include"),
        ("a: {{ version }}", "yaml-key", "r.yaml:1:5", "double quotes"),
        ("? [1]\n: 2", "yaml-key", "r.yaml:1:3", "double quotes"),
        ("a: b: c", "yaml-syntax", "r.yaml:1:5", "quotes"),
        ("a:\n\tb: 1", "yaml-syntax", "r.yaml:2:1", "spaces"),
        ("a: @b", "yaml-syntax", "r.yaml:1:4", "'@'"),
        ("a: 1\n---\nb: 2", "yaml-syntax", "r.yaml:2:1", "one document"),
        ("a: [1,", "yaml-syntax", "r.yaml:2:1", "brackets"),
        ('a: [x\nb: "{{ y }}"\n', "yaml-syntax", "r.yaml:2:2", "close the '[' of line 1 with ']'"),
        ('a:\n  b: {x: 1\n  c: "{{ y }}"\n', "yaml-syntax", "r.yaml:3:4", "close the '{' of line 2 with '}'"),
        ("a: [x}\n", "yaml-syntax", "r.yaml:1:6", "close the '[' of line 1 with ']'"),
        ('a: "x\nb: "{{ y }}"\n', "yaml-syntax", "r.yaml:2:5", "check the quotes"),
        ("a: " + "9" * 65, "yaml-number", "r.yaml:1:4", "quotes"),
        ("a: \x07", "yaml-encoding", "r.yaml:1:4", "escape"),
        ("[" * 40 + "]" * 40, "yaml-too-deep", "r.yaml:1:34", None),
    ],
)
def test_what_a_recipe_does_not_need_is_refused(text: str, code: str, place: str, hint: str | None) -> None:
    (problem,) = refused(text).problems[:1]
    assert (problem.code, problem.place) == (code, place)
    if hint is None:
        assert problem.hint is None
    else:
        assert hint in (problem.hint or "")


@pytest.mark.parametrize("text", ["a: {{ b['c'].d }}", "a: {{ b\n", "a: {{ b }}-1\n"])
def test_a_template_without_quotes_is_told_to_need_them_by_each_problem(text: str) -> None:
    problems = refused(text).problems
    assert problems[-1].code == "yaml-syntax"
    assert all("double quotes" in (problem.hint or "") for problem in problems)


def test_all_problems_are_reported_at_once() -> None:
    error = refused("a: 1\na: 2\nb: !!x 3\nc: &d 4\ne: [\n")
    assert [problem.code for problem in error.problems] == [
        "yaml-duplicate-key",
        "yaml-tag",
        "yaml-alias",
        "yaml-syntax",
    ]


def test_a_merge_key_in_quotes_is_a_key() -> None:
    assert parse_yaml("'<<': 1", "r.yaml").value == {"<<": 1}


def test_nesting_up_to_the_limit_is_read() -> None:
    depth = yaml_documents.YAML_DEPTH_LIMIT
    value = parse_yaml("[" * depth + "]" * depth, "r.yaml").value
    for _ in range(depth - 1):
        assert isinstance(value, list)
        value = value[0]
    assert value == []


def test_too_many_values_are_refused() -> None:
    assert refused("- a\n" * (yaml_documents.YAML_NODE_LIMIT + 1)).code == "yaml-too-large"


def test_problems_are_bounded() -> None:
    error = refused("".join(f"k{number}: &a 1\n" for number in range(1000)))
    assert len(error.problems) == yaml_documents.YAML_PROBLEM_LIMIT


def test_a_large_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError) as caught:
        load_yaml(path)
    assert caught.value.code == "yaml-too-large"
    assert "source" in (caught.value.problems[0].hint or "")


def test_a_file_that_is_no_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(RecipeError) as caught:
        load_yaml(path)
    assert (caught.value.code, caught.value.problems[0].place) == ("yaml-encoding", "r.yaml:2")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as missing:
        load_yaml(tmp_path / "none.yaml")
    assert (missing.value.code, missing.value.problems[0].place) == ("document-missing", "none.yaml")
    with pytest.raises(RecipeError) as folder:
        load_yaml(tmp_path, "folder")
    assert folder.value.code == "document-unreadable"


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_yaml(path).value == {"a": 1}


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_with_a_place(text: str) -> None:
    try:
        parse_yaml(text, "r.yaml")
    except RecipeError as error:
        assert all((problem.place or "").startswith("r.yaml") for problem in error.problems)


@given(st.lists(st.sampled_from(["plain", "'quoted'", "[1, 2]", "{x: 1}", "", "|\n    two\n    lines"]), min_size=1))
def test_every_item_is_placed_where_its_line_is(items: list[str]) -> None:
    text, lines, line = "", [], 1
    for item in items:
        written = f"- {item}\n"
        lines.append(line)
        line += written.count("\n")
        text += written
    document = parse_yaml(text, "r.yaml")
    assert [document.place((index,)) for index in range(len(items))] == [f"r.yaml:{line}" for line in lines]
