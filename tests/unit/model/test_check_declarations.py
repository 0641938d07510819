"""Each kind of check is declared in one module, and everything that a kind needs is made from that."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from pipeline.model import checks
from pipeline.model.check_kind import CheckDeclaration, Effect, Expectation
from pipeline.model.checks import ANSWERS, CHECK_KINDS, SUBJECTS, CheckKind, declaration
from pipeline.model.document_keys import keys_of
from pipeline.model.plan_form import plan_value, read_plan
from pipeline.model.probe import Probe
from pipeline.model.smoke import Check, SmokePlan
from pipeline.recipes.check_schema import CheckDocument, ReadyDocument
from pipeline.recipes.reference import flow_yaml
from pipeline.smoke.instance_probe import InstanceProbe
from tests.support.recipe_folder import good

Kind = CheckDeclaration[Any, Any]
each = pytest.mark.parametrize("kind", CHECK_KINDS, ids=lambda kind: kind.name)

RECORDED = {
    *("NoAnswer", "CommandAnswer", "TalkAnswer", "HttpAnswer", "LogAnswer", "FileAnswer", "ProcessAnswer"),
    *("ListeningAnswer", "AccountAnswer", "PackagesAnswer", "ImageAnswer", "LicensesAnswer", "StopAnswer"),
    *("MountsAnswer", "RestartAnswer"),
    *("HttpRequest", "FileFacts", "ProcessFacts", "ListeningFacts", "AccountFacts", "PackageFacts", "ImageFacts"),
    *("LicenseFacts", "Restart"),
}
"""Names of types in plans and reports, which outlive a release."""


def test_the_names_in_documents_that_outlive_a_release_are_the_same() -> None:
    names = [made.__name__ for made in (*ANSWERS, *SUBJECTS)]
    assert len(names) == len(set(names)), "a document could not say which it is"
    assert set(names) >= RECORDED


def test_ranks_and_orders_are_each_of_one_kind() -> None:
    for numbers in (
        [kind.rank for kind in CHECK_KINDS],
        [kind.latency_rank for kind in CHECK_KINDS if kind.latency_rank],
        [kind.draft.order for kind in CHECK_KINDS if kind.draft],
    ):
        assert len(numbers) == len(set(numbers))


def test_the_last_check_of_a_document_is_the_one_that_ends_the_instance() -> None:
    assert [kind for kind in CHECK_KINDS if kind.effect is Effect.ENDS] == [CHECK_KINDS[-1]]


@each
def test_a_recipe_can_ask_it_as_in_its_example(kind: Kind, tmp_path: Path) -> None:
    text = f"smoke:\n  checks:\n    - {{name: asked, {kind.name}: {flow_yaml(kind.example)}}}\n"
    (check,) = good(tmp_path, text).smoke.checks
    assert check.kind is CheckKind(kind.name)
    bare = Check("asked", check.kind, check.within, kind.expected, place=check.place)
    assert check != bare, f"`plan` of '{kind.name}' forgets what is asked"
    assert (type(check.subject) is kind.subject) if kind.subject else check.subject is None
    assert read_plan(plan_value(SmokePlan(checks=(check,)))).checks == (check,)


@each
def test_the_reference_says_what_it_means(kind: Kind) -> None:
    assert CheckDocument.model_fields[kind.name].description == kind.meaning
    assert (kind.name in ReadyDocument.model_fields) is bool(kind.ready_meaning)
    if kind.ready_meaning:
        assert ReadyDocument.model_fields[kind.name].description == kind.ready_meaning
        assert "within" in kind.beside, "how long it may take to be ready must be said"
    if isinstance(kind.form, type):
        assert kind.prose, f"nothing says what the mapping of '{kind.name}' is"
        assert all(key.meaning for key, _ in keys_of(kind.form).values())


@each
def test_every_key_of_its_mapping_changes_what_is_asked(kind: Kind) -> None:
    if isinstance(kind.form, type) and not kind.subject:
        given = {
            name: 77 if isinstance(field.default, int) else "77" for name, (_, field) in keys_of(kind.form).items()
        }
        bare = kind.form()
        for name, value in given.items():
            check = Check("a", CheckKind(kind.name), 1)
            changed = dataclasses.replace(bare, **{name: value})
            assert kind.plan(check, changed) != kind.plan(check, bare), f"'{kind.name}.{name}' is forgotten"


@each
def test_what_may_be_expected_is_a_key_of_expect(kind: Kind) -> None:
    assert ("expect" in kind.beside) is bool(kind.expects) is bool(kind.shows)
    keys = {field.name for field in dataclasses.fields(Expectation)} | {"stdout_is"}
    assert kind.expects <= keys
    assert kind.beside <= CheckDocument.model_fields.keys()
    given = {field.name for field in dataclasses.fields(Expectation) if getattr(kind.expected, field.name)}
    assert given <= kind.expects


@each
def test_what_is_recorded_of_it_is_frozen(kind: Kind) -> None:
    assert kind.answer.__dataclass_params__.frozen  # type: ignore[attr-defined]
    made = kind.subject
    assert made is None or issubclass(made, StrEnum) or made.__dataclass_params__.frozen  # type: ignore[attr-defined]


@each
def test_its_module_does_nothing_but_through_a_probe(kind: Kind) -> None:
    path = Path(checks.__file__).with_name(f"{kind.name}_check.py")
    pure = {"__future__", "collections", "dataclasses", "enum", "fnmatch", "hashlib", "ipaddress", "re", "stat"}
    pure |= {"time", "typing", "pipeline"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        strange = {name.partition(".")[0] for name in names} - pure
        assert not strange, f"{path.name} imports {', '.join(sorted(strange))}; give `Probe` what it needs"
        called = node.func if isinstance(node, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id == "open"), f"{path.name} opens a file"


def test_whoever_judges_loads_neither_the_sandbox_nor_sockets() -> None:
    script = "import sys; import pipeline.model.report_verdict; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"pipeline.sandbox", "pipeline.smoke", "pipeline.recipes", "pydantic", "socket", "ssl"} & set(
        loaded.split()
    )


def test_the_room_of_smoke_tests_fulfils_all_of_the_protocol() -> None:
    wanted = {name for name in vars(Probe) if not name.startswith("_")}
    assert wanted <= set(dir(InstanceProbe))


def test_a_kind_that_is_not_declared_is_none() -> None:
    with pytest.raises(ValueError, match="telnet"):
        CheckKind("telnet")
    assert {declaration(kind).name for kind in CheckKind} == {kind.name for kind in CHECK_KINDS}
