"""Removal of what launchers by a container engine have recorded."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.sandbox.removals import RemovalCommand, run_removals, write_removals
from pipeline.sandbox.runtime import Runtime
from pipeline.sandbox.sandbox_registry import open_sandbox_registry
from tests.support.patience import HUNG


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1, resource.RLIM_INFINITY))
    monkeypatch.setattr("os.fchown", lambda *_: None)  # Without root, pipes stay their maker's.


def test_what_was_recorded_is_removed_and_a_client_that_still_starts_it_is_ended(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.touch()
    write_removals(tmp_path, RemovalCommand(["rm", str(made)], ["test", "-e", str(made)]))
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", program, f"seccomp={tmp_path}/seccomp.json"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdout.readline() == b"up\n"
        run_removals(tmp_path)
        assert client.wait(HUNG) == -9 and not made.exists()
    run_removals(tmp_path)


def test_a_client_that_still_loads_is_ended(tmp_path: Path) -> None:
    folder = tmp_path / "mark-image-ab"
    (folder / folder.name).mkdir(parents=True)
    write_removals(folder, RemovalCommand(["true"], ["false"]))
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", program, "load", "--input", folder.name]
    with subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdout.readline() == b"up\n"
        run_removals(folder)
        assert client.wait(HUNG) == -9


def test_commands_that_another_user_wrote_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    made.touch()
    write_removals(tmp_path, RemovalCommand(["rm", str(made)], ["true"]))
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    with pytest.raises(EnvironmentLacking) as refused:
        run_removals(tmp_path)
    assert refused.value.code == "removal-failed" and made.exists()


def test_only_their_owner_reads_the_commands(tmp_path: Path) -> None:
    write_removals(tmp_path, RemovalCommand(["false"], ["false"]))
    assert (tmp_path / "removals.json").stat().st_mode & 0o777 == 0o600


DAMAGED = [b"", b"[[", b"\xff", b"null", b"[1]", b'[["rm"]]', b'[["rm", "x"]]', b"[[[], []]]", b"[" * 9999]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_record_names_its_place_and_what_to_remove(damaged: bytes, tmp_path: Path) -> None:
    write_removals(tmp_path, RemovalCommand(["false"], ["false"]))
    path = tmp_path / "removals.json"
    path.write_bytes(damaged)
    with pytest.raises(EnvironmentLacking) as refused:
        run_removals(tmp_path)
    (problem,) = refused.value.problems
    assert (problem.code, problem.place) == ("removals-damaged", str(path)) and "podman ps --all" in problem.hint


def test_what_is_still_there_is_an_error_so_that_it_is_tried_again(tmp_path: Path) -> None:
    write_removals(tmp_path, RemovalCommand(["false"], ["true"]))
    with pytest.raises(EnvironmentLacking) as refused:
        run_removals(tmp_path)
    assert refused.value.problems[0].code == "removal-failed"


@pytest.mark.parametrize(
    ("program", "shown"),
    [(["sh"], "`sh … mark-1` failed"), (["env", "KUBECONFIG=abc", "sh"], "`sh … mark-1` failed")],
    ids=["podman", "kubectl"],
)
def test_a_command_that_failed_is_shown_without_its_options(program: list[str], shown: str, tmp_path: Path) -> None:
    remove = [*program, "-c", "exit 1", "--token", "abc", "mark-1"]
    write_removals(tmp_path, RemovalCommand(remove, ["true"]))
    with pytest.raises(EnvironmentLacking) as refused:
        run_removals(tmp_path)
    (problem,) = refused.value.problems
    assert shown in problem.message and "removals.json" in problem.hint and "abc" not in str(refused.value)


@pytest.mark.parametrize(
    ("record", "said"), [(b"[[", "damaged"), (b'[[["false"], ["true"]]]', "`false` failed")], ids=["damaged", "failing"]
)
def test_what_a_killed_relbuild_left_and_cannot_be_removed_is_told_with_its_place(
    record: bytes, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "live/mark-one-ab"
    folder.mkdir(parents=True)
    (folder / "removals.json").write_bytes(record)
    (tmp_path / "live/mark-one-ab.lock").touch()
    told: list[str] = []
    open_sandbox_registry(tmp_path, Runtime(Path("podman"), "podman", "4"), told.append)
    (text,) = told
    assert text.startswith(str(folder)) and said in text and "by hand" in text and folder.exists()


def test_a_sandbox_without_a_foreign_runtime_has_nothing_to_remove(tmp_path: Path) -> None:
    run_removals(tmp_path)
    assert list(tmp_path.iterdir()) == []
