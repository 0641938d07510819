"""`run --set` renders a recipe as it is on the platform that the image was built for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli import changed_configuration as module
from pipeline.instances import ChangedConfiguration
from pipeline.launch import HostMount, RunOptions
from tests.support.builds import build_env, image

PLATFORMS = """\
platforms:
  local: {repositories: [{id: base, baseurls: ["file:///local"], keys: [/key]}]}
  el-9: {families: [el], repositories: [{id: base, baseurls: ["file:///el"], keys: [/key]}]}
"""
RECIPE = """\
name: demo
version: "1"
platform: local
layers: [{name: all, packages: [bash]}]
values: {port: 80, folder: /srv}
image: {entrypoint: [/bin/demo]}
platforms:
  local: {}
  el: {values: {folder: /var/srv}}
"""


@pytest.mark.parametrize(("built", "folder"), [("el-9", "/var/srv"), ("local", "/srv"), (None, "/srv")])
def test_values_are_those_of_the_images_platform(
    built: str | None, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repositories.yaml").write_text(PLATFORMS)
    (tmp_path / "demo.yaml").write_text(RECIPE)
    seen: list[Any] = []
    changed = ChangedConfiguration({"/etc/demo": b"port 81"}, {})
    monkeypatch.setattr(module, "built_platform", lambda report, digest: built)
    monkeypatch.setattr(module, "package_variables", lambda reports, digest: {})
    monkeypatch.setattr(module, "render_changes", lambda *given: seen.append(given) or changed)
    path = str(tmp_path / "demo.yaml")
    found = module.changed_configuration(path, image("demo"), ["port=81"], tmp_path / "output", build_env(tmp_path))
    assert found == ChangedConfiguration(changed.files, {}, ("port=81",))
    before, after = seen[0][:2]
    assert dict(before.values) == {"port": 80, "folder": folder}
    assert dict(after.values) == {"port": 81, "folder": folder}


def test_a_value_that_stays_is_not_among_the_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repositories.yaml").write_text(PLATFORMS)
    (tmp_path / "demo.yaml").write_text(RECIPE)
    monkeypatch.setattr(module, "built_platform", lambda report, digest: None)
    monkeypatch.setattr(module, "package_variables", lambda reports, digest: {})
    monkeypatch.setattr(module, "render_changes", lambda *given: ChangedConfiguration({}, {"PORT": "81"}))
    words = ["port=81", "folder=/srv"]
    output = tmp_path / "output"
    found = module.changed_configuration(str(tmp_path / "demo.yaml"), image("demo"), words, output, build_env(tmp_path))
    assert found.settings == ("port=81",)


@pytest.mark.parametrize("told", [("port=81",), ()], ids=["another value", "the same value"])
def test_all_that_differs_from_what_was_tested_is_told(
    told: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "keep_files", lambda *given: ((), ("/etc/other",)))
    seen: list[tuple[str, ...]] = []
    hosted: Any = SimpleNamespace(folder=SimpleNamespace(name="demo-1"), changed=seen.append)
    mounts = (HostMount("data", "/data", named=True), HostMount("/here/x.conf", "/etc/x.conf", read_only=True))
    module.with_changes(
        RunOptions(mounts=mounts, environment={"PASSWORD": "secret"}),
        hosted,
        image("demo"),
        ChangedConfiguration({}, {}, told),
        edited=["/etc/other"],
        build_env=build_env(tmp_path),
    )
    assert seen == [(*told, "edited /etc/other", "--config /etc/x.conf", "--env PASSWORD")]
