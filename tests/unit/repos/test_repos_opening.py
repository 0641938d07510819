"""Opening repositories: mirrors that disagree, signatures, rollbacks, damaged and exploding metadata."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, RecipeError, UsageError, VerificationError
from pipeline.model.package import Nevra, Package
from pipeline.model.platform import PackageRepository, Platform
from pipeline.openpgp_packets import Packet, armor
from pipeline.process import run
from pipeline.progress import QUIET
from pipeline.repos import (
    OpenRepository,
    fetch_packages,
    load_keys,
    metadata_file,
    open_repositories,
    read_keys,
)
from pipeline.store import Store
from tests.support.guarded_server import guarded_server
from tests.support.openpgp import V6_KEY
from tests.support.patience import HUNG
from tests.support.rpmmd import Rpm, write_document, write_repomd, write_repository

RPMS = (Rpm("a"), Rpm("b", requires=("a",)))


class Signer:
    """A key pair that lives as long as the tests of this file."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self._gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--yes", "--passphrase", ""]
        run([*self._gpg, "--quick-generate-key", home.name, "rsa2048", "sign", "never"], timeout=HUNG)
        self.public = run([*self._gpg, "--armor", "--export"], timeout=HUNG).stdout

    def sign(self, path: Path) -> None:
        run([*self._gpg, "--armor", "--detach-sign", str(path)], timeout=HUNG)

    def close(self) -> None:
        run(["gpgconf", "--homedir", self._gpg[2], "--kill", "all"], timeout=HUNG, check=False)


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Signer, Signer]]:
    folder = tmp_path_factory.mktemp("gpg")
    made = Signer(folder / "keeper"), Signer(folder / "stranger")
    yield made
    for one in made:
        one.close()


def opened(store: Store, *urls: str, offline: bool = False, **more: object) -> OpenRepository:
    repository = PackageRepository("r", baseurls=urls, **more)  # type: ignore[arg-type]
    platform = Platform("p", (repository,))
    (one,) = open_repositories(platform, "x86_64", variables={}, store=store, offline=offline)
    return one


def code_of(error: pytest.ExceptionInfo[VerificationError]) -> str:
    return error.value.code


@pytest.mark.parametrize("compression", ["", "gz", "xz", "bz2", "zst"])
def test_metadata_is_opened_whatever_it_is_compressed_with(store: Store, tmp_path: Path, compression: str) -> None:
    url = write_repository(tmp_path / "r", RPMS, compression=compression)
    found = metadata_file(opened(store, url), "primary", store=store)
    assert found is not None
    assert b"<name>b</name>" in found[0].read_bytes()
    assert metadata_file(opened(store, url), "updateinfo", store=store) is None


def test_metadata_that_is_kept_needs_no_repository(store: Store, tmp_path: Path) -> None:
    one = opened(store, write_repository(tmp_path / "r", RPMS))
    metadata_file(one, "primary", store=store)
    for path in (tmp_path / "r" / "repodata").glob("*primary*"):
        path.unlink()
    assert metadata_file(one, "primary", store=store) is not None
    with pytest.raises(EnvironmentLacking) as caught:
        (tmp_path / "r" / "repodata").rename(tmp_path / "gone")
        metadata_file(one, "filelists", store=store)
    assert caught.value.code == "download-missing"


def _document(tmp_path: Path, stored: bytes, *, opened_sum: str = "", opened_size: int | None = None) -> str:
    folder = tmp_path / "r"
    (folder / "repodata").mkdir(parents=True)
    (folder / "repodata" / "p").write_bytes(stored)
    more = f'<open-checksum type="sha256">{opened_sum}</open-checksum>' if opened_sum else ""
    more += f"<open-size>{opened_size}</open-size>" if opened_size is not None else ""
    write_repomd(
        folder,
        f'<data type="primary"><checksum type="sha256">{hashlib.sha256(stored).hexdigest()}</checksum>'
        f'<location href="repodata/p"/><size>{len(stored)}</size>{more}</data>',
    )
    return folder.as_uri()


@pytest.mark.parametrize(
    "compress",
    [lambda data: gzip.compress(data, 1), zstandard.compress, lambda data: lzma.compress(data, preset=0)],
    ids=["gzip", "zstd", "xz"],
)
@pytest.mark.parametrize("stated", [None, 1000])
def test_a_bomb_is_stopped_at_what_is_stated_or_at_a_ratio(
    store: Store, tmp_path: Path, compress: object, stated: int | None
) -> None:
    data = bytes(64 << 20)
    url = _document(tmp_path, compress(data), opened_size=stated)  # type: ignore[operator]
    with pytest.raises(VerificationError) as caught:
        metadata_file(opened(store, url), "primary", store=store)
    assert code_of(caught) in {"stream-too-large", "metadata-mismatch"}
    assert sum(path.stat().st_size for path in (store.root / "blobs").iterdir()) < 1 << 20


def test_what_is_inside_must_be_what_is_stated(store: Store, tmp_path: Path) -> None:
    url = _document(tmp_path, gzip.compress(b"x" * 100), opened_sum="0" * 64, opened_size=100)
    with pytest.raises(VerificationError) as caught:
        metadata_file(opened(store, url), "primary", store=store)
    assert code_of(caught) == "metadata-mismatch"


def test_a_damaged_document_is_refused(store: Store, tmp_path: Path) -> None:
    url = write_repository(tmp_path / "r", RPMS)
    (path,) = (tmp_path / "r" / "repodata").glob("*primary*")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(VerificationError) as caught:
        metadata_file(opened(store, url), "primary", store=store)
    assert code_of(caught) == "download-mismatch"


def _of_algorithm(folder: Path, algorithm: str, content: bytes, promised: bytes = b"<metadata/>") -> str:
    """Write a repository whose repomd.xml promises a document by a checksum of this algorithm; its URL."""
    (folder / "repodata").mkdir(parents=True)
    (folder / "repodata" / "p").write_bytes(content)
    checksum = hashlib.new(algorithm, promised).hexdigest()
    entry = f'<checksum type="{algorithm}">{checksum}</checksum><location href="repodata/p"/>'
    write_repomd(folder, f'<data type="primary">{entry}</data>')
    return folder.as_uri()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_document_is_checked_by_the_checksum_of_its_repository(store: Store, tmp_path: Path, algorithm: str) -> None:
    good = _of_algorithm(tmp_path / "good", algorithm, b"<metadata/>")
    found = metadata_file(opened(store, good), "primary", store=store)
    assert found is not None and found[0].read_bytes() == b"<metadata/>"
    bad = _of_algorithm(tmp_path / "bad", algorithm, b"<damaged/>", promised=b"<another/>")
    with pytest.raises(VerificationError) as caught:
        metadata_file(opened(store, bad), "primary", store=store)
    assert code_of(caught) == "download-mismatch"
    assert f"{algorithm}:{hashlib.new(algorithm, b'<another/>').hexdigest()}" in str(caught.value)
    assert not store.has(Digest.of(b"<damaged/>"))


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_mirror_with_a_damaged_document_is_passed_over(store: Store, tmp_path: Path, algorithm: str) -> None:
    bad = _of_algorithm(tmp_path / "bad", algorithm, b"<damaged/>")
    good = _of_algorithm(tmp_path / "good", algorithm, b"<metadata/>")
    found = metadata_file(opened(store, bad, good), "primary", store=store)
    assert found is not None and found[0].read_bytes() == b"<metadata/>"
    assert not store.has(Digest.of(b"<damaged/>"))


def test_the_first_mirror_that_answers_is_used_and_the_others_are_kept(store: Store, tmp_path: Path) -> None:
    url = write_repository(tmp_path / "r", RPMS)
    dead = (tmp_path / "dead").as_uri()
    one = opened(store, dead, f"{url}/")
    assert one.base_urls == (url, dead)


def test_a_mirrorlist_that_holds_variables_literally_leads_to_the_repository(store: Store, tmp_path: Path) -> None:
    url = write_repository(tmp_path / "9" / "x86_64", RPMS)
    listed = tmp_path / "mirrorlist"
    listed.write_text(f"# repo = r arch = x86_64\n\n{tmp_path.as_uri()}/$releasever/$basearch/\n")
    repository = PackageRepository("r", mirrorlist=listed.as_uri())
    platform = Platform("p", (repository,), variables=(("release", "9"),))
    (one,) = open_repositories(platform, "x86_64", variables={}, store=store)
    assert one.base_urls == (url,)


def test_a_mirrorlist_with_metalink_in_its_url_is_a_metalink_as_for_dnf(store: Store, tmp_path: Path) -> None:
    write_repository(tmp_path / "x86_64", RPMS)
    repomd = (tmp_path / "x86_64/repodata/repomd.xml").read_bytes()
    metalink = tmp_path / "metalink"
    metalink.write_text(
        '<metalink><files><file name="repomd.xml"><verification>'
        f'<hash type="sha256">{hashlib.sha256(repomd).hexdigest()}</hash></verification><resources>'
        f"<url>{tmp_path.as_uri()}/$basearch/repodata/repomd.xml</url></resources></file></files></metalink>"
    )
    platform = Platform("p", (PackageRepository("r", mirrorlist=metalink.as_uri()),))
    (one,) = open_repositories(platform, "x86_64", variables={}, store=store)
    assert one.repomd == Digest.of(repomd)


def test_a_metalink_decides_which_repomd_is_the_right_one(store: Store, tmp_path: Path) -> None:
    old = write_repository(tmp_path / "old", RPMS[:1])
    good = write_repository(tmp_path / "good", RPMS)
    sha256 = hashlib.sha256((tmp_path / "good" / "repodata" / "repomd.xml").read_bytes()).hexdigest()
    urls = "".join(f'<url preference="{90 - n}">{u}/repodata/repomd.xml</url>' for n, u in enumerate((old, good)))
    metalink = tmp_path / "metalink"
    text = '<metalink><files><file name="repomd.xml"><verification><hash type="sha256">{}</hash></verification>'
    text += f"<resources>{urls}</resources></file></files></metalink>"
    metalink.write_text(text.format(sha256))
    platform = Platform("p", (PackageRepository("r", metalink=metalink.as_uri()),))
    (one,) = open_repositories(platform, "x86_64", variables={}, store=store)
    assert one.base_urls == (good, old)
    metalink.write_text(text.format("0" * 64))
    with pytest.raises(VerificationError) as caught:
        open_repositories(platform, "x86_64", variables={}, store=store)
    assert code_of(caught) == "repomd-mismatch"


def test_an_older_revision_is_refused_where_metadata_is_proven(
    store: Store, tmp_path: Path, signers: tuple[Signer, Signer]
) -> None:
    key = tmp_path / "key"
    key.write_bytes(signers[0].public)

    def publish(revision: str) -> OpenRepository:
        url = write_repository(tmp_path / "r", RPMS, revision=revision)
        signers[0].sign(tmp_path / "r" / "repodata" / "repomd.xml")
        return opened(store, url, signed_metadata=True, keys=(str(key),))

    assert publish("100").revision == "100"
    assert publish("100").revision == "100"
    with pytest.raises(VerificationError) as caught:
        publish("99")
    assert code_of(caught) == "metadata-rollback"
    assert publish("101").revision == "101"


def test_an_older_revision_is_told_where_nothing_proves_metadata(store: Store, tmp_path: Path) -> None:
    told: list[str] = []

    class Told:
        start = staticmethod(QUIET.start)
        finish = staticmethod(QUIET.finish)
        warn = staticmethod(told.append)

    platform = Platform("p", (PackageRepository("r", baseurls=((tmp_path / "r").as_uri(),)),))
    for revision in ("5", "4"):
        write_repository(tmp_path / "r", RPMS, revision=revision)
        open_repositories(platform, "x86_64", variables={}, store=store, progress=Told())
    assert len(told) == 1 and "revision 4, older than 5" in told[0]


def test_a_url_without_a_repository_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacking, match="there is no repository at") as caught:
        opened(store, f"file://{tmp_path}/nothing")
    assert caught.value.code == "repository-missing"
    assert "--upgrade" not in str(caught.value)


def test_signed_metadata_needs_a_good_signature_by_a_key_of_this_repository(
    store: Store, tmp_path: Path, signers: tuple[Signer, Signer]
) -> None:
    operator, stranger = signers
    url = write_repository(tmp_path / "r", RPMS)
    repomd = tmp_path / "r" / "repodata" / "repomd.xml"
    key = tmp_path / "key"
    key.write_bytes(operator.public)

    def open_signed() -> OpenRepository:
        return opened(store, url, signed_metadata=True, keys=(str(key),))

    with pytest.raises(EnvironmentLacking, match=r"repomd\.xml\.asc"):
        open_signed()
    stranger.sign(repomd)
    with pytest.raises(VerificationError) as caught:
        open_signed()
    assert code_of(caught) == "metadata-signature-bad"
    operator.sign(repomd)
    assert open_signed().keys[0].armored.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    repomd.write_bytes(repomd.read_bytes().replace(b"<revision>1<", b"<revision>2<"))
    with pytest.raises(VerificationError) as caught:
        open_signed()
    assert code_of(caught) == "metadata-signature-bad"


def test_a_key_that_gpg_cannot_read_does_not_hinder_the_others_in_verifying_metadata(
    store: Store, tmp_path: Path, signers: tuple[Signer, Signer]
) -> None:
    url = write_repository(tmp_path / "r", RPMS)
    signers[0].sign(tmp_path / "r" / "repodata" / "repomd.xml")
    (tmp_path / "key").write_bytes(signers[0].public + armor([Packet(6, b"", V6_KEY)]))
    keys = opened(store, url, signed_metadata=True, keys=(str(tmp_path / "key"),)).keys
    assert sorted(len(key.unusable) for key in keys) == [0, 1]


def test_signed_metadata_without_a_key_is_refused(store: Store, tmp_path: Path, signers: tuple[Signer, Signer]) -> None:
    url = write_repository(tmp_path / "r", RPMS)
    signers[0].sign(tmp_path / "r" / "repodata" / "repomd.xml")
    with pytest.raises(VerificationError, match="the repository has no keys") as caught:
        opened(store, url, signed_metadata=True)
    assert code_of(caught) == "metadata-signature-bad"


def test_a_file_of_keys_may_hold_several_blocks(signers: tuple[Signer, Signer]) -> None:
    text = b"comment\n" + signers[0].public + b"\n" + signers[1].public.replace(b"\n", b"\r\n")
    keys = read_keys("r", text, "keys")
    assert len({key.fingerprint for key in keys}) == 2
    assert all(len(key.fingerprint) == 40 and key.repository == "r" for key in keys)
    assert all(b"\r" not in key.armored for key in keys)


@pytest.mark.parametrize("text", [b"", b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n"])
def test_a_file_without_a_key_is_refused(text: bytes) -> None:
    with pytest.raises(VerificationError) as caught:
        read_keys("r", text, "keys")
    assert code_of(caught) == "key-malformed"


def test_keys_are_loaded_by_path_and_by_url(store: Store, tmp_path: Path, signers: tuple[Signer, Signer]) -> None:
    (tmp_path / "key").write_bytes(signers[0].public)
    repositories = (
        PackageRepository("b", baseurls=("file:///b",), keys=("$where/key",)),
        PackageRepository("a", baseurls=("file:///a",), keys=("file://$where/key",)),
    )
    platform = Platform("p", repositories, variables=(("where", "${RELBUILD_VAR_WHERE}"),))
    keys = load_keys(platform, "x86_64", variables={"RELBUILD_VAR_WHERE": str(tmp_path)}, store=store)
    assert [key.repository for key in keys] == ["a", "b"]
    assert keys[0].fingerprint == keys[1].fingerprint
    missing = Platform("p", (PackageRepository("a", keys=("/nowhere/key",)),))
    with pytest.raises(RecipeError) as caught:
        load_keys(missing, "x86_64", variables={}, store=store)
    assert caught.value.code == "key-unreadable"


def _package(content: bytes, location: str = "a.rpm", repository: str = "r") -> Package:
    return Package(Nevra("a", 0, "1", "1", "noarch"), Digest.of(content), len(content), repository, location, 0)


def test_packages_are_fetched_by_checksum_and_not_twice(store: Store, tmp_path: Path) -> None:
    one = opened(store, write_repository(tmp_path / "r", RPMS))
    (tmp_path / "r" / "a.rpm").write_bytes(b"package")
    package = _package(b"package")
    fetch_packages([package], [one], store=store, progress=QUIET)
    assert store.blob(package.checksum).read_bytes() == b"package"
    (tmp_path / "r" / "a.rpm").unlink()
    fetch_packages([package], [], store=store, progress=QUIET, offline=True)
    with pytest.raises(VerificationError) as caught:
        (tmp_path / "r" / "b.rpm").write_bytes(b"other")
        fetch_packages([_package(b"wrong", "b.rpm")], [one], store=store, progress=QUIET)
    assert code_of(caught) == "download-mismatch"


def test_a_package_of_a_repository_that_is_not_open_is_named(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        fetch_packages([_package(b"x", repository="gone")], [], store=store, progress=QUIET)
    assert caught.value.code == "repository-unknown"
    assert "gone" in str(caught.value)


def test_a_package_outside_its_repository_is_refused(store: Store, tmp_path: Path) -> None:
    one = opened(store, write_repository(tmp_path / "r", RPMS))
    with pytest.raises(VerificationError) as caught:
        fetch_packages([_package(b"x", "../../etc/passwd")], [one], store=store, progress=QUIET)
    assert code_of(caught) == "location-escapes"


def test_a_package_above_its_repository_is_fetched_from_the_mirrors_that_have_folders_there(
    store: Store, tmp_path: Path
) -> None:
    near = opened(store, write_repository(tmp_path / "near", RPMS))
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a.rpm").write_bytes(b"package")
    with guarded_server(tmp_path / "site") as running:
        both = replace(near, base_urls=(*near.base_urls, f"{running.url}/core/1"))
        package = _package(b"package", "../../a.rpm")
        fetch_packages([package], [both], store=store, progress=QUIET)
    assert store.blob(package.checksum).read_bytes() == b"package"


def test_an_empty_document_is_no_document(store: Store, tmp_path: Path) -> None:
    (tmp_path / "r" / "repodata").mkdir(parents=True)
    write_repomd(tmp_path / "r", write_document(tmp_path / "r", "primary", b"", compression=""))
    found = metadata_file(opened(store, (tmp_path / "r").as_uri()), "primary", store=store)
    assert found is not None and found[0].read_bytes() == b""
