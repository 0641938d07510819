"""What the pages of a night remember of earlier ones, and what is not made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urldefrag

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking
from pipeline.model.night_record import (
    NightlyRun,
    Outcome,
    Product,
    ProductRun,
)
from pipeline.site import site_history, write_site
from pipeline.site.site_history import (
    NO_HISTORY,
    POINTS_LIMIT,
    ProductHistory,
    read_site_document,
)
from tests.support import nightly_examples
from tests.support.nightly_examples import DAY
from tests.support.site_pages import LAST, NIGHTS, SitePage, one, page_of

# --- what is not made again -----------------------------------------------------------------------------


def test_a_night_without_changes_touches_no_products_page(tmp_path: Path) -> None:
    for night in NIGHTS:
        write_site(night, tmp_path)
    first = nightly_examples.quiet(LAST)
    write_site(first, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = nightly_examples.quiet(first)
    changed = write_site(second, tmp_path)
    stamp = site_history.summarize_night(second, "").stamp
    assert {path.relative_to(tmp_path).as_posix() for path in changed} == {
        "index.html", "nightly.json", "junit.xml", "summary.md", "atom.xml", "data/site.json",
        f"nights/{stamp}.html", f"nights/{stamp}.json",
    }  # fmt: skip
    kept = [path for path in before if path.parent != tmp_path and path.parent.name != "nights"]
    assert all(path.stat().st_mtime_ns == before[path] for path in kept if path.name != "site.json")
    assert "All 11 products are up to date, nothing changed" in (tmp_path / "index.html").read_text()


def test_the_same_night_again_writes_nothing(tmp_path: Path) -> None:
    write_site(LAST, tmp_path)
    assert write_site(LAST, tmp_path) == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda night: replace(night, known_as="elsewhere.example/x"),
        lambda night: replace(night, products=(replace(night.products[0], end_of_life="2020-01-01"),)),
        lambda night: replace(night, products=(nightly_examples.changed(night.products[0], tags=("9",)),)),
        lambda night: replace(
            night,
            products=(nightly_examples.changed(night.products[0], missing=NIGHTS[0].products[-1].published.missing),),
        ),
    ],
    ids=["pulled from elsewhere", "end of life", "tags", "missing fixes"],
)
def test_a_page_of_which_something_changed_is_made_again(
    tmp_path: Path, change: Callable[[NightlyRun], NightlyRun]
) -> None:
    night = nightly_examples.quiet(one())
    write_site(night, tmp_path)
    assert tmp_path / "nginx" / "index.html" in write_site(change(nightly_examples.quiet(night)), tmp_path)


def test_the_age_of_a_missing_fix_is_of_the_day(tmp_path: Path) -> None:
    night = replace(
        nightly_examples.quiet(one()),
        products=(
            replace(
                nightly_examples.quiet(one()).products[0],
                published=replace(nightly_examples.quiet(one()).products[0].published, missing=_fixes()),
            ),
        ),
    )
    write_site(night, tmp_path)
    assert "19 days" in page_of(tmp_path)
    write_site(replace(night, began=night.began + DAY, ended=night.ended + DAY), tmp_path)
    assert "20 days" in page_of(tmp_path)


def test_a_page_that_is_gone_is_made_again(tmp_path: Path) -> None:
    night = nightly_examples.quiet(one())
    write_site(night, tmp_path)
    (tmp_path / "nginx" / "index.html").unlink()
    assert tmp_path / "nginx" / "index.html" in write_site(nightly_examples.quiet(night), tmp_path)


def test_a_failure_that_is_over_leaves_the_page(tmp_path: Path) -> None:
    mysql = next(product for product in LAST.products if product.name == "mysql")
    write_site(replace(LAST, products=(mysql,)), tmp_path)
    assert "no new image since" in page_of(tmp_path, "mysql")
    write_site(nightly_examples.quiet(replace(LAST, products=(mysql,))), tmp_path)
    assert "no new image since" not in page_of(tmp_path, "mysql")


# --- what is remembered ---------------------------------------------------------------------------------


def test_nights_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 12  # of 90
    monkeypatch.setattr(site_history, "NIGHTS_LIMIT", limit)
    night = nightly_examples.quiet(one())
    for number in range(limit + 5):
        write_site(replace(night, began=night.began + number * DAY, ended=night.ended + number * DAY), tmp_path)
    kept = sorted(path.name for path in (tmp_path / "nights").iterdir())
    assert len(kept) == 2 * limit
    notes = json.loads((tmp_path / "data" / "site.json").read_bytes())["nights"]
    assert len(notes) == limit
    assert notes[0]["began"] == night.began + 5 * DAY
    for path in tmp_path.rglob("*.html"):
        links = {urldefrag(link)[0] for link in SitePage(path.read_text()).links()}
        assert all((path.parent / link).exists() for link in links if not link.startswith("../../blobs")), path


def test_points_are_bounded_and_in_order() -> None:
    night = one()
    product = night.products[0]
    kept = NO_HISTORY
    for number in reversed(range(POINTS_LIMIT + 7)):
        kept = kept.with_point(product, replace(night, began=night.began + number * DAY))
    points = kept.of(product)
    assert len(points) == POINTS_LIMIT
    assert [point.at for point in points] == sorted(point.at for point in points)
    last = night.began + (POINTS_LIMIT + 6) * DAY
    assert kept.with_point(product, replace(night, began=last + DAY)).of(product)[-1].at == last + DAY


def test_a_night_in_which_nothing_was_done_is_no_point() -> None:
    night = nightly_examples.quiet(one())
    assert NO_HISTORY.with_point(night.products[0], night) == NO_HISTORY


def test_a_night_again_replaces_its_point() -> None:
    night = one()
    once = NO_HISTORY.with_point(night.products[0], night)
    again = once.with_point(nightly_examples.changed(night.products[0], build_took=7), night)
    assert [point.took for point in again.of(night.products[0])] == [7]


def test_what_is_remembered_is_read_as_it_was_written(tmp_path: Path) -> None:
    night = one()
    kept = NO_HISTORY.with_point(night.products[0], night)
    (tmp_path / "x.json").write_bytes(site_history.site_document_bytes(kept))
    assert read_site_document(tmp_path / "x.json", NO_HISTORY) == kept
    assert kept.of(night.products[0])[0].digest == night.products[0].published.digest


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 5000, b"\xff\xfe", b'{"format":0,"series":[]}', b'{"format":1}'])
def test_what_cannot_be_read_is_put_aside(tmp_path: Path, data: bytes) -> None:
    write_site(one(), tmp_path)
    for name in ("site.json", "nginx.json"):
        (tmp_path / "data" / name).write_bytes(data)
    write_site(replace(one(), began=LAST.began + DAY, ended=LAST.ended + DAY), tmp_path)
    for name in ("site.json", "nginx.json"):
        assert (tmp_path / "data" / f"{name}.damaged").read_bytes() == data
        json.loads((tmp_path / "data" / name).read_bytes())


def test_an_older_night_that_is_written_late_is_not_the_latest(tmp_path: Path) -> None:
    write_site(LAST, tmp_path)
    index = (tmp_path / "index.html").read_text()
    write_site(NIGHTS[0], tmp_path)
    assert (tmp_path / "nights" / f"{site_history.summarize_night(NIGHTS[0], '').stamp}.html").exists()
    assert (tmp_path / "index.html").read_text() == index


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacking, match="cannot write the site"):
        write_site(LAST, tmp_path / "file" / "site")


def test_a_catalogue_without_products_has_a_page(tmp_path: Path) -> None:
    write_site(replace(LAST, products=(), repositories=(), exceeded=(), exit_code=0), tmp_path)
    assert "No products" in (tmp_path / "index.html").read_text()


def test_a_product_without_any_image_has_a_page(tmp_path: Path) -> None:
    bare = Product("new", "recipes/new.yaml", "el9", "x86_64", ProductRun(Outcome.BLOCKED, "its parent failed"))
    write_site(replace(LAST, products=(bare,)), tmp_path)
    assert "No image is published yet" in page_of(tmp_path, "new")
    assert "Blocked, no new image: its parent failed" in page_of(tmp_path, "new")


def _fixes() -> tuple[object, ...]:
    fix = NIGHTS[0].products[-1].published.missing[0]
    return (replace(fix, issued=nightly_examples.quiet(one()).ended - 19 * DAY),)


def test_a_history_of_another_platform_stays() -> None:
    night = one()
    other = nightly_examples.changed(night.products[0], arch="s390x", digest=Digest.of(b"other"))
    kept: ProductHistory = NO_HISTORY.with_point(other, night).with_point(night.products[0], night)
    assert len(kept.series) == 2
    assert kept.of(other)[0].digest == other.published.digest
