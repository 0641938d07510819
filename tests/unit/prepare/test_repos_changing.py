"""A repository that is written while it is read, or that a network's sign-on page stands in for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.model.platform import PackageRepository, Platform
from pipeline.prepare import BuildEnvironment, LockPlan, retry_if_changed
from pipeline.prepare.build_options import RepositoryCache
from pipeline.progress import QUIET
from pipeline.repos import load_keys, metadata_file, open_repositories
from pipeline.repos.document_fetcher import DocumentFetcher
from pipeline.store import Store
from pipeline.transfer import Network
from tests.support.rpmmd import Rpm, write_repository
from tests.support.slow_server import PAGE, SlowServer, head
from tests.unit.repos.test_repos_opening import Signer

NETWORK = Network(timeout=120, backoff=0.001)


class Site:
    """Serves a folder; each list in `instead` is what a path answers at first, before the file itself."""

    def __init__(self, server: SlowServer, folder: Path) -> None:
        self.folder = folder
        self.instead: dict[str, list[bytes]] = {}
        server.serve = self.answer

    def answer(self, path: str) -> bytes:
        if self.instead.get(path):
            return self.instead[path].pop(0)
        file = self.folder / path.lstrip("/")
        return head("200 OK", file.read_bytes()) if file.is_file() else head("404 Not Found")


REPOMD = "/r/repodata/repomd.xml"


@pytest.fixture
def site(server: SlowServer, tmp_path: Path) -> Site:
    write_repository(tmp_path / "site" / "r", (Rpm("a"),))
    return Site(server, tmp_path / "site")


def platform(*urls: str, **more: Any) -> Platform:
    return Platform("p", (PackageRepository("r", baseurls=urls, **more),))


@pytest.mark.parametrize(
    "wrong", [head("200 OK", PAGE), head("404 Not Found"), head("500 X"), head("200 OK", b"<repomd")]
)
def test_a_repomd_that_is_wrong_for_a_moment_is_read_again(
    server: SlowServer, site: Site, store: Store, wrong: bytes
) -> None:
    site.instead[REPOMD] = [wrong]
    (one,) = open_repositories(platform(f"{server.url}/r"), "x86_64", variables={}, store=store, network=NETWORK)
    assert one.revision == "1"
    assert server.asked[REPOMD] == 2


def test_a_page_that_stays_in_the_place_of_a_repomd_is_an_error_and_not_kept(
    server: SlowServer, site: Site, store: Store
) -> None:
    where = platform(f"{server.url}/r")
    open_repositories(where, "x86_64", variables={}, store=store, network=NETWORK)
    site.instead[REPOMD] = [head("200 OK", PAGE)] * 9
    with pytest.raises(VerificationError) as caught:
        open_repositories(where, "x86_64", variables={}, store=store, network=NETWORK)
    assert caught.value.code in {"xml-malformed", "xml-refused"}
    assert server.asked[REPOMD] == 3
    (kept,) = open_repositories(where, "x86_64", variables={}, store=store, network=NETWORK, offline=True)
    assert kept.revision == "1"


def test_of_several_mirrors_the_next_is_asked_before_one_is_asked_again(
    server: SlowServer, site: Site, store: Store
) -> None:
    where = platform(f"{server.url}/headers/r", f"{server.url}/portal", f"{server.url}/r")
    site.instead["/portal/repodata/repomd.xml"] = [head("200 OK", PAGE)] * 9
    way = Network(timeout=30, backoff=0.001)
    (one,) = open_repositories(where, "x86_64", variables={}, store=store, network=way)
    assert one.base_urls[0] == f"{server.url}/r"
    assert server.asked == {
        "/headers/r/repodata/repomd.xml": 1,
        "/portal/repodata/repomd.xml": 1,
        REPOMD: 1,
    }


def test_mirrors_that_were_too_slow_in_a_hurry_are_given_their_time(
    server: SlowServer, site: Site, store: Store
) -> None:
    for name in ("x", "y"):
        site.instead[f"/{name}/repodata/repomd.xml"] = [head("503 X")]
        write_repository(site.folder / name, (Rpm("a"),))
    where = platform(f"{server.url}/x", f"{server.url}/y")
    (one,) = open_repositories(where, "x86_64", variables={}, store=store, network=NETWORK)
    assert one.base_urls[0] == f"{server.url}/x"


@pytest.mark.parametrize("kind", ["metalink", "mirrorlist"])
def test_a_list_of_mirrors_that_is_a_page_for_a_moment_is_read_again(
    server: SlowServer, site: Site, store: Store, kind: str
) -> None:
    import hashlib

    digest = hashlib.sha256((site.folder / "r" / "repodata" / "repomd.xml").read_bytes()).hexdigest()
    lists = {
        "mirrorlist": f"{server.url}/r\n",
        "metalink": '<metalink><files><file name="repomd.xml"><verification><hash type="sha256">'
        f"{digest}</hash></verification><resources><url>{server.url}{REPOMD}</url></resources></file></files></metalink>",
    }
    (site.folder / "list").write_text(lists[kind])
    site.instead["/list"] = [head("200 OK", PAGE)]
    where = Platform("p", (PackageRepository("r", **{kind: f"{server.url}/list"}),))  # type: ignore[arg-type]
    (one,) = open_repositories(where, "x86_64", variables={}, store=store, network=NETWORK)
    assert one.base_urls == (f"{server.url}/r",)


def test_a_key_that_is_a_page_for_a_moment_is_read_again(
    server: SlowServer, site: Site, store: Store, tmp_path: Path
) -> None:
    signer = Signer(tmp_path / "gpg")
    try:
        (site.folder / "key").write_bytes(signer.public)
        site.instead["/key"] = [head("200 OK", PAGE)]
        where = platform(f"{server.url}/r", keys=(f"{server.url}/key",))
        assert len(load_keys(where, "x86_64", variables={}, store=store, network=NETWORK)) == 1
        signer.sign(site.folder / "r" / "repodata" / "repomd.xml")
        site.instead[f"{REPOMD}.asc"] = [head("200 OK", b"another, or none")]
        signed = platform(f"{server.url}/r", keys=(f"{server.url}/key",), signed_metadata=True)
        open_repositories(signed, "x86_64", variables={}, store=store, network=NETWORK)
        assert server.asked[REPOMD] == 2  # the signature of a moment ago and the index of now: both anew
        (kept,) = open_repositories(signed, "x86_64", variables={}, store=store, offline=True)
        assert kept.keys
    finally:
        signer.close()


def test_a_document_that_is_refused_is_kept_by_nobody(server: SlowServer, store: Store) -> None:
    server.serve = lambda _: head("200 OK", b"data")

    def refuse(_: bytes) -> bytes:
        raise VerificationError("no", "no")

    with pytest.raises(VerificationError):
        DocumentFetcher(store, network=NETWORK).get(f"{server.url}/x", limit=9, read=refuse)
    with pytest.raises(EnvironmentLacking) as caught:
        DocumentFetcher(store, network=NETWORK, offline=True).get(f"{server.url}/x", limit=9, read=bytes)
    assert caught.value.code == "offline-miss"


# --- under a running build -------------------------------------------------------------------------


class Build:
    """Resolving that reads the metadata of its repositories and nothing else; before it does, `meanwhile` happens."""

    def __init__(self, cache: RepositoryCache, store: Store) -> None:
        self.meanwhile: list[Any] = []
        self.cache = cache
        self.store = store

    def resolve(self) -> None:
        (opened,) = self.cache.repositories()
        if self.meanwhile:
            self.meanwhile.pop(0)()
        assert metadata_file(opened, "primary", store=self.store) is not None

    def run(self, *, resolves: bool = True) -> None:
        plan = SimpleNamespace(resolves=resolves, cache=self.cache)
        retry_if_changed(cast("LockPlan", plan), self.resolve)


@pytest.fixture
def build(server: SlowServer, site: Site, store: Store, monkeypatch: pytest.MonkeyPatch) -> Build:
    assert site
    monkeypatch.setattr(Network, "of", lambda _: NETWORK)
    build_env = BuildEnvironment(store, QUIET, {}, lambda: 0.0)
    return Build(RepositoryCache(platform(f"{server.url}/r"), "x86_64", build_env), store)


def rewrite(folder: Path, revision: int) -> None:
    for path in (folder / "repodata").iterdir():
        path.unlink()
    write_repository(folder, (Rpm("a", evr=f"{revision}-1"),), revision=str(revision))


def test_a_repository_that_changes_under_a_build_is_read_again(server: SlowServer, site: Site, build: Build) -> None:
    build.meanwhile = [lambda: rewrite(site.folder / "r", 2)]
    build.run()
    assert build.cache.repositories()[0].revision == "2"
    assert server.asked[REPOMD] == 2


def test_a_repository_that_changes_again_and_again_ends_with_its_own_error(site: Site, build: Build) -> None:
    build.meanwhile = [lambda revision=revision: rewrite(site.folder / "r", revision) for revision in range(2, 9)]
    with pytest.raises(EnvironmentLacking) as caught:
        build.run()
    assert caught.value.code == "repository-changing"
    assert "run the command again" in str(caught.value)
    assert len(build.meanwhile) == 5


def test_what_a_lock_says_is_obtained_once_whatever_changes(site: Site, build: Build) -> None:
    build.meanwhile = [lambda: rewrite(site.folder / "r", 2)]
    with pytest.raises(EnvironmentLacking) as caught:
        build.run(resolves=False)
    assert caught.value.code == "download-missing"


def test_a_repository_that_lacks_what_it_names_is_no_changing_one(site: Site, build: Build) -> None:
    def remove() -> None:
        for path in (site.folder / "r" / "repodata").glob("*primary*"):
            path.unlink()

    build.meanwhile = [remove]
    with pytest.raises(EnvironmentLacking) as caught:
        build.run()
    assert caught.value.code == "download-missing"
