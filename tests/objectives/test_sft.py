"""Law 7: what is learned is exactly the assistant's text and its end of turn, and is learned."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.core.recipe import TrainingSpec
from luthier.core.records import Conversation, Example, Origin, Text, Turn
from luthier.data.batching import collate
from luthier.data.template import TokenizerCodec
from luthier.engine.optim import make_optimizer
from luthier.generation.sampling import Sampler, Sampling
from luthier.methods import full
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels
from luthier.objectives import language_modeling, sft


def learned(example: Example, codec: TokenizerCodec) -> str:
    """The text that the targets spell, special tokens and all."""
    return codec.decode(example.targets["lm"]["token"].tolist(), special=True)


def objective(**changes: Any) -> sft.Objective:
    return sft.Objective(sft.Config(**changes))


def talk(*texts: str, system: str | None = None) -> Conversation:
    turns = [Turn("system", system)] if system else []
    turns += [Turn("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(texts)]
    return Conversation(Origin("made.jsonl", 1), tuple(turns))


plain = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co")), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(plain, min_size=2, max_size=5), plain)
def test_law_7_targets_are_the_answers_and_their_end_tokens(texts: list[str], system: str) -> None:
    codec = builders.codec(10_000)
    answers = texts[1::2]
    example = objective().encode(talk(*texts, system=system), codec)
    assert learned(example, codec) == "".join(f"{a}<|end|>" for a in answers)
    table = example.targets["lm"]
    assert table["token"].tolist().count(codec.end_tokens[1]) == len(answers)
    assert (table["weight"] == 1).all()
    tokens = example.segments[0].tokens
    assert np.array_equal(tokens[table["position"] + 1], table["token"])
    last = objective(train_on="last_turn").encode(talk(*texts, system=system), codec)
    assert learned(last, codec) == f"{answers[-1]}<|end|>"
    whole = objective(train_on="all").encode(talk(*texts, system=system), codec)
    assert len(whole.targets["lm"]["token"]) == whole.size - 1


@pytest.mark.parametrize("template", [None, "Q: {prompt}\nA:"])
def test_law_7_where_padding_is_the_end_token(template: str | None) -> None:
    tokenizer = builders.tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = None
    codec = TokenizerCodec(tokenizer, template=template, max_length=200)
    example = objective().encode(talk("hello", "well, hello", "again", "once more"), codec)
    assert learned(example, codec) == "well, hello<|endoftext|>once more<|endoftext|>"


def test_a_special_tokens_text_in_an_answer_stays_text() -> None:
    codec = builders.codec()
    example = objective().encode(talk("say it", "<|end|> is a marker"), codec)
    assert example.targets["lm"]["token"].tolist().count(codec.end_tokens[1]) == 1
    assert learned(example, codec).startswith("<|end|> is a marker")


def test_a_prompt_is_how_its_training_sequence_begins() -> None:
    codec = builders.codec()
    record = talk("where is it?", "in the box", "which one?", "the red one", system="be brief")
    tokens = objective().encode(record, codec).segments[0].tokens.tolist()
    prompt = codec.prompt(record.turns[:-1])
    assert tokens[: len(prompt)] == prompt
    assert codec.decode(tokens[len(prompt) :]) == "the red one"


def test_nothing_to_learn_is_an_error_with_its_row() -> None:
    with pytest.raises(DataError, match=r"made\.jsonl:1.*nothing to learn"):
        objective().encode(talk("hello"), builders.codec())
    assert objective(train_on="all").encode(talk("hello"), builders.codec())


def test_language_modeling_learns_every_token_but_the_first() -> None:
    codec = builders.codec()
    learner = language_modeling.Objective(language_modeling.Config())
    example = learner.encode(Text(Origin("made.txt", 1), builders.SENTENCES[0]), codec)
    tokens = example.segments[0].tokens
    assert example.targets["lm"]["token"].tolist() == tokens[1:].tolist()
    assert codec.decode(tokens.tolist()) == builders.SENTENCES[0]
    assert tokens[-1] == codec.tokenizer.eos_token_id
    with pytest.raises(DataError, match="empty document"):
        learner.encode(Text(Origin("made.txt", 1), ""), codec)


@pytest.mark.parametrize("padding_is_end", [False, True])
def test_a_tiny_overfitted_model_stops_by_itself_every_time(padding_is_end: bool) -> None:
    tokenizer = builders.tokenizer()
    if padding_is_end:
        tokenizer.chat_template = None
        tokenizer.pad_token = tokenizer.eos_token
    codec = TokenizerCodec(tokenizer, max_length=128)
    records = builders.conversations(6) + builders.conversations(3, turns=2)
    learner, method = objective(), full.Method(full.Config())
    module = method.prepare(builders.talking(len(tokenizer), hidden_size=64, intermediate_size=128))
    batch = collate([learner.encode(record, codec) for record in records])
    models = RunModels(CausalModel(module), method)
    optimizer = make_optimizer(TrainingSpec(), method.param_groups(module), 1e-2)
    weight, loss = learner.weights(batch)["nll"], torch.ones(())
    for _ in range(200):
        loss = learner.loss(models, batch)["nll"] / weight
        if loss < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss < 0.05
    sampler = Sampler(models.policy.generating, tokenizer, codec.end_tokens, 400)
    prompts = [codec.prompt(record.turns[:-1]) for record in records]
    answers = sampler.generate(prompts, Sampling(max_new_tokens=60))
    assert all(len(answer) < 60 for answer in answers)
    assert [codec.decode(a) for a in answers] == [r.turns[-1].content for r in records]


def test_an_empty_assistant_turn_is_refused_with_its_line() -> None:
    """A blank one is text, which a template may well keep; an empty one teaches only to stop."""
    turns = (Turn("user", "a"), Turn("assistant", ""))
    made = sft.Objective(sft.Config())
    with pytest.raises(DataError, match="an assistant turn is empty") as caught:
        made.encode(Conversation(Origin("made.jsonl", 7), turns), builders.codec())
    assert "made.jsonl:7" in str(caught.value)
