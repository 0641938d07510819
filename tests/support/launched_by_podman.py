"""A small image and a plan for launchers, and a program that tests it by Podman until it is killed.

python -m tests.support.launched_by_podman STORE LAUNCHER
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from pipeline.compression import Compression
from pipeline.digest import DiffId
from pipeline.model.checks import CheckKind
from pipeline.model.image import Descriptor, Image, ImageConfig, Layer
from pipeline.model.report import SmokeReport
from pipeline.model.smoke import Check, SmokePlan
from pipeline.oci import make_image, media_types
from pipeline.prepare import BuildEnvironment
from pipeline.progress import QUIET
from pipeline.smoke import smoke
from pipeline.store import Store
from tests.support.patience import HUNG
from tests.support.tiny_root import make_root

START = "echo kept >> /data/starts; httpd -p 80 -h /srv; trap 'echo bye; exit 0' TERM; echo serving"
SERVER = f"{START}; while :; do sleep 0.05; done"


def served_image(store: Store, command: str = SERVER) -> Image:
    """An image of busybox that serves a page on port 80 as `server`, with a volume /data."""
    with tempfile.TemporaryDirectory() as made:
        root = make_root(Path(made) / "root")
        data = root / "data"
        data.mkdir(exist_ok=True)

        def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.mtime = 0
            entry.uid, entry.gid = (27, 28) if entry.name == "data" else (0, 0)
            return entry

        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(root.iterdir()):
                tar.add(path, path.name, filter=owned)
    blob = gzip.compress(out.getvalue(), 1, mtime=0)
    layer = Layer(
        "base",
        DiffId.of(out.getvalue()),
        Descriptor(media_types.LAYERS[Compression.GZIP], store.put(blob), len(blob)),
        len(out.getvalue()),
    )
    config = ImageConfig(
        "amd64",
        0,
        entrypoint=("/bin/sh", "-c"),
        command=(command,),
        user="server",
        volumes=("/data",),
        exposed_ports=("80/tcp",),
    )
    return make_image("tiny", "1.0", config, [layer])


def report_of(store: Store, launcher: str, image: Image, plan: SmokePlan) -> SmokeReport:
    """The report of a smoke test by a launcher."""
    build_env = BuildEnvironment(store, QUIET, {}, time.time, launcher=launcher)
    return smoke(image, (), plan, sandboxes=build_env.launching(), clock=time.time)


READY = Check("ready", CheckKind.PORT, round(HUNG * 1000), port=80)


def main(store: str, launcher: str) -> None:
    """Say `begun`, and go on until killed."""
    kept = Store.open(Path(store))
    plan = SmokePlan(READY, (replace(READY, name="never", port=81, within=600_000),), instances=2)
    print("begun", flush=True)
    report_of(kept, launcher, served_image(kept), plan)


if __name__ == "__main__":
    main(*sys.argv[1:])
