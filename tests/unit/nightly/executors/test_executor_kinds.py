"""Every kind of executor implements all of the protocol, and nobody but who opens one knows which kind it is."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from pipeline.nightly.executors import open_executor as opening
from pipeline.nightly.executors.dask.dask_executor import DaskExecutor
from pipeline.nightly.executors.executor_protocol import Executor
from pipeline.nightly.executors.open_executor import open_executor
from pipeline.nightly.executors.process_executor import ProcessExecutor
from pipeline.processors import whole_processors
from pipeline.progress import QUIET, Progress
from tests.support.source import PIPELINE, ROOT, nodes, trees

EXECUTORS = PIPELINE / "nightly" / "executors"
SHARED = {
    "executor_protocol",
    "open_executor",
    "progress_ipc",
    "task_inputs",
    "task_payload",
    "task_result",
    "worker_health",
}
"""Modules that are no kind of executor: what all kinds, or all clusters, have in common."""

OUTSIDE = {
    ("nightly/executors/open_executor.py", "chooses one"),
    ("cli/commands/worker.py", "is the other end of a Dask cluster"),
}
"""Files that may import a kind of executor, and why. A kind may use another, and its own files."""


def _kind(module: str) -> str:
    inner = module.removeprefix("pipeline.nightly.executors.")
    name = inner.partition(".")[0]
    return "" if inner == module or name in SHARED else name


def test_nobody_imports_a_kind_of_executor_but_who_is_named_here() -> None:
    offences, kinds = [], set()
    for path, tree in trees().items():
        place = path.relative_to(PIPELINE).as_posix()
        own = _kind(f"pipeline.{place.removesuffix('.py').replace('/', '.')}")
        for node in nodes(tree):
            if isinstance(node, ast.ImportFrom) and node.module and _kind(node.module):
                kinds.add(_kind(node.module))
                if not own and place not in {file for file, _ in OUTSIDE}:
                    offences.append(f"{place} imports {node.module}")
    assert not offences, "\n".join(offences)
    assert kinds == {"dask", "process_executor"}


@pytest.mark.parametrize("kind", [ProcessExecutor, DaskExecutor])
def test_each_kind_has_all_of_the_protocol(kind: type) -> None:
    wanted = {name for name in vars(Executor) if not name.startswith("_")}
    assert wanted == {"size", "several_machines", "start", "set_aside", "next_result", "close"}
    assert wanted - set(dir(kind)) == set()


def test_without_a_scheduler_this_machine_does_the_tasks() -> None:
    assert open_executor(None, QUIET, jobs=3).size == 3
    assert open_executor(None, QUIET).size == whole_processors()


def test_a_scheduler_s_address_joins_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = []

    def join(address: str, progress: Progress, *, plain: bool) -> object:
        joined.append((address, plain))
        return "cluster"

    monkeypatch.setattr(DaskExecutor, "join", join)
    assert open_executor("tls://host:1", QUIET, plain_scheduler=True) == "cluster"  # type: ignore[comparison-overlap]
    assert joined == [("tls://host:1", True)]


def test_what_opens_an_executor_loads_no_cluster() -> None:
    text = f"import sys, {opening.__name__}; print('distributed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"
