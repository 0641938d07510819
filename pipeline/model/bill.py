"""Data classes for an image's bill of materials and its build record.

SBOMs are written from the bill, the gate checks it, and images are compared by it. Made by
`pipeline.provenance_inputs`.
"""

from __future__ import annotations

from pipeline.digest import DiffId, Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.package import Nevra
from pipeline.model.provenance import Provenance


@dataclass(frozen=True, slots=True)
class BilledPackage:
    """One package in the image.

    `checksum` is the sha256 of the RPM file and `size` its bytes; `repository` is the id of where it came from;
    `layer` the name of the layer that it is in. `license`, `vendor`, `url`, `summary` and `source_rpm` are what its
    header says, empty where it says nothing. `fixes` are the vulnerabilities that its changelog names (`CVE-…`,
    `GHSA-…`), sorted: what was named there, which is no proof that nothing else is open.
    """

    nevra: Nevra
    checksum: Digest
    size: int
    license: str
    vendor: str
    url: str
    summary: str
    source_rpm: str
    repository: str
    layer: str
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BilledLayer:
    """One layer, lowest first in a bill.

    `digest` and `size` (bytes) are of the blob, `diff_id` of the tar.
    """

    name: str
    diff_id: DiffId
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Privileged:
    """A file that runs with its owner's or group's rights, or with capabilities.

    A file with set-user-id or set-group-id (`mode` is the twelve permission bits), or with capabilities, as text
    (`cap_net_raw=ep`; empty: none). `path` begins with a slash; `package` is the NEVRA of the package that it comes
    from, empty if none.
    """

    path: str
    mode: int
    package: str
    capabilities: str = ""


@dataclass(frozen=True, slots=True)
class Bill:
    """The bill of materials of one image.

    `digest` is the manifest's and `config` the config's; `created` is seconds since the epoch; `architecture` is
    OCI's name. `packages` are sorted by NEVRA, `privileged` by path.
    """

    name: str
    version: str
    digest: Digest
    config: Digest
    created: int
    architecture: str
    layers: tuple[BilledLayer, ...]
    packages: tuple[BilledPackage, ...]
    privileged: tuple[Privileged, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """The inputs that the image `image` was made from.

    `unknown` names, sorted, the inputs whose digest was not recorded (`repomd.xml of base`, in a lock older than that
    record). `checks` is the digest of the smoke plan of its recipe when it was last built or tested: evidence for
    another plan does not count.
    """

    image: Digest
    provenance: Provenance
    checks: Digest
    unknown: tuple[str, ...] = ()
