"""Trees of turns: their paths, the best one, and the rankings in them."""

from __future__ import annotations

from luthier.core.records import ConversationTree, Node, Origin, Turn
from luthier.core.trees import Run, best, paths, rankings, tree_example

ORIGIN = Origin("trees.jsonl", 4)


def asked(text: str, parent: int | None = None) -> Node:
    return Node(Turn("user", text), parent)


def said(text: str, parent: int, rank: float | None = None) -> Node:
    return Node(Turn("assistant", text), parent, rank)


#: q0 has three answers, two of them ranked; the best one is asked on twice and not answered.
TREE = ConversationTree(
    ORIGIN,
    (
        asked("q0"),
        said("worse", 0, 1.0),
        said("best", 0, 0.0),
        said("unranked", 0),
        asked("q1", 2),
        said("first", 4),
        said("second", 4),
        asked("q2", 5),
    ),
)


def test_paths_are_in_the_order_of_their_leaves() -> None:
    assert paths(TREE) == [(0, 1), (0, 3), (0, 2, 4, 6), (0, 2, 4, 5, 7)]


def test_the_best_path_takes_ranks_then_order_and_ends_with_an_answer() -> None:
    turns = best(TREE).turns
    assert [turn.content for turn in turns] == ["q0", "best", "q1", "first"]
    alone = ConversationTree(ORIGIN, (asked("q0"),))
    assert [turn.content for turn in best(alone).turns] == ["q0"]


def test_rankings_are_the_turns_whose_answers_have_ranks() -> None:
    (found,) = rankings(TREE)
    assert [turn.content for turn in found.prompt] == ["q0"]
    assert [answer[0].content for answer in found.answers] == ["best", "worse"]
    tied = ConversationTree(ORIGIN, (asked("q0"), said("a", 0, 1.0), said("b", 0, 1.0)))
    assert rankings(tied) == []


def test_runs_are_one_where_node_tokens_and_all_before_are_the_same() -> None:
    """Equal tokens of another node are another run: their targets count by themselves."""
    first = [Run((1, 2), False, "p"), Run((3, 4), True, "a")]
    second = [Run((1, 2), False, "p"), Run((3, 4), True, "b")]
    example = tree_example([first, second, first], ORIGIN)
    assert [segment.tokens.tolist() for segment in example.segments] == [[1, 2], [3, 4], [3, 4]]
    assert example.targets["lm"]["position"].tolist() == [1, 2, 1, 4]
    assert example.targets["lm"]["token"].tolist() == [3, 4, 3, 4]


def test_a_run_is_learned_if_one_path_learns_it_and_a_first_token_never() -> None:
    paths_ = [[Run((1, 2), False, "p"), Run((5,), True, "x")], [Run((1, 2), True, "p")]]
    example = tree_example(paths_, ORIGIN)
    assert len(example.segments) == 1
    assert example.targets["lm"]["token"].tolist() == [2, 5]
