"""What held-out rows ask, where a conversation branches: the best-ranked path's last question."""

from __future__ import annotations

import builders

from luthier.assemble import texts_of
from luthier.core.records import ConversationTree, Node, Origin, Turn
from luthier.evaluation.questions import questions, spoken

TREE = ConversationTree(
    Origin("trees.jsonl", 3),
    (
        Node(Turn("user", "why?")),
        Node(Turn("assistant", "no"), 0, 1.0),
        Node(Turn("assistant", "so"), 0, 0.0),
        Node(Turn("user", "really?"), 2),
        Node(Turn("assistant", "yes"), 3),
        Node(Turn("user", "hm"), 4),
    ),
)


def test_a_tree_asks_what_its_best_path_asks() -> None:
    codec = builders.codec()
    (asked,) = questions([TREE], [], codec, 5)
    assert asked.text == "user: why?\nassistant: so\nuser: really?"
    assert asked.references == ("yes",)
    assert asked.tokens == codec.prompt([TREE.nodes[i].turn for i in (0, 2, 3)])
    assert asked.origin == TREE.origin


def test_all_of_a_trees_turns_are_its_text() -> None:
    said = ["why?", "no", "so", "really?", "yes", "hm"]
    assert texts_of(TREE) == said
    assert [line.split(": ")[1] for line in spoken(TREE).split("\n")] == said
