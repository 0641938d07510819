"""Groups and environments of packages: what they bring, what is left out, and what cannot be read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ResolutionError, VerificationError
from pipeline.repos.comps import COMPS_DEPTH_MOST, CompsReader, read_groups
from tests.support.resolve_world import World
from tests.support.rpmmd import Rpm

# The form that Fedora's comps have (pagure.io/fedora-comps), shortened.
HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE comps PUBLIC "-//Red Hat, Inc.//DTD Comps info//EN" "comps.dtd">
<comps>
"""
CORE = """  <group>
    <id>core</id>
    <name>Core</name>
    <name xml:lang="de">Kern</name>
    <description>Smallest possible installation</description>
    <default>false</default>
    <uservisible>false</uservisible>
    <packagelist>
      <packagereq type="mandatory">bash</packagereq>
      <packagereq>setup</packagereq>
      <packagereq type="default">dnf</packagereq>
      <packagereq type="optional">extra</packagereq>
      <packagereq type="conditional" requires="bash">bash-help</packagereq>
      <packagereq type="conditional" requires="kde">kde-help</packagereq>
      <packagereq type="default" basearchonly="true">lib</packagereq>
      <packagereq type="default">nowhere</packagereq>
    </packagelist>
  </group>
"""
MINIMAL = """  <environment>
    <id>minimal-environment</id>
    <name>Minimal Install</name>
    <grouplist><groupid>core</groupid><groupid>not-there</groupid></grouplist>
    <optionlist><groupid>tools</groupid></optionlist>
  </environment>
"""
TOOLS = """  <group><id>tools</id><name>Tools</name><packagelist><packagereq>tool</packagereq></packagelist></group>
"""
RPMS = (
    Rpm("bash"),
    Rpm("setup", "1-1"),
    Rpm("setup", "2-1"),
    Rpm("dnf", requires=("python",)),
    Rpm("python"),
    Rpm("extra"),
    Rpm("bash-help"),
    Rpm("kde-help"),
    Rpm("lib", arch="x86_64"),
    Rpm("lib", arch="i686"),
    Rpm("tool"),
)
BROUGHT = ["bash-1-1.noarch", "bash-help-1-1.noarch", "dnf-1-1.noarch", "lib-1-1.x86_64", "python-1-1.noarch",
           "setup-2-1.noarch"]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).add("r", *RPMS, comps=HEAD + CORE + MINIMAL + TOOLS + "</comps>")


@pytest.mark.parametrize("asked", ["@core", "@Core", "@^minimal-environment", "@Minimal Install", "@c?RE"])
def test_a_group_brings_its_mandatory_default_and_conditional_packages(world: World, asked: str) -> None:
    section = world.solve([asked])
    assert [str(one.package.nevra) for one in section.resolution.chosen] == BROUGHT
    (why,) = section.resolution.warnings
    assert why == f"packages: 'nowhere' of the group '{asked}' is in no repository, or excluded"
    bash = section.resolution.chosen[0]
    assert [(one.kind, one.by) for one in bash.reasons] == [("requested", asked)]


def test_types_of_packages_can_be_asked_for(world: World) -> None:
    assert world.names(["@core/optional,mandatory"]) == ["bash-1-1.noarch", "extra-1-1.noarch", "setup-2-1.noarch"]


def test_what_a_group_brings_can_be_excluded_and_pinned(world: World) -> None:
    names = world.names(["@core"], excludes=("dnf",), pins=(("setup", "1"),))
    assert names == ["bash-1-1.noarch", "bash-help-1-1.noarch", "lib-1-1.x86_64", "setup-1-1.noarch"]


def test_groups_of_one_id_in_several_repositories_are_one(world: World) -> None:
    world.add("more", Rpm("more"), comps=HEAD + CORE.replace("bash<", "more<") + "</comps>")
    assert "more-1-1.noarch" in world.names(["@core"]) and "bash-1-1.noarch" in world.names(["@core"])


def test_what_a_later_repository_says_of_a_package_of_a_group_counts(world: World) -> None:
    """As libcomps merges groups: one entry for each name."""
    world.add("more", Rpm("more"), comps=HEAD + CORE.replace('type="default">dnf', 'type="optional">dnf') + "</comps>")
    assert world.names(["@core"]) == [one for one in BROUGHT if not one.startswith(("dnf", "python"))]


def test_a_merged_group_has_the_name_that_the_last_repository_gives_it(world: World) -> None:
    world.add("renamed", Rpm("a"), comps=HEAD + CORE.replace("<name>Core<", "<name>Kernel<") + "</comps>")
    world.add("unnamed", Rpm("b"), comps=HEAD + CORE.replace("<name>Core<", "<name><") + "</comps>")
    groups = read_groups(world.opened(), store=world.store)
    assert groups.find("@Kernel") == groups.find("@core") is not None
    assert groups.groups["core"].name == "Kernel"


def test_groups_of_one_id_are_merged_in_linear_time(tmp_path: Path) -> None:
    """A document may have hundreds of thousands of them."""

    def lines(count: int) -> int:
        text = "".join(
            f"<group><id>g</id><packagelist><packagereq>p{number}</packagereq></packagelist></group>"
            for number in range(count)
        )
        world = World(tmp_path / str(count)).add("r", comps=f"<comps>{text}</comps>")
        opened, executed = world.opened(), 0

        def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
            nonlocal executed
            executed += event == "line"
            return trace if frame.f_code.co_filename == read_groups.__code__.co_filename else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            groups = read_groups(opened, store=world.store)
        finally:
            sys.settrace(before)
        assert len(groups.groups["g"].packages) == count
        return executed

    assert lines(400) < 3 * lines(200)


def test_the_best_of_a_conditional_package_is_demanded_as_by_dnf(tmp_path: Path) -> None:
    rpms = (Rpm("bash"), Rpm("bash-help", "1-1"), Rpm("bash-help", "2-1", requires=("nothing",)))
    comps = HEAD + CORE + "</comps>"
    world = World(tmp_path).add("r", *rpms, comps=comps)
    with pytest.raises(ResolutionError, match="bash-help-2-1"):
        world.names(["@core"])


def test_a_package_of_a_group_that_cannot_be_installed_is_an_error_as_for_dnf(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", Rpm("tool", requires=("nothing",)), comps=HEAD + TOOLS + "</comps>")
    with pytest.raises(ResolutionError, match="requires nothing, which nothing provides"):
        world.names(["@tools"])


def test_a_group_that_is_not_there_is_named_with_those_that_are(world: World, tmp_path: Path) -> None:
    for asked, hint in (("@cores", "did you mean @core?"), ("@^core", ""), ("@xyz", "groups: @core, @tools")):
        with pytest.raises(ResolutionError) as caught:
            world.names([asked])
        assert caught.value.code == "package-missing" and hint in str(caught.value)
    with pytest.raises(ResolutionError, match="no repository of the platform has groups"):
        World(tmp_path / "w").add("r", Rpm("a")).names(["@core"])


DEEP = tuple(
    f"<packagereq type='conditional' requires='{requires}'>{name}</packagereq>"
    for name, requires in (("a", "(" * 200_000), ("a", "b) or (c"), ("a", "b and c"), ("(a", "b"), ("a", "b" * 2000))
)
"""Conditions that are no name: as rich dependencies, deep ones end the process."""


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE comps [<!ENTITY a 'aaaa'>]><comps>&a;</comps>",
        "<comps><group></comps>",
        "<a>" * (COMPS_DEPTH_MOST + 1) + "</a>" * (COMPS_DEPTH_MOST + 1),
        "no XML",
        *(f"<comps><group><packagelist>{one}</packagelist></group></comps>" for one in DEEP),
    ],
)
def test_comps_that_cannot_be_trusted_are_refused(tmp_path: Path, text: str) -> None:
    world = World(tmp_path).add("r", comps=text)
    with pytest.raises(VerificationError) as caught:
        read_groups(world.opened(), store=world.store)
    assert caught.value.code == "comps-malformed"


TAGS = ("<comps>", "</comps>", "<group>", "</group>", "<environment>", "<packagelist>", "</packagelist>", "<!--", "]]>")
PIECES = st.sampled_from([*TAGS, "<id>a</id>", "<packagereq type='x'>p</packagereq>", "&amp;", "\x00"])


@given(st.one_of(st.binary(max_size=100), st.lists(PIECES, max_size=12).map(lambda found: "".join(found).encode())))
def test_rubbish_is_an_error_and_never_a_crash(data: bytes) -> None:
    reader = CompsReader("comps.xml")
    try:
        reader.read([data])
    except VerificationError as error:
        assert error.code == "comps-malformed"
        return
    assert all(one.id for one in (*reader.groups, *reader.environments))
