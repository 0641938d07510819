"""The store: content-addressed files, remembered results, unpacked trees. The only door to its directory.

    blobs/<hex>            any bytes by digest: RPMs, segments, layers, configs, manifests
    results/<xx>/<hex>     small JSON results by identity: "these inputs came to this"
    trees/<hex>/           layers unpacked once per diff_id (`root/` and what was recorded of it)
    metadata/              what `pipeline.repos` keeps of repositories
    locks/                 one file per name that is locked
    tmp/                   work in flight; what a killed process left is removed by the next

A thing in the store is absent or whole: everything is written under `tmp/` and renamed. Nothing is synced
to disk at once, so a power cut can lose or damage what was just written; every reader verifies the digest
of what it uses, and `fsck` finds the rest.
"""

from pipeline.store.content import BlobWriter, Store, copy_into

__all__ = ["BlobWriter", "Store", "copy_into"]
