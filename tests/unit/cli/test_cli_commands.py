"""The command line finds its commands, each in a file of its own, and no option is declared twice."""

from __future__ import annotations

import ast
import gc
import inspect
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from pipeline.cli import app as app_module
from pipeline.cli.app import IN_USER_NAMESPACE, app
from pipeline.cli.commands import command_of, command_summaries, import_commands, modules, reads_repositories, words_of
from pipeline.cli.main import run_command_line
from pipeline.mirror.address_parser import ADDRESS_FORMS
from tests.support.source import PIPELINE, ROOT, dotted, nodes, trees

CLI = PIPELINE / "cli"


@cache
def commands() -> dict[tuple[str, ...], TyperCommand]:
    """All commands of the app by their words."""
    import_commands()
    return dict(_within((), typer.main.get_group(app)))


def _within(words: tuple[str, ...], group: TyperGroup) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _within((*words, name), command)
        else:
            assert isinstance(command, TyperCommand)
            yield (*words, name), command


def options(command: TyperCommand) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts}


def test_every_file_declares_the_command_or_the_group_that_it_is_named_after() -> None:
    found = commands()
    groups = {words[:-1] for words in found}
    assert {words_of(module) for module in modules()} == {*found, *groups - {()}}
    assert all(command.help for command in found.values())


def test_the_list_of_commands_is_that_of_the_commands() -> None:
    """`relbuild --help` reads their sources' text and imports none of them."""
    commands()
    declared = {
        name: (isinstance(command, TyperGroup), inspect.cleandoc(command.help or ""))
        for name, command in typer.main.get_group(app).commands.items()
    }
    shown = {one.name: (one.is_group, one.help) for one in command_summaries()}
    assert shown == declared
    assert list(shown) == list(declared)


WRITING = ("build", "copy", "lock", "nightly", "promote", "prune", "publish", "pull", "rollback", "scrub", "smoke")


def told_after_an_interrupt(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    told: list[str] = []
    monkeypatch.setattr(app_module, "perform", lambda act, context, interrupted: told.append(interrupted))
    monkeypatch.setattr(app_module, "_enter_user_namespace", lambda: None)
    commands()
    (run,) = [one.callback for one in app.registered_commands if one.name == name]
    assert run is not None
    run()
    (said,) = told
    return said


@pytest.mark.parametrize("name", WRITING)
def test_a_command_that_writes_says_after_an_interrupt_what_is_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = told_after_an_interrupt(name, monkeypatch)
    assert "again" in said or "next" in said


def test_an_interrupted_rollback_is_repeated_only_if_the_tag_has_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag's former image is another one after a rollback: a second one goes further back."""
    said = told_after_an_interrupt("rollback", monkeypatch)
    assert "`relbuild history`" in said and "Only if it has not moved, run it again" in said and "--to" in said


def test_an_interrupted_undoing_is_not_ended_by_a_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruning would remove once more what was restored."""
    assert "interrupted --undo: run it again" in told_after_an_interrupt("prune", monkeypatch)


def test_a_command_loads_its_own_file_alone() -> None:
    program = (
        "import sys; from pipeline.cli.commands import import_commands; import_commands(sys.argv[1])\n"
        "print(*(name.rpartition('.')[2] for name in sys.modules if name.startswith('pipeline.cli.commands.')))"
    )
    for words, loaded in (("version", "version"), ("store_du", "store_du store"), ("schema", "schema")):
        done = subprocess.run(
            [sys.executable, "-c", program, words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert set(done.stdout.split()) == set(loaded.split())


def test_no_command_imports_another() -> None:
    offences = [
        f"{path.name} imports {node.module}"
        for path, tree in trees().items()
        if path.parent == CLI / "commands"
        for node in nodes(tree)
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("pipeline.cli.commands.")
    ]
    assert not offences


def test_no_options_help_stands_twice() -> None:
    """What two commands share is in `pipeline/cli/options.py`."""
    where = defaultdict(list)
    for path, tree in trees().items():
        for call in nodes(tree):
            if isinstance(call, ast.Call) and dotted(call.func) in ("typer.Option", "typer.Argument"):
                where[next(ast.unparse(word.value) for word in call.keywords if word.arg == "help")].append(path.name)
    assert not {text: files for text, files in where.items() if len(files) > 1 and "'" in text}


def test_a_command_with_json_prints_its_result() -> None:
    """`--json` comes by itself: a command without a machine-readable result says `json=False`. An SBOM is JSON anyway,
    printed byte for byte; there the option says that errors are too."""
    offering = {words for words, command in commands().items() if "--json" in options(command)}
    printing = {
        words_of(path.stem)
        for path, tree in trees().items()
        if path.parent == CLI / "commands"
        for call in nodes(tree)
        if isinstance(call, ast.Call) and dotted(call.func) in ("context.show", "context.answer")
    }
    assert offering == printing | {("sbom",)}


NOT_NAMED = {"prune": "oci:", "publish": "oci:", "nightly": "oci:"}
"""Commands whose help leaves out a kind of mirror: nothing in a layout is pruned, and it is for one image that is
carried, to which `copy` writes."""


def test_a_help_that_lists_kinds_of_mirrors_lists_all() -> None:
    """One that names a kind as an example names no other."""
    listing = 0
    for words, command in commands().items():
        for parameter in command.params:
            text = str(vars(parameter).get("help") or "")
            named = {form.prefix for form in ADDRESS_FORMS if form.prefix in text}
            if len(named) > 1:
                listing += 1
                wanted = {form.prefix for form in ADDRESS_FORMS if form.example} - {NOT_NAMED.get(words[0])}
                assert named >= wanted, f"relbuild {' '.join(words)}, {parameter.name}: name {wanted - named} too"
    assert listing


def test_each_command_has_its_own_place_in_the_list() -> None:
    ranks = Counter(
        (words_of(path.stem)[:-1], ast.unparse(word.value))
        for path, tree in trees().items()
        if path.parent == CLI / "commands"
        for call in nodes(tree)
        if isinstance(call, ast.Call) and dotted(call.func) == "command"
        for word in call.keywords
        if word.arg == "rank"
    )
    assert ranks.total() == len(commands())
    assert not [place for place, count in ranks.items() if count > 1]


def test_what_may_be_offline_reads_repositories_and_so_does_a_worker() -> None:
    offline = {words for words, command in commands().items() if "--offline" in options(command)}
    assert {words for words in commands() if reads_repositories(words)} == offline | {("worker",)}


def test_what_takes_a_runtime_makes_containers() -> None:
    making = {words for words, command in commands().items() if "--runtime" in options(command)}
    assert making < {words_of(module) for module in IN_USER_NAMESPACE}


@pytest.mark.parametrize(
    ("words", "command", "reads"),
    [
        ("mysql.yaml", "build", True),
        ("build mysql.yaml", "build", True),
        ("mysql.yaml --help", "build", False),
        ("nightly recipes --to dir:mirror", "nightly", True),
        ("keygen release", "keygen", False),
        ("serve mirror", "serve", False),
        ("verify dir:mirror/mysql:9 --key release.pub", "verify", False),
        ("store gc --older-than 3", "store_gc", False),
        ("store", "store", False),
        ("store nosuch", "store", False),
        ("--help", "", False),
        ("", "", False),
    ],
)
def test_it_is_known_from_the_words_what_is_needed(words: str, command: str, reads: bool) -> None:
    assert command_of(words.split()) == command
    assert reads_repositories(words.split()) is reads


def test_garbage_is_collected_again_when_a_command_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []
    monkeypatch.setattr("sys.argv", ["relbuild", "version"])
    monkeypatch.setattr(sys.modules[run_command_line.__module__], "app", lambda arguments: begun.append(gc.isenabled()))
    gc.disable()  # as `pipeline.cli.main` does before it loads anything
    try:
        run_command_line()
        assert begun == [True]
    finally:
        gc.enable()
        gc.unfreeze()


def test_the_list_of_commands_cuts_no_help_short() -> None:
    width = 80 - 6 - max(len(one.name) for one in command_summaries())
    first = {one.name: one.help.partition("\n")[0].partition(". ")[0] for one in command_summaries()}
    assert {name: text for name, text in first.items() if len(text) > width} == {}
