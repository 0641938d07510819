"""What the fuzzing makes of inputs gets behind parsers and checksums, and what it counts is of one reader."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.errors import VerificationError
from pipeline.model.json_form import is_canonical
from pipeline.oci.bill_json import parse_bill
from pipeline.oci.image_manifest import parse_image
from pipeline.packages import read_installed
from tests.fuzz.forms import SEPARATOR, archive, changed, database, document, image, text, words
from tests.fuzz.reader import reader_digest
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
SEEDS = range(300)


def _engine(data: bytes, most: int) -> bytes:
    return (data + b"!")[-most:]


def _results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_results", ROOT / "ci" / "fuzz.d" / "results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_changed_document_is_a_document_and_mostly_another_one() -> None:
    data = (CORPUS / "config" / "small").read_bytes()
    made = {document(data, random.Random(seed), _engine) for seed in SEEDS}
    assert len(made) > 250
    for one in made:
        json.loads(one)


def test_a_document_in_base64_is_changed_inside() -> None:
    inner = base64.b64encode(b'{"a":{"b":[1,2,3]}}').decode()
    made = {document(json.dumps([inner]).encode(), random.Random(seed), _engine) for seed in SEEDS}
    tops = [value[0] for value in map(json.loads, made) if isinstance(value, list) and value]
    payloads = [one for one in tops if isinstance(one, str) and len(one) > 9]
    opened = {base64.b64decode(one) for one in payloads if one != inner and one[:2] == "ey"}
    assert len(opened) > 5 and all(isinstance(json.loads(one), dict) for one in opened)


def test_a_changed_config_is_still_the_one_that_its_manifest_names() -> None:
    data = (CORPUS / "image" / "small").read_bytes()
    codes: dict[str, int] = {}
    for seed in SEEDS:
        manifest, _, config = image(data, random.Random(seed), _engine).partition(SEPARATOR)
        try:
            parse_image("a", "a:1", manifest, config)
        except VerificationError as error:
            codes[error.code] = codes.get(error.code, 0) + 1
    assert codes.get("digest-mismatch", 0) < len(SEEDS) / 3


def test_a_changed_archive_has_checksums_that_fit() -> None:
    data = (CORPUS / "tar" / "small").read_bytes()
    headers = 0
    for seed in SEEDS:
        made = archive(data, random.Random(seed), _engine)
        for at in range(0, len(made), 512):
            block = made[at : at + 512]
            if block[257:262] == b"ustar":
                headers += 1
                assert int(block[148:154], 8) == sum(block) - sum(block[148:156]) + 8 * 32
    assert headers > len(SEEDS)


@pytest.mark.parametrize("name", ["bdb", "bdb-big-endian", "ndb"])
def test_changed_rpm_databases_are_often_read_to_their_packages(name: str) -> None:
    """The engine cuts an input at 8 KiB, and a checksum that does not fit hides what stands behind it."""
    data = (CORPUS / "rpmdb" / name).read_bytes()
    assert len(data) <= 8192 and len(read_installed(data)) == 2
    read = 0
    for seed in SEEDS:
        with contextlib.suppress(VerificationError):
            read += read_installed(database(data, random.Random(seed), _engine)) != read_installed(data)
    assert read > 5


@pytest.mark.parametrize("change", [text, words, database])
def test_a_change_is_a_function_of_its_seed(change: object) -> None:
    data = (CORPUS / "metalink" / "small").read_bytes()
    assert callable(change)
    made = [[change(data, random.Random(seed), _engine) for seed in SEEDS] for _ in range(2)]
    assert made[0] == made[1] and len(set(made[0])) > 200


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_never_longer_than_asked_for(name: str) -> None:
    for data in (b"", b"{}", b"[", *(path.read_bytes() for path in sorted((CORPUS / name).iterdir())[:2])):
        for seed in range(50):
            assert len(changed(name, data, 8192, seed, _engine)) <= 8192


def test_executions_of_one_reader_add_up_and_a_changed_one_begins_anew(tmp_path: Path) -> None:
    results = _results()
    path = tmp_path / "fuzz.tsv"
    path.write_text("target\texecutions\tcovered\tseconds\tfinds\nyaml\t5\t1\t1\t0\n")  # Of another form: of no use.
    for row in (results.Row("yaml", 10, 7, 3, 0, 1, "a"), results.Row("yaml", 5, 8, 2, 1, 1, "a")):
        results.write_rows(path, results.added(results.read_rows(path), row), ("yaml", "tar"))
    assert results.read_rows(path) == {"yaml": results.Row("yaml", 15, 8, 5, 1, 2, "a")}
    changed_reader = results.added(results.read_rows(path), results.Row("yaml", 3, 8, 1, 0, 1, "b"))
    assert changed_reader == {"yaml": results.Row("yaml", 3, 8, 1, 0, 1, "b")}


def test_the_reader_is_the_code_that_runs() -> None:
    digests = {name: reader_digest(name, CORPUS / name) for name in ("mirrorlist", "challenge", "config", "index")}
    assert len(set(digests.values())) == len(digests)
    assert digests["config"] == reader_digest("config", CORPUS / "config")


@pytest.mark.parametrize(
    "data",
    [b'{"a":1.5}', b'{"a":1e999}', b'{"a":NaN}', b'{"a":"\\ud800"}', b"[" * 5000 + b"]" * 5000, b"{", b'{"b":1,"a":1}'],
)
def test_what_canonical_json_cannot_hold_is_not_canonical(data: bytes) -> None:
    assert not is_canonical(data)


def test_a_fraction_in_a_member_of_a_bill_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(VerificationError) as caught:
        parse_bill((CORPUS / "predicates" / "fraction").read_bytes(), "bill")
    assert caught.value.code == "bill-malformed"
