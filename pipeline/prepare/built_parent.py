"""Conversion of an image that was just built to the `ParentImage` of a child's build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.layers import parent_tree_and_accounts
from pipeline.model.change import Change
from pipeline.model.image import Image
from pipeline.model.parent_image import InstalledPackage, ParentImage, layer_in_child
from pipeline.model.scriptlets import ToleratedFailure
from pipeline.model.tree import Tree
from pipeline.prepare.locked_recipe import LockedRecipe
from pipeline.store import Store


def as_parent(
    image: Image,
    locked: LockedRecipe,
    lower: Tree,
    *,
    states: Mapping[str, tuple[int, ...]],
    changes: Sequence[Change],
    failed_scriptlets: tuple[ToleratedFailure, ...] = (),
    store: Store,
) -> ParentImage:
    """Return an image that was built from `locked` as the parent of another one.

    `lower` is the tree of its layers but the last; `states` are rpm's states of the files of all packages, by NEVRA, as
    in its database, `changes` the package content that was changed in it, and `failed_scriptlets` those that were let
    through.
    """
    name = image.name
    tree, accounts = parent_tree_and_accounts(lower, image.layers[-1], locked.accounts, store=store)
    chosen = {str(one.package.nevra): one for one in locked.section.resolution.chosen}
    new = [
        InstalledPackage(header, chosen[str(header.nevra)], (), locked.section.build_time) for header in locked.headers
    ]
    packages = [
        replace(
            one,
            chosen=replace(one.chosen, layer=layer_in_child(one.chosen.layer, name)),
            states=states[str(one.header.nevra)],
        )
        for one in (*(locked.parent.packages if locked.parent else ()), *new)
    ]
    layers = tuple(replace(layer, name=layer_in_child(layer.name, name)) for layer in image.layers)
    before = locked.parent.changes if locked.parent else ()
    return ParentImage(
        image=replace(image, layers=layers),
        packages=tuple(packages),
        tree=tree,
        accounts=accounts,
        build_time=locked.section.build_time,
        changes=tuple(
            change if change in before else replace(change, cause=f"{change.cause}, in the image '{name}'")
            for change in changes
        ),
        failed_scriptlets=failed_scriptlets,
    )
