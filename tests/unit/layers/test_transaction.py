"""The order of scripts, their arguments and input, as rpm runs them in a first installation."""

from __future__ import annotations

from pipeline.digest import Digest
from pipeline.layers.transaction import ScriptStep, plan_scripts
from pipeline.model.header import (
    Dependency,
    PackageHeader,
    Scriptlet,
    ScriptletPhase,
    Trigger,
    TriggerKind,
)
from pipeline.model.package import Nevra

SH = ("/bin/sh",)


def package(
    name: str, *scriptlets: ScriptletPhase, triggers: tuple[Trigger, ...] = (), version: str = "1"
) -> PackageHeader:
    return PackageHeader(
        nevra=Nevra(name, 0, version, "1", "noarch"),
        checksum=Digest.of(name.encode()),
        files=(),
        scriptlets=tuple(Scriptlet(moment, SH, f"{moment} of {name}") for moment in scriptlets),
        triggers=triggers,
        provides=(),
        requires=(),
        build_time=0,
    )


def trigger(kind: TriggerKind, *on: Dependency, priority: int = 1_000_000, body: str = "") -> Trigger:
    return Trigger(kind, SH, body, on, priority)


def compare(a: str, b: str) -> int:
    return (a > b) - (a < b)


def run(*headers: PackageHeader, files: dict[str, tuple[str, ...]] | None = None) -> tuple[ScriptStep, ...]:
    present = {str(h.nevra): (files or {}).get(h.nevra.name, ()) for h in headers}
    return plan_scripts(headers, present=present, compare=compare)


def labels(steps: tuple[ScriptStep, ...]) -> list[str]:
    return [step.label.replace("-1-1.noarch", "") for step in steps]


def test_pretrans_of_all_precedes_and_posttrans_of_all_follows_every_package() -> None:
    every = (ScriptletPhase.POSTTRANS, ScriptletPhase.POST, ScriptletPhase.PRE, ScriptletPhase.PRETRANS)
    assert labels(run(package("a", *every), package("b", *every))) == [
        "%pretrans of a",
        "%pretrans of b",
        "%pre of a",
        "%post of a",
        "%pre of b",
        "%post of b",
        "%posttrans of a",
        "%posttrans of b",
    ]


def test_scriptlets_are_told_that_one_instance_is_installed() -> None:
    assert {step.arguments for step in run(package("a", *ScriptletPhase))} == {("1",)}


def test_file_triggers_of_high_priority_run_before_post_and_the_others_after() -> None:
    owner = package(
        "owner",
        triggers=(
            trigger(TriggerKind.FILE_IN, Dependency("/usr/lib"), priority=1),
            trigger(TriggerKind.FILE_IN, Dependency("/usr/lib"), priority=20_000),
        ),
    )
    steps = run(owner, package("lib", ScriptletPhase.POST), files={"lib": ("/usr/lib/libx.so",)})
    assert labels(steps) == ["%filetriggerin of owner", "%post of lib", "%filetriggerin of owner"]
    assert {step.input for step in steps if "trigger" in step.label} == {b"/usr/lib/libx.so\n"}
    assert {step.arguments for step in steps if "trigger" in step.label} == {("0", "0")}


def test_a_packages_own_files_set_its_file_trigger_off_before_those_of_the_others() -> None:
    owner = package("owner", triggers=(trigger(TriggerKind.FILE_IN, Dependency("/usr/lib")),))
    steps = run(package("early"), owner, files={"early": ("/usr/lib/a",), "owner": ("/usr/lib/b",)})
    assert [step.input for step in steps] == [b"/usr/lib/b\n", b"/usr/lib/a\n"]


def test_a_file_trigger_sees_what_was_installed_before_its_own_package() -> None:
    owner = package("owner", triggers=(trigger(TriggerKind.FILE_IN, Dependency("/usr/lib")),))
    steps = run(package("early"), owner, files={"early": ("/usr/lib/a",), "owner": ("/etc/b",)})
    assert [step.input for step in steps] == [b"/usr/lib/a\n"]


def test_transaction_file_triggers_come_last_and_see_all_files_prefix_by_prefix() -> None:
    owner = package(
        "owner",
        triggers=(trigger(TriggerKind.TRANSACTION_FILE_IN, Dependency("/usr/lib"), Dependency("/etc")),),
    )
    steps = run(
        owner,
        package("other", ScriptletPhase.POSTTRANS),
        files={"owner": ("/etc/conf", "/usr/lib/z"), "other": ("/usr/lib/a", "/opt/none")},
    )
    assert labels(steps) == ["%posttrans of other", "%transfiletriggerin of owner"]
    assert steps[-1].input == b"/usr/lib/z\n/usr/lib/a\n/etc/conf\n"


def test_no_file_no_trigger() -> None:
    owner = package("owner", triggers=(trigger(TriggerKind.TRANSACTION_FILE_IN, Dependency("/usr/lib")),))
    assert run(owner, files={"owner": ("/etc/x",)}) == ()


def test_a_trigger_fires_for_the_version_it_names_and_no_other() -> None:
    newer = package("t", triggers=(trigger(TriggerKind.IN, Dependency("lib", 4 | 8, "0:2-1")),))
    assert run(newer, package("lib", version="1")) == ()
    assert labels(run(newer, package("lib", version="2"))) == ["%triggerin on lib of t"]


def test_a_trigger_fires_whichever_of_the_two_comes_first() -> None:
    owner = package("t", triggers=(trigger(TriggerKind.IN, Dependency("lib")),))
    for order in ((owner, package("lib")), (package("lib"), owner)):
        (step,) = run(*order)
        assert step.label.startswith("%triggerin on lib of t")
        assert step.arguments == ("1", "1")
