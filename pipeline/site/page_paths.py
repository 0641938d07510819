"""Compute the paths of a site's files, and links between its pages and to the mirror.

index.html                     the latest run
find.html                      the index: products, packages and missing fixes by name
nights/STAMP.html, .json       each run that is kept
NAME/index.html                a product
NAME/_PLATFORM-DIGEST.html     an image of it, compared with the one before
data/                          the site's history (`site_history`)
atom.xml, nightly.json, junit.xml, summary.md, release.pub, style.css, icon.svg
"""

from __future__ import annotations

import re

from pipeline.digest import Digest
from pipeline.errors import UsageError

FEED = "atom.xml"
NIGHT_JSON = "nightly.json"
JUNIT = "junit.xml"
SUMMARY = "summary.md"
KEY = "release.pub"
STYLE = "style.css"
ICON = "icon.svg"
FIND = "find.html"

_TAKEN = frozenset({"index.html", "nights", "data", FEED, NIGHT_JSON, JUNIT, SUMMARY, KEY, STYLE, ICON, FIND})

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_BELOW = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def product_folder(name: str) -> str:
    """Return the folder of a product's page.

    A name that the site uses for something else gets a `_`, with which no repository's name ends. Raises UsageError
    `product-name` for a name that is not safe as a path.
    """
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise UsageError("product-name", f"invalid product name: '{name[:200]}'", place=name[:200])
    first, slash, rest = name.partition("/")
    return f"{first}_{slash}{rest}" if first in _TAKEN else name


def section_id(platform: str, arch: str) -> str:
    """Return the anchor of a product's section for a platform, safe in names of files too."""
    return _UNSAFE.sub("-", f"{platform}-{arch}")


def compare_file(name: str, section: str, digest: Digest) -> str:
    """Return the file of the page that compares an image with the one before it.

    No product's folder begins with `_`.
    """
    return f"{product_folder(name)}/_{section}-{digest.short}.html"


def data_file(name: str) -> str:
    """Return the file of a product's figures, which is never `data/site.json`."""
    folder = product_folder(name)
    return f"data/{folder}{'_' if folder == 'site' else ''}.json"


def path_to_root(name: str) -> str:
    """Return the relative path from the page `name` to the site's root."""
    return "../" * name.count("/")


def blob_link(root: str, mirror: str, path: str) -> str:
    """Return the link from a page to a file of the mirror; "" if there is none.

    `root`: relative path to the site's root; `mirror`: from there to the mirror's root, "" if there is none.
    """
    return f"{root}{mirror}{path}" if mirror and _BELOW.fullmatch(path) else ""
