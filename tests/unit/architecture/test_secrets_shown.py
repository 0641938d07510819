"""Wherever a URL reaches people or a file, its password and its tokens do not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.cli.progress_bars import Live
from pipeline.cli.progress_display import _JsonLines, _Lines
from pipeline.digest import Digest
from pipeline.errors import (
    ERROR_TEXT_LIMIT,
    EnvironmentLacking,
    Problem,
    RecipeError,
    RelbuildError,
    UsageError,
    VerificationError,
)
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.registry.registry_address_form import RegistryRoot
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.model.platform import PackageRepository, Platform
from pipeline.nightly.executors.progress_ipc import EventKind, ProgressEvent, ProgressSender
from pipeline.progress import QUIET, Progress, task
from pipeline.repos import load_keys, open_repositories
from pipeline.store import Store
from pipeline.transfer import (
    CredentialStore,
    Download,
    Network,
    RegistryClient,
    Scope,
    fetch,
    fetch_document,
)
from pipeline.urls import public_url, redact_urls, shown_url
from tests.support.patience import HUNG
from tests.support.slow_server import SlowServer, head, slow_server

SECRET = "pA55w0rd"
NETWORK = Network(timeout=HUNG, backoff=0.001, attempts=1)
SCOPES = (Scope.repository("app", "pull"),)


def refusal(act: Callable[[], object]) -> str:
    """All that an error says, with what it was made from."""
    with pytest.raises(RelbuildError) as caught:
        act()
    problems = "".join(f"{one!r}{one}" for one in caught.value.problems)
    return f"{caught.value}{caught.value!r}{caught.value.args}{problems}"


# --- the types -------------------------------------------------------------------------------------

FORMS = (
    "http://user:{}@host.test/r",
    "http://{}@host.test/r",
    "https://user:{}@host.test:8443/r?x=1",
    "registry+http://user:{}@host.test:5000/ns/app:1",
    "registry://user:{}@host.test/ns/app@sha256:" + "a" * 64,
    "https://host.test/r?token={}",
    "https://host.test/r?repo=a&X-Amz-Signature={}&arch=b",
    "https://host.test/r?sig={}#x",
    "ftp://user:{}@host.test",
    "http://user:{}/x@host.test/",
    "http://user:{}",
    "registry+http:/user:{}@host.test/ns",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["{}", "see {}", "'{}' is none", "({}): 404; {}"])
def test_an_error_holds_no_secret_wherever_it_stands(form: str, text: str) -> None:
    said = text.replace("{}", form.format(SECRET))
    problem = Problem("code", said, said, said)
    assert SECRET not in repr(problem) + str(problem)
    assert SECRET not in refusal(lambda: _raise(UsageError("code", said, place=said, hint=said)))
    assert SECRET not in refusal(lambda: _raise(RelbuildError.of([problem, problem])))


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("form", FORMS)
def test_a_url_is_shown_and_published_without_its_secrets(form: str) -> None:
    url = form.format(SECRET)
    assert SECRET not in redact_urls(url) + shown_url(url) + public_url(url)
    for length in range(1, 200):
        assert SECRET not in shown_url(url, length)


SAFE = st.text(alphabet=st.characters(whitelist_categories=("L", "N"), max_codepoint=0x2FF), min_size=8, max_size=20)


@given(SAFE, st.sampled_from(FORMS), st.text(max_size=20), st.text(max_size=20))
def test_no_password_survives_in_any_text(secret: str, form: str, before: str, after: str) -> None:
    secret = f"Q{secret}Q"
    if secret in before or secret in after:
        return
    text = f"{before} {form.format(secret)} {after}"
    assert secret not in redact_urls(text)


@pytest.mark.parametrize("part", ["://a:b", "://a", "://a?", "x@://a:b", "=", "a", "&a", "@"])
def test_any_text_is_redacted_in_time_by_its_length(part: str) -> None:
    """By the square of it a million characters took hours."""
    size = 1_000_000 // len(part)
    shown = redact_urls(f"https://me:{SECRET}@host.test/?token={SECRET}&x={part * size}")
    assert SECRET not in shown


@pytest.mark.parametrize(
    "text",
    [
        "write it as registry://HOST[:PORT]/NAMESPACE",
        "registry+http://HOST:PORT/NAMESPACE/NAME",
        "http://127.0.0.1:5000: refused",
        "http://[::1]:5000/x@y",
        f"registry://host.test/ns/app:1@sha256:{'a' * 64}",
        "https://mirrors.test/metalink?repo=f40&arch=x86_64",
        "https://host.test/@scope/package, see https://host.test:443/a:b@c",
        "dir:/srv/user:name@host/app:1",
        "oci:/srv/name@host",
    ],
)
def test_what_is_no_secret_is_shown_as_it_is(text: str) -> None:
    assert redact_urls(text) == text
    assert Problem("code", text).message == text


@pytest.mark.parametrize("begin", ["", "http://host/a?b=c ", "http://"])
@pytest.mark.parametrize("endless", ["://a:b", "://?", "://", f"{SECRET}", f"u:{SECRET}/"])
def test_a_text_without_end_is_cut_and_no_part_of_a_torn_url_is_shown(begin: str, endless: str) -> None:
    text = f"{begin}{endless * 20_000}@host.test/"
    assert len(text) > 7 * ERROR_TEXT_LIMIT
    problem = Problem("c", text, text, text)
    for shown in (problem.message, problem.place, problem.hint):
        assert shown is not None
        assert len(shown) <= 2 * ERROR_TEXT_LIMIT
        assert SECRET not in shown or not begin.endswith("://")
    assert len(shown_url(text)) <= 200
    assert SECRET not in shown_url(f"http://{SECRET * 10_000}@host.test/")


# --- where URLs come from people -------------------------------------------------------------------

ADDRESSES = (
    "registry+http://u:{}@host.test:5000/ns/app:1",
    "registry://u:{}@host.test/ns/app",
    "registry://u:{}@host.test/ns/app@sha256:" + "a" * 64,
    "registry://{}@host.test/ns/app",
    "registry://u:{}/x@host.test/ns",
    "registry+http://u:{}@",
    "http://u:{}@host.test/ns/app",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_with_a_password_is_refused_and_the_password_not_repeated(address: str) -> None:
    given = address.format(SECRET)
    assert SECRET not in refusal(lambda: parse_address(given))
    assert SECRET not in refusal(lambda: RegistryRoot.parse(given))
    assert "podman login" in refusal(lambda: parse_address(ADDRESSES[0].format(SECRET)))


def test_nothing_is_opened_at_an_address_with_a_password() -> None:
    access = MirrorAccess({}, QUIET, lambda: 0.0)
    for address in ADDRESSES:
        assert SECRET not in refusal(lambda address=address: access.mirror(parse_address(address.format(SECRET))))  # type: ignore[misc]


@pytest.mark.parametrize("how", ["404", "500", "portal", "loop", "away", "down", "flip"])
def test_no_failure_of_a_server_shows_the_password_of_its_url(tmp_path: Path, how: str) -> None:
    store = Store.open(tmp_path / "store")
    with slow_server() as server:
        answers = {
            "404": head("404 Not Found"),
            "500": head("500 X"),
            "portal": head("200 OK", b"<html>"),
            "flip": head("200 OK", b"flipped"),
            "loop": head("302 X", Location="/loop"),
            "away": head("302 X", Location=f"ftp://x:{SECRET}@host.test/?token={SECRET}"),
        }
        server.serve = lambda _: answers[how]
        base = f"http://u:{SECRET}@{'127.0.0.1:1' if how == 'down' else server.host}/r"
        one = Download((f"{base}/x?key={SECRET}",), Digest.of(b"right x"), 7, "thing")
        acts: list[Callable[[], object]] = [
            lambda: fetch(store, [one], progress=QUIET, network=NETWORK),
            lambda: fetch_document([base], limit=3, network=NETWORK),
            *(_opening(store, **{kind: base}) for kind in ("metalink", "mirrorlist")),
            _opening(store, baseurls=(base,)),
            _opening(store, baseurls=(base, f"{base}/2"), signed_metadata=True),
            lambda: load_keys(_platform(keys=(base,)), "x86_64", variables={}, store=store, network=NETWORK),
        ]
        for act in acts:
            assert SECRET not in refusal(act)
        for path in (tmp_path / "store").rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def _platform(**more: object) -> Platform:
    return Platform("p", (PackageRepository("r", **more),))  # type: ignore[arg-type]


def _opening(store: Store, **more: object) -> Callable[[], object]:
    return lambda: open_repositories(_platform(**more), "x86_64", variables={}, store=store, network=NETWORK)


def test_definitions_that_are_none_are_refused_without_their_password(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for url in (f"ftp://u:{SECRET}@host.test/", f"http://u:{SECRET}@host.test:99999/", f"http://u:{SECRET}@[/"):
        assert SECRET not in refusal(_opening(store, baseurls=(url,)))
        assert SECRET not in refusal(_opening(store, metalink=url))
    key = _platform(keys=(f"/nowhere/{'x' * 300}",))
    with pytest.raises(RecipeError):
        load_keys(key, "x86_64", variables={}, store=store)


@pytest.mark.parametrize("status", ["307 X", "401 X", "500 X", "200 OK"])
def test_a_registry_that_sends_us_on_with_a_token_does_not_get_it_shown(status: str) -> None:
    with slow_server() as server:
        where = f"ftp://u:{SECRET}@host.test/x?token={SECRET}"
        realm = f'Bearer realm="http://u:{SECRET}@host.test/t?token={SECRET}"'
        server.serve = lambda _: head(status, b"x" * 99, Location=where, WWW_Authenticate=realm)
        with RegistryClient(server.url, network=NETWORK, credential_store=CredentialStore.of({})) as exchange:
            said = refusal(lambda: exchange.ask("GET", "/v2/", scopes=SCOPES, limit=3))
    assert SECRET not in said


def test_a_proxy_that_refuses_does_not_get_its_password_shown() -> None:
    with slow_server() as server:
        server.serve = lambda _: head("407 Proxy Authentication Required")
        for scheme in ("http", "https"):
            proxy = f"http://u:{SECRET}@{server.host}"
            network = Network(http_proxy=proxy, https_proxy=proxy, timeout=HUNG, backoff=0.001, attempts=1)
            assert SECRET not in refusal(
                lambda scheme=scheme, network=network: fetch_document(  # type: ignore[misc]
                    [f"{scheme}://host.test/"], limit=9, network=network
                )
            )
            assert SECRET not in repr(network)


# --- progress --------------------------------------------------------------------------------------

TOLD = f"https://u:{SECRET}@host.test/r?token={SECRET}"


def tell(progress: Progress) -> None:
    """Everything that progress can be told."""
    with task(progress, "fetch", TOLD, total=1) as running:
        running.note(TOLD)
    progress.warn(TOLD)
    with pytest.raises(EnvironmentLacking), task(progress, "fetch", TOLD):
        raise EnvironmentLacking("code", TOLD)


@pytest.mark.parametrize("lines", [_Lines, _JsonLines])
def test_lines_of_progress_hold_no_secret(lines: type[_Lines]) -> None:
    stream = io.StringIO()
    tell(lines(stream))
    assert "host.test" in stream.getvalue() and SECRET not in stream.getvalue()
    assert lines is _Lines or all(json.loads(line) for line in stream.getvalue().splitlines())


def test_bars_of_progress_hold_no_secret() -> None:
    stream = io.StringIO()
    live = Live(Console(file=stream, force_terminal=True, width=200))
    tell(live)
    live.close()
    assert "host.test" in stream.getvalue() and SECRET not in stream.getvalue()


def test_events_that_cross_to_another_process_hold_no_secret() -> None:
    events: list[ProgressEvent] = []
    tell(ProgressSender(events.append))
    assert {event.kind for event in events} >= {EventKind.START, EventKind.FINISH, EventKind.WARN}
    assert SECRET not in repr(events)


def test_what_a_server_answers_to_the_wrong_digest_is_told_without_the_query(tmp_path: Path) -> None:
    with slow_server() as server:
        server.serve = lambda _: head("200 OK", b"wrong")
        one = Download((f"{server.url}/f?Signature={SECRET}",), Digest.of(b"right"), 5, "thing")
        with pytest.raises(VerificationError) as caught:
            fetch(Store.open(tmp_path), [one], progress=QUIET, network=NETWORK)
        assert isinstance(server, SlowServer)
    assert SECRET not in str(caught.value)
