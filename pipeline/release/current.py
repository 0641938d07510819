"""Access to mirrors, and the images that their tags point to now."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.gather import Workshop
from pipeline.mirror.open import MirrorAccess
from pipeline.mirror.policy import CurrentImage
from pipeline.mirror.protocol import TAG, Repository, is_auxiliary
from pipeline.mirror.published import Held, read_held
from pipeline.mirror.tag_statements import TagMemory, TagSigner
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey


def mirror_access(workshop: Workshop) -> MirrorAccess:
    """Return the access to mirrors that a workshop has."""
    return MirrorAccess(workshop.environment, workshop.progress, workshop.clock, workshop.store)


def signer_of(key: SigningKey, rules: MirrorRules, workshop: Workshop) -> TagSigner:
    """The signer of where tags point, valid for as long as the keeper's rules say."""
    return TagSigner(key, workshop.clock, rules.validity, TagMemory(workshop.store))


def refuse_name(tag: str) -> None:
    """Refuse a tag that people cannot pull by.

    Raises UsageError `tag-reserved`, `tag-malformed`.
    """
    if is_auxiliary(tag) or not TAG.fullmatch(tag):
        raise UsageError(
            "tag-reserved" if is_auxiliary(tag) else "tag-malformed",
            f"'{tag[:140]}' is a reserved tag name",
            hint="choose a name such as 'stable': letters, digits, _ . and -, not starting with 'move.' or 'sha256-'",
        )


def current_images(repository: Repository, tags: Sequence[str], wanted: Digest) -> tuple[CurrentImage, ...]:
    """Return the images that tags point to now, but for those that point to `wanted`.

    What cannot be read as an image there is passed over: a tag that somebody else broke must not keep the next
    publication from mending it.
    """
    known: dict[Digest, Held | None] = {}
    found = []
    for tag in tags:
        digest = repository.resolve(tag)
        if digest is None or digest == wanted:
            continue
        if digest not in known:
            known[digest] = _readable(repository, digest)
        held = known[digest]
        if held is not None:
            found.append(CurrentImage(tag, held.version, held.created, digest))
    return tuple(found)


def _readable(repository: Repository, digest: Digest) -> Held | None:
    try:
        return read_held(repository, digest)
    except (UsageError, VerificationError):
        return None
