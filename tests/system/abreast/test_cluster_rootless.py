"""A worker of a cluster that an ordinary user runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pipeline.digest import Digest
from pipeline.nightly.executors.dask.dask_executor import DaskExecutor
from pipeline.nightly.executors.executor_protocol import Requirements
from pipeline.oci import generate_key
from pipeline.progress import QUIET
from tests.support import cluster_tasks
from tests.support.cluster_tasks import ProductTask
from tests.support.machines import machines
from tests.support.patience import HUNG
from tests.support.product_builds import small_products
from tests.support.rpm_factory import Forge
from tests.system.test_rootless import ROOT, Person, person

__all__ = ["person"]  # a fixture


def test_an_ordinary_user_can_work_for_others(person: Person, made: Forge, tmp_path: Path) -> None:
    packages = person.folder / "packages"
    small_products(packages, made)
    shutil.copytree(ROOT / "tests", person.folder / "code" / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", packages, person.folder / "code"], check=True)
    to = person.folder / "home" / "mirror"
    with machines(tmp_path) as net:
        net.scheduler()
        worker = person.start("-m", "pipeline", "worker", net.address, "--name", "ordinary", "--jobs", "1")
        executor = DaskExecutor.join(net.address, QUIET, plain=True, wait=HUNG)
        try:
            product_task = ProductTask("small", packages, f"dir:{to}", generate_key(b"")[0], tmp_path)
            executor.start("small", cluster_tasks.build_and_publish, product_task, Requirements("x86_64"))
            ended = executor.next_result()
        finally:
            executor.close()
            worker.terminate()
            _, said = worker.communicate(timeout=HUNG)
    assert not ended.lost, said
    assert ended.worker == "ordinary" and isinstance(ended.result, str)
    held = list(to.rglob(f"*{Digest.parse(ended.result).hex}*"))
    assert held and {path.stat().st_uid for path in held} == {person.uid}
    assert person.processes() == []
