"""Make the documents and the JSON report of a build, and write its report folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from pipeline.archives import load_archive_library
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.bill import Bill, BilledPackage, BuildRecord
from pipeline.model.image import Image
from pipeline.model.json_form import to_json
from pipeline.model.package import Package
from pipeline.oci.sbom import DraftedSbom, SbomForm
from pipeline.prepare import BuildEnvironment, LockedRecipe
from pipeline.provenance_inputs import bill_packages, billed_layers, prepare_own_code
from pipeline.reports import (
    prepare_sboms,
    report_documents,
    sources_document,
    write_report,
)
from pipeline.smoke import failures_json, report_json
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.build.build_result import BuildResult


def begin_documents(locked: LockedRecipe, build_env: BuildEnvironment) -> tuple[BilledPackage, ...]:
    """Make what the documents of an image say of its packages, before there is an image.

    Returns it for its bill; what its SBOMs say and the digest of relbuild's code are kept in memory, and the library is
    loaded that reads the last layer for the bill. Raises VerificationError for damaged packages in the store,
    EnvironmentLacking `library-missing`.
    """
    packages = bill_packages(locked.all_chosen, locked.all_headers, store=build_env.store)
    if locked.wrote:  # The same packages as before are in the SBOMs of an image that the store has, most likely.
        prepare_sboms(packages, build_env.store, build_env.clock())
        load_archive_library()
    prepare_own_code(build_env.store, build_env.clock())
    return packages


@dataclass(frozen=True, slots=True)
class DraftedDocuments:
    """The documents of an image before its layers' blobs are known.

    Digests of these, and the image's, are made up in them.
    """

    bill: Bill
    record: BuildRecord
    sboms: tuple[DraftedSbom, ...]

    @classmethod
    def of(cls, bill: Bill, record: BuildRecord) -> Self:
        """Draft the documents of a bill and a record in which such digests are made up."""
        return cls(bill, record, tuple(DraftedSbom.of_bill(bill, form) for form in SbomForm))

    def complete(self, image: Image) -> tuple[Bill, BuildRecord]:
        """Return the bill and the record of the image that was drafted, once its layers are known."""
        bill = replace(self.bill, digest=image.digest, layers=billed_layers(image))
        return bill, replace(self.record, image=image.digest)


def make_documents(
    bill: Bill,
    record: BuildRecord,
    sources: Sequence[Package] | None,
    store: Store,
    drafted: DraftedDocuments | None = None,
) -> tuple[tuple[str, bytes], ...]:
    """Make the documents of a build by name: SBOMs, bill, record; source packages if asked for."""
    documents = report_documents(bill, record, store=store, drafted=drafted.sboms if drafted else ())
    return (*documents, sources_document(sources)) if sources is not None else documents


def write_build_report(built: BuildResult, store: Store) -> None:
    """Write the report folder of a build."""
    write_report(
        built.report_folder,
        build_report_json(built),
        built.documents,
        report=built.report,
        evidence=built.evidence,
        image=built.image,
        store=store,
    )


def build_report_json(built: BuildResult) -> dict[str, object]:
    """Return the report of a build as JSON values."""
    section, parent = built.locked.section, built.locked.parent
    return {
        "image": {
            "name": built.image.name,
            "reference": built.image.reference,
            "digest": str(built.image.digest),
            "layers": [
                {
                    "name": layer.name,
                    "digest": str(layer.blob.digest),
                    "diff_id": str(layer.diff_id),
                    "size": layer.blob.size,
                    "tar_size": layer.tar_size,
                    "reused": layer.name in built.reused,
                }
                for layer in built.image.layers
            ],
        },
        "packages": [
            {
                "nevra": str(chosen.package.nevra),
                "layer": chosen.layer,
                "repository": chosen.package.repository,
                "sha256": chosen.package.checksum.hex,
                "size": chosen.package.size,
            }
            for chosen in built.locked.all_chosen
        ],
        "parent": {"recipe": parent.name, "digest": str(parent.digest)} if parent else None,
        "build_time": section.build_time,
        "assumed_installed": list(section.resolution.assumed),
        "changed_package_files": [
            {"path": f"/{change.path}", "package": change.package, "cause": change.cause} for change in built.changes
        ],
        "failed_scriptlets": [to_json(one) for one in built.failed_scriptlets],
        "unused_waivers": list(built.assembled.unused_waivers),
        "lock": {"wrote": built.locked.wrote, "changes": list(built.locked.changes)},
        "took_ms": round(built.took * 1000),
        "smoke": report_json(built.report) if built.report is not None else None,
        "failures": failures_json(built.report) if built.report is not None else [],
        "verdict_reused": built.verdict_reused,
    }
