"""Parse and join URLs, and redact the secrets in URLs and texts."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import field
from urllib.parse import urljoin, urlsplit

from pipeline.lazy_dataclasses import dataclass

URL_LIMIT = 16 << 10
"""Characters of a URL: servers refuse longer request lines, and presigned addresses have some two thousand."""

HIDDEN = "***"
"""Text in place of a secret."""

DEFAULT_PORTS = {"http": 80, "https": 443}

_SHOWN_FROM = 4 << 10
"""Characters of a URL that are looked at for a message: nobody reads more."""

_LABEL = re.compile(r"[^\s./\\@:%]{1,63}")
_HOST_LIMIT = 253
"""Characters of a host name (RFC 1035; 63 of a label); longer ones make the resolver raise UnicodeError."""

_HARMLESS = frozenset(
    {
        "arch",
        "artifactType",
        "basearch",
        "cc",
        "content",
        "country",
        "digest",
        "download",
        "from",
        "infra",
        "ip",
        "last",
        "mount",
        "n",
        "path",
        "protocol",
        "raw",
        "redirect",
        "ref",
        "release",
        "releasever",
        "repo",
        "scope",
        "service",
        "time",
        "version",
    }
)
"""Parameters whose values may be shown: those of mirror lists and of the distribution specification. Any other may be a
token or a signature."""

_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#]*@")
_COLLAPSED = re.compile(r"((?:https?|ftp|registry(?:\+http)?):/)(?!/)[^\s/?#]*@(?!sha256:)")
"""Credentials in a URL that lost a slash because it was taken for a path."""
_TORN = re.compile(r"(?<=://)(?!\[)[^\s/?#@\[]*:(?!PORT)(?!\d{0,5}(?:[/?#\s'\",;:)\]]|$))\S*@(?!sha256:)")
"""A password with an unencoded `/`, `?` or `#`, at which a parser ends the host."""
_CUT = re.compile(r"(?<=://)(?!\[)[^\s/?#@\[*]*:(?!PORT)(?!\d{0,5}(?:[/?#\s'\",;:)\]]|$))[^\s/?#'\"]*")
"""Text after a host's colon that is no port: a password that was cut off before its `@`."""
_QUERY = re.compile(r"(?<=://)([^?]*\?)(.*)", re.DOTALL)
_WORD = re.compile(r"\S+")
_AT = re.compile(r"@(?!sha256:)")
_BETWEEN_PARAMETERS = re.compile(r"([&;])")


def redact_urls(text: str) -> str:
    """Redact user, password and the values of possibly secret parameters in all URLs of `text`.

    Takes time by the length of the text, whatever it is: expressions that search to a word's end begin once in it.
    """
    return _WORD.sub(lambda found: _redact_word(found[0]), text) if ":/" in text else text


def _redact_word(word: str) -> str:
    if ":/" not in word:
        return word
    word = _COLLAPSED.sub(rf"\1{HIDDEN}@", word)
    word = _CREDENTIALS.sub(f"{HIDDEN}@", word)
    torn = max((found.end() for found in _AT.finditer(word)), default=0)
    word = _TORN.sub(f"{HIDDEN}@", word[:torn]) + word[torn:]
    word = _CUT.sub(HIDDEN, word)
    return "#".join(_redact_query(part) for part in word.split("#"))


def _redact_query(part: str) -> str:
    """Redact parameters behind the first `?` that follows a `://`."""
    if "?" not in part[part.find("://") + 3 :]:
        return part
    return _QUERY.sub(lambda found: found[1] + _redact_parameters(found[2]), part, count=1)


def _redact_parameters(query: str) -> str:
    return "".join(map(_shown_parameter, _BETWEEN_PARAMETERS.split(query)))


def cut_text(text: str, limit: int) -> str:
    """Return at most some `limit` characters of a text, and nothing of a URL that would be cut.

    Without its end, a part of a URL cannot be told to be a secret.
    """
    if len(text) <= limit:
        return text
    before, separator, torn = text[:limit].rpartition("://")
    whole = not separator or any(sign.isspace() for sign in torn)
    return f"{text[:limit]}…" if whole else f"{before}{separator}{HIDDEN}…"


def _shown_parameter(text: str) -> str:
    name, equals, _ = text.lstrip("=").partition("=")
    if not equals or name in _HARMLESS:
        return text
    return f"{'=' * (len(text) - len(text.lstrip('=')))}{name}={HIDDEN}"


def public_url(url: str) -> str:
    """Return a URL without user and password, and with secret parameters' values redacted."""
    return redact_urls(_CREDENTIALS.sub("", url))


def shown_url(url: str, limit: int = 200) -> str:
    """Return one URL for a message: without secrets, on one line, at most `limit` characters.

    `url` may be malformed.
    """
    scheme, separator, rest = url.partition("://")
    if separator and (at := re.search(r"^.*@(?!sha256:)", rest, re.DOTALL)) and "@" in rest.split("/")[0]:
        rest = f"{HIDDEN}@{rest[at.end() :]}"
    text = redact_urls(cut_text(f"{scheme}{separator}{rest}", _SHOWN_FROM))
    return "".join(sign if sign.isprintable() else "?" for sign in text[:limit])


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL.

    `scheme` and `host` are in lower case; `port` is the scheme's default if none is given (0 if it has none).
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str
    userinfo: str = field(default="", repr=False)

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454), to which credentials and connections are bound."""
        return self.scheme, self.host, self.port

    @property
    def place(self) -> str:
        """The host, and the port unless it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme, 0) else f"{host}:{self.port}"


def parse_url(text: str) -> Url | None:
    """Parse a URL with a scheme; None for any other text. Never raises."""
    if len(text) > URL_LIMIT or not text.isprintable():
        return None
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").lower(), parts.port
        host.encode("idna" if not host.isascii() else "ascii")
    except ValueError:  # brackets, ports that are no number, characters that normalise to delimiters, host names
        return None
    if not parts.scheme or len(host) > _HOST_LIMIT:
        return None
    if host and ":" not in host and not all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")):
        return None
    userinfo = parts.netloc.rpartition("@")[0]
    port = DEFAULT_PORTS.get(parts.scheme, 0) if port is None else port
    return Url(parts.scheme, host, port, parts.path, parts.query, userinfo)


def is_loopback_host(host: str) -> bool:
    """Return whether a host is this machine, by an address of its loopback or as `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_http_url(text: str) -> bool:
    """Return whether a text is an http or https URL."""
    url = parse_url(text)
    return url is not None and url.scheme in DEFAULT_PORTS and bool(url.host)


def join_url(base: str, reference: str) -> str:
    """Resolve `reference` against the URL `base` (RFC 3986, 5).

    Returns "" if the result is no URL. Never raises.
    """
    try:
        joined = urljoin(base, reference)
    except ValueError:
        return ""
    return joined if parse_url(joined) is not None else ""
