"""The Typer application: the `command` decorator, a command's context, and its execution."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from pipeline.cli import commands
from pipeline.cli.messages import print_json, print_lines, report_error
from pipeline.cli.options import (
    Default,
    JsonOption,
    ProgressOption,
    QuietOption,
    StoreOption,
    TimingsOption,
    TraceOption,
    VerboseOption,
    VerboseWithoutLetter,
)
from pipeline.cli.path_arguments import path_parser, require_folder
from pipeline.cli.progress_display import ProgressStyle, close, open_progress
from pipeline.cli.signals import SIGNALS, Interruptible, Terminated
from pipeline.cli.standard_streams import stdout_is_closed
from pipeline.cli.write_errors import with_way_out
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.escaping import escape_invisible
from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import QUIET, Progress
from pipeline.user_home import with_home

if TYPE_CHECKING:
    from pipeline.prepare import BuildEnvironment
    from pipeline.store import Store

_HELP = "Build container images from YAML recipes and RPM repositories; publish only those that passed their tests."


def _provide_temporary_directory(store: Path) -> None:
    """Make temporary files in the store where the machine has no place for them.

    In a pod with a read-only root file system, there may be no other directory that can be written to than a volume.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        # The variable is for libraries: SQLite has temporary files of its own.
        tempfile.tempdir = os.environ["TMPDIR"] = str((store / "tmp").absolute())


def _make_app() -> typer.Typer:
    made = typer.Typer(
        name="relbuild",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": sorted(commands.HELP, key=len)},
    )
    made.callback()(lambda: None)  # Else typer makes a single command the whole application.
    return made


app = _make_app()

IN_USER_NAMESPACE: set[str] = set()
"""Module names of commands that an ordinary user runs as root of a user namespace: they make containers, or remove
files owned by subordinate IDs. Filled as commands are imported."""

NamespaceRule = bool | Callable[[Mapping[str, Any]], bool]
"""True for a command that is run in a user namespace, or a function that tells it from the command's options."""

_GROUPS: dict[str, typer.Typer] = {}
_RANKS: dict[Callable[..., Any] | None, int] = {}


@dataclass(frozen=True, slots=True)
class CommandContext:
    """Access of a command to the process's environment, clock, store and progress.

    They are read here and nowhere else. `store` is the option's value; `verbose`: the user wants all of a result;
    `has_store`: the command has that option. `finished`: members of the answer that a command has already, which an
    error's JSON has, too.
    """

    progress: Progress
    as_json: bool = False
    store: Path | None = None
    verbose: bool = False
    has_store: bool = True
    finished: dict[str, object] = field(default_factory=dict, compare=False)

    @property
    def clock(self) -> Callable[[], float]:
        """The function that returns seconds since the epoch."""
        return time.time

    @property
    def environment(self) -> dict[str, str]:
        """The process's environment variables, and HOME where they lack it."""
        return with_home(os.environ)

    def open_store(self) -> Store:
        """Return the store, by default in the user's cache directory."""
        # Here and not above, as below: importing it takes longer than many commands run.
        from pipeline.store import Store, given_key

        folder = require_folder(self.store_folder)
        store = Store.open(folder, key=given_key(self.environment), tell=self.progress.warn)
        _provide_temporary_directory(store.root)
        return store

    @property
    def store_folder(self) -> Path:
        """The path of the store, which need not exist."""
        from pipeline.store import cache_folder

        return self.store or cache_folder(self.environment) / "store"

    def build_env(
        self, *, offline: bool = False, runtime: str | None = None, launcher: str | None = None
    ) -> BuildEnvironment:
        """Return the environment of a build: the opened store, progress, clock, network."""
        from pipeline.heap import use_one_arena
        from pipeline.prepare import BuildEnvironment

        use_one_arena()
        return BuildEnvironment(
            store=self.open_store(),
            progress=self.progress,
            environment=self.environment,
            clock=self.clock,
            offline=offline,
            runtime=runtime,
            launcher=launcher,
        )

    def answer(self, value: object) -> None:
        """Print the one machine-readable result on stdout, where it is asked for."""
        if self.as_json:
            print_json(value)

    def show(self, lines: Iterable[str], value: object) -> None:
        """Print a command's result on stdout: lines of text, or as JSON.

        A line feed in a line is escaped: it comes from elsewhere.
        """
        if self.as_json:
            print_json(value)
        else:
            print("\n".join(escape_invisible(line, lines=False) for line in lines))


def command_group(name: str, *, help: str) -> None:
    """Declare a group of commands; those in files `NAME_….py` are in it."""
    _GROUPS[name] = typer.Typer(help=help, no_args_is_help=True)
    app.add_typer(_GROUPS[name], name=name)


def _group(name: str) -> typer.Typer:
    importlib.import_module(f"{commands.__name__}.{name}")
    return _GROUPS[name]


def command(
    *,
    rank: int,
    in_user_namespace: NamespaceRule = False,
    reads_repositories: bool = False,  # Read from the source, by `pipeline.cli.commands.reads_repositories`.
    store: bool = True,
    json: bool = True,
    progress: ProgressStyle | None = ProgressStyle.AUTO,
    options_first: bool = False,
    interrupted: str = "",
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Declare a function as the command that its module is named after.

    It gets its `CommandContext` first, then its options by name, and returns the exit status; its docstring is the
    help. `rank` is its place in the list of commands; `in_user_namespace`: it makes containers, or removes files owned
    by subordinate IDs; `reads_repositories`: it reads those of a platform. `store`, `json` and `progress` (the default
    style; None: no progress) say which of these standard options it has; they come last. `options_first`: what follows
    the first argument is no option of the command. `interrupted` tells, after a signal, what is left and how to go on.
    """
    standard = [
        *([_parameter("store", StoreOption)] if store else ()),
        *([_parameter("as_json", JsonOption)] if json else ()),
        *([_parameter("progress", ProgressOption, progress)] if progress is not None else ()),
        *([_parameter("quiet", QuietOption)] if progress is not None else ()),
        *([_parameter("timings", TimingsOption), _parameter("trace", TraceOption)] if progress is not None else ()),
    ]

    def declare(function: Callable[..., int]) -> Callable[..., int]:
        own = inspect.signature(function, eval_str=True)
        parameters = [*map(_with_default, [*own.parameters.values()][1:]), *standard]
        for one in parameters:
            _name_argument(one)
            _refuse_empty_path(one)
        parameters.append(_parameter("verbose", VerboseWithoutLetter if _has_letter_v(parameters) else VerboseOption))

        @functools.wraps(function)
        def run(**given: Any) -> None:  # noqa: ANN401  typer gives each by its own type
            if in_user_namespace(given) if callable(in_user_namespace) else in_user_namespace:
                _enter_user_namespace()
            style, as_json = given.pop("progress", None), given.pop("as_json", False)
            style = ProgressStyle.NONE if given.pop("quiet", False) else style
            chosen, verbose = given.pop("store", None), given.pop("verbose", False)
            opened = QUIET if style is None else open_progress(style)
            shown = _recorded(opened, given.pop("timings", False), given.pop("trace", None))
            context = CommandContext(shown, as_json, chosen, verbose, has_store=store)
            perform(lambda context: function(context, **given), context, interrupted)

        vars(run)["__signature__"] = own.replace(parameters=parameters, return_annotation=None)
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        module = function.__module__.rpartition(".")[2]
        *groups, name = commands.words_of(module)
        place = _group(groups[0]) if groups else app
        place.command(name, context_settings={"allow_interspersed_args": not options_first})(run)
        _RANKS[run] = rank
        place.registered_commands.sort(key=lambda one: _RANKS[one.callback])
        if in_user_namespace:
            IN_USER_NAMESPACE.add(module)
        return function

    return declare


def _recorded(shown: Progress, timings: bool, trace: Path | None) -> Progress:
    """Return the progress, recorded if the user wants to know where the time goes."""
    if not timings and trace is None:
        return shown
    from pipeline.cli.progress_recorder import ProgressRecorder, require_writable

    if trace is not None:
        require_writable(trace)
    return ProgressRecorder(shown, timings=timings, trace=trace)


def _name_argument(parameter: inspect.Parameter) -> None:
    """Name an argument in the line of usage as documents do: `RECIPE`, also for several."""
    declared = get_args(parameter.annotation)
    for one in declared:
        if isinstance(one, typer.models.ArgumentInfo) and one.metavar is None:
            name = parameter.name.upper()
            one.metavar = name.removesuffix("S") if get_origin(declared[0]) is list else name


def _refuse_empty_path(parameter: inspect.Parameter) -> None:
    """Refuse an empty path (`--output ''`): it would silently mean the working directory."""
    declared, *metadata = get_args(parameter.annotation) or (None,)
    for one in metadata:
        if declared in (Path, Path | None) and isinstance(one, typer.models.ParameterInfo):
            decls = getattr(one, "param_decls", None)
            shown = decls[0] if decls else f"--{parameter.name.replace('_', '-')}"
            argument = isinstance(one, typer.models.ArgumentInfo)
            one.parser = path_parser(parameter.name.upper() if argument else shown, resolve=one.resolve_path)


def _has_letter_v(parameters: Iterable[inspect.Parameter]) -> bool:
    """Return whether one of the options is -v."""
    declared = (one for parameter in parameters for one in get_args(parameter.annotation))
    return any("-v" in (getattr(one, "param_decls", None) or ()) for one in declared)


def list_app() -> typer.Typer:
    """Return an application that can show the list of all commands and groups, and nothing else."""
    made = _make_app()
    made.callback()(_with_version)
    for one in commands.command_summaries():
        if one.is_group:
            made.add_typer(typer.Typer(help=one.help), name=one.name)
        else:
            made.command(one.name, help=one.help)(lambda: None)
    return made


def _with_version(
    *,
    version: Annotated[bool, typer.Option("--version", "-V", help="As the command `version`, and exit.")] = False,
) -> None:
    """Show in the help the option that `pipeline.cli.main` replaces by its command."""


def _enter_user_namespace() -> None:
    """Become root of a user namespace, unless this process is root; before there are threads."""
    if os.geteuid() != 0:
        # Here and not above: root needs no namespace. Where it fails, steps that need root raise by themselves.
        from pipeline.sandbox import rootless

        with contextlib.suppress(EnvironmentLacking):
            rootless.enter_user_namespace()


def _parameter(name: str, option: Any, default: object = inspect.Parameter.empty) -> inspect.Parameter:  # noqa: ANN401  a type with metadata
    return _with_default(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option))


def _with_default(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return the parameter with its option's own default where the command gives none."""
    own = [one.value for one in get_args(parameter.annotation) if isinstance(one, Default)]
    return parameter.replace(default=own[0]) if own and parameter.default is parameter.empty else parameter


def _known_store(context: CommandContext) -> Path | None:
    """Return the path of the command's store, None if it has none or nobody knows where."""
    try:
        return context.store_folder if context.has_store else None
    except EnvironmentLacking:
        return None


def _warn_of_ignored_cache(context: CommandContext) -> None:
    """Warn, once in a command that has a store, of a cache directory that is ignored."""
    if context.has_store and context.store is None and not os.environ.get("XDG_CACHE_HOME", "/").startswith("/"):
        from pipeline.store import ignored_cache_warning  # for a warning alone

        if ignored := ignored_cache_warning(os.environ):
            print_lines(f"warning: {ignored}") if context.progress is QUIET else context.progress.warn(ignored)


def perform(act: Callable[[CommandContext], int], context: CommandContext, interrupted: str = "") -> None:
    """Run a command's body with live progress around it, and exit with its status.

    `interrupted` is told after a signal that ended it.
    """
    progress = context.progress
    with Interruptible() as signals:
        try:
            if context.as_json and stdout_is_closed():
                raise UsageError(
                    "stdout-closed",
                    "--json writes to standard output, which is closed",
                    hint="open it, or leave out --json",
                )
            _warn_of_ignored_cache(context)
            status = act(context)
            sys.stdout.flush()
            signals.check()
        except (KeyboardInterrupt, Terminated, Exception) as error:
            close(progress)
            if (number := signals.number_of(error)) is not None:
                line = "; ".join(filter(None, (SIGNALS[signal.Signals(number)], interrupted)))
                signals.tell(lambda: print_lines(line))
                status = 128 + number
            elif isinstance(error, Exception):
                told = with_way_out(error, _known_store(context))
                status = report_error(told, as_json=context.as_json, causes=context.verbose, finished=context.finished)
            else:
                raise
        finally:
            close(progress)
    sys.exit(status)
