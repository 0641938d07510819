"""A file that is larger than a file may be is told as that, with the limit to raise, and nothing of it stays."""

from __future__ import annotations

import contextlib
import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.beneath import TooLarge
from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking
from pipeline.mirror.address import AddressForm
from pipeline.mirror.atomic_files import mirror_errors
from pipeline.model.image import Descriptor
from tests.support.mirror_kinds import FOLDER_FORMS, new_mirror, root_of

CONTENT = bytes(64 << 10)
BLOB = Descriptor("application/octet-stream", Digest.of(CONTENT), len(CONTENT))


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The limit that `ulimit -f` sets, in bytes, of this process within the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("given", ["bytes", "file"])
@pytest.mark.parametrize("form", FOLDER_FORMS, ids=lambda form: form.prefix)
def test_a_file_beyond_the_limit_is_told_with_the_limit(form: AddressForm, given: str, tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(CONTENT)
    with new_mirror(form, tmp_path) as mirror:
        repository = mirror.repository("" if form.prefix == "oci:" else "tiny")
        with largest_file(len(CONTENT) // 2), pytest.raises(EnvironmentLacking) as caught:
            repository.put_blob(BLOB, CONTENT if given == "bytes" else file)
        (problem,) = caught.value.problems
        assert problem.code == "disk-full" and f"{BLOB.digest.hex}' of the mirror" in problem.message
        assert "is larger than a file may be: File too large" in problem.message
        assert "`ulimit -f`" in str(problem.hint) and "free space" not in str(problem.hint)
        assert not [path for path in root_of(mirror).rglob("*") if path.is_file() and path.stat().st_size >= 32 << 10]
        repository.put_blob(BLOB, file)


def test_the_limit_for_a_store_is_not_the_mirrors() -> None:
    with pytest.raises(OSError, match="File too large"), mirror_errors("dir:there", writes=False):
        raise OSError(errno.EFBIG, "File too large", "/store/blobs/x")


def test_a_large_file_that_is_read_is_no_write_beyond_a_limit() -> None:
    with pytest.raises(EnvironmentLacking) as caught, mirror_errors("dir:there"):
        raise TooLarge(Path("/there/_tags.json"), 10)
    assert caught.value.code == "mirror-unreachable"
