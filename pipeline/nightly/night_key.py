"""Load a night's signing key, with its password from the environment, without a prompt."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import EnvironmentLacking
from pipeline.nightly.job import RunSettings
from pipeline.oci import SigningKey, load_signing_key
from pipeline.progress import Progress

NIGHT_PASSWORD_VARIABLES = ("RELBUILD_KEY_PASSWORD", "COSIGN_PASSWORD")
"""Environment variables that may hold the password of the signing key, in this order."""


def load_night_key(settings: RunSettings, progress: Progress) -> SigningKey:
    """Load the signing key, with its password from the environment.

    Raises UsageError, EnvironmentLacking.
    """
    assert settings.key is not None
    return load_signing_key(settings.key, password_from_environment(settings), progress=progress)


def password_from_environment(settings: RunSettings) -> Callable[[], bytes]:
    """Return a function that reads the key's password from the environment."""

    def ask() -> bytes:
        for name in NIGHT_PASSWORD_VARIABLES:
            if name in settings.environment:
                return settings.environment[name].encode()
        raise EnvironmentLacking(
            "key-password-missing",
            "the key has a password, which nightly does not prompt for",
            place=str(settings.key),
            hint=f"set the environment variable {NIGHT_PASSWORD_VARIABLES[0]}",
        )

    return ask
