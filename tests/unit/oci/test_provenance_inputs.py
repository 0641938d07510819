"""The record of a build: every input by digest, and nothing of the machine or of whoever may fetch them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.model.bill import BuildRecord
from pipeline.model.header import PackageHeader
from pipeline.model.lock import LockSection
from pipeline.model.package import Nevra, Package
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.provenance import MaterialKind
from pipeline.model.recipe import FileKind, FilePlan
from pipeline.model.resolution import Chosen, Resolution
from pipeline.model.scriptlets import ScriptletName, ToleratedFailure
from pipeline.oci import make_image
from pipeline.oci.record_json import parse_record, record_bytes
from pipeline.oci.statements import provenance_predicate
from pipeline.provenance_inputs import BuildInputs, make_build_record
from pipeline.repos import RepositoryKey
from tests.support.recipe_folder import good
from tests.support.tiny_image import CONFIG, fake_layer

IMAGE = make_image("tiny", "1.0", CONFIG, [fake_layer("base")])
NEVRA = Nevra("a", 1, "2", "3", "noarch")
HEADER = PackageHeader(NEVRA, Digest("9" * 64), (), (), (), (), (), 5, vendor="CentOS", source_rpm="a-2-3.src.rpm")
REPOMD = Digest("7" * 64)


def file(kind: FileKind, path: str, origin: str, sha256: Digest | None = None) -> FilePlan:
    return FilePlan(kind, path, origin, 0o644, "root", "root", "demo.yaml:1", sha256)


def inputs(folder: Path) -> BuildInputs:
    """Of a recipe in `folder` with a static file, a file by URL and one package."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = good(folder)
    (folder / "page.html").write_text("a page\n")
    (folder / "repositories.yaml").write_text("platforms: {}\n")
    (folder / "demo.lock").write_text("format = 2\n")
    files = (
        file(FileKind.SOURCE, "/srv/page.html", "page.html"),
        file(FileKind.URL, "/srv/tool", "https://me:secret@example.invalid/tool?x=1", Digest("5" * 64)),
        file(FileKind.CONTENT, "/srv/text", "in the recipe itself"),
    )
    package = Package(NEVRA, Digest("9" * 64), 10, "base", "a.rpm", 5, "a-2-3.src.rpm")
    section = LockSection(
        Resolution("local", "x86_64", (Chosen(package, "base", ()),), (str(NEVRA),)),
        (),
        5,
        metadata=(("base", REPOMD), ("other", Digest("8" * 64))),
    )
    return BuildInputs(
        recipe=replace(recipe, files=files),
        repositories=folder / "repositories.yaml",
        platform=Platform("local", (PackageRepository("base", baseurls=("https://u:p@example.invalid/$basearch",)),)),
        section=section,
        lock=folder / "demo.lock",
        headers=(HEADER,),
        keys=(RepositoryKey("base", "F" * 40, b"armored"),),
        templates=(),
        compression=Compression.ZSTD,
        checks=Digest("7" * 64),
    )


def told(record: BuildRecord) -> dict[tuple[MaterialKind, str], tuple[str, Digest]]:
    return {
        (one.kind, one.name): (one.uri, one.sha256)
        for one in record.provenance.materials
        if one.kind is not MaterialKind.BUILDER
    }


def test_every_kind_of_input_is_recorded(tmp_path: Path) -> None:
    record = make_build_record(IMAGE, inputs(tmp_path))
    assert record.image == IMAGE.digest and record.unknown == ()
    assert record.provenance.recipe.name == "demo.yaml"
    assert ("compression", "zstd") in record.provenance.options
    (code,) = [one for one in record.provenance.materials if one.kind is MaterialKind.BUILDER]
    assert code.name == f"relbuild {record.provenance.builder_version}"
    assert told(record) == {
        (MaterialKind.FILE, "page.html"): ("", Digest.of(b"a page\n")),
        (MaterialKind.FILE, "/srv/tool"): ("https://example.invalid/tool?x=***", Digest("5" * 64)),
        (MaterialKind.KEY, f"base: {'F' * 40}"): (f"openpgp4fpr:{'F' * 40}", Digest.of(b"armored")),
        (MaterialKind.LOCK, "demo.lock"): ("", Digest.of(b"format = 2\n")),
        (MaterialKind.PACKAGE, str(NEVRA)): (
            "pkg:rpm/centos/a@2-3?arch=noarch&epoch=1&upstream=a-2-3.src.rpm",
            Digest("9" * 64),
        ),
        (MaterialKind.REPOMD, "base/repodata/repomd.xml"): ("https://example.invalid/$basearch", REPOMD),
        (MaterialKind.REPOSITORIES, "repositories.yaml"): ("", Digest.of(b"platforms: {}\n")),
    }


def test_a_recipe_that_moved_gives_the_same_record(tmp_path: Path) -> None:
    here, there = inputs(tmp_path / "a" / "b"), inputs(tmp_path / "elsewhere")
    assert make_build_record(IMAGE, here) == make_build_record(IMAGE, there)
    far = tmp_path / "configuration.yaml"
    far.write_text("platforms: {}\n")
    names = [
        name for kind, name in told(make_build_record(IMAGE, replace(here, repositories=far))) if kind == "repositories"
    ]
    assert names == ["configuration.yaml"], "how far away it stands is this machine's business"


def test_metadata_that_nobody_kept_is_said_to_be_unknown(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    older = replace(given, section=replace(given.section, metadata=()))
    record = make_build_record(IMAGE, older)
    assert record.unknown == ("repomd.xml of base",)
    assert not [one for one in record.provenance.materials if one.kind is MaterialKind.REPOMD]


@pytest.mark.parametrize("what", ["page.html", "repositories.yaml", "demo.lock", "demo.yaml"])
def test_another_input_is_another_build(what: str, tmp_path: Path) -> None:
    given = inputs(tmp_path)
    before = make_build_record(IMAGE, given)
    (tmp_path / what).write_text("another\n")
    after = make_build_record(IMAGE, given)
    assert after.provenance.invocation != before.provenance.invocation
    assert make_build_record(IMAGE, replace(given, compression=Compression.GZIP)).provenance.invocation not in {
        before.provenance.invocation,
        after.provenance.invocation,
    }


def test_scriptlets_that_were_let_through_are_in_the_record_and_in_the_provenance(tmp_path: Path) -> None:
    failed = (
        ToleratedFailure(
            "s6-2-1.x86_64", ScriptletName.TRANSFILETRIGGERIN, "it failed: nobody listens", "no supervisor", status=111
        ),
        ToleratedFailure("a-1-1.noarch", ScriptletName.POST, "%post took long: 17:05", code="scriptlet-timed-out"),
    )
    given = inputs(tmp_path)
    without, record = (make_build_record(IMAGE, one) for one in (given, replace(given, failed_scriptlets=failed)))
    assert record.provenance.failed_scriptlets == tuple(replace(one, message="") for one in failed)
    assert parse_record(record_bytes(record), "materials.json") == record
    assert b"failed_scriptlets" not in record_bytes(without)
    assert parse_record(record_bytes(without), "materials.json") == without
    assert "byproducts" not in json.loads(provenance_predicate(without.provenance))["runDetails"]
    trigger, post = json.loads(provenance_predicate(record.provenance))["runDetails"]["byproducts"]
    assert trigger["name"] == "%transfiletriggerin of s6-2-1.x86_64"
    assert base64.b64decode(trigger["content"]) == b"scriptlet-failed: status 111"
    assert base64.b64decode(post["content"]) == b"scriptlet-timed-out"
    assert trigger["annotations"] == {"kind": "failed-scriptlet", "waived": "no supervisor"}
    assert post["annotations"] == {"kind": "failed-scriptlet"}
    other = replace(given, failed_scriptlets=tuple(replace(one, message="pid 4711") for one in failed))
    assert record_bytes(make_build_record(IMAGE, other)) == record_bytes(record), "what it prints may be another"
