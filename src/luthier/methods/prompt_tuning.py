"""Prompt tuning: learned vectors before every example, and nothing else (Lester et al. 2021).

``[p_1 … p_P; x_1 … x_L]`` with ``P`` trained rows of the embeddings' width (arXiv 2104.08691),
through peft. They start as the embeddings of tokens drawn at random, so that step 0 is not the
base. In a packed row they are one segment, the parent of every example: computed once a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from safetensors.torch import load_file
from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.core.errors import RecipeError, UserError
from luthier.methods._peft import PeftMethod, weightless
from luthier.ops.quantized import peft


class Config(KindConfig):
    """Settings of prompt tuning."""

    kind: str = "prompt_tuning"
    length: int = Field(default=20, ge=1)
    """Vectors before every example; they take as much of the context."""


class Method(PeftMethod):
    """See the module."""

    default_rate: ClassVar[float] = 1e-2
    trained = ("prompt_encoder",)
    identity = False

    @property
    def prefix(self) -> int:
        """Places of the context that the vectors take."""
        return int(self.config.length)

    def supports(self, objective: Objective) -> str | None:
        """Language models alone: a head that reads a whole text would read the vectors with it."""
        if any(head.kind != "lm" for head in objective.heads):
            return (
                f"'prompt_tuning' puts learned vectors before a text, and the head of "
                f"'{objective.config.kind}' reads a text of its own: take lora or ia3"
            )
        return None

    def peft_config(self, model: nn.Module) -> Any:
        """Of peft's prompt tuning.

        Raises:
            RecipeError: an encoder-decoder, whose two sides would want vectors of their own.
        """
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise RecipeError(
                "method 'prompt_tuning' is for models with one stack of layers, and this is an "
                "encoder-decoder",
                cure="method: lora, or ia3",
                code="pairing",
            )
        return peft().PromptTuningConfig(
            num_virtual_tokens=self.config.length,
            prompt_tuning_init="RANDOM" if weightless(model) else "SAMPLE_VOCAB",
            task_type="CAUSAL_LM",
        )

    def differing(self, model: Any, old: Any, wanted: Any) -> list[str]:
        """The number of vectors."""
        had, asked = old.num_virtual_tokens, self.config.length
        return [] if had == asked else [f"length {had} (the adapter) / {asked} (the recipe)"]

    def _loaded(self, model: nn.Module, folder: Path) -> nn.Module:
        """By hand: peft loads learned vectors only to be used."""
        from peft import set_peft_model_state_dict

        for parameter in model.parameters():
            parameter.requires_grad_(False)
        made = self._fresh(model)
        set_peft_model_state_dict(made, load_file(folder / "adapter_model.safetensors"))
        return made

    def merge(self, model: nn.Module) -> nn.Module:
        """No weights of the base compute what the vectors do.

        Raises:
            UserError: always.
        """
        raise UserError(
            "learned vectors before a text cannot be merged into a model's weights",
            cure="the run's folder model/ loads with plain peft; to have full weights, tune with "
            "method: lora",
            code="no-merge",
        )
