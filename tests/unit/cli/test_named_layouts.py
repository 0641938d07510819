"""Commands that read an image take the name of what was built, as `show`, `diff` and `publish` do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.model.bill import Bill, BilledLayer
from pipeline.oci import write_layout
from pipeline.oci.bill_json import bill_bytes
from pipeline.reports import BILL_FILE
from pipeline.store import Store
from tests.support.bills import package
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


def inspected(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run_typed("inspect hello --json", monkeypatch) == 0
    return list(json.loads(capsys.readouterr().out)["layers"])


def test_packages_are_told_where_they_are_known_and_left_out_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open(tmp_path / "store")
    image = tiny(store)
    write_layout(image, store=store, target=Path("output/hello"))
    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    assert not [layer for layer in inspected(capsys, monkeypatch) if "packages" in layer]
    (name, *_) = (layer.name for layer in image.layers)
    layers = tuple(BilledLayer(one.name, one.diff_id, one.blob.digest, one.blob.size) for one in image.layers)
    bill = Bill("hello", "1", image.digest, image.digest, 0, "amd64", layers, (package("bash-5-1.x86_64", layer=name),))
    for digest, told in ((image.digest, ["bash-5-1.x86_64"]), (Digest.of(b"another"), None)):
        Path("output/hello.report").mkdir(exist_ok=True)
        Path("output/hello.report", BILL_FILE).write_bytes(bill_bytes(replace(bill, digest=digest)))
        assert inspected(capsys, monkeypatch)[0].get("packages") == told
