"""The command lines of kubectl by which pods are launched and watched.

They are written by kubectl's reference (kubernetes.io/docs/reference/kubectl) and held by unit tests. No test
launches a pod on a real cluster.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.launchers.launcher_options import shown_options

CONTAINER = "tested"
"""The name of the only container of a pod."""

CLUSTER_QUESTION = ("get", "namespace", "kube-system", "--output", "jsonpath={.metadata.uid}")
"""Arguments that print what is another for each cluster, and stays for its life: the uid of a namespace of its own."""

_HANDED_ON = ("HOME", "KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
"""Variables by which kubectl finds its cluster: the file of contexts, or the pod that relbuild runs in."""

_REMOVAL_TIMEOUT = "50s"
"""The time that a pod may take to be gone; less than commands of removals get."""


def with_variables(program: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the beginning of kubectl's command line, with the variables that it needs.

    They are on the command line because the reaper, which has no environment, executes the removals. It has another
    working directory as well, so that files are given absolutely.
    """
    told = {name: environment[name] for name in _HANDED_ON if environment.get(name)}
    if "KUBECONFIG" in told:
        files = [os.path.abspath(one) for one in told["KUBECONFIG"].split(":") if one]  # noqa: PTH100  not resolved
        told["KUBECONFIG"] = ":".join(files)
    given = [f"{name}={value}" for name, value in told.items()]
    return ("env", *given, program) if given else (program,)


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl by its command line, with global options such as `--context` and `--namespace`.

    `version` is the cluster's, `cluster` what identifies it ("": not known), `options` those of the command line that
    an operator gave.
    """

    command: tuple[str, ...]
    version: str = ""
    cluster: str = ""
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        which = f"kubernetes {self.version} (cluster {self.cluster or 'not identified'})"
        return " ".join((which, *filter(None, [shown_options(self.options)])))

    def within(self, folder: Path) -> Kubectl:
        """Return it with its cache in a sandbox's folder.

        So its processes name the folder, by which they are found and ended if relbuild is killed.
        """
        return replace(self, command=(*self.command, "--cache-dir", f"{folder}/kubectl"))

    def create(self) -> list[str]:
        """Return the command that creates what its stdin describes."""
        return [*self.command, "create", "--filename", "-"]

    def watch(self, pod: str) -> list[str]:
        """Return the command that prints a pod, and it again after each change, as JSON."""
        return [*self.command, "get", "pod", pod, "--watch", "--output-watch-events", "--output", "json"]

    def exists(self, pod: str) -> list[str]:
        """Return the command that succeeds if there is a pod."""
        return [*self.command, "get", "pod", pod, "--output", "name"]

    def look_up(self, pod: str) -> list[str]:
        """Return the command that prints a pod's name, or nothing if there is none."""
        return [*self.command, "get", "pod", pod, "--ignore-not-found", "--output", "name"]

    def logs(self, pod: str) -> list[str]:
        """Return the command that prints the pod's output until it ends."""
        return [*self.command, "logs", "--follow", pod, "--container", CONTAINER]

    def execute(self, pod: str, argv: Sequence[str]) -> list[str]:
        """Return the command that executes a program in a pod, with this process's stdin."""
        return [*self.command, "exec", "--stdin", pod, "--container", CONTAINER, "--", *argv]

    def forward(self, pod: str, port: int) -> list[str]:
        """Return the command that forwards a free port of this machine's loopback, which it prints."""
        return [*self.command, "port-forward", "--address", "127.0.0.1", f"pod/{pod}", f":{port}"]

    def delete(self, pod: str, grace: int) -> list[str]:
        """Return the command that has a pod stopped by its image's signal.

        It is killed after `grace` seconds.
        """
        options = ("--ignore-not-found", "--grace-period", str(grace), "--wait=false")
        return [*self.command, "delete", "pod", pod, *options]

    def remove(self, pod: str) -> list[str]:
        """Return the command that removes a pod, and waits until it is gone."""
        options = ("--ignore-not-found", "--grace-period", "1", "--timeout", _REMOVAL_TIMEOUT)
        return [*self.command, "delete", "pod", *options, pod]
