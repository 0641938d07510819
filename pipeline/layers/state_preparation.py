"""Preparation of the state layer: RPM's database, and all of a session but its layers.

No layer below changes them. Both are made beside the packing of the layers below, where one of these has to be made:
the state layer is another one then. Otherwise nothing is begun before the state layer itself is known to be missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pipeline.process import CommandGroup
from pipeline.sandbox import BuildLimits, PreparedSession, SandboxRegistry, prepare_session
from pipeline.store import Store

STATE_LAYER_NAME = "state"


class StatePreparation:
    """A state layer's preparation, made by `preparing_state` and begun when it is asked for."""

    def __init__(
        self,
        write_database: Callable[[], Path],
        open_session: Callable[[], PreparedSession | None],
        threads: ThreadPoolExecutor,
    ) -> None:
        """Have both done by `threads`."""
        self._write_database = write_database
        self._open_session = open_session
        self._threads = threads
        self._begun: tuple[Future[PreparedSession | None], Future[Path]] | None = None

    def begin(self) -> None:
        """Begin, unless that was done. What goes wrong is raised where a result is asked for."""
        self._futures()

    def session(self) -> PreparedSession | None:
        """Return the session without its layers; None where scriptlets are to be traced.

        Raises as `prepare_session`, and as the function that opens the sandboxes.
        """
        return self._futures()[0].result()

    def database(self) -> Path:
        """Return the directory with RPM's database. Raises as `write_package_records`."""
        return self._futures()[1].result()

    def _futures(self) -> tuple[Future[PreparedSession | None], Future[Path]]:
        if self._begun is None:
            self._begun = self._threads.submit(self._open_session), self._threads.submit(self._write_database)
        return self._begun


@contextlib.contextmanager
def preparing_state(
    write_database: Callable[[Path], Path], *, sandboxes: Callable[[], SandboxRegistry | None], store: Store
) -> Iterator[StatePreparation]:
    """Prepare a state layer beside the block; all of it is removed at the block's end.

    `write_database` is given a folder for the database. `sandboxes` is asked for once the preparation is begun; where
    it returns None, scriptlets are traced. The commands of the preparation are killed when the block raises.
    """
    commands = CommandGroup()

    with (
        contextlib.ExitStack() as closing,
        ThreadPoolExecutor(2, "relbuild-state", commands.join) as threads,
        commands,
    ):

        def open_session() -> PreparedSession | None:
            opened = sandboxes()
            if opened is None:
                return None
            return closing.enter_context(
                prepare_session(sandboxes=opened, label=STATE_LAYER_NAME, limits=BuildLimits())
            )

        def written() -> Path:
            # Not before it is asked for: a store that is not writable serves a build in which nothing changed.
            return write_database(closing.enter_context(store.temporary("rpmdb")))

        yield StatePreparation(written, open_session, threads)
