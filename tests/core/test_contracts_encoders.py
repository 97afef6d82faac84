"""The contract of batches: an encoder-decoder's two streams, and a pooled encoder classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import builders
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stand_in import Base, models_of, origin, rows, step
from torch import Tensor, nn

from luthier.core.codec import Codec
from luthier.core.contracts import Head, HeadedModel, Models
from luthier.core.records import Batch, Example, Labelled, Record, Segment, SegmentTable
from luthier.data.batching import Layout, collate, empty_like, move
from luthier.data.length import fit
from luthier.data.store import ExampleStore
from luthier.models.run_models import RunModels
from luthier.ops import attention

# Encoder-decoders: a source segment, target segments that cross-attend to it.

START = 2


def translation(source: int, targets: Sequence[int], line: int, *, first: bool = True) -> Example:
    """A source text and one or several targets of it, every target token learned."""
    read = Segment(builders.tokens(source, line), stream="source")
    segments: list[Segment] = [read] if first else []
    place = 0 if first else len(targets)
    position: list[int] = []
    token: list[int] = []
    at = source if first else 0
    for number, length in enumerate(targets):
        wanted = builders.tokens(length, 100 * line + number)
        segments.append(Segment(np.concatenate([[START], wanted[:-1]]), source=place))
        position += range(at, at + length)
        token += wanted.tolist()
        at += length
    if not first:
        segments.append(read)
    owner = [i + int(first) for i, n in enumerate(targets) for _ in range(n)]
    table = {
        "position": np.array(position),
        "token": np.array(token),
        "weight": np.ones(len(token), dtype=np.float32),
        "segment": np.array(owner),
    }
    return Example(tuple(segments), {"lm": table}, origin(line))


def translations() -> list[Example]:
    return [
        translation(7, (5,), 1),
        translation(4, (3, 6), 2),
        translation(9, (2, 2), 3, first=False),
    ]


def seq2seq(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    common: dict[str, Any] = {"vocab_size": builders.VOCABULARY, "d_model": 32}
    bart = {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 64,
    }
    t5 = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": START}
    config = AutoConfig.for_model(name, **common, **(t5 if name == "t5" else bart))
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(2.0)
    return model.eval()


@pytest.fixture(params=["t5", "bart"])
def model(request: pytest.FixtureRequest) -> Any:
    return seq2seq(str(request.param))


def alone(model: Any, example: Example) -> list[Tensor]:
    """Decoder states of every target by transformers' own forward pass, one by one."""
    model.set_attn_implementation("sdpa")
    states = []
    for segment in example.segments:
        if segment.stream == "main":
            assert segment.source is not None
            read = torch.tensor(example.segments[segment.source].tokens)[None]
            hidden = model.get_encoder()(input_ids=read).last_hidden_state
            written = torch.tensor(segment.tokens)[None]
            out = model.get_decoder()(
                input_ids=written, encoder_hidden_states=hidden, use_cache=False
            )
            states.append(out.last_hidden_state[0])
    return states


def padded_hidden(model: Any, batch: Batch) -> Tensor:
    """What a model file for encoder-decoders will do in the padded layout."""
    source = batch.source
    assert source is not None
    model.set_attn_implementation("sdpa")
    read = model.get_encoder()(input_ids=source.tokens, attention_mask=source.attention_mask)
    inner = set(batch.segments.parents)
    leaves = [i for i in range(len(batch.segments.parents)) if i not in inner]
    row_of = [batch.segments.sources[leaf] for leaf in leaves]
    out = model.get_decoder()(
        input_ids=batch.tokens,
        attention_mask=batch.attention_mask,
        encoder_hidden_states=read.last_hidden_state[row_of],
        encoder_attention_mask=source.attention_mask[row_of],
        use_cache=False,
    )
    states: Tensor = out.last_hidden_state.flatten(0, 1)[batch.index]
    return states


def test_two_streams_are_two_batches() -> None:
    batch = collate(translations())
    source = batch.source
    assert source is not None
    assert source.size == 7 + 4 + 9
    assert source.segments == SegmentTable((0, 7, 11), (7, 4, 9), (-1, -1, -1), causal=False)
    assert source.targets == {}
    assert source.source is None
    assert batch.size == 5 + 3 + 6 + 2 + 2
    assert batch.segments.causal
    assert batch.segments.sources == (0, 1, 1, 2, 2)
    assert batch.segments.parents == (-1,) * 5
    assert batch.positions[0].tolist() == [*range(5), *range(3), *range(6), 0, 1, 0, 1]


def test_targets_point_into_the_decoders_stream() -> None:
    batch = collate(translations())
    table = batch.targets["lm"]
    assert table["position"].tolist() == list(range(batch.size))
    assert table["segment"].tolist() == [0] * 5 + [1] * 3 + [2] * 6 + [3] * 2 + [4] * 2
    assert table["example"].tolist() == [0] * 5 + [1] * 9 + [2] * 4
    fed = batch.tokens[0, table["position"]]
    starts = {0, 5, 8, 14, 16}
    for place in range(batch.size):
        expected = START if place in starts else int(table["token"][place - 1])
        assert int(fed[place]) == expected


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_a_decoder_alone_has_no_second_stream(layout: Layout) -> None:
    batch = collate(builders.examples([3, 4]), layout=layout)
    assert batch.source is None
    assert batch.segments.sources == ()


def test_a_target_on_a_source_is_a_mistake() -> None:
    example = translation(4, (3,), 1)
    table = {**example.targets["lm"], "position": np.array([0, 4, 5])}
    with pytest.raises(AssertionError, match="a target on a source segment"):
        collate([Example(example.segments, {"lm": table}, example.origin)])


def test_streams_survive_the_store_filling_moving_and_emptying() -> None:
    stored = list(ExampleStore.build(translations()))
    batch, again = collate(translations()), collate(stored)
    assert again.segments == batch.segments
    assert again.source is not None
    assert batch.source is not None
    assert torch.equal(again.source.tokens, batch.source.tokens)
    filled = collate(translations(), fill=16)
    assert filled.tokens.shape == (1, 32)
    assert filled.segments.sources == (*batch.segments.sources, -1)
    moved = move(batch, torch.device("meta"))
    assert moved.source is not None
    assert moved.source.tokens.device.type == "meta"
    empty = collate([empty_like(example) for example in translations()])
    assert empty.source is not None
    assert (empty.size, empty.source.size, rows(empty, "lm")) == (3, 3, 0)
    assert empty.segments.sources == (0, 1, 2)
    [same], cut = fit(translation(9, (5,), 1), 9, "refuse")
    assert same.depth() == 9, "the streams do not share a context"
    assert not cut


def test_padded_streams_are_each_pair_alone(model: Any) -> None:
    """A source with two targets is encoded once."""
    examples = translations()
    batch = collate(examples, layout="padded")
    assert batch.source is not None
    assert batch.source.tokens.shape == (3, 9)
    assert batch.tokens.shape == (5, 6)
    expected = torch.cat([states for e in examples for states in alone(model, e)])
    with torch.no_grad():
        assert builders.gap(padded_hidden(model, batch), expected) < 1e-5


def test_the_loss_is_transformers_own(model: Any) -> None:
    examples = [translation(7, (5,), 1), translation(4, (6,), 2)]
    batch = collate(examples, layout="padded")
    table = batch.targets["lm"]
    with torch.no_grad():
        hidden = padded_hidden(model, batch)
        if model.config.model_type == "t5" and model.config.tie_word_embeddings:
            hidden = hidden * model.config.d_model**-0.5
        logits = model.get_output_embeddings()(hidden[table["position"]])
        ours = F.cross_entropy(logits, table["token"], reduction="sum")
        theirs = sum(
            model(
                input_ids=torch.tensor(e.segments[0].tokens)[None],
                decoder_input_ids=torch.tensor(e.segments[1].tokens)[None],
                labels=torch.tensor(e.targets["lm"]["token"])[None],
            ).loss
            * len(e.targets["lm"]["token"])
            for e in examples
        )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def cross_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    segments: SegmentTable,
    read: SegmentTable | None = None,
    position_bias: Tensor | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Segment attention with the second stream, one segment at a time: how it can be done.

    A cross-attention layer is one that is not causal in a table with sources.
    """
    crossing = bool(segments.sources) and not getattr(module, "is_causal", False)
    outputs = []
    for index, (start, length) in enumerate(zip(segments.starts, segments.lengths, strict=True)):
        seen = [index] if segments.causal or not crossing else []
        table = segments
        if crossing:
            assert read is not None
            table, seen = read, [segments.sources[index]]
        mine = slice(start, start + length)
        [(s, n)] = [(table.starts[i], table.lengths[i]) for i in seen]
        bias = None if position_bias is None else position_bias[:, :, mine, s : s + n]
        if segments.causal and not crossing:
            future = torch.ones(length, n, dtype=torch.bool).triu(1)
            mask = torch.zeros(length, n).masked_fill(future, -torch.inf)
            bias = mask if bias is None else bias + mask
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, mine], key[:, :, s : s + n], value[:, :, s : s + n], bias, scale=scaling
            )
        )
    return torch.cat(outputs, 2).transpose(1, 2), None


@contextmanager
def positioned(stack: nn.Module, positions: Tensor) -> Iterator[None]:
    """BART counts positions by itself, along the row; T5's bias is relative and needs nothing."""
    table = getattr(stack, "embed_positions", None)
    if table is None:
        yield
        return
    handle = table.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "position_ids": positions[0]}),
        with_kwargs=True,
    )
    try:
        yield
    finally:
        handle.remove()


def test_packed_streams_are_each_pair_alone_through_unchanged_models(model: Any) -> None:
    """Proof that the batch holds all that a packed encoder-decoder needs."""
    from transformers import AttentionInterface

    examples = translations()
    expected = torch.cat([states for e in examples for states in alone(model, e)])
    AttentionInterface.register("test_cross_attention", cross_attention)
    model.set_attn_implementation("test_cross_attention")
    batch = collate(examples)
    assert batch.source is not None
    encoder, decoder = model.get_encoder(), model.get_decoder()
    with torch.no_grad():
        with positioned(encoder, batch.source.positions):
            read = encoder(input_ids=batch.source.tokens, segments=batch.source.segments)
        with positioned(decoder, batch.positions):
            out = decoder(
                input_ids=batch.tokens,
                encoder_hidden_states=read.last_hidden_state,
                use_cache=False,
                segments=batch.segments,
                read=batch.source.segments,
            )
    assert builders.gap(out.last_hidden_state[0], expected) < 1e-5


# A pooled classifier on an encoder.


def encoder(name: str) -> Any:
    from transformers import AutoConfig, AutoModel

    settings = {
        "vocab_size": builders.VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "pad_token_id": 1 if name == "roberta" else 0,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if name == "modernbert":
        special = ("cls", "sep", "bos", "eos")
        settings |= {f"{each}_token_id": 2 for each in special}
        settings |= {"local_attention": 6, "global_attn_every_n_layers": 2}
        settings = {n: v for n, v in settings.items() if not n.endswith("_prob")}
    torch.manual_seed(0)
    trunk = AutoModel.from_config(AutoConfig.for_model(name, **settings), dtype=torch.float64)
    with torch.no_grad():
        for parameter in trunk.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    return trunk


class Pooled:
    """An encoder with a classification head, as a model file of its own would have it."""

    def __init__(self, trunk: Any, pooling: str, classes: int) -> None:
        attention.register()
        trunk.classifier = nn.Linear(32, classes, dtype=torch.float64)
        self.module, self.pooling = trunk, pooling

    def hidden(self, batch: Batch) -> Tensor:
        extra: dict[str, Any] = {"segments": batch.segments} if batch.packed else {}
        if batch.token_types is not None:
            extra["token_type_ids"] = batch.token_types
        self.module.set_attn_implementation(attention.NAME if batch.packed else "sdpa")
        out = self.module(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            attention_mask=batch.attention_mask,
            **extra,
        )
        states: Tensor = out.last_hidden_state.flatten(0, 1)
        return states[batch.index]

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        starts, lengths = torch.tensor(batch.segments.starts), torch.tensor(batch.segments.lengths)
        if self.pooling != "mean":
            last = self.pooling == "last"
            return hidden[(starts + (lengths - 1) * last)[segments]]
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        sums = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, owner, hidden)
        return (sums / lengths[:, None])[segments]

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        assert head == "classification"
        out: Tensor = self.module.classifier(rows)
        return out

    def nll(self, batch: Batch, hidden: Tensor, *, smoothing: float = 0.0) -> Tensor:
        raise AssertionError("an encoder has no language-model head")

    def logprobs(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("an encoder has no language-model head")

    def logits(self, rows: Tensor) -> Tensor:
        raise AssertionError("an encoder has no language-model head")


class Classify(Base):
    """Cross entropy of one class a text."""

    records = (Labelled,)
    heads = (Head("classification", classes=3),)
    names = ("bad", "fair", "good")

    def encode(self, record: Record, codec: Codec) -> Example:
        assert isinstance(record, Labelled)
        tokens = np.array(codec.document(record.text), dtype=np.int64)[:40] % builders.VOCABULARY
        types = np.zeros(len(tokens), dtype=np.int64)
        types[len(tokens) // 2 :] = 1
        table = {
            "segment": np.array([0]),
            "label": np.array([self.names.index(str(record.label))]),
            "weight": np.array([1.0 + record.origin.line], dtype=np.float32),
        }
        return Example(
            (Segment(tokens, token_types=types),), {"classification": table}, record.origin
        )

    def weights(self, batch: Batch) -> dict[str, float]:
        return {"classification": float(batch.targets["classification"]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        policy, table = models.policy, batch.targets["classification"]
        assert isinstance(policy, HeadedModel)
        vectors = policy.pooled(batch, policy.hidden(batch), table["segment"])
        scores = policy.outputs("classification", vectors)
        losses = F.cross_entropy(scores, table["label"], reduction="none")
        return {"classification": (losses * table["weight"]).sum()}


def labelled() -> list[Example]:
    codec = builders.codec()
    said = builders.SENTENCES
    records = [
        Labelled(origin(i + 1), said[i][: 10 + 9 * i], Classify.names[i % 3]) for i in range(5)
    ]
    return [Classify().encode(record, codec) for record in records]


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize(("name", "offset"), [("bert", 0), ("roberta", 2), ("modernbert", 0)])
def test_a_pooled_classifier_through_an_unchanged_encoder(
    name: str, offset: int, pooling: str
) -> None:
    """Packed is padded is each text alone, token types and RoBERTa's offset included."""
    policy = Pooled(encoder(name), pooling, 3)
    models = RunModels(policy, models_of(builders.tiny())._method)
    examples = labelled()
    if name != "bert":
        examples = [
            Example((Segment(e.segments[0].tokens),), e.targets, e.origin) for e in examples
        ]

    def of(chosen: Sequence[Example], layout: Layout) -> tuple[Tensor, dict[str, Tensor]]:
        batch = collate(chosen, layout=layout, causal=False, position_offset=offset, pad_token=0)
        policy.module.zero_grad(set_to_none=True)
        loss = Classify().loss(models, batch)["classification"]
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), builders.gradients(policy.module)

    packed, padded = of(examples, "packed"), of(examples, "padded")
    single = [of([example], "padded") for example in examples]
    total = {name: sum(g[name] for _, g in single) for name in packed[1]}
    assert builders.gap(packed[0], torch.stack([loss for loss, _ in single]).sum()) < 1e-10
    assert builders.gap(packed[0], padded[0]) < 1e-10
    assert builders.gap(packed[1], padded[1]) < 1e-10
    assert builders.gap(packed[1], total) < 1e-10


def test_a_classifiers_step_does_not_feel_the_micro_batches() -> None:
    """Rows of different weight; the stand-in collates causally, which pooling the last ignores."""
    policy = Pooled(encoder("bert"), "first", 3)
    models = RunModels(policy, models_of(builders.tiny())._method)
    examples = labelled()
    whole = step(Classify(), models, [examples])
    divided = step(Classify(), models, [examples[:1], [], examples[1:]])
    assert builders.gap(whole[0], divided[0]) < 1e-10
    assert whole[1] == pytest.approx(divided[1], abs=1e-12)


def test_a_tree_of_an_encoder_cannot_be_padded() -> None:
    """In a padded row a prompt would see its answer; packed it does not."""
    tree = builders.tree()
    assert collate([tree], causal=False).packed
    with pytest.raises(AssertionError, match="cannot be padded"):
        collate([tree], causal=False, layout="padded")
