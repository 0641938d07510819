"""Dependencies so deep that libsolv's parsers would exhaust the stack, and metadata that hides them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ResolutionError, VerificationError
from pipeline.resolve.metadata_tags import TAG_LIMIT, checked_tags
from pipeline.resolve.pool import PackagePool
from pipeline.store import Store
from tests.support.resolve_world import World
from tests.support.rpmmd import Rpm

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<metadata>'
DEEP = b"(" * 200_000


def refused(data: bytes) -> bool:
    """Ask with the document in one piece and in many; what is passed on is the document, and only what was checked."""
    verdicts = set()
    for size in (len(data) + 1, 4096, 999):
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        passed = []
        try:
            passed += checked_tags(pieces, kind="primary", place="repository r")
            assert b"".join(passed) == data
            verdicts.add(False)
        except VerificationError as error:
            assert error.code == "metadata-malformed"
            verdicts.add(True)
    assert len(verdicts) == 1
    return verdicts.pop()


@pytest.mark.parametrize("deep", ["(" * 200_000, "(" + " and ".join(["a"] * 200_000) + ")"])
def test_a_repository_with_a_dependency_without_end_is_refused(tmp_path: Path, deep: str) -> None:
    world = World(tmp_path).add("r", Rpm("a", requires=(deep,)))
    with pytest.raises(VerificationError) as caught:
        world.solve(["a"])
    assert caught.value.code == "metadata-malformed" and "a tag of more than 8 KiB" in str(caught.value)


@pytest.mark.parametrize("deep", ["(" * 200_000, "(" + " or ".join(["a"] * 200_000) + ")"])
def test_a_dependency_of_a_recipe_or_header_without_end_is_refused(tmp_path: Path, deep: str) -> None:
    with pytest.raises(ResolutionError) as caught:
        PackagePool("x86_64", store=Store.open(tmp_path)).dependency(deep)
    assert caught.value.code == "dependency-malformed" and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b'<e name="' + DEEP + b'"/></metadata>',
        HEAD + b"<e other='>' name='" + DEEP + b"'/></metadata>",
        HEAD + b"<e name='" + b"&#40;" * 50_000 + b"'/></metadata>",
        HEAD + b"<e>" + b"x" * 99_999 + b"</e><e name='" + DEEP + b"'/></metadata>",
        (HEAD + b'<e name="' + DEEP).decode().encode("utf-16"),
        HEAD.replace(b"UTF-8", b"UTF-16") + b"<e/></metadata>",
        HEAD.replace(b"UTF-8", b"cp037") + b"<e/></metadata>",
        b"<?xml" + b" " * 2000 + b"encoding='utf-7'?><metadata/>",
        b'<!DOCTYPE m [<!ENTITY e "((((">]><metadata><e name="&e;"/></metadata>',
    ],
)
def test_metadata_that_hides_a_deep_dependency_is_refused(data: bytes) -> None:
    assert refused(data)


@pytest.mark.parametrize("offset", range(0, TAG_LIMIT, 509))
def test_a_long_tag_is_found_wherever_it_begins_and_a_short_one_passes(offset: int) -> None:
    before, after = HEAD + b"<a>" + b"x" * offset + b"</a>", b"</metadata>"
    assert refused(before + b'<e name="' + b"(" * TAG_LIMIT + b'"/>' + after)
    assert not refused(before + b'<e name="' + b"(" * (TAG_LIMIT // 2) + b'"/>' + after)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xef\xbb\xbf<metadata/>",
        HEAD + b"<description>" + DEEP + b"</description><e/></metadata>",
        HEAD + b"<a:description x='1'\n y=\"2\" >" + b"> (" * 100_000 + b"</a:description></metadata>",
        HEAD + b"<!-- " + DEEP + b" --></metadata>",
        HEAD + b"</metadata>" + b" " * 100_000,
    ],
)
def test_long_texts_are_read(data: bytes) -> None:
    assert not refused(data)
