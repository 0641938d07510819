"""A token server that issues what it is asked for, and the registry that wants these tokens."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from tests.support.registry_fake import FakeRegistry, Fault, Request


class Tokens:
    """A token server on `host`, and a registry that wants what it issues."""

    def __init__(self, registry: FakeRegistry, host: FakeRegistry, *, lasts: int = 300, accept: bool = True) -> None:
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []
        self.issued: dict[str, set[str]] = {}
        self.lasts = lasts
        self.accept = accept
        self.realm = f"http://{host.host}/token"
        self.known = f"{registry.host}={host.host}"
        registry.guard = self.check
        host.faults = [Fault("GET", r"^/token", self.issue, 999), Fault("POST", r"^/token", self.issue, 999)]

    def issue(self, request: Request) -> None:
        text = request.read().decode() if request.command == "POST" else urlsplit(request.path).query
        query = parse_qs(text)
        self.asked.append((request.command, query, request.headers.get("Authorization")))
        if not self.accept:
            request.refuse(401, "UNAUTHORIZED")
            return
        token = f"token-{len(self.asked)}"
        self.issued[token] = {scope for word in query["scope"] for scope in word.split()}
        body = {"token": token} if request.command == "GET" else {"access_token": token}
        request.answer(200, json.dumps({**body, "expires_in": self.lasts}).encode())

    def check(self, request: Request) -> bool:
        needed = "repository:app:pull" if request.command in {"GET", "HEAD"} else "repository:app:pull,push"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if needed in self.issued.get(token, set()):
            return True
        challenge = f'Bearer realm="{self.realm}",service="it",scope="{needed}"'
        request.refuse(401, "UNAUTHORIZED", WWW_Authenticate=challenge)
        return False
