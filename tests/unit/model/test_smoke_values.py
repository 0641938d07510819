"""Rules for values, JSON paths, and the spelling of checks in recipes and in the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.checks import CheckKind
from pipeline.model.checks.file_check import FileFacts, FileSort
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.checks.image_check import ImageFacts
from pipeline.model.checks.licenses_check import LicenseFacts
from pipeline.model.checks.listening_check import ListeningFacts
from pipeline.model.checks.packages_check import PackageFacts
from pipeline.model.checks.process_check import ProcessFacts
from pipeline.model.checks.restart_check import Restart
from pipeline.model.jsonpath import look_up, parse_path
from pipeline.model.smoke import Misbehaviour, Neighbours, Variant
from pipeline.model.value_comparison import mismatch
from pipeline.model.value_rules import Rule
from pipeline.recipes import load_recipe
from pipeline.smoke.procfs import is_loopback
from tests.support.recipe_folder import good, only_problem

EMPTY = "\"{{ '' }}\""
"""A template that makes no text."""

DOCUMENT = json.dumps({"a": [1, {"b c": "x"}, None], "empty": {}, "yes": True})


class TestJsonPath:
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("$", DOCUMENT),
            ("$.a[0]", "1"),
            ("a[0]", "1"),
            ("$.a[-1]", "null"),
            ("$.a[1]['b c']", "x"),
            ('$["a"][1]["b c"]', "x"),
            ("$.a.length()", "3"),
            ("$.empty.length()", "0"),
            ("$.yes", "true"),
        ],
    )
    def test_it_names_one_value(self, path: str, value: str) -> None:
        found = look_up(DOCUMENT, path)
        assert found == value or json.loads(found) == json.loads(value)

    @pytest.mark.parametrize("path", ["$.", "$..a", "$.a[*]", "$a", "$.a[x]", "$.a[1:2]", "$.size()", "a b", "['a\"]"])
    def test_what_it_is_not_is_refused(self, path: str) -> None:
        with pytest.raises(ValueError, match="not a valid step"):
            parse_path(path)

    @pytest.mark.parametrize("path", ["$.b", "$.a[3]", "$.a.b", "$.yes.length()", "$.a['0']"])
    def test_what_is_not_there_is_said(self, path: str) -> None:
        with pytest.raises(LookupError):
            look_up(DOCUMENT, path)

    @given(st.lists(st.text(alphabet=st.characters(exclude_characters="'\"]"), min_size=1), max_size=4))
    def test_any_member_can_be_named(self, names: list[str]) -> None:
        value: object = "here"
        for name in reversed(names):
            value = {name: value}
        assert look_up(json.dumps(value), "$" + "".join(f"['{name}']" for name in names)) == "here"


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "text"),
        [
            (Rule(equals=" a "), "a\n"),
            (Rule(matches="^b$"), "a\nb\n"),
            (Rule(lacks="c"), "a b"),
            (Rule(least=1, most=2), "2"),
            (Rule(least=-1.5), " -1.5\n"),
            (Rule(at="$.a[0]", most=1), DOCUMENT),
            (Rule(at="$.yes"), DOCUMENT),
        ],
    )
    def test_what_holds(self, rule: Rule, text: str) -> None:
        assert mismatch((rule,), text, "it") == ""

    @pytest.mark.parametrize(
        ("rule", "text", "said"),
        [
            (Rule(equals="a"), "b", "it is not 'a'"),
            (Rule(matches="x"), "b", "it does not match 'x'"),
            (Rule(lacks="b"), "a\na b c\n", "it must not match 'b': a b c"),
            (Rule(least=2), "1", "it is 1, less than 2"),
            (Rule(most=2), "2.5", "it is 2.5, more than 2"),
            (Rule(most=2), "nan", "it is nan, more than 2"),
            (Rule(least=2), "many", "it is not a number: 'many'"),
            (Rule(at="$.a", equals="1"), "<html>", "it at $.a is not JSON"),
            (Rule(at="$.b", equals="1"), DOCUMENT, "it at $.b: there is no member 'b'"),
            (Rule(at="$.yes", equals="false"), DOCUMENT, "it at $.yes is not 'false' but 'true'"),
        ],
    )
    def test_what_does_not_is_said(self, rule: Rule, text: str, said: str) -> None:
        assert mismatch((Rule(), rule), text, "it").startswith(said)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("0100007F", True),
        ("00000000", False),
        ("0500000A", False),
        ("00000000000000000000000001000000", True),
        ("00000000000000000000000000000000", False),
        ("0000000000000000FFFF00000100007F", True),
    ],
)
def test_a_loopback_address_as_the_kernel_writes_it(address: str, local: bool) -> None:
    assert is_loopback(address) is local


class TestSpelling:
    def test_every_kind_becomes_a_value(self, tmp_path: Path) -> None:
        recipe = good(
            tmp_path,
            """\
            values: {port: 99, least: 2}
            smoke:
              variants: [read-only, read-only, arbitrary-uid]
              upgrade_from: ../old
              limits: {cpus: 1, memory: 64M, pids: 9}
              neighbours: {count: 3, misbehave: [flood], factor: 4, floor: 2ms, lasting: 1s}
              ready: {http: {port: "{{ port }}", path: /up}}
              checks:
                - name: a
                  http: {socket: /run/x, headers: {A: "{{ name }}"}}
                  expect: {status: 204, body: [x, {is: 7}]}
                - {name: b, file: {path: /x, type: file, mode: "0640", size: {min: 1K, max: "{{ port }}"}}}
                - {name: c, process: {name: x, count: {min: "{{ least }}"}}}
                - {name: d, listening: exposed}
                - {name: e, listening: ["{{ port }}", 53/udp]}
                - {name: f, listening: {local: [5]}}
                - {name: g, packages: {absent: [gcc]}}
                - {name: h, licenses: all}
                - {name: i, licenses: [x]}
                - {name: j, log: {matches: x, lacks: y}}
                - {name: k, restart: after-kill}
                - {name: l, stop: {signal: INT}}
            """,
        )
        plan = recipe.smoke
        assert plan.variants == (Variant.READ_ONLY, Variant.ARBITRARY_UID)
        assert plan.upgrade_from == "../old"
        assert plan.neighbours == Neighbours(3, (Misbehaviour.FLOOD,), 4.0, 2000, 1000)
        assert plan.ready is not None and plan.ready.subject == HttpRequest(99, path="/up")
        assert plan.ready.expect.status == (Rule(equals="200"),)
        asked = {check.name: check for check in plan.checks}
        assert asked["a"].subject == HttpRequest(socket="/run/x", headers=(("A", "demo"),))
        assert asked["a"].expect.status == (Rule(equals="204"),)
        assert asked["a"].expect.body == (Rule(matches="x"), Rule(equals="7"))
        assert asked["b"].subject == FileFacts("/x", sort=FileSort.FILE, mode=0o640, size=(Rule(least=1024, most=99),))
        assert asked["c"].subject == ProcessFacts("x", count=(Rule(least=2),))
        assert asked["d"].subject == ListeningFacts()
        assert asked["e"].subject == ListeningFacts(("99/tcp", "53/udp"))
        assert asked["f"].subject == ListeningFacts(None, ("5/tcp",))
        assert asked["g"].subject == PackageFacts((), ("gcc",))
        assert (asked["h"].subject, asked["i"].subject) == (LicenseFacts(), LicenseFacts(("x",)))
        assert asked["j"].log == (Rule(matches="x", lacks="y"),)
        assert (asked["k"].kind, asked["k"].subject, asked["k"].within) == (
            CheckKind.RESTART,
            Restart.AFTER_KILL,
            30_000,
        )
        assert asked["l"].signal == "SIGINT"

    @pytest.mark.parametrize(
        ("check", "code", "place", "hint"),
        [
            ("http: {prot: 1}", "key-unknown", ".http.prot", "'port'"),
            ("http: {}", "check-contradiction", ".http", "one of"),
            ("http: {port: 1, path: x}", "request-malformed", ".http", "path: /"),
            ("http: {port: 1}, expect: {stdout: x}", "check-key-misplaced", ".expect.stdout", "'status'"),
            ("port: 1, expect: {status: 200}", "check-key-misplaced", ".expect.status", "'stdout'"),
            ("http: {port: 1}, send: x", "check-key-misplaced", ".send", "expect, within"),
            ("http: {port: 1}, expect: {body: {jsn: x}}", "key-unknown", ".expect.body.jsn", "'json'"),
            (
                "http: {port: 1}, expect: {body: [x, {matches: '('}]}",
                "pattern-malformed",
                ".expect.body[1].matches",
                "",
            ),
            ("http: {port: 1}, expect: {body: {json: '$..a', is: 1}}", "path-malformed", ".expect.body.json", "$.name"),
            ("http: {port: 1}, expect: {body: {}}", "rule-empty", ".expect.body", "is, matches"),
            ("http: {port: 1}, expect: {status: []}", "rule-empty", ".expect.status", "is, matches"),
            (f"http: {{port: 1}}, expect: {{status: {EMPTY}}}", "rule-empty", ".expect.status", '`is: ""`'),
            (f"http: {{port: 1}}, expect: {{headers: {{A: {EMPTY}}}}}", "rule-empty", ".expect.headers.A", "pattern"),
            (f"http: {{port: {EMPTY}}}", "port-malformed", ".http.port", "65535"),
            ("command: [x], expect: {stdout: ''}", "rule-empty", ".expect.stdout", '`is: ""`'),
            ("command: [x], expect: {stdout: [x, '']}", "rule-empty", ".expect.stdout[1]", "pattern"),
            ("command: [x], expect: {stderr: []}", "rule-empty", ".expect.stderr", "is, matches"),
            ("log: []", "rule-empty", ".log", "is, matches"),
            ("log: ''", "rule-empty", ".log", '`is: ""`'),
            (f"log: {EMPTY}", "rule-empty", ".log", "pattern"),
            (f"log: {{matches: x, lacks: {EMPTY}}}", "rule-empty", ".log.lacks", "pattern"),
            ("log: {matches: '', lacks: ERROR}", "rule-empty", ".log.matches", "a pattern"),
            ("log: '.*'", "rule-empty", ".log", r"\S"),
            ("log: [ready, 'x*']", "rule-empty", ".log[1]", r"\S"),
            ("log: {matches: '(?s).*', lacks: ERROR}", "rule-empty", ".log.matches", r"\S"),
            ("command: [x], expect: {stdout: '^.*$'}", "rule-empty", ".expect.stdout", r"\S"),
            ("command: [x], expect: {stderr: [a, {matches: '[0-9]*'}]}", "rule-empty", ".expect.stderr[1].matches", ""),
            ("http: {port: 1}, expect: {body: 'OK|'}", "rule-empty", ".expect.body", r"\S"),
            ("file: {path: /x, text: ''}", "rule-empty", ".file.text", "pattern"),
            ("file: {path: /x, target: []}", "rule-empty", ".file.target", "is, matches"),
            (f"file: {{path: /x, size: {{min: {EMPTY}, max: 9}}}}", "number-malformed", ".file.size.min", "K, M"),
            ("process: {}", "check-empty", ".process", "count"),
            (f"process: {{name: x, count: {EMPTY}}}", "rule-empty", ".process.count", "pattern"),
            (f"process: {{name: {EMPTY}}}", "rule-empty", ".process.name", "remove the key"),
            ("process: {command: ''}", "rule-empty", ".process.command", "pattern"),
            ("process: {name: x, user: 'app:app'}", "account-malformed", ".process.user", "without ':'"),
            (f"account: {{user: {EMPTY}}}", "rule-empty", ".account.user", "set the value"),
            (f"packages: {{absent: [gcc, {EMPTY}]}}", "rule-empty", ".packages.absent[1]", "set the value"),
            ("image: {}", "check-empty", ".image", "entrypoint"),
            ("image: {labels: {}}", "check-empty", ".image", "entrypoint"),
            ("image: {labels: {a: []}}", "rule-empty", ".image.labels.a", "is, matches"),
            ("file: {path: /x, size: {min: big}}", "number-malformed", ".file.size.min", "K, M"),
            ("file: {path: /x, size: {max: '{{ nam }}'}}", "template-undefined", ".file.size.max", "'name'"),
            ("file: {path: x}", "path-malformed", ".file.path", "/x"),
            ("file: {path: /x, absent: true, mode: '0600'}", "check-contradiction", ".file", "absent"),
            ("file: {path: /x, type: directry}", "value-unknown", ".file.type", "'directory'"),
            ("listening: [http]", "port-malformed", ".listening[0]", "65535"),
            ("listening: all", "type-wrong", ".listening", ""),
            ("account: {user: a, group: b}", "check-contradiction", ".account", "one of"),
            ("account: {group: b, uid: 1}", "check-key-misplaced", ".account.uid", "remove"),
            ("account: {group: b, uid: 0}", "check-key-misplaced", ".account.uid", "remove"),
            ("account: {group: b, groups: []}", "check-key-misplaced", ".account.groups", "remove"),
            ("account: {user: b, absent: true, uid: 0}", "check-contradiction", ".account", "remove 'absent'"),
            ("packages: {}", "check-empty", ".packages", "present"),
            ("restart: same_data", "value-unknown", ".restart", "'same-data'"),
            ("log: x, socket: /y", "check-kind", "", "exactly one of"),
        ],
    )
    def test_what_makes_no_sense_is_explained(
        self, tmp_path: Path, check: str, code: str, place: str, hint: str
    ) -> None:
        problem = only_problem(tmp_path, f"smoke:\n  checks:\n    - {{name: a, {check}}}\n")
        assert (problem.code, problem.place) == (code, f"demo.yaml:11: smoke.checks[0]{place}")
        assert hint in (problem.hint or "")

    def test_a_pattern_that_may_not_be_found_stays(self, tmp_path: Path) -> None:
        """What it is searched for in need not be there; it is made by a template; or another text lacks it."""
        good(
            tmp_path,
            r"""
            values: {said: ".*"}
            smoke:
              ready: {log: ".*"}
              checks:
                - {name: a, command: [x], expect: {stdout: "^$", stderr: "{{ said }}"}}
                - {name: b, http: {port: 1}, expect: {headers: {ETag: ".*"}, body: {json: $.a, matches: ".*"}}}
                - {name: h, http: {port: 1}, expect: {status: ".*"}}
                - {name: c, file: {path: /x, text: ".*"}}
                - {name: d, image: {labels: {a: {matches: ".*"}}}}
                - {name: e, port: 1, expect: {stdout: ".*"}}
                - {name: f, log: {matches: \S, lacks: "^x*$"}}
                - {name: g, process: {command: ".*", count: 2}}
            """,
        )

    def test_what_is_asked_of_an_empty_text_stays(self, tmp_path: Path) -> None:
        """An empty text can be wrong where it is compared; only a pattern is found in anything."""
        checks = good(
            tmp_path,
            f"""
            smoke:
              checks:
                - {{name: a, command: [x], expect: {{stdout: {{is: ""}}, stderr: {{is: {EMPTY}}}}}}}
                - {{name: b, command: [x, "", {EMPTY}], expect: {{stdout_is: ""}}}}
                - {{name: c, process: {{user: 0, count: 2}}}}
                - {{name: d, image: {{exposed_ports: [], labels: {{a: ""}}}}}}
            """,
        ).smoke.checks
        assert (checks[0].expect.stdout, checks[0].expect.stderr) == ((Rule(equals=""),), (Rule(equals=""),))
        assert checks[1].command == ("x", "", "") and checks[1].expect.stdout == (Rule(equals=""),)
        assert checks[2].subject == ProcessFacts(user="0", count=(Rule(equals="2"),))
        assert checks[3].subject == ImageFacts(exposed_ports=(), labels=(("a", (Rule(equals=""),)),))

    @pytest.mark.parametrize(
        ("smoke", "code", "place"),
        [
            ("neighbours: {misbehave: [flood]}, checks: [{name: a, log: x}]", "neighbours-silent", "smoke.neighbours"),
            (
                "neighbours: {misbehave: [fork]}, checks: [{name: a, port: 1}]",
                "neighbours-unlimited",
                "smoke.neighbours.misbehave",
            ),
            ("variants: [readonly], checks: [{name: a, port: 1}]", "value-unknown", "smoke.variants[0]"),
        ],
    )
    def test_a_plan_that_makes_no_sense_is_explained(self, tmp_path: Path, smoke: str, code: str, place: str) -> None:
        problem = only_problem(tmp_path, f"smoke: {{{smoke}}}\n")
        assert (problem.code, problem.place) == (code, f"demo.yaml:9: {place}")

    def test_every_example_of_the_documentation_loads_and_every_kind_has_one(self, tmp_path: Path) -> None:
        docs = Path(__file__).parents[3] / "docs"
        text = (docs / "smoke.md").read_text() + (docs / "checks.md").read_text()
        kinds = set()
        for example in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
            path = tmp_path / "demo.yaml"
            path.write_text(
                "name: demo\nversion: '1'\nplatform: local\nlayers: [{name: base, packages: [bash]}]\n"
                f"image: {{entrypoint: [/app]}}\n{example}"
            )
            kinds |= {check.kind for check in load_recipe(path).smoke.checks}
        assert kinds == set(CheckKind)
