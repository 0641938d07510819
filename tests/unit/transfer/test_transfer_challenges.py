"""Headers that say what a server wants, and when."""

from __future__ import annotations

import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transfer.challenge import (
    Challenge,
    Scope,
    merge_scopes,
    parse_challenges,
    parse_scopes,
)
from pipeline.transfer.retry import retry_after


def test_a_registrys_challenge_is_read_with_its_commas_in_quotes() -> None:
    header = 'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull,push"'
    (challenge,) = parse_challenges([header])
    assert challenge.scheme == "bearer"
    assert challenge.parameter("realm") == "https://auth.test/token"
    assert challenge.parameter("scope") == "repository:a/b:pull,push"


def test_several_challenges_come_in_one_header_or_in_many() -> None:
    text = 'Negotiate, BASIC realm="a \\"b\\", c" , charset=UTF-8, Bearer realm = "x"'
    wanted = (
        Challenge("negotiate"),
        Challenge("basic", (("charset", "UTF-8"), ("realm", 'a "b", c'))),
        Challenge("bearer", (("realm", "x"),)),
    )
    assert parse_challenges([text]) == wanted
    assert parse_challenges(["Negotiate", 'Basic realm="a \\"b\\", c", charset=UTF-8', 'Bearer realm="x"']) == wanted


@given(st.text(max_size=200))
def test_no_header_is_too_strange(text: str) -> None:
    parse_challenges([text])


@pytest.mark.parametrize("text", ["Bearer " + 'a="' * 5000, "x" * 100_000, "," * 50_000, 'Bearer a="\\' * 3000])
def test_a_long_header_is_read_in_no_time(text: str) -> None:
    began = time.thread_time()
    parse_challenges([text])
    assert time.thread_time() - began < 1.0


def test_scopes_are_merged_by_resource() -> None:
    asked = (Scope.repository("b", "push", "pull"), Scope.repository("a", "pull"))
    answered = parse_scopes("repository:a:delete,pull repository:host:5000/c:pull nonsense registry:catalog:*")
    assert [str(one) for one in merge_scopes(asked, answered)] == [
        "registry:catalog:*",
        "repository:a:delete,pull",
        "repository:b:pull,push",
        "repository:host:5000/c:pull",
    ]


@pytest.mark.parametrize(
    ("after", "date", "seconds"),
    [
        ("7", "", 7.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:29:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "", None),
        ("soon", "", None),
        ("-1", "", None),
        ("", "", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_servers_own_clock(
    after: str, date: str, seconds: float | None
) -> None:
    assert retry_after(httpx.Headers({"Retry-After": after, "Date": date})) == seconds
