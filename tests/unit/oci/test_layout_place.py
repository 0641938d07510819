"""Places where a layout or its report cannot be written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.oci import make_image, read_layout, require_layout_place, write_index_layout, write_layout
from pipeline.oci.layout_place import refuse_other_product
from pipeline.store import Store
from tests.support.tiny_image import CONFIG, layer, tiny


def folder_with(*names: str) -> Callable[[Path], None]:
    """Return a function that makes a folder with files of these names."""

    def make(path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).touch()

    return make


def link_to_folder_with(*names: str) -> Callable[[Path], None]:
    """Return a function that makes a symbolic link to such a folder."""

    def make(path: Path) -> None:
        folder_with(*names)(path.with_name("elsewhere"))
        path.symlink_to("elsewhere")

    return make


@pytest.mark.parametrize(
    "make",
    [
        folder_with("notes.txt"),
        folder_with("oci-layout", "index.json"),
        folder_with("evidence.json", "evidence.seal", "notes.txt"),
        folder_with(".hidden"),
        link_to_folder_with("notes.txt"),
        Path.touch,
    ],
    ids=["a person's", "a layout", "evidence and more", "hidden", "by a link", "a file"],
)
def test_a_report_takes_the_place_of_nothing_else(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "tiny.report")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as caught:
        require_layout_place(tmp_path / "tiny")
    (problem,) = caught.value.problems
    assert (problem.code, problem.place) == ("not-a-report", str(tmp_path / "tiny.report"))
    assert problem.hint and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda _: None,
        folder_with(),
        folder_with("report.json", "junit.xml", "tiny-1.log"),
        folder_with("evidence.json", "evidence.seal"),
        folder_with("evidence.json"),
        link_to_folder_with("report.json"),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["nothing", "empty", "report", "evidence", "without its seal", "by a link", "a dead link"],
)
def test_a_report_takes_the_place_of_another(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "tiny.report")
    require_layout_place(tmp_path / "tiny")


def test_a_product_is_known_by_its_image_or_index(store: Store, tmp_path: Path) -> None:
    intel = tiny(store)
    arm = make_image("tiny", "1.0", replace(CONFIG, architecture="arm64"), intel.layers)
    write_layout(intel, store=store, target=tmp_path / "one")
    write_index_layout([intel, arm], store=store, target=tmp_path / "several")
    for name in ("one", "several"):
        refuse_other_product(tmp_path / name, "tiny")
        with pytest.raises(UsageError, match=r"of the product 'tiny'.* of 'tinier'") as caught:
            refuse_other_product(tmp_path / name, "tinier")
        assert caught.value.code == "layout-of-another" and caught.value.problems[0].place == str(tmp_path / name)


def test_what_cannot_be_read_is_of_no_product(layout: Path) -> None:
    """Its blobs are lost, or it is not there: it is written anew, as before."""
    refuse_other_product(layout.parent / "nowhere", "other")
    shutil.rmtree(layout / "blobs")
    refuse_other_product(layout, "other")
    (layout / "index.json").write_text("{")
    refuse_other_product(layout, "other")


def test_no_layout_of_another_product_is_replaced(store: Store, layout: Path) -> None:
    """A night finds it so, which builds each image of an index by itself."""
    before = read_layout(layout).digest
    other = make_image("other", "1.0", CONFIG, [layer(store, "base", {"etc": None})])
    with pytest.raises(UsageError) as caught:
        write_layout(other, store=store, target=layout)
    assert caught.value.code == "layout-of-another" and read_layout(layout).digest == before
    assert [path.name for path in layout.parent.iterdir()] == ["tiny"]
