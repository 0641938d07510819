"""Make an image's bill of materials and the record of its build's inputs by digest.

SBOMs are made from the bill, and the gate's rules check it; provenance is made from the record of inputs. All of it
depends only on the image and its inputs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pipeline
from pipeline.compression import Compression
from pipeline.digest import Digest, canonical_json, digest_file, identity
from pipeline.layers import layer_entries
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.bill import Bill, BilledLayer, BilledPackage, BuildRecord, Privileged
from pipeline.model.header import PackageHeader
from pipeline.model.image import Image, Layer
from pipeline.model.json_form import from_json, to_json
from pipeline.model.lock import LockSection
from pipeline.model.parent_image import ParentImage
from pipeline.model.platform import Platform
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.model.recipe import FileKind, Recipe
from pipeline.model.resolution import Chosen
from pipeline.model.scriptlets import ToleratedFailure
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.oci import media_types
from pipeline.oci.purl import package_url
from pipeline.packages import named_fixes, read_changelog
from pipeline.repos import RepositoryKey
from pipeline.resolve import library_versions
from pipeline.resolve.library_versions import distribution_version
from pipeline.snapshots import START, own_files_digest
from pipeline.store import Store
from pipeline.trees import CAPABILITY_XATTR, apply_layer_entries, capability_text
from pipeline.urls import public_url

_SET_ID = 0o6000
"""Set-user-id and set-group-id, of st_mode."""


# --- the bill --------------------------------------------------------------------------------------------


def bill_packages(
    every: Sequence[Chosen], headers: Sequence[PackageHeader], *, store: Store
) -> tuple[BilledPackage, ...]:
    """Return what the bill of an image says of its packages.

    `every` are all of them, the parent's too, and `headers` theirs. The packages' changelogs are read from the store.
    Raises VerificationError for damaged content there.
    """
    by_nevra = {str(header.nevra): header for header in headers}
    packages = []
    for chosen in every:
        header = by_nevra[str(chosen.package.nevra)]
        packages.append(
            BilledPackage(
                nevra=header.nevra,
                checksum=chosen.package.checksum,
                size=chosen.package.size,
                license=_plain(header.license),
                vendor=_plain(header.vendor),
                url=_plain(header.url),
                summary=_plain(header.summary),
                source_rpm=_plain(header.source_rpm),
                repository=chosen.package.repository,
                layer=chosen.layer,
                fixes=_fixes(header.checksum, store),
            )
        )
    return tuple(sorted(packages, key=lambda one: (one.nevra, one.checksum)))


def make_bill(image: Image, packages: tuple[BilledPackage, ...], tree: Tree, *, store: Store) -> Bill:
    """Make the bill of `image` with these packages in it.

    `tree` is the tree of its layers but the last, which is read from the store. Raises VerificationError if it is
    damaged there.
    """
    return Bill(
        name=image.name,
        version=dict(image.config.labels).get(media_types.VERSION, image.reference),
        digest=image.digest,
        config=image.config_descriptor.digest,
        created=image.config.created,
        architecture=image.config.architecture,
        layers=billed_layers(image),
        packages=packages,
        privileged=_privileged(image.layers, tree, store),
    )


def billed_layers(image: Image) -> tuple[BilledLayer, ...]:
    """Return what the bill of an image says of its layers."""
    return tuple(BilledLayer(layer.name, layer.diff_id, layer.blob.digest, layer.blob.size) for layer in image.layers)


def _plain(text: str) -> str:
    """Replace bytes that are no UTF-8 and control characters in a header's text."""
    known = text.encode(errors="surrogateescape").decode(errors="replace")
    return "".join(one if one.isprintable() else " " for one in known).strip()


@dataclass(frozen=True, slots=True)
class _Fixes:
    """The fixes that a package's changelog names, as the store remembers them."""

    named: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _PrivilegedFiles:
    """The privileged files of an image, as the store remembers them."""

    files: tuple[Privileged, ...]


def _fixes(checksum: Digest, store: Store) -> tuple[str, ...]:
    name = identity("fixes", 2, package=checksum)
    known = store.recall_as(name, lambda value: from_json(_Fixes, value))
    if known is not None:
        return known.named
    found = named_fixes(read_changelog(store.blob(checksum)))
    store.remember(name, to_json(_Fixes(found)))
    return found


def _privileged(layers: Sequence[Layer], tree: Tree, store: Store) -> tuple[Privileged, ...]:
    name = identity("privileged", 2, layers=[layer.diff_id for layer in layers])
    known = store.recall_as(name, lambda value: from_json(_PrivilegedFiles, value))
    if known is not None:
        return known.files
    found = privileged_paths(tree, layer_entries(layers[-1], store=store))
    store.remember(name, to_json(_PrivilegedFiles(found)))
    return found


def privileged_paths(lower: Tree, upper: Iterator[Entry]) -> tuple[Privileged, ...]:
    """Find setuid and setgid files and files with capabilities in an image, sorted by path.

    `lower` is the tree below the last layer, `upper` the entries of that layer, which replace those below.
    """
    entries = apply_layer_entries(lower, upper).entries
    found = []
    for path, entry in entries.items():
        file = entries.get(entry.link, entry) if entry.kind is EntryKind.HARDLINK else entry
        if not (file.mode & _SET_ID or file.xattrs):  # Nearly all are nothing of the kind.
            continue
        attribute = dict(file.xattrs).get(CAPABILITY_XATTR)
        if file.kind is EntryKind.FILE and (file.mode & _SET_ID or attribute is not None):
            below = lower.get(path)
            package = entry.owner or (below.owner if below is not None else "")
            shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
            text = capability_text(attribute) if attribute is not None else ""
            found.append(Privileged(f"/{shown}", file.mode, package, text))
    return tuple(found)


# --- the record ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """The inputs of a build.

    `repositories` is the file that defines platforms, `lock` the lock file, `templates` every template file that was
    read; `checks` is the digest of the smoke plan; `failed_scriptlets` were let through, in the parent too.
    """

    recipe: Recipe
    repositories: Path
    platform: Platform
    section: LockSection
    lock: Path
    headers: tuple[PackageHeader, ...]
    keys: tuple[RepositoryKey, ...]
    templates: tuple[Path, ...]
    compression: Compression
    checks: Digest
    parent: ParentImage | None = None
    failed_scriptlets: tuple[ToleratedFailure, ...] = ()


def make_build_record(image: Image, inputs: BuildInputs) -> BuildRecord:
    """Make the record of every input of `image` by digest.

    File names are relative to the recipe's folder, and nothing depends on the host, so two builds of the same inputs
    give equal records.
    """
    recipe, section = inputs.recipe, inputs.section
    folder = recipe.path.parent
    known = dict(section.metadata)
    used = {chosen.package.repository for chosen in section.resolution.chosen}
    materials = [
        *(_file(path, folder, MaterialKind.RECIPE) for path in recipe.sources if path != recipe.path),
        *(_file(path, folder, MaterialKind.TEMPLATE) for path in sorted(set(inputs.templates))),
        *_own_files(recipe, folder),
        _file(inputs.repositories, folder, MaterialKind.REPOSITORIES),
        *([_file(inputs.lock, folder, MaterialKind.LOCK)] if inputs.lock.exists() else []),
        *_repositories(inputs.platform, known),
        *_keys(inputs.keys),
        *_packages(section, inputs.headers),
        *([_parent(inputs.parent)] if inputs.parent else []),
        own_code(),
    ]
    told = Provenance(
        recipe=_file(recipe.path, folder, MaterialKind.RECIPE),
        materials=tuple(sorted(materials, key=lambda one: (one.kind, one.name, one.uri))),
        platform=inputs.platform.full_name,
        architecture=section.resolution.arch,
        builder_version=pipeline.__version__,
        options=(("compression", str(inputs.compression)),),
        versions=tuple(sorted([*library_versions(), ("Jinja2", distribution_version("Jinja2"))])),
        # What a script printed may be another at each run of the same inputs.
        failed_scriptlets=tuple(replace(one, message="") for one in inputs.failed_scriptlets),
    )
    name = identity(
        "build",
        1,
        materials=[[one.kind, one.name, one.sha256] for one in (told.recipe, *told.materials)],
        options=told.options,
        versions=told.versions,
    )
    unknown = sorted(
        f"repomd.xml of {one.id}" for one in inputs.platform.repositories if one.id in used and one.id not in known
    )
    return BuildRecord(image.digest, replace(told, invocation=str(name)), inputs.checks, tuple(unknown))


def _file(path: Path, folder: Path, kind: MaterialKind) -> Material:
    name = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    # A file further away is not in the recipes' checkout, and its path depends on this machine.
    return Material(path.name if name.startswith("../../") else name, "", digest_file(path), kind)


def _own_files(recipe: Recipe, folder: Path) -> Iterator[Material]:
    """Yield the recipe's static files, its archives, and its files by URL."""
    for plan in recipe.files:
        if plan.kind is FileKind.SOURCE:
            yield _file(folder / plan.origin, folder, MaterialKind.FILE)
        elif plan.sha256 is not None:
            # An archive is identified by its checksum in the recipe, like a local package; its file is not read.
            name, uri = (plan.origin, "") if plan.is_beside else (plan.path, public_url(plan.origin))
            yield Material(name, uri, plan.sha256, MaterialKind.FILE)


def _repositories(platform: Platform, known: Mapping[str, Digest]) -> Iterator[Material]:
    """Yield the repomd.xml of each repository as it was when the lock was made.

    Its URL is that in the definition, before variables are expanded, because their values depend on this machine.
    """
    for one in platform.repositories:
        if one.id in known:
            place = public_url(next(iter(one.baseurls), one.metalink or one.mirrorlist or ""))
            yield Material(f"{one.id}/repodata/repomd.xml", place, known[one.id], MaterialKind.REPOMD)


def _keys(keys: Sequence[RepositoryKey]) -> Iterator[Material]:
    for key in keys:
        name = f"{key.repository}: {key.fingerprint}"
        yield Material(name, f"openpgp4fpr:{key.fingerprint}", Digest.of(key.armored), MaterialKind.KEY)


def _packages(section: LockSection, headers: Sequence[PackageHeader]) -> Iterator[Material]:
    by_nevra = {str(header.nevra): header for header in headers}
    for chosen in section.resolution.chosen:
        header = by_nevra[str(chosen.package.nevra)]
        url = package_url(header.nevra, _plain(header.vendor), _plain(header.source_rpm))
        yield Material(str(header.nevra), url.to_string(), chosen.package.checksum, MaterialKind.PACKAGE)


def _parent(parent: ParentImage) -> Material:
    """Return the parent image as a material; its own provenance has its inputs."""
    url = f"pkg:oci/{parent.name.lower()}@sha256%3A{parent.digest.hex}"
    return Material(parent.name, url, Digest(parent.digest.hex), MaterialKind.PARENT)


def prepare_own_code(store: Store, now: float) -> None:
    """Recall or make the digest of relbuild's own source, and keep it in memory for `own_code`.

    It is known again by the stamps of all own files. `now`: seconds since the epoch; what changed in the last seconds
    before is not remembered, since it could change again without another stamp. Nor is it where a file has no stamp: a
    link to nothing, as an editor's lock, or a file that has just gone.
    """
    if _own_code:
        return
    try:
        stamps, newest = own_files_digest()
    except OSError:
        own_code()
        return
    name = identity("own-code", 1, files=stamps, release=pipeline.__version__)
    known = store.recall_as(name, lambda value: from_json(Material, value))
    if known is not None and known.kind is MaterialKind.BUILDER:
        _own_code.append(known)
        return
    made = own_code()
    same = False
    with contextlib.suppress(OSError):
        same = own_files_digest() == (stamps, newest)
    if same and newest < (now - START) * 1e9:
        store.remember(name, to_json(made), sync=False)


_own_code: list[Material] = []
"""relbuild's own source, once it is known to this process."""


def own_code() -> Material:
    """Return relbuild's own source as a material: a digest of its files' names and digests."""
    if not _own_code:
        folder = Path(pipeline.__file__).parent
        files = sorted(path for path in folder.rglob("*") if path.suffix in _CODE and path.is_file())
        listed = []
        for path in files:
            with contextlib.suppress(FileNotFoundError):  # It has gone since it was listed.
                listed.append([path.relative_to(folder).as_posix(), str(digest_file(path))])
        version = pipeline.__version__
        code = Digest.of(canonical_json(listed))
        made = Material(f"relbuild {version}", f"pkg:generic/relbuild@{version}", code, MaterialKind.BUILDER)
        _own_code.append(made)
    return _own_code[0]


_CODE = (".py", ".json", ".yaml", ".lua")
"""Suffixes of relbuild's own files that images' bytes depend on (pyproject.toml, package-data)."""
