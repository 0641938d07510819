"""The writer of a site: its history is updated, then the pages that changed are made.

What is remembered is brought up to date, then every page is made from which something changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from pipeline import __version__
from pipeline.digest import Digest
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
from pipeline.site.site_files import SiteFiles
from pipeline.site.site_history import (
    FIGURES_LIMIT,
    NO_HISTORY,
    NO_STATE,
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

PAGE_FORMAT = 1
"""Version of what the code makes of a product's page. Raise it when a page would be another from the same night."""

_OF_THE_NIGHT = frozenset(one.name for one in fields(ProductRun)) - {"failure"}
"""What is told of a product on the night's page alone: the product's own page is the same as long as nothing happened
to the product, and shows besides why there is no newer image."""

_TEMPLATES = Path(__file__).with_name("templates")


def write_site(night: NightlyRun, folder: Path, *, mirror: str = "../", address: str = "") -> tuple[Path, ...]:
    """Write the site of a night into `folder`, which is made if it is missing.

    Returns the files that changed.

    `mirror` leads from the folder to the root of the directory mirror that was published to (`../` from `nightly/` in
    it); "" if no link leads there, as to a registry: then pages say what command fetches a document. `address` is the
    URL of the folder, for feed readers that do not know relative links; "" if it is not known.

    What was written of the same run is replaced; a night from before the last only gets a page of its own. Raises
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
            if not _is_made(folder, name, group, inputs[name], pages):
                history = _brought_up(files, name, group, night)
                if latest:
                    _write_product(files, name, group, night=night, history=history, mirror=mirror)
                    pages[name] = inputs[name]
        _write_night(files, night, summary, nights, value=value, address=address)
        for past in gone:
            files.remove(f"nights/{past.stamp}.html")
            files.remove(f"nights/{past.stamp}.json")
        # Last: a page is noted as made only when it stands there.
        files.put(
            "data/site.json",
            site_document_bytes(SiteState(STATE_FORMAT, nights, tuple(sorted(pages.items())))),
            keep=True,
        )
    return tuple(files.written)


def refuse_newer_site(folder: Path) -> None:
    """Refuse to begin a night whose pages could not be written.

    A newer relbuild wrote what stands in `folder`.

    Raises VerificationError `format-newer`.
    """
    path = folder / "data" / "site.json"
    with contextlib.suppress(
        OSError, ValueError, RecursionError
    ):  # What is damaged is dealt with when pages are written.
        with path.open("rb") as file:
            raw = json.loads(file.read(FIGURES_LIMIT))
        if isinstance(raw, dict):
            refuse_newer(str(path), raw.get("format"), STATE_FORMAT)


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
    """For each product, the digest of all that its page is made from, but the history."""
    listed = value["products"]
    assert isinstance(listed, list)
    kept: dict[str, list[object]] = {name: [] for name in products}
    for product, one in zip(night.products, listed, strict=True):
        lasting = {key: inner for key, inner in one.items() if key not in _OF_THE_NIGHT}
        kept[product.name] += [lasting, day_dependent_texts(product, night.ended), product.parent in products]
    templates = [Digest.of((_TEMPLATES / name).read_bytes()).hex for name in _PRODUCT_TEMPLATES]
    common = [PAGE_FORMAT, __version__, night.known_as, night.destination, bool(night.key), mirror, templates]
    return {name: Digest.of(json_bytes([common, inner])) for name, inner in kept.items()}


_PRODUCT_TEMPLATES = ("frame.html.j2", "parts.html.j2", "product.html.j2")


def _is_made(folder: Path, name: str, group: Sequence[Product], inputs: Digest, pages: Mapping[str, Digest]) -> bool:
    """Return whether a product's page stands there and would come out the same now."""
    return (
        all(product.run.outcome is Outcome.UNCHANGED for product in group)
        and pages.get(name) == inputs
        and (folder / page_paths.product_folder(name) / "index.html").exists()
    )


def _brought_up(files: SiteFiles, name: str, group: Sequence[Product], night: NightlyRun) -> ProductHistory:
    """A product's history with what this night measured."""
    file = page_paths.data_file(name)
    history = read_site_document(files.folder / file, NO_HISTORY)
    for product in group:
        history = history.with_point(product, night)
    files.put(file, site_document_bytes(history), keep=True)
    return history


def _write_product(
    files: SiteFiles, name: str, group: Sequence[Product], *, night: NightlyRun, history: ProductHistory, mirror: str
) -> None:
    from pipeline.site.page_templates import render_product_page

    files.put(f"{page_paths.product_folder(name)}/index.html", render_product_page(group, night, history, mirror))


def _write_night(
    files: SiteFiles,
    night: NightlyRun,
    summary: NightSummary,
    nights: tuple[NightSummary, ...],
    *,
    value: Mapping[str, object],
    address: str,
) -> None:
    from pipeline.site.page_templates import render_night_page

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
        files.put("index.html", render_night_page(night, nights, "index.html"))
    files.put(page_paths.FEED, atom_xml(nights, night.catalogue, night.known_as, address))
