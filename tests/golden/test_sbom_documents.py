"""The very bytes of a bill and of the documents that are made from it: they are signed, and published by digest.

RELBUILD_REGENERATE=1 writes what they are now; look at the difference before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.oci.bill_json import bill_bytes
from pipeline.oci.sbom import SbomForm, sbom_bytes
from tests.support.bills import AWKWARD

FOLDER = Path(__file__).parent / "sbom"

FORMS = {form.file_name: form for form in SbomForm}


@pytest.mark.parametrize("name", sorted(("bill.json", *FORMS)))
def test_documents_are_byte_for_byte_what_they_were(name: str) -> None:
    path = FOLDER / name
    document = sbom_bytes(AWKWARD, FORMS[name]) if name in FORMS else bill_bytes(AWKWARD)
    if os.environ.get("RELBUILD_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(document)
    assert document == path.read_bytes()
