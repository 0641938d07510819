"""What is logged of a registry's answers, so that the same questions can be asked again."""

from __future__ import annotations

import itertools

import pytest

from pipeline.digest import Digest
from pipeline.transfer import RegistryResponse
from pipeline.transfer.question_log import KnownAnswer, QuestionLog

LIST = "/v2/a/referrers/sha256:00"
BLOB = "/v2/a/blobs/sha256:00"
NEXT = '</v2/a/referrers/sha256:00?last=b>; rel="next"'


def _response(body: bytes = b"", status: int = 200, **headers: str) -> RegistryResponse:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return RegistryResponse(status, named, body, "http://here")


def _logged(*questions: tuple[str, str, RegistryResponse]) -> tuple[KnownAnswer, ...]:
    log = QuestionLog()
    for method, target, response in questions:
        log.note(method, target, (), response, {})
    return log.answers()


def test_a_list_is_told_by_its_body_and_the_link_to_its_next_page() -> None:
    (answer,) = _logged(("GET", LIST, _response(b"[]", link=NEXT)))
    assert answer == KnownAnswer("GET", LIST, "", 200, body=str(Digest.of(b"[]")), length=2, link=NEXT)


LISTS = [_response(b"[]"), _response(b"[1]"), _response(b"[]", link=NEXT), _response(status=404)]


@pytest.mark.parametrize(("first", "then"), list(itertools.permutations(LISTS, 2)))
def test_two_answers_to_one_question_cannot_be_repeated(first: RegistryResponse, then: RegistryResponse) -> None:
    assert len(_logged(("GET", LIST, first))) == 1
    assert _logged(("GET", LIST, first), ("GET", LIST, then)) == ()


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0), (1, 1, 0)])
def test_of_a_question_asked_in_both_ways_the_answer_that_tells_more_is_kept(order: tuple[int, ...]) -> None:
    asked = (("HEAD", BLOB, _response(content_length="2")), ("GET", BLOB, _response(b"[]")))
    assert _logged(*(asked[one] for one in order)) == _logged(asked[1])
    gone = ("HEAD", BLOB, _response(status=404))
    assert _logged(asked[1], gone) == _logged(gone, asked[1]) == ()


def test_sizes_of_a_blob_that_differ_cannot_be_repeated() -> None:
    two, three = (("HEAD", BLOB, _response(content_length=size)) for size in "23")
    assert len(_logged(two, two)) == 1
    assert _logged(two, three) == ()


@pytest.mark.parametrize(
    "response", [_response(status=500), _response(b"{}", docker_content_digest="sha256:00"), _response(b"{}")]
)
def test_an_answer_that_cannot_be_told_is_not_repeated(response: RegistryResponse) -> None:
    assert _logged(("GET", "/v2/a/manifests/latest", response)) == ()
