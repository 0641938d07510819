"""The architectures that the mirror can have packages for: their names in rpm, Debian and paths.

The catalogue, the scriptlets, the specs and the list of directories are written for x86_64. Those of
another architecture are the same with its names put in their place.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalogue import Catalogue, Conversion

_PARTS = ("scriptlets", "overlay", "specs", "setup", "filesystem.directories", "filesystem.symlinks", "tiny_elf.py")


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture: ``rpm`` and ``debian`` are its names there, ``words`` replace those of x86_64."""

    rpm: str
    debian: str
    words: Mapping[str, str]

    @property
    def is_first(self) -> bool:
        """Return whether it is the architecture for which everything is written."""
        return not self.words

    def said(self, text: str) -> str:
        """Return ``text`` with this architecture's names instead of x86_64's."""
        for ours, theirs in self.words.items():
            text = text.replace(ours, theirs)
        return text

    def parts(self, folder: Path, derived: Path) -> Path:
        """Return the folder with specs, scriptlets and overlays: ``folder``, or one made from it in ``derived``."""
        if self.is_first:
            return folder
        shutil.rmtree(derived, ignore_errors=True)
        for part in _PARTS:
            given = folder / part
            for source in [given] if given.is_file() else sorted(given.rglob("*")):
                if source.is_file():
                    target = derived / source.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(self.said(source.read_text(encoding="utf-8")), encoding="utf-8")
                    target.chmod(source.stat().st_mode & 0o777)
        return derived

    def catalogue(self, catalogue: Catalogue) -> Catalogue:
        """Return the catalogue for this architecture: its requests, and conversions with its names."""
        if self.is_first:
            return catalogue
        return dataclasses.replace(
            catalogue,
            stable=catalogue.others,
            conversions={name: self._conversion(one) for name, one in catalogue.conversions.items()},
        )

    def _conversion(self, conversion: Conversion) -> Conversion:
        return dataclasses.replace(
            conversion,
            drop=tuple(map(self.said, conversion.drop)),
            provides=tuple(map(self.said, conversion.provides)),
        )


ARCHITECTURES = {
    one.rpm: one
    for one in (
        Architecture("x86_64", "amd64", {}),
        Architecture(
            "aarch64",
            "arm64",
            {
                "x86_64-linux-gnu": "aarch64-linux-gnu",
                "ld-linux-x86-64.so.2": "ld-linux-aarch64.so.1",
            },
        ),
    )
}
