"""A transformers encoder-decoder (T5, BART and their kin) as objectives see it.

The encoder reads the batch's ``source``, the decoder the batch itself; hidden states, target rows
and losses are the decoder's. Where packing is exact for an architecture, sources lie end to end
in one row and targets in another; where it is not, rows are padded. Which of the two holds, and by
what the output head's input is scaled, is found by asking the model: a small batch both ways.

``N`` decoder tokens, ``R`` target rows, ``H`` hidden size, ``V`` vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luthier.core.contracts_models import STATES
from luthier.core.errors import RecipeError, UserError
from luthier.core.recipe import ModelSpec
from luthier.core.records import Batch, SegmentTable
from luthier.models.language_model import CausalModel
from luthier.ops import attention
from luthier.ops.anatomy import unwrapped
from luthier.ops.paired_attention import longest_path

#: Largest difference, as a share of the largest value, between our way and the model's own.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class _Known:
    """What was found out about an architecture.

    Attributes:
        packs: whether packed rows are each pair alone.
        scale: factor between the decoder's states and the output head.
    """

    packs: bool
    scale: float


class EncoderDecoderModel(CausalModel):
    """An encoder-decoder with its language-model head, possibly under adapters.

    Args:
        module: a transformers model for sequence-to-sequence language modelling, or a peft model
            around one.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._like: Tensor | None = None
        for layer in self.base.modules():
            if hasattr(layer, "compute_bias") and not hasattr(layer, "bias_by_segment"):
                layer.bias_by_segment = layer.register_forward_pre_hook(
                    _bias_by_segment, with_kwargs=True
                )

    @property
    def trunk(self) -> nn.Module:
        """Encoder and decoder."""
        base = self.base
        assert isinstance(base, nn.Module)
        return base

    @property
    def blocks(self) -> list[nn.Module]:
        """The encoder's and the decoder's."""
        sides = (self.base.get_encoder(), self.base.get_decoder())
        return [block for side in sides for block in _longest_list(side)]

    @property
    def layout(self) -> dict[str, Any]:
        """Packed where that is exact, else padded."""
        pad = self.config.pad_token_id
        layout = "packed" if self.known.packs else "padded"
        return {**super().layout, "layout": layout, "pad_token": pad if pad is not None else 0}

    @property
    def padded_attention(self) -> str:
        """Some encoder-decoders know no other attention than the one written out."""
        return super().padded_attention if self.base._supports_sdpa else "eager"

    @property
    def start_token(self) -> int | None:
        """What the decoder is fed first; ``None`` where that is the target's last token (mBART).

        Raises:
            UserError: the model does not say.
        """
        said = getattr(self.config, "decoder_start_token_id", None)
        shift = getattr(self.base, "prepare_decoder_input_ids_from_labels", None)
        if shift is not None and said is None:
            with suppress(TypeError, ValueError):
                if int(shift(torch.tensor([[5, 6, 7]]))[0, 0]) == 7:
                    return None
        if said is None:
            raise UserError(
                f"'{self.config.model_type}' does not say what its decoder starts with",
                cure="set decoder_start_token_id in the model's config.json",
                code="decoder-start",
            )
        return int(said)

    @property
    def known(self) -> _Known:
        """What was found out about the architecture; asked once a model."""
        if self.device.type == "meta":  # a shape without weights computes nothing
            return _Known(packs=True, scale=1.0)
        found = getattr(self.base, "luthier_known", None)
        if found is None:
            found = self._ask()
            self.base.luthier_known = found
        assert isinstance(found, _Known)
        return found

    def hidden(self, batch: Batch) -> Tensor:
        """The decoder's last hidden states ``[N, H]`` in logical order."""
        states = self._packed(batch) if batch.packed else self._padded(batch)
        return states[: batch.size] if batch.packed else states.index_select(0, batch.index)

    @property
    def lower_stream(self) -> str:
        """The segments whose tokens :meth:`lower` gives a state."""
        return "source"

    def divide(self, depth: int) -> str | None:
        """:meth:`lower` then means the encoder; why it cannot, or ``None``."""
        if depth < int(self.config.num_hidden_layers):
            return "of an encoder-decoder only a whole encoder's output can be kept"
        return None

    def lower(self, batch: Batch) -> Tensor:
        """What the encoder gives: ``[N, H]`` of the sources' tokens in logical order."""
        source = _source(batch)
        self._attend(attention.NAME if batch.packed else self.padded_attention)
        states = self._read(source)
        self._like = states.detach()[:0, :0]
        flat = states.flatten(0, 1)
        return flat[: source.size] if source.packed else flat.index_select(0, source.index)

    def _read(self, source: Batch, kept: Tensor | None = None) -> Tensor:
        """The encoder's states as it gives them, ``[1, N, H]`` or ``[rows, T, H]``, or those kept.

        Args:
            source: what it reads.
            kept: ``[N, H]`` of its tokens in logical order; none of a batch that is no work.
        """
        encoder = self.base.get_encoder()
        if kept is not None:
            assert self._like is not None, "the encoder was never run"
            kept = kept.to(self._like.dtype)
            if source.packed:
                return F.pad(kept, (0, 0, 0, source.tokens.shape[1] - len(kept)))[None]
            row = kept.new_zeros(source.tokens.numel(), kept.shape[1])
            row.index_copy_(0, source.index[: len(kept)], kept)
            return row.view(*source.tokens.shape, -1)
        if not source.packed:
            read = encoder(input_ids=source.tokens, attention_mask=source.attention_mask)
        else:
            with positioned(encoder, source.positions):
                read = encoder(input_ids=source.tokens, segments=source.segments)
        states: Tensor = read.last_hidden_state
        return states

    def _packed(self, batch: Batch) -> Tensor:
        source = _source(batch)
        self._attend(attention.NAME)
        read, decoder = self._read(source, _kept(batch)), self.base.get_decoder()
        with positioned(decoder, batch.positions):
            out = decoder(
                input_ids=batch.tokens,
                encoder_hidden_states=read,
                use_cache=False,
                segments=batch.segments,
                read=source.segments,
            )
        states: Tensor = out.last_hidden_state.flatten(0, 1)
        return states

    def _padded(self, batch: Batch) -> Tensor:
        source = _source(batch)
        self._attend(self.padded_attention)
        read, decoder = self._read(source, _kept(batch)), self.base.get_decoder()
        inner = set(batch.segments.parents)
        leaves = [i for i in range(len(batch.segments.parents)) if i not in inner]
        rows = torch.tensor([batch.segments.sources[i] for i in leaves], device=self.device)
        out = decoder(
            input_ids=batch.tokens,
            attention_mask=batch.attention_mask,
            encoder_hidden_states=read.index_select(0, rows),
            encoder_attention_mask=source.attention_mask.index_select(0, rows),
            use_cache=False,
        )
        states: Tensor = out.last_hidden_state.flatten(0, 1)
        return states

    def _logit_shape(self) -> tuple[float | None, float]:
        return None, self.known.scale

    def _logit_bias(self) -> Tensor | None:
        """BART and its kin keep one beside the head."""
        bias = getattr(self.base, "final_logits_bias", None)
        return None if bias is None else bias[0]

    def _ask(self) -> _Known:
        """Two small pairs packed, and one by one by transformers' own forward pass."""
        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                return self._compared()
        finally:
            self.module.train(training)

    def _compared(self) -> _Known:
        base = self.base
        batch = _sample(self.config.vocab_size, self.device)
        self._attend(self.padded_attention)
        states, logits = [], []
        for read, fed in _apart(batch):
            encoded = base.get_encoder()(input_ids=read).last_hidden_state
            out = base.get_decoder()(
                input_ids=fed, encoder_hidden_states=encoded, use_cache=False
            ).last_hidden_state
            states.append(out[0])
            logits.append(base(input_ids=read, decoder_input_ids=fed).logits[0])
        own, wanted = torch.cat(states), torch.cat(logits)
        plain = base.get_output_embeddings()(own)
        bias = self._logit_bias()
        for scale in (1.0, float(self.config.hidden_size) ** -0.5):
            made = plain * scale if bias is None else plain * scale + bias
            if _close(made, wanted):
                break
        else:
            raise UserError(
                f"the output head of '{self.config.model_type}' works in a way that is not known "
                "here",
                cure="take another encoder-decoder: T5, mT5, BART, mBART, Pegasus, Marian …",
                code="head",
            )
        try:
            packs = _close(self._packed(batch), own)
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
            packs = False
        return _Known(packs, scale)


def _source(batch: Batch) -> Batch:
    assert batch.source is not None, "an encoder-decoder without a source"
    return batch.source


def _kept(batch: Batch) -> Tensor | None:
    """What a batch brings of its encoder's output."""
    table = batch.targets.get(STATES)
    return None if table is None else table["state"]


@contextmanager
def positioned(stack: nn.Module, positions: Tensor) -> Iterator[None]:
    """Position ids for a stack that counts along the row by itself (BART); T5 needs none."""
    with ExitStack() as opened:
        for name, table in stack.named_children():
            takes = "position_ids" in inspect.signature(table.forward).parameters
            if name.startswith("embed_positions") and takes:
                handle = table.register_forward_pre_hook(
                    lambda _module, args, kwargs: (args, {**kwargs, "position_ids": positions[0]}),
                    with_kwargs=True,
                )
                opened.callback(handle.remove)
        yield


def language_model(module: nn.Module) -> CausalModel:
    """A module with a language-model head as objectives see it."""
    if getattr(unwrapped(module).config, "is_encoder_decoder", False):
        return EncoderDecoderModel(module)
    return CausalModel(module)


def auto_class(config: Any) -> Any:
    """The transformers class that loads a language model of this config."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    both = getattr(config, "is_encoder_decoder", False)
    return AutoModelForSeq2SeqLM if both else AutoModelForCausalLM


def is_encoder_decoder(spec: ModelSpec) -> bool:
    """Whether a model from scratch will have an encoder beside its decoder."""
    from transformers import CONFIG_MAPPING

    if spec.architecture not in CONFIG_MAPPING:
        return False
    return bool(getattr(CONFIG_MAPPING[spec.architecture](), "is_encoder_decoder", False))


def tokens_of(tokenizer: Any, known: Any) -> dict[str, Any]:
    """What a config must know of its tokenizer.

    Raises:
        RecipeError: an encoder-decoder whose tokenizer has no token to end a target, or to start.
    """
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    ids = {"vocab_size": len(tokenizer), **ids, "pad_token_id": tokenizer.pad_token_id}
    if not getattr(known, "is_encoder_decoder", False):
        return ids
    if ids["eos_token_id"] is None or ids["pad_token_id"] is None:
        raise RecipeError(
            f"an encoder-decoder ({known.model_type}) needs an end-of-text and a padding token, "
            "and model.tokenizer lacks one",
            cure="take another tokenizer, or train one: model.tokenizer: {vocab_size: 4096}",
        )
    # As T5: the decoder starts with the padding token. BART would force its own end token.
    ids["decoder_start_token_id"] = ids["pad_token_id"]
    if hasattr(known, "forced_eos_token_id"):
        ids["forced_eos_token_id"] = ids["eos_token_id"]
    return ids


def _bias_by_segment(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """T5's bias for the longest path instead of the whole row squared; none where there is none.

    Every segment's scores take their part of it. Without this an attention layer would make a
    tensor of all tokens by all tokens.
    """
    segments = kwargs.get("segments")
    if segments is None or kwargs.get("position_bias") is not None:
        return None
    states: Tensor = args[0]
    if kwargs.get("key_value_states") is None and layer.has_relative_attention_bias:
        size = longest_path(segments)
        bias = layer.compute_bias(size, size, device=states.device)
    else:
        bias = states.new_zeros(0)
    return args, {**kwargs, "position_bias": bias}


def _sample(vocabulary: int, device: torch.device) -> Batch:
    """Two pairs of different lengths, end to end."""
    reads, writes = (5, 3), (2, 4)

    def packed(lengths: tuple[int, ...], causal: bool, source: Batch | None) -> Batch:
        size = sum(lengths)
        starts = (0, lengths[0])
        tokens = (torch.arange(size, device=device) * 7 + 3 + causal) % vocabulary
        places = torch.cat([torch.arange(n, device=device) for n in lengths])
        sources = (0, 1) if causal else ()
        table = SegmentTable(starts, lengths, (-1, -1), causal, sources)
        index = torch.arange(size, device=device)
        return Batch(tokens[None], places[None], table, {}, (), index, size=size, source=source)

    return packed(writes, True, packed(reads, False, None))


def _apart(batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    assert batch.source is not None
    for number in range(2):
        pair = []
        for side in (batch.source, batch):
            start = side.segments.starts[number]
            pair.append(side.tokens[:, start : start + side.segments.lengths[number]])
        yield pair[0], pair[1]


def _close(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    bound = _TOLERANCE * max(1e-6, float(wanted.abs().max()))
    return float((found - wanted).abs().max()) <= bound


def _longest_list(stack: nn.Module) -> list[nn.Module]:
    lists = [list(m) for m in stack.children() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=[])
