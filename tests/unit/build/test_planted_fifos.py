"""A FIFO or folder in the place of a layout's or report's document is refused at once: nobody would write into it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import reports
from pipeline.beneath import NotRegular, logged_reads, read_file, read_unlogged
from pipeline.errors import PublicationRefused, RelbuildError, UsageError, VerificationError
from pipeline.mirror.backends.layout.layout_mirror import open_layout
from pipeline.oci import blob_path, load_layout_image, read_layout, read_layout_index, validate_layout, write_layout
from pipeline.oci.archive import write_archive
from pipeline.oci.layout_place import refuse_other_product
from pipeline.oci.sbom import SbomForm
from pipeline.release import refuse_untested
from pipeline.release.publish import _evidence
from pipeline.store import Store
from tests.support.tested_images import image
from tests.support.tiny_image import tiny
from tests.unit.build.test_reports import IMAGE, written

Plant = Callable[[Path], object]
PLANTED = pytest.mark.parametrize(("plant", "said"), [(os.mkfifo, "a FIFO"), (Path.mkdir, "a folder")])


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """End a test that hangs, instead of the whole run."""

    def end(*_: object) -> None:
        raise AssertionError("it waits for a writer of the FIFO")  # No OSError, which some readers expect.

    former = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 120, 5)  # Each reader that waits is ended.
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


def put(path: Path, plant: Plant) -> None:
    path.unlink(missing_ok=True)
    plant(path)


@pytest.fixture
def layout(store: Store, tmp_path: Path) -> Path:
    write_layout(tiny(store), store=store, target=tmp_path / "tiny")
    return tmp_path / "tiny"


READERS: dict[str, Callable[[Path], object]] = {
    "read": read_layout,
    "index": read_layout_index,
    "validate": validate_layout,
    "mirror": lambda layout: open_layout(layout, create=False).entries(),
    "archive": lambda layout: write_archive(layout, layout.with_name("tar"), "oci"),
}


@PLANTED
@pytest.mark.parametrize("reader", READERS)
def test_an_index_that_is_no_file_is_refused(layout: Path, reader: str, plant: Plant, said: str) -> None:
    put(layout / "index.json", plant)
    with pytest.raises(RelbuildError) as caught:
        problems = READERS[reader](layout)
        raise VerificationError.of(problems)  # type: ignore[arg-type]  # `validate` returns them
    (problem,) = caught.value.problems
    assert problem.code == "not-a-layout" and f"index.json: it is {said}" in problem.message
    assert problem.place == str(layout) and problem.hint


def test_a_version_that_is_no_file_is_told(layout: Path) -> None:
    put(layout / "oci-layout", os.mkfifo)
    (problem,) = validate_layout(layout)
    assert problem.code == "not-a-layout" and "oci-layout: it is a FIFO" in problem.message


def test_a_layout_with_a_fifo_is_replaced(layout: Path, store: Store) -> None:
    put(layout / "index.json", os.mkfifo)
    refuse_other_product(layout, "tiny")  # Its product is not known.
    write_layout(tiny(store), store=store, target=layout)
    assert validate_layout(layout) == ()


def test_a_layer_that_is_a_fifo_is_missing(layout: Path, store: Store, tmp_path: Path) -> None:
    path = blob_path(layout, tiny(store).layers[0].blob.digest)
    put(path, os.mkfifo)
    with pytest.raises(VerificationError) as caught:
        load_layout_image(layout, store=Store.open(tmp_path / "other"))
    (problem,) = caught.value.problems
    assert problem.code == "blob-missing" and problem.place == str(path) and problem.hint


@PLANTED
@pytest.mark.parametrize("name", ["bill.json", "materials.json", "seals.json", "sbom.spdx.json", "sources.json"])
def test_a_document_of_a_report_that_is_no_file_is_refused(
    tmp_path: Path, store: Store, name: str, plant: Plant, said: str
) -> None:
    folder = written(tmp_path, store)
    put(folder / name, plant)
    with pytest.raises(UsageError) as caught:
        reports.refuse_edited_report(folder, IMAGE.digest, store)
        reports.read_sbom(folder, SbomForm.SPDX, IMAGE.digest)
    (problem,) = caught.value.problems
    assert problem.code == "report-missing" and f"it is {said}" in problem.message
    assert problem.place == str(folder / name) and problem.hint


@PLANTED
@pytest.mark.parametrize("name", ["evidence.json", "evidence.seal"])
def test_evidence_that_is_no_file_is_not_published(
    tmp_path: Path, store: Store, name: str, plant: Plant, said: str
) -> None:
    folder = written(tmp_path, store)
    put(folder / name, plant)
    with pytest.raises(PublicationRefused) as caught:
        _evidence(folder, image())
    (problem,) = caught.value.problems
    assert problem.code == "gate-report-missing" and f"it is {said}" in problem.message
    assert str(folder / name) in problem.message and problem.hint


@PLANTED
def test_a_layout_whose_evidence_is_no_file_is_not_served(layout: Path, plant: Plant, said: str) -> None:
    report = layout.with_name("tiny.report")
    report.mkdir()
    put(report / "evidence.json", plant)
    with pytest.raises(PublicationRefused) as caught:
        refuse_untested(layout)
    assert caught.value.code == "gate-not-passed"


def test_what_a_build_makes_is_read_and_not_logged_as_its_input(tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"1234")
    (tmp_path / "given").write_bytes(b"1234")
    with logged_reads() as log:
        assert read_unlogged(tmp_path / "made", 4) == read_file(tmp_path / "given", 4) == b"1234"
        with pytest.raises(FileNotFoundError):
            read_unlogged(tmp_path / "gone", 4)
        with pytest.raises(OSError, match="more than 3 bytes"):
            read_unlogged(tmp_path / "made", 3)
        with pytest.raises(NotRegular):
            read_unlogged(tmp_path, 4)
    assert set(log.contents) == {str(tmp_path / "given")} and not log.looked
