"""A transformers causal model as objectives see it: hidden states, losses, log-probabilities.

``B`` examples, ``N`` tokens, ``R`` target rows, ``H`` hidden size, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from luthier.core.records import Batch
from luthier.models.soft_prompt import Prompted, soft_prompt
from luthier.models.trunk import TrunkModel
from luthier.ops.cross_entropy import head_cross_entropy, linear_cross_entropy
from luthier.ops.logprobs import token_logprobs


class VocabularyModel(TrunkModel):
    """A trunk under a head that gives every token of the vocabulary a score."""

    #: The table whose tokens it scores.
    table: ClassVar[str] = "lm"

    def features(self, rows: Tensor) -> Tensor:
        """What the output matrix reads of hidden states: ``[R, H] -> [R, H]``."""
        return rows

    def nll(self, batch: Batch, hidden: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Weighted sum of the table's negative log-likelihoods, in nats."""
        table = batch.targets[self.table]
        rows = self.features(hidden.index_select(0, table["position"]))
        head = self._plain_head()
        if head is None:
            return head_cross_entropy(
                self._scores,
                rows,
                table["token"],
                table["weight"],
                self.config.vocab_size,
                smoothing=smoothing,
            )
        softcap, scale = self._logit_shape()
        return linear_cross_entropy(
            rows,
            head.weight,
            table["token"],
            table["weight"],
            bias=head.bias if head.bias is not None else self._logit_bias(),
            smoothing=smoothing,
            softcap=softcap,
            scale=scale,
        )

    def logprobs(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Each target's log-probability ``[R]`` and whether it was the most likely ``[R]``."""
        table = batch.targets[self.table]
        rows = hidden.index_select(0, table["position"])
        return token_logprobs(self.logits, rows, table["token"], self.config.vocab_size)

    def logits(self, rows: Tensor) -> Tensor:
        """``[R, H] -> [R, V]``, with the architecture's own scaling and cap."""
        return self._scores(self.features(rows))

    def _scores(self, rows: Tensor) -> Tensor:
        out: Tensor = self.base.get_output_embeddings()(rows)
        softcap, scale = self._logit_shape()
        if scale != 1.0:
            out = out * scale
        if (bias := self._logit_bias()) is not None:
            out = out + bias
        return out if softcap is None else torch.tanh(out / softcap) * softcap

    def _plain_head(self) -> nn.Linear | None:
        """The head where it is one plain matrix; ``None`` where an adapter sits on it."""
        head = self.base.get_output_embeddings()
        return head if type(head) is nn.Linear else None

    def _logit_bias(self) -> Tensor | None:
        """A bias that an architecture keeps beside its head."""
        return None

    def _logit_shape(self) -> tuple[float | None, float]:
        """Soft cap and factor that some architectures put on their logits."""
        config = self.config
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        divisor = float(getattr(config, "logits_scaling", None) or 1.0)
        return getattr(config, "final_logit_softcapping", None), scale / divisor


class CausalModel(VocabularyModel):
    """A decoder with its language-model head, possibly under adapters.

    Args:
        module: a transformers model for causal language modelling, or a peft model around one.
    """

    @property
    def trunk(self) -> nn.Module:
        """The decoder below the head."""
        decoder = self.base.get_decoder()
        assert isinstance(decoder, nn.Module)
        return decoder

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """What ends an answer, as the model's own generation config has it."""
        own = self.base.generation_config.eos_token_id
        return tuple(own) if isinstance(own, list) else () if own is None else (own,)

    def hidden_cached(self, batch: Batch, cache: Any) -> Tensor:
        """As :meth:`hidden` of a packed batch; every layer's keys and values go to the cache."""
        assert batch.packed, "a padded batch has no cache"
        return self._run(batch, cache).flatten(0, 1)[: batch.size]

    def attend_with(self, name: str) -> None:
        """Another attention from now on; :meth:`hidden` sets its own again."""
        self._attend(name)

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """The module in evaluation mode with transformers' own attention and cache."""
        training = self.module.training
        self._attend(self.padded_attention)
        self.module.eval()
        try:
            tuned = soft_prompt(self.module) is not None
            yield Prompted(self.module, self.base) if tuned else self.module
        finally:
            self.module.train(training)
