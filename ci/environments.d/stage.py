"""A folder in which every environment finds relbuild, the recipes and the mirror, and a mount namespace for it.

Nothing of the machine is changed: the ordinary users are in copies of /etc/passwd and its kin, which are mounted in the
namespace alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

WITH_IDS, WITHOUT_IDS = ("relbuild-ids", 54321), ("relbuild-one", 54322)
"""Users with subordinate ids, and without: name and number."""

_FIRST_ID = 1_700_000_000
"""Subordinate ids that nobody else has: `useradd` gives them out from 100,000 on."""

_KEEP = """
set -e
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
for home; do mount --bind "$home" "$home"; mount -o remount,bind,ro "$home"; done
echo ready
exec sleep infinity
"""

PASSWORD = "environments"


@dataclass(frozen=True, slots=True)
class Place:
    """One environment's own folder: `home`, and `work` with recipes, templates and what it makes."""

    folder: Path
    storage: Path
    """Where podman keeps images and containers: a short path, because it makes sockets below it."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def work(self) -> Path:
        return self.folder / "work"


@dataclass(frozen=True, slots=True)
class Stage:
    """The folder of all environments; `keeper` is a process in its mount namespace."""

    folder: Path
    keeper: int
    places: Mapping[str, Place]

    @property
    def code(self) -> Path:
        return self.folder / "code"

    @property
    def libraries(self) -> Path:
        return self.folder / "libraries"

    @property
    def mirror(self) -> Path:
        return self.folder / "packages"

    @property
    def own_image(self) -> Path:
        return self.folder / "own/output/relbuild"

    def own_tag(self) -> str:
        """Return the tag of relbuild's image in its layout."""
        index = json.loads((self.own_image / "index.json").read_text())
        return str(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])

    @property
    def without_privileges(self) -> Path:
        return self.folder / "without_privileges.py"

    def enter(self, *command: str | Path) -> list[str]:
        """Return a command line that executes `command` in the mount namespace."""
        return ["nsenter", "--mount", "--target", str(self.keeper), *map(str, command)]

    def variables(self, place: Place) -> dict[str, str]:
        """Return the environment of relbuild in an environment with the machine's own programs."""
        return {
            **self.common_variables(),
            "PATH": os.environ["PATH"],
            "HOME": str(place.home),
            "PYTHONPATH": f"{self.code}:{self.libraries}",
            "RELBUILD_MIRROR": str(self.mirror),
        }

    def common_variables(self) -> dict[str, str]:
        """Return what all have: one key of stores, so that evidence of one counts for all."""
        return {
            "PYTHONDONTWRITEBYTECODE": "1",
            "RELBUILD_STORE_KEY": "ci/environments: the key of all its stores",
            "RELBUILD_KEY_PASSWORD": PASSWORD,
        }


@contextlib.contextmanager
def open_stage(mirror: Path, owners: dict[str, int], read_only: Sequence[str], *, own: bool) -> Iterator[Stage]:
    """Make the folder, with a place for each of `owners`; the homes of those in `read_only` are read-only.

    `own`: relbuild is built as an image as well, from its package in the mirror.
    """
    # Lower case and short: podman takes the path of a layout for an image's name, and makes sockets below a storage.
    folder = Path(f"/var/tmp/rb-{secrets.token_hex(3)}")
    folder.mkdir(mode=0o755)
    try:
        places = {name: Place(folder / name, folder / f"s{n}") for n, name in enumerate(owners)}
        _fill(folder, places, owners)
        binds = [(Path(sysconfig.get_path("purelib")), folder / "libraries"), (mirror, folder / "packages")]
        binds += _accounts(folder)
        words = [str(path) for pair in binds for path in pair]
        homes = [str(folder / name / "home") for name in read_only]
        with subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _KEEP, "-", *words, "--", *homes], stdout=subprocess.PIPE, text=True
        ) as keeper:
            try:
                assert keeper.stdout is not None and keeper.stdout.readline() == "ready\n"
                stage = Stage(folder, keeper.pid, places)
                _make_key(stage)
                if own:
                    _make_own_image(stage, mirror)
                yield stage
            finally:
                keeper.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, places: Mapping[str, Place], owners: Mapping[str, int]) -> None:
    for name in ("libraries", "packages"):
        (folder / name).mkdir()
    shutil.copytree(ROOT / "pipeline", folder / "code/pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/support/without_privileges.py", folder)
    for name, uid in owners.items():
        place = places[name]
        place.home.mkdir(parents=True)
        place.storage.mkdir()
        os.chown(place.storage, uid, uid)
        _copy_recipes(place.work)
        for path in (place.folder, *place.folder.rglob("*")):
            os.lchown(path, uid, uid)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)


def _copy_recipes(work: Path) -> None:
    shutil.copytree(ROOT / "recipes", work / "recipes", ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(ROOT / "templates", work / "templates")


def _accounts(folder: Path) -> list[tuple[Path, Path]]:
    accounts = folder / "accounts"
    accounts.mkdir()
    texts = {name: Path("/etc", name).read_text() for name in ("passwd", "group", "subuid", "subgid")}
    for name, number in (WITH_IDS, WITHOUT_IDS):
        texts["passwd"] += f"{name}:x:{number}:{number}::/:/bin/sh\n"
        texts["group"] += f"{name}:x:{number}:\n"
    for kind in ("subuid", "subgid"):
        texts[kind] += f"{WITH_IDS[0]}:{_FIRST_ID}:65536\n"
    for name, text in texts.items():
        (accounts / name).write_text(text)
    return [(accounts / name, Path("/etc", name)) for name in texts]


def _make_key(stage: Stage) -> None:
    _relbuild(stage.folder, stage.common_variables(), "keygen", "key")
    (stage.folder / "key.key").chmod(0o644)


def _make_own_image(stage: Stage, mirror: Path) -> None:
    own = stage.folder / "own"
    _copy_recipes(own)
    variables = {**stage.common_variables(), "RELBUILD_MIRROR": str(mirror)}
    _relbuild(own, variables, "build", "recipes/relbuild.yaml", "--no-smoke", "--store", "store", "--quiet")
    subprocess.run(["chmod", "-R", "a+rX", own / "output"], check=True)


def _relbuild(folder: Path, variables: dict[str, str], *words: str) -> None:
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
    )
