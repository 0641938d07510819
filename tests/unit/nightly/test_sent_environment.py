"""What of the environment goes to the workers of a cluster, and over which connections."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import RecipeError, UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.model.absolute_path import absolute
from pipeline.nightly.executors.dask import dask_executor, scheduler_connection
from pipeline.nightly.executors.dask.dask_task import DaskTask
from pipeline.nightly.executors.executor_protocol import Requirements
from pipeline.nightly.executors.task_inputs import pack_files, unpack_files
from pipeline.nightly.executors.task_payload import TaskPayload
from pipeline.nightly.job import RunSettings
from pipeline.nightly.sent_environment import READ_VARIABLES, sent_environment
from pipeline.progress import QUIET
from pipeline.recipes import load_platforms
from pipeline.repos.variables import environment_names
from tests.support.source import nodes, trees

PIPELINE = Path(__file__).parents[3] / "pipeline"

SECRETS = {"AWS_SECRET_ACCESS_KEY": "aws", "GITHUB_TOKEN": "ghp", "CI_JOB_TOKEN": "ci", "VAULT_TOKEN": "hvs"}


def test_secrets_that_relbuild_does_not_read_stay_where_the_night_was_started() -> None:
    given = {**SECRETS, "PATH": "/bin", "LD_PRELOAD": "/x.so", "PYTHONPATH": "/y", "https_proxy": "http://proxy:1"}
    assert sent_environment(given, {"RELBUILD_MIRROR"}) == {"https_proxy": "http://proxy:1"}


def test_what_repositories_name_is_sent_and_what_else_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "repositories.yaml"
    file.write_text(
        "# not $GITHUB_TOKEN, which a comment names\n"
        "platforms:\n  small:\n    architectures: [x86_64]\n"
        '    variables: {place: "${RELBUILD_VAR_MIRROR:-/nowhere}"}\n'
        '    repositories:\n      - {id: small, baseurls: ["file://$place/small"], keys: ["$place/key"]}\n'
    )
    named = environment_names(load_platforms(file)["small"])
    assert named == {"RELBUILD_VAR_MIRROR"}
    given = {**SECRETS, "RELBUILD_VAR_MIRROR": "/m", "MORE": "more"}
    assert sent_environment(given, {*named, "MORE"}) == {"RELBUILD_VAR_MIRROR": "/m", "MORE": "more"}


def test_a_secret_of_a_repository_is_never_sent_even_if_it_is_asked_for() -> None:
    given = {"RELBUILD_SECRET_VENDOR": "canary", "RELBUILD_SECRETS": "/run/secrets"}
    assert sent_environment(given, ()) == {"RELBUILD_SECRETS": "/run/secrets"}
    with pytest.raises(UsageError) as refused:
        sent_environment(given, {"RELBUILD_SECRET_VENDOR"})
    assert refused.value.code == "secret-not-sent" and "canary" not in str(refused.value)


def test_paths_in_variables_mean_the_same_on_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sent = sent_environment({"REGISTRY_AUTH_FILE": "auth.json", "SSL_CERT_FILE": "/ca.pem", "DOCKER_CONFIG": ""}, ())
    assert sent == {"REGISTRY_AUTH_FILE": f"{tmp_path}/auth.json", "SSL_CERT_FILE": "/ca.pem", "DOCKER_CONFIG": ""}


def _read_by_name() -> Iterator[tuple[str, str]]:
    """Every variable that the library looks up by a literal name, with the file that does."""
    for path, tree in trees().items():
        if path.is_relative_to(PIPELINE / "cli"):
            continue  # Reads what it was started with; what workers need of it goes with the task.
        if path == PIPELINE / "store" / "store_folders.py":
            continue  # The user's own cache: each worker has its own.
        if path == PIPELINE / "process.py":
            continue  # Looks into what it gives to a program.
        for node in nodes(tree):
            owner, keys = "", []
            if isinstance(node, ast.Subscript):
                owner, keys = ast.unparse(node.value), [node.slice]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                owner, keys = ast.unparse(node.func.value), node.args[:1]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "value":
                owner, keys = "variables", node.args
            if re.search(r"(environment|variables)$", owner):
                for key in keys:
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield key.value, str(path.relative_to(PIPELINE))


def test_every_variable_that_the_library_reads_is_sent() -> None:
    found = dict(_read_by_name())
    assert {"HOME", "REGISTRY_AUTH_FILE", "https_proxy", "SSL_CERT_FILE"} <= found.keys()
    assert {name: where for name, where in found.items() if name not in READ_VARIABLES} == {}
    assert READ_VARIABLES.keys() - found.keys() == {
        "RELBUILD_KEY_PASSWORD",
        "COSIGN_PASSWORD",
    }  # By a tuple of their names.


REPO = "[{}]\nbaseurl=https://vendor.test/\ngpgkey=/k\n{}"


@pytest.mark.parametrize(
    "secret",
    [
        "password = canary",
        "proxy_password=canary",
        "PASSWORD=canary",
        "proxy=http://me:canary@proxy.test:1",
        "proxy=me:canary@proxy.test:1",
        "proxy=\n  me:canary@proxy.test:1",
        "proxy=http://me:can/ary@proxy.test:1",
        "#password=canary",
        "password=\n canary",
        "password\x0b=canary",
        "name=a\n password = canary",
    ],
)
@pytest.mark.parametrize("name", ["vendor.repo", "vendor.txt"])
def test_a_task_has_the_repo_files_beside_the_recipes_but_for_those_with_secrets(
    tmp_path: Path, secret: str, name: str
) -> None:
    here, there = tmp_path / "recipes", tmp_path / "worker"
    here.mkdir()
    (here / "plain.repo").write_text(REPO.format("plain", ""))
    (here / name).write_text(REPO.format("vendor", "") + REPO.format("other", f"enabled=0\n{secret}\n"))
    (here / "repositories.yaml").write_text(
        "platforms:\n  plain: {repositories: [{file: plain.repo}]}\n"
        f"  vendor: {{repositories: [{{file: {name}}}]}}\n"
    )
    platforms = load_platforms(here / "repositories.yaml")
    assert platforms["plain"].files == (here / "plain.repo",)
    named = [path for platform in platforms.values() for path in platform.files]
    assert named == [here / "plain.repo"]
    packed = pack_files([here / "repositories.yaml", *named, here])  # the folder too: templates stand there
    unpack_files(packed, there)
    copy = there / str(here).lstrip("/")
    assert sorted(path.name for path in copy.iterdir()) == ["plain.repo", "repositories.yaml"]
    worker = load_platforms(copy / "repositories.yaml")
    assert worker.find("plain").repositories == platforms["plain"].repositories
    with pytest.raises(RecipeError, match="cannot be read"):
        worker.find("vendor")


def test_a_log_of_a_workers_arguments_holds_no_secret(tmp_path: Path) -> None:
    place = absolute(tmp_path)
    environment = {"RELBUILD_KEY_PASSWORD": "a secret word"}
    settings = RunSettings(place, parse_address("dir:/m"), None, place, place, environment, float)
    payload = TaskPayload.of(print, settings, ())
    task = DaskTask("night", "name", payload, Requirements("x86_64"))
    assert "a secret word" not in f"{settings!r} {task!r}"
    assert pickle.loads(payload.work)[1].environment == environment


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:8786", "scheduler.example:8786", "ws://192.0.2.1:80"])
def test_nothing_is_sent_in_plain_text_beyond_this_machine(address: str) -> None:
    with pytest.raises(UsageError) as refused:
        dask_executor.DaskExecutor.join(address, QUIET, scheduler_timeout=0.1)
    assert refused.value.code == "scheduler-plain" and "--plain-scheduler" in str(refused.value)


@pytest.mark.parametrize(
    "address", ["tls://192.0.2.1:8786", "tcp://127.0.0.1:8786", "tcp://[::1]:1", "tcp://localhost:1"]
)
def test_this_machine_and_encrypted_connections_are_private(address: str) -> None:
    assert not scheduler_connection.refuse_plain([address], QUIET, plain=False)


def test_a_scheduler_of_this_machine_with_workers_elsewhere_is_refused() -> None:
    with pytest.raises(UsageError):
        scheduler_connection.refuse_plain(["tcp://127.0.0.1:4001", "tcp://192.0.2.7:4001"], QUIET, plain=False)
