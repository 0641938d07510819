"""Select the environment variables that are sent to a cluster's workers.

Only variables that relbuild reads are sent: a worker needs those for repositories, registries and the key's password.
Others of a CI job (credentials of clouds and of forges, tokens) stay on the machine that started the night.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import UsageError
from pipeline.model.absolute_path import absolute
from pipeline.model.platform import SECRET_PREFIX
from pipeline.nightly.night_key import NIGHT_PASSWORD_VARIABLES


class VariableKind(Enum):
    """Kind of value of a variable: a path is made absolute before it is sent."""

    TEXT = "text"
    PATH = "path"


READ_VARIABLES: Mapping[str, VariableKind] = MappingProxyType(
    {
        # `pipeline.transfer.network`
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), VariableKind.TEXT),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), VariableKind.TEXT),
        **dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE"), VariableKind.PATH),
        **dict.fromkeys(("RELBUILD_TIMEOUT", "RELBUILD_MINRATE"), VariableKind.TEXT),
        # `pipeline.transfer.token_servers`
        "RELBUILD_TOKEN_SERVERS": VariableKind.TEXT,
        # `pipeline.transfer.credentials`, `pipeline.transfer.certificates`, `~` in `pipeline.repos.variables`
        "REGISTRY_AUTH_FILE": VariableKind.PATH,
        # `pipeline.transfer.netrc_logins`: where it is, not what is in it
        "NETRC": VariableKind.PATH,
        **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"), VariableKind.PATH),
        # `pipeline.repos.repository_access`: the folder, not what is in it
        "RELBUILD_SECRETS": VariableKind.PATH,
        # `pipeline.nightly.night_key`
        **dict.fromkeys(NIGHT_PASSWORD_VARIABLES, VariableKind.TEXT),
    }
)
"""Every variable that the library reads by a name of its own. A test holds it against the code."""


def sent_environment(environment: Mapping[str, str], named: Collection[str]) -> dict[str, str]:
    """Return the variables of `environment` that are sent to workers.

    They are those that relbuild reads, and those `named` by the definitions of repositories and by `--send-env`.
    Raises UsageError `secret-not-sent` for a variable with a repository's secret.
    """
    sent: dict[str, str] = {}
    secret = sorted(name for name in named if name.startswith(SECRET_PREFIX))
    if secret:
        raise UsageError(
            "secret-not-sent",
            f"{secret[0]} holds a secret of a repository, which is not sent to workers",
            place=secret[0],
            hint="put it into a file of $RELBUILD_SECRETS on the workers, and name that in repositories.yaml",
        )
    for name, value in environment.items():
        if name in READ_VARIABLES:
            path = READ_VARIABLES[name] is VariableKind.PATH and value
            sent[name] = str(absolute(Path(value))) if path else value
        elif name in named:
            sent[name] = value
    return sent
