"""repomd.xml, metalinks, mirrorlists and variables as they are written, and as attackers would write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecipeError, VerificationError
from pipeline.model.platform import PackageRepository, Platform
from pipeline.repos.repomd import (
    Checksum,
    location_url,
    location_urls,
    parse_metalink,
    parse_mirrorlist,
    parse_repomd,
)
from pipeline.repos.variables import (
    answer_variables,
    expand,
    expand_environment,
    expand_repository,
    platform_variables,
)
from pipeline.repos.xml_tree import XML_DEPTH_LIMIT, parse_xml

A = "a" * 64
B = "b" * 64

# The shape of what MirrorManager answers for CentOS Stream; hosts and sums are made up.
METALINK = f"""<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" pubdate="Tue, 24 Nov 2026 09:00:00 GMT"
    generator="mirrormanager" xmlns:mm0="http://fedorahosted.org/mirrormanager">
  <files>
    <file name="repomd.xml">
      <mm0:timestamp>1794260673</mm0:timestamp>
      <size>4444</size>
      <verification>
        <hash type="md5">{"1" * 32}</hash>
        <hash type="sha1">{"2" * 40}</hash>
        <hash type="sha256">{A}</hash>
        <hash type="sha512">{"c" * 128}</hash>
      </verification>
      <mm0:alternates>
        <mm0:alternate>
          <mm0:timestamp>1794200000</mm0:timestamp>
          <size>4444</size>
          <verification><hash type="sha256">{B}</hash></verification>
        </mm0:alternate>
      </mm0:alternates>
      <resources maxconnections="1">
        <url protocol="rsync" type="rsync" location="DE" preference="100">rsync://one.example/centos/repodata/repomd.xml</url>
        <url protocol="https" type="https" location="DE" preference="90">https://two.example/os/repodata/repomd.xml</url>
        <url protocol="http" type="http" location="DE" preference="100">http://one.example/os/repodata/repomd.xml</url>
        <url protocol="https" type="https" location="DE" preference="90">https://two.example/os/repodata/repomd.xml</url>
      </resources>
    </file>
  </files>
</metalink>
"""


def repomd(data: str, revision: str = "7") -> bytes:
    return (
        '<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">'
        f"<revision>{revision}</revision>{data}</repomd>"
    ).encode()


def record(kind: str = "primary", *, href: str = "repodata/p.xml.gz", algorithm: str = "sha256", value: str = A,
           size: str = "10") -> str:  # fmt: skip
    return (
        f'<data type="{kind}"><checksum type="{algorithm}">{value}</checksum>'
        f'<location href="{href}"/><size>{size}</size></data>'
    )


def test_a_metalink_gives_mirrors_by_preference_and_the_strongest_sum_of_each_version() -> None:
    metalink = parse_metalink(METALINK.encode(), "m")
    assert metalink.base_urls == ("http://one.example/os", "https://two.example/os")
    assert metalink.checksums == (Checksum("sha512", "c" * 128), Checksum("sha256", B))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('name="repomd.xml"', 'name="other"'),
        ("https://", "ftp://"),
        ("<metalink", "<metalink"),
    ],
)
def test_a_metalink_that_leads_nowhere_is_refused(before: str, after: str) -> None:
    text = METALINK.replace(before, after).replace("http://one.example", "ftp://one.example")
    if before == after:
        text = METALINK.replace("sha256", "md5").replace("sha512", "sha1")
    with pytest.raises(VerificationError) as caught:
        parse_metalink(text.encode(), "m")
    assert caught.value.code == "metalink-malformed"


def test_a_document_type_is_refused_before_its_entities_can_grow() -> None:
    bomb = (
        '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
        "<repomd><revision>&b;</revision></repomd>"
    )
    for text in (bomb, '<!DOCTYPE l SYSTEM "file:///etc/passwd"><repomd/>'):
        with pytest.raises(VerificationError) as caught:
            parse_repomd(text.encode(), "r")
        assert caught.value.code == "xml-refused"


def test_depth_and_count_of_elements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_xml(b"<a>" * XML_DEPTH_LIMIT + b"</a>" * XML_DEPTH_LIMIT, "x").name == "a"
    with pytest.raises(VerificationError, match="too many or too deep"):
        parse_xml(b"<a>" * (XML_DEPTH_LIMIT + 1) + b"</a>" * (XML_DEPTH_LIMIT + 1), "x")
    monkeypatch.setattr("pipeline.repos.xml_tree.XML_ELEMENTS_LIMIT", 10)
    with pytest.raises(VerificationError, match="too many or too deep"):
        parse_xml(b"<a>" + b"<b/>" * 10 + b"</a>", "x")


@given(st.binary(max_size=200))
def test_rubbish_is_an_error_and_never_a_crash(data: bytes) -> None:
    for parse in (parse_repomd, parse_metalink):
        with pytest.raises(VerificationError):
            parse(data, "x")


def test_repomd_gives_revision_and_records() -> None:
    parsed = parse_repomd(repomd(record() + record("modules", algorithm="sha512", value="d" * 128)), "r")
    assert parsed.revision == "7"
    assert parsed.records["primary"].checksum == Checksum("sha256", A)
    assert parsed.records["primary"].size == 10
    assert parsed.records["primary"].open_checksum is None
    assert parsed.records["modules"].checksum == Checksum("sha512", "d" * 128)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (record(algorithm="sha", value="2" * 40), "checksum-weak"),
        (record(algorithm="md5", value="2" * 32), "checksum-weak"),
        (record(value="A" * 63), "checksum-malformed"),
        (record(href="../p.xml"), "location-escapes"),
        (record(href="/etc/passwd"), "location-escapes"),
        (record(href="http://elsewhere.example/p.xml"), "location-escapes"),
        (record(href=""), "location-escapes"),
        (record(size="-1"), "repomd-malformed"),
        (record(size="99999999999999"), "repomd-malformed"),
        (record("filelists"), "repomd-malformed"),
        ('<data type="primary"/>', "repomd-malformed"),
        ("</repomd>", "xml-malformed"),
    ],
)
def test_repomd_that_cannot_be_trusted_is_refused(data: str, code: str) -> None:
    with pytest.raises(VerificationError) as caught:
        parse_repomd(repomd(data), "r")
    assert caught.value.code == code
    assert re.search("createrepo_c|another mirror", caught.value.problems[0].hint or "")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"<!DOCTYPE html><html><body>Sign on</body></html>", "xml-refused"),
        (b"<html><body>Sign on</body></html>", "repomd-malformed"),
        (b"<html><br></html>", "xml-malformed"),
        (b"Sign on", "xml-malformed"),
        (b"", "xml-malformed"),
    ],
)
def test_a_page_in_place_of_repomd_names_who_may_answer_there(data: bytes, code: str) -> None:
    with pytest.raises(VerificationError) as caught:
        parse_repomd(data, "r")
    assert caught.value.code == code
    assert "proxy" in (caught.value.problems[0].hint or "")


BLOB = "../../../../blobstore/abc/bash-5.2-1.x86_64.rpm"
"""As Amazon Linux names all packages, from core/guids/GUID/x86_64."""


@pytest.mark.parametrize(
    ("root", "location", "url"),
    [
        ("https://h/r", "Packages/b/bash+x.rpm", "https://h/r/Packages/b/bash%2Bx.rpm"),
        ("https://h/al2023/core/guids/1/x86_64", BLOB, "https://h/al2023/blobstore/abc/bash-5.2-1.x86_64.rpm"),
        ("http://u:p@h:81/a/b", "../x.rpm", "http://u:p@h:81/a/x.rpm"),
        ("https://h/a", "../x.rpm", "https://h/x.rpm"),
    ],
)
def test_a_package_may_be_above_its_repository_on_the_same_server(root: str, location: str, url: str) -> None:
    assert location_url(root, location, place="x") == url


@pytest.mark.parametrize(
    ("root", "location"),
    [
        ("https://h/a/b", "../../../x.rpm"),
        ("https://h", "../x.rpm"),
        ("https://h/a/b", "../c/../x.rpm"),
        ("https://h/a/b", "c/../x.rpm"),
        ("https://h/a/b", ".."),
        ("https://h/a/b", "..//elsewhere/x.rpm"),
        ("https://h/a/b", "../https://elsewhere/x.rpm"),
        ("file:///srv/a/b", "../x.rpm"),
        ("file:///srv/a/core/guids/1/x86_64", BLOB),
    ],
)
def test_no_package_is_elsewhere(root: str, location: str) -> None:
    with pytest.raises(VerificationError) as caught:
        location_url(root, location, place="x")
    assert caught.value.code == "location-escapes"


def test_mirrors_with_too_few_folders_for_a_package_are_left_out() -> None:
    able = ("https://h/al2023/core/guids/1/x86_64", "http://m/a/b/c/d")
    unable = ("https://short/x86_64", "file:///srv/a/core/guids/1/x86_64")
    assert location_urls((unable[0], able[0], unable[1], able[1]), BLOB, place="x") == (
        "https://h/al2023/blobstore/abc/bash-5.2-1.x86_64.rpm",
        "http://m/blobstore/abc/bash-5.2-1.x86_64.rpm",
    )
    with pytest.raises(VerificationError) as caught:
        location_urls(unable, BLOB, place="x")
    assert caught.value.code == "location-escapes"


def test_a_mirrorlist_keeps_its_order_and_drops_what_is_not_spoken() -> None:
    text = b"# comment\nrsync://a/\nhttps://b/os/\nhttp://c/os\nhttps://b/os\n"
    assert parse_mirrorlist(text, "l") == ("https://b/os", "http://c/os")
    with pytest.raises(VerificationError) as caught:
        parse_mirrorlist(b"<html>No such repository</html>", "l")
    assert caught.value.code == "mirrorlist-malformed"


@pytest.mark.parametrize("text", ["file:///etc", "FILE:///etc", "file://localhost/etc", "file:///srv?x"])
def test_an_answer_from_the_network_names_no_files_of_this_machine(text: str) -> None:
    listed = f"{text}\nhttps://b/os\n".encode()
    assert parse_mirrorlist(listed, "l") == ("https://b/os",)
    assert parse_mirrorlist(listed, "l", local=True) == (text, "https://b/os")
    metalink = METALINK.replace("http://one.example/os", text).encode()
    assert parse_metalink(metalink, "m").base_urls == ("https://two.example/os",)
    assert text in parse_metalink(metalink, "m", local=True).base_urls


# What mirrors.almalinux.org answered (AlmaLinux/mirrors, issue 581), with other hosts.
ALMALINUX = b"""http://one.example/almalinux/8/BaseOS/$basearch/os/
http://two.example/almalinux/8/BaseOS/$basearch/os/
"""
# The comment that MirrorManager puts in front (Fedora's, and so Rocky's, lists of mirrors), with other hosts.
MIRRORMANAGER = b"""# repo = rocky-BaseOS-9 arch = x86_64 country = DE country = global

https://one.example/rocky/${releasever_major}.$releasever_minor/BaseOS/${basearch}/os/
   # http://commented.example/os/
https://two.example/rocky/$releasever/BaseOS/$arch/os/$basearch_/$unknown/${unknown}
"""


def test_variables_in_a_mirrorlist_are_expanded_as_librepo_does() -> None:
    variables = {"basearch": "x86_64", "arch": "x86_64", "releasever": "9.4", "releasever_major": "9",
                 "releasever_minor": "4"}  # fmt: skip
    assert parse_mirrorlist(ALMALINUX, "l", variables) == (
        "http://one.example/almalinux/8/BaseOS/x86_64/os",
        "http://two.example/almalinux/8/BaseOS/x86_64/os",
    )
    assert parse_mirrorlist(MIRRORMANAGER, "l", variables) == (
        "https://one.example/rocky/9.4/BaseOS/x86_64/os",
        "https://two.example/rocky/9.4/BaseOS/x86_64/os/x86_64_/$unknown/${unknown}",
    )


def test_variables_in_a_metalink_are_expanded() -> None:
    text = METALINK.replace("two.example/os", "two.example/$releasever/$basearch/os")
    metalink = parse_metalink(text.encode(), "m", {"releasever": "9", "basearch": "aarch64"})
    assert metalink.base_urls == ("http://one.example/os", "https://two.example/9/aarch64/os")


def test_a_portal_page_is_no_list_of_mirrors_even_with_a_line_that_is_a_url() -> None:
    page = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><a href=\nhttps://portal.example/login\n>sign on</a></html>"
    with pytest.raises(VerificationError, match="is a page, not a list of mirrors") as caught:
        parse_mirrorlist(page, "l", {})
    assert caught.value.code == "mirrorlist-malformed"


def test_answers_get_the_release_and_nothing_of_the_environment() -> None:
    own = (("release", "9.4"), ("token", "${RELBUILD_VAR_TOKEN}"), ("home", "~/x"), ("channel", "stable"))
    platform = Platform("p", (), variables=own)
    assert answer_variables(platform, "aarch64") == {
        "arch": "aarch64", "basearch": "aarch64", "release": "9.4", "channel": "stable",
        "releasever": "9.4", "releasever_major": "9", "releasever_minor": "4",
    }  # fmt: skip
    both = Platform("p", (), variables=(("release", "9.4"), ("releasever", "9")))
    assert answer_variables(both, "x86_64")["releasever"] == "9"
    assert "releasever" not in answer_variables(Platform("p", ()), "x86_64")


def test_environment_variables_have_defaults_and_a_home() -> None:
    def full(text: str, **environment: str) -> str:
        return expand_environment(text, environment, place="p")

    assert full("${RELBUILD_VAR_M:-~/mirror}", HOME="/home/x") == "/home/x/mirror"
    assert full("${RELBUILD_VAR_M:-~/mirror}", HOME="/home/x", RELBUILD_VAR_M="/srv") == "/srv"
    assert full("${RELBUILD_VAR_M:-~/mirror}", HOME="/home/x", RELBUILD_VAR_M="") == "/home/x/mirror"
    assert full("~/mirror", HOME="/home/x") == "/home/x/mirror"
    assert full("a~b") == "a~b"
    for text in ("${RELBUILD_VAR_M}", "~/mirror"):
        with pytest.raises(RecipeError) as caught:
            full(text)
        assert caught.value.code == "variable-unset"


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "RELBUILD_KEY_PASSWORD", "HOME", "RELBUILD_VAR_", "relbuild_var_x"])
def test_a_platform_has_no_variable_that_was_not_set_for_it(name: str) -> None:
    with pytest.raises(RecipeError, match=f"RELBUILD_VAR_{name}") as caught:
        expand_environment(f"https://evil.example/${{{name}:-}}", {name: "secret"}, place="p")
    assert caught.value.code == "variable-not-offered" and "secret" not in str(caught.value)


def test_a_repository_names_variables_of_its_platform() -> None:
    platform = Platform("p", (), variables=(("mirror", "${RELBUILD_VAR_M:-~/m}"), ("release", "9")))
    variables = platform_variables(platform, "x86_64", {"HOME": "/h"})
    repository = PackageRepository("r", baseurls=("file://$mirror/$release/${basearch}/$arch",), keys=("$mirror/KEY",))
    expanded = expand_repository(repository, variables, {"HOME": "/h"})
    assert expanded.baseurls == ("file:///h/m/9/x86_64/x86_64",)
    assert expanded.keys == ("/h/m/KEY",)


def test_a_variable_that_nobody_defines_is_named() -> None:
    with pytest.raises(RecipeError, match=r"\$relaesver") as caught:
        expand("http://x/$relaesver", {"releasever": "9"}, place="repository r")
    assert caught.value.code == "variable-unknown"
    assert "releasever" in str(caught.value)


def test_a_recipe_cannot_read_the_environment_through_a_repository() -> None:
    repository = PackageRepository("r", baseurls=("http://x/${SECRET}",))
    with pytest.raises(RecipeError) as caught:
        expand_repository(repository, {}, {"SECRET": "s"})
    assert caught.value.code == "variable-unknown"
