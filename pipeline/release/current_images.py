"""Access to mirrors, and the images that their tags point to now."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.mirror.policy import CurrentImage
from pipeline.mirror.protocol import TAG, Repository, is_auxiliary
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.mirror.tag_statements import TagMemory, TagSigner
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey
from pipeline.prepare import BuildEnvironment


def mirror_access(build_env: BuildEnvironment) -> MirrorAccess:
    """Return the access to mirrors of a build environment."""
    return MirrorAccess(build_env.environment, build_env.progress, build_env.clock, build_env.store)


def tag_signer(key: SigningKey, rules: MirrorRules, build_env: BuildEnvironment) -> TagSigner:
    """The signer of where tags point, valid for as long as the keeper's rules say."""
    return TagSigner(key, build_env.clock, rules.validity, TagMemory(build_env.store))


def refuse_reserved_tag(tag: str) -> None:
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
    known: dict[Digest, MirroredImage | None] = {}
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


def _readable(repository: Repository, digest: Digest) -> MirroredImage | None:
    try:
        return read_published(repository, digest)
    except (UsageError, VerificationError):
        return None
