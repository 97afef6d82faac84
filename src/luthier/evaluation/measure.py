"""One model on held-out rows: losses of their targets, answers to their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from luthier.core.contracts import Metric
from luthier.core.records import Example, Scored
from luthier.data.batching import collate, micro_batches, move
from luthier.evaluation.questions import Question
from luthier.generation.sampling import Sampler, Sampling
from luthier.models.language_model import CausalModel

#: Tokens of a micro-batch without gradients.
_TOKENS = 8192


def measure(metrics: Sequence[Metric], scored: Sequence[Scored]) -> None:
    """Feeds every metric the examples that carry what it needs."""
    for metric in metrics:
        for item in scored:
            if all(_carries(item, need) for need in metric.needs):
                metric.update(item)


def score_losses(model: CausalModel, examples: Sequence[Example], codec: Any) -> list[Scored]:
    """Losses of every target of every example, in order."""
    results: dict[int, Scored] = {}
    sizes = [example.size for example in examples]
    was_training = model.module.training
    model.module.eval()
    with torch.no_grad():
        for indices in micro_batches(sizes, max(_TOKENS, *sizes)):
            chosen = [examples[i] for i in indices]
            batch = move(collate(chosen), model.device)
            logprobs, correct = model.logprobs(batch, model.hidden(batch))
            owner = batch.targets["lm"]["example"]
            for number, index in enumerate(indices):
                mine = owner == number
                results[index] = Scored(
                    origin=examples[index].origin,
                    losses=-logprobs[mine].float().cpu().numpy(),
                    correct=correct[mine].cpu().numpy(),
                    bytes=spelled(examples[index], codec),
                )
    model.module.train(was_training)
    return [results[i] for i in range(len(examples))]


def spelled(example: Example, codec: Any) -> int:
    """UTF-8 bytes of the text that an example's targets spell."""
    tokens = example.targets["lm"]["token"]
    return len(codec.decode(tokens.tolist()).encode())


def score_answers(sampler: Sampler, asked: Sequence[Question], sampling: Sampling) -> list[Scored]:
    """An answer to each prompt."""
    answers = sampler.text([question.tokens for question in asked], sampling)
    return [
        Scored(
            origin=question.origin,
            prompt=question.text,
            answer=answer.strip(),
            references=question.references,
        )
        for question, answer in zip(asked, answers, strict=True)
    ]


def _carries(scored: Scored, need: str) -> bool:
    if need == "answers":
        return scored.answer is not None and bool(scored.references)
    if need == "classes":
        return scored.probabilities is not None
    assert need == "losses", f"a metric needs '{need}', which no evaluation gives"
    return scored.losses is not None
