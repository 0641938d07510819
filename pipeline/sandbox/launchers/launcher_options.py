"""Options of a launcher's program: refused with a secret, shown in reports and evidence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from pipeline.digest import Digest
from pipeline.errors import UsageError

_SECRET = re.compile(r"--?[a-z0-9-]*(token|passw(or)?d|secret|credential)[a-z0-9-]*(?<!-file)", re.IGNORECASE)
"""Options whose value is a secret, such as `--token` of kubectl; not those that name a file."""

_PASSWORD_IN_URL = re.compile(r"://[^/\s]*:[^/\s]*@")

_SHOWN = 300
"""Characters of options that reports and evidence show: those that are known have a hundred."""


def require_no_secrets(options: Sequence[str]) -> None:
    """Refuse options with a secret.

    They would be on command lines that every user of the machine sees, and in the files by which a killed relbuild's
    containers are removed. Raises UsageError `launcher-secret`.
    """
    for option in options:
        name = option.partition("=")[0]
        if _SECRET.fullmatch(name):
            what = f"the launcher's option '{name}' has"
        elif _PASSWORD_IN_URL.search(option):
            what = "a URL among the launcher's options has"
        else:
            continue
        raise UsageError(
            "launcher-secret",
            f"{what} a secret, which every user of this machine would see on its command lines",
            hint="put it into a file that only you may read: a kubeconfig (KUBECONFIG, or --kubeconfig FILE), or the "
            "engine's own configuration",
        )


def shown_options(options: Sequence[str]) -> str:
    """Return options as text on one line; of long ones the beginning, and a digest of all."""
    text = shlex.join(options)
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    if len(text) <= _SHOWN:
        return text
    digest = Digest.of("\0".join(options).encode(errors="surrogateescape"))
    return f"{text[:_SHOWN]}… sha256:{digest.hex[:16]}"
