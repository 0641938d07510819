"""Data classes for a mirror's rules: publication gate, tag retention, identity remapping.

Read by `pipeline.recipes`.
"""

from __future__ import annotations

from pipeline.lazy_dataclasses import dataclass

RULES_FILE = "rules.yaml"
"""The file of the mirror's rules in the root of a directory mirror."""


@dataclass(frozen=True, slots=True)
class GateRule:
    """Demands on images when a tag is moved.

    They are on images of repositories that match `repositories` when a tag that matches `tags` is moved (globs, as
    fnmatch has them). Of several rules that match, all must hold. None or empty: nothing is demanded.

    `size`: bytes of config and compressed layers, at most. `setuid`: globs of paths; any other setuid or setgid
    program is refused (None: not looked at). `labels`: names that the image's config must have. `licenses`: globs; a
    package whose licence matches none is refused. `forbidden_packages`: patterns as of the check `packages`.
    `runtimes`: globs of the runtime that the image was tested under (`runc *`). `enforced_limits`: globs of limits that
    the kernel must have held in the test if the recipe asks for them; a plain name must have been asked for too.
    `same_versions`: all architectures of an index have the same version. `refuse_older`: what the tag points to now
    must not be newer. `refuse_fewer_platforms`: what the tag points to now must not have a platform that the new image
    or index lacks.
    """

    repositories: str = "*"
    tags: str = "*"
    size: int | None = None
    setuid: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    forbidden_packages: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    enforced_limits: tuple[str, ...] = ()
    same_versions: bool = True
    refuse_older: bool = True
    refuse_fewer_platforms: bool = True
    place: str = ""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Retention of tags that match `tags` in repositories that match `repositories` (globs).

    The first rule that matches a tag decides; a tag that no rule matches is kept. A rule without any of the below keeps
    all.

    `keep`: the newest N by when they were published. `younger_than`, `pulled_within`: seconds; the second only where
    the server knows. A tag is kept if it meets any of the given ones.
    """

    repositories: str = "*"
    tags: str = "*"
    keep: int | None = None
    younger_than: int | None = None
    pulled_within: int | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """A rule for the names under which the images of a mirror that is a copy were signed.

    What a repository whose name begins with `prefix` holds was signed under the name that begins with `signed_prefix`
    in its place (containers-policy.json, `remapIdentity`).
    """

    prefix: str
    signed_prefix: str


@dataclass(frozen=True, slots=True)
class MirrorRules:
    """All rules of a mirror, which its operator sets.

    `grace`: seconds for which unreferenced content is kept, because a publication may be under way; `quarantine`:
    seconds for which pruned content can be restored; `validity`: seconds for which a signed statement on a tag is
    valid.
    """

    gate: tuple[GateRule, ...] = (GateRule(),)
    retention: tuple[RetentionRule, ...] = ()
    grace: int = 86_400
    quarantine: int = 7 * 86_400
    identities: tuple[IdentityRule, ...] = ()
    validity: int = 14 * 86_400
