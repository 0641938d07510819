"""A recipe is read into nouns, and everything wrong in it is reported at once, with line, path and way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.model.checks import CheckKind
from pipeline.model.limits import Limits
from pipeline.model.recipe import FileKind, FilePlan, Group, LayerPlan, Request, User
from pipeline.model.smoke import Check, Expectation
from pipeline.model.value_rules import Rule
from pipeline.recipes import load_recipe, template_scope
from tests.support.recipe_folder import GOOD, good, only_problem, refused, write

SHA = "a" * 64


def test_the_recipe_of_the_design_is_read(tmp_path: Path) -> None:
    write(tmp_path, "[mysqld]\n", "my.cnf.j2")
    write(tmp_path, "#!/bin/bash\n", "mysql-start.sh.j2")
    recipe = load_recipe(
        write(
            tmp_path,
            """\
            name: mysql
            version: "{{ packages['mysql-server'].version }}"
            platform: local
            architectures: [x86_64]
            layers:
              - name: base
                packages: [bash, coreutils, glibc, tzdata]
              - name: product
                packages: [mysql-server, mysql]
                without: [docs, man, weak-dependencies]
            accounts:
              users: [{name: mysql, uid: 27, home: /var/lib/mysql}]
            files:
              - {template: my.cnf.j2, path: /etc/my.cnf, mode: "0644"}
              - {template: mysql-start.sh.j2, path: /usr/libexec/mysql-start, mode: "0755"}
            values: {innodb_buffer_pool_size: 128M}
            image:
              entrypoint: [/usr/libexec/mysql-start]
              user: mysql
              exposed_ports: [3306]
              volumes: [/var/lib/mysql]
              stop_signal: SIGTERM
              labels: {}
            smoke:
              limits: {cpus: 1, memory: 1GiB, pids: 200, bandwidth: 100mbit}
              instances: 2
              ready: {port: 3306, within: 60s}
              checks:
                - {name: answers, command: [mysql, -uroot, -e, select 1], expect: {stdout: "1"}}
                - {name: stops cleanly, stop: {within: 20s, exit_code: 0}}
            """,
            "mysql.yaml",
        )
    )
    assert recipe.name == "mysql"
    assert recipe.version == "{{ packages['mysql-server'].version }}"
    assert recipe.layers[1] == LayerPlan(
        "product",
        (
            Request("mysql-server", "mysql.yaml:9: layers[1].packages[0]"),
            Request("mysql", "mysql.yaml:9: layers[1].packages[1]"),
        ),
        docs=False,
        man=False,
    )
    assert (recipe.layers[0].docs, recipe.layers[0].man) == (True, True)
    assert recipe.users == (User("mysql", 27, None, "/var/lib/mysql"),)
    assert recipe.files[1] == FilePlan(
        FileKind.TEMPLATE,
        "/usr/libexec/mysql-start",
        "mysql-start.sh.j2",
        0o755,
        "root",
        "root",
        "mysql.yaml:15: files[1]",
    )
    assert recipe.image.exposed_ports == ("3306/tcp",)
    assert recipe.smoke.limits == Limits(milli_cpus=1000, memory=1 << 30, pids=200, bandwidth=100_000_000)
    assert recipe.smoke.instances == 2
    assert recipe.smoke.ready == Check("ready", CheckKind.PORT, 60_000, Expectation(exit_code=None), port=3306)
    assert recipe.smoke.checks == (
        Check(
            "answers",
            CheckKind.COMMAND,
            10_000,
            Expectation(stdout=(Rule(matches="1"),)),
            command=("mysql", "-uroot", "-e", "select 1"),
        ),
        Check("stops cleanly", CheckKind.STOP, 20_000, Expectation(exit_code=0)),
    )
    assert recipe.smoke.checks[1].place == "mysql.yaml:30: smoke.checks[1]"
    assert not recipe.weak_dependencies
    assert recipe.sources == (tmp_path / "mysql.yaml",)


@pytest.mark.parametrize("text", ["foo-1:1.0-1.x86_64", "foo-1.0~rc1-1", "foo-1.0^git1-1", "*-0:[12]?.*", "!x"])
def test_packages_are_excluded_in_every_form_of_nevra(tmp_path: Path, text: str) -> None:
    assert good(tmp_path, f'exclude: ["{text}"]\n').excludes == (text,)


def test_every_other_key_is_read(tmp_path: Path) -> None:
    write(tmp_path, "static\n", "motd")
    recipe = good(
        tmp_path,
        f"""\
        weak-dependencies: true
        languages: [en, pt_BR]
        exclude: ["*-debug"]
        pins: {{bash: "5.2-1"}}
        assume-installed: [systemd]
        modules: ["nodejs:20"]
        remove: [/usr/share/info]
        accounts:
          groups: [{{name: ssl, gid: 101}}]
        files:
          - {{source: motd, path: /etc/motd, owner: bin}}
          - {{content: "hello", path: /etc/issue, group: adm, owner: 0}}
          - {{url: "https://example.org/a.bin", sha256: {SHA}, path: /usr/lib/a.bin}}
          - {{directory: /srv/data, mode: "0700"}}
          - {{symlink: ../data, path: /srv/link}}
        """,
    )
    assert recipe.weak_dependencies
    assert recipe.languages == ("en", "pt_BR")
    assert recipe.excludes == ("*-debug",)
    assert recipe.pins == (("bash", "5.2-1"),)
    assert recipe.assume_installed == ("systemd",)
    assert recipe.modules == ("nodejs:20",)
    assert recipe.remove == ("/usr/share/info",)
    assert recipe.groups == (Group("ssl", 101),)
    assert [
        (plan.kind, plan.path, plan.origin, plan.mode, plan.owner, plan.group, plan.sha256) for plan in recipe.files
    ] == [
        (FileKind.SOURCE, "/etc/motd", "motd", 0o644, "bin", "bin", None),
        (FileKind.CONTENT, "/etc/issue", "hello", 0o644, "0", "adm", None),
        (FileKind.URL, "/usr/lib/a.bin", "https://example.org/a.bin", 0o644, "root", "root", Digest(SHA)),
        (FileKind.DIRECTORY, "/srv/data", "", 0o700, "root", "root", None),
        (FileKind.SYMLINK, "/srv/link", "../data", None, "root", "root", None),
    ]


def test_a_local_package_is_read(tmp_path: Path) -> None:
    text = GOOD.replace("[bash]", f"[bash, {{path: fix/b.rpm, sha256: {SHA}}}]")
    (layer,) = load_recipe(write(tmp_path, text)).layers
    (package,) = layer.local
    assert (package.path, package.sha256) == (Path("fix/b.rpm"), Digest(SHA))
    assert package.place == "demo.yaml:6: layers[0].packages[1]"
    assert [request.text for request in layer.requests] == ["bash"]


def test_checks_follow_the_values(tmp_path: Path) -> None:
    recipe = good(
        tmp_path,
        """\
        values: {port: 8080, words: {greeting: hello}}
        smoke:
          ready: {port: "{{ values.port }}"}
          checks:
            - name: greets
              command: [say, "{{ words.greeting }}"]
              stdin: "{{ name }}"
              expect: {stdout_is: "{{ values.words.greeting }}", exit_code: null}
            - {name: port, port: "{{ port }}", send: "x{{ port }}", expect: {stdout: "^{{ port }}$"}}
            - {name: log, log: "{{ name }} is up"}
        """,
    )
    assert recipe.smoke.ready is not None
    assert recipe.smoke.ready.port == 8080
    command, port, log = recipe.smoke.checks
    assert (command.command, command.stdin) == (("say", "hello"), "demo")
    assert command.expect == Expectation(exit_code=None, stdout=(Rule(equals="hello"),))
    assert (port.port, port.send, port.expect.stdout) == (8080, "x8080", (Rule(matches="^8080$"),))
    assert log.log == (Rule(matches="demo is up"),)


def test_exposed_ports_follow_the_values(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, GOOD + '  exposed_ports: ["{{ port }}", 53/udp, "80", 80]\nvalues: {port: 99}\n')
    )
    assert recipe.image.exposed_ports == ("99/tcp", "53/udp", "80/tcp")


def test_templates_see_values_by_name_and_together(tmp_path: Path) -> None:
    recipe = good(tmp_path, "values: {a: 1}\n")
    assert template_scope(recipe) == {"a": 1, "values": {"a": 1}, "name": "demo"}


def test_templates_are_found_beside_the_recipe_and_in_template_folders(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    write(recipes, "beside", "a.j2")
    write(recipes / "templates", "inside", "b.j2")
    write(tmp_path / "templates", "above", "c.j2")
    files = "\n".join(f"  - {{template: {name}.j2, path: /etc/{name}}}" for name in "abc")
    recipe = load_recipe(write(recipes, GOOD + "files:\n" + files + "\n"))
    assert recipe.template_folders == (recipes, recipes / "templates", tmp_path / "templates")
    assert [plan.origin for plan in recipe.files] == ["a.j2", "b.j2", "c.j2"]


def test_a_recipe_without_smoke_is_read(tmp_path: Path) -> None:
    assert good(tmp_path).smoke.checks == ()


def test_all_problems_are_reported_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    problems = refused(
        write(
            tmp_path,
            """\
            name: Demo
            platform: local
            layers:
              - name: base
                packages: []
                without: [docz]
            image: {entrypiont: [a]}
            files: [{path: etc/motd}]
            smoke: {limits: {memory: 1GB}}
            """,
        )
    )
    assert [problem.place for problem in problems] == [
        "demo.yaml:1: name",
        "demo.yaml:5: layers[0].packages",
        "demo.yaml:6: layers[0].without[0]",
        "demo.yaml:7: image.entrypiont",
        "demo.yaml:8: files[0].path",
        "demo.yaml:9: smoke.limits.memory",
    ]


@pytest.mark.parametrize(
    ("more", "code", "place", "hint"),
    [
        ("nmae: x", "key-unknown", "9: nmae", "did you mean 'name'?"),
        ("assume_installed: [x]", "key-unknown", "9: assume_installed", "'assume-installed'"),
        ("zzz: 1", "key-unknown", "9: zzz", "known keys: name, version"),
        ("accounts: {user: []}", "key-unknown", "9: accounts.user", "'users'"),
        ("smoke: {check: []}", "key-unknown", "9: smoke.check", "'checks'"),
        ("smoke: {limits: {cpu: 1}}", "key-unknown", "9: smoke.limits.cpu", "'cpus'"),
        ("architectures: []", "list-empty", "9: architectures", "remove the list"),
        ("architectures: [x86-64]", "architecture-unknown", "9: architectures[0]", "x86_64"),
        ("files: {a: 1}", "type-wrong", "9: files", "`relbuild help recipe`"),
        ("files:", "type-wrong", "9: files", "remove the key"),
        ("weak-dependencies: 1", "type-wrong", "9: weak-dependencies", "`relbuild help recipe`"),
        ("languages: [1]", "type-wrong", "9: languages[0]", 'in quotes: "1"'),
        ("languages: [english]", "languages-malformed", "9: languages[0]", "en"),
        ("exclude: ['a/b']", "exclude-malformed", "9: exclude[0]", "pattern"),
        ("exclude: ['a b']", "exclude-malformed", "9: exclude[0]", "pattern"),
        ("exclude: ['{{ x }}']", "request-template", "9: exclude[0]", "write it out"),
        ("modules: [nodejs]", "modules-malformed", "9: modules[0]", "NAME:STREAM"),
        ("pins: {bash: 5.2}", "type-wrong", "9: pins.bash", 'in quotes: "5.2"'),
        ("pins: {bash: 5.20}", "type-wrong", "9: pins.bash", 'in quotes: "5.20"'),
        ("files: [{content: x, path: /x, mode: 0750}]", "mode-malformed", "9: files[0].mode", 'quotes: "0750"'),
        ("files: [{content: x, path: /x, mode: 0o640}]", "mode-malformed", "9: files[0].mode", 'quotes: "0640"'),
        ("files: [{content: x, path: /x, mode: 0x1a0}]", "mode-malformed", "9: files[0].mode", 'such as "0644"'),
        (
            "smoke: {limits: {volume: 1}, checks: [{name: a, log: b}]}",
            "size-malformed",
            "9: smoke.limits.volume",
            "1GiB",
        ),
        ("pins: {bash: '>= 5'}", "pin-malformed", "9: pins.bash", "VERSION"),
        ("values: {none: 1}", "value-reserved", "9: values.none", "another name"),
        ("values: {self: 1}", "value-reserved", "9: values.self", "another name"),
        ("values: {packages: 1}", "value-reserved", "9: values.packages", "another name"),
        ("values: {a-b: 1}", "name-malformed", "9: values.a-b", "letters, digits"),
        ("values: {a: [1, .nan]}", "value-not-finite", "9: values.a[1]", "finite"),
        ("remove: [usr/x]", "path-malformed", "9: remove[0]", "/usr/x"),
        ("remove: [/usr/*.a]", "remove-pattern", "9: remove[0]", "directory"),
        ("include: [none.yaml]", "include-missing", "9: include[0]", "relative"),
        ("include: [/abs.yaml]", "include-absolute", "9: include[0]", "relative"),
        (
            "smoke: {instances: 0, checks: [{name: a, log: b}]}",
            "value-out-of-range",
            "9: smoke.instances",
            "`relbuild help recipe`",
        ),
    ],
)
def test_one_mistake_is_one_problem(tmp_path: Path, more: str, code: str, place: str, hint: str) -> None:
    problem = only_problem(tmp_path, more)
    assert (problem.code, problem.place) == (code, f"demo.yaml:{place}")
    assert hint in (problem.hint or "")


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "hint"),
    [
        ("name: demo\n", "", "key-missing", "1", "add 'name:'"),
        ("name: demo", "name: demo.report", "name-reserved", "1: name", "-report"),
        ("name: demo", "name: demo.", "name-malformed", "1: name", "lower-case"),
        ('version: "1"\n', "", "key-missing", "1", "add 'version:'"),
        ('version: "1"', "version: 1", "type-wrong", "2: version", 'in quotes: "1"'),
        ('version: "1"', "version: 1.10", "type-wrong", "2: version", 'in quotes: "1.10"'),
        ('version: "1"', "version: 1e3", "type-wrong", "2: version", 'in quotes: "1e3"'),
        ('version: "1"', "version: 0o17", "type-wrong", "2: version", 'in quotes: "0o17"'),
        ('version: "1"', "version: 007", "type-wrong", "2: version", 'in quotes: "007"'),
        ('version: "1"', "version: .inf", "type-wrong", "2: version", 'in quotes: ".inf"'),
        ('version: "1"', "version: True", "type-wrong", "2: version", 'in quotes: "True"'),
        ('version: "1"', 'version: "{{ x"', "template-syntax", "2: version", "raw"),
        ("platform: local\n", "", "key-missing", "1", "repositories.yaml"),
        ("layers:\n  - name: base\n    packages: [bash]\n", "", "key-missing", "1", "layers"),
        ("name: base", "name: Base", "name-malformed", "5: layers[0].name", "lower-case"),
        ("    packages: [bash]\n", "", "key-missing", "5: layers[0]", "add 'packages:'"),
        ("[bash]", "[]", "list-empty", "6: layers[0].packages", "remove the list"),
        ("[bash]", "[bash, bash]", "request-duplicate", "6: layers[0].packages[1]", "remove"),
        ("[bash]", "['{{ shell }}']", "request-template", "6: layers[0].packages[0]", "write the request"),
        ("[bash]", "['@core/most']", "request-malformed", "6: layers[0].packages[0]", "@ID/mandatory"),
        ("[bash]", "['-bash']", "request-malformed", "6: layers[0].packages[0]", "exclude"),
        ("[bash]", "[1]", "type-wrong", "6: layers[0].packages[0]", 'in quotes: "1"'),
        ("[bash]", "[{path: a.rpm}]", "key-missing", "6: layers[0].packages[0]", "sha256"),
        (
            "[bash]",
            "[{path: a.rpm, sha256: abc}]",
            "sha256-malformed",
            "6: layers[0].packages[0].sha256",
            "64 lower-case",
        ),
        (
            "[bash]",
            f"[{{path: /a.rpm, sha256: {SHA}}}]",
            "path-malformed",
            "6: layers[0].packages[0].path",
            "relative",
        ),
        ("[bash]", "[bash]\n    without: [doc]", "value-unknown", "7: layers[0].without[0]", "'docs'"),
        (
            "[bash]",
            "[bash]\n    without: [weak_dependencies]",
            "value-unknown",
            "7: layers[0].without[0]",
            "'weak-dependencies'",
        ),
        (
            "[bash]",
            "[bash]\n    without: [weak-dependencies]\nweak-dependencies: true",
            "weak-dependencies-contradiction",
            "7: layers[0].without[0]",
            "one setting",
        ),
        (
            "[bash]",
            "[bash]\n  - name: base\n    packages: [sed]",
            "layer-duplicate",
            "7: layers[1].name",
            "its own name",
        ),
    ],
)
def test_a_mistake_in_what_must_be_there(tmp_path: Path, old: str, new: str, code: str, place: str, hint: str) -> None:
    assert old in GOOD
    (problem,) = refused(write(tmp_path, GOOD.replace(old, new)))
    assert (problem.code, problem.place) == (code, f"demo.yaml:{place}")
    assert hint in (problem.hint or "")


def test_it_may_start_in_the_root(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD.replace("image:\n", "image:\n  working_directory: /\n", 1)))
    assert recipe.image.working_directory == "/"


@pytest.mark.parametrize(
    ("line", "code", "place", "hint"),
    [
        ("user: Root", "account-malformed", "image.user", "USER:GROUP"),
        ("user: 27", "account-malformed", "image.user", '"27"'),
        ("working_dir: /srv", "key-unknown", "image.working_dir", "'working_directory'"),
        ("working-directory: /srv", "key-unknown", "image.working-directory", "'working_directory'"),
        ("working_directory: srv", "path-malformed", "image.working_directory", "/srv"),
        ("volumes: [/a/../b]", "path-unsafe", "image.volumes[0]", "resolved"),
        ("exposed_ports: [0]", "port-malformed", "image.exposed_ports[0]", "1 to 65535"),
        ("exposed_ports: [70000]", "port-malformed", "image.exposed_ports[0]", "1 to 65535"),
        ("exposed_ports: [80/http]", "port-malformed", "image.exposed_ports[0]", "tcp"),
        ('exposed_ports: ["{{ prt }}"]', "template-undefined", "image.exposed_ports[0]", "values"),
        ("working_directory: '/srv/{{ name }}'", "path-malformed", "image.working_directory", "write the path out"),
        ("volumes: ['/srv/{{ name }}']", "path-malformed", "image.volumes[0]", "write the path out"),
        ("stop_signal: SIGTREM", "signal-malformed", "image.stop_signal", "SIGTERM"),
        ("stop_signal: 15", "signal-malformed", "image.stop_signal", "SIGTERM"),
        ("environment: {A: 1}", "type-wrong", "image.environment.A", 'in quotes: "1"'),
        ("environment: {A: yes, B: true}", "type-wrong", "image.environment.B", 'in quotes: "true"'),
        ("environment: {A-B: x}", "name-malformed", "image.environment.A-B", "digit"),
        ("labels: {a: '{{ x'}", "template-syntax", "image.labels.a", "raw"),
        ("command: ['{% if %}']", "template-syntax", "image.command[0]", "raw"),
    ],
)
def test_a_mistake_in_the_image(tmp_path: Path, line: str, code: str, place: str, hint: str) -> None:
    (problem,) = refused(write(tmp_path, GOOD + f"  {line}\n"))
    assert (problem.code, problem.place) == (code, f"demo.yaml:9: {place}")
    assert hint in (problem.hint or "")


PORT_OF_A_VALUE = GOOD + "  exposed_ports: ['080', '{{ port }}']\nvalues: {port: %s}\n"


@pytest.mark.parametrize(("port", "hint"), [("53/http", "tcp, udp"), ("53/", "tcp"), ("'00008080123'", "1 to 65535")])
def test_a_port_that_a_value_makes_is_checked(tmp_path: Path, port: str, hint: str) -> None:
    (problem,) = refused(write(tmp_path, PORT_OF_A_VALUE % port))
    assert (problem.code, problem.place) == ("port-malformed", "demo.yaml:9: image.exposed_ports[1]")
    assert hint in (problem.hint or "")


def test_a_port_may_be_divided(tmp_path: Path) -> None:
    text = GOOD + "  exposed_ports: ['{{ base // 2 }}', '{{ (base / 2) | int }}/udp']\nvalues: {base: 160}\n"
    assert load_recipe(write(tmp_path, text)).image.exposed_ports == ("80/tcp", "80/udp")


def test_ports_are_written_without_leading_zeros(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, PORT_OF_A_VALUE % "0053/udp"))
    assert recipe.image.exposed_ports == ("80/tcp", "53/udp")


def test_an_empty_entrypoint_is_refused(tmp_path: Path) -> None:
    (problem,) = refused(write(tmp_path, GOOD.replace("[/usr/bin/bash]", "[]")))
    assert (problem.code, problem.place) == ("list-empty", "demo.yaml:8: image.entrypoint")


def test_an_image_that_is_tested_must_run_something(tmp_path: Path) -> None:
    text = GOOD.replace("  entrypoint: [/usr/bin/bash]\n", "  user: bin\n")
    (problem,) = refused(write(tmp_path, text + "smoke: {checks: [{name: a, log: b}]}\n"))
    assert (problem.code, problem.place) == ("image-without-program", "demo.yaml:7: image")
    assert "entrypoint" in (problem.hint or "")


def test_an_empty_document_is_refused(tmp_path: Path) -> None:
    (problem,) = refused(write(tmp_path, "# nothing\n"))
    assert (problem.code, problem.place) == ("document-empty", "demo.yaml")


def test_a_document_that_is_a_list_is_refused(tmp_path: Path) -> None:
    (problem,) = refused(write(tmp_path, "- a\n"))
    assert (problem.code, problem.place) == ("type-wrong", "demo.yaml:1")
    assert "a mapping is expected here, not a list" in problem.message


def test_problems_of_yaml_are_reported_too(tmp_path: Path) -> None:
    (problem,) = refused(write(tmp_path, GOOD + "name: again\n"))
    assert (problem.code, problem.place) == ("yaml-duplicate-key", "demo.yaml:9:1")
