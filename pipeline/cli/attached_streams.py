"""Copies between this process's standard streams and those of a command in an instance.

The command gets pipes or a terminal of its own, never the person's: a process in a container could change the terminal,
or the file, behind a descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from dataclasses import field
from types import FrameType

from pipeline.cli.standard_streams import STDOUT
from pipeline.lazy_dataclasses import dataclass

_PIECE = 65536
_REST = 1 << 20
"""Bytes copied after a command's end from a terminal that others still have: more than the kernel keeps for one."""
_REST_PAUSE = 0.2
"""Seconds without output after which such a terminal has no more of the command's."""
_SIZE = struct.Struct("4H")
"""`struct winsize` (ioctl_tty(2)): rows, columns, and two unused numbers."""


@dataclass(slots=True)
class CopiedStreams:
    """Three descriptors for a command, and the threads that copy from and to them."""

    given: tuple[int, int, int]
    threads: list[threading.Thread] = field(default_factory=list)
    failures: list[OSError] = field(default_factory=list)

    def started(self) -> None:
        """Close this process's copies of the descriptors, once the command has its own."""
        given, self.given = self.given, (-1, -1, -1)
        for stream in set(given) - {-1}:
            os.close(stream)

    def finish(self) -> None:
        """Wait until all output has been copied, for as long as its reader takes.

        Raises OSError if the output cannot be written, but not if its reader has gone.
        """
        for thread in self.threads:
            thread.join()
        for failure in self.failures:
            raise failure

    def write(self, target: int, piece: bytes) -> bool:
        """Write a piece of output to `target`; return False, and keep the error, if that fails."""
        try:
            _write(target, piece)
        except OSError as error:
            if error.errno != errno.EPIPE:
                error.filename = STDOUT if target == 1 else "standard error"
                self.failures.append(error)
            return False
        return True


def piped_streams(*, stdin: bool) -> CopiedStreams:
    """Return pipes that are copied to stdout and stderr, and with `stdin` from stdin.

    Without, the input is empty.
    """
    streams = CopiedStreams((-1, -1, -1))
    source, feed = os.pipe()
    if stdin:
        threading.Thread(target=_feed, args=(feed,), name="stdin", daemon=True).start()
    else:
        os.close(feed)
    ends = []
    for number in (1, 2):
        read, write = os.pipe()
        thread = threading.Thread(target=_copy, args=(streams, read, number), name=f"stream-{number}", daemon=True)
        thread.start()
        streams.threads.append(thread)
        ends.append(write)
    streams.given = (source, ends[0], ends[1])
    return streams


def _feed(target: int) -> None:
    """Copy standard input until its end, or until nobody reads `target`."""
    try:
        with contextlib.suppress(OSError):
            while piece := os.read(0, _PIECE):
                _write(target, piece)
    finally:
        os.close(target)


def _copy(streams: CopiedStreams, source: int, target: int) -> None:
    """Copy until the end of `source`, or until `target` cannot be written."""
    try:
        with contextlib.suppress(OSError):
            while (piece := os.read(source, _PIECE)) and streams.write(target, piece):
                pass
    finally:
        os.close(source)


def _write(target: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(target, piece) :]


@contextlib.contextmanager
def terminal_streams(resized: Callable[[], None] = lambda: None, *, cooked: bool = False) -> Iterator[CopiedStreams]:
    """Yield a new terminal that is copied from and to the person's, which is raw meanwhile.

    `resized` is called in the main thread when its size changed. `cooked`: the new one echoes and edits lines, and is
    hung up after the block, also if processes that the command left still have it.
    """
    master, slave = os.openpty()
    ended = os.eventfd(0)
    if not cooked:
        tty.setraw(slave)  # It only carries bytes to the terminal in the container, which echoes.
    before = termios.tcgetattr(0)
    _copy_size(master)

    def on_resize(number: int, frame: FrameType | None) -> None:
        _copy_size(master)
        resized()

    handler = signal.signal(signal.SIGWINCH, on_resize)
    streams = CopiedStreams((slave, slave, slave))
    thread = threading.Thread(target=_copy_terminal, args=(streams, master, ended), name="terminal", daemon=True)
    streams.threads.append(thread)
    tty.setraw(0, termios.TCSADRAIN)  # What was typed ahead is for the command.
    try:
        thread.start()
        yield streams
    finally:
        try:
            streams.started()  # If the command has not: the copy ends with the last descriptor of its side.
            if cooked:
                os.eventfd_write(ended, 1)
            streams.finish()
        finally:
            os.close(ended)
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            signal.signal(signal.SIGWINCH, handler)


def _copy_size(master: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(_SIZE.size))
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def _copy_terminal(streams: CopiedStreams, master: int, ended: int) -> None:
    """Copy between the person's terminal and `master` until its other side is closed (EIO).

    Once `ended` can be read, only what is left is copied, to the person's.
    """
    sources, left = [0, master, ended], _REST
    pause: float | None = None
    try:
        with contextlib.suppress(OSError):
            while (ready := select.select(sources, [], [], pause)[0]) and left > 0:
                if ended in ready:
                    sources, pause, ready = [master], _REST_PAUSE, []
                for source in ready:
                    piece = os.read(source, _PIECE)
                    if source == 0 and not piece:
                        sources.remove(0)
                    if source == 0:
                        _write(master, piece)
                    elif not streams.write(1, piece):
                        return
                    elif pause is not None:
                        left -= len(piece)
    finally:
        os.close(master)
