"""Data classes for the differences between two images: packages, settings, files, layers.

Sizes are bytes.
"""

from __future__ import annotations

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.header import ChangelogEntry
from pipeline.model.package import Nevra
from pipeline.model.tree import Entry


@dataclass(frozen=True, slots=True)
class PackageDifference:
    """A package whose EVR differs, or that is in one image only (`before` or `after` is None).

    `changelog` are the entries that the later one has and the earlier one has not, newest first; `fixes` the
    vulnerabilities that they name.
    """

    name: str
    arch: str
    before: Nevra | None
    after: Nevra | None
    changelog: tuple[ChangelogEntry, ...] = ()
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """A setting that differs in the image's configuration.

    Its name is that of config.md (`StopSignal`, `Env.PATH`); a value of None: not there.
    """

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A path that is in one image only (`before` or `after` is None), or differs.

    `what` are the fields of Entry that differ. A hard link counts as the file that it names.
    """

    path: str
    before: Entry | None
    after: Entry | None
    what: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparedLayer:
    """A layer of the later image, lowest first.

    `shared`: the earlier one has the very same blob.
    """

    name: str
    digest: Digest
    size: int
    shared: bool


@dataclass(frozen=True, slots=True)
class ImageSize:
    """The size of an image: compressed layers, and the content of all their files."""

    compressed: int
    content: int


@dataclass(frozen=True, slots=True)
class ImageComparison:
    """One image against another.

    `platform` is the later one's (`linux/amd64`). `packages` is None where neither has an RPM database. `touched`
    counts paths whose mtime alone differs; they are not in `files`. `download` is the bytes that a client with the
    earlier one fetches: layers, configuration and manifest.
    """

    platform: str
    before: Digest
    after: Digest
    references: tuple[str, str]
    packages: tuple[PackageDifference, ...] | None
    settings: tuple[SettingDifference, ...]
    files: tuple[FileDifference, ...]
    touched: int
    layers: tuple[ComparedLayer, ...]
    dropped: tuple[ComparedLayer, ...]
    download: int
    weights: tuple[ImageSize, ImageSize]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two references: each an image, or an index of several, which are paired by platform.

    `only_before` and `only_after` are the platforms that one of them lacks.
    """

    before: Digest
    after: Digest
    images: tuple[ImageComparison, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """True if they are the same to the last byte."""
        return self.before == self.after
