"""Data classes for the parent image of a build, and the names of its layers in a child.

Made by `pipeline.prepare.built_parent`.
"""

from __future__ import annotations

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.accounts import AccountTable
from pipeline.model.change import Change
from pipeline.model.header import PackageHeader
from pipeline.model.image import Image
from pipeline.model.resolution import Chosen
from pipeline.model.scriptlets import ToleratedFailure
from pipeline.model.tree import Tree

FROM_PARENT = "/"
"""The separator in the names of layers that come from a parent, after the recipe's name: `base/state`. A recipe's own
layer cannot have it in its name."""


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """A package of a parent image.

    Its header, why it is there (the layer by its name in the child), rpm's states of its files as its database has
    them, and the time of its installation in seconds since the epoch.
    """

    header: PackageHeader
    chosen: Chosen
    states: tuple[int, ...]
    install_time: int


@dataclass(frozen=True, slots=True)
class ParentImage:
    """A built image and its contents.

    `image` has its layers by the names that they have in a child. `packages` are all its packages, those of its own
    parent too, in the order of their installation. `tree` is the combined tree of all layers, with the packages that
    own the entries, and `accounts` the names and numbers in its final passwd and group. `build_time` is in seconds
    since the epoch. `changes` are the packages' content that its scripts or recipes changed, `failed_scriptlets` the
    tolerated failures.
    """

    image: Image
    packages: tuple[InstalledPackage, ...]
    tree: Tree
    accounts: AccountTable
    build_time: int
    changes: tuple[Change, ...] = ()
    failed_scriptlets: tuple[ToleratedFailure, ...] = ()

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.image.name

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.image.digest

    @property
    def config(self) -> Digest:
        """The config's digest."""
        return self.image.config_descriptor.digest


def layer_in_child(layer: str, recipe: str) -> str:
    """Return the name of a layer of the image of `recipe` in an image that is built from it.

    A layer that came from its own parent keeps its name.
    """
    return layer if FROM_PARENT in layer else f"{recipe}{FROM_PARENT}{layer}"


def recipe_of_layer(layer: str) -> str | None:
    """Return the recipe that a layer comes from, by the layer's name; None for the image's own."""
    recipe, found, _ = layer.partition(FROM_PARENT)
    return recipe if found else None
