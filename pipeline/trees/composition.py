"""Data classes for the options and the result of `compose`, and rpm's file states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.package import Nevra
from pipeline.model.parent_image import InstalledPackage
from pipeline.model.tree import Entry, Tree

STATE_NORMAL = 0
STATE_REPLACED = 1
STATE_NOT_INSTALLED = 2
STATE_NET_SHARED = 3
STATE_WRONG_COLOR = 4
"""RPMFILE_STATE_* (rpm, include/rpm/rpmfi.h)."""

TRANSACTION_COLOR = 3
"""rpm's configuration `_transaction_color` on multilib architectures."""

_EMPTY = Tree.of({})


def install_color(arch: str) -> int:
    """Return RPMTAG_INSTALLCOLOR as rpm sets it on `arch` (rpm, platform files)."""
    return TRANSACTION_COLOR if arch in ("x86_64", "s390x", "ppc64", "sparc64") else 0


@dataclass(frozen=True, slots=True)
class ComposeOptions:
    """The options of `compose`.

    `docs`, `man`: layer name → whether they are installed (missing: yes). `languages`: the locales to install, none for
    all. `below`: the tree of a parent image, state layer included. `installed`: its packages, which claim their files
    like packages of a layer below all others. The order of the transaction is no option: the content of a layer must
    not depend on the layers above.
    """

    docs: Mapping[str, bool] = field(default_factory=dict)
    man: Mapping[str, bool] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    below: Tree = field(default_factory=lambda: _EMPTY)
    installed: tuple[InstalledPackage, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """The entries that one package emits into its layer.

    `entries` are (index of the file in the header, entry), sorted by path. There are no directories among them; of hard
    links the first path is the file and the others name it.
    """

    nevra: Nevra
    checksum: Digest
    entries: tuple[tuple[int, Entry], ...]


@dataclass(frozen=True, slots=True)
class ComposedLayer:
    """One layer before it is made.

    `directories` are all parents of its entries and all that its packages own, with the modes and owners
    that they have in the image up to this layer, sorted. `parts` are sorted by NEVRA; a package that emits
    nothing is in `contents` (all NEVRAs, sorted) only. `build_time` is the newest of its packages, and the
    directories' mtime.
    """

    name: str
    directories: tuple[Entry, ...]
    parts: tuple[Part, ...]
    contents: tuple[str, ...]
    build_time: int


@dataclass(frozen=True, slots=True)
class Composition:
    """The result of `compose`: all layers, and their tree together.

    The tree includes the parent's (`below`). `states` are rpm's states of every file by NEVRA (those of `installed`
    too), and `build_time` is the newest build time of a layer.
    """

    layers: tuple[ComposedLayer, ...]
    tree: Tree
    states: Mapping[str, tuple[int, ...]]
    build_time: int
