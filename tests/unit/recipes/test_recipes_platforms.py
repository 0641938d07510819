"""repositories.yaml: platforms, what they extend, and which are refused."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from pipeline.errors import Problem, RecipeError
from pipeline.model.platform import PackageRepository, Platform, RepositoryAccess, SecretReference
from pipeline.model.rpm_database import DATABASE_FOLDERS, DatabaseFormat, RpmDatabase
from pipeline.model.signing_key import AcceptedSignature
from pipeline.recipes import Platforms, load_platforms

GOOD = """\
platforms:
  el:
    description: a distribution
    architectures: [x86_64, aarch64]
    variables: {release: "9", mirror: "${RELBUILD_MIRROR:-/srv/mirror}"}
    rpm-database: /var/lib/rpm
    repositories:
      - {id: base, baseurls: ["file://$mirror/$release/${basearch}"], keys: ["$mirror/KEY"]}
  vendor:
    extends: el
    variables: {release: "10"}
    repositories:
      - id: product
        metalink: "https://example.org/?arch=$basearch&release=$release"
        keys: [https://example.org/KEY]
        priority: 10
        cost: 500
        signed-metadata: true
        exclude: ["*-debug"]
  old:
    refused: it is too old
"""


def load(folder: Path, text: str) -> Platforms:
    path = folder / "repositories.yaml"
    path.write_text(text)
    return load_platforms(path)


def problems(folder: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        load(folder, text)
    return caught.value.problems


def test_platforms_are_read(tmp_path: Path) -> None:
    platforms = load(tmp_path, GOOD)
    base = PackageRepository("base", ("file://$mirror/$release/${basearch}",), keys=("$mirror/KEY",))
    assert list(platforms) == ["el", "vendor"]
    assert platforms["el"] == Platform(
        "el",
        (base,),
        (("mirror", "${RELBUILD_MIRROR:-/srv/mirror}"), ("release", "9")),
        RpmDatabase("/var/lib/rpm"),
        ("x86_64", "aarch64"),
    )
    assert platforms["el"].description == "a distribution"


def test_a_platform_adds_to_what_it_extends(tmp_path: Path) -> None:
    vendor = load(tmp_path, GOOD).find("vendor")
    assert [repository.id for repository in vendor.repositories] == ["base", "product"]
    assert dict(vendor.variables)["release"] == "10"
    assert (vendor.rpm_database, vendor.architectures) == (RpmDatabase("/var/lib/rpm"), ("x86_64", "aarch64"))
    assert vendor.repositories[1] == PackageRepository(
        "product",
        metalink="https://example.org/?arch=$basearch&release=$release",
        keys=("https://example.org/KEY",),
        priority=10,
        cost=500,
        signed_metadata=True,
        exclude=("*-debug",),
    )


@pytest.mark.parametrize(
    ("own", "extended", "database"),
    [
        ("{path: /var/lib/rpm, format: bdb}", "", RpmDatabase("/var/lib/rpm", DatabaseFormat.BDB)),
        ("{format: ndb}", "", RpmDatabase(DATABASE_FOLDERS[0], DatabaseFormat.NDB)),
        ("{path: /var/lib/rpm, format: bdb}", "/opt/rpm", RpmDatabase("/opt/rpm", DatabaseFormat.BDB)),
        ("{path: /var/lib/rpm, format: bdb}", "{format: sqlite}", RpmDatabase("/var/lib/rpm")),
        ("/var/lib/rpm", "{format: bdb}", RpmDatabase("/var/lib/rpm", DatabaseFormat.BDB)),
    ],
)
def test_a_platform_says_in_which_format_its_rpm_has_the_database(
    own: str, extended: str, database: RpmDatabase, tmp_path: Path
) -> None:
    text = GOOD.replace("rpm-database: /var/lib/rpm", f"rpm-database: {own}")
    if extended:
        text = text.replace("extends: el", f"extends: el\n    rpm-database: {extended}")
    assert load(tmp_path, text)["vendor"].rpm_database == database


def test_signatures_that_a_repository_accepts_are_named_from_a_closed_list(tmp_path: Path) -> None:
    accepting = '        exclude: ["*-debug"]\n        accept: [sha1, legacy-header-payload, sha1]\n'
    good = GOOD.replace('        exclude: ["*-debug"]\n', accepting)
    assert load(tmp_path, good)["vendor"].repositories[-1].accept == tuple(sorted(AcceptedSignature))
    with pytest.raises(RecipeError, match="accept"):
        load(tmp_path, good.replace("sha1", "md5"))


def test_fingerprints_pin_keys_and_have_a_length(tmp_path: Path) -> None:
    pin = "99db 70fa e1d7 ce22 7fb6  4882 05b5 55b3 8483 c65d"
    good = GOOD.replace('        exclude: ["*-debug"]\n', f'        fingerprints: ["{pin}"]\n')
    assert load(tmp_path, good)["vendor"].repositories[-1].fingerprints == (pin.replace(" ", "").upper(),)
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, good.replace("c65d", ""))
    assert caught.value.problems[0].code == "fingerprint-malformed"


def test_a_refused_platform_says_why(tmp_path: Path) -> None:
    platforms = load(tmp_path, GOOD)
    assert "old" not in platforms
    with pytest.raises(RecipeError) as caught:
        platforms.find("old", place="r.yaml:3: platform")
    (problem,) = caught.value.problems
    assert (problem.code, problem.place) == ("platform-refused", "r.yaml:3: platform")
    assert "it is too old" in problem.message


@pytest.mark.parametrize(
    ("base", "hint"), [("ell", "did you mean 'el'?"), ("zzz", "platforms of this file: el, vendor")]
)
def test_a_platform_that_extends_an_unknown_one_is_told_of_its_name_alone(base: str, hint: str, tmp_path: Path) -> None:
    text = f"platforms:\n  mine:\n    extends: {base}\n" + GOOD.split("platforms:\n", 1)[1]
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)
    (problem,) = caught.value.problems
    assert (problem.code, problem.hint) == ("platform-unknown", hint)


def test_an_option_of_repo_files_among_a_repositorys_keys_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, GOOD.replace('        exclude: ["*-debug"]\n', "        gpgcheck: 1\n"))
    hint = "leave it out; it is an option of .repo files (always so: signatures of packages are always checked)"
    assert caught.value.problems[0].hint == hint


def test_each_known_key_of_a_repository_is_listed_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, GOOD.replace('        exclude: ["*-debug"]\n', "        qqqqq: 1\n"))
    keys = str(caught.value.problems[0].hint).removeprefix("known keys: ").split(", ")
    assert len(keys) == len(set(keys)) > 10


def test_an_unknown_platform_is_guessed(tmp_path: Path) -> None:
    platforms = load(tmp_path, GOOD)
    for name, hint in (("vendro", "did you mean 'vendor'?"), ("zzz", "platforms: el, vendor")):
        with pytest.raises(RecipeError) as caught:
            platforms.find(name)
        assert (caught.value.code, caught.value.problems[0].hint) == ("platform-unknown", hint)


REPOSITORY = '      - {id: base, baseurls: ["file://$mirror/$release/${basearch}"], keys: ["$mirror/KEY"]}'


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "hint"),
    [
        ("description:", "descripton:", "key-unknown", "3: platforms.el.descripton", "'description'"),
        ("rpm-database:", "rpm_database:", "key-unknown", "6: platforms.el.rpm_database", "'rpm-database'"),
        (
            "rpm-database: /var/lib/rpm",
            "rpm-database: {path: /var/lib/rpm, format: berkeley}",
            "value-unknown",
            "6: platforms.el.rpm-database.format",
            "write sqlite, bdb or ndb",
        ),
        (
            "rpm-database: /var/lib/rpm",
            "rpm-database: {folder: /var/lib/rpm}",
            "key-unknown",
            "6: platforms.el.rpm-database.folder",
            "known keys: path, format",
        ),
        (
            "signed-metadata:",
            "signed_metadata:",
            "key-unknown",
            "18: platforms.vendor.repositories[0].signed_metadata",
            "'signed-metadata'",
        ),
        ("[x86_64, aarch64]", "[]", "list-empty", "4: platforms.el.architectures", "remove the list"),
        ("[x86_64, aarch64]", "[amd64]", "architecture-unknown", "4: platforms.el.architectures[0]", "x86_64"),
        (
            "priority: 10",
            "priority: 0",
            "value-out-of-range",
            "16: platforms.vendor.repositories[0].priority",
            None,
        ),
        (
            "id: product",
            "id: base",
            "repository-duplicate",
            "13: platforms.vendor.repositories[0].id",
            "another id",
        ),
        ("extends: el", "extends: ell", "platform-unknown", "10: platforms.vendor.extends", "'el'"),
        ("extends: el", "extends: vendor", "platform-cycle", "10: platforms.vendor.extends", "cycle"),
        ("extends: el", "extends: old", "platform-refused", "10: platforms.vendor.extends", "another"),
        (
            "refused: it is too old",
            "refused: no\n    extends: el",
            "platform-contradiction",
            "21: platforms.old.refused",
            "remove one",
        ),
        ("refused: it is too old", "description: x", "key-missing", "20: platforms.old", "repositories"),
        (
            "${RELBUILD_MIRROR:-/srv/mirror}",
            "${RELBUILD_MIRROR}",
            "variable-malformed",
            "5: platforms.el.variables.mirror",
            ":-default",
        ),
        (
            "${RELBUILD_MIRROR:-/srv/mirror}",
            "${GITHUB_TOKEN:-}",
            "variable-not-offered",
            "5: platforms.el.variables.mirror",
            "RELBUILD_VAR_GITHUB_TOKEN",
        ),
        (
            "$mirror/KEY",
            "$miror/KEY",
            "variable-undefined",
            "8: platforms.el.repositories[0].keys[0]",
            "'$mirror'",
        ),
        (
            "arch=$basearch",
            "arch=$zzz",
            "variable-undefined",
            "14: platforms.vendor.repositories[0].metalink",
            "variables",
        ),
        (
            'baseurls: ["file://$mirror/$release/${basearch}"], ',
            "",
            "repository-location",
            "8: platforms.el.repositories[0]",
            "exactly one",
        ),
        ('keys: ["$mirror/KEY"]', "keys: []", "list-empty", "8: platforms.el.repositories[0].keys", None),
        (
            "file://$mirror",
            "ftp://$mirror",
            "url-malformed",
            "8: platforms.el.repositories[0].baseurls[0]",
            "https://",
        ),
        (
            "cost: 500",
            "mirrorlist: https://a/b",
            "repository-location",
            "13: platforms.vendor.repositories[0]",
            "exactly one",
        ),
    ],
)
def test_a_mistake_in_the_file(tmp_path: Path, old: str, new: str, code: str, place: str, hint: str | None) -> None:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new))
    assert [(problem.code, problem.place) for problem in found] == [(code, f"repositories.yaml:{place}")]
    assert hint is None or hint in (found[0].hint or "")


def test_options_are_called_as_in_dnf(tmp_path: Path) -> None:
    more = "excludepkgs: [b], includepkgs: ['a*'], module_hotfixes: true, enabled: true, sslverify: true, cost: 500"
    repository = load(tmp_path, GOOD.replace("cost: 500", more.replace(", ", "\n        ")))["vendor"].repositories[1]
    assert (repository.exclude, repository.include) == (("*-debug", "b"), ("a*",))
    assert repository.module_hotfixes and repository.cost == 500


def test_a_repository_that_is_not_enabled_is_left_out(tmp_path: Path) -> None:
    vendor = load(tmp_path, GOOD.replace("cost: 500", "enabled: false"))["vendor"]
    assert [repository.id for repository in vendor.repositories] == ["base"]
    (found,) = problems(tmp_path, GOOD.replace('keys: ["$mirror/KEY"]', 'keys: ["$mirror/KEY"], enabled: false'))
    assert (found.code, found.hint) == ("key-missing", "add 'repositories:', or 'refused:' with a reason")


def test_tls_without_verification_is_refused_by_name(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, GOOD.replace("cost: 500", "sslverify: false"))
    assert (found.code, found.place) == (
        "tls-unverified",
        "repositories.yaml:17: platforms.vendor.repositories[0].sslverify",
    )


ACCESS = """
        sslcacert: /ca.pem
        sslclientcert: /etc/pki/entitlement/*.pem
        username: {environment: RELBUILD_SECRET_USER}
        password: {file: vendor}
        proxy: http://proxy.test:3128
        proxy_username: me
        proxy_password: {environment: RELBUILD_SECRET_PROXY}"""


def test_a_repository_says_how_it_is_reached(tmp_path: Path) -> None:
    repository = load(tmp_path, GOOD.replace("cost: 500", "cost: 500" + ACCESS))["vendor"].repositories[1]
    assert repository.access == RepositoryAccess(
        sslcacert="/ca.pem",
        sslclientcert="/etc/pki/entitlement/*.pem",
        username=SecretReference(environment="RELBUILD_SECRET_USER"),
        password=SecretReference(file="vendor"),
        proxy="http://proxy.test:3128",
        proxy_username="me",
        proxy_password=SecretReference(environment="RELBUILD_SECRET_PROXY"),
    )


@pytest.mark.parametrize(
    ("key", "code", "hint"),
    [
        ("password: pA55w0rd", "secret-written", "{file: NAME}"),
        ("proxy_password: pA55w0rd", "secret-written", "{file: NAME}"),
        ("password: {environment: pA55w0rd}", "variable-not-offered", "RELBUILD_SECRET_NAME"),
        ("password: {environment: GITHUB_TOKEN}", "variable-not-offered", "RELBUILD_SECRET_NAME"),
        ("password: {environment: RELBUILD_VAR_X}", "variable-not-offered", "RELBUILD_SECRET_NAME"),
        ("password: {file: 'pA55w0rd!'}", "name-malformed", "RELBUILD_SECRETS"),
        ("password: {file: /etc/token}", "name-malformed", "RELBUILD_SECRETS"),
        ("password: {file: ../token}", "name-malformed", "RELBUILD_SECRETS"),
        ("password: {file: a, environment: RELBUILD_SECRET_X}", "secret-malformed", "exactly one"),
        ("password: {}", "secret-malformed", "exactly one"),
        ("proxy: http://me:pA55w0rd@proxy.test", "secret-written", "proxy_username and proxy_password"),
        ("proxy: socks5://proxy.test", "url-malformed", "http://HOST:PORT"),
        ("token: pA55w0rd", "secret-written", "{file: NAME}"),
        ("token: {environment: GITHUB_TOKEN}", "variable-not-offered", "RELBUILD_SECRET_NAME"),
        ("proxy_username: me", "access-incomplete", "name the proxy"),
        ("sslclientcert: /etc/$relase.pem", "variable-undefined", "did you mean '$release'?"),
    ],
)
def test_a_secret_stands_elsewhere_and_where_is_checked(tmp_path: Path, key: str, code: str, hint: str) -> None:
    (found,) = problems(tmp_path, GOOD.replace("cost: 500", key))
    assert found.code == code and hint in (found.hint or "")
    assert (found.place or "").startswith("repositories.yaml:17: platforms.vendor.repositories[0]")
    assert "pA55w0rd" not in f"{found}"


@pytest.mark.parametrize(
    ("key", "access"),
    [
        ("token: {file: vendor}", RepositoryAccess(token=SecretReference(file="vendor"))),
        ("netrc: true", RepositoryAccess(netrc=True)),
        ("negotiate: true", RepositoryAccess(negotiate=True)),
    ],
)
def test_a_repository_says_which_login_is_used(tmp_path: Path, key: str, access: RepositoryAccess) -> None:
    repository = load(tmp_path, GOOD.replace("cost: 500", key))["vendor"].repositories[1]
    assert repository.access == access


def test_platforms_that_extend_one_another_are_refused(tmp_path: Path) -> None:
    text = dedent(
        """\
        platforms:
          a: {extends: b}
          b: {extends: c}
          c: {extends: a}
        """
    )
    assert {problem.code for problem in problems(tmp_path, text)} >= {"platform-cycle"}


def test_a_mistake_in_an_extended_platform_is_reported_once(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD.replace("$mirror/KEY", "$miror/KEY"))
    assert len(found) == 1
