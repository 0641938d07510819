"""Addresses of a host by its name, within a time.

getaddrinfo waits for as long as the system's resolver does, which may be minutes, and cannot be stopped. So a thread
waits for it, and is left behind when the time is over; who asks for the same name meanwhile shares its answer.
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
    """Find the addresses of `host`, in the order in which to try them.

    An address has none but itself.

    Raises TimeoutError after `seconds`, OSError where there is none, UnicodeError for what cannot be a name.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _lookup(host).result(seconds)
    return (host,)


def _lookup(host: str) -> Future[_Addresses]:
    """Return what is being asked, and ask where nobody does."""
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
    except Exception as error:  # whoever asked raises it
        failure = error
    with _lock:
        del _asked[host]
    if failure is not None:
        found.set_exception(failure)
    else:
        found.set_result(addresses)
