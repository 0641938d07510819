"""A relbuild that changed, at whatever depth, is noticed by the night after it."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.nightly import inputs, no_change, relbuild_digest
from pipeline.nightly.formats import DOCUMENT_FORMATS, IMAGE_FORMATS, TEST_FORMATS
from pipeline.nightly.inputs import image_inputs
from pipeline.nightly.no_change import request_digest
from pipeline.nightly.relbuild_digest import code_digest, folder_digest
from pipeline.packages import library_files, library_version
from pipeline.recipes import load_recipe
from tests.support.source import trees

ROOT = Path(__file__).parents[3]
RECIPE = load_recipe(ROOT / "recipes" / "nginx.yaml")

LAYER_FORMATS = "pipeline.layers.layer_formats"
"""Numbers that other modules import as theirs."""

NO_FORMATS = {
    "pipeline.packages.rpm_header._SCRIPT_QUERY_FORMAT",  # A bit of rpm's.
    "pipeline.packages.rpmdb_writer._WRITER_VERSION",  # Of SQLite; `state.FORMAT` stands for it.
    "pipeline.resolve.file_lists._FORMAT",  # Of what is remembered of file lists, which say the same in any format.
}


def _constants() -> Iterator[str]:
    """Every constant of the code that is named as a format, schema or version and holds a number.

    One that a module imports under such a name is that module's.
    """
    for path, tree in trees().items():
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and _is_number(node.value):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    name = ast.unparse(target)
                    if module != LAYER_FORMATS and name.isupper() and re.search(r"FORMAT|SCHEMA|VERSION", name):
                        yield f"{module}.{name}"
            elif isinstance(node, ast.ImportFrom) and node.module == LAYER_FORMATS:
                yield from (f"{module}.{one.asname}" for one in node.names if one.asname)


def _is_number(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant | ast.BinOp) and not isinstance(getattr(value, "value", 0), str)


def test_every_format_is_declared_by_what_it_means_for_a_night() -> None:
    found = set(_constants())
    assert found >= {"pipeline.FORMAT", "pipeline.layers.segments.FORMAT", "pipeline.launch.FORMAT"}
    declared = [*IMAGE_FORMATS, *TEST_FORMATS, *DOCUMENT_FORMATS, *NO_FORMATS]
    assert len(declared) == len(set(declared)), "a format stands in one table"
    assert found - set(declared) == set(), "declare it in pipeline/nightly/formats.py"
    assert set(declared) - found == set(), "it is gone"


def test_what_is_declared_is_what_the_code_has() -> None:
    for name, value in {**IMAGE_FORMATS, **TEST_FORMATS}.items():
        assert _number(name) == value, name
    assert all(isinstance(_number(name), int) for name in DOCUMENT_FORMATS)


def _number(name: str) -> object:
    module, _, constant = name.rpartition(".")
    return getattr(importlib.import_module(module), constant)


def test_every_number_of_layers_is_a_modules_own() -> None:
    numbers = {name for name in vars(importlib.import_module(LAYER_FORMATS)) if name.isupper()}
    imported = [
        (one.name, module)
        for module, tree in trees().items()
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == LAYER_FORMATS
        for one in node.names
        if one.asname
    ]
    assert sorted(numbers) == sorted(name for name, _ in imported), "each number is one module's FORMAT"


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_a_raised_format_of_layers_builds_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = image_inputs(RECIPE, Compression.GZIP, "key")
    monkeypatch.setattr(inputs, "IMAGE_FORMATS", {**IMAGE_FORMATS, name: IMAGE_FORMATS[name] + 1})
    now = image_inputs(RECIPE, Compression.GZIP, "key")
    assert {fact for fact in before if before[fact] != now[fact]} == {"formats"}


@pytest.mark.parametrize("name", TEST_FORMATS)
def test_a_raised_format_of_tests_tests_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs.test_inputs(RECIPE, "runc 1", full=False)
    monkeypatch.setattr(inputs, "TEST_FORMATS", {**TEST_FORMATS, name: TEST_FORMATS[name] + 1})
    now = inputs.test_inputs(RECIPE, "runc 1", full=False)
    assert {fact for fact in before if before[fact] != now[fact]} == {"checks"}


LIBRARY_VERSIONS = importlib.import_module("pipeline.resolve.library_versions")


@pytest.mark.parametrize("library", ["deflate", "solv", "zstandard", "Jinja2"])
def test_another_library_builds_anew_and_is_no_quiet_night(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, facts = request_digest({}), image_inputs(RECIPE, Compression.GZIP, "key")
    own = importlib.metadata.version
    for module, name in ((importlib.metadata, "version"), (LIBRARY_VERSIONS, "distribution_version")):
        monkeypatch.setattr(module, name, lambda name: "999" if name == library else own(name))
    assert request_digest({}) != before
    assert image_inputs(RECIPE, Compression.GZIP, "key")["formats"] != facts["formats"]


def test_a_relbuild_that_changed_below_its_formats_is_no_quiet_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "segments.py").write_text("FORMAT = 1\n")
    (tmp_path / "page.html.j2").write_text("a page")
    first = folder_digest(tmp_path)
    (tmp_path / "layers" / "segments.pyc").write_text("compiled")
    (tmp_path / "layers" / "__pycache__").mkdir()
    (tmp_path / "layers" / "__pycache__" / "segments.cpython-311.pyc.140157651642416").write_text("half compil")
    assert folder_digest(tmp_path) == first
    (tmp_path / "layers" / "segments.py").write_text("FORMAT = 2\n")
    second = folder_digest(tmp_path)
    (tmp_path / "page.html.j2").write_text("another page")
    assert len({first, second, folder_digest(tmp_path)}) == 3
    before = request_digest({})
    monkeypatch.setattr(no_change, "code_digest", lambda: second)
    assert request_digest({}) != before
    assert relbuild_digest.code_digest() == code_digest() == folder_digest(ROOT / "pipeline")


def test_another_rpm_library_is_noticed_by_its_files(tmp_path: Path) -> None:
    assert library_version()
    assert any(path.name.startswith("librpm.so") for path in library_files())
    (tmp_path / "librpm.so.9").write_bytes(b"one")
    seen = no_change.take_snapshot(
        request_digest({}),
        files=(),
        folders=(),
        documents=(),
        programs=(tmp_path / "librpm.so.9",),
        environment={},
        tags=(),
    )
    assert no_change._holds(seen, {}, lambda url, limit: b"", lambda product, tag: None)
    (tmp_path / "librpm.so.9").write_bytes(b"another")
    assert not no_change._holds(seen, {}, lambda url, limit: b"", lambda product, tag: None)
