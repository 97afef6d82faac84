"""One model on held-out rows: losses of their targets, answers to their prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from luthier.core.codec import text_segment
from luthier.core.contracts import Metric
from luthier.core.records import Batch, Example, Floats, Origin, Scored
from luthier.data.batching import collate, micro_batches, move, padded_batches
from luthier.data.length import fit
from luthier.evaluation.questions import Question
from luthier.generation.sampling import Sampler, Sampling
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import VocabularyModel
from luthier.models.trunk import TrunkModel

#: Tokens of a micro-batch without gradients.
_TOKENS = 8192


def measure(metrics: Sequence[Metric], scored: Sequence[Scored]) -> None:
    """Feeds every metric the examples that carry what it needs."""
    for metric in metrics:
        for item in scored:
            if all(_carries(item, need) for need in metric.needs):
                metric.update(item)


def score_losses(model: VocabularyModel, examples: Sequence[Example], codec: Any) -> list[Scored]:
    """Losses of every target of every example, in order."""
    results: dict[int, Scored] = {}
    for indices, batch in batches(model, examples):
        logprobs, correct = model.logprobs(batch, model.hidden(batch))
        owner = batch.targets[model.table]["example"]
        for number, index in enumerate(indices):
            mine = owner == number
            results[index] = Scored(
                origin=examples[index].origin,
                losses=-logprobs[mine].float().cpu().numpy(),
                correct=correct[mine].cpu().numpy(),
                bytes=spelled(examples[index], codec, model.table),
            )
    return [results[i] for i in range(len(examples))]


def score_classes(
    model: ClassifierModel, examples: Sequence[Example], texts: Sequence[str] = ()
) -> list[Scored]:
    """A classifier's probabilities (or number) of every example, in order.

    Args:
        model: the classifier.
        examples: one text or pair each; without rows in their table where no label is known.
        texts: what a person reads, one an example, or none.
    """
    results: dict[int, Scored] = {}
    for indices, batch in batches(model, examples):
        segments = torch.arange(len(indices), device=model.device)
        pooled = model.pooled(batch, model.hidden(batch), segments)
        scores = model.outputs("classification", pooled).float().cpu()
        if model.problem_type != "regression":
            several = model.problem_type == "multi_label"
            scores = scores.sigmoid() if several else scores.softmax(-1)
        for number, index in enumerate(indices):
            label = _label(model, examples[index])
            results[index] = Scored(
                origin=examples[index].origin,
                prompt=texts[index] if texts else None,
                answer=in_words(model, scores[number].numpy()),
                references=() if label is None else (_named(model, label),),
                probabilities=scores[number].numpy(),
                label=label,
            )
    return [results[i] for i in range(len(examples))]


def text_examples(
    texts: Sequence[str | tuple[str, str]], codec: Any
) -> tuple[list[Example], list[str]]:
    """Texts without a label as a classifier reads them, and what was cut of them, in words."""
    examples, notices = [], []
    for line, text in enumerate(texts, 1):
        segment = text_segment(codec, *((text,) if isinstance(text, str) else text))
        nothing = np.zeros(0, dtype=np.int64)
        table = {"segment": nothing, "label": nothing}
        example = Example((segment,), {"classification": table}, Origin("prompt", line))
        [fitted], cut = fit(example, codec.max_length, "right", frame=codec.frame)
        examples.append(fitted)
        if cut:
            notices.append(
                f"text {line} of {example.size:,} tokens lost its last {cut.tokens:,}: the model "
                f"takes {codec.max_length:,}"
            )
    return examples, notices


def embed(model: ClassifierModel, texts: Sequence[str], codec: Any) -> tuple[Floats, list[str]]:
    """Texts as pooled states of length one, ``[texts, H]``, and what was cut, in words."""
    examples, notices = text_examples(texts, codec)
    found: dict[int, Floats] = {}
    for indices, batch in batches(model, examples):
        segments = torch.arange(len(indices), device=model.device)
        pooled = model.pooled(batch, model.hidden(batch), segments).float()
        rows = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        found.update(zip(indices, rows, strict=True))
    return np.stack([found[i] for i in range(len(examples))]), notices


def in_words(model: ClassifierModel, found: Floats) -> str:
    """What a classifier says: a class, the classes above one half, or a number."""
    if model.problem_type == "regression":
        return _named(model, float(found[0]))
    if model.problem_type == "multi_label":
        return _named(model, tuple(int(i) for i in np.flatnonzero(found > 0.5)))
    return _named(model, int(found.argmax()))


def likeliest(scored: Scored) -> float:
    """The probability of the likeliest class."""
    assert scored.probabilities is not None
    return round(float(scored.probabilities.max()), 4)


def _named(model: ClassifierModel, label: int | tuple[int, ...] | float) -> str:
    if isinstance(label, tuple):
        return ", ".join(model.labels[i] for i in label) or "(none)"
    return model.labels[label] if isinstance(label, int) else f"{label:.4g}"


def _label(model: ClassifierModel, example: Example) -> int | tuple[int, ...] | float | None:
    column = example.targets["classification"]["label"]
    if not len(column):
        return None
    if model.problem_type == "regression":
        return float(column[0])
    if np.min(column[0]) < 0:  # a text whose label nobody knows
        return None
    if model.problem_type == "multi_label":
        return tuple(int(i) for i in np.flatnonzero(column[0]))
    return int(column[0])


def batches(model: TrunkModel, examples: Sequence[Example]) -> Iterator[tuple[list[int], Batch]]:
    """Micro-batches in evaluation mode, without gradients."""
    sizes = [example.size for example in examples]
    was_training = model.module.training
    model.module.eval()
    try:
        with torch.no_grad():
            divide = padded_batches if model.layout.get("layout") == "padded" else micro_batches
            for indices in divide(sizes, max([_TOKENS, *sizes])) if sizes else ():
                chosen = [examples[i] for i in indices]
                yield indices, move(collate(chosen, **model.layout), model.device)
    finally:
        model.module.train(was_training)


def spelled(example: Example, codec: Any, table: str = "lm") -> int:
    """UTF-8 bytes of the text that an example's targets spell."""
    tokens = example.targets[table]["token"]
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
    if need == "spans":
        return scored.spans is not None and scored.said_spans is not None
    if need == "classes":
        return scored.probabilities is not None and isinstance(scored.label, int | tuple)
    if need == "numbers":
        return scored.probabilities is not None and isinstance(scored.label, float)
    if need == "rewards":
        return scored.reward is not None
    if need == "ranks":
        return scored.rank is not None
    if need in ("preferences", "thumbs"):
        return scored.scores is not None and (len(scored.scores) > 1) == (need == "preferences")
    assert need == "losses", f"a metric needs '{need}', which no evaluation gives"
    return scored.losses is not None
