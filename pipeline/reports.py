"""Write, seal and read an image's report folder `NAME.report/` beside its layout.

`NAME.report/` holds `report.json`, `junit.xml`, the containers' logs, the evidence of an image that passed, and
`bill.json`, `materials.json`, `sbom.spdx.json` and `sbom.cyclonedx.json`, which depend only on the image and its
inputs, so they are made once for each and recalled from the store.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pipeline.atomic_folders import folder_draft, put_folder, remove_folder, sweep_folder_drafts
from pipeline.beneath import NotRegular, TooLarge, read_unlogged
from pipeline.digest import Digest, canonical_json, digest_json, identity
from pipeline.errors import PublicationRefused, RelbuildError, UsageError, VerificationError
from pipeline.model.bill import Bill, BilledPackage, BuildRecord
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_SEAL, Evidence, evidence_json
from pipeline.model.image import Image
from pipeline.model.package import Package
from pipeline.model.report import SmokeReport
from pipeline.model.report_names import REPORT_FILE, REPORT_SUFFIX
from pipeline.oci.bill_json import BILL_LIMIT, parse_bill
from pipeline.oci.image_manifest import JsonReader
from pipeline.oci.layout_place import is_other_folder, refuse_other_report
from pipeline.oci.record_json import RECORD_LIMIT, parse_record, record_bytes
from pipeline.oci.sbom import DraftedSbom, SbomForm, bill_digest, bill_document, sbom_bytes, sbom_versions
from pipeline.oci.sources_artifact import SourceFile
from pipeline.store import Store

SOURCES_FILE = "sources.json"
"""The document with the source packages that were fetched for an image, if they were."""

SEALS_FILE = "seals.json"
"""The document with the store's seals (HMACs) of the others in a report's folder."""

SEALS_LIMIT = 64 << 10
"""Bytes of the seals: a few hundred."""

BILL_FILE = "bill.json"
RECORD_FILE = "materials.json"

SBOM_LIMIT = 256 << 20
"""Bytes of an SBOM: ten thousand packages take about forty million."""


def write_report(
    folder: Path,
    value: dict[str, object],
    documents: Sequence[tuple[str, bytes]],
    *,
    report: SmokeReport | None,
    evidence: Evidence | None,
    image: Image,
    store: Store,
) -> None:
    """Write `NAME.report/` beside the layout atomically.

    It gets `report.json` (with `value`), `junit.xml`, the containers' logs, `documents` as (file name, content), and
    the evidence of an image that passed. Raises UsageError `not-a-report` for a folder of something else there.
    """
    refuse_other_report(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep_folder_drafts(folder)
    with folder_draft(folder) as made:
        made.chmod(0o755)
        (made / REPORT_FILE).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
        for document, content in documents:
            (made / document).write_bytes(content)
        seal_documents(made, image.digest, documents, store)
        if report is not None:
            from pipeline.smoke import junit_report  # only here: who reads a report needs nothing of tests

            (made / "junit.xml").write_bytes(junit_report(report, image.name))
            for instance in report.instances:
                (made / f"{instance.name}.log").write_text(instance.log)
        write_evidence(made, evidence, store)
        put_folder(made, folder)


def write_evidence(folder: Path, evidence: Evidence | None, store: Store) -> None:
    """Write `evidence.json` and the store's seal on it (`evidence.seal`) in `folder`.

    Without evidence, remove both. Raises UsageError `not-a-report` for a folder of something else.
    """
    refuse_other_report(folder)
    for name in (EVIDENCE_SEAL, EVIDENCE_FILE):
        (folder / name).unlink(missing_ok=True)
    if evidence is not None:
        folder.mkdir(parents=True, exist_ok=True)
        data = evidence_json(evidence)
        (folder / EVIDENCE_FILE).write_bytes(data)
        (folder / EVIDENCE_SEAL).write_text(f"{store.seal(data)}\n")


# --- the documents in it ---------------------------------------------------------------------------------


def report_documents(
    bill: Bill, record: BuildRecord, *, store: Store, drafted: Sequence[DraftedSbom] = ()
) -> tuple[tuple[str, bytes], ...]:
    """Return (file name, content) of the documents of a report's folder.

    SBOMs are recalled where the store has them, and made of those that were `drafted`.
    """
    drafts = {one.form: one for one in drafted}
    sboms = tuple((form.file_name, _sbom(bill, form, store, drafts.get(form))) for form in SbomForm)
    return ((BILL_FILE, bill_document(bill)), (RECORD_FILE, record_bytes(record)), *sboms)


def prepare_sboms(packages: Sequence[BilledPackage], store: Store, now: float) -> None:
    """Make what the SBOMs say of packages, and keep it in memory for `report_documents`.

    `now`: seconds since the epoch.
    """
    sbom_versions()
    # Here and not above: who reads a report makes no SBOM.
    from pipeline.oci.licences import prepare_licences
    from pipeline.oci.spdx import describe_package

    prepare_licences([package.license for package in packages], store, now)
    for package in packages:
        describe_package(package)


def _sbom(bill: Bill, form: SbomForm, store: Store, drafted: DraftedSbom | None) -> bytes:
    name = identity("sbom", 1, form=form, bill=bill_digest(bill), versions=sbom_versions())
    known = store.recall_as(name, digest_json)
    if known is not None and store.sound(known):
        return store.read(known, limit=SBOM_LIMIT)
    data = (drafted.completed(bill) if drafted is not None else None) or sbom_bytes(bill, form)
    store.remember(name, str(store.put(data)))
    return data


def seal_documents(folder: Path, image: Digest, documents: Sequence[tuple[str, bytes]], store: Store) -> None:
    """Write the store's seals of the documents of `image` in `folder`.

    They show whether a document was edited, or is about another image.
    """
    seals = {name: store.seal(_named(name, image, data)) for name, data in documents}
    (folder / SEALS_FILE).write_bytes(canonical_json(seals))


def refuse_edited_report(folder: Path, image: Digest, store: Store) -> None:
    """Refuse documents in a report's folder that this store did not seal for `image`.

    Raises UsageError `report-missing`, VerificationError `report-of-another-image`, PublicationRefused
    `gate-report-edited`.
    """
    refuse_other_image(folder, image)
    seals = JsonReader.parse(_read(folder / SEALS_FILE, SEALS_LIMIT), str(folder / SEALS_FILE))
    for name in _sealed_in(folder):
        if not store.sealed(_named(name, image, _read(folder / name, SBOM_LIMIT)), seals.get(name).text("")):
            raise PublicationRefused(
                "gate-report-edited",
                f"the seal of {name} does not match this store: it was edited, or belongs to another image or machine",
                place=str(folder / name),
                hint="build the image again on this machine; unchanged layers are reused",
            )


def update_recorded_checks(folder: Path, image: Digest, checks: Digest, store: Store) -> None:
    """Set the checks in the record of the report's folder of `image`.

    It is called when `image` was tested with other checks than when it was built. A record that is missing or edited is
    left unchanged, and publishing refuses it.
    """
    try:
        refuse_edited_report(folder, image, store)
        documents = {name: _read(folder / name, SBOM_LIMIT) for name in _sealed_in(folder)}
        record = parse_record(documents[RECORD_FILE], RECORD_FILE)
    except RelbuildError:
        return
    if record.checks != checks:
        documents[RECORD_FILE] = record_bytes(replace(record, checks=checks))
        (folder / RECORD_FILE).write_bytes(documents[RECORD_FILE])
        seal_documents(folder, image, tuple(documents.items()), store)


def _sealed_in(folder: Path) -> tuple[str, ...]:
    """Names of the documents in a report's folder that have a seal."""
    sources = (SOURCES_FILE,) if (folder / SOURCES_FILE).exists() else ()
    return (BILL_FILE, RECORD_FILE, *(form.file_name for form in SbomForm), *sources)


def _named(name: str, image: Digest, data: bytes) -> bytes:
    """Return the bytes that are sealed of a document: its name, its image and content."""
    return f"{name}\n{image}\n".encode() + data


def report_folder(layout: Path) -> Path:
    """Return the folder of the report of a layout that was built here."""
    return layout.parent / f"{layout.name}{REPORT_SUFFIX}"


def member_layout(layout: Path, arch: str) -> Path:
    """Return the layout of an index's image for rpm's architecture `arch`, beside the index's."""
    return layout.parent / f"{layout.name}.{arch}"


def remove_report(layout: Path) -> None:
    """Remove the report of an image that the layout had before it was replaced.

    A folder of something else there is left. Raises OSError.
    """
    folder = report_folder(layout)
    if not is_other_folder(folder):
        remove_folder(folder)


def read_bill(folder: Path) -> Bill:
    """Read the bill in a report's folder.

    Raises UsageError `report-missing`, VerificationError `bill-malformed`, `format-newer`.
    """
    return _parsed_bill(_read(folder / BILL_FILE, BILL_LIMIT))


@lru_cache(maxsize=2)  # a publication asks each of an image's documents whether it is about that image
def _parsed_bill(data: bytes) -> Bill:
    return parse_bill(data, BILL_FILE)


def read_build_record(folder: Path) -> BuildRecord:
    """Read the record of the build's inputs in its report's folder.

    Raises UsageError `report-missing`, VerificationError `record-malformed`, `format-newer`.
    """
    return parse_record(_read(folder / RECORD_FILE, RECORD_LIMIT), RECORD_FILE)


def built_platform(folder: Path, image: Digest) -> str | None:
    """Return the platform, with its add-ons, that an image was built for.

    None if the folder has no record of this very image that can be read.
    """
    try:
        record = read_build_record(folder)
    except RelbuildError:
        return None
    return record.provenance.platform if record.image == image else None


def sources_document(packages: Sequence[Package]) -> tuple[str, bytes]:
    """Return (file name, content) of the document that lists an image's source packages."""
    told = [
        {
            "name": f"{one.nevra.name}-{one.nevra.version}-{one.nevra.release}.src.rpm",
            "sha256": one.checksum.hex,
            "size": one.size,
        }
        for one in packages
    ]
    return SOURCES_FILE, canonical_json(told)


def read_source_files(folder: Path, store: Store) -> tuple[SourceFile, ...]:
    """Return the source packages of an image, as files in the store.

    Raises UsageError `sources-missing`.
    """
    if not (folder / SOURCES_FILE).exists():
        raise UsageError(
            "sources-missing",
            f"no source packages were fetched for the image of {folder}",
            place=str(folder),
            hint="build it with --with-sources; unchanged layers are reused",
        )
    found = []
    for one in JsonReader.parse(_read(folder / SOURCES_FILE, RECORD_LIMIT), SOURCES_FILE).items():
        digest = Digest(one.get("sha256").text())
        if not store.sound(digest):
            raise UsageError(
                "sources-missing",
                f"the source package {one.get('name').text()} is no longer in the store",
                place=str(folder),
                hint="build the image again with --with-sources, which fetches it",
            )
        found.append(SourceFile(one.get("name").text(), digest, one.get("size").number(), store.blob(digest)))
    return tuple(found)


def read_sbom(folder: Path, form: SbomForm, image: Digest) -> bytes:
    """Read the SBOM in a report's folder, which must be about `image`.

    Raises UsageError `report-missing`, VerificationError `report-of-another-image`.
    """
    refuse_other_image(folder, image)
    return _read(folder / form.file_name, SBOM_LIMIT)


def refuse_other_image(folder: Path, image: Digest) -> None:
    """Refuse a report in a folder that is not about `image`.

    Raises VerificationError `report-of-another-image`.
    """
    bill = read_bill(folder)
    if bill.digest != image:
        raise VerificationError(
            "report-of-another-image",
            f"the report describes image {bill.digest}, but the layout holds {image}",
            place=str(folder),
            hint="build the image again with `relbuild build`",
        )


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_unlogged(path, limit)
    except TooLarge:
        raise VerificationError("document-too-large", f"{path} has more than {limit} bytes", place=str(path)) from None
    except NotRegular as error:
        raise UsageError(
            "report-missing",
            f"'{path}' is no document of a report: {error.strerror}",
            place=str(path),
            hint="remove it, and build the image again with `relbuild build`",
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            "report-missing",
            f"'{path.name}' not found in '{path.parent}': the image was built elsewhere, or by an older relbuild",
            place=str(path.parent),
            hint="build it with `relbuild build`, which writes its report beside the layout",
        ) from None
