"""Recipes that were written to do harm end with relbuild's own errors, each with its place, never with a traceback."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import RecipeError
from pipeline.recipes import load_platforms, load_recipe, load_rules, recipe_name
from pipeline.yaml_documents import parse_yaml
from tests.support.examples import FAST
from tests.support.recipe_folder import GOOD
from tests.support.sampling import drawn

BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{above}: &{above} [*{below}, *{below}, *{below}]\n" for below, above in zip("abcdefgh", "bcdefghi", strict=True)
)


DOCUMENTS = {
    "aliases that multiply": (BOMB, "yaml-alias"),
    "an alias to itself": ("a: &a [*a]\n", "yaml-alias"),
    "a merge key": (GOOD + "values:\n  <<: {a: 1}\n", "yaml-alias"),
    "merge keys in merge keys": ("<<: {<<: {<<: {a: 1}}}\n", "yaml-alias"),
    "deep brackets": ("[" * 200_000, "yaml-too-deep"),
    "deep braces": ("{a: " * 100_000, "yaml-too-deep"),
    "deep dashes": ("- " * 200_000, "yaml-too-deep"),
    "deep indentation": ("".join(" " * depth + "a:\n" for depth in range(1000)), "yaml-too-deep"),
    "deep keys": ("? " * 100_000, "yaml-key"),
    "a text that is too long": ("a: " + "x" * (1 << 20), "yaml-too-large"),
    "very many values": ("a: [" + "1," * 200_000 + "]", "yaml-too-large"),
    "one key, again and again": (GOOD + "name: x\n" * 1000, "yaml-duplicate-key"),
    "half a surrogate pair": ('name: "\\ud800"\n', ""),
    "a null": ("name: a\0b\n", "yaml-encoding"),
    "a null as an escape": (GOOD.replace("demo", '"a\\0b"'), "name-malformed"),
    "escapes for a terminal": (GOOD.replace("demo", '"\\e[31m\\u202e"'), "name-malformed"),
    "a Python object": ("name: !!python/object/apply:os.system [id]\n", "yaml-tag"),
    "a tag of its own": ("name: !<tag:evil> x\n", "yaml-tag"),
    "a tag that is not declared": ("name: !evil!x y\n", "yaml-syntax"),
    "a declared tag": ("%TAG ! tag:evil,2000:\n---\nname: !x y\n", "yaml-tag"),
    "binary": ("name: !!binary aGk=\n", "yaml-tag"),
    "another YAML": ("%YAML 9.9\n---\nname: a\n", "yaml-syntax"),
    "several documents": ("name: a\n---\nname: b\n", "yaml-syntax"),
    "5,000 digits": (GOOD + f"values: {{a: {'9' * 5000}}}\n", "yaml-number"),
    "5,000 hexadecimal digits": (GOOD + f"values: {{a: 0x{'f' * 5000}}}\n", "yaml-number"),
    "an exponent": (GOOD + "values: {a: 1e999}\n", "value-not-finite"),
    "no number": (GOOD + "values: {a: .nan}\n", "value-not-finite"),
    "a list as a key": ("[a, b]: c\n", "yaml-key"),
    "a null as a key": (GOOD + "~: c\n", ""),
    "a long key": (GOOD + f"{'k' * 900}: c\n", "key-unknown"),
    "a key of a megabyte": (f"? {'k' * 500_000}\n: c\n", ""),
    "very many keys": (GOOD + "".join(f"key{n}: 1\n" for n in range(10_000)), "key-unknown"),
    "a file with very many keys": (
        GOOD + "files:\n" + "".join(f"- {{source{n}: 1}}\n" for n in range(5_000)),
        "key-unknown",
    ),
    "no mapping": ("- a\n", ""),
    "a text alone": ("text", ""),
    "nothing": ("", ""),
    "comments": ("# nothing\n", ""),
    "an open quote": ('name: "x', "yaml-syntax"),
    "a tab": ("a:\n\tb: c\n", "yaml-syntax"),
    "UTF-16": ("name: a\n".encode("utf-16"), "yaml-encoding"),
    "Latin-1": (b"name: \xe9\n", "yaml-encoding"),
    "an overlong form": (b"name: \xc0\xaf\n", "yaml-encoding"),
    "a mark in the middle": (b"name: a\n\xef\xbb\xbfb: c\n", ""),
}


def held(error: RecipeError, name: str = "demo.yaml") -> set[str]:
    """The codes of an error in which everything has its place and is of a length that people read."""
    assert error.exit_code == 3 and 0 < len(error.problems) <= 51
    for problem in error.problems:
        assert problem.place and problem.place.startswith(name), problem
        assert problem.code == problem.code.lower() and len(problem.message) < 2500, problem
    return {problem.code for problem in error.problems}


@pytest.mark.parametrize(("document", "code"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_hostile_document_is_refused_with_its_place(tmp_path: Path, document: str | bytes, code: str) -> None:
    """`code`: "" where any will do."""
    path = tmp_path / "demo.yaml"
    path.write_bytes(document if isinstance(document, bytes) else document.encode())
    loaders: tuple[Callable[[Path], object], ...] = (load_recipe, load_platforms, load_rules)
    for load in loaders:
        try:
            load(path)
        except RecipeError as error:
            codes = held(error)
            assert load is not load_recipe or not code or code in codes, codes
        else:
            assert load is load_rules, "only a file of rules may say nothing"


# --- what the keys of a recipe may be given -----------------------------------------------------

FULL: dict[str, object] = {
    "name": "demo",
    "version": "1",
    "platform": "local",
    "architectures": ["x86_64"],
    "end-of-life": "2030-01-01",
    "layers": [{"name": "base", "packages": ["bash", {"path": "a.rpm", "sha256": "a" * 64}], "without": ["docs"]}],
    "accounts": {"users": [{"name": "u", "uid": 27, "home": "/var/lib/u"}], "groups": [{"name": "g", "gid": 28}]},
    "files": [
        {"content": "x", "path": "/etc/x", "mode": "0644", "owner": "u"},
        {"url": "https://example/x", "sha256": "b" * 64, "path": "/etc/y"},
        {"directory": "/srv/d"},
        {"symlink": "a", "path": "/srv/l"},
    ],
    "remove": ["/usr/share/doc/x"],
    "values": {"a": 1, "deep": {"b": ["c"]}},
    "exclude": ["perl*"],
    "pins": {"bash": "5.2"},
    "languages": ["de"],
    "modules": ["nodejs:20"],
    "assume-installed": ["systemd"],
    "image": {
        "entrypoint": ["/usr/bin/bash"],
        "user": "u",
        "environment": {"A": "b"},
        "exposed_ports": [80, "53/udp"],
        "volumes": ["/srv/v"],
        "stop_signal": "SIGTERM",
        "working_directory": "/srv",
        "labels": {"a": "b"},
    },
    "smoke": {
        "limits": {"cpus": 1, "memory": "1GiB", "pids": 20, "bandwidth": "10mbit", "volume": "10MiB"},
        "instances": 2,
        "ready": {"port": 80, "within": "6s"},
        "checks": [
            {"name": "answers", "command": ["true"], "expect": {"stdout": "1", "exit_code": 0}},
            {"name": "page", "http": {"port": 80, "path": "/"}, "expect": {"status": 200, "body": {"matches": "a"}}},
            {"name": "stops", "stop": {"within": "2s", "exit_code": 0}},
        ],
    },
}

VALUES = {
    "nothing": None,
    "a list of lists": [[[[]]]],
    "a mapping": {"\u202e": {"a": [1]}},
    "a large number": 10**60,
    "a small number": -(10**60),
    "a float": 1e308,
    "a truth": True,
    "an empty text": "",
    "a long text": "x" * 100_000,
    "digits": "9" * 5000,
    "a null": "a\0b",
    "an escape": "\x1b[31m\u202e\u2028",
    "a path out": "../../../../etc/shadow",
    "the root": "/",
    "many slashes": "/" * 5000,
    "a template": "{{ values.nope }}",
    "an open template": "{{ {% {#",
    "a template that runs": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "a bad pattern": "(" * 500,
    "a percent": "%s%n{0}{a.__class__}",
    "a pattern of counts": "a{99999999999999999999}",
    "a size": "9" * 400 + "GiB",
    "a time": "1" * 300 + "h",
    "other digits": "٣",
}


def _leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a document, containers included."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _leaves(item, (*path, key))


def _with(path: tuple[str | int, ...], value: object) -> dict[str, object]:
    changed = copy.deepcopy(FULL)
    target: object = changed
    for step in path[:-1]:
        target = target[step]  # type: ignore[index]
    target[path[-1]] = value  # type: ignore[index]
    return changed


def test_the_full_recipe_is_good(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(json.dumps(FULL))
    assert load_recipe(tmp_path / "demo.yaml").smoke.checks


PLACES = tuple(_leaves(FULL))


@pytest.mark.parametrize("name", VALUES)
def test_each_key_takes_or_refuses_a_hostile_value(tmp_path: Path, name: str) -> None:
    path, value = tmp_path / "demo.yaml", VALUES[name]
    for place in drawn(f"keys for {name}", PLACES, len(PLACES) // 4 if FAST else len(PLACES)):
        path.write_text(json.dumps(_with(place, value)))
        try:
            load_recipe(path)
        except RecipeError as error:
            held(error)


# --- recipes of several files -------------------------------------------------------------------


CHAIN = {f"a{number}.yaml": f"include: [a{number + 1}.yaml]" for number in range(30)}
MANY = {f"a{number}.yaml": "values: {}" for number in range(100)}
FILES: dict[str, tuple[dict[str, str], str]] = {
    "itself": ({"demo.yaml": "include: [demo.yaml]"}, "include-cycle"),
    "a circle": ({"demo.yaml": "include: [a.yaml]", "a.yaml": "include: [demo.yaml]"}, "include-cycle"),
    "deep": ({"demo.yaml": "include: [a0.yaml]"} | CHAIN, "include-too-deep"),
    "many": ({"demo.yaml": f"include: [{', '.join(MANY)}]"} | MANY, "include-too-deep"),
    "from itself": ({"demo.yaml": "from: demo"}, "from-cycle"),
    "from a circle": ({"demo.yaml": "from: a", "a.yaml": GOOD.replace("demo", "a") + "from: demo\n"}, "from-cycle"),
    "a null": ({"demo.yaml": 'include: ["a\\0.yaml"]'}, "type-wrong"),
    "absolute": ({"demo.yaml": "include: [/etc/passwd]"}, "include-absolute"),
    "parts": ({"demo.yaml": f"include: [{'a/' * 3000}b.yaml]"}, "include-missing"),
    "above": ({"demo.yaml": f"include: [{'../' * 3000}b.yaml]"}, "path-escapes"),
    "a long name": ({"demo.yaml": f"from: {'n' * 5000}"}, "from-missing"),
    "a long path": ({"demo.yaml": f"from: {'n/' * 3000}b"}, "from-missing"),
    "a bad one": ({"demo.yaml": "include: [a.yaml]", "a.yaml": "[" * 100_000}, "yaml-too-deep"),
    "a long source": ({"demo.yaml": f"files: [{{source: {'s/' * 3000}b, path: /etc/x}}]"}, "source-missing"),
    "a long template": ({"demo.yaml": f"files: [{{template: {'s/' * 3000}b, path: /etc/x}}]"}, "template-missing"),
}


@pytest.mark.parametrize(("files", "code"), FILES.values(), ids=FILES)
def test_recipes_of_many_files_end(tmp_path: Path, files: dict[str, str], code: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(GOOD + text + "\n" if name == "demo.yaml" else text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "demo.yaml")
    codes = {problem.code for problem in caught.value.problems}
    assert not code or code in codes, codes
    assert all(problem.place and len(problem.message) < 20_000 for problem in caught.value.problems)


# --- anything at all ----------------------------------------------------------------------------


@given(st.text(st.characters()) | st.text(st.sampled_from("a:-[]{}&*!|>'\"%@`#?,<~.\n\t 01\0\u2028\x85")))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_document_or_an_error_with_its_place(text: str) -> None:
    try:
        parse_yaml(text, "demo.yaml")
    except RecipeError as error:
        held(error)


@pytest.mark.parametrize("read", [load_recipe, recipe_name])
def test_a_recipe_whose_name_no_document_can_have_is_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    """The image was built before it failed; a folder's name may be any, as no document has it."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "repositories.yaml").write_text("platforms: {p: {repositories: {}}}\n")
    path = folder / os.fsdecode(b"l\xe9n.yaml")
    path.write_text("name: one\n")
    with pytest.raises(RecipeError) as caught:
        read(path)
    (problem,) = caught.value.problems
    assert (problem.code, problem.hint) == ("recipe-name-encoding", "rename the file")
    assert r"'l\xe9n.yaml'" in problem.message
    path.rename(folder / "lén.yaml")
    assert recipe_name(folder / "lén.yaml") == "one"
