"""Metadata converted to `.solv` files: in a child or here, of all of a document or not at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from pathlib import Path

import pytest
import solv

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.model.header import Dependency, PackageHeader
from pipeline.model.package import Nevra
from pipeline.progress import QUIET
from pipeline.repos import OpenRepository
from pipeline.resolve import solv_cache, solve
from pipeline.resolve.library_versions import distribution_version, library_versions
from pipeline.resolve.listed_files import UnlistedDependencies
from pipeline.resolve.solv_cache import make_solv_files, solv_file, unlisted_dependencies
from pipeline.resolve.solv_conversion import add_solv_file
from pipeline.resolve.solver import open_pool
from pipeline.resolve.solver_metadata import without_texts
from pipeline.store import Store
from tests.support.awkward_paths import AWKWARD_NAMES
from tests.support.recorded_pools import recorded_pools
from tests.support.resolve_world import World
from tests.support.rpmmd import Rpm, write_document, write_repomd

RPMS = tuple(
    Rpm(
        f"p{number}",
        f"{number % 3}:{number}-1",
        requires=("p0", "/usr/share/x", "(p1 if p2)"),
        pre=("p3 >= 1",),
        provides=(f"v{number}",),
        recommends=("p4",),
        files=("/usr/bin/tool", f"/usr/share/d{number}"),
    )
    for number in range(30)
)


def opened(world: World, number: int = 0, store: Store | None = None) -> OpenRepository:
    return world.opened(store)[number]


def made(one: OpenRepository, store: Store, kind: str = "primary") -> bytes:
    return solv_file(one, kind, store=store, progress=QUIET).read_bytes()


def blobs(store: Store) -> set[str]:
    return {path.name for path in (store.root / "blobs").iterdir()}


def test_what_was_made_is_not_made_again_and_a_changed_file_is(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", *RPMS)
    one = opened(world)
    path = solv_file(one, "primary", store=world.store, progress=QUIET)
    first = path.stat().st_ino
    assert solv_file(one, "primary", store=world.store, progress=QUIET).stat().st_ino == first
    good = path.read_bytes()
    path.write_bytes(good.replace(b"p7", b"p8"))
    assert solv_file(one, "primary", store=world.store, progress=QUIET).read_bytes() == good


def _wrong(folder: Path, text: str) -> World:
    """A repository whose primary metadata is `text`, with right checksums."""
    world = World(folder).add("good", *RPMS).add("r", *RPMS)
    write_repomd(folder / "r", write_document(folder / "r", "primary", text.encode()))
    return world


CUT = '<?xml version="1.0" encoding="UTF-8"?><metadata packages="1"><package type="rpm"><name>a</name>'


@pytest.mark.parametrize("text", [CUT, CUT + "</b></package>", "no XML"])
def test_nothing_is_kept_of_a_document_that_libsolv_refuses(tmp_path: Path, text: str) -> None:
    world = _wrong(tmp_path, text)
    one = opened(world, 1)
    before = blobs(world.store)
    with pytest.raises(VerificationError) as caught:
        solv_file(one, "primary", store=world.store, progress=QUIET)
    assert caught.value.code == "metadata-malformed" and "repository r" in str(caught.value)
    assert blobs(world.store) - before == {one.records["primary"].checksum.hex}
    assert not list((world.store.root / "tmp").iterdir())


def test_a_document_that_does_not_match_its_open_checksum_is_not_kept(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", *RPMS)
    repomd = tmp_path / "r" / "repodata" / "repomd.xml"
    repomd.write_text(re.sub(r'(<open-checksum type="sha256">)\w{64}', rf"\g<1>{'0' * 64}", repomd.read_text()))
    one = opened(world)
    before = blobs(world.store)
    with pytest.raises(VerificationError) as caught:
        solv_file(one, "primary", store=world.store, progress=QUIET)
    assert caught.value.code == "metadata-mismatch"
    assert blobs(world.store) - before == {one.records["primary"].checksum.hex}


def test_several_repositories_are_converted_at_once_and_the_first_error_counts(tmp_path: Path) -> None:
    world = World(tmp_path).add("one", *RPMS).add("two", Rpm("b")).add("three", Rpm("c"))
    make_solv_files(world.opened(), "primary", store=world.store, progress=QUIET)
    kept = blobs(world.store)
    assert world.names(["b", "c"]) == ["b-1-1.noarch", "c-1-1.noarch"]
    assert blobs(world.store) == kept

    for name in ("two", "three"):
        write_repomd(tmp_path / name, write_document(tmp_path / name, "primary", f"no XML {name}".encode()))
    other = Store.open(tmp_path / "other")
    with pytest.raises(VerificationError) as caught:
        make_solv_files(world.opened(other), "primary", store=other, progress=QUIET)
    assert "repository two" in str(caught.value)


@pytest.mark.parametrize(("processors", "threads"), [(1, 1), (2, 2), (8, 3)])
def test_no_more_are_converted_at_once_than_there_are_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int, threads: int
) -> None:
    world = World(tmp_path).add("one", *RPMS).add("two", Rpm("b")).add("three", Rpm("c"))
    monkeypatch.setattr(solv_cache, "whole_processors", lambda: processors)
    pools = recorded_pools(monkeypatch)
    make_solv_files(world.opened(), "primary", store=world.store, progress=QUIET)
    assert pools[0] == threads, "and then a few for each conversion"


# --- texts for people ------------------------------------------------------------------------------

BEGIN = b'<?xml version="1.0" encoding="UTF-8"?>\n<metadata>\n'
ENTRY = (
    b"<package type='rpm'><name>%s</name><summary>s &lt; t</summary><description>several\nlines</description>"
    b"<url/><url>u</url><format><rpm:license>MIT</rpm:license><rpm:header-range start='1' end='2'/>"
    b"<file>/usr/bin/x</file></format></package>\n"
)
SHORT = b"<package type='rpm'><name>%s</name><url/><format><file>/usr/bin/x</file></format></package>\n"


def without(data: bytes, size: int) -> bytes:
    return b"".join(without_texts(data[at : at + size] for at in range(0, len(data), size)))


@pytest.mark.parametrize("size", [1, 7, 100, 333, 10_000])
def test_texts_for_people_are_left_out_wherever_the_document_is_cut(size: int) -> None:
    whole = BEGIN + ENTRY % b"a" + ENTRY % b"b" + b"</metadata>"
    assert without(whole, size) == BEGIN + SHORT % b"a" + SHORT % b"b" + b"</metadata>"


@pytest.mark.parametrize("size", [1, 7, 100, 333, 10_000])
@pytest.mark.parametrize("sign", [b"<!-- <description> -->", b"<![CDATA[<url>]]>", b"<?x <url>?>"])
def test_where_markup_may_hide_a_tag_all_is_passed_on(size: int, sign: bytes) -> None:
    odd = (ENTRY % b"b").replace(b"several", sign)
    whole = BEGIN + ENTRY % b"a" + odd + ENTRY % b"c" + b"</metadata>"
    assert without(whole, size) == BEGIN + SHORT % b"a" + odd + ENTRY % b"c" + b"</metadata>"


@pytest.mark.parametrize("size", [1, 7, 100, 333, 10_000])
def test_a_comment_before_all_else_hides_as_any_other(size: int) -> None:
    whole = b"<!-- -<url>x</url>-> --><metadata>" + ENTRY % b"a" + b"</metadata>"
    assert without(whole, size) == whole


def test_what_is_left_says_the_same_of_every_package(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", *RPMS)
    less = solv_file(opened(world), "primary", store=world.store, progress=QUIET)
    (document,) = (tmp_path / "r" / "repodata").glob("*-primary.xml.gz")
    pool = solv.Pool()
    pool.setdisttype(solv.Pool.DISTTYPE_RPM)
    plain = pool.add_repo("plain")
    assert plain.add_rpmmd(solv.xfopen(str(document)), None, 0)
    kept = pool.add_repo("kept")
    assert add_solv_file(kept, str(less), 0)
    assert [_told(one) for one in kept.solvables] == [_told(one) for one in plain.solvables]
    assert less.stat().st_size and kept.nsolvables == len(RPMS)


def _told(one: solv.XSolvable) -> list[object]:
    """All that is asked of a package."""
    keys = (solv.SOLVABLE_REQUIRES, solv.SOLVABLE_PROVIDES, solv.SOLVABLE_RECOMMENDS, solv.SOLVABLE_CONFLICTS)
    numbers = (solv.SOLVABLE_BUILDTIME, solv.SOLVABLE_DOWNLOADSIZE, solv.SOLVABLE_INSTALLSIZE)
    return [
        one.name, one.evr, one.arch, one.vendor, one.lookup_sourcepkg(), one.lookup_location(),
        one.lookup_checksum(solv.SOLVABLE_CHECKSUM).hex(),
        *([dep.str() for dep in one.lookup_deparray(key, part)] for key in keys for part in (-1, 1)),
        *(one.lookup_num(number) for number in numbers),
    ]  # fmt: skip


def test_the_digest_of_a_compressed_document_is_all_that_is_kept_of_it(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", *RPMS)
    one = opened(world)
    made(one, world.store)
    record = one.records["primary"]
    assert record.open_checksum is not None
    kept = blobs(world.store)
    assert record.checksum.hex in kept and record.open_checksum.hex not in kept
    assert all(hashlib.sha256((world.store.root / "blobs" / name).read_bytes()).hexdigest() == name for name in kept)


# --- dependencies that need file lists ---------------------------------------------------------------


def entries(*names: str) -> bytes:
    return b"".join(f'<rpm:requires><rpm:entry name="{name}"/></rpm:requires>'.encode() for name in names)


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (entries("a", "/usr/bin/x", "/etc/y", "(a or /sbin/z)", "lib/x"), []),
        (entries("/usr/share/x", "/opt/y", "/opt/y"), ["/opt/y", "/usr/share/x"]),
        (entries("(a and /usr/share/x)", "(a if /usr/bin/x)"), ["(a and /usr/share/x)"]),
        (entries("&#47;opt&#x2f;y", "(a &amp; b)"), ["/opt/y"]),
        (b"<rpm:entry name='/opt/y'/>", None),
        (b'<rpm:entry flags="EQ" name="/opt/y"/>', None),
        (b'<rpm:entry  name="/opt/y"/>', None),
        (entries("a") + b"<![CDATA[x]]>", None),
        (entries(*(f"/opt/{number}" for number in range(1001))), None),
    ],
)
def test_dependencies_on_unlisted_paths_are_found_or_not_known(document: bytes, found: list[str] | None) -> None:
    unlisted = UnlistedDependencies()
    assert list(unlisted.watch([document])) == [document]
    assert unlisted.result == found


@pytest.mark.parametrize(
    ("requires", "weak", "loads"),
    [("/usr/bin/tool", False, False), ("/usr/bin/tool", True, False), ("/opt/y", False, True), ("/opt/y", True, True)],
)
def test_file_lists_are_loaded_if_a_dependency_needs_them(
    tmp_path: Path, requires: str, weak: bool, loads: bool
) -> None:
    world = World(tmp_path).add(
        "r", Rpm("a", requires=(requires,)), Rpm("b", files=("/usr/bin/tool",)), Rpm("c", files=("/opt/y",))
    )
    assert len(world.names(["a"], weak_dependencies=weak)) == 2
    kept = [
        unlisted_dependencies(one, world.store) is not None and solv_cache._known(one, "filelists", world.store)
        for one in world.opened()
    ]
    assert [bool(one) for one in kept] == [loads]


def test_a_path_that_a_local_package_requires_is_found_where_no_repository_requires_it(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", Rpm("c", files=("/opt/y",)))
    pool = open_pool("x86_64", world.opened(), store=world.store)
    assert not pool.needs_filelists([], weak=True)
    needed = (Dependency("/opt/y"),)
    header = PackageHeader(Nevra("a", 0, "1", "1", "noarch"), Digest("0" * 64), (), (), (), (), needed, 77)
    added = pool.add_local(header, 1, "a.rpm")
    pool.index()
    assert pool.needs_filelists([added], weak=False)


def test_a_distribution_has_the_version_that_its_metadata_says() -> None:
    for name, version in library_versions():
        if name not in {"rpm", "relbuild"}:
            assert version == importlib.metadata.version(name)
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        distribution_version("nosuch")


@pytest.mark.parametrize("name", AWKWARD_NAMES, ids=ascii)
def test_a_store_of_any_name_gives_the_same_packages(name: str, tmp_path: Path) -> None:
    """Also those of which a path that the primary metadata leaves out is asked for, which needs the file lists."""
    folder = tmp_path / name
    folder.mkdir()
    there = Rpm("there", "1-1", files=("/opt/there",))
    world = World(tmp_path).add("r", Rpm("app", "1-1", requires=("/opt/there",)), there)
    store = Store.open(folder)
    for _ in range(2):
        (one,) = world.opened(store)
        found = solve(world.recipe(["app"]), world.platform, "x86_64", (one,), store=store)
        assert [chosen.package.nevra.name for chosen in found.resolution.chosen] == ["app", "there"]


def test_a_file_that_was_removed_meanwhile_is_not_read(tmp_path: Path) -> None:
    repo = solv.Pool().add_repo("r")
    assert not add_solv_file(repo, str(tmp_path / "gone.solv"), 0)
    (tmp_path / "folder").mkdir()
    assert not add_solv_file(repo, str(tmp_path / "folder"), 0)
