"""The store, relbuild's cache directory: blobs by digest, cached results, unpacked trees.

No other code reads or writes the directory.

    blobs/<hex>            any bytes by digest: RPMs, segments, layers, configs, manifests
    results/<xx>/<hex>     cached JSON results by the identity (digest) of their inputs, each with a seal (HMAC)
    results/seen/<hex>     sealed records of what was seen once and cannot be made again (`seen_values`)
    trees/<name>/          layers by diff_id (`-over`: one to mount over an earlier one), rpm's Lua; `root/`, seal
    metadata/              downloads in progress
    locks/                 one file per name that is locked
    sandbox/               running sandboxes (`pipeline.sandbox`)
    instances/             instances that people run (`pipeline.instances`)
    volumes/               volumes that outlive their instances
    users/                 one file for each process that uses the store
    quarantine/            damaged files, which people can examine
    tmp/                   temporary files; those of killed processes are removed by the next process
    key                    the HMAC key of the seals

Files are absent or complete: everything is written under `tmp/`, synced and renamed. Nothing is trusted because it is
there: results and trees are authenticated by their seals; a blob is hashed, unless a sealed result says that it was and
its file is unchanged. What fails is a cache miss: it is reported, moved to quarantine, and made or fetched again. See
docs/decisions/0017.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.store.blob_follower import BlobFollower
    from pipeline.store.blobs import BlobWriter, Stamp, copy_into, status_stamp
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
    from pipeline.store.seen_values import recall_seen, remember_seen, seen_record
    from pipeline.store.store_folders import cache_folder, ignored_cache_warning, require_outside_stores
    from pipeline.store.unnamed_copies import UnnamedCopies, UnnamedCopy

__all__ = [
    "KEY_FILE_VARIABLE",
    "KEY_VARIABLE",
    "BlobFollower",
    "BlobWriter",
    "Damage",
    "GarbageCollected",
    "Stamp",
    "Store",
    "StoreChecked",
    "UnnamedCopies",
    "UnnamedCopy",
    "cache_folder",
    "check_store",
    "collect_garbage",
    "copy_into",
    "failing_at",
    "given_key",
    "ignored_cache_warning",
    "recall_seen",
    "remember_seen",
    "require_outside_stores",
    "seen_record",
    "status_stamp",
    "store_usage",
    "sync_file",
    "sync_folder",
    "write_durably",
]
