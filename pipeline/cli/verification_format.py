"""Formatting of a verification as lines for people and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline.cli.move_format import limits_as_json
from pipeline.cli.progress_display import bytes_text
from pipeline.escaping import escape_invisible
from pipeline.mirror.verification import Verified
from pipeline.model.enforcement import enforcement_lines
from pipeline.model.provenance import AttestedBuild, Material
from pipeline.oci import timestamp
from pipeline.urls import cut_text


def verification_lines(found: Verified) -> Iterator[str]:
    """Yield what was verified of an image, for people."""
    yield f"{found.held.digest}: all digests, signatures and attestations are valid, and its tests passed"
    yield f"  signed as {', '.join(found.identities)}; {bytes_text(found.bytes_read)} of blobs read"
    yield from (f"  {line}" for line in enforcement_lines(found.limits))
    if found.tag is not None:
        until = datetime.fromtimestamp(found.tag.until / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        yield f"  tag '{found.tag.tag}' points here by signed move {found.tag.number}, valid until {until}" + (
            ": EXPIRED, accepted (--allow-stale)" if found.tag.stale else ""
        )
    if found.held.end_of_life:
        yield f"  end of life: {found.held.end_of_life}"
    yield from dict.fromkeys(line for build in _builds_of_images(found) for line in _build_lines(build, found))
    for digest, types in found.attested:
        yield f"  {digest.short}  {', '.join(sorted(one.removeprefix('https://') for one in types))}"


def verification_as_json(found: Verified) -> dict[str, object]:
    """Return what was verified of an image as JSON values."""
    return {
        "digest": str(found.held.digest),
        "images": [str(image.digest) for image in found.held.images],
        "end_of_life": found.held.end_of_life or None,
        "identities": list(found.identities),
        "attested": {str(digest): list(types) for digest, types in found.attested},
        "provenance": {
            str(one.about.digest): _build_as_json(one.build) for one in found.manifests if one.build is not None
        },
        "created": timestamp(found.held.created),
        "bytes_read": found.bytes_read,
        "limits": limits_as_json(found.limits),
        "tag": None
        if found.tag is None
        else {
            "name": found.tag.tag,
            "signed_as": found.tag.identity,
            "number": found.tag.number,
            "until": found.tag.until,
            "stale": found.tag.stale,
        },
    }


TEXT_SHOWN = 200
"""Characters of a text in a provenance that are shown to people: any builder can have signed it."""


def _builds_of_images(found: Verified) -> list[AttestedBuild]:
    """Return the attested builds of the images, or that of the index if there are none."""
    images = {image.digest for image in found.held.images}
    every = [one for one in found.manifests if one.build is not None]
    own = [one for one in every if one.about.digest in images]
    return [one.build for one in own or every if one.build is not None]


def _build_lines(build: AttestedBuild, found: Verified) -> Iterator[str]:
    """Yield two lines on who built an image, from what, and who signed that."""
    by = ", ".join(f"{name} {version}" for name, version in build.versions) or build.builder
    named = (("recipe", build.recipe), ("lock", build.lock))
    sources = [f"{kind} {_shown(one.name or one.uri)} ({one.sha256.short})" for kind, one in named if one is not None]
    target = " ".join(filter(None, (build.platform, build.architecture)))
    yield (
        f"  built by {_shown(by)}"
        + (f" from {', '.join(sources)}" if sources else "")
        + (f", for {_shown(target)}" if target else "")
    )
    times = [f"{what} {_shown(time)}" for what, time in (("begun", build.started), ("ended", build.finished)) if time]
    dated = f"dated {datetime.fromtimestamp(found.held.created, UTC).strftime('%Y-%m-%d %H:%M UTC')}"
    said = f"provenance signed by key {build.signer.short}"
    yield f"  {'; '.join((*times, dated, said))}; builder {_shown(build.builder)}"


def _shown(text: str) -> str:
    return escape_invisible(cut_text(text, TEXT_SHOWN), lines=False)


def _build_as_json(build: AttestedBuild) -> dict[str, object]:
    def material(one: Material | None) -> dict[str, object] | None:
        return None if one is None else {"name": one.name, "uri": one.uri or None, "digest": str(one.sha256)}

    return {
        "builder": build.builder,
        "build_type": build.build_type or None,
        "versions": dict(build.versions),
        "platform": build.platform or None,
        "architecture": build.architecture or None,
        "recipe": material(build.recipe),
        "lock": material(build.lock),
        "started": build.started or None,
        "finished": build.finished or None,
        "signed_by": str(build.signer),
    }
