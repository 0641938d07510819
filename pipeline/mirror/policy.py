"""Check a tested image, or those of an index, against one gate rule; yield each violation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from pipeline.digest import Digest
from pipeline.errors import Problem
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.checks.packages_check import package_is
from pipeline.model.enforcement import unenforced
from pipeline.model.evidence import Evidence
from pipeline.model.image import Image
from pipeline.model.rules import GateRule
from pipeline.oci import media_types
from pipeline.packages import compare_evr

_NAMED = 8
"""Items of a longer list that a message names."""


@dataclass(frozen=True, slots=True)
class CurrentImage:
    """The image that a tag points to now.

    `version` is that of its config's label ("": none), `created` in seconds since the epoch. By `digest`, whoever moves
    the tag knows whether the gate saw its present target. `platforms`: those for which it has an image.
    """

    tag: str
    version: str
    created: int
    digest: Digest | None = None
    platforms: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TestedImage:
    """An image and the evidence of its test."""

    image: Image
    evidence: Evidence

    @property
    def version(self) -> str:
        """The version in the image's label; "" if it has none."""
        return dict(self.image.config.labels).get(media_types.VERSION, "")


def broken_rule(rule: GateRule, tested: TestedImage) -> Iterator[Problem]:
    """Yield each violation of a rule by one image."""
    image, contents = tested.image, tested.evidence.contents
    said = f" (rule: {rule.place})" if rule.place else ""
    where = f"{image.config.os}/{image.config.architecture} {image.digest}"

    def refuse(code: str, message: str, hint: str) -> Problem:
        return Problem(code, f"{message}{said}", where, hint)

    size = image.config_descriptor.size + sum(layer.blob.size for layer in image.layers)
    if rule.size is not None and size > rule.size:
        yield refuse(
            "gate-size", f"the image has {size} bytes, more than {rule.size}", "leave packages out, or raise 'size'"
        )
    if rule.setuid is not None:
        allowed = rule.setuid
        extra = [
            f"{file.path} ({file.mode:04o})"
            for file in contents.privileged
            if not any(fnmatchcase(file.path, glob) for glob in allowed)
        ]
        if extra:
            hint = "clear the mode bits in the recipe, remove the files, or add them to 'setuid'"
            yield refuse(
                "gate-setuid", f"the image has setuid or setgid programs that are not allowed: {_some(extra)}", hint
            )
    labels = dict(image.config.labels)
    missing = [name for name in rule.labels if not labels.get(name, "").strip()]
    if missing:
        yield refuse(
            "gate-labels", f"the image lacks the labels {_some(missing)}", "add them to 'image.labels' in the recipe"
        )
    if (rule.licenses or rule.forbidden_packages) and not contents.packages:
        hint = "build it with relbuild, which writes an RPM database"
        yield refuse("gate-package", "the image's packages are unknown", hint)
    if rule.licenses:
        others = [
            f"{package.nevra} ({package.license or 'none'})"
            for package in contents.packages
            # An imported key is in the RPM database as a package without architecture.
            if not package.nevra.endswith(".") and not any(fnmatchcase(package.license, glob) for glob in rule.licenses)
        ]
        if others:
            hint = "leave the packages out, or add their licences to 'licenses'"
            yield refuse(
                "gate-license", f"the image has packages with a licence that is not allowed: {_some(others)}", hint
            )
    forbidden = [
        package.nevra
        for package in contents.packages
        if any(package_is(package.nevra, glob) for glob in rule.forbidden_packages)
    ]
    if forbidden:
        yield refuse(
            "gate-package", f"the image has forbidden packages: {_some(forbidden)}", "leave these packages out"
        )
    runtime = tested.evidence.runtime
    if rule.runtimes and not any(fnmatchcase(runtime, glob) for glob in rule.runtimes):
        hint = f"test it under one of {', '.join(rule.runtimes)} (--runtime, --launcher)"
        yield refuse("gate-runtime", f"the image was tested under {runtime}", hint)
    loose = unenforced(rule.enforced_limits, tested.evidence.limits) if rule.enforced_limits else ()
    if loose:
        hint = "set the limits in the recipe, and test where they are enforced: as root, or with delegated control "
        hint += "groups (`relbuild help sandbox`)"
        yield refuse("gate-limits", f"limits were not enforced in the image's test: {_some(loose)}", hint)


def broken_rule_by_index(
    rule: GateRule, tested: Sequence[TestedImage], current: Sequence[CurrentImage]
) -> Iterator[Problem]:
    """Yield each violation by an index's images together, or by replacing `current` images."""
    said = f" (rule: {rule.place})" if rule.place else ""
    versions = {one.image.config.architecture: one.version for one in tested}
    if rule.same_versions and len(set(versions.values())) > 1:
        told = ", ".join(f"{arch}: {version or 'none'}" for arch, version in sorted(versions.items()))
        message = f"the versions differ between architectures: {told}{said}"
        yield Problem("gate-versions-differ", message, None, "build all of them from the same repositories")
    if not tested:
        return
    platforms = {one.image.config.platform for one in tested}
    for now in current:
        if not fnmatchcase(now.tag, rule.tags):
            continue
        if rule.refuse_older and (older := _older(tested, now)):
            hint = "publish under another tag; to go back deliberately, use `relbuild rollback`"
            yield Problem("gate-older", f"tag '{now.tag}' points to a newer image: {older}{said}", now.tag, hint)
        if rule.refuse_fewer_platforms and (lost := sorted(now.platforms - platforms)):
            hint = "build and publish all architectures together, or publish under another tag; to drop a platform "
            hint += "deliberately, set 'refuse-fewer-platforms: false' in the mirror's rules (--rules)"
            yield Problem(
                "gate-platforms-fewer",
                f"tag '{now.tag}' would lose platforms that its present image has: {_some(lost)}{said}",
                now.tag,
                hint,
            )


def _older(tested: Sequence[TestedImage], now: CurrentImage) -> str:
    """Return in what the images are older than a tag's present image; "" if they are not."""
    version = tested[0].version
    order = compare_evr(version, now.version) if version and now.version else 0
    if order < 0:
        return f"version {now.version}, not {version}"
    created = max(one.image.config.created for one in tested)
    if order == 0 and created < now.created:
        return f"created {now.created - created} seconds later"
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
