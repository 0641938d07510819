"""Types of values in recipe documents, each with its validator and JSON Schema."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, assert_never

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from pipeline.lazy_dataclasses import dataclass
from pipeline.model import quantities
from pipeline.model.published_port import PORT_MOST, PROTOCOLS
from pipeline.model.quantities import SIZE, Form, Malformed, Quantity, WholeNumber
from pipeline.model.recipe import Without
from pipeline.model.report_names import REPORT_SUFFIX
from pipeline.recipes import paths

LONGEST_TEXT = 64 << 10
"""Characters of one text in a recipe; longer ones belong in files."""

ID_MOST = 60_000
"""Highest ID of an account: below `nobody` and the range for user namespaces."""

_NO_ID = (1 << 32) - 1
"""The number that chown(2) takes for none: it leaves the owner as it is."""

_IN_QUOTES = "put it in quotes"

_SIGNALS = (
    *(
        "HUP",
        "INT",
        "QUIT",
        "ILL",
        "TRAP",
        "ABRT",
        "BUS",
        "FPE",
        "KILL",
        "USR1",
        "SEGV",
        "USR2",
        "PIPE",
        "ALRM",
    ),
    *(
        "TERM",
        "STKFLT",
        "CHLD",
        "CONT",
        "STOP",
        "TSTP",
        "TTIN",
        "TTOU",
        "URG",
        "XCPU",
        "XFSZ",
        "VTALRM",
        "PROF",
    ),
    *("WINCH", "IO", "PWR", "SYS"),
)


class Strict(BaseModel):
    """A mapping in a document, the base of all models.

    Unknown keys are refused, and no value is turned into another type.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


def checked(function: Callable[[object], object]) -> BeforeValidator:
    """Make a validator from a function that raises `Malformed`."""

    def validate(value: object) -> object:
        try:
            return function(value)
        except Malformed as error:
            raise refusal(error.code, str(error), error.hint) from None

    return BeforeValidator(validate)


@dataclass(frozen=True, slots=True)
class Named:
    """The name of a type in the reference, and the function that writes a value of it."""

    name: str
    write: Callable[[int], str] = str


def refusal(code: str, message: str, hint: str | None = None) -> PydanticCustomError:
    """Return the error for a validator to raise, with the problem's code and hint."""
    return PydanticCustomError(code, "{message}", {"message": message, "hint": hint})


def hint_as_written(hint: str, written: str) -> str:
    """Return a hint to quote a number with the text of it, as `1.10` is not the number's text."""
    if hint == _IN_QUOTES:
        return f'{hint}: "{written}"'
    octal = re.fullmatch(r"(?:0o)?0*([0-7]{3,4})", written)
    if hint == quantities.MODE_IN_QUOTES and octal:
        return f'write it in quotes: "{octal[1]:0>4}"'
    return hint


def text_of_form(pattern: str, code: str, what: str, hint: str) -> Callable[[object], object]:
    """Return a function that requires a value to be text that matches a pattern."""
    expression = re.compile(pattern)

    def check(value: object) -> object:
        if not isinstance(value, str):
            raise Malformed(code, f"{what} is expected here, not {kind_of_value(value)}", hint)
        if not expression.fullmatch(value):
            raise Malformed(code, f"'{value[:80]}' is not {what}", hint)
        return value

    return check


def kind_of_value(value: object) -> str:
    """Return the name of a value's type, for people."""
    if value is None:
        return "nothing"
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", dict: "a mapping"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else type(value).__name__)


def _text(value: object) -> object:
    if isinstance(value, bool | int | float):
        raise Malformed("type-wrong", f"text is expected here, not {kind_of_value(value)}", _IN_QUOTES)
    if not isinstance(value, str):
        raise Malformed("type-wrong", f"text is expected here, not {kind_of_value(value)}", "write text")
    if "\0" in value or len(value) > LONGEST_TEXT:
        raise Malformed("type-wrong", "the text is too long or contains a NUL", "move it into a file")
    return value


def _line(value: object) -> object:
    text = _text(value)
    if not isinstance(text, str) or not text.strip() or "\n" in text:
        raise Malformed("type-wrong", "one line of text is expected here", "write it on one line")
    return text


def _port(value: object) -> object:
    hint = "write a port number from 1 to 65535"
    if isinstance(value, str) and "{{" in value:
        return value
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(r"\d{1,5}", str(value)):
        raise Malformed("port-malformed", f"'{value!s:.40}' is not a port", hint)
    if not 1 <= int(value) <= PORT_MOST:
        raise Malformed("port-malformed", f"port {value} is out of range", hint)
    return str(value)


def _exposed_port(value: object) -> object:
    text = str(value)
    before, end, after = text.rpartition("}}")
    number, slash, protocol = after.partition("/")  # A template may divide.
    number = before + end + number
    if slash and protocol not in PROTOCOLS:
        raise Malformed("port-malformed", f"'{protocol[:20]}' is not a protocol", "write tcp, udp or sctp")
    if isinstance(value, int) or not slash:
        return _port(value)
    return f"{_port(number)}/{protocol}"


def _signal(value: object) -> object:
    hint = "write a signal's name, such as SIGTERM"
    if not isinstance(value, str):
        raise Malformed("signal-malformed", f"'{value!s:.40}' is not the name of a signal", hint)
    name = value.removeprefix("SIG")
    realtime = re.fullmatch(r"RTMIN(\+([1-9]|1[0-5]))?|RTMAX(-([1-9]|1[0-4]))?", name)
    if name not in _SIGNALS and not realtime:
        near = difflib.get_close_matches(name.upper(), _SIGNALS, n=1)
        hint = f"did you mean SIG{near[0]}?" if near else hint
        raise Malformed("signal-malformed", f"'{value[:40]}' is not the name of a signal", hint)
    return f"SIG{name}"


def _sha256(value: object) -> object:
    hint = "write the 64 lower-case hex digits that sha256sum prints"
    if not isinstance(value, str):
        raise Malformed("sha256-malformed", "a sha256 is expected here", hint)
    digits = value.removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise Malformed("sha256-malformed", f"'{value[:20]}…' is not a sha256", hint)
    return digits


def _owner(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < _NO_ID:
            hint = f"write a number from 0 to {_NO_ID - 1}"
            raise Malformed("account-malformed", f"{value} is not the number of an account", hint)
        return str(value)
    both = isinstance(value, str) and ":" in value
    hint = "write one name or number, without ':'" if both else _ACCOUNT_HINT
    return text_of_form(r"[a-z_][a-z0-9_-]{0,31}|\d{1,9}", "account-malformed", "a name or number of an account", hint)(
        value
    )


def _without(value: object) -> object:
    known = [str(name) for name in Without]
    if isinstance(value, str) and value in known:
        return Without(value)
    near = difflib.get_close_matches(str(value).replace("_", "-"), known, n=1)
    raise Malformed(
        "value-unknown",
        f"'{value!s:.40}' is not a valid value of 'without'",
        f"did you mean '{near[0]}'?" if near else f"write {', '.join(known[:-1])} or {known[-1]}",
    )


def choice(words: type[StrEnum], what: str) -> BeforeValidator:
    """Return a validator that converts a value to a member of an enum."""
    known = [str(word) for word in words]

    def pick(value: object) -> object:
        if isinstance(value, str) and value in known:
            return words(value)
        near = difflib.get_close_matches(str(value).replace("_", "-"), known, n=1)
        raise Malformed(
            "value-unknown",
            f"'{value!s:.40}' is not {what}",
            f"did you mean '{near[0]}'?" if near else f"write {', '.join(known[:-1])} or {known[-1]}",
        )

    return checked(pick)


def _pattern(value: object) -> object:
    text = _text(value)
    if not isinstance(text, str) or "{{" in text:  # known only when it is rendered
        return text
    return pattern_of(text)


def pattern_of(text: str) -> str:
    """Return `text` if it is a regular expression; raise Malformed `pattern-malformed`."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise Malformed(
            "pattern-malformed",
            f"'{text[:60]}' is not a regular expression: {error}",
            "write a backslash before a character that is meant literally, such as \\( or \\*",
        ) from None
    return text


def _date(value: object) -> object:
    hint = "write the date as YYYY-MM-DD, such as 2027-04-30"
    if not isinstance(value, str):
        raise Malformed("date-malformed", f"a date is expected here, not {kind_of_value(value)}", hint)
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise ValueError("another form")
        date.fromisoformat(value)
    except ValueError:
        raise Malformed("date-malformed", f"'{value[:40]}' is not a date", hint) from None
    return value


def _url(value: object) -> object:
    return text_of_form(
        r"https?://[^\s/]+/\S+", "url-malformed", "a URL", "write a URL that begins with https:// or http://"
    )(value)


def _beside_or_url(value: object) -> object:
    return _url(value) if isinstance(value, str) and "://" in value else paths.parse_relative_path(value)


_ACCOUNT_HINT = "use lower-case letters, digits, '-' and '_', beginning with a letter"
NAME_FORM = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"
"""Regular expression of a product's name, among others."""
_name = text_of_form(
    NAME_FORM,
    "name-malformed",
    "a name",
    "use lower-case letters and digits, with single '.', '_' or '-' between them",
)


def _product_name(value: object) -> object:
    name = _name(value)
    if str(name).endswith(REPORT_SUFFIX):
        raise Malformed(
            "name-reserved",
            f"'{str(name)[:80]}' ends in '{REPORT_SUFFIX}', as the folder of a product's report does",
            f"choose a name with another ending, such as '-{REPORT_SUFFIX[1:]}'",
        )
    return name


_QUANTITY = {"type": ["string", "number"]}

LeftOut = Annotated[
    Without,
    Named("`docs`, `man` or `weak-dependencies`"),
    checked(_without),
    WithJsonSchema({"type": "string", "enum": [str(name) for name in Without]}),
]
TextValue = Annotated[str, Named("text"), checked(_text)]
Line = Annotated[str, Named("text"), checked(_line)]
Name = Annotated[str, Named("name"), checked(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME_FORM}$"})]
ProductName = Annotated[
    str,
    Named("name"),
    checked(_product_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME_FORM}$", "not": {"pattern": f"{re.escape(REPORT_SUFFIX)}$"}}),
]
PACKAGE_NAME_FORM = r"[A-Za-z0-9_.+-]+"
PackageName = Annotated[
    str,
    Named("package name"),
    checked(text_of_form(PACKAGE_NAME_FORM, "name-malformed", "the name of a package", "write its name alone")),
    WithJsonSchema({"type": "string", "pattern": f"^{PACKAGE_NAME_FORM}$"}),
]
AccountName = Annotated[
    str,
    Named("account name"),
    checked(text_of_form(r"[a-z_][a-z0-9_-]{0,31}", "account-malformed", "the name of an account", _ACCOUNT_HINT)),
    WithJsonSchema({"type": "string", "pattern": "^[a-z_][a-z0-9_-]{0,31}$"}),
]
ImageUser = Annotated[
    str,
    Named("`USER` or `USER:GROUP`"),
    checked(
        text_of_form(
            r"([a-z_][a-z0-9_-]{0,31}|\d{1,9})(:([a-z_][a-z0-9_-]{0,31}|\d{1,9}))?",
            "account-malformed",
            "a user",
            'write USER or USER:GROUP, by name or by number in quotes: "27"',
        )
    ),
]
VariableName = Annotated[
    str,
    Named("variable name"),
    checked(
        text_of_form(
            r"[A-Za-z_][A-Za-z0-9_]*",
            "name-malformed",
            "a name that can be used as a variable",
            "use letters, digits and '_', not beginning with a digit",
        )
    ),
]
Architecture = Annotated[
    str,
    Named("architecture"),
    checked(
        text_of_form(
            r"x86_64|aarch64|ppc64le|s390x|riscv64",
            "architecture-unknown",
            "an architecture of RPM",
            "write x86_64, aarch64, ppc64le, s390x or riscv64",
        )
    ),
    WithJsonSchema({"enum": ["x86_64", "aarch64", "ppc64le", "s390x", "riscv64"]}),
]
TargetPath = Annotated[
    str,
    Named("absolute path"),
    checked(paths.parse_target),
    WithJsonSchema({"type": "string", "pattern": "^/."}),
]
FolderPath = Annotated[
    str,
    Named("absolute path"),
    checked(paths.parse_folder),
    WithJsonSchema({"type": "string", "pattern": "^/"}),
]
FileTargetPath = Annotated[
    str,
    Named("absolute path"),
    checked(paths.parse_file_target),
    WithJsonSchema({"type": "string", "pattern": "^/."}),
]
RelativePath = Annotated[
    str, Named("relative path"), checked(paths.parse_relative_path), WithJsonSchema({"type": "string"})
]
RelativePathOrUrl = Annotated[
    str, Named("relative path or URL"), checked(_beside_or_url), WithJsonSchema({"type": "string"})
]
FileMode = Annotated[
    int,
    Named("mode"),
    checked(quantities.parse_mode),
    WithJsonSchema({"type": "string", "pattern": "^[0-7]{3,4}$"}),
]
Size = Annotated[int, Named(SIZE.name, SIZE.write), checked(SIZE.parse), WithJsonSchema(_QUANTITY)]
Duration = Annotated[
    int,
    Named("duration", quantities.write_duration),
    checked(quantities.parse_duration),
    WithJsonSchema({"type": "string"}),
]
Age = Annotated[
    int,
    Named("age", quantities.write_age),
    checked(quantities.parse_age),
    WithJsonSchema({"type": "string"}),
]
Validity = Annotated[
    int,
    Named("age", quantities.write_age),
    checked(quantities.parse_validity),
    WithJsonSchema({"type": "string"}),
]
Port = Annotated[str, Named("port"), checked(_port), WithJsonSchema({"type": ["integer", "string"]})]
ExposedPort = Annotated[
    str,
    Named("port, or `PORT/tcp|udp|sctp`"),
    checked(_exposed_port),
    WithJsonSchema({"type": ["integer", "string"]}),
]
SignalName = Annotated[str, Named("signal"), checked(_signal), WithJsonSchema({"type": "string"})]
Sha256 = Annotated[
    str,
    Named("sha256"),
    checked(_sha256),
    WithJsonSchema({"type": "string", "pattern": "^(sha256:)?[0-9a-f]{64}$"}),
]
Owner = Annotated[
    str, Named("account, by name or number"), checked(_owner), WithJsonSchema({"type": ["string", "integer"]})
]
Date = Annotated[str, Named("date"), checked(_date), WithJsonSchema({"type": "string", "format": "date"})]
Pattern = Annotated[str, Named("pattern"), checked(_pattern), WithJsonSchema({"type": "string", "format": "regex"})]
UrlValue = Annotated[str, Named("URL"), checked(_url), WithJsonSchema({"type": "string", "format": "uri"})]


def annotation_of(form: Form) -> Any:  # noqa: ANN401  it is a type made at run time
    """Return the annotation of a form's values, for models made from declarations."""
    match form:
        case Quantity():
            schema = _QUANTITY if form.numeric else {"type": "string"}
            return Annotated[int, Named(form.name, form.write), checked(form.parse), WithJsonSchema(schema)]
        case WholeNumber(least, most):
            return Annotated[int, Field(ge=least, le=most)]
        case other:
            assert_never(other)
