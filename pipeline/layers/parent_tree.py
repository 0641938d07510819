"""Read the tree and the accounts of a finished image, for an image that is built from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.errors import BuildError
from pipeline.layers.account_numbers import final_accounts
from pipeline.layers.unpack_layer import layer_members
from pipeline.model.accounts import AccountTable
from pipeline.model.image import Layer
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.store import Store
from pipeline.trees import apply_layer_entries

_ACCOUNT_FILES = ("etc/passwd", "etc/group")
_ACCOUNT_FILE_LIMIT = 4 << 20
"""Bytes of either: thousands of accounts."""


def parent_tree_and_accounts(
    lower: Tree, last: Layer, accounts: AccountTable, *, store: Store
) -> tuple[Tree, AccountTable]:
    """Return the tree and the accounts of a whole image.

    `lower` is the tree of its layers but the `last`, `accounts` those that the last one began with. Raises
    VerificationError as `layer_entries` does, BuildError `accounts-too-large`.
    """
    texts: dict[str, str] = {}
    tree = apply_layer_entries(lower, _with_contents(last, texts, store))
    return tree, final_accounts(accounts, *(texts.get(path) for path in _ACCOUNT_FILES))


def _with_contents(layer: Layer, texts: dict[str, str], store: Store) -> Iterator[Entry]:
    """Yield the entries of a layer, files with their digests.

    The contents of `/etc/passwd` and `/etc/group` are put into `texts`.
    """
    for member in layer_members(layer, store=store):
        entry = member.entry
        if entry.kind is not EntryKind.FILE:
            yield entry
            continue
        found = hashlib.sha256()
        kept = bytearray()
        for piece in member.pieces():
            found.update(piece)
            if entry.path in _ACCOUNT_FILES:
                kept += piece
                if len(kept) > _ACCOUNT_FILE_LIMIT:
                    raise BuildError("accounts-too-large", f"/{entry.path} has more than {_ACCOUNT_FILE_LIMIT} bytes")
        if entry.path in _ACCOUNT_FILES:
            texts[entry.path] = kept.decode(errors="replace")
        yield replace(entry, content=Digest(found.hexdigest()))
