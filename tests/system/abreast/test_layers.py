"""Layers against rpm itself: what comes out of a layer is what `rpm -i` puts on a disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.digest import digest_file
from pipeline.errors import RelbuildError
from pipeline.layers import unpack_to_store
from pipeline.packages import DatabaseRecord, read_header, write_database
from pipeline.store import Store
from pipeline.trees import (
    ComposeOptions,
    diff_trees,
    install_color,
    scan_directory,
)
from tests.support.layer_comparison import (
    assert_as_rpm_installs,
    composed,
    headers,
    installed,
    layered,
    of_mirror,
)
from tests.support.rpm_factory import Forge, header_of

pytestmark = pytest.mark.long

# --- the same as rpm -------------------------------------------------------------------------------------


OTHERS = ("hardcase", "haproxy", "httpd", "mariadb", "memcached", "nginx", "postgresql", "redis", "valkey")
"""Beginnings of packages that MySQL's image has none of; some conflict with it, or want accounts of their own."""


def test_the_layer_of_mysql_and_its_closure_is_what_rpm_installs(mirror: Path, store: Store, tmp_path: Path) -> None:
    newest = {}
    for package in sorted((mirror / "base").glob("*.rpm")):
        if not package.name.startswith(OTHERS):
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


HUGE = (4 << 30) + 5
"""Bytes of a file that the old forms of a payload and of a tar cannot hold."""


@pytest.fixture(scope="module")
def huge(made: Forge) -> Path:
    """A package with such a file: zeros, and a last line."""
    return made.package("huge", install=f"truncate -s {HUGE - 4} huge; echo end >>huge", files=["/huge"])


def test_a_file_over_4_gib_passes_through_with_bounded_memory(huge: Path, store: Store) -> None:
    assert header_of(huge).files[0].size == HUGE
    script = (
        "import sys; from pathlib import Path\n"
        "from pipeline.layers import unpack_to_store; from pipeline.compression import Compression\n"
        "from pipeline.store import Store; from tests.support.layer_comparison import layered\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "print(unpack_to_store(layered([Path(sys.argv[2])], store, compression=Compression.ZSTD), store=store))\n"
        # Not ru_maxrss: that takes over the peak of the process that started this one.
        "print(next(l.split()[1] for l in Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in l))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, store.root, huge],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    root, kilobytes = done.stdout.split()
    file_in_layer = Path(root, "huge")
    assert file_in_layer.stat().st_size == HUGE
    assert file_in_layer.stat().st_blocks * 512 < HUGE / 100, "zeros take room on the disk"
    with file_in_layer.open("rb") as file:
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
    root = unpack_to_store(layered(packages, store, options), store=store)
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
    root = unpack_to_store(layered(packages, store), store=store)
    assert [change for change in diff_trees(composition.tree, scan_directory(root)) if change.path] == []
