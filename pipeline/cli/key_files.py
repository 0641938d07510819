"""Load the signing and verifying keys that options name, asking for their passwords."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import typer

from pipeline.cli.app import CommandContext
from pipeline.cli.path_arguments import require_key_file, require_present_key
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.oci import SigningKey, VerifyingKey, load_signing_key, load_verifying_key

PASSWORD_VARIABLES = ("RELBUILD_KEY_PASSWORD", "COSIGN_PASSWORD")
"""Environment variables that may hold the password of a key, in this order."""


def password(path: Path, environment: Mapping[str, str], *, public: str = "") -> Callable[[], bytes]:
    """Return a function that gets a key's password from the environment or the terminal.

    `public`: what takes the public key as well, which has no password, for the error where there is none.
    """

    def ask() -> bytes:
        for name in PASSWORD_VARIABLES:
            if name in environment:
                return environment[name].encode()
        if not sys.stdin.isatty():
            also = f"; {public} takes the public key too, which has none: {_public_half(path)}" if public else ""
            raise EnvironmentLacking(
                "key-password-missing",
                "the key has a password, and there is no terminal to prompt for it",
                place=str(path),
                hint=f"set {PASSWORD_VARIABLES[0]} in the environment{also}",
            )
        try:
            return str(typer.prompt(f"password of {path}", hide_input=True, err=True)).encode()
        except typer.Abort as ended:
            if not isinstance(ended.__context__, EOFError):  # Ctrl-C ends the command.
                raise
            raise EnvironmentLacking(
                "key-password-missing",
                "the key has a password, and none was entered",
                place=str(path),
                hint=f"enter it, or set {PASSWORD_VARIABLES[0]} in the environment",
            ) from None

    return ask


def _public_half(path: Path) -> str:
    """Return the option for the public key, which `keygen` and cosign write beside it."""
    return f"--key {path.with_suffix('.pub')}"


def open_signing_key(path: Path, context: CommandContext) -> SigningKey:
    """Load a private key file. Raises UsageError, EnvironmentLacking."""
    require_key_file(path)
    return load_signing_key(path, password(path, context.environment), progress=context.progress)


def open_verifying_key(path: Path, context: CommandContext) -> VerifyingKey:
    """Load a public key file, or the public half of a private one.

    Raises UsageError, EnvironmentLacking.
    """
    require_key_file(path)
    ask = password(path, context.environment, public="verifying")
    return load_verifying_key(path, ask, progress=context.progress)


def open_former_keys(paths: Sequence[Path] | None, context: CommandContext) -> tuple[VerifyingKey, ...]:
    """Load public key files of a publisher's former keys. Raises UsageError, EnvironmentLacking."""
    return tuple(open_verifying_key(path, context) for path in paths or ())


def open_trusted_keys(path: Path, former: Sequence[Path] | None, context: CommandContext) -> VerifyingKey:
    """Load a public key file, with those of former keys whose signatures count as well.

    Raises UsageError, EnvironmentLacking.
    """
    return replace(open_verifying_key(path, context), former=open_former_keys(former, context))


def open_optional_keys(
    path: Path | None, former: Sequence[Path] | None, context: CommandContext
) -> VerifyingKey | None:
    """Load a public key file, if one is given, as `open_trusted_keys` does.

    Raises UsageError `key-missing` for former keys without a present one, EnvironmentLacking.
    """
    require_present_key(path, former)
    return open_trusted_keys(path, former, context) if path is not None else None


def open_either_key(path: Path, context: CommandContext) -> SigningKey | VerifyingKey:
    """Load a private key file, or a public one. Raises UsageError, EnvironmentLacking."""
    try:
        return open_signing_key(path, context)
    except UsageError as error:
        if error.code != "key-not-private":
            raise
    return open_verifying_key(path, context)
