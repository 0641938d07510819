"""The index of a build for several architectures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.build import build_architectures, build_index
from pipeline.oci import make_image, read_layout_index
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.tiny_image import CONFIG, layer


def test_the_report_of_one_image_goes_when_an_index_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    base = [layer(store, "base", {"etc": None})]
    options = BuildOptions(
        tmp_path / "tiny.yaml", tmp_path / "repositories.yaml", output=tmp_path / "output", smoke=False
    )
    each = [replace(options, architectures=(arch,), member=True) for arch in ("x86_64", "aarch64")]
    images = {
        "x86_64": make_image("tiny", "1.0", replace(CONFIG, architecture="amd64"), base),
        "aarch64": make_image("tiny", "1.0", replace(CONFIG, architecture="arm64"), base),
    }
    monkeypatch.setattr(build_index, "_for_each", lambda _: each)
    monkeypatch.setattr(
        build_index, "build", lambda one, _: SimpleNamespace(image=images[one.architectures[0]], layout=one.output)
    )
    for name in ("tiny.report", "tiny.x86_64.report"):
        (tmp_path / "output" / name).mkdir(parents=True)
        (tmp_path / "output" / name / "evidence.json").write_bytes(b"{}")
    for _ in range(2):
        made = build_architectures(options, BuildEnvironment(store, QUIET, {}, lambda: 0.0))
        assert len(read_layout_index(made.layout)) == 2
        assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["tiny", "tiny.x86_64.report"]
