"""Models of `rules.yaml`, a mirror's rules, and their loading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.model.checks.packages_check import PATTERN_FORMS
from pipeline.model.rules import GateRule, IdentityRule, MirrorRules, RetentionRule
from pipeline.recipes.fields import Age, Line, Size, Strict, Validity
from pipeline.recipes.problems import Problems, place, validate_document
from pipeline.yaml_documents import YamlDocument, load_yaml

_DEFAULTS = MirrorRules()

RULES_REFERENCE = "see `relbuild help rules`"

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class GateDocument(Strict):
    """Demands on images when tags are moved.

    All rules hold whose globs match the repository and one of the tags.
    """

    repositories: Line = Field(
        default="*", description="names of repositories, as a glob (`*` matches `/` too)", examples=["prod/*"]
    )
    tags: Line = Field(default="*", description="tags, as a glob", examples=["stable*"])
    size: Size | None = Field(
        default=None, description="bytes of config and compressed layers, at most", examples=["500MiB"]
    )
    setuid: list[Line] | None = Field(
        default=None,
        description="setuid and setgid programs that may be there, as globs of paths; `[]`: none; left out: any",
        examples=[["/usr/bin/su"]],
    )
    labels: list[Line] = Field(
        default=[],
        description="labels that the image must have, not empty",
        examples=[["org.opencontainers.image.licenses"]],
    )
    licenses: list[Line] = Field(
        default=[],
        description="licences that packages may have, as globs of what their headers say; left out: any",
        examples=[["GPL*", "MIT", "BSD*"]],
    )
    forbidden_packages: list[Line] = Field(
        default=[],
        alias="forbidden-packages",
        description=f"packages that must not ship; each is {PATTERN_FORMS}",
        examples=[["gcc", "*-devel"]],
    )
    runtimes: list[Line] = Field(
        default=[],
        description="runtimes that the image must have been tested under, as globs; left out: any",
        examples=[["runc *"]],
    )
    enforced_limits: list[Line] = Field(
        default=[],
        alias="enforced-limits",
        description="limits (cpus, memory …) that the kernel must have held in the test if the recipe asks for them, "
        "as globs; a plain name must be asked for, too; left out: any may be unenforced",
        examples=[["memory", "*"]],
    )
    same_versions: bool = Field(
        default=True, alias="same-versions", description="all architectures of an index have the same version"
    )
    refuse_older: bool = Field(
        default=True, alias="refuse-older", description="a tag is not moved to an older version than it has"
    )
    refuse_fewer_platforms: bool = Field(
        default=True,
        alias="refuse-fewer-platforms",
        description="a tag is not moved to an image or index that lacks a platform which the tag has",
    )


class RetentionDocument(Strict):
    """The tags that are kept.

    The first rule that matches a tag decides; a tag that none matches is kept. A tag is kept if any of the keys below
    speaks for it; without any, all are.
    """

    repositories: Line = Field(default="*", description="names of repositories, as a glob", examples=["nightly/*"])
    tags: Line = Field(default="*", description="tags, as a glob", examples=["*-20*"])
    keep: Count | None = Field(default=None, description="the newest, by when they were published", examples=[10])
    younger_than: Age | None = Field(
        default=None, alias="younger-than", description="what was published since", examples=["30d"]
    )
    pulled_within: Age | None = Field(
        default=None,
        alias="pulled-within",
        description="what was pulled since, where the server knows",
        examples=["90d"],
    )


class IdentityDocument(Strict):
    """The name under which the images of a copied mirror were signed.

    It is that of the mirror that was copied. The first rule that matches a repository decides. It is believed from a
    file that is named with `--rules` alone, never from the mirror itself.
    """

    prefix: Line = Field(
        description="prefix of the repository's name on this mirror: HOST, HOST/NAMESPACE or all of it",
        examples=["mirror.example/copies"],
    )
    signed_prefix: Line = Field(
        alias="signed-prefix",
        description="the prefix that replaces it in the signed name",
        examples=["registry.example/prod"],
    )


class RulesDocument(Strict):
    """The file `rules.yaml` of a mirror's operator."""

    gate: list[GateDocument] | None = Field(
        default=None, description="what is demanded; left out: one rule with the defaults below"
    )
    retention: list[RetentionDocument] = Field(default=[], description="what is kept")
    grace: Age = Field(
        default=_DEFAULTS.grace,
        description="how long what nothing refers to is spared, because a publication may be under way",
    )
    quarantine: Age = Field(default=_DEFAULTS.quarantine, description="how long what was pruned can be brought back")
    validity: Validity = Field(
        default=_DEFAULTS.validity,
        description="validity of the signed moves of tags, at most 90 days; each nightly run renews them",
    )
    identities: list[IdentityDocument] = Field(default=[], description="under which names copies were signed")


def load_rules(path: Path) -> MirrorRules:
    """Load a mirror's rules from the file at `path`.

    An empty file gives the defaults. Raises RecipeError with every problem at once.
    """
    document = load_yaml(path)
    if document.value is None:
        return _DEFAULTS
    problems = Problems()
    parsed = validate_document(RulesDocument, document, problems, reference=RULES_REFERENCE)
    problems.stop_if_any()
    if parsed is None:
        raise AssertionError("a document without problems has a value")
    gate = _DEFAULTS.gate if parsed.gate is None else tuple(_gate(document, *one) for one in enumerate(parsed.gate))
    retention = tuple(_retention(document, *one) for one in enumerate(parsed.retention))
    identities = tuple(IdentityRule(one.prefix.rstrip("/"), one.signed_prefix.rstrip("/")) for one in parsed.identities)
    return MirrorRules(gate, retention, parsed.grace, parsed.quarantine, identities, parsed.validity)


def _gate(document: YamlDocument, number: int, rule: GateDocument) -> GateRule:
    return GateRule(
        repositories=rule.repositories,
        tags=rule.tags,
        size=rule.size,
        setuid=None if rule.setuid is None else tuple(rule.setuid),
        labels=tuple(rule.labels),
        licenses=tuple(rule.licenses),
        forbidden_packages=tuple(rule.forbidden_packages),
        runtimes=tuple(rule.runtimes),
        enforced_limits=tuple(rule.enforced_limits),
        same_versions=rule.same_versions,
        refuse_older=rule.refuse_older,
        refuse_fewer_platforms=rule.refuse_fewer_platforms,
        place=place(document, ("gate", number)),
    )


def _retention(document: YamlDocument, number: int, rule: RetentionDocument) -> RetentionRule:
    return RetentionRule(
        repositories=rule.repositories,
        tags=rule.tags,
        keep=rule.keep,
        younger_than=rule.younger_than,
        pulled_within=rule.pulled_within,
        place=place(document, ("retention", number)),
    )
