"""Parsing of `--env`, and the error of an option that is written wrongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.errors import UsageError


def environment_options(env: Sequence[str], surroundings: Mapping[str, str]) -> dict[str, str]:
    """Parse the options `--env`; `surroundings` is relbuild's environment. Raises UsageError."""
    return dict(_variable(text, surroundings) for text in env)


def _variable(text: str, surroundings: Mapping[str, str]) -> tuple[str, str]:
    """Parse NAME=VALUE, or NAME with relbuild's own value.

    The latter keeps secrets off the command line, which every user's `ps` shows.
    """
    name, separator, value = text.partition("=")
    if not name or not name.isprintable() or any(map(str.isspace, name)):
        # Of a name with a blank the text before it is meant, or an option: no program finds such a variable.
        shown = f"{name}=…" if separator else name
        raise malformed_option(
            "--env", shown if name else text, "NAME=VALUE, or NAME for its value in this environment; no blank in NAME"
        )
    if separator:
        return name, value
    if name not in surroundings:
        raise UsageError(
            "variable-missing",
            f"--env {name}: the environment variable is not set",
            hint=f"export {name}=… first, or write --env {name}=VALUE",
        )
    return name, surroundings[name]


def malformed_option(option: str, text: str, form: str) -> UsageError:
    """Return the error of an option's value that is not of the form `form`."""
    return UsageError("option-malformed", f"invalid {option} '{text}'", hint=f"write {option} {form}")
