"""Completion of command lines by bash, zsh and fish: scripts, and the values for them.

The script hands over the line up to the cursor in LINE_VARIABLE, and reads lines of kind, value and help, with tabs
between them. Kinds are `plain`, `file` and `dir`; for the latter two the shell completes paths itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import typer

from pipeline.cli.app import app
from pipeline.cli.argument_values import recipe_values
from pipeline.cli.commands import DEFAULT, command_of, command_summaries, import_commands
from pipeline.lazy_dataclasses import dataclass

LINE_VARIABLE = "_RELBUILD_COMPLETE"
"""The variable with the line to be completed: where it is set, `relbuild` prints values, and that is all."""

_HELP_WIDTH = 200
"""Characters of a command's help; the shell cuts it."""

_PATHS = {"path": "file", "file": "file", "directory": "dir"}
"""Kinds of values by the names of typer's types of paths."""

SCRIPTS = {
    "bash": """\
_relbuild() {
  # A colon separates words in bash; what stands before it is not to be inserted again.
  local line=${COMP_LINE:0:COMP_POINT} kind value help
  local word=${line##* }; local before=${word%"${word##*:}"}
  COMPREPLY=()
  while IFS=$'\\t' read -r kind value help; do
    case $kind in
      dir) compopt -o dirnames ;;
      file) compopt -o default ;;
      plain) COMPREPLY+=("${value#"$before"}"); case $value in */|*:) compopt -o nospace ;; esac ;;
    esac
  done < <(_RELBUILD_COMPLETE="$line" relbuild 2>/dev/null)
}
complete -F _relbuild relbuild
""",
    "zsh": """\
#compdef relbuild
_relbuild() {
  local kind value help
  local -a values shown open
  while IFS=$'\\t' read -r kind value help; do
    case $kind in
      dir) _path_files -/ ;;
      file) _path_files ;;
      plain) case $value in
        */|*:) open+=("$value") ;;
        *) values+=("$value"); shown+=("${value}${help:+  -- $help}") ;;
      esac ;;
    esac
  done < <(_RELBUILD_COMPLETE="$LBUFFER" relbuild 2>/dev/null)
  (( $#values )) && compadd -l -d shown -a values
  (( $#open )) && compadd -S '' -a open
}
compdef _relbuild relbuild
""",
    "fish": """\
function __relbuild_complete
    set -lx _RELBUILD_COMPLETE (commandline -cp)
    for line in (relbuild 2>/dev/null)
        set -l parts (string split \\t -- $line)
        switch $parts[1]
            case dir
                __fish_complete_directories (commandline -ct)
            case file
                __fish_complete_path (commandline -ct)
            case plain
                printf '%s\\t%s\\n' $parts[2] $parts[3]
        end
    end
end
complete -c relbuild -f -a '(__relbuild_complete)'
""",
}
"""The script of each shell that is known."""


@dataclass(frozen=True, slots=True)
class CompletedValue:
    """A value that completes a word, its help, and its kind; `file` and `dir` have no value."""

    value: str
    help: str = ""
    kind: str = "plain"


def completed_values(line: str) -> Iterator[CompletedValue]:
    """Yield the values by which the last word of a command line may be completed."""
    words = _split(line)
    incomplete = "" if not words or line[-1:].isspace() else words.pop()
    arguments = words[1:]
    if not arguments:
        yield from _first_words(incomplete)
        return
    command = command_of(arguments)
    if command == DEFAULT and arguments[0] != DEFAULT:
        arguments.insert(0, DEFAULT)
    import_commands(command)
    known: Any = typer.main.get_command(app)
    for number, word in enumerate(arguments):
        known = known.commands[word]
        if not hasattr(known, "commands"):
            yield from _words_of(known, arguments[number + 1 :], incomplete)
            return
    for name, one in known.commands.items():
        if name.startswith(incomplete):
            yield CompletedValue(name, one.get_short_help_str(_HELP_WIDTH))


def _first_words(incomplete: str) -> Iterator[CompletedValue]:
    """Yield commands, recipes and the options that stand before a command."""
    for one in command_summaries():
        if one.name.startswith(incomplete):
            yield CompletedValue(one.name, one.help.partition("\n")[0])
    yield from (CompletedValue(value) for value in recipe_values(incomplete))
    yield from (CompletedValue(word) for word in ("--help", "--version") if incomplete and word.startswith(incomplete))


def _words_of(command: Any, before: Sequence[str], incomplete: str) -> Iterator[CompletedValue]:  # noqa: ANN401  typer's
    """Yield options, values or arguments that complete a word of a command after `before`."""
    context = command.make_context(command.name, [], resilient_parsing=True)
    options = {word: one for one in command.params if one.param_type_name == "option" for word in one.opts}
    name, equals, value = incomplete.partition("=")
    if before and before[-1] in options and not options[before[-1]].is_flag:
        yield from _of(options[before[-1]], context, incomplete)
    elif equals and name in options:
        yield from (replace(one, value=f"{name}={one.value}") for one in _of(options[name], context, value))
    elif incomplete.startswith("-"):
        for word, one in options.items():
            if word.startswith("--") and word.startswith(incomplete) and (one.multiple or word not in before):
                yield CompletedValue(word, one.help or "")
    else:
        given = _arguments(before, options)
        places = [one for one in command.params if one.param_type_name == "argument"]
        for index, one in enumerate(places):
            if index == given or (index < given and one.nargs != 1):
                yield from _of(one, context, incomplete)
                return


def _arguments(words: Sequence[str], options: Mapping[str, Any]) -> int:
    """Count the words that are arguments: neither options nor their values."""
    count = 0
    takes_next = False
    for word in words:
        if takes_next or word.startswith("-"):
            takes_next = not takes_next and word in options and not options[word].is_flag
        else:
            count += 1
    return count


def _of(parameter: Any, context: Any, incomplete: str) -> Iterator[CompletedValue]:  # noqa: ANN401
    items = parameter.shell_complete(context, incomplete)
    yield from (CompletedValue(item.value, item.help or "") for item in items)
    if not items and parameter.type.name in _PATHS:
        yield CompletedValue("", kind=_PATHS[parameter.type.name])


def _split(line: str) -> list[str]:
    """Split a line into words; one whose quotes are still open is split at blanks."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def completion_lines(line: str) -> Iterator[str]:
    """Format the values that complete a command line as scripts read them."""
    for one in completed_values(line):
        yield "\t".join((one.kind, one.value, one.help.partition("\n")[0].replace("\t", " ")))
