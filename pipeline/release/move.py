"""Move a tag on a mirror to a verified image there: promote it to a channel, or roll back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.gate import Cleared
from pipeline.mirror.image_tags import named_digest_prefix
from pipeline.mirror.protocol import Repository
from pipeline.mirror.signed_again import sign_again
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, known_names
from pipeline.mirror.tag_claims import claiming_key
from pipeline.mirror.tag_history import earlier_digests, read_history
from pipeline.mirror.tag_moves import TagMover, refuse_immutable
from pipeline.model.publication import Move, MoveCause
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey, VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import (
    current_images,
    mirror_access,
    refuse_reserved_tag,
    tag_signer,
)
from pipeline.release.verify_reference import clear_published, verify_in_repository


@dataclass(frozen=True, slots=True)
class MoveResult:
    """Result of moving a tag; `moved` is None if it pointed there already."""

    repository: str
    tag: str
    digest: Digest
    version: str
    moved: Move | None


def promote(
    reference: Address,
    channel: str,
    key: SigningKey,
    rules: MirrorRules,
    build_env: BuildEnvironment,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
    allow_stale: bool = False,
    former: tuple[VerifyingKey, ...] = (),
) -> MoveResult:
    """Point the tag `channel` at the digest of `reference`.

    The image is verified first, and cleared by the rules for that tag. Only the signed move is uploaded, and what
    `former` keys of the publisher signed of the image, signed with `key`. Raises as `verify_in_repository`,
    PublicationRefused.
    """
    with mirror_access(build_env).repository(reference, write=True) as repository:
        refuse_reserved_tag(channel)
        wanted = reference.digest or repository.resolve(str(reference.reference))
        if wanted is not None:
            refuse_immutable(repository, channel, wanted)
        expected, public = identity.of(repository), replace(key.public, former=former)
        found = verify_in_repository(
            repository,
            reference.reference,
            public,
            build_env,
            contents=True,
            expected=expected,
            allow_stale=allow_stale,
        )
        held = found.held

        def clear() -> Cleared:
            current = current_images(repository, (channel,), held.digest)
            return replace(clear_published(held, (channel,), repository, public, rules), current=current)

        signer = tag_signer(key, rules, build_env, former)
        name = expected.name if expected else ""
        mover = TagMover(repository, held.version, MoveCause.PROMOTE, clear, build_env.clock, signer, name)
        cleared = clear()
        sign_again(found, repository, key, public, build_env.progress)
        return _moved(mover, channel, cleared)


def rollback(
    reference: Address,
    to: Digest | str | None,
    key: SigningKey,
    rules: MirrorRules,
    build_env: BuildEnvironment,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
    former: tuple[VerifyingKey, ...] = (),
) -> MoveResult:
    """Point a tag at its former image, or at `to`, after verifying that image.

    `to` is a digest, or the first of its hex digits, as a publication shows them: of an image in the tag's history, or
    of one that has an immutable tag. The history is what `key` signed, or `former` keys of the publisher, whose
    signatures of the image are made anew. Only signatures are uploaded. The tag's present target is not checked: it may
    be the one to be repaired.

    Raises UsageError `history-empty`, `digest-unknown`, `rollback-of-digest`, as `verify_in_repository`,
    PublicationRefused.
    """
    tag = reference.tag or "latest"
    refuse_reserved_tag(tag)
    if reference.digest is not None:
        raise UsageError(
            "rollback-of-digest",
            f"'{reference}' has a digest, which points nowhere else: a rollback moves a tag",
            place=reference.url,
            hint=f"write {reference.url}:{tag} --to {reference.digest}",
        )
    with mirror_access(build_env).repository(reference, write=True) as repository:
        expected, public = identity.of(repository), replace(key.public, former=former)
        names = known_names(repository, expected)
        before = earlier_digests(read_history(repository, tag, names, public))
        if to is None and not before:
            raise _history_empty(repository, tag, names, public)
        target = before[0] if to is None else _former_image(repository, tag, to, before)
        refuse_immutable(repository, tag, target)
        found = verify_in_repository(repository, target, public, build_env, contents=True, expected=expected)
        held = found.held

        def clear() -> Cleared:
            return clear_published(held, (tag,), repository, public, rules)

        signer = tag_signer(key, rules, build_env, former)
        name = expected.name if expected else ""
        mover = TagMover(repository, held.version, MoveCause.ROLLBACK, clear, build_env.clock, signer, name)
        cleared = clear()
        sign_again(found, repository, key, public, build_env.progress)
        return _moved(mover, tag, cleared)


def _history_empty(repository: Repository, tag: str, names: Sequence[str], key: VerifyingKey) -> UsageError:
    """Make the error of a tag for which the signed moves name no earlier image."""
    others = (claiming_key(repository, name, tag, key, lambda one: not one.renews) for name in names)
    other = next((found for found in others if found is not None), None)
    if other is None:
        message = f"tag '{tag}' has no earlier image"
        hint = "choose a digest with --to; `relbuild history` lists them"
        if named_digest_prefix(tag):
            hint = "an immutable tag has one image; name a tag that moves, such as 'latest'"
    else:
        message = (
            f"no move that the key {key.fingerprint.short} signed leads to an earlier image of tag '{tag}'; there are "
            f"moves that name the key {other.short} (not verified)"
        )
        hint = "if that is the publisher's former key, give its public key with --former-key; else choose with --to"
    return UsageError("history-empty", message, place=repository.url, hint=hint)


def _former_image(repository: Repository, tag: str, to: Digest | str, before: Sequence[Digest]) -> Digest:
    """Return the image that `to` names; `before`: the tag's former ones.

    Raises UsageError `digest-unknown`.
    """
    return _begins_with(to, tag, repository, before) if isinstance(to, str) else to


def _begins_with(digits: str, tag: str, repository: Repository, before: Sequence[Digest]) -> Digest:
    """Return the digest that begins with these hex digits: of earlier images, or immutable tags.

    Raises UsageError `digest-unknown` if there is none, or several.
    """
    found = {digest for digest in before if digest.hex.startswith(digits)}
    if not found:
        named = (one for one in repository.tags() if (named_digest_prefix(one) or "").startswith(digits[:12]))
        targets = {repository.resolve(one) for one in named}
        found = {digest for digest in targets if digest is not None and digest.hex.startswith(digits)}
    if len(found) != 1:
        earlier = ", ".join(digest.short for digest in before) or "none"
        raise UsageError(
            "digest-unknown",
            f"{len(found) or 'no'} images in the history of tag '{tag}' have a digest that begins with {digits}",
            place=repository.url,
            hint=f"its earlier images: {earlier}; of another one, give the whole digest (sha256:…)",
        )
    return found.pop()


def _moved(mover: TagMover, tag: str, cleared: Cleared) -> MoveResult:
    moves, _ = mover.move((tag,), cleared)
    return MoveResult(mover.repository.url, tag, cleared.digest, mover.version, moves[0] if moves else None)
