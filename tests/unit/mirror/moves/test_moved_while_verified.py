"""A tag that is moved while it is verified is looked at again, and nobody is said to have set it back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError

module: Any = importlib.import_module("pipeline.release.verify_reference")
"""By its name: the package exports its function under the same."""

OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
TRUSTED: Any = SimpleNamespace(each=())
FOUND: Any = SimpleNamespace(held=SimpleNamespace(version="1", created=None, digest=OLD))


class Mirror:
    """A tag and what is signed of it; `look` is what happens before each check."""

    url = "dir:/mirror/app"

    def __init__(self, look: Callable[[Mirror], None]) -> None:
        self.points, self.signed, self.number, self.checks = OLD, OLD, 1, 0
        self.look = look

    def move(self, digest: Digest) -> None:
        self.points = self.signed = digest
        self.number += 1

    def resolve(self, tag: str) -> Digest:
        return self.points

    def check(self, *_: object, **__: object) -> SimpleNamespace:
        self.checks += 1
        self.look(self)
        if self.signed != OLD:
            raise VerificationError("tag-replayed", "the tag points elsewhere")
        return SimpleNamespace(number=self.number, key=OLD)

    def statements(self, *_: object) -> tuple[SimpleNamespace, ...]:
        return (SimpleNamespace(record=Digest.of(str(self.number).encode())),)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Mirror], None]], tuple[Mirror, Any]]:
    """Check the tag of a mirror at which something happens; what comes of it."""

    def check(look: Callable[[Mirror], None]) -> tuple[Mirror, Any]:
        mirror = Mirror(look)
        memory = SimpleNamespace(seen=lambda *_: 0, see=lambda *_: None)
        monkeypatch.setattr(module, "TagMemory", lambda store: memory)
        monkeypatch.setattr(module, "check_tag", mirror.check)
        monkeypatch.setattr(module, "recent_statements", mirror.statements)
        monkeypatch.setattr(module, "immutable_tag", lambda *_: "1-0")
        environment = SimpleNamespace(store=None, clock=lambda: 0.0)
        try:
            said: Any = module.check_signed_tag(
                mirror, "latest", FOUND, TRUSTED, environment, names=("app",), allow_stale=False
            )
        except (VerificationError, EnvironmentLacking) as error:
            said = error.code
        return mirror, said

    return check


def test_one_that_was_set_back_is_refused_after_a_second_look(looked: Callable[..., Any]) -> None:
    def set_back(mirror: Mirror) -> None:
        mirror.signed = NEW

    mirror, said = looked(set_back)
    assert (said, mirror.checks) == ("tag-replayed", 2)


def test_one_that_went_elsewhere_and_came_back_meanwhile_is_believed(looked: Callable[..., Any]) -> None:
    def there_and_back(mirror: Mirror) -> None:
        if mirror.checks == 1:  # The statements are read while it is elsewhere, the tag when it is back.
            mirror.signed, mirror.number = NEW, mirror.number + 1
        elif mirror.checks == 2:
            mirror.move(OLD)

    mirror, said = looked(there_and_back)
    assert said.number == 3
    assert mirror.checks == 2


def test_one_that_went_elsewhere_is_said_to_be_moving(looked: Callable[..., Any]) -> None:
    mirror, said = looked(lambda mirror: mirror.move(NEW))
    assert (said, mirror.checks) == ("tag-moving", 1)


def test_one_that_never_rests_is_said_to_be_moving(looked: Callable[..., Any]) -> None:
    def restless(mirror: Mirror) -> None:
        mirror.signed, mirror.number = NEW, mirror.number + 1

    mirror, said = looked(restless)
    assert (said, mirror.checks) == ("tag-moving", module.VERIFY_ATTEMPTS)


def test_a_reference_that_is_moved_is_verified_anew_where_it_stands(
    looked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, _ = looked(lambda mirror: None)
    mirror.move(NEW)
    seen: list[Digest] = []

    def verify(repository: Mirror, *_: object, **__: object) -> Any:
        seen.append(OLD if not seen else repository.points)
        held = SimpleNamespace(version="1", created=None, digest=seen[-1])
        return SimpleNamespace(held=held, identities=())

    def check(repository: Mirror, tag: str, digest: Digest, *_: object, **__: object) -> SimpleNamespace:
        if digest != repository.signed:
            raise VerificationError("tag-replayed", "the tag points elsewhere")
        return SimpleNamespace(number=repository.number, key=OLD)

    monkeypatch.setattr(module, "verify_held", verify)
    monkeypatch.setattr(module, "check_tag", check)
    monkeypatch.setattr(module, "known_names", lambda *_: ("app",))
    monkeypatch.setattr(module, "replace", lambda found, tag: (found.held.digest, tag.number))
    environment = SimpleNamespace(store=None, clock=lambda: 0.0, progress=None)
    said = module.verify_in_repository(mirror, "latest", TRUSTED, environment, contents=True, expected=None)
    assert said == (NEW, 2)
    assert seen == [OLD, NEW]
