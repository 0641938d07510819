"""Software bills of materials as SPDX 2.3 and CycloneDX 1.6 documents, in JSON.

The one idea: a document is a function of the bill. Its name is made from the image's digest and the bill's, its
time is the image's, and everything is sorted; so the same bill gives the same bytes, and what is published again is
what was published before. The libraries that know the forms are loaded when a document is made, not before.
"""

from __future__ import annotations

import json
from enum import StrEnum
from importlib.metadata import version
from uuid import NAMESPACE_URL, UUID, uuid5

from pipeline import __version__
from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.model.bill import Bill
from pipeline.oci.bill_json import bill_bytes

_LIBRARIES = ("cyclonedx-python-lib", "license-expression", "packageurl-python", "spdx-tools")
_TOOL = "relbuild"


class SbomForm(StrEnum):
    """The forms, as the command line names them."""

    SPDX = "spdx"
    CYCLONEDX = "cyclonedx"

    @property
    def file_name(self) -> str:
        """Return the name of the document's file in a report's folder."""
        return f"sbom.{self}.json"


def sbom_bytes(bill: Bill, form: SbomForm) -> bytes:
    """The document for a bill: JSON in UTF-8 with sorted keys, ending in a line feed."""
    serial = _serial(bill, form)
    if form is SbomForm.SPDX:
        from pipeline.oci.spdx import spdx_value

        value = spdx_value(bill, f"https://relbuild.org/sbom/{bill.digest.hex}/{serial}", f"{_TOOL}-{__version__}")
    else:
        from pipeline.oci.cyclonedx import cyclonedx_value

        value = cyclonedx_value(bill, serial, (_TOOL, __version__))
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sbom_problems(data: bytes, form: SbomForm) -> list[str]:
    """Validate a document with its form's own validator; return problems as sentences.

    None for a good one. Raises VerificationError `sbom-malformed` for what is no JSON.
    """
    try:
        if form is SbomForm.SPDX:
            from pipeline.oci.spdx import spdx_problems

            return spdx_problems(data.decode())
        from pipeline.oci.cyclonedx import cyclonedx_problems

        return cyclonedx_problems(data.decode())
    except (ValueError, RecursionError) as error:
        raise VerificationError("sbom-malformed", f"the document is not JSON: {error}") from error


def sbom_versions() -> tuple[tuple[str, str], ...]:
    """(library, version) of all that a document's bytes depend on besides the bill, sorted."""
    return (*((name, version(name)) for name in _LIBRARIES), (_TOOL, __version__))


def _serial(bill: Bill, form: SbomForm) -> UUID:
    """Return the UUID that names the document of a bill in a form.

    Two documents that differ have different names, also where they are about one image (a package may have come from
    another repository).
    """
    image = uuid5(NAMESPACE_URL, f"https://relbuild.org/image/{bill.digest}")
    return uuid5(image, f"{form} {Digest.of(bill_bytes(bill))} {dict(sbom_versions())}")
