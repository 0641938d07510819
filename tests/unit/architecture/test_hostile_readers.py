"""Readers of foreign bytes raise their own error or none, whatever the bytes are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.registry.fallback_index import merge_referrers
from pipeline.mirror.backends.registry.registry_address_form import RegistryRoot
from pipeline.mirror.backends.registry.registry_responses import (
    error_code,
    next_page,
    promised_digest,
    response_manifest,
    response_words,
)
from pipeline.mirror.references import (
    listed_referrers,
    manifest_subject,
    media_type_of,
    references,
    referrer_of,
)
from pipeline.mirror.retention.access_log import read_pulls
from pipeline.model.manifests import Manifest
from pipeline.model.package import Nevra
from pipeline.oci import media_types
from pipeline.oci.bill_json import parse_bill
from pipeline.oci.dsse import read_envelope
from pipeline.oci.image_manifest import JsonReader, parse_config, parse_image
from pipeline.oci.record_json import parse_record
from pipeline.oci.statements import read_statement
from pipeline.packages import rpm_header as header_module
from pipeline.packages.rpm_header import read_header, read_source_nevra
from pipeline.transfer import RegistryResponse
from pipeline.transfer.retry import retry_after
from pipeline.urls import (
    join_url,
    parse_url,
    redact_urls,
    shown_url,
)
from tests.support.hostile_values import DIGITS, ODD_URLS, code_of

# --- JSON of registries and of what is attested ------------------------------------------------------

SHA = f"sha256:{'a' * 64}"
HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, 2**64, -1, 401]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\ud800", "sha256:", SHA, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "x" * 5000]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
DESCRIPTOR = {"mediaType": media_types.LAYER_TAR, "digest": SHA, "size": 1, "annotations": {"a": "b"}}
DOCUMENTS: dict[str, Any] = {
    "manifest": {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "artifactType": "a/b",
        "config": DESCRIPTOR,
        "layers": [DESCRIPTOR],
        "subject": DESCRIPTOR,
        "annotations": {"a": "b"},
    },
    "index": {"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": [{**DESCRIPTOR, "artifactType": "x"}]},
    "config": {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"}, "Entrypoint": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [SHA]},
        "history": [{"created": "2024-01-01T00:00:00Z"}],
    },
    "statement": {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "x",
        "subject": [{"digest": {"sha256": "a" * 64}, "name": "n"}],
        "predicate": {"a": [1, {"b": None}]},
    },
    "envelope": {"payload": "e30=", "payloadType": "a/b", "signatures": [{"sig": "e30="}]},
    "bill": {
        "format": 1,
        "image": {"name": "n", "version": "1", "digest": SHA, "config": SHA, "created": 1, "architecture": "amd64"},
        "layers": [{"name": "n", "diff_id": SHA, "digest": SHA, "size": 1}],
        "packages": [{"nevra": "a-1-1.x86_64", "sha256": "a" * 64, "size": 1}],
        "privileged": [{"path": "/x", "mode": "4755", "package": "a", "capabilities": ""}],
    },
    "record": {"format": 1, "image": SHA, "checks": SHA, "recipe": {"name": "n", "uri": "", "sha256": "a" * 64}},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    if isinstance(value, dict):
        return {key: replaced(item, path[1:], by) if key == path[0] else item for key, item in value.items()}
    return [replaced(item, path[1:], by) if number == path[0] else item for number, item in enumerate(value)]


@st.composite
def altered(draw: st.DrawFn, name: str) -> bytes:
    """A good document with a value in it that is another."""
    document = DOCUMENTS[name]
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(document))))
        document = replaced(document, path, draw(HOSTILE))
    return json.dumps(document).encode()


RAW = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"size":' + DIGITS.encode() + b"}",
    b"\xed\xa0\x80",
    b'"\xff"',
    b"NaN",
    b"\xff\xfe[",
)


@pytest.mark.parametrize("data", RAW)
def test_json_that_is_none_is_malformed_for_every_reader(data: bytes) -> None:
    manifest = Manifest(media_types.MANIFEST, data)
    readers: list[Callable[[], object]] = [
        lambda: references(manifest),
        lambda: manifest_subject(manifest),
        lambda: listed_referrers(manifest),
        lambda: merge_referrers(manifest),
        lambda: parse_config(data),
        lambda: parse_image("n", "r", data, data),
        lambda: read_statement(data),
    ]
    assert {code_of(reader) for reader in readers} == {"document-malformed"}
    assert code_of(lambda: parse_bill(data, "b")) == "bill-malformed"
    assert code_of(lambda: parse_record(data, "r")) == "record-malformed"
    assert media_type_of(data) is None


@given(altered("manifest"), altered("index"))
def test_manifests_with_other_values_are_read_or_refused(manifest: bytes, index: bytes) -> None:
    for kind, data in ((media_types.MANIFEST, manifest), (media_types.INDEX, index)):
        one = Manifest(kind, data)
        for reader in (references, manifest_subject, listed_referrers, referrer_of, merge_referrers):
            code_of(lambda reader=reader, one=one: reader(one))  # type: ignore[misc]
        media_type_of(data)
        answer = RegistryResponse(200, (("content-type", kind),), data, "https://host.test/v2/")
        code_of(lambda answer=answer: response_manifest(answer, None, "x"))  # type: ignore[misc]


@given(altered("config"), altered("manifest"), altered("statement"), altered("envelope"))
def test_configs_and_statements_with_other_values_are_read_or_refused(
    config: bytes, manifest: bytes, statement: bytes, envelope: bytes
) -> None:
    code_of(lambda: parse_config(config))
    code_of(lambda: parse_image("n", "r", manifest, config))
    code_of(lambda: read_statement(statement))
    code_of(lambda: read_envelope(JsonReader.parse(envelope, "x")))


@given(altered("bill"), altered("record"))
def test_bills_and_records_with_other_values_are_refused(bill: bytes, record: bytes) -> None:
    assert code_of(lambda: parse_bill(bill, "x")) in {"bill-malformed", "format-newer"}
    assert code_of(lambda: parse_record(record, "x")) in {"record-malformed", "format-newer"}


def test_a_size_that_no_file_can_have_is_malformed() -> None:
    data = json.dumps({**DOCUMENTS["manifest"], "config": {**DESCRIPTOR, "size": 2**63}}).encode()
    assert code_of(lambda: references(Manifest(media_types.MANIFEST, data))) == "document-malformed"


@given(st.text(max_size=40))
@example(f"a-{DIGITS}:1-1.x")
def test_a_nevra_is_read_or_malformed(text: str) -> None:
    assert code_of(lambda: Nevra.parse(text)) in {"", "nevra-malformed"}


# --- what registries answer ------------------------------------------------------------------------


@given(st.binary(max_size=80), st.text(max_size=80))
@example(b"[" * 100_000, "")
@example(b'{"errors":[{"code":"\\ud800","message":"\\u202e"}]}', "")
@example(b'{"errors":' + DIGITS.encode() + b"}", "")
def test_the_words_of_a_registry_can_always_be_shown(body: bytes, header: str) -> None:
    answer = RegistryResponse(
        400, (("docker-content-digest", header), ("content-length", header)), body, "https://host.test/v2/"
    )
    assert response_words(answer).isprintable()
    error_code(answer)
    promised_digest(answer)


@given(st.text(max_size=60))
@example("<http://[>; rel=next")
@example('<http://a:99999/>; rel="next"')
@example('<//evil.test/v2/>; rel="next"')
@example("<" * 20_000)
@example("<a>;" + " " * 20_000 + "rel=next")
def test_a_link_leads_to_the_registry_or_is_refused(link: str) -> None:
    answer = RegistryResponse(200, (("link", link),), b"", "https://host.test/v2/_catalog")
    try:
        target = next_page(answer, (), "x")
    except VerificationError as error:
        assert error.code == "registry-pages"
    else:
        assert target is None or target.startswith("https://host.test/")


@pytest.mark.parametrize("link", ODD_URLS)
def test_a_link_to_nonsense_is_refused(link: str) -> None:
    answer = RegistryResponse(200, (("link", f'<{link}>; rel="next"'),), b"", "https://host.test/v2/_catalog")
    assert code_of(lambda: next_page(answer, (), "x")) in {"registry-pages", ""}


@given(st.text(max_size=40), st.text(max_size=40))
@example(DIGITS, "")
@example("Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT")
@example("Wed, 21 Oct 2015 99:99:99 +9999999999", "Wed, 21 Oct 2015 07:28:00 GMT")
@example("\u0663", "")
def test_a_pause_that_is_asked_for_is_a_number_or_nothing(after: str, date: str) -> None:
    pause = retry_after({"retry-after": after, "date": date})
    assert pause is None or 0 <= pause < 1e12


# --- addresses and URLs ----------------------------------------------------------------------------


@given(st.one_of(st.text(max_size=60), st.sampled_from(ODD_URLS)))
def test_urls_are_taken_apart_joined_and_shown_without_an_exception(text: str) -> None:
    parse_url(text)
    shown_url(text).encode()
    redact_urls(f"see {text}, or {text}")
    joined = join_url("https://host.test/a/b", text)
    assert joined == "" or parse_url(joined) is not None


@given(st.sampled_from(["registry://", "registry+http://", "dir:", "oci:", ""]), st.text(max_size=40))
@example("registry://", "host:99999/x")
@example("registry://", f"{'a' * 64}/x")
def test_an_address_is_read_or_malformed(kind: str, rest: str) -> None:
    assert code_of(lambda: parse_address(kind + rest)) in {"", "address-malformed", "mirror-url"}
    try:
        base = RegistryRoot.parse(kind + rest).base
    except UsageError:
        return
    assert parse_url(base) is not None


# --- access logs -----------------------------------------------------------------------------------


DAMAGES = (
    b"\x1f\x8b\x08\x00junk",
    gzip.compress(b"x" * 9999, mtime=0)[:-9],
    gzip.compress(bytes(range(99)), mtime=0)[:40] + b"!!",
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_log_is_named(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "log.gz").write_bytes(damage)
    assert code_of(lambda: read_pulls([tmp_path / "log.gz"])) in {"log-unreadable", "log-empty"}


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example(b'1 - - [31/Dec/9999:23:59:59 -2359] "GET /v2/a/manifests/b HTTP/1.1" 200 1\n')
@example(b'1 - - [01/Jan/0001:00:00:00 +2359] "GET /v2/a/manifests/b HTTP/1.1" 200 1\n')
@example(b'1 - - [99/Foo/2024:99:99:99 +9999] "GET /v2/a/manifests/b HTTP/1.1" 200 1\n')
def test_no_line_of_a_log_is_too_strange(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "log").write_bytes(line)
    assert code_of(lambda: read_pulls([tmp_path / "log"])) in {"", "log-empty"}


# --- headers of packages ---------------------------------------------------------------------------


class Header(dict[int, object]):
    """Stands for rpm's header: a tag that is not there is None."""

    def __missing__(self, tag: int) -> object:
        return None

    def sprintf(self, text: str) -> str:
        raise ValueError("invalid query format")


TAGS = {name: number for name, number in vars(header_module.rpm).items() if name.startswith("RPMTAG_")}
USED = sorted(
    {name for name in TAGS if f"rpm.{name}" in Path(header_module.__file__).read_text()}
    | {
        f"RPMTAG_{prefix}{part}"
        for prefix in ("PROVIDE", "REQUIRE", "CONFLICT", "TRIGGER", "FILETRIGGER")
        for part in ("NAME", "FLAGS", "VERSION", "INDEX", "SCRIPTS", "SCRIPTPROG", "PRIORITIES")
        if f"RPMTAG_{prefix}{part}" in TAGS
    }
)
FIELDS = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**64),
    st.text(max_size=5),
    st.lists(st.integers(-1, 2**32), max_size=3),
    st.lists(st.text(max_size=5), max_size=3),
)


@given(st.dictionaries(st.sampled_from(USED), FIELDS))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_header_that_contradicts_itself_is_a_damaged_package(fields: Mapping[str, object]) -> None:
    header = Header({TAGS[name]: value for name, value in fields.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header_module, "open_header", lambda _: header)
        assert code_of(lambda: read_header(Path("a.rpm"), Digest("a" * 64))) in {
            "",
            "package-damaged",
            "digest-malformed",
        }
        assert code_of(lambda: read_source_nevra(Path("a.rpm"))) in {"", "package-damaged"}
