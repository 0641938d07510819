"""A directory mirror whose list of statements on `latest` is written by somebody without a key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.protocol import Repository
from pipeline.mirror.references import referrers_index
from pipeline.mirror.tag_history import read_history
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import anchor_manifest, list_statements, write_statement
from pipeline.model.manifests import Referrer
from pipeline.model.publication import Move, MoveCause, RecordedStatement, TagStatement
from pipeline.model.rules import MirrorRules
from pipeline.release import verify_reference
from pipeline.release.current_images import tag_signer
from tests.support.moved_tags import at, opened, point
from tests.support.published_images import ImagePublisher, key

OLD, NEW, STRANGER = key(1), key(0), key(2)


def listed(mirror: Path, maker: ImagePublisher) -> tuple[Referrer, ...]:
    repository = opened(mirror, maker)
    return tuple(repository.referrers(anchor_manifest(repository.identity, "latest").digest))


def show_only(mirror: Path, maker: ImagePublisher, entries: Iterable[Referrer]) -> None:
    """Have the mirror list these statements on `latest`, and no others, whatever else it lacks."""
    repository = opened(mirror, maker)
    tag = f"sha256-{anchor_manifest(repository.identity, 'latest').digest.hex}"
    (mirror / "repositories" / "small" / "_tags" / tag).unlink(missing_ok=True)
    index = referrers_index(list(entries))
    path = mirror / "repositories" / "small" / "_manifests" / f"{index.digest.hex}.oci-index"
    path.unlink(missing_ok=True)
    path.write_bytes(index.data)
    point(mirror, tag, index.digest)


def show_all(mirror: Path, maker: ImagePublisher, saved: Iterable[Referrer]) -> None:
    show_only(mirror, maker, {one.descriptor.digest: one for one in (*saved, *listed(mirror, maker))}.values())


def signed_meanwhile(
    mirror: Path, maker: ImagePublisher, shown: Iterable[Referrer], previous: Digest, version: str
) -> None:
    """Publish a version again while the mirror shows `shown` alone and a stranger's renewal; then it shows all."""
    saved = listed(mirror, maker)
    show_only(mirror, maker, shown)
    renewal = Move("latest", None, maker.image(version).digest, 1, MoveCause.RENEW, version)
    claim(opened(mirror, maker), renewal, 60, previous)
    publish(mirror, maker, version)
    show_all(mirror, maker, saved)


def claim(
    repository: Repository, move: Move, number: int, previous: Digest | None, until: int = 10**13 - 1
) -> RecordedStatement:
    """Write what only a stranger signs."""
    said = TagStatement(repository.identity, move, number, previous, until)
    return write_statement(repository, said, STRANGER)


def verdict(mirror: Path, maker: ImagePublisher, store: str | None = None) -> str:
    """Return the version that is verified, or the code of the refusal; in another store, by who has seen nothing."""
    client = maker if store is None else ImagePublisher.at(mirror.parent / store)
    client.clock.now = maker.clock.now
    try:
        return verify_reference(at(mirror), NEW.public, client.build_env).held.version
    except RelbuildError as error:
        return error.code


def publish(mirror: Path, maker: ImagePublisher, *versions: str) -> None:
    for version in versions:
        maker.publish(opened(mirror, maker), maker.image(version), tags=("latest",), signer=NEW)


def noted(entry: Referrer, **notes: str | None) -> Referrer:
    """Return an entry of the list in which a statement's values are others; None: missing."""
    changed = dict(entry.descriptor.annotations) | {f"org.relbuild.move.{name}": note for name, note in notes.items()}
    kept = tuple((name, note) for name, note in changed.items() if note is not None)
    return replace(entry, descriptor=replace(entry.descriptor, annotations=kept))


def unsigned_in_list(entries: Iterable[Referrer]) -> list[Referrer]:
    return [noted(one, signature=None) for one in entries]


def signed_tag(mirror: Path, maker: ImagePublisher) -> SignedTag:
    repository = opened(mirror, maker)
    return SignedTag(repository, repository.identity, "latest", tag_signer(NEW, MirrorRules(), maker.build_env))


def announced(mirror: Path, maker: ImagePublisher) -> Move:
    """1.0 and 1.1, and the move to 1.2 announced and not made."""
    publish(mirror, maker, "1.0", "1.1")
    maker.publish(opened(mirror, maker), maker.image("1.2"), tags=("1.2",), signer=NEW)
    before, after = maker.image("1.1").digest, maker.image("1.2").digest
    move = Move("latest", before, after, int(maker.clock() * 1000), MoveCause.PUBLISH, "1.2")
    signed_tag(mirror, maker).announce(move)
    return move


def by_number(mirror: Path, maker: ImagePublisher) -> dict[int, Referrer]:
    """The entries of the list by the numbers of their statements."""
    repository = opened(mirror, maker)
    numbers = {one.record: one.statement.number for one in list_statements(repository, repository.identity, "latest")}
    return {numbers[entry.descriptor.digest]: entry for entry in listed(mirror, maker)}


def under(record: Referrer, entry: Referrer) -> Referrer:
    """Return an entry that says what `entry` says, under the record of another."""
    other = record.descriptor
    return replace(entry, descriptor=replace(entry.descriptor, digest=other.digest, size=other.size))


def told(mirror: Path, maker: ImagePublisher) -> list[tuple[str, bool]]:
    """The versions in the verified history, and whether the tag was moved to them."""
    repository = opened(mirror, maker)
    return [(one.move.version, one.happened) for one in read_history(repository, "latest", key=NEW.public)]
