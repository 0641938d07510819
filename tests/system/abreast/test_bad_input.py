"""Every bad input ends in its own error: a code, a place, a way out, the designed exit status, no traceback, and
nothing half-made left behind. Everything here goes through the command line, as a person would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.streams import open_compressed
from tests.support.patience import HUNG
from tests.support.rpmmd import write_document, write_repomd
from tests.support.sites import relbuild_at_once
from tests.support.tiny_root import require_root
from tests.system.conftest import ROOT

pytestmark = pytest.mark.long

BASE = "[setup, filesystem, glibc, bash, coreutils]"


@dataclass
class Bench:
    """A folder with recipes, a store, and the command line."""

    folder: Path
    mirror: Path
    store: Path

    def recipe(self, text: str, name: str = "broken") -> None:
        (self.folder / f"{name}.yaml").write_text(text)

    def plain(self, packages: str = BASE, more: str = "") -> None:
        self.recipe(
            f"name: broken\nversion: '1'\nplatform: local\narchitectures: [x86_64]\n"
            f"layers:\n  - name: base\n    packages: {packages}\n    without: [docs, man]\n{more}"
        )

    def run(self, *argv: str, environment: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Ended:
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "pipeline", *argv, "--json", "--progress", "plain"],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONPATH": str(ROOT),
                "RELBUILD_MIRROR": str(self.mirror),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            timeout=HUNG,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def refuse(self, *options: str, recipe: str = "broken.yaml") -> Ended:
        """Run a build in this process: what is wrong is found before anything is resolved or started."""
        words = ("build", recipe, "--store", self.store, *options, "--json", "--progress", "plain")
        with contextlib.chdir(self.folder):
            done = relbuild_at_once(self.folder, *words)
        return Ended(done.returncode, done.stdout, done.stderr)

    def build(self, *options: str, **more: object) -> Ended:
        return self.run("build", "broken.yaml", "--store", str(self.store), *options, **more)  # type: ignore[arg-type]


@dataclass
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    def refused(self, code: str, status: int, *, says: str = "", place: str = "") -> None:
        assert "Traceback" not in self.stderr, self.stderr
        assert self.status == status, (self.status, self.stderr)
        problems = json.loads(self.stdout)["error"]
        found = [problem for problem in problems if problem["code"] == code]
        assert found, (code, problems)
        assert says in found[0]["message"], found[0]
        assert place in (found[0]["place"] or ""), found[0]
        assert found[0]["hint"], found[0]
        assert f"error[{code}]" in self.stderr


@pytest.fixture
def bench(mirror: Path, tmp_path: Path) -> Bench:
    shutil.copy(ROOT / "recipes" / "repositories.yaml", tmp_path / "repositories.yaml")
    return Bench(tmp_path, mirror, tmp_path / "store")


@pytest.fixture(autouse=True)
def nothing_half_made(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """After every refusal: no layout, no lock temporary, nothing in flight in the store, nothing mounted."""
    yield
    if "leaves_an_image" in request.keywords:
        return
    assert not (tmp_path / "output" / "broken").exists()
    leftovers = [str(path) for path in tmp_path.rglob("*") if ".tmp" in path.name or path.name.startswith(".broken")]
    assert leftovers == []
    assert str(tmp_path / "store") not in Path("/proc/self/mountinfo").read_text()
    live = tmp_path / "store" / "sandbox" / "live"
    assert not live.exists() or list(live.iterdir()) == []


# --- the recipe ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("imagee: {user: x}", "key-unknown", "imagee"),
        ("values: [1, 2]", "type-wrong", "mapping"),
        ("name: again", "yaml-duplicate-key", "name"),
        ("values: {x: !!python/object:os.system {}}", "yaml-tag", ""),
        ("values: {a: &a [x, x], b: [*a, *a]}", "yaml-alias", ""),
        ("files: [{template: nowhere.j2, path: /etc/x, mode: '0644'}]", "template-missing", "nowhere.j2"),
        ("platform: elsewhere", "yaml-duplicate-key", "platform"),
        ("values: {a: [}", "yaml-syntax", ""),
    ],
)
def test_a_wrong_line_in_the_recipe(bench: Bench, line: str, code: str, says: str) -> None:
    bench.plain(more=f"{line}\n")
    bench.refuse().refused(code, 3, says=says, place="broken.yaml:9")


def test_a_template_that_uses_an_undefined_value(bench: Bench) -> None:
    bench.plain(more="values: {buffer_size: 1}\nfiles: [{template: x.j2, path: /etc/x, mode: '0644'}]\n")
    (bench.folder / "x.j2").write_text("first\nsize = {{ bufer_size }}\n")
    ended = bench.refuse()
    ended.refused("template-undefined", 3, says="bufer_size", place="x.j2:2")
    assert "buffer_size" in ended.stderr


def test_an_unknown_platform_names_the_known_ones(bench: Bench) -> None:
    bench.plain()
    ended = bench.refuse("--platform", "locl")
    ended.refused("platform-unknown", 3, says="locl")
    assert "local" in ended.stderr


def test_a_recipe_that_does_not_exist(bench: Bench) -> None:
    bench.plain()
    bench.refuse(recipe="broke.yaml").refused("recipe-missing", 3, says="broke")


@pytest.mark.parametrize(
    "words", [("--locked", "--upgrade"), ("--no-smoke", "--retest"), ("--no-smoke", "--full")], ids=" ".join
)
def test_options_that_contradict(bench: Bench, words: tuple[str, ...]) -> None:
    bench.plain()
    bench.refuse(*words).refused("options-contradict", 2, says=words[1])


# --- resolution --------------------------------------------------------------------------------------------


def test_a_package_that_nothing_provides(bench: Bench) -> None:
    bench.plain("[setup, corutils]")
    ended = bench.build()
    ended.refused("package-missing", 4, says="corutils", place="broken.yaml:7")
    assert "coreutils" in ended.stderr


def test_packages_that_conflict(bench: Bench) -> None:
    bench.plain("[hardcase-conflicts, hardcase-conflicts-b]")
    bench.build().refused("packages-conflict", 4, says="hardcase-conflicts")


def test_a_requirement_that_nothing_meets(bench: Bench) -> None:
    bench.plain("[hardcase-unresolvable]")
    bench.build().refused("requirement-missing", 4, says="hardcase-unresolvable")


def test_locked_without_a_lock(bench: Bench) -> None:
    bench.plain()
    bench.build("--locked").refused("lock-missing", 4, place="broken.lock")


def test_locked_with_a_stale_lock(bench: Bench) -> None:
    bench.plain()
    assert bench.run("lock", "broken.yaml", "--store", str(bench.store)).status == 0
    bench.plain("[setup, filesystem, glibc, bash, coreutils, sed]")
    before = (bench.folder / "broken.lock").read_bytes()
    bench.build("--locked").refused("lock-stale", 4, says="requested packages changed", place="broken.lock")
    assert (bench.folder / "broken.lock").read_bytes() == before


def test_a_damaged_lock(bench: Bench) -> None:
    bench.plain()
    assert bench.run("lock", "broken.yaml", "--store", str(bench.store)).status == 0
    lock = bench.folder / "broken.lock"
    lock.write_text(lock.read_text().replace("sha256", "sha265", 1))
    bench.build().refused("lock-malformed", 4, place="broken.lock")


def test_a_lock_that_lost_lines_in_a_merge(bench: Bench) -> None:
    bench.plain("[setup, filesystem, tzdata]")
    lock = bench.folder / "broken.lock"

    def locking(*words: str) -> Ended:
        return bench.run("lock", "broken.yaml", "--store", str(bench.store), *words)

    assert locking().status == 0
    whole = lock.read_text()
    lock.write_text(re.sub(r'  \{ nevra = "tzdata-.*\n|  "tzdata",\n', "", whole))
    locking("--check").refused("lock-stale", 4, says="was changed after it was written", place="broken.lock")
    bench.build("--locked").refused("lock-stale", 4, says="was changed after it was written", place="broken.lock")
    assert locking().status == 0 and lock.read_text() == whole
    lock.write_text(re.sub(r"\ndigest = .*", "", whole))  # As it was written before there was a digest.
    assert locking("--check").status == 0
    lock.write_text(lock.read_text().replace('layer = "base"', 'layer = "bsae"', 1))
    bench.build("--locked").refused("lock-stale", 4, says="a layer 'bsae'", place="broken.lock")


@pytest.mark.parametrize(
    ("form", "value", "says"),
    [
        (r"\nbuild_time = .*", "\nbuild_time = 9223372036854775807", "'build_time'"),
        (r"\naccounts = \[\]", '\naccounts = [{kind = "user", name = "x", number = 4294967295}]', "'number'"),
    ],
)
def test_a_lock_with_a_number_out_of_bounds(bench: Bench, form: str, value: str, says: str) -> None:
    bench.plain("[setup, filesystem]")
    assert bench.run("lock", "broken.yaml", "--store", str(bench.store)).status == 0
    lock = bench.folder / "broken.lock"
    text, count = re.subn(form, value, lock.read_text())
    assert count == 1
    lock.write_text(text)
    bench.build("--locked").refused("lock-malformed", 4, says=says, place="broken.lock, section 1")


# --- verification ------------------------------------------------------------------------------------------


def bad_repositories(bench: Bench, path: Path) -> None:
    (bench.folder / "repositories.yaml").write_text(
        "platforms:\n"
        "  local:\n"
        "    architectures: [x86_64]\n"
        "    repositories:\n"
        f"      - {{id: base, baseurls: ['file://{bench.mirror}/base'], keys: ['{bench.mirror}/RPM-GPG-KEY-local']}}\n"
        f"      - {{id: bad, baseurls: ['file://{path}'], keys: ['{bench.mirror}/RPM-GPG-KEY-local']}}\n"
    )


@pytest.mark.parametrize(
    ("package", "code"),
    [("hardcase-unsigned", "package-unsigned"), ("hardcase-wrongly-signed", "package-key-unknown")],
)
def test_a_package_whose_signature_is_not_good(bench: Bench, package: str, code: str) -> None:
    bad_repositories(bench, bench.mirror / "bad")
    bench.plain(f"[{package}]")
    bench.build().refused(code, 5, says=package)


def test_a_package_that_is_not_what_the_metadata_says(bench: Bench) -> None:
    copy = bench.folder / "copy"
    shutil.copytree(bench.mirror / "bad", copy)
    (package,) = copy.glob("hardcase-signed-*.rpm")
    data = bytearray(package.read_bytes())
    data[-20] ^= 1
    package.write_bytes(data)
    bad_repositories(bench, copy)
    bench.plain("[hardcase-signed]")
    bench.build().refused("download-mismatch", 5, says="hardcase-signed")


@pytest.mark.parametrize(
    ("form", "forged", "says"),
    [
        (rb'build="[0-9]+"', b'build="4294967295"', "was built at 4294967295"),
        (rb'build="[0-9]+"', b'build="0"', "was built at 0"),
        (rb"<rpm:sourcerpm>[^<]*", b"<rpm:sourcerpm>other-1-1.src.rpm", "was built from 'other-1-1.src.rpm'"),
    ],
)
def test_metadata_that_says_another_build_than_the_signed_header(
    bench: Bench, form: bytes, forged: bytes, says: str
) -> None:
    copy = bench.folder / "copy"
    shutil.copytree(bench.mirror / "bad", copy)
    (primary,) = (copy / "repodata").glob("*primary.xml*")
    with open_compressed(primary, limit=1 << 20) as file:
        data = re.sub(form, forged, file.read())
    write_repomd(copy, write_document(copy, "primary", data))
    bad_repositories(bench, copy)
    bench.plain("[hardcase-signed]")
    bench.build().refused("package-not-as-described", 5, says=says, place="hardcase-signed")
    assert not (bench.folder / "broken.lock").exists()


def test_metadata_whose_signature_is_not_good(bench: Bench) -> None:
    copy = bench.folder / "copy"
    shutil.copytree(bench.mirror / "updates", copy)
    repomd = copy / "repodata" / "repomd.xml"
    repomd.write_text(repomd.read_text().replace("<revision>", "<revision>9", 1))
    text = (bench.folder / "repositories.yaml").read_text()
    (bench.folder / "repositories.yaml").write_text(text.replace("file://$mirror/$basearch/updates", f"file://{copy}"))
    bench.plain()
    ended = bench.build()
    assert ended.status == 5 and "Traceback" not in ended.stderr, ended.stderr
    assert "signature" in ended.stderr


# --- building ------------------------------------------------------------------------------------------------


def test_files_of_two_packages_that_conflict(bench: Bench) -> None:
    bench.plain("[hardcase-fileconflict-a, hardcase-fileconflict-b]")
    bench.build().refused("file-conflict", 1, says="hardcase-fileconflict")


@pytest.mark.parametrize("which", ["post", "pre", "trigger"])
def test_a_scriptlet_that_fails(bench: Bench, which: str) -> None:
    bench.plain(f"[setup, filesystem, glibc, bash, coreutils, hardcase-failing-{which}]")
    bench.build().refused("scriptlet-failed", 1, says="hardcase-failing", place="hardcase-failing")


def test_an_owner_that_the_image_does_not_know(bench: Bench) -> None:
    bench.plain(more="files: [{content: x, path: /etc/x, mode: '0644', owner: nobodyknows}]\n")
    bench.build().refused("owner-unknown", 1, says="nobodyknows", place="broken.yaml:9")


def test_removing_what_is_not_there(bench: Bench) -> None:
    bench.plain(more="remove: [/no/such/path]\n")
    bench.build().refused("remove-missing", 1, says="/no/such/path", place="broken.yaml:9")


# --- launching -----------------------------------------------------------------------------------------------


@pytest.mark.leaves_an_image
@pytest.mark.parametrize(
    ("entrypoint", "says"),
    [
        ("[/bin/sh, -c, 'echo goodbye; exit 3']", "3"),
        ("[/bin/sh, -c, 'exec sleep 60']", "never"),
        ("[/no/such/program]", "/no/such/program"),
    ],
)
def test_an_image_that_does_not_come_up(bench: Bench, entrypoint: str, says: str) -> None:
    bench.plain(
        more=f"image: {{entrypoint: {entrypoint}}}\n"
        "smoke: {limits: {memory: 64MiB, pids: 20}, ready: {log: never, within: 2s}, "
        "checks: [{name: stops, stop: {within: 5s}}]}\n"
    )
    ended = bench.build()
    assert "Traceback" not in ended.stderr
    assert ended.status == 6, ended.stderr
    report = json.loads((bench.folder / "output" / "broken.report" / "report.json").read_text())
    assert report["smoke"]["passed"] is False
    assert says in json.dumps(report["smoke"]), report["smoke"]
    assert "error[smoke-failed]" in ended.stderr
    assert (bench.folder / "output" / "broken.report" / "junit.xml").exists()


@pytest.mark.leaves_an_image
def test_an_image_of_which_nothing_is_asked_does_not_pass(bench: Bench) -> None:
    bench.plain(more="image: {entrypoint: [/bin/sleep, '60']}\n")
    ended = bench.build()
    assert ended.status == 6 and "Traceback" not in ended.stderr


# --- the machine ----------------------------------------------------------------------------------------------


def test_no_runtime(bench: Bench) -> None:
    bench.plain()
    bench.build("--runtime", "/no/such/runtime").refused("runtime-missing", 8, says="/no/such/runtime")


def test_no_permission_to_write_the_store(bench: Bench) -> None:
    bench.plain()
    bench.store = Path("/proc/relbuild")
    ended = bench.build()
    assert ended.status in (2, 8) and "Traceback" not in ended.stderr, ended.stderr
    assert json.loads(ended.stdout)["error"][0]["place"]


def test_an_ordinary_user_is_told_what_is_missing(bench: Bench) -> None:
    """The user may read everything, so that the tools and the mirror are found, and may do nothing else."""
    require_root("become another user")
    bench.plain()
    bench.folder.chmod(0o777)
    nobody = (
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
        "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search",
    )  # fmt: skip
    bench.build(prefix=nobody).refused("root-needed", 8)


def test_a_full_disk(bench: Bench) -> None:
    require_root("mount a small file system")
    small = bench.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], check=True)
    try:
        bench.plain()
        bench.store = small / "store"
        bench.build().refused("disk-full", 8)
        in_flight = list((small / "store" / "tmp").iterdir())
        assert in_flight == []
    finally:
        subprocess.run(["umount", small], check=True)
