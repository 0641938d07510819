"""Every reader of bytes that others have made, as a function that raises nothing but the reader's own error."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from pipeline.archives import MalformedArchive
from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.layers.archive_files import archive_members
from pipeline.layers.tar_format import read_tar
from pipeline.mirror.backends.layout.layout_repository import LayoutRepository
from pipeline.mirror.backends.registry.fallback_index import merge_referrers
from pipeline.mirror.backends.registry.registry_responses import (
    error_code,
    next_page,
    response_manifest,
    response_words,
)
from pipeline.mirror.references import (
    listed_referrers,
    manifest_subject,
    media_type_of,
    references,
    referrer_of,
)
from pipeline.mirror.retention.access_log import read_pulls
from pipeline.mirror.retention.referrers_rewrite import remove_referrers
from pipeline.mirror.tag_history import read_move
from pipeline.mirror.tag_statements import _predicate
from pipeline.model.evidence import read_evidence
from pipeline.model.json_form import from_json, read_json
from pipeline.model.manifests import Manifest
from pipeline.model.night_record import NightlyRun
from pipeline.model.report_form import read_report
from pipeline.nightly.executors.task_result import read_result
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct
from pipeline.oci import load_verifying_key, media_types
from pipeline.oci.artifacts import read_artifact
from pipeline.oci.attestation_reader import built_for, listed_packages
from pipeline.oci.bill_json import parse_bill
from pipeline.oci.config_settings import flatten_config
from pipeline.oci.image_manifest import parse_config, parse_image, parse_index
from pipeline.oci.licences import licence_expression
from pipeline.oci.record_json import parse_record
from pipeline.oci.sigstore_bundle import bundle_layer, unverified_statement
from pipeline.oci.simple_signing import _claims
from pipeline.oci.statements import read_statement
from pipeline.packages import read_change_days, read_changelog, read_header, read_installed
from pipeline.recipes import load_recipe
from pipeline.recipes.mirror_rules import load_rules
from pipeline.render.small_templates import evaluate_in_process
from pipeline.repos.advisories import read_updateinfo
from pipeline.repos.repomd import parse_metalink, parse_mirrorlist, parse_repomd
from pipeline.resolve.lockfile import parse_lock
from pipeline.resolve.modules import _documents, _take
from pipeline.site.site_history import ProductHistory
from pipeline.transfer.challenge import parse_challenges, parse_scopes
from pipeline.transfer.registry_http import RegistryResponse
from pipeline.yaml_documents import parse_yaml
from tests.fuzz.forms import SEPARATOR

Read = Callable[[bytes], object]

_VALUES: Mapping[str, object] = MappingProxyType(
    {"packages": {"a": {"version": "1.0"}}, "name": "a", "values": {"n": 3, "l": [1, 2]}}
)
"""The values of templates."""

_MEMORY = Path("/dev/shm")
_FOLDER = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
"""In memory: making a file on a disk that others use took longer than reading it."""


@atexit.register
def _leave_nothing() -> None:
    for folder in _FOLDER.glob(f"fuzz-{os.getpid()}-*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _file(data: bytes, name: str) -> Iterator[Path]:
    path = _FOLDER / f"fuzz-{os.getpid()}-{name}"
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _recipe(data: bytes) -> object:
    with _file(data, "recipe.yaml") as path:
        return load_recipe(path)


def _rules(data: bytes) -> object:
    with _file(data, "rules.yaml") as path:
        return load_rules(path)


def _updateinfo(data: bytes) -> object:
    with _file(data, "updateinfo.xml") as path:
        return read_updateinfo(path, "updates")


def _modules(data: bytes) -> object:
    streams: list[object] = []
    for value in _documents(_text(data), "modules.yaml"):
        _take(value, streams, {})  # type: ignore[arg-type]
    return streams


def _tar(data: bytes) -> object:
    half = len(data) // 2
    seen = []
    for member in read_tar(iter((data[:half], data[half:])), "layer"):
        seen.append((member.entry, sum(len(piece) for piece in member.pieces())))
    return seen


def _archive(data: bytes) -> object:
    """Its caller takes MalformedArchive, as it takes the errors of streams."""
    seen = []
    with contextlib.suppress(MalformedArchive):
        for member in archive_members(io.BytesIO(data)):
            seen.append((member.header, sum(len(piece) for _, piece in member.blocks())))
    return seen


def _header(data: bytes) -> object:
    """In the pipeline this comes after `verify_package`: what gets here was signed."""
    with _file(data, "package.rpm") as path:
        return read_header(path, Digest.of(data)), read_changelog(path), read_change_days(path)


def _image(data: bytes) -> object:
    manifest, _, config = data.partition(SEPARATOR)
    return parse_image("a", "a:1", manifest, config or b"{}")


def _config(data: bytes) -> object:
    return parse_config(data), flatten_config(data)


def _index(data: bytes) -> object:
    return parse_index(data)


def _referrers(data: bytes) -> object:
    index = Manifest(media_types.INDEX, data)
    with contextlib.suppress(RelbuildError):
        referrer_of(index)
    with contextlib.suppress(RelbuildError):
        references(index)
    with contextlib.suppress(RelbuildError):
        manifest_subject(index)
    media_type_of(data)
    for change in (merge_referrers, remove_referrers):
        with contextlib.suppress(RelbuildError):
            change(index, ())
    return listed_referrers(index)


def _layout(data: bytes) -> object:
    """index.json of a layout that somebody else made, as a mirror."""
    layout = _FOLDER / f"fuzz-{os.getpid()}-layout"
    layout.mkdir(exist_ok=True)
    with _file(data, "layout/index.json"):
        repository = LayoutRepository(layout, "images.example/a")
        with contextlib.suppress(RelbuildError):
            repository.referrers(Digest.of(b""))
        return repository.tags(), repository.resolve("latest")


def _answer(data: bytes) -> object:
    """What a registry answers: the value of the header `Link`, and the body."""
    link, _, body = data.partition(SEPARATOR)
    headers = (("link", link.decode("latin-1")), ("content-type", media_types.MANIFEST), ("location", "/v2/"))
    answer = RegistryResponse(400, headers, body, "https://registry.example/v2/a/tags/list")
    said = error_code(answer), response_words(answer), answer.location()
    for read in (lambda: next_page(answer, (), "a"), lambda: response_manifest(answer, None, "a")):
        with contextlib.suppress(RelbuildError):
            read()
    return said


def _artifact(data: bytes) -> object:
    manifest = Manifest(media_types.MANIFEST, data)
    with contextlib.suppress(RelbuildError):
        bundle_layer(manifest)
    with contextlib.suppress(RelbuildError):
        read_move(manifest, "move.1")
    return read_artifact(manifest)


def _bundle(data: bytes) -> object:
    return unverified_statement(data)


def _statement(data: bytes) -> object:
    return read_statement(data)


def _predicates(data: bytes) -> object:
    for read in (parse_bill, parse_record, listed_packages, built_for, _claims):
        with contextlib.suppress(RelbuildError):
            read(data, "predicate")  # type: ignore[operator]
    for read_alone in (read_evidence, _predicate):
        with contextlib.suppress(RelbuildError):
            read_alone(data)
    return None


def _lock(data: bytes) -> object:
    return parse_lock(_text(data), "a.lock")


def _night(data: bytes) -> object:
    """Its callers take ValueError for "nobody knows": `from_json` promises no other."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(data)
        for kind in (InputsRecord, PublishedProduct, NightlyRun, ProductHistory):
            for read in (from_json, read_json):
                with contextlib.suppress(ValueError):
                    read(kind, value)
        if isinstance(value, dict):
            read_report(value)
    with contextlib.suppress(ValueError):
        read_result(data)
    return None


def _challenge(data: bytes) -> object:
    text = data.decode("latin-1")
    return parse_challenges(text.split("\n")), parse_scopes(text)


def _rendering(data: bytes) -> object:
    """Render as the child with limits does: the engine sees nothing of what happens in a child."""
    return evaluate_in_process(_text(data), _VALUES, place="recipe.yaml:1")


def _key(data: bytes) -> object:
    return load_verifying_key(data)


def _pulls(data: bytes) -> object:
    with _file(data, "access.log") as path:
        return read_pulls([path])


TARGETS: Mapping[str, Read] = MappingProxyType(
    {
        "yaml": lambda data: parse_yaml(_text(data), "a.yaml"),
        "recipe": _recipe,
        "rules": _rules,
        "repomd": lambda data: parse_repomd(data, "repomd.xml"),
        "metalink": lambda data: parse_metalink(data, "metalink"),
        "mirrorlist": lambda data: parse_mirrorlist(data, "mirrorlist"),
        "updateinfo": _updateinfo,
        "modules": _modules,
        "tar": _tar,
        "archive": _archive,
        "header": _header,
        "rpmdb": read_installed,
        "image": _image,
        "config": _config,
        "index": _index,
        "referrers": _referrers,
        "layout": _layout,
        "answer": _answer,
        "artifact": _artifact,
        "bundle": _bundle,
        "statement": _statement,
        "predicates": _predicates,
        "lock": _lock,
        "night": _night,
        "challenge": _challenge,
        "rendering": _rendering,
        "key": _key,
        "licence": lambda data: licence_expression(_text(data)),
        "pulls": _pulls,
    }
)
"""Each reader by its name."""


def attempt(name: str, data: bytes) -> None:
    """Read `data`; the reader's own error is an answer, any other is a find."""
    with contextlib.suppress(RelbuildError):
        TARGETS[name](data)
