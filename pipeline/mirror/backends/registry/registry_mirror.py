"""`Mirror` implementation for a namespace of a registry; open it with its credentials.

OCI distribution specification 1.1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.mirror.backends.registry.blob_upload import UploadForms
from pipeline.mirror.backends.registry.name_pages import listed_names
from pipeline.mirror.backends.registry.registry_address_form import RegistryRoot
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.known_blobs import KnownInRun
from pipeline.mirror.protocol import NAME, Mirror, undo_impossible
from pipeline.progress import Progress
from pipeline.transfer import (
    CATALOG_SCOPE,
    CredentialStore,
    Network,
    QuestionLog,
    RegistryClient,
    TrafficCounts,
    certificate_roots,
)

if TYPE_CHECKING:
    from pipeline.mirror.repair_sources import RepairSources
    from pipeline.mirror.retention.access_log import Pulls
    from pipeline.mirror.retention.pruning import Inventory, PruningResult, UndoResult
    from pipeline.model.rules import MirrorRules
    from pipeline.model.scrub import ScrubResult

_LISTS_NOTHING = frozenset({"registry-denied", "registry-refused"})
"""Codes of the errors of registries that refuse to list all their repositories."""


def open_registry(
    url: str,
    *,
    environment: Mapping[str, str],
    progress: Progress,
    network: Network | None = None,
    known: KnownInRun | None = None,
    read_back: bool = False,
    log: QuestionLog | None = None,
) -> RegistryMirror:
    """Return the mirror at `registry://HOST[:PORT]/NAMESPACE` or `registry+http://…`.

    No request is sent yet.

    `environment` has the paths of credentials and certificates, and proxies (unless `network` is given); `known`: blobs
    known to be intact; `read_back`: believe bytes that were read alone, not the registry's answers on them; `log`
    notes what is asked. Raises UsageError `mirror-url`. Close the mirror, or use it in a `with` block.
    """
    address = RegistryRoot.parse(url)
    client = RegistryClient(
        address.base,
        network=network or Network.of(environment),
        credential_store=CredentialStore.of(environment),
        namespace=address.namespace,
        certificates=certificate_roots(environment),
        log=log,
    )
    return RegistryMirror(address, client, progress, known or KnownInRun(), read_back=read_back)


class RegistryMirror(Mirror):
    """A namespace of a registry as a mirror: see `Mirror`."""

    def __init__(
        self,
        address: RegistryRoot,
        client: RegistryClient,
        progress: Progress,
        known: KnownInRun,
        *,
        read_back: bool = False,
    ) -> None:
        self._address = address
        self._read_back = read_back
        self._forms = UploadForms()
        self.known = known
        self._client = client
        self._progress = progress
        self._repositories: dict[str, RegistryRepository] = {}

    def __enter__(self) -> RegistryMirror:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def url(self) -> str:
        """The address, as a person writes it."""
        return str(self._address)

    @property
    def traffic(self) -> TrafficCounts:
        """Counters of the requests to the registry, and of the bytes sent and received so far."""
        return self._client.traffic

    def repository(self, name: str) -> RegistryRepository:
        """Return the repository `name`, which need not exist. Raises UsageError `repository-name`."""
        if not NAME.fullmatch(name) or len(self._address.full(name)) > 255:
            raise UsageError(
                "repository-name",
                f"invalid repository name: '{name[:80]}'",
                place=self.url,
                hint="use lower-case letters and digits, with . _ - / between them, at most 255 characters",
            )
        made = RegistryRepository(
            self._address,
            name,
            self._client,
            self._progress,
            self.known,
            read_back=self._read_back,
            forms=self._forms,
        )
        return self._repositories.setdefault(name, made)  # all threads share one, with its locks and what it found out

    def repositories(self) -> tuple[str, ...]:
        """List the names of all repositories of the namespace, sorted.

        Empty if the registry refuses to list its repositories.
        """
        try:
            return self._listed(required=False)
        except EnvironmentLacking as error:
            if error.code in _LISTS_NOTHING:
                return ()
            raise

    def _listed(self, *, required: bool) -> tuple[str, ...]:
        names = list(
            listed_names(self._client, "/v2/_catalog", (CATALOG_SCOPE,), "repositories", self.url, required=required)
        )
        start = f"{self._address.namespace}/" if self._address.namespace else ""
        return tuple(sorted({name.removeprefix(start) for name in names if name.startswith(start)}))

    def _maintained(self) -> tuple[str, ...]:
        """List the names of all repositories (at least one), sorted, to prune or scrub them.

        Raises EnvironmentLacking `catalog-refused`, `repositories-not-found`.
        """
        try:
            names = self._listed(required=True)
        except EnvironmentLacking as error:
            if error.code not in _LISTS_NOTHING:
                raise
            raise EnvironmentLacking(
                "catalog-refused",
                f"which repositories there are is not known, so none is read: {error.problems[0].message}",
                place=self.url,
                hint="log in as a user who may list them (GET /v2/_catalog), or ask the registry's administrator; a "
                "registry that lists them to nobody cannot be scrubbed or pruned: `relbuild verify REFERENCE` checks "
                "one image",
            ) from None
        if not names:
            raise EnvironmentLacking(
                "repositories-not-found",
                "the registry lists no repository in this namespace, so none is read",
                place=self.url,
                hint="check the namespace; if something is published there, log in as a user to whom the registry "
                "lists it",
            )
        return names

    @property
    def namespace(self) -> str:
        """The namespace; empty for a whole registry."""
        return self._address.namespace

    def writing(self) -> AbstractContextManager[None]:
        """Hold nothing: registries have no locks; the operator decides when garbage is collected."""
        return contextlib.nullcontext()

    # --- maintenance

    def inventory(self) -> Inventory:
        """Take an inventory of all that is reachable from the tags of all listed repositories."""
        from pipeline.mirror.inventory import inventory_by_tags  # here and below: who publishes does neither

        return inventory_by_tags(self, self._maintained())

    def prune(
        self,
        rules: MirrorRules,
        now: int,
        *,
        pulls: Pulls | None = None,
        dry_run: bool = False,
        idle: bool = False,
    ) -> PruningResult:
        """Delete what the rules do not keep: see `prune_registry`."""
        from pipeline.mirror.backends.registry.registry_prune import prune_registry

        return prune_registry(self, rules, now, pulls=pulls, dry_run=dry_run, idle=idle)

    def restore(self, stamp: str) -> UndoResult:
        """Refuse, because deletions are final: raises UsageError `undo-impossible`."""
        raise undo_impossible(self.url)

    def scrub(self, healing: RepairSources, *, rate: int, progress: Progress) -> ScrubResult:
        """Read and verify all that is reachable from tags: see `scrub_remote`."""
        from pipeline.mirror.remote_scrub import scrub_remote

        reading = RegistryMirror(self._address, self._client, self._progress, self.known, read_back=True)
        return scrub_remote(reading, self._maintained(), self.known, healing, rate=rate, progress=progress)
