"""Write a site's files atomically and only if their content changed; lock the site."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import EnvironmentLacking

_DRAFT = ".draft"

SITE_LOCK = ".lock"
"""The file in a site's folder that its writer holds."""


class SiteFiles:
    """Writer of files below `folder`; `written` are those that changed. Use it within `locked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the site's lock within the block, against other writers.

        Raises EnvironmentLacking `site-unwritable` for an OSError within the block.
        """
        try:
            self._make(self.folder)
            handle = os.open(self.folder / SITE_LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)
        except OSError as error:
            raise EnvironmentLacking(
                "site-unwritable",
                f"cannot write the site: {error}",
                place=str(self.folder),
                hint="check its permissions and free space",
            ) from error

    def sweep(self) -> None:
        """Remove temporary files of killed processes; requires the lock."""
        for inner in ("", "nights", "data"):
            for draft in (self.folder / inner).glob(f".*{_DRAFT}"):
                draft.unlink(missing_ok=True)

    def put(self, name: str, data: bytes, *, keep: bool = False) -> bool:
        """Write `data` to a file of the site; return False if it has that content already.

        `keep`: sync it to disk, because it cannot be made again.
        """
        target = self.folder / name
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if target.stat().st_size == len(data) and target.read_bytes() == data:
                return False
        self._make(target.parent)
        draft = target.with_name(f".{target.name}{_DRAFT}")
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            if keep:
                os.fsync(file.fileno())
        draft.replace(target)
        self.written.append(target)
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        (self.folder / name).unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o755)
