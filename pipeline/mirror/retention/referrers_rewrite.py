"""Rebuild referrers indexes of fallback tags without the manifests that pruning removes.

The caller writes them.
"""

from __future__ import annotations

import json
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.mirror.protocol import Mirror
from pipeline.mirror.references import listed_referrers
from pipeline.mirror.retention.pruning import PruningPlan, ReferrersUpdate
from pipeline.model.manifests import Manifest


def add_rebuilt_indexes(
    plan: PruningPlan, mirror: Mirror
) -> tuple[PruningPlan, tuple[tuple[ReferrersUpdate, Manifest], ...]]:
    """Rebuild each index of `plan.relisted`; return the plan without removing these, and them.

    A rebuilt index can be one that the mirror has already, from an earlier time, and that the plan would remove. Raises
    as the mirror does.
    """
    rebuilt = []
    for update in plan.relisted:
        index = mirror.repository(update.repository).manifest(update.present)
        if index is not None:
            rebuilt.append((update, remove_referrers(index, update.without)))
    needed = {(update.repository, index.digest) for update, index in rebuilt}
    left = tuple(one for one in plan.manifests if (one.repository, one.digest) not in needed)
    return replace(plan, manifests=left), tuple(rebuilt)


def remove_referrers(index: Manifest, without: tuple[Digest, ...]) -> Manifest:
    """Return a referrers index without some of its entries; everything else in it is kept.

    Raises VerificationError if `index` is not a referrers index.
    """
    listed_referrers(index)  # raises
    document = json.loads(index.data)
    removed = {str(digest) for digest in without}
    document["manifests"] = [entry for entry in document.get("manifests") or () if entry["digest"] not in removed]
    data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Manifest(index.media_type, data.encode())
