"""Find and load a registry host's certificates from certs.d folders (containers-certs.d(5))."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.errors import EnvironmentLacking

if TYPE_CHECKING:
    import ssl

SYSTEM_CERTIFICATE_ROOTS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
"""The machine's folders, searched after the user's."""

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f:]+")
"""Hosts that may be used as a folder's name: they can come from a registry's redirects."""


def certificate_roots(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the folders in which to search for a folder `HOST[:PORT]`, the user's first."""
    home = environment.get("HOME")
    config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else None)
    return (Path(config, "containers", "certs.d"), *SYSTEM_CERTIFICATE_ROOTS) if config else SYSTEM_CERTIFICATE_ROOTS


def host_certificates(roots: Sequence[Path], url: str) -> Path | None:
    """Return the first folder of certificates for the host (and port) of `url`, or None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not _HOST.fullmatch(host):
        return None
    name = f"{host}:{parts.port}" if parts.port else host
    return next((root / name for root in roots if (root / name).is_dir()), None)


def load_certificates(context: ssl.SSLContext, folder: Path) -> None:
    """Load the CA certificates and the client certificates of `folder` into `context`.

    Every `*.crt` is a trusted CA; every `*.cert` with its `*.key` is a client certificate.

    Raises EnvironmentLacking `certificates-unreadable`.
    """
    place = folder
    try:
        for place in sorted(folder.iterdir()):
            if place.suffix == ".crt":
                context.load_verify_locations(cafile=str(place))
            elif place.suffix == ".cert":
                context.load_cert_chain(str(place), str(place.with_suffix(".key")))
    except OSError as error:
        raise EnvironmentLacking(
            "certificates-unreadable", f"the registry's certificates cannot be read: {error}", place=str(place)
        ) from error
