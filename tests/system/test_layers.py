"""Layers against rpm itself: what comes out of a layer is what `rpm -i` puts on a disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import DiffId, digest_file
from pipeline.errors import RelbuildError
from pipeline.layers import build_layer, pack_directory, unpack
from pipeline.model.accounts import AccountTable
from pipeline.model.header import PackageHeader
from pipeline.model.image import Compression, Layer
from pipeline.model.recipe import Group, User
from pipeline.model.tree import Tree
from pipeline.packages import DatabaseRecord, read_header, write_database
from pipeline.store import Store
from pipeline.trees import ComposeOptions, Composition, compose, diff, install_color, scan
from tests.system.rpm_factory import Forge, forge
from tests.system.trees import Found, differences, merged, read_tree

SETUP = Path(__file__).parents[2] / "ci" / "mirror.d" / "setup"
DATABASE = ".database"
SEEDED = ("etc", "etc/passwd", "etc/group", "etc/passwd.rpmnew", "etc/group.rpmnew", DATABASE, "var/tmp", "var")
"""What the comparison's own preparation leaves in rpm's tree."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with forge(tmp_path_factory.mktemp("forge")) as it:
        yield it


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def accounts() -> AccountTable:
    """The mirror's own accounts and those that its packages add."""
    users = [line.split(":") for line in (SETUP / "passwd").read_text().splitlines()]
    groups = [line.split(":") for line in (SETUP / "group").read_text().splitlines()]
    more = (("mysql", 27), ("postgres", 26), ("nginx", 999), ("redis", 998))
    return AccountTable(
        users=tuple(User(user[0], int(user[2]), int(user[3])) for user in users)
        + tuple(User(name, number, number) for name, number in more),
        groups=tuple(Group(group[0], int(group[2])) for group in groups)
        + tuple(Group(name, number) for name, number in more),
    )


def headers(packages: Sequence[Path], store: Store) -> list[PackageHeader]:
    """The packages' headers, the packages in the store."""
    found = []
    for package in packages:
        checksum = digest_file(package)
        if not store.has(checksum):
            shutil.copy(package, store.blob(checksum))
        found.append(read_header(package, checksum))
    return found


def composed(packages: Sequence[Path], store: Store, options: ComposeOptions | None = None) -> Composition:
    return compose([("all", headers(packages, store))], accounts(), options or ComposeOptions())


def layered(
    packages: Sequence[Path],
    store: Store,
    options: ComposeOptions | None = None,
    compression: Compression = Compression.GZIP,
) -> Layer:
    (layer,) = composed(packages, store, options).layers
    return build_layer(layer, store=store, compression=compression).layer


def installed(packages: Sequence[Path], root: Path, *options: str) -> dict[str, Found]:
    """What rpm makes of the same packages with the same accounts."""
    (root / "etc").mkdir(parents=True)
    table = accounts()
    (root / "etc/passwd").write_text(
        "".join(f"{user.name}:x:{user.uid}:{user.gid}::/:/bin/sh\n" for user in table.users)
    )
    (root / "etc/group").write_text("".join(f"{group.name}:x:{group.gid}:\n" for group in table.groups))
    done = subprocess.run(
        [
            *("rpm", "--root", root, "--dbpath", f"/{DATABASE}", "-i", "--nosignature", "--nodigest"),
            *("--nodeps", "--noscripts", "--notriggers", *options, *packages),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    tree = read_tree(root)
    return {path: found for path, found in tree.items() if path not in SEEDED and not path.startswith(DATABASE)}


def comparable(tree: dict[str, Found]) -> dict[str, Found]:
    """rpm gives a directory the time of its package, a layer that of its newest package; both are free to."""
    return {
        path: replace(found, mtime=0) if found.kind == "d" else found
        for path, found in tree.items()
        if path not in SEEDED
    }


def assert_as_rpm_installs(
    packages: Sequence[Path],
    store: Store,
    tmp_path: Path,
    *,
    options: ComposeOptions | None = None,
    rpm: Sequence[str] = (),
    only_rpms: Sequence[str] = (),
) -> dict[str, Found]:
    """`only_rpms`: paths that rpm makes and a layer rightly does not have."""
    ours = read_tree(unpack(layered(packages, store, options), store=store))
    theirs = comparable(installed(packages, tmp_path / "rpm", *rpm))
    for path in only_rpms:
        del theirs[path]
    assert differences(comparable(ours), theirs, ("the layer", "rpm's tree")) == []
    return ours


def of_mirror(mirror: Path, *names: str) -> list[Path]:
    found = []
    for name in names:
        (package,) = (mirror / "base").glob(f"{name}-1.0-1.*.rpm")
        found.append(package)
    return found


# --- the same as rpm -------------------------------------------------------------------------------------


def test_the_layer_of_mysql_and_its_closure_is_what_rpm_installs(mirror: Path, store: Store, tmp_path: Path) -> None:
    newest = {}
    for package in sorted((mirror / "base").glob("*.rpm")):
        if not package.name.startswith(("hardcase", "nginx", "postgresql", "redis")):
            newest[read_header(package, digest_file(package)).nevra.name] = package
    tree = assert_as_rpm_installs(list(newest.values()), store, tmp_path)
    assert len(tree) > 5000


@pytest.mark.parametrize(
    "names",
    [
        ("hardcase-modes",),
        ("hardcase-hardlinks",),
        ("hardcase-identical", "hardcase-identical-b"),
        ("hardcase-symlinks",),
        ("hardcase-config",),
        ("hardcase-languages",),
        ("hardcase-empty",),
        ("hardcase-old-payload",),
        ("hardcase-beneath", "hardcase-beneath-b"),
    ],
    ids=lambda names: names[0],
)
def test_a_hard_case_of_the_mirror_is_what_rpm_installs(
    mirror: Path, store: Store, tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert_as_rpm_installs(of_mirror(mirror, *names), store, tmp_path)


def test_paths_through_merged_directories_land_where_rpm_puts_them(mirror: Path, store: Store, tmp_path: Path) -> None:
    (filesystem,) = (mirror / "base").glob("filesystem-*.rpm")
    tree = assert_as_rpm_installs([filesystem, *of_mirror(mirror, "hardcase-unmerged")], store, tmp_path)
    assert "usr/bin/hardcase-unmerged" in tree
    assert tree["bin"].link == "usr/bin"


def test_of_two_colours_the_preferred_one_is_installed_as_by_rpm(mirror: Path, store: Store, tmp_path: Path) -> None:
    packages = sorted((mirror / "base").glob("hardcase-colour-*.rpm"))
    assert len(packages) == 2
    assert_as_rpm_installs(
        packages,
        store,
        tmp_path,
        rpm=["--ignorearch", "--define=_transaction_color 3", "--define=_prefer_color 2"],
    )


def test_documents_are_left_out_as_rpm_leaves_them_out(made: Forge, store: Store, tmp_path: Path) -> None:
    package = made.package(
        "documented",
        install=(
            "mkdir -p usr/share/doc/documented/html/deep usr/share/man/man1 usr/bin\n"
            "echo 1 >usr/share/doc/documented/html/deep/index; echo 2 >usr/share/doc/documented/README\n"
            "echo 3 >usr/share/man/man1/it.1; echo 4 >usr/bin/it"
        ),
        files=["/usr/share/doc/documented", "/usr/share/man/man1/it.1*", "/usr/bin/it"],
    )
    assert_as_rpm_installs(
        [package], store, tmp_path, options=ComposeOptions(docs={"all": False}), rpm=["--excludedocs"]
    )


def test_directories_that_only_held_documents_go_as_with_rpm(made: Forge, store: Store, tmp_path: Path) -> None:
    package = made.package(
        "nested",
        install="mkdir -p usr/lib/a/b/c; echo 1 >usr/lib/a/b/c/text",
        files=["%dir /usr/lib/a", "%dir /usr/lib/a/b", "%dir /usr/lib/a/b/c", "%doc /usr/lib/a/b/c/text"],
    )
    assert_as_rpm_installs(
        [package], store, tmp_path, options=ComposeOptions(docs={"all": False}), rpm=["--excludedocs"]
    )


@pytest.mark.parametrize("languages", ["de", "de_AT:fr", "en"])
def test_languages_are_left_out_as_rpm_leaves_them_out(
    mirror: Path, store: Store, tmp_path: Path, languages: str
) -> None:
    assert_as_rpm_installs(
        of_mirror(mirror, "hardcase-languages"),
        store,
        tmp_path,
        options=ComposeOptions(languages=tuple(languages.split(":"))),
        rpm=[f"--define=_install_langs {languages}"],
    )


def test_a_hard_link_whose_data_bearing_name_is_left_out_keeps_its_data(
    mirror: Path, store: Store, tmp_path: Path
) -> None:
    tree = assert_as_rpm_installs(
        of_mirror(mirror, "hardcase-hardlinks"),
        store,
        tmp_path,
        options=ComposeOptions(docs={"all": False}),
        rpm=["--excludedocs"],
        # rpm makes the directories of the name that it leaves out, because the data arrives under it.
        only_rpms=["usr/share", "usr/share/doc", "usr/share/doc/hardcase-hardlinks"],
    )
    assert tree["usr/bin/hardcase-hardlink"].names == (
        "usr/bin/hardcase-hardlink",
        "usr/libexec/hardcase/hardlink",
    )
    assert tree["usr/bin/hardcase-hardlink"].size > 0


def test_odd_names_and_kinds_are_what_rpm_installs(made: Forge, store: Store, tmp_path: Path) -> None:
    long = "/".join(["usr", *(letter * 120 for letter in "abcd")])
    package = made.package(
        "odd",
        install=(
            f"mkdir -p {long}; echo 1 >{long}/{'n' * 200}; ln -s {'t/' * 150} usr/far\n"
            'echo 2 >usr/größe; echo 3 >"usr/it\'s 100% "; touch -d @1 usr/epoch; touch -h -d @1 usr/far\n'
            "ln usr/größe usr/größer; ln -s größe usr/verweis; mkdir -m 1777 usr/sticky; >usr/none; chmod 0 usr/none"
        ),
        files=["/usr/*"],
    )
    tree = assert_as_rpm_installs([package], store, tmp_path)
    assert tree["usr/größe"].names == ("usr/größe", "usr/größer")


def test_a_file_over_4_gib_passes_through_with_bounded_memory(made: Forge, store: Store, tmp_path: Path) -> None:
    size = (4 << 30) + 5
    package = made.package("huge", install=f"truncate -s {size - 4} huge; echo end >>huge", files=["/huge"])
    script = (
        "import sys; from pathlib import Path; from tests.system.test_layers import *\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "print(unpack(layered([Path(sys.argv[2])], store, compression=Compression.ZSTD), store=store))\n"
        # Not ru_maxrss: that takes over the peak of the process that started this one.
        "print(next(l.split()[1] for l in Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in l))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, store.root, package],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    root, kilobytes = done.stdout.split()
    huge = Path(root, "huge")
    assert huge.stat().st_size == size
    assert huge.stat().st_blocks * 512 < size / 100, "zeros take room on the disk"
    with huge.open("rb") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == b"\0end\n"
    assert int(kilobytes) < 600_000


# --- composition and database ----------------------------------------------------------------------------


def test_rpm_verify_finds_nothing_wrong_in_an_unpacked_layer_without_documents(mirror: Path, store: Store) -> None:
    """Excluded files and the loser of two colours are recorded as such, so `-Va` does not call them missing."""
    packages = [
        *of_mirror(mirror, "hardcase-languages", "hardcase-hardlinks", "hardcase-modes"),
        *sorted((mirror / "base").glob("hardcase-colour-*.rpm")),
        *(mirror / "base").glob("setup-*.rpm"),
    ]
    options = ComposeOptions(docs={"all": False}, languages=("de",))
    composition = composed(packages, store, options)
    root = unpack(layered(packages, store, options), store=store)
    database = root / "usr/lib/sysimage/rpm"
    database.mkdir(parents=True)
    write_database(
        database,
        [
            DatabaseRecord(
                store.blob(header.checksum),
                header.nevra,
                composition.states[str(header.nevra)],
                composition.build_time,
                install_color("x86_64"),
            )
            for header in headers(packages, store)
        ],
    )
    command = ["rpm", "--root", root, "--dbpath", "/usr/lib/sysimage/rpm"]
    verified = subprocess.run([*command, "-Va", "--nodeps"], capture_output=True, text=True, check=False)
    assert verified.stdout == ""
    states = subprocess.run(
        [*command, "-qs", "hardcase-colour.i686"], capture_output=True, text=True, check=True
    ).stdout
    assert states.split("  ")[0] == "wrong color"


def test_file_conflicts_that_rpm_refuses_are_refused_with_both_names(
    mirror: Path, store: Store, tmp_path: Path
) -> None:
    for names in (
        ("hardcase-fileconflict-a", "hardcase-fileconflict-b"),
        ("hardcase-dirmode", "hardcase-dirmode-b"),
    ):
        packages = of_mirror(mirror, *names)
        with pytest.raises(AssertionError, match="conflicts between attempted installs"):
            installed(packages, tmp_path / names[0])
        with pytest.raises(RelbuildError) as caught:
            composed(packages, store)
        assert {problem.code for problem in caught.value.problems} == {"file-conflict"}
        assert all(name in str(caught.value) for name in names)


def test_what_an_image_cannot_hold_is_refused_before_a_payload_is_opened(mirror: Path, store: Store) -> None:
    packages = of_mirror(mirror, "hardcase-device", "hardcase-names")
    with pytest.raises(RelbuildError) as caught:
        composed(packages, store)
    assert {problem.code for problem in caught.value.problems} == {"device-node", "unsafe-path"}


def test_the_tree_that_was_composed_is_the_tree_that_comes_out(mirror: Path, store: Store) -> None:
    """What compose says from headers alone is what stands on the disk in the end, in every field."""
    packages = [
        *of_mirror(mirror, "hardcase-modes", "hardcase-hardlinks", "hardcase-identical", "hardcase-beneath-b"),
        *of_mirror(mirror, "hardcase-identical-b", "hardcase-symlinks", "hardcase-unmerged", "hardcase-beneath"),
        *(package for name in ("filesystem", "bash", "glibc") for package in (mirror / "base").glob(f"{name}-[0-9]*")),
    ]
    composition = composed(packages, store)
    root = unpack(layered(packages, store), store=store)
    assert [change for change in diff(composition.tree, scan(root)) if change.path] == []


# --- identity and reuse ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(made: Forge) -> list[Path]:
    return [
        made.package(
            name,
            install=f"mkdir -p usr/lib/{name}; seq 1 400000 >usr/lib/{name}/numbers; echo {name} >usr/lib/{name}/id",
            files=[f"/usr/lib/{name}"],
        )
        for name in ("one", "two", "three")
    ]


@pytest.mark.parametrize("compression", list(Compression))
def test_a_layer_is_the_same_from_another_store_and_in_another_order(
    three: list[Path], tmp_path: Path, compression: Compression
) -> None:
    first = layered(three, Store.open(tmp_path / "a"), compression=compression)
    second = layered(three[::-1], Store.open(tmp_path / "b"), compression=compression)
    assert first == second


def test_the_codec_does_not_show_in_the_diff_id(three: list[Path], store: Store) -> None:
    layers = [layered(three, store, compression=compression) for compression in Compression]
    assert layers[0].diff_id == layers[1].diff_id
    assert layers[0].blob.digest != layers[1].blob.digest


def test_an_unchanged_layer_is_reused(three: list[Path], store: Store) -> None:
    (layer,) = composed(three, store).layers
    made = [build_layer(layer, store=store, compression=Compression.GZIP) for _ in range(2)]
    assert [one.reused for one in made] == [False, True]
    assert made[0].layer == made[1].layer


def test_a_package_is_compressed_once_for_all_layers_that_it_is_in(
    three: list[Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    layered(three[:2], store)
    opened: list[str] = []
    from pipeline.layers import segments

    real = segments.read_payload

    def counting(path: Path) -> object:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(segments, "read_payload", counting)
    layered(three, store)
    assert opened == [digest_file(three[2]).hex]


def test_a_damaged_segment_is_noticed_removed_and_made_again(three: list[Path], store: Store) -> None:
    (layer,) = composed(three, store).layers
    whole = build_layer(layer, store=store, compression=Compression.ZSTD).layer
    packages = {digest_file(package).hex for package in three}
    for blob in (store.root / "blobs").iterdir():
        if blob.name == whole.blob.digest.hex:
            blob.unlink()
        elif blob.name not in packages and blob.stat().st_size > 10_000:
            data = bytearray(blob.read_bytes())
            data[len(data) // 2] ^= 1
            blob.write_bytes(data)
    for _ in three:
        with pytest.raises(RelbuildError) as caught:
            build_layer(layer, store=store, compression=Compression.ZSTD)
        assert caught.value.code == "blob-damaged"
    assert build_layer(layer, store=store, compression=Compression.ZSTD).layer == whole


def test_a_package_that_is_missing_from_the_store_is_named(three: list[Path], store: Store) -> None:
    (layer,) = composed(three, store).layers
    store.blob(digest_file(three[0])).unlink()
    with pytest.raises(RelbuildError, match=r"one-1-1\.noarch") as caught:
        build_layer(layer, store=store, compression=Compression.GZIP)
    assert caught.value.code == "blob-missing"


@pytest.mark.parametrize("command", [["gzip", "-dc"], ["tar", "-tzf", "-"]])
def test_common_tools_read_the_layer(three: list[Path], store: Store, command: list[str]) -> None:
    layer = layered(three, store)
    with store.reading(layer.blob.digest) as file:
        out = subprocess.run(command, stdin=file, capture_output=True, check=True).stdout
    if command[0] == "gzip":
        assert DiffId(hashlib.sha256(out).hexdigest()) == layer.diff_id
        assert len(out) == layer.tar_size
    else:
        assert "usr/lib/two/numbers" in out.decode().splitlines()


def test_a_layer_lists_no_path_twice_and_every_directory_before_what_is_in_it(mirror: Path, store: Store) -> None:
    layer = layered(of_mirror(mirror, "hardcase-identical", "hardcase-identical-b", "hardcase-beneath"), store)
    with store.reading(layer.blob.digest) as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    for place, name in enumerate(names):
        assert "/" not in name or os.path.dirname(name) in names[:place], name  # noqa: PTH120


# --- what an overlay changed -----------------------------------------------------------------------------

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
    lower = unpack(build_layer(composition.layers[0], store=store, compression=Compression.GZIP).layer, store=store)
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
    merged_tree = comparable(merged([lower, unpack(layer, store=store)]))
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
    found = read_tree(unpack(layer, store=store))["tool"]
    assert (found.uid, found.gid, found.mtime) == (27, 8, 5)
    assert found.capability == b"\x01\x00\x00\x02" + (1 << 13).to_bytes(4, "little") + bytes(12)
