"""What others put into a shared cache is never signed, through whole nights; and a store that may only be read serves.

The attacker has a catalogue, a relbuild and a store of its own, and writes what it likes into the folders that a CI
caches. The victim is a fresh machine with these folders, the recipes, and the key that signs.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import launch
from pipeline.digest import Digest, identity
from pipeline.oci import blob_path, read_layout
from pipeline.store import Store
from tests.support.catalogue import SmallCatalogue, small_catalogue
from tests.support.patience import HUNG
from tests.support.rpm_factory import Forge
from tests.support.tiny_root import require_root

pytestmark = pytest.mark.long

CACHED = ("blobs", "results", "metadata", "trees")
"""What docs/ci.md tells people to cache, and trees, which some may cache as well."""

HONEST = 'local f = io.open("/etc/honest", "w") f:write("1") f:close()'
PLANTED = 'local f = io.open("/etc/planted", "w") f:write("1") f:close()'


@pytest.fixture(scope="module")
def honest(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallCatalogue, Digest]:
    """A catalogue after a night of one product, with a layout of it, and its digest."""
    require_root()
    small = small_catalogue(tmp_path_factory.mktemp("cache") / "it", made)
    small.package("lone", "2", script=HONEST, by="<lua>")
    small.index()
    code, night = small.nightly("--only", "lone")
    assert code == 0, json.dumps(night, indent=1)
    done = small.relbuild("build", "recipes/lone.yaml", "--output", "out")
    assert done.returncode == 0, done.stderr
    return small, Digest.parse(product(night)["digest"])


@pytest.fixture
def attacker(honest: tuple[SmallCatalogue, Digest], tmp_path: Path) -> SmallCatalogue:
    return copied(honest[0], tmp_path / "attacker")


def copied(small: SmallCatalogue, folder: Path) -> SmallCatalogue:
    shutil.copytree(small.folder, folder, symlinks=True)
    return SmallCatalogue(folder, small.forge, small.packages)


def product(night: Any) -> Any:
    return next(one for one in night["products"] if one["name"] == "lone")


def victim(attacker: SmallCatalogue, folder: Path) -> SmallCatalogue:
    """A fresh machine: the attacker's cache, the recipes, no store's key, an empty mirror."""
    made = copied(attacker, folder)
    for name in ("store", "mirror", "out"):
        shutil.rmtree(made.folder / name)
    (made.folder / "store").mkdir(mode=0o700)
    for name in CACHED:
        shutil.copytree(attacker.folder / "store" / name, made.folder / "store" / name, symlinks=True)
    return made


def results(store: Store) -> Iterator[tuple[Digest, Any]]:
    for path in sorted((store.root / "results").glob("*/*")):
        name = Digest(path.name)
        yield name, store.recall(name)


def night_of(small: SmallCatalogue) -> tuple[int, Any]:
    code, night = small.nightly("--only", "lone")
    return code, product(night)


def published(small: SmallCatalogue) -> list[str]:
    return sorted(path.name for path in small.mirror.rglob("_tags/*")) if small.mirror.exists() else []


def test_a_forged_verdict_is_not_believed(attacker: SmallCatalogue, tmp_path: Path) -> None:
    """The product does not pass its test; the cache holds a report that it did."""
    was = read_layout(attacker.folder / "out" / "lone")
    attacker.edit("lone", 'content: "lone"', 'content: "evil"')
    done = attacker.relbuild("build", "recipes/lone.yaml", "--no-smoke", "--output", "out")
    assert done.returncode == 0, done.stderr
    now = read_layout(attacker.folder / "out" / "lone")
    store = Store.open(attacker.folder / "store")
    reports = [value for _, value in results(store) if isinstance(value, dict) and "instances" in value]
    (report,) = [one for one in reports if one["image"] == str(was.digest)]
    text = json.dumps(report).replace(str(was.digest), str(now.digest))
    text = text.replace(str(was.config_descriptor.digest), str(now.config_descriptor.digest))
    forged = json.loads(text.replace(was.config_descriptor.digest.hex, now.config_descriptor.digest.hex))
    name = identity(
        "smoke", launch.FORMAT, image=now.digest, plan=report["plan"], runtime=report["runtime"], older=None
    )
    store.remember(name, forged)
    prey = victim(attacker, tmp_path / "victim")
    code, told = night_of(prey)
    assert (code, told["outcome"]) == (1, "failed") and told["failure"]["stage"] == "smoke", told
    assert published(prey) == []


def test_an_edited_layer_result_is_not_published(
    attacker: SmallCatalogue, honest: tuple[SmallCatalogue, Digest], tmp_path: Path
) -> None:
    """One result says that the packages came to another layer, whose blob is in the cache."""
    layout = attacker.folder / "out" / "lone"
    layer = next(one for one in read_layout(layout).layers if b"lone/it" in tar_of(layout, one.blob.digest))
    evil = tar_of(layout, layer.blob.digest)
    at = evil.index(b"2\n" + bytes(510))
    evil = evil[:at] + b"666"[:1] + evil[at + 1 :]
    store = Store.open(attacker.folder / "store")
    blob = gzip.compress(evil, mtime=0)
    digest = store.put(blob)
    edited = 0
    for name, value in results(store):
        if isinstance(value, dict) and value.get("digest") == str(layer.blob.digest) and "diff_id" in value:
            changed = {"digest": str(digest), "size": len(blob), "diff_id": str(Digest.of(evil))}
            store.remember(name, {**value, **changed})
            edited += 1
    assert edited == 1
    prey = victim(attacker, tmp_path / "victim")
    code, told = night_of(prey)
    assert (code, told["outcome"], told["digest"]) == (0, "built", str(honest[1]))
    assert not list(prey.mirror.rglob(digest.hex))


def test_programs_in_the_cache_are_not_run(
    attacker: SmallCatalogue, honest: tuple[SmallCatalogue, Digest], tmp_path: Path
) -> None:
    """rpm's own Lua, made once for scriptlets, reads what lies in its folder: more than what relbuild had put there."""
    planted = 0
    store = Store.open(attacker.folder / "store")
    for runtime in [*store.metadata.glob("lua-*"), *(store.root / "trees").glob("lua-*/root")]:
        (runtime / "etc" / "init.lua").write_text(PLANTED)
        planted += 1
    assert planted
    for name, value in results(store):
        if isinstance(value, dict) and "changes" in value:
            next((store.root / "results").glob(f"*/{name.hex}")).unlink()  # So that scriptlets are run anew.
    prey = victim(attacker, tmp_path / "victim")
    code, told = night_of(prey)
    assert (code, told["outcome"], told["digest"]) == (0, "built", str(honest[1]))


def tar_of(layout: Path, digest: Digest) -> bytes:
    data = gzip.decompress(blob_path(layout, digest).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmembers()
    return data


# --- the same folders with a key of the CI's own -----------------------------------------------------------


def test_what_was_remembered_under_a_given_key_counts_on_the_next_machine(
    honest: tuple[SmallCatalogue, Digest], tmp_path: Path
) -> None:
    first = copied(honest[0], tmp_path / "first")
    shutil.rmtree(first.folder / "store")

    def build(small: SmallCatalogue) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "build", "recipes/lone.yaml", "--store", "store", "--output", "made"],
            env={**small.environment, "RELBUILD_STORE_KEY": "k" * 64},
            cwd=small.folder,
            capture_output=True,
            text=True,
            timeout=HUNG,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads((small.folder / "made" / "lone.report" / "report.json").read_text())

    assert not all(layer["reused"] for layer in build(first)["image"]["layers"])
    second = victim(first, tmp_path / "second")
    shutil.rmtree(second.folder / "made")
    report = build(second)
    assert all(layer["reused"] for layer in report["image"]["layers"]) and report["verdict_reused"]


# --- a store that may only be read -------------------------------------------------------------------------


def test_a_store_that_may_only_be_read_serves_a_build_in_which_nothing_changed(
    honest: tuple[SmallCatalogue, Digest], tmp_path: Path
) -> None:
    small = copied(honest[0], tmp_path / "it")
    words = ("build", "recipes/lone.yaml", "--output", "out")
    done = small.relbuild(*words)
    assert done.returncode == 0, done.stderr
    script = 'mount --bind store store && mount -o remount,bind,ro store && exec "$@"'
    command = [sys.executable, "-m", "pipeline", *words, "--store", "store", "--json"]
    for output in ("out", "elsewhere"):
        command[command.index("--output") + 1] = output
        ran = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *command],
            env=small.environment,
            cwd=small.folder,
            capture_output=True,
            text=True,
            timeout=HUNG,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert read_layout(small.folder / output / "lone").digest == honest[1]


# --- a store that rots -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["blobs", "results", "trees", "everywhere"])
def test_rot_costs_time_and_nothing_else(honest: tuple[SmallCatalogue, Digest], tmp_path: Path, where: str) -> None:
    """One bit is flipped in every file; the same command says so, makes again what it needs, and ends the same."""
    small = copied(honest[0], tmp_path / "it")
    store = small.folder / "store"
    words = ("build", "recipes/lone.yaml", "--output", "out")
    assert small.relbuild(*words).returncode == 0
    spoiled = 0
    for path in sorted(store.rglob("*") if where == "everywhere" else (store / where).rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != "key" and path.stat().st_size:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            spoiled += 1
    assert spoiled
    done = small.relbuild(*words)
    assert done.returncode == 0 and " again" in done.stderr, done.stderr
    assert read_layout(small.folder / "out" / "lone").digest == honest[1]
    assert small.in_this_process("validate", "out/lone").returncode == 0
    small.in_this_process("store", "fsck")  # What this build did not need is put aside.
    assert small.in_this_process("store", "fsck").returncode == 0
    assert small.relbuild(*words).returncode == 0
    code, told = night_of(small)
    assert code == 0, told
