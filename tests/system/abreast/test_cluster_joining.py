"""Workers that do not join a cluster, and one that nobody joins who has no key to it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import dask
import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.nightly.executors.dask.dask_executor import DaskExecutor
from tests.support import cluster_tasks
from tests.support.joined_cluster import HERE, Recorder, do, joined, until_there
from tests.support.machines import ROOT, machines
from tests.support.patience import HUNG
from tests.support.tiny_root import require_root

pytestmark = pytest.mark.long


def test_a_worker_with_another_relbuild_gets_no_work(tmp_path: Path) -> None:
    require_root()
    shutil.copytree(ROOT / "pipeline", tmp_path / "other" / "pipeline")
    with (tmp_path / "other" / "pipeline" / "build.py").open("a") as file:
        file.write("# another relbuild\n")
    with machines(tmp_path) as net:
        net.scheduler()
        net.worker("stranger", environment={"PYTHONPATH": str(tmp_path / "other")})
        until_there(net, "stranger")
        with joined(net, wait=1) as (executor, log):
            executor.start("any", cluster_tasks.say_where, None, HERE)
            ended = executor.next_result()
    assert "stranger has another relbuild: 0.1.0 (" in ended.lost
    (warned,) = [line for line in log.lines if "get no tasks" in line]
    assert "stranger has 0.1.0 (" in warned


def test_a_worker_leaves_when_no_scheduler_answers_for_too_long(tmp_path: Path) -> None:
    require_root()
    with machines(tmp_path) as net:
        net.machine("hub")
        worker = net.worker("one", "--death-timeout", "1", "--nthreads", "1", "--memory-limit", "2GiB")
        assert worker.process.wait(HUNG) == EnvironmentLacking.exit_code
        assert f"[no-scheduler] no scheduler answered at {net.address} for 1 s" in net.made["one"].said
        assert "connected to" not in net.made["one"].said


def test_over_tls_and_with_no_key_not_at_all(tmp_path: Path) -> None:
    require_root()
    files = certificates(tmp_path)
    pairs = {f"distributed.comm.tls.{who}.{what}": str(files[what]) for who in WHO for what in PAIR}
    settings = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": str(files["ca"]),
        **pairs,
    }
    tls = {f"DASK_{key.upper().replace('.', '__').replace('-', '_')}": str(text) for key, text in settings.items()}
    with machines(tmp_path) as net:
        net.scheduler("--protocol", "tls", environment=tls)
        address = net.address.replace("tcp://", "tls://")
        net.worker("one", to=address, environment=tls)
        for known in (address, net.address):
            with pytest.raises(EnvironmentLacking, match=f"cannot connect to the scheduler {known}: .+") as refused:
                DaskExecutor.join(known, Recorder(), plain=True, scheduler_timeout=3)
            assert refused.value.code == "no-scheduler"
        with dask.config.set(settings):
            executor = DaskExecutor.join(address, Recorder())
            ended = do(executor, {"any": (cluster_tasks.say_where, None)})
            executor.close()
        assert f"connected to {address}: " in net.made["one"].said
    assert ended["any"].result == "one"


WHO, PAIR = ("scheduler", "worker", "client"), ("cert", "key")


def certificates(folder: Path) -> dict[str, Path]:
    """An authority and a pair that it has signed."""
    files = {name: folder / f"{name}.pem" for name in ("ca", "ca-key", "cert", "key", "request")}
    for words in (
        f"req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -keyout {files['ca-key']} -out {files['ca']}",
        f"req -newkey rsa:2048 -nodes -subj /CN=cluster -keyout {files['key']} -out {files['request']}",
        f"x509 -req -in {files['request']} -CA {files['ca']} -CAkey {files['ca-key']} -CAcreateserial "
        f"-out {files['cert']}",
    ):
        subprocess.run(["openssl", *words.split()], check=True, capture_output=True, timeout=HUNG)
    return files
