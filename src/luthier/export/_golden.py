"""Golden prompts: what a model and its export must answer alike, logit by logit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from luthier.core.records import Example, Origin, Segment, Turn
from luthier.core.rundir import RunDir, read_lines
from luthier.data.batching import collate
from luthier.data.template import TokenizerCodec
from luthier.models.heads import ClassifierModel
from luthier.models.load import Loaded
from luthier.models.trunk import TrunkModel

#: Asked where a run kept no samples.
_BUILT_IN = (
    ("Where is my order?", "It left our warehouse yesterday."),
    ("Tell me a story.", "Once upon a time there was a fox who could count to ten."),
    ("2 + 2 = ?", "4"),
    ("¿Qué hora es?", "Son las tres 🙂"),
)
_COUNT = 8
#: Tokens of a prompt that are compared; more would take long and show nothing new.
_LENGTH = 512


def prompts(run: RunDir, loaded: Loaded) -> list[list[int]]:
    """Held-out prompts with the run's own answers; built-in ones where it kept none."""
    kept = [
        (str(sample["prompt"]), str(sample["after"]))
        for sample, _ in zip(read_lines(run.samples), range(_COUNT), strict=False)
    ]
    limit = min(_LENGTH, loaded.context)
    codec = TokenizerCodec(loaded.tokenizer, max_length=limit)
    if loaded.head is not None:
        texts = [question for question, _ in kept or _BUILT_IN]
        return [codec.texts(text)[0][:limit] for text in texts]
    made = []
    for question, answer in kept or _BUILT_IN:
        answered = loaded.tokenizer(answer, add_special_tokens=False).input_ids
        made.append([*codec.prompt((Turn("user", question),)), *answered][:limit])
    return made


def answer(model: TrunkModel, prompt: Sequence[int]) -> Tensor:
    """A model's logits on a prompt: of every token, or of its classes."""
    if isinstance(model, ClassifierModel):
        return class_logits(model, prompt)
    return logits(model.module, prompt)


def class_logits(model: ClassifierModel, prompt: Sequence[int]) -> Tensor:
    """``[1, K]`` of a classifier, one prompt at a time."""
    example = Example((Segment(np.array(prompt, dtype=np.int64)),), {}, Origin("golden prompt", 1))
    batch = collate([example], layout="padded", **model.layout)
    model.module.eval()
    with torch.no_grad():
        pooled = model.pooled(batch, model.hidden(batch), torch.zeros(1, dtype=torch.long))
        return model.outputs("classification", pooled).float()


def logits(module: Any, prompt: Sequence[int]) -> Tensor:
    """``[T, V]``, by transformers' own attention, one prompt at a time."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    if base.config._attn_implementation not in ("sdpa", "eager"):
        base.set_attn_implementation("sdpa")
    module.eval()
    with torch.no_grad():
        out: Tensor = module(input_ids=torch.tensor([list(prompt)])).logits[0]
    return out.float()


def gap(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    largest = 0.0
    for ours, theirs in zip(expected, found, strict=True):
        if ours.shape != theirs.shape:
            return math.inf
        difference = float((ours - theirs).abs().max())
        if not math.isfinite(difference):
            return math.inf
        largest = max(largest, difference)
    return largest
