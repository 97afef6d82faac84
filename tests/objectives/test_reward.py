"""Reward and outcome models: losses against plain code, read where an answer ends."""

from __future__ import annotations

import math
from typing import Any

import answers
import builders
import classifiers
import numpy as np
import pytest
import torch
from stand_in import apart, step
from torch import Tensor

from luthier.core import kinds
from luthier.core.errors import RecipeError
from luthier.core.records import Example, Segment
from luthier.data.batching import collate
from luthier.data.length import fit
from luthier.data.template import TokenizerCodec
from luthier.models.heads import ClassifierModel
from luthier.models.run_models import RunModels


def judge(architecture: str = "gpt2") -> Any:
    """A model with one output, in float64; Llama's norms compute in float32."""
    changes: dict[str, Any] = {"max_position_embeddings": 128}
    return classifiers.own(architecture, torch.float64, classes=1, **changes)


def models_of(module: Any) -> RunModels:
    method = kinds.build("methods", kinds.config("methods", "full"))
    return RunModels(ClassifierModel(method.prepare(module)), method)


def encoded(objective: Any, records: list[Any], codec: Any = None) -> list[Example]:
    return [objective.encode(record, codec or builders.codec()) for record in records]


def plain_rewards(module: Any, example: Example) -> list[Tensor]:
    """From whole sequences, one at a time, by transformers' own head at the last token."""
    ClassifierModel(module).base.set_attn_implementation("sdpa")
    prompt, found = example.segments[0].tokens, []
    for segment in example.segments[1:]:
        ids = torch.tensor(np.concatenate([prompt, segment.tokens]))[None]
        states = module.base_model(input_ids=ids).last_hidden_state
        found.append(module.score(states[0, -1])[0])
    return found


def by_hand(module: Any, examples: list[Example], margins: list[float], centre: float) -> Tensor:
    total = []
    for example, margin in zip(examples, margins, strict=True):
        rewards = plain_rewards(module, example)
        lowered = [rewards[0] - margin, *rewards[1:]]
        cost = torch.zeros((), dtype=torch.float64)
        for k in range(len(lowered) - 1):
            cost = cost - lowered[k] + torch.log(sum(r.exp() for r in lowered[k:]))  # type: ignore[arg-type]
        total.append(cost + centre * sum(rewards) ** 2)
    return torch.stack(total).mean()


@pytest.mark.parametrize("centre", [0.0, 0.02])
def test_rewards_are_learned_as_the_papers_say(centre: float) -> None:
    objective = answers.objective("reward", centre=centre)
    records = [*answers.pairs(4, margins=True), *answers.rankings()]
    examples, models = encoded(objective, records), models_of(judge())
    gradients, means = step(objective, models, [examples])
    margins = [0.0, 0.25, 0.5, 0.75, 0.0, 0.0, 0.0]
    module = models.policy.module
    module.zero_grad(set_to_none=True)
    expected = by_hand(module, examples, margins, centre)
    expected.backward()  # type: ignore[no-untyped-call]
    assert means["preference"] + means.get("centre", 0) == pytest.approx(expected.item(), abs=1e-9)
    assert builders.gap(gradients, builders.gradients(module)) < 1e-9
    divided = step(objective, models, [examples[3:], [], examples[:3]])
    assert builders.gap(gradients, divided[0]) < 1e-9
    assert means == pytest.approx(divided[1], abs=1e-9)


def test_margins_may_be_left_out() -> None:
    records = answers.pairs(4, margins=True)
    models = models_of(judge())
    with_, without = (
        step(objective, models, [encoded(objective, records)])[1]["preference"]
        for objective in (
            answers.objective("reward"),
            answers.objective("reward", margins=False),
        )
    )
    assert with_ > without
    bare = [encoded(answers.objective("reward"), answers.pairs(4))]
    assert step(answers.objective("reward"), models, bare)[1]["preference"] == without


def test_a_prompt_is_read_once() -> None:
    objective, models = answers.objective("reward"), models_of(judge())
    examples = encoded(objective, [*answers.pairs(3), *answers.rankings()])
    alone = [apart(example) for example in examples]
    assert sum(e.size for e in examples) < 0.8 * sum(e.size for e in alone)
    shared, single = (step(objective, models, [each]) for each in (examples, alone))
    assert builders.gap(shared[0], single[0]) < 1e-9
    assert shared[1] == pytest.approx(single[1], abs=1e-9)


def test_padding_and_neighbours_change_no_reward() -> None:
    objective, models = answers.objective("reward"), models_of(judge())
    examples = encoded(objective, [*answers.pairs(3), *answers.rankings()])
    with torch.no_grad():
        packed = objective.scores(models, collate(examples))
        padded = objective.scores(models, collate(examples, layout="padded", pad_token=1))
        single = torch.cat([objective.scores(models, collate([e])) for e in examples])
        plain = [r for e in examples for r in plain_rewards(models.policy.module, e)]
    expected = torch.stack(plain)
    for found in (packed, padded, single):
        assert float((found - expected).abs().max()) < 1e-9


def test_the_reward_is_read_at_the_end_of_turn() -> None:
    objective, codec = answers.objective("reward"), builders.codec()
    for example in encoded(objective, answers.pairs()):
        for segment in example.segments[1:]:
            assert segment.tokens[-1] in codec.end_tokens


def test_an_encoder_reads_each_answer_with_its_prompt() -> None:
    codec = TokenizerCodec(builders.tokenizer(), max_length=64, causal=False)
    objective = answers.objective("reward", pooling="mean")
    [record] = answers.pairs(1)
    example = objective.encode(record, codec)
    assert [segment.parent for segment in example.segments] == [None, None]
    texts = [codec.decode(segment.tokens.tolist()) for segment in example.segments]
    for text, answer in zip(texts, (record.chosen, record.rejected), strict=True):
        assert text.startswith("user: hello\nassistant: ")
        assert text.endswith(f"\nassistant: {answer[0].content}")
    module = classifiers.pooled("bert", "mean", torch.float64, classes=1)
    models = models_of(module)
    policy = models.policy
    batch = collate([example], **policy.layout)  # type: ignore[attr-defined]
    with torch.no_grad():
        found = objective.scores(models, batch)
        expected = []
        for segment in example.segments:
            ids = torch.tensor(segment.tokens)[None]
            policy.base.set_attn_implementation("sdpa")  # type: ignore[attr-defined]
            states = module.trunk(input_ids=ids).last_hidden_state[0]
            expected.append(module.classifier(states.mean(0))[0])
    assert float((found - torch.stack(expected)).abs().max()) < 1e-9


def test_an_encoders_texts_are_cut_each_by_itself_at_their_beginning() -> None:
    codec = TokenizerCodec(builders.tokenizer(), max_length=128, causal=False)
    [record] = answers.pairs(1)
    example = answers.objective("reward").encode(record, codec)
    sizes = [len(segment.tokens) for segment in example.segments]
    limit = max(sizes) - 3
    [shorter], cut = fit(example, limit, "left")  # this tokenizer puts nothing around a text
    assert cut.tokens == sum(max(0, size - limit) for size in sizes)
    for kept, was in zip(shorter.segments, example.segments, strict=True):
        assert kept.tokens.tolist() == was.tokens.tolist()[-limit:]


def test_the_tokens_around_an_encoders_texts_stay() -> None:
    texts = [np.array([1, *range(10, 30), 2]), np.array([1, *range(40, 52), 2])]
    segments = tuple(Segment(tokens) for tokens in texts)
    table = {"segment": np.array([0, 1]), "place": np.array([0, 1])}
    example = Example(segments, {"classification": table}, answers.origin(1))
    [shorter], _ = fit(example, 16, "left", frame=frozenset({1, 2}))
    assert shorter.segments[0].tokens.tolist() == [1, *range(16, 30), 2]
    assert shorter.segments[1].tokens.tolist() == texts[1].tolist()


def test_a_decoders_answer_is_not_pooled_without_its_prompt() -> None:
    with pytest.raises(RecipeError, match="without its prompt"):
        encoded(answers.objective("reward", pooling="mean"), answers.pairs(1))


def test_scores_that_are_all_alike_cost_ln_2() -> None:
    objective, module = answers.objective("reward"), judge()
    torch.nn.init.zeros_(module.score.weight)
    _, means = step(objective, models_of(module), [encoded(objective, answers.pairs())])
    assert means["preference"] == pytest.approx(math.log(2), abs=1e-12)
    assert means["reward_accuracy"] == 0.5


# Right and wrong answers.


def test_right_and_wrong_are_told_where_the_answer_ends() -> None:
    objective, module = answers.objective("correctness"), judge()
    records = answers.thumbs()
    examples, models = encoded(objective, records), models_of(module)
    gradients, means = step(objective, models, [examples[:2], examples[2:]])
    ClassifierModel(module).base.set_attn_implementation("sdpa")
    module.zero_grad(set_to_none=True)
    costs = []
    for record, example in zip(records, examples, strict=True):
        [segment] = example.segments
        ids = torch.tensor(segment.tokens)[None]
        score = module.score(module.base_model(input_ids=ids).last_hidden_state[0, -1])[0]
        costs.append(-torch.log(torch.sigmoid(score if record.good else -score)))
    expected = torch.stack(costs).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    assert means["classification"] == pytest.approx(expected.item(), abs=1e-9)
    assert builders.gap(gradients, builders.gradients(module)) < 1e-9


def test_an_outcome_is_one_class_of_its_own() -> None:
    [head] = answers.objective("correctness").heads
    assert (head.labels, head.problem_type) == (("correct",), "multi_label")
    [head] = answers.objective("reward").heads
    assert (head.labels, head.problem_type) == (("reward",), "regression")
