"""Measurement of instances' latency while one of them exhausts its limits.

Compared are latencies of the same check of the same instances, before (quiet) and meanwhile. All instances are launched
under the recipe's limits.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.checks import attempt, judge
from pipeline.model.image import Image
from pipeline.model.report import NeighbourFigures
from pipeline.model.report_verdict import judge_neighbours
from pipeline.model.smoke import CONTAINED_BY, Check, Misbehaviour, Neighbours, SmokePlan
from pipeline.model.smoke_questions import neighbour_check
from pipeline.model.usage import Usage
from pipeline.model.value_comparison import readable
from pipeline.progress import Progress, task
from pipeline.sandbox import (
    Instance,
    SandboxRegistry,
    launch,
    open_network,
)
from pipeline.smoke.instance_probe import InstanceProbe
from pipeline.smoke.probes import run_check

_QUESTION_TIMEOUT = 5.0
"""Seconds after which an answer counts as failed."""

_PAUSE = 0.002
"""Seconds between questions, so that the measurement itself is no load."""

_PROGRAM = Path(__file__).with_name("stress.py")
_MIN_EFFECT = 100_000
"""Microseconds of processor time, or bytes sent, from which on there is an effect: a quiet instance has less."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """The measured latencies in microseconds, sorted, and the failures.

    `failed` is how many answers did not come or were wrong, with one `reason`.
    """

    latencies: tuple[int, ...]
    failed: int
    reason: str

    def percentile(self, share: float) -> int:
        """Return the latency within which `share` (0 to 1) of the answers came, 0 without answers."""
        if not self.latencies:
            return 0
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


def measure_neighbours(
    image: Image,
    lowers: Sequence[Path],
    plan: SmokePlan,
    *,
    sandboxes: SandboxRegistry,
    progress: Progress,
    slowdown: int = 1,
) -> tuple[NeighbourFigures, ...]:
    """Measure the latency of instances while a neighbour misbehaves, in each way in turn.

    Launches `plan.neighbours.count` instances, lets the first misbehave, and measures the others. `slowdown`: how many
    times longer the answers of an emulated image may take.
    """
    timeout = _QUESTION_TIMEOUT * slowdown
    wanted = plan.neighbours
    question = neighbour_check(plan)
    if wanted is None or question is None:
        return ()
    total = wanted.count + len(wanted.misbehave) + 1
    with (
        task(progress, "neighbours", image.name, total=total) as running,
        open_network(talk=True) as network,
        contextlib.ExitStack() as closing,
    ):
        instances = []
        for number in range(1, wanted.count + 1):
            name = f"{image.name}-neighbour-{number}"
            launched = launch(image.config, lowers, plan.limits, sandboxes=sandboxes, name=name, network=network)
            instances.append(closing.enter_context(launched))
            running.advance(1)
        _wait_until_ready(plan.ready, instances, image)
        quiet = _measure(question, image, instances[1:], wanted.lasting, timeout)
        running.advance(1)
        figures = []
        for misbehaviour in wanted.misbehave:
            figures.append(
                _measure_during(
                    misbehaviour,
                    instances,
                    image=image,
                    question=question,
                    quiet=quiet,
                    wanted=wanted,
                    timeout=timeout,
                )
            )
            running.advance(1)
        return tuple(figures)


def _wait_until_ready(ready: Check | None, instances: Sequence[Instance], image: Image) -> None:
    if ready is None:
        return
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="ready") as pool:
        list(pool.map(lambda instance: run_check(ready, instance, image), instances))


def _measure(question: Check, image: Image, instances: Sequence[Instance], lasting: int, timeout: float) -> _Measured:
    """Measure the latency of instances for `lasting` milliseconds, in turn, each at least once."""
    latencies, failed, reason = [], 0, ""
    until = time.monotonic() + lasting / 1000
    count = 0
    while time.monotonic() < until or count < len(instances):
        instance = instances[count % len(instances)]
        count += 1
        begun = time.monotonic()
        wrong = _asked(question, image, instance, begun + timeout)
        if not wrong:
            latencies.append(round((time.monotonic() - begun) * 1_000_000))
        else:
            failed += 1
            reason = reason or f"{instance.name}: {wrong}"
            if failed > len(instances):
                break
        time.sleep(_PAUSE)
    return _Measured(tuple(sorted(latencies)), failed, reason)


def _asked(question: Check, image: Image, instance: Instance, deadline: float) -> str:
    """Ask one question; return what is wrong with the answer, "" if nothing is.

    It is asked from outside over the limited link where the instance has one.
    """
    probe = InstanceProbe(instance, image, instance.address)
    return judge(question, attempt(question, probe, deadline).answer, image.config)


def _measure_during(
    misbehaviour: Misbehaviour,
    instances: Sequence[Instance],
    *,
    image: Image,
    question: Check,
    quiet: _Measured,
    wanted: Neighbours,
    timeout: float,
) -> NeighbourFigures:
    bad, others = instances[0], instances[1:]
    impossible = _impossible(misbehaviour, bad)
    meanwhile, effect = _Measured((), 0, ""), ""
    before, begun = bad.usage(), time.monotonic()
    if not impossible:
        try:
            with _misbehaving(misbehaviour, bad, [other.address for other in others if other.address]):
                meanwhile = _measure(question, image, others, wanted.lasting, timeout)
                effect = _effect(misbehaviour, before, bad.usage())
        except EnvironmentLacking as error:
            impossible = str(error)
    if not impossible and not effect:
        impossible = f"not measured: the misbehaviour had no effect within {time.monotonic() - begun:.1f} s"
    figures = NeighbourFigures(
        misbehaviour=str(misbehaviour),
        passed=True,
        asked=len(meanwhile.latencies) + meanwhile.failed,
        failed=meanwhile.failed,
        quiet_p50=quiet.percentile(0.5),
        quiet_p99=quiet.percentile(0.99),
        p50=meanwhile.percentile(0.5),
        p99=meanwhile.percentile(0.99),
        effect=effect,
        quiet_asked=len(quiet.latencies) + quiet.failed,
        quiet_failed=quiet.failed,
    )
    wrong = judge_neighbours(figures, wanted)
    told = "; ".join(text for text in (wrong, quiet.reason or meanwhile.reason) if text)
    detail = impossible or (told if wrong else "")
    return replace(figures, passed=not detail, detail=readable(detail))


def _effect(misbehaviour: Misbehaviour, before: Usage, after: Usage) -> str:
    """Describe the effect of a misbehaviour that the kernel counted; empty if there is none."""
    name, text = {
        Misbehaviour.SPIN: ("cpu_time", "used {:.1f} s of processor time"),
        Misbehaviour.ALLOCATE: ("oom_kills", "killed {} times: out of memory"),
        Misbehaviour.FORK: ("pids_refused", "refused {} processes"),
        Misbehaviour.FLOOD: ("network_out", "sent {:.1f} MB"),
    }[misbehaviour]
    first, last = getattr(before, name), getattr(after, name)
    if first is None or last is None:
        return "effect unknown: this kernel does not count it"
    done = last - first
    if misbehaviour in (Misbehaviour.FORK, Misbehaviour.ALLOCATE):
        return text.format(done) if done else ""
    return text.format(done / 1_000_000) if done >= _MIN_EFFECT else ""


def _impossible(misbehaviour: Misbehaviour, bad: Instance) -> str:
    if not bad.alive:
        return "the misbehaving instance has ended"
    contained_by = CONTAINED_BY.get(misbehaviour)
    if contained_by is None:
        return ""
    needed = contained_by.name
    reading = next((reading for reading in bad.readings() if reading.name == needed), None)
    if reading is None:
        return f"it needs the limit '{needed}'; otherwise it would disturb the whole machine"
    return "" if reading.enforced else f"the limit '{needed}' is not enforced: {reading.reason}"


@contextlib.contextmanager
def _misbehaving(misbehaviour: Misbehaviour, bad: Instance, targets: Sequence[str]) -> Iterator[None]:
    """Run the stress program in `bad` during the block.

    Raises EnvironmentLacking `not-misbehaving`.
    """
    # A control group of its own without limits, as for commands: it contains exactly what was started here.
    tracker = bad.slot.group.tracker
    if tracker is None:
        raise EnvironmentLacking("no-cgroups", "misbehaving processes cannot be killed without control groups")
    _, container = tracker
    below = bad.slot.group.below(f"misbehaving-{misbehaviour}")
    inner = container / f"misbehaving-{misbehaviour}"
    inner.mkdir()
    # In a hybrid setup v2's groups limit nothing, and an ordinary user may not move processes into them:
    # that needs the common ancestor's folder too (cgroup-v2.rst, Delegation Containment).
    hierarchies = bad.slot.group.hierarchies
    roots = [root for root in hierarchies.roots() if root != hierarchies.beside]
    folders = [root / container.parent.name / container.name for root in roots]
    files = [folder / "cgroup.procs" for folder in folders if folder.is_dir() and folder != container]
    groups = ":".join(str(file) for file in (*files, inner / "cgroup.procs"))
    base, plan = bad.slot.base, bad.plan
    command: list[str | Path] = ["nsenter", "--target", str(bad.pid), "--net", "--"]
    command += [sys.executable, "-I", _PROGRAM, str(misbehaviour), str(base + plan.uid), str(base + plan.gid)]
    command += [groups, ",".join(targets) or bad.gateway or "127.0.0.1"]
    started = process.start(command, stdout=process.PIPE, stderr=process.PIPE)
    try:
        _wait_until_begun(started)
        yield
    finally:
        below.kill()
        process.kill_group(started)
        started.communicate()
        below.remove()


def _wait_until_begun(started: process.Process) -> None:
    assert started.stdout is not None and started.stderr is not None
    # It prints this line at once or exits, so the read returns.
    line = started.stdout.readline()
    if line.strip() != b"begun":
        raise EnvironmentLacking(
            "not-misbehaving",
            f"cannot start the misbehaving process: {started.stderr.read(2000).decode(errors='replace').strip()}",
            hint="`relbuild doctor` shows what is missing",
        )
