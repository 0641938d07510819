"""`keygen` writes a pair of keys or none, and says which file it is about."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from tests.unit.cli.test_init import run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELBUILD_KEY_PASSWORD", "for the test")
    monkeypatch.setenv("COSIGN_PASSWORD", "for the test")
    return tmp_path


def test_a_pair_is_written_the_private_half_for_its_owner_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["keygen", "release"], monkeypatch) == 0
    assert {path.name for path in folder.iterdir()} == {"release.key", "release.pub"}
    assert (folder / "release.key").stat().st_mode & 0o777 == 0o600
    assert "ENCRYPTED" in (folder / "release.key").read_text() and "PUBLIC" in (folder / "release.pub").read_text()
    assert run(["keygen", "release"], monkeypatch) == 2


@pytest.mark.parametrize("half", ["release.key", "release.pub"])
def test_a_dead_link_is_told_as_what_is_there_and_leads_to_no_key(
    half: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / half).symlink_to("nowhere")
    assert run(["keygen", "release"], monkeypatch) == 2
    assert f"error[key-exists] '{half}' already exists" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [half]


@pytest.mark.parametrize("name", ["", "keys/"])
def test_a_name_of_no_file_is_refused(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It made the hidden files .key and .pub."""
    (folder / "keys").mkdir()
    assert run(["keygen", name], monkeypatch) == 2
    assert "error[option-malformed] NAME" in capsys.readouterr().err
    assert [path.name for path in folder.rglob("*")] == ["keys"]


@pytest.mark.parametrize("full", ["release.key", "release.pub"])
def test_a_full_disk_leaves_no_half_of_a_pair_and_names_the_file(
    full: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Path.write_bytes

    def refuse(path: Path, data: bytes) -> int:
        if path.name == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert run(["keygen", "release"], monkeypatch) == 8
    said = capsys.readouterr().err
    assert f"error[disk-full] {full}: " in said and "store" not in said
    assert list(folder.iterdir()) == []


def test_a_catalogue_on_a_full_disk_names_its_file_and_no_store(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.recipes.new_catalogue.os.link", refuse)
    assert run(["init", ".", "--json"], monkeypatch) == 8
    (problem,) = json.loads(capsys.readouterr().out)["error"]
    assert (problem["code"], problem["place"]) == ("disk-full", "recipes/repositories.yaml")
    assert "store" not in problem["hint"]
    assert [path.name for path in folder.rglob("*")] == ["recipes"]
