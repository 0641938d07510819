"""Packages, archives and sources in the store: which are fetched, by whose keys they are verified, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import repos
from pipeline.digest import Digest
from pipeline.errors import (
    RecipeError,
    ResolutionError,
    VerificationError,
)
from pipeline.model.package import Nevra, Package
from pipeline.model.platform import PackageRepository
from pipeline.model.recipe import FileKind, FilePlan, LayerPlan, LocalPackage
from pipeline.model.signing_key import AcceptedSignature, KeyFault, PackageTrust, UnusableKey
from pipeline.openpgp_packets import Packet, armor
from pipeline.packages import PayloadHash
from pipeline.prepare import build_options as ordering
from pipeline.prepare import obtain_sources, source_rpms, verified_packages
from pipeline.prepare.copied_payloads import CopiedPayloads
from pipeline.prepare.package_trust import trust_by_repository
from pipeline.repos import LOCAL_REPOSITORY, RepositoryKey
from tests.support.builds import (
    ARCH,
    PLATFORM,
    build_env,
    header,
    locked,
    opened,
    package,
    recipe,
    section,
)
from tests.support.journal import Journal, Told
from tests.support.openpgp import V6_KEY

A, B = "a-1-1.noarch", "b-2-1.x86_64"

# --- fetching -----------------------------------------------------------------------------------------------


def put(folder: Path, *nevras: str) -> tuple[Any, list[Package]]:
    """A build environment whose store has the packages' files, and the packages."""
    here = build_env(folder, progress=Told())
    for one in nevras:
        here.store.put(one.encode())
    return here, list(map(package, nevras))


def test_no_repository_is_opened_for_packages_that_are_in_the_store(folder: Path, journal: Journal) -> None:
    here, packages = put(folder, A, B)
    journal.stand_in(repos, repos.open_repositories)
    journal.stand_in(verified_packages, verified_packages.fetch_packages)
    journal.stand_in(verified_packages, verified_packages.fetch)
    verified_packages.obtain(packages, recipe(folder), ordering.RepositoryCache(PLATFORM, ARCH, here))
    assert journal.calls == []


def test_only_what_is_missing_is_fetched_and_files_come_from_beside_the_recipe(folder: Path, journal: Journal) -> None:
    here, packages = put(folder, A)
    hotfix = package("fix-1-1.noarch", LOCAL_REPOSITORY)
    plans = LayerPlan("base", (), (LocalPackage(Path("rpms/fix.rpm"), hotfix.checksum, "demo.yaml:6"),))
    journal.stand_in(repos, repos.open_repositories, gives=opened("base"))
    journal.stand_in(verified_packages, verified_packages.fetch_packages)
    journal.stand_in(verified_packages, verified_packages.fetch)
    (folder / "rpms").mkdir()
    wanted = [*packages, package(B), hotfix]
    verified_packages.obtain(wanted, recipe(folder, "demo", plans), ordering.RepositoryCache(PLATFORM, ARCH, here))
    assert journal.last(verified_packages.fetch_packages).args == ([package(B)], opened("base"))
    (file,) = journal.last(verified_packages.fetch).args[1]
    assert file.urls == ((folder / "rpms" / "fix.rpm").as_uri(),) and file.target == hotfix.checksum


def test_a_package_file_that_leads_out_of_the_recipes_folder_is_not_fetched(folder: Path, journal: Journal) -> None:
    inside = folder / "inside"
    inside.mkdir()
    (inside / "rpms").symlink_to(folder)
    hotfix = package("fix-1-1.noarch", LOCAL_REPOSITORY)
    plans = LayerPlan("base", (), (LocalPackage(Path("rpms/fix.rpm"), hotfix.checksum, "demo.yaml:6"),))
    journal.stand_in(verified_packages, verified_packages.fetch)
    with pytest.raises(RecipeError) as caught:
        cache = ordering.RepositoryCache(PLATFORM, ARCH, build_env(folder))
        verified_packages.obtain([hotfix], recipe(inside, "demo", plans), cache)
    assert caught.value.code == "path-escapes" and journal.calls == []


def test_archives_are_fetched_from_beside_the_recipe_and_files_by_url(folder: Path, journal: Journal) -> None:
    digest = Digest.of(b"archive")

    def plan(kind: FileKind, origin: str) -> FilePlan:
        return FilePlan(kind, "/opt/app", origin, None, "root", "root", "demo.yaml:7", digest)

    files = (
        plan(FileKind.ARCHIVE, "app.tar"),
        plan(FileKind.ARCHIVE, "https://example.invalid/app.tar"),
        plan(FileKind.URL, "https://example.invalid/file"),
        plan(FileKind.SOURCE, "app.conf"),
    )
    journal.stand_in(verified_packages, verified_packages.fetch)
    verified_packages.obtain_files(recipe(folder, files=files), build_env(folder, offline=True))
    wanted = journal.last(verified_packages.fetch).args[1]
    assert [one.urls for one in wanted] == [
        ((folder / "app.tar").as_uri(),),
        ("https://example.invalid/app.tar",),
        ("https://example.invalid/file",),
    ]
    assert journal.last(verified_packages.fetch).options["offline"]


# --- verifying ---------------------------------------------------------------------------------------------


class Rpms:
    """Stand-ins for what reads RPMs: a file says its own NEVRA, and is good unless it is in `bad`."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.bad: set[str] = set()
        self.passed: list[PayloadHash | None] = []
        journal.stand_in(verified_packages, verified_packages.verify_package, self._verify)
        journal.stand_in(
            verified_packages, verified_packages.read_header, lambda path, digest: header(path.read_text())
        )

    def _verify(self, path: Path, trust: PackageTrust, *, passed: PayloadHash | None = None) -> None:
        self.passed.append(passed)
        if path.read_text() in self.bad:
            raise VerificationError("signature-bad", f"{path.name} is not signed", place=str(path))

    @property
    def verified(self) -> list[tuple[str, list[bytes]]]:
        calls = self.journal.of(verified_packages.verify_package)
        return [(call.args[0].read_text(), list(call.args[1].certificates)) for call in calls]


@pytest.fixture
def rpms(journal: Journal) -> Rpms:
    return Rpms(journal)


def certificate(number: int) -> bytes:
    """An armored certificate, which nobody reads further."""
    return armor([Packet(6, b"", V6_KEY[:-1] + bytes([number]))])


ONE, TWO, OTHER, THIRD = sorted(map(certificate, range(4)))
KEYS = (RepositoryKey("base", "F1", ONE), RepositoryKey("base", "F2", ONE), RepositoryKey("extra", "F3", TWO))


def trusts(keys: Sequence[RepositoryKey]) -> Mapping[str, PackageTrust]:
    return trust_by_repository(keys, (*PLATFORM.repositories, PackageRepository("extra")))


def test_headers_come_in_the_transactions_order_each_checked_by_its_own_repositorys_keys(
    folder: Path, rpms: Rpms
) -> None:
    here, _ = put(folder, A, B, "c-1-1.noarch")
    packages = [package(A), package(B, "extra"), package("c-1-1.noarch", LOCAL_REPOSITORY)]
    found = section(packages[2], packages[1], packages[0])
    headers = verified_packages.verify_and_read(packages, trusts(KEYS), found, here)
    assert [one.nevra.name for one in headers] == ["c", "b", "a"]
    assert sorted(rpms.verified) == [(A, [ONE]), (B, [TWO]), ("c-1-1.noarch", [ONE, TWO])]  # Side by side.
    assert here.progress.tasks[0].advanced == 3


def test_a_good_signature_is_not_checked_again_unless_keys_or_file_are_others(folder: Path, rpms: Rpms) -> None:
    here, packages = put(folder, A)
    for keys in (KEYS, KEYS, (RepositoryKey("base", "F9", OTHER),)):
        verified_packages.verify_and_read(packages, trusts(keys), section(*packages), here)
    assert rpms.verified == [(A, [ONE]), (A, [OTHER])]
    rpms.bad.add(A)
    third = (RepositoryKey("base", "F8", THIRD),)
    with pytest.raises(VerificationError):
        verified_packages.verify_and_read(packages, trusts(third), section(*packages), here)
    with pytest.raises(VerificationError):
        verified_packages.verify_and_read(packages, trusts(third), section(*packages), here)
    assert len(rpms.verified) == 4, "what failed is no result to keep"


def test_all_packages_that_fail_are_told_at_once_by_their_names(folder: Path, rpms: Rpms) -> None:
    here, packages = put(folder, A, B)
    rpms.bad |= {A, B}
    with pytest.raises(VerificationError) as caught:
        verified_packages.verify_and_read(packages, trusts(KEYS), section(*packages), here)
    assert [problem.place for problem in caught.value.problems] == [
        f"{A} of repository 'base'",
        f"{B} of repository 'base'",
    ]
    assert A in caught.value.problems[0].message and packages[0].checksum.hex not in caught.value.problems[0].message


def test_a_lock_as_it_stands_is_verified_with_a_key_that_expired_since(folder: Path, rpms: Rpms) -> None:
    here, (one,) = put(folder, A)
    of_lock = section(one)
    expired = UnusableKey("F1", ("F1",), KeyFault.EXPIRED, since=of_lock.build_time + 1)
    keys = (RepositoryKey("base", "F1", ONE, (expired,)),)
    cache = ordering.RepositoryCache(PLATFORM, ARCH, here)
    verified_packages.obtain_verified([one], recipe(folder), keys, of_lock, cache, locked=True)
    assert rpms.verified == [(A, [ONE])]


def test_a_key_that_this_rpm_cannot_read_is_warned_of(folder: Path, rpms: Rpms) -> None:
    here, packages = put(folder, A)
    unreadable = UnusableKey("F1", ("F1",), KeyFault.UNREADABLE, detail="no reason")
    rpms.journal.stand_in(verified_packages, verified_packages.unreadable_keys, gives=(unreadable,))
    verified_packages.verify_and_read(packages, trusts(KEYS), section(*packages), here)
    assert here.progress.warnings == [f"repository base: {unreadable}; no signature by it counts"]


def test_a_package_that_says_another_name_than_its_repository_is_refused(folder: Path, rpms: Rpms) -> None:
    here, (one,) = put(folder, A)
    lying = replace(one, nevra=Nevra.parse(B))
    with pytest.raises(VerificationError) as caught:
        verified_packages.verify_and_read([lying], trusts(KEYS), section(lying), here)
    assert caught.value.code == "package-not-as-described"


SOURCE_NAME = "a-1-1.src.rpm"


@pytest.mark.parametrize(
    ("described", "own", "says"),
    [
        ({"build_time": 5}, {"build_time": 6}, ("at 5", "at 6")),
        ({"build_time": 0}, {"build_time": 6}, ("at 0", "at 6")),
        ({"build_time": 5}, {"build_time": (2 << 32) + 6}, ("at 5", f"at {(2 << 32) + 6}")),
        ({"build_time": (1 << 32) + 6}, {"build_time": 6}, (f"at {(1 << 32) + 6}", "at 6")),
        ({"source_rpm": "b-1-1.src.rpm"}, {"source_rpm": SOURCE_NAME}, ("'b-1-1.src.rpm'", f"'{SOURCE_NAME}'")),
        ({"source_rpm": ""}, {"source_rpm": SOURCE_NAME}, ("''", f"'{SOURCE_NAME}'")),
        ({"source_rpm": "a"}, {"source_rpm": SOURCE_NAME}, ("'a'", f"'{SOURCE_NAME}'")),
        ({"source_rpm": SOURCE_NAME}, {"source_rpm": ""}, (f"'{SOURCE_NAME}'", "''")),
        ({"source_rpm": SOURCE_NAME}, {"source_rpm": "a.rpm"}, (f"'{SOURCE_NAME}'", "'a.rpm'")),
    ],
)
def test_metadata_that_says_another_build_than_the_header_is_refused(
    described: dict[str, Any], own: dict[str, Any], says: tuple[str, str]
) -> None:
    with pytest.raises(VerificationError) as caught:
        verified_packages.demand_as_described(replace(header(A), **own), package(A, **described))
    (problem,) = caught.value.problems
    assert problem.code == "package-not-as-described" and "--upgrade" in str(problem.hint)
    assert problem.place == f"Packages/{A}.rpm" and A in problem.message
    assert all(one in problem.message for one in says), problem.message


@pytest.mark.parametrize(
    ("described", "own"),
    [
        ({"build_time": 6}, {"build_time": (2 << 32) + 6}),
        ({"build_time": (2 << 32) + 6}, {"build_time": (2 << 32) + 6}),
        ({"build_time": (1 << 32) - 1}, {"build_time": (1 << 32) - 1}),
        ({"build_time": 0}, {"build_time": 0}),
        *(({"source_rpm": one}, {"source_rpm": one}) for one in ("", SOURCE_NAME, "a-1-1.nosrc.rpm", "no name")),
        *(({"source_rpm": ""}, {"source_rpm": one}) for one in ("a.rpm", "a.src.rpm", "a-1.src.rpm", "-1-1.src.rpm")),
        *(({"source_rpm": "a"}, {"source_rpm": one}) for one in ("a-1-1.x86_64.rpm", "a-1-1..rpm")),
    ],
)
def test_what_libsolv_cuts_of_times_and_names_is_no_difference(described: dict[str, Any], own: dict[str, Any]) -> None:
    verified_packages.demand_as_described(replace(header(A), **own), package(A, **described))


def verified_from_repository(folder: Path, journal: Journal, here: Any, fetched: Any) -> Any:
    """Obtain and verify `A`, with `fetched(store)` for what repositories give."""
    journal.stand_in(repos, repos.open_repositories, gives=opened("base"))
    journal.stand_in(verified_packages, verified_packages.fetch_packages, lambda *given, store, **more: fetched(store))
    cache = ordering.RepositoryCache(PLATFORM, ARCH, here)
    return verified_packages.obtain_verified([package(A)], recipe(folder), KEYS, section(package(A)), cache)


def test_a_package_that_was_damaged_in_the_store_is_fetched_once_more(
    folder: Path, journal: Journal, rpms: Rpms
) -> None:
    here, (one,) = put(folder, A)
    blob = here.store.blob(one.checksum)
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    (found,) = verified_from_repository(folder, journal, here, lambda store: store.put(A.encode()))
    assert found.nevra.name == "a" and len(journal.of(verified_packages.fetch_packages)) == 1


def test_a_package_that_comes_damaged_again_is_an_error(folder: Path, journal: Journal, rpms: Rpms) -> None:
    here = build_env(folder)
    with pytest.raises(VerificationError) as caught:
        verified_from_repository(folder, journal, here, lambda store: None)
    assert caught.value.code == "blob-damaged" and len(journal.of(verified_packages.fetch_packages)) == 2


def test_a_payload_that_was_copied_is_believed_for_the_file_that_was_written_alone(folder: Path, rpms: Rpms) -> None:
    here, packages = put(folder, A, B)
    copied = CopiedPayloads()
    for one in packages:
        passing = copied.passing(one.checksum)
        passing.copied(here.store.blob(one.checksum).stat())
        assert not verified_packages._is_hashed(one, here.store, copied), "nothing passed by"
    here.store.blob(packages[1].checksum).chmod(0o600)  # Anybody's change gives it another stamp.
    verified_packages.verify_and_read(packages, trusts(KEYS), section(*packages), here, copied)
    believed = copied.of(packages[0].checksum, here.store.stamp(packages[0].checksum))
    one, other = rpms.passed  # In the order in which threads ended.
    assert believed is not None and (one is believed, other is believed) in {(True, False), (False, True)}
    assert None in (one, other)


def test_a_package_that_is_changed_after_it_was_copied_is_damaged(folder: Path, rpms: Rpms) -> None:
    here, (one,) = put(folder, A)
    copied = CopiedPayloads()
    blob = here.store.blob(one.checksum)
    copied.passing(one.checksum).copied(blob.stat())
    blob.chmod(0o644)
    blob.write_bytes(A.encode()[::-1])
    with pytest.raises(VerificationError) as caught:
        verified_packages.verify_and_read([one], trusts(KEYS), section(one), here, copied)
    assert caught.value.code == "blob-damaged" and rpms.passed == []


def test_a_signature_that_is_wrong_is_not_asked_for_twice(folder: Path, journal: Journal, rpms: Rpms) -> None:
    here, _ = put(folder, A)
    rpms.bad.add(A)
    with pytest.raises(VerificationError):
        verified_from_repository(folder, journal, here, lambda store: None)
    assert journal.of(verified_packages.fetch_packages) == [] and len(rpms.verified) == 1


# --- sources -----------------------------------------------------------------------------------------------

SOURCED = replace(
    PLATFORM,
    sources=(
        PackageRepository("base-source", baseurls=("file:///sources",), accept=(AcceptedSignature.SHA1,)),
        PackageRepository("more", baseurls=("file:///more",)),
    ),
)
SOURCE = package("a-1-1.src", "base-source")


def test_the_source_of_every_package_is_fetched_and_verified_once(folder: Path, journal: Journal) -> None:
    here = build_env(folder, progress=(told := Told()))
    here.store.put(b"a-1-1.src")
    made = replace(locked(recipe(folder), A, B), platform=SOURCED)
    made = replace(made, headers=tuple(header(one, source_rpm="a-1-1.src.rpm") for one in (A, B)))
    key = RepositoryKey("base-source", "F", ONE)
    journal.stand_in(source_rpms, source_rpms.load_keys, gives=(key,))
    journal.stand_in(repos, repos.open_repositories, gives=opened("base-source", "more"))
    journal.stand_in(
        source_rpms,
        source_rpms.find_source_packages,
        lambda one, names, **more: {"a-1-1.src.rpm": SOURCE} if names else {},
    )
    journal.stand_in(source_rpms, source_rpms.fetch_packages)
    journal.stand_in(verified_packages, verified_packages.verify_package)
    journal.stand_in(source_rpms, source_rpms.read_source_nevra, gives=SOURCE.nevra)
    assert obtain_sources(made, here) == (SOURCE,)
    assert [set(call.args[1]) for call in journal.of(source_rpms.find_source_packages)] == [{"a-1-1.src.rpm"}, set()]
    assert journal.last(repos.open_repositories).args[0].repositories == SOURCED.sources
    assert journal.last(source_rpms.fetch_packages).args == ([SOURCE], opened("base-source", "more"))
    trust = journal.last(verified_packages.verify_package).args[1]
    assert (trust.certificates, trust.accept) == ((ONE,), {AcceptedSignature.SHA1})
    assert told.warnings == ["repository 'base-source' accepts weaker signatures of packages: sha1"]


def test_sources_that_no_repository_has_are_told_with_the_packages_that_need_them(
    folder: Path, journal: Journal
) -> None:
    made = replace(locked(recipe(folder), A, B), platform=SOURCED)
    made = replace(made, headers=(header(A, source_rpm="a-1-1.src.rpm"), header(B)))
    journal.stand_in(source_rpms, source_rpms.load_keys, gives=())
    journal.stand_in(repos, repos.open_repositories, gives=opened("base-source"))
    journal.stand_in(source_rpms, source_rpms.find_source_packages, gives={})
    journal.stand_in(source_rpms, source_rpms.fetch_packages)
    with pytest.raises(ResolutionError) as caught:
        obtain_sources(made, build_env(folder))
    assert [(problem.code, problem.place) for problem in caught.value.problems] == [
        ("sources-missing", B),
        ("sources-missing", A),
    ]
    assert journal.of(source_rpms.fetch_packages) == []


def test_a_platform_without_sources_is_told_before_anything_is_opened(folder: Path, journal: Journal) -> None:
    journal.stand_in(repos, repos.open_repositories)
    with pytest.raises(ResolutionError) as caught:
        obtain_sources(locked(recipe(folder), A), build_env(folder))
    assert caught.value.code == "sources-unknown" and journal.calls == []


def test_a_payload_is_hashed_already_if_its_file_is_the_one_that_was_copied(folder: Path, rpms: Rpms) -> None:
    here, (one,) = put(folder, A)
    copied, blob = CopiedPayloads(), here.store.blob(one.checksum)
    assert not verified_packages._is_hashed(one, here.store, copied)
    passing = copied.passing(one.checksum)
    header = b"\x8e\xad\xe8\x01" + bytes(12)
    passing.update(bytes(96) + header + header)
    passing.copied(blob.stat())
    assert verified_packages._is_hashed(one, here.store, copied)
    blob.write_bytes(b"other bytes")
    assert not verified_packages._is_hashed(one, here.store, copied)
