"""Getting bytes from elsewhere: bounded, resumed, verified. The only door to the HTTP library.

A `Download` names bytes by digest and the places where they may be had; `fetch` puts them into the store or
raises. Nothing reaches a caller unverified: a document (`fetch_document`) is the exception, because its
checksum or signature is only known to who asked for it. `file://` is a place like any other, so that a
mirror on disk needs no server.
"""

from pipeline.transfer.download import Download, fetch, fetch_document
from pipeline.transfer.network import Network

__all__ = ["Download", "Network", "fetch", "fetch_document"]
