"""Keep unpacked layers and other trees under their seals, and find unchanged ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import DiffId
from pipeline.lazy_dataclasses import dataclass
from pipeline.store.last_use import record_use
from pipeline.store.store_sealers import StoreSealers
from pipeline.store.tree_seals import (
    TREE_ROOT,
    TREE_SEAL_FILE,
    content_digest,
    hash_tree_files,
    read_seal,
    tree_holds,
    write_seal,
)

if TYPE_CHECKING:
    from pipeline.store.content_store import Store


@dataclass(frozen=True, slots=True)
class UnpackedTrees:
    """The unpacked trees of a store (`Store.trees`), each in a folder with its seal.

    A layer's tree is named by its diff_id.
    """

    store: Store
    sealers: StoreSealers

    def path(self, name: DiffId | str) -> Path:
        """Return the folder of an unpacked layer or other tree, whose root is `root/` in it.

        The folder exists only when the tree is complete.
        """
        return self.store.root / "trees" / (name if isinstance(name, str) else name.hex)

    def keep(
        self,
        folder: Path,
        name: DiffId | str,
        content: Mapping[str, str] | None = None,
        over: DiffId | None = None,
    ) -> Path:
        """Seal a complete tree (`folder`/root, in a temporary folder) and move it to its place.

        The first to finish wins. `content`: path → sha256 of each of its files, where the caller knows them. `over`:
        the whole tree, kept here too, that this one changes when it is mounted over it.
        """
        target = self.path(name)
        found = content if content is not None else hash_tree_files(folder / TREE_ROOT)
        sealer = self.sealers.made("tree")
        write_seal(folder, target.name, content_digest(found), sealer, over=over.hex if over else "")
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
            shutil.rmtree(folder)
        return target

    def kept(self, name: DiffId | str) -> Path | None:
        """Return the folder of an unchanged whole tree, or None.

        A changed one is removed; one over another tree is left where it is.
        """
        folder = self.path(name)
        return folder if self._over(folder) == "" else None

    def kept_stack(self, name: DiffId) -> tuple[Path, ...] | None:
        """Return the folders of an unchanged tree, the whole one first; None if missing.

        A changed one is removed, and so is one whose lower tree is gone.
        """
        folder = self.path(name)
        over = self._over(folder)
        if not over:
            return None if over is None else (folder,)
        with self.store.locked(f"tree-{over}"):
            below = self.path(over)
            if self._over(below) == "":
                return below, folder
        self._remove(folder)
        return None

    def _over(self, folder: Path) -> str | None:
        """Return the name of the tree below an unchanged one, "" for a whole one; None if missing.

        A changed one is removed.
        """
        if not os.path.lexists(folder):
            return None
        if self.holds(folder):
            sealed = read_seal(folder, folder.name, self.sealers.known("tree"))
            if sealed is not None:
                return sealed.over
        self.store.tell(f"an unpacked layer was changed after the store wrote it, and is unpacked again: {folder}")
        self._remove(folder)
        return None

    def _remove(self, folder: Path) -> None:
        with self.store.temporary("damaged") as aside:
            folder.rename(aside / "tree")

    def holds(self, folder: Path, *, reading: bool = False) -> bool:
        """Return whether a tree is unchanged since it was sealed; `reading`: hash every file."""
        holds = tree_holds(folder, folder.name, self.sealers.known("tree"), reading=reading)
        if holds and not reading:
            record_use(folder / TREE_SEAL_FILE)
        return holds
