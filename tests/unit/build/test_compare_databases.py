"""`diff` reads the RPM databases that the tree of all layers has, as whoever launches the image would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import VerificationError
from pipeline.layers.tar_format import TarMember
from pipeline.model.rpm_database import DATABASE_FILES, DatabaseFormat
from pipeline.model.tree import Entry, EntryKind
from pipeline.packages import DATABASE_LIMIT, read_all_installed
from pipeline.progress import QUIET
from pipeline.release import compare
from tests.unit.packages.test_packages_installed import APP, database, header
from tests.unit.packages.test_rpm_database_place import OF_APP

SQLITE, BDB = DATABASE_FILES[DatabaseFormat.SQLITE], DATABASE_FILES[DatabaseFormat.BDB]
REAL, DECOY = OF_APP[DatabaseFormat.BDB], database(header(t1000="bash", t1001="5", t1002="1", t1022="noarch"))

Member = tuple[str, EntryKind, bytes | str]


def file(path: str, data: bytes = REAL) -> Member:
    return path, EntryKind.FILE, data


def other(path: str, kind: EntryKind, link: str = "") -> Member:
    return path, kind, link


def members(layer: Sequence[Member]) -> Iterator[TarMember]:
    for path, kind, data in layer:
        content, link = (data, "") if isinstance(data, bytes) else (b"", data)
        pieces: Any = lambda content=content: iter([memoryview(content)])  # noqa: E731
        yield TarMember(Entry(path, kind, size=len(content), link=link), pieces)


def read(monkeypatch: pytest.MonkeyPatch, *layers: Sequence[Member]) -> list[str]:
    contents = {str(number): layer for number, layer in enumerate(layers)}
    monkeypatch.setattr(compare, "layer_members", lambda layer, store: members(contents[layer.diff_id]))
    found: Any = [SimpleNamespace(name=number, diff_id=number, tar_size=1) for number in contents]
    image: Any = SimpleNamespace(layers=found, config=SimpleNamespace(labels=()))
    build_env: Any = SimpleNamespace(store=None, progress=QUIET)
    databases = compare._Reader(build_env).inside(image).databases
    return [one.nevra.name for one in read_all_installed(databases)]


@pytest.mark.parametrize(
    "layers",
    [
        [[file(f"var/lib/rpm/{BDB}")]],
        [[file("opt/p"), other(f"var/lib/rpm/{BDB}", EntryKind.HARDLINK, "opt/p")]],
        [[file("opt/p")], [other(f"var/lib/rpm/{BDB}", EntryKind.HARDLINK, "opt/p")]],
        [
            [
                file("opt/p"),
                other("opt/q", EntryKind.HARDLINK, "opt/p"),
                other(f"var/lib/rpm/{BDB}", EntryKind.HARDLINK, "opt/q"),
            ]
        ],
        [[file(f"opt/db/{BDB}"), other("var/lib/rpm", EntryKind.SYMLINK, "/opt/db")]],
        [[other("var/lib/rpm", EntryKind.SYMLINK, "../../opt/db")], [file(f"opt/db/{BDB}")]],
        [[file("opt/p")], [other(f"var/lib/rpm/{BDB}", EntryKind.SYMLINK, "/opt/p")]],
        [
            [file(f"var/lib/rpm/{BDB}")],
            [file(f"var/lib/rpm/{SQLITE}", DECOY)],
            [other(f"var/lib/rpm/{SQLITE}", EntryKind.WHITEOUT)],
        ],
        [
            [other("var/lib/rpm", EntryKind.DIRECTORY), file(f"var/lib/rpm/{SQLITE}", DECOY)],
            [other("var/lib/rpm", EntryKind.OPAQUE), file(f"var/lib/rpm/{BDB}")],
        ],
        [[file(f"var/lib/rpm/{BDB}", DECOY)], [file(f"var/lib/rpm/{BDB}")]],
        [
            [other("var/lib/rpm", EntryKind.SYMLINK, "/opt/db"), file(f"opt/db/{BDB}", DECOY)],
            [file(f"var/lib/rpm/{BDB}")],
        ],
    ],
    ids=[
        *("plain", "hard link", "hard link below", "hard link of a hard link", "symlinked folder", "symlink below"),
        *("symlinked file", "decoy removed", "decoy beneath an opaque directory", "replaced", "symlink replaced"),
    ],
)
def test_the_database_of_the_tree_is_read(layers: list[list[Member]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, *layers) == ["app"]


def test_the_packages_of_all_databases_count(monkeypatch: pytest.MonkeyPatch) -> None:
    decoy = [file(f"usr/lib/sysimage/rpm/{SQLITE}", DECOY)]
    assert read(monkeypatch, [file(f"var/lib/rpm/{BDB}")], decoy) == ["app", "bash"]
    assert read(monkeypatch, decoy, [file(f"var/lib/rpm/{SQLITE}", database(APP))]) == ["app", "bash"]


def test_a_path_that_a_layer_has_twice_counts_as_in_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    same = database(APP)
    path = f"var/lib/rpm/{SQLITE}"
    assert len(same) == len(DECOY)
    assert read(monkeypatch, [file(path, DECOY), file(path, same)]) == ["app"]


def test_a_hard_link_to_nothing_is_no_reason_to_read_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    below = [file(f"var/lib/rpm/{BDB}", REAL)]
    with pytest.raises(VerificationError) as caught:
        read(monkeypatch, below, [other(f"var/lib/rpm/{BDB}", EntryKind.HARDLINK, "opt/nothing")])
    assert caught.value.code == "layer-malformed"


def test_a_database_that_is_too_large_is_no_reason_to_read_another(monkeypatch: pytest.MonkeyPatch) -> None:
    large = TarMember(Entry(f"var/lib/rpm/{BDB}", EntryKind.FILE, size=DATABASE_LIMIT + 1), lambda: iter(()))
    below = [file(f"var/lib/rpm/{BDB}", DECOY)]
    real = members
    monkeypatch.setitem(globals(), "members", lambda layer: iter([large]) if layer == ["large"] else real(layer))
    upper: Any = ["large"]
    with pytest.raises(VerificationError) as caught:
        read(monkeypatch, below, upper)
    assert caught.value.code == "rpmdb-too-large"


def test_a_layer_that_is_gone_meanwhile_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([[file(f"var/lib/rpm/{BDB}")], [file(f"var/lib/rpm/{BDB}", REAL[:-1] + b"x")]])
    real = members
    monkeypatch.setitem(globals(), "members", lambda _: real(next(calls)))
    with pytest.raises(VerificationError):
        read(monkeypatch, [file("any")])
