"""What earlier nights could not remove from the folder of outputs goes, and nothing else does."""

from __future__ import annotations

from pathlib import Path

from pipeline.atomic_folders import folder_draft
from pipeline.nightly.output_sweep import sweep_output


def _left(output: Path, name: str) -> Path:
    """A draft whose maker is gone."""
    folder = output / name
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("half")
    return folder


def test_drafts_of_products_that_nobody_writes_again_go(tmp_path: Path) -> None:
    left = [_left(tmp_path, f".nginx{ending}.draft-0a1b2c3d") for ending in ("", ".report")]
    stays = [
        _left(tmp_path, name) for name in ("nginx", "nginx.report", ".redis.draft-0a1b2c3d", ".nginx.drafts", ".mine")
    ]
    sweep_output(tmp_path, ["mysql", "nginx"])
    assert sorted(tmp_path.iterdir()) == sorted(stays), left


def test_a_draft_that_somebody_writes_stays(tmp_path: Path) -> None:
    with folder_draft(tmp_path / "nginx.report") as draft:
        sweep_output(tmp_path, ["nginx"])
        assert list(tmp_path.iterdir()) == [draft]


def test_an_output_that_is_not_there_is_nothing_to_sweep(tmp_path: Path) -> None:
    sweep_output(tmp_path / "none", ["nginx"])
    assert list(tmp_path.iterdir()) == []
