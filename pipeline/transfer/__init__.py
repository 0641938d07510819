"""HTTP client code: verified, resumed downloads into the store, and requests to registries.

No other code imports the HTTP library.

A `Download` has a digest and the URLs of one file; `fetch` puts it into the store or raises. Callers get verified
content only, except for documents (`fetch_document`), whose checksum or signature only the caller knows. `file://` URLs
are accepted too, so that a mirror on disk needs no server.

A `RegistryClient` sends requests to one registry: it authenticates with credentials from a `CredentialStore`, obeys
Retry-After, and counts its traffic (`TrafficCounts`). What it asked, with the answers, is noted in a `QuestionLog`, and
`repeated_questions` asks it again.
"""

import sys

from pipeline.lazy_names import imported_when_used

# The HTTP library imports its command line, and with it rich, where that is installed, half of its own time again; it
# does without where that cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

with imported_when_used(__name__):
    from pipeline.transfer.asked_files import errors_where_asked
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
    from pipeline.transfer.netrc_logins import netrc_path, netrc_unreadable, read_netrc
    from pipeline.transfer.network import Network
    from pipeline.transfer.partial_download import PassingContent
    from pipeline.transfer.question_log import KnownAnswer, QuestionLog
    from pipeline.transfer.registry_http import FileRange, RegistryClient, RegistryResponse
    from pipeline.transfer.retry import RetryBudget, TransientFailure
    from pipeline.transfer.server_access import Origin, ServerAccess, find_client_certificate
    from pipeline.transfer.url_fallback import REFUSAL_CODES

__all__ = [
    "CATALOG_SCOPE",
    "REFUSAL_CODES",
    "CredentialStore",
    "Credentials",
    "Download",
    "DownloadSource",
    "FileRange",
    "KnownAnswer",
    "Network",
    "Origin",
    "PassingContent",
    "QuestionLog",
    "RegistryClient",
    "RegistryResponse",
    "RetryBudget",
    "Scope",
    "ServerAccess",
    "TrafficCounts",
    "TransientFailure",
    "certificate_roots",
    "errors_where_asked",
    "fetch",
    "fetch_document",
    "find_client_certificate",
    "netrc_path",
    "netrc_unreadable",
    "read_netrc",
]
