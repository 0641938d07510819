"""Values that whoever means harm writes, and what a reader says of them."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import RelbuildError

DIGITS = "9" * 5000
"""More than `int` converts (CVE-2020-10735): it raises ValueError."""
ODD_URLS = (
    "http://[",
    "http://[::1",
    "http://a:99999/",
    "http://a:b/",
    f"http://a:{DIGITS}/",
    f"http://{'a' * 64}/",
    f"http://{'a.' * 200}/",
    "http://\u2100/",
    "http://a..b/",
    "http://xn--\u00e4/",
    "http://a b/",
    "http:///x",
    "//[",
    "\ud800://x",
    "http://\ud800/",
    "http://a/\ud800",
    "http://a\n/",
)


def code_of(reader: Callable[[], object]) -> str:
    """The code of the error that a reader raises, or an empty text. Anything but RelbuildError fails the test."""
    try:
        reader()
    except RelbuildError as error:
        str(error).encode()  # it can be shown
        return error.code
    return ""
