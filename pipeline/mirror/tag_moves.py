"""Point tags at a cleared image: floating ones with signed moves, immutable ones once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from functools import partial
from typing import TypeVar

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, PublicationRefused, RelbuildError, join_errors
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.gate import Cleared
from pipeline.mirror.image_tags import named_digest_prefix, names_digest
from pipeline.mirror.protocol import Repository, TagConflict
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import TagSigner, list_statements
from pipeline.model.publication import Move, MoveCause, RecordedStatement

_NOT_MADE = {"registry-denied", "registry-refused", "registry-tag-immutable"}
"""Codes of a registry's answers after which it certainly has not moved a tag."""

_Result = TypeVar("_Result")

PUBLISH_CONCURRENCY = 6
"""Blobs that are transferred, or tags that are signed, at the same time: enough to hide a registry's latency, few
enough for its rate limits. skopeo and podman have as many."""

MOVE_ATTEMPTS = 5
"""Attempts to move a tag that others move at the same time."""

_LOOKS = 5
_LOOK_PAUSE = 0.2
"""Seconds between two looks for a tag that was set and is not there."""


def set_immutable_tag(repository: Repository, tag: str, cleared: Cleared) -> tuple[str, ...]:
    """Set an immutable tag, unless it points to the same digest already.

    Returns it if it was set: `TagMover.move` then makes sure that the mirror keeps it. Raises PublicationRefused
    `tag-immutable`.
    """
    try:
        repository.point(tag, cleared, None)
    except TagConflict as error:
        if error.found != cleared.manifest.digest:
            raise _immutable_elsewhere(repository, tag, error.found, cleared.manifest.digest) from None
        return ()
    return (tag,)


def _immutable_elsewhere(repository: Repository, tag: str, found: Digest | None, wanted: Digest) -> PublicationRefused:
    return PublicationRefused(
        "tag-immutable",
        f"immutable tag '{tag}' points to {found}, not to {wanted}, and is never moved",
        place=repository.url,
        hint=f"it was set by hand: `relbuild history {repository.url}:{tag}` tells if relbuild did it, and "
        f"`relbuild promote {repository.url}@{wanted} --to {tag}` sets it right",
    )


def resolve_kept(repository: Repository, tag: str) -> Digest | None:
    """Resolve a tag that was set, and look again for some time if there is none.

    A registry may have none for a moment while another publisher sets it: files are written in place there.
    """
    for _ in range(_LOOKS - 1):
        found = repository.resolve(tag)
        if found is not None:
            return found
        time.sleep(_LOOK_PAUSE)
    return repository.resolve(tag)


def tag_not_kept(repository: Repository, tag: str) -> EnvironmentLacking:
    """Make the error of a registry that accepted a tag and does not have it."""
    return EnvironmentLacking(
        "tag-not-kept",
        f"the registry accepted tag '{tag}', and answers that there is none",
        place=repository.url,
        hint="look for a quota, a rule or a proxy in front of it that drops tags, or somebody who removed it since; "
        "then run the command again",
    )


def refuse_immutable(repository: Repository, tag: str, wanted: Digest, *, carried: bool = False) -> None:
    """Refuse to point an immutable tag elsewhere, before anything is written.

    A tag that is missing is refused if its form is that of another image's immutable tag, unless it is `carried` here
    from another mirror as it is. Raises PublicationRefused `tag-immutable`.
    """
    short = named_digest_prefix(tag)
    if short is None or short == wanted.short:
        return
    found = repository.resolve(tag)
    if found is None and not carried:
        raise PublicationRefused(
            "tag-immutable",
            f"'{tag}' has the form of the immutable tag of an image whose digest begins with {short}, not of {wanted}",
            place=repository.url,
            hint=_MOVABLE,
        )
    if found is not None:
        _refuse_moving_immutable(repository, tag, found, wanted)


_MOVABLE = "choose a tag that may move, such as 'stable': VERSION-DATE-DIGEST is set once, when that image is published"


def _refuse_moving_immutable(repository: Repository, tag: str, found: Digest, wanted: Digest) -> None:
    if found != wanted and names_digest(tag, found):
        raise PublicationRefused(
            "tag-immutable",
            f"immutable tag '{tag}' points to {found}, not to {wanted}, and is never moved",
            place=repository.url,
            hint=_MOVABLE,
        )


@dataclass(frozen=True, slots=True)
class TagMover:
    """Moves of floating tags of a repository, each move signed before it is made.

    `version` is that of the image, `why` goes into the history; `clear_again` asks the gate again when a tag does not
    point to the image that the gate saw; `clock` returns seconds since the epoch. `signer` is None for a copy, whose
    signed statements were copied; `identity`: the repository's name in statements, if it is not its own.
    `confirmed_until`: of each tag that was moved or found, until when nothing has to be signed of it, in milliseconds
    since the epoch; 0 if something just was. `leave_moved_back`: a tag that a person moved back from the image is not
    moved to it again, nor is it signed where it points there all the same; `left`: those tags, and where they point.
    """

    repository: Repository
    version: str
    why: MoveCause
    clear_again: Callable[[], Cleared]
    clock: Callable[[], float]
    signer: TagSigner | None
    identity: str = ""
    leave_moved_back: bool = False
    confirmed_until: dict[str, int] = field(default_factory=dict)
    left: dict[str, Digest] = field(default_factory=dict)
    _signed_tags: dict[str, SignedTag] = field(default_factory=dict)
    _listed: dict[str, tuple[RecordedStatement, ...]] = field(default_factory=dict)
    """Statements on tags to be moved, as they were listed just before."""
    _announced: set[str] = field(default_factory=set)
    """Tags of which a move was signed here: to be withdrawn where it certainly is not made."""

    def move(
        self, tags: Sequence[str], cleared: Cleared, immutable: Sequence[str] = ()
    ) -> tuple[tuple[Move, ...], tuple[str, ...]]:
        """Move tags to the cleared manifest; return the moves, and tags that pointed there already.

        Statements on the latter are renewed if they are missing or old. `immutable`: tags that were just set to it;
        like the moved ones, they are resolved when other writers have finished.

        Moves are signed in parallel, made sequentially, then confirmed in parallel. A tag that cannot be moved does not
        stop the others, whatever the reason: their moves are signed already, and of those not made it would be open
        where the tag belongs. Raises the first tag's error with the problems of all.
        """
        with self.repository.moving():
            return self._move_all(tags, cleared, immutable)

    def settled_until(self, tag: str, wanted: Digest) -> int:
        """Return until when `wanted` is what is signed of a tag, verified, and needs no renewal.

        Milliseconds since the epoch; 0 if it is not, and for a copy, which signs nothing.
        """
        return self._signed_tag(tag, self.signer).settled_until(wanted) if self.signer is not None else 0

    def _move_all(
        self, tags: Sequence[str], cleared: Cleared, immutable: Sequence[str]
    ) -> tuple[tuple[Move, ...], tuple[str, ...]]:
        moved: list[Move] = []
        unmoved: list[str] = []
        failed: list[RelbuildError] = []
        wanted = cleared.manifest.digest
        found_before = self._look_for_moves_back(tags, wanted, failed)
        asked = [tag for tag in tags if tag not in self.left and (tag in found_before or not failed)]
        begun = self._in_parallel(lambda tag: self._begin(tag, cleared, found_before), asked, failed)
        for tag, (found, signed) in begun.items():
            try:
                move = self._move(tag, cleared, found, signed)
            except RelbuildError as error:
                failed += self._given_up(tag, error)
                continue
            if move is not None:
                moved.append(move)
            elif tag not in self.left:
                unmoved.append(tag)
        standing = (*self._not_overtaken([move.tag for move in moved], immutable, wanted, failed), *unmoved)
        self._in_parallel(lambda tag: self._confirm(tag, wanted), standing, failed)
        for tag in [tag for tag in tags if tag in self.left]:
            self.left[tag] = self.left.pop(tag)  # in the order that was asked
        if failed:
            raise join_errors(failed)
        return tuple(moved), tuple(tag for tag in unmoved if tag not in self.left)

    def _given_up(self, tag: str, error: RelbuildError) -> Iterator[RelbuildError]:
        """Withdraw what was announced of a tag that `error` kept from moving; yield all errors."""
        yield error
        try:
            self._withdraw(tag)
        except RelbuildError as another:
            yield another

    def _look_for_moves_back(
        self, tags: Sequence[str], wanted: Digest, failed: list[RelbuildError]
    ) -> Mapping[str, Digest | None]:
        """Note the tags that a person moved back, which are left; return all tags' targets.

        Nothing is looked for, and no target returned, unless that was asked for, nor that of a tag that fails.
        Statements on the tags to be moved are kept for signing their moves.
        """
        signer = self.signer
        if not self.leave_moved_back or signer is None:
            return {}

        def look(tag: str) -> Digest | None:
            signed = self._signed_tag(tag, signer)  # It knows what was seen before the list.
            found = self.repository.resolve(tag)
            if found is None or found == wanted:
                return found
            listed = list_statements(self.repository, self._name, tag)
            # What is withheld may be that a person moved it back.
            if not signed.is_set_back(listed) and not self._was_moved_back(tag, wanted, listed):
                self._listed[tag] = listed
            return found

        present = self._in_parallel(look, tags, failed)
        self.left.update(
            (tag, found) for tag, found in present.items() if found not in (None, wanted) and tag not in self._listed
        )
        return present

    def _was_moved_back(self, tag: str, wanted: Digest, listed: tuple[RecordedStatement, ...] | None = None) -> bool:
        """Return whether a tag is to be left, since a person moved it back from `wanted`.

        `listed`: the statements on it, where they were just listed.
        """
        if not self.leave_moved_back or self.signer is None:
            return False
        from pipeline.mirror.tag_history import is_withdrawn  # only here: `publish` reads no history

        listed = list_statements(self.repository, self._name, tag) if listed is None else listed
        return is_withdrawn(self.repository, self._name, tag, wanted, self.signer.trusted, listed=listed)

    @property
    def _name(self) -> str:
        """The repository's name in statements."""
        return self.identity or self.repository.identity

    def _not_overtaken(
        self, moved: Sequence[str], immutable: Sequence[str], wanted: Digest, failed: list[RelbuildError]
    ) -> Sequence[str]:
        """Return the moved tags that no other writer has moved since, and that the mirror keeps.

        The errors of the others, and of `immutable` ones, are added to `failed`. All are returned where a mirror
        compares and swaps.
        """
        if not (moved or immutable) or not self.repository.await_writers():
            return moved
        targets = self._in_parallel(partial(resolve_kept, self.repository), (*moved, *immutable), failed)
        for tag, target in targets.items():
            if target is None:
                failed.append(tag_not_kept(self.repository, tag))
            elif target != wanted and tag in immutable:
                failed.append(_immutable_elsewhere(self.repository, tag, target, wanted))
            elif target != wanted:
                failed.append(self._overtaken(tag, wanted, None))
        return [tag for tag in moved if targets.get(tag) == wanted]

    def _in_parallel(
        self, do: Callable[[str], _Result], tags: Sequence[str], failed: list[RelbuildError]
    ) -> dict[str, _Result]:
        """Return what `do` returns of each tag; the errors of those that fail are added to `failed`."""

        def attempt(tag: str) -> _Result | RelbuildError:
            try:
                return do(tag)
            except RelbuildError as error:
                return error

        with ThreadPoolExecutor(PUBLISH_CONCURRENCY, "sign") as pool:
            outcomes = dict(zip(tags, pool.map(attempt, tags), strict=True))
        failed += (one for one in outcomes.values() if isinstance(one, RelbuildError))
        return {tag: one for tag, one in outcomes.items() if not isinstance(one, RelbuildError)}

    def _begin(
        self, tag: str, cleared: Cleared, found_before: Mapping[str, Digest | None]
    ) -> tuple[Digest | None, Move | None]:
        """Resolve a tag, unless it just was, and sign its move; return its target and the move.

        None for the move where the tag points there already, or the gate must be asked first.
        """
        wanted = cleared.manifest.digest
        found = found_before[tag] if tag in found_before else self.repository.resolve(tag)
        immutable = found is not None and names_digest(tag, found)
        if found == wanted or immutable or not self._gate_saw(cleared, tag, found):
            return found, None
        return found, self._sign_move(tag, found, wanted, self._listed.get(tag))

    def _move(self, tag: str, cleared: Cleared, found: Digest | None, move: Move | None) -> Move | None:
        """Move a tag that points to `found`; return the move.

        None if it pointed there already, or is `left`. `move`: the move, where it is signed already.
        """
        wanted = cleared.manifest.digest
        for _ in range(MOVE_ATTEMPTS):
            if found == wanted:  # `Repository.moving` sees to it that it is listed
                return None
            if found is not None:
                _refuse_moving_immutable(self.repository, tag, found, wanted)
            if move is None:
                if not self._gate_saw(cleared, tag, found):
                    cleared = self.clear_again()
                move = self._sign_move(tag, found, wanted)
            try:
                self.repository.point(tag, cleared, found)
            except TagConflict as error:
                if error.found == wanted:
                    return None
                if error.written:
                    raise self._overtaken(tag, wanted, error.found) from None
                found, move = error.found, None  # somebody else moved it first, maybe back
                if found is not None and self._was_moved_back(tag, wanted):
                    self.left[tag] = found
                    self._withdraw(tag)
                    return None
            except RelbuildError as error:
                if not isinstance(error, PublicationRefused) and error.code not in _NOT_MADE:
                    self._announced.discard(tag)  # It may be made all the same: both targets are believed.
                raise
            else:
                return move
        raise self._overtaken(tag, wanted, found)

    def _sign_move(
        self, tag: str, found: Digest | None, wanted: Digest, listed: tuple[RecordedStatement, ...] | None = None
    ) -> Move:
        move = Move(tag, found, wanted, int(self.clock() * 1000), self.why, self.version)
        if self.signer is not None:
            self._signed_tag(tag, self.signer).announce(move, listed)
            self._announced.add(tag)
        return move

    def _withdraw(self, tag: str) -> None:
        """Sign again what held of a tag before its move was announced, if that was done here."""
        if self.signer is not None and tag in self._announced:
            self._announced.discard(tag)
            self._signed_tag(tag, self.signer).withdraw(self.repository.resolve(tag))

    def _confirm(self, tag: str, wanted: Digest) -> None:
        if self.signer is not None:
            signed = self._signed_tag(tag, self.signer)
            done = signed.confirm(wanted, self.version, self.why, partial(self._was_moved_back, tag, wanted))
            self.confirmed_until[tag] = done.settled_until
            if done.withdrawn:
                self.left[tag] = wanted

    def _signed_tag(self, tag: str, signer: TagSigner) -> SignedTag:
        made = SignedTag(self.repository, self._name, tag, signer)
        return self._signed_tags.setdefault(tag, made)  # knows what it has written

    def _gate_saw(self, cleared: Cleared, tag: str, found: Digest | None) -> bool:
        """Return whether the gate knew the tag's present target.

        If not, the gate must be asked again. A rollback needs no new answer.
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
