"""What goes of a mirror and what stays: examples of each promise."""

from __future__ import annotations

from dataclasses import replace

from pipeline.mirror.retention.pruning_plan import plan_pruning
from pipeline.model.rules import MirrorRules, RetentionRule
from tests.support.inventories import (
    DAY,
    KEEP_NONE,
    NOW,
    OLD,
    YOUNG,
    InventoryMaker,
    digest,
    gone,
    mirror,
    names,
)

# --- what stays with what


def test_without_rules_every_tag_stays_and_what_no_tag_reaches_goes() -> None:
    maker = InventoryMaker().image("kept", "layer").tag("9.7", "kept").image("lost", "layer", "own")
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW)
    assert gone(plan, "lost", "own") == {"lost", "own"}
    assert plan.size == 100 + 10


def test_a_blob_that_another_repository_needs_stays() -> None:
    one = InventoryMaker("a").image("x", "shared", "own").tag("gone", "x")
    other = InventoryMaker("b").image("y", "shared").tag("stays", "y")
    assert gone(plan_pruning(mirror(one, other), KEEP_NONE, NOW), "x", "own") == {"gone", "x", "own"}


def test_the_same_manifest_stays_in_one_repository_and_goes_from_another() -> None:
    one = InventoryMaker("a").image("x", "layer").tag("gone", "x")
    other = InventoryMaker("b").image("x", "layer").tag("stays", "x")
    plan = plan_pruning(mirror(one, other), KEEP_NONE, NOW)
    assert [(judged.repository, judged.digest) for judged in plan.manifests] == [("a", digest("x"))]
    assert not plan.blobs


def test_an_index_keeps_its_images_and_takes_along_those_that_nothing_else_has() -> None:
    maker = InventoryMaker().image("amd", "la").image("arm", "lb").image("old", "lc")
    maker.index("kept", "amd", "arm").tag("stays", "kept").index("left", "arm", "old").tag("gone", "left")
    assert gone(plan_pruning(mirror(maker), KEEP_NONE, NOW), "left", "old", "lc") == {"gone", "left", "old", "lc"}


def test_an_untagged_index_goes_although_it_lists_an_image_that_stays() -> None:
    maker = InventoryMaker().image("amd", "la").image("arm", "lb").index("parent", "amd", "arm").tag("stays", "amd")
    assert gone(plan_pruning(mirror(maker), MirrorRules(), NOW), "parent", "arm", "lb") == {"parent", "arm", "lb"}


def test_what_speaks_of_something_that_stays_stays_and_what_speaks_of_that_too() -> None:
    maker = (
        InventoryMaker()
        .image("x", "l")
        .tag("stays", "x")
        .image("sbom", "s", subject="x")
        .image("seal", "t", subject="sbom")
    )
    maker.follow("x", "list").index("list", "sbom").follow("x", "sig", ".sig").image("sig", "u")
    assert plan_pruning(mirror(maker), MirrorRules(), NOW).empty


def test_what_speaks_of_something_that_goes_goes() -> None:
    maker = (
        InventoryMaker()
        .image("x", "l")
        .tag("gone", "x")
        .image("sbom", "s", subject="x")
        .image("seal", "t", subject="sbom")
    )
    maker.follow("x", "list").index("list", "sbom").follow("x", "sig", ".sig").image("sig", "u")
    plan = plan_pruning(mirror(maker), KEEP_NONE, NOW)
    assert len(plan.tags) == 3
    assert names((*plan.manifests, *plan.blobs), *"xlst", "sbom", "seal", "list", "sig", "u") == {
        *("x", "l", "s", "t", "u", "sbom", "seal", "list", "sig")
    }
    assert not plan.relisted


def test_a_referrer_that_a_tag_points_to_keeps_its_subject() -> None:
    maker = InventoryMaker().image("x", "l").image("sbom", "s", subject="x").tag("stays", "sbom")
    assert plan_pruning(mirror(maker), MirrorRules(), NOW).empty


def test_what_speaks_of_a_lost_member_of_an_index_stays_and_goes_with_the_index() -> None:
    """A scrub may put a rotten manifest aside, and a publication restore it: its signatures are needed then."""
    maker = InventoryMaker().image("amd", "la").index("i", "amd", "lost").tag("gone", "i")
    maker.image("sbom", "s", subject="lost").follow("lost", "list").index("list", "sbom")
    maker.follow("lost", "sig", ".sig").image("sig", "u")
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW)
    assert plan.empty
    assert plan.notes == (f"product@{digest('i')} needs {digest('lost')}, which is missing",)
    plan = plan_pruning(mirror(maker), KEEP_NONE, NOW)
    own = "i", "amd", "la", "sbom", "s", "list", "sig", "u"
    assert gone(plan, *own) >= {"gone", *own} and len(plan.tags) == 3


def test_what_speaks_of_the_lost_target_of_a_tag_stays() -> None:
    maker = InventoryMaker().tag("9.7", "lost").image("sbom", "s", subject="lost")
    maker.follow("lost", "sig", ".sig", None).image("sig", "u", since=None).follow("lost", "lost", ".att")
    assert plan_pruning(mirror(maker), MirrorRules(), NOW).empty


def test_a_referrer_whose_subject_is_missing_goes_with_its_tags() -> None:
    maker = InventoryMaker().image("kept").tag("stays", "kept").image("sbom", "s", subject="missing")
    maker.follow("missing", "list").index("list", "sbom").follow("missing", "sig", ".sig").image("sig", "u")
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW)
    assert names((*plan.manifests, *plan.blobs), "sbom", "s", "list", "sig", "u") == {"sbom", "s", "list", "sig", "u"}
    assert len(plan.tags) == 2


def test_a_referrer_whose_subject_is_missing_stays_where_a_tag_points_to_it() -> None:
    maker = InventoryMaker().image("sbom", "s", subject="missing").tag("stays", "sbom")
    assert plan_pruning(mirror(maker), MirrorRules(), NOW).empty


def test_being_listed_among_referrers_keeps_nothing_and_the_list_is_written_anew() -> None:
    maker = (
        InventoryMaker()
        .image("x", "l")
        .tag("stays", "x")
        .image("sbom", "s", subject="x")
        .image("other", "o", subject="gone")
    )
    maker.follow("x", "list").index("list", "sbom", "other", "nowhere")
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW)
    assert gone(plan, "other", "o", "list") == {"other", "o", "list"}
    (relisting,) = plan.relisted
    assert relisting.present == digest("list")
    assert set(relisting.without) == {digest("other"), digest("nowhere")}


def test_a_list_that_names_nothing_that_stays_goes() -> None:
    maker = InventoryMaker().image("x", "l").tag("stays", "x").follow("x", "list").index("list", "nowhere")
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW)
    assert [judged.tag for judged in plan.tags] == [f"sha256-{digest('x').hex}"]
    assert names(plan.manifests, "list") == {"list"}
    assert not plan.relisted


def test_sources_stay_and_go_with_the_image_that_they_are_of() -> None:
    for tag, stays in (("stays", True), ("gone", False)):
        maker = (
            InventoryMaker()
            .image("x", "l")
            .tag(tag, "x")
            .image("rpms", "r")
            .tag(f"sources-{digest('x').short}", "rpms")
        )
        assert (
            digest("rpms") in {one.digest for one in plan_pruning(mirror(maker), KEEP_NONE, NOW).manifests}
        ) != stays


def test_sources_stay_with_whatever_stays_and_has_them() -> None:
    """By the digest that their tag names, by what they speak of, by what lists them."""
    for maker in (
        InventoryMaker().image("x").tag("stays", "x").image("rpms", "r", subject="x"),
        InventoryMaker().image("x").index("i", "x", "rpms").tag("stays", "i").image("rpms", "r"),
    ):
        maker.tag("sources-0123456789ab", "rpms")
        assert plan_pruning(mirror(maker), MirrorRules(), NOW).empty


def test_a_list_that_is_young_and_stays_keeps_nothing_either() -> None:
    maker = InventoryMaker().image("x").tag("stays", "x").image("sbom", subject="x").image("other", "o", subject="gone")
    maker.follow("x", "list").index("list", "sbom", "other", since=YOUNG)
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW)
    assert {digest("other"), digest("o")} <= {one.digest for one in (*plan.manifests, *plan.blobs)}
    assert [one.without for one in plan.relisted] == [(digest("other"),)]


def test_a_list_that_people_pull_by_another_tag_is_an_index_like_any_other() -> None:
    maker = InventoryMaker().image("x").tag("stays", "x").image("other", "o", subject="gone")
    maker.follow("x", "list").index("list", "other", "nowhere").tag("all-of-it", "list")
    assert plan_pruning(mirror(maker), MirrorRules(), NOW).empty


def test_what_a_killed_pruning_had_begun_is_finished_but_for_what_stays() -> None:
    maker = InventoryMaker().image("x", "l", since=None).image("left", "m", since=None).tag("stays", "x")
    maker.index("record", "x", "left", since=None).tag(f"prune.{digest('record').hex[:32]}", "record", None)
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW)
    assert names(plan.manifests, "x", "left", "record") == {"left", "record"}
    assert len(plan.tags) == 1


# --- which tags go


def tags_gone(maker: InventoryMaker, *rules: RetentionRule) -> set[str]:
    return {judged.tag for judged in plan_pruning(mirror(maker), MirrorRules(retention=rules), NOW).tags}


def dated(*tags: tuple[str, int]) -> InventoryMaker:
    """Tags, each some days old."""
    maker = InventoryMaker().image("x")
    for tag, days in tags:
        maker.tag(tag, "x", NOW - days * DAY)
    return maker


def test_the_newest_are_kept_by_when_they_were_set() -> None:
    assert tags_gone(dated(("a", 3), ("b", 1), ("c", 2)), RetentionRule(keep=2)) == {"a"}


def test_any_clause_that_speaks_for_a_tag_keeps_it() -> None:
    maker = dated(("a", 30), ("b", 20), ("c", 5), ("d", 4))
    assert tags_gone(maker, RetentionRule(keep=1, younger_than=10 * DAY)) == {"a", "b"}


def test_the_first_rule_that_matches_decides_and_one_without_clauses_keeps_all() -> None:
    maker = dated(("9.7", 30), ("9.8", 20), ("nightly-1", 20), ("nightly-2", 10), ("else", 99))
    rules = RetentionRule(tags="9.*"), RetentionRule(tags="nightly-*", keep=1), RetentionRule(tags="n*", keep=0)
    assert tags_gone(maker, *rules) == {"nightly-1"}


def test_a_rule_speaks_of_the_repositories_that_it_names() -> None:
    assert tags_gone(dated(("a", 3)), RetentionRule(repositories="other*", keep=0)) == set()


def test_each_repository_keeps_its_own_newest() -> None:
    one, other = dated(("a", 3), ("b", 1)), dated(("a", 30), ("b", 10))
    other.name = "other"
    plan = plan_pruning(mirror(one, other), MirrorRules(retention=(RetentionRule(keep=1),)), NOW)
    assert [(judged.repository, judged.tag) for judged in plan.tags] == [("other", "a"), ("product", "a")]


def test_records_of_moves_are_neither_counted_nor_removed_but_by_a_rule_that_names_them() -> None:
    maker = dated(("a", 30), ("move.a.20260101T000000000Z.abcdef", 1), ("move.a.20250101T000000000Z.abcdef", 400))
    assert tags_gone(maker, RetentionRule(keep=1)) == set()
    assert tags_gone(maker, RetentionRule(tags="move.*", younger_than=365 * DAY)) == {maker.tags[2].name}


def test_pulls_count_where_they_are_known() -> None:
    maker = InventoryMaker().image("x").tag("a", "x", OLD, NOW - DAY).tag("b", "x", OLD, NOW - 50 * DAY)
    assert tags_gone(maker, RetentionRule(pulled_within=7 * DAY)) == {"b"}


def test_where_pulls_are_not_known_the_other_clauses_decide_alone_and_it_is_said() -> None:
    rule = RetentionRule(keep=1, pulled_within=7 * DAY, place="mirror.yaml:3")
    plan = plan_pruning(mirror(dated(("a", 3), ("b", 2))), MirrorRules(retention=(rule,)), NOW)
    assert [judged.tag for judged in plan.tags] == ["a"]
    assert any("mirror.yaml:3" in note for note in plan.notes)


def test_a_rule_that_asks_only_for_pulls_removes_nothing_where_they_are_not_known() -> None:
    assert tags_gone(dated(("a", 300)), RetentionRule(pulled_within=DAY)) == set()


def test_a_tag_of_unknown_age_stays_and_it_is_said() -> None:
    maker = InventoryMaker().image("x").tag("a", "x", None).tag("b", "x", OLD)
    plan = plan_pruning(mirror(maker), MirrorRules(retention=(RetentionRule(keep=0),)), NOW)
    assert [judged.tag for judged in plan.tags] == ["b"]
    assert any("1 tags of unknown age" in note for note in plan.notes)


def test_a_tag_that_goes_says_by_which_rule() -> None:
    rule = RetentionRule(tags="nightly-*", keep=0, younger_than=2 * DAY, place="mirror.yaml:7")
    (judged,) = plan_pruning(mirror(dated(("nightly-1", 3))), MirrorRules(retention=(rule,)), NOW).tags
    assert judged.why == "not among the newest 0, older than 2 days of 'nightly-*' in '*' (mirror.yaml:7)"


# --- what is spared


def test_what_is_young_is_spared_with_all_that_it_needs() -> None:
    maker = (
        InventoryMaker().image("new", "old layer", since=YOUNG).image("amd", "la").index("parent", "amd", since=YOUNG)
    )
    plan = plan_pruning(mirror(maker, young_blobs=["arriving"], blobs=["junk"]), MirrorRules(), NOW)
    assert gone(plan, "junk") == {"junk"}
    known = "new", "old layer", "amd", "la", "parent", "arriving"
    assert names(plan.spared, *known) == set(known)


def test_the_signature_of_what_is_spared_is_spared() -> None:
    maker = InventoryMaker().image("new", since=YOUNG).follow("new", "sig", ".sig").image("sig", "s")
    maker.image("sbom", subject="new").follow("new", "list").index("list", "sbom")
    assert plan_pruning(mirror(maker), MirrorRules(), NOW).empty


def test_a_tag_that_goes_leaves_a_young_image_behind() -> None:
    plan = plan_pruning(mirror(InventoryMaker().image("x", since=YOUNG).tag("gone", "x")), KEEP_NONE, NOW)
    assert gone(plan) == {"gone"}
    assert names(plan.spared, "x") == {"x"}


def test_where_ages_are_unknown_what_may_just_arrive_is_spared_unless_nobody_publishes() -> None:
    maker = InventoryMaker().image("x", "l", since=None).follow("x", "sig", ".sig", None).image("sig", "s", since=None)
    assert plan_pruning(mirror(maker), MirrorRules(), NOW).empty
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW, idle=True)
    assert names(plan.manifests, "x", "sig") == {"x", "sig"}


def test_where_ages_are_unknown_what_a_tag_points_to_had_arrived() -> None:
    maker = InventoryMaker().index("i", "x", since=None).tag("gone", "i").image("x", "l", since=None)
    maker.follow("x", "sig", ".sig", None).image("sig", "s", since=None)
    known = "i", "x", "l", "sig", "s"
    plan = plan_pruning(mirror(maker), KEEP_NONE, NOW)
    assert names((*plan.manifests, *plan.blobs), *known) == set(known)
    assert not plan.spared


def test_where_ages_are_unknown_what_speaks_of_nothing_had_arrived() -> None:
    maker = InventoryMaker().follow("missing", "sig", ".sig", None).image("sig", "s", since=None)
    maker.follow("missing", "list", "", None).index("list", "sbom", since=None).image(
        "sbom", subject="missing", since=None
    )
    plan = plan_pruning(mirror(maker), MirrorRules(), NOW)
    assert names(plan.manifests, "sig", "list", "sbom") == {"sig", "list", "sbom"}


def test_what_is_missing_is_said() -> None:
    maker = InventoryMaker().image("x", "l").tag("9.7", "x").tag("lost", "nowhere")
    inventory = mirror(maker)
    notes = plan_pruning(replace(inventory, blobs=()), MirrorRules(), NOW).notes
    assert notes == (
        f"product:lost points to {digest('nowhere')}, which is missing",
        f"product@{digest('x')} needs {digest('l')}, which is missing",
    )
