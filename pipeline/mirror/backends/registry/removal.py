"""Delete a manifest by digest, or a tag without its manifest, through a registry's API."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking
from pipeline.mirror.backends.registry.registry_responses import error_code, response_words
from pipeline.mirror.backends.registry.repository_requests import RepositoryRequests
from pipeline.mirror.protocol import DELETE_UNSUPPORTED, Arrival, TagConflict
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.oci.image_manifest import descriptor_json
from pipeline.transfer import RegistryResponse

REMOVAL_RESPONSE_LIMIT = 1 << 20
"""Bytes of a response to a deletion."""

REMOVED_TYPE = "application/vnd.relbuild.removed.v1"
"""The artifactType of the placeholder to which a tag points for a moment before it is deleted."""

_EMPTY = b"{}"
_EMPTY_BLOB = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(_EMPTY), len(_EMPTY))
"""image-spec 1.1, manifest.md, "Guidance for an Empty Descriptor"."""

_DONE = frozenset({200, 202, 204})


class RemovalRepository(Protocol):
    """The part of `RegistryRepository` that `Removal` uses."""

    def resolve(self, tag: str) -> Digest | None: ...

    def manifest(self, reference: Digest | str) -> Manifest | None: ...

    def put_blob(self, descriptor: Descriptor, content: bytes) -> Arrival: ...


class Removal:
    """Deletions in one repository. Whether the registry deletes tags by name is found out once."""

    def __init__(
        self,
        repository: RemovalRepository,
        requests: RepositoryRequests,
        put: Callable[[str, Manifest], RegistryResponse],
    ) -> None:
        """`put` puts a manifest under a digest or tag; not public, because it could move any tag."""
        self._repository = repository
        self._requests = requests
        self._put = put
        self._by_tag = True

    def manifest(self, digest: Digest) -> None:
        """Delete a manifest; it is no error if it is missing.

        Raises EnvironmentLacking `delete-unsupported`.
        """
        response = self._requests.ask("DELETE", f"manifests/{digest}", limit=REMOVAL_RESPONSE_LIMIT)
        if response.status == 404:
            return
        self._unless_unsupported(response)
        self._requests.expect(response, set(_DONE), f"remove manifest {digest}")

    def tag(self, tag: str, expected: Digest) -> None:
        """Delete a tag that points to `expected`, and nothing else.

        Registries of distribution-spec 1.1 delete tags. Older ones (docker-registry 2.8) delete manifests only, with
        all their tags. There the tag is first pointed at a placeholder manifest, which no client takes for an image,
        and the placeholder is deleted: the tag is deleted with it, its former manifest stays, and so does a tag that
        somebody moves meanwhile. Whether the registry deletes at all is tried before, on a placeholder without a tag.

        Raises TagConflict, EnvironmentLacking `delete-unsupported`.
        """
        found = self._repository.resolve(tag)
        if found != expected:
            raise TagConflict(tag, found)
        if self._by_tag:
            response = self._requests.ask("DELETE", f"manifests/{tag}", limit=REMOVAL_RESPONSE_LIMIT)
            if response.status in {401, 403}:
                self._requests.expect(response, set(_DONE), f"remove tag {tag}")
            self._by_tag = response.status in _DONE
        if not self._by_tag:
            self._with_its_manifest(tag, expected)
        left = self._repository.resolve(tag)
        if left == expected:
            raise self._unsupported("it reports the tag as removed, but keeps it")
        if left is not None:
            raise TagConflict(tag, left)

    def _with_its_manifest(self, tag: str, expected: Digest) -> None:
        self._repository.put_blob(_EMPTY_BLOB, _EMPTY)
        trial = _placeholder()
        self._put(str(trial.digest), trial)
        self.manifest(trial.digest)
        held = self._repository.manifest(expected)
        if held is None or self._repository.resolve(tag) != expected:
            raise TagConflict(tag, self._repository.resolve(tag))
        placeholder = _placeholder()
        try:
            self._put(tag, placeholder)
            self.manifest(placeholder.digest)
        except BaseException:
            if self._repository.resolve(tag) == placeholder.digest:
                self._put(tag, held)
            raise

    def _unless_unsupported(self, response: RegistryResponse) -> None:
        if response.status in {405, 501} or error_code(response) == "UNSUPPORTED":
            raise self._unsupported(f"it returned {response_words(response)}")

    def _unsupported(self, text: str) -> EnvironmentLacking:
        return EnvironmentLacking(
            DELETE_UNSUPPORTED,
            f"this registry does not allow deletions: {text}",
            place=self._requests.url,
            hint="its administrator must enable them (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true), and run "
            "its garbage collection to free space",
        )


def _placeholder() -> Manifest:
    """Make a manifest with a random annotation, so that no other tag points to its digest."""
    empty = descriptor_json(_EMPTY_BLOB)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "artifactType": REMOVED_TYPE,
        "config": empty,
        "layers": [empty],
        "annotations": {"org.relbuild.removal": secrets.token_hex(16)},
    }
    return Manifest(media_types.MANIFEST, canonical_json(document))
