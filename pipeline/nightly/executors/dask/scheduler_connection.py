"""The connection to a Dask scheduler: encrypted, to this machine, or allowed to be plain."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import Sequence
from urllib.parse import urlsplit

import distributed

from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.progress import Progress

CLOSING_TIMEOUT = 5.0
"""Seconds that a connection may take to close."""


class _Client(distributed.Client):
    def start(self, **options: float) -> None:
        """Start the client, and close it if it cannot start.

        Its finalizer would wait for a thread that may be its own.
        """
        try:
            super().start(**options)  # type: ignore[no-untyped-call]
        except BaseException:
            self.close(timeout=CLOSING_TIMEOUT)
            raise


def connect_to_scheduler(address: str, progress: Progress, *, plain: bool, timeout: float) -> distributed.Client:
    """Connect to the scheduler at `address`, within `timeout` seconds.

    `plain`: what is sent, keys included, may be read by others on the way.

    Raises EnvironmentLacking `no-scheduler`; UsageError `scheduler-plain` where a scheduler or a worker is reached
    over plain TCP beyond this machine, and that was not allowed.
    """
    told = refuse_plain([address], progress, plain=plain)
    # Events of the connection are reported here, once and in words.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = _Client(address, timeout=timeout, set_as_default=False, name="relbuild")
    except (OSError, ValueError, TypeError) as error:
        raise EnvironmentLacking(
            "no-scheduler",
            f"cannot connect to the scheduler {address}: {error or type(error).__name__}",
            hint="start `dask scheduler` there; for tls:// see `relbuild help cluster`",
        ) from error
    # A scheduler on this machine may have workers elsewhere, to which it passes payloads.
    try:
        with contextlib.suppress(OSError):
            workers = [] if told else [str(one) for one in client.scheduler_info()["workers"]]
            refuse_plain(workers, progress, plain=plain)
    except UsageError:
        client.close(timeout=CLOSING_TIMEOUT)
        raise
    return client


def refuse_plain(addresses: Sequence[str], progress: Progress, *, plain: bool) -> bool:
    """Refuse to send over plain TCP beyond this machine, or warn of it: True if it warned."""
    exposed = next((one for one in addresses if not _is_private(one)), None)
    if exposed is None:
        return False
    if not plain:
        raise UsageError(
            "scheduler-plain",
            f"{exposed} is not encrypted: the signing key, its password and the tasks could be read and "
            "changed in transit",
            hint="use tls:// (`relbuild help cluster`), or --plain-scheduler on a trusted network",
        )
    progress.warn(f"{exposed} is not encrypted: tasks and the signing key can be read in transit; use tls://")
    return True


def _is_private(address: str) -> bool:
    """Return whether what is sent to `address` stays on this machine, or travels encrypted."""
    parts = urlsplit(address)
    if parts.scheme in ("tls", "inproc"):
        return True
    host = parts.hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
