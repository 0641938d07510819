"""What an overlay changed, as the last layer: the same tree comes out as was seen in the overlay."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.errors import RelbuildError
from pipeline.layers import build_layer, pack_directory, unpack_to_store
from pipeline.model.image import Layer
from pipeline.model.tree import Tree
from pipeline.store import Store
from tests.support.layer_comparison import comparable, composed
from tests.support.trees import differences, merged, read_tree

CHANGES = {
    "nothing": "true",
    "new files": "mkdir -p new/dir; echo 1 >new/dir/file; ln new/dir/file new/link; ln -s dir new/to",
    "changed content": "echo more >>usr/lib/one/id",
    "changed mode": "chmod 600 usr/lib/one/id; chmod 700 usr/lib/two",
    "changed owner": "chown 27:27 usr/lib/one/id; chown -h 27:27 usr/lib/two",
    "removed file": "rm usr/lib/one/id",
    "removed directory": "rm -r usr/lib/one",
    "directory made anew": "rm -r usr/lib/one; mkdir usr/lib/one; echo 2 >usr/lib/one/other",
    "directory made anew with the same": "cp -a usr/lib/one x; rm -r usr/lib/one; mv x usr/lib/one",
    "file becomes directory": "rm usr/lib/one/id; mkdir usr/lib/one/id; echo 3 >usr/lib/one/id/in",
    "directory becomes symlink": "rm -r usr/lib/one; ln -s two usr/lib/one",
    "symlink": "ln -s /etc/passwd usr/lib/one/abs",
    "capabilities": "echo >usr/lib/cap; setcap cap_net_raw=ep usr/lib/cap",
    "setuid": "echo >usr/lib/su; chown 0:8 usr/lib/su; chmod 6755 usr/lib/su",
    "touched only": "touch usr/lib/one/id usr/lib/two",
    "hard link to a lower file": "ln usr/lib/one/id usr/lib/one/id2",
    "deep removal in a new directory": "cp -a usr/lib/two/id x; rm -r usr; mkdir -p usr/lib/two; mv x usr/lib/two/id",
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_state_layer_over_its_lower_is_what_was_seen_in_the_overlay(
    three: list[Path], store: Store, tmp_path: Path, name: str
) -> None:
    composition = composed(three, store)
    lower = unpack_to_store(
        build_layer(composition.layers[0], store=store, compression=Compression.GZIP).layer, store=store
    )
    seen, upper = change(lower, tmp_path, CHANGES[name])
    layer = pack_directory(
        upper,
        name="state",
        lower=composition.tree,
        shift=0,
        build_time=composition.build_time,
        store=store,
        compression=Compression.GZIP,
    )
    merged_tree = comparable(merged([lower, unpack_to_store(layer, store=store)]))
    new = {path: entry for path, entry in merged_tree.items() if entry.mtime == composition.build_time}
    expected = {
        path: replace(entry, mtime=composition.build_time) if path in new else entry
        for path, entry in comparable(read_tree(seen)).items()
    }
    if name == "touched only":
        assert layer.tar_size == 1024
    else:
        assert differences(merged_tree, expected, ("the layers", "the overlay")) == []
    if name == "nothing":
        assert layer.tar_size == 1024


def change(lower: Path, folder: Path, script: str) -> tuple[Path, Path]:
    """Run a script in an overlay on `lower`; returns a copy of what it then showed, and the upper directory."""
    for part in ("upper", "work", "merged", "seen"):
        (folder / part).mkdir()
    mount = "redirect_dir=off,metacopy=off,index=off,lowerdir=$1,upperdir=upper,workdir=work"
    subprocess.run(
        [
            *("unshare", "-m", "sh", "-e", "-c"),
            f'mount -t overlay overlay -o "{mount}" merged; (cd merged; eval "$2"); cp -a merged/. seen',
            *("-", lower, script),
        ],
        cwd=folder,
        check=True,
    )
    return folder / "seen", folder / "upper"


def test_a_socket_is_left_out_and_a_device_refused(three: list[Path], store: Store, tmp_path: Path) -> None:
    composition = composed(three, store)
    upper = tmp_path / "upper"
    upper.mkdir()

    def pack() -> Layer:
        return pack_directory(
            upper,
            name="state",
            lower=composition.tree,
            shift=0,
            build_time=0,
            store=store,
            compression=Compression.GZIP,
        )

    os.mknod(upper / "socket", stat.S_IFSOCK | 0o600)
    assert pack().tar_size == 1024
    os.mknod(upper / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with pytest.raises(RelbuildError) as caught:
        pack()
    assert caught.value.code == "device-node"


def test_shifted_owners_and_namespaced_capabilities_come_out_as_the_images(store: Store, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    tool = upper / "tool"
    tool.write_bytes(b"x")
    os.chown(tool, 100_027, 100_008)
    version_3 = b"\x01\x00\x00\x03" + (1 << 13).to_bytes(4, "little") + bytes(12) + (100_000).to_bytes(4, "little")
    os.setxattr(tool, "security.capability", version_3)
    layer = pack_directory(
        upper,
        name="state",
        lower=Tree.of({}),
        shift=100_000,
        build_time=5,
        store=store,
        compression=Compression.GZIP,
    )
    found = read_tree(unpack_to_store(layer, store=store))["tool"]
    assert (found.uid, found.gid, found.mtime) == (27, 8, 5)
    assert found.capability == b"\x01\x00\x00\x02" + (1 << 13).to_bytes(4, "little") + bytes(12)
