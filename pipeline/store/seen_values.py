"""Sealed records of what was seen once and cannot be made again; they are never collected.

    results/seen/<hex>     sealed as any other result

They are what attacks and damage are recognised by, so to lose one weakens a protection:

- the last revision seen of a repository (`pipeline.repos.repository`): older metadata is refused;
- the highest number seen of each key on each tag (`pipeline.mirror.tag_memory`): a mirror that was rolled back is;
- the name of each mirror in a directory (`pipeline.mirror.backends.directory.mirror_marker`): another one is;
- the blobs that a registry returned corrupt (`pipeline.mirror.damage_memory`): its word for them does not count.

All other results are made or asked for again when they are missing. Earlier versions kept these records among them, in
`results/<xx>/`: one is moved when it is read, and `collect_garbage` leaves those that it may be.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.digest import Digest
from pipeline.store.authenticated_values import SealFault, read_small
from pipeline.store.content_store import Store
from pipeline.store.store_folders import READ_ONLY_ERRNOS

SEEN = "seen"
"""Name of the folder of these records below `results`."""

_EARLIER = re.compile(rb'[1-9][0-9]*|"[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._/-]+)?"')
"""Values of earlier versions' records: a revision or number; a mirror's name (a digest is none).

`true`, a corrupt blob, is not among them: far more results of other kinds have this value."""

_EARLIER_LIMIT = 1024
"""Bytes of an earlier version's record at the most."""


def seen_record(store: Store, identity: Digest) -> Path:
    """Return the path of a record, which need not exist."""
    return store.root / "results" / SEEN / identity.hex


def recall_seen(store: Store, identity: Digest) -> object | None:
    """Return the recorded JSON value for `identity`; None as `Store.recall`.

    One of an earlier version is moved to its place. It is newer if there are two: then both versions use the store.
    """
    path, earlier = seen_record(store, identity), store.result(identity)
    value = store.read_result(earlier, identity)
    if value is None:
        return store.read_result(path, identity)
    try:
        store.make_place(path.parent)
        earlier.rename(path)
    except FileNotFoundError:
        return store.read_result(path, identity)  # Another process has moved it, and may have recorded another value.
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:
            raise
    return value


def remember_seen(store: Store, identity: Digest, value: object) -> None:
    """Record a JSON value under `identity`, sealed, to be kept.

    A store that is not writable only warns.
    """
    recall_seen(store, identity)  # An earlier version's record must not count as the newer one.
    store.write_result(seen_record(store, identity), identity, value, sync=True)


def lasts(path: Path) -> bool:
    """Return whether the result at `path` is such a record, or may be one of an earlier version."""
    if path.parent.name == SEEN:
        return not path.is_symlink()
    data = read_small(path) if path.lstat().st_size <= _EARLIER_LIMIT else None
    if data is None or isinstance(data, SealFault):
        return False
    return _EARLIER.fullmatch(data.partition(b"\n")[2]) is not None
