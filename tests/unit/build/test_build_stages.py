"""The stages of a build on values: what each asks of the rooms below, and what it makes of the answers."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.build import build_stages
from pipeline.build.build_report import DraftedDocuments
from pipeline.build.image_warnings import warn_of_oddities
from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.errors import BuildError, RecipeError
from pipeline.layers import BuiltLayer
from pipeline.layers.state_plan import StatePlan
from pipeline.layers.state_preparation import StatePreparation
from pipeline.layers.unpacking_children import UnpackingChildren
from pipeline.model.accounts import AccountTable
from pipeline.model.bill import Bill, BilledLayer, BuildRecord
from pipeline.model.change import Change
from pipeline.model.configuration import BASE_DIGEST
from pipeline.model.header import FileRecord
from pipeline.model.image import Descriptor, Image, ImageConfig
from pipeline.model.lock import LockSection
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.model.recipe import Group, ImagePlan, LayerPlan, Request, User
from pipeline.model.resolution import Chosen, Resolution
from pipeline.model.scriptlets import ScriptletFailure, ScriptletName, ScriptletRules, ToleratedFailure, Waiver
from pipeline.model.smoke import Neighbours, SmokePlan
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.oci import make_image, media_types
from pipeline.smoke import plan_digest
from pipeline.transfer import Download
from pipeline.trees import STATE_NOT_INSTALLED
from tests.support.bills import AWKWARD
from tests.support.builds import NOBODY, build_env, header, image, layer, locked, order, package, parent, recipe
from tests.support.journal import Journal, Told
from tests.support.tiny_image import CONFIG


def file(path: str, content: str = "x", mode: int = 0o100644) -> FileRecord:
    return FileRecord(path, mode, "root", "root", len(content), 5, Digest.of(content.encode()))


# --- layers ------------------------------------------------------------------------------------------------


def two_layers(folder: Path) -> Any:
    """A recipe of two layers: `a` in the lower one, `b` and `c` in the upper, without documentation."""
    plans = (LayerPlan("lower", ()), LayerPlan("upper", (), docs=False, man=False))
    nevras = ("a-1-1.noarch", "b-1-1.noarch", "c-1-1.noarch")
    chosen = tuple(Chosen(package(one), "lower" if one.startswith("a") else "upper", ()) for one in nevras)
    found = LockSection(Resolution("el9", "x86_64", chosen, nevras[::-1]), (), 5)
    made = locked(recipe(folder, "demo", *plans), *nevras, section=found)
    return replace(made, headers=tuple(header(one, file(f"/usr/share/doc/{one}")) for one in nevras[::-1]))


def test_layers_are_composed_from_headers_in_the_recipes_order_with_their_options(
    tmp_path: Path, journal: Journal
) -> None:
    journal.stand_in(build_stages, build_stages.compose, gives="composition")
    below = parent("base", "z-1-1.noarch")
    assert build_stages.compose_layers(replace(two_layers(tmp_path), parent=below)) == "composition"
    plans, accounts, options = journal.last(build_stages.compose).args
    assert [(name, [one.nevra.name for one in headers]) for name, headers in plans] == [
        ("lower", ["a"]),
        ("upper", ["b", "c"]),
    ]
    assert accounts is NOBODY
    assert options.docs == {"lower": True, "upper": False} and options.man == options.docs
    assert options.below is below.tree and options.installed == below.packages


def test_what_packages_disagree_about_is_refused_before_anything_is_packed(tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    clash = tuple(replace(one, files=(file("/etc/it", one.nevra.name),)) for one in made.headers)
    root = AccountTable((User("root", 0),), (Group("root", 0),))
    with pytest.raises(BuildError) as caught:
        build_stages.compose_layers(replace(made, headers=clash, accounts=root))
    assert {problem.code for problem in caught.value.problems} == {"file-conflict"}


def test_each_layer_is_packed_with_the_orders_codec(tmp_path: Path, journal: Journal) -> None:
    journal.stand_in(build_stages, build_stages.building_layers, lambda composed, **more: [c.upper() for c in composed])
    journal.stand_in(build_stages, build_stages.may_make_containers, gives=True)
    here = build_env(tmp_path)
    composition: Any = SimpleNamespace(layers=("lower", "upper"))
    copies = here.store.copies_for(tmp_path)
    children, wanted = UnpackingChildren(), order(tmp_path, compression=Compression.ZSTD)
    packed: Any = build_stages.packing_layers(
        composition, wanted, here, others=7, making=print, copies=copies, children=children
    )
    assert packed == ["LOWER", "UPPER"]
    given = journal.last(build_stages.building_layers).options
    assert given["compression"] is Compression.ZSTD and given["store"] is here.store
    assert given["others"] == 7 and given["making"] is print and given["copies"] is copies
    assert given["children"] is children
    assert given["unpack"], "scriptlets run in containers on the trees"


@pytest.mark.parametrize("containers", [True, False])
def test_packages_are_unpacked_beside_threads_only_into_trees(
    tmp_path: Path, journal: Journal, containers: bool
) -> None:
    journal.stand_in(build_stages, build_stages.unpacking_children, lambda *_: nullcontext())
    journal.stand_in(build_stages, build_stages.may_make_containers, gives=containers)
    here, composition = build_env(tmp_path), cast("Any", SimpleNamespace(layers=("lower", "upper")))
    with build_stages.forking_children(composition, order(tmp_path, compression=Compression.ZSTD), here):
        assert ("unpacking_children" in journal.names) == containers
    if containers:
        given = journal.last(build_stages.unpacking_children).args
        assert given == (("lower", "upper"), Compression.ZSTD, here.store, here.progress)


def test_templates_know_packages_by_the_recipes_names_where_the_platform_has_others(tmp_path: Path) -> None:
    names = (("bash", ("sh-vendor",)), ("none", ()), ("server", ("vendor-server", "vendor-common")))
    made = locked(recipe(tmp_path, package_names=names), "vendor-server-8.4-1.x86_64", "bash-5-1.x86_64")
    packages: Any = build_stages.template_variables(made)["packages"]
    assert set(packages) == {"bash", "server", "vendor-server"}
    assert packages["server"] == packages["vendor-server"] and packages["server"]["version"] == "8.4"


def test_the_layers_that_were_not_made_anew_are_named_with_those_of_the_parent(tmp_path: Path) -> None:
    made = replace(locked(recipe(tmp_path)), parent=parent("base"))
    layers = [BuiltLayer.packed(layer("base"), reused=False), BuiltLayer.packed(layer("product"), reused=True)]
    state: Any = SimpleNamespace(reused=True)
    assert build_stages.reused_layers(made, layers, state) == ("base/base", "base/state", "product", "state")
    fresh: Any = SimpleNamespace(reused=False)
    assert build_stages.reused_layers(locked(recipe(tmp_path)), layers, fresh) == ("product",)


# --- files -------------------------------------------------------------------------------------------------


def test_templates_see_values_and_every_package_of_the_image(tmp_path: Path) -> None:
    made = locked(recipe(tmp_path, values=(("port", 80),)), "bash-1:5.2-3.x86_64")
    facts = build_stages.template_variables(replace(made, parent=parent("base", "glibc-2-1.x86_64")))
    assert facts["port"] == 80
    packages: Any = facts["packages"]
    assert list(packages) == ["glibc", "bash"]
    assert packages["bash"] == {
        "name": "bash",
        "epoch": 1,
        "version": "5.2",
        "release": "3",
        "evr": "1:5.2-3",
        "arch": "x86_64",
        "nevra": "bash-1:5.2-3.x86_64",
    }


def test_a_file_by_url_is_fetched_when_the_store_has_no_sound_one(tmp_path: Path, journal: Journal) -> None:
    here = build_env(tmp_path, offline=True)
    digest = here.store.put(b"content")
    wanted = Download(("https://example.invalid/it",), digest, None, "it")
    blob = here.store.blob(digest)
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    journal.stand_in(build_stages, build_stages.fetch, lambda store, wanted, **more: (store.put(b"content"),))
    assert build_stages.url_fetcher(here)(wanted) == b"content"
    assert journal.last(build_stages.fetch).args[1] == [wanted] and journal.last(build_stages.fetch).options["offline"]
    assert blob.read_bytes() == b"content", "the damaged one did not count"


# --- state -------------------------------------------------------------------------------------------------


def test_the_state_is_made_above_all_layers_from_paths_as_they_are_in_the_tree(
    tmp_path: Path, journal: Journal
) -> None:
    journal.stand_in(build_stages, build_stages.build_state_layer, gives="state")
    below = parent("base", "z-1-1.noarch")
    made = locked(recipe(tmp_path, remove=("/tmp/*",)), "a-1-1.x86_64")
    made = replace(made, headers=(header("a-1-1.x86_64", file("/usr/bin/a"), file("/etc/a")),), parent=below)
    composition: Any = SimpleNamespace(tree=below.tree, states={"a-1-1.x86_64": (0, 1)})
    here = build_env(tmp_path)
    files: Any = ("a file",)
    packed = [BuiltLayer.packed(layer("product"), reused=False)]
    plan, prepared = StatePlan((), None), StatePreparation(Path, lambda: None, ThreadPoolExecutor(1))
    options = order(tmp_path, compression=Compression.ZSTD)
    state = build_stages.add_state(
        made, composition, packed, files, plan, prepared=prepared, options=options, build_env=here
    )
    (inputs, rules, given), options = (
        journal.last(build_stages.build_state_layer).args,
        journal.last(build_stages.build_state_layer).options,
    )
    assert state == "state" and given is plan
    assert [one.name for one in inputs.layers] == ["base/base", "base/state", "product"]
    assert inputs.paths == {"z-1-1.noarch": (), "a-1-1.x86_64": ("usr/bin/a", "etc/a")}
    assert rules is made.recipe.scriptlets
    assert inputs.headers == made.headers and inputs.below == below.packages, "the parent's scripts ran already"
    assert (inputs.files, inputs.remove, inputs.build_time) == (files, ("/tmp/*",), made.section.build_time)
    assert options["compression"] is Compression.ZSTD and options["store"] is here.store
    assert options["prepared"] is prepared


def test_the_last_layer_is_prepared_for_the_files_that_stay_and_nothing_is_opened_before(
    tmp_path: Path, journal: Journal
) -> None:
    journal.stand_in(build_stages, build_stages.write_package_records, gives=tmp_path)
    below = parent("base", "z-1-1.noarch")
    made = locked(recipe(tmp_path, remove=("/etc/*",)), "a-1-1.x86_64")
    made = replace(made, headers=(header("a-1-1.x86_64", file("/usr/bin/a"), file("/etc/a")),), parent=below)
    tree = Tree.of({"etc/a": Entry("etc/a", EntryKind.FILE, 0o644)})
    composition: Any = SimpleNamespace(tree=tree, states={"a-1-1.x86_64": (0, 0), "z-1-1.noarch": ()})
    here = build_env(tmp_path)
    with build_stages.preparing_last_layer(made, composition, here) as prepared:
        assert "write_package_records" not in journal.names
        assert prepared.database() == tmp_path
    (installed, states, _), options = (
        journal.last(build_stages.write_package_records).args,
        journal.last(build_stages.write_package_records).options,
    )
    assert [(one.nevra.name, when) for one, when in installed] == [
        ("z", below.packages[0].install_time),
        ("a", made.section.build_time),
    ]
    assert states["a-1-1.x86_64"] == (0, STATE_NOT_INSTALLED)
    assert options["form"] is made.platform.rpm_database.format and options["store"] is here.store


def test_a_change_of_the_parents_that_is_changed_again_is_told_once(tmp_path: Path) -> None:
    first, second = Change("etc/a", "a-1", "%post of a"), Change("etc/b", "b-1", "%post of b")
    again = Change("etc/a", "a-1", "files of 'demo'")
    made = replace(locked(recipe(tmp_path)), parent=parent("base", changes=(first, second)))
    assert build_stages.all_changes(made, (again,)) == (second, again)
    assert build_stages.all_changes(locked(recipe(tmp_path)), (again,)) == (again,)


# --- image -------------------------------------------------------------------------------------------------


def test_version_and_settings_are_evaluated_after_the_lock(tmp_path: Path) -> None:
    plain = recipe(tmp_path, image=ImagePlan(entrypoint=("/{{ packages['bash'].name }}",)), end_of_life="2030-01-31")
    made = locked(replace(plain, version="{{ packages['bash'].evr }}"), "bash-1:5.2~rc1-3.x86_64")
    one = build_stages.configure_image(made).with_layers([layer("base"), layer("state")])
    assert one.reference == "1-5.2-rc1-3" and one.config.entrypoint == ("/bash",)
    assert dict(one.config.labels)[media_types.VERSION] == "1:5.2~rc1-3"
    assert one.config.created == made.section.build_time and one.config.architecture == "amd64"
    assert json.loads(one.manifest_bytes)["annotations"][media_types.END_OF_LIFE] == "2030-01-31"


def test_a_child_names_its_parents_digest_and_has_what_it_does_not_say_itself(tmp_path: Path) -> None:
    config = ImageConfig("amd64", 1, entrypoint=("/parents",), command=("--all",), user="parent")
    above = parent("base", image=replace(image("base"), config=config))
    plain = recipe(tmp_path, image=ImagePlan(user="child", given=frozenset({"user"})))
    one = build_stages.configure_image(replace(locked(plain), parent=above)).with_layers([layer("state")])
    assert (one.config.user, one.config.entrypoint, one.config.command) == ("child", ("/parents",), ("--all",))
    assert json.loads(one.manifest_bytes)["annotations"][BASE_DIGEST] == str(above.digest)


def test_a_template_that_asks_for_a_package_that_is_not_there_is_named_with_its_recipe(tmp_path: Path) -> None:
    made = locked(recipe(tmp_path))
    wrong = replace(made, recipe=replace(made.recipe, version="{{ packages['gone'].version }}"))
    with pytest.raises(RecipeError) as caught:
        build_stages.configure_image(wrong)
    assert caught.value.problems[0].place == str(made.recipe.path), "the text is in no line of the file"
    made.recipe.path.write_text("name: demo\nversion: \"{{ packages['gone'].version }}\"\n")
    with pytest.raises(RecipeError) as caught:
        build_stages.configure_image(wrong)
    assert caught.value.problems[0].place == f"{made.recipe.path.name}:2"


def test_a_text_of_several_lines_is_placed_at_its_template(tmp_path: Path) -> None:
    made = locked(recipe(tmp_path, image=ImagePlan(environment=("A=first\n{{ gone }}\n",))))
    made.recipe.path.write_text("image:\n  environment:\n    A: |\n      first\n      {{ gone }}\n")
    with pytest.raises(RecipeError) as caught:
        build_stages.configure_image(made)
    assert caught.value.problems[0].place == f"{made.recipe.path.name}:5"


@pytest.mark.parametrize(("value", "made"), [("", "no text"), (" \n", "no text"), ("1\n2", "several lines")])
def test_a_version_is_one_line(value: str, made: str, tmp_path: Path) -> None:
    plan = recipe(tmp_path, values=(("release", value),))
    plan.path.write_text("name: demo\nversion: '{{ release }}'\n")
    with pytest.raises(RecipeError) as caught:
        build_stages.configure_image(locked(replace(plan, version="{{ release }}")))
    (problem,) = caught.value.problems
    assert (problem.code, problem.place) == ("version-malformed", f"{plan.path.name}:2")
    assert problem.message == f"the version '{{{{ release }}}}' makes {made}"


def test_white_space_around_a_version_is_not_of_it(tmp_path: Path) -> None:
    made = locked(replace(recipe(tmp_path, values=(("release", "1.2\n"),)), version="{{ release }}"))
    one = build_stages.configure_image(made)
    assert one.reference == "1.2" and dict(one.config.labels)[media_types.VERSION] == "1.2"


def test_a_layer_that_is_still_packed_is_drafted_with_a_random_digest() -> None:
    packing = replace(BuiltLayer.packed(layer("product"), reused=False), blob=Future())
    known = BuiltLayer.packed(layer("base"), reused=True)
    first, again = (build_stages.draft_layers([known, packing], Compression.ZSTD) for _ in range(2))
    assert first[0] == known.layer and first[1].blob.digest != again[1].blob.digest
    assert first[1].blob.media_type == media_types.LAYERS[Compression.ZSTD]
    packing.blob.set_result(layer("product").blob)
    assert replace(first[1], blob=packing.blob.result()) == packing.layer
    assert build_stages.draft_layers([known, packing], Compression.ZSTD) == [known.layer, packing.layer]


def test_drafted_documents_are_completed_with_the_digests_of_the_image() -> None:
    image = make_image("demo", "1", CONFIG, [layer("base"), layer("state")])
    blob = Descriptor("layer", Digest.of(b"no blob"), 0)
    other = make_image("demo", "1", CONFIG, [replace(layer("base"), blob=blob), layer("state")])
    assert other.digest != image.digest

    def described(one: Image) -> tuple[Bill, BuildRecord]:
        layers = tuple(BilledLayer(each.name, each.diff_id, each.blob.digest, each.blob.size) for each in one.layers)
        bill = replace(AWKWARD, digest=one.digest, config=one.config_descriptor.digest, layers=layers)
        made_from = Material("demo.yaml", "", Digest.of(b"recipe"), MaterialKind.RECIPE)
        return bill, BuildRecord(one.digest, Provenance(made_from, (), "el9", "x86_64", "1"), Digest.of(b"checks"))

    assert DraftedDocuments.of(*described(other)).complete(image) == described(image)


# --- tests -------------------------------------------------------------------------------------------------


def test_an_image_is_tested_as_the_order_says_beside_its_recipe(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.stand_in(build_stages, build_stages.run_tests, gives="tested")
    progress = Told()
    here = build_env(tmp_path, progress=progress)
    monkeypatch.setattr(type(here), "launching", lambda self: "launcher")
    plan = SmokePlan(instances=3)
    asked = order(tmp_path, retest=True, full=True)
    assert build_stages.smoke_test(image(), recipe(tmp_path, smoke=plan), asked, here, None) == "tested"
    call = journal.last(build_stages.run_tests)
    assert call.args == (image(), plan)
    assert call.options == {
        "store": here.store,
        "sandboxes": "launcher",
        "progress": progress,
        "clock": here.clock,
        "again": True,
        "full": True,
        "folder": tmp_path,
        "holding": None,
    }


@pytest.mark.parametrize("full", [False, True])
def test_the_record_has_the_checks_that_were_asked_and_no_others(full: bool, tmp_path: Path) -> None:
    plan = SmokePlan(neighbours=Neighbours())
    made = locked(recipe(tmp_path, smoke=plan), "a-1-1.noarch")
    inputs = build_stages.build_inputs(made, (tmp_path / "t.j2",), order(tmp_path, full=full))
    assert inputs.checks == plan_digest(plan if full else replace(plan, neighbours=None))
    assert inputs.templates == (tmp_path / "t.j2",) and inputs.headers == made.headers
    assert inputs.section is made.section and inputs.lock == made.path


def test_scriptlets_that_failed_are_judged_by_the_recipe_warned_of_and_returned_with_the_parents(
    tmp_path: Path,
) -> None:
    failed = ScriptletFailure("a-1-1.noarch", "a", ScriptletName.POST, "scriptlet-failed", "%post of a failed")
    before = ToleratedFailure("z-1-1.noarch", ScriptletName.POST, "%post of z failed", "why not")
    waivers = (Waiver("a", ScriptletName.POST, "because"), Waiver("b", ScriptletName.PRE, "gone", "demo.yaml:7"))
    lenient = recipe(tmp_path, scriptlets=ScriptletRules(waivers=waivers))
    made = replace(locked(lenient), parent=replace(parent("base"), failed_scriptlets=(before,)))
    state: Any = SimpleNamespace(failures=(failed,))
    warned: list[str] = []
    here = replace(build_env(tmp_path), progress=SimpleNamespace(warn=warned.append))
    let_through, unused = build_stages.judge_scriptlets(made, state, here)
    assert let_through == (before, ToleratedFailure("a-1-1.noarch", ScriptletName.POST, failed.message, "because"))
    assert unused == ("demo.yaml:7: the waiver of %pre of b matches no failure: remove it",)
    assert warned == ["%post of a failed (waived: because)", *unused]
    with pytest.raises(BuildError, match="%post of a failed"):
        build_stages.judge_scriptlets(locked(recipe(tmp_path)), state, here)


# --- what a build warns of -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "smoke", "warned"),
    [("demo", False, False), ("root:demo", False, False), ("77", False, False), ("", False, False),
     ("nobdy", False, True), ("nobdy:root", False, True), ("nobdy", True, False)],
)  # fmt: skip
def test_a_user_that_nothing_makes_is_warned_of_where_no_test_would_find_it(
    user: str, smoke: bool, warned: bool, tmp_path: Path
) -> None:
    told = Told()
    accounts = AccountTable((User("root", 0), User("demo", 7)), (Group("root", 0),))
    made = replace(two_layers(tmp_path), accounts=accounts)
    full = replace(made, recipe=replace(made.recipe, layers=()))
    here = build_env(tmp_path, progress=told)
    warn_of_oddities(image("demo", user=user), full, order(tmp_path, smoke=smoke), here)
    assert [("image.user 'nobdy'" in one, "'accounts'" in one) for one in told.warnings] == [(True, True)] * warned


def test_a_layer_without_packages_is_warned_of(tmp_path: Path) -> None:
    told = Told()
    plans = (LayerPlan("tools", ()), LayerPlan("all", (Request("a", "demo.yaml:1"),)))
    made = locked(recipe(tmp_path, "demo", *plans))
    warn_of_oddities(image(), made, order(tmp_path), build_env(tmp_path, progress=told))
    (warning,) = told.warnings
    assert warning.startswith("demo.yaml: the layer 'tools' is empty on the platform ")


def test_a_layer_whose_packages_are_all_in_lower_ones_is_warned_of(tmp_path: Path) -> None:
    told = Told()
    plans = (LayerPlan("base", (Request("a", "demo.yaml:1"),)), LayerPlan("upper", (Request("a", "demo.yaml:2"),)))
    made = locked(recipe(tmp_path, "demo", *plans))
    layers = (replace(layer("base"), contents=("a-1-1.noarch",)), layer("upper"), layer("state"))
    warn_of_oddities(replace(image(), layers=layers), made, order(tmp_path), build_env(tmp_path, progress=told))
    (warning,) = told.warnings
    assert warning.startswith("demo.yaml: the layer 'upper' has no package of its own: all that it requests is in ")
