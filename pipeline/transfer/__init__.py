"""Downloads and uploads: bounded, resumed, verified.

The only door to the HTTP library.

A `Download` names bytes by digest and the places where they may be had; `fetch` puts them into the store or
raises. Nothing reaches a caller unverified: a document (`fetch_document`) is the exception, because its
checksum or signature is only known to who asked for it. `file://` is a place like any other, so that a
mirror on disk needs no server.

An `Exchange` speaks with one registry: it logs in with what a `Wallet` holds, waits when it is told to, and counts
its `Traffic`.
"""

from pipeline.transfer.certificates import certificate_roots
from pipeline.transfer.challenge import CATALOG, Scope
from pipeline.transfer.credentials import Credentials, Wallet
from pipeline.transfer.download import Download, Source, fetch, fetch_document
from pipeline.transfer.exchange import Answer, Exchange, FileRange
from pipeline.transfer.network import Network
from pipeline.transfer.patience import Interrupted, Patience
from pipeline.transfer.traffic import Traffic

__all__ = [
    "CATALOG",
    "Answer",
    "Credentials",
    "Download",
    "Exchange",
    "FileRange",
    "Interrupted",
    "Network",
    "Patience",
    "Scope",
    "Source",
    "Traffic",
    "Wallet",
    "certificate_roots",
    "fetch",
    "fetch_document",
]
