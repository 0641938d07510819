"""The form of each vendor's repositories: compression, signatures, layout, and what else there is in them.

Where the forms are known from: the real repositories and packages in RELBUILD_REAL (Fedora 43, Rocky 8), createrepo_c's
and MirrorManager's sources, and the vendors' definitions that docs/platforms.md lists. A form that is not known is the
common one: createrepo_c's, with signatures of version 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.support.lookalikes.packages import Payload, Signature


@dataclass(frozen=True, slots=True)
class Form:
    """`metadata` is the suffix of its documents, `layout` the folder of a package (`{first}`: its first letter),
    `more` the other documents that repomd.xml lists; `moved`: packages and documents are redirected to a mirror."""

    metadata: str = "gz"
    payload: Payload = Payload.ZSTD
    signature: Signature = Signature.V4
    layout: str = "Packages/{first}/"
    more: tuple[str, ...] = ()
    moved: bool = False


_ENTERPRISE = ("group", "updateinfo", "modules")

FORMS: dict[str, Form] = {
    "mirrors.centos.org": Form(signature=Signature.V3, layout="Packages/", more=("group",)),
    "cdn.redhat.com": Form(signature=Signature.V3, more=(*_ENTERPRISE, "productid")),
    "cdn-ubi.redhat.com": Form(signature=Signature.V3, more=_ENTERPRISE),
    "mirrors.rockylinux.org": Form(more=_ENTERPRISE),
    "mirrors.almalinux.org": Form(layout="Packages/", more=_ENTERPRISE),
    "yum.oracle.com": Form(signature=Signature.V3, layout="getPackage/", more=_ENTERPRISE),
    "mirrors.fedoraproject.org": Form(metadata="zst", more=("group", "updateinfo", "primary_zck", "filelists_zck")),
    "cdn.amazonlinux.com": Form(layout="../../../../blobstore/", more=("group", "updateinfo")),
    "packages.microsoft.com": Form(payload=Payload.GZIP),
    "packages.broadcom.com": Form(layout="noarch/", more=("updateinfo",)),
    "download.opensuse.org": Form(metadata="zst", layout="noarch/", more=("appdata", "susedata"), moved=True),
    "repo.mysql.com": Form(signature=Signature.V4_TWICE, layout="", payload=Payload.XZ),
    "repo.percona.com": Form(layout="", payload=Payload.XZ),
    "rpm.mariadb.org": Form(layout="rpms/", payload=Payload.XZ),
    "download.postgresql.org": Form(layout="", more=("group", "updateinfo")),
    "nginx.org": Form(layout="RPMS/"),
    "download.docker.com": Form(layout="Packages/", metadata="gz"),
}
"""By the host that a definition names."""


def as_of_el8(form: Form) -> Form:
    """The form in Enterprise Linux 8: payloads and metadata in xz, and a second signature over header and payload."""
    signature = Signature((form.signature.value[0], True))
    return replace(form, payload=Payload.XZ, metadata="xz", signature=signature)
