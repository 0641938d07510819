"""What is said of the products: every SBOM is valid, says what rpm says, and names what really lends rights; what a
build was made of is the same wherever it is built; and its source packages are found, or named."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.build import lock as lock_recipe
from pipeline.digest import digest_file
from pipeline.errors import ResolutionError, UsageError, VerificationError
from pipeline.layers import unpack_to_store
from pipeline.model.provenance import MaterialKind
from pipeline.oci.sbom import SbomForm, sbom_bytes, sbom_problems
from pipeline.packages import named_fixes, read_changelog
from pipeline.packages.changelog import CHANGELOG_ENTRIES_MOST, CHANGELOG_TEXT_MOST
from pipeline.prepare import (
    BuildEnvironment,
    BuildOptions,
    LockedRecipe,
    obtain_sources,
)
from pipeline.reports import (
    BILL_FILE,
    read_bill,
    read_build_record,
    read_sbom,
    report_folder,
)
from pipeline.resolve import LockMode, read_lock
from pipeline.store import Store
from tests.support.rpm_factory import Forge
from tests.support.tiny_root import require_root
from tests.system.conftest import PRODUCTS, ROOT

FORMS = list(SbomForm)


def rpm_says(form: str, *packages: Path) -> list[str]:
    command = ["rpm", "-qp", "--nosignature", "--nodigest", "--qf", form, *map(str, packages)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


# --- SBOMs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_the_sbom_of_a_product_is_valid(product: str, form: SbomForm, built: Callable[[str], BuildResult]) -> None:
    result = built(product)
    document = read_sbom(result.report_folder, form, result.image.digest)
    assert sbom_problems(document, form) == []
    assert document == sbom_bytes(read_bill(result.report_folder), form)


@pytest.mark.parametrize("product", PRODUCTS)
def test_an_sbom_says_of_every_package_what_rpm_says(
    product: str, built: Callable[[str], BuildResult], mirror: Path
) -> None:
    result = built(product)
    chosen = result.locked.section.resolution.chosen
    form = "%{NAME}\t%{VERSION}-%{RELEASE}\t%{EPOCHNUM}\t%{ARCH}\t%{LICENSE}\t%{VENDOR}\t%{SOURCERPM}\n"
    files = [mirror / one.package.repository / one.package.location for one in chosen]
    spdx = json.loads(read_sbom(result.report_folder, SbomForm.SPDX, result.image.digest))
    cyclonedx = json.loads(read_sbom(result.report_folder, SbomForm.CYCLONEDX, result.image.digest))
    licences = {one["licenseId"]: one["extractedText"] for one in spdx["hasExtractedLicensingInfos"]}
    by_sum = {one["checksums"][0]["checksumValue"]: one for one in spdx["packages"] if "checksums" in one}
    components = {one["hashes"][0]["content"]: one for one in cyclonedx["components"]}
    assert len(components) == len(chosen)
    for one, file, line in zip(chosen, files, rpm_says(form, *files), strict=True):
        name, version, epoch, arch, licence, vendor, source = line.split("\t")
        checksum = digest_file(file).hex
        package, component = by_sum[checksum], components[checksum]
        assert package["name"] == component["name"] == name
        (reference,) = package["externalRefs"]
        assert reference["referenceLocator"] == component["purl"]
        for part in (f"/{name.replace('+', '%2B')}@", f"arch={arch}", "upstream="):
            assert part in component["purl"]
        assert (f"epoch={epoch}" in component["purl"]) == (epoch != "0")
        assert version in component["version"]
        declared = package["licenseDeclared"]
        if declared in licences:
            assert licences[declared] == licence
        else:  # SPDX's names of some years ago (GPL-2.0+) are given their names of today
            assert declared.lower() == licence.lower().replace("+", "-or-later")
        assert package["supplier"] == f"Organization: {vendor}"
        facts = {fact["name"]: fact["value"] for fact in component["properties"]}
        assert facts["relbuild:source-rpm"] == source
        assert facts["relbuild:layer"] == one.layer


def test_the_fixes_are_those_that_the_changelog_names(built: Callable[[str], BuildResult], mirror: Path) -> None:
    result = built("nginx")
    chosen = [one.package for one in result.locked.section.resolution.chosen]
    places = {one.checksum: mirror / one.repository / one.location for one in chosen}
    named = 0
    for package in result.bill.packages:
        said = rpm_says("[%{CHANGELOGTEXT}\n]", places[package.checksum])
        for fix in package.fixes:
            assert any(fix.lower() in line.lower() for line in said), (package.nevra, fix)
        named += len(package.fixes)
    assert named > 10, "Debian's changelogs name many"


def test_of_a_long_changelog_the_newest_part_is_read(made: Forge) -> None:
    entries = [f"* Thu Jan 01 2026 x <x@example.invalid> - 1-{n}\n- Fix CVE-2026-{10000 + n}\n" for n in range(300)]
    wordy = ["* Thu Jan 01 2026 x <x@example.invalid> - 1-1\n- " + "word " * 20000, *entries]
    many = made.package("many", sections="%changelog\n" + "\n".join(entries))
    large = made.package("large", sections="%changelog\n" + "\n".join(wordy))
    none = made.package("none")
    read = read_changelog(many)
    assert len(read) == CHANGELOG_ENTRIES_MOST
    assert named_fixes(read) == tuple(f"CVE-2026-{10000 + n}" for n in range(CHANGELOG_ENTRIES_MOST))
    assert read[0].name.startswith("x <x@example.invalid>") and read[0].time
    assert [len(entry.text) for entry in read_changelog(large)] == [CHANGELOG_TEXT_MOST]
    assert read_changelog(none) == ()


@pytest.mark.parametrize("product", ["mysql", "nginx"])
def test_what_lends_rights_is_what_is_on_the_disk(
    product: str, built: Callable[[str], BuildResult], build_env: BuildEnvironment
) -> None:
    require_root()
    result = built(product)
    found: dict[str, int] = {}
    for layer in result.image.layers:
        root = unpack_to_store(layer, store=build_env.store)
        for path in root.rglob("*"):
            status = path.lstat()
            name = f"/{path.relative_to(root)}"
            if stat.S_ISCHR(status.st_mode):
                found = {one: mode for one, mode in found.items() if one != name and not one.startswith(f"{name}/")}
            elif stat.S_ISREG(status.st_mode):
                found.pop(name, None)
                if status.st_mode & 0o6000 or "security.capability" in os.listxattr(path, follow_symlinks=False):
                    found[name] = stat.S_IMODE(status.st_mode)
    assert {one.path: one.mode for one in result.bill.privileged} == found
    assert found, "the products bring shadow-utils"


# --- what it was made of ----------------------------------------------------------------------------------


def test_every_input_is_there_by_digest(built: Callable[[str], BuildResult], recipes: Path, mirror: Path) -> None:
    result = built("mysql")
    record = read_build_record(result.report_folder)
    assert record == result.record
    assert record.image == result.image.digest and record.unknown == ()
    told = record.provenance
    assert (told.recipe.name, told.recipe.sha256) == ("mysql.yaml", digest_file(recipes / "mysql.yaml"))
    found = {(one.kind, one.name): one.sha256 for one in told.materials}
    for name in ("base", "updates"):
        repomd = mirror / name / "repodata" / "repomd.xml"
        assert found[MaterialKind.REPOMD, f"{name}/repodata/repomd.xml"] == digest_file(repomd)
    for kind, path in (
        (MaterialKind.RECIPE, "base.yaml"),
        (MaterialKind.REPOSITORIES, "repositories.yaml"),
        (MaterialKind.LOCK, "mysql.lock"),
        (MaterialKind.TEMPLATE, "../templates/my.cnf.j2"),
        (MaterialKind.TEMPLATE, "../templates/mysql-start.sh.j2"),
    ):
        assert found[kind, path] == digest_file(recipes / path)
    packages = {name: digest for (kind, name), digest in found.items() if kind is MaterialKind.PACKAGE}
    chosen = result.locked.section.resolution.chosen
    assert packages == {str(one.package.nevra): one.package.checksum for one in chosen}
    keys = {one.uri for one in told.materials if one.kind is MaterialKind.KEY}
    assert keys == {f"openpgp4fpr:{fingerprint}" for fingerprint in result.locked.section.keys}
    assert ("compression", "gzip") in told.options and dict(told.versions)["rpm"]


def test_elsewhere_the_record_and_the_documents_are_the_same(
    built: Callable[[str], BuildResult], recipes: Path, mirror: Path, tmp_path: Path
) -> None:
    first = built("nginx")
    elsewhere = tmp_path / "some where"
    shutil.copytree(recipes, elsewhere / "recipes")
    shutil.copytree(recipes.parent / "templates", elsewhere / "templates")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "build", "nginx", "--no-smoke", "--progress", "none"],
        cwd=elsewhere,
        env={**environment, "RELBUILD_MIRROR": str(mirror), "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    names = [name for name, _ in first.documents]
    assert len(names) == 4
    for name in names:
        again = (elsewhere / "output" / "nginx.report" / name).read_bytes()
        assert again == (first.report_folder / name).read_bytes(), name


def test_metadata_that_changed_alone_changes_no_lock(
    recipes: Path, build_env: BuildEnvironment, mirror: Path, tmp_path: Path, built: Callable[[str], BuildResult]
) -> None:
    built("redis")
    copy = tmp_path / "recipes"
    shutil.copytree(recipes, copy)
    shutil.copytree(recipes.parent / "templates", tmp_path / "templates")
    order = BuildOptions(copy / "redis.yaml", copy / "repositories.yaml")
    moved = tmp_path / "mirror"
    moved.mkdir()
    (moved / "x86_64").symlink_to(".")
    for name in ("base", "updates"):
        (moved / name).mkdir()
        for file in (mirror / name).glob("*.rpm"):
            (moved / name / file.name).symlink_to(file)
    (moved / "RPM-GPG-KEY-local").write_bytes((mirror / "RPM-GPG-KEY-local").read_bytes())
    for name in ("base", "updates"):  # the same packages, indexed again, and unsigned
        command = ["createrepo_c", "--quiet", "--checksum=sha256", "--revision=9999999999", str(moved / name)]
        subprocess.run(command, check=True)
    text = (copy / "repositories.yaml").read_text().replace("signed-metadata: true", "signed-metadata: false")
    (copy / "repositories.yaml").write_text(text)
    unsigned = replace(build_env, store=Store.open(tmp_path / "store"))
    before = lock_recipe(replace(order, mode=LockMode.UPGRADE), unsigned)
    text = order.recipe.with_suffix(".lock").read_text()
    elsewhere = replace(unsigned, environment={**build_env.environment, "RELBUILD_MIRROR": str(moved)})
    again = lock_recipe(order, elsewhere)
    assert not again.wrote and again.section.metadata == before.section.metadata
    upgraded = lock_recipe(replace(order, mode=LockMode.UPGRADE), elsewhere)
    assert not upgraded.wrote, "what is offered is the same"
    assert order.recipe.with_suffix(".lock").read_text() == text
    lock = read_lock(order.recipe.with_suffix(".lock"))
    assert lock is not None and {name for name, _ in lock.sections[0].metadata} == {"base", "updates"}


def test_a_lock_without_metadata_is_used_and_said_to_be_without(
    recipes: Path, build_env: BuildEnvironment, tmp_path: Path, built: Callable[[str], BuildResult]
) -> None:
    first = built("nginx")
    copy = tmp_path / "recipes"
    shutil.copytree(recipes, copy)
    shutil.copytree(recipes.parent / "templates", tmp_path / "templates")
    lock = copy / "nginx.lock"
    older, count = re.subn(r"\[section.metadata\]\n(\S.*\n)+\n", "", lock.read_text())
    assert count == 1
    older = re.sub(r"\ndigest = .*", "", older)  # As it was written then.
    lock.write_text(older.replace("format = 2", "format = 1"))
    order = BuildOptions(copy / "nginx.yaml", copy / "repositories.yaml", smoke=False, output=tmp_path / "output")
    result = build(replace(order, mode=LockMode.LOCKED), build_env)
    assert result.image.digest == first.image.digest
    used = {one.package.repository for one in result.locked.section.resolution.chosen}
    assert result.record.unknown == tuple(f"repomd.xml of {name}" for name in sorted(used))
    assert not [one for one in result.record.provenance.materials if one.kind is MaterialKind.REPOMD]


# --- the command line, and reports that do not fit -------------------------------------------------------


def _sbom(*argv: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pipeline", "sbom", *map(str, argv)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("form", FORMS)
def test_the_command_prints_the_document_that_the_build_wrote(
    form: SbomForm, built: Callable[[str], BuildResult]
) -> None:
    result = built("nginx")
    done = _sbom(result.layout, "--format", form, "--validate", "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == (result.report_folder / form.file_name).read_bytes()


def test_a_layout_without_its_report_has_no_sbom(built: Callable[[str], BuildResult], tmp_path: Path) -> None:
    shutil.copytree(built("nginx").layout, tmp_path / "nginx")
    done = _sbom(tmp_path / "nginx")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"report-missing" in done.stderr and b"relbuild build" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_report_of_another_image_or_an_edited_one_is_refused(
    built: Callable[[str], BuildResult], tmp_path: Path
) -> None:
    nginx, redis = built("nginx"), built("redis")
    with pytest.raises(VerificationError) as other:
        read_sbom(redis.report_folder, SbomForm.SPDX, nginx.image.digest)
    assert other.value.code == "report-of-another-image"
    folder = tmp_path / "nginx.report"
    shutil.copytree(nginx.report_folder, folder)
    text = (folder / BILL_FILE).read_text()
    (folder / BILL_FILE).write_text(text.replace('"mode":"4755"', '"mode":"4755","seen":true', 1))
    with pytest.raises(VerificationError) as edited:
        read_bill(folder)
    assert edited.value.code == "bill-malformed"
    shutil.copytree(nginx.layout, tmp_path / "nginx")
    assert report_folder(tmp_path / "nginx") == folder
    done = _sbom(tmp_path / "nginx")
    assert done.returncode == 5 and b"bill-malformed" in done.stderr and b"Traceback" not in done.stderr
    with pytest.raises(UsageError):
        read_build_record(tmp_path / "nothing")


# --- sources ---------------------------------------------------------------------------------------------


def test_the_source_package_of_every_package_is_had(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment, mirror: Path
) -> None:
    locked = built("nginx").locked
    sources = obtain_sources(locked, build_env)
    names = {f"{one.nevra.name}-{one.nevra.version}-{one.nevra.release}.src.rpm" for one in sources}
    assert names == {header.source_rpm for header in locked.headers}
    for one in sources:
        assert digest_file(build_env.store.blob(one.checksum)) == one.checksum
        assert one.size == (mirror / "sources" / one.location).stat().st_size
    nginx = next(one for one in sources if one.nevra.name == "nginx")
    listed = subprocess.run(
        ["rpm", "-qpl", "--nosignature", build_env.store.blob(nginx.checksum)], capture_output=True, check=True
    ).stdout.split()
    assert {b"nginx.spec", b"nginx.deb"} <= set(listed)


def _other_sources(locked: LockedRecipe, folder: Path, files: list[Path]) -> LockedRecipe:
    """The same, with a repository of sources that holds `files` and no others."""
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder / file.name)
    subprocess.run(["createrepo_c", "--quiet", "--checksum=sha256", str(folder)], check=True)
    (source,) = locked.platform.sources
    moved = replace(source, baseurls=(folder.as_uri(),), signed_metadata=False)
    return replace(locked, platform=replace(locked.platform, sources=(moved,)))


def test_all_that_are_missing_are_named(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment, mirror: Path, tmp_path: Path
) -> None:
    locked = built("nginx").locked
    files = sorted((mirror / "sources").glob("*.rpm"))
    without = ("bash-", "nginx-")
    fewer = [file for file in files if not file.name.startswith(without)]
    with pytest.raises(ResolutionError) as caught:
        obtain_sources(_other_sources(locked, tmp_path / "few", fewer), build_env)
    wanted = sorted(header.source_rpm for header in locked.headers if header.source_rpm.startswith(without))
    assert [problem.code for problem in caught.value.problems] == ["sources-missing"] * len(wanted)
    for name, problem in zip(wanted, caught.value.problems, strict=True):
        assert name in problem.message and problem.hint and problem.place
    with pytest.raises(ResolutionError) as unknown:
        obtain_sources(replace(locked, platform=replace(locked.platform, sources=())), build_env)
    assert unknown.value.code == "sources-unknown"
    silent = replace(locked, headers=(replace(locked.headers[0], source_rpm=""), *locked.headers[1:]))
    with pytest.raises(ResolutionError, match="names no source package") as nameless:
        obtain_sources(silent, build_env)
    assert nameless.value.problems[0].place == str(locked.headers[0].nevra)


def test_a_source_package_that_nobody_signed_is_refused(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment, mirror: Path, tmp_path: Path
) -> None:
    locked = built("nginx").locked
    files = sorted((mirror / "sources").glob("*.rpm"))
    forged = _other_sources(locked, tmp_path / "forged", files)
    unsigned = next((tmp_path / "forged").glob("bash-*.src.rpm"))
    subprocess.run(["rpmsign", "--delsign", str(unsigned)], check=True, capture_output=True)
    command = ["createrepo_c", "--quiet", "--checksum=sha256", str(tmp_path / "forged")]
    subprocess.run(command, check=True)
    with pytest.raises(VerificationError) as caught:
        obtain_sources(forged, build_env)
    assert [problem.code for problem in caught.value.problems] == ["package-unsigned"]
    assert "bash" in str(caught.value)


def test_a_binary_package_is_no_source_package(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment, mirror: Path, tmp_path: Path
) -> None:
    locked = built("nginx").locked
    binary = next((mirror / "base").glob("bash-[0-9]*.rpm"))
    with pytest.raises(ResolutionError) as caught:
        files = [file for file in (mirror / "sources").glob("*.rpm") if not file.name.startswith("bash-")]
        obtain_sources(_other_sources(locked, tmp_path / "swapped", [*files, binary]), build_env)
    assert [problem.code for problem in caught.value.problems] == ["sources-missing"]
