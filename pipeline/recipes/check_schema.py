"""The part of the recipe document that asks: what a check or `ready` may say, key by key.

A value that an answer is held against is a rule (`RuleDocument`), or short for one: a text, a number, or a list of
rules that must all hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema, create_model

from pipeline.model.checks import Restart
from pipeline.model.checks.file_check import FileSort
from pipeline.model.image_keys import IMAGE_KEYS
from pipeline.model.jsonpath import parse_path
from pipeline.model.quantities import Malformed
from pipeline.model.smoke import Misbehaviour, Variant
from pipeline.recipes.fields import (
    Duration,
    ExposedPort,
    FileMode,
    ImageUser,
    Line,
    Named,
    Owner,
    Pattern,
    Port,
    Sha256,
    SignalName,
    Strict,
    TargetPath,
    TextValue,
    checked,
    choice,
    kind_of_value,
)
from pipeline.recipes.image_fields import check_field


def _plain(value: object) -> object:
    """Text, or a number or a truth as the text that an answer would show."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise Malformed(
            "type-wrong", f"text or a number is expected here, not {kind_of_value(value)}", "write one value"
        )
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Malformed(
            "type-wrong", f"a number is expected here, not {kind_of_value(value)}", "write a number, or 16MiB"
        )
    return str(value)


def _path(value: object) -> object:
    if not isinstance(value, str):
        raise Malformed("type-wrong", f"a JSON path is expected here, not {kind_of_value(value)}", "write $.status")
    try:
        parse_path(value)
    except ValueError as error:
        hint = "write $.name, $['any name'], $[0], $[-1] or $.length(), one after the other"
        raise Malformed("path-malformed", str(error), hint) from None
    return value


def _rules(short: str) -> BeforeValidator:
    """Return a validator that writes out a list of rules.

    A bare text stands for the rule called `short`.
    """

    def rule(value: object) -> object:
        if isinstance(value, str):
            return {short: value}
        return {"is": value} if isinstance(value, bool | int | float) else value

    def write_out(value: object) -> object:
        return [rule(item) for item in value] if isinstance(value, list) else [rule(value)]

    return BeforeValidator(
        write_out,
        json_schema_input_type=str | int | float | bool | RuleDocument | list[str | int | float | RuleDocument],
    )


_Plain = Annotated[str, Named("text or number"), checked(_plain), WithJsonSchema({"type": ["string", "number"]})]
_Number = Annotated[str, Named("number or size"), checked(_number), WithJsonSchema({"type": ["string", "number"]})]
_JsonPath = Annotated[str, Named("JSON path"), checked(_path), WithJsonSchema({"type": "string"})]


class RuleDocument(Strict):
    """A rule for a value.

    All that is given must hold. A text in place of a rule is short for `matches` (in `target`, `environment` and
    `labels`: for `is`), a number for `is`, and a list is several rules that must all hold. A JSON path is `$`, then
    `.name`, `['any name']`, `[0]`, `[-1]` or `.length()`; it names one value.
    """

    equals: _Plain | None = Field(
        default=None, alias="is", description="the whole value, without white space at its ends", examples=["green"]
    )
    matches: Pattern | None = Field(default=None, description="a pattern that is found in it", examples=["^OK$"])
    lacks: Pattern | None = Field(default=None, description="a pattern that is not found in it", examples=["ERROR"])
    least: _Number | None = Field(default=None, alias="min", description="the least number", examples=[1])
    most: _Number | None = Field(default=None, alias="max", description="the greatest number", examples=["16MiB"])
    json_path: _JsonPath | None = Field(
        default=None,
        alias="json",
        description="parse the text as JSON, and apply the rule to the value at this path",
        examples=["$.nodes[0].status"],
    )


MatchRules = Annotated[list[RuleDocument], Named("pattern, number, [rule](#rule) or list of rules"), _rules("matches")]
ExactRules = Annotated[list[RuleDocument], Named("text, [rule](#rule) or list of rules"), _rules("is")]


class ExpectDocument(Strict):
    """The answer that is expected.

    `exit_code`, `stdout`, `stdout_is` and `stderr` of a command, `stdout` and `stdout_is` of a port or socket,
    `status`, `headers` and `body` of HTTP. Patterns are Python regular expressions, searched for in the text; one that
    takes more than 5 s of processor time counts as wrong.
    """

    exit_code: Annotated[int, Field(ge=0, le=255)] | None = Field(
        default=0, description="the command's exit status; null: any"
    )
    stdout: MatchRules | None = Field(
        default=None, description="what it prints, or what a port answers", examples=["^1$"]
    )
    stdout_is: TextValue | None = Field(default=None, description="all that it prints, without white space at the ends")
    stderr: MatchRules | None = Field(default=None, description="its error output")
    status: MatchRules | None = Field(
        default=None, description="the status of an HTTP answer; default: 200", examples=[{"min": 200, "max": 299}]
    )
    headers: dict[Line, MatchRules] = Field(
        default={}, description="headers of an HTTP answer, by name", examples=[{"Content-Type": "^text/html"}]
    )
    body: MatchRules | None = Field(
        default=None,
        description="the body of an HTTP answer",
        examples=[{"json": "$.status", "is": "green"}],
    )


class HttpDocument(Strict):
    """A request by HTTP/1.1; one of `port`, `socket`."""

    port: Port | None = Field(default=None, description="the port", examples=[8080])
    socket: TargetPath | None = Field(
        default=None, description="a unix socket in the image", examples=["/run/app.sock"]
    )
    path: TextValue = Field(default="/", description="path and query", examples=["/healthz"])
    method: Line = Field(default="GET", description="the method")
    host: Line = Field(default="localhost", description="the host that is asked for, also in TLS")
    headers: dict[Line, TextValue] = Field(default={}, description="headers more", examples=[{"Accept": "text/html"}])
    body: TextValue | None = Field(default=None, description="what is sent")
    tls: bool = Field(default=False, description="speak HTTPS; any certificate will do unless `trust` is given")
    trust: TargetPath | None = Field(
        default=None,
        description="a file in the image with the authorities (PEM) that the certificate must come from",
        examples=["/etc/pki/tls/certs/ca-bundle.crt"],
    )


class FileCheckDocument(Strict):
    """A path in the running instance.

    Its volumes and scratch file systems are included.
    """

    path: TargetPath = Field(description="where", examples=["/var/lib/mysql/ibdata1"])
    absent: bool = Field(default=False, description="nothing may stand there")
    sort: Annotated[FileSort, choice(FileSort, "a sort of file")] | None = Field(
        default=None, alias="type", description="`file`, `directory`, `symlink`, `socket`, `fifo` or `device`"
    )
    mode: FileMode | None = Field(default=None, description="permissions", examples=["0750"])
    owner: Owner | None = Field(default=None, description="user, by name or number", examples=["mysql"])
    group: Owner | None = Field(default=None, description="group, by name or number")
    size: MatchRules | None = Field(default=None, description="bytes", examples=[{"min": "1MiB"}])
    sha256: Sha256 | None = Field(default=None, description="sha256 of its content")
    text: MatchRules | None = Field(default=None, description="its content", examples=["^port=3306$"])
    target: ExactRules | None = Field(default=None, description="what a symbolic link points to")


class ProcessDocument(Strict):
    """Processes of the instance; those are counted that meet all that is given."""

    name: Line | None = Field(default=None, description="the program's name", examples=["nginx"])
    command: Pattern | None = Field(
        default=None, description="a pattern in its command line", examples=["worker process"]
    )
    user: ImageUser | None = Field(default=None, description="who it runs as", examples=["nginx"])
    count: MatchRules | None = Field(
        default=None, description="how many; default: at least 1", examples=[{"min": 2, "max": 8}]
    )


class ListeningDocument(Strict):
    """Sockets that listen (TCP) or are bound (UDP): these and no other.

    `exposed`, or a list of ports, is short for this mapping.
    """

    ports: list[ExposedPort] | None = Field(
        default=None, description="ports that others can reach; default: `image.exposed_ports`", examples=[[8080]]
    )
    local: list[ExposedPort] = Field(default=[], description="ports that may listen, on the loopback only")


class AccountCheckDocument(Strict):
    """An account of the image: one of `user`, `group`."""

    user: Line | None = Field(default=None, description="a user's name", examples=["mysql"])
    group: Line | None = Field(default=None, description="a group's name")
    uid: Annotated[int, Field(ge=0)] | None = Field(default=None, description="the user's number", examples=[27])
    gid: Annotated[int, Field(ge=0)] | None = Field(default=None, description="the (user's) group's number")
    home: TargetPath | None = Field(default=None, description="the home directory")
    shell: TargetPath | None = Field(default=None, description="the login shell")
    groups: list[Line] = Field(default=[], description="other groups that the user is in")
    absent: bool = Field(default=False, description="there is no such account")


class PackagesDocument(Strict):
    """The packages of the image: names or whole NEVRAs, `*` for any characters."""

    present: list[Line] = Field(default=[], description="must be there", examples=[["mysql-server"]])
    absent: list[Line] = Field(default=[], description="must not be there", examples=[["gcc", "*-devel"]])


if TYPE_CHECKING:
    _ImageFields = Strict
else:
    _ImageFields = create_model(
        "_ImageFields", __base__=Strict, **{key.name: check_field(key, ExactRules) for key in IMAGE_KEYS}
    )  # fmt: skip


class ImageCheckDocument(_ImageFields):
    """The image's configuration, as it must be."""


class LicensesDocument(Strict):
    """Packages that bring the text of their licence.

    In /usr/share/licenses or /usr/share/doc. `all`, or a list of packages, is short for this mapping.
    """

    packages: list[Line] | None = Field(default=None, description="names; default: all", examples=[["nginx"]])
    without: list[Line] = Field(default=[], description="packages that have none", examples=[["filesystem"]])


def _short(word: str, key: str) -> BeforeValidator:
    """A word stands for an empty mapping, and a list for the mapping's `key`."""

    def write_out(value: object) -> object:
        if value == word:
            return {}
        return {key: value} if isinstance(value, list) else value

    return BeforeValidator(write_out, json_schema_input_type=str | list[str | int] | Mapping[str, object])


class StopDocument(Strict):
    """The image's end when it gets its stop signal."""

    within: Duration = Field(default=20_000, description="how long it may take", examples=["20s"])
    exit_code: Annotated[int, Field(ge=0, le=255)] = Field(default=0, description="the exit status it must have")
    signal: SignalName | None = Field(default=None, description="another signal than the image's", examples=["SIGINT"])


class ReadyDocument(Strict):
    """The sign that an instance can be used: exactly one kind."""

    command: list[TextValue] | None = Field(default=None, description="a command that must succeed")
    port: Port | None = Field(default=None, description="a port that must accept connections", examples=[3306])
    socket: TargetPath | None = Field(default=None, description="a unix socket that must accept connections")
    http: HttpDocument | None = Field(
        default=None,
        description="a request that must be answered, with 200 unless `expect` says otherwise",
        examples=[{"port": 8080}],
    )
    log: MatchRules | None = Field(default=None, description="the instance's output")
    file: FileCheckDocument | None = Field(default=None, description="a file that must be there")
    process: ProcessDocument | None = Field(default=None, description="processes that must run")
    expect: ExpectDocument | None = Field(default=None, description="what the answer must show")
    send: TextValue | None = Field(default=None, description="what is sent to `port` or `socket`")
    user: ImageUser | None = Field(default=None, description="who runs `command`; default: the image's user")
    within: Duration = Field(default=60_000, description="how long it may take", examples=["60s"])


class CheckDocument(Strict):
    """One question to a running instance, of exactly one kind.

    The kinds are `command`, `port`, `socket`, `http`, `log`, `file`, `process`, `listening`, `account`, `packages`,
    `image`, `licenses`, `restart`, `stop`. All but `command` need nothing in the image. Each is asked again until it is
    met or `within` has passed. Texts may hold templates that use `values`, so that a check follows the configuration.
    """

    name: Line = Field(description="what the check shows, for reports", examples=["answers"])
    command: list[TextValue] | None = Field(
        default=None, description="a command that is run in the instance", examples=[["redis-cli", "ping"]]
    )
    port: Port | None = Field(default=None, description="a port that is connected to", examples=[8080])
    socket: TargetPath | None = Field(
        default=None, description="a unix socket that is connected to", examples=["/run/app.sock"]
    )
    http: HttpDocument | None = Field(
        default=None, description="a request by HTTP or HTTPS", examples=[{"port": 8080, "path": "/healthz"}]
    )
    log: MatchRules | None = Field(
        default=None,
        description="the instance's output so far",
        examples=[{"matches": "ready for connections", "lacks": "ERROR"}],
    )
    file: FileCheckDocument | None = Field(
        default=None, description="a file", examples=[{"path": "/run/app.pid", "owner": "app"}]
    )
    process: ProcessDocument | None = Field(
        default=None, description="processes", examples=[{"name": "nginx", "count": {"min": 2}}]
    )
    listening: Annotated[ListeningDocument, _short("exposed", "ports")] | None = Field(
        default=None, description="`exposed`, a list of ports, or the mapping: these and no other", examples=["exposed"]
    )
    account: AccountCheckDocument | None = Field(
        default=None, description="an account", examples=[{"user": "mysql", "uid": 27}]
    )
    packages: PackagesDocument | None = Field(
        default=None, description="packages", examples=[{"present": ["nginx"], "absent": ["gcc"]}]
    )
    image: ImageCheckDocument | None = Field(
        default=None, description="the image's configuration", examples=[{"user": "nginx"}]
    )
    licenses: Annotated[LicensesDocument, _short("all", "packages")] | None = Field(
        default=None, description="`all`, a list of packages, or the mapping", examples=[["nginx"]]
    )
    restart: Annotated[Restart, choice(Restart, "a way to restart")] | None = Field(
        default=None,
        description="`same-data`: stop, start again on the same volumes, and wait until it is ready; `after-kill`: "
        "the same after SIGKILL. Checks that stand below are asked of the new start; `within` is for the stop "
        "(default 30s)",
        examples=["same-data"],
    )
    stop: StopDocument | None = Field(
        default=None, description="stop the instance; must be the last check", examples=[{"within": "20s"}]
    )
    expect: ExpectDocument | None = Field(
        default=None, description="what `command`, `port`, `socket` or `http` must show"
    )
    stdin: TextValue | None = Field(default=None, description="what `command` reads")
    user: ImageUser | None = Field(default=None, description="who runs `command`; default: the image's user")
    send: TextValue | None = Field(
        default=None, description="what is sent to `port` or `socket`", examples=["PING\r\n"]
    )
    within: Duration = Field(
        default=10_000, description="how long until it must be met; a command is asked again until then"
    )


class NeighboursDocument(Strict):
    """Many instances at once, of which one misbehaves.

    Only asked with `--full`, because it takes a while. Each latency is that of the first `http` check (else of the
    first `port` check, else of `ready`) of the recipe. Each misbehaviour uses all that the limits leave it, so
    `allocate` needs a limit on memory, and `fork` one on pids.
    """

    count: Annotated[int, Field(ge=2, le=100)] = Field(default=20, description="how many run")
    misbehave: list[Annotated[Misbehaviour, choice(Misbehaviour, "a way to misbehave")]] = Field(
        default=list(Misbehaviour),
        description="what the first one does, one after the other: `spin` on all cores, `allocate` memory, `fork`, "
        "`flood` the network",
    )
    factor: Annotated[float, Field(gt=1, le=1000)] = Field(
        default=10.0,
        strict=False,
        description="how many times their quiet latency (median, and 99th percentile) the others may take meanwhile",
    )
    floor: Duration = Field(default=5, description="lower bound: latencies below this count as this")
    lasting: Duration = Field(default=2_000, description="how long each is measured")


Variants = list[Annotated[Variant, choice(Variant, "a variant")]]
