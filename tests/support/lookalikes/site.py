"""Repositories, metalinks and mirrorlists for all addresses of the shipped definitions, in memory.

Documents: metalinks as MirrorManager writes them (mirrormanager2's metalink.xml: several hashes, `mm0:alternates` with
the repomd.xml of before); mirrorlists with comments as Rocky's and Fedora's, with `$basearch` literally as AlmaLinux's
(AlmaLinux/mirrors issue 581), with one URL as Amazon's.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import zstandard

from pipeline.model.platform import PackageRepository, Platform
from pipeline.openpgp_packets import ARMOR_BEGIN, ARMOR_END, Packet, armor
from pipeline.repos.variables import expand_repository, platform_variables
from pipeline.urls import parse_url
from tests.support.lookalikes.forms import FORMS, Form, as_of_el8
from tests.support.lookalikes.packages import (
    BASE,
    PARTS,
    PRODUCTS,
    Payload,
    SignedPackage,
    Unsigned,
    documents_of,
    sign_packages,
)
from tests.support.lookalikes.signing import SigningKey

ARCH = "x86_64"
MIRROR = "mirror.lookalike.example"
DEAD = "dead.lookalike.example"
"""Hosts of mirrors: one that has everything, one that has nothing."""

_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "zst": zstandard.compress,
    "bz2": bz2.compress,
}
_ELSEWHERE = {
    "modules": b"---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: lookalike\n  stream: '1'\n...\n",
    "group": b'<?xml version="1.0" encoding="UTF-8"?>\n<comps/>\n',
    "updateinfo": b'<?xml version="1.0" encoding="UTF-8"?>\n<updates/>\n',
    "productid": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
}
_BEFORE = b"<repomd>of before</repomd>\n"
Packages = Mapping[Payload, Sequence[Unsigned]]


@dataclass
class LookalikeSite:
    """`answers`: URL → content; `moved`: URL → where it is now. `certified`: hosts that demand a client certificate."""

    packages: Packages
    keys: Callable[[str], SigningKey]
    answers: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    certified: frozenset[str] = frozenset({"cdn.redhat.com"})

    @property
    def hosts(self) -> list[str]:
        """All hosts with an address."""
        return sorted({MIRROR, DEAD, *(_host(url) for url in (*self.answers, *self.moved))})

    def add(self, platform: Platform, environment: Mapping[str, str]) -> None:
        """Make the repositories of a platform, each at its own address."""
        variables = platform_variables(platform, ARCH, environment)
        for index, plain in enumerate(platform.repositories):
            one = expand_repository(plain, variables, environment)
            place = one.metalink or one.mirrorlist or one.baseurls[0]
            if place in self.answers or f"{place.rstrip('/')}/repodata/repomd.xml" in self.answers:
                continue
            form = FORMS[_host(place)]
            if variables.get("release") == "8":
                form = as_of_el8(form)
            names = (*(BASE if index == 0 else ()), PARTS[index], *PRODUCTS.get(one.id, ()))
            self._repository(one, f"{platform.name}/{one.id}", form, names)

    def _repository(self, repository: PackageRepository, name: str, form: Form, names: Sequence[str]) -> None:
        key = self.keys(repository.fingerprints[0])
        unsigned = [one for one in self.packages[form.payload] if one.name in names]
        packages = sign_packages(unsigned, key, form.signature, layout=form.layout)
        root = (
            f"https://{MIRROR}/{name}/core/guids/1/{ARCH}"
            if repository.mirrorlist
            else f"https://{MIRROR}/{name}/{ARCH}"
        )
        if repository.baseurls:
            root = repository.baseurls[0].rstrip("/")
        repomd = self._content(root, form, packages)
        if repository.signed_metadata:
            self.answers[f"{root}/repodata/repomd.xml.asc"] = armored_signature(key.sign(repomd))
        for place in repository.keys:
            if place.startswith("https:"):
                self.answers[place] = armor([Packet(0, b"", key.certificate)])
        if repository.metalink:
            self.answers[repository.metalink] = metalink(root, repomd)
        elif repository.mirrorlist:
            self.answers[repository.mirrorlist] = mirrorlist(repository.mirrorlist, root)

    def _content(self, root: str, form: Form, packages: Sequence[SignedPackage]) -> bytes:
        """Packages, documents and repomd.xml below `root`; returns the last."""
        answers = {joined(root, one.location): one.data for one in packages}
        records = []
        documents = documents_of(packages)
        for kind in (*documents, *form.more):
            data = documents.get(kind) or _ELSEWHERE.get(kind, kind.encode())
            if kind.endswith("_zck"):
                stored, suffix = b"\0ZCK1" + data, "xml.zck"
            else:
                stored, suffix = (
                    _COMPRESS[form.metadata](data),
                    f"{'yaml' if kind == 'modules' else 'xml'}.{form.metadata}",
                )
            location = f"repodata/{hashlib.sha256(stored).hexdigest()}-{kind.removesuffix('_zck')}.{suffix}"
            answers[f"{root}/{location}"] = stored
            records.append(_record(kind, location, stored, data))
        repomd = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<repomd xmlns="http://linux.duke.edu/metadata/repo" '
            'xmlns:rpm="http://linux.duke.edu/metadata/rpm">\n  <revision>1700000000</revision>\n'
            f"{''.join(records)}</repomd>\n"
        ).encode()
        if form.moved:
            for url in list(answers):
                self.moved[url] = f"https://{MIRROR}/{_host(root)}{url.partition(_host(root))[2]}"
            answers = {self.moved[url]: data for url, data in answers.items()}
        self.answers |= answers | {f"{root}/repodata/repomd.xml": repomd}
        return repomd


def joined(root: str, location: str) -> str:
    """The URL of a location, which may lead out of the repository, as Amazon's do."""
    parts = [*root.split("/"), *location.split("/")]
    while ".." in parts:
        at = parts.index("..")
        del parts[at - 1 : at + 1]
    return "/".join(parts)


def armored_signature(packet: bytes) -> bytes:
    """A detached signature as `repomd.xml.asc` has it."""
    text = armor([Packet(0, b"", packet)])
    begin, end = (line.replace(b"PUBLIC KEY BLOCK", b"SIGNATURE") for line in (ARMOR_BEGIN, ARMOR_END))
    return text.replace(ARMOR_BEGIN, begin).replace(ARMOR_END, end)


def metalink(root: str, repomd: bytes) -> bytes:
    """A metalink of which the first mirror is dead."""
    urls = "\n".join(
        f'<url protocol="{scheme}" type="{scheme}" location="US" preference="{preference}">'
        f"{address}/repodata/repomd.xml</url>"
        for scheme, preference, address in (
            ("rsync", 100, f"rsync://{MIRROR}/x"),
            ("https", 99, f"https://{DEAD}/x"),
            ("https", 98, root),
        )
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<metalink version="3.0" xmlns="http://www.metalinker.org/" '
        'type="dynamic" pubdate="Thu, 26 Nov 2026 00:00:00 GMT" generator="mirrormanager" '
        'xmlns:mm0="http://fedorahosted.org/mirrormanager">\n <files>\n  <file name="repomd.xml">\n'
        f"   <mm0:timestamp>1700000000</mm0:timestamp>\n   <size>{len(repomd)}</size>\n"
        f"   <verification>\n{_hashes(repomd)}   </verification>\n   <mm0:alternates>\n    <mm0:alternate>\n"
        f"     <mm0:timestamp>1690000000</mm0:timestamp>\n     <size>{len(_BEFORE)}</size>\n"
        f"     <verification>\n{_hashes(_BEFORE)}     </verification>\n    </mm0:alternate>\n   </mm0:alternates>\n"
        f'   <resources maxconnections="1">\n{urls}\n   </resources>\n  </file>\n </files>\n</metalink>\n'
    ).encode()


def mirrorlist(place: str, root: str) -> bytes:
    """The answer of a list of mirrors, as its server words it."""
    literal = root.replace(ARCH, "$basearch")
    if "almalinux" in place:
        return f"https://{DEAD}/x\n{literal}\n".encode()
    if "amazonlinux" in place:
        return f"{root}/\n".encode()
    return f"# repo = x arch = {ARCH} country = US \n\nhttps://{DEAD}/x\n{root}/\n".encode()


def _hashes(data: bytes) -> str:
    kinds = ("md5", "sha1", "sha256", "sha512")
    return "".join(f'    <hash type="{kind}">{hashlib.new(kind, data).hexdigest()}</hash>\n' for kind in kinds)


def _record(kind: str, location: str, stored: bytes, data: bytes) -> str:
    return (
        f'  <data type="{kind}">\n    <checksum type="sha256">{hashlib.sha256(stored).hexdigest()}</checksum>\n'
        f'    <open-checksum type="sha256">{hashlib.sha256(data).hexdigest()}</open-checksum>\n'
        f'    <location href="{location}"/>\n    <timestamp>1700000000</timestamp>\n    <size>{len(stored)}</size>\n'
        f"    <open-size>{len(data)}</open-size>\n  </data>\n"
    )


def _host(url: str) -> str:
    found = parse_url(url)
    assert found is not None, url
    return found.host
