"""Read packages, size and fixes of images from SBOMs on a mirror; compute the difference.

The SBOMs are those published with the images. A vulnerability counts as fixed when a changelog names it only in the
newer image.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.attestations import list_bundles
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.oci import PREDICATE_TYPE_ANNOTATION, bundle_layer
from pipeline.oci.image_manifest import JsonReader
from pipeline.oci.predicates import CYCLONEDX


@dataclass(frozen=True, slots=True)
class KnownContents:
    """Contents of an image or index, from its SBOMs.

    `packages`: (architecture of the image, name, EVR); `fixes`: vulnerabilities that changelogs name; `size`: bytes of
    the compressed layers.
    """

    packages: frozenset[tuple[str, str, str]]
    fixes: frozenset[str]
    size: int


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """Difference from one image to the next.

    Packages `added` and `removed` (`name EVR`) and `changed` (name, EVR before, EVR after); `fixed`: vulnerabilities
    that only the newer image's changelogs name; `grew`: change of the compressed layers' size in bytes.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[tuple[str, str, str], ...] = ()
    fixed: tuple[str, ...] = ()
    grew: int = 0


def read_known_contents(repository: Repository, digest: Digest) -> KnownContents | None:
    """Read the contents of the image or index with a digest, from the SBOMs of its images.

    None if it is missing or has no SBOM. The SBOMs' signatures are not verified here (`relbuild verify` does).
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

    A package counts as changed when its name is in both, with the same number of versions.
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
