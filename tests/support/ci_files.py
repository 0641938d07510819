"""The shell that is in files for CI, read from these files, and run as that CI would run it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tree_sitter
import tree_sitter_groovy
import yaml

from tests.support.patience import HUNG
from tests.system.conftest import ROOT

EXAMPLES = ROOT / "ci" / "examples"
WORKFLOWS = (EXAMPLES / "github" / "nightly.yml", EXAMPLES / "github" / "check.yml")
PIPELINE = EXAMPLES / "gitlab" / ".gitlab-ci.yml"
JENKINSFILE = EXAMPLES / "jenkins" / "Jenkinsfile"
UNITS = EXAMPLES / "systemd"
SCRIPTS = tuple(sorted(EXAMPLES.glob("*.sh")))

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of shell: its name, the shell's command line, what is in its environment beside what CI gives to all,
    and under which condition it is run ("": as long as nothing failed)."""

    name: str
    shell: tuple[str, ...]
    script: str
    environment: Mapping[str, str] = field(default_factory=dict)
    condition: str = ""
    id: str = ""


# --- GitHub ----------------------------------------------------------------------------------------------


def workflow(path: Path) -> dict[Any, Any]:
    """A workflow as YAML."""
    value: dict[Any, Any] = yaml.safe_load(path.read_text())
    return value


def workflow_steps(path: Path, job: str, known: Mapping[str, str]) -> list[Step]:
    """The steps of a job that run shell. `known`: what expressions come to (`secrets.NAME`, `vars.NAME`, …)."""
    value = workflow(path)
    of_job = value["jobs"][job]
    assert of_job["defaults"]["run"]["shell"] == "bash"
    return [
        Step(
            step["name"],
            ("bash", "--noprofile", "--norc", "-eo", "pipefail"),
            step["run"],
            {
                name: _EXPRESSION.sub(lambda found: known[found[1]], str(text))
                for name, text in {**value.get("env", {}), **of_job.get("env", {}), **step.get("env", {})}.items()
            },
            str(step.get("if", "")),
            step.get("id", ""),
        )
        for step in of_job["steps"]
        if "run" in step
    ]


# --- GitLab ----------------------------------------------------------------------------------------------


def gitlab_job(name: str) -> dict[str, Any]:
    """A job with what it extends."""
    value = yaml.safe_load(PIPELINE.read_text())

    def whole(job: str) -> dict[str, Any]:
        own = value[job]
        return _merged(whole(own["extends"]), own) if "extends" in own else own

    return _merged({"variables": value["variables"], **value["default"]}, whole(name))


def _merged(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(lower[key], upper[key])
        for key in lower.keys() & upper.keys()
        if isinstance(lower[key], dict) and isinstance(upper[key], dict)
    }
    return {**lower, **upper, **both}


def gitlab_step(name: str, given: Mapping[str, str]) -> Step:
    """What a job runs, in one shell as the runner does. `given`: what CI sets, which its variables may name."""
    job = gitlab_job(name)
    variables: dict[str, str] = {}
    for key, text in job["variables"].items():
        variables[key] = re.sub(r"\$([A-Z_]+)", lambda found: variables.get(found[1]) or given[found[1]], str(text))
    lines = [*job.get("before_script", ()), *job["script"]]
    return Step(name, ("bash", "-eo", "pipefail"), "\n".join(lines), variables)


# --- Jenkins ---------------------------------------------------------------------------------------------


def groovy(source: bytes) -> tree_sitter.Node:
    """Groovy as its grammar sees it."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_groovy.language()))
    return parser.parse(source).root_node


def jenkins_tree() -> tree_sitter.Node:
    """The Jenkinsfile."""
    return groovy(JENKINSFILE.read_bytes())


def nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """A node and all below it, in order."""
    yield node
    for child in node.children:
        yield from nodes(child)


def text_of(node: tree_sitter.Node | None) -> str:
    """The source that a node stands for."""
    assert node is not None and node.text is not None
    return node.text.decode()


def jenkins_calls(node: tree_sitter.Node, name: str) -> Iterator[tree_sitter.Node]:
    """Calls of a name below a node."""
    for one in nodes(node):
        if one.type in ("method_invocation", "juxt_function_call") and text_of(one.children[0]) == name:
            yield one


def jenkins_steps(stage: str, given: Mapping[str, str]) -> list[Step]:
    """What the `sh` steps of a stage run, with the environment blocks around them. `given`: what Jenkins sets."""
    tree = jenkins_tree()
    (found,) = [call for call in jenkins_calls(tree, "stage") if f"'{stage}'" in text_of(call.children[1])]
    blocks = list(jenkins_calls(tree, "environment"))
    around = [one for one in blocks if one.start_byte < found.start_byte and one.end_byte < found.start_byte]
    outermost = [one for one in around if not any(_within(one, call) for call in jenkins_calls(tree, "stage"))]
    environment: dict[str, str] = {}
    for block in (*outermost, *jenkins_calls(found, "environment")):
        for name, quoted in re.findall(r"^\s*([A-Z_]+) = (.+)$", text_of(block), re.MULTILINE):
            environment[name] = re.sub(r"\$\{env\.([A-Z_]+)\}", lambda one: given[one[1]], quoted[1:-1])
    steps = []
    for call in jenkins_calls(found, "sh"):
        literal = text_of(call.children[1])
        quote = "'''" if literal.startswith("'''") else "'"
        steps.append(Step(stage, ("sh", "-xe"), literal.removeprefix(quote).removesuffix(quote), environment))
    return steps


def _within(inner: tree_sitter.Node, outer: tree_sitter.Node) -> bool:
    return bool(outer.start_byte <= inner.start_byte and inner.end_byte <= outer.end_byte)


# --- systemd ---------------------------------------------------------------------------------------------


def unit_lines(name: str) -> list[tuple[str, str]]:
    """The settings of a unit, in order, without sections."""
    lines = (UNITS / name).read_text().splitlines()
    return [
        (key, value) for key, equals, value in (line.partition("=") for line in lines if line[:1] not in "#[") if equals
    ]


def service_step(specifiers: Mapping[str, str], environment_file: Path) -> Step:
    """What the service runs. `specifiers`: what `%C` and the like come to on this machine; `environment_file` stands
    where EnvironmentFile says."""
    environment: dict[str, str] = {}
    command = ""
    for key, value in unit_lines("relbuild-nightly.service"):
        expanded = re.sub(r"%(.)", lambda found: specifiers[found[1]], value)
        if key == "Environment":
            environment |= dict(word.split("=", 1) for word in expanded.split())
        elif key == "EnvironmentFile":
            lines = environment_file.read_text().splitlines()
            environment |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        elif key == "ExecStart":
            command = expanded
    return Step("ExecStart", ("bash", "-e"), f"exec {command}", environment)


# --- running ---------------------------------------------------------------------------------------------


def run(step: Step, at: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A step in a shell of its own, run `at` a place. `environment` is what CI gives to every step."""
    return subprocess.run(
        [*step.shell, "-c", step.script],
        cwd=at,
        env={"PATH": os.environ["PATH"], **environment, **step.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HUNG,
        check=False,
    )
