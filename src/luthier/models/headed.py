"""What models with a head beside the language model's have in common, and how each is made.

``R`` rows, ``H`` hidden size, ``K`` outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luthier.core.contracts import Head
from luthier.core.records import Batch
from luthier.models.trunk import TrunkModel

#: Largest difference between our path to an architecture's own logits and its own.
TOLERANCE = 1e-4


class HeadedTrunk(TrunkModel):
    """A trunk under a head with classes; it has no language-model head."""

    @property
    def causal(self) -> bool:
        """Decoders are; encoders see a segment wholly."""
        return not is_encoder(self.config)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, in the order of the outputs."""
        return label_names(self.base.config)

    def agrees(self, ours: Callable[[Tensor], Tensor]) -> bool:
        """Whether our way from hidden states to logits is the architecture's own."""
        return agrees(self, ours)

    def nll(self, batch: Batch, hidden: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """It has no language-model head."""
        raise AssertionError("a classifier has no language-model head")

    def logprobs(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """It has no language-model head."""
        raise AssertionError("a classifier has no language-model head")

    def logits(self, rows: Tensor) -> Tensor:
        """It has no language-model head."""
        raise AssertionError("a classifier has no language-model head")


@dataclass(frozen=True)
class World:
    """One kind of head: how models with it are recognised, made and seen.

    Attributes:
        auto: transformers' own loader of such models is ``AutoModelFor`` and this; empty where it
            is plain ``AutoModel``.
        model: such a module as objectives see it, or one head of several on a module.
        kept: name and config to the head that a folder or hub model comes with, if it is one.
        build: name, head, options of ``from_pretrained``, config and seed to a module, and what
            was decided, in words.
        empty: name, head, config and options to the same on torch's ``meta`` device.
    """

    auto: str
    model: Callable[..., Any]
    kept: Callable[[str, Any], Head | None]
    build: Callable[[str, Head, dict[str, Any], Any, int], tuple[nn.Module, list[str]]]
    empty: Callable[[str, Head, Any, dict[str, Any]], nn.Module]


def agrees(model: TrunkModel, ours: Callable[[Tensor], Tensor]) -> bool:
    """Whether our way from hidden states ``[T, H]`` to logits is the architecture's own."""
    module, base = model.module, model.base
    tokens = torch.arange(3, 11, device=model.device)[None] % model.config.vocab_size
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            model._attend(model.padded_attention)
            own = base(input_ids=tokens).logits.float()
            states = model.trunk(input_ids=tokens).last_hidden_state[0]
            found = ours(states).float().reshape(own.shape)
    except (AttributeError, TypeError, RuntimeError, ValueError):
        return False
    finally:
        module.train(training)
    return float((own - found).abs().max()) <= TOLERANCE


def architecture(config: Any) -> str:
    """The class that a config says its weights are of; empty where it says none."""
    return str((getattr(config, "architectures", None) or [""])[0])


def label_names(config: Any) -> tuple[str, ...]:
    """The classes' names, in the order of the outputs."""
    return tuple(str(config.id2label[i]) for i in range(len(config.id2label)))


def name_labels(config: Any, labels: tuple[str, ...]) -> None:
    """Writes the classes into a config."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}


def is_encoder(config: Any) -> bool:
    """Whether tokens see the whole text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return masked and not getattr(config, "is_decoder", False)


def fresh(layer: nn.Module, config: Any) -> None:
    """New weights for a linear layer, as pretrained models' own heads begin."""
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=getattr(config, "initializer_range", None) or 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
