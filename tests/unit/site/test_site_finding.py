"""The parts of the morning page by which people find something: filter, index, ninety days, neighbours, commands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.model.night_record import NightlyRun, Outcome
from pipeline.model.published_image import CheckFigure
from pipeline.site import write_site
from pipeline.site.compare_page import compare_values, image_before
from pipeline.site.day_strip import STRIP_DAYS, day_strip, night_state
from pipeline.site.find_page import find_values
from pipeline.site.page_paths import compare_file, section_id
from pipeline.site.product_status import headline
from pipeline.site.site_history import POINTS_SHOWN, NightSummary, summarize_night
from pipeline.site.treemap import by_size, treemap
from tests.support import nightly_examples
from tests.support.nightly_examples import DAY
from tests.support.site_pages import LAST, NIGHTS, SitePage, one, page_of

STYLE = Path(__file__).parents[3] / "pipeline" / "site" / "templates" / "style.css"


def summary(night: NightlyRun) -> NightSummary:
    return summarize_night(night, headline(night))


# --- the filter and the index ---------------------------------------------------------------------------


def test_products_are_filtered_by_state_without_a_script(tmp_path: Path) -> None:
    write_site(LAST, tmp_path)
    text = (tmp_path / "index.html").read_text()
    page = SitePage(text)
    radios = [attrs for tag, attrs in page.elements if tag == "input"]
    assert {attrs["name"] for attrs in radios} == {"show"} and {attrs["type"] for attrs in radios} == {"radio"}
    assert [attrs["id"] for attrs in radios if "checked" in attrs] == ["show-all"]
    named = {attrs["for"] for tag, attrs in page.elements if tag == "label"}
    states = {attrs["id"].removeprefix("show-") for attrs in radios if attrs["id"]} - {"all"}
    assert named == {attrs["id"] for attrs in radios}
    assert states == {"failed", "blocked", "built", "retested", "unchanged", "lacking"}
    style = STYLE.read_text()
    for state in states:
        assert f"main:has(#show-{state}:checked) .cards tbody tr:not(.{state})" in style
        assert re.search(rf'<tr role="row" class="[^"]*\b{state}\b', text), f"no row is {state}"
    assert "<script" not in text and "default-src 'none'" in text


def test_a_state_that_no_product_has_is_not_offered(tmp_path: Path) -> None:
    write_site(nightly_examples.quiet(LAST), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert 'id="show-unchanged"' in page and 'id="show-failed"' not in page and 'id="show-lacking"' not in page


def test_the_index_has_every_product_package_and_missing_fix_by_name(tmp_path: Path) -> None:
    write_site(LAST, tmp_path)
    text = " ".join(SitePage((tmp_path / "find.html").read_text()).texts)
    for product in LAST.products:
        assert product.name in text and product.description in text
        assert all(package.name in text and package.evr in text for package in product.published.packages)
        assert all(fix.advisory in text and fix.package in text for fix in product.published.missing)
    links = SitePage((tmp_path / "find.html").read_text()).links()
    assert {f"{product.name}/index.html" for product in LAST.products} <= links
    groups = find_values(LAST)["groups"]
    assert isinstance(groups, tuple)
    letters = [group.letter for group in groups]
    assert letters == sorted(set(letters))


def test_the_index_is_not_written_again_by_a_night_without_changes(tmp_path: Path) -> None:
    first = nightly_examples.quiet(LAST)
    write_site(first, tmp_path)
    assert tmp_path / "find.html" not in write_site(nightly_examples.quiet(first), tmp_path)


# --- ninety days ----------------------------------------------------------------------------------------


def test_the_strip_has_ninety_days_and_the_worst_night_of_each() -> None:
    notes = [summary(night) for night in NIGHTS]
    quiet = summary(replace(nightly_examples.quiet(LAST), began=LAST.began + 1000))
    strip = day_strip([*notes, quiet], LAST.began)
    assert len(strip.days) == STRIP_DAYS
    assert strip.days[-1].state == "failed" and strip.days[-1].link == f"nights/{notes[-1].stamp}.html"
    assert [day.state for day in strip.days[:-6]] == [""] * (STRIP_DAYS - 6)
    assert not any(day.link or day.height for day in strip.days[:-6])
    assert strip.words.startswith("90 days to 30 Nov: ") and "84 days without a night" in strip.words
    assert [text for _, _, text in strip.labels] == ["2 Sep", "2 Oct", "1 Nov", "30 Nov"]


def test_a_bar_is_the_higher_the_worse_its_night_went() -> None:
    quiet = nightly_examples.quiet(LAST)
    built = replace(
        quiet, products=tuple(nightly_examples.changed(one, outcome=Outcome.BUILT) for one in quiet.products)
    )
    nights = [quiet, built, replace(built, exit_code=9), LAST]
    states = [night_state(summary(night)) for night in nights]
    assert states == ["quiet", "built", "warned", "failed"]
    heights = [day_strip([summary(night)], night.began).days[-1].height for night in nights]
    assert heights == sorted(heights) and len(set(heights)) == 4


def test_the_last_nights_are_shown_and_earlier_ones_folded(tmp_path: Path) -> None:
    night = nightly_examples.quiet(one())
    for number in range(10):
        write_site(replace(night, began=night.began + number * DAY, ended=night.ended + number * DAY), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "<summary>3 nights before that</summary>" in page
    links = [link for link in SitePage(page).links() if link.startswith("nights/") and link.endswith(".html")]
    assert len(links) == 10


# --- neighbours -----------------------------------------------------------------------------------------


def _newer(night: NightlyRun, number: int) -> NightlyRun:
    """The night after, in which its products were built anew with one package more and one less."""
    products = tuple(
        nightly_examples.changed(
            product,
            outcome=Outcome.BUILT,
            version=f"{number}.0",
            digest=Digest.of(f"{product.name}{product.arch}{number}".encode()),
            previous=product.published.digest,
            packages=(
                *(replace(package, evr=f"{number}") for package in product.published.packages[1:3]),
                *product.published.packages[3:],
            ),
            layers=(replace(product.published.layers[0], digest=Digest.of(b"%d" % number), size=7),
                    *product.published.layers[1:]),
        )
        for product in night.products
    )  # fmt: skip
    return replace(night, began=night.began + DAY, ended=night.ended + DAY, products=products)


def test_each_image_has_a_page_that_compares_it_with_the_one_before(tmp_path: Path) -> None:
    first = one()
    second = _newer(first, 2)
    third = _newer(second, 3)
    for night in (first, second, nightly_examples.quiet(second), replace(third, began=third.began + DAY)):
        write_site(night, tmp_path)
    pages = sorted(path.name for path in (tmp_path / "nginx").glob("_*.html"))
    arch = first.products[0].arch
    digests = [night.products[0].published.digest for night in (second, third)]
    assert pages == sorted(f"_el9-{arch}-{digest.short}.html" for digest in digests if digest)
    text = page_of(tmp_path)
    assert all(f'href="{name}"' in text for name in pages) and "<summary>2 images compared" in text
    page = " ".join(
        SitePage((tmp_path / "nginx" / f"_el9-{arch}-{digests[1].short if digests[1] else ''}.html").read_text()).texts
    )
    assert "2.0 → 3.0" in page and "relbuild diff dir:/srv/mirror/nginx@" in page
    removed = second.products[0].published.packages[0].name
    assert re.search(rf"{removed}\s+removed", page) and "the same" in page and "other contents" in page


def test_what_two_records_tell_of_packages_layers_and_sizes() -> None:
    before = one().products[0]
    after = _newer(one(), 2).products[0]
    values = compare_values(before, after, LAST)
    packages = {package.name: package for package in values["packages"]}  # type: ignore[attr-defined]
    gone, changed = before.published.packages[:2]
    assert (packages[gone.name].how, packages[gone.name].after) == ("removed", "")
    assert (packages[changed.name].how, packages[changed.name].growth) == ("changed", "±0")
    assert len(packages) == 3 and packages[gone.name].growth.startswith("−")
    assert values["download"] == 7
    assert [pair.shared for pair in values["layers"]] == [False, *[True] * (len(before.published.layers) - 1)]  # type: ignore[attr-defined]


def test_an_image_before_that_is_unknown_or_damaged_costs_only_its_page(tmp_path: Path) -> None:
    first = one()
    second = _newer(first, 2)
    note = summary(first)
    (tmp_path / "nights").mkdir()
    record = tmp_path / "nights" / f"{note.stamp}.json"
    product = second.products[0]
    assert image_before(product, tmp_path, [note]) is None
    for damaged in ("{", "[]", '{"products": [1]}', '{"products": [{"name": "nginx"}]}'):
        record.write_text(damaged)
        assert image_before(product, tmp_path, [note]) is None
    assert image_before(nightly_examples.changed(product, previous=None), tmp_path, [note]) is None


def test_comparisons_that_are_listed_nowhere_are_removed(tmp_path: Path) -> None:
    night = one()
    write_site(night, tmp_path)
    stray = tmp_path / "nginx" / "_el9-x86_64-0123456789ab.html"
    stray.write_text("of an image long gone")
    write_site(_newer(night, 2), tmp_path)
    assert not stray.exists() and POINTS_SHOWN >= 30


def test_a_comparisons_name_is_safe_whatever_the_platform_is_called() -> None:
    assert section_id("../a b", "x86_64,aarch64") == "..-a-b-x86_64-aarch64"
    assert compare_file("a/b", section_id("/", "x"), Digest.of(b"")) == f"a/b/_--x-{Digest.of(b'').short}.html"


# --- commands, plots, boxes -----------------------------------------------------------------------------


@pytest.mark.parametrize("known_as", ["", "localhost", "localhost/products"])
def test_a_pull_address_that_is_not_known_is_not_made_up(tmp_path: Path, known_as: str) -> None:
    write_site(replace(one(tags=("latest",)), known_as=known_as, destination="dir:/srv/my mirror"), tmp_path, mirror="")
    page = " ".join(SitePage(page_of(tmp_path)).texts)
    assert "relbuild nightly --as HOST/NAMESPACE" in page
    assert "podman pull localhost" not in page and "docker pull" not in page
    assert "relbuild serve '/srv/my mirror'" in page
    assert "podman pull --tls-verify=false 127.0.0.1:8080/nginx:latest" in page
    assert "relbuild verify 'dir:/srv/my mirror/nginx:latest' --key release.pub" in page
    assert "cosign verify" not in page and "oras blob fetch" not in page
    assert "Images are pulled from" not in (tmp_path / "index.html").read_text()


def test_each_command_is_copied_by_itself(tmp_path: Path) -> None:
    write_site(one(tags=("latest",)), tmp_path)
    text = page_of(tmp_path)
    assert f'<li><code class="command">podman pull {LAST.known_as}/nginx:latest</code></li>' in text
    assert 'download="release.pub"' in text and "--as HOST" not in text


def test_over_the_nights_says_when_it_will_fill(tmp_path: Path) -> None:
    write_site(one(outcome=Outcome.BUILT), tmp_path)
    assert "Nothing to plot yet: a curve needs two nights" in page_of(tmp_path)
    write_site(_newer(one(outcome=Outcome.BUILT), 2), tmp_path)
    page = page_of(tmp_path)
    assert "Nothing to plot yet" not in page and 'text-anchor="middle">Night</text>' in page


def test_the_course_of_the_night_names_its_axis(tmp_path: Path) -> None:
    write_site(LAST, tmp_path)
    assert ">Time of day (UTC)</text>" in (tmp_path / "index.html").read_text()


def test_every_box_of_the_treemap_leads_to_its_row(tmp_path: Path) -> None:
    product = next(one for one in LAST.products if one.name == "mysql")
    packages = product.published.packages
    ordered = by_size(packages)
    for area in treemap(packages, [layer.name for layer in product.published.layers]):
        for cell in area.cells:
            package = ordered[cell.row - 1]
            assert package.layer == area.name
            assert package.name == cell.label or cell.label.endswith("smaller packages")
    write_site(replace(LAST, products=(product,)), tmp_path)
    page = SitePage(page_of(tmp_path, "mysql"))
    rows = {attrs["id"] for tag, attrs in page.elements if tag == "tr" and "id" in attrs}
    links = {link[1:] for link in page.links() if "-package-" in link}
    assert links and links <= rows and len(rows) == len(packages)


def test_checks_that_a_failure_skipped_are_counted_and_not_told_as_failures(tmp_path: Path) -> None:
    checks = (
        CheckFigure("it-1", "ready", False, 5, "refused", "it.yaml:4", ("port: 'x' rendered to '1'",)),
        CheckFigure("it-1", "answers", False, 0, "skipped: the instance was not ready"),
        CheckFigure("it-2", "ready", False, 9, "refused"),
        CheckFigure("it-2", "answers", False, 0, "skipped: the instance was not ready"),
    )
    write_site(one(checks=checks), tmp_path)
    page = page_of(tmp_path)
    assert page.count("1 of 2 checks failed, 1 skipped") == 2
    assert page.count('<div class="trouble failed">') == 1 and "in it-1, it-2</span>" in page
