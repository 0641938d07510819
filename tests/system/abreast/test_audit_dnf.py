"""dnf lists the same advisories: on roots with random packages, on the development mirror, with modules."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.model.advisory import ImagePackage
from pipeline.model.package import Nevra
from pipeline.model.platform import PackageRepository, Platform
from pipeline.repos import open_repositories
from pipeline.resolve import missing_fixes, read_repository_advisories, streams_in_use
from pipeline.store import Store
from tests.support.patience import HUNG
from tests.support.repository_metadata import add_metadata, add_updateinfo
from tests.support.rpm_factory import Forge
from tests.support.updateinfo import Fixed, Update
from tests.unit.resolve.test_resolve_modules import stream

SEED = int(os.environ.get("RELBUILD_PARITY_SEED", "20261125"))

NAMES = ("alpha", "beta", "gamma", "delta")
VERSIONS = ("1.0~rc1-1", "1.0-1", "1.0-1.1", "1.0^git2-1", "1.2-1", "1.10-1", "1:0.9-1", "2:0.1~b-1")


@pytest.fixture(scope="module")
def packages(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Real packages of each name in some versions, some of them without an architecture."""
    chance = random.Random(SEED)
    found: dict[str, list[Path]] = {}
    for name in NAMES:
        for evr in chance.sample(VERSIONS, 4):
            epoch, _, rest = evr.rpartition(":")
            version, _, release = rest.partition("-")
            arch = chance.choice(("x86_64", "noarch"))
            built = made.package(name, version=version, release=release, epoch=int(epoch or 0), arch=arch)
            found.setdefault(name, []).append(built)
    return found


@dataclass(frozen=True)
class Root:
    """A root with packages in rpm's database; dnf and relbuild are asked about it and `repositories`."""

    folder: Path
    repositories: tuple[Path, ...]

    @property
    def repository(self) -> Path:
        return self.repositories[0]

    @classmethod
    def make(cls, folder: Path, *repositories: Path) -> Root:
        """Without `repositories`: with an empty folder for one."""
        (folder / "root").mkdir(parents=True)
        if not repositories:
            (folder / "repository").mkdir()
        return cls(folder, repositories or (folder / "repository",))

    def install(self, paths: Sequence[Path]) -> None:
        """Into the database alone; `--force`: older and newer ones side by side."""
        how = ("-i", "--justdb", "--nodeps", "--nosignature", "--force", "--noscripts", "--notriggers")
        for path in paths:
            subprocess.run(["rpm", "--root", self.folder / "root", *how, path], check=True, capture_output=True)

    def installed(self) -> list[ImagePackage]:
        argv = ["rpm", "--root", self.folder / "root", "-qa", "--qf", "%{NEVRA}\n"]
        listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
        return [ImagePackage(Nevra.parse(nevra)) for nevra in listed]

    def dnf(self, *words: str) -> set[tuple[str, str]]:
        """(advisory, NEVRA of the fix) of all that dnf lists."""
        argv = [
            "dnf", "--quiet", f"--installroot={self.folder / 'root'}", "--setopt=reposdir=/dev/null",
            "--setopt=pluginpath=/dev/null", f"--setopt=cachedir={self.folder / 'cache'}", "--releasever=1",
            "--setopt=module_platform_id=platform:el9", "--nogpgcheck",
            *(f"--repofrompath={one.name},file://{one}" for one in self.repositories),
            *(f"--repo={one.name}" for one in self.repositories), "updateinfo", "list", *words,
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, timeout=HUNG, check=False)
        assert done.returncode == 0, done.stderr
        found = set()
        for line in done.stdout.splitlines():
            advisory, kind, nevra = line.split()
            assert kind.endswith("/Sec.") or "--security" not in words, line
            found.add((advisory, nevra))
        return found

    def relbuild(self, kinds: frozenset[str] | None = frozenset({"security"})) -> set[tuple[str, str]]:
        """The same of `missing_fixes`; a fix is told by name and version, as no architecture is."""
        store = Store.open(self.folder / "store")
        listed = tuple(PackageRepository(one.name, baseurls=(one.as_uri(),)) for one in self.repositories)
        platform = Platform("p", listed)
        opened = open_repositories(platform, "x86_64", variables={}, store=store)
        bulletin = read_repository_advisories(opened, "x86_64", store=store)
        streams = streams_in_use(self.installed(), bulletin.streams)
        missing = missing_fixes(self.installed(), bulletin.advisories.given, streams=streams, kinds=kinds)
        return {(fix.advisory, f"{fix.package}-{fix.fixed_in}") for fix in missing}


def without_arch(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(advisory, nevra.rpartition(".")[0]) for advisory, nevra in found}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root.make(tmp_path)


def random_updates(chance: random.Random, packages: dict[str, list[Path]]) -> list[Update]:
    """Advisories on packages that there are and on such that there are not, each naming a package once."""
    updates = []
    for number in range(24):
        names = chance.sample((*NAMES, "elsewhere"), chance.randint(1, 3))
        fixed = tuple(Fixed(name, chance.choice(VERSIONS), chance.choice(("x86_64", "noarch"))) for name in names)
        updates.append(
            Update(
                f"TEST-2026:{number:02}",
                fixed,
                kind=chance.choice(("security", "security", "security", "bugfix", "enhancement")),
                severity=chance.choice(("Critical", "Important", "Moderate", "Low", "None", None)),
                issued=chance.choice(("2026-01-02 03:04:05", "1767225600")),
                cves=(f"CVE-2026-{1000 + number}",),
            )
        )
    return updates


def test_dnf_lists_the_same_advisories(packages: dict[str, list[Path]], tmp_path: Path) -> None:
    listed = 0
    for number in range(10):
        chance = random.Random(SEED + number)
        root = Root.make(tmp_path / str(number))
        for name in NAMES:
            for path in packages[name]:
                os.link(path, root.repository / path.name)
            root.install(chance.sample(packages[name], chance.choice((0, 1, 1, 2))))
        subprocess.run(["createrepo_c", "--quiet", root.repository], check=True)
        add_updateinfo(root.repository, *random_updates(chance, packages))
        theirs = without_arch(root.dnf("--security"))
        assert root.relbuild() == theirs, f"RELBUILD_PARITY_SEED={SEED}, case {number}"
        assert root.relbuild(kinds=None) == without_arch(root.dnf()), f"RELBUILD_PARITY_SEED={SEED}, case {number}"
        listed += len(theirs)
    assert listed > 20
    print(f"\n10 roots: the same {listed} security advisories as dnf lists")


def test_dnf_agrees_on_the_streams_of_modules(made: Forge, root: Root) -> None:
    old = made.package("nodejs", version="20.1", arch="x86_64")
    shutil.copy(old, root.repository)
    subprocess.run(["createrepo_c", "--quiet", root.repository], check=True)
    both = stream("nodejs", "20", "nodejs-0:20.1-1.x86_64") + stream("nodejs", "22", "nodejs-0:22.1-1.x86_64")
    # libmodulemd wants what relbuild has no use for.
    wanted = "  arch: x86_64\n  summary: s\n  description: d\n  license: {module: [MIT]}\n"
    add_metadata(root.repository, "modules.yaml", both.replace("  arch: x86_64\n", wanted).encode())
    add_updateinfo(
        root.repository,
        Update("ON", (Fixed("nodejs", "20.2-1", module="nodejs:20"),)),
        Update("OFF", (Fixed("nodejs", "22.2-1", module="nodejs:22"),)),
        Update("PLAIN", (Fixed("nodejs", "20.1-2"),)),
    )
    root.install([old])
    state = root.folder / "root" / "etc" / "dnf" / "modules.d" / "nodejs.module"
    state.parent.mkdir(parents=True)
    state.write_text("[nodejs]\nname=nodejs\nstream=20\nprofiles=\nstate=enabled\n")
    expected = {("ON", "nodejs-20.2-1"), ("PLAIN", "nodejs-20.1-2")}
    assert root.relbuild() == without_arch(root.dnf("--security")) == expected


def test_dnf_lists_the_same_of_the_development_mirror(mirror: Path, tmp_path: Path) -> None:
    root = Root.make(tmp_path, mirror / "base", mirror / "updates")
    updated = {path.name.rsplit("-", 2)[0] for path in (mirror / "updates").glob("*.rpm")}
    root.install([path for path in (mirror / "base").glob("*.rpm") if path.name.rsplit("-", 2)[0] in updated])
    theirs = without_arch(root.dnf("--security"))
    assert len(theirs) >= 2 and root.relbuild() == theirs
    assert root.relbuild(kinds=None) == without_arch(root.dnf()) > theirs
