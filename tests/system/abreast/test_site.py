"""The morning page in a real browser, served by a real web server with the mirror's own configuration."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest

from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.site import write_site
from tests.support import nightly_examples
from tests.support.patience import HUNG
from tests.support.sampling import dice, drawn
from tests.support.webserver import nginx

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
PAGES = ("index.html", "mysql/index.html", "base/index.html", "nginx/index.html")
"""One of each kind, besides a past night's: the latest night, a product that failed, one that lacks fixes, one with two
platforms."""

WAYS = tuple(itertools.product(("phone", "desktop"), ("light", "dark")))
WHOLE = 1
"""Of so many pages every screen in every scheme is looked at; of all with `RELBUILD_SOAK`."""


@dataclass(frozen=True)
class Site:
    """A site that is served.

    `url` ends in `/nightly/`; `pages` has one page of each kind with folds, `compared` compares two images.
    """

    url: str
    folder: Path
    pages: tuple[str, ...]
    compared: str
    pictures: Path

    def browse(
        self, what: str, pages: tuple[str, ...] | None = None, once: tuple[str, ...] = ()
    ) -> list[dict[str, Any]]:
        """What the browser saw. `once`: pages to look at on one screen in one scheme, drawn for each."""
        looks = {"once": {path: self._way(path) for path in once}, "folder": str(self.pictures)}
        job = {"do": what, "base": self.url, "pages": self.pages if pages is None else pages, **looks}
        done = subprocess.run(
            ["node", ROOT / "tests" / "browser" / "look.mjs", modules(), chromium()],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=HUNG,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        seen: list[dict[str, Any]] = json.loads(done.stdout)["pages"]
        assert seen
        return seen

    def _way(self, path: str) -> str:
        """`SCREEN SCHEME`. Names of some pages are another in each run, so their kind decides."""
        return dice(f"way {path.rpartition('/')[0]}").choice([f"{screen} {scheme}" for screen, scheme in WAYS])


@functools.cache
def modules() -> str:
    """The folder in which playwright-core and axe-core are."""
    done = subprocess.run([ROOT / "ci" / "browser"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def chromium() -> str:
    """Debian's Chromium."""
    found = shutil.which("chromium")
    assert found, "no chromium: run ci/setup test"
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Twenty nights in a directory mirror, and nginx in front of it."""
    folder = tmp_path_factory.mktemp("site")
    mirror = folder / "mirror"
    open_directory(mirror, create=True, clock=time.time, host=nightly_examples.KNOWN_AS)
    for night in nightly_examples.nights():
        write_site(night, mirror / "nightly")
        for path, data in nightly_examples.blobs(night).items():
            (mirror / path).write_bytes(data)
    past = sorted((mirror / "nightly" / "nights").glob("*.html"))[-4]
    pictures = folder / "pictures"
    pictures.mkdir()
    with nginx(mirror, folder / "nginx") as host:
        pages = (*PAGES, f"nights/{past.name}")
        compared = sorted((mirror / "nightly" / "nginx").glob("_*.html"))[-1]
        yield Site(f"http://{host}/nightly/", mirror / "nightly", pages, f"nginx/{compared.name}", pictures)


@pytest.fixture(scope="module")
def looked(site: Site) -> list[dict[str, Any]]:
    """Every kind of page on a phone and a desk, light and dark: one that is drawn in all four ways, others in one."""
    whole = drawn("screens", site.pages, WHOLE)
    others = tuple(path for path in site.pages if path not in whole)
    return site.browse("look", whole, (*others, "find.html", site.compared))


def test_pages_load_whole_from_their_own_place_alone(site: Site, looked: list[dict[str, Any]]) -> None:
    whole = len(drawn("screens", site.pages, WHOLE))
    assert len(looked) == len(WAYS) * whole + len(site.pages) - whole + 2
    ways = {(page["path"], page["screen"], page["scheme"]) for page in looked}
    assert len(ways) == len(looked) and {path for path, _, _ in ways} == {*site.pages, "find.html", site.compared}
    for page in looked:
        where = f"{page['path']} {page['screen']} {page['scheme']}"
        assert page["console"] == [], where
        assert page["failed"] == [], where
        assert page["foreign"] == [], where
        assert page["requests"] >= 2, f"{where}: a page and its style sheet are asked for"


def test_axe_finds_nothing_wrong(looked: list[dict[str, Any]]) -> None:
    found = [f"{page['path']} {page['screen']} {page['scheme']}: {page['violations']}" for page in looked
             if page["violations"]]  # fmt: skip
    assert not found, "\n".join(found)
    assert all(page["rules"] > 20 for page in looked)


def test_pages_are_seen_and_are_dark_where_that_is_wished(looked: list[dict[str, Any]]) -> None:
    pictures = {(page["path"], page["screen"], page["scheme"]): Path(page["picture"]).read_bytes() for page in looked}
    for (path, screen, scheme), picture in pictures.items():
        assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
        assert scheme == "light" or picture != pictures.get((path, screen, "light"))
    light, dark = ({page["background"] for page in looked if page["scheme"] == scheme} for scheme in ("light", "dark"))
    assert light == {"rgb(253, 252, 249)"} and dark == {"rgb(21, 23, 26)"}


def test_no_page_is_wider_than_its_screen(site: Site, looked: list[dict[str, Any]]) -> None:
    for page in looked:
        assert page["tooWide"] <= 0 and page["tooWideOpen"] <= 0, f"{page['path']} {page['screen']}"
    for page in site.browse("reflow"):
        where = f"{page['path']} at {page['width']} with text of {page['size']}: {page['cut']}"
        assert page["seen"] == page["width"], where
        assert page["over"] <= 0 and not page["cut"], where


def test_all_can_be_reached_and_done_by_keyboard(site: Site) -> None:
    for page in site.browse("keys"):
        walk = page["walk"]
        assert len(walk) == page["expected"] > 10, f"{page['path']}: {len(walk)} stops of {page['expected']}"
        assert walk[0]["text"] == "Skip to the content"
        order = [stop["order"] for stop in walk]
        assert order == sorted(order), f"{page['path']}: the order is not that of the text"
        for stop in walk:
            assert stop["outline"] >= 2 and stop["visible"], f"{page['path']}: {stop}"
        assert page["skipped"] == "main" and page["inside"], page["path"]
        assert page["folds"]
        for fold in page["folds"]:
            assert fold["after"] is not fold["before"] and fold["again"] is fold["before"]


def test_all_is_there_without_javascript(site: Site) -> None:
    for page in site.browse("plain"):
        assert page["heading"] and page["length"] > 500
        assert page["opens"] is True, page["path"]
        assert page["shown"] == (["failed"] if page["path"] == "index.html" else None) or "nights/" in page["path"]
        assert page["console"] == [] and page["failed"] == []


def test_pages_can_be_printed(site: Site) -> None:
    for page in site.browse("print", ("index.html", "mysql/index.html")):
        assert page["navigation"] is False
        assert page["begins"] == "%PDF-" and page["size"] > 10_000


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("href", "src") and value is not None:
                self.links.add(value)
            if key == "id" and value is not None:
                self.names.add(value)


def _get(url: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(url, timeout=HUNG) as answer:  # of our own server
        return answer.read(), answer.headers["Content-Type"]


def test_every_link_leads_somewhere(site: Site) -> None:
    waiting, seen = {site.url}, {}
    fragments: list[tuple[str, str]] = []
    while waiting:
        url = waiting.pop()
        data, kind = _get(url)
        seen[url] = _Links()
        if not kind.startswith("text/html"):
            continue
        seen[url].feed(data.decode())
        for link in seen[url].links:
            target, fragment = urldefrag(urljoin(url, link))
            assert urlsplit(target).netloc == urlsplit(site.url).netloc, f"{url} leads away: {link}"
            if fragment and link.startswith("#"):
                fragments.append((target, fragment))
            if target not in seen:
                waiting.add(target)
    assert len(seen) > 11 + 2 * 20
    for target, fragment in fragments:
        assert fragment in seen[target].names, f"{target}#{fragment}"
    assert any("/blobs/sha256/" in url for url in seen)


def test_the_web_server_says_what_each_file_is(site: Site) -> None:
    kinds = {
        "": "text/html; charset=utf-8",
        "mysql/": "text/html; charset=utf-8",
        "style.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
        "atom.xml": "application/atom+xml",
        "junit.xml": "application/xml; charset=utf-8",
        "nightly.json": "application/json; charset=utf-8",
        "summary.md": "text/markdown; charset=utf-8",
        "release.pub": "text/plain; charset=utf-8",
    }
    assert {path: _get(site.url + path)[1] for path in kinds} == kinds
    with urllib.request.urlopen(site.url, timeout=HUNG) as answer:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    root = site.url.removesuffix("nightly/")
    assert json.loads(_get(f"{root}v2/_catalog")[0]) == {"repositories": []}
    with urllib.request.urlopen(f"{root}nightly", timeout=HUNG) as answer:
        assert answer.url == site.url
    hidden_ones = ("nightly/.lock", "nightly/missing.html", "nightly/../relbuild-mirror.json", "relbuild-mirror.json",
                   "nightly/%2e%2e/nginx.conf", "blobs/sha256/", "blobs/")  # fmt: skip
    for hidden in hidden_ones:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _get(root + hidden)


def test_rsync_copies_the_pages_and_forgets_those_that_went(site: Site, tmp_path: Path) -> None:
    mirror, target = site.folder.parent, tmp_path / "copy"
    for _ in range(2):
        done = subprocess.run(["sh", mirror / "rsync.sh", mirror, target], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        names = {path.relative_to(site.folder) for path in site.folder.rglob("*") if path.name != ".lock"}
        assert {path.relative_to(target / "nightly") for path in (target / "nightly").rglob("*")} == names
        (target / "nightly" / "nights" / "2020-01-01T000000Z.html").write_text("long gone")
