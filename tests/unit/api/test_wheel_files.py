"""What a wheel is made of: the files of the checkout as it is."""

from __future__ import annotations

from pathlib import Path

from setuptools import Distribution

from ci.wheel_files import BuildWithFiles, wheel_files


def test_a_wheel_has_nothing_that_an_earlier_build_left(tmp_path: Path) -> None:
    command = BuildWithFiles(Distribution({"name": "relbuild", "packages": ["pipeline"], "script_name": "setup.py"}))
    command.ensure_finalized()
    command.build_lib = str(tmp_path / "lib")
    deleted = tmp_path / "lib/pipeline/deleted.py"
    deleted.parent.mkdir(parents=True)
    deleted.touch()
    command.run()
    assert not deleted.exists()
    assert (tmp_path / "lib/pipeline/__init__.py").is_file()
    assert all((tmp_path / "lib" / name).is_file() for _, name in wheel_files())
