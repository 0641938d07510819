"""What workers of a cluster say that they can do, what tasks want of them, and what is told where nobody can."""

from __future__ import annotations

import importlib
import platform
import sys

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.nightly.executors.dask import dask_resources
from pipeline.nightly.executors.dask.dask_resources import (
    code_version,
    resources_text,
    task_resources,
    worker_resources,
)
from pipeline.nightly.executors.dask.progress_message import ProgressMessage
from pipeline.nightly.executors.executor_protocol import Requirements
from pipeline.nightly.executors.progress_ipc import EventKind, ProgressEvent


@pytest.mark.parametrize("module", ["dask_executor", "dask_worker"])
def test_without_dask_the_way_out_is_told(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    for name in [name for name in sys.modules if name.startswith("pipeline.nightly.executors.dask")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(EnvironmentLacking) as raised:
        importlib.import_module(f"pipeline.nightly.executors.dask.{module}")
    assert raised.value.code == "cluster-missing"
    assert "pip install 'relbuild[cluster]'" in str(raised.value) and "pipx" in str(raised.value)


def test_a_task_takes_what_its_worker_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_resources, "native_architectures", lambda: ("amd64",))
    monkeypatch.setattr(dask_resources, "emulated_architectures", lambda: ("arm64", "s390x"))
    offer = worker_resources(4, 8 << 30, containers=True)
    native = task_resources(Requirements("x86_64", memory=1 << 30))
    assert native == {code_version(): 1, "ARCH-amd64": 1, "CONTAINERS": 1, "MEMORY": 1 << 30}
    emulated = task_resources(Requirements("aarch64"), emulated=True)
    assert emulated == {code_version(): 1, "EMULATED-arm64": 1, "CONTAINERS": 1}
    assert task_resources(Requirements("", containers=False)) == {code_version(): 1}
    assert all(offer[name] >= amount for want in (native, emulated) for name, amount in want.items())
    own = {code_version(): 4, "ARCH-amd64": 4, "CONTAINERS": 4, "MEMORY": 8 << 30}
    assert offer == {**own, "EMULATED-arm64": 4, "EMULATED-s390x": 4}
    assert worker_resources(4, 8 << 30, containers=True, emulation=False) == own
    assert resources_text(offer) == "x86_64, aarch64 s390x by emulation, containers, 8192 MiB of memory"
    assert resources_text(own) == "x86_64, containers, 8192 MiB of memory"


def test_a_worker_that_cannot_make_containers_does_what_needs_none() -> None:
    offer = worker_resources(1, 1, containers=False)
    assert "CONTAINERS" not in offer
    assert task_resources(Requirements(platform.machine(), containers=False)).keys() <= offer.keys()
    assert not task_resources(Requirements(platform.machine())).keys() <= offer.keys()


def test_what_a_worker_tells_arrives_as_it_was() -> None:
    events = (
        ProgressEvent(EventKind.START, 3, "fetch", "größe: 3 packages", 1 << 40, "bytes"),
        ProgressEvent(EventKind.ADVANCE, 3, amount=17),
        ProgressEvent(EventKind.FINISH, 3, text="reused", amount=18, failed=True),
        ProgressEvent(EventKind.WARN, text="a name that is no text: \udcff"),
    )
    heard = ProgressMessage.parse(ProgressMessage("night", "name", "attempt", "worker", events).plain())
    assert heard.events[:3] == events[:3]
    assert heard.events[3].text == "a name that is no text: ?"
    assert (heard.night, heard.name, heard.attempt, heard.worker) == ("night", "name", "attempt", "worker")
