"""`relbuild diff`, held against those who look at images in their own way: umoci and find, rpm, skopeo."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import BuildResult
from pipeline.digest import digest_file
from tests.support.cheap_keys import write_cheap_key
from tests.support.differing_pair import Pair, differing_pair
from tests.support.foreign_programs import docker_registry
from tests.support.published_products import other_architecture
from tests.support.rpm_factory import Forge
from tests.support.sites import PASSWORD, relbuild
from tests.support.tiny_root import require_root
from tests.system.conftest import ROOT

pytestmark = pytest.mark.long

PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""
"""Runs a command from a process that is small itself, and says how many KiB of memory the command had at most."""


@pytest.fixture(scope="module")
def pair(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    require_root()
    return differing_pair(tmp_path_factory.mktemp("small") / "it", made)


# --- files, as umoci and find see them -------------------------------------------------------------------


def unpacked(image: str, bundle: Path) -> Path:
    """An image's root file system, as umoci unpacks it."""
    subprocess.run(["umoci", "unpack", "--image", image, bundle], check=True, capture_output=True)
    return bundle / "rootfs"


def walk(root: Path) -> dict[str, tuple[object, ...]]:
    """What stands at every path: kind, mode, owner, size of files, target, capabilities, content."""
    form = r"%P\0%y\0%m\0%U\0%G\0%s\0%l\0"
    told = subprocess.run(["find", root, "-printf", form], check=True, capture_output=True).stdout
    fields = told.decode(errors="surrogateescape").split("\0")[:-1]
    found = {}
    for path, kind, mode, uid, gid, size, link in zip(*(iter(fields),) * 7, strict=True):
        place = root / path
        content = str(digest_file(place)) if kind == "f" else ""
        attributes = {name: os.getxattr(place, name) for name in os.listxattr(place)} if kind == "f" else {}
        capability = attributes.get("security.capability", b"")
        found[path] = (kind, mode, uid, gid, size if kind == "f" else "", link, capability, content)
    return found


def changed(old: Path, new: Path) -> dict[str, str]:
    """Path → `added`, `removed` or `changed`, as two walks see it."""
    before, after = walk(old), walk(new)
    return {
        f"/{path}": "added" if path not in before else "removed" if path not in after else "changed"
        for path in {*before, *after}
        if before.get(path) != after.get(path)
    }


def told_files(told: dict[str, Any]) -> dict[str, str]:
    """The same as relbuild tells it."""
    return {
        one["path"]: "added" if one["before"] is None else "removed" if one["after"] is None else "changed"
        for one in told["files"]
    }


def reference(built: BuildResult) -> str:
    """As umoci and skopeo name a layout that was built."""
    return f"{built.layout}:{built.image.reference}"


def test_files_are_those_that_two_walks_see(pair: Pair, tmp_path: Path) -> None:
    old, new = unpacked(reference(pair.old), tmp_path / "old"), unpacked(reference(pair.new), tmp_path / "new")
    told = pair.told(pair.old.layout, pair.new.layout)
    seen = changed(old, new)
    assert told_files(told) == seen
    thing = {path.removeprefix("/usr/lib/thing/"): what for path, what in seen.items() if "/thing/" in path}
    assert thing == {
        **dict.fromkeys(("content", "mode", "owner", "link", "first", "second", "turned", "capable"), "changed"),
        **dict.fromkeys(("gone", "gone/deep", "gone/deep/file", "turned/file"), "removed"),
        **dict.fromkeys(("come", "come/file", "für"), "added"),
    }
    by_path = {one["path"]: one for one in told["files"]}
    status = (new / "usr/lib/thing/owner").stat()
    assert by_path["/usr/lib/thing/mode"]["what"] == ["mode"]
    assert by_path["/usr/lib/thing/owner"]["after"]["uid"] == status.st_uid != 0
    assert by_path["/usr/lib/thing/capable"]["after"]["attributes"] == {"security.capability": "cap_net_raw=ep"}
    assert by_path["/usr/lib/thing/content"]["after"]["digest"] == str(digest_file(new / "usr/lib/thing/content"))


def test_whole_products_too(built: Callable[[str], BuildResult], pair: Pair, tmp_path: Path) -> None:
    one, other = built("nginx"), built("redis")
    seen = changed(unpacked(reference(one), tmp_path / "one"), unpacked(reference(other), tmp_path / "other"))
    told = pair.told(one.layout, other.layout)
    assert told_files(told) == seen and len(seen) > 50


def test_whiteouts_of_an_image_that_was_made_elsewhere(pair: Pair, tmp_path: Path) -> None:
    """umoci writes the layer, and says neither its name nor how large its tar is."""
    layout = tmp_path / "layout"
    subprocess.run(["skopeo", "copy", "--quiet", f"oci:{reference(pair.old)}", f"oci:{layout}:old"], check=True)
    root = unpacked(f"{layout}:old", tmp_path / "bundle")
    thing = root / "usr/lib/thing"
    shutil.rmtree(thing / "gone")
    (thing / "gone").write_text("a file now\n")
    (thing / "kept").unlink()
    shutil.rmtree(thing / "turned")
    (thing / "turned").mkdir()
    (thing / "turned" / "other").write_text("another\n")
    (thing / "second").unlink()
    (thing / "mode").chmod(0o600)
    argv = ["umoci", "repack", "--image", f"{layout}:new", tmp_path / "bundle"]
    subprocess.run(argv, check=True, capture_output=True)
    old, new = unpacked(f"{layout}:old", tmp_path / "old"), unpacked(f"{layout}:new", tmp_path / "new")
    told = pair.told(f"oci:{layout}:old", f"oci:{layout}:new")
    seen = changed(old, new)
    assert told_files(told) == seen and {"/usr/lib/thing/kept", "/usr/lib/thing/second"} <= seen.keys()
    assert told["packages"] == [] and [layer["shared"] for layer in told["layers"]] == [True, True, True, False]


# --- packages, as rpm sees them --------------------------------------------------------------------------


def rpm(root: Path, *words: str) -> list[str]:
    """What rpm answers about an unpacked image."""
    database = root / "usr/lib/sysimage/rpm"
    done = subprocess.run(["rpm", "--dbpath", database, *words], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_packages_are_those_that_rpm_lists(built: Callable[[str], BuildResult], pair: Pair, tmp_path: Path) -> None:
    for number, (one, other) in enumerate(((built("nginx"), built("redis")), (pair.old, pair.new))):
        roots = [
            unpacked(reference(image), tmp_path / f"{number}-{image.image.name}-{n}")
            for n, image in enumerate((one, other))
        ]
        form = r"%{NAME}.%{ARCH} %{EVR}\n"
        old, new = (set(rpm(root, "-qa", "--qf", form)) for root in roots)
        told = pair.told(one.layout, other.layout)["packages"]
        names = [f"{package['name']}.{package['arch']}" for package in told]
        assert {
            f"{name} {package['before']}" for name, package in zip(names, told, strict=True) if package["before"]
        } == (old - new)
        assert {
            f"{name} {package['after']}" for name, package in zip(names, told, strict=True) if package["after"]
        } == (new - old)


def test_changelogs_are_what_rpm_has_more_than_before(pair: Pair, tmp_path: Path) -> None:
    told = {one["name"]: one for one in pair.told(pair.old.layout, pair.new.layout)["packages"]}
    assert {name: (one["before"], one["after"]) for name, one in told.items()} == {
        "thing": ("1-1", "2-1"),
        "retired": ("1-1", None),
        "arrived": (None, "1-1"),
    }
    root = unpacked(reference(pair.new), tmp_path / "new")
    before = unpacked(reference(pair.old), tmp_path / "old")
    form = "[%{CHANGELOGTIME} %{CHANGELOGNAME} %{CHANGELOGTEXT}\n]"
    lines = [
        line for line in rpm(root, "-q", "--qf", form, "thing") if line not in rpm(before, "-q", "--qf", form, "thing")
    ]
    assert [f"{one['time']} {one['name']} {one['text']}" for one in told["thing"]["changelog"]] == lines
    assert len(lines) == 2 and told["thing"]["fixes"] == ["CVE-2026-12345"]


# --- layers, as skopeo carries them ----------------------------------------------------------------------


def test_what_is_downloaded_is_what_skopeo_adds(pair: Pair, tmp_path: Path) -> None:
    def carried(built: BuildResult, name: str) -> dict[str, int]:
        source = f"oci:{reference(built)}"
        argv = ["skopeo", "copy", "--quiet", "--preserve-digests", source, f"oci:{tmp_path / 'client'}:{name}"]
        subprocess.run(argv, check=True)
        return {path.name: path.stat().st_size for path in (tmp_path / "client" / "blobs" / "sha256").iterdir()}

    before = carried(pair.old, "old")
    after = carried(pair.new, "new")
    told = pair.told(pair.old.layout, pair.new.layout)
    assert told["download"] == sum(after.values()) - sum(before.values())
    new = {layer["digest"].removeprefix("sha256:") for layer in told["layers"] if not layer["shared"]}
    assert new == {layer.blob.digest.hex for layer in pair.new.image.layers} - before.keys()
    assert [layer["shared"] for layer in told["layers"]] == [True, False, False]
    compressed = [sum(layer.blob.size for layer in built.image.layers) for built in (pair.old, pair.new)]
    assert [told["size"]["compressed"][side] for side in ("before", "after")] == compressed


# --- configuration ---------------------------------------------------------------------------------------


def test_configuration_by_the_names_of_the_specification(pair: Pair) -> None:
    told = {
        one["name"]: (one["before"], one["after"])
        for one in pair.told(pair.old.layout, pair.new.layout)["configuration"]
    }
    del told["created"]
    assert told == {
        "Env.COME": (None, "x"),
        "Env.GONE": ("x", None),
        "Env.OTHER": ("a", "b"),
        "ExposedPorts.81/tcp": ("", None),
        "Labels.note": ("old", "new"),
        "Labels.org.opencontainers.image.version": ("1", "2"),
    }


# --- where they are --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, str]]]:
    """The pair in a directory mirror, in a registry, in one layout, and by name."""
    folder = tmp_path_factory.mktemp("places")
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(docker_registry(folder / "registry"))
        write_cheap_key(pair.small.folder, "ours", PASSWORD)
        store = pair.small.build_env.store.root
        for built in (pair.old, pair.new):
            for to in (f"dir:{folder / 'mirror'}", f"registry+http://{host}/ns"):
                words = [built.layout, "--to", to, "--key", "ours.key", "--store", store]
                done = relbuild(pair.small.folder, "publish", *words)
                assert done.returncode == 0, done.stderr
            tag = f"oci:{folder / 'layout'}:{built.image.reference}"
            subprocess.run(["skopeo", "copy", "--quiet", f"oci:{reference(built)}", tag], check=True)
        old, new = (built.image.reference for built in (pair.old, pair.new))
        yield {
            "directory": (f"dir:{folder / 'mirror'}/thing:{old}", f"dir:{folder / 'mirror'}/thing:{new}"),
            "registry": (
                f"registry+http://{host}/ns/thing:{old}",
                f"registry+http://{host}/ns/thing@{pair.new.image.digest}",
            ),
            "layout": (f"oci:{folder / 'layout'}:{old}", f"oci:{folder / 'layout'}:{new}"),
            "mixed": (str(pair.old.layout), f"dir:{folder / 'mirror'}/thing:latest"),
        }


@pytest.mark.parametrize("kind", ["directory", "registry", "layout", "mixed"])
def test_wherever_they_are_it_says_the_same(
    pair: Pair, places: dict[str, tuple[str, str]], kind: str, tmp_path: Path
) -> None:
    expected = pair.told(pair.old.layout, pair.new.layout)
    # A store that has none of it.
    done = relbuild(tmp_path, "diff", *places[kind], "--json", "--progress", "none", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == [expected]


def test_images_of_an_index_are_paired_by_platform(pair: Pair, tmp_path: Path) -> None:
    small, store = pair.small, pair.small.build_env.store.root
    twin = other_architecture(pair.old, small, "386")
    write_cheap_key(tmp_path, "k", PASSWORD)
    (tmp_path / "rules.yaml").write_text("gate: [{refuse-fewer-platforms: false}]\n")
    words = ["--to", f"dir:{tmp_path / 'mirror'}", "--key", tmp_path / "k.key", "--store", store]
    words += ["--rules", tmp_path / "rules.yaml"]
    for layouts in ((pair.old.layout, twin.layout), (pair.new.layout,)):
        done = relbuild(small.folder, "publish", *layouts, *words)
        assert done.returncode == 0, done.stderr
    old, new = (f"dir:{tmp_path / 'mirror'}/thing:{built.image.reference}" for built in (pair.old, pair.new))
    done = pair.diff(old, new, "--json")
    value = json.loads(done.stdout)
    assert value["images"] == [pair.told(pair.old.layout, pair.new.layout)]
    assert (value["only_before"], value["only_after"]) == (["linux/386"], [])
    alone = pair.diff(f"dir:{tmp_path / 'mirror'}/thing@{twin.image.digest}", new, "--json")
    settings = {one["name"]: one["after"] for one in json.loads(alone.stdout)["images"][0]["configuration"]}
    assert settings["architecture"] == "amd64" and settings["Env.COME"] == "x"


# --- what people see -------------------------------------------------------------------------------------


def test_people_read_it(pair: Pair) -> None:
    done = pair.diff("1/thing", "2/thing", "--output", pair.small.folder / "output")
    assert done.returncode == 0, done.stderr
    for line in (
        "packages: 1 changed, 1 added, 1 removed",
        "~ thing.noarch 1-1 → 2-1  mentions CVE-2026-12345",
        "- second, closes CVE-2026-12345",
        "~ Labels.note: old → new",
        "~ /usr/lib/thing/mode  mode 0644 → 4755",
        "~ /usr/lib/thing/turned  directory 0755 0:0 → file 11 B 0644 0:0",
        "~ /usr/lib/thing/capable  attributes none → security.capability=cap_net_raw=ep",
        "+ /usr/lib/thing/für",
        "a client with the earlier image downloads",
    ):
        assert line in done.stdout, done.stdout


def test_the_same_image_is_the_same_to_the_last_byte(pair: Pair) -> None:
    for words, status in (((), 0), (("--exit-code",), 0)):
        done = pair.diff(pair.new.layout, pair.new.layout, *words)
        assert (done.returncode, done.stdout) == (status, f"identical: {pair.new.image.digest}\n")
    assert pair.diff(pair.old.layout, pair.new.layout, "--exit-code").returncode == 1


@pytest.mark.parametrize(
    ("old", "status", "code"),
    [
        ("nothing", 2, "not-a-layout"),
        ("dir:nowhere/thing", 2, "not-a-mirror"),
        ("oci:nowhere:1", 2, "not-a-layout"),
        ("registry://", 2, "address-malformed"),
    ],
)
def test_errors_say_what_is_not_there(pair: Pair, old: str, status: int, code: str) -> None:
    done = pair.diff(old, pair.new.layout)
    assert (done.returncode, f"error[{code}]" in done.stderr, "→" in done.stderr) == (status, True, True), done.stderr


def test_a_blob_with_other_bytes_is_told(pair: Pair, tmp_path: Path) -> None:
    shutil.copytree(pair.old.layout, tmp_path / "spoilt")
    blob = tmp_path / "spoilt" / "blobs" / "sha256" / pair.old.image.layers[1].blob.digest.hex
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.unlink()
    blob.write_bytes(data)
    done = relbuild(tmp_path, "diff", "spoilt", pair.new.layout, "--store", tmp_path / "store")
    assert done.returncode == 5 and "error[" in done.stderr and "Traceback" not in done.stderr


def test_memory_does_not_grow_with_files(made: Forge, pair: Pair, tmp_path: Path) -> None:
    """Files of a quarter of a GiB with different content: the command stays below half of that."""
    size = 256 << 20
    layouts = []
    for number in (1, 2):
        root = unpacked(reference(pair.old), tmp_path / f"bundle{number}")
        layout = tmp_path / f"layout{number}"
        subprocess.run(["skopeo", "copy", "--quiet", f"oci:{reference(pair.old)}", f"oci:{layout}:it"], check=True)
        with (root / "large").open("wb") as file:
            file.write(str(number).encode())
            file.truncate(size)
        argv = ["umoci", "repack", "--image", f"{layout}:it", tmp_path / f"bundle{number}"]
        subprocess.run(argv, check=True, capture_output=True)
        layouts.append(layout)
        shutil.rmtree(tmp_path / f"bundle{number}")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, sys.executable, "-m", "pipeline", "diff", *layouts, "--json", "--store", "store"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (told,) = json.loads(done.stdout)["images"]
    assert told_files(told) == {"/large": "changed"}
    assert int(done.stderr.splitlines()[-1]) * 1024 < size // 2
