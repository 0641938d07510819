"""Request all pages of a registry's list of tags or repositories, and yield the names.

distribution-spec 1.1, "Listing Tags".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.errors import VerificationError
from pipeline.mirror.backends.registry.registry_responses import (
    error_code,
    next_page,
    registry_refused,
    response_words,
)
from pipeline.oci.image_manifest import JsonReader
from pipeline.transfer import RegistryClient, Scope

NAMES_PER_PAGE = 1000
"""Tags or repositories that are requested per page."""

NAMES_MOST = 2_000_000
"""Names of a list: more than anybody keeps, and some 300 MiB of memory."""

NAME_PAGES_MOST = 2000
"""Pages of a list."""

NAME_PAGE_LIMIT = 32 << 20
"""Bytes of a page; some registries send all at once."""


def listed_names(
    client: RegistryClient, path: str, scopes: Sequence[Scope], key: str, place: str, *, required: bool = False
) -> Iterator[str]:
    """Request the list at `path` page by page and yield the names under its `key`.

    A list that does not exist is empty, unless it is `required`. Raises EnvironmentLacking, VerificationError.
    """
    url: str | None = f"{path}?n={NAMES_PER_PAGE}"
    seen: set[str] = set()
    count = 0
    while url is not None:
        if len(seen) >= NAME_PAGES_MOST:
            raise VerificationError(
                "registry-pages", f"the registry lists more than {NAME_PAGES_MOST} pages", place=place
            )
        response = client.ask("GET", url, scopes=scopes, limit=NAME_PAGE_LIMIT)
        seen.add(response.url)
        if response.status == 404 and not required and error_code(response) in {"NAME_UNKNOWN", ""}:
            return
        if response.status in {401, 403}:
            raise client.denied(scopes, response_words(response))
        if response.status != 200:
            raise registry_refused(response, f"list its {key}", place)
        count += response.body.count(b",") + 1  # Before they are read, which takes a hundred bytes for each.
        if count > NAMES_MOST:
            raise VerificationError("registry-pages", f"the list has more than {NAMES_MOST} names", place=place)
        yield from JsonReader.parse(response.body, f"{place}: {key}").get(key).texts()
        url = next_page(response, seen, place)
