"""A small catalogue, really built, tested and published: five products of two platforms, of packages made here."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from tests.support.cheap_keys import write_cheap_key
from tests.support.patience import HUNG
from tests.support.rpm_factory import Forge

PASSWORD = "a password"

_PLATFORMS = """
# Where the repositories are is a variable: what stands here is an input of every image, and the catalogue can be moved.
platforms:
  small:
    architectures: [x86_64]
    variables: {place: "${RELBUILD_VAR_CATALOGUE:-/nowhere}"}
    repositories:
      - {id: small, baseurls: ["file://$place/small"], keys: ["$place/key"]}
  other:
    architectures: [x86_64]
    variables: {place: "${RELBUILD_VAR_CATALOGUE:-/nowhere}"}
    repositories:
      - {id: other, baseurls: ["file://$place/other"], keys: ["$place/key"]}
"""

_RECIPE = """
name: %(name)s
version: "{{ packages['%(package)s'].version }}"
%(from)s
platform: %(platform)s
layers:
%(layers)s
files:
  - {content: "%(name)s", path: /etc/%(name)s, mode: "0644"}
image:
  entrypoint: [/usr/bin/busybox, sh, -c, "trap 'exit 0' TERM; echo ready; while :; do sleep 1; done & wait"]
  labels: {team: %(team)s}
smoke:
  limits: {memory: 64MiB, pids: 20}
  ready: {log: ready, within: 20s}
  checks:
    - {name: is what it says, within: 2s, file: {path: /etc/%(name)s, text: %(name)s}}
"""

PRODUCTS: Mapping[str, tuple[str, tuple[str, ...], str, str]] = {
    "base": ("", ("small-base", "busybox"), "small", "platform"),
    "child": ("base", ("addon",), "small", "web"),
    "lone": ("", ("small-base", "busybox", "lone"), "small", "web"),
    "third": ("", ("small-base", "busybox", "third"), "small", "data"),
    "away": ("", ("small-base", "busybox", "away"), "other", "data"),
}
"""Product → what it is built from, its packages, platform and team. The last package gives its version."""


@dataclass(slots=True)
class SmallCatalogue:
    """A catalogue in `folder`: `recipes/`, its repositories, a key, a store and a mirror."""

    folder: Path
    forge: Forge
    packages: dict[tuple[str, str], Path] = field(default_factory=dict)

    @property
    def mirror(self) -> Path:
        """The directory mirror."""
        return self.folder / "mirror"

    def recipe(self, name: str) -> Path:
        """The recipe of a product."""
        return self.folder / "recipes" / f"{name}.yaml"

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a recipe."""
        text = self.recipe(name).read_text()
        assert old in text
        self.recipe(name).write_text(text.replace(old, new))

    def package(
        self, name: str, version: str = "1", *, script: str = "", platform: str = "small", by: str = "/usr/bin/sh"
    ) -> Path:
        """Make a package with one file and put it into a repository, in place of another version. `by` runs
        `script`."""
        made = self.packages.get((name, version + script))
        if made is None:
            install = f"mkdir -p usr/lib/{name}; echo {version} >usr/lib/{name}/it"
            files = [f"/usr/lib/{name}/it"]
            header = "Requires: small-base busybox" if name not in {"small-base", "busybox"} else ""
            if name == "small-base":
                install += "; mkdir -p etc tmp run var dev proc sys; seq 1 9000 >usr/lib/small-base/numbers"
                files += ["/etc", "/usr/lib/small-base/numbers"]
            if name == "busybox":
                install += f"; mkdir -p usr/bin; cp {shutil.which('busybox')} usr/bin/busybox; ln -s busybox usr/bin/sh"
                files += ["/usr/bin/busybox", "/usr/bin/sh"]
            made = self.forge.package(
                name,
                version=version,
                arch="x86_64",
                header=header,
                install=install,
                files=files,
                sections=f"%post -p {by}\n{script}" if script else "",
            )
            self.packages[name, version + script] = made
        repository = self.folder / platform
        for old in repository.glob(f"{name}-[0-9]*.rpm"):
            old.unlink()
        shutil.copy(made, repository)
        return made

    def index(self, *platforms: str) -> None:
        """Make the repositories' metadata anew."""
        for platform in platforms or ("small", "other"):
            subprocess.run(["createrepo_c", "--quiet", "--update", self.folder / platform], check=True)

    def nightly(self, *words: str, store: str = "store", to: str = "") -> tuple[int, Any]:
        """Run a night on it, as a person does: the exit code, and what `--json` says."""
        done = self.run(*words, "--json", store=store, to=to)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def run(self, *words: str, store: str = "store", to: str = "") -> subprocess.CompletedProcess[str]:
        """The same, with all that was printed."""
        given = ("recipes", "--to", to or "dir:mirror", "--key", "night.key")
        return self.relbuild("nightly", *given, *words, store=store)

    def planned(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A night in this process: for one that is planned or refused, and starts nothing."""
        return self.in_this_process("nightly", "recipes", "--to", "dir:mirror", "--key", "night.key", *words)

    def in_this_process(
        self, command: str, *words: str, environment: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the catalogue's folder without a process of its own."""
        argv = [command, *words, "--store", "store"]
        import_commands(command)
        given = {**self.environment, "RELBUILD_KEY_PASSWORD": PASSWORD, **environment}
        with contextlib.chdir(self.folder):
            done = CliRunner().invoke(app, argv, env=given)
        return subprocess.CompletedProcess(argv, done.exit_code, done.stdout, done.stderr)

    def relbuild(
        self, command: str, *words: str, store: str = "store", password: str = PASSWORD
    ) -> subprocess.CompletedProcess[str]:
        """Run any command in the catalogue's folder."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline", command, *words, "--store", store],
            env={**self.environment, "RELBUILD_KEY_PASSWORD": password},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=HUNG,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What relbuild is started with."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "PYTHONPATH": str(Path.cwd()),
            "RELBUILD_VAR_CATALOGUE": str(self.folder),
        }

    def contents(self) -> dict[str, int]:
        """Every file of the mirror but the pages, with its time of change in nanoseconds."""
        return {
            str(path.relative_to(self.mirror)): path.lstat().st_mtime_ns
            for path in sorted(self.mirror.rglob("*"))
            if not path.is_dir()
            and not path.is_relative_to(self.mirror / "nightly")
            and not {".lock", ".scrub"} & set(path.parts)
        }


def small_catalogue(folder: Path, forge: Forge) -> SmallCatalogue:
    """The catalogue with its first packages."""
    made = SmallCatalogue(folder, forge)
    for name in ("recipes", "small", "other"):
        (folder / name).mkdir(parents=True)
    for name, (parent, packages, platform, team) in PRODUCTS.items():
        for package in packages:
            made.package(package, platform=platform)
        layers = "\n".join(f"  - {{name: {one}-packages, packages: [{one}]}}" for one in packages)
        words = {"name": name, "package": packages[-1], "platform": platform, "team": team, "layers": layers}
        made.recipe(name).write_text(_RECIPE % {**words, "from": f"from: {parent}" if parent else ""})
    (folder / "key").write_bytes(forge.key)
    (folder / "recipes" / "repositories.yaml").write_text(_PLATFORMS)
    made.index()
    write_cheap_key(folder, "night", PASSWORD)
    return made
