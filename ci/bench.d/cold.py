"""A cold build, against dnf and dnf5 into a buildah mount, and against pipelines of the shell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import limit
from product import CORES, DEFAULT, Relbuild, emptied, into_buildah, shell_pipeline
from turns import BYTES, MIRROR, OURS, Goal, Section, Session, peer, run

from pipeline.compression import ZSTD_WINDOW_LOG

DNF, DNF5, LIMIT = "dnf + buildah", "dnf5 + buildah", "limit of the layers"
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
    held: list[list[bytes]] = []
    for turn in session.turns():
        mine.forget()
        session.take(OURS, COLD, lambda: mine.build("--no-smoke", "--trace", str(trace)))
        for stage, seconds in stages(json.loads(trace.read_text())["traceEvents"]).items():
            session.record(stage, STAGES, seconds)
        held = held or unpacked_units(mine)
        session.record(LIMIT, COLD, limit.seconds(held, mine.compression))
        for who, install in ((DNF, "dnf"), (DNF5, dnf5)):
            with emptied(session.folder, "peer") as folder:
                session.take(who, COLD, lambda: into_buildah(folder, [install], mine.packages))  # noqa: B023
                session.record(who, "image", _image_size(folder / "layout"), BYTES)
        packages = mine.chosen()
        for who, compressor in shells.items():
            with emptied(session.folder, "peer") as folder:
                session.take(who, COLD, lambda: shell_pipeline(folder, packages, compressor))  # noqa: B023
        if turn == session.count:  # Sizes are the same in all turns.
            session.record(OURS, "image", _image_size(mine.folder / "output" / mine.product), BYTES)
            _sizes(session, mine, shells)
            _what_is_left_out(session, mine, packages)
    for who, bound in ((DNF, 1.5), (DNF5, None), ("shell, pigz -6", 2.2), ("shell, igzip", None)):
        goal = Goal(bound, at_least=True) if bound else None
        session.ratio(f"cold gzip: speed against {who}", (who, COLD), (OURS, COLD), goal, limit=(LIMIT, COLD))
    for who, goal in (("shell, pigz -6", Goal(1.0)), ("shell, igzip", None)):
        session.ratio(
            f"cold gzip: bytes against {who.partition(', ')[2]} of the same tars",
            (OURS, "layers"),
            (who, "layers"),
            goal,
        )
    _remarks(session)


def measure_zstd(session: Session) -> None:
    """Compare with tar and zstd -3, as it is and with the window that relbuild's frames have."""
    mine = Relbuild(session.folder / "relbuild", session.settings.get("product", DEFAULT), "zstd")
    common = ["zstd", "-3", "--quiet", f"-T{CORES}", "-c"]
    shells: dict[str, Sequence[str | Path]] = {
        "shell, zstd -3": common,
        f"shell, zstd -3 --long={ZSTD_WINDOW_LOG}": [*common, f"--long={ZSTD_WINDOW_LOG}"],
    }
    held: list[list[bytes]] = []
    for turn in session.turns():
        mine.forget()
        session.take(OURS, COLD, lambda: mine.build("--no-smoke"))
        held = held or unpacked_units(mine)
        session.record(LIMIT, COLD, limit.seconds(held, mine.compression))
        packages = mine.chosen()
        for who, words in shells.items():
            with emptied(session.folder, "peer") as folder:
                session.take(who, COLD, lambda: shell_pipeline(folder, packages, words))  # noqa: B023
        if turn == session.count:
            _sizes(session, mine, shells)
    for who in shells:
        fast, small = (Goal(1.3, at_least=True), Goal(1.0)) if who == "shell, zstd -3" else (None, None)
        session.ratio(f"cold zstd: speed against {who}", (who, COLD), (OURS, COLD), fast, limit=(LIMIT, COLD))
        name = f"cold zstd: bytes against {who.partition(', ')[2]} of the same tars"
        session.ratio(name, (OURS, "layers"), (who, "layers"), small)
    _remarks(session)


def unpacked_units(mine: Relbuild) -> list[list[bytes]]:
    """Return what the members or frames of the last image's layers hold, which is the same in each turn."""
    return [limit.units(mine.compression, path.read_bytes()) for path in mine.layers()]


def _image_size(layout: Path) -> int:
    """Bytes of the blobs of an OCI layout."""
    return sum(path.stat().st_size for path in (layout / "blobs").rglob("*") if path.is_file())


def _sizes(session: Session, mine: Relbuild, compressors: Mapping[str, Sequence[str | Path]]) -> None:
    """Note the bytes of the package layers, and of the same tars as others compress them."""
    *blobs, _ = mine.layers()  # The last is the state layer.
    session.record(OURS, "layers", sum(path.stat().st_size for path in blobs), BYTES)
    unpack = ["gzip", "-dc"] if mine.compression == "gzip" else ["zstd", "-qdc"]
    for who, words in compressors.items():
        script = 'set -o pipefail; p=$1; u="$2"; shift 2; $u "$p" | "$@" | wc -c'
        size = sum(int(run("bash", "-c", script, "-", path, " ".join(unpack), *words)) for path in blobs)
        session.record(who, "layers", size, BYTES)


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
        "dnf and dnf5 check signatures as relbuild does, leave documentation out as the recipe does, run scriptlets "
        "and write the RPM database; buildah compresses its one layer with gzip at its own level. They write no lock "
        "and no SBOM, verify no blob that they wrote, and their image has another digest in every run."
    )
    session.remark(
        "The pipelines of the shell are given the resolved packages. They check no signature, run no scriptlet, write "
        "no RPM database, no config and no manifest. What signatures and the smoke test take is measured beside them."
    )
    session.remark(
        "At the limit, a cold build's layers are compressed and hashed at the machine's raw limit (the same library at "
        "the same level, all cores, all in memory), and everything else takes no time: nothing that makes the same "
        "bytes can be faster."
    )


SECTIONS = (
    Section("cold-gzip", "A cold build with gzip", measure_gzip),
    Section("cold-zstd", "A cold build with zstd", measure_zstd),
)
