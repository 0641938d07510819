"""Sessions of documents: how they are read, and what counts as printed as shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.document_sessions import Step, blocks, printed_as_shown, sessions
from tests.support.source import ROOT

TYPED = ("Two commands", "Five minutes", "Without a checkout")
"""The headings of the README whose blocks tests/system/abreast/test_readme.py and test_installed.py type."""


def test_each_block_of_the_readme_is_typed_by_a_test_or_a_drawing() -> None:
    readme = ROOT / "README.md"
    others = [heading for heading, _, lines in blocks(readme) if not any(line.startswith("$ ") for line in lines)]
    assert others == ["relbuild"]
    shown = [heading for heading, _, lines in blocks(readme) if any(line.startswith("$ ") for line in lines)]
    assert set(shown) == set(TYPED) and len(sessions(readme, *TYPED)) > 30


def test_a_session_has_commands_with_what_they_print(tmp_path: Path) -> None:
    document = tmp_path / "it.md"
    first_block = "# One\n\n    $ make it\n    made\n\n      it\n    $ serve &   # Ctrl-C\n\n"
    document.write_text(f"{first_block}## Two\n\n    $ no\n\n    yes\n")
    first, second = sessions(document, "One")
    assert first == Step("it.md:3", "make it", ("made", "  it")) and not first.in_background
    assert second == Step("it.md:7", "serve &   # Ctrl-C", ()) and second.in_background
    assert sessions(document, "Two") == [Step("it.md:11", "no", ("yes",))]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["built nginx 1.26.3 in 3.1 s"], "built nginx 1.27 in 300 ms\n"),
        (["  4.0 MB  0707a04ff06c  made"], "543.1 kB  9707a04ff061  made\n"),
        (["base: 54.0 MB at 88.4 MB/s, 0.6 s"], "base: 54.0 MB, 0.0 s\n"),
        (["wrote …/release.key"], "wrote /home/a/release.key\n"),
        (["a", "…", "b"], "a\n\nx\ny\nb\n"),
        (["a", "…"], "a\n"),
        (["1.2.3-4-deadbeef0123 → sha256:0123456789abcdef"], "1-0badbeef0123 → sha256:fedcba9876543210\n"),
    ],
)
def test_figures_and_what_is_left_out_may_be_others(shown: list[str], printed: str) -> None:
    assert printed_as_shown(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a"], "a\nb\n"),
        ([], "a warning\n"),
        (["base  19.8 MB  bb8d0651043c  made"], "base  19.8 MB  bb8d0651043c  reused\n"),
        (["a", "…", "c"], "a\nb\n"),
        (["wrote …/release.key"], "wrote /home/a/release.pub\n"),
        (["1 changed, 0 added"], "1 changed, none added\n"),
        (["nginx-1 ended with exit code 0"], "nginx-1 ended with exit code 137\n"),
    ],
)
def test_words_may_not(shown: list[str], printed: str) -> None:
    assert not printed_as_shown(shown, printed)
