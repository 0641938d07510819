"""Try the URLs of one file in rounds, with pauses, until one works; else raise why not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never

from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.transfer.network import Network
from pipeline.transfer.url_stream import Refusal, SourceFailed
from pipeline.urls import shown_url

SOURCE_ROUNDS = 2
"""Rounds in which a URL is tried that has no such file or other content: a mirror may be updated, a network's sign-on
page may go away. After these, the failure is final."""

REFUSAL_CODES = frozenset(
    {
        "client-certificate-demanded",
        "client-certificate-refused",
        "credentials-demanded",
        "credentials-refused",
        "access-refused",
        "proxy-refused",
    }
)
"""Codes of errors by which every place refuses who asks."""

_LONGEST_PAUSE = 20.0
"""Seconds of a pause, also of a server's Retry-After, at most."""

_T = TypeVar("_T")


def try_urls(
    urls: Sequence[str],
    network: Network,
    attempt: Callable[[str, Network], _T],
    *,
    label: str,
    stop: threading.Event | None = None,
    failed: Callable[[str], None] = lambda url: None,
) -> _T:
    """Return the result of `attempt` for the first of `urls` for which it raises nothing.

    `attempt` gets a URL and the network settings for it: hurried in the first round, if there are several URLs.
    `failed` is called with each URL whose server fails otherwise than by not having the file.

    Raises VerificationError if a server returned wrong content and none the right one, else
    EnvironmentLacking `network-unreachable`, `download-missing`, `offline-miss`, or where every place refuses who asks:
    `client-certificate-demanded`, `client-certificate-refused`, `credentials-demanded`, `credentials-refused`,
    `access-refused`, `proxy-refused`.
    """
    stop = stop or threading.Event()
    failures: dict[str, SourceFailed] = {}
    wrong: dict[str, VerificationError] = {}
    left, pause = list(dict.fromkeys(urls)), network.backoff
    for number in range(max(1, network.attempts)):
        way = network.hurry() if number == 0 and len(left) > 1 else network
        for url in left:
            try:
                return attempt(url, way)
            except VerificationError as error:
                wrong[url] = error
                failures[url] = SourceFailed(error.args[0], missing=True)
            except SourceFailed as failure:
                failures[url] = failure
                wrong.pop(url, None)
                if not failure.missing:
                    failed(url)
            if stop.is_set():
                break
        left = [url for url in left if _once_more(url, failures[url], number + 1)] if not stop.is_set() else []
        if not left or number + 1 >= network.attempts:
            break
        stop.wait(min(max(pause, min(failures[url].pause for url in left)), _LONGEST_PAUSE))
        pause *= 2
    raise next(iter(wrong.values()), None) or _given_up(label, list(failures.items()), network)


def _once_more(url: str, failure: SourceFailed, looked: int) -> bool:
    """Return whether to try a URL again after `looked` rounds: never a local file."""
    if url.startswith("file:") or failure.offline:
        return False
    return failure.again or (failure.missing and looked < SOURCE_ROUNDS)


def _given_up(label: str, failures: Sequence[tuple[str, SourceFailed]], network: Network) -> EnvironmentLacking:
    if any(failure.offline for _, failure in failures):
        return EnvironmentLacking(
            "offline-miss",
            f"{label} is not in the store, and --offline forbids downloads",
            place=label,
            hint="run once without --offline, where there is a network",
        )
    tried = "; ".join(_attempt(label, shown_url(url), failure) for url, failure in failures) or "no URL known"
    if failures and all(failure.missing for _, failure in failures):
        return EnvironmentLacking(
            "download-missing",
            f"{label} is no longer available: {tried}",
            place=label,
            hint="the repository may have removed it: resolve again with --upgrade",
        )
    refusal = failures[0][1].refusal if failures else None
    if refusal is not None and all(failure.refusal is not None for _, failure in failures):
        return _refused(refusal, f"access refused: {label}: {tried}", label, network)
    hint = (
        "check the network, the proxy variables and the repository's URL; on a slow link, set RELBUILD_TIMEOUT "
        "(seconds) and RELBUILD_MINRATE (bytes per second)"
    )
    if "certificate has expired" in tried or "certificate is not yet valid" in tried:
        hint = "tell the server's administrator to renew its certificate, or check this machine's clock"
    elif "CERTIFICATE_VERIFY_FAILED" in tried:
        hint = "trust the authority of the server's certificate: 'sslcacert' of the repository, or SSL_CERT_FILE"
    elif failures and all(failure.failing for _, failure in failures):
        hint = "the server, or a proxy in front of it, has a fault: run the command again later, or use another mirror"
    return EnvironmentLacking("network-unreachable", f"download failed: {tried}", place=label, hint=hint)


def _attempt(label: str, url: str, failure: SourceFailed) -> str:
    """Return a URL and its failure; the URL once, and not if all of it is about that URL."""
    reason = str(failure).removeprefix(f"{url}: ")
    return reason if url == label else f"{url}: {reason}"


def _refused(refusal: Refusal, message: str, label: str, network: Network) -> EnvironmentLacking:
    """Make the error if every server refuses the client: what it demands, or did not accept."""
    shown = network.access.certificate
    match refusal:
        case Refusal.CERTIFICATE if shown is None:
            hint = "name a client certificate for the repository: sslclientcert and sslclientkey"
            return EnvironmentLacking("client-certificate-demanded", message, place=label, hint=hint)
        case Refusal.CERTIFICATE:
            hint = f"the server does not accept {shown}: is it of the authority that the server asks for, or revoked?"
            return EnvironmentLacking("client-certificate-refused", message, place=label, hint=hint)
        case Refusal.CREDENTIALS if not network.access.logs_in:
            hint = "give the repository 'username' and 'password', 'token', 'netrc' or 'negotiate'"
            return EnvironmentLacking("credentials-demanded", message, place=label, hint=hint)
        case Refusal.CREDENTIALS:
            hint = "the server does not accept the repository's login: check the place that the definition names"
            return EnvironmentLacking("credentials-refused", message, place=label, hint=hint)
        case Refusal.RIGHTS:
            with_it = f" that {shown} gives no right to it," if shown else ""
            hint = f"it may be{with_it} that the URL is wrong, or that the server wants to know who asks"
            return EnvironmentLacking("access-refused", message, place=label, hint=hint)
        case Refusal.PROXY:
            hint = "give 'proxy_username' and 'proxy_password', or name them in the proxy variables' URLs"
            return EnvironmentLacking("proxy-refused", message, place=label, hint=hint)
        case other:
            assert_never(other)
