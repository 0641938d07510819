"""Make the Atom feed (RFC 4287) of nightly runs.

It has an entry for each run, and for each product that failed, is blocked, or was built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID, uuid5

from pipeline.escaping import strip_invisible
from pipeline.model.night_record import Outcome
from pipeline.site.markup import attributes, text
from pipeline.site.page_paths import FEED, product_folder
from pipeline.site.site_history import NightSummary, ProductNews
from pipeline.site.text_format import (
    count_text,
    day_text,
    iso_text,
    span_text,
)

FEED_ENTRIES_LIMIT = 200
"""Entries of a feed, at most: readers keep older ones."""

_OURS = UUID("8f6d7f0e-6f0b-5a57-9a41-0f8b3f3cf0b7")
"""UUID namespace of the entries' identifiers, which do not depend on where and by whom the feed is made."""

_SAID = {Outcome.FAILED: "failed", Outcome.BLOCKED: "is blocked", Outcome.BUILT: "was built"}


def atom_xml(nights: Sequence[NightSummary], catalogue: str, known_as: str, address: str = "") -> bytes:
    """Return the Atom feed of `nights`, at least one, oldest first.

    `catalogue` and `known_as` are the runs', and part of the feed's identifier. `address`: the URL of the site's
    folder, to which links are relative; "": to the feed's own URL.
    """
    base = attributes(**{"xml:base": address}) if address else ""
    entries = [entry for summary in reversed(nights) for entry in _entries(summary, catalogue, known_as)]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="en"{base}>',
            f"<id>{_id(catalogue, known_as)}</id>",
            f"<title>Nights of {text(catalogue)} for {text(known_as)}</title>",
            f"<updated>{iso_text(nights[-1].ended)}</updated>",
            "<author><name>relbuild</name></author>",
            f'<link rel="self" type="application/atom+xml" href="{FEED}"/>',
            '<link rel="alternate" type="text/html" href="index.html"/>',
            *entries[:FEED_ENTRIES_LIMIT],
            "</feed>",
            "",
        ]
    ).encode()


def _entries(summary: NightSummary, catalogue: str, known_as: str) -> Iterator[str]:
    page = f"nights/{summary.stamp}.html"
    tally = ", ".join(f"{summary.count(outcome)} {outcome}" for outcome in Outcome if summary.count(outcome))
    said = f"{tally or 'no products'}; took {span_text(summary.ended - summary.began)}, exit code {summary.exit_code}."
    if summary.exceeded:
        said += f" Past the threshold: {count_text(summary.exceeded, 'missing fix')}."
    identifier = _id(catalogue, known_as, str(summary.began))
    title = f"{summary.headline} ({day_text(summary.began)})"
    yield _entry(summary, identifier, title, link=page, said=said, category="night")
    for item in summary.items:
        identifier = _id(catalogue, known_as, str(summary.began), item.name, item.platform, item.arch)
        link = f"{product_folder(item.name)}/index.html"
        told = item.said or "No version."
        yield _entry(summary, identifier, _title(item), link=link, said=told, category=str(item.outcome))


def _title(item: ProductNews) -> str:
    variant = " ".join(part for part in (item.platform, item.arch) if part)
    version = f": {item.said}" if item.outcome is Outcome.BUILT and item.said else ""
    return f"{item.name} ({variant}) {_SAID[item.outcome]}{version}"


def _entry(summary: NightSummary, identifier: str, title: str, *, link: str, said: str, category: str) -> str:
    return (
        f"<entry><id>{identifier}</id><title>{text(title)}</title><updated>{iso_text(summary.ended)}</updated>"
        f"<published>{iso_text(summary.ended)}</published>"
        f"<link{attributes(rel='alternate', type='text/html', href=link)}/><category{attributes(term=category)}/>"
        f"<content>{text(said)}</content></entry>"
    )


def _id(*names: str) -> str:
    return f"urn:uuid:{uuid5(_OURS, chr(0).join(strip_invisible(name) for name in names))}"
