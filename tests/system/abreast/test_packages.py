"""RPM packages as rpm made them: signatures, headers, payloads."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError, VerificationError
from pipeline.model.header import (
    Dependency,
    FileFlag,
    ScriptletPhase,
    TriggerKind,
)
from pipeline.packages import (
    PayloadHash,
    compare_evr,
    read_payload,
    read_payload_files,
    verify_package,
)
from tests.support.rpm_factory import Forge, Signed, header_of, trusting


@pytest.fixture(scope="module")
def plain(made: Forge) -> Path:
    return made.package(
        "plain",
        version="1.2",
        epoch=3,
        install="mkdir -p usr/share/plain; head -c 300000 /dev/urandom >usr/share/plain/data",
        files=["/usr/share/plain"],
    )


# --- signatures ------------------------------------------------------------------------------------------


def test_a_signed_package_is_accepted_and_its_key_is_named(made: Forge, plain: Path) -> None:
    signer = verify_package(plain, trusting(made.other_key, made.key))
    listed = subprocess.run(
        ["gpg", "--show-keys", "--with-colons"], input=made.key, capture_output=True, check=True
    ).stdout.decode()
    assert signer.upper() in listed
    assert len(signer) == 16


@pytest.mark.parametrize("keys", [(), ("other_key",), ("key",)])
def test_an_unsigned_package_is_refused_whatever_is_trusted(made: Forge, keys: tuple[str, ...]) -> None:
    package = made.package("unsigned", files=[], signed=Signed.NOT)
    with pytest.raises(VerificationError) as caught:
        verify_package(package, trusting(*(getattr(made, key) for key in keys)))
    assert caught.value.code == "package-unsigned"


def test_only_the_given_keys_are_trusted(made: Forge, plain: Path) -> None:
    for keys in ([], [made.other_key]):
        with pytest.raises(VerificationError) as caught:
            verify_package(plain, trusting(*keys))
        assert caught.value.code == "package-key-unknown"


def test_a_package_signed_by_a_subkey_of_a_trusted_key_is_accepted(tmp_path: Path, made: Forge) -> None:
    """Some vendors sign with subkeys; rpm's Python alone does not take them in."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GNUPGHOME": str(home)}

    def gpg(*words: str) -> bytes:
        return subprocess.run(
            ["gpg", "--batch", "--quiet", "--passphrase", "", *words],
            env=environment,
            capture_output=True,
            check=True,
        ).stdout

    gpg("--quick-generate-key", "vendor <vendor@example.invalid>", "rsa2048", "cert", "never")
    (primary,) = [
        line.split(":")[9]
        for line in gpg("--list-keys", "--with-colons").decode().splitlines()
        if line.startswith("fpr")
    ]
    gpg("--quick-add-key", primary, "rsa2048", "sign", "never")
    package = made.package("by-subkey", files=[], signed=Signed.NOT)
    subprocess.run(
        [
            "rpmsign",
            "--define",
            "_gpg_name vendor",
            "--define",
            f"__gpg {shutil.which('gpg')}",
            "--addsign",
            package,
        ],
        env=environment,
        capture_output=True,
        check=True,
    )
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=True)
    assert verify_package(package, trusting(gpg("--armor", "--export", primary))) not in primary.lower()


def damaged_copy(package: Path, target: Path, at: int) -> Path:
    data = bytearray(package.read_bytes())
    data[at] ^= 0xFF
    target.write_bytes(data)
    return target


def test_every_flipped_byte_of_header_and_payload_is_noticed(made: Forge, plain: Path, tmp_path: Path) -> None:
    """From the header's first byte to the file's last; the signature header before it is no part of what is
    signed, and only has to hold a good signature."""
    data = plain.read_bytes()
    start = data.index(b"\x8e\xad\xe8\x01", 200)
    places = [
        *range(start, min(start + 1200, len(data)), 13),
        *range(start + 1200, len(data), 9973),
        len(data) - 1,
    ]
    for at in places:
        with pytest.raises(VerificationError) as caught:
            verify_package(damaged_copy(plain, tmp_path / "flipped.rpm", at), trusting(made.key))
        assert caught.value.code in ("package-damaged", "package-signature-bad"), at


def test_an_exchanged_payload_is_noticed_before_it_is_decompressed(made: Forge, plain: Path, tmp_path: Path) -> None:
    other = made.package("other", install="echo evil >evil", files=["/evil"])
    mine, theirs = plain.read_bytes(), other.read_bytes()
    magic = b"\x28\xb5\x2f\xfd"
    forged = tmp_path / "forged.rpm"
    forged.write_bytes(mine[: mine.rindex(magic)] + theirs[theirs.rindex(magic) :])
    with pytest.raises(VerificationError) as caught:
        verify_package(forged, trusting(made.key))
    assert caught.value.code == "package-damaged"


def test_a_payload_that_was_hashed_while_it_was_copied_is_compared_with_the_signed_header(
    made: Forge, plain: Path, tmp_path: Path
) -> None:
    data = plain.read_bytes()
    exchanged = data[:-50] + bytes(50)
    other = tmp_path / "exchanged.rpm"
    other.write_bytes(exchanged)

    def passed(content: bytes) -> PayloadHash:
        found = PayloadHash()
        found.update(content)
        return found

    assert verify_package(plain, trusting(made.key), passed=passed(data)) == verify_package(plain, trusting(made.key))
    for path, content in ((plain, exchanged), (other, exchanged)):
        with pytest.raises(VerificationError) as caught:
            verify_package(path, trusting(made.key), passed=passed(content))
        assert caught.value.code == "package-damaged"
    for unlike in (data[:90], bytes(8) + data):  # No package, or one whose payload begins elsewhere: it is read again.
        assert verify_package(plain, trusting(made.key), passed=passed(unlike))
        with pytest.raises(VerificationError):
            verify_package(other, trusting(made.key), passed=passed(unlike))


def test_entries_outside_of_the_signed_region_are_refused(made: Forge, plain: Path, tmp_path: Path) -> None:
    """A header may hold entries after its region, which no digest and no signature covers."""
    data = plain.read_bytes()
    start = data.index(b"\x8e\xad\xe8\x01", 200)
    entries = int.from_bytes(data[start + 8 : start + 12], "big")
    stored = int.from_bytes(data[start + 12 : start + 16], "big")
    index_end = start + 16 + 16 * entries
    entry = (1028).to_bytes(4, "big") + (4).to_bytes(4, "big") + stored.to_bytes(4, "big") + (1).to_bytes(4, "big")
    forged = tmp_path / "dribble.rpm"
    forged.write_bytes(
        data[: start + 8]
        + (entries + 1).to_bytes(4, "big")
        + (stored + 4).to_bytes(4, "big")
        + data[start + 16 : index_end]
        + entry
        + data[index_end : index_end + stored]
        + bytes(4)
        + data[index_end + stored :]
    )
    with pytest.raises(VerificationError) as caught:
        verify_package(forged, trusting(made.key))
    assert caught.value.code == "package-damaged"


@pytest.mark.parametrize("content", [b"", b"no package", b"\xed\xab\xee\xdb" + bytes(92) + b"\x8e\xad\xe8\x01"])
def test_what_is_no_package_is_called_so(made: Forge, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "it.rpm"
    path.write_bytes(content)
    for call in (lambda: verify_package(path, trusting(made.key)), lambda: header_of(path)):
        with pytest.raises(VerificationError) as caught:
            call()
        assert caught.value.code == "package-damaged"


def test_a_truncated_package_is_refused(made: Forge, plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.rpm"
    path.write_bytes(plain.read_bytes()[:-1000])
    with pytest.raises(VerificationError) as caught:
        verify_package(path, trusting(made.key))
    assert caught.value.code == "package-damaged"
    with pytest.raises(VerificationError) as caught:
        for file in read_payload(path):
            for _ in file.pieces():
                pass
    assert caught.value.code == "package-damaged"


def test_the_packages_of_the_mirror_are_judged_as_their_names_say(mirror: Path) -> None:
    key = (mirror / "RPM-GPG-KEY-local").read_bytes()
    verdicts = {}
    for package in sorted((mirror / "bad").glob("*.rpm")):
        try:
            verify_package(package, trusting(key))
            verdicts[package.name.split("-1.0")[0]] = "good"
        except RelbuildError as error:
            verdicts[package.name.split("-1.0")[0]] = error.code
    assert verdicts == {
        "hardcase-signed": "good",
        "hardcase-unsigned": "package-unsigned",
        "hardcase-wrongly-signed": "package-key-unknown",
    }


# --- headers ---------------------------------------------------------------------------------------------


def test_a_header_says_what_the_spec_said(made: Forge) -> None:
    package = made.package(
        "everything",
        version="2.0~rc1",
        release="3",
        header="\n".join(
            (
                "URL: https://example.invalid/",
                "Vendor: nobody",
                "Provides: user(svc) = dSBzdmM",
                "Requires: bash >= 5",
                "Conflicts: rival",
                "Obsoletes: elder < 2",
                "Recommends: friend",
            )
        ),
        install=(
            "mkdir -p usr/bin usr/share/doc/everything usr/share/locale/de etc var/log\n"
            "echo 1 >usr/bin/tool; echo 2 >usr/share/doc/everything/README; echo 3 >etc/it.conf\n"
            "echo 4 >usr/share/locale/de/it.mo; ln -s ../bin/tool usr/share/link\n"
            "ln usr/bin/tool usr/bin/tool2; echo 5 >usr/bin/other; >var/log/it.log"
        ),
        files=[
            "%attr(4755,root,mail) %caps(cap_net_raw=ep) /usr/bin/tool",
            "/usr/bin/tool2",
            "/usr/bin/other",
            "%doc /usr/share/doc/everything/README",
            "%config(noreplace) /etc/it.conf",
            "%ghost /var/log/it.log",
            "%lang(de) /usr/share/locale/de/it.mo",
            "/usr/share/link",
        ],
        sections="\n".join(
            (
                "%pre",
                "echo pre",
                "%post -p /sbin/ldconfig",
                "%pretrans -p <lua>",
                "print('x')",
                "%posttrans -e",
                "echo %%{_bindir}",
                "%triggerin -- bash > 4, zsh",
                "echo in",
                "%triggerprein -- zsh",
                "echo prein",
                "%triggerun -- zsh",
                "echo never at a first installation",
                "%filetriggerin -P 2000 -- /usr/lib /usr/lib64",
                "cat",
                "%transfiletriggerin -p <lua> -- /usr/share/fonts",
                "print('y')",
                "%transfiletriggerpostun -- /usr/share/fonts",
                "echo never either",
            )
        ),
    )
    header = header_of(package)
    assert str(header.nevra) == "everything-2.0~rc1-3.noarch"
    assert (header.url, header.vendor, header.license) == ("https://example.invalid/", "nobody", "MIT")
    assert header.source_rpm == "everything-2.0~rc1-3.src.rpm"
    assert Dependency("user(svc)", 8, "dSBzdmM") in header.provides
    assert [(d.name, d.evr) for d in header.requires if d.name == "bash"] == [("bash", "5")]
    assert [d.name for d in header.conflicts] == ["rival"]
    assert [(d.name, d.flags, d.evr) for d in header.obsoletes] == [("elder", 2, "2")]
    assert [d.name for d in header.recommends] == ["friend"]

    files = {file.path: file for file in header.files}
    tool = files["/usr/bin/tool"]
    assert (stat.S_IMODE(tool.mode), tool.user, tool.group) == (0o4755, "root", "mail")
    assert tool.capabilities == "cap_net_raw=ep"
    assert tool.digest == Digest.of(b"1\n")
    assert tool.inode == files["/usr/bin/tool2"].inode != files["/usr/bin/other"].inode
    assert (tool.nlink, files["/usr/bin/other"].nlink) == (2, 1)
    assert FileFlag.DOC in files["/usr/share/doc/everything/README"].flags
    assert files["/etc/it.conf"].flags == FileFlag.CONFIG | FileFlag.NO_REPLACE
    assert files["/var/log/it.log"].flags == FileFlag.GHOST
    assert files["/var/log/it.log"].digest is None
    assert files["/usr/share/locale/de/it.mo"].languages == ("de",)
    assert files["/usr/share/link"].link == "../bin/tool"

    assert {s.moment: (s.interpreter, s.body.strip(), s.expand) for s in header.scriptlets} == {
        ScriptletPhase.PRETRANS: (("<lua>",), "print('x')", False),
        ScriptletPhase.PRE: (("/bin/sh",), "echo pre", False),
        ScriptletPhase.POST: (("/sbin/ldconfig",), "", False),
        ScriptletPhase.POSTTRANS: (("/bin/sh",), "echo %{_bindir}", True),
    }
    triggers = {
        t.kind: (t.interpreter, t.body.strip(), tuple((d.name, d.flags, d.evr) for d in t.on), t.priority)
        for t in header.triggers
    }
    assert triggers == {
        TriggerKind.PREIN: (("/bin/sh",), "echo prein", (("zsh", 0, ""),), 1_000_000),
        TriggerKind.IN: (("/bin/sh",), "echo in", (("bash", 4, "4"), ("zsh", 0, "")), 1_000_000),
        TriggerKind.FILE_IN: (("/bin/sh",), "cat", (("/usr/lib", 0, ""), ("/usr/lib64", 0, "")), 2000),
        TriggerKind.TRANSACTION_FILE_IN: (("<lua>",), "print('y')", (("/usr/share/fonts", 0, ""),), 1_000_000),
    }


def test_an_interpreters_arguments_are_kept(made: Forge) -> None:
    package = made.package("arguments", files=[], sections='%post -p "/bin/sh -e -u"\ntrue')
    (scriptlet,) = header_of(package).scriptlets
    assert scriptlet.interpreter == ("/bin/sh", "-e", "-u")


def test_a_package_without_files_has_none(made: Forge) -> None:
    package = made.package("empty", files=[])
    assert header_of(package).files == ()
    assert list(read_payload(package)) == []


def test_a_name_that_is_no_utf8_survives(made: Forge) -> None:
    package = made.package(
        "latin",
        install="mkdir usr; echo x >usr/$(printf 'gr\\374n')",
        files=["/usr/*"],
        header="%global _invalid_encoding_terminates_build 0",
    )
    (file,) = header_of(package).files
    assert file.path.encode(errors="surrogateescape") == b"/usr/gr\xfcn"


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1-1", "2-1"), ("1-9", "1-10"), ("9-1", "1:1-1"), ("1~rc1-1", "1-1"), ("1-1", "1^git1-1"),
        ("1.a-1", "1.1-1"), ("1.0-1", "1.0.1-1"), ("0:1-1", "1-2"),
    ],
)  # fmt: skip
def test_versions_are_ordered_as_rpm_orders_them(older: str, newer: str) -> None:
    assert (compare_evr(older, newer), compare_evr(newer, older), compare_evr(older, older)) == (-1, 1, 0)


def test_a_version_without_release_equals_any_release() -> None:
    assert compare_evr("1.2", "1.2-3") == compare_evr("1.2-3", "1.2") == 0


# --- payloads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", ["w3.zstdio", "w6.gzdio", "w2.xzdio", "w2.lzdio", "w9.bzdio", "w0.ufdio"])
def test_every_payload_codec_gives_the_same_content(made: Forge, payload: str) -> None:
    package = made.package(
        f"codec-{payload.replace('.', '-')}",
        install="mkdir usr; seq 1 200000 >usr/a; echo b >usr/b; >usr/empty; ln -s a usr/link",
        files=["/usr/*"],
        payload=payload,
    )
    header = header_of(package)
    content = {
        header.files[index].path: b"".join(file.pieces()) for file in read_payload(package) for index in file.indices
    }
    assert content == {"/usr/a": b"".join(b"%d\n" % i for i in range(1, 200001)), "/usr/b": b"b\n"}


def test_a_hard_links_data_comes_once_with_all_its_names(made: Forge) -> None:
    package = made.package(
        "links",
        install="mkdir -p usr/z; echo data >usr/z/last; ln usr/z/last usr/a; ln usr/z/last usr/m; echo n >usr/n",
        files=["/usr/a", "/usr/m", "/usr/n", "/usr/z"],
    )
    header = header_of(package)
    found = {
        tuple(header.files[index].path for index in file.indices): b"".join(file.pieces())
        for file in read_payload(package)
    }
    assert found == {("/usr/a", "/usr/m", "/usr/z/last"): b"data\n", ("/usr/n",): b"n\n"}


def test_content_that_is_not_what_the_header_says_is_refused(made: Forge, tmp_path: Path) -> None:
    """As if the package had been exchanged after it was verified."""
    package = made.package("content", install="echo good >it", files=["/it"], payload="w0.ufdio")
    data = package.read_bytes()
    swapped = tmp_path / "swapped.rpm"
    swapped.write_bytes(data[: data.rindex(b"good")] + b"evil" + data[data.rindex(b"good") + 4 :])
    file = next(read_payload(swapped))
    with pytest.raises(VerificationError) as caught:
        b"".join(file.pieces())
    assert caught.value.code == "package-damaged"


def test_chosen_files_are_read_by_name(made: Forge) -> None:
    package = made.package(
        "chosen", install="mkdir -p usr/lib; echo 1 >usr/lib/1; echo 2 >usr/lib/2", files=["/usr/lib/*"]
    )
    assert read_payload_files(package, ["/usr/lib/2", "/usr/lib/none"]) == {"/usr/lib/2": b"2\n"}
    with pytest.raises(RelbuildError) as caught:
        read_payload_files(package, ["/usr/lib/2"], limit=1)
    assert caught.value.code == "file-too-large"
