"""Files of a site: whole or as they were, and not touched when nothing in them changes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import EnvironmentLacking

_DRAFT = ".draft"


class SiteFiles:
    """Writes below `folder`, and remembers what it wrote. One process at a time has `locked` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the site, so that nobody else writes meanwhile.

        Raises EnvironmentLacking `site-unwritable` for what the file system forbids in this block.
        """
        try:
            self._make(self.folder)
            handle = os.open(self.folder / ".lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        """Remove the drafts of processes that were killed: nobody else writes here now."""
        for inner in ("", "nights", "data"):
            for draft in (self.folder / inner).glob(f".*{_DRAFT}"):
                draft.unlink(missing_ok=True)

    def put(self, name: str, data: bytes, *, keep: bool = False) -> bool:
        """Write `data` to a file of the site, unless it has that already; False if it had.

        `keep`: it survives a power cut, because it cannot be made again.
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
        """Remove a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o755)
