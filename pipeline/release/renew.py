"""Renew the signed statements on a repository's tags before they expire, in nightly runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.image_tags import names_digest
from pipeline.mirror.protocol import Repository, is_auxiliary
from pipeline.mirror.published import read_published
from pipeline.mirror.tag_claims import claiming_key
from pipeline.mirror.tag_signing import RENEWAL_SHARE, SignedTag
from pipeline.mirror.tag_statements import TagSigner, recent_statements
from pipeline.model.publication import MoveCause, RecordedStatement
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey, VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import tag_signer


def _nothing(image: Digest) -> Mapping[str, bytes]:
    """Return no attestation."""
    return {}


@dataclass(frozen=True, slots=True)
class RenewalResult:
    """Result of a renewal.

    `tags` were renewed; `left` point elsewhere than signed, have no statement, or an older one than was seen; `due`:
    when the next statement is to be renewed, in milliseconds since the epoch. `other_keys`: those of `left` of which
    only statements by another key are there: tag → fingerprint of the key that these name, unverified. `failed`: tag →
    why it could not be renewed.
    """

    tags: tuple[str, ...]
    left: tuple[str, ...]
    due: int
    other_keys: Mapping[str, Digest] = field(default_factory=dict)
    failed: Mapping[str, RelbuildError] = field(default_factory=dict)


def renew(
    repository: Repository,
    key: SigningKey,
    rules: MirrorRules,
    build_env: BuildEnvironment,
    own: Mapping[str, Digest],
    *,
    former: tuple[VerifyingKey, ...] = (),
    also: Callable[[Digest], Mapping[str, bytes]] = _nothing,
) -> RenewalResult:
    """Renew the old statements by `key` on a repository's floating tags.

    `own`: tag → digest of tags as they were last published: one that points there is signed also where no statement is
    and none was ever seen, on a mirror that is older than signed moves. Any other tag that points elsewhere than signed
    is left, to be examined by a person: somebody may have pointed it back to what it was published as.

    `former`: keys of the publisher before `key`, whose statements count as well. The images of these tags are verified
    and signed again with `key`, and so are the attestations that `also` returns of an image of `own`, predicate type →
    JSON; a tag whose image does not verify is left.

    A tag that fails stops none of the others: whoever can write to a mirror could have all tags expire by one. Raises
    as the repository does where its tags cannot be listed.
    """
    renewal = _Renewal(repository, tag_signer(key, rules, build_env, former), build_env, own, also)
    for tag in repository.tags():
        try:
            renewal.renew(tag)
        except RelbuildError as error:
            renewal.failed[tag] = error
            renewal.due = renewal.signer.now
    return RenewalResult(tuple(renewal.tags), tuple(renewal.left), renewal.due, renewal.other_keys, renewal.failed)


@dataclass(slots=True)
class _Renewal:
    """A renewal in progress: see `renew` and `RenewalResult`."""

    repository: Repository
    signer: TagSigner
    build_env: BuildEnvironment
    own: Mapping[str, Digest]
    also: Callable[[Digest], Mapping[str, bytes]]
    tags: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    other_keys: dict[str, Digest] = field(default_factory=dict)
    failed: dict[str, RelbuildError] = field(default_factory=dict)
    due: int = field(init=False)
    _signed_again: dict[Digest, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.due = self.signer.now + int(self.signer.validity * 1000)

    def renew(self, tag: str) -> None:
        """Renew what is signed of one tag, if that is old. Raises as the repository does."""
        repository, signer = self.repository, self.signer
        digest = None if is_auxiliary(tag) else repository.resolve(tag)
        if digest is None or names_digest(tag, digest):
            return
        signed_tag = SignedTag(repository, repository.identity, tag, signer)
        reading = signed_tag.read()
        if signed_tag.is_under_way(reading):
            self.due = signer.now
            return
        until = signed_tag.believed_until(digest, reading)
        # Not `reading.recent`: a signed statement that is listed counts here also where its manifest is lost.
        unsigned = until is None and not recent_statements(
            repository, repository.identity, tag, signer.trusted, listed=reading.listed
        )
        first = unsigned and self.own.get(tag) == digest and signer.seen(repository, tag) == 0
        if until is None and not first:
            self.left.append(tag)
            other = claiming_key(repository, repository.identity, tag, signer.trusted)
            if other is not None and unsigned:
                self.other_keys[tag] = other
            return
        if signer.former and not self._sign_again(digest):
            self.left.append(tag)
            return
        version = read_published(repository, digest).version if first else reading.version

        def is_elsewhere(listed: tuple[RecordedStatement, ...]) -> bool:
            """Return whether what was signed since the reading speaks against the tag's target."""
            now = signed_tag.read(listed)
            return signed_tag.is_under_way(now) or (
                bool(now.recent or not first) and signed_tag.believed_until(digest, now) is None
            )

        with repository.moving():
            done = signed_tag.confirm(digest, version, MoveCause.PUBLISH, is_elsewhere)
        if done.withdrawn:  # The next night looks at it again.
            self.due = signer.now
            return
        if done.signed:
            self.tags.append(tag)
            until = None
        least = int(RENEWAL_SHARE * signer.validity * 1000)
        self.due = min(self.due, (until or signer.now + signer.validity * 1000) - least)

    def _sign_again(self, digest: Digest) -> bool:
        """Sign an image that former keys signed, once; return False if it does not verify."""
        from pipeline.release.sign_image_again import sign_image_again  # only here: keys are changed in few nights

        if digest not in self._signed_again:
            self._signed_again[digest] = sign_image_again(
                self.repository,
                digest,
                self.signer.key,
                self.build_env,
                former=self.signer.former,
                also=self.also if digest in self.own.values() else _nothing,
            )
        return self._signed_again[digest]
