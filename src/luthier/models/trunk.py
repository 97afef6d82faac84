"""A transformers trunk as every head sees it: last hidden states, whatever the layout."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from luthier.core.contracts import Head
from luthier.core.contracts_models import STATES
from luthier.core.records import Batch
from luthier.models.halves import Halves
from luthier.models.soft_prompt import prepended, soft_prompt
from luthier.ops import attention
from luthier.ops.anatomy import unwrapped


class TrunkModel:
    """A module with a trunk of transformer blocks, possibly under adapters.

    Args:
        module: what is trained and saved.
        head: of several on one trunk the one that is meant.
    """

    def __init__(self, module: nn.Module, head: nn.Module | None = None) -> None:
        self.module = module
        self._head = head
        self._halves: Halves | None = None
        attention.register()

    @property
    def base(self) -> Any:
        """The transformers model without the adapter's wrapping (its layers stay adapted)."""
        return unwrapped(self.module) if self._head is None else self._head

    @property
    def config(self) -> Any:
        """The text model's config."""
        return self.base.config.get_text_config()

    @property
    def head(self) -> Head | None:
        """The head beside the language model's, ``None`` of a language model."""
        return None

    @property
    def trunk(self) -> nn.Module:
        """The blocks below the heads."""
        raise NotImplementedError

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks: the longest list of modules in the trunk."""
        lists = [list(m) for m in self.trunk.modules() if isinstance(m, nn.ModuleList)]
        return max(lists, key=len, default=[])

    @property
    def causal(self) -> bool:
        """Whether segments see themselves causally (decoders) or wholly (encoders)."""
        return True

    @property
    def layout(self) -> dict[str, Any]:
        """What :func:`luthier.data.batching.collate` must know of the architecture."""
        return {"causal": self.causal, "position_offset": self.position_offset}

    @property
    def position_offset(self) -> int:
        """Where positions begin: RoBERTa's start behind its padding token's."""
        table = getattr(getattr(self.trunk, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        return 0 if padding is None else int(padding) + 1

    @property
    def context(self) -> int | None:
        """Tokens that the architecture can take; ``None`` where it has no bound."""
        for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
            if value := getattr(self.config, name, None):
                return int(value) - self.position_offset - self._ahead
        return None

    @property
    def _ahead(self) -> int:
        """Learned vectors before every example."""
        prompt = soft_prompt(self.module)
        return 0 if prompt is None else len(prompt)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @property
    def padded_attention(self) -> str:
        """Attention that computes padded rows exactly: sdpa knows no softcapping, Gemma 2's."""
        return "eager" if self.config.model_type == "gemma2" else "sdpa"

    def hidden(self, batch: Batch) -> Tensor:
        """Last hidden states ``[N, H]`` in logical order, whatever the layout.

        A batch that brings what its lowest blocks give runs the others only.
        """
        kept = batch.targets.get(STATES)
        if kept is None:
            return _ordered(self._run(batch), batch)
        assert self._halves is not None, "states of a trunk that was not divided"
        assert batch.packed, "states of a padded batch"
        with self._halves.above(kept["state"], batch.tokens.shape[1]):
            return _ordered(self._run(batch), batch)

    @property
    def lower_stream(self) -> str:
        """The segments whose tokens :meth:`lower` gives a state."""
        return "main"

    def divide(self, depth: int) -> str | None:
        """:meth:`lower` then means the lowest ``depth`` blocks; why it cannot, or ``None``."""
        self._halves = Halves(self.module, depth)
        return None

    def lower(self, batch: Batch) -> Tensor:
        """What the lowest blocks of :meth:`divide` give: ``[N, H]`` in logical order."""
        assert self._halves is not None, "a trunk that was not divided"
        with self._halves.below() as seen:
            self._run(batch)
        [states] = seen
        return _ordered(states, batch)

    def _run(self, batch: Batch, cache: Any = None) -> Tensor:
        """The trunk's states as it gives them: ``[1, N, H]`` or ``[rows, T, H]``.

        A decoder hands its keys and values to a ``cache`` of transformers' kind.
        """
        extra: dict[str, Any] = {"use_cache": cache is not None} if self.causal else {}
        if cache is not None:
            extra["past_key_values"] = cache
        given: dict[str, Any] = {"input_ids": batch.tokens}
        prompt = soft_prompt(self.module)
        if prompt is not None:
            table = cast("Any", self.trunk).get_input_embeddings()
            batch, vectors = prepended(batch, prompt, table, self.position_offset)
            given = {"inputs_embeds": vectors}
        if batch.packed:
            self._attend(attention.NAME)
            extra["segments"] = batch.segments
        else:
            self._attend(self.padded_attention)
        if batch.token_types is not None:
            extra["token_type_ids"] = batch.token_types
        out = self.trunk(
            **given,
            position_ids=batch.positions,
            attention_mask=batch.attention_mask,
            **extra,
        )
        states: Tensor = out.last_hidden_state
        return states if prompt is None else states[:, len(prompt) :]

    def _attend(self, name: str) -> None:
        whole = unwrapped(self.module)
        if whole.config._attn_implementation != name:
            whole.set_attn_implementation(name)


def _ordered(states: Tensor, batch: Batch) -> Tensor:
    flat = states.flatten(0, 1)
    return flat[: batch.size] if batch.packed else flat.index_select(0, batch.index)
