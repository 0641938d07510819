"""Modular repositories: default streams, named streams, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import ResolutionError
from pipeline.resolve import module_solver
from pipeline.resolve.modules import stream_packages
from tests.support.resolve_world import World, refusal
from tests.support.rpmmd import Rpm


def stream(name: str, stream: str, *packages: str, version: int = 1, context: str = "c0", requires: str = "") -> str:
    rpms = "".join(f"\n        - {package}" for package in packages)
    return f"""---
document: modulemd
version: 2
data:
  name: {name}
  stream: "{stream}"
  version: {version}
  context: {context}
  arch: x86_64
  dependencies:
    - requires:
        platform: [el9]
{requires}
  artifacts:
    rpms:{rpms}
...
"""


def default(name: str, stream: str) -> str:
    return f"""---
document: modulemd-defaults
version: 1
data:
  module: {name}
  stream: "{stream}"
  profiles:
    "{stream}": [common]
...
"""


OLD = stream("nginx", "1.20", "nginx-0:1.20-1.noarch", "nginx-0:1.20-1.src")
NEW = stream("nginx", "1.24", "nginx-0:1.24-1.noarch", "nginx-extra-0:1.24-1.noarch")
PACKAGES = (
    Rpm("nginx", "1.20-1"),
    Rpm("nginx", "1.24-1"),
    Rpm("nginx-extra", "1.24-1"),
    Rpm("nginx", "9-1"),
    Rpm("other"),
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_default_stream_takes_precedence_over_other_streams_and_over_newer_packages(world: World) -> None:
    world.add("r", *PACKAGES, modules=OLD + NEW + default("nginx", "1.20"))
    assert world.names(["nginx", "other"]) == ["nginx-1.20-1.noarch", "other-1-1.noarch"]
    with pytest.raises(ResolutionError) as caught:
        world.names(["nginx-extra"])
    assert "it belongs to module 'nginx:1.24', which is not enabled ('nginx:1.20' is)" in str(caught.value)
    assert "excluded" not in str(caught.value)
    assert caught.value.problems[0].hint == "enable the stream: modules: ['nginx:1.24']"


def test_a_stream_that_the_recipe_names_replaces_the_default(world: World) -> None:
    world.add("r", *PACKAGES, modules=OLD + NEW + default("nginx", "1.20"))
    assert world.names(["nginx", "nginx-extra"], modules=("nginx:1.24",)) == [
        "nginx-1.24-1.noarch",
        "nginx-extra-1.24-1.noarch",
    ]


def test_without_a_default_the_packages_outside_of_modules_are_chosen(world: World) -> None:
    world.add("r", *PACKAGES, modules=OLD + NEW)
    assert world.names(["nginx"]) == ["nginx-9-1.noarch"]


def test_modules_reach_over_repositories(world: World) -> None:
    world.add("base", Rpm("nginx", "9-1")).add("modular", *PACKAGES[:3], modules=OLD + default("nginx", "1.20"))
    assert world.names(["nginx"]) == ["nginx-1.20-1.noarch"]


def test_a_stream_turns_on_what_it_requires(world: World) -> None:
    perl = stream("perl", "5.32", "perl-0:5.32-1.noarch")
    newer = stream("perl", "5.40", "perl-0:5.40-1.noarch")
    needs = stream("nginx", "1.24", "nginx-0:1.24-1.noarch", requires="        perl: ['5.32']")
    rpms = (Rpm("perl", "5.32-1"), Rpm("perl", "5.40-1"), Rpm("nginx", "1.24-1", requires=("perl",)))
    world.add("r", *rpms, modules=perl + newer + needs)
    assert world.names(["nginx"], modules=("nginx:1.24",)) == ["nginx-1.24-1.noarch", "perl-5.32-1.noarch"]
    with pytest.raises(ResolutionError, match="requires streams that are not enabled") as caught:
        world.names(["nginx"], modules=("nginx:1.24", "perl:5.40"))
    assert caught.value.code == "module-refused"


def test_the_newest_build_of_a_stream_counts(world: World) -> None:
    older = stream("nginx", "1.24", "nginx-0:1.20-1.noarch", version=1)
    newer = stream("nginx", "1.24", "nginx-0:1.24-1.noarch", version=2)
    world.add("r", *PACKAGES, modules=newer + older + default("nginx", "1.24"))
    assert world.names(["nginx"]) == ["nginx-1.24-1.noarch"]


OTHER = default("nginx", "1.24")
ANY = default("nginx", "1.20")
NONE = ANY.replace('  stream: "1.20"\n', "")


def modified(text: str, when: str) -> str:
    return text.replace("data:\n", f"data:\n  modified: {when}\n")


# Measured with dnf 4.14: libmodulemd merges the repositories one by one.
@pytest.mark.parametrize(
    ("defaults", "version"),
    [
        ((ANY, ANY), "1.20"),
        ((ANY, OTHER), None),
        ((OTHER, ANY), None),
        ((ANY, ANY, OTHER), None),
        ((ANY, OTHER, ANY), "1.20"),
        ((ANY, OTHER, NONE), None),
        ((ANY, NONE), "1.20"),
        ((NONE, NONE, OTHER), "1.24"),
        ((ANY + OTHER,), "1.24"),
        ((modified(ANY, "6") + modified(OTHER, "5"),), "1.24"),
        ((ANY + NONE,), None),
        ((modified(ANY, "202001010000"), modified(OTHER, "202101010000")), "1.24"),
        ((modified(ANY, "202101010000"), modified(OTHER, "202001010000")), "1.20"),
        ((modified(ANY, "5"), OTHER), "1.20"),
        ((modified(ANY, "5"), modified(OTHER, "5")), None),
        ((modified(ANY, "5"), modified(OTHER, "5"), modified(ANY, "6")), "1.20"),
        ((modified(ANY, "5"), modified(OTHER, "5"), modified(ANY, "4")), "1.20"),
        ((ANY, modified(NONE, "5")), "1.20"),
    ],
)
def test_repositories_that_contradict_each_other_leave_a_module_without_default(
    world: World, defaults: tuple[str, ...], version: str | None
) -> None:
    world.add("r0", *PACKAGES[:3], modules=OLD + NEW + defaults[0])
    for number, text in enumerate(defaults[1:], 1):
        world.add(f"r{number}", Rpm(f"x{number}"), modules=text)
    if version:
        assert world.names(["nginx"]) == [f"nginx-{version}-1.noarch"]
    else:
        assert refusal(world, ["nginx"]).code == "package-missing"


def unquoted(text: str) -> str:
    """The same document with no quotes: its streams look like numbers."""
    return re.sub(r"[\"']", "", text)


def test_streams_that_look_like_numbers_are_taken_as_written(world: World) -> None:
    two, twenty = (stream("nginx", one, f"nginx-0:{one}-1.noarch") for one in ("1.2", "1.20"))
    rpms = (Rpm("nginx", "1.2-1"), Rpm("nginx", "1.20-1"))
    world.add("r", *rpms, modules=unquoted(two + twenty + default("nginx", "1.2")))
    assert world.names(["nginx"]) == ["nginx-1.2-1.noarch"]
    assert world.names(["nginx"], modules=("nginx:1.20",)) == ["nginx-1.20-1.noarch"]
    assert set(stream_packages(world.opened(), store=world.store)) == {"nginx:1.2", "nginx:1.20"}


@pytest.mark.parametrize("written", ["5.30", "010", "0x1F", "1e3", "true", "+7", ".5"])
def test_names_and_required_streams_that_look_like_numbers_are_taken_as_written(world: World, written: str) -> None:
    perl = stream(written, written, "perl-0:5-1.noarch")
    needs = stream("nginx", "1.24", "nginx-0:1.24-1.noarch", requires=f"        {written}: [{written}]")
    rpms = (Rpm("perl", "5-1"), Rpm("perl", "9-1"), Rpm("nginx", "1.24-1", requires=("perl",)))
    world.add("r", *rpms, modules=unquoted(perl + needs))
    assert world.names(["nginx"], modules=("nginx:1.24",)) == ["nginx-1.24-1.noarch", "perl-5-1.noarch"]


# Two builds of one stream: the newer one has other packages, and lacks one of the older one's.
OLDER = stream("httpd", "2.6", "httpd-0:2.6.0-1.noarch", "mod_old-0:2.6.0-1.noarch", version=8)
NEWER = stream("httpd", "2.6", "httpd-0:2.6.1-1.noarch", "mod_new-0:2.6.1-1.noarch", version=9)
HTTPD = (
    Rpm("httpd", "2.6.0-1"),
    Rpm("httpd", "2.6.1-1"),
    Rpm("mod_old", "2.6.0-1", requires=("httpd",)),
    Rpm("mod_new", "2.6.1-1", requires=("httpd",)),
    Rpm("httpd", "2.9-1"),
)


def test_a_pin_to_an_older_build_of_an_enabled_stream_resolves(world: World) -> None:
    world.add("r", *HTTPD, modules=OLDER + NEWER)
    on = ("httpd:2.6",)
    assert world.names(["httpd"], modules=on) == ["httpd-2.6.1-1.noarch"]
    assert world.names(["httpd"], modules=on, pins=(("httpd", "2.6.0"),)) == ["httpd-2.6.0-1.noarch"]
    assert world.names(["httpd-2.6.0"], modules=on) == ["httpd-2.6.0-1.noarch"]


def test_packages_of_two_builds_of_one_stream_stand_side_by_side(world: World) -> None:
    world.add("r", *HTTPD[:3], modules=OLDER).add("later", *HTTPD[3:], modules=NEWER)
    assert world.names(["mod_old", "mod_new"], modules=("httpd:2.6",)) == [
        "httpd-2.6.1-1.noarch",
        "mod_new-2.6.1-1.noarch",
        "mod_old-2.6.0-1.noarch",
    ]


def test_another_context_of_the_stream_stays_off_and_is_named(world: World) -> None:
    other = OLDER.replace("c0", "c1")
    static = (other + NEWER).replace("  context:", "  static_context: true\n  context:")
    world.add("r", *HTTPD, modules=static)
    with pytest.raises(ResolutionError, match=r"belongs to another context of module 'httpd:2.6'"):
        world.names(["mod_old"], modules=("httpd:2.6",))


def test_builds_that_require_the_same_are_of_one_context_unless_they_say_that_theirs_is_static(world: World) -> None:
    world.add("r", *HTTPD, modules=OLDER.replace("c0", "c1") + NEWER)
    names = world.names(["mod_old", "mod_new"], modules=("httpd:2.6",))
    assert names == ["httpd-2.6.1-1.noarch", "mod_new-2.6.1-1.noarch", "mod_old-2.6.0-1.noarch"]


def test_a_pin_to_what_a_module_hides_names_the_module(world: World) -> None:
    world.add("r", *HTTPD, modules=OLDER + NEWER)
    with pytest.raises(ResolutionError) as caught:
        world.names(["httpd"], modules=("httpd:2.6",), pins=(("httpd", "2.9*"),))
    assert caught.value.code == "pin-unsatisfied"
    assert "httpd-2.9-1.noarch is hidden by module 'httpd:2.6', which has packages of this name" in str(caught.value)
    assert "module_hotfixes" in str(caught.value.problems[0].hint)
    with pytest.raises(ResolutionError, match=r"belongs to module 'httpd:2.6', which is not enabled \["):
        world.names(["httpd"], pins=(("httpd", "2.6.1"),))
    with pytest.raises(ResolutionError, match=r"belongs to module 'httpd:2.6', which is not enabled \["):
        world.names(["httpd"], pins=(("httpd", "0:2.6.1"),))


def test_a_requirement_that_only_a_hidden_package_meets_names_the_module(world: World) -> None:
    world.add("r", *HTTPD, Rpm("site", requires=("mod_new",)), modules=OLDER + NEWER)
    with pytest.raises(ResolutionError) as caught:
        world.names(["site"])
    assert "mod_new-2.6.1-1.noarch is hidden: it belongs to module 'httpd:2.6'" in str(caught.value)
    assert caught.value.problems[0].hint == "enable the stream: modules: ['httpd:2.6']"


def test_modules_hide_nothing_of_a_repository_with_hotfixes(world: World) -> None:
    world.add("r", *HTTPD[:4], modules=OLDER + NEWER + default("httpd", "2.6"))
    world.add("fixes", Rpm("httpd", "2.6.1-2"), module_hotfixes=True)
    assert world.names(["httpd"]) == ["httpd-2.6.1-2.noarch"]
    assert World(world.folder / "x").add("r", *HTTPD, modules=OLDER, module_hotfixes=True).names(["mod_new"])


def test_what_provides_the_name_of_a_modular_package_is_hidden_too(world: World) -> None:
    world.add("r", *HTTPD, Rpm("httpd-fork", "9-1", provides=("httpd = 9",)), modules=NEWER + default("httpd", "2.6"))
    with pytest.raises(ResolutionError, match=r"httpd-fork-9-1.noarch is hidden by module 'httpd:2.6'"):
        world.names(["httpd-fork"])


def test_source_packages_and_demodularized_ones_hide_nothing(world: World) -> None:
    build = stream("m", "1", "tool-0:1-1.noarch", "lib-0:1-1.noarch", "outside-0:1-1.src")
    build = build.replace("  artifacts:", "  demodularized:\n    rpms: [lib]\n  artifacts:")
    world.add("r", Rpm("tool"), Rpm("tool", "2-1"), Rpm("lib"), Rpm("lib", "2-1"), Rpm("outside"), modules=build)
    names = world.names(["tool", "lib", "outside"], modules=("m:1",))
    assert names == ["lib-2-1.noarch", "outside-1-1.noarch", "tool-1-1.noarch"]


FIVE, SIX = (stream("perl", one, f"perl-0:{one}-1.noarch") for one in "56")
NEEDS_ANY = stream("nginx", "1.20", "nginx-0:1.20-1.noarch", requires="        perl: []")
NEEDS_FIVE = NEEDS_ANY.replace("[]", "['5']")
PERL = (Rpm("perl", "5-1"), Rpm("perl", "6-1"), Rpm("perl", "9-1"))


# Measured with dnf 4.14. With no stream on, packages outside of modules are chosen: nginx-9 and perl-9.
@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("perl: ['5', '6']", "1.20 5"),
        ("perl: ['6', '5']", "1.20 5"),
        ("perl: ['6', '7']", "1.20 6"),
        ("perl: []", "1.20 5"),
        ("perl: ['-5']", "1.20 6"),
        ("perl: ['-5', '-6']", "9 9"),
        ("perl: ['7']", "9 9"),
        ("gone: []", "9 9"),
        ("gone: ['1']", "9 9"),
        ("perl: ['5']\n        gone: ['1']", "9 9"),
    ],
)
def test_a_default_that_nobody_named_never_refuses_the_recipe(world: World, wanted: str, chosen: str) -> None:
    needs = stream("nginx", "1.20", "nginx-0:1.20-1.noarch", requires=f"        {wanted}")
    world.add("r", *PACKAGES, *PERL, modules=needs + default("nginx", "1.20") + FIVE + SIX)
    assert world.names(["other"]) == ["other-1-1.noarch"]
    nginx, perl = chosen.split()
    assert world.names(["nginx", "perl"]) == [f"nginx-{nginx}-1.noarch", f"perl-{perl}-1.noarch"]


def test_what_belongs_to_a_default_that_cannot_be_on_says_so(world: World) -> None:
    needs = stream("nginx", "1.20", "nginx-0:1.20-1.noarch", requires="        gone: ['1']")
    world.add("r", PACKAGES[0], modules=needs + default("nginx", "1.20"))
    caught = refusal(world, ["nginx"])
    assert "it belongs to module 'nginx:1.20', which is not enabled" in str(caught)
    named = refusal(world, ["nginx"], modules=("nginx:1.20",))
    assert (named.code, named.problems[0].message) == (
        "module-refused",
        "module 'nginx:1.20' requires a stream of 'gone', and none fits",
    )


def test_a_default_goes_with_the_default_that_it_requires(world: World) -> None:
    perl = FIVE.replace("platform: [el9]", "platform: [el9]\n        gone: ['1']")
    world.add("r", *PACKAGES, *PERL, modules=NEEDS_FIVE + perl + default("nginx", "1.20") + default("perl", "5"))
    assert world.names(["nginx"]) == ["nginx-9-1.noarch"]


def test_a_long_list_of_streams_takes_no_stack_of_libsolv(world: World) -> None:
    listed = ", ".join(f"'{one}'" for one in range(6, 20_000))
    needs = NEEDS_ANY.replace("[]", f"[{listed}]")
    world.add("r", *PACKAGES, *PERL, modules=needs + default("nginx", "1.20") + FIVE + SIX)
    assert world.names(["nginx", "perl"]) == ["nginx-1.20-1.noarch", "perl-6-1.noarch"]


def test_a_module_of_too_many_streams_is_refused(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(module_solver, "CONTEXTS_LIMIT", 1)
    world.add("r", *PERL, modules=FIVE + SIX)
    assert refusal(world, ["perl"]).code == "module-refused"


@pytest.mark.parametrize(
    ("modules", "asked", "message"),
    [
        (OLD + NEW, ("nginx:1.99",), "module stream not found: 'nginx:1.99'"),
        (OLD + NEW, ("nginx",), "module stream not found: 'nginx'"),
        ("", ("nginx:1.24",), "module stream not found"),
        (OLD + NEW, ("nginx:1.20", "nginx:1.24"), "listed with two streams"),
        (stream("nginx", "1.20", requires="        perl: []"), ("nginx:1.20",), "stream of 'perl', and none fits"),
        (NEEDS_ANY + FIVE + SIX, ("nginx:1.20",), "requires a stream of 'perl', and several fit: 5, 6"),
        (NEEDS_FIVE + FIVE + SIX + default("perl", "6"), ("nginx:1.20",), "requires streams that are not enabled"),
        ("---\ndocument: [\n", (), "cannot be read"),
    ],
)
def test_what_cannot_be_decided_is_refused_by_name(
    world: World, modules: str, asked: tuple[str, ...], message: str
) -> None:
    world.add("r", *PACKAGES, modules=modules)
    with pytest.raises(ResolutionError) as caught:
        world.names(["other"], modules=asked)
    assert caught.value.code == "module-refused"
    assert message in str(caught.value)


def test_an_artifact_with_a_nul_is_left_out(world: World) -> None:
    evil = stream("evil", "1", '"other\\0-0:1-1.noarch"', '"\\0-0:1-1.noarch"', '"a\\nb-0:1-1.noarch"')
    world.add("r", *PACKAGES, modules=evil + default("evil", "1"))
    assert stream_packages(world.opened(), store=world.store) == {"evil:1": frozenset()}
    assert world.names(["other"]) == ["other-1-1.noarch"]
