"""What people write by habit: `--version`, `-h`, a command that does not exist, settings in the environment."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

import pipeline
from pipeline.build import BuildResult
from pipeline.cli.app import app
from pipeline.cli.build_format import build_lines
from pipeline.cli.commands import import_commands
from pipeline.cli.messages import report_error
from pipeline.cli.progress_display import ProgressStyle, close, open_progress
from pipeline.cli.unknown_word import require_recipe
from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.model.image import Descriptor
from pipeline.store import Store
from tests.support.source import ROOT
from tests.support.typed_command import run_typed


@pytest.mark.parametrize("words", ["--version", "-V", "version"])
def test_the_version_is_told_by_any_of_its_names(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_typed(words, monkeypatch) == 0
    assert capsys.readouterr().out.startswith(f"relbuild {pipeline.__version__} (rpm ")


@pytest.mark.parametrize("words", ["-h", "verify -h", "store gc -h", "store -h"])
def test_help_is_asked_for_by_one_letter(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_typed(words, monkeypatch) == 0
    assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("biuld nginx", "did you mean `relbuild build`?"),
        ("pubish --to dir:mirror", "did you mean `relbuild publish`?"),
        ("nginz", "did you mean `relbuild nginx`?"),
        ("frobnicate", "`relbuild --help` lists the commands"),
        ("start web", "an ended instance does not start again: `relbuild rm NAME`, then `relbuild run -d IMAGE"),
    ],
)
def test_a_first_word_that_is_nothing_is_no_missing_recipe(
    words: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_typed(words, monkeypatch) == 2
    said = capsys.readouterr().err
    assert f"error[command-unknown] '{words.split(maxsplit=1)[0]}' is no command, and no recipe has this name" in said
    assert hint in said


def test_a_suggestion_is_another_word_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.cli.unknown_word.SHIPPED_RECIPES", ())
    (tmp_path / "recipes/frobnicate.yaml").mkdir(parents=True)
    (tmp_path / "recipes/recipez.yaml").write_text("")
    assert run_typed("frobnicate", monkeypatch) == 2  # A folder is no recipe.
    assert run_typed("hello", monkeypatch) == 2  # It is not much like `help`.
    assert "did you mean" not in capsys.readouterr().err
    assert run_typed("build ./frobnicat", monkeypatch) == 3
    assert "frobnicate.yaml" not in capsys.readouterr().err
    assert run_typed("build recipes", monkeypatch) == 3
    assert "`relbuild nightly` builds a folder of recipes" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["./nothing", "nothing.yaml", "folder/nothing"])
def test_a_path_is_a_recipe_that_is_missing(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_typed(words, monkeypatch) == 3
    assert "error[recipe-missing]" in capsys.readouterr().err


def test_a_recipe_of_the_working_folder_is_no_unknown_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frobnicate.yaml").write_text("[")
    monkeypatch.chdir(tmp_path)
    assert run_typed("frobnicate --store store", monkeypatch) == 3
    assert "error[yaml-syntax] frobnicate.yaml:" in capsys.readouterr().err


def test_a_recipe_that_came_with_relbuild_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shipped").mkdir()
    for name in ("frobnicate", "repositories"):
        (tmp_path / "shipped" / f"{name}.yaml").write_text("[")
    monkeypatch.setattr("pipeline.cli.unknown_word.SHIPPED_RECIPES", (tmp_path / "shipped",))
    monkeypatch.chdir(tmp_path)
    require_recipe("frobnicate")
    with pytest.raises(UsageError, match="command-unknown") as caught:
        require_recipe("repositorie")
    assert "repositories" not in str(caught.value.problems[0].hint)


@pytest.mark.parametrize("words", ["promote dir:mirror/a:1 --to stable", "nightly recipes --to dir:mirror"])
def test_a_key_that_stands_where_its_file_should_is_not_shown(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELBUILD_KEY_FILE", "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n")
    assert run_typed(f"{words} --store store", monkeypatch) == 2
    said = capsys.readouterr()
    assert "error[key-is-text]" in said.err and "SECRET" not in said.err + said.out


@pytest.mark.parametrize("words", ["--plan", ""])
def test_a_plan_takes_the_key_that_its_night_takes(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELBUILD_KEY_FILE", str(tmp_path / "none.key"))
    (tmp_path / "recipes").mkdir()
    assert run_typed(f"nightly recipes --to dir:mirror --store store {words}", monkeypatch) == 2
    assert "none.key" in capsys.readouterr().err


def _commands(group: TyperGroup) -> list[TyperCommand]:
    found: list[TyperCommand] = []
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            found += _commands(command)
        elif isinstance(command, TyperCommand):
            found.append(command)
    return found


def test_the_readme_lists_every_option_that_the_environment_may_set() -> None:
    import_commands()
    known = {
        (str(parameter.envvar), option)
        for command in _commands(typer.main.get_group(app))
        for parameter in command.params
        if parameter.envvar
        for option in parameter.opts
    }
    section = (ROOT / "README.md").read_text().partition("## Environment variables")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(RELBUILD_[A-Z_]+)`", section)) - {"RELBUILD_KEY_PASSWORD"}
    assert listed == {variable for variable, _ in known}
    for variable, option in known:
        assert option in section or option == "--to", f"{variable} stands for {option}"


def test_a_store_in_the_environment_is_used_and_the_option_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "of-environment"))
    assert run_typed("store du", monkeypatch) == 0
    assert capsys.readouterr().out.rstrip().endswith(f" B  in all, in {tmp_path / 'of-environment'}")
    assert (tmp_path / "of-environment" / "blobs").is_dir()
    assert run_typed(f"store du --store {tmp_path / 'given'}", monkeypatch) == 0
    assert (tmp_path / "given" / "blobs").is_dir()
    assert capsys.readouterr().err == ""


def test_a_wrong_value_in_the_environment_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELBUILD_PROGRESS", "loud")
    assert run_typed("nightly recipes --to dir:mirror", monkeypatch) == 2
    assert "RELBUILD_PROGRESS" in capsys.readouterr().err


def test_quiet_is_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    styles: list[ProgressStyle] = []
    real = pipeline.cli.app.open_progress
    monkeypatch.setattr("pipeline.cli.app.open_progress", lambda style: styles.append(style) or real(style))
    for option in ("-q", "--quiet", "--progress plain"):
        assert run_typed(f"build {tmp_path}/none.yaml --store {tmp_path} {option}", monkeypatch) == 3
    assert styles == [ProgressStyle.NONE, ProgressStyle.NONE, ProgressStyle.PLAIN]


def test_every_command_that_reads_a_store_or_a_mirror_can_be_quiet() -> None:
    import_commands()
    loud = set()
    for command in _commands(typer.main.get_group(app)):
        words = {word for one in command.params for word in one.opts}
        assert ("-q" in words) == ("--quiet" in words) == ("--progress" in words), command.name
        if "-q" not in words:
            loud.add(command.name)
    at_once = {"completion", "doctor", "help", "init", "new", "ps", "schema", "version"}
    its_output_is_another_programs = {"exec", "logs", "serve"}
    assert loud == at_once | its_output_is_another_programs


def test_a_check_of_the_store_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(tmp_path / "store")
    store.put(b"blob")
    assert run_typed(f"store fsck --store {store.root}", monkeypatch) == 0
    assert re.search(rf"  fsck  {re.escape(str(store.root))}: \d items", capsys.readouterr().err)
    assert run_typed(f"store fsck -q --store {store.root}", monkeypatch) == 0
    assert re.fullmatch(r"no damage found: 1 blobs, .*\n", capsys.readouterr().err)


def test_the_usage_of_the_store_has_a_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(tmp_path / "store")
    store.put(b"blob")
    assert run_typed(f"store du --json --store {store.root}", monkeypatch) == 0
    held = json.loads(capsys.readouterr().out)
    assert held.pop("total") == sum(held.values()) >= held["blobs"] > 0


def test_a_registry_is_understood_as_other_programs_write_it() -> None:
    assert is_address("docker://registry.example.com/products/nginx:1")
    assert parse_address("docker://registry.example.com/products/nginx:1") == parse_address(
        "registry://registry.example.com/products/nginx:1"
    )


def test_verbose_shows_the_causes_of_an_error_without_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            raise OSError("https://me:secret@host/x cannot be read")
        except OSError as cause:
            raise UsageError("file-missing", "it is not there") from cause
    except UsageError as error:
        report_error(error, as_json=False)
        assert "caused by" not in capsys.readouterr().err
        report_error(error, as_json=False, causes=True)
    shown = capsys.readouterr().err
    assert "caused by OSError: https://" in shown and "secret" not in shown


def test_a_cause_that_was_hidden_on_purpose_stays_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            raise OSError("of no interest")
        except OSError:
            raise UsageError("file-missing", "it is not there") from None
    except UsageError as error:
        report_error(error, as_json=False, causes=True)
    assert "of no interest" not in capsys.readouterr().err


def test_every_command_can_be_verbose_and_a_letter_means_one_thing() -> None:
    import_commands()
    without_letter = set()
    for command in _commands(typer.main.get_group(app)):
        words = [word for one in command.params for word in one.opts]
        assert words.count("--verbose") == words.count("-v") == 1, command.name
        verbose = next(one for one in command.params if "--verbose" in one.opts)
        if "-v" not in verbose.opts:
            without_letter.add(command.name)
    assert without_letter == {"run"}, "its -v is a volume, as in docker and podman"


BLOB = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Digest.of(b"it"), 9)


def _built(*, reused: Sequence[str], passed: bool = True) -> BuildResult:
    """A result with what its lines show."""
    layers = [SimpleNamespace(name=name, blob=BLOB, tar_size=9, diff_id=BLOB.digest) for name in ("base", "state")]
    image = SimpleNamespace(
        name="it", reference="1.0", digest=BLOB.digest, layers=layers, config=SimpleNamespace(architecture="amd64")
    )
    report = SimpleNamespace(instances=[SimpleNamespace(checks=[1, 2, 3])], passed=passed)
    locked = SimpleNamespace(all_chosen=[1, 2], parent=None, wrote=False)
    made = SimpleNamespace(
        image=image, locked=locked, reused=reused, report=report, verdict_reused=True, member=False, took=0.1,
        layout=Path("output/it"), report_folder=Path("output/it.report"), changes=(), failed_scriptlets=(),
    )  # fmt: skip
    made.unchanged = BuildResult.unchanged.fget(made)  # type: ignore[attr-defined]
    return cast("BuildResult", made)


def test_a_build_in_which_nothing_changed_takes_three_lines() -> None:
    lines = [line for line in build_lines(_built(reused=("base", "state")), verbose=False) if line]
    assert len(lines) == 3
    assert "unchanged: 2 packages in 2 layers" in lines[1] and "passed 3 checks before" in lines[1]


def test_a_build_in_which_a_layer_changed_shows_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.build_format.report_lines", lambda report: ["checks"])
    for built, verbose in ((_built(reused=("base",)), False), (_built(reused=("base", "state")), True)):
        lines = "\n".join(build_lines(built, verbose=verbose))
        assert f"{BLOB.digest.short}  reused" in lines and "checks" in lines


def test_a_verdict_that_was_a_failure_is_never_called_unchanged() -> None:
    assert not _built(reused=("base", "state"), passed=False).unchanged


@pytest.mark.parametrize(
    ("variables", "live"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_without_colours_gets_no_cursor_codes(
    variables: dict[str, str], live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, terminal = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    name = "some words that are longer than a line of a terminal, " * 3
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        progress = open_progress(ProgressStyle.AUTO)
        progress.finish(progress.start("fetch", name))
        close(progress)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nothing is left, and the other end is closed.
        while data := os.read(screen, 1 << 16):
            shown += data
    os.close(screen)
    assert (b"\x1b" in shown) == live
    assert name.strip().encode() in shown, "no line is broken"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve --port 80000 mirror", "invalid --port '80000'"),
        ("serve --port -1 mirror", "invalid --port '-1'"),
        ("smoke nginx --record --settling -5", "invalid --settling '-5'"),
        ("smoke nginx --record --settling nan", "invalid --settling 'nan'"),
        ("build nginx --output=", "--output is empty"),
        ("show nginx --output=", "--output is empty"),
        ("ps --store=", "--store is empty"),
        ("build nginx --repositories=", "--repositories is empty"),
        ("new x --from nginx --repositories=", "--repositories is empty"),
        ("publish nginx --to dir:m --key k --rules=", "--rules is empty"),
    ],
)
def test_a_value_that_no_option_can_have_is_refused(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_typed(words, monkeypatch) == 2
    assert f"error[option-malformed] {said}\n" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["smoke nginx", "smoke nginx --full"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    assert run_typed(f"{command} --junit {tmp_path}/nosuch/junit.xml", monkeypatch) == 2
    assert "error[report-unwritable] --junit: no file can be written at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("smoke nginx", "--junit"),
        ("nightly . --to dir:m --key k", "--junit"),
        ("nightly . --to dir:m --key k", "--summary"),
    ],
)
def test_a_report_in_the_place_of_another_file_is_refused_before_the_work(
    command: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    Path("redis.yaml").write_text("name: redis\n")
    assert run_typed(f"{command} {option} redis.yaml", monkeypatch) == 2
    assert f"error[not-a-report] {option}: 'redis.yaml'" in capsys.readouterr().err
    assert Path("redis.yaml").read_text() == "name: redis\n"


def test_the_help_names_the_option_for_the_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_typed("--help", monkeypatch) == 0
    assert "-V, --version" in capsys.readouterr().out
    for word in ("--version", "-V", "version"):
        assert run_typed(word, monkeypatch) == 0
        assert capsys.readouterr().out.startswith("relbuild ")
