"""Packing of layers alone, against the machine's limit in the same turn."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import limit
from product import DEFAULT, Relbuild, emptied
from turns import CPU_SECONDS, OURS, ROOT, Goal, Section, Session, run

from pipeline.packages.rpm_file_layout import read_rpm_layout

LIMIT, PACK = "limit", "package layers"
READING = "limit with payloads"
LEAST = "least of what is kept and compared"
MOST = Goal(1.25)
LEAD = b"\xed\xab\xee\xdb"
"""The first bytes of a package (rpm, lib/rpmlead.c)."""


def measure(session: Session) -> None:
    """Pack both ways in each turn, from packages that are fetched and verified, into a store without them."""
    mine = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT))
    prepared = session.folder / "prepared"
    packed(mine.recipe, prepared, "gzip", "prepare")
    payloads = read_payloads(prepared)
    for _ in session.turns():
        for codec in ("gzip", "zstd"):
            found = fresh(session, mine.recipe, prepared, codec, "pack")
            session.record(OURS, f"{PACK}, {codec}", found.took)
            session.record(OURS, f"{PACK}, {codec}, CPU", found.processor, CPU_SECONDS)
            session.record(LIMIT, f"{PACK}, {codec}", limit.seconds(found.layers, codec))
            session.record(READING, f"{PACK}, {codec}", limit.seconds(found.layers, codec, payloads=payloads))
            with emptied(session.folder, "least") as folder:
                least = limit.seconds(found.layers, codec, payloads=payloads, folder=folder)
            session.record(LEAST, f"{PACK}, {codec}", least)
            if codec == "gzip":
                whole = fresh(session, mine.recipe, prepared, codec, "unpack")
                session.record(OURS, f"{PACK} with their trees, blobs read back, {codec}", whole.took)
    for codec in ("gzip", "zstd"):
        what = f"{PACK}, {codec}"
        session.ratio(
            f"layers alone, {codec}: time of the limit's", (OURS, what), (LIMIT, what), MOST, limit=(LEAST, what)
        )
        session.ratio(f"layers alone, {codec}: time of the limit's with payloads", (OURS, what), (READING, what))
    session.remark(
        "The limit compresses the same bytes with the same library at the same level and hashes tar and blob, on all "
        "cores, in memory. It decompresses no package, writes nothing, and checks nothing of what it made. With "
        "payloads it also decompresses the packages and hashes their files. relbuild's side reads verified packages "
        "and writes blobs and segments; trees and reading back are measured beside it."
    )
    session.remark(
        "For layers alone, at the machine's limit is the least that packing takes which compares files with the "
        "packages' headers, keeps segments for other layers and writes blobs: the limit with payloads, tar copied into "
        "pieces, each segment hashed, written, and read into its blob. Nothing is parsed or looked up."
    )


@dataclass(frozen=True, slots=True)
class Packed:
    """Seconds and seconds of processor that packing took, and what the layers' members or frames hold."""

    took: float
    processor: float
    layers: list[list[bytes]]


def read_payloads(store: Path) -> list[bytes]:
    """Return the compressed payloads of all packages in a store."""
    packages = [path for path in (store / "blobs").iterdir() if path.read_bytes()[: len(LEAD)] == LEAD]
    return [path.read_bytes()[read_rpm_layout(path).payload :] for path in packages]


def fresh(session: Session, recipe: Path, prepared: Path, codec: str, what: str) -> Packed:
    """Pack in a copy of a prepared store."""
    with emptied(session.folder, "store") as folder:
        store = folder / "store"
        shutil.copytree(prepared, store, symlinks=True)
        found = packed(recipe, store, codec, what)
        layers = [limit.units(codec, Path(path).read_bytes()) for path in found["blobs"]] if what == "pack" else []
    return Packed(found["took"], found["cpu"], layers)


def packed(recipe: Path, store: Path, codec: str, what: str) -> dict[str, Any]:
    """Run the child that packs and return what it says."""
    said = run(sys.executable, ROOT / "ci" / "bench.d" / "pack.py", recipe, store, codec, what)
    return dict(json.loads(said or "{}"))


SECTIONS = (Section("layers", "Package layers alone", measure),)
