"""Log of what an operation that writes nothing asked of a registry, with the answers.

A question is a GET or HEAD. Of a manifest, the digest in the header is the answer, whether it was read or only asked
for, so that the next time it is only asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.challenge import Scope

if TYPE_CHECKING:
    from pipeline.transfer.registry_http import RegistryResponse

FORMAT = 4
"""Of what is remembered of a publication: to be raised when what is compared, asked or repeated changes its meaning."""

QUESTIONS_MOST = 2000
"""Questions that are logged: an image has some thirty. Of more, none is remembered."""

ANSWERED = frozenset({200, 404})
"""Statuses that tell whether a thing is there; any other tells of the request."""


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A question to a registry with its answer.

    `target`: the path; `accept`: header of the question. `digest`: of a manifest, in the header that names it; `size`:
    the header Content-Length of a blob. `body`: digest of the body of another document, `length` its bytes. "" and 0:
    not compared. `link`: with a body, the header that leads to the next page of a list; "" if there is none.
    """

    method: str
    target: str
    accept: str
    status: int
    digest: str = ""
    size: str = ""
    body: str = ""
    length: int = 0
    link: str = ""

    def agrees_with(self, other: KnownAnswer) -> bool:
        """Return whether both may be answers to one question, of which nothing changed between them.

        One may have been asked with HEAD and tell less.
        """
        alone = self.method != other.method
        return self.status == other.status and (alone or self._told == other._told)

    @property
    def _told(self) -> tuple[str, str, str, int, str]:
        return self.digest, self.size, self.body, self.length, self.link


class NotCompared(Exception):
    """The reason why it is not known whether a mirror still answers as it did."""


class QuestionLog:
    """Log of one operation; for use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, KnownAnswer] = {}
        self._scopes: dict[str, None] = {}
        self._repeatable = True

    def spoil(self) -> None:
        """Note that something was done after which the answers cannot be told."""
        self._repeatable = False

    def note(
        self,
        method: str,
        target: str,
        scopes: Sequence[Scope],
        response: RegistryResponse,
        headers: Mapping[str, str],
    ) -> None:
        """Note a request to the registry itself and its response.

        `target`: the path with its query; `headers`: those of the request.
        """
        with self._lock:
            self._scopes |= dict.fromkeys(map(str, scopes))
            if method not in {"GET", "HEAD"} or len(self._answers) >= QUESTIONS_MOST:
                self._repeatable = False
            else:
                self._read(method, target, headers.get("Accept", ""), response)

    def _read(self, method: str, target: str, accept: str, response: RegistryResponse) -> None:
        known, before = _known_answer(method, target, accept, response), self._answers.get(target)
        if before is not None and not known.agrees_with(before):
            self._repeatable = False  # Somebody else has changed it.
        if before is not None and before.method == "GET":
            known = before  # It tells more than the answer to a HEAD.
        nameless = known.status == 200 and "/manifests/" in target and not known.digest
        if known.status not in ANSWERED or nameless:
            self._repeatable = False
        self._answers[target] = known

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of all questions, as text."""
        return tuple(self._scopes)

    def answers(self) -> tuple[KnownAnswer, ...]:
        """Return all questions with their answers.

        None of them if something was written, or an answer cannot be told.
        """
        return tuple(self._answers.values()) if self._repeatable else ()


def _known_answer(method: str, target: str, accept: str, response: RegistryResponse) -> KnownAnswer:
    status, good = response.status, response.status == 200
    if "/manifests/" in target:
        digest = response.header("docker-content-digest")
        if method == "GET" and digest != str(Digest.of(response.body)):
            digest = ""
        return KnownAnswer("HEAD", target, accept, status, digest=digest if good else "")
    if method == "HEAD":
        return KnownAnswer(method, target, accept, status, size=response.header("content-length") if good else "")
    if not good:
        return KnownAnswer(method, target, accept, status)
    body, link = response.body, response.header("link")
    return KnownAnswer(method, target, accept, status, body=str(Digest.of(body)), length=len(body), link=link)
