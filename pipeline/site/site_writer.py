"""Write the site of a nightly run: update its history, make changed pages, remove old ones."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from pipeline import __version__
from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.model.json_form import refuse_newer, to_json
from pipeline.model.night_record import (
    NightlyRun,
    Outcome,
    Product,
    ProductRun,
)
from pipeline.site import page_paths
from pipeline.site.feed import atom_xml
from pipeline.site.markdown import summary_markdown
from pipeline.site.markup import json_bytes
from pipeline.site.night_junit import junit_xml
from pipeline.site.product_status import day_dependent_texts, headline
from pipeline.site.site_files import SITE_LOCK, SiteFiles
from pipeline.site.site_history import (
    FIGURES_LIMIT,
    NO_HISTORY,
    NO_STATE,
    POINTS_SHOWN,
    STATE_FORMAT,
    NightSummary,
    ProductHistory,
    SiteState,
    add_night,
    read_site_document,
    site_document_bytes,
    summarize_night,
    with_unique_start,
)

PAGE_FORMAT = 2
"""Version of the code for product pages. Raise it when the same run would give another page."""

_RUN_PAGE_FIELDS = frozenset(one.name for one in fields(ProductRun)) - {"failure"}
"""Fields of a product's run that only the run's page shows, so that the product's own page stays the same while nothing
happens to the product. Of the run, it only shows a failure."""

_TEMPLATES = Path(__file__).with_name("templates")


def write_site(night: NightlyRun, folder: Path, *, mirror: str = "../", address: str = "") -> tuple[Path, ...]:
    """Write the site of a run into `folder`, made if missing; return the files that changed.

    `mirror`: relative path from the folder to the root of the directory mirror (`../` from `nightly/` in it); "" if
    there is none, as for a registry: then pages show commands that fetch documents. `address`: the URL of the folder,
    for feed readers that do not support relative links; "" if unknown.

    Earlier files of the same run are replaced; a run before the latest one only gets its own page. Raises
    EnvironmentLacking `site-unwritable`, UsageError `product-name`, VerificationError `format-newer`.
    """
    files = SiteFiles(folder)
    products = _by_name(night)
    with files.locked():
        files.sweep()
        state = read_site_document(folder / "data" / "site.json", NO_STATE)
        night = with_unique_start(night, state.nights)
        summary, nights, gone = add_night(state.nights, summarize_night(night, headline(night)))
        value = _json(night)
        pages = dict(state.pages)
        inputs = _inputs(night, products, value, mirror)
        latest = nights[-1] is summary
        for name, group in products.items():
            if not _is_current(folder, name, group, inputs[name], pages):
                history = _update_history(files, name, group, night)
                if latest:
                    earlier = [one for one in nights if one is not summary]
                    compared = _write_compared(files, name, group, night=night, history=history, nights=earlier)
                    files.put(
                        f"{page_paths.product_folder(name)}/index.html",
                        _product_page(group, night, history, mirror, compared),
                    )
                    pages[name] = inputs[name]
        _write_night(files, night, summary, nights, value=value, address=address)
        for past in gone:
            files.remove(f"nights/{past.stamp}.html")
            files.remove(f"nights/{past.stamp}.json")
        # Last: a page is recorded only after it was written.
        files.put(
            "data/site.json",
            site_document_bytes(SiteState(STATE_FORMAT, nights, tuple(sorted(pages.items())))),
            keep=True,
        )
    return tuple(files.written)


def refuse_newer_site(folder: Path) -> None:
    """Raise VerificationError `format-newer` if a newer relbuild wrote the site in `folder`.

    To be called before a run whose pages could not be written.
    """
    path = folder / "data" / "site.json"
    with contextlib.suppress(
        OSError, ValueError, RecursionError
    ):  # A damaged file is handled when the pages are written.
        with path.open("rb") as file:
            raw = json.loads(file.read(FIGURES_LIMIT))
        if isinstance(raw, dict):
            refuse_newer(str(path), raw.get("format"), STATE_FORMAT)


def require_site_folder(folder: Path) -> None:
    """Refuse a folder with files that are no site's: pages would replace them.

    A site of any release has its history, or at least its lock. Hidden files, as a clone has them, are no obstacle.
    Raises UsageError `site-not-own`.
    """
    if any((folder / mark).is_file() for mark in ("data/site.json", SITE_LOCK)):
        return
    with contextlib.suppress(OSError):  # What cannot be listed is an error when the pages are written.
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if names:
            raise UsageError(
                "site-not-own",
                f"this folder has files that are no pages of nights, such as '{names[0]}'",
                place=str(folder),
                hint=f"give a new folder, such as --site {folder / 'nightly'}; "
                f"or, if pages may replace what is there, run: touch {folder / SITE_LOCK}",
            )


def _by_name(night: NightlyRun) -> Mapping[str, list[Product]]:
    grouped: dict[str, list[Product]] = {}
    for product in night.products:
        page_paths.product_folder(product.name)
        grouped.setdefault(product.name, []).append(product)
    return grouped


def _json(night: NightlyRun) -> dict[str, object]:
    value = to_json(night)
    assert isinstance(value, dict)
    return value


def _inputs(
    night: NightlyRun, products: Mapping[str, Sequence[Product]], value: Mapping[str, object], mirror: str
) -> Mapping[str, Digest]:
    """Return product → digest of all inputs of its page, without the history."""
    listed = value["products"]
    assert isinstance(listed, list)
    kept: dict[str, list[object]] = {name: [] for name in products}
    for product, one in zip(night.products, listed, strict=True):
        lasting = {key: inner for key, inner in one.items() if key not in _RUN_PAGE_FIELDS}
        kept[product.name] += [lasting, day_dependent_texts(product, night.ended), product.parent in products]
    templates = [Digest.of((_TEMPLATES / name).read_bytes()).hex for name in _PRODUCT_TEMPLATES]
    common = [PAGE_FORMAT, __version__, night.known_as, night.destination, bool(night.key), mirror, templates]
    return {name: Digest.of(json_bytes([common, inner])) for name, inner in kept.items()}


_PRODUCT_TEMPLATES = ("frame.html.j2", "parts.html.j2", "product.html.j2")


def _is_current(folder: Path, name: str, group: Sequence[Product], inputs: Digest, pages: Mapping[str, Digest]) -> bool:
    """Return whether a product's page exists and would be the same now."""
    return (
        all(product.run.outcome is Outcome.UNCHANGED for product in group)
        and pages.get(name) == inputs
        and (folder / page_paths.product_folder(name) / "index.html").exists()
    )


def _update_history(files: SiteFiles, name: str, group: Sequence[Product], night: NightlyRun) -> ProductHistory:
    """Add this run's figures to a product's history; write and return it."""
    file = page_paths.data_file(name)
    history = read_site_document(files.folder / file, NO_HISTORY)
    for product in group:
        history = history.with_point(product, night)
    files.put(file, site_document_bytes(history), keep=True)
    return history


def _product_page(
    group: Sequence[Product], night: NightlyRun, history: ProductHistory, mirror: str, compared: frozenset[str]
) -> bytes:
    from pipeline.site.page_templates import render_product_page

    return render_product_page(group, night, history, mirror, compared)


def _write_compared(
    files: SiteFiles,
    name: str,
    group: Sequence[Product],
    *,
    night: NightlyRun,
    history: ProductHistory,
    nights: Sequence[NightSummary],
) -> frozenset[str]:
    """Write the pages that compare new images with those before, and remove old ones.

    Returns the names of all that there are.
    """
    from pipeline.site.compare_page import image_before
    from pipeline.site.page_templates import render_compare_page

    kept: set[str] = set()
    for product in group:
        section = page_paths.section_id(product.platform, product.arch)
        digests = [point.digest for point in history.of(product)[-POINTS_SHOWN:] if point.digest is not None]
        kept |= {page_paths.compare_file(name, section, digest) for digest in digests}
        digest = product.published.digest
        if product.run.outcome is Outcome.BUILT and digest is not None:
            before = image_before(product, files.folder, nights)
            if before is not None:
                files.put(page_paths.compare_file(name, section, digest), render_compare_page(before, product, night))
    folder = page_paths.product_folder(name)
    for path in (files.folder / folder).glob("_*.html"):
        if f"{folder}/{path.name}" not in kept:
            files.remove(f"{folder}/{path.name}")
    return frozenset(path.name for path in (files.folder / folder).glob("_*.html"))


def _write_night(
    files: SiteFiles,
    night: NightlyRun,
    summary: NightSummary,
    nights: tuple[NightSummary, ...],
    *,
    value: Mapping[str, object],
    address: str,
) -> None:
    from pipeline.site.page_templates import render_find_page, render_night_page

    for name in (page_paths.STYLE, page_paths.ICON):
        files.put(name, (_TEMPLATES / name).read_bytes())
    if night.key:
        files.put(page_paths.KEY, night.key.encode(errors="replace"))
    data = json_bytes(value)
    files.put(f"nights/{summary.stamp}.json", data)
    files.put(f"nights/{summary.stamp}.html", render_night_page(night, nights, f"nights/{summary.stamp}.html"))
    if summary is nights[-1]:
        files.put(page_paths.NIGHT_JSON, data)
        files.put(page_paths.JUNIT, junit_xml(night))
        files.put(page_paths.SUMMARY, summary_markdown(night).encode())
        files.put(page_paths.FIND, render_find_page(night))
        files.put("index.html", render_night_page(night, nights, "index.html"))
    files.put(page_paths.FEED, atom_xml(nights, night.catalogue, night.known_as, address))
