"""Builds in which nothing changed, and one package, against dnf into a buildah mount, which knows neither."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import limit
from product import DEFAULT, Relbuild, emptied, into_buildah
from turns import OURS, Goal, Section, Session, differences, run

DNF, PYTHON, LIMIT = "dnf + buildah", "python -c pass", "limit of the layers"
NOTHING, ONE, STARTED = "nothing changed", "one package changed", "started"


def measure(session: Session) -> None:
    """Build, again, and with one package updated; the peer starts anew whatever changed."""
    mine = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT))
    changed: Changed | None = None
    for _ in session.turns():
        mine.forget()
        mine.pin_old()
        mine.build("--no-smoke")
        former = [path.read_bytes() for path in mine.layers()] if changed is None else []
        session.take(OURS, NOTHING, lambda: mine.build("--no-smoke"))
        session.take(PYTHON, STARTED, lambda: run(sys.executable, "-c", "pass"))
        mine.unpin()
        session.take(OURS, ONE, lambda: mine.build("--no-smoke"))
        changed = changed or Changed.between(former, [path.read_bytes() for path in mine.layers()])
        session.record(LIMIT, ONE, limit.seconds(changed.layers, mine.compression, changed.kept))
        with emptied(session.folder, "peer") as folder:
            session.take(DNF, NOTHING, lambda: into_buildah(folder, ["dnf"], mine.packages))
    session.ratio("nothing changed: time of dnf + buildah's", (OURS, NOTHING), (DNF, NOTHING), Goal(1 / 25))
    processor = differences(session.of(OURS, f"{NOTHING}, CPU"), session.of(PYTHON, f"{STARTED}, CPU"))
    session.row("nothing changed: CPU beyond bare Python", processor, Goal(0.25), unit="CPU s")
    session.ratio(
        "one package changed: time of dnf + buildah's", (OURS, ONE), (DNF, NOTHING), Goal(1 / 7), limit=(LIMIT, ONE)
    )
    session.remark("dnf and buildah make every image anew: they do not know what an image was made from.")
    session.remark(
        "At the limit, a build with one package changed compresses the members of the layers that the former image did "
        "not have, and hashes those layers; nothing else takes time."
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
