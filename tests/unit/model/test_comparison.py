"""What a comparison rests on: settings taken apart, changelogs read from a database and cut to what is new."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.header import ChangelogEntry
from pipeline.model.image import ImageConfig
from pipeline.oci import flatten_config, make_image
from pipeline.packages.changelog import CHANGELOG_ENTRIES_MOST, CHANGELOG_TEXT_MOST, newest_entries


def test_settings_go_by_the_names_of_the_specification() -> None:
    config = ImageConfig(
        "arm64",
        0,
        variant="v8",
        entrypoint=("/bin/x", "a b"),
        environment=("A=1", "EMPTY=", "EQUALS=a=b"),
        exposed_ports=("80",),
        volumes=("/data",),
        labels=(("a.b", "c"),),
    )
    assert dict(flatten_config(make_image("x", "1", config, ()).config_bytes)) == {
        "Entrypoint": '["/bin/x", "a b"]',
        "Env.A": "1",
        "Env.EMPTY": "",
        "Env.EQUALS": "a=b",
        "ExposedPorts.80/tcp": "",
        "Labels.a.b": "c",
        "Volumes./data": "",
        "architecture": "arm64",
        "created": "1970-01-01T00:00:00Z",
        "os": "linux",
        "variant": "v8",
    }


def test_settings_that_relbuild_does_not_write_are_told_too() -> None:
    value = {
        "os": "linux",
        "author": "somebody",
        "config": {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 5}, "Shell": ["/bin/sh"], "User": "", "Cmd": None},
        "history": [{"created_by": "x"}],
    }
    assert dict(flatten_config(json.dumps(value).encode())) == {
        "Healthcheck.Interval": "5",
        "Healthcheck.Test": '["CMD", "x"]',
        "Shell": '["/bin/sh"]',
        "author": "somebody",
        "os": "linux",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab=.", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab=.", max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(("Env", "Labels", "Cmd", "config", "x")), JSON, max_size=5))
def test_whatever_a_config_holds_it_comes_apart(config: Mapping[str, object]) -> None:
    found = flatten_config(json.dumps({"os": "linux", "config": config}).encode())
    assert found["os"] == "linux" and all(isinstance(value, str) for value in found.values())
    assert list(found) == sorted(found)


@given(st.lists(st.tuples(st.integers(0, 9), st.text("ab", max_size=3), st.text("ab", max_size=40_000)), max_size=6))
def test_changelogs_are_bounded_and_begin_with_the_newest(entries: list[tuple[int, str, str]]) -> None:
    times, names, texts = ([one[part] for one in entries] for part in range(3))
    found = newest_entries(times, names, texts)  # type: ignore[arg-type]
    assert sum(len(entry.text) for entry in found) <= CHANGELOG_TEXT_MOST and len(found) <= CHANGELOG_ENTRIES_MOST
    whole = [ChangelogEntry(*one) for one in entries]
    assert all(mine == theirs for mine, theirs in zip(found[:-1], whole, strict=False))
    assert len(found) == len(whole) or sum(len(entry.text) for entry in found) == CHANGELOG_TEXT_MOST
