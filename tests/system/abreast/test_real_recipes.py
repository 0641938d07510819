"""Recipes over packages of real distributions: built with their scriptlets, launched and asked, and compared with what
rpm installs. docs/differences.md lists the stand-ins for packages that the sets lack."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.build import BuildResult
from pipeline.errors import BuildError, VerificationError
from pipeline.launch import unpack_layers
from pipeline.progress import QUIET
from tests.support.derived_images import unpack
from tests.support.real import RealRecipes, real_recipes
from tests.support.rpm_install import compare_with_rpm, install_with_rpm, rpm
from tests.support.trees import Found, merged


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealRecipes:
    return real_recipes(tmp_path_factory.mktemp("real"))


def passed(result: BuildResult) -> list[str]:
    """The checks that a smoke test passed."""
    assert result.report is not None and result.report.passed, result.report
    report = json.loads((result.report_folder / "report.json").read_text())
    return [check["name"] for instance in report["smoke"]["instances"] for check in instance["checks"]]


def as_rpm_installs(real: RealRecipes, result: BuildResult, root: Path) -> tuple[dict[str, Found], str]:
    """The tree of an image, compared with what rpm makes of its packages in `root`, and what rpm said."""
    root.mkdir()
    said = install_with_rpm(root, result, real.build_env)
    tree = merged(unpack_layers(result.image, real.build_env.store, QUIET))
    found, left = compare_with_rpm(root, result, tree)
    assert found and not left, "\n".join(map(str, left))
    return tree, said


def test_httpd_of_rocky_8_serves_and_is_what_rpm_installs(real: RealRecipes, tmp_path: Path) -> None:
    result = real.build("rocky-httpd")
    assert passed(result) == ["ready", "page", "apache"]
    root = tmp_path / "root"
    tree, _ = as_rpm_installs(real, result, root)
    assert [path for path, entry in tree.items() if entry.capability] == ["usr/bin/suexec"]
    for table, line in (("passwd", "apache:x:48:48:Apache:/usr/share/httpd:/sbin/nologin"), ("group", "apache:x:48:")):
        assert line in (root / "etc" / table).read_text().splitlines()
        layers = unpack_layers(result.image, real.build_env.store, QUIET)
        texts = [file.read_text() for layer in layers if (file := layer / "etc" / table).exists()]
        assert line in texts[-1].splitlines()
    theirs = sorted(
        (Path(file.path).name, file.user == "apache", file.group == "apache")
        for header in result.locked.headers
        for file in header.files
        if "apache" in (file.user, file.group)
    )
    owned = [(Path(path).name, entry.uid == 48, entry.gid == 48) for path, entry in tree.items()]
    assert len(theirs) == 7 and sorted(one for one in owned if any(one[1:])) == theirs


def test_httpd_of_rocky_8_has_its_packages_in_berkeley_db_as_in_sqlite(real: RealRecipes, tmp_path: Path) -> None:
    """The format that Rocky 8's own rpm reads; this machine's rpm reads it too."""
    before = real.repositories.read_text()
    usual = real.build("rocky-httpd", smoke=False)
    place = "rpm-database: /var/lib/rpm"
    real.repositories.write_text(before.replace(place, "rpm-database: {path: /var/lib/rpm, format: bdb}"))
    try:
        old = real.build("rocky-httpd", smoke=False)
    finally:
        real.repositories.write_text(before)
    assert old.image.layers[:-1] == usual.image.layers[:-1] and old.image.digest != usual.image.digest
    words = "%{NEVRA} %{SIGMD5} %{INSTALLTIME}\n[%{=NAME} %{FILENAMES} %{FILESTATES}\n][%{=NAME} %{PROVIDENAME}\n]"
    listed = []
    for one, backend in ((usual, "sqlite"), (old, "bdb_ro")):
        chosen = ("--define", f"_db_backend {backend}")
        said = rpm(unpack(one, tmp_path), *chosen, "-qa", "--qf", words, database="/var/lib/rpm")
        listed.append(sorted(said.splitlines()))
    assert listed[0] == listed[1] and len(listed[0]) > 500


def test_tipidee_of_fedora_39_serves_on_glibc_of_fedora_43_and_is_what_rpm_installs(
    real: RealRecipes, tmp_path: Path
) -> None:
    result = real.build("tipidee")
    assert passed(result) == ["ready", "openssl", "page"]
    assert result.failed_scriptlets == ()
    as_rpm_installs(real, result, tmp_path / "root")


def test_a_trigger_that_wants_a_supervisor_ends_the_build_warns_or_is_waived(real: RealRecipes, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="transfiletriggerin") as caught:
        real.build("tipidee-plain")
    hint = caught.value.problems[0].hint or ""
    said = re.search(r"`(scriptlets: \{waive.*?\]\})`", hint)
    assert said, hint
    lenient = real.build("tipidee-plain", "scriptlets: rpm\n")
    assert passed(lenient) == ["ready", "openssl"]
    (failed,) = lenient.failed_scriptlets
    assert (failed.script, failed.reason) == ("transfiletriggerin", "")
    waived = real.build("tipidee-plain", said[1].replace("…", "no supervisor listens in a build") + "\n", smoke=False)
    assert {one.reason for one in waived.failed_scriptlets} == {"no supervisor listens in a build"}
    assert lenient.image.digest == waived.image.digest
    _, said_by_rpm = as_rpm_installs(real, lenient, tmp_path / "root")
    assert "%transfiletriggerin(s6-2.12.0.4-1.fc39.x86_64) scriptlet failed" in said_by_rpm


def test_httpd_of_el7_serves_where_its_repository_accepts_old_signatures(real: RealRecipes, tmp_path: Path) -> None:
    before = real.repositories.read_text()
    with pytest.raises(VerificationError) as caught:
        real.build("el7-httpd")
    assert {problem.code for problem in caught.value.problems} == {"package-old-format"}
    keys = 'keys: ["$real/keys/RPM-GPG-KEY-CentOS-7"]'
    assert keys in before
    real.repositories.write_text(before.replace(keys, f"{keys}, accept: [legacy-header-payload]"))
    try:
        result = real.build("el7-httpd")
    finally:
        real.repositories.write_text(before)
    assert passed(result) == ["ready", "page", "apache"]
    as_rpm_installs(real, result, tmp_path / "root")


def test_a_pin_to_the_older_build_of_a_stream_is_built_and_passes_nothing_without_checks(real: RealRecipes) -> None:
    result = real.build("module-pin")
    chosen = [str(one.package.nevra) for one in result.locked.section.resolution.chosen]
    assert "httpd-2.6.0-1.noarch" in chosen
    assert result.report is not None and not result.report.passed
    assert [problem for problem in result.report.problems if "no checks" in problem]
