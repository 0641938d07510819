"""What the wheel carries beside `pipeline`: the module `relbuild` with recipes, templates and documents in it.

A build step of setuptools, which pyproject.toml names. In a checkout the same files lie where people edit them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parents[1]

FILES = {
    "ci/wheel.d/relbuild/*": "relbuild",
    "recipes/*.yaml": "relbuild/recipes",
    "recipes/keys/*": "relbuild/recipes/keys",
    "templates/*": "relbuild/templates",
    "docs/*.md": "relbuild/docs",
    "docs/decisions/*.md": "relbuild/docs/decisions",
}
"""Files of the checkout → their folder in the wheel."""


def wheel_files() -> list[tuple[Path, str]]:
    """Return each file, and its path in the wheel."""
    return [
        (file, f"{folder}/{file.name}")
        for pattern, folder in FILES.items()
        for file in sorted(ROOT.glob(pattern))
        if file.is_file()
    ]


class BuildWithFiles(build_py):
    """`build_py`, and the files of `FILES`; a source distribution has them too, at their own places."""

    def run(self) -> None:
        """Copy the packages, then the files, into an empty folder.

        pip leaves `build/lib` in the checkout and takes it again: what was deleted since would be in the wheel.
        """
        if not self.editable_mode and Path(self.build_lib).exists():
            shutil.rmtree(self.build_lib)
        super().run()
        if self.editable_mode:
            return
        for source, name in wheel_files():
            target = Path(self.build_lib, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_source_files(self) -> list[str]:
        """Return what a source distribution needs."""
        own = [str(Path(__file__).resolve().relative_to(ROOT))]
        return [*super().get_source_files(), *(str(source.relative_to(ROOT)) for source, _ in wheel_files()), *own]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the paths that were written."""
        own = [str(Path(self.build_lib, name)) for _, name in wheel_files()]
        return [*super().get_outputs(include_bytecode), *own]
