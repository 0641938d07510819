"""The store: content-addressed files, remembered results, unpacked trees.

The only door to its directory.

    blobs/<hex>            any bytes by digest: RPMs, segments, layers, configs, manifests
    results/<xx>/<hex>     small JSON results by identity: "these inputs came to this", each in a sealed envelope
    trees/<name>/          layers unpacked once per diff_id, and rpm's Lua (`root/` and the seal on it)
    metadata/              downloads under way
    locks/                 one file per name that is locked
    users/                 one file for each process that uses the store
    quarantine/            what was damaged, for people to look at
    tmp/                   work in flight; what a killed process left is removed by the next
    key                    what the store seals with

A thing in the store is absent or whole: everything is written under `tmp/`, synced and renamed. Nothing in it is
believed because it stands there: a result and a tree by their seal, a blob by its digest, which is computed anew
unless the seal says that it was and that the file was not touched since. What does not hold is a miss: told of, put
into quarantine, and made or fetched again. See docs/decisions/0017.
"""

from pipeline.store.blobs import BlobWriter, copy_into
from pipeline.store.content_store import Store
from pipeline.store.durable_files import (
    failing_at,
    sync_file,
    sync_folder,
    write_durably,
)
from pipeline.store.maintenance import (
    Damage,
    GarbageCollected,
    StoreChecked,
    check_store,
    collect_garbage,
    store_usage,
)
from pipeline.store.seal_key import KEY_FILE_VARIABLE, KEY_VARIABLE, given_key

__all__ = [
    "KEY_FILE_VARIABLE",
    "KEY_VARIABLE",
    "BlobWriter",
    "Damage",
    "GarbageCollected",
    "Store",
    "StoreChecked",
    "check_store",
    "collect_garbage",
    "copy_into",
    "failing_at",
    "given_key",
    "store_usage",
    "sync_file",
    "sync_folder",
    "write_durably",
]
