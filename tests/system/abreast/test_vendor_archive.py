"""A vendor's archive in an image: from beside the recipe and by URL, started from its own layer, told in provenance."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.launch import unpack_layers
from pipeline.oci import validate_layout
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from tests.support.trees import merged

RECIPE = """\
name: vendored
version: '1.2'
platform: local
architectures: [x86_64]
layers: [{{name: base, packages: [bash, coreutils, glibc]}}]
accounts: {{users: [{{name: app, uid: 77}}]}}
files:
  - {{content: 'greeting = hello', path: /opt/app/etc/app.conf, mode: '0640', group: app}}
  - {{archive: {archive}, sha256: {sha256}, path: /opt/app, strip: 1, owner: app}}
image: {{entrypoint: [/opt/app/current/bin/app], user: app}}
smoke:
  checks:
    - {{name: says hello, command: [/opt/app/current/bin/app, once], expect: {{stdout: hello}}}}
"""
PROGRAM = """\
#!/bin/bash
cat /opt/app/etc/app.conf
[ "$1" = once ] || { trap 'exit 0' TERM; while :; do sleep 600 & wait $!; done; }
"""


@pytest.fixture
def archive(recipes: Path) -> Path:
    """What a vendor ships."""
    tree = recipes / "app-1.2"
    for folder in ("bin", "etc"):
        (tree / "releases/1.2" / folder).mkdir(parents=True, exist_ok=True)
    (tree / "releases/1.2/bin/app").write_text(PROGRAM)
    (tree / "releases/1.2/bin/app").chmod(0o4775)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/app.conf").write_text("greeting = none")
    (tree / "current").unlink(missing_ok=True)
    (tree / "current").symlink_to("releases/1.2")
    made = recipes / "app-1.2.tar.xz"
    subprocess.run(["tar", "-cJf", made, "--owner=1000", "-C", recipes, tree.name], check=True)
    return made


def order(recipes: Path, output: Path, archive: str, sha256: str) -> BuildOptions:
    """An order for the recipe with this archive."""
    path = recipes / "vendored.yaml"
    path.write_text(RECIPE.format(archive=archive, sha256=sha256))
    return BuildOptions(path, recipes / "repositories.yaml", output=output)


def materials(built: BuildResult) -> dict[str, tuple[str, str]]:
    return {one.name: (one.uri, str(one.sha256)) for one in built.record.provenance.materials if one.kind == "file"}


def test_a_vendors_archive_is_built_in_and_started(
    recipes: Path, build_env: BuildEnvironment, tmp_path: Path, archive: Path
) -> None:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    made = build(order(recipes, tmp_path / "one", archive.name, sha256), build_env)
    assert made.report is not None and made.report.passed
    assert validate_layout(made.layout) == ()
    tree = merged(unpack_layers(made.image, build_env.store, QUIET))
    program, conf, link = (tree[f"opt/app/{name}"] for name in ("releases/1.2/bin/app", "etc/app.conf", "current"))
    when = made.locked.section.build_time
    assert (program.mode, program.uid, program.gid, program.mtime) == (0o755, 77, 77, when)
    assert (conf.mode, conf.uid, conf.gid, conf.size) == (0o640, 0, 77, len("greeting = hello"))
    assert (link.kind, link.link, tree["opt/app"].uid, tree["opt"].uid) == ("l", "releases/1.2", 77, 0)
    assert materials(made)[archive.name] == ("", f"sha256:{sha256}")

    # The same bytes by URL are the same image; what is in the store is not asked for.
    remote = build(order(recipes, tmp_path / "two", "http://127.0.0.1:9/app.tar.xz", sha256), build_env)
    assert remote.image.digest == made.image.digest and "state" in remote.reused
    assert materials(remote)["/opt/app"] == ("http://127.0.0.1:9/app.tar.xz", f"sha256:{sha256}")


def test_an_archive_is_fetched_by_its_url_and_is_what_the_recipe_says(
    recipes: Path, build_env: BuildEnvironment, tmp_path: Path, archive: Path
) -> None:
    (recipes / "app-1.2/etc/more").write_text(str(tmp_path))  # Another archive, which no store has.
    subprocess.run(["tar", "-cJf", archive, "-C", recipes, "app-1.2"], check=True)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(recipes))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        wanted = replace(order(recipes, tmp_path / "out", url, sha256), smoke=False)
        with pytest.raises(EnvironmentLacking):
            build(wanted, replace(build_env, offline=True))
        made = build(wanted, build_env)
        server.shutdown()
    assert "opt/app/etc/more" in merged(unpack_layers(made.image, build_env.store, QUIET))
    with pytest.raises(VerificationError) as caught:
        build(replace(order(recipes, tmp_path / "out", archive.name, "f" * 64), smoke=False), build_env)
    assert archive.name in str(caught.value)
