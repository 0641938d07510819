"""Open a platform's repositories: find mirrors, verify repomd.xml; fetch packages.

Opening finds a mirror and verifies its repomd.xml; packages are fetched afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from pipeline.digest import Digest, identity
from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.package import Package
from pipeline.model.platform import PackageRepository, Platform
from pipeline.progress import QUIET, Progress, task
from pipeline.repos.detached_signature import SIGNATURE_LIMIT, verify_detached
from pipeline.repos.document_fetcher import DocumentFetcher
from pipeline.repos.openpgp_keys import RepositoryKey, load_keys
from pipeline.repos.repomd import (
    Checksum,
    MetadataRecord,
    Repomd,
    location_urls,
    parse_metalink,
    parse_mirrorlist,
    parse_repomd,
)
from pipeline.repos.repository_access import repository_network
from pipeline.repos.variables import answer_variables, expand_repository, platform_variables
from pipeline.store import Store, recall_seen, remember_seen, seen_record
from pipeline.transfer import Download, Network, PassingContent, ServerAccess, fetch
from pipeline.urls import parse_url, shown_url

REPOMD_LIMIT = 4 << 20
"""Bytes of repomd.xml, a metalink or a mirrorlist: the largest metalinks have some hundred KiB."""

_REVISION = re.compile(r"[0-9]{1,18}")
"""A revision in seconds since the epoch, as createrepo_c writes it. Other revisions have no order."""

_METALINK = "metalink"
"""Part of a `mirrorlist`'s URL that means that it is a metalink (libdnf's Repo.cpp, for yum's definitions)."""

LOCAL_REPOSITORY = "@file"
"""`Package.repository` of a package that a recipe names by path."""


@dataclass(frozen=True, slots=True)
class OpenRepository:
    """A repository with its accepted repomd.xml.

    `repository` has its variables replaced; `base_urls` are roots to fetch from, best first; `repomd` is the
    digest of the repomd.xml that was accepted (in the store), `revision` its revision, `records` its documents
    by kind. `offline` and `network` say how it was opened, for what is fetched later.
    """

    repository: PackageRepository
    base_urls: tuple[str, ...]
    repomd: Digest
    revision: str
    records: Mapping[str, MetadataRecord]
    keys: tuple[RepositoryKey, ...]
    offline: bool = field(default=False, compare=False)
    network: Network | None = field(default=None, compare=False)


def open_repositories(
    platform: Platform,
    arch: str,
    *,
    variables: Mapping[str, str],
    store: Store,
    offline: bool = False,
    progress: Progress = QUIET,
    network: Network | None = None,
    clock: Callable[[], float] | None = None,
) -> tuple[OpenRepository, ...]:
    """Open all repositories of a platform for `arch`, in the platform's order.

    `variables` is the environment, `clock` gives seconds since the epoch, against which client certificates are held.
    Metadata documents are not fetched yet: `metadata_file` does that for
    those that are needed. Raises EnvironmentLacking when no mirror answers, VerificationError when what they
    answer is not what metalink, signature or history demand, RecipeError for variables, and as `repository_network`.
    """
    way = network or Network.of(variables)
    keys = load_keys(platform, arch, variables=variables, store=store, offline=offline, network=way)
    own = platform_variables(platform, arch, variables)
    opened = []
    now = clock() if clock else None
    with task(progress, "fetch", "repositories", total=len(platform.repositories)) as running:
        for plain in platform.repositories:
            repository = expand_repository(plain, own, variables)
            # Kept documents need no credentials offline.
            to_it = way if offline else repository_network(repository, way, variables, now=now)
            documents = DocumentFetcher(store, offline=offline, network=to_it)
            opener = _Opener(store, progress, documents, offline, to_it, answer_variables(platform, arch))
            opened.append(opener.open(repository, tuple(k for k in keys if k.repository == repository.id)))
            running.advance(1)
    return tuple(opened)


@dataclass(frozen=True, slots=True)
class _Opener:
    """Opener of repositories, with the state that they share."""

    store: Store
    progress: Progress
    documents: DocumentFetcher
    offline: bool
    network: Network
    variables: Mapping[str, str]

    def open(self, repository: PackageRepository, keys: tuple[RepositoryKey, ...]) -> OpenRepository:
        """Open an expanded repository by its first mirror whose repomd.xml is accepted."""
        base_urls, allowed = find_mirrors(repository, self.documents, self.variables)
        failures: list[RelbuildError] = []
        # Of several mirrors each is first tried with a short timeout, and if none was accepted, with the full one.
        hurried = [(base, True) for base in base_urls] if len(base_urls) > 1 else []
        for base, hurry in (*hurried, *((base, False) for base in base_urls)):
            if not hurry and len(failures) == len(hurried):
                failures.clear()
            try:
                data, repomd = self._accepted(repository, base, allowed, keys, hurry)
            except (EnvironmentLacking, VerificationError) as error:
                failures.append(error)
                continue
            others = tuple(other for other in base_urls if other != base)
            return OpenRepository(
                repository,
                (base, *others),
                self.store.put(data),
                repomd.revision,
                repomd.records,
                keys,
                self.offline,
                self.network,
            )
        if all(
            one.code == "download-missing" and str(one.problems[0].place).endswith("/repomd.xml") for one in failures
        ):
            raise EnvironmentLacking(
                "repository-missing",
                f"there is no repository at {', '.join(shown_url(base) for base in base_urls[:3])}: it has no "
                "repodata/repomd.xml",
                place=repository.id,
                hint="check the repository's URL and the variables in it ($releasever, $basearch), in a browser for "
                "instance; vendors move repositories of old releases to archives",
            ) from failures[0]
        # A refused document is a better error than a mirror that is down.
        raise next((e for e in failures if isinstance(e, VerificationError)), failures[0])

    def _accepted(
        self,
        repository: PackageRepository,
        base: str,
        allowed: Sequence[Checksum],
        keys: tuple[RepositoryKey, ...],
        hurried: bool,
    ) -> tuple[bytes, Repomd]:
        """Fetch the repomd.xml of one mirror, and verify it by metalink, signature and history."""
        url = f"{base}/repodata/repomd.xml"

        def read(data: bytes) -> tuple[bytes, Repomd]:
            if allowed and not any(one.matches(data) for one in allowed):
                raise VerificationError(
                    "repomd-mismatch",
                    f"{shown_url(url)} does not match any of the {len(allowed)} versions in the metalink",
                    place=shown_url(url),
                    hint="the mirror is out of step with the metalink; try again later",
                )
            if repository.signed_metadata:
                # Fetched again with each repomd.xml: a repository may be written while it is read.
                signature = self.documents.plain(f"{url}.asc", limit=SIGNATURE_LIMIT)
                verify_detached(data, signature, keys, name=shown_url(url))
                self.documents.keep(f"{url}.asc", signature)
            repomd = parse_repomd(data, shown_url(url))
            self._refuse_rollback(repository, repomd.revision, url, proven=bool(allowed) or repository.signed_metadata)
            return data, repomd

        return self.documents.get(url, limit=REPOMD_LIMIT, read=read, hurried=hurried)

    def _refuse_rollback(self, repository: PackageRepository, revision: str, url: str, *, proven: bool) -> None:
        """Refuse a repomd.xml with a lower revision than the last one seen.

        An old repomd.xml with its old signature verifies, so the last revision seen is kept. Where metadata is not
        `proven`, an older revision is only a warning.
        """
        origin = [*repository.baseurls, repository.metalink or "", repository.mirrorlist or ""]
        name = identity("revision", 1, repository=repository.id, origin=origin)
        if not _REVISION.fullmatch(revision):
            return
        seen = recall_seen(self.store, name)
        if isinstance(seen, int) and int(revision) < seen:
            text = f"rollback: {shown_url(url)} has revision {revision}, older than {seen}, which was seen before"
            if proven:
                raise VerificationError(
                    "metadata-rollback",
                    text,
                    place=url,
                    hint="a mirror is outdated, or someone replays old metadata; if the repository was reset on purpose"
                    f", remove {seen_record(self.store, name).relative_to(self.store.root)} in the store",
                )
            self.progress.warn(f"repository {repository.id}: {text}")
        if seen != int(revision):
            remember_seen(self.store, name, int(revision))


def find_mirrors(
    repository: PackageRepository, documents: DocumentFetcher, variables: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[Checksum, ...]]:
    """Find the mirrors of an expanded repository and the checksums allowed for repomd.xml.

    Roots are sorted best first; checksums are those that its metalink allows (none: any). `variables` are replaced in
    metalinks and lists. A mirrorlist with `metalink` in its URL is a metalink, as for dnf.
    """
    place = repository.metalink or repository.mirrorlist
    if place is not None:
        name, local = shown_url(place), place.startswith("file:")

        def read(data: bytes) -> tuple[tuple[str, ...], tuple[Checksum, ...]]:
            if repository.metalink or _METALINK in place:
                metalink = parse_metalink(data, name, variables, local=local)
                return metalink.base_urls, metalink.checksums
            return parse_mirrorlist(data, name, variables, local=local), ()

        return documents.get(place, limit=REPOMD_LIMIT, read=read)
    urls = tuple(url.rstrip("/") for url in repository.baseurls)
    for url in urls:
        one = parse_url(url)
        if one is None or one.scheme not in {"http", "https", "file"}:
            raise UsageError(
                "url-unknown",
                f"'{shown_url(url)}' is not a URL of http, https or file",
                place=f"repository {repository.id}",
                hint="write a directory as file:///path",
            )
    return urls, ()


def fetch_packages(
    packages: Sequence[Package],
    repositories: Sequence[OpenRepository],
    *,
    store: Store,
    progress: Progress,
    offline: bool = False,
    parallel: int = 4,
    passing: Callable[[Digest], PassingContent] | None = None,
) -> None:
    """Download every package that is not in the store, as `store.blob(package.checksum)`.

    `repositories` may be empty if the store has all; `passing` as in `pipeline.transfer.fetch`. Raises as
    that, and UsageError `repository-unknown` for a package of a repository that is not open.
    """
    by_id = {opened.repository.id: opened for opened in repositories}
    downloads: dict[ServerAccess, tuple[Network | None, list[Download]]] = {}
    for package in packages:
        if store.has(package.checksum):
            continue
        opened = by_id.get(package.repository)
        if opened is None:
            raise UsageError(
                "repository-unknown",
                f"{package.nevra} comes from the repository '{package.repository}', which the platform does not define",
                place=str(package.nevra),
                hint="resolve again with --upgrade",
            )
        urls = location_urls(opened.base_urls, package.location, place=str(package.nevra))
        access = opened.network.access if opened.network else ServerAccess()
        _, same = downloads.setdefault(access, (opened.network, []))
        same.append(Download(urls, package.checksum, package.size, str(package.nevra)))
    for network, same in downloads.values():
        fetch(
            store,
            same,
            progress=progress,
            parallel=parallel,
            offline=offline,
            network=network,
            label=f"{len(same)} packages",
            passing=passing,
        )
