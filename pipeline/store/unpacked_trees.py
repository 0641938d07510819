"""Keep unpacked layers and other trees under their seals, and find unchanged ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.beneath import is_there
from pipeline.digest import DiffId, Digest, identity
from pipeline.lazy_dataclasses import dataclass
from pipeline.store.last_use import record_use
from pipeline.store.store_sealers import StoreSealers
from pipeline.store.tree_seals import (
    TREE_ROOT,
    TREE_SEAL_FILE,
    TreeFault,
    content_digest,
    hash_tree_files,
    is_foreign_seal,
    read_seal,
    tree_fault,
    write_seal,
)

if TYPE_CHECKING:
    from pipeline.store.content_store import Store


OVER_EARLIER = "-over"
"""End of the name of a layer's tree that is mounted over that of an earlier layer."""


@dataclass(frozen=True, slots=True)
class UnpackedTrees:
    """The unpacked trees of a store (`Store.trees`), each in a folder with its seal.

    A layer's whole tree is named by its diff_id. One over an earlier layer's has another name, so that the whole one
    can be made beside it while it is mounted.
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
        if over is not None:
            target = target.with_name(f"{target.name}{OVER_EARLIER}")
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
        """Return the folder of an unchanged whole tree, or None. A changed one is removed."""
        folder = self.path(name)
        return folder if self._over(folder, whole=True) is not None else None

    def kept_stack(self, name: DiffId) -> tuple[Path, ...] | None:
        """Return the folders of a layer's unchanged tree, the lower first; None if missing.

        That is a whole one, or one over an earlier layer's. A changed one is removed, and so is one whose lower tree is
        gone. The caller has the layer's lock.
        """
        whole = self.kept(name)
        if whole is not None:
            return (whole,)
        folder = self.path(f"{name.hex}{OVER_EARLIER}")
        over = self._over(folder, whole=False)
        if over is None:
            return None
        # Its lock only if it is there, which the layer's own whole tree is not: nobody waits in a circle.
        if os.path.lexists(self.path(over)):
            with self.store.locked(f"tree-{over}"):
                below = self.kept(over)
            if below is not None:
                return below, folder
        self._remove(folder)
        return None

    def _over(self, folder: Path, *, whole: bool) -> str | None:
        """Return the name of the tree below an unchanged one, "" for a whole one; None if missing.

        One that was changed, or is not `whole` as it should be, is removed.
        """
        if not os.path.lexists(folder):
            return None
        if self.holds(folder):
            sealed = read_seal(folder, folder.name, self.sealers.known("tree"))
            if sealed is not None and whole == (not sealed.over):
                return sealed.over
        self.store.tell(f"an unpacked layer was changed after the store wrote it, and is unpacked again: {folder}")
        self._remove(folder)
        return None

    def reads_back(self, name: DiffId | str) -> bool:
        """Return whether all files of a tree, if any, are what was sealed; remove a damaged one."""
        folder = self.path(name)
        if not os.path.lexists(folder) or self.holds(folder, reading=True):
            return True
        self._remove(folder)
        return False

    def damages(self, diff_id: DiffId) -> int:
        """Return how often the disk had changed the content of a layer's tree.

        To be part of the identity of what is made on trees: what was made on a damaged one counts no more, however
        late that is found. The log of reads gets the place of the next damage.
        """
        number = 0
        while is_there(mark := self._damage_mark(diff_id.hex, number)):
            record_use(mark)
            number += 1
        return number

    def _note_damage(self, name: str) -> None:
        """Note a damaged tree for its layer, and for those whose trees are mounted over it."""
        found = {name}
        for folder in (self.store.root / "trees").glob(f"*{OVER_EARLIER}"):
            sealed = read_seal(folder, folder.name, self.sealers.known("tree"))
            if sealed is not None and sealed.over == name:
                found.add(folder.name)
        for one in sorted(found):
            layer, number = one.removesuffix(OVER_EARLIER), 0
            while os.path.lexists(self._damage_mark(layer, number)):
                number += 1
            self.store.remember(_damage(layer, number), number)

    def _damage_mark(self, layer: str, number: int) -> Path:
        return self.store.result(_damage(layer, number))

    def _remove(self, folder: Path) -> None:
        with self.store.temporary("damaged") as aside:
            folder.rename(aside / "tree")

    def holds(self, folder: Path, *, reading: bool = False) -> bool:
        """Return whether a tree is unchanged since it was sealed; `reading`: hash every file."""
        fault = tree_fault(folder, folder.name, self.sealers.known("tree"), reading=reading)
        if fault is TreeFault.DAMAGED and os.path.lexists(folder):  # Else it was garbage-collected meanwhile.
            self._note_damage(folder.name)
        if fault is None and not reading:
            record_use(folder / TREE_SEAL_FILE)
        return fault is None

    def is_foreign(self, folder: Path) -> bool:
        """Return whether a tree was sealed with another key than this store's."""
        return is_foreign_seal(folder, folder.name, self.sealers.known("tree"))


def _damage(layer: str, number: int) -> Digest:
    """Return the name of the result that notes a damage of a layer's tree, each another one."""
    return identity("tree-damage", 1, layer=layer, number=number)
