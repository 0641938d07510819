"""Clients of a registry whose person has logged in, or not."""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack
from pathlib import Path

from pipeline.transfer import CredentialStore, Network, RegistryClient, Scope
from tests.support.patience import HUNG
from tests.support.registry_fake import FakeRegistry

PULL = (Scope.repository("app", "pull"),)
PUSH = (Scope.repository("app", "pull", "push"),)
NETWORK = Network(timeout=HUNG, backoff=0.001, attempts=3)
BLOB = f"/v2/app/blobs/sha256:{'a' * 64}"
LOGIN = {"auth": base64.b64encode(b"user:secret").decode()}
BASIC = "Basic " + LOGIN["auth"]


class Speaker:
    """Makes exchanges whose person has logged in as user:secret at the hosts named."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._file = folder / "auth.json"
        self._stack = stack

    def __call__(
        self,
        registry: FakeRegistry,
        entry: dict[str, str] | None = None,
        network: Network = NETWORK,
        token_servers: str = "",
    ) -> RegistryClient:
        self._file.write_text(json.dumps({"auths": {registry.host: entry} if entry else {}}))
        credential_store = CredentialStore.of(
            {"REGISTRY_AUTH_FILE": str(self._file), "RELBUILD_TOKEN_SERVERS": token_servers}
        )
        return self._stack.enter_context(
            RegistryClient(f"http://{registry.host}", network=network, credential_store=credential_store)
        )
