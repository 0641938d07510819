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

DOCUMENTS = {
    "bill.json": bill_bytes(AWKWARD),
    **{form.file_name: sbom_bytes(AWKWARD, form) for form in SbomForm},
}


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_documents_are_byte_for_byte_what_they_were(name: str) -> None:
    path = FOLDER / name
    if os.environ.get("RELBUILD_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(DOCUMENTS[name])
    assert DOCUMENTS[name] == path.read_bytes()
