"""Downloads against a real HTTP server on loopback that misbehaves on demand."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.progress import QUIET
from pipeline.store import Store, content_store
from pipeline.transfer import Download, Network, fetch, fetch_document
from tests.support.misbehaving_server import CONTENT, DIGEST, NETWORK, MisbehavingServer, get, partial
from tests.support.patience import HUNG


def test_what_is_fetched_stands_in_the_store_and_is_not_asked_for_again(
    misbehaving: MisbehavingServer, store: Store
) -> None:
    assert get(store, f"{misbehaving.url}/good") == DIGEST
    assert store.blob(DIGEST).read_bytes() == CONTENT
    assert get(store, f"{misbehaving.url}/good") == DIGEST
    assert len(misbehaving.requests) == 1
    assert list((store.metadata / "partial").iterdir()) == []


def test_what_is_fetched_is_hashed_while_it_is_written_and_not_once_more(
    misbehaving: MisbehavingServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(store, f"{misbehaving.url}/good")
    monkeypatch.setattr(content_store, "stamp_of_whole", lambda *_: pytest.fail("hashed again"))
    assert store.verify_once(DIGEST) == store.stamp(DIGEST)
    monkeypatch.undo()
    store.blob(DIGEST).write_bytes(CONTENT[1:])
    with pytest.raises(VerificationError, match="damaged"):
        store.verify_once(DIGEST)


def test_a_part_that_an_earlier_run_left_is_not_fetched_again(misbehaving: MisbehavingServer, store: Store) -> None:
    partial(store, CONTENT[:300_000])
    get(store, f"{misbehaving.url}/good")
    assert misbehaving.requests[0][1]["range"] == "bytes=300000-"
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_all_again(misbehaving: MisbehavingServer, store: Store) -> None:
    partial(store, CONTENT[:300_000])
    get(store, f"{misbehaving.url}/norange")
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_damaged_part_costs_one_more_download(misbehaving: MisbehavingServer, store: Store) -> None:
    partial(store, b"damaged" * 1000)
    get(store, f"{misbehaving.url}/good")
    assert [request[1].get("range") for request in misbehaving.requests] == ["bytes=7000-", None]
    assert store.blob(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("way", ["good", "wrong"])
def test_a_server_is_asked_once_more_for_all_where_a_part_is_damaged(
    misbehaving: MisbehavingServer, store: Store, way: str
) -> None:
    """At once: it has not failed."""
    partial(store, b"damaged" * 1000)
    one = Download((f"{misbehaving.url}/{way}",), DIGEST, len(CONTENT), "thing")
    with pytest.raises(VerificationError, match="does not match") if way == "wrong" else contextlib.nullcontext():
        fetch(store, [one], progress=QUIET, network=Network(timeout=HUNG, backoff=0.001, attempts=1))
    assert [request[1].get("range") for request in misbehaving.requests] == ["bytes=7000-", None]
    assert store.has(DIGEST) == (way == "good")


def test_a_whole_part_needs_no_request(misbehaving: MisbehavingServer, store: Store) -> None:
    partial(store, CONTENT)
    get(store, f"{misbehaving.url}/good")
    get(store, f"{misbehaving.url}/good", size=None)
    assert misbehaving.requests == []


def test_a_part_that_is_longer_than_the_file_is_dropped(misbehaving: MisbehavingServer, store: Store) -> None:
    partial(store, CONTENT + b"x")
    get(store, f"{misbehaving.url}/good", size=None)
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_transfers_that_break_off_are_resumed_with_the_validator_of_the_first_part(
    misbehaving: MisbehavingServer, store: Store
) -> None:
    get(store, f"{misbehaving.url}/truncated")
    assert [request[1].get("range") for request in misbehaving.requests] == [None, "bytes=200000-", "bytes=400000-"]
    assert {request[1].get("if-range") for request in misbehaving.requests[1:]} == {'"one"'}


def test_a_transfer_that_always_breaks_off_leaves_its_part_for_the_next_run(
    misbehaving: MisbehavingServer, store: Store
) -> None:
    once = Network(backoff=0.001, attempts=1)
    with pytest.raises(EnvironmentLacking) as caught:
        fetch(
            store,
            [Download((f"{misbehaving.url}/truncated",), DIGEST, len(CONTENT), "thing")],
            progress=QUIET,
            network=once,
        )
    assert caught.value.code == "network-unreachable"
    assert (store.metadata / "partial" / DIGEST.hex).read_bytes() == CONTENT[:200_000]


@pytest.mark.parametrize("how", ["wrong", "long"])
def test_other_bytes_than_promised_are_refused_and_nothing_is_kept(
    misbehaving: MisbehavingServer, store: Store, how: str
) -> None:
    with pytest.raises(VerificationError) as caught:
        get(store, f"{misbehaving.url}/{how}")
    assert caught.value.code == "download-mismatch"
    assert f"{misbehaving.url}/{how}" in str(caught.value)
    assert not store.has(DIGEST)
    assert list((store.metadata / "partial").iterdir()) == []


def test_a_file_that_is_shorter_than_promised_is_refused(misbehaving: MisbehavingServer, store: Store) -> None:
    with pytest.raises(EnvironmentLacking, match="ended after 256000 of 512000 bytes"):
        get(store, f"{misbehaving.url}/short")
    assert not store.has(DIGEST)


def test_a_wrong_mirror_is_passed_over_for_a_good_one(misbehaving: MisbehavingServer, store: Store) -> None:
    get(store, f"{misbehaving.url}/wrong", f"{misbehaving.url}/missing", f"{misbehaving.url}/good")
    assert store.blob(DIGEST).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_after_a_pause(misbehaving: MisbehavingServer, store: Store) -> None:
    get(store, f"{misbehaving.url}/busy")
    assert misbehaving.count("/busy") == 3


def test_what_no_place_has_is_missing_and_not_a_network_that_is_down(
    misbehaving: MisbehavingServer, store: Store
) -> None:
    with pytest.raises(EnvironmentLacking) as caught:
        get(store, f"{misbehaving.url}/missing/a", f"{misbehaving.url}/missing/b")
    assert caught.value.code == "download-missing"
    assert [path for path, _ in misbehaving.requests] == ["/missing/a", "/missing/b"] * 2  # a second look at both


def test_an_unreachable_server_is_named(store: Store) -> None:
    with pytest.raises(EnvironmentLacking, match=r"127\.0\.0\.1:1/x") as caught:
        get(store, "http://127.0.0.1:1/x")
    assert caught.value.code == "network-unreachable"


def test_redirections_are_followed_and_bounded(misbehaving: MisbehavingServer, store: Store) -> None:
    get(store, f"{misbehaving.url}/to/to/good")
    with pytest.raises(VerificationError) as caught:
        fetch_document([f"{misbehaving.url}/loop"], limit=10, network=NETWORK)
    assert caught.value.code == "redirect-refused"
    assert misbehaving.count("/loop") == 12  # twice, as whatever is wrong


def test_no_redirection_leads_to_a_file_of_this_machine(misbehaving: MisbehavingServer) -> None:
    with pytest.raises(VerificationError) as caught:
        fetch_document([f"{misbehaving.url}/tofile"], limit=1 << 20, network=NETWORK)
    assert caught.value.code == "redirect-refused"


def test_an_encoded_answer_is_refused(misbehaving: MisbehavingServer) -> None:
    with pytest.raises(EnvironmentLacking, match="Content-Encoding"):
        fetch_document([f"{misbehaving.url}/encoded"], limit=1 << 20, network=NETWORK)


def test_offline_only_files_are_read(misbehaving: MisbehavingServer, store: Store, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(CONTENT)
    download = Download((f"{misbehaving.url}/good",), DIGEST, len(CONTENT), "thing")
    with pytest.raises(EnvironmentLacking) as caught:
        fetch(store, [download], progress=QUIET, offline=True)
    assert caught.value.code == "offline-miss"
    assert misbehaving.requests == []
    local = Download((f"{misbehaving.url}/good", (tmp_path / "here").as_uri()), DIGEST, len(CONTENT), "thing")
    assert fetch(store, [local], progress=QUIET, offline=True) == (DIGEST,)


@pytest.mark.parametrize("more", ["?x", "?", "#x", "?/../there"])
def test_a_query_or_fragment_of_a_file_is_refused(tmp_path: Path, more: str) -> None:
    (tmp_path / "there").write_bytes(CONTENT)
    assert fetch_document([(tmp_path / "there").as_uri()], limit=1 << 20, network=NETWORK) == CONTENT
    with pytest.raises(EnvironmentLacking, match="no query or fragment"):
        fetch_document([(tmp_path / "there").as_uri() + more], limit=1 << 20, network=NETWORK)


def test_a_file_with_other_bytes_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(CONTENT[:-1])
    with pytest.raises(VerificationError) as caught:
        get(store, (tmp_path / "there").as_uri())
    assert caught.value.code == "download-mismatch"


def test_bytes_without_a_known_digest_are_named_by_theirs(misbehaving: MisbehavingServer, store: Store) -> None:
    assert get(store, f"{misbehaving.url}/good", target=None) == DIGEST
    with pytest.raises(VerificationError):
        get(store, f"{misbehaving.url}/good", target=None, size=1000)


def test_many_downloads_come_back_in_their_order(store: Store, tmp_path: Path) -> None:
    contents = [f"file {number}".encode() for number in range(20)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    wanted = [
        Download(((tmp_path / str(number)).as_uri(),), Digest.of(content), len(content), str(number))
        for number, content in enumerate(contents)
    ]
    doubled = [*wanted, wanted[3]]
    assert fetch(store, doubled, progress=QUIET, parallel=4) == tuple(one.target for one in doubled)


def test_a_document_is_bounded(misbehaving: MisbehavingServer) -> None:
    assert fetch_document([f"{misbehaving.url}/good"], limit=len(CONTENT), network=NETWORK) == CONTENT
    with pytest.raises(VerificationError) as caught:
        fetch_document([f"{misbehaving.url}/good"], limit=1000, network=NETWORK)
    assert caught.value.code == "download-too-large"
