"""Data classes for a product's published image, as reports and pages show it.

Times are milliseconds since the epoch, durations milliseconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.bill import Bill
from pipeline.model.enforcement import LimitEnforcement, enforcement
from pipeline.model.image import Image
from pipeline.model.report import CheckResult, SmokeReport
from pipeline.model.resolution import Chosen
from pipeline.model.scriptlets import ToleratedFailure


@dataclass(frozen=True, slots=True)
class PackageSize:
    """A package of the image and its size.

    Its layer, the source package it was built from, and how many bytes its files have. `evr` e.g. `1:3.0.7-2`.
    """

    name: str
    evr: str
    arch: str
    layer: str
    source: str
    size: int


@dataclass(frozen=True, slots=True)
class LayerSize:
    """A layer of the image, lowest first. `size` as it is downloaded, `tar_size` unpacked."""

    name: str
    digest: Digest
    size: int
    tar_size: int


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package whose versions differ from those in the image before.

    `before` and `after` are versions, "": it was not there, or is gone.
    """

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class CheckFigure:
    """The result of one check of one instance.

    Of one that failed, `place` is its `file:line` in the recipe, and `rendered` what its templates rendered to.
    """

    instance: str
    name: str
    passed: bool
    took: int
    detail: str = ""
    place: str = ""
    rendered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    """The most that the launched instances used, and the time until the first was ready.

    Bytes of memory, microseconds of processor, processes; None where the kernel or the runtime does not tell.
    """

    peak_memory: int | None = None
    cpu_time: int | None = None
    peak_pids: int | None = None
    ready_after: int | None = None


@dataclass(frozen=True, slots=True)
class MissingFix:
    """A package in the image for which the repositories offer a security fix.

    `severity` is a word of updateinfo in lower case (`critical`, `important`, `moderate`, `low`, or "" where the
    advisory gives none), `issued` when the advisory came out (0: it has no date), `has` and `fixed_in` are versions,
    `kind` the advisory's type: where other fixes were asked for as well, `bugfix` and the like.
    """

    advisory: str
    severity: str
    title: str
    issued: int
    cves: tuple[str, ...]
    package: str
    has: str
    fixed_in: str
    repository: str
    kind: str = "security"


@dataclass(frozen=True, slots=True)
class FixTaken:
    """A security fix that came in with this build."""

    advisory: str
    severity: str
    title: str
    cves: tuple[str, ...]
    package: str
    version: str


@dataclass(frozen=True, slots=True)
class AttachedDocument:
    """A document that is attached to the image.

    What it is (`SPDX`, `CycloneDX`, `provenance`, `smoke report`, …), the digest of the blob that holds it, and where
    that is below the mirror's root, "" if the mirror is a registry.
    """

    name: str
    digest: Digest
    media_type: str
    size: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """One architecture's test.

    Its name (OCI's), the emulator, "" if there was none, and the cluster's worker, "" on the night's own machine.
    """

    architecture: str
    emulator: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """All that is shown of the image of a product, until another one takes its place.

    A field of the product's page is declared here, filled by `with_build` or `with_test`, and shown by a template. All
    fields are carried from run to run unchanged, as long as the image is the published one.

    `digest` is None if there never was an image; `tags` are those that point to it, `immutable` the one that always
    will. `changes`, `fixes` and `previous` (the digest before) tell of it against the one before. `built` is when it
    was built, and `build_took` how long that took. `checks`, `resources` and `limits` (what the kernel held the
    instances to) are of its last test, or of an image that did not pass and is not published: then the run has a
    failure. `failed_scriptlets` are those that the recipe let through when the image was built. `executions` tell what
    ran the image of each architecture in that test, and where; all other figures are of the first of them.
    """

    version: str = ""
    digest: Digest | None = None
    previous: Digest | None = None
    tags: tuple[str, ...] = ()
    immutable: str = ""
    built: int = 0
    build_took: int = 0
    packages: tuple[PackageSize, ...] = ()
    layers: tuple[LayerSize, ...] = ()
    changes: tuple[PackageChange, ...] = ()
    fixes: tuple[FixTaken, ...] = ()
    missing: tuple[MissingFix, ...] = ()
    checks: tuple[CheckFigure, ...] = ()
    resources: Resources = Resources()
    limits: tuple[LimitEnforcement, ...] = ()
    attached: tuple[AttachedDocument, ...] = ()
    failed_scriptlets: tuple[ToleratedFailure, ...] = ()
    executions: tuple[Execution, ...] = ()

    def with_build(
        self,
        bill: Bill,
        image: Image,
        chosen: Sequence[Chosen],
        *,
        before: Mapping[str, str] | None,
        failed_scriptlets: tuple[ToleratedFailure, ...] = (),
    ) -> PublishedImage:
        """Return it with the figures of a new image.

        `before`: versions of the packages of the image before, None if unknown.
        """
        packages = _package_sizes(chosen)
        return replace(
            self,
            version=bill.version,
            packages=packages,
            layers=tuple(LayerSize(one.name, one.blob.digest, one.blob.size, one.tar_size) for one in image.layers),
            changes=_changed_packages(before, packages) if before is not None else (),
            failed_scriptlets=failed_scriptlets,
        )

    def with_executions(self, reports: Iterable[SmokeReport | None], worker: str = "") -> PublishedImage:
        """With the emulators of all architectures' tests; untested ones are left out."""
        tested = (report for report in reports if report is not None)
        return replace(
            self, executions=tuple(Execution(one.config.architecture, one.emulator, worker) for one in tested)
        )

    def with_test(self, report: SmokeReport | None) -> PublishedImage:
        """With the figures of a smoke test; None: it was not launched."""
        instances = report.instances if report else ()
        return replace(
            self,
            checks=tuple(
                _check_figure(report, instance.name, check)
                for instance in instances
                for check in instance.checks
                if report is not None
            ),
            resources=Resources(
                peak_memory=max((one.peak_memory for one in instances if one.peak_memory is not None), default=None),
                cpu_time=max((one.cpu_time for one in instances if one.cpu_time is not None), default=None),
                peak_pids=max((one.peak_pids for one in instances if one.peak_pids is not None), default=None),
                ready_after=min((one.ready_after for one in instances if one.ready_after is not None), default=None),
            ),
            limits=enforcement(report) if report else (),
        )


def package_versions(packages: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Map (name, EVR) pairs to name → EVR; several EVRs of one name are joined by commas."""
    found: dict[str, list[str]] = {}
    for name, evr in packages:
        found.setdefault(name, []).append(evr)
    return {name: ", ".join(sorted(evrs)) for name, evrs in found.items()}


def _check_figure(report: SmokeReport, instance: str, result: CheckResult) -> CheckFigure:
    figure = CheckFigure(instance, result.name, result.passed, result.took, result.detail)
    asked = None if result.passed else report.asked.check_named(result.name)
    if asked is None:
        return figure
    return replace(figure, place=asked.place, rendered=tuple(text.sentence for text in asked.from_templates))


def _package_sizes(chosen: Sequence[Chosen]) -> tuple[PackageSize, ...]:
    """Every package of the image; `size` as it is installed."""
    return tuple(
        PackageSize(
            name=one.package.nevra.name,
            evr=one.package.nevra.evr,
            arch=one.package.nevra.arch,
            layer=one.layer,
            source=one.package.source_rpm,
            size=one.package.installed_size,
        )
        for one in chosen
    )


def _changed_packages(before: Mapping[str, str], now: Sequence[PackageSize]) -> tuple[PackageChange, ...]:
    """Return the packages whose versions differ, by name."""
    after = package_versions([(one.name, one.evr) for one in now])
    return tuple(
        PackageChange(name, before.get(name, ""), after.get(name, ""))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )
