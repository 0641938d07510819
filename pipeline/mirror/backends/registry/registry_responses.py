"""Read a registry's HTTP responses: errors, digests, manifests, links to the next page.

distribution-spec 1.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, PublicationRefused, VerificationError
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.oci.image_manifest import JsonReader
from pipeline.transfer import RegistryResponse
from pipeline.urls import join_url, parse_url, shown_url

MANIFEST_TYPES = (
    media_types.INDEX,
    media_types.MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""Manifest media types for the Accept header: a registry may return only those that are listed."""

WORDS_LIMIT = 300
"""Characters of a registry's error message that are repeated in ours."""

_KEEPS_TAGS = frozenset({400, 401, 403, 405, 409, 412})
_IMMUTABLE = re.compile(r"(?i)immutab|cannot be overwritten|already exists and can(not|'t) be")
_NEXT = re.compile(r'<([^<>]{1,4096})>\s*;\s*rel="?next"?')


def error_code(response: RegistryResponse) -> str:
    """Return the code of a response's first error (`MANIFEST_UNKNOWN` …); "" if there is none."""
    return _first_error(response)[0]


def response_words(response: RegistryResponse) -> str:
    """Return a response's status and error message, bounded, on one line."""
    code, message = _first_error(response)
    text = " ".join(word for word in (str(response.status), code, message) if word)
    return "".join(sign if sign.isprintable() else "?" for sign in text[:WORDS_LIMIT])


def _first_error(response: RegistryResponse) -> tuple[str, str]:
    try:
        first = json.loads(response.body)["errors"][0]
        code, message = first.get("code"), first.get("message")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
    return code if isinstance(code, str) else "", message if isinstance(message, str) else ""


def keeps_tags(response: RegistryResponse) -> bool:
    """Return whether a registry refuses a manifest because it never moves a tag.

    The specification has no code for it. Harbor answers 412 or 403, Amazon's registry 400, others 409, each with words
    of the tag's immutability.
    """
    return response.status in _KEEPS_TAGS and _IMMUTABLE.search(response_words(response)) is not None


def tag_kept(response: RegistryResponse, tag: str, place: str) -> PublicationRefused:
    """Make the error of a registry that never moves a tag that exists."""
    return PublicationRefused(
        "registry-tag-immutable",
        f"the registry never moves tag '{tag}', which exists: {response_words(response)}",
        place=place,
        hint="let the registry's settings for this repository allow that tags move, at least floating ones, or choose "
        "another tag",
    )


def registry_refused(response: RegistryResponse, what: str, place: str) -> EnvironmentLacking:
    """Make the error of a response with an unexpected status.

    `what` completes "the registry refused to …".
    """
    return EnvironmentLacking(
        "registry-refused",
        f"the registry refused to {what}: {response_words(response)}",
        place=place,
        hint="if the reason is unclear, ask the registry's administrator",
    )


def promised_digest(response: RegistryResponse) -> Digest | None:
    """Return the digest in a response's Docker-Content-Digest header.

    None if there is none, or it is not sha256.
    """
    try:
        return Digest.parse(response.header("docker-content-digest"))
    except VerificationError:
        return None


def require_digest(response: RegistryResponse, digest: Digest, place: str) -> None:
    """Check that a response's Docker-Content-Digest header, if it has one, is `digest`.

    Raises VerificationError `registry-digest`.
    """
    named = promised_digest(response)
    if named not in {None, digest}:
        raise VerificationError("registry-digest", f"the registry reports the digest {named} for {digest}", place=place)


def response_manifest(response: RegistryResponse, wanted: Digest | None, place: str) -> Manifest:
    """Return the manifest in a response, verified.

    Raises VerificationError when its digest is neither the `wanted` nor the header's one, or its Content-Type differs
    from its own `mediaType`.
    """
    manifest = Manifest(response.header("content-type").partition(";")[0].strip().lower(), response.body)
    if wanted is not None and manifest.digest != wanted:
        raise VerificationError(
            "registry-digest", f"the registry returned {manifest.digest} instead of {wanted}", place=place
        )
    require_digest(response, manifest.digest, place)
    try:
        own = JsonReader.parse(manifest.data, place).get("mediaType").text("") or None
    except VerificationError:
        raise VerificationError(
            "manifest-malformed", "the registry returned an invalid manifest", place=place
        ) from None
    if own is not None and own != manifest.media_type:
        raise VerificationError(
            "manifest-type",
            f"the registry returned a manifest of type {own!r:.200} with the Content-Type {manifest.media_type!r:.200}",
            place=place,
        )
    return manifest


def next_page(response: RegistryResponse, seen: Collection[str], place: str) -> str | None:
    """Return the URL of the next page from the Link header (RFC 8288), or None.

    Raises VerificationError `registry-pages` when it is among `seen` or of another origin than the registry.
    """
    link = _NEXT.search(response.header("link"))
    if link is None:
        return None
    target = join_url(response.url, str(link[1]))
    here, there = parse_url(response.url), parse_url(target)
    if target in seen or here is None or there is None or there.origin != here.origin:
        raise VerificationError("registry-pages", f"invalid Link to the next page: {shown_url(link[1])!r}", place=place)
    return target
