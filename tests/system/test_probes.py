"""Every kind of check from outside, on an image with one static program and nothing else: no shell, no C library."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.beneath import GivenFolder
from pipeline.digest import DiffId, Digest
from pipeline.model.checks import CheckKind
from pipeline.model.image import Descriptor, Image, ImageConfig, Layer
from pipeline.model.limits import Limits
from pipeline.model.report import CheckResult
from pipeline.model.smoke import Check
from pipeline.oci import make_image
from pipeline.recipes.problems import Problems, validate_document
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.recipes.recipe_schema import RecipeDocument
from pipeline.recipes.smoke_plan import plan_smoke
from pipeline.sandbox import (
    Instance,
    find_runtime,
    launch,
    open_sandbox_registry,
)
from pipeline.smoke.probes import run_check
from pipeline.smoke.stream_probe import INCOMPLETE, TIMED_OUT
from pipeline.yaml_documents import load_yaml
from tests.support.static_root import make_silent_root
from tests.support.tiny_root import require_root

pytestmark = pytest.mark.brief

CONFIG = ImageConfig(
    "amd64",
    0,
    entrypoint=("/app", "1"),
    user="app",
    exposed_ports=("80/tcp", "53/udp"),
    volumes=("/data",),
    environment=("LANG=C.UTF-8",),
    labels=(("title", "silent"),),
)
IMAGE = make_image("silent", "1.0", CONFIG, ())


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    require_root()
    folder = tmp_path_factory.mktemp("silent")
    folder.chmod(0o700)
    root = make_silent_root(folder / "root")
    sandboxes = open_sandbox_registry(folder / "sandbox", find_runtime())
    with launch(CONFIG, [root], Limits(memory=64 << 20, pids=50), sandboxes=sandboxes, name="silent") as launched:
        yield launched


@pytest.fixture
def asked(instance: Instance, tmp_path: Path) -> Callable[..., CheckResult]:
    """Asks a check as a recipe spells it."""

    def run(text: str, within: str = "20s") -> CheckResult:
        check = spelled(tmp_path, text, within)
        return run_check(check, instance, IMAGE)

    return run


def spelled(folder: Path, text: str, within: str = "100ms") -> Check:
    path = folder / "recipe.yaml"
    path.write_text(
        f"values: {{port: 80, status: green}}\nsmoke:\n  checks:\n    - {{name: asked, within: {within}, {text}}}\n"
    )
    document = load_yaml(path)
    problems = Problems()
    recipe = validate_document(RecipeDocument, document, problems)
    problems.stop_if_any()
    assert recipe is not None
    plan = plan_smoke(RecipeFile(path, document, recipe, GivenFolder(folder)), recipe.values, problems)
    problems.stop_if_any()
    return plan.checks[0]


RIGHT = [
    'port: "{{ port }}"',
    'port: 80, send: "PING\\r\\n", expect: {stdout: ^PONG$}',
    "port: 80, send: PING, expect: {stdout: {is: PONG, lacks: ERROR}}",
    "port: 81, send: PING, expect: {stdout_is: PONG}",
    "socket: /run/app.sock",
    "socket: /run/app.sock, send: PING, expect: {stdout: PONG}",
    "http: {port: 80}",
    'http: {port: "{{ port }}"}, expect: {body: {json: "$.status", is: "{{ status }}"}}',
    "http: {port: 80}, expect: {body: [{json: '$.nodes[1].load', min: 1, max: 2}, {json: $.nodes.length(), is: 2}]}",
    "http: {port: 80}, expect: {headers: {content-type: ^application/json}, body: green}",
    "http: {port: 80, host: example.org}, expect: {headers: {X-Asked-Host: ^example.org$}}",
    "http: {port: 80, method: POST, body: x, headers: {Content-Type: text/plain}}",
    "http: {port: 80, path: /none}, expect: {status: 404, body: nothing}",
    "http: {port: 80, path: /none}, expect: {status: {min: 400, max: 499}}",
    "http: {socket: /run/app.sock}, expect: {body: green}",
    "log: ready for connections",
    "log: {matches: 'start 1,', lacks: panic}",
    "log: [start 1, ready]",
    "file: {path: /etc/app.conf, type: file, mode: '0640', owner: root, group: '0', size: {min: 10, max: 1KiB}}",
    "file: {path: /etc/app.conf, text: ['^port={{ port }}$', {lacks: secret}]}",
    f"file: {{path: /usr/share/licenses/app/COPYING, sha256: {hashlib.sha256(b'You may.' + bytes([10])).hexdigest()}}}",
    "file: {path: /data, type: directory, owner: app}",
    "file: {path: /data/starts, owner: app, mode: '0640', text: {min: 1}}",
    "file: {path: /data/link, type: symlink, target: starts}",
    "file: {path: /data/link, type: file}",
    "file: {path: /data/pipe, type: fifo}",
    "file: {path: /run/app.sock, type: socket}",
    "file: {path: /bin/sh, absent: true}",
    "file: {path: /etc/loop/x, absent: true}",
    "process: {name: app, user: app}",
    "process: {name: worker, count: 2}",
    "process: {command: '^/app 1$', count: {min: 1}}",
    "process: {name: sh, count: 0}",
    "listening: {local: [81]}",
    "listening: {ports: [80, 53/udp], local: [81]}",
    "account: {user: app, uid: 27, gid: 28, home: /data, shell: /sbin/nologin, groups: [readers]}",
    "account: {group: readers, gid: 40}",
    "account: {user: nobody, absent: true}",
    "image: {user: app, entrypoint: [/app, '1'], exposed_ports: [53/udp, 80], volumes: [/data], stop_signal: SIGTERM}",
    "image: {environment: {LANG: C.UTF-8}, labels: {title: {matches: ^sil}}}",
    "licenses: [app]",
]

WRONG = {
    "port: 82": "refused",
    "port: 80, send: PING, expect: {stdout: PANG}": "the answer does not match 'PANG': PONG",
    "port: 80, send: PING, expect: {stdout: {lacks: PO}}": "must not match",
    "socket: /run/none.sock": "No such file",
    "socket: /etc/passwd": "is not a socket",
    "http: {port: 82}": "refused",
    "http: {port: 80, path: /none}": "the status is not '200' but '404'",
    "http: {port: 80}, expect: {status: {max: 199}}": "the status is 200, more than 199",
    "http: {port: 80}, expect: {headers: {Server: x}}": "there is no header 'Server'",
    "http: {port: 80}, expect: {headers: {content-type: html}}": "does not match 'html' but 'application/json",
    "http: {port: 80}, expect: {body: {json: '$.nodes[5].name', is: b}}": "there is no item 5",
    "http: {port: 80}, expect: {body: {json: '$.nodes[-1].name', is: a}}": "is not 'a' but 'b'",
    "http: {port: 80, path: /slow}": "incomplete at the deadline",
    "http: {port: 80, path: /none}, expect: {status: 404, body: {json: $.a, is: b}}": "is not JSON",
    "http: {port: 80, tls: true}": "SSL",
    "log: never": "the log does not match 'never'",
    "log: {lacks: start 1}": "must not match 'start 1': version 1, start 1",
    "file: {path: /none}": "'/none' does not exist",
    "file: {path: /etc/app.conf, absent: true}": "exists, as a file",
    "file: {path: /data/link, absent: true}": "exists, as a symlink",
    "file: {path: /etc/outside, absent: true}": "exists, as a symlink",
    "file: {path: /etc/loop, absent: true}": "exists, as a symlink",
    "file: {path: /etc/app.conf, type: directory}": "it is a file, not a directory",
    "file: {path: /etc/app.conf, mode: '0600'}": "its mode is 0640, not 0600",
    "file: {path: /etc/app.conf, owner: app}": "its owner is 0 (root), not app",
    "file: {path: /etc/app.conf, group: nobody}": "its group is 0 (root), not nobody",
    "file: {path: /etc/app.conf, size: {max: 3}}": "its size is 21, more than 3",
    "file: {path: /etc/app.conf, text: nothing}": "its text does not match 'nothing'; content: port=80",
    "file: {path: /data/link, target: other}": "its target is not 'other' but 'starts'",
    "file: {path: /data/starts, target: other}": "it is not a symlink",
    "file: {path: /data/pipe, text: x}": "it is not a regular file",
    "process: {name: sh}": "the number of matching processes is 0, less than 1; running: app (user 27)",
    "process: {name: worker, user: root}": "less than 1",
    "process: {name: worker, count: 1}": "is not '1' but '2'",
    "listening: exposed": "81/tcp listens on the loopback, but is not listed",
    "listening: [80]": "53/udp listens, but is not listed",
    "listening: {ports: [80, 81, 90, 53/udp]}": "nothing listens on 90/tcp; 81/tcp listens on the loopback only",
    "account: {user: web}": "no user 'web' in /etc/passwd",
    "account: {user: app, uid: 5}": "user 'app' has uid 27, not 5",
    "account: {user: app, groups: [wheel]}": "is not in wheel",
    "account: {group: readers, gid: 5}": "has gid 40, not 5",
    "account: {user: app, absent: true}": "user 'app' exists, with ID 27",
    "packages: {present: [app]}": "it has no RPM database",
    "image: {user: root}": "user is app, not root",
    "image: {entrypoint: [/bin/sh]}": "entrypoint is /app 1, not /bin/sh",
    "image: {exposed_ports: [80]}": "exposed_ports is 53/udp 80/tcp, not 80/tcp",
    "image: {environment: {LANG: de}}": "is not 'de' but 'C.UTF-8'",
    "image: {labels: {none: x}}": "there is no label 'none'",
    "licenses: [other]": "no licence text found for other",
    "licenses: all": "list the packages",
}


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_so_passes(asked: Callable[..., CheckResult], text: str) -> None:
    result = asked(text)
    assert result.passed, result.detail


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_so_fails_and_says_what_is(asked: Callable[..., CheckResult], text: str) -> None:
    for seconds in (0.3, 3) if "/slow" in text else (0.1, 1, 10):
        begun = time.monotonic()
        result = asked(text, within=f"{round(seconds * 1000)}ms")
        assert not result.passed
        assert time.monotonic() - begun < seconds + 5
        # On a busy machine an answer may take longer than is given to it at first.
        if WRONG[text] in result.detail or not any(cut in result.detail for cut in (TIMED_OUT, INCOMPLETE)):
            break
    assert WRONG[text] in result.detail


def test_every_kind_that_needs_nothing_in_the_image_is_tried_both_ways() -> None:
    for kind in CheckKind:
        if kind not in (CheckKind.COMMAND, CheckKind.RESTART, CheckKind.STOP):
            assert any(text.startswith(f"{kind}:") for text in WRONG), kind
            assert any(text.startswith(f"{kind}:") for text in RIGHT) or kind is CheckKind.PACKAGES, kind


def test_a_command_in_an_image_without_programs_says_so(asked: Callable[..., CheckResult]) -> None:
    result = asked("command: [sh, -c, 'true']")
    assert not result.passed and "sh" in result.detail


def test_packages_are_seen_in_what_the_image_says_it_is_made_of(instance: Instance, tmp_path: Path) -> None:
    layer = Layer(
        "l", DiffId("0" * 64), Descriptor("x", Digest.of(b""), 1), 1, ("app-1.0-1.x86_64", "lib-x-2-1.noarch")
    )
    image: Image = replace(IMAGE, layers=(layer,))
    good = spelled(tmp_path, "packages: {present: [app, lib-*, app-1.0-1.x86_64], absent: [gcc, lib]}")
    assert run_check(good, instance, image).passed
    bad = run_check(spelled(tmp_path, "packages: {present: [web], absent: ['lib-*']}"), instance, image)
    assert bad.detail == "no package matches 'web'; must be absent, but installed: lib-x-2-1.noarch"


def test_links_of_the_image_lead_nowhere_else(asked: Callable[..., CheckResult]) -> None:
    assert Path("/etc/shadow").exists()
    result = asked("file: {path: /etc/outside, type: file}", within="100ms")
    assert not result.passed and "does not exist" in result.detail
