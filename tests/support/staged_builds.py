"""Builds whose stages are stand-ins: what was called, in which order, and with what."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.build import build_image
from pipeline.layers import BuiltLayer
from pipeline.layers.recipe_files import ReadTemplates
from pipeline.layers.unpacking_children import UnpackingChildren
from pipeline.model.image import Image, Layer
from pipeline.model.recipe import Recipe
from pipeline.model.smoke import SmokePlan
from pipeline.model.tree import Tree
from pipeline.prepare import LockedRecipe
from tests.support.builds import build_env, image, layer, locked, parent, recipe, section
from tests.support.journal import Journal

LOCK = [
    "build_parent",
    "plan_lock",
    "retry_if_changed",
    "resolve",
    "fetch_and_verify",
    "number_owners",
    "group_layers",
    "keep_lock",
]
IMAGE = [
    *("compose_layers", "obtain_files", "forking_children", "preparing_last_layer", "packing_layers"),
    *("add_state", "configure_image"),
]
OUTPUT = [
    *("writing_layout", "make_bill", "make_build_record", "make_documents", "smoke_test"),
    "write_build_report",
]
BESIDE = ("plan_state", "render_recipe_files")
"""What goes on while the layers are packed."""
BESIDE_SCRIPTS = ("begin_documents", "draft_layers")
"""What may go on until the image is made."""

READING = ("load_recipe", "begin_rendering", "recipe_name", "read_layout_images", "built_platform", "choose_platform")

TREE = Tree.of({})
PACKED = [
    BuiltLayer.packed(layer("base"), reused=True),
    BuiltLayer.packed(layer("product"), reused=False),
]
BILLED = ("billed",)
CHILDREN = UnpackingChildren()
PREPARED = SimpleNamespace(begin=lambda: None)
STATE = SimpleNamespace(layer=layer("state"), changes=(), failures=(), states={"a": (0,)}, reused=False)


class World:
    """Recipes in a folder, and stand-ins for all stages."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder, self.journal = folder, journal
        self.build_env = build_env(folder)
        self.recipes: dict[str, Recipe] = {"demo": recipe(folder)}
        self.layers: list[list[Layer]] = []
        self.verdict: Any = SimpleNamespace(passed=True)
        self.on_other, self.built_for = replace(recipe(folder), smoke=SmokePlan(instances=7)), "el9"
        stages: dict[Any, Any] = {
            build_image.load_recipe: lambda path, target: (
                self.on_other if target.name == "other" else self.recipes[path.stem]
            ),
            build_image.recipe_name: lambda path: path.stem,
            build_image.read_layout_images: lambda layout: (None, (image(layout.name),)),
            build_image.built_platform: lambda folder, digest: self.built_for,
            build_image.choose_platform: lambda recipe, options: SimpleNamespace(full_name=options.platform),
            build_image.plan_lock: lambda order, build_env, parent: SimpleNamespace(order=order, parent=parent),
            build_image.resolve: lambda plan: section(),
            build_image.fetch_and_verify: lambda plan, found: ("headers", found),
            build_image.retry_if_changed: lambda plan, obtain: obtain(),
            build_image.number_owners: lambda plan, found, headers: (replace(found, build_time=1), "accounts"),
            build_image.group_layers: lambda plan, found, order: replace(found, build_time=found.build_time + 1),
            build_image.keep_lock: self._locked,
            build_image.compose_layers: lambda made: SimpleNamespace(tree=TREE, states={}),
            build_image.begin_rendering: None,
            build_image.forking_children: lambda *given: nullcontext(CHILDREN),
            build_image.packing_layers: lambda *given, **more: nullcontext(PACKED),
            build_image.preparing_last_layer: lambda *given: nullcontext(PREPARED),
            build_image.obtain_files: None,
            build_image.render_recipe_files: lambda *given: (("a file",), ReadTemplates((folder / "t.j2",))),
            build_image.plan_state: lambda *given: "plan",
            build_image.begin_documents: lambda *given: BILLED,
            build_image.add_state: lambda *given, **more: STATE,
            build_image.configure_image: self._configured,
            build_image.draft_layers: lambda layers, compression: [one.layer for one in layers],
            build_image.obtain_sources: lambda *given: ("a source package",),
            build_image.writing_layout: lambda *given, **more: nullcontext(),
            build_image.make_bill: lambda *given, **more: "bill",
            build_image.make_build_record: lambda *given: "record",
            build_image.make_documents: lambda *given: (("bill.json", b"{}"),),
            build_image.smoke_test: lambda *given: SimpleNamespace(report=self.verdict, evidence=None, reused=False),
            build_image.write_build_report: None,
            build_image.as_parent: lambda made, *given, **more: parent(made.name),
            build_image.load_layout_image: lambda layout, store: image(layout.name),
        }
        for stage, does in stages.items():
            journal.stand_in(build_image, stage, does)

    def _locked(self, plan: Any, found: Any, headers: Any, accounts: Any, mode: Any) -> LockedRecipe:
        return replace(locked(self.recipes[plan.order.recipe.stem]), section=found, parent=plan.parent)

    def _configured(self, made: LockedRecipe) -> Any:
        def with_layers(layers: list[Layer]) -> Image:
            self.layers.append(layers)
            return image(made.recipe.name)

        return SimpleNamespace(with_layers=with_layers)

    def failing(self, stage: Any, error: Exception) -> None:
        """Let a stage raise."""

        def fail(*given: Any, **more: Any) -> None:
            raise error

        self.journal.stand_in(build_image, stage, fail)

    def stages(self) -> list[str]:
        """What was called, but for reading recipes and what goes on beside."""
        return [name for name in self.journal.names if name not in (*READING, *BESIDE, *BESIDE_SCRIPTS)]

    def child(self) -> None:
        """The recipe `demo` is built from `base` from now on."""
        base = recipe(self.folder, "base")
        self.recipes |= {"base": base, "demo": replace(self.recipes["demo"], parent=base)}
