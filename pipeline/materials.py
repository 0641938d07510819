"""What a build was made of, written down beside it: the bill that SBOMs and the gate's rules are read from, and the
record of every input by digest that provenance is made from.

`NAME.report/` holds `bill.json`, `materials.json`, `sbom.spdx.json` and `sbom.cyclonedx.json`. All of it is a
function of the image and its inputs, so it is made once for each and recalled from the store.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pipeline
from pipeline.digest import Digest, canonical_json, digest_file, identity
from pipeline.errors import PublicationRefused, RelbuildError, UsageError, VerificationError
from pipeline.layers import layer_entries
from pipeline.model.bill import Bill, BilledLayer, BilledPackage, BuildRecord, Privileged
from pipeline.model.header import PackageHeader
from pipeline.model.image import Compression, Image, Layer
from pipeline.model.lock import LockSection
from pipeline.model.package import Package
from pipeline.model.platform import Platform
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.model.recipe import FileKind, Recipe
from pipeline.model.tree import Entry, Kind, Tree
from pipeline.oci import media_types
from pipeline.oci.bill import BILL_LIMIT, bill_bytes, parse_bill
from pipeline.oci.image import Reader
from pipeline.oci.purl import package_url
from pipeline.oci.record import RECORD_LIMIT, parse_record, record_bytes
from pipeline.oci.sbom import SbomForm, sbom_bytes, sbom_versions
from pipeline.oci.sources import SourceFile
from pipeline.packages import named_fixes, read_changelog
from pipeline.repos import Key
from pipeline.resolve import versions
from pipeline.store import Store
from pipeline.trees import ATTRIBUTE, capability_text

SOURCES = "sources.json"
"""The source packages that were fetched for an image, if they were."""

SEALS = "seals.json"
"""What the store says of the other documents in a report's folder."""

SEALS_LIMIT = 64 << 10
"""Bytes of the seals: a few hundred."""

BILL = "bill.json"
RECORD = "materials.json"

SBOM_LIMIT = 256 << 20
"""Bytes of an SBOM: ten thousand packages come to about forty million."""

_SET_ID = 0o6000
"""Set-user-id and set-group-id, of st_mode."""


# --- the bill --------------------------------------------------------------------------------------------


def make_bill(
    image: Image, section: LockSection, headers: Sequence[PackageHeader], tree: Tree, *, store: Store
) -> Bill:
    """All that `image` is made of. `tree` is what its package layers come to together; the last layer is read from
    the store, and so are the packages' changelogs, each once. Raises VerificationError for what is damaged there."""
    by_nevra = {str(header.nevra): header for header in headers}
    packages = []
    for chosen in section.resolution.chosen:
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
    return Bill(
        name=image.name,
        version=dict(image.config.labels).get(media_types.VERSION, image.reference),
        digest=image.digest,
        config=image.config_descriptor.digest,
        created=image.config.created,
        architecture=image.config.architecture,
        layers=tuple(
            BilledLayer(layer.name, layer.diff_id, layer.blob.digest, layer.blob.size) for layer in image.layers
        ),
        packages=tuple(sorted(packages, key=lambda one: (one.nevra, one.checksum))),
        privileged=_privileged(image.layers, tree, store),
    )


def _plain(text: str) -> str:
    """A header's text as every reader of JSON takes it: bytes that are no UTF-8 and control characters replaced."""
    known = text.encode(errors="surrogateescape").decode(errors="replace")
    return "".join(one if one.isprintable() else " " for one in known).strip()


def _fixes(checksum: Digest, store: Store) -> tuple[str, ...]:
    name = identity("fixes", 1, package=checksum)
    known = store.recall(name)
    if isinstance(known, list):
        return tuple(str(one) for one in known)
    found = named_fixes(read_changelog(store.blob(checksum)))
    store.remember(name, list(found))
    return found


def _privileged(layers: Sequence[Layer], tree: Tree, store: Store) -> tuple[Privileged, ...]:
    name = identity("privileged", 1, layers=[layer.diff_id for layer in layers])
    known = store.recall(name)
    if isinstance(known, list):
        return tuple(Privileged(*one) for one in known)
    found = privileged_paths(tree, layer_entries(layers[-1], store=store))
    store.remember(name, [[one.path, one.mode, one.package, one.capabilities] for one in found])
    return found


def privileged_paths(lower: Tree, upper: Iterator[Entry]) -> tuple[Privileged, ...]:
    """What lends rights in an image, sorted by path: `lower` is the tree below the last layer, `upper` what stands in
    that layer. A file that the last layer replaces is as it is there."""
    entries = dict(lower.entries)
    added = {}
    for entry in upper:
        if entry.kind is not Kind.DIRECTORY:
            for gone in _beneath(entry.path, entries):
                del entries[gone]
        if entry.kind is Kind.WHITEOUT:
            entries.pop(entry.path, None)
        elif entry.kind is not Kind.OPAQUE:
            added[entry.path] = entry
    entries |= added
    found = []
    for path, entry in sorted(entries.items()):
        file = entries.get(entry.link, entry) if entry.kind is Kind.HARDLINK else entry
        attribute = dict(file.xattrs).get(ATTRIBUTE)
        if file.kind is Kind.FILE and (file.mode & _SET_ID or attribute is not None):
            below = lower.get(path)
            package = entry.owner or (below.owner if below is not None else "")
            shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
            text = capability_text(attribute) if attribute is not None else ""
            found.append(Privileged(f"/{shown}", file.mode, package, text))
    return tuple(found)


def _beneath(path: str, entries: Mapping[str, Entry]) -> list[str]:
    """Paths below `path`; none for what was no directory."""
    below = entries.get(path)
    if path and (below is None or below.kind is not Kind.DIRECTORY):
        return []
    return [one for one in entries if one.startswith(f"{path}/" if path else "") and one != path]


# --- the record ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a build took in: `repositories` is the file that defines platforms, `lock` the lock's, `templates` every
    template file that took part; `checks` is the digest of the plan of what is asked of the image."""

    recipe: Recipe
    repositories: Path
    platform: Platform
    section: LockSection
    lock: Path
    headers: tuple[PackageHeader, ...]
    keys: tuple[Key, ...]
    templates: tuple[Path, ...]
    compression: Compression
    checks: Digest


def make_record(image: Image, inputs: Inputs) -> BuildRecord:
    """Every input of `image` by digest. Names of files are relative to the recipe's folder, and nothing tells of the
    machine, so two builds of the same inputs give equal records."""
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
        _own_code(),
    ]
    told = Provenance(
        recipe=_file(recipe.path, folder, MaterialKind.RECIPE),
        materials=tuple(sorted(materials, key=lambda one: (one.kind, one.name, one.uri))),
        platform=inputs.platform.name,
        architecture=section.resolution.arch,
        builder_version=pipeline.__version__,
        options=(("compression", str(inputs.compression)),),
        versions=tuple(sorted([*versions(), ("Jinja2", importlib.metadata.version("Jinja2"))])),
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
    # What lies further away is no part of the recipes' checkout, and its path is this machine's.
    return Material(path.name if name.startswith("../../") else name, "", digest_file(path), kind)


def _own_files(recipe: Recipe, folder: Path) -> Iterator[Material]:
    """Static files of the recipe and those that it names by URL."""
    for plan in recipe.files:
        if plan.kind is FileKind.SOURCE:
            yield _file(folder / plan.origin, folder, MaterialKind.FILE)
        elif plan.kind is FileKind.URL and plan.sha256 is not None:
            yield Material(plan.path, _without_credentials(plan.origin), plan.sha256, MaterialKind.FILE)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _repositories(platform: Platform, known: Mapping[str, Digest]) -> Iterator[Material]:
    """The index of each repository as it was when the lock was made. Where it is, is told as the definition is
    written, before variables are replaced: what they stand for is this machine's."""
    for one in platform.repositories:
        if one.id in known:
            place = _without_credentials(next(iter(one.baseurls), one.metalink or one.mirrorlist or ""))
            yield Material(f"{one.id}/repodata/repomd.xml", place, known[one.id], MaterialKind.REPOMD)


def _keys(keys: Sequence[Key]) -> Iterator[Material]:
    for key in keys:
        name = f"{key.repository}: {key.fingerprint}"
        yield Material(name, f"openpgp4fpr:{key.fingerprint}", Digest.of(key.armored), MaterialKind.KEY)


def _packages(section: LockSection, headers: Sequence[PackageHeader]) -> Iterator[Material]:
    by_nevra = {str(header.nevra): header for header in headers}
    for chosen in section.resolution.chosen:
        header = by_nevra[str(chosen.package.nevra)]
        url = package_url(header.nevra, _plain(header.vendor), _plain(header.source_rpm))
        yield Material(str(header.nevra), url.to_string(), chosen.package.checksum, MaterialKind.PACKAGE)


@cache
def _own_code() -> Material:
    """relbuild's own source: a digest over the names and digests of its files, in order."""
    folder = Path(pipeline.__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in _CODE and path.is_file())
    listed = [[path.relative_to(folder).as_posix(), str(digest_file(path))] for path in files]
    version = pipeline.__version__
    code = Digest.of(canonical_json(listed))
    return Material(f"relbuild {version}", f"pkg:generic/relbuild@{version}", code, MaterialKind.BUILDER)


_CODE = (".py", ".json", ".yaml", ".lua")
"""What decides on bytes in relbuild's package (pyproject.toml, package-data)."""


# --- the report's folder ---------------------------------------------------------------------------------


def report_documents(bill: Bill, record: BuildRecord, *, store: Store) -> tuple[tuple[str, bytes], ...]:
    """(file name, content) of what is written into a report's folder. SBOMs are recalled where the store has them."""
    sboms = tuple((form.file_name, _sbom(bill, form, store)) for form in SbomForm)
    return ((BILL, bill_bytes(bill)), (RECORD, record_bytes(record)), *sboms)


def _sbom(bill: Bill, form: SbomForm, store: Store) -> bytes:
    name = identity("sbom", 1, form=form, bill=Digest.of(bill_bytes(bill)), versions=sbom_versions())
    known = store.recall(name)
    if isinstance(known, str) and store.has(Digest.parse(known)):
        return store.read(Digest.parse(known), limit=SBOM_LIMIT)
    data = sbom_bytes(bill, form)
    store.remember(name, str(store.put(data)))
    return data


def seal_documents(folder: Path, image: Digest, documents: Sequence[tuple[str, bytes]], store: Store) -> None:
    """Write down in `folder` what `store` says of the documents on `image` there, so that none is published that was
    edited, or that is about another image."""
    seals = {name: store.seal(_named(name, image, data)) for name, data in documents}
    (folder / SEALS).write_bytes(canonical_json(seals))


def refuse_edited(folder: Path, image: Digest, store: Store) -> None:
    """Are the documents in a report's folder those that this store wrote of `image`? Raises UsageError
    `report-missing`, VerificationError `report-of-another-image`, PublicationRefused `gate-report-edited`."""
    refuse_another(folder, image)
    seals = Reader.parse(_read(folder / SEALS, SEALS_LIMIT), str(folder / SEALS))
    for name in _sealed_in(folder):
        if not store.sealed(_named(name, image, _read(folder / name, SBOM_LIMIT)), seals.get(name).text("")):
            raise PublicationRefused(
                "gate-report-edited",
                f"{name} does not carry this store's seal: it was edited, or is from another image or machine",
                place=str(folder / name),
                hint="build the image again, on this machine: what is the same is not made again",
            )


def restate_checks(folder: Path, image: Digest, checks: Digest, store: Store) -> None:
    """`image` was asked other checks than when it was built: the record in its report's folder says so from now on. A
    record that is missing or edited is left as it is, and publishing refuses it."""
    try:
        refuse_edited(folder, image, store)
        documents = {name: _read(folder / name, SBOM_LIMIT) for name in _sealed_in(folder)}
        record = parse_record(documents[RECORD], RECORD)
    except RelbuildError:
        return
    if record.checks != checks:
        documents[RECORD] = record_bytes(replace(record, checks=checks))
        (folder / RECORD).write_bytes(documents[RECORD])
        seal_documents(folder, image, tuple(documents.items()), store)


def _sealed_in(folder: Path) -> tuple[str, ...]:
    """Names of the documents in a report's folder that have a seal."""
    sources = (SOURCES,) if (folder / SOURCES).exists() else ()
    return (BILL, RECORD, *(form.file_name for form in SbomForm), *sources)


def _named(name: str, image: Digest, data: bytes) -> bytes:
    """What is sealed of a document: its name and its image too, so that none can stand in for another."""
    return f"{name}\n{image}\n".encode() + data


def report_folder(layout: Path) -> Path:
    """Where the report of a layout that was built here stands."""
    return layout.parent / f"{layout.name}.report"


def read_bill(folder: Path) -> Bill:
    """The bill in a report's folder. Raises UsageError `report-missing`, VerificationError `bill-malformed`,
    `bill-other-format`."""
    return parse_bill(_read(folder / BILL, BILL_LIMIT), BILL)


def read_materials(folder: Path) -> BuildRecord:
    """What the build was made from, as its report's folder says. Raises UsageError `report-missing`,
    VerificationError `record-malformed`, `record-other-format`."""
    return parse_record(_read(folder / RECORD, RECORD_LIMIT), RECORD)


def sources_document(packages: Sequence[Package]) -> tuple[str, bytes]:
    """(file name, content) that names the source packages of an image."""
    told = [
        {
            "name": f"{one.nevra.name}-{one.nevra.version}-{one.nevra.release}.src.rpm",
            "sha256": one.checksum.hex,
            "size": one.size,
        }
        for one in packages
    ]
    return SOURCES, canonical_json(told)


def read_sources(folder: Path, store: Store) -> tuple[SourceFile, ...]:
    """The source packages of an image, which lie in the store. Raises UsageError `sources-missing`."""
    if not (folder / SOURCES).exists():
        raise UsageError(
            "sources-missing",
            f"no source packages were fetched for the image of {folder}",
            place=str(folder),
            hint="build it with --with-sources; what is the same is not made again",
        )
    found = []
    for one in Reader.parse(_read(folder / SOURCES, RECORD_LIMIT), SOURCES).items():
        digest = Digest(one.get("sha256").text())
        if not store.has(digest):
            raise UsageError(
                "sources-missing",
                f"{one.get('name').text()} is not in the store any more",
                place=str(folder),
                hint="build the image with --with-sources again, which fetches it",
            )
        found.append(SourceFile(one.get("name").text(), digest, one.get("size").number(), store.blob(digest)))
    return tuple(found)


def read_sbom(folder: Path, form: SbomForm, image: Digest) -> bytes:
    """The SBOM in a report's folder, which has to be about `image`. Raises UsageError `report-missing`,
    VerificationError `report-of-another-image`."""
    refuse_another(folder, image)
    return _read(folder / form.file_name, SBOM_LIMIT)


def refuse_another(folder: Path, image: Digest) -> None:
    """Is the report in a folder about `image`? Raises VerificationError `report-of-another-image`."""
    bill = read_bill(folder)
    if bill.digest != image:
        raise VerificationError(
            "report-of-another-image",
            f"the report is about {bill.digest}, the layout holds {image}",
            place=str(folder),
            hint="build the image again with `relbuild build`",
        )


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            "report-missing",
            f"there is no {path.name} in {path.parent}: the image was not built here, or by an older relbuild",
            place=str(path.parent),
            hint="build it with `relbuild build`, which writes its report beside the layout",
        ) from None
    if len(data) > limit:
        raise VerificationError("document-too-large", f"{path} has more than {limit} bytes", place=str(path))
    return data
