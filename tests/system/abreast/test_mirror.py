"""The development mirror: signed throughout, with every hard case in it, installable by dnf."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.tiny_root import require_root

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
INSTALLED_DBPATH = "/usr/lib/sysimage/rpm"


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} failed\n{done.stdout}\n{done.stderr}"
    return done.stdout


def query(form: str, *packages: Path) -> list[str]:
    """Return what rpm says for the query format, line by line."""
    return run("rpm", "-qp", "--nosignature", "--nodigest", "--qf", form, *packages).splitlines()


@dataclass(frozen=True)
class Keyring:
    """A private RPM database that holds the mirror's key and nothing else."""

    database: Path

    def check(self, *packages: Path) -> subprocess.CompletedProcess[str]:
        options = ["--define", "_pkgverify_level all", "--dbpath", str(self.database)]
        command = ["rpmkeys", *options, "-K", *map(str, packages)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def keyring(mirror: Path, tmp_path: Path) -> Keyring:
    database = tmp_path / "keyring"
    database.mkdir()
    run("rpmkeys", "--dbpath", database, "--import", mirror / "RPM-GPG-KEY-local")
    return Keyring(database)


def hardcase(mirror: Path, name: str, repository: str = "base", arch: str = "*") -> Path:
    """Return the one package of that name."""
    found = [
        file
        for file in (mirror / repository).glob(f"hardcase-{name}-[0-9]*.{arch}.rpm")
        if query("%{NAME}\n", file) == [f"hardcase-{name}"]
    ]
    assert len(found) == 1, f"hardcase-{name} in {repository}: {found}"
    return found[0]


def listed(package: Path, form: str) -> dict[str, str]:
    """Return the value of a per-file query format by file name."""
    lines = query(f"[%{{FILENAMES}}\t{form}\n]", package)
    return dict(line.split("\t") for line in lines)


@pytest.mark.parametrize("repository", ["base", "updates", "sources"])
def test_every_package_is_signed_with_the_mirrors_key(mirror: Path, keyring: Keyring, repository: str) -> None:
    done = keyring.check(*sorted((mirror / repository).glob("*.rpm")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["unsigned", "wrongly-signed"])
def test_the_bad_repository_has_packages_that_do_not_verify(mirror: Path, keyring: Keyring, name: str) -> None:
    assert keyring.check(hardcase(mirror, name, "bad")).returncode != 0
    assert keyring.check(hardcase(mirror, "signed", "bad")).returncode == 0


@pytest.mark.parametrize("repository", ["base", "updates", "bad", "sources"])
def test_repository_metadata_is_signed(mirror: Path, tmp_path: Path, repository: str) -> None:
    keyring = tmp_path / "key.gpg"
    run("gpg", "--batch", "--homedir", tmp_path, "--dearmor", "--output", keyring, mirror / "RPM-GPG-KEY-local")
    repomd = mirror / repository / "repodata/repomd.xml"
    run("gpgv", "--keyring", keyring, f"{repomd}.asc", repomd)


def test_one_repository_has_zstd_metadata_and_one_gzip(mirror: Path) -> None:
    assert list(mirror.glob("base/repodata/*-primary.xml.zst"))
    assert list(mirror.glob("updates/repodata/*-primary.xml.gz"))


def test_payloads_come_in_every_compression(mirror: Path) -> None:
    compressors = set(query("%{PAYLOADCOMPRESSOR}\n", *(mirror / "base").glob("*.rpm")))
    assert compressors >= {"zstd", "gzip", "xz", "bzip2"}


def test_headers_say_nothing_of_the_machine_that_built_them(mirror: Path) -> None:
    packages = [*(mirror / "base").glob("*.rpm"), *(mirror / "sources").glob("*.rpm")]
    assert set(query("%{BUILDHOST}|%{VENDOR}\n", *packages)) == {"mirror.relbuild.invalid|relbuild development mirror"}


def test_every_package_has_the_source_package_that_its_header_names(mirror: Path) -> None:
    packages = [*(mirror / "base").glob("*.rpm"), *(mirror / "updates").glob("*.rpm")]
    assert set(query("%{SOURCERPM}\n", *packages)) == {file.name for file in (mirror / "sources").glob("*.rpm")}


def test_source_packages_hold_the_spec_and_what_it_was_made_from(mirror: Path) -> None:
    (nginx,) = (mirror / "sources").glob("nginx-*local1.src.rpm")
    assert set(query("[%{FILENAMES}\n]", nginx)) >= {"nginx.spec", "nginx.deb", "nginx-common.deb"}
    (setup,) = (mirror / "sources").glob("setup-*.src.rpm")
    assert set(query("[%{FILENAMES}\n]", setup)) >= {"setup.spec", "passwd", "group", "hosts"}
    assert set(query("[%{FILEMTIMES} %{=BUILDTIME}\n]", setup)) == {"1767225600 1767225600"}


def test_headers_of_source_packages_name_no_path_of_the_machine(mirror: Path) -> None:
    packages = list((mirror / "sources").glob("*.rpm"))
    assert not [line for line in query("%{SPEC}\n", *packages) if str(mirror) in line or str(ROOT) in line]


def test_changelogs_go_back_some_years(mirror: Path) -> None:
    curl = next((mirror / "base").glob("libcurl-[0-9]*.rpm"))
    times = [int(text) for text in query("[%{CHANGELOGTIME}\n]", curl)]
    assert len(times) == 20 and times == sorted(times, reverse=True)
    assert "CVE-" in "".join(query("[%{CHANGELOGTEXT}\n]", curl))


def test_identical_files_are_identical_to_the_header(mirror: Path) -> None:
    form = "%{FILEDIGESTS} %{FILEMODES} %{FILEMTIMES}"
    left = listed(hardcase(mirror, "identical"), form)
    right = listed(hardcase(mirror, "identical-b"), form)
    shared = "/usr/share/hardcase/identical.txt"
    assert left[shared] == right[shared]


def test_directory_modes_differ_between_two_packages(mirror: Path) -> None:
    path = "/usr/share/hardcase/dirmode"
    modes = [listed(hardcase(mirror, name), "%{FILEMODES:octal}")[path] for name in ("dirmode", "dirmode-b")]
    assert modes == ["40755", "40700"]


def test_the_last_of_the_hard_links_is_a_document(mirror: Path) -> None:
    package = hardcase(mirror, "hardlinks")
    inodes = listed(package, "%{FILEINODES}")
    linked = [path for path, inode in inodes.items() if inode == inodes["/usr/bin/hardcase-hardlink"]]
    assert len({Path(path).parent for path in linked}) == 3
    assert listed(package, "%{FILEFLAGS:fflags}")[linked[-1]] == "d"


@pytest.mark.parametrize(
    ("name", "tag", "expected"),
    [
        ("obsoletes", "OBSOLETENEVRS", "hardcase-obsoleted < 2"),
        ("rich", "REQUIRENEVRS", "(hardcase-rich-a or hardcase-rich-b)"),
        ("rich", "REQUIRENEVRS", "(hardcase-rich-with-bash if bash)"),
        ("filedep", "REQUIRENEVRS", "/usr/share/hardcase-filedep/only-in-filelists"),
        ("transport-a", "PROVIDENEVRS", "hardcase-mail-transport"),
        ("transport-b", "PROVIDENEVRS", "hardcase-mail-transport"),
        ("conflicts", "CONFLICTNEVRS", "hardcase-conflicts-b"),
        ("weak", "RECOMMENDNEVRS", "hardcase-weak-recommended"),
        ("weak", "SUGGESTNEVRS", "hardcase-weak-suggested"),
        ("weak-supplement", "SUPPLEMENTNEVRS", "hardcase-weak"),
        ("weak-enhancer", "ENHANCENEVRS", "hardcase-weak"),
        ("unresolvable", "REQUIRENEVRS", "hardcase-nobody-provides-this >= 3"),
        ("sysusers", "PROVIDENEVRS", "group(hardcase-sysusers)"),
        ("sysusers", "REQUIRENEVRS", "user(hardcase-sysusers)"),
    ],
)
def test_dependencies_of_the_hard_cases(mirror: Path, name: str, tag: str, expected: str) -> None:
    assert expected in query(f"[%{{{tag}}}\n]", hardcase(mirror, name))


def test_the_required_file_is_not_in_primary(mirror: Path) -> None:
    primary = next((mirror / "base/repodata").glob("*-primary.xml.zst"))
    filelists = next((mirror / "base/repodata").glob("*-filelists.xml.zst"))
    path = "<file>/usr/share/hardcase-filedep/only-in-filelists</file>"
    assert path not in run("zstd", "--decompress", "--stdout", primary)
    assert path in run("zstd", "--decompress", "--stdout", filelists)


def test_two_packages_have_other_content_at_the_same_path(mirror: Path) -> None:
    path = "/usr/share/hardcase/fileconflict.txt"
    packages = [hardcase(mirror, f"fileconflict-{name}") for name in "ab"]
    digests = {listed(package, "%{FILEDIGESTS}")[path] for package in packages}
    assert len(digests) == 2
    assert query("[%{CONFLICTNEVRS}\n]", *packages) == []


def test_the_lower_version_has_the_higher_epoch(mirror: Path) -> None:
    packages = (mirror / "base").glob("hardcase-epoch-*.rpm")
    assert set(query("%{EPOCHNUM}:%{VERSION}\n", *packages)) == {"1:1.0", "0:2.0"}


def test_the_colour_pair(mirror: Path) -> None:
    path = "/usr/bin/hardcase-colour"
    for arch, colour in (("i686", "1"), ("x86_64", "2")):
        package = hardcase(mirror, "colour", arch=arch)
        assert listed(package, "%{FILECOLORS}")[path] == colour


def test_modes_owners_and_capabilities(mirror: Path) -> None:
    package = hardcase(mirror, "modes")
    modes = listed(package, "%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME}")
    assert modes["/usr/bin/hardcase-setuid"] == "104755 root:root"
    assert modes["/usr/bin/hardcase-setgid"] == "102755 root:tty"
    assert modes["/usr/bin/hardcase-unreadable"] == "100000 root:root"
    assert modes["/usr/share/hardcase-modes/sticky"] == "41777 root:root"
    assert listed(package, "%{FILECAPS}")["/usr/bin/hardcase-caps"] == "cap_net_bind_service,cap_net_raw=ep"


def test_names_that_need_care(mirror: Path) -> None:
    names = query("[%{FILENAMES}\n]", hardcase(mirror, "names"))
    ends = {Path(name).name for name in names}
    assert {"größe-日本語.txt", "with space.txt", "star*.txt", "100%.txt", ".wh.not-a-whiteout"} <= ends
    assert max(map(len, names)) > 255


def test_languages_configuration_and_ghosts(mirror: Path) -> None:
    languages = listed(hardcase(mirror, "languages"), "%{FILELANGS}")
    assert languages["/usr/share/locale/de/LC_MESSAGES/hardcase.mo"] == "de"
    flags = listed(hardcase(mirror, "config"), "%{FILEFLAGS:fflags}")
    assert flags["/etc/hardcase/noreplace.conf"] == "cn"
    assert flags["/etc/hardcase/missingok.conf"] == "cmn"
    assert flags["/etc/hardcase/generated.conf"] == "g"
    assert flags["/var/lib/hardcase-ghost"] == "g"
    assert query("[%{FILENAMES}\n]", hardcase(mirror, "empty")) == []


def test_scriptlets_and_triggers_of_every_kind(mirror: Path) -> None:
    package = hardcase(mirror, "scriptlets")
    for tag in ("PRETRANS", "PREIN", "POSTIN", "PREUN", "POSTUN", "POSTTRANS"):
        assert query(f"%{{{tag}}}\n", package) != ["(none)"], tag
    for tag in ("TRIGGERSCRIPTS", "FILETRIGGERSCRIPTS", "TRANSFILETRIGGERSCRIPTS"):
        assert query(f"[%{{{tag}}}\n]", package), tag
    assert query("%{PRETRANSPROG}\n", package) == ["<lua>"]
    assert query("%{POSTINPROG}\n", hardcase(mirror, "lua")) == ["<lua>"]
    glibc_common = next((mirror / "base").glob("glibc-common-*.rpm"))
    assert "/usr/lib" in query("[%{TRANSFILETRIGGERNAME}\n]", glibc_common)


def test_updates_are_newer_and_described(mirror: Path) -> None:
    updateinfo = next((mirror / "updates/repodata").glob("*-updateinfo.xml.gz"))
    text = run("gzip", "--decompress", "--stdout", updateinfo)
    assert all(kind in text for kind in ('type="security"', 'type="bugfix"', 'type="enhancement"'))
    for package in (mirror / "updates").glob("*.rpm"):
        assert f"<filename>{package.name}</filename>" in text
    assert query("%{VERSION}\n", hardcase(mirror, "update"), hardcase(mirror, "update", "updates")) == [
        "1.0",
        "1.1",
    ]


def test_the_license_of_a_package_is_marked(mirror: Path) -> None:
    bash = next((mirror / "base").glob("bash-[0-9]*.rpm"))
    flags = listed(bash, "%{FILEFLAGS:fflags}")
    assert flags["/usr/share/doc/bash/copyright"] == "l"
    assert flags["/usr/share/man/man1/bash.1.gz"] == "d"


def test_mysql_and_mariadb_are_both_there_and_are_never_installed_together(mirror: Path) -> None:
    mariadb, client = (next((mirror / "base").glob(f"{name}-[0-9]*.rpm")) for name in ("mariadb-server", "mariadb"))
    assert query("[%{CONFLICTNEVRS}\n]", mariadb, client) == ["mysql-server", "mysql"]
    without = json.loads((mirror / "state.json").read_text())["without_mysql_because"]
    if without:
        pytest.skip(f"this mirror is without MySQL: {without}")
    assert list((mirror / "base").glob("mysql-server-[0-9]*.rpm"))


@pytest.mark.parametrize("name", ["python3-libs", "httpd", "mariadb-connector-c"])
def test_what_is_loaded_by_path_satisfies_nobody(mirror: Path, name: str) -> None:
    (package,) = (mirror / "base").glob(f"{name}-[0-9]*.rpm")
    offered = [line for line in query("[%{PROVIDENEVRS}\n]", package) if ".so" in line]
    assert all(line.startswith("libmariadb.so.3") for line in offered), offered
    assert any(path.endswith(".so") for path in query("[%{FILENAMES}\n]", package))


def test_a_second_run_rebuilds_nothing(mirror: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mirror"
    shutil.copytree(mirror, copy, symlinks=True, ignore=shutil.ignore_patterns(".stamp", "S.gpg-agent*"))
    run(ROOT / "ci/mirror", "--output", copy, "--quiet")
    assert json.loads((copy / "state.json").read_text())["built"] == 0
    marker = (copy / "state.json").stat().st_mtime_ns
    assert "up to date" in run(ROOT / "ci/mirror", "--output", copy)
    assert (copy / "state.json").stat().st_mtime_ns == marker


@dataclass(frozen=True)
class Product:
    """What to install, and a script to run in the installed tree that prints ``expected``."""

    packages: tuple[str, ...]
    account: str
    script: str
    expected: str


PRODUCTS = {
    "mysql": Product(
        ("mysql-server", "mysql"),
        "27:27",
        """
        mysqld --user=mysql --initialize-insecure
        mysqld --user=mysql --skip-networking & server=$!
        for attempt in {1..1200}; do
          mysql -uroot -Ne 'select concat("answer ", 1)' 2>/dev/null && break
          sleep 0.5
        done
        mysqladmin -uroot shutdown
        wait $server
        """,
        "answer 1",
    ),
    "postgresql": Product(
        ("postgresql-server",),
        "26:26",
        """
        run() { chroot --userspec=postgres:postgres / "$@"; }
        run initdb -D /var/lib/pgsql/data --locale=C.UTF-8 >/dev/null 2>&1
        run pg_ctl -D /var/lib/pgsql/data -w -t 600 -l /var/lib/pgsql/log \
          -o '-c listen_addresses= -c unix_socket_directories=/run/postgresql' start >/dev/null
        run psql -h /run/postgresql -d postgres -Atc "select 'answer ' || 1"
        run pg_ctl -D /var/lib/pgsql/data -m fast -t 600 stop >/dev/null
        """,
        "answer 1",
    ),
    "nginx": Product(
        ("nginx",),
        "999:999",
        """
        sed -i 's/listen 80;/listen unix:\\/tmp\\/nginx.sock;/' /etc/nginx/nginx.conf
        nginx
        curl --silent --unix-socket /tmp/nginx.sock http://local/ | grep -o 'Welcome to nginx' | head -1
        nginx -s stop 2>/dev/null
        """,
        "Welcome to nginx",
    ),
    "redis": Product(
        ("redis",),
        "999:999",
        """
        redis-server --port 0 --unixsocket /tmp/redis.sock --daemonize yes >/dev/null
        for attempt in {1..6000}; do redis-cli -s /tmp/redis.sock ping 2>/dev/null && break; sleep 0.1; done
        redis-cli -s /tmp/redis.sock shutdown nosave
        """,
        "PONG",
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_dnf_installs_the_products_and_they_answer(mirror: Path, tmp_path: Path, name: str) -> None:
    require_root("install into a tree of its own and run there")
    assert shutil.which("dnf"), "dnf is missing: ci/setup test installs it"
    state = json.loads((mirror / "state.json").read_text())
    if name == "mysql" and state["without_mysql_because"]:
        pytest.skip(f"this mirror is without MySQL: {state['without_mysql_because']}")
    product = PRODUCTS[name]
    tree = install(mirror, tmp_path, "coreutils", "sed", "grep", "curl", "ca-certificates", *product.packages)
    inside = ("chroot", tree, "/usr/bin/bash", "-ec")
    account = {"postgresql": "postgres"}.get(name, name)
    assert run(*inside, f"echo $(id -u {account}):$(id -g {account})").strip() == product.account
    assert (tree / "etc/ld.so.cache").stat().st_size > 0
    assert (tree / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 0
    assert product.expected in run(*inside, product.script)


def install(mirror: Path, folder: Path, *packages: str) -> Path:
    """Install ``packages`` with dnf into a new tree below ``folder``, as real systems do."""
    tree = folder / "tree"
    (tree / "dev").mkdir(parents=True)
    run("mknod", "-m", "666", tree / "dev/null", "c", "1", "3")
    (folder / ".rpmmacros").write_text(f"%_dbpath {INSTALLED_DBPATH}\n")
    options = ["--setopt=reposdir=/dev/null", f"--setopt=cachedir={folder / 'cache'}", "--releasever=1"]
    options += ["--setopt=gpgcheck=1", "--setopt=repo_gpgcheck=1", "--setopt=best=1"]
    options.append("--setopt=install_weak_deps=0")
    for repository in ("base", "updates"):
        options.append(f"--repofrompath={repository},file://{mirror / repository}")
        options.append(f"--setopt={repository}.gpgkey=file://{mirror / 'RPM-GPG-KEY-local'}")
    command = ("dnf", f"--installroot={tree}", "--assumeyes", *options, "install", *packages)
    output = run(*command, environment={"HOME": str(folder)})
    assert "scriptlet failed" not in output, output
    return tree
