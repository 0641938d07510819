"""Failures on pages name files as they were typed, not by this machine's absolute paths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.model.night_record import Failure, Outcome, Product, ProductRun, Stage
from pipeline.nightly.typed_paths import TypedPaths

FAILURE = Failure(Stage.BUILD, "it-failed", "")


def told(text: str, here: str, *given: str) -> str:
    """A text in each place of a failure: it must come out the same in all of them."""
    failure = replace(FAILURE, message=text, place=text, hint=text, log=(text,))
    product = Product("a", "a.yaml", "el9", "x86_64", ProductRun(Outcome.FAILED, text, failure=failure))
    run = TypedPaths(Path(here), map(Path, given)).told(product).run
    assert run.failure is not None
    (found,) = {run.why, run.failure.message, run.failure.place, run.failure.hint, *run.failure.log}
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("'/work/here/out/t' is not empty", "'out/t' is not empty"),
        ("see /work/other/t.report/ for", "see ../other/t.report/ for"),
        ("/work/other", "../other"),
        ("/work/others and /work/other.d", "/work/others and /work/other.d"),
        ("in /srv/work/here/out and x/work/here/", "in /srv/work/here/out and x/work/here/"),
        ("/work/hereafter", "/work/hereafter"),
        ("/work/other/deep/k.key", "../other/deep/k.key"),
        ("/work/recipes/a.yaml:1", "/work/recipes/a.yaml:1"),
        ("nothing", "nothing"),
    ],
)
def test_a_path_is_told_as_it_was_typed(text: str, found: str) -> None:
    given = ("out", "../other", "../other/deep/k.key", "/work/recipes")
    assert told(text, "/work/here", *given) == found


def test_above_the_working_directory_nothing_is_replaced_but_what_was_given() -> None:
    assert told("/work/x /work/here/x", "/work/here", "..", ".") == "/work/x x"
    assert told("/etc/x /out/t", "/", "out") == "/etc/x out/t"


def test_what_did_not_fail_stays() -> None:
    product = Product("a", "a.yaml", "el9", "x86_64", ProductRun(Outcome.UNCHANGED, "/work/here/x"))
    assert TypedPaths(Path("/work/here"), ()).told(product) is product
