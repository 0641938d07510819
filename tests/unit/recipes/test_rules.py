"""The operator's rules: what can be written, and what is said of what cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecipeError
from pipeline.model.quantities import Malformed, parse_age, write_age
from pipeline.model.rules import GateRule, IdentityRule, MirrorRules, RetentionRule
from pipeline.recipes import load_rules


def rules(folder: Path, text: str) -> MirrorRules:
    path = folder / "rules.yaml"
    path.write_text(text)
    return load_rules(path)


def test_everything_that_can_be_written(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        """\
gate:
  - {}
  - repositories: prod/*
    tags: stable*
    size: 500MiB
    setuid: []
    labels: [a]
    licenses: ["GPL*"]
    forbidden-packages: [gcc]
    runtimes: ["runc *"]
    enforced-limits: [memory, "*"]
    same-versions: false
    refuse-older: false
    refuse-fewer-platforms: false
retention:
  - {repositories: "nightly/*", tags: "*-20*", keep: 10, younger-than: 30d, pulled-within: 2w}
grace: 12h
quarantine: 90m
validity: 7d
identities:
  - {prefix: mirror.example/copies/, signed-prefix: registry.example/prod}
""",
    )
    assert found == MirrorRules(
        (
            GateRule(place="rules.yaml:2: gate[0]"),
            GateRule(
                "prod/*",
                "stable*",
                500 << 20,
                (),
                ("a",),
                ("GPL*",),
                ("gcc",),
                ("runc *",),
                ("memory", "*"),
                False,
                False,
                False,
                "rules.yaml:3: gate[1]",
            ),
        ),
        (RetentionRule("nightly/*", "*-20*", 10, 30 * 86_400, 14 * 86_400, "rules.yaml:16: retention[0]"),),
        43_200,
        5_400,
        (IdentityRule("mirror.example/copies", "registry.example/prod"),),
        7 * 86_400,
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "retention: []\n"])
def test_what_is_left_out_has_its_default(tmp_path: Path, text: str) -> None:
    assert rules(tmp_path, text) == MirrorRules()


def test_nothing_that_is_signed_of_a_tag_is_believed_for_years(tmp_path: Path) -> None:
    for text in ("91d", "100w", "59m"):
        with pytest.raises(RecipeError) as caught:
            rules(tmp_path, f"validity: {text}\n")
        assert caught.value.code == "age-malformed"


def test_no_rule_at_all_is_another_thing(tmp_path: Path) -> None:
    assert rules(tmp_path, "gate: []\n").gate == ()


def test_all_problems_are_told_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        rules(
            tmp_path,
            """\
gate:
  - size: 5MB
    licences: [MIT]
    same-versions: 1
retention:
  - {keep: 0}
grace: 5
quarantine: 1y
""",
        )
    told = [(problem.place, problem.code) for problem in caught.value.problems]
    assert told == [
        ("rules.yaml:2: gate[0].size", "size-malformed"),
        ("rules.yaml:3: gate[0].licences", "key-unknown"),
        ("rules.yaml:4: gate[0].same-versions", "type-wrong"),
        ("rules.yaml:6: retention[0].keep", "value-out-of-range"),
        ("rules.yaml:7: grace", "age-malformed"),
        ("rules.yaml:8: quarantine", "age-malformed"),
    ]
    hints = " ".join(problem.hint or "" for problem in caught.value.problems)
    assert "did you mean 'licenses'?" in hints and "`relbuild help rules`" in hints and "help recipe" not in hints


@pytest.mark.parametrize("value", ["7", 7, "d", "-1d", "0d", "1.0001s", "101w1", None, True, "9999999w"])
def test_ages_that_are_none(value: object) -> None:
    with pytest.raises(Malformed):
        parse_age(value)


@given(st.integers(1, 10**9))
def test_an_age_reads_back_as_it_is_written(seconds: int) -> None:
    assert parse_age(write_age(seconds)) == seconds
