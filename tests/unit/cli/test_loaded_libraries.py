"""Libraries that commands load before they do their first work: a command loads what it uses."""

from __future__ import annotations

import json
import subprocess
import sys

from pipeline.cli import commands

_LIGHT = (
    *(
        "build",
        "completion",
        "doctor",
        "exec",
        "help",
        "logs",
        "nightly",
        "ps",
        "publish",
        "rm",
        "stop",
        "store",
        "store_du",
        "store_fsck",
    ),
    *("store_gc", "version", "worker"),
)
"""They load none of these libraries."""

_OF_MIRRORS = (
    *("copy", "diff", "history", "inspect", "keygen", "promote", "prune", "rollback", "sbom", "scrub"),
    *("pull", "serve", "validate", "verify"),
)
"""They load what signs and verifies. `diff` reads packages' databases too."""

_OF_RECIPES = ("audit", "explain", "init", "lock", "new", "run", "schema", "show", "smoke")

_WATCHED = {
    *("cryptography", "dask", "httpx", "jinja2", "pydantic", "pyroute2", "rich", "rpm", "solv", "sqlite3", "yaml"),
}

_LOAD = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


_RUN = """
import json, sys
from pipeline.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def _loaded_to_run(words: str) -> set[str]:
    """Return the watched libraries that a command has loaded when it has ended."""
    done = subprocess.run([sys.executable, "-c", _RUN, *words.split()], capture_output=True, text=True, check=True)
    return _WATCHED & set(json.loads(done.stdout.splitlines()[-1]))


def _modules_of(names: tuple[str, ...], *more: str) -> set[str]:
    """Return what is loaded with the modules of commands, and with more modules."""
    every = [*(f"pipeline.cli.commands.{name}" for name in names), *more]
    words = [sys.executable, "-c", _LOAD, json.dumps(every)]
    return set(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))


def _loaded(names: tuple[str, ...]) -> set[str]:
    return _WATCHED & _modules_of(names)


def test_every_command_is_in_one_group() -> None:
    assert sorted((*_LIGHT, *_OF_MIRRORS, *_OF_RECIPES)) == sorted(commands.modules())


def test_light_commands_load_no_library_of_others() -> None:
    assert _loaded(_LIGHT) == set()


def test_commands_of_mirrors_load_nothing_that_reads_recipes() -> None:
    assert _loaded(tuple(name for name in _OF_MIRRORS if name != "diff")) == {"cryptography"}
    assert _loaded(("diff",)) == {"cryptography", "rpm", "sqlite3"}


def test_commands_of_recipes_leave_the_network_and_clusters_for_later() -> None:
    assert _loaded(_OF_RECIPES) & {"dask", "httpx", "pyroute2"} == set()


def test_a_build_of_which_nothing_changed_needs_nothing_that_builds() -> None:
    """What it loads beside: `tests/system/abreast/test_recognised.py`, where there is something to recognise."""
    rooms = {"build", "cli", "model", "recipes", "store"}
    modules = _modules_of(("build",), "pipeline.store.content_store")
    assert not modules & {"concurrent.futures", "logging"}
    loaded = {name.split(".")[1] for name in modules if name.startswith("pipeline.") and "." in name}
    assert loaded & {"layers", "mirror", "oci", "packages", "prepare", "repos", "resolve", "sandbox", "smoke"} == set()
    assert rooms <= loaded


def test_a_publication_of_which_nothing_changed_needs_nothing_that_publishes() -> None:
    """What it knows its address by, too."""
    modules = _modules_of(("publish",), "pipeline.transfer.repeated_questions", "pipeline.mirror.address_parser")
    rooms = {name.split(".")[1] for name in modules if name.startswith("pipeline.") and "." in name}
    assert rooms & {"layers", "oci", "packages", "prepare", "release", "reports", "repos", "resolve", "smoke"} == set()
    assert not modules & {"httpx", "cryptography", "pipeline.mirror.push", "pipeline.mirror.gate"}
    assert not modules & {"decimal", "pipeline.model.checks", "pipeline.model.publication", "pipeline.model.report"}


def test_a_build_leaves_launching_for_later() -> None:
    """`pipeline.smoke.run` and `pipeline.sandbox.instance` bring HTTP, TLS and e-mail with them."""
    modules = _modules_of(("build",), "pipeline.cli.build_run")
    assert not modules & {"http", "ssl", "pipeline.smoke.run", "pipeline.sandbox.instance", "pipeline.smoke.lifecycle"}


def test_a_build_leaves_reading_recipes_for_those_that_have_changed() -> None:
    """What it loads when one has not: `tests/unit/recipes/test_document_loading.py`."""
    modules = _modules_of(("build",), "pipeline.cli.build_run")
    assert not modules & {
        "pydantic",
        "pydantic_core",
        "yaml",
        "cryptography",
        "httpx",
        "spdx_tools",
        "license_expression",
    }
    rooms = {"recipes.merge", "recipes.platforms", "recipes.problems", "recipes.schema", "yaml_documents"}
    assert not modules & {f"pipeline.{name}" for name in rooms}


def test_a_build_in_containers_leaves_the_tracer_for_others() -> None:
    modules = _modules_of(("build",), "pipeline.cli.build_run")
    traced = {name for name in modules if name.startswith("pipeline.sandbox.traced.")}
    assert traced <= {"pipeline.sandbox.traced.availability"}


def test_who_has_a_build_environment_opens_no_repository() -> None:
    modules = _modules_of(("verify", "promote"), "pipeline.cli.publish_run")
    assert not modules & {"pipeline.repos.repository", "pipeline.resolve.lockfile", "pipeline.layers", "tomllib", "ssl"}


def test_who_publishes_to_a_registry_loads_nothing_that_prunes_scrubs_or_promotes() -> None:
    modules = _modules_of((), "pipeline.cli.publish_run", "pipeline.mirror.backends.registry.registry_mirror")
    mirror = {"inventory", "remote_scrub", "retention", "tag_history"}
    assert not modules & {f"pipeline.mirror.{name}" for name in mirror}
    assert not modules & {"pipeline.release.move", "pipeline.release.verify_reference", "pipeline.smoke.junit"}
    assert not modules & {"pipeline.model.recipe", "pipeline.model.platform"}


def test_the_http_library_brings_no_command_line_with_it() -> None:
    modules = _modules_of((), "pipeline.transfer", "pipeline.transfer.deadlines")
    assert "httpx" in modules and not modules & {"rich", "click", "pygments"}


def test_a_night_without_jobs_loads_nothing_that_builds() -> None:
    """It compares format numbers of what builds; which is loaded when the first job begins."""
    modules = _modules_of(("nightly",), "pipeline.cli.nightly_run", "pipeline.nightly.inputs")
    assert {name for name in modules if name.startswith("pipeline.layers.")} <= {
        f"pipeline.layers.{name}"
        for name in ("account_numbers", "built_layer", "layer_formats", "passwd_files", "script_accounts")
    }
    building = {"build.build_image", "nightly.product_job", "provenance_inputs", "release.publish"}
    assert not modules & {f"pipeline.{name}" for name in building}
    assert "pipeline.mirror.backends.directory.directory_mirror" not in modules


def test_help_loads_no_library() -> None:
    assert _loaded_to_run("--help") == set()


def test_help_of_a_command_loads_what_the_command_loads() -> None:
    for words in ("doctor --help", "store du --help"):
        assert _loaded_to_run(words) == set()


def test_version_loads_rpm_alone_whose_version_it_prints() -> None:
    assert _loaded_to_run("version") <= {"rpm"}
