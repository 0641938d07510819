"""Differences between two images on a mirror: packages, size, vulnerabilities.

The vulnerabilities are those that changelogs name now and did not before. Read from the SBOM that was published with
each.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.attestations import list_bundles
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.oci import PREDICATE_TYPE_ANNOTATION, bundle_layer
from pipeline.oci.image_manifest import JsonReader
from pipeline.oci.predicates import CYCLONEDX


@dataclass(frozen=True, slots=True)
class KnownContents:
    """Known contents of an image.

    `packages` as (architecture of the image, name, EVR), `fixes` that changelogs name, bytes of its compressed layers.
    """

    packages: frozenset[tuple[str, str, str]]
    fixes: frozenset[str]
    size: int


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """Difference from one image to the next.

    Packages `added` and `removed` (`name EVR`), `changed` (name, EVR before, EVR after),
    `fixed`: named in changelogs now and not before; `grew`: bytes of compressed layers."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[tuple[str, str, str], ...] = ()
    fixed: tuple[str, ...] = ()
    grew: int = 0


def read_known_contents(repository: Repository, digest: Digest) -> KnownContents | None:
    """Read what is known of the image or index with a digest, from its SBOM.

    None if it is not there any more, or has no SBOM.

    The SBOM's signature is not verified here: what is shown is what the mirror says (`verify` is another question).
    """
    try:
        held = read_published(repository, digest)
        packages: set[tuple[str, str, str]] = set()
        fixes: set[str] = set()
        for image in held.images:
            found = _components(repository, image.digest)
            if found is None:
                return None
            for component in found:
                packages.add(
                    (image.config.architecture, component.get("name").text(), component.get("version").text(""))
                )
                fixes |= _fixes(component)
    except (UsageError, VerificationError):
        return None
    return KnownContents(frozenset(packages), frozenset(fixes), _size(held))


def compare_contents(before: KnownContents, after: KnownContents) -> ImageDifference:
    """Return the difference from `before` to `after`.

    A package counts as changed when its name is there before and after, in as many versions.
    """
    gone, come = before.packages - after.packages, after.packages - before.packages
    added, removed, changed = set[str](), set[str](), set[tuple[str, str, str]]()
    for arch, name in sorted({(arch, name) for arch, name, _ in gone | come}):
        old = sorted(evr for a, n, evr in gone if (a, n) == (arch, name))
        new = sorted(evr for a, n, evr in come if (a, n) == (arch, name))
        if len(old) == len(new):
            changed |= {(name, was, now) for was, now in zip(old, new, strict=True)}
        else:
            removed |= {f"{name} {evr}" for evr in old}
            added |= {f"{name} {evr}" for evr in new}
    return ImageDifference(
        tuple(sorted(added)),
        tuple(sorted(removed)),
        tuple(sorted(changed)),
        tuple(sorted(after.fixes - before.fixes)),
        after.size - before.size,
    )


def _size(held: MirroredImage) -> int:
    return sum({layer.blob.digest: layer.blob.size for image in held.images for layer in image.layers}.values())


def _components(repository: Repository, image: Digest) -> Sequence[JsonReader] | None:
    for referrer in list_bundles(repository, image):
        if referrer.annotation(PREDICATE_TYPE_ANNOTATION) == CYCLONEDX:
            manifest = repository.manifest(referrer.descriptor.digest)
            if manifest is None:
                continue
            place = f"SBOM of {image.short}"
            bundle = JsonReader.parse(repository.read_blob(bundle_layer(manifest)), place)
            try:
                payload = base64.b64decode(bundle.get("dsseEnvelope").get("payload").text(), validate=True)
            except ValueError as error:
                raise VerificationError("bundle-malformed", f"{place} is not base64", place=place) from error
            return JsonReader.parse(payload, place).get("predicate").get("components").items()
    return None


def _fixes(component: JsonReader) -> set[str]:
    return {
        one.get("value").text()
        for one in component.get("properties").items()
        if one.get("name").text("") == "relbuild:changelog-names"
    }
