"""The tree on which the state layer is made, and its changes: an overlay or a table."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import posixpath
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.compression import Compression
from pipeline.layers.built_layer import BuiltLayer, packed_layer
from pipeline.layers.pack_layer import pack_directory
from pipeline.layers.state_preparation import STATE_LAYER_NAME
from pipeline.layers.unpack_layer import lower_folders
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Layer
from pipeline.model.tree import Tree
from pipeline.progress import Progress
from pipeline.sandbox import BuildSession, CommandSession, PreparedSession, RootFs, session_on
from pipeline.store import Store


class StateSession(Protocol):
    """A session of commands on the layers of an image, and the changes to them."""

    @property
    def session(self) -> CommandSession:
        """The session that runs commands."""
        ...

    def stamps(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield each changed path with numbers that are others after another change."""
        ...

    def discard(self, folder: str, pattern: str) -> None:
        """Undo the changes to what is directly in `folder` and whose name matches.

        A folder that is, or is below, a symlink has nothing directly in it: no symlink is followed.
        """
        ...

    def empty_files(self, folder: str, wanted: Callable[[str], bool]) -> None:
        """Empty the changed regular files below `folder` whose paths are wanted; follow no symlink."""
        ...

    def pack(self, lower: Tree, *, build_time: int, store: Store, compression: Compression) -> Layer:
        """Pack the changes to `lower` into a layer; see `pack_directory`."""
        ...


@contextlib.contextmanager
def open_state_session(
    layers: Sequence[Layer | BuiltLayer],
    lower: Tree,
    folder: Path,
    *,
    prepared: PreparedSession | None,
    store: Store,
    progress: Progress,
    architecture: str = "",
) -> Iterator[StateSession]:
    """Open a session on `layers`, whose tree is `lower`.

    Blobs that are still packed are waited for only if needed. Commands run in containers of the session
    that was prepared, or traced where that is None. `folder` is an empty one of the build's own. Raises as
    `lower_folders`, `session_on` and `traced_session` do.
    """
    if prepared is not None:
        lowers = lower_folders(layers, store=store, progress=progress)
        with session_on(prepared, lowers, architecture=architecture) as session:
            yield OverlayStateSession(session)
        return
    from pipeline.layers.recorded_state_session import open_recorded_session  # It brings the tracer with it.

    packed = [packed_layer(layer) for layer in layers]
    with open_recorded_session(
        packed, lower, folder, store=store, progress=progress, architecture=architecture
    ) as recorded:
        yield recorded


@dataclass(frozen=True, slots=True)
class OverlayStateSession:
    """Changes as an overlay's upper directory has them."""

    session: BuildSession

    def stamps(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        top = self.session.upper
        for path in top.rglob("*"):
            found = path.lstat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)
            yield str(path.relative_to(top)), stamp

    def discard(self, folder: str, pattern: str) -> None:
        with self._folder(folder) as here:
            if here is None:
                return
            for name in sorted(os.listdir(here)):  # noqa: PTH208 - of a descriptor
                if fnmatch.fnmatchcase(name, pattern):
                    _remove(name, here)

    def empty_files(self, folder: str, wanted: Callable[[str], bool]) -> None:
        with self._folder(folder) as top:
            if top is None:
                return
            for where, _, names, here in os.fwalk(".", dir_fd=top, follow_symlinks=False):
                for name in names:
                    if wanted(posixpath.normpath(posixpath.join(folder, where, name))):
                        empty_file(name, here)

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[int | None]:
        handle = os.open(self.session.upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with opened_folder(RootFs(handle, 0), path) as found:
                yield found
        finally:
            os.close(handle)

    def pack(self, lower: Tree, *, build_time: int, store: Store, compression: Compression) -> Layer:
        return pack_directory(
            self.session.upper,
            name=STATE_LAYER_NAME,
            lower=lower,
            shift=self.session.shift,
            build_time=build_time,
            store=store,
            compression=compression,
        )


@contextlib.contextmanager
def opened_folder(files: RootFs, path: str) -> Iterator[int | None]:
    """Open a directory below a root to read it; None if there is none, or only behind a symlink.

    Symlinks of the image would lead this process to files of the machine.
    """
    with contextlib.ExitStack() as closing:
        try:
            found = closing.enter_context(files.folder(path or ".", links=False))
            handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            yield None
            return
        try:
            yield handle
        finally:
            os.close(handle)


def _remove(name: str, folder: int) -> None:
    """Remove a name below the upper directory; the lower one, if any, is visible again."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


def empty_file(name: str, folder: int) -> None:
    """Empty a regular file of a directory, if it is one."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return
    handle = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
