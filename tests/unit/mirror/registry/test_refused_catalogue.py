"""A registry that does not list its repositories can be published to, and is not said to be whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror
from pipeline.mirror.repair_sources import RepairSources
from pipeline.model.rules import MirrorRules
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.registry_contents import manifest, put
from tests.support.registry_fake import FakeRegistry, Fault

ACTS: dict[str, Callable[[RegistryMirror, Store], object]] = {
    "scrub": lambda mirror, store: mirror.scrub(RepairSources(store), rate=0, progress=QUIET),
    "prune": lambda mirror, store: mirror.prune(MirrorRules(), 1_800_000_000, dry_run=True),
    "inventory": lambda mirror, store: mirror.inventory(),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
@pytest.mark.parametrize("act", ACTS)
def test_a_refused_catalogue_is_no_empty_mirror(
    act: str, status: int, mirror: RegistryMirror, registry: FakeRegistry, store: Store
) -> None:
    put(registry.held("ns/app"), manifest("one"), "latest")
    registry.faults = [Fault("GET", "/v2/_catalog", lambda request: request.answer(status), times=1000)]
    with pytest.raises(EnvironmentLacking) as caught:
        ACTS[act](mirror, store)
    assert caught.value.code == "catalog-refused"
    assert "relbuild verify" in (caught.value.problems[0].hint or "")
    assert not registry.count("GET", "/tags/list")
    assert mirror.repositories() == ()  # as whoever looks for other sources is told


@pytest.mark.parametrize("act", ACTS)
def test_a_namespace_without_repositories_is_told(
    act: str, mirror: RegistryMirror, registry: FakeRegistry, store: Store
) -> None:
    put(registry.held("other/app"), manifest("one"), "latest")
    with pytest.raises(EnvironmentLacking, match="repositories-not-found"):
        ACTS[act](mirror, store)
    assert mirror.repositories() == ()
