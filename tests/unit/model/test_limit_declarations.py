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
from pipeline.sandbox.cgroups import Cgroup, Hierarchies
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


def group_of(folder: Path, version: int) -> Cgroup:
    """A group whose files are made by the test."""
    if version == 2:
        return Cgroup(Hierarchies({}, folder), "x")
    names = {name for limit in LIMITS for name in (limit.controllers or ())[:1]}
    return Cgroup(Hierarchies({name: folder / name for name in names}), "x")


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
            found = resources_of(Limits(**{limit.member: value}), group_of(tmp_path, 1))
            assert found != resources_of(Limits(), group_of(tmp_path, 1)), f"the runtime is not told of {limit.name}"
        case AsRlimit(kind):
            assert kind.startswith("RLIMIT_")
        case AfterStart():
            assert limit.controllers is not None
        case OnLink() | AsFileSystem():
            folder = Path(inspect.getfile(sandbox)).parent
            module = f"from pipeline.model.limits.{limit.name} import LIMIT"
            users = [path.name for path in folder.glob("*.py") if module in path.read_text()]
            assert users, f"nothing in pipeline/sandbox sets {limit.name}, which it has to do itself"


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
        (path / file).write_text(f"{key} 3\n")
        told = limit.overruns(group.usage())
        assert len(told) == 1 and "3 times" in told[0].text


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
