"""The list of referrers that clients keep where a registry has no referrers API: an index under the tag `sha256-HEX`
(distribution-spec 1.1, "Referrers Tag Schema"). Pure functions on its bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.model.artifact import Manifest, Referrer
from pipeline.model.image import Descriptor
from pipeline.oci import media_types
from pipeline.oci.image import DOCUMENT_LIMIT, Reader, descriptor_json


def fallback_tag(subject: Digest) -> str:
    """The tag whose index lists what speaks of `subject`."""
    return f"sha256-{subject.hex}"


def subject_of(manifest: Manifest) -> Digest | None:
    """The digest that a manifest or index speaks of; None if it speaks of none."""
    subject = Reader.parse(manifest.data, "manifest").get("subject")
    return None if subject.missing else subject.descriptor().digest


def referrer_of(manifest: Manifest) -> Referrer:
    """How a manifest with a subject is listed: with its artifactType (of an image without one, the config's media
    type) and its annotations."""
    document = Reader.parse(manifest.data, "manifest")
    kind = document.get("artifactType").text("")
    config = document.get("config")
    if not kind and not config.missing:
        kind = config.get("mediaType").text("")
    notes = {key: value.text() for key, value in document.get("annotations").members().items()}
    plain = manifest.descriptor
    return Referrer(Descriptor(plain.media_type, plain.digest, plain.size, tuple(sorted(notes.items()))), kind)


def listed(data: bytes, place: str) -> tuple[Referrer, ...]:
    """The referrers that an index lists, each once, sorted by digest. Raises VerificationError."""
    found = {}
    for item in Reader.parse(data, place).get("manifests").items():
        descriptor = item.descriptor()
        found[descriptor.digest] = Referrer(descriptor, item.get("artifactType").text(""))
    return tuple(found[digest] for digest in sorted(found))


def merge(index: Manifest | None, add: Sequence[Referrer] = (), drop: Sequence[Digest] = ()) -> Manifest:
    """The index with `add` listed and `drop` not. What others wrote is carried as it is; entries are sorted by
    digest, so that writers who know the same referrers write the same bytes.

    Raises VerificationError `document-malformed`, or `referrers-too-many` when no registry would take it.
    """
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": media_types.INDEX}
    entries: dict[Digest, object] = {}
    if index is not None:
        listed(index.data, "the index of referrers")  # raises if it is none
        document |= json.loads(index.data)
        for entry in json.loads(index.data).get("manifests") or []:
            entries[Digest.parse(entry["digest"])] = entry
    for one in add:
        entries[one.descriptor.digest] = {**descriptor_json(one.descriptor), "artifactType": one.artifact_type}
    document["manifests"] = [entries[digest] for digest in sorted(entries) if digest not in drop]
    merged = Manifest(media_types.INDEX, canonical_json(document))
    if len(merged.data) > DOCUMENT_LIMIT:
        raise VerificationError(
            "referrers-too-many",
            f"the list of referrers would have {len(merged.data)} bytes, more than the {DOCUMENT_LIMIT} of a manifest",
            hint="remove referrers that nobody needs, or use a registry with the referrers API",
        )
    return merged
