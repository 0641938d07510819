"""`.repo` files as they stand: redhat.repo as subscription-manager writes it, and what is obeyed or refused."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecipeError
from pipeline.ini_documents import IniMalformed, parse_ini
from pipeline.model.platform import PackageRepository, Platform, RepositoryAccess, SecretReference
from pipeline.nightly.snapshot import watched_paths
from pipeline.recipes import Platforms, load_platforms, repo_files
from pipeline.recipes.repo_file_options import OPTIONS
from pipeline.repos.repository_access import read_secret
from pipeline.repos.variables import answer_variables

SECRET = "pA55w0rd-canary"

# As rhsm's RhsmRepoFile and Repo write it (subscription-manager, src/subscription_manager/repofile.py), shortened.
REDHAT = """\
#
# Certificate-Based Repositories
# Managed by (rhsm) subscription-manager
#
# *** This file is auto-generated.  Changes made here will be over-written. ***
# *** Use "subscription-manager repo-override --help" if you wish to make changes. ***
#
# If this file is empty and this system is subscribed consider
# a "yum repolist" to refresh available repos
#

[rhel-9-for-x86_64-baseos-rpms]
name = Red Hat Enterprise Linux 9 for x86_64 - BaseOS (RPMs)
baseurl = https://cdn.redhat.com/content/dist/rhel9/$releasever/x86_64/baseos/os
enabled = 1
gpgcheck = 1
gpgkey = file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release
sslverify = 1
sslcacert = /etc/rhsm/ca/redhat-uep.pem
sslclientkey = /etc/pki/entitlement/5527980418107729172-key.pem
sslclientcert = /etc/pki/entitlement/5527980418107729172.pem
sslverifystatus = 1
metadata_expire = 86400
enabled_metadata = 1
ui_repoid_vars = releasever
arches = x86_64

[rhel-9-for-x86_64-baseos-source-rpms]
name = Red Hat Enterprise Linux 9 for x86_64 - BaseOS (Source RPMs)
baseurl = https://cdn.redhat.com/content/dist/rhel9/$releasever/x86_64/baseos/source/SRPMS
enabled = 0
gpgcheck = 1
gpgkey = file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release
sslverify = 1
sslcacert = /etc/rhsm/ca/redhat-uep.pem
sslclientkey = /etc/pki/entitlement/5527980418107729172-key.pem
sslclientcert = /etc/pki/entitlement/5527980418107729172.pem
metadata_expire = 86400
enabled_metadata = 0
"""

VENDOR = f"""\
[main]
gpgcheck=0
[vendor]
baseurl=https://one.vendor.test/el$releasever/
   https://two.vendor.test/el$releasever/, /srv/vendor
gpgkey=/keys/a https://vendor.test/b
repo_gpgcheck=yes
priority=5
cost = 10
includepkgs=a*,b
excludepkgs=c d
exclude=e
module_hotfixes=True
username=me
password="{SECRET}"
proxy=_none_
proxy_username=proxy-me
proxy_password={SECRET}
skip_if_unavailable=1
"""

DEFINITIONS = """\
platforms:
  rhel:
    variables: {releasever: "9"}
    repositories:
      - {file: some.repo%s}
  other:
    repositories:
      - {id: other, baseurls: ["https://other.test"], keys: [/key]}
"""


def load(folder: Path, repo: str, more: str = "") -> Platforms:
    (folder / "some.repo").write_text(repo)
    (folder / "repositories.yaml").write_text(DEFINITIONS % more)
    return load_platforms(folder / "repositories.yaml")


def platform(folder: Path, repo: str, more: str = "") -> Platform:
    return load(folder, repo, more).find("rhel")


def test_an_unmodified_redhat_repo_gives_its_enabled_sections(tmp_path: Path) -> None:
    (repository,) = platform(tmp_path, REDHAT).repositories
    assert repository == PackageRepository(
        "rhel-9-for-x86_64-baseos-rpms",
        ("https://cdn.redhat.com/content/dist/rhel9/$releasever/x86_64/baseos/os",),
        keys=("file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release",),
        access=RepositoryAccess(
            sslcacert="/etc/rhsm/ca/redhat-uep.pem",
            sslclientcert="/etc/pki/entitlement/5527980418107729172.pem",
            sslclientkey="/etc/pki/entitlement/5527980418107729172-key.pem",
        ),
    )


def test_sections_that_are_named_are_taken_enabled_or_not_and_certificates_are_replaced(tmp_path: Path) -> None:
    more = ", sections: ['*-source-*'], keys: [/k], accept: [sha1]"
    more += ", sslclientcert: /etc/pki/entitlement/*.pem, sslcacert: /ca"
    (repository,) = platform(tmp_path, REDHAT, more).repositories
    assert (repository.id, repository.keys) == ("rhel-9-for-x86_64-baseos-source-rpms", ("/k",))
    assert repository.accept == ("sha1",)
    assert repository.access == RepositoryAccess(sslcacert="/ca", sslclientcert="/etc/pki/entitlement/*.pem")


def test_what_a_vendors_file_says_counts_and_its_passwords_stay_where_they_are(tmp_path: Path) -> None:
    found = platform(tmp_path, VENDOR)
    (repository,) = found.repositories
    file = str(tmp_path / "some.repo")
    secret = SecretReference(file=file, section="vendor", option="password")
    assert repository == PackageRepository(
        "vendor",
        ("https://one.vendor.test/el$releasever/", "https://two.vendor.test/el$releasever/", "file:///srv/vendor"),
        keys=("/keys/a", "https://vendor.test/b"),
        priority=5,
        cost=10,
        signed_metadata=True,
        exclude=("c", "d", "e"),
        include=("a*", "b"),
        module_hotfixes=True,
        access=RepositoryAccess(
            username="me",
            password=secret,
        ),
    )
    assert read_secret(secret, {}, "r") == SECRET
    assert SECRET not in f"{found!r}{repository.access!r}"
    assert found.files == ()  # is not sent to workers
    assert found.watched == (tmp_path / "some.repo",)
    assert platform(tmp_path, REDHAT).files == (tmp_path / "some.repo",)


def test_a_login_beside_the_file_is_for_sections_that_have_none(tmp_path: Path) -> None:
    for key, access in (("netrc", RepositoryAccess(netrc=True)), ("negotiate", RepositoryAccess(negotiate=True))):
        (one,) = platform(tmp_path, GOOD, f", {key}: true").repositories
        assert one.access == access
        (one,) = platform(tmp_path, GOOD + "username=me\npassword=x\n", f", {key}: true").repositories
        assert one.access.username == "me" and not (one.access.netrc or one.access.negotiate)


def test_a_metalink_goes_before_a_mirrorlist_and_that_before_baseurls_as_for_dnf(tmp_path: Path) -> None:
    base = "[a]\nbaseurl=https://b\ngpgkey=/k\n"
    (one,) = platform(tmp_path, base + "mirrorlist=https://m\n").repositories
    assert (one.baseurls, one.mirrorlist, one.metalink) == ((), "https://m", None)
    (one,) = platform(tmp_path, base + "mirrorlist=https://m\nmetalink=https://l\n").repositories
    assert (one.baseurls, one.mirrorlist, one.metalink) == ((), None, "https://l")


GOOD = "[a]\nbaseurl=https://b.test/\ngpgkey=/k\n"


@pytest.mark.parametrize(
    ("repo", "code", "text"),
    [
        (GOOD + "sslverify=0\n", "repo-option-refused", "some.repo:4: [a] sslverify"),
        (GOOD + "sslverify=False\n", "repo-option-refused", "some.repo:4: [a] sslverify"),
        (GOOD + "proxy_auth_method=ntlm\n", "repo-option-refused", "proxy_auth_method"),
        (GOOD + "proxy_sslclientcert=/c\n", "repo-option-refused", "no certificate is shown to a proxy"),
        (GOOD + "ip_resolve=4\n", "repo-option-refused", "ip_resolve"),
        (GOOD + "proxy_username=me\nproxy_password=x\n", "repo-option-refused", "it is for no proxy"),
        (GOOD + "type=apt\n", "repo-option-refused", "rpm-md"),
        (GOOD + "excldepkgs=b\n", "repo-option-unknown", "did you mean 'excludepkgs'?"),
        (GOOD + "cost=cheap\n", "repo-option-malformed", "it is no whole number"),
        (GOOD + "enabled=perhaps\n", "repo-option-malformed", "it is neither 0 nor 1"),
        (GOOD + "[b c]\nbaseurl=https://x\ngpgkey=/k\n", "repo-option-malformed", "is not an id"),
        (GOOD.replace("https", "ftp"), "repo-option-malformed", "some.repo:2: [a] baseurl"),
        ("[a]\nbaseurl=https://b\ngpgcheck=0\n", "repo-keys-missing", "signatures are always checked"),
        ("[a]\ngpgkey=/k\n", "repository-location", "it has no location"),
        (GOOD.replace("b.test", "$host") + "username=me\n", "repo-option-refused", "a variable in the host"),
        (GOOD + "username=me\npassword=x\nproxy=http://$releasever:80\n", "repo-option-refused", "a variable in it"),
        (GOOD + "username=me\npassword=x\nsslcacert=/ca/$releasever\n", "repo-option-refused", "a variable in it"),
        (GOOD + "proxy_username=me\nproxy=http://${releasever}.test\n", "repo-option-refused", "a variable in it"),
        (GOOD.replace("b.test", "b.test/$unknown"), "variable-undefined", "'$unknown' is not defined"),
        ("baseurl=https://b\n", "repo-file-unreadable", "line 1 stands in no section"),
        ("[a\n", "repo-file-unreadable", "line 1 is not [SECTION]"),
        ("[a]\nx\n", "repo-file-unreadable", "line 2 is not OPTION=VALUE"),
        ("[a]\n x\n", "repo-file-unreadable", "line 2 continues no value"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name_when_the_platform_is_used(
    tmp_path: Path, repo: str, code: str, text: str
) -> None:
    platforms = load(tmp_path, repo)
    assert platforms.find("other").repositories
    with pytest.raises(RecipeError) as caught:
        platforms.find("rhel")
    assert [problem.code for problem in caught.value.problems] == [code]
    assert text in str(caught.value)


def test_a_missing_file_or_section_is_named(tmp_path: Path) -> None:
    platforms = load(tmp_path, GOOD)
    (tmp_path / "some.repo").unlink()
    platforms = load_platforms(tmp_path / "repositories.yaml")
    with pytest.raises(RecipeError, match="cannot be read") as caught:
        platforms.find("rhel")
    assert caught.value.code == "repo-file-unreadable"
    with pytest.raises(RecipeError, match="no section 'rhel-9-for-x86_64-base'") as caught:
        platform(tmp_path, REDHAT, ", sections: [rhel-9-for-x86_64-base]")
    assert "did you mean 'rhel-9-for-x86_64-baseos-rpms'?" in str(caught.value)


def test_a_file_from_the_root_is_read_and_not_sent_to_workers(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.repo").write_text(REDHAT)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/repositories.yaml").write_text(
        f"platforms:\n  p:\n    variables: {{release: '9'}}\n    repositories: [{{file: {elsewhere}/x.repo}}]\n"
    )
    found = load_platforms(tmp_path / "in/repositories.yaml").find("p")
    assert len(found.repositories) == 1 and found.files == ()
    assert found.watched == (elsewhere / "x.repo",)
    assert watched_paths(found) == ({elsewhere / "x.repo"}, set())


def test_sections_of_one_name_in_two_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "more.repo").write_text(GOOD)
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, GOOD, "}\n      - {file: more.repo").find("rhel")
    assert caught.value.code == "repository-duplicate"


def test_folders_of_variables_are_dnfs(tmp_path: Path) -> None:
    (tmp_path / "vars").mkdir()
    (tmp_path / "vars/channel").write_text("stable\nmore\n")
    (tmp_path / "vars/releasever").write_text("8")
    (tmp_path / "vars/.hidden").write_text("x")
    text = DEFINITIONS % "" + "  extended: {extends: rhel, dnf-vars: [vars], variables: {own: x}}\n"
    (tmp_path / "some.repo").write_text(GOOD.replace("b.test", "b.test/$releasever/$channel"))
    (tmp_path / "repositories.yaml").write_text(text.replace("variables:", "dnf-vars: [vars]\n    variables:", 1))
    found = load_platforms(tmp_path / "repositories.yaml")
    assert dict(found.find("rhel").variables) == {"channel": "stable", "releasever": "9"}
    assert dict(found.find("extended").variables) == {"channel": "stable", "releasever": "8", "own": "x"}
    assert set(found.find("rhel").files) == {tmp_path / "vars", tmp_path / "some.repo"}


def test_a_night_watches_dnfs_own_folder_of_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = tmp_path / "etc/dnf/vars"
    away.mkdir(parents=True)
    (away / "releasever").write_text("8")
    monkeypatch.setattr(repo_files, "VARIABLES_FOLDERS", (away,))
    here = tmp_path / "recipes"
    here.mkdir()
    (here / "some.repo").write_text(GOOD)
    text = (DEFINITIONS % "").replace("variables:", f"dnf-vars: [{away}]\n    variables:", 1)
    (here / "repositories.yaml").write_text(text)
    found = load_platforms(here / "repositories.yaml").find("rhel")
    assert found.files == (here / "some.repo",)
    assert watched_paths(found) == ({away / "releasever", here / "some.repo"}, {away})


def test_values_of_dnfs_folders_go_to_nobody_who_writes_a_list_of_mirrors(tmp_path: Path) -> None:
    (tmp_path / "vars").mkdir()
    for name, value in (
        ("token", "canary"),
        ("releasever", "9.4"),
        ("basearch", "x"),
        ("own", "theirs"),
        ("both", "b"),
    ):
        (tmp_path / "vars" / name).write_text(value)
    (tmp_path / "some.repo").write_text(GOOD)
    given = '    dnf-vars: [vars]\n    variables: {own: "mine", '
    text = (DEFINITIONS % "").replace('    variables: {releasever: "9"', given + 'plain: "p"')
    text += "  extended: {extends: rhel, variables: {token: public}}\n"
    text += "  again: {extends: rhel, dnf-vars: [vars]}\n"
    (tmp_path / "repositories.yaml").write_text(text)
    platforms = load_platforms(tmp_path / "repositories.yaml")
    shown = {"arch": "x86_64", "basearch": "x", "releasever": "9.4", "releasever_major": "9", "releasever_minor": "4"}
    found = platforms.find("rhel")
    assert dict(found.variables)["token"] == "canary"
    assert answer_variables(found, "x86_64") == {**shown, "own": "mine", "plain": "p"}
    assert answer_variables(platforms.find("extended"), "x86_64")["token"] == "public"
    assert "token" not in answer_variables(platforms.find("again"), "x86_64")


@pytest.mark.parametrize("name", ["/run/secrets", "../secrets", "away", "links", "evil"])
def test_variables_come_from_no_other_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "away").symlink_to("/etc")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/token").symlink_to("/etc/hostname")
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/x").write_text("${RELBUILD_VAR_X}")
    (tmp_path / "some.repo").write_text(GOOD)
    text = (DEFINITIONS % "").replace("variables:", f"dnf-vars: [{name}]\n    variables:", 1)
    (tmp_path / "repositories.yaml").write_text(text)
    platforms = load_platforms(tmp_path / "repositories.yaml")
    with pytest.raises(RecipeError) as caught:
        platforms.find("rhel")
    assert caught.value.code in {"variables-refused", "variables-unreadable"}


def test_every_option_of_dnfs_manual_is_known() -> None:
    shown = subprocess.run(["man", "-P", "cat", "dnf.conf"], capture_output=True, text=True, check=False,
                           env={"PATH": "/usr/bin:/bin", "MANWIDTH": "110", "LC_ALL": "C"})  # fmt: skip
    if shown.returncode:
        pytest.skip("the manual page dnf.conf(5) is missing")
    manual = re.sub(r".\x08", "", shown.stdout)
    parts = re.findall(
        r"^(?:REPO OPTIONS|OPTIONS FOR BOTH \[MAIN\] AND REPO)\n(.*?)^[A-Z]", manual, re.MULTILINE | re.DOTALL
    )
    assert len(parts) == 2
    found = {
        name
        for part in parts
        for name in re.findall(
            r"^ {7}([a-z_]+)(?: +(?:list|string|boolean|integer)(?: of strings)?)?$", part, re.MULTILINE
        )
    }
    assert len(found) >= 40 and found - OPTIONS.keys() == set()


def test_values_are_read_as_libdnf_reads_them() -> None:
    text = "\ufeff# c\n[a] # c\nx = 1 \r\ny='q u'\n;c\nz=1\n  2\n\t\n   3\n[b]\n[a]\nx=2\nempty=\n"
    found = parse_ini(text.removeprefix("\ufeff"))
    assert {name: {key: (value.text, value.line) for key, value in one.items()} for name, one in found.items()} == {
        "a": {"x": ("2", 12), "y": ("q u", 4), "z": ("1\n2\n3", 6), "empty": ("", 13)},
        "b": {},
    }
    for wrong in ("[]\n", "[a] x\n", "[a]\n=1\n"):
        with pytest.raises(IniMalformed):
            parse_ini(wrong)


LINES = st.sampled_from(
    ["[a]", "[", "]", "x=1", " y", "=", "#", "'", "\\", "\r", "\t", "\x00", "\ufeff", "[a]b", "k = ' v '"]
)


@given(st.one_of(st.text(max_size=100), st.lists(LINES, max_size=12).map("\n".join)))
def test_any_text_is_sections_or_malformed(text: str) -> None:
    try:
        found = parse_ini(text)
    except IniMalformed as error:
        assert "line" in str(error)
        return
    assert all(name and value.line >= 1 for section in found.values() for name, value in section.items())
