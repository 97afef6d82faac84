"""Law 2 from records on: a conversation that branches = its paths, what they share counted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import builders
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.core.records import Conversation, ConversationTree, Example, Node, Origin, Turn
from luthier.core.trees import paths
from luthier.data.batching import collate
from luthier.data.length import fit
from luthier.data.template import TokenizerCodec
from luthier.methods import full
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels
from luthier.objectives import sft

ORIGIN = Origin("trees.jsonl", 4)
ROLES = ("user", "assistant")


def objective(**changes: Any) -> sft.Objective:
    return sft.Objective(sft.Config(**changes))


def tree(parents: Sequence[int | None], texts: Sequence[str] | None = None) -> ConversationTree:
    """Turns that alternate from the root on; each says which one it is unless told."""
    depths: list[int] = []
    nodes = []
    for index, parent in enumerate(parents):
        depths.append(0 if parent is None else depths[parent] + 1)
        said = texts[index] if texts else f"the turn {index}"
        nodes.append(Node(Turn(ROLES[depths[-1] % 2], said), parent))
    return ConversationTree(ORIGIN, tuple(nodes))


#: A question, two answers; after the first one two questions, one of them answered twice.
BRANCHING = (None, 0, 0, 1, 1, 3, 3)


def learned(example: Example, codec: TokenizerCodec) -> str:
    return codec.decode(example.targets["lm"]["token"].tolist(), special=True)


def path_example(record: ConversationTree, path: tuple[int, ...], made: sft.Objective) -> Example:
    turns = tuple(record.nodes[i].turn for i in path)
    return made.encode(Conversation(ORIGIN, turns), builders.codec(10_000))


def followed(example: Example, leaf: int) -> list[int]:
    """The tokens from the root to the end of a segment."""
    return [t for i in example.ancestors(leaf) for t in example.segments[i].tokens.tolist()]


def test_what_is_shared_is_computed_once_and_forks_predict_each_child() -> None:
    record = tree((None, 0, 0))
    example = objective().encode(record, builders.codec())
    assert [segment.parent for segment in example.segments] == [None, 0, 0]
    prompt = builders.codec().prompt([record.nodes[0].turn])
    assert example.segments[0].tokens.tolist() == prompt
    table = example.targets["lm"]
    fork = table["position"] == len(prompt) - 1
    assert fork.sum() == 2
    firsts = [int(segment.tokens[0]) for segment in example.segments[1:]]
    assert table["token"][fork].tolist() == firsts
    assert learned(example, builders.codec()) == "the turn 1<|end|>the turn 2<|end|>"
    assert example.origin == ORIGIN


shapes = st.integers(1, 9).flatmap(
    lambda n: st.tuples(*(st.integers(0, i) for i in range(n))).map(lambda p: (None, *p))
)
plain = st.text("ab é<|end>", min_size=1, max_size=8).filter(lambda text: text.strip())


@settings(max_examples=40, deadline=None)
@given(st.data(), shapes)
def test_every_path_is_there_and_every_answer_is_learned_once(data: Any, shape: Any) -> None:
    """Whatever the turns say, equal ones among them."""
    record = tree(shape, [data.draw(plain) for _ in shape])
    codec = builders.codec(10_000)
    example = objective().encode(record, codec)
    inner = {segment.parent for segment in example.segments}
    ends = [followed(example, i) for i in range(len(example.segments)) if i not in inner]
    apart = [path_example(record, path, objective(train_on="all")) for path in paths(record)]
    assert sorted(ends) == sorted(each.segments[0].tokens.tolist() for each in apart)
    answers = [node.turn.content for node in record.nodes if node.turn.role == "assistant"]
    spelt = learned(example, codec)
    assert len(spelt) == sum(len(text) + len("<|end|>") for text in answers)
    assert all(f"{text}<|end|>" in spelt for text in answers)


def test_one_path_is_the_conversation_itself() -> None:
    record = tree((None, 0, 1, 2))
    whole = objective().encode(record, builders.codec())
    alone = path_example(record, (0, 1, 2, 3), objective())
    assert len(whole.segments) == 1
    assert np.array_equal(whole.segments[0].tokens, alone.segments[0].tokens)
    for name, column in alone.targets["lm"].items():
        assert np.array_equal(whole.targets["lm"][name], column)


def named_losses(
    models: RunModels, record: ConversationTree, path: tuple[int, ...], made: sft.Objective
) -> dict[Any, float]:
    """Each target's loss on one path, by the turns up to it and its place behind them."""
    codec = builders.codec(10_000)
    turns = [record.nodes[i].turn for i in path]
    last = made.config.train_on == "last_turn"
    pieces = codec.last_turn(turns) if last else codec.dialogue(turns)
    names: list[Any] = []
    for number, piece in enumerate(pieces):
        ahead = [p.turn for p in pieces[number:] if p.turn is not None]
        upto = path[: ahead[0] if ahead else len(path)]
        if piece.turn is not None:
            upto = path[: piece.turn + 1]
        wanted = piece.answer or made.config.train_on == "all"
        names += [(piece.turn, upto, i) if wanted else None for i in range(len(piece.tokens))]
    example = path_example(record, path, made)
    batch = collate([example])
    with torch.no_grad():
        logprobs, _ = models.policy.logprobs(batch, models.policy.hidden(batch))
    wanted_names = [name for name in names[1:] if name is not None]
    return {n: -float(v) for n, v in zip(wanted_names, logprobs, strict=True)}


@pytest.mark.parametrize("train_on", ["assistant", "last_turn", "all"])
def test_law_2_the_loss_is_that_of_the_paths_with_shared_turns_counted_once(train_on: str) -> None:
    made, record = objective(train_on=train_on), tree(BRANCHING)
    codec = builders.codec()
    module = builders.talking(len(codec.tokenizer), attention_dropout=0.0).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(4.0)
    models = RunModels(CausalModel(module), full.Method(full.Config()))
    apart: dict[Any, float] = {}
    for path in paths(record):
        for name, value in named_losses(models, record, path, made).items():
            assert value == pytest.approx(apart.setdefault(name, value), abs=1e-10)
    batch = collate([made.encode(record, codec)])
    with torch.no_grad():
        loss = float(made.loss(models, batch)["nll"])
    assert made.weights(batch)["nll"] == len(apart)
    assert loss == pytest.approx(sum(apart.values()), abs=1e-10)


def test_the_last_turn_is_that_of_each_path() -> None:
    example = objective(train_on="last_turn").encode(
        tree((None, 0, 1, 2, 2, 0, 5)), builders.codec()
    )
    said = learned(example, builders.codec())
    assert said == "".join(f"the turn {i}<|end|>" for i in (3, 4, 5))


def test_a_tree_without_an_answer_and_an_empty_answer_are_refused() -> None:
    with pytest.raises(DataError, match=r"trees\.jsonl:4.*nothing to learn"):
        objective().encode(tree((None,)), builders.codec())
    with pytest.raises(DataError, match=r"trees\.jsonl:4.*nothing to learn"):
        objective(train_on="last_turn").encode(tree((None,)), builders.codec())
    with pytest.raises(DataError, match="an assistant turn is empty"):
        objective().encode(tree((None, 0), ["hi", ""]), builders.codec())


def test_a_branch_too_long_is_cut_by_itself() -> None:
    record = tree((None, 0, 0, 2, 3), ["hello", "short", "so", "a long question " * 9, "yes"])
    example = objective().encode(record, builders.codec(10_000))
    limit = example.depth() - 60
    (kept,), cut = fit(example, limit, "right", independent=True)
    assert cut.examples == 1
    assert cut.dropped == 0
    assert learned(kept, builders.codec()) == "short<|end|>so<|end|>"
