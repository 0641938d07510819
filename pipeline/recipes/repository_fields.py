"""Models of a repository, a dnf `.repo` file and secrets in `repositories.yaml`.

Options that dnf has too are called as in dnf.conf(5).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from pipeline.model.platform import SECRET_PREFIX, RepositoryAccess, SecretReference
from pipeline.model.quantities import Malformed
from pipeline.model.signing_key import AcceptedSignature
from pipeline.recipes.fields import Line, Strict, checked, choice, refusal, text_of_form
from pipeline.urls import parse_url

RepositoryId = Annotated[
    str,
    checked(
        text_of_form(
            r"[A-Za-z0-9][A-Za-z0-9_.:-]*",
            "name-malformed",
            "the id of a repository",
            "use letters, digits, '-._:'",
        )
    ),
]
Location = Annotated[
    str,
    checked(
        text_of_form(
            r"(https?|file)://\S+",
            "url-malformed",
            "a URL",
            "write a URL that begins with https://, http:// or file://",
        )
    ),
    WithJsonSchema({"type": "string"}),
]


def _verified(value: object) -> object:
    if value is False:
        raise Malformed(
            "tls-unverified",
            "'sslverify: false' is refused: without its certificate anybody can be the server",
            "trust its authority: sslcacert: FILE",
        )
    return value


def _secret_file(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise Malformed(  # without the value: it may be the secret itself
            "name-malformed",
            "the name of a file with a secret is expected here",
            "write a name without '/': it lies in ~/.config/relbuild/secrets, or in $RELBUILD_SECRETS",
        )
    return value


def _secret_variable(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(rf"{SECRET_PREFIX}[A-Za-z0-9_]+", value):
        raise Malformed(  # without the value: it may be the secret itself
            "variable-not-offered",
            f"a secret is taken from variables alone whose names begin with {SECRET_PREFIX}",
            f"rename it to {SECRET_PREFIX}NAME, here and where it is set; the secret itself does not stand here",
        )
    return value


def _bare_proxy(value: object) -> object:
    url = parse_url(value) if isinstance(value, str) else None
    if url is None or url.scheme not in {"http", "https"} or not url.host:
        raise Malformed("url-malformed", "the URL of an HTTP proxy is expected here", "write http://HOST:PORT")
    if url.userinfo:
        raise Malformed(
            "secret-written",
            "credentials of the proxy do not stand in this file",
            "write proxy_username and proxy_password",
        )
    return value


class SecretDocument(Strict):
    """The place of a secret: exactly one of the two.

    It never stands in `repositories.yaml` itself.
    """

    file: (
        Annotated[
            str,
            checked(_secret_file),
        ]
        | None
    ) = Field(
        default=None,
        description="a file of `$RELBUILD_SECRETS`, else of `~/.config/relbuild/secrets`, with it on its only line",
    )
    environment: Annotated[str, checked(_secret_variable)] | None = Field(
        default=None, description=f"name of an environment variable that begins with {SECRET_PREFIX}"
    )


def _not_written(value: object) -> object:
    if isinstance(value, str):
        hint = f"write {{file: NAME}} for a file of the folder of secrets, or {{environment: {SECRET_PREFIX}NAME}}"
        raise refusal("secret-written", "a password does not stand in this file", hint)
    if isinstance(value, dict) and len(value) != 1:
        raise refusal("secret-malformed", "a secret has one place", "write exactly one of file, environment")
    return value


Secret = Annotated[SecretDocument, BeforeValidator(_not_written)]


def _user_kind(value: object) -> str:
    return "<secret>" if isinstance(value, dict | SecretDocument) else "<text>"


UserName = Annotated[Annotated[Line, Tag("<text>")] | Annotated[Secret, Tag("<secret>")], Discriminator(_user_kind)]


class Certificates(Strict):
    """The keys that say what is trusted of, and shown to, a repository's servers."""

    sslcacert: Line | None = Field(
        default=None, description="file of the authorities that its servers are known by; default: the machine's"
    )
    sslclientcert: Line | None = Field(
        default=None,
        description="file of the certificate that is shown to them; of a pattern the newest valid one with a key",
        examples=["/etc/pki/entitlement/*.pem"],
    )
    sslclientkey: Line | None = Field(
        default=None, description="file of its key; default: `NAME-key.pem` beside `NAME.pem`, else the same file"
    )


_NETRC = "log in as `$NETRC`, else `~/.netrc`, says for the hosts that the definition names; by https alone"
_NEGOTIATE = (
    "log in there with a Kerberos ticket of whoever runs relbuild (SPNEGO), with the extra `kerberos`; by https alone"
)


class _Access(Certificates):
    """The keys that say how a repository's servers are reached."""

    sslverify: Annotated[bool, checked(_verified)] = Field(
        default=True, description="only `true`: servers are always verified"
    )
    username: UserName | None = Field(
        default=None, description="for basic authentication at the hosts that the definition names"
    )
    password: Secret | None = Field(default=None, description="for basic authentication")
    token: Secret | None = Field(default=None, description="bearer token for the hosts that the definition names")
    netrc: bool = Field(default=False, description=_NETRC)
    negotiate: bool = Field(default=False, description=_NEGOTIATE)
    proxy: Annotated[str, checked(_bare_proxy)] | None = Field(
        default=None, description="URL of a proxy; default: that of the environment"
    )
    proxy_username: UserName | None = Field(default=None, description="for the proxy")
    proxy_password: Secret | None = Field(default=None, description="for the proxy")


def _fingerprint(value: object) -> object:
    text = re.sub(r"\s", "", value).upper() if isinstance(value, str) else ""
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", text):
        raise Malformed(
            "fingerprint-malformed",
            f"'{value!s:.80}' is not the fingerprint of an OpenPGP key",
            "write its 40 hexadecimal digits (64 for OpenPGP v6), in quotes",
        )
    return text


Fingerprints = list[Annotated[str, checked(_fingerprint), WithJsonSchema({"type": "string"})]]
Accepted = list[Annotated[AcceptedSignature, choice(AcceptedSignature, "a kind of signature")]]

_FINGERPRINTS = (
    "fingerprints of the primary keys that are trusted, whatever else `keys` bring; default: all that they bring"
)
_ACCEPTED = (
    "signatures that are refused otherwise: `legacy-header-payload` (packages as rpm made them before 4.14, whose "
    "payload only a signature over header and payload covers), `sha1` (signatures over SHA-1)"
)


class _Content(Strict):
    """The keys that say where a repository is, and what of it counts."""

    id: RepositoryId = Field(description="what it is called", examples=["baseos"])
    baseurls: list[Location] = Field(default=[], description="URLs of the folder that holds `repodata/`")
    metalink: Location | None = Field(default=None, description="URL of a metalink; variables in its URLs are replaced")
    mirrorlist: Location | None = Field(
        default=None,
        description="URL of a list of mirrors; variables that it holds are replaced, but for those of the environment "
        "and of `dnf-vars`",
    )
    keys: list[Line] = Field(
        min_length=1,
        description="paths or URLs of files of the OpenPGP keys that sign its packages, armored or binary; no others "
        "are trusted; a relative path is beside `repositories.yaml`, and does not lead out of its folder",
    )
    priority: Annotated[int, Field(ge=1, le=999)] = Field(
        default=99, description="of two repositories that have a package, the lower number wins"
    )
    cost: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="of two that have the same package, the cheaper wins"
    )
    signed_metadata: bool = Field(
        default=False, alias="signed-metadata", description="demand a good signature of `repomd.xml`"
    )
    exclude: list[Line] = Field(
        default=[], description="packages of it that are never seen, written as in the check `packages`"
    )
    excludepkgs: list[Line] = Field(default=[], description="the same, as dnf spells it")
    includepkgs: list[Line] = Field(
        default=[], description="if given, the only packages of it that are seen; `exclude` takes of these away"
    )
    module_hotfixes: bool = Field(default=False, description="modules hide none of its packages")
    enabled: bool = Field(default=True, description="`false` leaves it out of the platform")
    fingerprints: Fingerprints = Field(default=[], description=_FINGERPRINTS)
    accept: Accepted = Field(default=[], description=_ACCEPTED)


class RepositoryDocument(_Access, _Content):
    """One repository. Exactly one of `baseurls`, `metalink`, `mirrorlist` says where it is.

    Options that dnf has too are called as in dnf.conf(5).
    """

    @property
    def access(self) -> RepositoryAccess:
        """The means of reaching its servers."""
        return RepositoryAccess(
            sslcacert=self.sslcacert or "",
            sslclientcert=self.sslclientcert or "",
            sslclientkey=self.sslclientkey or "",
            username=_user(self.username),
            password=_reference(self.password),
            token=_reference(self.token),
            netrc=self.netrc,
            negotiate=self.negotiate,
            proxy=self.proxy or "",
            proxy_username=_user(self.proxy_username),
            proxy_password=_reference(self.proxy_password),
        )


class RepositoryFileDocument(Certificates):
    """A `.repo` file of dnf as it stands, in place of a repository.

    Its sections become repositories. What each of its options does is in [repositories.md](repositories.md).
    Certificates of another machine's file are replaced by those given here.
    """

    file: Line = Field(
        description="the file, relative to `repositories.yaml` or from the root",
        examples=["/etc/yum.repos.d/redhat.repo"],
    )
    sections: list[Line] = Field(
        default=[],
        description="ids of the sections to take, or patterns, enabled or not; default: those that are enabled",
    )
    keys: list[Line] = Field(
        default=[], description="paths or URLs of the OpenPGP keys that sign its packages, in place of its `gpgkey`"
    )
    fingerprints: Fingerprints = Field(default=[], description="as `fingerprints` of a repository, for all sections")
    accept: Accepted = Field(default=[], description="as `accept` of a repository, for all sections")
    netrc: bool = Field(default=False, description="as `netrc` of a repository, for sections without `username`")
    negotiate: bool = Field(default=False, description="as `negotiate` of a repository, for these sections too")


def _repository_kind(value: object) -> str:
    file = isinstance(value, RepositoryFileDocument) or (isinstance(value, dict) and "file" in value)
    return "<file>" if file else "<repository>"


RepositoryItem = Annotated[
    Annotated[RepositoryDocument, Tag("<repository>")] | Annotated[RepositoryFileDocument, Tag("<file>")],
    Discriminator(_repository_kind),
]


def _reference(document: SecretDocument | None) -> SecretReference | None:
    return SecretReference(file=document.file or "", environment=document.environment or "") if document else None


def _user(document: str | SecretDocument | None) -> str | SecretReference:
    return document if isinstance(document, str) else _reference(document) or ""
