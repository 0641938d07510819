"""Text that packages, mirrors, images and recipes bring along cannot steer or deceive whoever reads it."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.cli import messages, progress_bars, progress_display
from pipeline.cli.messages import print_json, print_lines
from pipeline.cli.progress_bars import Live
from pipeline.cli.progress_display import ProgressStyle, open_progress
from pipeline.errors import BuildError, RelbuildError
from pipeline.escaping import (
    escape_invisible,
    escape_message,
    json_text,
    strip_invisible,
)
from pipeline.model.night_record import Failure, Outcome, Stage
from pipeline.packages import rpmdb_writer
from pipeline.process import Completed
from pipeline.progress import task
from pipeline.site.feed import atom_xml
from pipeline.site.markdown import summary_markdown
from pipeline.site.night_junit import junit_xml
from pipeline.smoke.junit import junit_report
from pipeline.smoke.report_text import report_lines
from tests.support import nightly_examples
from tests.unit.site.test_site_files import summarize_night
from tests.unit.smoke.test_smoke_report import INSTANCE, REPORT

CLI = Path(__file__).parents[3] / "pipeline" / "cli"

HOSTILE = {
    "a colour": "\x1b[31m",
    "a title (OSC)": "\x1b]0;owned\x07",
    "a link (OSC 8)": "\x1b]8;;http://evil.example\x1b\\here",
    "a cleared screen": "\x1b[2J\x1b[H",
    "CSI in C1": "\x9b31m",
    "OSC in C1": "\x9d0;owned\x9c",
    "a next line (C1)": "a\x85b",
    "backspaces": "rm\b\b",
    "a carriage return": "bad\rok ",
    "a null": "\x00",
    "a bell": "\x07",
    "delete": "\x7f",
    "an override": "\u202etxt.exe\u202c",
    "an isolate": "\u2066a\u2069",
    "an embedding": "\u202aa\u202b",
    "a mark": "\u200e\u200f\u061c",
    "zero width": "o\u200bp\u200ce\u200dn\ufeffssl\u2060",
    "a line separator": "a\u2028b\u2029c",
    "a soft hyphen": "pass\u00adword",
    "tags": "\U000e0041\U000e007f",
    "fillers": "\u3164\u115f\uffa0",
    "half a pair": "\ud800\udc80",
    "no character": "\ufffe\uffff",
    "annotations": "\ufff9a\ufffb",
}
"""What a log line, a package's name, a changelog or a check's name may hold."""

KINDS = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


SEEN = (
    {chr(one) for first, last in ((0x600, 0x605), (0x890, 0x891)) for one in range(first, last + 1)}
    | set("\u06dd\u070f\u08e2\U000110bd\U000110cd")
    | {chr(one) for one in range(0x13430, 0x13460)}
)
"""Of Unicode's format characters those that are drawn: Arabic and Kaithi number signs, joiners of hieroglyphs."""


def harmless(text: str, *, kept: str = "\n\t") -> bool:
    """Whether nothing in it steers a terminal, or turns or hides text."""
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    hidden = "\u3164\u115f\u1160\uffa0\u034f\ufffe\uffff"
    return not [
        one
        for one in text
        if one not in kept and one not in SEEN and (unicodedata.category(one) in bad or one in hidden)
    ]


@KINDS
def test_nothing_hidden_is_left_and_nothing_is_lost(text: str) -> None:
    assert not harmless(text)
    shown = escape_invisible(f"<{text}>")
    assert harmless(shown) and shown != f"<{text}>" and "\\" in shown
    assert harmless(strip_invisible(text)) and "\n" not in escape_invisible(f"{text}\nnext", lines=False)


@given(st.text(st.characters()))
def test_any_text_becomes_one_that_shows_all_of_itself(text: str) -> None:
    assert harmless(escape_invisible(text)) and harmless(escape_invisible(text, lines=False), kept="\t")
    escape_invisible(text).encode()
    assert escape_invisible(escape_invisible(text)) == escape_invisible(text)
    value = {"it": text, text: [text]}
    printed = json_text(value)
    assert harmless(printed) and json.loads(printed) == json.loads(json.dumps(value))
    printed.encode()


@pytest.mark.parametrize(
    "text", ["plain", "tab\tand\nline", "Grüße, 日本語, עברית, العربية", "✓ ❤️ 👍🏽", "\\x1b is written"]
)
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert escape_invisible(text) == strip_invisible(text) == text
    assert json.loads(json_text([text])) == [text] and (text.isascii() or text in json_text([text]))


def test_no_line_of_a_message_passes_for_one_of_relbuilds_own() -> None:
    assert escape_message("it said:\nerror[x]: y\n::add-mask::z\n") == "it said:\n  | error[x]: y\n  | ::add-mask::z"


# --- the terminal -------------------------------------------------------------------------------


@KINDS
def test_errors_and_lines_on_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = RelbuildError("failed", f"a{text}\nerror[faked]: b", place=f"p{text}\nq", hint=f"h{text}")
    messages.report_error(error, as_json=True)
    messages.report_error(ValueError(text), as_json=False)
    print_lines(f"package {text}")
    print_json({"name": text})
    out, err = capsys.readouterr()
    assert harmless(out) and harmless(err)
    assert "\nerror[faked]" not in err and "\nq" not in err


@KINDS
@pytest.mark.parametrize("look", [ProgressStyle.PLAIN, ProgressStyle.JSON])
def test_progress_in_lines(text: str, look: ProgressStyle, capsys: pytest.CaptureFixture[str]) -> None:
    shown = open_progress(look)
    with task(shown, "layer", f"package {text}\nfaked") as running:
        running.note(f"note {text}")
    shown.warn(f"warning {text}\nfaked")
    err = capsys.readouterr().err
    assert harmless(err, kept="\n") and "\nfaked" not in err


@KINDS
def test_progress_that_moves(text: str) -> None:
    drawn = io.StringIO()
    live = Live(Console(file=drawn, force_terminal=False, width=200))
    with task(live, "layer", f"[red]package {text}") as running:
        running.note(f"[link=x]note {text}")
    live.warn(f"[bold]warning {text}")
    live.close()
    lines = drawn.getvalue()
    assert harmless(lines) and "[red]package" in lines and "[bold]warning" in lines


ESCAPED_BEFORE = {
    "log_follower.py prints '\\n'.join((f'{label}{text}' for text in texts))",
    "app.py prints '\\n'.join((escape_invisible(line, lines=False) for line in lines))",
}
"""A flood of log lines passes in the first, and each part of them goes through `escape_invisible` once."""


def test_all_that_commands_print_is_escaped() -> None:
    """Whatever is printed is a constant, JSON, or went through the one function."""
    safe = {"escape_invisible", "escape_message", "json_text", "json.dumps"}
    offences = []
    for path in sorted(CLI.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("print", "sys.stdout.write"):
                continue
            for shown in node.args:
                calls = ast.unparse(shown.func) if isinstance(shown, ast.Call) else ""
                known = f"{path.name} prints {ast.unparse(shown)}" in ESCAPED_BEFORE
                if not isinstance(shown, ast.Constant) and calls not in safe and not known:
                    offences.append(f"{path.name}:{node.lineno} prints {ast.unparse(shown)}")
    assert not offences, "\n".join(offences)


# --- reports, pages, feeds ----------------------------------------------------------------------


@KINDS
def test_a_report_of_checks_and_logs(text: str) -> None:
    hostile = f"{text} ]]> <b>&"
    check = replace(INSTANCE.checks[0], name=hostile, passed=False, detail=f"{hostile}\nmore")
    instance = replace(INSTANCE, name=hostile, checks=(check,), log=hostile, happened=hostile)
    report = replace(REPORT, instances=(instance,), failure=hostile, runtime=hostile)
    assert all(harmless(line, kept="\t") for line in report_lines(report))
    written = junit_report(report, hostile)
    document = ElementTree.fromstring(written)
    assert harmless(written.decode(), kept="\n\t") and all(harmless(said) for said in document.itertext())
    case = document.find("testsuite/testcase")
    assert case is not None and case.attrib["name"].endswith(" ]]> <b>&")


@KINDS
def test_what_a_night_writes(text: str) -> None:
    """Names of packages and checks, changelogs, log lines and errors, in every document about the night."""
    hostile = f"{text} ]]> <script>x</script> `|` @someone"
    last = nightly_examples.nights(2)[-1]
    first = last.products[0]
    failure = Failure(Stage.BUILD, "failed", hostile, hostile, hostile, (hostile, hostile), hostile)
    product = replace(
        first,
        run=replace(first.run, outcome=Outcome.FAILED, failure=failure, why=hostile),
        published=replace(
            first.published,
            version=hostile,
            packages=tuple(replace(one, name=hostile, source=hostile) for one in first.published.packages),
            checks=tuple(replace(one, name=hostile, passed=False, detail=hostile) for one in first.published.checks),
            missing=tuple(replace(one, title=hostile) for one in first.published.missing),
        ),
    )
    night = replace(last, products=(product,), catalogue=hostile, exceeded=(hostile,), destination=hostile)
    summary = summary_markdown(night)
    assert harmless(summary) and "<script" not in summary.replace("\\<script", "").split("```")[0]
    for written in (junit_xml(night), atom_xml([summarize_night(night, hostile)], hostile, hostile)):
        assert harmless(written.decode()) and b"<script" not in written
        assert all(harmless(said) for said in ElementTree.fromstring(written).itertext())


@KINDS
def test_a_page_shows_nothing_hidden(text: str) -> None:
    from pipeline.site.page_templates import render_night_page

    last = nightly_examples.nights(1)[-1]
    failure = Failure(Stage.BUILD, "failed", text, text, text, (text,), text)
    product = replace(
        last.products[0],
        run=replace(last.products[0].run, outcome=Outcome.FAILED, failure=failure, why=text),
        published=replace(last.products[0].published, version=text),
    )
    night = replace(last, products=(product,), catalogue=text)
    assert harmless(render_night_page(night, [summarize_night(night, text)], "night").decode())


# --- what rpm says ------------------------------------------------------------------------------


def test_rpms_library_writes_nothing_of_a_package_past_relbuild() -> None:
    program = r"from pipeline.packages.rpm_library import rpm; rpm.log(rpm.RPMLOG_ERR, 'a\x1b[31m\n'); print('ended')"
    ran = subprocess.run([sys.executable, "-c", program], cwd=CLI.parents[1], capture_output=True, check=True)
    assert (ran.stdout, ran.stderr) == (b"ended\n", b"")


@KINDS
def test_what_rpmdb_says_of_a_header_is_escaped(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Completed(("rpmdb",), 1, b"", text.encode(errors="surrogatepass"))
    monkeypatch.setattr(rpmdb_writer, "run", lambda *_, **__: said)
    with pytest.raises(BuildError) as caught:
        rpmdb_writer.write_database(tmp_path, ())
    messages.report_error(caught.value, as_json=True)
    out, err = capsys.readouterr()
    assert caught.value.code == "rpm-database" and harmless(out) and harmless(err)


def test_progress_has_no_other_door_to_the_terminal() -> None:
    assert (
        vars(progress_display)[escape_invisible.__name__]
        is vars(progress_bars)[escape_invisible.__name__]
        is escape_invisible
    )
