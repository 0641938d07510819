"""Plan the rules on failing scriptlets of a recipe and its includes."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.model.scriptlets import ScriptletMode, ScriptletRules, Waiver
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.recipes.requests import PACKAGE_NAME
from pipeline.yaml_documents import DocumentPath


def plan_scriptlets(sources: Sequence[RecipeFile], problems: Problems) -> ScriptletRules:
    """Plan the rules of all `sources`: the last mode given, and every waiver.

    Problems: `waiver-malformed`, `waiver-duplicate`.
    """
    mode = ScriptletMode.STRICT
    waivers: dict[tuple[str, str], Waiver] = {}
    for source in sources:
        said = source.recipe.scriptlets
        if said is None:
            continue
        mode = said.mode or mode
        for index, one in enumerate(said.waive):
            path: DocumentPath = ("scriptlets", "waive", index)
            if not PACKAGE_NAME.fullmatch(one.package):
                problems.add(
                    "waiver-malformed",
                    f"'{one.package[:60]}' is not a package's name",
                    source.document,
                    (*path, "package"),
                    "write the name alone, without version and architecture",
                )
            waiver = Waiver(one.package, one.script, one.reason, place(source.document, path))
            known = waivers.setdefault((one.package, one.script), waiver)
            if known is not waiver:
                problems.add(
                    "waiver-duplicate",
                    f"duplicate waiver of {waiver.label}, first at {known.place}",
                    source.document,
                    path,
                    "remove one of them",
                )
    return ScriptletRules(mode, tuple(waivers.values()))
