"""The folder of a report: what stands in it, what is recalled, and what of it is believed later."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import archives, reports
from pipeline.build import build_report
from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, RelbuildError, UsageError, VerificationError
from pipeline.model.bill import Bill, BuildRecord
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_SEAL, read_evidence
from pipeline.model.image import Image
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.oci.sbom import DraftedSbom, SbomForm
from pipeline.oci.spdx import describe_package
from pipeline.provenance_inputs import bill_packages
from pipeline.store import Store
from tests.support import builds
from tests.support.bills import AWKWARD
from tests.support.builds import package
from tests.support.journal import Journal
from tests.support.tested_images import evidence, image, report

IMAGE = image()
BILL = replace(AWKWARD, digest=IMAGE.digest)
CHECKS = Digest.of(b"checks")
OTHER = Digest.of(b"other checks")
"""Checks that a recipe asks for today."""


def record(of: Image = IMAGE) -> BuildRecord:
    made_from = Material("tiny.yaml", "", Digest.of(b"recipe"), MaterialKind.RECIPE)
    return BuildRecord(of.digest, Provenance(made_from, (), "el9", "x86_64", "relbuild 1"), CHECKS)


def written(folder: Path, store: Store, bill: Bill = BILL, *, tested: bool = True, made: Image = IMAGE) -> Path:
    """Write a report's folder and return it."""
    documents = reports.report_documents(bill, record(made), store=store)
    target = folder / "tiny.report"
    reports.write_report(
        target,
        {"image": "tiny"},
        documents,
        report=report(made) if tested else None,
        evidence=evidence(made) if tested else None,
        image=made,
        store=store,
    )
    return target


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


DOCUMENTS = {"report.json", "bill.json", "materials.json", "seals.json", "sbom.spdx.json", "sbom.cyclonedx.json"}


# --- written -----------------------------------------------------------------------------------------------


def test_the_folder_has_the_documents_and_what_was_seen_of_each_instance(tmp_path: Path, store: Store) -> None:
    folder = written(tmp_path, store)
    logs = {f"{instance.name}.log" for instance in report(IMAGE).instances}
    assert names(folder) == DOCUMENTS | {"junit.xml", EVIDENCE_FILE, EVIDENCE_SEAL} | logs
    assert json.loads((folder / "report.json").read_text()) == {"image": "tiny"}
    assert reports.read_bill(folder) == BILL and reports.read_build_record(folder) == record()
    data = (folder / EVIDENCE_FILE).read_bytes()
    assert read_evidence(data) == evidence(IMAGE) and store.sealed(data, (folder / EVIDENCE_SEAL).read_text().strip())
    assert folder == reports.report_folder(tmp_path / "tiny")


def test_a_folder_of_before_is_replaced_whole(tmp_path: Path, store: Store) -> None:
    written(tmp_path, store)
    folder = written(tmp_path, store, tested=False)
    assert names(folder) == DOCUMENTS, "no verdict of before stands beside an image that was not tested"
    assert names(tmp_path) == {"store", "tiny.report"}


def test_a_report_that_cannot_be_written_leaves_the_one_of_before(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path, store)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reports, "seal_documents", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, store, replace(BILL, version="2"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert names(tmp_path) == {"store", "tiny.report"}


def test_a_folder_that_is_something_else_is_left(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "tiny.report"
    folder.mkdir()
    (folder / "thesis").write_text("years of work")
    for write in (
        lambda: written(tmp_path, store),
        lambda: reports.write_evidence(folder, evidence(IMAGE), store),
        lambda: reports.write_evidence(folder, None, store),
    ):
        with pytest.raises(UsageError) as caught:
            write()
        assert caught.value.code == "not-a-report"
    reports.remove_report(tmp_path / "tiny")
    assert names(tmp_path) == {"store", "tiny.report"} and names(folder) == {"thesis"}


def test_a_report_of_before_is_removed_whole(tmp_path: Path, store: Store) -> None:
    written(tmp_path, store)
    reports.remove_report(tmp_path / "tiny")
    reports.remove_report(tmp_path / "tiny")
    assert names(tmp_path) == {"store"}


def test_evidence_alone_is_a_report_that_the_next_build_replaces(tmp_path: Path, store: Store) -> None:
    """`smoke` leaves it of an image that was pulled, or copied from another machine."""
    reports.write_evidence(tmp_path / "tiny.report", evidence(IMAGE), store)
    assert names(written(tmp_path, store)) >= DOCUMENTS


def test_sboms_are_made_once_for_a_bill_and_anew_for_another_or_when_the_store_lost_them(
    store: Store, journal: Journal
) -> None:
    journal.stand_in(reports, reports.sbom_bytes, lambda bill, form: f"{form} of {bill.version}".encode())
    first = reports.report_documents(BILL, record(), store=store)
    assert reports.report_documents(BILL, record(), store=store) == first
    assert len(journal.calls) == 2
    blob = store.blob(Digest.of(dict(first)[SbomForm.SPDX.file_name]))
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    assert reports.report_documents(BILL, record(), store=store) == first
    assert [call.args[1] for call in journal.calls[2:]] == [SbomForm.SPDX]
    reports.report_documents(replace(BILL, version="2"), record(), store=store)
    assert len(journal.calls) == 5


def test_a_drafted_sbom_is_completed_and_one_that_does_not_fit_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = reports.report_documents(BILL, record(), store=Store.open(tmp_path / "plain"))
    other = replace(BILL, digest=Digest.of(b"no image"))
    drafts = [DraftedSbom.of_bill(other, form) for form in SbomForm]
    unfit = [DraftedSbom.of_bill(replace(other, version="2"), form) for form in SbomForm]
    assert reports.report_documents(BILL, record(), store=Store.open(tmp_path / "unfit"), drafted=unfit) == plain

    def never(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(reports, "sbom_bytes", never)
    assert reports.report_documents(BILL, record(), store=Store.open(tmp_path / "drafted"), drafted=drafts) == plain


def test_documents_are_the_same_whether_or_not_their_packages_were_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe_package.cache_clear()
    plain = reports.report_documents(BILL, record(), store=Store.open(tmp_path / "a"))
    describe_package.cache_clear()
    reports.prepare_sboms(BILL.packages, Store.open(tmp_path / "p"), 2e9)
    made = describe_package.cache_info().misses
    assert made == len(set(BILL.packages)) > 0
    for name in ("b", "c"):  # Twice: what is kept in memory was not changed by who used it.
        assert reports.report_documents(BILL, record(), store=Store.open(tmp_path / name)) == plain
    assert describe_package.cache_info().misses == made


@pytest.mark.parametrize("wrote", [True, False])
def test_what_documents_need_is_made_beforehand_where_the_lock_changed(
    wrote: bool, tmp_path: Path, journal: Journal
) -> None:
    """Where it did not, the SBOMs are in the store, most likely."""
    locked = builds.locked(builds.recipe(tmp_path), "a-1-1.x86_64", wrote=wrote)
    journal.stand_in(build_report, reports.prepare_sboms, None)
    journal.stand_in(build_report, archives.load_archive_library, None)
    journal.stand_in(build_report, bill_packages, lambda *given, **more: BILL.packages)
    assert build_report.begin_documents(locked, builds.build_env(tmp_path)) == BILL.packages
    assert journal.names.count("prepare_sboms") == journal.names.count("load_archive_library") == wrote


def test_evidence_is_taken_away_where_there_is_none(tmp_path: Path, store: Store) -> None:
    folder = written(tmp_path, store)
    reports.write_evidence(folder, None, store)
    assert not {EVIDENCE_FILE, EVIDENCE_SEAL} & names(folder)
    reports.write_evidence(tmp_path / "new", evidence(IMAGE), store)
    assert names(tmp_path / "new") == {EVIDENCE_FILE, EVIDENCE_SEAL}


# --- believed ----------------------------------------------------------------------------------------------


def test_what_this_store_wrote_of_this_image_is_believed(tmp_path: Path, store: Store) -> None:
    folder = written(tmp_path, store)
    reports.refuse_edited_report(folder, IMAGE.digest, store)
    assert json.loads(reports.read_sbom(folder, SbomForm.SPDX, IMAGE.digest))["spdxVersion"] == "SPDX-2.3"


@pytest.mark.parametrize("name", ["materials.json", "sbom.spdx.json", "sbom.cyclonedx.json", "seals.json"])
def test_a_document_that_was_edited_is_refused_by_its_name(name: str, tmp_path: Path, store: Store) -> None:
    folder = written(tmp_path, store)
    if name == "seals.json":
        (folder / name).write_bytes(b"{}")
    else:
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(PublicationRefused) as caught:
        reports.refuse_edited_report(folder, IMAGE.digest, store)
    assert caught.value.code == "gate-report-edited"
    assert name == "seals.json" or caught.value.problems[0].place == str(folder / name)


def test_one_sealed_document_does_not_stand_in_for_another(tmp_path: Path, store: Store) -> None:
    folder = written(tmp_path, store)
    seals = json.loads((folder / "seals.json").read_bytes())
    spdx, other = SbomForm.SPDX.file_name, SbomForm.CYCLONEDX.file_name
    (folder / other).write_bytes((folder / spdx).read_bytes())
    (folder / "seals.json").write_text(json.dumps({**seals, other: seals[spdx]}))
    with pytest.raises(PublicationRefused):
        reports.refuse_edited_report(folder, IMAGE.digest, store)


def test_a_report_about_another_image_or_of_another_store_is_refused(tmp_path: Path, store: Store) -> None:
    folder = written(tmp_path, store)
    with pytest.raises(VerificationError) as about:
        reports.refuse_edited_report(folder, image("2.0").digest, store)
    assert about.value.code == "report-of-another-image"
    with pytest.raises(VerificationError):
        reports.read_sbom(folder, SbomForm.SPDX, image("2.0").digest)
    with pytest.raises(PublicationRefused):
        reports.refuse_edited_report(folder, IMAGE.digest, Store.open(tmp_path / "another"))


def test_what_is_missing_is_told_with_the_way_to_get_it(tmp_path: Path, store: Store) -> None:
    for read in (reports.read_bill, reports.read_build_record):
        with pytest.raises(UsageError) as caught:
            read(tmp_path / "nowhere")
        assert caught.value.code == "report-missing" and "relbuild build" in str(caught.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        reports.read_bill(tmp_path / "file")


def test_a_document_beyond_its_bound_is_not_read(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, store)
    monkeypatch.setattr(reports, "BILL_LIMIT", 10)
    with pytest.raises(VerificationError) as caught:
        reports.read_bill(folder)
    assert caught.value.code == "document-too-large"


# --- tested again ------------------------------------------------------------------------------------------


def test_a_record_says_what_checks_were_asked_last_and_stays_sealed(tmp_path: Path, store: Store) -> None:
    folder = written(tmp_path, store)
    before = (folder / "seals.json").read_bytes()
    reports.update_recorded_checks(folder, IMAGE.digest, CHECKS, store)
    assert (folder / "seals.json").read_bytes() == before
    reports.update_recorded_checks(folder, IMAGE.digest, OTHER, store)
    assert reports.read_build_record(folder) == replace(record(), checks=OTHER)
    reports.refuse_edited_report(folder, IMAGE.digest, store)


@pytest.mark.parametrize("spoil", ["edited", "missing", "another-image"])
def test_a_record_that_cannot_be_believed_is_not_made_credible(spoil: str, tmp_path: Path, store: Store) -> None:
    folder = written(tmp_path, store)
    path = folder / "materials.json"
    if spoil == "edited":
        path.write_bytes(path.read_bytes().replace(b"relbuild", b"somebody"))
    elif spoil == "missing":
        path.unlink()
    asked = image("2.0").digest if spoil == "another-image" else IMAGE.digest
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    reports.update_recorded_checks(folder, asked, OTHER, store)
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before
    with pytest.raises(RelbuildError):
        reports.refuse_edited_report(folder, asked, store)


# --- sources -----------------------------------------------------------------------------------------------


def test_source_packages_are_named_by_their_files_and_read_back_from_the_store(tmp_path: Path, store: Store) -> None:
    one = package("a-1:2-3.src")
    store.put(b"a-1:2-3.src")
    name, data = reports.sources_document((one,))
    (tmp_path / name).write_bytes(data)
    (found,) = reports.read_source_files(tmp_path, store)
    assert (found.name, found.digest, found.size) == ("a-2-3.src.rpm", one.checksum, one.size)
    assert found.path.read_bytes() == b"a-1:2-3.src"
    found.path.unlink()
    with pytest.raises(UsageError) as gone:
        reports.read_source_files(tmp_path, store)
    assert gone.value.code == "sources-missing" and "a-2-3.src.rpm" in str(gone.value)


def test_an_image_without_its_sources_says_how_to_fetch_them(tmp_path: Path, store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        reports.read_source_files(tmp_path, store)
    assert caught.value.code == "sources-missing" and "--with-sources" in str(caught.value)


def test_sources_are_sealed_where_they_were_fetched(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "tiny.report"
    sources = reports.sources_document((package("a-1-1.src"),))
    documents = (*reports.report_documents(BILL, record(), store=store), sources)
    reports.write_report(folder, {}, documents, report=None, evidence=None, image=IMAGE, store=store)
    reports.refuse_edited_report(folder, IMAGE.digest, store)
    (folder / "sources.json").write_bytes(b"[]")
    with pytest.raises(PublicationRefused):
        reports.refuse_edited_report(folder, IMAGE.digest, store)
