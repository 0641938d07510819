"""Errors of several things are told together."""

from __future__ import annotations

from pipeline.errors import Problem, PublicationRefused, VerificationError, join_errors


def test_joined_errors_tell_each_problem_once_in_the_first_ones_class() -> None:
    one, two, three = (Problem(code, code, "place", "hint") for code in ("tag-overtaken", "blob-damaged", "tag-frozen"))
    joined = join_errors([PublicationRefused.of([one, two]), VerificationError.of([two, three, one])])
    assert type(joined) is PublicationRefused and joined.exit_code == 7
    assert joined.problems == (one, two, three)
