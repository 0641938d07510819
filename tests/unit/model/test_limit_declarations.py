"""Each limit is declared in one module, and everything that a limit needs is made from that."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from typer.utils import get_params_from_function

from pipeline import sandbox
from pipeline.cli.commands.run import run_command
from pipeline.cli.limit_options import limits_of
from pipeline.errors import RelbuildError
from pipeline.model.enforcement import asked_limits, is_enforced
from pipeline.model.json_form import from_json, to_json
from pipeline.model.limit import (
    AfterStart,
    AsFileSystem,
    AsRlimit,
    Counter,
    FileSystemSize,
    InResources,
    LimitReading,
    OnLink,
    no_overruns,
)
from pipeline.model.limits import IN_STAGES, LIMITS, AnyLimit, Limits
from pipeline.model.plan_form import plan_digest
from pipeline.model.quantities import Quantity
from pipeline.model.smoke import SmokePlan
from pipeline.model.usage import Usage
from pipeline.recipes.schema import LimitsDocument
from pipeline.sandbox.cgroups import Cgroup, mounted_hierarchies
from pipeline.sandbox.limit_readings import ObservedInstance, read_limits, resources_of

MEMBERS = {
    "milli_cpus": None,
    "memory": None,
    "pids": None,
    "bandwidth": None,
    "open_files": None,
    "tmpfs": 64 << 20,
    "volume": 4 << 30,
    "io_weight": None,
    "io_bandwidth": None,
    "enforce": False,
}
"""Form of limits in plans and reports, which outlive a release."""

UNUSED = Usage(None, None, None, None, None)
each = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)


def value_of(limit: AnyLimit) -> int:
    """The value that a limit's example stands for."""
    if isinstance(limit.form, Quantity):
        return limit.form.parse(limit.example)
    assert isinstance(limit.example, int)
    return limit.example


V1 = {"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls", "perf_event", "pids"}
V2 = {"cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"}
"""The controllers that the kernel has (cgroups(7); admin-guide/cgroup-v2.rst)."""

RESOURCES: dict[str, set[str]] = {
    "blockIO": {
        "leafWeight",
        "throttleReadBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteBpsDevice",
        "throttleWriteIOPSDevice",
        "weight",
        "weightDevice",
    },
    "cpu": {"burst", "cpus", "idle", "mems", "period", "quota", "realtimePeriod", "realtimeRuntime", "shares"},
    "hugepageLimits": {"limit", "pageSize"},
    "memory": {"checkBeforeUpdate", "disableOOMKiller", "limit", "reservation", "swap", "swappiness", "useHierarchy"},
    "network": {"classID", "priorities"},
    "pids": {"limit"},
}
"""Members of `linux.resources` (runtime-spec 1.2, config-linux.md) and theirs, but for devices, which are no limit."""


def group_of(folder: Path, version: int, *, lacking: str = "") -> Cgroup:
    """A group on a machine whose kernel has all controllers but one; its files are made by the test."""
    folder.mkdir(exist_ok=True)
    if version == 2:
        (folder / "cgroup.controllers").write_text(" ".join(sorted(V2 - {lacking})))
        return Cgroup(mounted_hierarchies(f"1 0 0:1 / {folder} rw - cgroup2 cgroup2 rw"), "x")
    mounts = [f"1 0 0:1 / {folder / name} rw - cgroup cgroup rw,{name}" for name in sorted(V1 - {lacking})]
    return Cgroup(mounted_hierarchies("\n".join(mounts)), "x")


def test_the_form_in_documents_that_outlive_a_release_is_the_same() -> None:
    written = to_json(Limits())
    assert isinstance(written, dict)
    assert MEMBERS.items() <= written.items()
    assert from_json(Limits, to_json(Limits(milli_cpus=500))) == Limits(milli_cpus=500)
    assert str(plan_digest(SmokePlan())).startswith("sha256:")


@each
def test_names_ranks_and_members_are_its_own(limit: AnyLimit) -> None:
    others = [other for other in LIMITS if other is not limit]
    assert all(
        (limit.name, limit.member, limit.rank) != (o.name, o.member, o.rank) and limit.rank != o.rank for o in others
    )
    assert limit.member.isidentifier() and limit.member != "enforce"


@each
def test_a_recipe_can_ask_for_it_by_its_example(limit: AnyLimit) -> None:
    document = LimitsDocument.model_validate({limit.name: limit.example})
    assert getattr(document, limit.name) == value_of(limit)
    assert LimitsDocument.model_fields[limit.name].description == limit.meaning


@each
def test_it_is_read_back_under_its_name_and_never_taken_on_trust(limit: AnyLimit, tmp_path: Path) -> None:
    limits = Limits(**{limit.member: value_of(limit)})
    for version in (1, 2):
        observed = ObservedInstance(
            group_of(tmp_path, version), -1, None, volumes=[FileSystemSize("/data", None, why="none")]
        )
        found = [reading for reading in read_limits(limits, observed) if reading.name.split()[0] == limit.name]
        assert found, f"{limit.name} is not read back"
        assert not any(is_enforced(reading) for reading in found)
        assert all(reading.asked == value_of(limit) and reading.reason for reading in found)


@each
def test_the_sandbox_sets_it(limit: AnyLimit, tmp_path: Path) -> None:
    value = value_of(limit)
    match limit.set_by:
        case InResources():
            for version in (1, 2):
                group = group_of(tmp_path, version)
                found = resources_of(Limits(**{limit.member: value}), group)
                assert found != resources_of(Limits(), group), f"v{version}: the runtime is not told of {limit.name}"
        case AsRlimit(kind):
            assert kind.startswith("RLIMIT_")
        case AfterStart():
            pass
        case OnLink() | AsFileSystem():
            folder = Path(inspect.getfile(sandbox)).parent
            module = f"from pipeline.model.limits.{limit.name} import LIMIT"
            users = [path.name for path in folder.glob("*.py") if module in path.read_text()]
            assert users, f"nothing in pipeline/sandbox sets {limit.name}, which it has to do itself"


@each
def test_what_a_control_group_holds_names_its_controllers(limit: AnyLimit) -> None:
    """Of both versions, as the kernel and `mounted_hierarchies` know them."""
    if isinstance(limit.set_by, InResources | AfterStart):
        assert limit.controllers is not None, f"{limit.name} does not say which controllers limit it"
        v1, v2 = limit.controllers
        assert v1 in V1 and v2 in V2


@each
def test_a_machine_without_its_controller_starts_it_and_reads_it_as_not_enforced(
    limit: AnyLimit, tmp_path: Path
) -> None:
    """A runtime that is told to limit what the kernel cannot starts nothing."""
    if limit.controllers is None:
        return
    limits = Limits(**{limit.member: value_of(limit)})
    for version, lacking in enumerate(limit.controllers, 1):
        group = group_of(tmp_path, version, lacking=lacking)
        assert not group.has(lacking)
        if isinstance(limit.set_by, InResources):
            told = limit.set_by.make(value_of(limit), group)
            assert not told.keys() & resources_of(limits, group).keys()
        readings = read_limits(limits, ObservedInstance(group, -1, None))
        found = [reading for reading in readings if reading.name == limit.name]
        assert found and all(reading.reason and not is_enforced(reading) for reading in found)


@each
def test_a_limit_that_nobody_asked_for_is_told_where_its_controller_is_missing(limit: AnyLimit, tmp_path: Path) -> None:
    """It is left out then, as one that was asked for; whoever wants limits enforced has to see that."""
    if not isinstance(limit.set_by, InResources) or limit.set_by.unasked is None:
        return
    assert limit.controllers is not None
    for version, lacking in enumerate(limit.controllers, 1):
        found = []
        for name in ("", lacking):
            group = group_of(tmp_path / f"{version}{name}", version, lacking=name)
            readings = read_limits(Limits(), ObservedInstance(group, -1, None))
            found.append([reading for reading in readings if reading.name == limit.name])
        told = f"the {lacking} controller is not available"
        assert found == [[], [LimitReading(limit.name, limit.set_by.unasked, None, False, told)]]


def test_the_runtime_is_told_what_its_specification_has(tmp_path: Path) -> None:
    """It ignores any other member; and what one limit writes, no other may write again."""
    for version in (1, 2):
        group, said = group_of(tmp_path, version), list[str]()
        for limit in LIMITS:
            if isinstance(limit.set_by, InResources):
                for member, value in limit.set_by.make(value_of(limit), group).items():
                    assert member in RESOURCES, f"{limit.name}: linux.resources has no '{member}'"
                    for part in value if isinstance(value, list) else [value]:
                        assert part.keys() <= RESOURCES[member], f"{limit.name}: {member} has no {sorted(part)}"
                    said.append(member)
        assert len(said) == len(set(said)), f"two limits write the same member: {sorted(said)}"


@each
def test_an_overrun_that_the_kernel_counts_is_told(limit: AnyLimit, tmp_path: Path) -> None:
    assert not limit.overruns(UNUSED)
    if limit.counter is None:
        return
    assert limit.overruns is not no_overruns, f"{limit.name} is counted, and nobody tells"
    for version, (controller, file, key) in ((1, limit.counter.v1), (2, limit.counter.v2)):
        folder = tmp_path / str(version)
        group = group_of(folder, version)
        path = group.folder(controller)
        assert path is not None
        path.mkdir(parents=True)
        (path / file).write_text(f"{key} 3\n".lstrip())
        told = limit.overruns(group.usage())
        assert len(told) == 1 and "3 times" in told[0].text


def test_a_file_of_one_number_is_a_counter_too(tmp_path: Path) -> None:
    group = group_of(tmp_path, 1)
    counter = Counter(
        "failures", v1=("hugetlb", "hugetlb.2MB.failcnt", ""), v2=("hugetlb", "hugetlb.2MB.events", "max")
    )
    assert counter.read(group) is None
    folder = group.folder("hugetlb")
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / "hugetlb.2MB.failcnt").write_text("7\n")
    assert counter.read(group) == 7


@each
def test_more_than_was_asked_is_enforced_only_within_its_slack(limit: AnyLimit) -> None:
    asked = value_of(limit)
    assert is_enforced(LimitReading(limit.name, asked, asked + limit.slack, True))
    assert is_enforced(LimitReading(limit.name, asked, asked + limit.slack + 1, True)) is limit.share


@each
def test_a_missing_reading_is_missed(limit: AnyLimit) -> None:
    missed = dict(asked_limits(Limits(**{limit.member: value_of(limit)})))
    assert (limit.name in missed) is not isinstance(limit.set_by, AsFileSystem)


def test_readings_have_the_order_of_setting() -> None:
    names = ["cpus", "memory", "pids", "open_files", "bandwidth", "io_weight", "io_bandwidth", "tmpfs", "volume"]
    assert [limit.name for limit in IN_STAGES if limit.name in names] == names


def test_run_has_an_option_for_each_that_says_so() -> None:
    offered = {parameter.name: parameter for parameter in get_params_from_function(run_command).values()}
    assert "asked" not in offered
    for limit in LIMITS:
        assert (f"limit_{limit.name}" in offered) is bool(limit.option), limit.name


@each
def test_what_a_person_says_stands_instead_of_the_recipes(limit: AnyLimit) -> None:
    recipe = Limits(enforce=True, memory=1, pids=2)
    told = limits_of(recipe, {limit.name: str(limit.example)})
    assert told[limit] == (value_of(limit) if limit.option else recipe[limit])
    assert not told.enforce


def test_what_is_no_quantity_is_an_error_of_usage() -> None:
    with pytest.raises(RelbuildError) as raised:
        limits_of(Limits(), {"memory": "1GB"})
    assert raised.value.code == "size-malformed"
