"""RPMs made on the spot: from a few words or a whole spec to a package, signed well, badly, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from pipeline.digest import digest_file
from pipeline.model.header import PackageHeader
from pipeline.model.signing_key import PackageTrust
from pipeline.packages import read_header
from tests.support.patience import HUNG


class Signed(StrEnum):
    """Who signs: the key in `Forge.key`, the one in `Forge.other_key`, nobody."""

    WELL = "fixture"
    BY_ANOTHER = "stranger"
    NOT = ""


class Forge:
    """Builds packages in `folder`, with two throwaway keys of its own.

    `key` and `other_key` are the armored public keys; without `keys` there are none, and nothing can be signed. Close
    it (or use `forge()`) to end gpg's agent.
    """

    def __init__(self, folder: Path, *, keys: bool = True) -> None:
        self._folder = folder
        self._home = folder / "gnupg"
        self._home.mkdir(mode=0o700)
        self._count = 0
        self.key = self.other_key = b""
        for who in (Signed.WELL, Signed.BY_ANOTHER) if keys else ():
            self._gpg("--quick-generate-key", f"{who} <{who}@example.invalid>", "rsa2048", "sign", "never")
        if keys:
            self.key = self._gpg("--armor", "--export", Signed.WELL)
            self.other_key = self._gpg("--armor", "--export", Signed.BY_ANOTHER)

    def close(self) -> None:
        """End gpg's agent."""
        subprocess.run(["gpgconf", "--kill", "all"], env=self._environment(), timeout=HUNG, check=False)

    def spec(
        self,
        spec: str,
        *,
        sources: Mapping[str, bytes] | None = None,
        signed: Signed = Signed.WELL,
        payload: str = "w3.zstdio",
        target: str = "x86_64",
    ) -> list[Path]:
        """Build a whole spec; returns its packages, sorted. `sources` are files for `%{_sourcedir}`."""
        self._count += 1
        top = self._folder / f"build-{self._count}"
        for name in ("SOURCES", "SPECS"):
            (top / name).mkdir(parents=True)
        for name, content in (sources or {}).items():
            (top / "SOURCES" / name).write_bytes(content)
        (top / "SPECS" / "it.spec").write_text(spec)
        defines = {
            "_topdir": str(top),
            "_binary_payload": payload,
            "__os_install_post": "%{nil}",
            "_build_id_links": "none",
            "debug_package": "%{nil}",
            "_dbpath": str(top / "rpmdb"),
            "_unpackaged_files_terminate_build": "0",
        }
        words = [word for name, value in defines.items() for word in ("--define", f"{name} {value}")]
        self._run("rpmbuild", "-bb", "--quiet", "--target", target, *words, str(top / "SPECS" / "it.spec"))
        packages = sorted((top / "RPMS").rglob("*.rpm"))
        shutil.rmtree(top / "BUILD", ignore_errors=True)
        if signed:
            gpg = shutil.which("gpg") or "gpg"  # rpm's default is a name that not every distribution has.
            signing = ("--define", f"_gpg_name {signed}", "--define", f"__gpg {gpg}")
            self._run("rpmsign", *signing, "--addsign", *map(str, packages))
        return packages

    def package(
        self,
        name: str,
        *,
        version: str = "1",
        release: str = "1",
        epoch: int = 0,
        arch: str = "noarch",
        install: str = "",
        files: Sequence[str] = (),
        header: str = "",
        sections: str = "",
        **how: object,
    ) -> Path:
        """One package. `install` is the shell of `%install` (in the build root), `files` the lines of `%files`,
        `header` more lines of the preamble, `sections` anything after (scriptlets, triggers)."""
        text = "\n".join(
            (
                f"Name: {name}",
                f"Version: {version}",
                f"Release: {release}",
                *((f"Epoch: {epoch}",) if epoch else ()),
                "Summary: made for a test",
                "License: MIT",
                *((f"BuildArch: {arch}",) if arch == "noarch" else ()),
                "AutoReqProv: no",
                header,
                "%description",
                "Made for a test.",
                "%install",
                "mkdir -p %{buildroot}",
                "cd %{buildroot}",
                install,
                sections,
                "%files",
                *files,
                "",
            )
        )
        (package,) = self.spec(text, **how)  # type: ignore[arg-type]
        return package

    def _gpg(self, *words: str) -> bytes:
        return self._run("gpg", "--batch", "--quiet", "--passphrase", "", *words)

    def _run(self, *words: str) -> bytes:
        done = subprocess.run(words, env=self._environment(), capture_output=True, timeout=HUNG, check=False)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr.decode(errors='replace')}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "GNUPGHOME": str(self._home),
            "LC_ALL": "C.UTF-8",
        }


@contextmanager
def forge(folder: Path) -> Iterator[Forge]:
    """A `Forge` that is closed at the end."""
    made = Forge(folder)
    try:
        yield made
    finally:
        made.close()


def header_of(package: Path) -> PackageHeader:
    """A package's header."""
    return read_header(package, digest_file(package))


def trusting(*certificates: bytes) -> PackageTrust:
    """These armored certificates, and nothing else accepted."""
    return PackageTrust(certificates)
