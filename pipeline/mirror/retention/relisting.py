"""Lists of referrers that stay, written anew without what goes."""

from __future__ import annotations

import json
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.mirror.protocol import Mirror
from pipeline.mirror.references import listed_referrers
from pipeline.mirror.retention.pruning import PruningPlan, ReferrersUpdate
from pipeline.model.manifests import Manifest


def with_lists(plan: PruningPlan, mirror: Mirror) -> tuple[PruningPlan, tuple[tuple[ReferrersUpdate, Manifest], ...]]:
    """Return the plan adapted to its rewritten lists of referrers, and those lists.

    Such a list may have been there before, and lie among what goes. Raises as the mirror does.
    """
    lists = []
    for relisting in plan.relisted:
        index = mirror.repository(relisting.repository).manifest(relisting.present)
        if index is not None:
            lists.append((relisting, relisted(index, relisting.without)))
    needed = {(relisting.repository, index.digest) for relisting, index in lists}
    left = tuple(one for one in plan.manifests if (one.repository, one.digest) not in needed)
    return replace(plan, manifests=left), tuple(lists)


def relisted(index: Manifest, without: tuple[Digest, ...]) -> Manifest:
    """A list of referrers without some of them, and all else that is in it as it is."""
    listed_referrers(index)  # raises VerificationError if it is none
    document = json.loads(index.data)
    gone = {str(digest) for digest in without}
    document["manifests"] = [entry for entry in document.get("manifests") or () if entry["digest"] not in gone]
    data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Manifest(index.media_type, data.encode())
