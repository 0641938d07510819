"""Architectures as `--arch` names them."""

from __future__ import annotations

import pytest

from pipeline.cli.options import split_architectures
from pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ()),
        ([], ()),
        (["x86_64,aarch64"], ("x86_64", "aarch64")),
        (["x86_64, aarch64 "], ("x86_64", "aarch64")),
        (["aarch64", "x86_64,aarch64"], ("aarch64", "x86_64")),
    ],
)
def test_names_are_separated_by_commas_and_counted_once(given: list[str] | None, expected: tuple[str, ...]) -> None:
    assert split_architectures(given) == expected


@pytest.mark.parametrize("given", [[""], [" "], ["x86_64,"], ["x86_64,,aarch64"], ["x86_64", ""]])
def test_an_empty_name_is_refused(given: list[str]) -> None:
    with pytest.raises(UsageError, match="empty name") as caught:
        split_architectures(given)
    assert caught.value.code == "arch-empty"
