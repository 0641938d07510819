"""Templates: undefined names are errors with a place, and nothing runs away or reaches out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RecipeError
from pipeline.render import (
    FILTERS,
    TEMPLATE_LIMIT,
    Templates,
    check_template,
    evaluate_template,
    is_template,
)

VALUES: dict[str, object] = {
    "port": 3306,
    "sizes": {"pool": "128M"},
    "hosts": ["a", "b"],
    "on": True,
    "empty": None,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "templates"
    made.mkdir()
    return made


def render(folder: Path, text: str, values: dict[str, object] | None = None) -> str:
    (folder / "t.j2").write_text(text)
    return Templates((folder,)).render("t.j2", VALUES if values is None else values, place="r.yaml:7").text


def refused(folder: Path, text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        render(folder, text)
    return caught.value


def test_values_are_written_and_blocks_leave_no_lines(folder: Path) -> None:
    assert render(folder, "a\n{% for h in hosts %}\n  h={{ h }}\n{% endfor %}\n\n\n") == "a\n  h=a\n  h=b\n"


def test_the_text_has_lf_and_one_at_its_end(folder: Path) -> None:
    assert render(folder, "a\r\nb") == "a\nb\n"
    assert render(folder, "") == ""


def test_a_byte_order_mark_is_no_text(folder: Path) -> None:
    assert render(folder, "\ufeffa") == "a\n"


def test_nothing_is_escaped_for_html(folder: Path) -> None:
    assert render(folder, "{{ '<&\"' }}") == '<&"\n'


def test_booleans_are_written_as_in_yaml(folder: Path) -> None:
    assert render(folder, "{{ on }} {{ not on }} {{ 'x' ~ on }}") == "true false xtrue\n"


def test_the_filters_of_our_own(folder: Path) -> None:
    text = "{{ \"a'b\" | quote }}|{{ hosts | join(', ') }}|{{ sizes | tojson }}|{{ 'a.b' | replace('.', '-') }}"
    assert render(folder, text) == '\'a\'"\'"\'b\'|a, b|{"pool": "128M"}|a-b\n'
    assert render(folder, "{{ 'a\nb\n\nc' | indent(2, true) }}") == "  a\n  b\n\n  c\n"


def test_every_template_that_took_part_is_named(folder: Path) -> None:
    (folder / "inner.j2").write_text("inner\n")
    (folder / "unused.j2").write_text("unused\n")
    (folder / "t.j2").write_text("{% include 'inner.j2' %}{% if false %}{% include 'unused.j2' %}{% endif %}")
    rendered = Templates((folder,)).render("t.j2", {}, place="r.yaml")
    assert rendered.sources == (folder / "t.j2", folder / "inner.j2")


def test_every_template_that_was_looked_for_is_told_with_its_content(folder: Path) -> None:
    (folder / "default.j2").write_text("default")
    text = "{% include ['own.j2', 'default.j2'] %}{% include 'site/x.j2' ignore missing %}"
    (folder / "t.j2").write_text(text)
    assert Templates((folder,)).render("t.j2", {}, place="r.yaml").contents == (
        ("default.j2", str(Digest.of(b"default"))),
        ("own.j2", "missing"),
        ("site/x.j2", "missing"),
        ("t.j2", str(Digest.of(text.encode()))),
    )


def test_a_name_that_no_file_can_have_is_looked_for_and_not_told(folder: Path) -> None:
    """Half a surrogate pair cannot be written into a record."""
    text = r"{% include ['\udc80', '\ud800'] ignore missing %}"
    (folder / "t.j2").write_text(text)
    assert dict(Templates((folder,)).render("t.j2", {}, place="r.yaml").contents).keys() == {"t.j2"}


def test_the_first_folder_wins(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.j2").write_text("first")
    (folder / "t.j2").write_text("second")
    assert Templates((tmp_path, folder)).render("t.j2", {}, place="r.yaml").text == "first\n"


@pytest.mark.parametrize(
    ("text", "line", "said", "hint"),
    [
        ("\n{{ prot }}", 2, "'prot'", "did you mean 'port'?"),
        ("{{ sizes.pol }}", 1, "'pol'", "did you mean 'pool'?"),
        ("\n\n{{ sizes['pol'] }}", 3, "'pol'", "did you mean 'pool'?"),
        ("{{ zzz }}", 1, "'zzz'", "defined: empty, hosts, on, port, sizes"),
        ("{{ zzz + 1 }}", 1, "'zzz'", "defined:"),
        ("{{ 'a' ~ zzz }}", 1, "'zzz'", "defined:"),
        ("{% for x in zzz %}{% endfor %}", 1, "'zzz'", "defined:"),
        ("{% if zzz %}{% endif %}", 1, "'zzz'", "defined:"),
        ("{{ zzz | upper }}", 1, "'zzz'", "defined:"),
        ("{{ zzz() }}", 1, "'zzz'", "defined:"),
        ("{{ port.zzz }}", 1, "'zzz'", "default"),
    ],
)
def test_an_undefined_name_is_an_error(folder: Path, text: str, line: int, said: str, hint: str) -> None:
    (problem,) = refused(folder, text).problems
    assert (problem.code, problem.place) == ("template-undefined", f"templates/t.j2:{line}")
    assert said in problem.message
    assert hint in (problem.hint or "")


def test_an_error_in_an_included_file_is_placed_there(folder: Path) -> None:
    (folder / "inner.j2").write_text("fine\n{{ zzz }}\n")
    assert refused(folder, "{% include 'inner.j2' %}").problems[0].place == "templates/inner.j2:2"


def test_default_and_defined_work_on_undefined_names(folder: Path) -> None:
    assert render(folder, "{{ zzz | default('d') }} {{ zzz is defined }}") == "d false\n"


@pytest.mark.parametrize(
    ("text", "place", "said", "hint"),
    [
        ("a\n{% if on %}", "templates/t.j2:2", "endif", "close the block with {% endif %}"),
        ("{% for a in b %}{% if 1 %}{% endif %}", "templates/t.j2:1", "endfor", "with {% endfor %}"),
        ("{% if on %}{% endfi %}", "templates/t.j2:1", "'endfi'", "close the block with {% endif %}"),
        ("{% raw %}a", "templates/t.j2:1", "raw", "close it with {% endraw %}"),
        ("{{ port", "templates/t.j2:1", "end of", "close the value with '}}'"),
        ("{{ port }", "templates/t.j2:1", "unexpected '}'", "close the value with '}}'"),
        ("{% fi %}", "templates/t.j2:1", "'fi'", "{% raw %}"),
        ("\n${#name}", "templates/t.j2:2", "comment", "begins a comment"),
        ("{{ hosts | random }}", "templates/t.j2:1", "random", "filters"),
    ],
)
def test_what_cannot_be_read_is_a_syntax_error(folder: Path, text: str, place: str, said: str, hint: str) -> None:
    (problem,) = refused(folder, text).problems
    assert (problem.code, problem.place) == ("template-syntax", place)
    assert said in problem.message
    assert hint in (problem.hint or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ empty }}", "cannot print null"),
        ("{{ hosts }}", "cannot print a list"),
        ("{{ hosts | map('upper') }}", "cannot print a list"),
        ("{{ 'hosts: ' ~ hosts | select }}", "cannot print a list"),
        ("{{ range(3) }}", "cannot print a list"),
        ("{{ sizes.items() }}", "cannot print a list"),
        ("{{ namespace(a=1) }}", "cannot print a Namespace"),
        ("{{ self }}", "cannot print a TemplateReference"),
        ("{% for one in hosts %}{{ loop }}{% endfor %}", "cannot print"),
        ("{{ sizes | upper }}", "cannot print a mapping"),
        ("{{ port + 'a' }}", "'+' does not work on a number and text"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ port() }}", "not callable"),
        ("{{ '%s' % port }}", "'%' does not work"),
    ],
)
def test_what_has_no_meaning_fails_at_its_line(folder: Path, text: str, said: str) -> None:
    (problem,) = refused(folder, text).problems
    assert (problem.code, problem.place) == ("template-failed", "templates/t.j2:1")
    assert said in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ 'x'.format(1) }}",
        "{{ 'x'.ljust(9) }}",
        "{{ hosts.append('c') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__dict__ }}",
        "{{ hosts | map(attribute='__class__') | join }}",
    ],
)
def test_a_template_does_not_reach_python(folder: Path, text: str) -> None:
    assert refused(folder, text).code in {"template-failed", "template-undefined"}


@pytest.mark.parametrize("name", ["lipsum", "cycler", "joiner", "now", "random", "environ"])
def test_a_template_sees_no_clock_and_no_chance(folder: Path, name: str) -> None:
    assert refused(folder, f"{{{{ {name}() }}}}").code == "template-undefined"
    assert "random" not in FILTERS


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(10001) %}{% endfor %}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 2 ** 255 * 2 }}",
        "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1, 2]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='xx') %}"
        "{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
        "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x | replace('x', 'xx') %}{% endfor %}",
        "{% for i in range(100) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' | indent(1000000000) }}",
    ],
)
def test_a_template_that_runs_away_is_stopped(folder: Path, text: str) -> None:
    assert refused(folder, text).code == "template-runaway"


def test_counting_steps_leaves_no_trace_behind(folder: Path) -> None:
    before = sys.gettrace()
    refused(folder, "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}")
    assert sys.gettrace() is before


def test_a_missing_template_is_named_with_what_was_meant(folder: Path) -> None:
    (folder / "my.cnf.j2").write_text("x")
    with pytest.raises(RecipeError) as caught:
        Templates((folder,)).render("my.cfn.j2", {}, place="r.yaml:7")
    (problem,) = caught.value.problems
    assert (problem.code, problem.place) == ("template-missing", "r.yaml:7")
    assert problem.hint == "did you mean 'my.cnf.j2'?"


def test_a_missing_include_is_placed_in_its_template(folder: Path) -> None:
    (problem,) = refused(folder, "\n{% include 'zzz.j2' %}").problems
    assert (problem.code, problem.place) == ("template-missing", "templates/t.j2:2")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", ""])
def test_a_name_outside_the_folders_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(RecipeError) as caught:
        Templates((folder,)).render(name, {}, place="r.yaml:7")
    assert (caught.value.code, caught.value.problems[0].place) == ("template-escapes", "r.yaml:7")


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "t.j2").symlink_to(tmp_path / "secret")
    with pytest.raises(RecipeError) as caught:
        Templates((folder,)).render("t.j2", {}, place="r.yaml:7")
    assert caught.value.code == "template-escapes"


def test_large_and_strange_files_are_refused(folder: Path) -> None:
    with (folder / "large.j2").open("wb") as file:
        file.truncate(TEMPLATE_LIMIT + 1)
    (folder / "latin.j2").write_bytes(b"a\n\xff")
    for name, code in (("large.j2", "template-too-large"), ("latin.j2", "template-unreadable")):
        with pytest.raises(RecipeError) as caught:
            Templates((folder,)).render(name, {}, place="r.yaml:7")
        assert (caught.value.code, caught.value.problems[0].place) == (code, "r.yaml:7")


def test_checking_finds_syntax_errors_without_values(folder: Path) -> None:
    (folder / "t.j2").write_text("{{ unknown }}")
    Templates((folder,)).check("t.j2", place="r.yaml:7")
    (folder / "t.j2").write_text("{% if %}")
    with pytest.raises(RecipeError) as caught:
        Templates((folder,)).check("t.j2", place="r.yaml:7")
    assert (caught.value.code, caught.value.problems[0].place) == ("template-syntax", "templates/t.j2:1")


def test_small_texts_are_evaluated_and_placed_where_they_stand() -> None:
    packages = {"mysql-server": {"version": "8.4.3"}}
    assert (
        evaluate_template("{{ packages['mysql-server'].version }}", {"packages": packages}, place="r.yaml:2") == "8.4.3"
    )
    with pytest.raises(RecipeError) as caught:
        evaluate_template("{{ packages['mysql-srver'].version }}", {"packages": packages}, place="r.yaml:2")
    (problem,) = caught.value.problems
    assert (problem.code, problem.place) == ("template-undefined", "r.yaml:2")
    assert problem.hint == "did you mean 'mysql-server'?"


def test_text_without_templates_is_left_alone() -> None:
    assert evaluate_template("a } b\n\n", {}, place="r.yaml") == "a } b\n\n"
    assert not is_template("a } b")
    assert is_template("{{ a }}")


def test_a_small_text_names_no_files() -> None:
    with pytest.raises(RecipeError) as caught:
        evaluate_template("{% include 'x' %}", {}, place="r.yaml:2")
    assert caught.value.code == "template-failed"


def test_checking_a_small_text() -> None:
    check_template("{{ anything }}", place="r.yaml:2")
    with pytest.raises(RecipeError) as caught:
        check_template("{{ anything", place="r.yaml:2")
    assert (caught.value.code, caught.value.problems[0].place) == ("template-syntax", "r.yaml:2")


def test_rendering_does_not_depend_on_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = render(folder, "{{ sizes | tojson }}{{ hosts | sort | join }}")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.chdir(os.sep)
    assert render(folder, "{{ sizes | tojson }}{{ hosts | sort | join }}") == first
