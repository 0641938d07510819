"""Laws of the transaction's order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.resolve.order import transaction_order

graphs = st.integers(1, 12).flatmap(
    lambda count: st.fixed_dictionaries(
        {
            f"p{number}": st.dictionaries(st.sampled_from([f"p{n}" for n in range(count)]), st.booleans(), max_size=4)
            for number in range(count)
        }
    )
)


@given(graphs)
def test_everything_comes_once_whatever_circles_there_are(graph: dict[str, dict[str, bool]]) -> None:
    assert sorted(transaction_order(graph)) == sorted(graph)


@given(graphs)
def test_without_circles_everything_comes_after_what_it_needs(graph: dict[str, dict[str, bool]]) -> None:
    acyclic = {name: {o: p for o, p in needs.items() if o < name} for name, needs in graph.items()}
    order = transaction_order(acyclic)
    assert all(order.index(other) < order.index(name) for name, needs in acyclic.items() for other in needs)


@given(graphs, st.randoms())
def test_the_order_in_which_packages_are_told_of_makes_no_difference(
    graph: dict[str, dict[str, bool]], random: object
) -> None:
    names = list(graph)
    random.shuffle(names)  # type: ignore[attr-defined]
    shuffled = {name: dict(reversed(graph[name].items())) for name in names}
    assert transaction_order(shuffled) == transaction_order(graph)


def test_an_unrelated_package_does_not_disturb_the_others() -> None:
    graph = {"b": {"a": False}, "a": {}, "d": {"c": True}, "c": {}}
    assert transaction_order(graph) == ("a", "b", "c", "d")
    assert [name for name in transaction_order({**graph, "aa": {}}) if name != "aa"] == ["a", "b", "c", "d"]


def test_scriptlets_count_more_than_plain_requirements_in_a_circle() -> None:
    assert transaction_order({"a": {"b": True}, "b": {"a": False}}) == ("b", "a")
    assert transaction_order({"a": {"b": False}, "b": {"a": True}}) == ("a", "b")
