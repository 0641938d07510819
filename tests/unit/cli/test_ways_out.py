"""Errors name a way out that exists: the variable, the file that was given, the limit that is too small."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from pathlib import Path

import pytest
import typer

from pipeline.cli.key_files import password
from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, RecipeError, RelbuildError, SmokeError, UsageError, VerificationError
from pipeline.mirror.atomic_files import mirror_errors
from pipeline.mirror.verified_blobs import check_digest
from pipeline.model.image import Descriptor
from pipeline.model.limits import Limits
from pipeline.oci import validate_layout, write_layout
from pipeline.resolve.explain import explain
from pipeline.sandbox.instance_launch import _told_of_memory
from pipeline.store import Store, write_durably
from pipeline.system_errors import relbuild_error
from pipeline.yaml_documents import load_yaml
from tests.support.tiny_image import tiny


def _hint(error: RelbuildError) -> str:
    return error.problems[0].hint or ""


def test_a_document_that_is_missing_or_unreadable_is_named_with_its_whole_path(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as missing:
        load_yaml(tmp_path / "nope.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(RecipeError) as unreadable:
        load_yaml(tmp_path / "folder.yaml")
    assert str(tmp_path / "nope.yaml") in _hint(missing.value)
    assert unreadable.value.code == "document-unreadable" and str(tmp_path / "folder.yaml") in _hint(unreadable.value)


def test_damage_of_a_mirror_and_of_a_layout_has_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(VerificationError) as damaged:
        check_digest(Descriptor("x", Digest.of(b"a"), 1), Digest.of(b"b"), 1, tmp_path, "blob-damaged")
    assert "relbuild scrub" in _hint(damaged.value)
    store = Store.open(tmp_path / "store")
    image = tiny(store)
    write_layout(image, store=store, target=tmp_path / "layout")
    blob = tmp_path / "layout/blobs/sha256" / image.layers[0].blob.digest.hex
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.unlink()
    blob.write_bytes(content)
    (problem,) = (one for one in validate_layout(tmp_path / "layout") if one.code == "digest-mismatch")
    assert problem.hint and "build or pull" in problem.hint


def test_a_package_that_is_not_in_the_image_is_looked_for_where_packages_are_listed() -> None:
    with pytest.raises(UsageError) as raised:
        explain([], "nosuch")
    assert "lock" in _hint(raised.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_path_that_cannot_be_written_sends_nobody_to_the_doctor(number: int) -> None:
    error = relbuild_error(OSError(number, os.strerror(number), "/x"))
    assert error is not None
    assert not any(word in _hint(error) for word in ("doctor", "--store", "--output")) and _hint(error)


def test_a_file_whose_draft_cannot_be_made_is_named_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "refused", str(tmp_path / ".hello.lock.abcdefgh"))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError) as raised:
        write_durably(tmp_path / "hello.lock", b"")
    assert raised.value.filename == str(tmp_path / "hello.lock")


def test_a_container_that_does_not_start_for_its_memory_says_so() -> None:
    small = Limits().changed(enforce=False, memory=1 << 20)
    with pytest.raises(SmokeError) as told, _told_of_memory(small):
        raise SmokeError("not-started", "the runtime's own words", hint="check that the entrypoint is in the image")
    assert told.value.code == "not-started" and "memory limit (1MiB) is too small" in str(told.value)
    assert "at least 8MiB" in _hint(told.value)
    with pytest.raises(SmokeError, match="own words"), _told_of_memory(Limits()):
        raise SmokeError("not-started", "the runtime's own words")


def test_who_needs_no_private_key_is_told_of_the_public_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "release.key"
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(EnvironmentLacking) as raised:
        password(key, {}, public="--plan")()
    assert raised.value.code == "key-password-missing"
    public = f"--key {tmp_path}/release.pub"
    assert _hint(raised.value).endswith(f"; --plan takes the public key too, which has none: {public}")
    with pytest.raises(EnvironmentLacking) as raised:
        password(key, {})()
    assert _hint(raised.value) == "set RELBUILD_KEY_PASSWORD in the environment"


def test_a_password_that_is_not_entered_is_told_and_ctrl_c_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def end_with(error: type[BaseException]) -> None:
        def ends(*_: object, **__: object) -> str:
            raise error

        monkeypatch.setattr("getpass.getpass", ends)

    monkeypatch.setattr("sys.stdin", Terminal())
    end_with(EOFError)  # Ctrl-D
    with pytest.raises(EnvironmentLacking) as raised:
        password(tmp_path / "release.key", {})()
    assert raised.value.code == "key-password-missing" and "RELBUILD_KEY_PASSWORD" in _hint(raised.value)
    end_with(KeyboardInterrupt)
    with pytest.raises(typer.Abort):
        password(tmp_path / "release.key", {})()


def test_a_mirror_on_two_file_systems_is_told_what_to_change() -> None:
    with pytest.raises(EnvironmentLacking) as raised, mirror_errors("dir:/srv/mirror"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "/srv/mirror/.incoming/draft", None, "/srv/mirror/blobs/x")
    assert raised.value.code == "mirror-unreachable" and "on one file system" in _hint(raised.value)
