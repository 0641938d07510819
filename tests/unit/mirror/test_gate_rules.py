"""The operator's rules at the gate: each refuses by its code and place, and passes what satisfies it."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from pipeline.mirror.gate import (
    SealedEvidence,
)
from pipeline.mirror.policy import CurrentImage
from pipeline.model.evidence import (
    Contents,
    PackageLicense,
    evidence_json,
)
from pipeline.model.rules import GateRule, MirrorRules
from pipeline.oci import (
    media_types,
)
from pipeline.store import Store
from tests.support.tested_images import (
    candidate,
    clear,
    evidence,
    image,
    loosely_tested,
    refusal,
    refused,
)


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "code", "said"),
        [
            (GateRule(size=100), "gate-size", "more than 100"),
            (GateRule(setuid=()), "gate-setuid", "/usr/bin/su (4755)"),
            (GateRule(setuid=("/usr/sbin/*",)), "gate-setuid", "/usr/bin/su"),
            (GateRule(labels=("a", "b")), "gate-labels", "a, b"),
            (GateRule(licenses=("GPL*",)), "gate-license", "zlib-1.3-1.x86_64 (zlib)"),
            (GateRule(forbidden_packages=("ba*",)), "gate-package", "bash-5.2-1.x86_64"),
            (GateRule(forbidden_packages=("bash-5.2-1.x86_64",)), "gate-package", "bash"),
            (GateRule(runtimes=("runsc *", "kata*")), "gate-runtime", "runc 1.1.5"),
            (GateRule(enforced_limits=("cpus", "*")), "gate-limits", "cpus (no such limit was asked for)"),
        ],
    )
    def test_each_rule_refuses_with_its_place(self, store: Store, rule: GateRule, code: str, said: str) -> None:
        rules = MirrorRules((replace(rule, place="rules.yaml:3: gate[0]"),))
        found = refusal(lambda: clear(image(), store=store, rules=rules))
        assert set(found) == {code}
        assert said in found[code] and "rules.yaml:3: gate[0]" in found[code]
        for other in (replace(rule, repositories="prod/*"), replace(rule, tags="stable*")):
            assert clear(image(), store=store, rules=MirrorRules((other,)))
        assert set(refusal(lambda: clear(image(), store=store, tags=(), rules=rules))) == {code}

    def test_what_the_rules_allow_passes(self, store: Store) -> None:
        rule = GateRule(
            size=1 << 30,
            setuid=("/usr/bin/s?",),
            labels=(media_types.VERSION,),
            licenses=("GPL*", "zlib"),
            forbidden_packages=("gcc", "*-devel"),
            runtimes=("crun *", "runc *"),
            enforced_limits=("memory", "pids", "volume *"),
        )
        assert clear(image(), store=store, rules=MirrorRules((rule,)))

    def test_a_test_that_enforced_no_limit_passes_only_where_none_is_demanded(self, store: Store) -> None:
        found = loosely_tested(evidence(image()))
        given = [candidate(image(), store, found)]
        assert clear(image(), store=store, candidates=given).limits == found.limits
        for patterns, said in (
            (("*",), ["memory (not handed over)", "pids (asked 50, read 99)"]),
            (("memory",), ["memory (not handed over)"]),
        ):
            rules = MirrorRules((GateRule(enforced_limits=patterns),))
            codes = refusal(lambda rules=rules: clear(image(), store=store, candidates=given, rules=rules))
            assert set(codes) == {"gate-limits"}
            assert all(one in codes["gate-limits"] for one in said)
            assert ("pids" in codes["gate-limits"]) is (len(said) == 2)

    def test_evidence_from_before_it_told_of_limits_is_held_against_the_rule_too(self, store: Store) -> None:
        rules = MirrorRules((GateRule(enforced_limits=("*",)),))
        for found, is_refused in ((evidence(image()), False), (loosely_tested(evidence(image())), True)):
            data = evidence_json(found, 1)
            old = replace(
                candidate(image(), store, found), evidence=data, warrant=SealedEvidence(store.seal(data), store)
            )
            if is_refused:
                make = functools.partial(clear, image(), store=store, candidates=[old], rules=rules)
                assert set(refusal(make)) == {"gate-limits"}
            else:
                assert all(
                    limit.enforced for limit in clear(image(), store=store, candidates=[old], rules=rules).limits
                )

    def test_all_rules_that_match_hold(self, store: Store) -> None:
        rules = MirrorRules((GateRule(size=1 << 30), GateRule(tags="1.*", labels=("x",)), GateRule(tags="2.*", size=1)))
        assert set(refusal(lambda: clear(image(), store=store, rules=rules))) == {"gate-labels"}

    def test_an_image_that_does_not_say_what_it_holds(self, store: Store) -> None:
        found = replace(evidence(image()), contents=Contents("tiny", "1.0", "amd64"))
        rules = MirrorRules((GateRule(licenses=("*",)),))
        given = [candidate(image(), store, found)]
        codes = set(refusal(lambda: clear(image(), store=store, candidates=given, rules=rules)))
        assert codes == {"gate-package", "gate-packages-unknown"}

    def test_an_image_whose_packages_nobody_could_read_is_refused_without_any_rule(self, store: Store) -> None:
        nothing = replace(evidence(image()), contents=Contents("tiny", "1.0", "amd64"))
        assert set(refused(store, nothing)) == {"gate-packages-unknown"}
        for contents in (
            Contents("tiny", "1.0", "amd64", database="/opt/rpm/rpmdb.sqlite"),
            Contents("tiny", "1.0", "amd64", (PackageLicense("bash-5.2-1.x86_64", "GPL"),)),  # Evidence of before.
        ):
            given = [candidate(image(), store, replace(evidence(image()), contents=contents))]
            assert clear(image(), store=store, candidates=given)

    def test_an_imported_key_has_no_licence(self, store: Store) -> None:
        key = PackageLicense("gpg-pubkey-8d2b1a2f-5c0e1e63.", "pubkey")
        contents = replace(evidence(image()).contents, packages=(key,))
        given = [candidate(image(), store, replace(evidence(image()), contents=contents))]
        assert clear(image(), store=store, candidates=given, rules=MirrorRules((GateRule(licenses=("MIT",)),)))

    @pytest.mark.parametrize(
        "pattern",
        ["diffutils-3.10-4.el9.x86_64", "diffutils-3.10*", "diffutils-1:3.10-4.el9.x86_64", "diffutils.x86_64"],
    )
    def test_a_forbidden_package_is_refused_with_or_without_its_epoch(self, store: Store, pattern: str) -> None:
        package = PackageLicense("diffutils-1:3.10-4.el9.x86_64", "GPL")
        contents = replace(evidence(image()).contents, packages=(package,))
        given = [candidate(image(), store, replace(evidence(image()), contents=contents))]
        make = functools.partial(clear, image(), store=store, candidates=given)
        rules = MirrorRules((GateRule(forbidden_packages=(pattern,)),))
        assert package.nevra in refusal(lambda: make(rules=rules))["gate-package"]
        assert make(rules=MirrorRules((GateRule(forbidden_packages=("diffutils-2:*", "diffutils-3.11*")),)))

    def test_versions_that_differ_across_architectures(self, store: Store) -> None:
        both = (image("1.0"), image("1.1", architecture="arm64"))
        assert "amd64: 1.0, arm64: 1.1" in refusal(lambda: clear(*both, store=store))["gate-versions-differ"]
        assert clear(*both, store=store, rules=MirrorRules((GateRule(same_versions=False),)))

    @pytest.mark.parametrize(
        ("now", "older"),
        [
            (CurrentImage("1.0", "0.9", 2_000_000_000), False),
            (CurrentImage("1.0", "1.0", 1_700_000_000), False),
            (CurrentImage("1.0", "1.0", 1_700_000_001), True),
            (CurrentImage("1.0", "1.0.1", 0), True),
            (CurrentImage("1.0", "1.10", 0), True),
            (CurrentImage("1.0", "1.0~rc1", 2_000_000_000), False),
            (CurrentImage("1.0", "1:0.1", 0), True),
            (CurrentImage("1.0", "", 1_600_000_000), False),
            (CurrentImage("1.0", "", 1_800_000_000), True),
            (CurrentImage("another", "9", 1_800_000_000), False),
        ],
    )
    def test_what_is_older_than_what_the_tag_has(self, store: Store, now: CurrentImage, older: bool) -> None:
        if older:
            assert set(refusal(lambda: clear(image(), store=store, current=(now,)))) == {"gate-older"}
            assert clear(image(), store=store, current=(now,), rules=MirrorRules((GateRule(refuse_older=False),)))
        else:
            assert clear(image(), store=store, current=(now,))

    @pytest.mark.parametrize(
        ("before", "after", "lost"),
        [
            (("amd64", "arm64"), ("arm64",), "linux/amd64"),
            (("amd64",), ("arm64",), "linux/amd64"),
            (("amd64", "arm64", "s390x"), ("s390x",), "linux/amd64, linux/arm64"),
            (("amd64", "s390x"), ("amd64", "arm64"), "linux/s390x"),
            (("arm64",), ("amd64", "arm64"), ""),
            (("amd64", "arm64"), ("arm64", "amd64"), ""),
            ((), ("amd64",), ""),
        ],
    )
    def test_what_has_fewer_platforms_than_the_tag(
        self, store: Store, before: tuple[str, ...], after: tuple[str, ...], lost: str
    ) -> None:
        images = [image(architecture=one) for one in after]
        platforms = frozenset(image(architecture=one).config.platform for one in before)
        now = CurrentImage("1.0", "0.9", 0, platforms=platforms)
        if not lost:
            assert clear(*images, store=store, current=(now,))
            return
        found = refusal(lambda: clear(*images, store=store, current=(now,)))
        assert set(found) == {"gate-platforms-fewer"}
        assert f"tag '1.0' would lose platforms that its present image has: {lost}" in found["gate-platforms-fewer"]
        for rule in (GateRule(refuse_fewer_platforms=False), GateRule(tags="stable"), GateRule(repositories="prod/*")):
            assert clear(*images, store=store, current=(now,), rules=MirrorRules((rule,)))
        assert clear(*images, store=store, current=(replace(now, tag="another"),))

    def test_a_platform_has_its_variant_but_for_the_one_that_goes_without_saying(self) -> None:
        config = image(architecture="arm").config
        assert replace(config, variant="v7").platform == "linux/arm/v7"
        assert replace(config, architecture="arm64", variant="v8").platform == "linux/arm64"
