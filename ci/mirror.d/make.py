"""Makes the development mirror: the narrative. ``ci/mirror`` calls it, under its lock.

Debian's indexes → which packages → debs → specs → RPMs, signed → repositories → in place
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from architecture import ARCHITECTURES, Architecture
from archive import SUITES, Archive, ArchiveUnavailable
from catalogue import Catalogue, load
from closure import DebianPackage, Suites, Unresolvable, close
from conversion import Origin, Parts
from jobs import SOURCES_FOLDER, Builder, Keys, conversion_jobs, own_jobs
from repository import Compression, assemble, put_in_place
from rpmbuild import BuildFailed, PackageCache
from signing import Signer, SigningFailed, signer

README = """\
A development mirror, made by ci/mirror from Debian's binary packages. It exists because no RPM
mirror can be reached from a closed network. It is for developing and testing relbuild and for
nothing else: the packages are conversions, the advisories are made up, and nobody publishes
security updates here. Do not ship an image built from it.
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """The Debian packages chosen, and why MySQL is not among them, if it is not."""

    packages: dict[str, DebianPackage]
    without_mysql: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for; ``stamp`` marks the mirror as up to date at the end."""

    output: Path
    architecture: Architecture
    stamp: str
    refresh: bool
    large: bool
    quiet: bool

    @property
    def repositories(self) -> Path:
        """Where the repositories are: in the mirror, those of another architecture in a folder of its name."""
        return self.output if self.architecture.is_first else self.output / self.architecture.rpm

    @property
    def private(self) -> Path:
        """Where debs and finished RPMs are kept."""
        kept = self.output / ".private"
        return kept if self.architecture.is_first else kept / self.architecture.rpm

    def say(self, text: str) -> None:
        """Print a line of progress."""
        if not self.quiet:
            print(text, flush=True)


def make(request: Request) -> None:
    """Make or freshen the mirror."""
    started = time.monotonic()
    private, keys = request.private, request.output / ".private"
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    private.mkdir(exist_ok=True, mode=0o700)
    request.repositories.mkdir(exist_ok=True)
    architecture = request.architecture
    parts = Parts(architecture.parts(SOURCES_FOLDER, private / "parts"))
    catalogue = architecture.catalogue(load(SOURCES_FOLDER / "catalogue.toml"))
    archive = Archive(private / "apt", private / "debs", architecture.debian)
    selection, debs = select_and_fetch(archive, catalogue, request)
    request.say(f"{len(selection.packages)} Debian packages chosen")
    origin = Origin(selection.packages, debs, catalogue.names_for(selection.packages))
    with (
        signer(keys / "key", "relbuild development mirror") as mirror_key,
        signer(keys / "stranger", "stranger to the development mirror") as stranger_key,
    ):
        both = Keys(mirror_key, stranger_key)
        large = request.large or (request.repositories / "large").exists()
        jobs = conversion_jobs(catalogue, origin, both.identity(), parts, architecture)
        jobs += own_jobs(both.identity(), parts, architecture, large=large)
        cache = PackageCache(private, parts.folder)
        packages, built = Builder(cache, origin, both, parts, architecture, request.say).build(jobs)
        request.say("Writing the repositories")
        publish(request, packages, catalogue, mirror_key)
    cache.keep_only({job.key for job in jobs})
    archive.keep_only(selection.packages.values())
    write_state(request.repositories, selection, packages, built)
    if selection.without_mysql is None:
        write_whole(request.repositories / ".stamp", request.stamp)
    else:
        # Without a stamp the next run tries again.
        (request.repositories / ".stamp").unlink(missing_ok=True)
        print(f"ci/mirror: THE MIRROR IS WITHOUT MYSQL: {selection.without_mysql}", file=sys.stderr)
    request.say(f"Done in {time.monotonic() - started:.0f} s: {request.repositories}")


def select_and_fetch(archive: Archive, catalogue: Catalogue, request: Request) -> tuple[Selection, dict[str, Path]]:
    """Return the choice and its files. Indexes are fetched when asked for, absent, or outdated.

    Raises ``ArchiveUnavailable`` or ``Unresolvable`` when not even the stable part can be had.
    """
    if not request.refresh and set(SUITES) <= archive.indexed_suites():
        try:
            selection = select(archive.suites(), catalogue)
            if selection.without_mysql is None:
                return selection, archive.fetch(selection.packages.values())
        except ArchiveUnavailable as problem:
            request.say(f"The indexes here are out of date: {problem}")
    request.say("Fetching Debian's indexes")
    unstable_problem = update_indexes(archive, request.say)
    selection = select(archive.suites(), catalogue, unstable_problem)
    try:
        return selection, archive.fetch(selection.packages.values())
    except ArchiveUnavailable as problem:
        stable = select(archive.suites(), catalogue, str(problem))
        return stable, archive.fetch(stable.packages.values())


def update_indexes(archive: Archive, say: Callable[[str], None]) -> str | None:
    """Fetch the indexes; return why unstable's could not be had, if they could not."""
    try:
        archive.update(SUITES)
    except ArchiveUnavailable as problem:
        say(f"Not every suite can be fetched: {problem}")
        archive.update(SUITES[:1])
        return str(problem)
    return None


def select(suites: Suites, catalogue: Catalogue, unstable_problem: str | None = None) -> Selection:
    """Choose the packages; without MySQL, and with the reason, when unstable does not give it."""
    if unstable_problem is None:
        try:
            requests = [*catalogue.stable, *catalogue.mysql]
            return Selection(close(suites, requests, catalogue.without, catalogue.rivals), None)
        except Unresolvable as problem:
            unstable_problem = str(problem)
    return Selection(close(suites, catalogue.stable, catalogue.without, catalogue.rivals), unstable_problem)


def publish(request: Request, packages: dict[str, list[Path]], catalogue: Catalogue, key: Signer) -> None:
    """Assemble every repository beside its place, then put them there."""
    staging, output = request.private / "repositories", request.repositories
    shutil.rmtree(staging, ignore_errors=True)
    for name, files in packages.items():
        # One of each kind, so that readers of both are exercised.
        compression: Compression = "zstd" if name == "base" else "gzip"
        advisories = catalogue.updates if name == "updates" else {}
        assemble(staging / name, files, compression, advisories, key)
    write_whole(request.output / "RPM-GPG-KEY-local", key.public_key().decode())
    for name in packages:
        put_in_place(staging / name, output / name)
    # So that one URL with $basearch leads to the repositories of each architecture.
    here = request.output / "x86_64"
    if not here.is_symlink():
        here.symlink_to(".")
    shutil.rmtree(staging)


def write_state(output: Path, selection: Selection, packages: dict[str, list[Path]], built: int) -> None:
    """Say in ``state.json`` and ``README`` what this mirror holds, what it lacks, what was built."""
    state = {
        "built": built,
        "packages": {name: len(files) for name, files in sorted(packages.items())},
        "without_mysql_because": selection.without_mysql,
        "debian": {
            name: {"version": package.version, "suite": package.suite, "sha256": package.sha256}
            for name, package in selection.packages.items()
        },
    }
    write_whole(output / "state.json", json.dumps(state, indent=2, sort_keys=True) + "\n")
    lack = f"\nThis one is without MySQL: {selection.without_mysql}\n" if selection.without_mysql else ""
    write_whole(output / "README", README + lack)


def write_whole(file: Path, content: str) -> None:
    """Write ``file`` so that a reader sees the old content or the new."""
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(file)


def main() -> int:
    """Parse the arguments that ``ci/mirror`` hands on, make the mirror, report errors in words."""
    parser = argparse.ArgumentParser(prog="ci/mirror")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stamp", required=True)
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="x86_64")
    parser.add_argument("--refresh", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    request = Request(
        output=arguments.output.resolve(),
        architecture=ARCHITECTURES[arguments.arch],
        stamp=arguments.stamp,
        refresh=arguments.refresh,
        large=arguments.large,
        quiet=arguments.quiet,
    )
    try:
        make(request)
    except (ArchiveUnavailable, Unresolvable, BuildFailed, SigningFailed) as problem:
        print(f"ci/mirror: {problem}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as problem:
        print(f"ci/mirror: {problem}\n{problem.stderr or ''}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"ci/mirror: {problem}; is there room, and may it be written?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
