"""Golden prompts: what a model and its export must answer alike, logit by logit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from luthier.codecs import pair_codec
from luthier.core.errors import UserError
from luthier.core.records import Batch, Example, Origin, Segment, Turn
from luthier.core.rundir import RunDir, read_lines
from luthier.data.batching import collate
from luthier.data.template import TokenizerCodec
from luthier.models.embedder import EmbeddingModel
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import VocabularyModel
from luthier.models.load import PAIR, Loaded, read_note
from luthier.models.several import SeveralModel
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
#: The most that a model may change, in nats a token, where its base is no longer rounded. Four
#: bits cost a good model about 0.01 to 0.05.
ROUNDING = 0.5


@dataclass(frozen=True)
class Distance:
    """How far two models' predictions are apart on held-out prompts.

    Attributes:
        divergence: mean Kullback-Leibler divergence of the second from the first, nats a token.
        largest: largest absolute difference of two logits.
        agreement: share of tokens whose likeliest successor is the same.
        tokens: how many were compared.
    """

    divergence: float
    largest: float
    agreement: float
    tokens: int


def prompts(run: RunDir, loaded: Loaded) -> list[list[int]]:
    """Held-out prompts with the run's own answers; built-in ones where it kept none."""
    kept = [
        (str(sample["prompt"]), str(sample["after"]))
        for sample, _ in zip(read_lines(run.samples), range(_COUNT), strict=False)
    ]
    limit = min(_LENGTH, loaded.context)
    pair = pair_codec(loaded, read_note(run.model).get(PAIR) or {}, limit)
    codec = pair or TokenizerCodec(loaded.tokenizer, max_length=limit)
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
    if isinstance(model, SeveralModel):
        return all_logits(model, prompt)
    if isinstance(model, ClassifierModel | EmbeddingModel):
        return class_logits(model, prompt)
    return logits(model.module, prompt)


def all_logits(model: SeveralModel, prompt: Sequence[int]) -> Tensor:
    """``[n]``, of every head on one prompt, laid end to end."""
    batch = _alone(model, prompt)
    model.module.eval()
    found = []
    with torch.no_grad():
        for part in model.head.parts:
            view = model.view(part.name)
            states = view.hidden(batch)
            if isinstance(view, VocabularyModel):
                found.append(view.logits(states))
                continue
            rows = torch.arange(1 if part.kind == "classification" else len(states))
            found.append(view.outputs(part.kind, view.pooled(batch, states, rows)))
    return torch.cat([each.float().flatten() for each in found])


def _alone(model: TrunkModel, prompt: Sequence[int]) -> Batch:
    example = Example((Segment(np.array(prompt, dtype=np.int64)),), {}, Origin("golden prompt", 1))
    return collate([example], layout="padded", **model.layout)


def class_logits(model: ClassifierModel | EmbeddingModel, prompt: Sequence[int]) -> Tensor:
    """``[1, K]`` of a classifier, or a text's vector ``[1, H]``, one prompt at a time."""
    batch = _alone(model, prompt)
    model.module.eval()
    with torch.no_grad():
        pooled = model.pooled(batch, model.hidden(batch), torch.zeros(1, dtype=torch.long))
        return model.outputs(model.head.kind, pooled).float()


def logits(module: Any, prompt: Sequence[int]) -> Tensor:
    """``[T, V]``, by transformers' own attention, one prompt at a time.

    An encoder-decoder reads the prompt and is fed it as well.
    """
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    if base.config._attn_implementation not in ("sdpa", "eager"):
        base.set_attn_implementation("sdpa")
    module.eval()
    with torch.no_grad():
        tokens = torch.tensor([list(prompt)])
        both = {"decoder_input_ids": tokens} if base.config.is_encoder_decoder else {}
        out: Tensor = module(input_ids=tokens, **both).logits[0]
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


def distance(trained: Sequence[Tensor], written: Sequence[Tensor]) -> Distance:
    """What became of a model's predictions, prompt by prompt ``[T, V]``."""
    first, second = torch.cat(list(trained)).double(), torch.cat(list(written)).double()
    before, after = first.log_softmax(-1), second.log_softmax(-1)
    divergence = (before.exp() * (before - after)).sum(-1).mean()
    same = (first.argmax(-1) == second.argmax(-1)).double().mean()
    largest = (first - second).abs().max()
    return Distance(float(divergence), float(largest), float(same), len(first))


def checked(trained: Sequence[Tensor], written: Sequence[Tensor]) -> Distance:
    """The same, bounded.

    Raises:
        UserError: the base in full makes another model of the adapter.
    """
    found = distance(trained, written)
    if not found.divergence <= ROUNDING:
        raise UserError(
            f"refused: on the base in full the adapter's predictions are {found.divergence:.3f} "
            f"nats a token from those of the quantised model that was trained; {ROUNDING:g} is "
            f"allowed, on {found.tokens:,} tokens of held-out prompts",
            cure="train a few steps with method: lora from this run's model, or use method.start: "
            "loftq; the run itself is untouched",
            code="export-differs",
        )
    return found
