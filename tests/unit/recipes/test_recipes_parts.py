"""Accounts, files and checks: what fits together and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.model.checks import CHECK_KINDS, CheckKind
from pipeline.model.smoke import Expectation
from pipeline.recipes import load_recipe
from pipeline.yaml_documents import load_yaml
from tests.support.recipe_folder import GOOD, good, only_problem, refused, write
from tests.support.schemas import validate_recipe

SHA = "a" * 64
KINDS = ", ".join(kind.name for kind in CHECK_KINDS)
READY_KINDS = ", ".join(kind.name for kind in CHECK_KINDS if kind.ready_meaning)


@pytest.mark.parametrize(
    ("users", "groups", "code", "place", "hint"),
    [
        ("{name: a, uid: 5}, {name: a, uid: 6}", "", "account-duplicate", "users[1].name", "remove"),
        ("{name: a, uid: 5}, {name: b, uid: 5, gid: 6}", "", "account-duplicate", "users[1].uid", "another ID"),
        ("{name: a, uid: 5}", "{name: b, gid: 5}", "account-duplicate", "users[0].uid", "another ID"),
        ("", "{name: a, gid: 5}, {name: a, gid: 6}", "account-duplicate", "groups[1].name", "remove"),
        ("", "{name: a, gid: 5}, {name: b, gid: 5}", "account-duplicate", "groups[1].gid", "'gid'"),
        ("{name: root, uid: 5, gid: 6}", "", "account-reserved", "users[0].name", "remove"),
        ("{name: a, uid: 0}", "", "value-out-of-range", "users[0].uid", ""),
        ("{name: a, uid: 65534}", "", "value-out-of-range", "users[0].uid", ""),
        ("{name: A, uid: 5}", "", "account-malformed", "users[0].name", "lower-case"),
        ("{name: a, uid: '5'}", "", "type-wrong", "users[0].uid", ""),
        ("{name: a}", "", "key-missing", "users[0]", "uid"),
        ("{name: a, uid: 5, home: home/a}", "", "path-malformed", "users[0].home", "/home/a"),
        ("{name: a, uid: 5, home: '/a:b'}", "", "account-malformed", "users[0].home", "without ':'"),
        ("{name: a, uid: 5, shell: '/a:b'}", "", "account-malformed", "users[0].shell", "without ':'"),
        ("{name: a, uid: 5, comment: 'web: x'}", "", "account-malformed", "users[0].comment", "without ':'"),
        ('{name: a, uid: 5, comment: "web\\n"}', "", "account-malformed", "users[0].comment", "one line"),
        ("{name: a, uid: 5, home: '/srv/{{ name }}'}", "", "path-malformed", "users[0].home", "write the path out"),
    ],
)
def test_accounts_that_do_not_fit(tmp_path: Path, users: str, groups: str, code: str, place: str, hint: str) -> None:
    problem = only_problem(tmp_path, f"accounts: {{users: [{users}], groups: [{groups}]}}\n")
    assert (problem.code, problem.place) == (code, f"demo.yaml:9: accounts.{place}")
    assert hint in (problem.hint or "")


def test_a_user_may_come_with_the_group_of_the_same_name_and_number(tmp_path: Path) -> None:
    recipe = good(tmp_path, "accounts: {users: [{name: a, uid: 5}], groups: [{name: a, gid: 5}]}\n")
    assert [(user.name, user.uid, user.gid) for user in recipe.users] == [("a", 5, None)]


def test_two_users_may_share_a_group(tmp_path: Path) -> None:
    recipe = good(tmp_path, "accounts: {users: [{name: a, uid: 5}, {name: b, uid: 6, gid: 5}]}\n")
    assert [(user.name, user.gid) for user in recipe.users] == [("a", None), ("b", 5)]


@pytest.mark.parametrize(
    ("file", "code", "place", "hint"),
    [
        ("{path: /etc/a}", "file-kind", "", "exactly one of template, content, source"),
        ("{path: /etc/a, content: x, source: y}", "file-kind", "", "exactly one of"),
        ("{content: x}", "key-missing", "", "path: /etc"),
        ("{content: x, path: etc/a}", "path-malformed", ".path", "/etc/a"),
        ("{content: x, path: /etc/../a}", "path-unsafe", ".path", "resolved"),
        ("{content: x, path: /etc//a}", "path-malformed", ".path", "write /etc/a"),
        ("{content: x, path: /etc/a/}", "path-malformed", ".path", "write /etc/a"),
        ("{content: x, path: /}", "path-malformed", ".path", "below the root"),
        ("{content: x, path: /proc/a}", "path-unsafe", ".path", "another path"),
        ("{content: x, path: /run/a}", "path-unsafe", ".path", "under /usr, /etc or /var"),
        ("{content: x, path: /tmp/a}", "path-unsafe", ".path", "under /usr, /etc or /var"),
        ("{content: x, path: /etc/.wh.a}", "path-unsafe", ".path", "remove"),
        ('{content: x, path: "/etc/a\\nb"}', "path-unsafe", ".path", "remove"),
        ("{content: x, path: /etc/" + "a" * 256 + "}", "path-malformed", ".path", "shorten"),
        ("{content: x, path: '/etc/{{ name }}'}", "path-malformed", ".path", "write the path out"),
        ("{directory: '/srv/{{ name }}'}", "path-malformed", ".directory", "write the path out"),
        ("{symlink: '../{{ name }}', path: /srv/b}", "path-malformed", ".symlink", "write the path out"),
        ("{symlink: " + "a" * 4096 + ", path: /srv/b}", "path-malformed", ".symlink", "shorten"),
        ("{content: x, path: /etc/a, mode: 0644}", "mode-malformed", ".mode", 'quotes: "0644"'),
        ("{content: x, path: /etc/a, mode: '0844'}", "mode-malformed", ".mode", "octal"),
        ("{content: x, path: /etc/a, owner: A}", "account-malformed", ".owner", "lower-case"),
        ("{content: x, path: /etc/a, owner: 4294967295}", "account-malformed", ".owner", "4294967294"),
        ("{content: 5, path: /etc/a}", "type-wrong", ".content", 'quotes: "5"'),
        (f"{{content: x, path: /etc/a, sha256: {SHA}}}", "file-key-misplaced", ".sha256", "remove"),
        ("{url: 'https://a/b', path: /etc/a}", "key-missing", "", "checksum"),
        (f"{{url: 'ftp://a/b', path: /etc/a, sha256: {SHA}}}", "url-malformed", ".url", "https://"),
        ("{directory: /srv/a, path: /srv/b}", "file-key-misplaced", ".path", "'directory'"),
        ("{directory: srv}", "path-malformed", ".directory", "/srv"),
        ("{symlink: a, path: /srv/b, mode: '0777'}", "file-key-misplaced", ".mode", "remove"),
        ("{source: none, path: /etc/a}", "source-missing", ".source", "add it"),
        ("{source: ../x, path: /etc/a}", "path-unsafe", ".source", "recipe's folder"),
        ("{source: /etc/passwd, path: /etc/a}", "path-unsafe", ".source", "recipe's folder"),
        ("{template: none.j2, path: /etc/a}", "template-missing", ".template", "searched folders"),
        ("{template: my.cfn.j2, path: /etc/a}", "template-missing", ".template", "'my.cnf.j2'"),
        ("{template: ../x, path: /etc/a}", "template-escapes", ".template", "'..'"),
        ("{content: x, path: /etc/a, override: true}", "file-overrides-nothing", ".override", "correct"),
        ("{content: x, path: /etc/a, strip: 1}", "file-key-misplaced", ".strip", "remove"),
        ("{archive: my.cnf.j2, path: /opt/a}", "key-missing", "", "checksum of the archive"),
        (f"{{archive: my.cnf.j2, sha256: {SHA}}}", "key-missing", "", "path: /etc"),
        (f"{{archive: none.tar, path: /opt/a, sha256: {SHA}}}", "source-missing", ".archive", "add it"),
        (f"{{archive: ../x.tar, path: /opt/a, sha256: {SHA}}}", "path-unsafe", ".archive", "recipe's folder"),
        (f"{{archive: 'ftp://a/b', path: /opt/a, sha256: {SHA}}}", "url-malformed", ".archive", "https://"),
        (f"{{archive: 'file:///etc/b', path: /opt/a, sha256: {SHA}}}", "url-malformed", ".archive", "https://"),
        (f"{{archive: my.cnf.j2, path: /opt/a, sha256: {SHA}, strip: -1}}", "value-out-of-range", ".strip", ""),
        (f"{{archive: my.cnf.j2, path: /opt/a, sha256: {SHA}, mode: '0644'}}", "mode-malformed", ".mode", "0755"),
        (f"{{archive: my.cnf.j2, path: /opt/a, sha256: {SHA}, mode: '4755'}}", "mode-malformed", ".mode", "0755"),
    ],
)
def test_a_file_that_cannot_be_made(tmp_path: Path, file: str, code: str, place: str, hint: str) -> None:
    write(tmp_path, "x", "my.cnf.j2")
    problem = only_problem(tmp_path, f"files:\n  - {file}\n")
    assert (problem.code, problem.place) == (code, f"demo.yaml:10: files[0]{place}")
    assert hint in (problem.hint or "")


def test_a_template_that_cannot_be_read_is_placed_in_the_template(tmp_path: Path) -> None:
    write(tmp_path, "fine\n{% if %}", "bad.j2")
    problem = only_problem(tmp_path, "files: [{template: bad.j2, path: /etc/a}]\n")
    assert problem.code == "template-syntax"
    assert problem.place == f"{tmp_path.name}/bad.j2:2"


def test_a_mode_without_a_value_is_the_default(tmp_path: Path) -> None:
    made, folder = good(
        tmp_path, "files:\n  - {content: x, path: /etc/a, mode: }\n  - {directory: /srv, mode: ~}\n"
    ).files
    assert (made.mode, folder.mode) == (0o644, 0o755)


def test_two_files_at_one_path_are_refused(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, "files:\n  - {content: a, path: /etc/a}\n  - {content: b, path: /etc/a}\n")
    assert (problem.code, problem.place) == ("file-duplicate", "demo.yaml:11: files[1]")
    assert "demo.yaml:10" in problem.message
    assert "override: true" in (problem.hint or "")


def test_nothing_lies_beneath_a_file_or_a_link(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, "files:\n  - {content: b, path: /etc/a/b/c}\n  - {symlink: x, path: /etc/a}\n")
    assert (problem.code, problem.place) == ("file-beneath-file", "demo.yaml:10: files[0]")
    good(tmp_path, "files:\n  - {content: b, path: /etc/a/b}\n  - {directory: /etc/a}\n")


def test_an_archive_is_planned_with_its_checksum(tmp_path: Path) -> None:
    write(tmp_path, "x", "app.tar")
    text = (
        f"files:\n  - {{archive: app.tar, path: /opt/app, sha256: {SHA}, strip: 1, owner: app}}\n"
        f"  - {{archive: 'https://vendor/app.zip', path: /opt/other, sha256: {SHA}, mode: '0750'}}\n"
        "  - {content: x, path: /opt/app/conf}\n"
    )
    beside, remote, _ = good(tmp_path, text).files
    assert (beside.origin, beside.strip, beside.mode, beside.owner, beside.group) == ("app.tar", 1, None, "app", "app")
    assert (remote.origin, remote.strip, remote.mode) == ("https://vendor/app.zip", 0, 0o750)
    assert beside.is_beside and not remote.is_beside and str(beside.sha256) == str(remote.sha256)


def test_what_is_removed_has_its_place(tmp_path: Path) -> None:
    recipe = good(tmp_path, "remove:\n  - /etc/a\n  - /etc/b\n  - /etc/a\n")
    assert recipe.remove == ("/etc/a", "/etc/b")
    assert recipe.remove_places == ("demo.yaml:10: remove[0]", "demo.yaml:11: remove[1]")


def test_what_is_removed_is_not_made(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, "files: [{content: b, path: /etc/a/b}]\nremove: [/etc/a]\n")
    assert (problem.code, problem.place) == ("remove-contradiction", "demo.yaml:10: remove[0]")
    good(tmp_path, "files: [{content: b, path: /etc/ab}]\nremove: [/etc/a]\n")


@pytest.mark.parametrize(
    ("check", "code", "place", "hint"),
    [
        ("{name: a}", "check-kind", "", f"exactly one of {KINDS}"),
        ("{name: a, port: 1, log: x}", "check-kind", "", "exactly one of"),
        ("{port: 1}", "key-missing", "", "name"),
        ("{name: a, command: []}", "list-empty", ".command", "program"),
        ("{name: a, command: [1]}", "type-wrong", ".command[0]", 'quotes: "1"'),
        ("{name: a, command: x}", "type-wrong", ".command", ""),
        ("{name: a, command: [x], send: y}", "check-key-misplaced", ".send", "expect, stdin, user, within"),
        ("{name: a, port: 1, stdin: y}", "check-key-misplaced", ".stdin", "expect, send, within"),
        ("{name: a, port: 1, expect: {stderr: y}}", "check-key-misplaced", ".expect.stderr", "'stdout'"),
        ("{name: a, log: x, expect: {stdout: y}}", "check-key-misplaced", ".expect", "within"),
        ("{name: a, stop: {}, within: 5s}", "check-key-misplaced", ".within", "inside 'stop'"),
        ("{name: a, stop: {exit-code: 0}}", "key-unknown", ".stop.exit-code", "'exit_code'"),
        ("{name: a, log: x, within: 5}", "duration-malformed", ".within", "5s"),
        ("{name: a, log: '('}", "pattern-malformed", ".log", "backslash"),
        ("{name: a, log: '({{ name }}'}", "pattern-malformed", ".log", "backslash"),
        ("{name: a, command: [x], expect: {stdout: '['}}", "pattern-malformed", ".expect.stdout", "backslash"),
        ("{name: a, command: [x], expect: {exit_code: 256}}", "value-out-of-range", ".expect.exit_code", ""),
        ("{name: a, command: [x], expect: {stdout-is: y}}", "key-unknown", ".expect.stdout-is", "'stdout_is'"),
        ("{name: a, port: http}", "port-malformed", ".port", "1 to 65535"),
        ("{name: a, port: '{{ name }}'}", "port-malformed", ".port", "1 to 65535"),
        ("{name: a, port: '{{ \"00008080\" }}'}", "port-malformed", ".port", "1 to 65535"),
        ("{name: a, file: {path: '/srv/{{ name }}'}}", "path-malformed", ".file.path", "write the path out"),
        ("{name: a, port: '{{ naem }}'}", "template-undefined", ".port", "did you mean 'name'?"),
        ("{name: a, command: [x, '{{ y'], user: Z}", "account-malformed", ".user", "USER"),
        ("{name: a, command: [x, '{{ y']}", "template-syntax", ".command[1]", "raw"),
    ],
)
def test_a_check_that_cannot_be_asked(tmp_path: Path, check: str, code: str, place: str, hint: str) -> None:
    problem = only_problem(tmp_path, f"smoke:\n  checks:\n    - {check}\n")
    assert (problem.code, problem.place) == (code, f"demo.yaml:11: smoke.checks[0]{place}")
    assert hint in (problem.hint or "")


@pytest.mark.parametrize(
    ("smoke", "code", "place", "hint"),
    [
        ("{}", "checks-missing", "smoke", "at least one"),
        (
            "{checks: [{name: a, log: x}, {name: a, log: y}]}",
            "check-duplicate",
            "smoke.checks[1].name",
            "own name",
        ),
        (
            "{checks: [{name: a, stop: {}}, {name: b, log: y}]}",
            "check-after-stop",
            "smoke.checks[1]",
            "to the end",
        ),
        (
            "{ready: {}, checks: [{name: a, log: x}]}",
            "check-kind",
            "smoke.ready",
            f"exactly one of {READY_KINDS}",
        ),
        ("{ready: {stop: {}}, checks: [{name: a, log: x}]}", "key-unknown", "smoke.ready.stop", "known keys"),
        (
            "{ready: {port: 1, user: a}, checks: [{name: a, log: x}]}",
            "check-key-misplaced",
            "smoke.ready.user",
            "send",
        ),
        ("{limits: {cpus: 0}, checks: [{name: a, log: x}]}", "cpus-malformed", "smoke.limits.cpus", "0.5"),
        ("{limits: {pids: 0}, checks: [{name: a, log: x}]}", "value-out-of-range", "smoke.limits.pids", ""),
        (
            "{limits: {bandwidth: 1}, checks: [{name: a, log: x}]}",
            "bandwidth-malformed",
            "smoke.limits.bandwidth",
            "mbit",
        ),
    ],
)
def test_a_plan_that_does_not_fit(tmp_path: Path, smoke: str, code: str, place: str, hint: str) -> None:
    problem = only_problem(tmp_path, f"smoke: {smoke}\n")
    assert (problem.code, problem.place) == (code, f"demo.yaml:9: {place}")
    assert hint in (problem.hint or "")


def test_checks_have_sensible_defaults(tmp_path: Path) -> None:
    recipe = good(
        tmp_path,
        "smoke: {ready: {command: [a]}, checks: [{name: c, command: [b], user: bin}, {name: s, stop: {}}]}\n",
    )
    assert recipe.smoke.ready is not None
    assert (recipe.smoke.ready.kind, recipe.smoke.ready.within) == (CheckKind.COMMAND, 60_000)
    command, stop = recipe.smoke.checks
    assert (command.within, command.expect, command.user) == (10_000, Expectation(), "bin")
    assert (stop.within, stop.expect) == (20_000, Expectation(exit_code=0))
    assert recipe.smoke.instances == 1


# --- layers that say auto --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auto", "at_most"), [("true", 16), ("{}", 16), ("{at-most: 4}", 4), ("false", None), ("{at-most: 40}", 40)]
)
def test_packages_of_a_layer_may_be_grouped_into_several(tmp_path: Path, auto: str, at_most: int | None) -> None:
    text = GOOD.replace("    packages: [bash]\n", f"    packages: [bash]\n    auto: {auto}\n")
    (plan,) = load_recipe(write(tmp_path, text)).layers
    validate_recipe(load_yaml(tmp_path / "demo.yaml").value)
    assert (plan.name, plan.at_most, plan.brought_by) == ("base", at_most, None)


@pytest.mark.parametrize(
    ("auto", "code", "place", "words"),
    [
        ("{at-most: 1}", "value-out-of-range", ".at-most", "greater than or equal to 2"),
        ("{at-most: 41}", "value-out-of-range", ".at-most", "less than or equal to 40"),
        ("{at-most: many}", "type-wrong", ".at-most", "a whole number is expected"),
        ("{at_most: 8}", "key-unknown", ".at_most", "at_most"),
        ("16", "type-wrong", "", "a mapping is expected here"),
        ("{packages: [bash]}", "key-unknown", ".packages", "packages"),
    ],
)
def test_how_packages_cannot_be_grouped(tmp_path: Path, auto: str, code: str, place: str, words: str) -> None:
    text = GOOD.replace("    packages: [bash]\n", f"    packages: [bash]\n    auto: {auto}\n")
    (problem,) = refused(write(tmp_path, text))
    assert (problem.code, problem.place) == (code, f"demo.yaml:7: layers[0].auto{place}")
    assert words in problem.message


def test_no_layer_is_called_as_one_that_auto_makes(tmp_path: Path) -> None:
    layers = "  - {name: base-2, packages: [zlib]}\n  - {name: base-x, packages: [xz]}\n"
    text = GOOD.replace("    packages: [bash]\n", f"    packages: [bash]\n    auto: true\n{layers}")
    (problem,) = refused(write(tmp_path, text))
    assert (problem.code, problem.place) == ("layer-name-of-auto", "demo.yaml:8: layers[1].name")
    assert load_recipe(write(tmp_path, text.replace("    auto: true\n", ""))).layers[1].name == "base-2"


def test_an_image_has_no_more_layers_than_can_be_launched(tmp_path: Path) -> None:
    layers = "  - {name: more, packages: [zlib], auto: {at-most: %d}}\n"
    text = GOOD.replace("    packages: [bash]\n", "    packages: [bash]\n    auto: {at-most: 40}\n" + layers)
    assert load_recipe(write(tmp_path, text % 23)).layers[1].at_most == 23
    (problem,) = refused(write(tmp_path, text % 24))
    assert (problem.code, problem.place) == ("layers-too-many", "demo.yaml:4: layers")
    assert "65 layers" in problem.message
    write(tmp_path, text % 10)
    child = GOOD.replace("name: demo", "name: child\nfrom: demo").replace("[bash]", "[zlib]\n    auto: {at-most: %d}")
    assert load_recipe(write(tmp_path, child % 12, "child.yaml")).layers[0].at_most == 12
    (problem,) = refused(write(tmp_path, child % 13, "child.yaml"))
    assert problem.code == "layers-too-many"


def test_a_layer_that_is_included_knows_who_brings_it(tmp_path: Path) -> None:
    base = write(tmp_path, GOOD.replace("[bash]", "[bash]\n    auto: true"), "base.yaml")
    text = GOOD.replace("name: base", "name: product").replace("[bash]", "[zlib]\n    auto: true")
    recipe = load_recipe(write(tmp_path, "include: [base.yaml]\n" + text))
    assert [(plan.name, plan.brought_by) for plan in recipe.layers] == [("base", base), ("product", None)]
