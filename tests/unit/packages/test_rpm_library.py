"""rpm's library is reached by the bindings that fit this interpreter, else by its C functions, with the same values."""

from __future__ import annotations

import errno
import importlib.machinery
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.packages import compare_evr, librpm, package_signature, rpm_bindings, rpm_header
from pipeline.packages.rpm_library import rpm
from tests.support.patience import HUNG
from tests.support.real import real_folder

PROGRAM = """
import subprocess
started = []
check_output = subprocess.check_output
subprocess.check_output = lambda *given, **named: (started.append(given), check_output(*given, **named))[1]
from pathlib import Path
from typing import Any
from pipeline.packages import rpm_bindings
rpm_bindings.binding_folders = lambda: map(Path, {folders!r})
from pipeline.packages.rpm_library import library_origin, rpm
from pipeline.packages import compare_evr, library_version
assert compare_evr("1:1.0-2", "1.0-3") == 1 and library_version() == rpm.__version__ and not started
print(library_origin())
"""
TAGGED = importlib.machinery.EXTENSION_SUFFIXES[0]


def origin(folders: list[str]) -> str:
    """What is said of rpm's library, whose bindings are looked for in `folders`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folders=folders)],
        capture_output=True,
        text=True,
        check=True,
        timeout=HUNG,
    )
    return done.stdout.strip()


def test_bindings_in_their_usual_place_are_loaded_from_there() -> None:
    assert rpm.__name__ == "rpm" and rpm.__file__ is not None, "the tests run in ci/setup's virtual environment"
    folder = Path(rpm.__file__).parent
    assert folder.parent in rpm_bindings.binding_folders()
    assert origin([str(folder.parent)]) == f"Python bindings in {folder}"


@pytest.mark.parametrize(
    ("extension", "text"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("_shim.py", "raise ImportError('by a package that starts other interpreters')", id="PyPI's shim"),
        pytest.param("_rpm.cpython-36m-x86_64-linux-gnu.so", "raise SystemExit('of another interpreter')", id="other"),
        pytest.param("_rpm.so", "raise SystemExit('of an unknown interpreter')", id="untagged"),
        pytest.param(f"_rpm{TAGGED}", "from rpm._rpm import *", id="broken"),
    ],
)
def test_elsewhere_the_c_library_is_called(tmp_path: Path, extension: str, text: str) -> None:
    if extension:
        (tmp_path / "rpm").mkdir()
        (tmp_path / "rpm" / "__init__.py").write_text(text)
        (tmp_path / "rpm" / extension).touch()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert origin([str(tmp_path)]) == f"{librpm.SONAME} itself, as no bindings here are for Python {version}"


def test_untagged_bindings_are_taken_from_a_folder_of_this_version(tmp_path: Path) -> None:
    folder = tmp_path / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (folder / "rpm").mkdir(parents=True)
    (folder / "rpm" / "_rpm.so").touch()
    (folder / "rpm" / "__init__.py").write_text(
        "from pipeline.packages.librpm import *\n"
        "from pipeline.packages.librpm import RPMLOG_CRIT, __version__, labelCompare, setVerbosity\n"
    )
    assert origin([str(folder)]) == f"Python bindings in {folder / 'rpm'}"


@pytest.fixture(scope="module")
def packages() -> list[Path]:
    """Packages of four formats."""
    folders = [real_folder(name) for name in ("el7-httpd", "rocky8", "fc43", "rpm6")]
    return sorted(package for folder in folders for package in folder.rglob("*.rpm"))


def test_every_tag_has_the_value_that_the_bindings_give(packages: list[Path]) -> None:
    names = [name for name in vars(rpm) if name.startswith("RPMTAG_") and name != "RPMTAG_NOT_FOUND"]
    assert len(packages) > 20 and len(names) > 200
    assert {name: getattr(librpm, name) for name in names} == {name: getattr(rpm, name) for name in names}
    for package in packages:
        ours, theirs = (opened(library, package) for library in (librpm, rpm))
        differing = [name for name in names if ours[getattr(rpm, name)] != theirs[getattr(rpm, name)]]
        assert not differing, package
        form = "%{NAME} [%{PROVIDES} %{PROVIDEFLAGS:depflags}\n]"
        assert ours.sprintf(form) == theirs.sprintf(form)


def test_a_header_that_is_to_be_installed_has_the_same_bytes(packages: list[Path]) -> None:
    written = []
    for library in (librpm, rpm):
        header = opened(library, packages[0])
        for tag in (rpm.RPMTAG_INSTALLTIME, rpm.RPMTAG_INSTALLCOLOR, rpm.RPMTAG_INSTALLTID):
            header[tag] = 1 << 31
        with pytest.raises(TypeError, match="tag already exists"):
            header[rpm.RPMTAG_INSTALLTIME] = 2
        with pytest.raises(library.error, match=r"\{"):
            header.sprintf("%{NAME")
        written.append(header.unload())
    assert written[0] == written[1] and len(written[0]) > 1000


def test_what_is_no_package_or_no_key_is_refused_in_the_same_words(packages: list[Path], tmp_path: Path) -> None:
    (damaged := tmp_path / "damaged.rpm").write_bytes(packages[0].read_bytes()[:3000])
    for library in (librpm, rpm):
        with pytest.raises(library.error, match="error reading package header"):
            opened(library, damaged)
        for armored in (b"", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", b"x" * 100):
            with pytest.raises(ValueError, match="invalid"):
                library.pubkey(armored)
    with pytest.raises(AttributeError, match="RPMTAG_NOSUCH"):
        librpm.RPMTAG_NOSUCH  # noqa: B018


def opened(library: Any, package: Path) -> Any:
    """The header of a package, by one of the two ways."""
    transaction = library.TransactionSet("/", 0)
    transaction.setVSFlags(library._RPMVSF_NOSIGNATURES)
    with package.open("rb") as file:
        return transaction.hdrFromFdno(file.fileno())


@pytest.mark.parametrize(
    ("older", "newer"), [("", "1-1"), ("1:", "1:1"), ("-1", "0-2"), ("0:-1", "1:"), ("", "1:"), ("-1", "0.1-1")]
)
@pytest.mark.parametrize("library", [librpm, rpm], ids=["the C library", "the bindings"])
def test_an_empty_version_is_compared_as_0(
    library: Any, older: str, newer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rpmverNew` makes nothing of it, and `rpmverCmp` of nothing ends the process."""
    monkeypatch.setattr("pipeline.packages.rpm_library.rpm", library)
    assert (compare_evr(older, newer), compare_evr(newer, older), compare_evr(older, older)) == (-1, 1, 0)
    for pair in (("0", "", "1"), ("0", "1", "1")), (("0", "1", "1"), ("0", "", "1")), (("0", "", ""), ("0", "", "")):
        with pytest.raises(ValueError, match="invalid version"):
            library.labelCompare(*pair)


@pytest.mark.parametrize("library", [librpm, rpm], ids=["the C library", "the bindings"])
def test_a_package_is_not_damaged_where_no_file_can_be_opened(
    library: Any, packages: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rpm_header, package_signature):
        monkeypatch.setattr(module, "rpm", library)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for reads in (rpm_header.open_header, package_signature._open):
        assert reads(packages[0])[rpm.RPMTAG_NAME], "with descriptors enough"
        os.close(free := os.open(packages[0], os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            with pytest.raises(OSError, match="Too many open files") as caught:
                reads(packages[0])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(packages[0]))


@pytest.mark.costly
@pytest.mark.parametrize("file", ["test_real_signatures.py", "test_package_signature.py"])
def test_signatures_are_judged_alike_without_bindings(file: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "tests.support.no_bindings"),
            Path(__file__).with_name(file),
        ],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False, timeout=HUNG,
    )  # fmt: skip
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout


NO_LIBRARY = """
import ctypes
def absent(name, **options):
    raise OSError(name)
ctypes.PyDLL = absent
from pipeline.packages import rpm_bindings
rpm_bindings.binding_folders = lambda: iter(())
from pipeline.cli import main
import sys
sys.argv = ["relbuild", "doctor", "--json"]
main()
"""


def test_without_any_library_the_doctor_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", NO_LIBRARY], capture_output=True, text=True, check=False, timeout=HUNG)
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}["rpm's library"]
    assert not found["ok"] and "there is no librpm.so.10 or librpm.so.9" in found["detail"]
    assert "the package 'rpm'" in found["detail"] and done.returncode == 8 and not done.stderr


def test_a_library_that_lacks_a_function_is_told_with_its_name() -> None:
    code = (
        "import ctypes, sys\n"
        "class Old(ctypes.PyDLL):\n"
        "    def __getattr__(self, name):\n"
        "        if name == 'rpmReadPackageFile':\n"
        "            raise AttributeError(name)\n"
        "        return super().__getattr__(name)\n"
        "ctypes.PyDLL = Old\n"
        "import pipeline.packages.librpm\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=HUNG)
    assert done.stderr.splitlines()[-1] == f"ImportError: {librpm.SONAME} has no 'rpmReadPackageFile'"


def test_tags_that_rpm_6_renamed_are_read_by_number() -> None:
    """rpm 6 has PAYLOADSHA256 for PAYLOADDIGEST; its bindings know no old names."""
    code = (Path(__file__).parents[3] / "pipeline/packages").glob("*.py")
    assert [path.name for path in code if "rpm.RPMTAG_PAYLOADDIGEST" in path.read_text()] == []
    tags = (package_signature._PAYLOAD_TAG, package_signature._PAYLOAD_ALGORITHM_TAG)
    name = "RPMTAG_PAYLOADDIGEST" if librpm.__version__ < "5" else "RPMTAG_PAYLOADSHA256"
    assert tags == (getattr(librpm, name), getattr(librpm, f"{name}ALGO"))
