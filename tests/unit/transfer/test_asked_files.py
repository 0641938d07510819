"""Errors of files that a recipe names by URL or path."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, Problem, RelbuildError, VerificationError
from pipeline.packages.rpm_file_layout import package_damaged
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import Download, errors_where_asked, fetch

PLACES = {"hot/fix.rpm": "web.yaml:8: layers[0].packages[0]", "/store/ef87": "web.yaml:9: layers[0].packages[1]"}
OTHER = Digest.of(b"another")


def fetched(store: Store, path: Path) -> Problem:
    """The only problem of fetching a hotfix."""
    with pytest.raises(RelbuildError) as caught, errors_where_asked(PLACES):
        fetch(store, [Download((path.as_uri(),), OTHER, None, "hot/fix.rpm")], progress=QUIET)
    (problem,) = caught.value.problems
    assert type(caught.value) is (VerificationError if path.exists() else EnvironmentLacking)
    assert problem.place == PLACES["hot/fix.rpm"]
    return problem


def test_one_that_is_not_there_is_told_where_it_is_named(store: Store, tmp_path: Path) -> None:
    problem = fetched(store, tmp_path / "fix.rpm")
    assert problem.code == "download-missing"
    assert problem.message.startswith("hot/fix.rpm is not there: ")
    assert problem.hint == "correct its path or URL in the recipe, or put the file there"


def test_one_with_another_checksum_is_told_where_it_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "fix.rpm").write_text("x")
    problem = fetched(store, tmp_path / "fix.rpm")
    assert problem.code == "download-mismatch"
    assert f"does not match the recipe ({OTHER})" in problem.message
    assert f"has 1 bytes with {Digest.of(b'x')}" in problem.message and "'sha256'" in (problem.hint or "")


def test_one_that_is_no_package_is_told_without_its_name_in_the_store() -> None:
    with pytest.raises(VerificationError) as caught, errors_where_asked(PLACES):
        raise package_damaged(Path("/store/ef87"), "rpm cannot read its header")
    assert caught.value.problems == (
        Problem(
            "package-damaged",
            "rpm cannot read its header",
            PLACES["/store/ef87"],
            "name a binary package, as rpm reads it",
        ),
    )


def test_other_errors_stay_as_they_are() -> None:
    error = EnvironmentLacking("download-missing", "a is no longer available: x", place="a", hint="wait")
    with pytest.raises(EnvironmentLacking) as caught, errors_where_asked(PLACES):
        raise error
    assert caught.value is error
