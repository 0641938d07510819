"""Resolve a host's name to addresses with a timeout.

getaddrinfo waits as long as the system's resolver, which may be minutes, and cannot be cancelled. So a thread calls it,
and is abandoned after the timeout; concurrent lookups of the same name share its result.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from concurrent.futures import Future

_Addresses = tuple[str, ...]

_asked: dict[str, Future[_Addresses]] = {}
_lock = threading.Lock()


def look_up_host(host: str, seconds: float) -> _Addresses:
    """Return the addresses of `host`, in the order in which to try them.

    If `host` is an address, it is returned.

    Raises TimeoutError after `seconds`, OSError if it has no address, UnicodeError for an invalid name.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _lookup(host).result(seconds)
    return (host,)


def _lookup(host: str) -> Future[_Addresses]:
    """Return the lookup in progress for `host`, or start one."""
    with _lock:
        if host not in _asked:
            _asked[host] = Future()
            threading.Thread(target=_ask, args=(host, _asked[host]), daemon=True, name=f"address of {host}").start()
        return _asked[host]


def _ask(host: str, found: Future[_Addresses]) -> None:
    failure: Exception | None = None
    addresses: _Addresses = ()
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
    except Exception as error:  # raised by whoever waits for it
        failure = error
    with _lock:
        del _asked[host]
    if failure is not None:
        found.set_exception(failure)
    else:
        found.set_result(addresses)
