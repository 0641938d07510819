"""The morning page as files: what is written and when, what is escaped, what is remembered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.escaping import strip_invisible
from pipeline.model.json_form import from_json, to_json
from pipeline.model.night_record import (
    Failure,
    NightlyRun,
    Outcome,
    Product,
    Stage,
)
from pipeline.model.published_image import Execution
from pipeline.model.scriptlets import ScriptletName, ToleratedFailure
from pipeline.site import site_history, write_site
from tests.support import nightly_examples
from tests.support.nightly_examples import DAY, HOSTILE, MARKUP
from tests.support.site_pages import LAST, NIGHTS, SitePage, one, page_of


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


def test_what_ran_each_image_and_where_is_on_the_page_of_the_product(tmp_path: Path) -> None:
    ran = (Execution("amd64", "", "intel-1"), Execution("arm64", "qemu-aarch64 7.2.22", "intel-2"))
    write_site(one(executions=ran), tmp_path / "two")
    page = page_of(tmp_path / "two")
    assert "<dt>amd64</dt><dd>run by the machine itself, on intel-1</dd>" in page
    assert "<dt>arm64</dt><dd>emulated by qemu-aarch64 7.2.22, on intel-2</dd>" in page
    write_site(one(executions=(Execution("amd64"),)), tmp_path / "one")
    assert "run by the machine itself" not in page_of(tmp_path / "one")


# --- what stands there ----------------------------------------------------------------------------------


def test_a_site_has_the_pages_and_files_of_all_nights(written: Path) -> None:
    names = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    products = {product.name for product in LAST.products}
    files = ("atom.xml", "nightly.json", "junit.xml", "summary.md", "release.pub", "style.css", "icon.svg", ".lock")
    expected = {"index.html", "find.html", "data/site.json", *files}
    expected |= {f"{name}/index.html" for name in products} | {f"data/{name}.json" for name in products}
    stamps = {site_history.summarize_night(night, "").stamp for night in NIGHTS}
    expected |= {f"nights/{stamp}{ending}" for stamp in stamps for ending in (".html", ".json")}
    compared = {name for name in names if name.rpartition("/")[2].startswith("_")}
    assert names - compared == expected and compared
    assert all((written / name).stat().st_mode & 0o777 == 0o644 for name in names - {".lock"})


def test_every_link_leads_to_a_file(written: Path) -> None:
    count = 0
    for path in written.rglob("*.html"):
        page = SitePage(path.read_text())
        identifiers = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(identifiers) == len(set(identifiers)), f"{path}: an id twice"
        for link in page.links():
            target, fragment = urldefrag(link)
            assert not target or (path.parent / unquote(target)).resolve().is_file(), f"{path}: {link}"
            assert not fragment or fragment in identifiers, f"{path}: {link}"
            count += bool(target)
    assert count > 200


def test_the_page_tells_what_failed_and_how_to_see_it_again(written: Path) -> None:
    page = " ".join(SitePage((written / "index.html").read_text()).texts)
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
    own = " ".join(SitePage(page_of(written, "mysql")).texts)
    assert "no new image since" in own and failed[0].run.failure is not None


def test_a_failure_that_products_share_is_told_once_with_the_line_that_explains_it(tmp_path: Path) -> None:
    failure = Failure(
        Stage.SMOKE, "smoke-failed", "answers: refused", "recipes/a.yaml:4", "see it", ("x", "FATAL: no space", "y"),
        "relbuild build recipes/a.yaml", "FATAL: no space",
    )  # fmt: skip
    other = replace(failure, place="recipes/b.yaml:9", command="relbuild build recipes/b.yaml")
    first, second, third = (
        nightly_examples.changed(product, outcome=Outcome.FAILED, failure=told)
        for product, told in zip(LAST.products, (failure, other, replace(failure, cause="FATAL: no key")), strict=False)
    )
    write_site(replace(LAST, products=(first, second, third)), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.count('<article class="trouble failed">') == 2
    shared = page[page.index('<article class="trouble failed">') :]
    shared = shared[: shared.index("</article>")]
    for said in (first.name, second.name, "recipes/a.yaml:4", "recipes/b.yaml:9", other.command, failure.command):
        assert said in shared
    assert third.name not in shared and shared.count("answers: refused") == 1
    assert '<pre class="log cause">FATAL: no space</pre>' in shared and "<summary>Log: 3 lines</summary>" in shared


def test_a_failed_check_names_its_line_and_what_a_template_rendered_to(written: Path) -> None:
    page = page_of(written, "mysql")
    assert page.count("recipes/mysql.yaml:41: smoke.checks[1]") == 1
    assert "in read-only, small memory</span>" in page
    assert "command[2]: &#39;{{ values.port }}&#39; rendered to &#39;3306&#39;" in page
    assert "First line of the log that may explain it" in page and "Log around that line" in page


def test_the_page_of_a_product_tells_which_limits_held_in_its_test(written: Path) -> None:
    product = next(product for product in LAST.products if product.name == "nginx")
    texts = [text for text in SitePage(page_of(written)).texts if text.strip()]
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
    links = SitePage(page_of(tmp_path)).links()
    assert not [link for link in links if "alert" in link or "passwd" in link or link == "x"]
    assert "oras blob fetch" in page_of(tmp_path)


def test_two_platforms_of_a_product_share_a_page(written: Path) -> None:
    page = SitePage(page_of(written))
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
    page = " ".join(SitePage(page_of(tmp_path)).texts)
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
    "fieldset", "figcaption", "figure", "footer", "g", "h1", "h2", "h3", "head", "header", "html", "input", "label",
    "legend", "li", "line", "link", "main", "meta", "nav", "p", "path", "polyline", "pre", "rect", "section",
    "span", "summary", "svg", "symbol", "table", "tbody", "td", "text", "th", "thead", "time", "title", "tr", "ul",
    "use",
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
    newer = tuple(
        nightly_examples.changed(
            product, outcome=Outcome.BUILT, digest=Digest.of(product.name.encode()), previous=product.published.digest
        )
        for product in night.products
    )
    write_site(replace(night, began=night.began + DAY, ended=night.ended + DAY, products=newer), tmp_path)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) == len({product.name for product in night.products}) + len(newer) + 4
    for path in pages:
        text = path.read_text()
        assert not [mark for mark in MARKUP if mark in text], path
        page = SitePage(text)
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


@pytest.mark.costly
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
    for link in SitePage(index.read_text()).links():
        assert link.startswith("#") or (tmp_path / urldefrag(link)[0]).is_file()
