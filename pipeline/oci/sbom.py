"""Make SBOM documents (SPDX 2.3, CycloneDX 1.6 in JSON) from a bill of materials; validate.

A document is a pure function of the bill: its identifier is derived from the digests of image and bill, its time is the
image's, and everything is sorted. So the same bill gives the same bytes, and publishing again changes nothing. The
libraries for the formats are imported when a document is made.
"""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from functools import cache, lru_cache
from typing import Self
from uuid import NAMESPACE_URL, UUID, uuid5

from pipeline import __version__
from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.bill import Bill
from pipeline.oci.bill_json import bill_bytes

_LIBRARIES = ("cyclonedx-python-lib", "license-expression", "packageurl-python", "spdx-tools")
_TOOL = "relbuild"


class SbomForm(StrEnum):
    """SBOM formats, as named on the command line."""

    SPDX = "spdx"
    CYCLONEDX = "cyclonedx"

    @property
    def file_name(self) -> str:
        """Return the name of the document's file in a report's folder."""
        return f"sbom.{self}.json"


@dataclass(frozen=True, slots=True)
class DraftedSbom:
    """The document of a bill in which digests are made up that are not known yet.

    They are the image's and those of its layers' blobs, and random, so that nothing else in the text is equal to them.
    """

    bill: Bill
    form: SbomForm
    text: str

    @classmethod
    def of_bill(cls, bill: Bill, form: SbomForm) -> Self:
        """Draft the document of a bill."""
        return cls(bill, form, _sbom_text(bill, form))

    def completed(self, bill: Bill) -> bytes | None:
        """Return the document of the bill with the digests that are known now, as `sbom_bytes` does.

        None if the bills differ in more, or two layers have the same name, by which their digests are sorted.
        """
        if len(self.bill.layers) != len(bill.layers):
            return None
        pairs = list(zip(self.bill.layers, bill.layers, strict=True))
        drafted = tuple(replace(layer, digest=known.digest, size=known.size) for layer, known in pairs)
        if replace(self.bill, digest=bill.digest, layers=drafted) != bill:
            return None
        if len({layer.name for layer in drafted}) != len(drafted):
            return None
        text = self.text.replace(str(_serial(self.bill, self.form)), str(_serial(bill, self.form)))
        for before, after in ((self.bill.digest, bill.digest), *((one.digest, other.digest) for one, other in pairs)):
            text = text.replace(before.hex, after.hex)
        return text.encode()


def sbom_bytes(bill: Bill, form: SbomForm) -> bytes:
    """Make the document of a bill: JSON in UTF-8 with sorted keys, ending in a line feed."""
    return _sbom_text(bill, form).encode()


def _sbom_text(bill: Bill, form: SbomForm) -> str:
    serial = _serial(bill, form)
    if form is SbomForm.SPDX:
        from pipeline.oci.spdx import spdx_value

        value = spdx_value(bill, f"https://relbuild.org/sbom/{bill.digest.hex}/{serial}", f"{_TOOL}-{__version__}")
    else:
        from pipeline.oci.cyclonedx import cyclonedx_value

        value = cyclonedx_value(bill, serial, (_TOOL, __version__))
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def sbom_problems(data: bytes, form: SbomForm) -> list[str]:
    """Validate a document with its format's validator; return the problems as texts.

    Raises VerificationError `sbom-malformed` if it is not JSON.
    """
    try:
        if form is SbomForm.SPDX:
            from pipeline.oci.spdx import spdx_problems

            return spdx_problems(data.decode())
        from pipeline.oci.cyclonedx import cyclonedx_problems

        return cyclonedx_problems(data.decode())
    except (ValueError, RecursionError) as error:
        raise VerificationError("sbom-malformed", f"the document is not JSON: {error}") from error


@cache
def sbom_versions() -> tuple[tuple[str, str], ...]:
    """Return (library, version) of the software on which a document's bytes depend."""
    from importlib.metadata import version

    return (*((name, version(name)) for name in _LIBRARIES), (_TOOL, __version__))


@lru_cache(maxsize=2)
def bill_digest(bill: Bill) -> Digest:
    """Return the digest of a bill's document."""
    return Digest.of(bill_document(bill))


@lru_cache(maxsize=1)
def bill_document(bill: Bill) -> bytes:
    """Return a bill's document, as `bill_bytes` does; the last one is kept in memory."""
    return bill_bytes(bill)


def _serial(bill: Bill, form: SbomForm) -> UUID:
    """Return the UUID that identifies the document of a bill in a format.

    Different documents have different identifiers, also about one image (a package may have come from another
    repository).
    """
    image = uuid5(NAMESPACE_URL, f"https://relbuild.org/image/{bill.digest}")
    return uuid5(image, f"{form} {bill_digest(bill)} {dict(sbom_versions())}")
