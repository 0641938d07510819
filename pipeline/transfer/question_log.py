"""Log of what an operation asked of a registry and wrote there, with the answers at its end.

A question is a GET or HEAD. Of a manifest, its digest is the answer, whether it was read or only asked for, so that the
next time it is only asked for. What was written answers with the digest that the registry has confirmed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.challenge import Scope

if TYPE_CHECKING:
    from pipeline.transfer.registry_http import RegistryResponse

FORMAT = 1
"""Of what is remembered of a publication: to be raised when what is compared, asked or repeated changes its meaning."""

QUESTIONS_MOST = 2000
"""Questions that are logged: an image has some thirty. Of more, none is remembered."""

_ANSWERED = frozenset({200, 404})
_WRITTEN = frozenset({200, 201, 202})
_UPLOAD = re.compile(r"(/v2/.+/blobs/)uploads/[^?]*(?:\?(.*))?")


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A question to a registry with its answer.

    `target`: the path; `accept`: header of the question. `digest`: of a manifest, in the header that names it; `size`:
    the header Content-Length of a blob. `body`: digest of the body of another document, `length` its bytes. "" and 0:
    not compared.
    """

    method: str
    target: str
    accept: str
    status: int
    digest: str = ""
    size: str = ""
    body: str = ""
    length: int = 0


class QuestionLog:
    """Log of one operation; for use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, KnownAnswer] = {}
        self._outdated: set[str] = set()
        """Lists of referrers that were read before a manifest was put."""
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
            if method == "DELETE" and "/blobs/uploads/" in target:
                return
            if len(self._answers) >= QUESTIONS_MOST or method not in {"GET", "HEAD", "PUT", "POST", "PATCH"}:
                self._repeatable = False
            elif method in {"GET", "HEAD"}:
                self._read(method, target, headers.get("Accept", ""), response)
            elif method != "PATCH" and response.status in _WRITTEN:
                self._wrote(target, response, headers.get("Content-Type", ""))

    def _read(self, method: str, target: str, accept: str, response: RegistryResponse) -> None:
        if "/blobs/uploads/" in target:
            return
        if response.status not in _ANSWERED:
            self._repeatable = False
        self._outdated.discard(target)
        self._answers[target] = _known_answer(method, target, accept, response)

    def _wrote(self, target: str, response: RegistryResponse, kind: str) -> None:
        upload = _UPLOAD.fullmatch(target)
        if upload is None:
            digest = response.header("docker-content-digest")
            self._answers[target] = KnownAnswer("HEAD", target, kind, 200, digest)
            self._repeatable = self._repeatable and bool(digest)
            self._outdated |= {one for one, known in self._answers.items() if known.body}
        elif response.status == 201:
            named = parse_qs(upload[2] or "")
            for digest in (*named.get("digest", ()), *named.get("mount", ())):
                blob = f"{upload[1]}{digest}"
                if blob in self._answers:  # Others are of what was new, which nobody asks for.
                    self._answers[blob] = KnownAnswer("HEAD", blob, "", 200)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of all questions, as text."""
        return tuple(self._scopes)

    def answers(self) -> tuple[KnownAnswer, ...]:
        """Return all questions with the answers that they have by now; none if one cannot be told."""
        return tuple(self._answers.values()) if self._repeatable and not self._outdated else ()


def _known_answer(method: str, target: str, accept: str, response: RegistryResponse) -> KnownAnswer:
    status, good = response.status, response.status == 200
    if "/manifests/" in target:
        digest = str(Digest.of(response.body)) if method == "GET" else response.header("docker-content-digest")
        return KnownAnswer("HEAD", target, accept, status, digest=digest if good else "")
    if method == "HEAD":
        return KnownAnswer(method, target, accept, status, size=response.header("content-length") if good else "")
    if not good:
        return KnownAnswer(method, target, accept, status)
    return KnownAnswer(method, target, accept, status, body=str(Digest.of(response.body)), length=len(response.body))
