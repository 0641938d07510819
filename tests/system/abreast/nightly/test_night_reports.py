"""The files that a night writes for CI: what they replace, and what they leave."""

from __future__ import annotations

import pytest

from pipeline.cli.path_arguments import STEP_SUMMARY_VARIABLE
from tests.support.catalogue import SmallCatalogue

pytestmark = pytest.mark.long


def test_a_summary_replaces_a_summary_and_is_appended_to_that_of_a_ci_step(small: SmallCatalogue) -> None:
    small.nightly("--summary", "summary.md")
    small.nightly("--summary", "summary.md")
    first = (small.folder / "summary.md").read_text()
    assert first.startswith("## ") and first.count("### Products") == 1
    (small.folder / "step").write_text("Tests <b>passed")
    words = ("recipes", "--to", "dir:mirror", "--key", "night.key", "--summary", "step")
    for times in (1, 2):
        done = small.in_this_process("nightly", *words, environment={STEP_SUMMARY_VARIABLE: str(small.folder / "step")})
        assert done.returncode == 0, done.stderr
        text = (small.folder / "step").read_text()
        assert text.startswith("Tests <b>passed\n\n## ") and text.count("\n\n## ") == times
    before = small.recipe("lone").read_bytes()
    refused = small.planned("--summary", "recipes/lone.yaml")
    assert refused.returncode == 2 and "error[not-a-report] --summary" in refused.stderr
    assert small.recipe("lone").read_bytes() == before
