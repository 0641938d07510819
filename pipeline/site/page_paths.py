"""The paths of a site's pages, and the links out of them.

index.html                     the latest night
nights/STAMP.html, .json       each night that is kept
NAME/index.html                a product
data/                          what is remembered from night to night (`history.py`)
atom.xml, nightly.json, junit.xml, summary.md, release.pub, style.css, icon.svg
"""

from __future__ import annotations

import re

from pipeline.errors import UsageError

FEED = "atom.xml"
NIGHT_JSON = "nightly.json"
JUNIT = "junit.xml"
SUMMARY = "summary.md"
KEY = "release.pub"
STYLE = "style.css"
ICON = "icon.svg"

_TAKEN = frozenset({"index.html", "nights", "data", FEED, NIGHT_JSON, JUNIT, SUMMARY, KEY, STYLE, ICON})

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
_BELOW = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def product_folder(name: str) -> str:
    """Return the folder of a product's page.

    A product that is called as something else of the site gets a `_`, with which no repository's name ends. Raises
    UsageError `product-name` for what must not become a path.
    """
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise UsageError("product-name", f"invalid product name: '{name[:200]}'", place=name[:200])
    first, slash, rest = name.partition("/")
    return f"{first}_{slash}{rest}" if first in _TAKEN else name


def data_file(name: str) -> str:
    """The file of a product's figures. `site.json` is the site's own."""
    folder = product_folder(name)
    return f"data/{folder}{'_' if folder == 'site' else ''}.json"


def path_to_root(name: str) -> str:
    """From the page `name` to the site's root."""
    return "../" * name.count("/")


def blob_link(root: str, mirror: str, path: str) -> str:
    """Return the link from a page to a file of the mirror; "" where none leads there.

    `mirror` leads from the site's root to the mirror's, "" if they are apart.
    """
    return f"{root}{mirror}{path}" if mirror and _BELOW.fullmatch(path) else ""
