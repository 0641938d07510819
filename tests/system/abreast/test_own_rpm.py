"""Images whose rpm has its database in Berkeley DB or ndb: what the image's own rpm reads, and goes on writing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.launch import unpack_layers
from pipeline.layers import read_contents
from pipeline.model.rpm_database import DatabaseFormat
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from tests.support.derived_images import packages, unpack
from tests.support.old_rpm import fetch_old_rpm, package_of
from tests.support.rpm_factory import Forge

PLATFORMS = """\
platforms:
  own:
    variables: {{mirror: "${{RELBUILD_MIRROR:-~}}"}}
    rpm-database: {{path: {folder}, format: {form}}}
    repositories:
      - {{id: base, baseurls: ["file://$mirror/base"], keys: ["$mirror/RPM-GPG-KEY-local"]}}
      - {{id: own, baseurls: ["file://{own}"], keys: ["{own}/KEY"]}}
"""
RECIPE = """\
name: own-{form}
version: "1"
platform: own
architectures: [x86_64]
layers: [{{name: base, packages: [setup, filesystem, glibc, bash, coreutils, tzdata, own, {rpm}]}}]
files:
  - {{path: /etc/rpm/macros, content: "%_db_backend {backend}\\n%_dbpath {folder}\\n"}}
  - {{path: /srv/table, content: changed}}
image: {{user: "65534", entrypoint: [/usr/bin/sleep, "600"], stop_signal: SIGKILL}}
smoke:
  checks:
    - {{name: version, command: [rpm, --version], expect: {{stdout: {{matches: "{version}"}}}}}}
    - name: all
      command: [rpm, -qa]
      expect: {{stdout: {{matches: "(?m)^own-2.0-1.noarch$"}}, stderr: {{is: ""}}}}
    - {{name: file, command: [rpm, -qf, /usr/bin/bash], expect: {{stdout: {{matches: "^bash-5"}}, stderr: {{is: ""}}}}}}
    - {{name: provides, command: [rpm, -q, --whatprovides, "own(thing)"], expect: {{stdout: {{matches: "^own-2"}}}}}}
    - {{name: requires, command: [rpm, -q, --whatrequires, bash], expect: {{stdout: {{matches: "(?m)^own-2"}}}}}}
    - {{name: whole, command: [rpm, -V, bash, coreutils], expect: {{stdout: {{is: ""}}}}}}
    - {{name: relbuild reads it, packages: {{present: [own, bash], absent: [gcc]}}}}
    - name: changed
      command: [rpm, -V, own]
      expect: {{exit_code: 1, stdout: {{matches: "^S.5.*/srv/table"}}}}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an image has: the package with rpm, its version and backend, and where the database is."""

    form: DatabaseFormat
    rpm: str
    version: str
    backend: str
    folder: str
    writes: bool


NDB = Kind(DatabaseFormat.NDB, "rpm", "4.20", "ndb", "/usr/lib/sysimage/rpm", writes=True)
BDB = Kind(DatabaseFormat.BDB, "rpm-bdb", "4.16", "bdb", "/var/lib/rpm", writes=True)
BDB_READ = Kind(DatabaseFormat.BDB, "rpm", "4.20", "bdb_ro", "/usr/lib/sysimage/rpm", writes=False)
"""For Berkeley DB where Debian's archive has no rpm any more that writes it: the mirror's, which reads it."""


@pytest.fixture(scope="module")
def image(
    made: Forge, recipes: Path, build_env: BuildEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[DatabaseFormat], tuple[Kind, BuildResult]]:
    """An image of a format, built and tested the first time it is asked for."""
    folder = tmp_path_factory.mktemp("own")
    repository = folder / "repository"
    repository.mkdir()
    (repository / "KEY").write_bytes(made.key)
    debs = fetch_old_rpm()
    rpms = [
        made.package(
            "own",
            version="2.0",
            header="Requires: bash\nProvides: own(thing) = 1",
            install="mkdir srv; echo as-packaged >srv/table",
            files=["/srv/table"],
        ),
        *([package_of(debs, made, BDB.rpm)] if debs else []),
    ]
    for package in rpms:
        (repository / package.name).write_bytes(package.read_bytes())
    subprocess.run(["createrepo_c", "--quiet", repository], check=True)
    kinds = {DatabaseFormat.NDB: NDB, DatabaseFormat.BDB: BDB if debs else BDB_READ}
    results: dict[DatabaseFormat, BuildResult] = {}

    def get(form: DatabaseFormat) -> tuple[Kind, BuildResult]:
        kind = kinds[form]
        if form not in results:
            here = folder / form
            here.mkdir()
            platforms, recipe = here / "repositories.yaml", here / "own.yaml"
            platforms.write_text(PLATFORMS.format(own=repository, folder=kind.folder, form=form))
            recipe.write_text(
                RECIPE.format(form=form, rpm=kind.rpm, version=kind.version, backend=kind.backend, folder=kind.folder)
            )
            results[form] = build(BuildOptions(recipe, platforms, output=here / "output"), build_env)
        return kind, results[form]

    return get


FORMS = pytest.mark.parametrize("form", [DatabaseFormat.NDB, DatabaseFormat.BDB])


@FORMS
def test_the_images_own_rpm_reads_it_unprivileged_and_read_only(
    form: DatabaseFormat, image: Callable[[DatabaseFormat], tuple[Kind, BuildResult]]
) -> None:
    """`rpm -qa`, `-qf`, `-q --whatprovides` and `-V` are checks of the recipe, asked as user 65534."""
    _, result = image(form)
    assert result.report is not None and result.report.passed, result.report


@FORMS
def test_the_images_own_rpm_lists_what_the_report_lists_and_erases_a_package(
    form: DatabaseFormat,
    image: Callable[[DatabaseFormat], tuple[Kind, BuildResult]],
    build_env: BuildEnvironment,
    tmp_path: Path,
) -> None:
    kind, result = image(form)
    root = unpack(result, tmp_path)

    def rpm(*words: str, status: int = 0) -> list[str]:
        done = subprocess.run(["chroot", root, "/usr/bin/rpm", *words], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout.split()

    listed = rpm("-qa", "--qf", "%{NEVRA}\n")
    wanted = packages(result)
    assert sorted(listed) == sorted(one.replace("-0:", "-") for one in wanted)
    contents = read_contents(result.image, unpack_layers(result.image, build_env.store, QUIET))
    assert sorted(one.nevra for one in contents.packages) == sorted(wanted)
    subprocess.run(["chroot", root, "/usr/bin/rpmdb", "--verifydb"], check=True)
    if kind.writes:
        rpm("-e", "--justdb", "--noscripts", "--nodeps", "own", "tzdata")
        assert len(rpm("-qa")) == len(wanted) - 2
        rpm("-q", "--whatrequires", "bash", status=1)
        subprocess.run(["chroot", root, "/usr/bin/rpmdb", "--verifydb"], check=True)
