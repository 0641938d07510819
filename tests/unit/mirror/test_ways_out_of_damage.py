"""What is missing on a mirror of any kind is told as that, with what brings it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address import AddressForm
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
from pipeline.mirror.protocol import Mirror
from pipeline.mirror.published import read_published
from pipeline.model.image import Descriptor
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.mirror_kinds import FOLDER_FORMS, file_of, new_mirror


def test_a_tag_whose_manifest_is_missing_is_not_told_as_a_tag_that_is_missing(tmp_path: Path) -> None:
    (form,) = (form for form in FOLDER_FORMS if form.prefix == "dir:")
    with new_mirror(form, tmp_path) as mirror:
        assert isinstance(mirror, DirectoryMirror)
        repository, store = mirror.repository("tiny"), Store.open(tmp_path / "store")
        put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "latest")
        file_of(mirror, put.digest).unlink()
        with pytest.raises(VerificationError, match="tag 'latest' is there, and the manifest") as caught:
            read_published(repository, "latest")
        (problem,) = caught.value.problems
        assert problem.code == "manifest-missing" and "`relbuild scrub MIRROR`" in (problem.hint or "")
        with pytest.raises(UsageError, match="no such tag or digest: 'stable'"):
            read_published(repository, "stable")


@pytest.mark.parametrize("form", FOLDER_FORMS, ids=lambda form: form.prefix)
def test_a_blob_that_is_missing_is_told_with_what_brings_it_back(form: AddressForm, tmp_path: Path) -> None:
    with new_mirror(form, tmp_path) as mirror:
        repository, store = mirror.repository("tiny"), Store.open(tmp_path / "store")
        made = mirror_images.image(store, 1)
        mirror_images.publish(repository, store, made, "latest")
        blob = made.layers[0].blob
        file_of(mirror, blob.digest).unlink()
        empty = Store.open(tmp_path / "empty")
        for act in (lambda: repository.check_blob(blob), lambda: repository.fetch_blob(blob, empty)):
            with pytest.raises(VerificationError) as caught:
                act()
            (problem,) = caught.value.problems
            assert problem.code == "blob-missing" and "`relbuild scrub MIRROR`" in (problem.hint or "")


def test_nothing_is_told_as_pruned_where_nothing_was(any_mirror: Mirror, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    repository = any_mirror.repository("tiny")
    mirror_images.publish(repository, store, mirror_images.image(store, 1), "latest")
    missing = Digest.of(b"nothing")
    assert repository.pruned_by(missing) == repository.pruned_by("stable") == ""
    with pytest.raises(UsageError, match="no such tag or digest"):
        read_published(repository, missing)
    with pytest.raises(VerificationError, match="blob-missing"):
        repository.check_blob(Descriptor("x", missing, 7))
