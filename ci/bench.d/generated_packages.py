"""Signed RPM repositories of any size: packages with the files of a distribution's, or one file of some gigabytes.

The same numbers give the same files. An update of a package that is there can be added too. Needs rpmbuild, rpmsign,
gpg, createrepo_c, rpm2cpio and cpio.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

KEY = "bench@relbuild.invalid"
MEDIAN_FILES, SPREAD = 18, 1.3
"""Files of a package, lognormal: 42 in the mean, as in Enterprise Linux 9, some with hundreds."""
MOST_FILES = 1500
MEAN_SIZE = 6 << 10
"""Bytes of a file in the mean, exponential."""
COPIED_FLAGS = {"": "", "d": "%doc ", "l": "%license "}
"""Kinds of files that an update of a package can have, as rpm prints them and as a spec says them."""
_SOURCE = 8 << 20
"""Bytes that files are cut from, a quarter of them random: they compress to some 40 %, as programs do."""


class GeneratedRepository:
    """A repository in `folder`, its key in `key.asc`; packages are made first, then `finish` indexes and signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._home = folder.parent / f"{folder.name}-gnupg"
        self._home.mkdir(mode=0o700)
        folder.mkdir()
        self._run("gpg", "--batch", "--passphrase", "", "--quick-generate-key", KEY, "rsa2048", "sign", "never")
        key = subprocess.run(
            ["gpg", "--armor", "--export", KEY], env=self._environment(), capture_output=True, check=True
        ).stdout
        (folder / "key.asc").write_bytes(key)
        self._source = _content_source()

    def add_many(self, count: int, groups: Sequence[int]) -> None:
        """Add `count` packages `many-N`, and for each of `groups` a package `first-N` that requires the first N."""
        lines = ["Name: many", *_PREAMBLE, "%description", "Generated.", "%install", "cp -al %{given}/. %{buildroot}"]
        given = self.folder.parent / "given"
        for number in range(count):
            chance = random.Random(number)
            base = f"usr/share/many-{number}"
            files = max(1, min(MOST_FILES, round(chance.lognormvariate(0, SPREAD) * MEDIAN_FILES)))
            for index in range(files):
                self._write(given / base / f"part-{index // 25}" / f"{chance.randrange(1 << 40):x}-{index}.dat", chance)
            requires = [f"Requires: many-{chance.randrange(number)}" for _ in range(3) if number]
            lines += [f"%package -n many-{number}", "Summary: generated", *requires]
            lines += [f"%description -n many-{number}", "Generated.", f"%files -n many-{number}", f"/{base}"]
        for group in groups:
            needed = ", ".join(f"many-{number}" for number in range(group))
            lines += [f"%package -n first-{group}", "Summary: generated", f"Requires: {needed}"]
            lines += [f"%description -n first-{group}", "Generated.", f"%files -n first-{group}"]
        self._build("many", lines, given, "w3.zstdio")

    def add_large(self, name: str, size: int) -> None:
        """Add a package with one file of `size` bytes."""
        given = self.folder.parent / "given"
        (given / "usr/share").mkdir(parents=True)
        with (given / f"usr/share/{name}.dat").open("wb") as file:
            for start in range(0, size, _SOURCE):
                # Beginning elsewhere each time, so that no part of it is far from like its neighbours.
                turn = start // _SOURCE * 65_537 % _SOURCE
                file.write((self._source[turn:] + self._source[:turn])[: size - start])
        lines = [f"Name: {name}", *_PREAMBLE, "%description", "Generated."]
        lines += ["%install", "cp -al %{given}/. %{buildroot}", "%files", f"/usr/share/{name}.dat"]
        self._build(name, lines, given, "w1.zstdio")

    def add_update(self, package: Path, change: Callable[[Path], object]) -> None:
        """Add the next release of a package, whose tree `change` has changed; it must have the same paths.

        The package must have no scripts and no configuration; all else that a solver or rpm looks at is as it was.
        """
        given = self.folder.parent / "given"
        given.mkdir()
        words = ["sh", "-euc", 'rpm2cpio "$1" | cpio -idm --quiet -D "$2"', "-", str(package), str(given)]
        self._run(*words)
        change(given)
        self._build(query(package, "%{NAME}"), _update_spec(package), given, "w3.zstdio")

    def finish(self) -> None:
        """Sign the packages and index them; it may be done again after others were added."""
        packages = sorted(map(str, self.folder.glob("*.rpm")))
        defines = ("--define", f"_gpg_name {KEY}", "--define", f"__gpg {shutil.which('gpg')}")
        if packages:
            self._run("rpmsign", *defines, "--define", "_gpg_digest_algo sha256", "--addsign", *packages)
        self._run("createrepo_c", "--quiet", "--no-database", "--checksum=sha256", str(self.folder))
        self._run("gpg", "--batch", "--yes", "--armor", "--detach-sign", str(self.folder / "repodata/repomd.xml"))
        self._run("gpgconf", "--kill", "all")

    def _write(self, path: Path, chance: random.Random) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        size, start = round(chance.expovariate(1 / MEAN_SIZE)), chance.randrange(_SOURCE)
        path.write_bytes(self._source[start : start + size])

    def _build(self, name: str, lines: Sequence[str], given: Path, payload: str) -> None:
        top = self.folder.parent / "rpmbuild"
        top.mkdir()
        spec = top / f"{name}.spec"
        spec.write_text("\n".join((*lines, "")))
        defines = {
            "_topdir": str(top), "given": str(given), "_rpmdir": str(self.folder), "_build_name_fmt": "%%{NAME}.rpm",
            "_binary_payload": payload, "__os_install_post": "%{nil}", "debug_package": "%{nil}",
            "_dbpath": str(top / "rpmdb"), "_build_id_links": "none", "__docdir_path": "/nowhere",
        }  # fmt: skip
        words = [word for key, value in defines.items() for word in ("--define", f"{key} {value}")]
        self._run("rpmbuild", "-bb", "--quiet", *words, str(spec))
        shutil.rmtree(top)
        shutil.rmtree(given, ignore_errors=True)

    def _run(self, *words: str) -> None:
        done = subprocess.run(words, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)[:300]} ended with {done.returncode}:\n{done.stderr[-2000:]}")

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self._home), "GNUPGHOME": str(self._home), "LC_ALL": "C.UTF-8"}


_PREAMBLE = ("Version: 1", "Release: 1", "Summary: generated", "License: MIT", "BuildArch: noarch", "AutoReqProv: no")


def query(package: Path, form: str) -> str:
    """Return what rpm says of a package's file in a form of its query language."""
    words = ("rpm", "-qp", "--nosignature", "--qf", form, str(package))
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _update_spec(package: Path) -> list[str]:
    """Return the lines of a spec that makes the same package again, one release later."""
    if query(package, "%{PREIN}%{POSTIN}%{PREUN}%{POSTUN}").replace("(none)", ""):
        raise SystemExit(f"{package.name} has scripts, which an update of it would lose")
    lines = query(
        package,
        "Name: %{NAME}\n%|EPOCH?{Epoch: %{EPOCH}\n}:{}|Version: %{VERSION}\nRelease: %{RELEASE}.1\n"
        "License: %{LICENSE}\nSummary: %{SUMMARY}\nAutoReqProv: no\n"
        "[Requires: %{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}\n]"
        "[Provides: %{PROVIDENAME} %{PROVIDEFLAGS:depflags} %{PROVIDEVERSION}\n]",
    ).splitlines()
    # rpmbuild adds by itself what the payload's form needs, and the package's own name in its version.
    own = ("Requires: rpmlib(", *(f"Provides: {query(package, '%{NAME}')}{end}" for end in (" ", "(")))
    lines = [line for line in lines if not line.startswith(own)]
    lines += ["%description", "An update.", "%install", "cp -al %{given}/. %{buildroot}", "%files"]
    fields = ("MODES:perms", "MODES:octal", "USERNAME", "GROUPNAME")
    columns = " ".join(f"%{{FILE{one}}}" for one in fields)
    for line in query(package, f"[{columns} .%{{FILEFLAGS:fflags}} %{{FILENAMES}}\n]").splitlines():
        kind, mode, user, group, flags, path = line.split(" ", 5)
        permissions = "-" if kind.startswith("l") else mode[-4:]
        folder = "%dir " if kind.startswith("d") else ""
        lines.append(f'%attr({permissions}, {user}, {group}) {COPIED_FLAGS[flags[1:]]}{folder}"{path}"')
    return lines


def _content_source() -> bytes:
    chance = random.Random(0)
    words = [chance.randbytes(chance.randrange(3, 12)).hex().encode() for _ in range(4096)]
    blocks: list[bytes] = []
    for _ in range(_SOURCE >> 12):
        text = b" ".join(chance.choices(words, k=300))[:3072]
        blocks += [text.ljust(3072), chance.randbytes(1024)]
    return b"".join(blocks)
