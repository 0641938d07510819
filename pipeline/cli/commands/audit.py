"""The `audit` command: list the security fixes that an image lacks, with their age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_optional_keys
from pipeline.cli.messages import print_error
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.path_arguments import built_layout
from pipeline.errors import FixesLacking
from pipeline.mirror.address import Address
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.model.advisory import SECURITY, Threshold, age_in_days, exceeding
from pipeline.model.lifetime import days_text, lifetime_warning
from pipeline.model.published_image import MissingFix
from pipeline.release import (
    Audit,
    AuditedImage,
    AuditOptions,
    audit,
    require_below,
)
from pipeline.shipped import platforms_file

_SHOWN = 6
"""Names of packages or CVEs that a line shows."""


@command(rank=150, reads_repositories=True)
def audit_command(
    context: CommandContext,
    *,
    image: options.ImageArgument,
    threshold: Annotated[
        str | None,
        typer.Option(
            "--threshold",
            help="SEVERITY[:DAYS]: fail (exit status 9) if a fix of that severity and age, or worse, is missing.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="The public key that must have signed the attestations of the image's content."),
    ] = None,
    former: options.FormerKeyOption = None,
    platform: Annotated[
        str | None,
        typer.Option(
            "--platform", help="The platform to audit against (default: the one that the image was built for)."
        ),
    ] = None,
    arch: options.ArchOption,
    repositories: options.RepositoriesOption,
    module: Annotated[
        list[str] | None,
        typer.Option("--module", help="NAME:STREAM of an enabled module that its packages do not name (repeatable)."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list fixes other than security fixes; the threshold ignores them.")
    ] = False,
    known_as: options.SignedAsOption,
    offline: options.OfflineOption,
    output: options.LayoutsOption,
) -> int:
    """List the security fixes that an image lacks, with their age.

    They are those that the repositories offer.
    """
    limit = Threshold.parse(threshold) if threshold is not None else None
    build_env = context.build_env(offline=offline)
    subject = parse_address(image) if is_address(image) else built_layout(image, output)
    found = audit(
        AuditOptions(
            subject=subject,
            repositories=repositories or _platforms_file(subject),
            key=open_optional_keys(key, former, context),
            platform=platform,
            architectures=options.split_architectures(arch),
            modules=tuple(module or ()),
            kinds=None if everything else frozenset({SECURITY}),
            identity=identity_for(known_as),
        ),
        build_env,
    )
    context.show(audit_as_lines(found), audit_as_json(found, limit))
    if limit is not None:
        try:
            require_below(limit, found)
        except FixesLacking as error:
            return print_error(error)
    return 0


def _platforms_file(subject: Address | Path) -> Path:
    """Find the file of platforms: in recipes/, here, or beside the folder of the layout."""
    folders = [Path("recipes"), Path()]
    if isinstance(subject, Path):
        above = subject.absolute().parent.parent
        folders += [above / "recipes", above]
    return platforms_file(*folders)


def audit_as_lines(found: Audit) -> Iterator[str]:
    """Format the result of an audit as lines for people."""
    yield f"{found.subject}  {found.digest}"
    for image in found.images:
        yield from _image_lines(image, found.now)
    if warning := lifetime_warning(found.end_of_life, found.now):
        yield warning
    elif found.end_of_life:
        yield f"end of life: {found.end_of_life}"
    if not found.verified:
        told = (
            "unsigned data of the mirror (--key verifies it)"
            if is_address(found.subject)
            else "the layout's unsigned report"
        )
        yield f"NOT VERIFIED: the package list is from {told}"


def _image_lines(image: AuditedImage, now: int) -> Iterator[str]:
    contents = image.contents
    found = _counted(image.missing) if image.heard else "no repository has advisories"
    yield f"  {contents.platform}, {contents.arch}: {len(contents.packages)} packages, {found}"
    for fix in image.missing:
        age = age_in_days(fix.issued, now)
        yield (
            f"    {_word(fix):<14} {'no date' if age is None else days_text(age):>9}  {fix.advisory}  "
            f"{fix.package} {fix.has} → {fix.fixed_in}" + (f"  {_names(fix.cves)}" if fix.cves else "")
        )
        if fix.title:
            yield f"      {fix.title}"
    yield from (f"  {note}" for note in _notes(image))


def _notes(image: AuditedImage) -> Iterator[str]:
    """Yield notes on packages of an image whose fixes are unknown or unavailable."""
    for repository, count in image.unjudged:
        name = f"repository {repository} has no advisories"
        if repository not in image.silent:
            name = (
                f"repository '{repository}' is not part of the platform" if repository else "packages of unknown origin"
            )
        told = f"only fixes from {', '.join(image.heard)} are known for" if image.heard else "fixes are unknown for"
        yield f"{name}: {told} its packages ({count} here)"
    if image.unoffered:
        yield f"packages that no repository offers ({len(image.unoffered)}): {_names(image.unoffered)}"
    if image.unavailable:
        fixes = tuple(dict.fromkeys(f"{fix.package} {fix.fixed_in}" for fix in image.unavailable))
        yield f"fixed packages that no repository has ({len(fixes)}): {_names(fixes)}"
    if image.modular:
        yield (
            f"packages of module builds unknown to the repositories; give their streams with --module "
            f"({len(image.modular)}): {_names(image.modular)}"
        )
    yield from image.notes


def _counted(missing: tuple[MissingFix, ...]) -> str:
    if not missing:
        return "no missing fixes"
    counted = Counter(_word(fix) for fix in missing)
    return f"missing fixes: {len(missing)} ({', '.join(f'{count} {word}' for word, count in counted.items())})"


def _word(fix: MissingFix) -> str:
    """Return the severity of a missing security fix; of any other fix, its kind."""
    return (fix.severity or "unrated") if fix.kind == SECURITY else fix.kind


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def audit_as_json(found: Audit, threshold: Threshold | None = None) -> dict[str, object]:
    """Format the result of an audit as JSON values, with the fixes that exceed `threshold`."""
    beyond = exceeding(threshold, found.missing, found.now) if threshold is not None else ()
    return {
        "subject": found.subject,
        "digest": str(found.digest),
        "verified": found.verified,
        "at": found.now,
        "end_of_life": found.end_of_life or None,
        "end_of_life_warning": lifetime_warning(found.end_of_life, found.now) or None,
        "threshold": str(threshold) if threshold is not None else None,
        "exceeding": [_fix(fix, found.now) for fix in beyond],
        "images": [_image(image, found.now) for image in found.images],
    }


def _image(image: AuditedImage, now: int) -> dict[str, object]:
    return {
        "digest": str(image.contents.digest),
        "platform": image.contents.platform,
        "architecture": image.contents.arch,
        "packages": len(image.contents.packages),
        "missing": [_fix(fix, now) for fix in image.missing],
        "repositories_with_advisories": list(image.heard),
        "packages_of_repositories_without": dict(image.unjudged),
        "unoffered": list(image.unoffered),
        "unavailable": [_fix(fix, now) for fix in image.unavailable],
        "module_streams": list(image.streams),
        "unknown_module_builds": list(image.modular),
        "notes": list(image.notes),
    }


def _fix(fix: MissingFix, now: int) -> dict[str, object]:
    return {
        "advisory": fix.advisory,
        "kind": fix.kind,
        "severity": fix.severity or None,
        "title": fix.title,
        "issued": fix.issued or None,
        "age_days": age_in_days(fix.issued, now),
        "cves": list(fix.cves),
        "package": fix.package,
        "has": fix.has,
        "fixed_in": fix.fixed_in,
        "repository": fix.repository,
    }
