"""The Debian archive, through a private apt: own lists, own state, nothing of the machine's.

The URIs are the machine's own (read from its apt configuration when run); the suites are not.
Release files are verified against Debian's archive keyring, and every file against the index.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from closure import DebianPackage, Suites

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = ("trixie", "sid")

# A mirror of Debian may lag behind, and unstable's Release files expire after a week. apt's own
# answer is a floor for their life time rather than no check at all: the signature is always
# verified, and what is older than this is still refused.
RELEASE_LIFETIME_SECONDS = 120 * 24 * 3600

_PARTIAL_INDEX = re.compile(r"_dists_([^_]+)_main_binary-[a-z0-9]+_Packages$")


class ArchiveUnavailable(Exception):
    """apt could not fetch or verify something; the message is apt's own."""


def machine_uris(etc_apt: Path = Path("/etc/apt")) -> list[str]:
    """Return the URIs of the Debian main archive that this machine's apt uses.

    Both forms are read: one-line (``*.list``) and deb822 (``*.sources``).
    """
    files = [
        etc_apt / "sources.list",
        *sorted(etc_apt.glob("sources.list.d/*.list")),
        *sorted(etc_apt.glob("sources.list.d/*.sources")),
    ]
    uris: list[str] = []
    for file in filter(Path.is_file, files):
        text = file.read_text()
        if file.suffix == ".sources":
            for line in re.findall(r"(?mi)^URIs:[ \t]*(.+)$", text):
                uris += line.split()
        else:
            uris += re.findall(r"(?m)^deb[ \t]+(?:\[[^\]]*\][ \t]+)?(\S+)", text)
    # The archive's own path component tells it from security, backports and third parties.
    found = [uri for uri in dict.fromkeys(uris) if re.search(r"/debian/?$", uri)]
    if not found:
        raise ArchiveUnavailable(f"no URI of the Debian archive (…/debian) in {etc_apt}: add one to its sources")
    return found


class Archive:
    """A private apt in ``home`` for Debian's ``architecture``; debs are kept in ``debs`` by their SHA-256."""

    def __init__(self, home: Path, debs: Path, architecture: str) -> None:
        self._home = home
        self._architecture = architecture
        self._debs = debs
        for folder in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        debs.mkdir(parents=True, exist_ok=True)
        (home / "status").touch()
        self._use(SUITES)
        (home / "apt.conf").write_text(
            f'Dir "{home}";\n'
            f'Dir::Etc "{home}/etc";\n'
            f'Dir::State "{home}";\n'
            f'Dir::State::status "{home}/status";\n'
            f'Dir::Cache "{home}/cache";\n'
            f'APT::Architecture "{architecture}";\n'
            f'APT::Architectures {{ "{architecture}"; }};\n'
            'Acquire::Languages "none";\n'
            'Acquire::Retries "3";\n'
            'APT::Sandbox::User "root";\n'
        )

    def _use(self, suites: tuple[str, ...]) -> None:
        uri = machine_uris()[0]
        lifetime = f"valid-until-min={RELEASE_LIFETIME_SECONDS}"
        options = f"arch={self._architecture} signed-by={KEYRING} {lifetime}"
        lines = [f"deb [{options}] {uri} {suite} main\n" for suite in suites]
        (self._home / "etc/sources.list").write_text("".join(lines))

    def _apt(self, *arguments: str, cwd: Path | None = None) -> None:
        done = subprocess.run(
            ["apt-get", "--quiet=2", *arguments],
            env={**os.environ, "APT_CONFIG": str(self._home / "apt.conf"), "LC_ALL": "C.UTF-8"},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ArchiveUnavailable(f"apt-get {arguments[0]}: {(done.stderr or done.stdout).strip()}")

    def update(self, suites: tuple[str, ...]) -> None:
        """Fetch the indexes of ``suites`` and forget the others. Raises ``ArchiveUnavailable``."""
        self._use(suites)
        self._apt("update", "--error-on=any")

    def indexed_suites(self) -> set[str]:
        """Return the suites whose index is here."""
        return {suite for suite, _ in self._indexes()}

    def _indexes(self) -> Iterator[tuple[str, Path]]:
        for file in sorted((self._home / "lists").glob("*_Packages")):
            found = _PARTIAL_INDEX.search(file.name)
            if found:
                yield found[1], file

    def suites(self, order: tuple[str, ...] = SUITES) -> Suites:
        """Return what the indexes here have on offer, in the order of the suites."""
        suites = Suites(order)
        for suite, file in self._indexes():
            suites.add_index(suite, file.read_text(encoding="utf-8"))
        return suites

    def fetch(self, packages: Collection[DebianPackage]) -> dict[str, Path]:
        """Download what is not here yet; return the file per package name.

        Raises ``ArchiveUnavailable``.
        """
        paths = {p.name: self._debs / f"{p.sha256}.deb" for p in packages}
        missing = [p for p in packages if not paths[p.name].exists()]
        if missing:
            incoming = self._home / "incoming"
            incoming.mkdir(exist_ok=True)
            wanted = [f"{p.name}={p.version}" for p in missing]
            self._apt("download", *wanted, cwd=incoming)
            by_digest = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in incoming.glob("*.deb")}
            for package in missing:
                if package.sha256 not in by_digest:
                    raise ArchiveUnavailable(f"{package.name} {package.version}: not the file of the index")
                by_digest[package.sha256].rename(paths[package.name])
            shutil.rmtree(incoming)
        return paths

    def keep_only(self, packages: Iterable[DebianPackage]) -> None:
        """Forget the files of packages that are not among ``packages``."""
        wanted = {f"{package.sha256}.deb" for package in packages}
        for file in self._debs.iterdir():
            if file.name not in wanted:
                file.unlink()
