"""Compute a referrers index with entries added or dropped, where there is no referrers API.

There, clients maintain it under the tag `sha256-HEX` (distribution-spec 1.1, "Referrers Tag Schema").
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.mirror.references import listed_referrers
from pipeline.model.manifests import Manifest, Referrer
from pipeline.oci import media_types
from pipeline.oci.image_manifest import DOCUMENT_LIMIT, descriptor_json


def merge_referrers(index: Manifest | None, add: Sequence[Referrer] = (), drop: Sequence[Digest] = ()) -> Manifest:
    """Return `index` (None: an empty one) with the entries `add` and without `drop`.

    Other clients' entries are kept as they are; entries are sorted by digest, so that writers who know the same
    referrers write the same bytes.

    Raises VerificationError `document-malformed`, or `referrers-too-many` if it is too large for a manifest.
    """
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": media_types.INDEX}
    entries: dict[Digest, object] = {}
    if index is not None:
        listed_referrers(index)  # raises if it is malformed
        known = json.loads(index.data)
        document |= known
        for entry in known.get("manifests") or []:
            entries[Digest.parse(entry["digest"])] = entry
    for one in add:
        entries[one.descriptor.digest] = {**descriptor_json(one.descriptor), "artifactType": one.artifact_type}
    document["manifests"] = [entries[digest] for digest in sorted(entries) if digest not in drop]
    try:
        merged = Manifest(media_types.INDEX, canonical_json(document))
    except (ValueError, TypeError, RecursionError) as error:  # other clients' entries may have fractions
        raise VerificationError("document-malformed", "the list of referrers cannot be updated") from error
    if len(merged.data) > DOCUMENT_LIMIT:
        raise VerificationError(
            "referrers-too-many",
            f"the list of referrers would have {len(merged.data)} bytes, more than the {DOCUMENT_LIMIT} of a manifest",
            hint="remove unneeded referrers, or use a registry with the referrers API",
        )
    return merged
