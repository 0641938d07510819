"""Nothing is published but what was tested. What the operator's rules add is in `test_gate_rules`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.gate import (
    AttestedEvidence,
    Candidate,
    Cleared,
    SealedEvidence,
)
from pipeline.model.checks.command_check import CommandAnswer
from pipeline.model.checks.http_check import HttpAnswer
from pipeline.model.checks.listening_check import ListeningAnswer, SeenSocket
from pipeline.model.checks.log_check import LogAnswer
from pipeline.model.checks.restart_check import Restart, RestartAnswer
from pipeline.model.checks.stop_check import StopAnswer
from pipeline.model.evidence import (
    Evidence,
    evidence_json,
)
from pipeline.model.image import Image
from pipeline.model.limit import LimitReading
from pipeline.model.manifests import Manifest
from pipeline.model.plan_form import plan_digest
from pipeline.model.report import CheckResult
from pipeline.model.rules import GateRule, MirrorRules
from pipeline.model.smoke import Misbehaviour, Neighbours, SmokePlan
from pipeline.model.value_comparison import RecordedText
from pipeline.model.value_rules import Rule
from pipeline.oci import (
    SigningKey,
    Statement,
    StatementSubject,
    load_signing_key,
    make_attestation,
    media_types,
    predicates,
)
from pipeline.store import Store
from tests.support import tested_images
from tests.support.cheap_keys import cheap_key
from tests.support.signing_examples import signing_key
from tests.support.tested_images import (
    PLAN,
    candidate,
    clear,
    evidence,
    image,
    refusal,
    refused,
    with_instance,
    with_plan,
    with_result,
)
from tests.support.tiny_image import tiny


class TestWhatPasses:
    def test_an_image_that_was_tested(self, store: Store) -> None:
        one = image()
        cleared = clear(one, store=store)
        assert cleared.digest == one.digest
        assert [found.digest for found in cleared.images] == [one.digest]

    def test_an_index_of_which_every_image_was_tested(self, store: Store) -> None:
        both = (image(), image(architecture="arm64"))
        assert clear(*both, store=store).digest == tested_images.index(*both).digest

    def test_evidence_on_an_image_of_any_configuration(self, store: Store) -> None:
        one = tiny(store)
        given = [candidate(one, store, tested_images.simple_evidence(one))]
        assert clear(one, store=store, candidates=given).digest == one.digest

    def test_evidence_that_an_attestation_carries(self, store: Store, tmp_path: Path) -> None:
        one = image()
        data = evidence_json(evidence(one))
        operator = MirrorOperator(tmp_path / "mirror")
        operator.attests(one, data)
        given = Candidate(one.manifest_bytes, one.config_bytes, data, operator.found(one))
        assert clear(one, store=store, candidates=[given]).digest == one.digest

    def test_what_was_cleared_stays_cleared_when_it_is_copied_with_changes(self, store: Store) -> None:
        cleared = clear(image(), store=store)
        other = image("2.0")
        said = refusal(lambda: replace(cleared, manifest=Manifest(media_types.MANIFEST, other.manifest_bytes)))
        assert set(said) == {"gate-report-of-another-image", "gate-architecture-untested"}


class MirrorOperator:
    """A mirror in a folder, and the key of whoever keeps it."""

    def __init__(self, folder: Path) -> None:
        self.repository = open_directory(folder, create=True, clock=lambda: 1.0).repository("tiny")
        self.key = signing_key()

    def attests(self, made: Image, evidence: bytes, *, by: SigningKey | None = None) -> None:
        """Put an attestation of what was tested there."""
        statement = Statement(predicates.SMOKE, (StatementSubject(made.digest),), evidence)
        artifact = make_attestation(statement, made.manifest_descriptor, by or self.key)
        for descriptor, content in artifact.blobs:
            self.repository.put_blob(descriptor, content)
        self.repository.attach(artifact.manifest)

    def found(self, made: Image) -> AttestedEvidence:
        """What the gate finds there."""
        return AttestedEvidence(made.digest, self.repository, self.key.public)


LONGER = RecordedText.of("serving\nERROR")
LOW = LimitReading("memory", 32 << 20, 32 << 20, True)
LOOSE = LimitReading("memory", 64 << 20, 128 << 20, True)
PIDS = LimitReading("pids", 50, 50, True)

EDITS: dict[str, Callable[[Evidence], Evidence]] = {
    "an answer that is wrong": lambda e: with_result(
        e, "who", answer=CommandAnswer(0, RecordedText.of("0\n"), RecordedText.of(""))
    ),
    "another exit code": lambda e: with_result(
        e, "who", answer=CommandAnswer(1, RecordedText.of("27\n"), RecordedText.of(""))
    ),
    "a command that did not end": lambda e: with_result(
        e, "who", answer=CommandAnswer(None, RecordedText.of("27\n"), RecordedText.of(""))
    ),
    "a text without its digest": lambda e: with_result(
        e, "who", answer=CommandAnswer(0, replace(RecordedText.of("0\n"), text="27\n"), RecordedText.of(""))
    ),
    "a text that was shortened": lambda e: with_result(e, "log", answer=LogAnswer(replace(LONGER, text="serving\n"))),
    "an excerpt of a short text": lambda e: with_result(e, "log", answer=LogAnswer(replace(LONGER, excerpts=()))),
    "another status": lambda e: with_result(
        e, "page", answer=HttpAnswer(500, (), RecordedText.of('{"status": "green"}'))
    ),
    "one more socket": lambda e: with_result(
        e, "listens", answer=ListeningAnswer((SeenSocket("80/tcp", False), SeenSocket("22/tcp", False)))
    ),
    "another signal": lambda e: with_result(e, "stops", answer=StopAnswer("SIGKILL", 0)),
    "it never ended": lambda e: with_result(e, "stops", answer=StopAnswer("SIGQUIT", None)),
    "it was not ready again": lambda e: with_result(e, "restarts", answer=RestartAnswer(Restart.SAME_DATA, 0, None)),
    "an answer of another kind": lambda e: with_result(e, "page", answer=StopAnswer("SIGQUIT", 0)),
    "a check less": lambda e: with_instance(e, checks=e.report.instances[0].checks[:-1]),
    "a check more": lambda e: with_instance(e, checks=(*e.report.instances[0].checks, e.report.instances[0].checks[0])),
    "checks in another order": lambda e: with_instance(e, checks=e.report.instances[0].checks[::-1]),
    "an instance without checks": lambda e: with_instance(e, checks=()),
    "an instance less": lambda e: replace(e, report=replace(e.report, instances=e.report.instances[1:])),
    "no instance": lambda e: replace(e, report=replace(e.report, instances=())),
    "an instance twice": lambda e: with_instance(e, 1, name="tiny-1"),
    "a variant that was none": lambda e: with_instance(e, 3, variant=None),
    "an arbitrary user that was root": lambda e: with_instance(e, 3, user="0:0"),
    "a limit that was not read": lambda e: with_instance(e, limits=(PIDS,)),
    "a limit that was lower than asked": lambda e: with_instance(e, limits=(LOW, PIDS)),
    "a limit that the kernel did not take": lambda e: with_instance(e, limits=(LOOSE, PIDS)),
    "an upgrade that was not asked for": lambda e: with_instance(e, upgraded_from=Digest.of(b"old")),
    "neighbours that were never watched": lambda e: with_plan(
        e, replace(PLAN, neighbours=Neighbours(2, (Misbehaviour.SPIN,)))
    ),
    "a plan that asks more": lambda e: with_plan(
        e, replace(PLAN, checks=(*PLAN.checks[:-1], tested_images.PAGE, tested_images.STOPS))
    ),
    "a plan with more instances": lambda e: with_plan(e, replace(PLAN, instances=3)),
    "a plan with other limits": lambda e: with_plan(e, replace(PLAN, limits=replace(PLAN.limits, memory=1 << 30))),
}


class TestReports:
    @pytest.mark.parametrize("edit", EDITS)
    def test_an_edited_report_is_judged_again(self, store: Store, edit: str) -> None:
        said = refused(store, EDITS[edit](evidence(image())))
        assert set(said) == {"gate-report-edited"}, said

    def test_one_that_failed(self, store: Store) -> None:
        answer = CommandAnswer(0, RecordedText.of("0\n"), RecordedText.of(""))
        found = with_result(evidence(image()), "who", passed=False, detail="stdout is not '27'", answer=answer)
        assert set(refused(store, found)) == {"gate-report-failed"}
        assert "stdout is not '27'" in refused(store, found)["gate-report-failed"]

    def test_one_that_failed_as_a_whole(self, store: Store) -> None:
        found = evidence(image())
        failed = replace(found, report=replace(found.report, failure="limits that must be enforced are not"))
        assert set(refused(store, failed)) == {"gate-report-failed"}

    def test_a_plan_that_asks_nothing(self, store: Store) -> None:
        plan = replace(PLAN, ready=None, checks=(), variants=(), instances=1)
        found = with_plan(with_instance(evidence(image()), checks=()), plan)
        found = replace(found, report=replace(found.report, instances=found.report.instances[:1]))
        assert "no checks" in refused(store, found)["gate-report-edited"]

    def test_one_of_another_image(self, store: Store) -> None:
        other = image("1.1")
        assert set(refused(store, evidence(other))) == {"gate-report-of-another-image"}
        renamed = replace(evidence(other), image=image().digest)
        assert set(refused(store, renamed)) == {"gate-report-of-another-image"}
        relabelled = replace(renamed, report=replace(renamed.report, image=image().digest))
        assert set(refused(store, relabelled)) == {"gate-report-of-another-image"}

    def test_other_checks_than_the_recipe_asks_for(self, store: Store) -> None:
        less = replace(PLAN, checks=PLAN.checks[1:])
        found = evidence(image())
        easier = replace(found, report=with_plan(found, less).report)
        assert set(refused(store, easier)) >= {"gate-other-checks"}
        assert set(refused(store, with_plan(found, less, renamed=False))) >= {"gate-other-checks"}

    def test_other_checks_than_whoever_publishes_knows(self, store: Store) -> None:
        one = image()
        given = replace(candidate(one, store), checks=plan_digest(replace(PLAN, instances=9)))
        assert set(refusal(lambda: clear(one, store=store, candidates=[given]))) == {"gate-other-checks"}
        assert clear(one, store=store, candidates=[replace(given, checks=plan_digest(PLAN))])

    def test_another_runtime(self, store: Store) -> None:
        found = evidence(image())
        assert set(refused(store, replace(found, runtime="crun 1.8"))) == {"gate-other-runtime"}
        nameless = replace(found, runtime="", report=replace(found.report, runtime=""))
        assert set(refused(store, nameless)) == {"gate-other-runtime"}

    def test_none_at_all(self, store: Store) -> None:
        one = image()
        given = replace(candidate(one, store), evidence=b"")
        assert set(refusal(lambda: clear(one, store=store, candidates=[given]))) == {"gate-report-missing"}
        assert set(refusal(lambda: clear(one, store=store, candidates=[]))) == {"gate-architecture-untested"}

    def test_all_problems_are_told_at_once(self, store: Store) -> None:
        found = with_result(evidence(image("2.0")), "page", answer=HttpAnswer(500, (), RecordedText.of("")))
        rules = MirrorRules((GateRule(size=1, runtimes=("kata *",)),))
        one = image()
        given = [candidate(one, store, replace(found, runtime="crun 1.8"))]
        said = refusal(lambda: clear(one, store=store, candidates=given, rules=rules))
        assert set(said) == {
            "gate-report-of-another-image",
            "gate-report-edited",
            "gate-other-runtime",
            "gate-size",
            "gate-runtime",
        }


class TestSeals:
    def test_a_file_that_was_edited_with_all_its_digests_put_right(self, store: Store) -> None:
        one = image()
        seal = store.seal(evidence_json(evidence(one)))
        easier = replace(
            PLAN, checks=(tested_images.WHO,), variants=(), instances=1, ready=None, limits=type(PLAN.limits)()
        )
        found = with_plan(with_instance(evidence(one), checks=(evidence(one).report.instances[0].checks[2],)), easier)
        found = replace(found, report=replace(found.report, instances=found.report.instances[:1]))
        data = evidence_json(found)
        given = Candidate(one.manifest_bytes, one.config_bytes, data, SealedEvidence(seal, store))
        assert set(refusal(lambda: clear(one, store=store, candidates=[given]))) == {"gate-report-edited"}
        # It is the seal alone that tells: by itself the report is sound.
        assert clear(one, store=store, candidates=[candidate(one, store, found)])

    def test_patterns_of_evidence_that_is_not_genuine_are_not_searched_with(self, store: Store) -> None:
        one = image()
        plan = SmokePlan(tested_images.READY, (replace(tested_images.LOG, log=(Rule(matches="(a|a)*$b"),)),))
        endless = CheckResult("log", True, 1, "", LogAnswer(RecordedText.of("a" * 60)))
        found = with_plan(
            with_instance(evidence(one), checks=(evidence(one).report.instances[0].checks[0], endless)), plan
        )
        found = replace(found, report=replace(found.report, instances=found.report.instances[:1]))
        given = replace(candidate(one, store, found), warrant=SealedEvidence("00" * 32, store))
        assert set(refusal(lambda: clear(one, store=store, candidates=[given]))) == {"gate-report-edited"}

    @pytest.mark.parametrize("seal", ["", "00" * 32, "☃"])
    def test_a_seal_that_is_none(self, store: Store, seal: str) -> None:
        one = image()
        given = replace(candidate(one, store), warrant=SealedEvidence(seal, store))
        assert set(refusal(lambda: clear(one, store=store, candidates=[given]))) == {"gate-report-edited"}

    def test_the_seal_of_another_store(self, store: Store, tmp_path: Path) -> None:
        one = image()
        other = Store.open(tmp_path / "other")
        given = replace(candidate(one, other), warrant=SealedEvidence(other.seal(evidence_json(evidence(one))), store))
        assert set(refusal(lambda: clear(one, store=store, candidates=[given]))) == {"gate-report-edited"}

    def test_bytes_that_are_no_evidence(self, store: Store) -> None:
        one = image()
        good = evidence_json(evidence(one))
        for data in (b"{}", b"not json", good[:-1], good + b" ", json.dumps(json.loads(good)).encode(), b"[" * 10_000):
            given = Candidate(one.manifest_bytes, one.config_bytes, data, SealedEvidence(store.seal(data), store))
            assert set(refusal(functools.partial(clear, one, store=store, candidates=[given]))) == {
                "gate-report-edited"
            }

    def test_an_attestation_on_another_image_or_of_other_evidence(self, store: Store, tmp_path: Path) -> None:
        one, other = image(), image("2.0")
        data = evidence_json(evidence(one))
        operator = MirrorOperator(tmp_path / "mirror")
        operator.attests(one, data)
        operator.attests(other, data)
        with pytest.raises(VerificationError) as nothing:
            operator.found(image("3.0"))
        assert nothing.value.code == "attestation-missing"
        moved = Candidate(one.manifest_bytes, one.config_bytes, data, operator.found(other))
        assert set(refusal(lambda: clear(one, store=store, candidates=[moved]))) == {"gate-report-of-another-image"}
        edited = Candidate(one.manifest_bytes, one.config_bytes, data + b" ", operator.found(one))
        assert set(refusal(lambda: clear(one, store=store, candidates=[edited]))) == {"gate-report-edited"}

    def test_an_attestation_by_another_key(self, store: Store, tmp_path: Path) -> None:
        one = image()
        operator = MirrorOperator(tmp_path / "mirror")
        operator.attests(one, evidence_json(evidence(one)), by=load_signing_key(cheap_key(b"x")[0], lambda: b"x"))
        with pytest.raises(VerificationError) as wrong:
            operator.found(one)
        assert wrong.value.code == "signature-wrong-key"


class TestImages:
    def test_an_architecture_that_nobody_tested(self, store: Store) -> None:
        both = (image(), image(architecture="arm64"))
        said = refusal(lambda: clear(*both, store=store, candidates=[candidate(both[0], store)]))
        assert said == {"gate-architecture-untested": "the image for linux/arm64 in the index was not tested"}

    def test_a_candidate_too_many(self, store: Store) -> None:
        given = [candidate(image(), store), candidate(image("2.0"), store)]
        said = refusal(lambda: clear(image(), store=store, candidates=given))
        assert set(said) == {"gate-report-of-another-image"}
        twice = [candidate(image(), store)] * 2
        assert set(refusal(lambda: clear(image(), store=store, candidates=twice))) == {"gate-image"}

    def test_a_config_that_is_not_the_manifests(self, store: Store) -> None:
        one = image()
        given = replace(candidate(one, store), config=image("2.0").config_bytes)
        assert "gate-image" in refusal(lambda: clear(one, store=store, candidates=[given]))

    @pytest.mark.parametrize(
        "change",
        [
            {"manifests": []},
            {"manifests": [{"mediaType": media_types.INDEX, "digest": str(Digest.of(b"")), "size": 1}]},
            {"layers": []},
            {"config": {}},
            {"mediaType": media_types.MANIFEST},
        ],
    )
    def test_an_index_that_is_something_else_to_others(self, store: Store, change: dict[str, object]) -> None:
        both = (image(), image(architecture="arm64"))
        data = canonical_json({**json.loads(tested_images.index(*both).data), **change})
        given = tuple(candidate(one, store) for one in both)
        make = lambda: Cleared("tiny", ("1",), Manifest(media_types.INDEX, data), given, MirrorRules())  # noqa: E731
        assert "gate-image" in refusal(make)

    def test_an_image_that_is_an_index_to_others(self, store: Store) -> None:
        one = image()
        data = canonical_json({**json.loads(one.manifest_bytes), "manifests": []})
        given = replace(candidate(one, store), manifest=data)
        make = lambda: Cleared("t", ("1",), Manifest(media_types.MANIFEST, data), (given,), MirrorRules())  # noqa: E731
        assert "gate-image" in refusal(make)

    def test_an_image_listed_for_another_platform(self, store: Store) -> None:
        one = image()
        document = json.loads(tested_images.index(one).data)
        document["manifests"][0]["platform"]["architecture"] = "arm64"
        whole = Manifest(media_types.INDEX, canonical_json(document))
        make = lambda: Cleared("tiny", ("1",), whole, (candidate(one, store),), MirrorRules())  # noqa: E731
        assert "for 'linux/arm64'" in refusal(make)["gate-image"]

    def test_bytes_that_are_no_manifest(self, store: Store) -> None:
        for media_type in (media_types.MANIFEST, media_types.INDEX, "text/plain"):
            make = functools.partial(Cleared, "tiny", ("1",), Manifest(media_type, b"x"), (), MirrorRules())
            assert set(refusal(make)) == {"gate-image"}
