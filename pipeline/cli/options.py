"""Shared command-line options and arguments with help and defaults, declared once.

A command has a parameter of the option's type without a default (`offline: options.OfflineOption`):
`pipeline.cli.app.command` gives it the option's own default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.argument_values import (
    image_values,
    instance_values,
    platform_values,
    recipe_values,
    reference_values,
    subject_values,
)
from pipeline.cli.progress_display import ProgressStyle
from pipeline.compression import Compression
from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Default:
    """The value of an option that is not given."""

    value: object


# --- of every command: `pipeline.cli.app.command` adds them ------------------------------------------------

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store", help="Folder of the store (default: in the user's cache directory).", envvar="RELBUILD_STORE"
    ),
    Default(None),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one machine-readable result on stdout."), Default(False)
]
ProgressOption = Annotated[
    ProgressStyle, typer.Option("--progress", help="Style of progress, on stderr.", envvar="RELBUILD_PROGRESS")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress, only warnings, as `--progress none`."), Default(False)
]
TimingsOption = Annotated[
    bool,
    typer.Option("--timings", help="Show at the end where the time went: wall clock, CPU, bytes, critical path."),
    Default(False),
]
TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", help="Write the course of the work to FILE, for Chrome's tracing or Perfetto."),
    Default(None),
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show all of a result that did not change, and the causes of an error."),
    Default(False),
]
VerboseWithoutLetter = Annotated[bool, typer.Option("--verbose", help="Show the causes of an error."), Default(False)]
"""`--verbose` of a command with another option -v."""

# --- recipes and repositories ------------------------------------------------------------------------------

RecipeArgument = Annotated[
    str,
    typer.Argument(help="A recipe's file, or its name in recipes/.", show_default=False, autocompletion=recipe_values),
]
PlatformOption = Annotated[
    str | None,
    typer.Option(
        "--platform",
        help="Another platform than the recipe's.",
        envvar="RELBUILD_PLATFORM",
        autocompletion=platform_values,
    ),
    Default(None),
]
ArchOption = Annotated[
    list[str] | None,
    typer.Option("--arch", help="Another architecture than the recipe's; several: ARCH,ARCH."),
    Default(None),
]
IndexArchOption = Annotated[
    str, typer.Option("--arch", help="Of images for several architectures, the one for this."), Default("")
]
RunArchOption = Annotated[
    str,
    typer.Option(
        "--arch", help="The image for this architecture (default: this machine's, else one that it emulates)."
    ),
    Default(""),
]
RepositoriesOption = Annotated[
    Path | None,
    typer.Option(
        "--repositories",
        help="The file that defines platforms (default: beside the recipe).",
        resolve_path=True,
        envvar="RELBUILD_REPOSITORIES",
    ),
    Default(None),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Use only content of the store; no network."), Default(False)
]
UpgradeOption = Annotated[
    bool, typer.Option("--upgrade", help="Resolve again even if the lock is fresh."), Default(False)
]

# --- building and testing ----------------------------------------------------------------------------------

CompressionOption = Annotated[
    Compression,
    typer.Option("--compression", help="Compression of layers.", envvar="RELBUILD_COMPRESSION"),
    Default(Compression.GZIP),
]
FullOption = Annotated[
    bool, typer.Option("--full", help="Also run the long tests: `smoke.neighbours`."), Default(False)
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="An OCI runtime with runc's command line (default: runc, else crun).",
        envvar="RELBUILD_RUNTIME",
    ),
    Default(None),
]
LauncherOption = Annotated[
    str | None,
    typer.Option(
        "--launcher",
        help="Launch smoke tests by podman, docker, runsc or kubernetes:HOST/NAME, not by relbuild's own sandbox.",
        envvar="RELBUILD_LAUNCHER",
    ),
    Default(None),
]
OutputFolder = Annotated[Path, Default(Path("output"))]
"""The folder of layouts and reports; each command has its own help text for it."""

OUTPUT_VARIABLE = "RELBUILD_OUTPUT"
"""The environment variable that stands for `--output` in all commands."""

LayoutsOption = Annotated[
    OutputFolder, typer.Option("--output", help="Folder of built layouts.", envvar=OUTPUT_VARIABLE)
]

# --- images ------------------------------------------------------------------------------------------------

SubjectArgument = Annotated[
    str,
    typer.Argument(
        help="An image's OCI layout, or a recipe: its file, or its name.",
        show_default=False,
        autocompletion=subject_values,
    ),
]
ImageArgument = Annotated[
    str,
    typer.Argument(
        help="An OCI layout, the name of one in --output, or a reference on a mirror (dir:PATH/NAME:TAG …).",
        show_default=False,
        autocompletion=image_values,
    ),
]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        help="registry://HOST/NAMESPACE/NAME:TAG, dir:PATH/NAME:TAG or oci:PATH:TAG",
        show_default=False,
        autocompletion=reference_values,
    ),
]

# --- instances ---------------------------------------------------------------------------------------------

InstanceArgument = Annotated[
    str,
    typer.Argument(help="An instance's name, as `ps` shows it.", show_default=False, autocompletion=instance_values),
]
InstancesArgument = Annotated[
    list[str],
    typer.Argument(help="Names of instances, as `ps` shows them.", show_default=False, autocompletion=instance_values),
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option("--env", "-e", help="NAME=VALUE, or NAME with its value in this environment."),
    Default(None),
]

# --- mirrors -----------------------------------------------------------------------------------------------

MirrorOption = Annotated[
    str,
    typer.Option(
        "--to",
        help="The mirror: registry://HOST/NAMESPACE or dir:PATH. The product's name is added to it.",
        show_default=False,
        envvar="RELBUILD_TO",
    ),
]
PublicNameOption = Annotated[
    str,
    typer.Option("--as", help="HOST/NAMESPACE that clients pull from, for a new directory mirror."),
    Default(""),
]
SIGNING_KEY_VARIABLE = "RELBUILD_KEY_FILE"
"""The environment variable that stands for `--key` where that is the signing key."""

SigningKeyOption = Annotated[
    Path,
    typer.Option(
        "--key",
        help="The signing key: PKCS#8, or in cosign's encrypted format.",
        show_default=False,
        envvar=SIGNING_KEY_VARIABLE,
    ),
]
VerifyingKeyOption = Annotated[
    Path,
    typer.Option("--key", help="The public key that must have signed (a private key works, too).", show_default=False),
]
FormerKeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--former-key",
        help="The publisher's public key before --key: what it signed counts as well (repeatable).",
        show_default=False,
    ),
]
RulesOption = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        help="The mirror's rules (default: rules.yaml in the root of a directory mirror, if present).",
        resolve_path=True,
        envvar="RELBUILD_RULES",
    ),
    Default(None),
]
SignedAsOption = Annotated[
    str,
    typer.Option("--as", help="The identity HOST/NAMESPACE/NAME that was signed, if this mirror is a copy."),
    Default(""),
]
StaleOption = Annotated[
    bool,
    typer.Option("--allow-stale", help="Accept an expired signed move of a tag, and show that."),
    Default(False),
]


def split_architectures(given: list[str] | None) -> tuple[str, ...]:
    """Return the architectures that `--arch` names, given several times or separated by commas.

    Raises UsageError `arch-empty` for an empty name: left out, it would mean other architectures.
    """
    names = [name.strip() for one in given or () for name in one.split(",")]
    if not all(names):
        raise UsageError(
            "arch-empty",
            f"--arch '{','.join(given or ())}' has an empty name",
            hint="name architectures, such as --arch x86_64,aarch64, or leave out the option for the recipe's own",
        )
    return tuple(dict.fromkeys(names))
