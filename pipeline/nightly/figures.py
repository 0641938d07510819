"""What a page and a report show of a product: sizes, changes, checks, what is attached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.digest import Digest
from pipeline.gather import Locked
from pipeline.mirror.addresses import Address, MirrorKind
from pipeline.mirror.attestations import bundles
from pipeline.mirror.protocol import Repository
from pipeline.model.image import Image
from pipeline.model.night import Attached, CheckFigure, LayerSize, PackageChange, PackageSize, Resources
from pipeline.model.report import SmokeReport
from pipeline.nightly.record import Standing
from pipeline.oci import PREDICATE_TYPE, bundle_layer
from pipeline.oci.predicates import CYCLONEDX, LOCK, PROVENANCE, SIGN, SMOKE, SPDX
from pipeline.resolve import parse_lock

NAMES = {
    SPDX: "SBOM (SPDX)",
    CYCLONEDX: "SBOM (CycloneDX)",
    PROVENANCE: "Provenance (SLSA)",
    SMOKE: "Smoke test",
    LOCK: "Lock",
    SIGN: "Signature",
}
"""What people call what is attested."""


def package_sizes(locked: Locked) -> tuple[PackageSize, ...]:
    """Every package of the image, sorted; `size` as it is installed."""
    return tuple(
        PackageSize(
            name=one.package.nevra.name,
            evr=one.package.nevra.evr,
            arch=one.package.nevra.arch,
            layer=one.layer,
            source=one.package.source_rpm,
            size=one.package.installed_size,
        )
        for one in locked.all_chosen
    )


def layer_sizes(image: Image) -> tuple[LayerSize, ...]:
    """The layers of the image, lowest first."""
    return tuple(LayerSize(one.name, one.blob.digest, one.blob.size, one.tar_size) for one in image.layers)


def packages_of(standing: Standing) -> Mapping[str, str] | None:
    """Name of each package of an image that stands on a mirror → its version, None if nobody knows."""
    if standing.product is not None and standing.product.packages:
        return _versions([(one.name, one.arch, one.evr) for one in standing.product.packages])
    if not standing.record.lock:
        return None
    sections = parse_lock(standing.record.lock, "the lock").sections
    nevras = [one.package.nevra for section in sections for one in section.resolution.chosen]
    return _versions([(nevra.name, nevra.arch, nevra.evr) for nevra in nevras])


def changed_packages(before: Mapping[str, str], now: Sequence[PackageSize]) -> tuple[PackageChange, ...]:
    """What is not as it was, by name."""
    after = _versions([(one.name, one.arch, one.evr) for one in now])
    return tuple(
        PackageChange(name, before.get(name, ""), after.get(name, ""))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _versions(packages: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name, _, evr in packages:
        found.setdefault(name, []).append(evr)
    return {name: ", ".join(sorted(evrs)) for name, evrs in found.items()}


def check_figures(report: SmokeReport) -> tuple[CheckFigure, ...]:
    """Every check of every instance."""
    return tuple(
        CheckFigure(instance.name, check.name, check.passed, check.took, check.detail)
        for instance in report.instances
        for check in instance.checks
    )


def resources(report: SmokeReport | None) -> Resources:
    """The most that any instance used, and when the first was ready."""
    instances = report.instances if report else ()
    return Resources(
        peak_memory=max((one.peak_memory for one in instances if one.peak_memory is not None), default=None),
        cpu_time=max((one.cpu_time for one in instances if one.cpu_time is not None), default=None),
        peak_pids=max((one.peak_pids for one in instances if one.peak_pids is not None), default=None),
        ready_after=min((one.ready_after for one in instances if one.ready_after is not None), default=None),
    )


def attached_to(repository: Repository, image: Digest, to: Address) -> tuple[Attached, ...]:
    """What goes with an image on its mirror: of each kind the newest. Where files are served, also the path below the
    mirror's address by which each can be had."""
    found: dict[str, Attached] = {}
    for referrer in bundles(repository, image):
        kind = referrer.annotation(PREDICATE_TYPE)
        if kind not in NAMES:
            continue
        manifest = repository.manifest(referrer.descriptor.digest)
        if manifest is None:
            continue
        blob = bundle_layer(manifest)
        path = f"blobs/sha256/{blob.digest.hex}" if to.kind is MirrorKind.DIRECTORY else ""
        found[kind] = Attached(NAMES[kind], blob.digest, blob.media_type, blob.size, path)
    return tuple(found[kind] for kind in NAMES if kind in found)
