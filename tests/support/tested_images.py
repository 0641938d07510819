"""Images that were "tested" in memory: a plan, a report that answers it rightly, evidence, and what the gate wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import PublicationRefused
from pipeline.mirror.gate import Candidate, Cleared, SealedEvidence
from pipeline.mirror.policy import CurrentImage
from pipeline.model.checks import CheckAnswer, CheckKind, MountsAnswer
from pipeline.model.checks.command_check import CommandAnswer
from pipeline.model.checks.http_check import HttpAnswer, HttpRequest
from pipeline.model.checks.listening_check import ListeningAnswer, ListeningFacts, SeenSocket
from pipeline.model.checks.log_check import LogAnswer
from pipeline.model.checks.port_check import TalkAnswer
from pipeline.model.checks.restart_check import Restart, RestartAnswer
from pipeline.model.checks.stop_check import StopAnswer
from pipeline.model.evidence import (
    Contents,
    Evidence,
    PackageLicense,
    PrivilegedFile,
    evidence_json,
)
from pipeline.model.image import Image, ImageConfig
from pipeline.model.limit import LimitReading
from pipeline.model.limits import Limits
from pipeline.model.manifests import Manifest
from pipeline.model.plan_form import plan_digest
from pipeline.model.report import CheckResult, InstanceReport, SmokeReport
from pipeline.model.rules import MirrorRules
from pipeline.model.smoke import Check, Expectation, SmokePlan, Variant
from pipeline.model.value_comparison import RecordedText
from pipeline.model.value_rules import Rule
from pipeline.oci import make_image, media_types
from pipeline.store import Store
from tests.support.tiny_image import fake_layer

RUNTIME = "runc 1.1.5"

READY = Check("ready", CheckKind.PORT, 5000, Expectation(exit_code=None), port=80)
PAGE = Check(
    "page",
    CheckKind.HTTP,
    5000,
    Expectation(status=(Rule(equals="200"),), body=(Rule(at="$.status", equals="green"),)),
    subject=HttpRequest(80),
)
WHO = Check("who", CheckKind.COMMAND, 5000, Expectation(stdout=(Rule(equals="27"),)), command=("id", "-u"))
LISTENS = Check("listens", CheckKind.LISTENING, 5000, subject=ListeningFacts())
LOG = Check("log", CheckKind.LOG, 5000, log=(Rule(matches="^serving$", lacks="ERROR"),))
RESTARTS = Check("restarts", CheckKind.RESTART, 5000, subject=Restart.SAME_DATA)
STOPS = Check("stops", CheckKind.STOP, 5000)
PLAN = SmokePlan(
    READY,
    (PAGE, WHO, LISTENS, RESTARTS, LOG, STOPS),
    Limits(memory=64 << 20, pids=50, enforce=True),
    2,
    (Variant.READ_ONLY, Variant.ARBITRARY_UID),
)


def config(version: str = "1.0", architecture: str = "amd64", created: int = 1_700_000_000) -> ImageConfig:
    labels = ((media_types.VERSION, version),) if version else ()
    return ImageConfig(
        architecture,
        created,
        entrypoint=("/app",),
        exposed_ports=("80/tcp",),
        volumes=("/data",),
        stop_signal="SIGQUIT",
        labels=labels,
    )


def image(version: str = "1.0", architecture: str = "amd64", created: int = 1_700_000_000, name: str = "tiny") -> Image:
    return make_image(name, version or "0", config(version, architecture, created), [fake_layer("base")])


def results(*, read_only: bool = False) -> tuple[CheckResult, ...]:
    body = RecordedText.of('{"status": "green"}')
    answers: list[tuple[str, CheckAnswer]] = [
        ("ready", TalkAnswer()),
        *([("nothing but volumes and scratch space can be written", MountsAnswer(("/data", "/tmp")))] * read_only),
        ("page", HttpAnswer(200, (), body)),
        ("who", CommandAnswer(0, RecordedText.of("27\n"), RecordedText.of(""))),
        ("listens", ListeningAnswer((SeenSocket("80/tcp", local=False),))),
        ("restarts", RestartAnswer(Restart.SAME_DATA, 0, TalkAnswer())),
        ("log", LogAnswer(RecordedText.of("serving\n"))),
        ("stops", StopAnswer("SIGQUIT", 0)),
    ]
    return tuple(CheckResult(name, True, 5, "", answer) for name, answer in answers)


def instance(name: str, variant: Variant | None = None) -> InstanceReport:
    limits = (
        LimitReading("memory", 64 << 20, 64 << 20, True),
        LimitReading("pids", 50, 50, True),
    )
    user = "12345:0" if variant is Variant.ARBITRARY_UID else ""
    checks = results(read_only=variant is Variant.READ_ONLY)
    return InstanceReport(name, checks, limits, 5, 0, None, None, None, None, None, variant=variant, user=user)


def report(tested: Image) -> SmokeReport:
    """A report that passes `PLAN`."""
    instances = (
        instance("tiny-1"),
        instance("tiny-2"),
        instance("tiny-read-only", Variant.READ_ONLY),
        instance("tiny-arbitrary-uid", Variant.ARBITRARY_UID),
    )
    return SmokeReport(
        tested.digest, plan_digest(PLAN), RUNTIME, instances, 1_700_000_000, 100, asked=PLAN, config=tested.config
    )


def evidence(tested: Image) -> Evidence:
    contents = Contents(
        tested.name,
        dict(tested.config.labels).get(media_types.VERSION, ""),
        tested.config.architecture,
        (PackageLicense("bash-5.2-1.x86_64", "GPLv3+"), PackageLicense("zlib-1.3-1.x86_64", "zlib")),
        (PrivilegedFile("/usr/bin/su", 0o4755),),
    )
    return Evidence(tested.digest, plan_digest(PLAN), RUNTIME, True, report(tested), contents)


def simple_evidence(tested: Image) -> Evidence:
    """Evidence that fits an image with any configuration, from a plan that asks little."""
    plan = SmokePlan(READY, (WHO,))
    checks = tuple(result for result in results() if result.name in ("ready", "who"))
    instances = (InstanceReport("tiny-1", checks, (), 5, 0, None, None, None, None, None),)
    contents = Contents(tested.name, "", tested.config.architecture, database="/usr/lib/sysimage/rpm/rpmdb.sqlite")
    made = SmokeReport(
        tested.digest, plan_digest(plan), RUNTIME, instances, 1_700_000_000, 100, asked=plan, config=tested.config
    )
    return Evidence(tested.digest, plan_digest(plan), RUNTIME, True, made, contents)


def candidate(tested: Image, store: Store, found: Evidence | None = None) -> Candidate:
    """With evidence that `store` has sealed."""
    data = evidence_json(found or evidence(tested))
    return Candidate(tested.manifest_bytes, tested.config_bytes, data, SealedEvidence(store.seal(data), store))


def index(*images: Image) -> Manifest:
    data = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": media_types.INDEX,
            "manifests": [
                {
                    "mediaType": media_types.MANIFEST,
                    "digest": str(one.digest),
                    "size": len(one.manifest_bytes),
                    "platform": {"os": "linux", "architecture": one.config.architecture},
                }
                for one in images
            ],
        }
    )
    return Manifest(media_types.INDEX, data)


def clear(
    *images: Image,
    store: Store,
    whole: Manifest | None = None,
    candidates: Sequence[Candidate] | None = None,
    repository: str = "tiny",
    tags: tuple[str, ...] = ("1.0",),
    rules: MirrorRules | None = None,
    current: tuple[CurrentImage, ...] = (),
) -> Cleared:
    """One image, or an index of several (`whole`, or one made here), through the gate. Raises PublicationRefused."""
    made = Manifest(media_types.MANIFEST, images[0].manifest_bytes) if len(images) == 1 else index(*images)
    given = tuple(candidate(one, store) for one in images) if candidates is None else tuple(candidates)
    return Cleared(repository, tags, whole or made, given, rules or MirrorRules(), current)


def with_result(found: Evidence, name: str, number: int = 0, **changes: object) -> Evidence:
    """The evidence with one result of one instance changed."""
    one = found.report.instances[number]
    checks = tuple(
        replace(result, **changes) if result.name == name else result  # type: ignore[arg-type]
        for result in one.checks
    )
    return with_instance(found, number, checks=checks)


def with_instance(found: Evidence, number: int = 0, **changes: object) -> Evidence:
    """The evidence with one instance changed."""
    instances = list(found.report.instances)
    instances[number] = replace(instances[number], **changes)  # type: ignore[arg-type]
    return replace(found, report=replace(found.report, instances=tuple(instances)))


def loosely_tested(found: Evidence) -> Evidence:
    """The evidence as if one of the instances had not been held to its limits, which the recipe does not insist on."""
    plan = replace(PLAN, limits=replace(PLAN.limits, enforce=False))
    loose = (
        LimitReading("memory", 64 << 20, None, enforced=False, reason="not handed over"),
        LimitReading("pids", 50, 99, enforced=False),
    )
    return with_instance(with_plan(found, plan), 1, limits=loose)


def with_plan(found: Evidence, plan: SmokePlan, *, renamed: bool = True) -> Evidence:
    """The evidence as if other things had been asked; `renamed`: with all digests put right."""
    digest: Digest = plan_digest(plan) if renamed else found.checks
    return replace(found, checks=digest, report=replace(found.report, asked=plan, plan=digest))


def stand_in(whole: Manifest, repository: str = "tiny", tags: tuple[str, ...] = ()) -> Cleared:
    """What tests of mirrors hold in place of what the gate cleared, for manifests of which nothing was tested. Made
    around the constructor, as only code inside the publisher's own process could."""
    made = object.__new__(Cleared)
    for name, value in (
        ("repository", repository),
        ("tags", tags),
        ("manifest", whole),
        ("images", ()),
        ("rules", MirrorRules()),
        ("current", ()),
    ):
        object.__setattr__(made, name, value)
    return made


def refusal(make: Callable[[], object]) -> dict[str, str]:
    """Code → message of all that the gate says."""
    with pytest.raises(PublicationRefused) as caught:
        make()
    assert all(problem.hint for problem in caught.value.problems)
    return {problem.code: problem.message for problem in caught.value.problems}


def refused(store: Store, found: Evidence, one: Image | None = None) -> dict[str, str]:
    """What is said of evidence that this store sealed itself: that the seal fits is not enough."""
    one = one or image()
    return refusal(lambda: clear(one, store=store, candidates=[candidate(one, store, found)]))


def about(evidence: Evidence, image: Image) -> Evidence:
    """The evidence, as if it had been got of another image."""
    labels = dict(image.config.labels)
    contents = replace(evidence.contents, version=labels[media_types.VERSION], architecture=image.config.architecture)
    report = replace(evidence.report, image=image.digest, config=image.config)
    return replace(evidence, image=image.digest, report=report, contents=contents)
