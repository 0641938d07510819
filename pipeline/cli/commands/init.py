"""The `init` command: write a catalogue whose first image builds at once."""

from __future__ import annotations

import platform as machine
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.path_arguments import require_folder
from pipeline.recipes import STARTER, CiSystem, NewCatalogue, Platforms, load_platforms, write_catalogue
from pipeline.sandbox import missing_programs
from pipeline.shipped import SHIPPED, platforms_file
from pipeline.store import cache_folder

_PROGRAM_VARIABLE = "RELBUILD_PROGRAM"
"""The variable in which a script that starts relbuild (ci/relbuild) says how to start that script again."""
_LOCAL = "local"
_ELSEWHERE = "centos-stream-9"
"""The platform where no mirror is here nor this machine's distribution is known: free, and found by metalinks."""
_DISTRIBUTIONS = {
    "almalinux": "almalinux-{major}",
    "amzn": "amazonlinux-{major}",
    "azurelinux": "azurelinux-{major}",
    "centos": "centos-stream-{major}",
    "fedora": "fedora-{major}",
    "ol": "oraclelinux-{major}",
    "opensuse-leap": "opensuse-leap-{major}",
    "opensuse-tumbleweed": "opensuse-tumbleweed",
    "photon": "photon-{major}",
    "rhel": "ubi-{major}",
    "rocky": "rocky-{major}",
}
"""`ID` of os-release → platform. What needs an entitlement is not taken unasked."""


@command(rank=215, store=False, progress=None)
def init_command(
    context: CommandContext,
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the catalogue is to be.", show_default="here")
    ] = Path(),
    platform: Annotated[
        str | None,
        typer.Option(help="The platform (default: a development mirror that is here, else this machine's own)."),
    ] = None,
    product: Annotated[
        list[str] | None,
        typer.Option(help="A recipe that comes with relbuild, such as nginx (repeatable; default: a first one)."),
    ] = None,
    ci: Annotated[
        CiSystem | None, typer.Option(help="Whose CI file to write (default: the host of the git remote).")
    ] = None,
) -> int:
    """Write a catalogue: recipes, platform, keys, a CI file.

    Nothing that is there is overwritten.
    """
    require_folder(folder)
    there = folder / "recipes" / "repositories.yaml"
    platforms = load_platforms(there if there.is_file() else platforms_file())
    arch = machine.machine()
    chosen = platform or (next(iter(platforms), _ELSEWHERE) if there.is_file() else _found(context, platforms, arch))
    platforms.find(chosen)
    start = NewCatalogue(
        shipped=SHIPPED,
        platform=chosen,
        architecture=arch,
        products=tuple(product or ()),
        ci=ci or _ci_system(folder),
        local=chosen == _LOCAL,
    )
    done = write_catalogue(folder, start)
    first = (product or [STARTER if f"recipes/{STARTER}.yaml" in done.wrote else _a_recipe(folder)])[-1]
    program = _program(context.environment)
    following = " && ".join([*([f"cd {shlex.quote(str(folder))}"] if folder != Path() else []), f"{program} {first}"])
    missing = missing_programs()
    print_lines(
        f"wrote {folder}: {', '.join(_told(done.wrote)) or 'nothing'}",
        *([f"kept, because they were there: {', '.join(_told(done.kept))}"] if done.kept else []),
        f"platform: {chosen}, {platforms[chosen].description}",
        f"  next: `{following}` builds and tests the first image",
        *(f"  missing here: {one.name}, {one.detail} (needed for {one.needed_for})" for one in missing),
        f"  `{program} doctor` says what else this machine lacks, `{program} help` lists the documents",
    )
    answer = {"folder": str(folder), "wrote": list(done.wrote), "kept": list(done.kept), "platform": chosen}
    context.answer({**answer, "missing": [one.name for one in missing], "next": following})
    return 0


def _found(context: CommandContext, platforms: Platforms, arch: str) -> str:
    """Return the platform of a development mirror, else of this machine, else a free one."""
    environment = context.environment
    mirror = Path(environment.get("RELBUILD_MIRROR") or cache_folder(environment) / "mirror")
    if (mirror / arch / "base/repodata/repomd.xml").is_file():
        return _LOCAL
    own = machine.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    major = own.get("VERSION_ID", "").partition(".")[0]
    wanted = _DISTRIBUTIONS.get(own.get("ID", ""), "").format(major=major)
    return wanted if wanted in platforms else _ELSEWHERE


def _ci_system(folder: Path) -> CiSystem:
    """Return the system whose host the git remote of `folder` is on, by its name."""
    config = folder / ".git" / "config"
    text = config.read_text(errors="replace") if config.is_file() else ""
    urls = [line for line in text.splitlines() if line.strip().startswith("url")]
    named = [system for system in (CiSystem.GITHUB, CiSystem.GITLAB) if any(system in url for url in urls)]
    return named[0] if named else CiSystem.NONE


def _a_recipe(folder: Path) -> str:
    """Return the name of a recipe that was there before."""
    there = sorted(path.stem for path in (folder / "recipes").glob("*.y*ml") if path.stem != "repositories")
    return there[0] if there else STARTER


def _told(names: tuple[str, ...]) -> list[str]:
    """Return the names for people: keys are counted."""
    keys = sum(name.startswith("recipes/keys/") for name in names)
    return [name for name in names if not name.startswith("recipes/keys/")] + (
        [f"{keys} key{'s' * (keys > 1)}"] if keys else []
    )


def _program(environment: Mapping[str, str]) -> str:
    """Return how to start relbuild again, as it was started."""
    if script := environment.get(_PROGRAM_VARIABLE):
        return shlex.quote(script)
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m {started.parent.name}"
    found = shutil.which("relbuild")
    return "relbuild" if found and Path(found).resolve() == started.resolve() else shlex.quote(sys.argv[0])
