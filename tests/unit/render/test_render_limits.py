"""Templates that counting their steps does not stop are stopped by the child that renders them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import limited
from pipeline.errors import RecipeError
from pipeline.limited import child_process
from pipeline.recipes import load_recipe
from pipeline.render import Templates, check_template, evaluate_template, start_renderer, templates
from pipeline.render.renderer_process import RENDERER
from pipeline.store import Store
from tests.support.recipe_folder import GOOD, write

DOUBLING = (
    "{% set n = namespace(a=[1], b=[1]) %}"
    "{% for i in range(40) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
)


def problem(folder: Path, text: str, values: dict[str, object] | None = None) -> tuple[str, str, str]:
    """Code, place and message of what becomes of a template."""
    (folder / "t.j2").write_text(text)
    with pytest.raises(RecipeError) as caught:
        Templates((folder,)).render("t.j2", values or {}, place="r.yaml:7")
    (one,) = caught.value.problems
    return one.code, one.place or "", one.message


def test_nested_lists_that_are_compared_end_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "PROCESSOR_TIME", 0)  # what is left of the child's first second
    code, place, message = problem(tmp_path, DOUBLING + "{{ n.a == n.b }}")
    assert (code, place) == ("template-runaway", "r.yaml:7") and "0 s of processor time" in message
    (tmp_path / "t.j2").write_text("{{ 1 + 1 }}")
    assert Templates((tmp_path,)).render("t.j2", {}, place="r.yaml:7").text == "2\n"


def test_signs_in_a_row_are_compiled_before_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "PROCESSOR_TIME", 1)
    code, place, message = problem(tmp_path, "{{ " + "-" * 240 + "n }}", {"n": 1})
    assert (code, place) == ("template-syntax", "r.yaml:7") and "cannot be compiled" in message
    (tmp_path / "t.j2").write_text("{{ " + "-" * 60 + "n }}")
    assert Templates((tmp_path,)).render("t.j2", {"n": 1}, place="r.yaml:7").text == "1\n"


def test_memory_that_a_template_takes_ends_with_an_error(tmp_path: Path) -> None:
    text = "{% set n = namespace(x=[]) %}{% for i in range(2000) %}{% set n.x = n.x + ['é' * 4000000] %}{% endfor %}"
    code, _, message = problem(tmp_path, text)
    assert code == "template-runaway" and ("memory" in message or "processor" in message)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "template-syntax"),
        ("{{ " + "(" * 150 + "1" + ")" * 150 + " }}", ""),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "template-runaway"),
        ("{% if a %}" * 3000 + "{% endif %}" * 3000, "template-runaway"),
        ("{{ " + "1" * 5000 + " }}", "template-failed"),
        ("{{ 1e400 | int }}", "template-failed"),
        ("{{ [1] | sort(attribute='a.b.c') }}", "template-undefined"),
        ("{{ 'a' | truncate(1, leeway=[]) }}", ""),
        ("{{ 2 ** -1.5 ** 300 }}", ""),
        ("{{ (0 - 8) ** 0.5 }}", ""),
        ("{% include 't.j2' %}", "template-runaway"),
        ("{% extends 't.j2' %}", "template-runaway"),
        ("{% import 't.j2' as t %}{{ t.x }}", "template-runaway"),
        ("{{ caller() }}{% call x() %}{% endcall %}", "template-undefined"),
        ("{{ self.x() }}{{ varargs }}", "template-undefined"),
        ("{{ 'x'.encode() }}", "template-failed"),
        ("{{ {}[[]] }}", ""),
        ("{{ {[]: 1} }}", ""),
        ("{% set loop = 1 %}{% for i in [1] recursive %}{{ loop(1) }}{% endfor %}", ""),
        ("{{ range(1, 5, 0) }}", "template-failed"),
        ("{{ range('a') }}", "template-failed"),
        ("{% for i in 5 %}{% endfor %}", "template-failed"),
        ("{{ dict(a=1)(2) }}", "template-failed"),
        ("{{ ''.join }}{{ ().count }}", "template-failed"),
        ("\0{{ 1 }}\ud7ff", ""),
        ("{% include '\\ud800' %}", "template-missing"),
        ("{% include 'a\\0b' %}", "template-escapes"),
        ("{% include 'a' ~ 'b/' * 3000 %}", "template-missing"),
    ],
)
def test_hostile_templates_end_with_an_error_of_relbuilds_own(tmp_path: Path, text: str, code: str) -> None:
    """`code`: "" where the text itself or any error of a template will do."""
    (tmp_path / "t.j2").write_text(text)
    for attempt in ("check", "render"):
        try:
            if attempt == "check":
                Templates((tmp_path,)).check("t.j2", place="r.yaml:7")
            else:
                Templates((tmp_path,)).render("t.j2", {"a": 1}, place="r.yaml:7")
        except RecipeError as error:
            (one,) = error.problems
            assert one.code.startswith("template-") and one.place and (not code or one.code == code)
            return
    assert not code


def test_what_a_recipe_evaluates_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "PROCESSOR_TIME", 0)  # what is left of the child's first second
    with pytest.raises(RecipeError) as caught:
        evaluate_template(DOUBLING + "{{ n.a == n.b }}", {}, place="r.yaml:2")
    assert (caught.value.code, caught.value.problems[0].place) == ("template-runaway", "r.yaml:2")


def test_names_and_attributes_need_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "call_limited", lambda *_, **__: pytest.fail("a child was asked"))
    packages = {"nginx": {"version": "1.28"}}
    assert (
        evaluate_template("{{ packages['nginx'].version }}-{{ a }}", {"packages": packages, "a": 1}, place="")
        == "1.28-1"
    )
    check_template("{% if a %}{{ a | upper }}{% endif %}", place="r.yaml:2")
    for text in ("{{ nope }}", "{{ packages.nope }}", "{{ "):
        with pytest.raises(RecipeError):
            evaluate_template(text, {"packages": packages}, place="r.yaml:2")


@pytest.mark.parametrize("value", [4, 1.5, True, "a", [1], {"a": 1}, None, 1 << 255, "gone"])
@pytest.mark.parametrize("text", ["{{ a + 1 }}", "{{ a - 1 }}", "{{ a + 1 - 2.5 }}", "{{ a + 1e308 + 1e308 }}"])
def test_a_number_that_is_added_needs_no_child_and_is_what_a_child_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, text: str, value: object
) -> None:
    def evaluated() -> object:
        try:
            return evaluate_template(text, {} if value == "gone" else {"a": value}, place="r.yaml:2")
        except RecipeError as error:
            return error.problems

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.render.small_templates.is_simple", lambda _: False)
        by_child = evaluated()
    monkeypatch.setattr(limited, "call_limited", lambda *_, **__: pytest.fail("a child was asked"))
    assert evaluated() == by_child


@pytest.mark.parametrize(
    "text", ["{{ a + a }}", "{{ a * 2 }}", "{{ 1 + a }}", "{{ a ** 2 }}", "{{ a + 'x' }}", "{{ -a }}"]
)
def test_what_may_grow_is_evaluated_by_the_child(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    asked: list[object] = []
    monkeypatch.setattr(limited, "call_limited", lambda *given, **_: asked.append(given) or {"text": ""})
    evaluate_template(text, {"a": 1}, place="r.yaml:2")
    assert asked


def test_a_long_template_is_parsed_by_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long.j2").write_text("{{ a }}\n" * 4000 + "{% if %}")
    with pytest.raises(RecipeError) as caught:
        Templates((tmp_path,)).check("long.j2", place="r.yaml:7")
    assert (caught.value.code, caught.value.problems[0].place) == ("template-syntax", f"{tmp_path.name}/long.j2:4001")
    with pytest.raises(RecipeError) as caught:
        check_template("{{ a }}\n" * 4000 + "{% if %}", place="r.yaml:2")
    assert (caught.value.code, caught.value.problems[0].place) == ("template-syntax", "r.yaml:2")


def test_a_template_that_many_files_name_is_checked_and_rendered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.layers.recipe_files import render_files

    write(tmp_path, "{% for i in [1, 2] %}{{ i }}{% endfor %}", "t.j2")
    files = "".join(f"  - {{template: t.j2, path: /etc/{number}}}\n" for number in range(50))
    real, asked = limited.call_limited, []
    monkeypatch.setattr(limited, "call_limited", lambda *given, **more: asked.append(given) or real(*given, **more))
    recipe = load_recipe(write(tmp_path, GOOD + "files:\n" + files))
    made, read = render_files(recipe, {}, lambda _: b"")
    assert (
        {file.content for file in made} == {b"12\n"}
        and set(read.files) == {tmp_path / "t.j2"}
        and dict(read.contents).keys() == {"t.j2"}
    )
    assert len(asked) == 1


def test_a_rendering_is_remembered_until_a_template_or_value_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.j2").write_text("{% include 'part.j2' %}{% include 'late.j2' ignore missing %}")
    (tmp_path / "part.j2").write_text("{{ a }}")
    store = Store.open(tmp_path / "store")
    real, asked = limited.call_limited, []
    monkeypatch.setattr(limited, "call_limited", lambda *given, **more: asked.append(given) or real(*given, **more))

    def rendered(a: object) -> tuple[str, int]:
        before = len(asked)
        made = Templates((tmp_path,)).render("t.j2", {"a": a}, place="r.yaml:7", memory=store)
        assert {path.name for path in made.sources} >= {"t.j2", "part.j2"}
        assert dict(made.contents).keys() == {"t.j2", "part.j2", "late.j2"}
        return made.text, len(asked) - before

    assert rendered(1) == ("1\n", 1) and rendered(1) == ("1\n", 0)
    assert rendered(1.5) == ("1.5\n", 1)
    (tmp_path / "part.j2").write_text("is {{ a }}")
    assert rendered(1) == ("is 1\n", 1) and rendered(1) == ("is 1\n", 0)
    (tmp_path / "late.j2").write_text("!")
    assert rendered(1) == ("is 1!\n", 1) and rendered(1) == ("is 1!\n", 0)
    (tmp_path / "part.j2").unlink()
    (tmp_path / "part.j2").symlink_to("/etc/passwd")
    with pytest.raises(RecipeError):
        rendered(1)


WHERE_IT_RUNS = """
import sys
from pathlib import Path
from pipeline import render
render.start_renderer()
text = render.Templates((Path(sys.argv[1]),)).render("t.j2", {"a": {"b": 1}}, place="r.yaml:1").text
print(text.strip(), render.evaluate_template("{{ a['b'] }}-{{ a.b }}", {"a": {"b": 2}}, place="r.yaml:1"))
print("jinja2" in sys.modules)
"""


def test_where_the_renderer_was_started_this_process_needs_no_jinja(tmp_path: Path) -> None:
    (tmp_path / "t.j2").write_text("{{ a.b }}")
    done = subprocess.run(
        [sys.executable, "-c", WHERE_IT_RUNS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "2-2", "False"]


VALUES: dict[str, object] = {
    "a": {"b": [1, None, True, 1.5, "ä'\"\n"], "c": {"1": "x"}},
    "list": [["x"], {}],
    "huge": 1 << 70,
    "packages": {"mysql-server": {"version": "9.7.4", "epoch": None}},
}


@pytest.mark.parametrize(
    "text",
    [
        "{{ packages['mysql-server'].version }}",
        "{{ a }} {{ a.b[4] }}",
        "{{ list }}{{ huge }}",
        "{{ a.c['1'] }}{{ a.c[1] }}",
        "{{ nothing }}",
        "{{ packages['x'].version }}",
        "{{ a.b.nothing }}",
        "{{ a",
        "{{ a | nothing }}",
    ],
)
def test_a_small_text_becomes_the_same_in_either_process(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> object:
        try:
            return evaluate_template(text, VALUES, place="r.yaml:7")
        except RecipeError as error:
            return error.problems

    here = told()
    monkeypatch.setattr(templates, "_IN_PROCESS", "not.loaded")
    start_renderer()
    evaluated = _count_calls(monkeypatch)
    assert told() == here
    assert evaluated


@pytest.mark.parametrize("text", [DOUBLING + "{{ n.a == n.b }}", "{% for i in range(10000000) %}{{ i }}{% endfor %}"])
def test_a_small_text_that_meets_a_limit_is_evaluated_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "PROCESSOR_TIME", 1)
    monkeypatch.setattr(templates, "_IN_PROCESS", "not.loaded")
    start_renderer()
    evaluated = _count_calls(monkeypatch)
    with pytest.raises(RecipeError) as caught:
        evaluate_template(text, {}, place="r.yaml:2")
    assert (caught.value.code, caught.value.problems[0].place) == ("template-runaway", "r.yaml:2")
    assert len(evaluated) == 1


def _count_calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    called: list[object] = []
    real = limited.call_limited
    monkeypatch.setattr(
        limited, "call_limited", lambda module, request, **more: called.append(request) or real(module, request, **more)
    )
    return called


def test_a_small_text_is_evaluated_here_where_the_child_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_IN_PROCESS", "not.loaded")
    start_renderer()
    called = _count_calls(monkeypatch)
    (child,) = child_process._children
    child._process.kill()
    assert evaluate_template("{{ a }}", {"a": 1}, place="r.yaml:7") == "1"
    assert len(called) == 1 and not limited.is_loading(RENDERER)
