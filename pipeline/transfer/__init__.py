"""Downloads and uploads: bounded, resumed, verified.

The only door to the HTTP library.

A `Download` names bytes by digest and the places where they may be had; `fetch` puts them into the store or
raises. Nothing reaches a caller unverified: a document (`fetch_document`) is the exception, because its
checksum or signature is only known to who asked for it. `file://` is a place like any other, so that a
mirror on disk needs no server.

A `RegistryClient` speaks with one registry: it logs in with what a `CredentialStore` holds, waits when it is told to,
and counts its traffic (`TrafficCounts`).
"""

from pipeline.transfer.certificates import certificate_roots
from pipeline.transfer.challenge import CATALOG_SCOPE, Scope
from pipeline.transfer.counters import TrafficCounts
from pipeline.transfer.credentials import Credentials, CredentialStore
from pipeline.transfer.download import (
    Download,
    DownloadSource,
    fetch,
    fetch_document,
)
from pipeline.transfer.network import Network
from pipeline.transfer.registry_http import FileRange, RegistryClient, RegistryResponse
from pipeline.transfer.retry import RetryBudget, TransientFailure
from pipeline.transfer.server_access import ServerAccess, find_client_certificate

__all__ = [
    "CATALOG_SCOPE",
    "CredentialStore",
    "Credentials",
    "Download",
    "DownloadSource",
    "FileRange",
    "Network",
    "RegistryClient",
    "RegistryResponse",
    "RetryBudget",
    "Scope",
    "ServerAccess",
    "TrafficCounts",
    "TransientFailure",
    "certificate_roots",
    "fetch",
    "fetch_document",
    "find_client_certificate",
]
