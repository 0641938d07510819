"""GnuPG judges keys and signatures alike in whatever folder temporary files are made."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.repos import openpgp_keys, read_keys, verify_detached
from tests.support.awkward_paths import AWKWARD_NAMES
from tests.support.openpgp import key_maker


@pytest.mark.parametrize("name", AWKWARD_NAMES, ids=ascii)
def test_metadata_is_judged_alike_with_temporary_files_in_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with key_maker(tmp_path / "gpg") as maker:
        public, signature = maker.public, maker.sign(b"data")
    folder = tmp_path / "working" / name
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    openpgp_keys._asked_gpg.cache_clear()
    told: list[str] = []
    keys = read_keys("r", public, "keys.gpg", told.append)
    assert len(keys) == 1 and not told
    assert verify_detached(b"data", signature, keys, name="repomd.xml") == keys[0].fingerprint
    with pytest.raises(VerificationError, match="not signed"):
        verify_detached(b"date", signature, keys, name="repomd.xml")
    assert [*folder.parent.iterdir()] == [folder] and not [*folder.iterdir()]
