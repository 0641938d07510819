"""`ci/bench`: how figures of turns are put together, judged by goals, written, and compared with an earlier run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "ci" / "bench.d"


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """The files of the folder import each other by bare names."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _figure(*values: float, unit: str = "s") -> Any:
    return _module("turns").Figure(values, unit)


def _results(
    rows: list[Any],
    figures: dict[str, Any] | None = None,
    machine: str = "one",
    failed: str = "",
    product: str = "mysql",
) -> Any:
    results = _module("results")
    section = results.SectionResult(
        "cold", "Cold", "r1", 1.5, {"build": figures or {}}, rows, [], ["a remark"], failed=failed
    )
    return results.Results({"processor": machine}, {"product": product}, [section])


def test_the_first_turn_warms_up_and_does_not_count(tmp_path: Path) -> None:
    """What it took is forgotten."""
    session = _module("turns").Session(tmp_path, 3)
    for turn in session.turns():
        session.record("relbuild", "build", 100.0 if turn == 0 else float(turn))
    assert session.of("relbuild", "build") == (1.0, 2.0, 3.0)
    assert session.figures["build"]["relbuild"].median == 2.0


def test_a_row_compares_what_belongs_to_one_turn(tmp_path: Path) -> None:
    """A machine that is slow for one turn is slow for both."""
    turns = _module("turns")
    session = turns.Session(tmp_path, 3)
    for turn in session.turns():
        slow = 10.0 if turn == 2 else 1.0
        session.record("peer", "build", 3.0 * slow)
        session.record("relbuild", "build", 2.0 * slow)
    session.ratio("speed", ("peer", "build"), ("relbuild", "build"), turns.Goal(1.5, at_least=True))
    (row,) = session.rows
    assert (row.figure.least, row.figure.median, row.figure.greatest) == (1.5, 1.5, 1.5)
    assert row.met is True


def test_what_was_not_measured_is_named(tmp_path: Path) -> None:
    """It is not a line of zeros."""
    turns = _module("turns")
    with pytest.raises(turns.BenchFailed, match="nothing was measured of peer: build"):
        turns.Session(tmp_path, 1).ratio("speed", ("peer", "build"), ("relbuild", "build"))


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [((1.5, True), 1.5, True), ((1.5, True), 1.49, False), ((0.25, False), 0.25, True), ((0.25, False), 0.26, False)],
)
def test_a_goal_holds_at_its_bound(goal: tuple[float, bool], value: float, met: bool) -> None:
    """At least, or at most."""
    assert _module("turns").Goal(*goal).met(value) is met


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        ((1.5, True), "≥ 1.5"),
        ((1 / 25,), "≤ 1/25"),
        ((1 / 7,), "≤ 1/7"),
        ((0.25,), "≤ 0.25"),
        ((0.1,), "≤ 0.1"),
        ((160,), "≤ 160"),
    ],
)
def test_a_goal_is_written_as_it_was_promised(goal: tuple[Any, ...], text: str) -> None:
    """A part of something as a part."""
    assert str(_module("turns").Goal(*goal)) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0, "s", "0.00"), (0.034, "×", "0.034"), (1.234, "s", "1.23"), (12.34, "s", "12.3"), (123.4, "s", "123"),
     (1234.5, "s", "1,234"), (12.0, "bytes", "12")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, unit: str, text: str) -> None:
    """Bytes have all of them."""
    assert _module("results").number(value, unit) == text


def test_a_line_says_how_far_the_farthest_point_is() -> None:
    """As a part of the greatest value."""
    turns = _module("turns")
    exact = turns.straight([(1, 5.0), (2, 7.0), (4, 11.0)])
    assert (round(exact.start, 9), round(exact.slope, 9), round(exact.off, 9)) == (3.0, 2.0, 0.0)
    assert turns.straight([(1, 1.0), (2, 4.0), (3, 9.0), (4, 16.0)]).off > 0.05


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    """With figures, rows, goals, curves and what failed."""
    results, turns = _module("results"), _module("turns")
    row = turns.Row("speed", _figure(1.0, 2.0, unit="×"), turns.Goal(1.5, at_least=True), _figure(3.0, 4.0, unit="×"))
    section = results.SectionResult(
        "cold",
        "Cold",
        "r1",
        2.5,
        {"build": {"relbuild": _figure(1.0, 2.0)}},
        (row,),
        (turns.Curve("growth", "packages", "s", ((1.0, 2.0), (3.0, 4.0))),),
        ("said",),
        False,
        "why",
        "why since",
    )
    whole = results.Results({"processor": "one"}, {"product": "mysql"}, (section,))
    results.write(whole, tmp_path / "it.json")
    assert results.read(tmp_path / "it.json") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 3}', '{"format": 3, "machine": {}, "sections": 3}'])
def test_what_is_no_results_is_told(tmp_path: Path, text: str) -> None:
    """And no traceback."""
    (tmp_path / "it.json").write_text(text)
    with pytest.raises(_module("turns").BenchFailed, match=r"it\.json holds no results"):
        _module("results").read(tmp_path / "it.json")


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ((1.0, 1.1, 1.2), (1.15, 1.2, 1.3), False),  # Each median is within the other's turns.
        ((1.0, 1.1, 1.2), (2.0, 2.1, 2.2), True),
        ((1.0, 1.0, 1.0), (1.04, 1.04, 1.04), False),  # The turns agree, and so do the runs, nearly.
        ((1.0, 1.0, 1.0), (0.9, 0.9, 0.9), True),
        ((1.0, 1.1, 5.0), (2.0, 2.1, 2.2), False),  # The earlier run was that unsteady.
    ],
)
def test_a_change_is_greater_than_the_spread(
    before: tuple[float, ...], after: tuple[float, ...], changed: bool
) -> None:
    """And than what a machine differs by from hour to hour."""
    assert _module("results").differs(_figure(*before), _figure(*after)) is changed


def test_a_comparison_shows_rows_and_figures_that_changed() -> None:
    """And says where the runs cannot be compared."""
    turns, results = _module("turns"), _module("results")
    before = _results([turns.Row("speed", _figure(1.0, unit="×"))], {"relbuild": _figure(4.0), "peer": _figure(4.0)})
    after = _results(
        [turns.Row("speed", _figure(2.0, unit="×")), turns.Row("new", _figure(1.0))],
        {"relbuild": _figure(2.0), "peer": _figure(4.0)},
        machine="another",
    )
    assert results.comparison(before, after) == [
        "rows that changed by more than the spread: 1",
        "  speed: 1.00 → 2.00 (2.00 times)",
        "figures that changed by more than the spread: 1",
        "  cold: build: relbuild: 4.00 s → 2.00 s (0.50 times)",
        "the runs were made with another processor: only ratios can be compared",
    ]


def test_the_table_says_what_is_met_and_what_was_not_measured() -> None:
    """Each row with the median, the spread, the goal and the verdict."""
    turns, results = _module("turns"), _module("results")
    rows = [
        turns.Row("speed", _figure(1.2, 1.6, 1.7, unit="×"), turns.Goal(1.5, at_least=True)),
        turns.Row("memory", _figure(170.0, unit="MiB"), turns.Goal(160), _figure(150.0, unit="MiB")),
        turns.Row("time", _figure(3.0), turns.Goal(1), _figure(2.0)),
        turns.Row("size", _figure(1234567.0, unit="bytes")),
    ]
    assert results.table(_results(rows, failed="Traceback\nno dnf here")) == [
        "what    median           least … greatest       goal                                at the limit",
        "speed   1.60             1.20 … 1.70            ≥ 1.5  met",
        "memory  170 MiB          170 … 170              ≤ 160  not met                      150 MiB",
        "time    3.00 s           3.00 … 3.00            ≤ 1    not met, beyond the machine  2.00 s",
        "size    1,234,567 bytes  1,234,567 … 1,234,567",
        "NOT MEASURED  cold: no dnf here",
    ]


def test_a_failure_is_told_by_the_line_that_names_the_error() -> None:
    """A command's message ends with a hint, a traceback with the error."""
    reason = _module("results").reason
    assert reason("relbuild … ended with 1: no such recipe\n  → recipes: a.yaml\n") == (
        "relbuild … ended with 1: no such recipe"
    )
    assert reason("Traceback (most recent call last):\n  …\nValueError: no\n") == "ValueError: no"


def test_runs_of_one_machine_are_put_together() -> None:
    """What both have is the later one's; what failed again does not take a figure away."""
    turns, results = _module("turns"), _module("results")
    first = _results([turns.Row("speed", _figure(1.0, unit="×"))], {"relbuild": _figure(1.0, 2.0, 3.0)})
    other = results.SectionResult("prune", "Prune", "r2", 1.0, {}, (turns.Row("prune", _figure(2.0)),), (), ())
    whole = results.merged(first, results.Results(first.machine, first.settings, [other]))
    assert [(one.name, one.turns, one.relbuild) for one in whole.sections] == [("cold", 3, "r1"), ("prune", 0, "r2")]
    again = _results([turns.Row("speed", _figure(3.0, unit="×"))])
    assert [row.figure.median for row in results.merged(whole, again).rows()] == [3.0, 2.0]
    failed = results.merged(whole, _results([], failed="Traceback\nno dnf here"))
    assert list(failed.rows()) == list(whole.rows())
    assert [(one.failed, one.later_failure) for one in failed.sections] == [
        ("", "Traceback\nno dnf here (relbuild r1)"),
        ("", ""),
    ]
    assert results.table(failed)[-1] == "FAILED SINCE  cold: no dnf here (relbuild r1)"
    assert results.merged(failed, again) == results.merged(whole, again)


def test_a_second_failure_takes_the_place_of_the_first() -> None:
    """Neither has figures to keep."""
    results = _module("results")
    twice = results.merged(_results([], failed="no dnf here"), _results([], failed="no disk here"))
    assert [(one.failed, one.later_failure) for one in twice.sections] == [("no disk here", "")]


def test_runs_of_two_machines_are_not_put_together() -> None:
    """Their seconds cannot stand in one table."""
    turns, results = _module("turns"), _module("results")
    with pytest.raises(turns.BenchFailed, match="another processor"):
        results.merged(_results([]), _results([], machine="another"))


def test_runs_of_two_products_are_not_put_together() -> None:
    """Each section's figures are of the one product that the page names; a comparison says that it is none."""
    turns, results = _module("turns"), _module("results")
    with pytest.raises(turns.BenchFailed, match="another product"):
        results.merged(_results([]), _results([], product="nginx"))
    said = results.comparison(_results([]), _results([], product="nginx"))
    assert said[-1] == "the runs were made with another product: not even ratios can be compared"


def test_a_version_that_one_run_does_not_name_is_another() -> None:
    """Whichever of the two runs it is."""
    results = _module("results")
    one, two = (results.Results(machine, {}, ()) for machine in ({"dnf": "4"}, {"dnf": "4", "zstd": "1"}))
    assert results.other_machine(one, two) == results.other_machine(two, one) == ["zstd"]


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("4.14.0\n  Installed: dnf-0:4.14.0-1", "4.14.0"),
        ("buildah version 1.28.2 (image-spec 1.1.0-rc2)", "1.28.2"),
        ("*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***", "1.5.4"),
        ("mkosi 14", "14"),
        ("", "none"),
    ],
)
def test_a_peers_version_is_the_number_that_it_prints(said: str, version: str) -> None:
    """And not one of the words around it."""
    assert _module("machine").read_version(said) == version


def test_a_program_that_is_missing_has_no_version(tmp_path: Path) -> None:
    """The run that has one is another."""
    assert _module("machine").version(tmp_path / "dnf") == "none"


def test_the_mode_of_huge_pages_is_the_one_in_brackets(tmp_path: Path) -> None:
    """As in /sys/kernel/mm/transparent_hugepage/enabled."""
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert _module("machine").huge_pages(tmp_path / "enabled") == "madvise"
    assert _module("machine").huge_pages(tmp_path / "missing") == "none"


def test_a_section_has_the_turns_of_its_figures_and_says_whether_it_warmed_up(tmp_path: Path) -> None:
    """Whatever number was asked for."""
    turns, sections = _module("turns"), _module("sections")

    def measure(session: Any) -> None:
        for _ in session.turns(warm_up=False, most=2):
            session.record("relbuild", "night", 1.0)
        session.record("relbuild", "size", 1.0)

    found = sections.measured(turns.Section("short", "Short", measure), 5, tmp_path, {}, "r1")
    assert (found.turns, found.warmed_up, found.failed) == (2, False, "")


def test_a_section_that_fails_stops_no_other(tmp_path: Path) -> None:
    """Its result has the error; what it found before, and the folder that it worked in, matter to nobody."""
    turns, sections = _module("turns"), _module("sections")

    def measure(session: Any) -> None:
        session.record("relbuild", "build", 1.0)
        raise ZeroDivisionError("no turns")

    found = sections.measured(turns.Section("bad", "Bad", measure), 5, tmp_path, {}, "r1")
    assert found.failed.endswith("ZeroDivisionError: no turns\n") and not found.rows
    assert not list(tmp_path.iterdir())


def test_a_command_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a run that nobody watches goes on with the next section."""
    turns = _module("turns")
    monkeypatch.setattr(turns, "COMMAND_SECONDS", 0.05)
    with pytest.raises(turns.BenchFailed, match="sleep did not end within"):
        turns.run("sleep", "60")


def test_a_payload_that_cannot_be_read_makes_no_shorter_limit() -> None:
    """Else it would be faster than the work that it stands for."""
    with pytest.raises(Exception, match="payload"):
        _module("limit").seconds([[b"tar"]], "gzip", payloads=[b"\x28\xb5\x2f\xfd and no frame"])


@pytest.mark.parametrize(
    ("speed", "limit"),
    [(True, 10.0), (False, 0.1)],  # A peer's 20 s against 2 s; 2 s of a peer's 20 s.
)
def test_a_ratio_at_the_limit_takes_it_for_what_relbuild_took(tmp_path: Path, speed: bool, limit: float) -> None:
    """In the same turn, whichever way the ratio goes."""
    turns = _module("turns")
    session = turns.Session(tmp_path, 1)
    for who, seconds in (("peer", 20.0), ("relbuild", 5.0), ("limit", 2.0)):
        session.record(who, "build", seconds)
    pair = (("peer", "build"), ("relbuild", "build"))
    over, under = pair if speed else pair[::-1]
    session.ratio("build", over, under, limit=("limit", "build"))
    assert session.rows[0].limit.values == pytest.approx((limit,))


def test_what_is_compressed_already_costs_the_limit_its_hashing() -> None:
    """A layer of which one package changed: its other members are those of the former one."""
    limit, unchanged = _module("limit"), _module("unchanged")
    former, later = [b"a" * 5000, b"b" * 5000], [b"a" * 5000, b"c" * 5000]
    blobs = [b"".join(limit.compress("gzip", unit) for unit in held) for held in (former, later)]
    same = limit.compress("gzip", b"same")
    changed = unchanged.Changed.between([blobs[0], same], [blobs[1], same])
    assert changed.layers == [later]
    assert changed.kept == {(0, 0): limit.compress("gzip", former[0])}
    assert limit.seconds(changed.layers, "gzip", changed.kept) > 0


def test_tasks_of_a_stage_that_overlap_count_once() -> None:
    """A trace has one event for each task, with its beginning and duration in microseconds."""
    events = [
        {"cat": "layer", "ts": 1e6, "dur": 2e6},
        {"cat": "layer", "ts": 2e6, "dur": 0.5e6},
        {"cat": "layer", "ts": 2.5e6, "dur": 1.5e6},
        {"cat": "layer", "ts": 9e6, "dur": 1e6},
        {"cat": "state", "ts": 0, "dur": 0.25e6},
    ]
    assert _module("cold").stages(events) == {"layer": 4.0, "state": 0.25}


def test_every_section_has_one_name() -> None:
    """They are asked for by it, and compared by it with an earlier run's."""
    texts = [path.read_text() for path in sorted(BENCH.glob("*.py"))]
    named = [line.split('"')[1] for text in texts for line in text.splitlines() if 'Section("' in line]
    assert len(named) == len(set(named)) >= 6


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_the_least_writes_each_segment_and_each_blob(codec: str, tmp_path: Path) -> None:
    """What it wrote is what it stands for: else it would be less than the least."""
    limit = _module("limit")
    layers = [[b"a" * 5000, bytes((4 << 20) + 5)], [b"c" * 5000], []]
    assert limit.seconds(layers, codec, folder=tmp_path) > 0
    segments = [[limit.compress(codec, unit) for unit in held] for held in layers]
    wanted = sorted([*(one for held in segments for one in held), *map(b"".join, segments)])
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == wanted


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_the_limit_compresses_what_a_layer_holds(codec: str) -> None:
    """Unit by unit, a zstd frame of several pieces as one."""
    limit = _module("limit")
    sizes = [100, (4 << 20) + 5] if codec == "zstd" else [4 << 20, 105]
    held = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    blob = b"".join(limit.compress(codec, unit) for unit in held)
    found = limit.units(codec, blob)
    assert [len(unit) for unit in found] == sizes
    assert found == held
    assert limit.seconds([found, []], codec) > 0


def test_an_update_that_changes_no_layer_of_packages_is_not_measured() -> None:
    """Both images would have the same package layers, and what is to be measured would not happen."""
    hold, failed = _module("unchanged").require_one_changed, _module("turns").BenchFailed
    hold([b"base", b"product", b"state"], [b"newer", b"product", b"other"])
    for now in ([b"base", b"product", b"other"], [b"newer", b"newer", b"other"], [b"newer", b"product", b"more", b"s"]):
        with pytest.raises(failed, match="one is what is to be measured"):
            hold([b"base", b"product", b"state"], now)


def test_a_thread_that_ends_while_children_are_listed_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = _module("turns")
    for thread in ("11", "12"):
        (tmp_path / thread).mkdir()
    (tmp_path / "12" / "children").write_text("13 14 ")
    monkeypatch.setattr(turns, "THREADS", tmp_path)
    assert turns.children() == {13, 14}
