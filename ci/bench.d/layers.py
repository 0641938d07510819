"""Packing of layers alone, against the machine's limit in the same turn."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import limit
from product import DEFAULT, Relbuild, emptied
from turns import ROOT, Goal, Section, Session, run

OURS, LIMIT, PACK = "relbuild", "limit", "package layers"
MOST = Goal(1.25)


def measure(session: Session) -> None:
    """Pack both ways in each turn, from packages that are fetched and verified, into a store without them."""
    mine = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT))
    prepared = session.folder / "prepared"
    packed(mine.recipe, prepared, "gzip", "prepare")
    for _ in session.turns():
        for codec in ("gzip", "zstd"):
            with emptied(session.folder, "store") as folder:
                store = folder / "store"
                shutil.copytree(prepared, store, symlinks=True)
                found = packed(mine.recipe, store, codec, "pack")
                session.record(OURS, f"{PACK}, {codec}", found["took"])
                session.record(OURS, f"{PACK}, {codec}, CPU", found["cpu"], "CPU s")
                tars = [limit.decompress(codec, Path(path).read_bytes()) for path in found["blobs"]]
            session.record(LIMIT, f"{PACK}, {codec}", limit.seconds(tars, codec))
    for codec in ("gzip", "zstd"):
        what = f"{PACK}, {codec}"
        session.ratio(f"layers alone, {codec}: time of the limit's", (OURS, what), (LIMIT, what), MOST)
    session.remark(
        "The limit compresses the same bytes with the same library at the same level and hashes tar and blob, on all "
        "cores, in memory. It decompresses no package, writes nothing, and checks nothing of what it made."
    )


def packed(recipe: Path, store: Path, codec: str, what: str) -> dict[str, Any]:
    """Run the child that packs and return what it says."""
    said = run(sys.executable, ROOT / "ci" / "bench.d" / "pack.py", recipe, store, codec, what)
    return dict(json.loads(said or "{}"))


SECTIONS = (Section("layers", "Package layers alone", measure),)
