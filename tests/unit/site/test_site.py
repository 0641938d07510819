"""The morning page as files: what is written and when, what is escaped, what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.escaping import strip_invisible
from pipeline.model.json_form import from_json, to_json
from pipeline.model.night_record import (
    NightlyRun,
    Outcome,
    Product,
    ProductRun,
)
from pipeline.model.scriptlets import ScriptletName, ToleratedFailure
from pipeline.site import site_history, write_site
from pipeline.site.site_history import (
    NIGHTS_LIMIT,
    NO_HISTORY,
    POINTS_LIMIT,
    ProductHistory,
    read_site_document,
)
from tests.support import nightly_examples
from tests.support.nightly_examples import DAY, HOSTILE, MARKUP

NIGHTS = nightly_examples.nights(6)
LAST = NIGHTS[-1]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror's root with the pages of six nights. Tests do not write into it."""
    root = tmp_path_factory.mktemp("mirror")
    for night in NIGHTS:
        write_site(night, root / "nightly")
        for path, data in nightly_examples.blobs(night).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    return root / "nightly"


def one(**changes: object) -> NightlyRun:
    """A night with one product."""
    product = next(product for product in LAST.products if product.name == "nginx")
    return replace(LAST, products=(nightly_examples.changed(product, **changes),))


def page_of(folder: Path, name: str = "nginx") -> str:
    return (folder / name / "index.html").read_text()


def test_scriptlets_that_were_let_through_are_on_the_page_of_the_product(tmp_path: Path) -> None:
    failed = (
        ToleratedFailure("s6-2-1.x86_64", ScriptletName.TRANSFILETRIGGERIN, "said <b>", "no supervisor here"),
        ToleratedFailure("a-1-1.noarch", ScriptletName.POST, "%post ended with status 1"),
    )
    write_site(one(), tmp_path / "without")
    assert "Scriptlets that failed" not in page_of(tmp_path / "without")
    write_site(one(failed_scriptlets=failed), tmp_path / "with")
    page = page_of(tmp_path / "with")
    assert "2 scriptlets failed" in page and "%transfiletriggerin" in page and "said &lt;b&gt;" in page
    assert "no supervisor here" in page and "rpm only warns of it (scriptlets: rpm)" in page


class _Page(HTMLParser):
    """What a browser makes of a page: elements, attributes, texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def links(self) -> set[str]:
        """Every `href` and `src`."""
        return {value for _, attrs in self.elements for key in ("href", "src") if (value := attrs.get(key)) is not None}


# --- what stands there ----------------------------------------------------------------------------------


def test_a_site_has_the_pages_and_files_of_all_nights(written: Path) -> None:
    names = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    products = {product.name for product in LAST.products}
    files = ("atom.xml", "nightly.json", "junit.xml", "summary.md", "release.pub", "style.css", "icon.svg", ".lock")
    expected = {"index.html", "data/site.json", *files}
    expected |= {f"{name}/index.html" for name in products} | {f"data/{name}.json" for name in products}
    stamps = {site_history.summarize_night(night, "").stamp for night in NIGHTS}
    expected |= {f"nights/{stamp}{ending}" for stamp in stamps for ending in (".html", ".json")}
    assert names == expected
    assert all((written / name).stat().st_mode & 0o777 == 0o644 for name in names - {".lock"})


def test_every_link_leads_to_a_file(written: Path) -> None:
    count = 0
    for path in written.rglob("*.html"):
        page = _Page(path.read_text())
        identifiers = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(identifiers) == len(set(identifiers)), f"{path}: an id twice"
        for link in page.links():
            target, fragment = urldefrag(link)
            assert not target or (path.parent / unquote(target)).resolve().is_file(), f"{path}: {link}"
            assert not fragment or fragment in identifiers, f"{path}: {link}"
            count += bool(target)
    assert count > 200


def test_the_page_tells_what_failed_and_how_to_see_it_again(written: Path) -> None:
    page = " ".join(_Page((written / "index.html").read_text()).texts)
    failed = [product for product in LAST.products if product.run.failure is not None]
    assert {product.run.outcome for product in failed} == {Outcome.FAILED, Outcome.BLOCKED}
    for product in failed:
        assert product.run.failure is not None
        for said in (
            product.run.failure.command,
            product.run.failure.hint,
            product.run.failure.place,
            product.run.failure.code,
        ):
            assert said in page
        assert not product.run.failure.log or product.run.failure.log[-1] in page
    assert "haproxy and mysql failed; python is blocked" in page
    assert f"exit code {LAST.exit_code}" in page and LAST.exceeded[0] in page
    own = " ".join(_Page(page_of(written, "mysql")).texts)
    assert "no new image since" in own and failed[0].run.failure is not None


def test_the_page_of_a_product_tells_which_limits_held_in_its_test(written: Path) -> None:
    product = next(product for product in LAST.products if product.name == "nginx")
    texts = [text for text in _Page(page_of(written)).texts if text.strip()]
    start = next(
        number
        for number, text in enumerate(texts)
        if text.endswith("Limits of this test, and whether the kernel enforced them")
    )
    no = product.published.limits[1].reason
    assert texts[start + 1 : start + 7] == [
        "Limit",
        "Enforced",
        "memory",
        "yes",
        "io_bandwidth",
        f"no: {strip_invisible(no)}",
    ]


def test_failed_products_come_first(written: Path) -> None:
    page = (written / "index.html").read_text()
    table = page[page.index('<table class="cards"') :]
    rows = [
        table.index(f'<tr role="row" class="{outcome}">') for outcome in ("failed", "blocked", "built", "unchanged")
    ]
    assert rows == sorted(rows)


def test_the_night_in_json_is_the_night(written: Path) -> None:
    data = json.loads((written / "nightly.json").read_bytes())
    assert from_json(NightlyRun, data) == LAST
    assert (written / "nights" / f"{site_history.summarize_night(LAST, '').stamp}.json").read_bytes() == (
        written / "nightly.json"
    ).read_bytes()


def test_documents_are_linked_where_they_are_and_fetched_by_command_elsewhere(tmp_path: Path, written: Path) -> None:
    attached = LAST.products[0].published.attached[0]
    assert f'href="../../{attached.path}"' in page_of(written, LAST.products[0].name)
    write_site(LAST, tmp_path, mirror="")
    page = page_of(tmp_path, LAST.products[0].name)
    assert attached.path not in page
    assert f"oras blob fetch --output mysql-spdx.json {LAST.known_as}/mysql@{attached.digest}" in page


@pytest.mark.parametrize("path", ["javascript:alert(1)", "/etc/passwd", "../../x", "a//b", "", "x y"])
def test_a_path_that_leads_elsewhere_is_no_link(tmp_path: Path, path: str) -> None:
    night = one()
    attached = replace(night.products[0].published.attached[0], path=path)
    write_site(one(attached=(attached,)), tmp_path)
    assert not [link for link in _Page(page_of(tmp_path)).links() if "alert" in link or "passwd" in link or link == "x"]
    assert "oras blob fetch" in page_of(tmp_path)


def test_two_platforms_of_a_product_share_a_page(written: Path) -> None:
    page = _Page(page_of(written))
    headings = {attrs.get("id") for tag, attrs in page.elements if tag == "h2"}
    assert {"el9-x86_64", "el9-aarch64"} <= headings


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("2020-01-31", "its end of life was"),
        ("{near}", "its end of life is in 30 days"),
        ("2099-01-01", "End of life"),
        ("someday", ""),
    ],
)
def test_an_end_of_life_is_warned_of_when_it_is_near_or_passed(tmp_path: Path, end: str, said: str) -> None:
    from pipeline.site.text_format import utc_datetime

    near = utc_datetime(LAST.ended + 30 * DAY).date().isoformat()
    write_site(one(end_of_life=end.format(near=near)), tmp_path)
    page = " ".join(_Page(page_of(tmp_path)).texts)
    assert said in page
    assert ('class="notice' in page_of(tmp_path)) is (end not in ("2099-01-01", "someday"))


def test_a_long_log_is_cut_on_the_page_and_whole_in_the_data(tmp_path: Path) -> None:
    failure = replace(
        next(one.run.failure for one in LAST.products if one.run.failure), log=(*map(str, range(10_000)), "y" * 9_000)
    )
    write_site(one(outcome=Outcome.FAILED, failure=failure), tmp_path)
    for page in (page_of(tmp_path), (tmp_path / "index.html").read_text()):
        assert "y" * 2000 + "…" in page and "y" * 2001 not in page
        assert "\n9999\n" in page and "\n9000\n" not in page and "9601 more lines in the night" in page
    assert f'"{"y" * 9_000}"' in (tmp_path / "nightly.json").read_text()


# --- text that means harm -------------------------------------------------------------------------------


ELEMENTS = {
    "a", "article", "b", "body", "caption", "circle", "code", "dd", "desc", "details", "div", "dl", "dt",
    "figcaption", "figure", "footer", "g", "h1", "h2", "h3", "head", "header", "html", "li", "line", "link", "main",
    "meta", "nav", "p", "path", "polyline", "pre", "rect", "section", "span", "summary", "svg", "symbol", "table",
    "tbody", "td", "text", "th", "thead", "time", "title", "tr", "ul", "use",
}  # fmt: skip
"""Of HTML and SVG, what a page of ours is made of."""


def _everywhere(value: object) -> object:
    """A product in JSON form, with harm in every text that is not of a fixed form."""
    if isinstance(value, dict):
        fixed = {"name", "digest", "outcome", "stage", "previous", "path", "platform", "arch", "parent"}
        return {
            key: inner if key in fixed and isinstance(inner, str) else _everywhere(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_everywhere(inner) for inner in value]
    return HOSTILE if isinstance(value, str) else value


def test_no_text_becomes_markup_wherever_it_stands(tmp_path: Path) -> None:
    def harmed(product: Product) -> Product:
        return from_json(Product, _everywhere(to_json(product)))

    night = replace(
        LAST, products=tuple(harmed(product) for product in LAST.products), exceeded=(HOSTILE,), catalogue=HOSTILE,
        known_as=HOSTILE, destination=HOSTILE, threshold=HOSTILE, relbuild=HOSTILE,
    )  # fmt: skip
    write_site(night, tmp_path)
    write_site(replace(night, began=night.began + DAY, ended=night.ended + DAY), tmp_path)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) == len({product.name for product in night.products}) + 3
    for path in pages:
        text = path.read_text()
        assert not [mark for mark in MARKUP if mark in text], path
        page = _Page(text)
        assert {tag for tag, _ in page.elements} <= ELEMENTS
        for _, attrs in page.elements:
            assert not [key for key in attrs if key.startswith("on") or key == "style"]
        assert not [link for link in page.links() if ":" in link]
        assert "alert('x')" in " ".join(page.texts)
    for path in tmp_path.glob("*.*"):
        if path.suffix in (".xml", ".md"):
            assert not [mark for mark in ("\x1b", "\x00", "\u202e") if mark in path.read_text()]


@pytest.mark.parametrize("name", ["../x", "/etc", "a/../b", "", ".hidden", "A", "x" * 201, "a b", "a/", "_x"])
def test_a_name_that_is_no_products_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="invalid product name"):
        write_site(one(name=name), tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("name", ["data", "nights", "index.html", "site", "atom.xml", "data/site"])
def test_a_product_may_be_called_as_something_of_the_site(tmp_path: Path, name: str) -> None:
    write_site(LAST, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    night = one(name=name)
    night = replace(night, products=(*LAST.products, *night.products))
    write_site(night, tmp_path)
    pages = set(tmp_path.rglob("index.html")) - before.keys()
    assert len(pages) == 1 and f"<h1>{name}</h1>" in pages.pop().read_text()
    assert json.loads((tmp_path / "data" / "site.json").read_bytes())["nights"]
    index = tmp_path / "index.html"
    for link in _Page(index.read_text()).links():
        assert link.startswith("#") or (tmp_path / urldefrag(link)[0]).is_file()


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


def test_nights_are_bounded(tmp_path: Path) -> None:
    night = nightly_examples.quiet(one())
    for number in range(NIGHTS_LIMIT + 5):
        write_site(replace(night, began=night.began + number * DAY, ended=night.ended + number * DAY), tmp_path)
    kept = sorted(path.name for path in (tmp_path / "nights").iterdir())
    assert len(kept) == 2 * NIGHTS_LIMIT
    notes = json.loads((tmp_path / "data" / "site.json").read_bytes())["nights"]
    assert len(notes) == NIGHTS_LIMIT
    assert notes[0]["began"] == night.began + 5 * DAY
    for path in tmp_path.rglob("*.html"):
        links = {urldefrag(link)[0] for link in _Page(path.read_text()).links()}
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
