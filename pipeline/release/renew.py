"""Renewal of what is signed of tags before it is too old to be believed.

Each night does that for its products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.digest import Digest
from pipeline.gather import Workshop
from pipeline.mirror.protocol import Repository, is_auxiliary
from pipeline.mirror.tag_signing import RENEWED_BELOW, SignedTag
from pipeline.mirror.tags import names_digest
from pipeline.model.publication import Why
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey
from pipeline.release.current import signer_of


@dataclass(frozen=True, slots=True)
class Renewed:
    """The result of signing tags again.

    `tags` were signed again; `left` are those that point elsewhere than is signed, or of which nothing is signed;
    `due`: when the first of all is to be renewed again, in milliseconds since the epoch.
    """

    tags: tuple[str, ...]
    left: tuple[str, ...]
    due: int


def renew(
    repository: Repository, key: SigningKey, rules: MirrorRules, workshop: Workshop, own: Mapping[str, Digest]
) -> Renewed:
    """Sign again where the tags of a repository point.

    Signed are those of which that is signed with `key` and old, and where `own` says so of one that nobody signed. What
    points elsewhere than is signed is left, for a person to look at.

    Raises as the repository does.
    """
    signer = signer_of(key, rules, workshop)
    renewed: list[str] = []
    left: list[str] = []
    due = signer.now + int(signer.validity * 1000)
    for tag in repository.tags():
        digest = None if is_auxiliary(tag) else repository.resolve(tag)
        if digest is None or names_digest(tag, digest):
            continue
        signed_tag = SignedTag(repository, repository.identity, tag, signer)
        if signed_tag.under_way and own.get(tag) != digest:
            due = signer.now
            continue
        until = signed_tag.believed_until(digest)
        if until is None and own.get(tag) != digest:
            left.append(tag)
            continue
        if signed_tag.settle(digest, signed_tag.version, Why.PUBLISH):
            renewed.append(tag)
            until = None
        least = int(RENEWED_BELOW * signer.validity * 1000)
        due = min(due, (until or signer.now + signer.validity * 1000) - least)
    return Renewed(tuple(renewed), tuple(left), due)
