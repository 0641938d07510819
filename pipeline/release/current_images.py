"""Open mirrors, make tag signers, refuse reserved tags, and read the images of tags."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.mirror.policy import CurrentImage
from pipeline.mirror.protocol import TAG, Repository, is_auxiliary
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.mirror.tag_memory import TagMemory
from pipeline.mirror.tag_moves import PUBLISH_CONCURRENCY
from pipeline.mirror.tag_statements import TagSigner
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey, VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.transfer import QuestionLog


def mirror_access(
    build_env: BuildEnvironment, *, read_back: bool = False, log: QuestionLog | None = None
) -> MirrorAccess:
    """Return the settings with which mirrors are opened, from a build environment."""
    return MirrorAccess(
        build_env.environment, build_env.progress, build_env.clock, build_env.store, read_back=read_back, log=log
    )


def tag_signer(
    key: SigningKey, rules: MirrorRules, build_env: BuildEnvironment, former: tuple[VerifyingKey, ...] = ()
) -> TagSigner:
    """Return the signer of statements on tags, with the validity in the operator's rules.

    `former`: public keys whose statements are believed, and signed anew.
    """
    return TagSigner(key, build_env.clock, rules.validity, TagMemory(build_env.store), former)


def refuse_reserved_tag(tag: str) -> None:
    """Refuse an auxiliary or malformed tag.

    Raises UsageError `tag-reserved`, `tag-malformed`.
    """
    if is_auxiliary(tag):
        raise UsageError(
            "tag-reserved",
            f"'{tag[:140]}' is a reserved tag name",
            hint="choose a name such as 'stable', not starting with 'move.' or 'sha256-'",
        )
    if not TAG.fullmatch(tag):
        raise UsageError(
            "tag-malformed",
            f"'{tag[:140]}' is not a valid tag",
            hint="choose a name such as 'stable': up to 128 letters, digits, _ . and -, not starting with . or -",
        )


@dataclass(frozen=True, slots=True)
class TagTargets:
    """Targets of tags before a publication.

    `current`: images of the tags that point elsewhere; `standing`: tags that point to the image already.
    """

    current: tuple[CurrentImage, ...]
    standing: frozenset[str]


def current_images(repository: Repository, tags: Sequence[str], wanted: Digest) -> tuple[CurrentImage, ...]:
    """Return the images to which tags point now, except those that point to `wanted`.

    Unreadable images are skipped: a tag that somebody else broke must not prevent the next publication.
    """
    return tag_targets(repository, tags, wanted).current


def tag_targets(
    repository: Repository, tags: Sequence[str], wanted: Digest, *, immutable: Sequence[str] = ()
) -> TagTargets:
    """Resolve tags, and read the images of those that do not point to `wanted`.

    `immutable`: further tags, of which only the target is asked. Unreadable images are skipped, as by `current_images`.
    """
    known: dict[Digest, MirroredImage | None] = {}
    found = []
    names = (*tags, *immutable)
    with ThreadPoolExecutor(PUBLISH_CONCURRENCY, "resolve") as pool:
        targets = dict(zip(names, pool.map(repository.resolve, names), strict=True))
    for tag in tags:
        digest = targets[tag]
        if digest is None or digest == wanted:
            continue
        if digest not in known:
            known[digest] = _readable(repository, digest)
        held = known[digest]
        if held is not None:
            found.append(CurrentImage(tag, held.version, held.created, digest, held.platforms))
    return TagTargets(tuple(found), frozenset(tag for tag, digest in targets.items() if digest == wanted))


def _readable(repository: Repository, digest: Digest) -> MirroredImage | None:
    try:
        return read_published(repository, digest)
    except (UsageError, VerificationError):
        return None
