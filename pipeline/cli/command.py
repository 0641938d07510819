"""The parts that every command has.

Its options by one name each, what the process was started with, and how it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import pipeline
from pipeline.cli.outcome import report as report_error
from pipeline.cli.progress import Look, close, open_progress
from pipeline.cli.signals import SIGNALS, Interruptible, Terminated
from pipeline.cli.streams import stdout_is_closed
from pipeline.compression import Compression
from pipeline.errors import RelbuildError, UsageError
from pipeline.escaping import json_text, visible
from pipeline.model.lock import Mode
from pipeline.progress import Progress
from pipeline.store import Store, given_key

if TYPE_CHECKING:
    from pipeline.gather import Order, Workshop

app = typer.Typer(
    name="relbuild",
    help="Turns YAML recipes into container images from RPM repositories, and ships only the bytes that were tested.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
store_app = typer.Typer(help="Look after the store.", no_args_is_help=True)
app.add_typer(store_app, name="store")

CHECKOUT = Path(pipeline.__file__).parents[1]
"""Where recipes/ and templates/ stand when relbuild runs from a checkout."""

JsonOption = Annotated[bool, typer.Option("--json", help="One machine-readable result on stdout.")]
ProgressOption = Annotated[Look, typer.Option("--progress", help="How progress is shown, on stderr.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Where content is kept (default: the user's cache directory).")
]
RecipeArgument = Annotated[str, typer.Argument(help="A recipe's file, or its name in recipes/.", show_default=False)]
PlatformOption = Annotated[str | None, typer.Option("--platform", help="Another platform than the recipe's.")]
ArchOption = Annotated[list[str] | None, typer.Option("--arch", help="Another architecture than the recipe's.")]
RepositoriesOption = Annotated[
    Path | None,
    typer.Option(
        "--repositories", help="The file that defines platforms (default: beside the recipe).", resolve_path=True
    ),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use what the store holds and nothing else.")]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", help="An OCI runtime with runc's command line (default: runc, else crun)."),
]

KeyOption = Annotated[
    Path, typer.Option("--key", help="The key that signs: PKCS#8, or in cosign's encrypted form.", show_default=False)
]
VerifyOption = Annotated[
    Path,
    typer.Option("--key", help="The public key that must have signed (a private one will do).", show_default=False),
]
RulesOption = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        help="The keeper's rules (default: rules.yaml in a directory mirror's root, if there).",
        resolve_path=True,
    ),
]

FullOption = Annotated[bool, typer.Option("--full", help="Also ask what takes long: `smoke.neighbours`.")]
SubjectArgument = Annotated[
    str, typer.Argument(help="An image's OCI layout, or a recipe: its file, or its name.", show_default=False)
]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The state that the process was started with, read here and nowhere else."""

    progress: Progress
    as_json: bool

    @property
    def clock(self) -> Callable[[], float]:
        """Tells seconds since the epoch."""
        return time.time

    @property
    def environment(self) -> dict[str, str]:
        """The process's environment variables."""
        return dict(os.environ)

    def open_store(self, store: Path | None) -> Store:
        """The store, by default in the user's cache directory."""
        environment = self.environment
        home = Path(environment.get("HOME", "/root"))
        cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "relbuild"
        return Store.open(a_folder(store or cache / "store"), key=given_key(environment), tell=self.progress.warn)

    def workshop(self, store: Path | None, *, offline: bool = False, runtime: str | None = None) -> Workshop:
        """Return the environment that the command works in, with its store opened."""
        # Here and not above, as in `order`: what is needed to build takes longer to load than many commands to run.
        from pipeline.gather import Workshop

        return Workshop(
            store=self.open_store(store),
            progress=self.progress,
            environment=self.environment,
            clock=self.clock,
            offline=offline,
            runtime=runtime,
        )


def perform(act: Callable[[Surroundings], int], look: Look, as_json: bool) -> None:
    """Run a command's body with live progress around it, and exit with its status."""
    progress = open_progress(look)
    with Interruptible():
        try:
            if as_json and stdout_is_closed():
                raise UsageError("stdout-closed", "--json writes to standard output, which is closed", hint="open it")
            status = act(Surroundings(progress, as_json))
            sys.stdout.flush()
        except (KeyboardInterrupt, Terminated) as ended:
            number = ended.number if isinstance(ended, Terminated) else signal.SIGINT
            close(progress)
            print(visible(SIGNALS[signal.Signals(number)]), file=sys.stderr)
            status = 128 + number
        except Exception as error:
            close(progress)
            status = report_error(error, as_json=as_json)
        finally:
            close(progress)
    sys.exit(status)


def a_folder(path: Path) -> Path:
    """Return `path`, which is a directory, or can become one.

    Raises UsageError `not-a-directory` before any work is done.
    """
    standing = next((one for one in (path, *path.parents) if os.path.lexists(one)), path)
    if os.path.lexists(standing) and not standing.is_dir():
        raise UsageError(
            "not-a-directory", "a directory is wanted here, and something else stands here", place=str(standing),
            hint="name another, or move it away",
        )  # fmt: skip
    return path


def tell(error: RelbuildError) -> int:
    """Tell people of an error after the answer was given; returns the status to exit with.

    The answer says the error in its own way: stdout has one JSON value.
    """
    return report_error(error, as_json=False)


def say(*lines: str) -> None:
    """Lines for people, on stderr."""
    for line in lines:
        print(visible(line), file=sys.stderr)


def answer(value: object) -> None:
    """The one machine-readable result, on stdout."""
    print(json_text(value))


def order(
    name: str,
    platform: str | None,
    arch: list[str] | None,
    repositories: Path | None,
    *,
    mode: Mode = Mode.DEFAULT,
    smoke: bool = True,
    retest: bool = False,
    compression: Compression = Compression.GZIP,
    output: Path = Path("output"),
    full: bool = False,
    sources: bool = False,
) -> Order:
    """Return the build options that a person asks for.

    The recipe and the file of platforms are found.
    """
    from pipeline.gather import Order
    from pipeline.recipes import find_recipe

    path = find_recipe(name, [Path("recipes"), CHECKOUT / "recipes"])
    beside = [path.parent / "repositories.yaml", CHECKOUT / "recipes" / "repositories.yaml"]
    chosen = repositories or next((file for file in beside if file.exists()), beside[0])
    return Order(
        recipe=path,
        repositories=chosen,
        platform=platform,
        architectures=tuple(arch or ()),
        mode=mode,
        smoke=smoke,
        retest=retest,
        compression=compression,
        output=a_folder(output),
        full=full,
        sources=sources,
    )
