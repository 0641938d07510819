"""Send requests to one repository on a registry, with the access that each needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from pipeline.digest import Digest
from pipeline.mirror.backends.registry.name_pages import NAME_PAGE_LIMIT
from pipeline.mirror.backends.registry.registry_address_form import RegistryRoot
from pipeline.mirror.backends.registry.registry_responses import registry_refused, response_words
from pipeline.transfer import RegistryClient, RegistryResponse, Scope
from pipeline.transfer.url_stream import ResponseStream


class RepositoryRequests:
    """Requests to the repository `name` at `address`. For use from several threads.

    Who puts manifests or blobs does it with the `client`, and the scope `push`.
    """

    def __init__(self, client: RegistryClient, address: RegistryRoot, name: str) -> None:
        self.client = client
        self.address = address
        self.name = name
        self.full = address.full(name)
        """The full name on the registry, with the namespace."""
        self.push = (Scope.repository(self.full, "pull", "push"),)
        self.reading = (Scope.repository(self.full, "pull"),)
        self._delete = (Scope.repository(self.full, "delete", "pull", "push"),)

    @property
    def url(self) -> str:
        """The address, as a person writes it."""
        return f"{self.address}/{self.name}"

    def path(self, target: str) -> str:
        """Return a path below `/v2/NAME/`; an absolute URL as it is."""
        return target if "://" in target else f"/v2/{self.full}/{target}"

    def blob_url(self, digest: Digest) -> str:
        """Return the absolute URL of a blob."""
        return f"{self.address.base}/v2/{self.full}/blobs/{digest}"

    def ask(
        self,
        method: str,
        target: str,
        *,
        limit: int = NAME_PAGE_LIMIT,
        accept: Sequence[str] = (),
    ) -> RegistryResponse:
        """Send a GET, HEAD or DELETE to a path below `/v2/NAME/`, or to an absolute URL.

        `limit`: bytes of the response's body.
        """
        headers = {"Accept": ", ".join(accept)} if accept else {}
        scopes = {"GET": self.reading, "HEAD": self.reading, "DELETE": self._delete}[method]
        return self.client.ask(method, self.path(target), scopes=scopes, limit=limit, headers=headers)

    def expect(self, response: RegistryResponse, statuses: set[int], what: str) -> None:
        """Raise EnvironmentLacking `registry-denied` or `registry-refused` for any other status.

        `what` completes "the registry refused to …".
        """
        if response.status in {401, 403}:
            raise self.client.denied(self.reading, f"it refused to {what}: {response_words(response)}")
        if response.status not in statuses:
            raise registry_refused(response, what, self.url)

    def stream(self, url: str, *, offset: int = 0, validator: str = "") -> AbstractContextManager[ResponseStream]:
        """Open a blob's URL from `offset` on (see `RegistryClient.stream`)."""
        return self.client.stream(url, scopes=self.reading, offset=offset, validator=validator)

    def allow_push(self) -> None:
        """From now on, request tokens that allow pull and push, also for reading.

        One token serves all requests, and some registries deny read-only clients a repository that does not exist yet.
        """
        self.reading = self.push
