"""`init` finds out the platform, the CI system and how it was started; `help` finds documents."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest

from pipeline.cli.main import run_command_line


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command line in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["relbuild", *words])
    with pytest.raises(SystemExit) as ended:
        run_command_line()
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, on a machine without a development mirror."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELBUILD_MIRROR", str(tmp_path / "no-mirror"))
    return tmp_path


def init(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What `init` answers."""
    assert run(["init", *words, "--json"], monkeypatch) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ({"ID": "rocky", "VERSION_ID": "9.6"}, "rocky-9"),
        ({"ID": "fedora", "VERSION_ID": "43"}, "fedora-43"),
        ({"ID": "rhel", "VERSION_ID": "10.1"}, "ubi-10"),
        ({"ID": "opensuse-tumbleweed", "VERSION_ID": "20261101"}, "opensuse-tumbleweed"),
        ({"ID": "fedora", "VERSION_ID": "7"}, "centos-stream-9"),
        ({"ID": "debian", "VERSION_ID": "12"}, "centos-stream-9"),
        ({}, "centos-stream-9"),
    ],
)
def test_the_platform_is_this_machines_own_or_a_free_one(
    release: dict[str, str],
    name: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    assert init([], monkeypatch, capsys)["platform"] == name
    assert f"\nplatform: {name}\n" in (folder / "recipes/hello.yaml").read_text()


def test_a_development_mirror_is_preferred(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = folder / "mirror" / platform.machine() / "base/repodata/repomd.xml"
    index.parent.mkdir(parents=True)
    index.touch()
    monkeypatch.setenv("RELBUILD_MIRROR", str(folder / "mirror"))
    answer = init(["new"], monkeypatch, capsys)
    assert (answer["platform"], str(answer["next"]).partition(" && ")[0]) == ("local", "cd new")
    assert "/recipes/*.lock" in (folder / "new/.gitignore").read_text()


def test_the_next_command_is_the_script_that_relbuild_was_started_by(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELBUILD_PROGRAM", "/some checkout/ci/relbuild")
    assert init(["new"], monkeypatch, capsys)["next"] == "cd new && '/some checkout/ci/relbuild' hello"


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("git@github.com:a/b.git", ".github/workflows/nightly.yml"),
        ("https://gitlab.example.com/a/b.git", ".gitlab-ci.yml"),
        ("https://example.com/a/b.git", None),
    ],
)
def test_the_ci_file_is_for_the_host_of_the_remote(
    url: str, file: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text(f'[remote "origin"]\n\turl = {url}\n')
    wrote = init([], monkeypatch, capsys)["wrote"]
    assert isinstance(wrote, list) and [name for name in wrote if name.endswith(".yml")] == ([file] if file else [])


def test_a_second_time_adds_a_product_on_the_platform_that_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    init(["--platform", "rocky-10"], monkeypatch, capsys)
    answer = init(["--product", "nginx"], monkeypatch, capsys)
    assert answer["platform"] == "rocky-10" and str(answer["next"]).endswith(" nginx")
    assert answer["kept"] == [".gitignore", "nightly.sh"]
    assert "\nplatform: rocky-10\n" in (folder / "recipes/nginx.yaml").read_text()
    assert (folder / "templates/nginx.conf.j2").is_file()
    assert run(["init", "--platform", "rocky-9"], monkeypatch) == 3
    assert "no platform 'rocky-9' in repositories.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recipe"], "# The recipe\n"),
        (["Recipe.md"], "# The recipe\n"),
        ([], "recipe         The recipe\n"),
        (["build"], "relbuild build [OPTIONS]"),
    ],
)
def test_help_prints_documents_their_list_and_the_help_of_commands(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["help", *words], monkeypatch) == 0
    assert said in capsys.readouterr().out


def test_help_of_a_command_is_json_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["help", "build", "--json"], monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["topic"] == "build" and "relbuild build [OPTIONS]" in answer["text"]


def test_an_unknown_topic_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["help", "sandbx"], monkeypatch) == 2
    assert "did you mean `relbuild help sandbox`?" in capsys.readouterr().err
