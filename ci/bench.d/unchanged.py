"""Builds in which nothing changed, and one package, against dnf into a buildah mount, which knows neither."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import limit
from package_update import PackageUpdate
from product import DEFAULT, Relbuild, emptied, into_buildah
from turns import OURS, BenchFailed, Goal, Section, Session, differences, run

DNF, PYTHON, LIMIT = "dnf + buildah", "python -c pass", "limit of the layers"
NOTHING, ONE, STARTED = "nothing changed", "one package changed", "started"
UPDATES = "newer"
"""The repository in which the update appears, in relbuild's platform and among the peer's."""


def measure(session: Session) -> None:
    """Build, again, and with one package updated; the peer starts anew whatever changed."""
    mine = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT))
    update = PackageUpdate(session.folder / "update")
    mine.add_repository(UPDATES, update.folder)
    changed: Changed | None = None
    for _ in session.turns():
        mine.forget()
        update.withdraw()
        mine.build("--no-smoke")
        former = [path.read_bytes() for path in mine.layers()] if changed is None else []
        session.take(OURS, NOTHING, lambda: mine.build("--no-smoke"))
        session.take(PYTHON, STARTED, lambda: run(sys.executable, "-c", "pass"))
        update.publish()
        session.take(OURS, ONE, lambda: mine.build("--no-smoke", "--upgrade"))
        if changed is None:
            blobs = [path.read_bytes() for path in mine.layers()]
            require_one_changed(former, blobs)
            changed = Changed.between(former, blobs)
        session.record(LIMIT, ONE, limit.seconds(changed.layers, mine.compression, changed.kept))
        with emptied(session.folder, "peer") as folder:
            session.take(DNF, NOTHING, lambda: into_buildah(folder, ["dnf"], mine.packages, {UPDATES: update.folder}))
    session.ratio("nothing changed: time of dnf + buildah's", (OURS, NOTHING), (DNF, NOTHING), Goal(1 / 25))
    processor = differences(session.of(OURS, f"{NOTHING}, CPU"), session.of(PYTHON, f"{STARTED}, CPU"))
    session.row("nothing changed: CPU beyond bare Python", processor, Goal(0.25), unit="CPU s")
    session.ratio(
        "one package changed: time of dnf + buildah's", (OURS, ONE), (DNF, NOTHING), Goal(1 / 7), limit=(LIMIT, ONE)
    )
    session.remark("dnf and buildah make every image anew: they do not know what an image was made from.")
    session.remark(
        "The update changes a file and drops none. One that drops or renames files, as most rebuilt programs do, has "
        "the tree of its layer written whole, which takes some 0.2 s more."
    )
    session.remark(
        "At the limit, a build with one package changed compresses the members of the layers that the former image did "
        "not have, and hashes those layers; nothing else takes time."
    )


def require_one_changed(former: Sequence[bytes], blobs: Sequence[bytes]) -> None:
    """Hold that two images differ in one layer of packages. Raises BenchFailed if they do not.

    Their last layers, with the state, differ whatever was updated: the RPM database is in them.
    """
    different = sum(old != new for old, new in zip(former[:-1], blobs[:-1], strict=False))
    if len(former) != len(blobs) or different != 1:
        raise BenchFailed(
            f"the update changed {different} layers of packages, of {len(former) - 1} before and {len(blobs) - 1} now; "
            "one is what is to be measured"
        )


@dataclass(frozen=True, slots=True)
class Changed:
    """Layers that an image has and a former one had not, as the contents of gzip's members; `kept` are blobs of those
    that the former had."""

    layers: list[list[bytes]]
    kept: dict[tuple[int, int], bytes]

    @classmethod
    def between(cls, former: Sequence[bytes], blobs: Sequence[bytes]) -> Changed:
        """Compare the layers of two images."""
        known = {content for blob in former for content in _members(blob)}
        layers = [list(_members(blob)) for blob in blobs if blob not in former]
        places = [(layer, at) for layer, held in enumerate(layers) for at in range(len(held))]
        return cls(
            layers,
            {place: limit.compress("gzip", unit) for place in places if (unit := layers[place[0]][place[1]]) in known},
        )


def _members(blob: bytes) -> Iterator[bytes]:
    """Yield what each gzip member of a blob holds."""
    held, member = list[bytes](), zlib.decompressobj(wbits=31)
    for at in range(0, len(blob), limit.READ):
        data = blob[at : at + limit.READ]
        while data:
            held.append(member.decompress(data))
            data = b""
            if member.eof:
                yield b"".join(held)
                data, held, member = member.unused_data, [], zlib.decompressobj(wbits=31)


SECTIONS = (Section("unchanged", "Builds in which nothing changed, or one package", measure),)
