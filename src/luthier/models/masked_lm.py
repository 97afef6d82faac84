"""Masked language models: encoders with the head that guesses hidden tokens.

``R`` rows, ``H`` hidden size, ``V`` vocabulary. The architecture's own head, tied to the
embeddings where the architecture ties it; what is saved loads with plain transformers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luthier.core.contracts import Head
from luthier.core.errors import RecipeError, UserError
from luthier.models.headed import World, agrees, architecture
from luthier.models.language_model import VocabularyModel
from luthier.models.pooling import NOTE, sentence_pooling

HEAD = "masked_lm"


class MaskedModel(VocabularyModel):
    """An encoder with its masked-language-model head, possibly under adapters.

    Args:
        module: a transformers model for masked language modelling, or a peft model around one.
    """

    table: ClassVar[str] = HEAD

    @property
    def head(self) -> Head:
        """The head that it is."""
        return Head(HEAD)

    @property
    def trunk(self) -> nn.Module:
        """The blocks below the head."""
        return cast("nn.Module", self.base.base_model)

    @property
    def causal(self) -> bool:
        """Tokens see the whole text."""
        return False

    def features(self, rows: Tensor) -> Tensor:
        """The head up to its output matrix: ``[R, H] -> [R, H]``."""
        return transformed(self.base, rows)

    def check(self) -> None:
        """Compares our way to the logits with the architecture's own.

        Raises:
            UserError: they differ: this architecture's head is not understood.
        """
        if not agrees(self, self.logits):
            raise UserError(
                f"the masked-language-model head of '{self.config.model_type}' works in a way that "
                "is not known here",
                cure="take another architecture (BERT, RoBERTa, DistilBERT, ModernBERT, ALBERT …)",
                code="head",
            )


def transformed(base: Any, rows: Tensor) -> Tensor:
    """Hidden states as an architecture's output matrix reads them."""
    if hasattr(base, "vocab_transform"):  # DistilBERT
        rows = base.activation(base.vocab_transform(rows))
        return cast("Tensor", base.vocab_layer_norm(rows))
    if hasattr(base, "lm_head"):  # RoBERTa and its kin
        return cast("Tensor", base.lm_head.layer_norm(F.gelu(base.lm_head.dense(rows))))
    if hasattr(base, "generator_predictions"):  # ELECTRA
        return cast("Tensor", base.generator_predictions(rows))
    if hasattr(base, "predictions"):  # ALBERT
        inner = base.predictions
        return cast("Tensor", inner.LayerNorm(inner.activation(inner.dense(rows))))
    if hasattr(base, "cls"):  # BERT
        return cast("Tensor", base.cls.predictions.transform(rows))
    return cast("Tensor", base.head(rows))  # ModernBERT


def head_modules(base: nn.Module, missing: Iterable[str]) -> tuple[str, ...]:
    """Names of the submodules that no pretraining made, the tied matrix left out."""
    output = cast("Any", base).get_output_embeddings()
    named = {name: module for name, module in base.named_modules() if name}
    owners = {name.rpartition(".")[0] for name in missing}
    return tuple(
        name
        for name, module in named.items()
        if name in owners and module is not output and output not in module.modules()
    )


def kept(_name: str, config: Any) -> Head | None:
    """The head that a folder or a hub model comes with, if it is a masked language model."""
    return Head(HEAD) if architecture(config).endswith("ForMaskedLM") else None


def build(
    name: str, _head: Head, options: dict[str, Any], config: Any, seed: int
) -> tuple[nn.Module, list[str]]:
    """A pretrained encoder with its head, or with a fresh one, and what was decided, in words.

    Raises:
        OSError, ValueError: as transformers raises them where there is nothing to load.
        RecipeError: an architecture that has no such head.
    """
    from transformers import AutoModelForMaskedLM

    _prepared(name, config, options)
    torch.manual_seed(seed)
    module, found = AutoModelForMaskedLM.from_pretrained(
        name,
        output_loading_info=True,
        **{"use_safetensors": True, "config": config, "dtype": torch.float32, **options},
    )
    missing = sorted(found["missing_keys"])
    module.adapter_task = "FEATURE_EXTRACTION"
    names = head_modules(module, missing)
    if not names:
        return module, []
    module.head_names = names
    tied = module.get_output_embeddings().weight is module.get_input_embeddings().weight
    return module, [
        "a fresh masked-language-model head"
        + (", its output matrix tied to the embeddings" if tied else "")
        + ": the model comes without one"
    ]


def empty(name: str, _head: Head, config: Any, options: dict[str, Any]) -> nn.Module:
    """The same on torch's ``meta`` device, its weights unread."""
    from transformers import AutoModelForMaskedLM

    _prepared(name, config, options)
    with torch.device("meta"):
        module = AutoModelForMaskedLM.from_config(config)
    return cast("nn.Module", module)


def _prepared(name: str, config: Any, options: dict[str, Any]) -> None:
    """Notes a sentence encoder's pooling in its config: the files that say it are not saved.

    Raises:
        RecipeError: an architecture without such a head.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    known = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if not known or getattr(config, "is_encoder_decoder", False):
        raise RecipeError(
            f"'{name}' ({config.model_type}) has no masked-language-model head",
            cure="take an encoder (BERT, RoBERTa, ModernBERT …), or objective: language_modeling",
        )
    if pooling := sentence_pooling(name, options, config):
        setattr(config, NOTE, pooling)


WORLD = World("MaskedLM", MaskedModel, kept, build, empty)
