"""The index of a build for several architectures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.build import (
    architecture_to_run,
    build_architectures,
    build_image,
    build_index,
    explain_package,
    load_or_build,
    smoke_architectures,
)
from pipeline.errors import UsageError
from pipeline.oci import (
    choose_image,
    make_image,
    read_layout,
    read_layout_images,
    read_layout_index,
    write_index_layout,
    write_layout,
)
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.release import compare_images
from pipeline.store import Store
from tests.support.builds import package, section
from tests.support.journal import Journal
from tests.support.planned_nights import PLATFORMS
from tests.support.tiny_image import CONFIG, layer


def test_the_report_of_one_image_goes_when_an_index_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    base = [layer(store, "base", {"etc": None})]
    options = BuildOptions(
        tmp_path / "tiny.yaml", tmp_path / "repositories.yaml", output=tmp_path / "output", smoke=False
    )
    each = [replace(options, architectures=(arch,), member=True) for arch in ("x86_64", "aarch64")]
    images = {
        "x86_64": make_image("tiny", "1.0", replace(CONFIG, architecture="amd64"), base),
        "aarch64": make_image("tiny", "1.0", replace(CONFIG, architecture="arm64"), base),
    }
    monkeypatch.setattr(build_index, "_for_each", lambda _: each)
    monkeypatch.setattr(build_index, "load_recipe", lambda *_: SimpleNamespace(name="tiny"))
    monkeypatch.setattr(
        build_index, "build", lambda one, _: SimpleNamespace(image=images[one.architectures[0]], layout=one.output)
    )
    for name in ("tiny.report", "tiny.x86_64.report"):
        (tmp_path / "output" / name).mkdir(parents=True)
        (tmp_path / "output" / name / "evidence.json").write_bytes(b"{}")
    for _ in range(2):
        made = build_architectures(options, BuildEnvironment(store, QUIET, {}, lambda: 0.0))
        assert len(read_layout_index(made.layout)) == 2
        assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["tiny", "tiny.x86_64.report"]


ARCHITECTURES = ("x86_64", "aarch64")


@pytest.mark.parametrize(
    ("taken", "code"),
    [
        *((name, "not-a-layout") for name in ("tiny", "tiny.aarch64")),
        *((f"{name}.report", "not-a-report") for name in ("tiny", "tiny.aarch64")),
    ],
)
def test_nothing_is_built_where_one_layout_cannot_be_written(
    taken: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = BuildOptions(tmp_path / "tiny.yaml", tmp_path / "p.yaml", output=tmp_path / "output", smoke=False)
    each = [replace(options, architectures=(arch,), member=True) for arch in ("x86_64", "aarch64")]
    monkeypatch.setattr(build_index, "_for_each", lambda _: each)
    monkeypatch.setattr(build_index, "load_recipe", lambda *_: SimpleNamespace(name="tiny"))
    monkeypatch.setattr(build_index, "build", lambda *_: pytest.fail("work was done"))
    (tmp_path / "output" / taken).mkdir(parents=True)
    (tmp_path / "output" / taken / "mine").touch()
    with pytest.raises(UsageError) as caught:
        build_architectures(options, BuildEnvironment(Store.open(tmp_path / "store"), QUIET, {}, lambda: 0.0))
    assert caught.value.code == code and str(caught.value.problems[0].place).endswith(taken)
    assert (tmp_path / "output" / taken / "mine").exists()


@pytest.mark.parametrize("architectures", [("x86_64", "aarch64"), ("x86_64",)])
def test_no_layout_of_another_product_is_replaced_by_that_of_a_member_nor_by_a_product_of_its_name(
    architectures: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    several = len(architectures) > 1
    product, other = ("tiny", "tiny.x86_64") if several else ("tiny.x86_64", "tiny")
    options = BuildOptions(tmp_path / "tiny.yaml", tmp_path / "p.yaml", output=tmp_path / "output", smoke=False)
    each = [replace(options, architectures=(arch,), member=several) for arch in architectures]
    there = options.output / "tiny.x86_64"
    made = make_image(other, "1.0", CONFIG, [layer(store, "base", {"etc": None})])
    write_layout(made, store=store, target=there)
    monkeypatch.setattr(build_index, "_for_each", lambda _: each)
    monkeypatch.setattr(build_index, "load_recipe", lambda *_: SimpleNamespace(name=product))
    monkeypatch.setattr(build_index, "build", lambda *_: pytest.fail("work was done"))
    with pytest.raises(UsageError) as caught:
        build_architectures(options, BuildEnvironment(store, QUIET, {}, lambda: 0.0))
    assert (caught.value.code, caught.value.problems[0].place) == ("layout-of-another", str(there))
    assert read_layout(there).digest == made.digest


@pytest.fixture
def index(tmp_path: Path) -> tuple[BuildOptions, BuildEnvironment]:
    """A recipe of two architectures, and their images in the output."""
    store = Store.open(tmp_path / "store")
    (tmp_path / "repositories.yaml").write_text(PLATFORMS.replace("[x86_64]", "[x86_64, aarch64]"))
    text = "name: base\nversion: '1'\nplatform: el9\narchitectures: [x86_64, aarch64]\nimage: {entrypoint: [/a]}\n"
    rest = "layers: [{name: base, packages: [a]}]\nsmoke: {checks: [{name: log, log: ready}]}\n"
    (tmp_path / "base.yaml").write_text(text + rest)
    options = BuildOptions(tmp_path / "base.yaml", tmp_path / "repositories.yaml", output=tmp_path / "output")
    images = []
    for arch, name in zip(ARCHITECTURES, ("amd64", "arm64"), strict=True):
        made = [layer(store, "base", {"etc": None, "etc/arch": arch.encode()})]
        images.append(make_image("base", "1", replace(CONFIG, architecture=name), made))
        write_layout(images[-1], store=store, target=options.output / f"base.{arch}")
    write_index_layout(images, store=store, target=options.output / "base")
    return options, BuildEnvironment(store, QUIET, {}, lambda: 0.0)


@pytest.mark.parametrize(
    ("named", "expected"), [((), ["x86_64", "aarch64"]), (("aarch64",), ["aarch64"])], ids=["all", "one"]
)
def test_each_image_of_an_index_is_tested_again_with_its_own_report(
    named: tuple[str, ...],
    expected: list[str],
    index: tuple[BuildOptions, BuildEnvironment],
    journal: Journal,
) -> None:
    options, build_env = index
    journal.stand_in(build_index, build_index.smoke_image, lambda *given: ("base", "report"))
    tested = smoke_architectures(replace(options, architectures=named), build_env, None)
    assert [one.architecture for one in tested] == expected
    layouts = [call.args[0].layout("base") for call in journal.of(build_index.smoke_image)]
    assert layouts == [options.output / f"base.{arch}" for arch in expected]
    with pytest.raises(UsageError) as caught:
        smoke_architectures(replace(options, architectures=("s390x",)), build_env, None)
    assert caught.value.code == "architecture-missing" and "x86_64, aarch64" in (caught.value.problems[0].hint or "")


def test_no_image_of_an_index_is_tested_again_if_the_evidence_of_one_cannot_be_written(
    index: tuple[BuildOptions, BuildEnvironment], journal: Journal
) -> None:
    options, build_env = index
    journal.stand_in(build_index, build_index.smoke_image, lambda *given: pytest.fail("work was done"))
    taken = options.output / "base.aarch64.report"
    taken.mkdir()
    (taken / "mine").touch()
    with pytest.raises(UsageError) as caught:
        smoke_architectures(options, build_env, None)
    assert (caught.value.code, caught.value.problems[0].place) == ("not-a-report", str(taken))


def test_a_package_is_explained_for_each_architecture_and_missing_only_if_it_is_in_none(
    index: tuple[BuildOptions, BuildEnvironment], journal: Journal
) -> None:
    options, build_env = index
    plain = section(package("a-1-1.noarch"))
    every = []
    for arch, name in zip(ARCHITECTURES, ("a-1-1.noarch", "b-1-1.noarch"), strict=True):
        one = section(package(name))
        one = replace(one, resolution=replace(plain.resolution, arch=arch, chosen=one.resolution.chosen))
        every.append(SimpleNamespace(section=one, all_chosen=one.resolution.chosen))
    journal.stand_in(build_index, build_index.lock_architectures, gives=tuple(every))
    told = explain_package(options, build_env, "a")
    assert told["x86_64"].startswith("a-1-1.noarch (layer base") and told["aarch64"] == "'a' is not in the image"
    with pytest.raises(UsageError, match="'c' is not in the image"):
        explain_package(options, build_env, "c")


@pytest.mark.parametrize(
    ("native", "emulated", "expected"),
    [(("arm64",), ("amd64",), "aarch64"), (("amd64",), (), "x86_64"), (("s390x",), ("arm64",), "aarch64")],
)
def test_of_several_architectures_the_machines_own_is_run_or_one_that_it_emulates(
    native: tuple[str, ...], emulated: tuple[str, ...], expected: str, journal: Journal
) -> None:
    journal.stand_in(build_image, build_image.native_architectures, gives=native)
    journal.stand_in(build_image, build_image.emulated_architectures, gives=emulated)
    journal.stand_in(build_image, build_image.find_emulator)
    assert architecture_to_run(ARCHITECTURES) == expected


def test_what_is_run_of_a_recipe_of_several_is_the_image_of_that_architecture(
    index: tuple[BuildOptions, BuildEnvironment], journal: Journal
) -> None:
    options, build_env = index
    journal.stand_in(build_image, build_image.native_architectures, gives=("arm64",))
    image, _ = load_or_build(options, build_env)
    assert image.config.architecture == "arm64"
    image, _ = load_or_build(replace(options, architectures=("x86_64",)), build_env)
    assert image.config.architecture == "amd64"


def test_layouts_of_indexes_are_compared_by_platform_or_for_one_architecture(
    index: tuple[BuildOptions, BuildEnvironment],
) -> None:
    options, build_env = index
    both, alone = options.output / "base", options.output / "base.aarch64"
    assert compare_images(both, both, build_env).same
    found = compare_images(both, alone, build_env)
    assert [image.platform for image in found.images] == ["linux/arm64"] and found.only_before == ("linux/amd64",)
    assert compare_images(both, alone, build_env, arch="aarch64").same
    digest, images = read_layout_images(both)
    assert digest == compare_images(both, both, build_env).before and len(images) == 2
    with pytest.raises(UsageError) as caught:
        choose_image(images, "", str(both))
    assert caught.value.code == "several-images" and "--arch: x86_64, aarch64" in (caught.value.problems[0].hint or "")


def test_a_recipe_for_no_architecture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No recipe is loaded that has none; what would be made of one must not be nothing, in silence."""
    monkeypatch.setattr(build_index, "load_recipe", lambda *_: SimpleNamespace(name="r", architectures=()))
    monkeypatch.setattr(build_index, "choose_platform", lambda *_: SimpleNamespace(name="p", architectures=("x86_64",)))
    options = BuildOptions(tmp_path / "r.yaml", tmp_path / "repositories.yaml")
    with pytest.raises(UsageError, match="lists 0"):
        build_index.lock_architectures(options, BuildEnvironment(Store.open(tmp_path / "s"), QUIET, {}, lambda: 0.0))
