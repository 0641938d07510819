"""Take an inventory of a mirror with an API: all that is reachable from its tags.

A registry lists tags only. From there everything is followed: entries of indexes, referrers and subjects, the subjects
in the names of signature and fallback tags, and former targets of tags, from their history. What is not found so is
never pruned. A registry does not tell arrival times either; the history gives some. What a tag led to whose manifest is
lost is not known, so there is no inventory then.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Mirror, Repository, is_auxiliary
from pipeline.mirror.references import References, references
from pipeline.mirror.retention.pruning import (
    HeldBlob,
    HeldManifest,
    HeldRepository,
    HeldTag,
    Inventory,
)
from pipeline.mirror.retention.reachability import PRUNING_TAG_PREFIX, tag_subject
from pipeline.mirror.tag_history import move_records, read_move
from pipeline.mirror.tag_statements import anchor_manifest, listed_statement
from pipeline.model.manifests import Manifest
from pipeline.model.publication import Move, MoveCause
from pipeline.oci import media_types

INVENTORY_MANIFEST_LIMIT = 200_000
"""Manifests of one repository, at most: a hundred publications a day for a year, with six manifests each."""

_IMMUTABLE = re.compile(r".+-(?P<date>\d{8})-(?P<short>[0-9a-f]{12})")


def inventory_by_tags(mirror: Mirror, names: Sequence[str]) -> Inventory:
    """Take an inventory of the repositories `names` of a mirror, from their tags.

    Raises as the mirror does, and VerificationError for a manifest that cannot be read, `tag-damaged` for one that is
    lost: what it refers to is unknown, so nothing could safely be pruned.
    """
    return join_inventories(tuple(repository_inventory(name, mirror.repository(name)) for name in names))


def inventory_manifest(manifest: Manifest, said: References, since: int | None) -> HeldManifest:
    """Describe a manifest for an inventory. `since`: its arrival (seconds since the epoch)."""
    return HeldManifest(
        digest=manifest.digest,
        media_type=manifest.media_type,
        size=len(manifest.data),
        children=said.manifests,
        blobs=said.blobs,
        subject=said.subject,
        artifact_type=said.artifact_type,
        since=since,
    )


def join_inventories(repositories: tuple[HeldRepository, ...]) -> Inventory:
    """Make an inventory of repositories and the blobs to which their manifests refer.

    The blobs' arrival times are unknown.
    """
    sizes = {
        blob.digest: blob.size
        for repository in repositories
        for manifest in repository.manifests
        for blob in manifest.blobs
    }
    return Inventory(repositories, tuple(HeldBlob(digest, sizes[digest]) for digest in sorted(sizes)))


def repository_inventory(name: str, repository: Repository) -> HeldRepository:
    """Take an inventory of one repository, from its tags.

    Raises as the repository does, VerificationError (`tag-damaged`: a tag is listed and leads to nothing).
    """
    search = _Search(repository)
    for tag in repository.tags():
        search.tag(tag)
    for tag in tags_without_manifest(repository, [tag for tag in search.empty if _leads_to_content(tag)]):
        raise _lost_manifest(repository, tag)
    for tag in tuple(search.empty):  # set meanwhile, or removed
        search.tag(tag)
    search.follow()
    moves = (*recorded_moves(search.tagged), *search.signed)
    known = known_times(moves)
    return HeldRepository(
        name,
        tuple(HeldTag(tag, found.digest, _set_at(tag, found, moves)) for tag, found in sorted(search.tagged.items())),
        tuple(
            replace(held, since=known.get(digest))
            for digest, held in sorted(search.found.items(), key=lambda one: one[0])
        ),
    )


@dataclass(slots=True)
class _Search:
    """Search of one repository: what was found so far, and digests that are still to be read."""

    repository: Repository
    tagged: dict[str, Manifest] = field(default_factory=dict)
    found: dict[Digest, HeldManifest] = field(default_factory=dict)
    waiting: list[Digest] = field(default_factory=list)
    asked: set[Digest] = field(default_factory=set)
    signed: list[Move] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Tags that were listed and led to nothing."""

    def tag(self, tag: str) -> None:
        """Read the manifest of a tag; queue it, its references, and the subject in the tag's name."""
        manifest = self.repository.manifest(tag)
        if manifest is None:
            self.empty.append(tag)
            return
        self.tagged[tag] = manifest
        self._add(manifest)
        subject = tag_subject(tag)
        if subject is not None:
            self.waiting.append(subject[0])
        if not is_auxiliary(tag):
            self.waiting.append(anchor_manifest(self.repository.identity, tag).digest)

    def follow(self) -> None:
        """Read everything to which the found manifests refer, and their referrers.

        Raises VerificationError `repository-too-large`.
        """
        for move in recorded_moves(self.tagged):
            self.waiting += [digest for digest in (move.before, move.after) if digest is not None]
        while self.waiting:
            digest = self.waiting.pop()
            if digest in self.asked:
                continue
            if len(self.asked) >= INVENTORY_MANIFEST_LIMIT:
                raise VerificationError(
                    "repository-too-large",
                    f"the repository has more than {INVENTORY_MANIFEST_LIMIT} manifests",
                    place=self.repository.url,
                    hint="use the registry's own tools to remove a part of its tags",
                )
            self.asked.add(digest)
            if digest not in self.found:
                manifest = self.repository.manifest(digest)
                if manifest is not None:
                    self._add(manifest)
            # A missing manifest can have referrers too.
            self.waiting += (one.descriptor.digest for one in self.repository.referrers(digest))

    def _add(self, manifest: Manifest) -> None:
        said = references(manifest)
        held = inventory_manifest(manifest, said, None)
        self.found[manifest.digest] = held
        self.waiting += [manifest.digest, *(child.digest for child in held.children)]
        if held.subject is not None:
            self.waiting.append(held.subject)
        move = signed_move(said)
        if move is not None:
            self.signed.append(move)
            self.waiting += [digest for digest in (move.before, move.after) if digest is not None]


def tags_without_manifest(repository: Repository, tags: Sequence[str]) -> tuple[str, ...]:
    """Return those of `tags` that are listed and lead to nothing, also when asked again.

    They did so a moment ago; the others were removed or moved meanwhile. Raises as the repository does.
    """
    listed = set(repository.tags()) if tags else set()
    return tuple(tag for tag in tags if tag in listed and repository.resolve(tag) is None)


def _leads_to_content(tag: str) -> bool:
    """Return whether a tag leads to what nothing else may lead to.

    Not so a list of referrers, which name their subject themselves, nor the record of a killed pruning.
    """
    about = tag_subject(tag)
    return not (about is not None and about[1]) and not tag.startswith(PRUNING_TAG_PREFIX)


def _lost_manifest(repository: Repository, tag: str) -> VerificationError:
    mirror = repository.url.removesuffix(f"/{repository.name}")
    return VerificationError(
        "tag-damaged",
        f"tag '{tag}' is listed, but its manifest is missing, so what it led to is not known: nothing is pruned",
        place=f"{repository.url}:{tag}",
        hint=f"run `relbuild scrub {mirror}` first, which sends the manifest again where the store or a mirror given "
        "with --from has it; else publish or copy the image again, or promote another one to the tag",
    )


def recorded_moves(tagged: Mapping[str, Manifest]) -> tuple[Move, ...]:
    """Return the moves recorded under `move.` tags (old mirrors), without unreadable ones."""
    found: list[Move] = []
    for record in move_records(tuple(tagged)):
        with contextlib.suppress(VerificationError):
            found.append(read_move(tagged[record], record))
    return tuple(found)


def signed_move(said: References) -> Move | None:
    """Return the move in the annotations of a statement's manifest; None for other manifests."""
    notes = dict(said.annotations)
    statement = listed_statement(lambda name: notes.get(name, ""))
    return statement.move if statement is not None else None


def known_times(moves: tuple[Move, ...]) -> Mapping[Digest, int]:
    """Return digest → last time (seconds since the epoch) at which a tag pointed to it."""
    times: dict[Digest, int] = {}
    for move in moves:
        for digest in (move.before, move.after):
            if digest is not None:
                times[digest] = max(times.get(digest, 0), move.at // 1000)
    return times


def _set_at(tag: str, manifest: Manifest, moves: tuple[Move, ...]) -> int | None:
    """Return when a tag was set (seconds since the epoch); None if unknown.

    From the history; else the creation time of its manifest, from annotations or from the name of an immutable tag.
    """
    if move_records((tag,)):
        with contextlib.suppress(VerificationError):
            return read_move(manifest, tag).at // 1000
    set_ = [
        move for move in moves if move.tag == tag and move.after == manifest.digest and move.why is not MoveCause.RENEW
    ]
    written = [move.at // 1000 for move in set_]
    if written:
        return max(written)
    created = dict(references(manifest).annotations).get(media_types.CREATED, "")
    named = _IMMUTABLE.fullmatch(tag)
    date = named["date"] if named and named["short"] == manifest.digest.short else ""
    for text, form in ((created, "%Y-%m-%dT%H:%M:%SZ"), (date, "%Y%m%d")):
        try:
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp())
        except ValueError:
            continue
    return None
