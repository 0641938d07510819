"""Moves of tags by which people pull, each signed.

Each is signed before it is made, and again once it is seen to be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from pipeline.digest import Digest
from pipeline.errors import Problem, PublicationRefused
from pipeline.mirror.gate import Cleared
from pipeline.mirror.protocol import Repository, TagConflict
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import TagSigner
from pipeline.model.publication import Move, MoveCause

_Result = TypeVar("_Result")

MOVES_PARALLEL = 4
"""Blobs on their way, or tags that are signed, at the same time: enough to hide a registry's
answering times, few enough for its limits."""

MOVE_ATTEMPTS = 5
"""Attempts to move a tag that others move at the same time."""


def set_immutable_tag(repository: Repository, tag: str, cleared: Cleared) -> None:
    """Set an immutable tag, or find it set to the same.

    Raises PublicationRefused `tag-immutable`.
    """
    found = repository.resolve(tag)
    if found in (None, cleared.manifest.digest):
        try:
            repository.point(tag, cleared, found)  # also where it points there already: see `TagMover`
            return
        except TagConflict as error:
            found = error.found
    if found != cleared.manifest.digest:
        raise PublicationRefused(
            "tag-immutable",
            f"immutable tag '{tag}' points to {found}, not to {cleared.manifest.digest}, and is never moved",
            place=repository.url,
            hint="it was pushed without relbuild: find out by whom, and remove the tag if it is wrong",
        )


@dataclass(frozen=True, slots=True)
class TagMover:
    """Moves of floating tags of a repository, each move signed before it is made.

    `version` is that of what they shall point to, `why` goes into the history; `clear_again` asks the gate anew when a
    tag points to something else than it was told; `clock` gives seconds since the epoch. `signer` is None where what
    was signed elsewhere was carried here; `identity`: the name under which tags are signed, if it is not the
    repository's own.
    """

    repository: Repository
    version: str
    why: MoveCause
    clear_again: Callable[[], Cleared]
    clock: Callable[[], float]
    signer: TagSigner | None
    identity: str = ""

    def move(self, tags: Sequence[str], cleared: Cleared) -> tuple[tuple[Move, ...], tuple[str, ...]]:
        """Move tags to what was cleared; return the moves, and the tags left alone.

        Those that point there already are left alone, and what is signed of them is renewed if it is missing or old.

        Moves are signed side by side, each in its tag's own list, then made one after the other, then settled side by
        side. Each tag is a step of its own: one that cannot be moved does not keep the others from it. Raises
        PublicationRefused of all that could not.
        """
        with self.repository.moving():
            return self._move_all(tags, cleared)

    def _move_all(self, tags: Sequence[str], cleared: Cleared) -> tuple[tuple[Move, ...], tuple[str, ...]]:
        moved: list[Move] = []
        unmoved: list[str] = []
        problems: list[Problem] = []
        begun = self._side_by_side(lambda tag: self._begin(tag, cleared), tags)
        for tag, (found, announced) in zip(tags, begun, strict=True):
            try:
                move = self._move(tag, cleared, found, announced)
            except PublicationRefused as error:
                problems += error.problems
                continue
            if move is None:
                unmoved.append(tag)
            else:
                moved.append(move)
        wanted = cleared.manifest.digest
        lost = self.repository.overtaken({move.tag: move.after for move in moved})
        problems += (problem for tag in lost for problem in self._overtaken(tag, wanted, None).problems)
        standing = (*(move.tag for move in moved if move.tag not in lost), *unmoved)
        self._side_by_side(lambda tag: self._settle(tag, wanted), standing)
        if problems:
            raise PublicationRefused.of(problems)
        return tuple(moved), tuple(unmoved)

    def _side_by_side(self, do: Callable[[str], _Result], tags: Sequence[str]) -> list[_Result]:
        with ThreadPoolExecutor(MOVES_PARALLEL, "sign") as pool:
            return list(pool.map(do, tags))

    def _begin(self, tag: str, cleared: Cleared) -> tuple[Digest | None, Move | None]:
        """Resolve a tag and sign its move; no move where there is nothing to move, or the gate is to
        be asked first."""
        wanted = cleared.manifest.digest
        found = self.repository.resolve(tag)
        if found == wanted or not self._judged(cleared, tag, found):
            return found, None
        return found, self._announced(tag, found, wanted)

    def _move(self, tag: str, cleared: Cleared, found: Digest | None, move: Move | None) -> Move | None:
        """Move a tag that was found to point to `found`.

        `move`: signed already. Returns None if it pointed there.
        """
        wanted = cleared.manifest.digest
        for _ in range(MOVE_ATTEMPTS):
            if found != wanted and move is None:
                if not self._judged(cleared, tag, found):
                    cleared = self.clear_again()
                move = self._announced(tag, found, wanted)
            try:
                # Also where it points there already: one who was killed just after he moved it may have left it out of
                # the list of tags that a mirror of files keeps, and nothing is written if all is in order.
                self.repository.point(tag, cleared, found)
            except TagConflict as error:
                if error.found == wanted:
                    return None
                if error.written:
                    raise self._overtaken(tag, wanted, error.found) from None
                found, move = error.found, None  # somebody was quicker
            else:
                return move
        raise self._overtaken(tag, wanted, found)

    def _announced(self, tag: str, found: Digest | None, wanted: Digest) -> Move:
        move = Move(tag, found, wanted, int(self.clock() * 1000), self.why, self.version)
        if self.signer is not None:
            self._signed_tag(tag, self.signer).announce(move)
        return move

    def _settle(self, tag: str, wanted: Digest) -> None:
        if self.signer is not None:
            self._signed_tag(tag, self.signer).settle(wanted, self.version, self.why)

    def _signed_tag(self, tag: str, signer: TagSigner) -> SignedTag:
        return SignedTag(self.repository, self.identity or self.repository.identity, tag, signer)

    def _judged(self, cleared: Cleared, tag: str, found: Digest | None) -> bool:
        """Return whether the gate knew what the tag points to.

        What may follow something else is for it to say again. Who goes back on purpose is not asked.
        """
        if found is None or self.why is MoveCause.ROLLBACK:
            return True
        return any((now.tag, now.digest) == (tag, found) for now in cleared.current)

    def _overtaken(self, tag: str, wanted: Digest, found: Digest | None) -> PublicationRefused:
        url = self.repository.url
        elsewhere = f"to {found} " if found else ""
        return PublicationRefused(
            "tag-overtaken",
            f"another publisher moved tag '{tag}' {elsewhere}at the same time; {wanted} is published without that tag",
            place=url,
            hint=f"see `relbuild history {url}:{tag}`, then promote the right image",
        )
