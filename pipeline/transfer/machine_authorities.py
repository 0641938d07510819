"""TLS context that reads the machine's authorities when a connection is encrypted.

Reading them takes 20 ms, as long as all else that a client is made of; clients that ask plain HTTP alone do without.
"""

from __future__ import annotations

import ssl
import sys
import threading
from typing import Any


class MachineAuthorities(ssl.SSLContext):
    """The context of `ssl.create_default_context()`, its authorities loaded when they are used."""

    def __new__(cls) -> MachineAuthorities:
        """Return a context that verifies servers and their names, and knows no authority yet."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self) -> None:
        self._loading = threading.Lock()
        self._loaded = False
        if sys.version_info >= (3, 13):
            self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT

    def _load(self) -> None:
        with self._loading:
            if not self._loaded:
                self.load_default_certs(ssl.Purpose.SERVER_AUTH)
                self._loaded = True

    def wrap_socket(self, *given: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401  as its base
        """Encrypt a socket, as the base class does, with the authorities loaded."""
        self._load()
        return super().wrap_socket(*given, **options)

    def wrap_bio(self, *given: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401  as its base
        """Encrypt buffers, as the base class does, with the authorities loaded."""
        self._load()
        return super().wrap_bio(*given, **options)
