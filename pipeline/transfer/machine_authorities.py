"""TLS context that reads the authorities it trusts when a connection is encrypted.

Reading them takes 20 ms, as long as all else that a client is made of; clients that ask plain HTTP alone do without.
"""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentLacking


class MachineAuthorities(ssl.SSLContext):
    """The context of `ssl.create_default_context()`, its authorities loaded when they are used.

    Chains are judged as curl, and so dnf, does, under every Python: one ends at any certificate that is trusted, be it
    the server's own, and an authority needs no key identifier (RFC 5280, 4.2.1.1). Python's own context demands the
    root before 3.13, and the identifier since.

    `ca_file`: those in this file instead of the machine's. Raises EnvironmentLacking `certificates-unreadable`, at once
    where the file cannot be opened, and when something is encrypted where it has no certificates.
    """

    def __new__(cls, ca_file: Path | None = None) -> MachineAuthorities:
        """Return a context that verifies servers and their names, and knows no authority yet."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file
        if ca_file is not None:
            try:
                ca_file.open("rb").close()
            except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
                raise _unreadable(ca_file, error) from error
        self._loading = threading.Lock()
        self._loaded = False
        self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN

    def _load(self) -> None:
        with self._loading:
            if self._loaded:
                return
            if self._ca_file is None:
                self.load_default_certs(ssl.Purpose.SERVER_AUTH)
            else:
                try:
                    self.load_verify_locations(cafile=self._ca_file)
                except OSError as error:  # ssl.SSLError is one
                    raise _unreadable(self._ca_file, error) from error
            self._loaded = True

    def wrap_socket(self, *given: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401  as its base
        """Encrypt a socket, as the base class does, with the authorities loaded."""
        self._load()
        return super().wrap_socket(*given, **options)

    def wrap_bio(self, *given: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401  as its base
        """Encrypt buffers, as the base class does, with the authorities loaded."""
        self._load()
        return super().wrap_bio(*given, **options)


def _unreadable(ca_file: Path, error: Exception) -> EnvironmentLacking:
    return EnvironmentLacking(
        "certificates-unreadable",
        f"the file of trusted certificates cannot be read: {error}",
        place=str(ca_file),
    )
