"""Addresses where a mirror is wanted: an image's is refused, and a mirror is made neither inside nor around another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.mirror.address_parser import parse_address, parse_mirror_address
from pipeline.mirror.backends.directory import directory_mirror
from pipeline.mirror.backends.directory.directory_address_form import DIRECTORY, MARKER
from pipeline.mirror.backends.directory.directory_mirror import open_directory

DIGEST = f"sha256:{'a' * 64}"


def hint_of(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_mirror_address(text, "--to")
    (problem,) = caught.value.problems
    assert problem.code == "address-malformed"
    return problem.hint or ""


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("registry+http://127.0.0.1:5000/team/tlspage:latest", "registry+http://127.0.0.1:5000/team"),
        (f"registry://images.example/tlspage@{DIGEST}", "registry://images.example"),
        (f"registry://images.example/team/tlspage:1@{DIGEST}", "registry://images.example/team"),
        ("docker://images.example/team/tlspage:latest", "registry://images.example/team"),
        ("oci:/srv/disk:latest", "oci:/srv/disk"),
    ],
)
def test_the_address_of_an_image_is_refused_and_its_mirrors_named(given: str, written: str) -> None:
    assert hint_of(given) == f"write {written}, without a repository's name, tag and digest"


def test_in_a_folder_the_mirror_is_the_one_above_or_the_one_that_can_be_made(tmp_path: Path) -> None:
    said = "write dir:{}, without a repository's name, tag and digest".format
    made = open_directory(tmp_path / "made", create=True, clock=time.time).place.root
    assert hint_of(f"dir:{made}/redis:latest") == said(made)
    assert hint_of(f"dir:{made}/team/redis:latest") == said(made)
    assert hint_of(f"dir:{made}:latest") == said(made)
    assert hint_of(f"dir:{tmp_path}/new/redis@{DIGEST}") == said(tmp_path / "new")
    assert hint_of(f"dir:{tmp_path}/redis:latest") == said(tmp_path / "redis")


@pytest.mark.parametrize("text", ["dir:/srv/mirror/redis@", "registry://images.example/redis:1@", "oci:/srv/disk@"])
def test_an_address_whose_digest_is_missing_is_not_that_of_the_latest_image(text: str) -> None:
    """As where a script's variable for the digest is empty."""
    with pytest.raises(UsageError, match="after '@' must be a sha256 digest") as caught:
        parse_address(text)
    assert caught.value.code == "address-malformed"


@pytest.mark.parametrize("name", ["nginx.conf", "rsync.sh", "catalog.json"])
@pytest.mark.parametrize("beside", [[], ["blobs", "repositories"]], ids=["alone", "beside folders"])
def test_a_persons_files_are_no_mirror_that_was_begun(name: str, beside: list[str], tmp_path: Path) -> None:
    for folder in beside:
        (tmp_path / folder).mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="neither empty nor a mirror"):
        open_directory(tmp_path, create=True, clock=time.time)
    assert (tmp_path / name).read_text() == "mine"


def test_who_names_a_file_is_not_told_to_write_a_folder_in_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        DIRECTORY.require_place(parse_address(f"dir:{tmp_path}/file/redis"), "redis")
    said = "choose a new directory: the last part of the address is the repository's name"
    assert caught.value.problems[0].hint == said


@pytest.mark.parametrize("count", range(4))
def test_a_killed_creation_is_made_a_mirror(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many of its files were written."""
    real, written = directory_mirror.replace_file, list[str]()

    def killed(data: bytes, target: Path, *given: Any) -> None:
        if len(written) == count:
            raise KeyboardInterrupt
        written.append(target.name)
        real(data, target, *given)

    monkeypatch.setattr(directory_mirror, "replace_file", killed)
    monkeypatch.setattr(directory_mirror, "write_marker", lambda *_: killed(b"", tmp_path))
    with pytest.raises(KeyboardInterrupt):
        open_directory(tmp_path / "made", create=True, clock=time.time)
    assert len(written) == count
    monkeypatch.undo()
    assert open_directory(tmp_path / "made", create=True, clock=time.time).repositories() == ()


@pytest.mark.parametrize("text", ["/srv/mirror", "./mirror", "../mirror"])
def test_a_path_is_shown_with_the_forms_that_take_one(text: str) -> None:
    assert hint_of(text) == f"write registry://HOST/NAMESPACE, dir:{text} or oci:{text}"


@pytest.mark.parametrize("text", ["s3://bucket", "mirror", "dir:x:a b", "dir:x@sha256:12", "dir:"])
def test_hints_where_a_mirror_is_wanted_have_no_image_in_them(text: str) -> None:
    assert hint_of(text) == "write registry://HOST/NAMESPACE, dir:PATH or oci:PATH"


@pytest.mark.parametrize("text", ["registry://images.example:5000/team", "registry://a.example", "oci:disk", "dir:m"])
def test_the_address_of_a_mirror_is_taken(text: str) -> None:
    assert parse_mirror_address(text, "--to") == parse_address(text)


def refused(root: Path, *, create: bool = True) -> str:
    with pytest.raises(UsageError) as caught:
        open_directory(root, create=create, clock=time.time)
    assert caught.value.code == "mirror-nested"
    return str(caught.value)


@pytest.mark.parametrize("below", ["redis", "team/redis", "repositories/redis"])
@pytest.mark.parametrize("create", [True, False])
def test_no_mirror_is_made_inside_another(below: str, create: bool, tmp_path: Path) -> None:
    above = open_directory(tmp_path / "mirror", create=True, clock=time.time).place.root
    said = refused(above / below, create=create)
    assert f"'{above / below}'" in said and f"'{above}'" in said and f"write dir:{above}: " in said
    assert not (above / below).exists()


def test_a_link_does_not_hide_the_mirror_above(tmp_path: Path) -> None:
    above = open_directory(tmp_path / "mirror", create=True, clock=time.time).place.root
    (above / "inner").mkdir()
    (tmp_path / "link").symlink_to(above / "inner")
    assert f"'{above}'" in refused(tmp_path / "link")
    assert list((above / "inner").iterdir()) == []


@pytest.mark.parametrize("below", ["mirror", "team/mirror"])
def test_no_mirror_is_made_around_another(below: str, tmp_path: Path) -> None:
    inner = open_directory(tmp_path / "srv" / below, create=True, clock=time.time).place.root
    said = refused(tmp_path / "srv")
    assert f"'{tmp_path / 'srv'}'" in said and f"write dir:{inner}" in said
    assert not (tmp_path / "srv" / MARKER).exists()


def test_a_night_that_is_to_make_a_mirror_hears_of_it_before_it_builds(tmp_path: Path) -> None:
    above = open_directory(tmp_path / "mirror", create=True, clock=time.time).place.root
    with pytest.raises(UsageError, match="would be inside the mirror"):
        DIRECTORY.exists(parse_address(f"dir:{above}/redis"))
    assert not DIRECTORY.exists(parse_address(f"dir:{tmp_path}/other"))


def test_an_inner_mirror_that_an_older_version_made_is_told_and_still_opens(tmp_path: Path) -> None:
    inner = open_directory(tmp_path / "mirror" / "redis", create=True, clock=time.time).place.root
    (tmp_path / "elsewhere").mkdir()
    above = open_directory(tmp_path / "elsewhere" / "mirror", create=True, clock=time.time).place.root
    inner.rename(above / "redis")
    with pytest.raises(UsageError) as caught:
        DIRECTORY.locate(parse_address(f"dir:{above}/redis:latest"), create=False)
    assert caught.value.code == "mirror-nested" and f"'{above}'" in str(caught.value)
    assert open_directory(above / "redis", create=False, clock=time.time).host == "localhost"
    assert DIRECTORY.locate(parse_address(f"dir:{above}/redis/redis"), create=False)[1] == "redis"
