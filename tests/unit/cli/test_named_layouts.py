"""Commands that read an image take the name of what was built, as `show`, `diff` and `publish` do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.oci import write_layout
from pipeline.store import Store
from tests.support.tiny_image import tiny
from tests.support.typed_command import run_typed

READERS = ["show", "inspect", "validate", "sbom", "audit"]


@pytest.mark.parametrize("command", ["show", "inspect", "validate"])
@pytest.mark.parametrize(("folder", "option"), [("output", ""), ("elsewhere", " --output elsewhere")])
def test_the_name_of_a_product_is_its_layout_in_the_output(
    command: str,
    folder: str,
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open(tmp_path / "store")
    write_layout(tiny(store), store=store, target=Path(folder, "hello"))
    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    assert run_typed(f"{command} hello{option}", monkeypatch) == 0, capfdbinary.readouterr().err


def test_the_sbom_of_a_name_is_looked_for_beside_its_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open(tmp_path / "store")
    write_layout(tiny(store), store=store, target=Path("output/hello"))
    assert run_typed("sbom hello", monkeypatch) != 0
    assert "output/hello.report" in capsys.readouterr().err  # This layout was made by no build.


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("name", ["nothing", "half"])
def test_what_is_no_layout_ends_with_one_status(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    (tmp_path / "half").mkdir()
    (tmp_path / "half/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    assert run_typed(f"{command} {name}", monkeypatch) == 2
    said = capsys.readouterr().err
    assert "error[not-a-layout]" in said and "→" in said
