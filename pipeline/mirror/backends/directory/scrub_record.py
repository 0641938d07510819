"""Record of a scrub in progress: a killed one goes on after the last blob that it recorded.

.scrub/run.json     start time of the scrub in progress
.scrub/blobs/AB     blobs known to be intact (`pipeline.mirror.known_blobs`)
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import field

from pipeline.digest import Digest, canonical_json
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import make_drafts_folder, open_without_links, replace_file
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths
from pipeline.mirror.known_blobs import SCRUB_KNOWN_SECONDS, FileStamp, Hashed, HashedBy

_NOTED = 256 << 20
"""Bytes read until the verified blobs are recorded: a killed scrub reads at most so many again."""

_RUN_LIMIT = 4096
"""Bytes of run.json."""


@dataclass(slots=True)
class ScrubRecord:
    """The blobs that a scrub has found intact.

    `began`: when it, or the killed one that it continues, began, in seconds since the epoch; `known`: blobs that are
    not recorded yet; `unnoted`: the bytes that were read since they were.
    """

    place: MirrorPaths
    began: float
    known: dict[Digest, FileStamp] = field(default_factory=dict)
    unnoted: int = 0

    @classmethod
    def begin(cls, place: MirrorPaths) -> ScrubRecord:
        """Begin a scrub, or continue one that was killed."""
        with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError, OverflowError):
            file = open_without_links(place.root, place.root / ".scrub" / "run.json")
            if file is not None:
                with file:
                    began = float(json.loads(file.read(_RUN_LIMIT))["began"])
                if 0 <= place.clock() - began < SCRUB_KNOWN_SECONDS:
                    return cls(place, began)
        began = place.clock()
        make_drafts_folder(place.root / ".scrub")
        replace_file(canonical_json({"began": str(began)}), place.root / ".scrub" / "run.json", place.drafts)
        return cls(place, began)

    def was_read(self, digest: Digest, stamp: FileStamp) -> bool:
        """Return whether this scrub has found a blob intact, which has not changed since."""
        known = self.place.known.read(digest.hex[:2]).get(digest.hex)
        if known is None or known[0] != stamp or known[2] is not HashedBy.SCRUB:
            return False
        return self.began <= known[1] <= self.place.clock()  # no time in the future: written when the clock was ahead

    def add(self, digest: Digest, seen: Hashed) -> None:
        """Add an intact blob; record all from time to time."""
        if seen.settled:
            self.known[digest] = seen.stamp
        if self.unnoted >= _NOTED:
            self.note()

    def note(self) -> None:
        """Record the blobs that are known and not recorded yet."""
        self.place.known.note_all(self.known, HashedBy.SCRUB)
        self.known.clear()
        self.unnoted = 0

    def end(self) -> None:
        """Record that the scrub is done: the next one reads everything again."""
        (self.place.root / ".scrub" / "run.json").unlink(missing_ok=True)
