"""Builds in which nothing changed, and one package, against dnf into a buildah mount, which knows neither."""

from __future__ import annotations

import sys

from product import DEFAULT, Relbuild, emptied, into_buildah
from turns import Goal, Section, Session, differences, run

OURS, DNF, PYTHON = "relbuild", "dnf + buildah", "python -c pass"
NOTHING, ONE, STARTED = "nothing changed", "one package changed", "started"


def measure(session: Session) -> None:
    """Build, again, and with one package updated; the peer starts anew whatever changed."""
    mine = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT))
    for _ in session.turns():
        mine.forget()
        mine.pin_old()
        mine.build("--no-smoke")
        session.take(OURS, NOTHING, lambda: mine.build("--no-smoke"))
        session.take(PYTHON, STARTED, lambda: run(sys.executable, "-c", "pass"))
        mine.unpin()
        session.take(OURS, ONE, lambda: mine.build("--no-smoke"))
        with emptied(session.folder, "peer") as folder:
            session.take(DNF, NOTHING, lambda: into_buildah(folder, ["dnf"], mine.packages))
    session.ratio("nothing changed: time of dnf + buildah's", (OURS, NOTHING), (DNF, NOTHING), Goal(1 / 25))
    processor = differences(session.of(OURS, f"{NOTHING}, CPU"), session.of(PYTHON, f"{STARTED}, CPU"))
    session.row("nothing changed: CPU beyond bare Python", processor, Goal(0.25), unit="CPU s")
    session.ratio("one package changed: time of dnf + buildah's", (OURS, ONE), (DNF, NOTHING), Goal(1 / 7))
    session.remark("dnf and buildah make every image anew: they do not know what an image was made from.")


SECTIONS = (Section("unchanged", "Builds in which nothing changed, or one package", measure),)
