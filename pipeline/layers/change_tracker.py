"""Record which script or step changed each path of the layers below.

It gives the cause of every change to package content.
"""

from __future__ import annotations

from pipeline.layers.state_session import StateSession
from pipeline.model.change import Change
from pipeline.model.tree import EntryKind, Tree


class ChangeTracker:
    """Record of the step that changed each path, by their metadata after each."""

    def __init__(self, session: StateSession) -> None:
        self._session = session
        self._seen: dict[str, tuple[int, ...]] = {}
        self._cause: dict[str, str] = {}

    def record_step(self, cause: str) -> None:
        """Record `cause` for everything that differs since the last call."""
        now = dict(self._session.stamps())
        for path, stamp in now.items():
            if self._seen.get(path) != stamp:
                self._cause[path] = cause
        self._seen = now

    def forget(self) -> None:
        """Ignore what differs since the last call: relbuild's own cleaning."""
        self._seen = dict(self._session.stamps())

    def changes(self, tree: Tree) -> tuple[Change, ...]:
        """Return the changes to package content, with the last cause of each."""
        found = []
        for path in sorted(self._seen):
            entry = tree.get(path)
            if entry is not None and entry.kind is not EntryKind.DIRECTORY and entry.owner:
                found.append(Change(path, entry.owner, self._cause.get(path, "unknown")))
        return tuple(found)
