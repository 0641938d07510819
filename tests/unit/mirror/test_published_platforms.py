"""Layouts that become one index were built for one platform."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.release.publish import refuse_other_platforms
from tests.support.builds import image


def member(platform: str, arch: str) -> Any:
    made = image("web")
    config = SimpleNamespace(architecture=arch)
    return SimpleNamespace(
        image=SimpleNamespace(name=made.name, config=config),
        record=SimpleNamespace(provenance=SimpleNamespace(platform=platform)),
    )


def test_images_of_one_platform_become_an_index() -> None:
    refuse_other_platforms([member("local", "amd64"), member("local", "arm64")])


def test_images_of_two_platforms_do_not() -> None:
    with pytest.raises(UsageError) as caught:
        refuse_other_platforms([member("local", "amd64"), member("rocky-9", "arm64")])
    (problem,) = caught.value.problems
    assert problem.code == "platform-differs" and "local (amd64), rocky-9 (arm64)" in problem.message
    assert problem.hint
