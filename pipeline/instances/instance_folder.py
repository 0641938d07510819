"""Folders of instances in the store: their names, locks, records, and removal.

    instances/NAME/record.json   what runs, written by the supervisor, atomically
    instances/NAME/log, log.1    its output, the newest in `log`
    instances/NAME/files/…       configuration files that were changed for this instance, by their path in the image
    instances/NAME/control       the supervisor's control socket

The lock is on the folder itself (flock(2)) and held by the supervisor alone, so it ends with that process, and neither
a PID that is used again nor a file that is left over is mistaken for one that runs.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.instances.instance_record import InstancePhase, InstanceRecord
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import read_json, to_json
from pipeline.store import write_durably

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""A name is also the host name of the container, which has at most 64 characters (sethostname(2))."""

_PRODUCT_LIMIT = 50
"""Characters of an image's name that a derived name begins with."""

_RECORD = "record.json"
_RECORD_LIMIT = 1 << 20
"""Bytes of a record that is read: a hundred times one with all limits."""

_LOOKS = 10
_LOOK_PAUSE = 0.02
"""Times that a lock is tried, and seconds between: `ps` holds it for a moment to learn whether it is free."""

KEPT_FILES = "files"
"""The folder of an instance's own configuration files."""


def require_instance_name(name: str) -> str:
    """Return a name that an instance can have. Raises UsageError `instance-name-malformed`."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            "instance-name-malformed",
            f"'{name[:80]}' is not a name for an instance",
            hint="use up to 63 letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
    return name


@dataclass(frozen=True, slots=True)
class InstanceFolder:
    """The folder of one instance, which need not exist any more."""

    path: Path

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.path.name

    @property
    def files(self) -> Path:
        """The folder of the instance's own configuration files."""
        return self.path / KEPT_FILES

    def write(self, record: InstanceRecord) -> None:
        """Write the record, atomically.

        If the disk has no space for another one, it is written over the one that is there.
        """
        data = json.dumps(to_json(record), indent=1, sort_keys=True).encode()
        try:
            write_durably(self.path / _RECORD, data, mode=0o600)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._overwrite(data):
                raise

    def _overwrite(self, data: bytes) -> bool:
        """Write the record into the blocks that it has, in one call; return whether it could."""
        try:
            file = os.open(self.path / _RECORD, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # JSON ignores blanks at its end, which cover what is left of a longer record.
            return os.pwrite(file, data.ljust(os.fstat(file).st_size), 0) >= len(data)
        except OSError:
            return False
        finally:
            os.close(file)

    def record(self) -> InstanceRecord | None:
        """Read the record; None if there is none that can be read."""
        try:
            with (self.path / _RECORD).open("rb") as file:
                return read_json(InstanceRecord, json.loads(file.read(_RECORD_LIMIT)))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def supervised(self) -> bool:
        """Return whether a process holds the folder's lock."""
        try:
            with _opened(self.path) as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass
        return False

    def wait_until_ended(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the supervisor has ended; return whether it has."""
        deadline = time.monotonic() + timeout
        while self.supervised():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_PAUSE)
        return True

    def discard(self) -> None:
        """Remove the folder, whose lock the caller holds, in one step for others."""
        aside = self.path.with_name(f".removed-{secrets.token_hex(4)}")
        self.path.rename(aside)
        shutil.rmtree(aside)

    def remove(self) -> bool:
        """Remove the folder with all that is in it; return False if the instance runs."""
        for _ in range(_LOOKS):
            try:
                with _opened(self.path) as handle:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if not _is_at(handle, self.path):
                        continue  # Another one was made by that name meanwhile; its lock is not held.
                    self.discard()
                return True
            except BlockingIOError:
                time.sleep(_LOOK_PAUSE)
            except FileNotFoundError:
                return True
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Return whether `path` is still the folder that was opened. Raises FileNotFoundError."""
    return os.path.samestat(os.fstat(handle), path.lstat())


@contextlib.contextmanager
def create_instance_folder(root: Path, product: str, name: str | None) -> Iterator[InstanceFolder]:
    """Make the folder of a new instance below `root`, and hold its lock during the block.

    Without a name, it is PRODUCT-1, or with the next number that is free. Folders that attached runs left when they
    were killed are removed first. Raises UsageError `instance-exists`.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(root)
    with contextlib.ExitStack() as held:
        yield _make_locked(root, product, name, held)


def _make_locked(root: Path, product: str, name: str | None, held: contextlib.ExitStack) -> InstanceFolder:
    """Make a folder and lock it until `held` is closed.

    A sweep or `rm` may lock and remove it between creation and lock; then it is made again.
    """
    while True:
        folder = _make_named(root, name) if name is not None else _make_numbered(root, product)
        with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError):
            handle = opened.enter_context(_opened(folder.path))
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle, folder.path):
                held.push(opened.pop_all())
                return folder


def _make_named(root: Path, name: str) -> InstanceFolder:
    folder = InstanceFolder(root / require_instance_name(name))
    try:
        folder.path.mkdir(mode=0o700)
    except FileExistsError:
        removing = "" if folder.supervised() else f"remove it with `relbuild rm {name}`, or "
        raise UsageError(
            "instance-exists",
            f"there is already an instance '{name}'",
            hint=f"{removing}choose another name; `relbuild ps` lists all",
        ) from None
    return folder


def _make_numbered(root: Path, product: str) -> InstanceFolder:
    # An image's name may be foreign, and any text.
    product = re.sub("[^A-Za-z0-9_.-]+", "-", product).strip("-._")[:_PRODUCT_LIMIT] or "instance"
    for number in count(1):
        folder = InstanceFolder(root / f"{product}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.path.mkdir(mode=0o700)
            return folder
    raise AssertionError("count() has no end")


def _sweep(root: Path) -> None:
    """Remove folders of attached runs that were killed, unless files were kept in them.

    Also those of supervisors that ended before they wrote a record.
    """
    for folder in list_instances(root):
        if not folder.files.exists() and _left_over(folder) and not folder.supervised():
            folder.remove()


def _left_over(folder: InstanceFolder) -> bool:
    record = folder.record()
    if record is None:  # One that cannot be read may be of a newer relbuild.
        return not (folder.path / _RECORD).exists()
    return not record.detached and record.phase is not InstancePhase.EXITED


def list_instances(root: Path) -> tuple[InstanceFolder, ...]:
    """List the folders of all instances below `root`, by name."""
    try:
        found = sorted(path for path in root.iterdir() if _NAME.fullmatch(path.name))
    except FileNotFoundError:
        return ()
    return tuple(InstanceFolder(path) for path in found)


def find_instance(root: Path, name: str) -> InstanceFolder:
    """Return the folder of the instance `name`. Raises UsageError `instance-missing`."""
    names = [folder.name for folder in list_instances(root)]
    if name in names:
        return InstanceFolder(root / name)
    near = difflib.get_close_matches(name, names, n=1)
    there = f"instances: {', '.join(names[:12])}" if names else "start one with `relbuild run --detach`"
    raise UsageError(
        "instance-missing",
        f"there is no instance '{name[:80]}'",
        hint=f"did you mean '{near[0]}'?" if near else there,
    )
