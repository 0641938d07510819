"""A cold build, against dnf and dnf5 into a buildah mount, and against pipelines of the shell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from product import CORES, DEFAULT, Relbuild, emptied, into_buildah, shell_pipeline
from turns import BYTES, MIRROR, Goal, Section, Session, peer, run

OURS, DNF, DNF5 = "relbuild", "dnf + buildah", "dnf5 + buildah"
COLD = "cold build"
STAGES = "stage of a cold build"


def stages(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds in which at least one task of each stage was under way, from the events of a trace."""
    found: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        found.setdefault(event["cat"], []).append((event["ts"], event["ts"] + event["dur"]))
    seconds = {}
    for stage, spans in found.items():
        total, until = 0.0, 0.0
        for began, ended in sorted(spans):
            total += max(0.0, ended - max(began, until))
            until = max(until, ended)
        seconds[stage] = total / 1e6
    return seconds


def measure_gzip(session: Session) -> None:
    """Compare with what installs packages into a container, and with tar and gzip's kin."""
    mine = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT))
    shells: Mapping[str, Sequence[str | Path]] = {
        "shell, pigz -6": [peer("pigz"), "-6", "-p", str(CORES)],
        "shell, igzip": [peer("igzip"), "-1", "-T", str(CORES)],
    }
    dnf5 = peer("dnf5")
    trace = session.folder / "trace.json"
    for turn in session.turns():
        mine.forget()
        session.take(OURS, COLD, lambda: mine.build("--no-smoke", "--trace", str(trace)))
        for stage, seconds in stages(json.loads(trace.read_text())["traceEvents"]).items():
            session.record(stage, STAGES, seconds)
        for who, install in ((DNF, "dnf"), (DNF5, dnf5)):
            with emptied(session.folder, "peer") as folder:
                session.take(who, COLD, lambda: into_buildah(folder, [install], mine.packages))  # noqa: B023
        packages = mine.chosen()
        for who, compressor in shells.items():
            with emptied(session.folder, "peer") as folder:
                session.take(who, COLD, lambda: shell_pipeline(folder, packages, compressor))  # noqa: B023
        _what_is_left_out(session, mine, packages)
        if turn == session.count:  # They are the same in all turns.
            _sizes(session, mine, shells)
    session.ratio("cold gzip: speed against dnf + buildah", (DNF, COLD), (OURS, COLD), Goal(1.5, at_least=True))
    session.ratio("cold gzip: speed against dnf5 + buildah", (DNF5, COLD), (OURS, COLD))
    session.ratio(
        "cold gzip: speed against shell, pigz -6", ("shell, pigz -6", COLD), (OURS, COLD), Goal(2.2, at_least=True)
    )
    session.ratio("cold gzip: speed against shell, igzip", ("shell, igzip", COLD), (OURS, COLD))
    for who, goal in (("shell, pigz -6", Goal(1.0)), ("shell, igzip", None)):
        session.ratio(
            f"cold gzip: bytes against {who.partition(', ')[2]} of the same tars",
            (OURS, "layers"),
            (who, "layers"),
            goal,
        )
    _remarks(session)


def measure_zstd(session: Session) -> None:
    """Compare with tar and zstd -3."""
    mine = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT), "zstd")
    who, words = "shell, zstd -3", ["zstd", "-3", "--quiet", f"-T{CORES}", "-c"]
    for turn in session.turns():
        mine.forget()
        session.take(OURS, COLD, lambda: mine.build("--no-smoke"))
        packages = mine.chosen()
        with emptied(session.folder, "peer") as folder:
            session.take(who, COLD, lambda: shell_pipeline(folder, packages, words))  # noqa: B023
        if turn == session.count:
            _sizes(session, mine, {who: words})
    session.ratio("cold zstd: speed against shell, zstd -3", (who, COLD), (OURS, COLD), Goal(1.3, at_least=True))
    session.ratio("cold zstd: bytes against zstd -3 of the same tars", (OURS, "layers"), (who, "layers"), Goal(1.0))
    _remarks(session)


def _sizes(session: Session, mine: Relbuild, compressors: Mapping[str, Sequence[str | Path]]) -> None:
    """Note the bytes of the package layers, and of the same tars as others compress them."""
    layout = mine.folder / "output" / mine.product
    manifest = json.loads(_blob(layout, json.loads((layout / "index.json").read_text())["manifests"][0]).read_text())
    blobs = [_blob(layout, layer) for layer in manifest["layers"][:-1]]  # The last is the state layer.
    session.record(OURS, "layers", sum(path.stat().st_size for path in blobs), BYTES)
    unpack = ["gzip", "-dc"] if mine.compression == "gzip" else ["zstd", "-qdc"]
    for who, words in compressors.items():
        script = 'set -o pipefail; p=$1; u="$2"; shift 2; $u "$p" | "$@" | wc -c'
        size = sum(int(run("bash", "-c", script, "-", path, " ".join(unpack), *words)) for path in blobs)
        session.record(who, "layers", size, BYTES)


def _blob(layout: Path, descriptor: dict[str, str]) -> Path:
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


def _what_is_left_out(session: Session, mine: Relbuild, packages: list[Path]) -> None:
    """Measure what relbuild does and the peers do not: signatures (the shell), a test (all of them)."""
    key = mine.folder / "rpmdb"
    key.mkdir(exist_ok=True)
    run("rpmkeys", "--dbpath", key, "--import", MIRROR / "RPM-GPG-KEY-local")
    verify: list[str | Path] = ["rpmkeys", "--dbpath", key, "--define", "_pkgverify_level all", "-K", *packages]
    session.take("rpmkeys -K", "signatures of all packages", lambda: run(*verify))
    session.take(OURS, "the smoke test alone", lambda: mine.build("--retest"))


def _remarks(session: Session) -> None:
    session.remark(
        "dnf and dnf5 check signatures as relbuild does, run scriptlets and write the RPM database. They write no lock "
        "and no SBOM, verify no blob that they wrote, and their image has another digest in every run."
    )
    session.remark(
        "The pipelines of the shell are given the resolved packages. They check no signature, run no scriptlet, write "
        "no RPM database, no config and no manifest. What signatures and the smoke test take is measured beside them."
    )


SECTIONS = (
    Section("cold-gzip", "A cold build with gzip", measure_gzip),
    Section("cold-zstd", "A cold build with zstd", measure_zstd),
)
