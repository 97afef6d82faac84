"""Laws 1 and 2: packed equals padded, and a tree of segments equals its paths one by one."""

from __future__ import annotations

from typing import Any

import builders
import pytest
import torch
import torch.nn.functional as F
from builders import DECODERS, document, gap, gradients, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from luthier.core.records import Example, SegmentTable
from luthier.data.batching import collate
from luthier.models.language_model import CausalModel
from luthier.ops import attention
from luthier.ops.attention import segment_attention, visibility

#: Without float32 in their norms' backward pass, so that float64 gradients mean float64.
EXACT = {"phi", "gpt_neox", "gpt2"}


def row() -> list[Example]:
    """Documents and trees: equal lengths, nearly equal ones, single tokens, a deep tree."""
    return [
        document(9),
        tree(),
        document(20, 1),
        document(20, 2),
        document(1, 3),
        tree((1, 5, 1, 8), (None, 0, 1, 1), seed=4),
        document(8, 5),
        document(1, 6),
    ]


def plain_paths(model: Any, example: Example) -> tuple[Tensor, Tensor]:
    """Hidden states of every token and the loss, by unchanged transformers, a path at a time."""
    starts = example.starts()
    hidden: dict[int, Tensor] = {}
    logits: dict[int, Tensor] = {}
    for path in builders.leaves(example):
        ids = torch.cat([torch.from_numpy(example.segments[s].tokens) for s in path])
        places = [starts[s] + i for s in path for i in range(len(example.segments[s].tokens))]
        states = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        scores = model(input_ids=ids[None], use_cache=False).logits[0]
        for place, state, score in zip(places, states, scores, strict=True):
            hidden.setdefault(place, state)
            logits.setdefault(place, score)
    table = example.targets["lm"]
    loss = torch.zeros((), dtype=torch.float64)
    for position, token, weight in zip(*(table[c].tolist() for c in table), strict=True):
        loss = loss - weight * logits[position].log_softmax(-1)[token]
    return torch.stack([hidden[i].detach() for i in range(example.size)]), loss


@pytest.mark.parametrize("architecture", DECODERS)
def test_law_2_a_packed_row_is_its_paths_one_by_one(architecture: str) -> None:
    model = builders.tiny(architecture, torch.float64)
    lm, made = CausalModel(model), row()
    batch = collate(made)
    ours = lm.hidden(batch)
    loss = lm.nll(batch, ours)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = gradients(model)

    model.zero_grad()
    model.set_attn_implementation("eager" if architecture == "gemma2" else "sdpa")
    theirs = [plain_paths(model, example) for example in made]
    expected = torch.stack([part for _, part in theirs]).sum()
    expected.backward()  # type: ignore[no-untyped-call]

    tolerance = 2e-6 if architecture == "gemma2" else 1e-12
    assert gap(ours, torch.cat([states for states, _ in theirs])) < tolerance
    assert gap(loss, expected) < tolerance * 100
    assert gap(gradient, gradients(model)) < (1e-12 if architecture in EXACT else 5e-6)


@pytest.mark.parametrize("architecture", DECODERS)
def test_law_1_packed_is_padded(architecture: str) -> None:
    # float32: in float64 transformers' eager attention adds the smallest float64 as a mask and
    # takes the softmax in float32, where that is -inf; Gemma 2's rows of padding become NaN.
    model = builders.tiny(architecture)
    lm, made, found = CausalModel(model), row(), []
    for layout in ("packed", "padded"):
        model.zero_grad()
        batch = collate(made, layout=layout)  # type: ignore[arg-type]
        hidden = lm.hidden(batch)
        loss = lm.nll(batch, hidden)
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((hidden, loss, gradients(model), lm.logprobs(batch, hidden)[0]))
    packed, padded = found
    assert gap(packed[0], padded[0]) < 2e-5
    assert gap(packed[1], padded[1]) < 1e-3
    assert gap(packed[2], padded[2]) < 1e-3
    assert gap(packed[3], padded[3]) < 2e-5


@pytest.mark.parametrize("architecture", DECODERS)
def test_law_1_no_document_sees_another(architecture: str) -> None:
    lm, made = CausalModel(builders.tiny(architecture)), row()
    with torch.no_grad():
        before = lm.hidden(collate(made)).split([e.size for e in made])
        for changed in (1, 2, 6):
            others = list(made)
            others[changed] = tree(seed=99) if changed == 1 else document(made[changed].size, 99)
            after = lm.hidden(collate(others)).split([e.size for e in made])
            for number, (a, b) in enumerate(zip(before, after, strict=True)):
                assert torch.equal(a, b) == (number != changed), (changed, number)


def test_law_2_siblings_do_not_see_each_other() -> None:
    lm = CausalModel(builders.tiny("mistral"))
    one, other = tree(), tree()
    other.segments[1].tokens[:] = builders.tokens(4, 77)
    with torch.no_grad():
        a, b = lm.hidden(collate([one])), lm.hidden(collate([other]))
    assert torch.equal(a[:7], b[:7])
    assert torch.equal(a[11:], b[11:])
    assert not torch.equal(a[7:11], b[7:11])


@st.composite
def tables(draw: st.DrawFn, causal: bool | None = None) -> SegmentTable:
    """A forest of small trees, empty segments among them."""
    lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=7).filter(any))
    parents = [draw(st.integers(-1, i - 1)) for i in range(len(lengths))]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    chosen = draw(st.booleans()) if causal is None else causal
    return SegmentTable(tuple(starts), tuple(lengths), tuple(parents), chosen)


def seen(segments: SegmentTable, window: int | None) -> Tensor:
    """Who sees whom, ``[N, N]``, spelt out from the words of the design."""
    owner = [i for i, n in enumerate(segments.lengths) for _ in range(n)]
    depth: list[int] = []
    for index, number in enumerate(owner):
        above = sum(segments.lengths[i] for i in segments.path(number)[:-1])
        depth.append(above + index - segments.starts[number])
    rule = torch.zeros(len(owner), len(owner), dtype=torch.bool)
    for q in range(len(owner)):
        for k in range(len(owner)):
            near = depth[q] - depth[k]
            rule[q, k] = (
                owner[k] in segments.path(owner[q])
                and (near >= 0 or not segments.causal)
                and (window is None or abs(near) < window)
            )
    return rule


def naive(
    query: Tensor, key: Tensor, value: Tensor, rule: Tensor, scale: float, softcap: float | None
) -> Tensor:
    """Attention written out: ``[1, A, N, D]`` to ``[1, N, A, D]``."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.mT * scale
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    weights = scores.masked_fill(~rule, float("-inf")).softmax(-1)
    return (weights @ value).transpose(1, 2)


def heads(count: int, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Four query heads, two key and value heads of size 8, requiring gradients."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, n, count, 8, generator=generator, dtype=dtype, requires_grad=True)
        for n in (4, 2, 2)
    ]


@pytest.mark.parametrize("padded_up_to", [0, 4, 100])
@settings(max_examples=40, deadline=None)
@given(
    segments=tables(),
    window=st.sampled_from([None, 1, 2, 4]),
    softcap=st.sampled_from([None, 2.0]),
    seed=st.integers(0, 9),
)
def test_any_forest_equals_attention_written_out(
    padded_up_to: int,
    segments: SegmentTable,
    window: int | None,
    softcap: float | None,
    seed: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_padded_up_to", lambda _query: padded_up_to)
        patch.setattr(attention, "_WASTE", 2.0)  # else small tables hardly ever share a call
        _check_written_out(segments, window, softcap, seed)


def _check_written_out(
    segments: SegmentTable, window: int | None, softcap: float | None, seed: int
) -> None:
    inputs = heads(sum(segments.lengths), seed)
    rule = seen(segments, window)
    weight = torch.randn(1, len(rule), 4, 8, dtype=torch.float64)
    outputs, slopes = [], []
    ours, _ = segment_attention(
        torch.nn.Module(),
        *inputs,
        None,
        scaling=0.3,
        segments=segments,
        sliding_window=window,
        softcap=softcap,
    )
    for out in (ours, naive(*inputs, rule, 0.3, softcap)):
        outputs.append(out)
        slopes.append(torch.autograd.grad((out * weight).sum(), inputs))
    # The softmax behind a soft cap is float32's, as transformers' is.
    tolerance = 1e-12 if softcap is None else 1e-5
    assert gap(*outputs) < tolerance
    assert max(gap(a, b) for a, b in zip(*slopes, strict=True)) < tolerance * 10


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from([None, 1, 3]))
def test_the_rule_of_the_gpu_path_is_the_mask_of_the_cpu_path(
    segments: SegmentTable, window: int | None
) -> None:
    count = sum(segments.lengths)
    query, key, _ = (x.detach() for x in heads(count, 0))
    # One-hot values: what comes out are the attention weights themselves.
    value = torch.eye(count, dtype=torch.float64).expand(1, 2, count, count)
    weights, _ = segment_attention(
        torch.nn.Module(), query, key, value, None, segments=segments, sliding_window=window
    )
    places = torch.arange(count)
    rule = visibility(segments, window, torch.device("cpu"))
    zero = torch.zeros((), dtype=torch.long)
    sees = rule(zero, zero, places[:, None], places[None, :])
    assert torch.equal(weights[0, :, 0] > 0, sees)
    assert torch.equal(sees, seen(segments, window))


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention as plain operations, which run forward on any CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attention, "_compiled", [flex_attention])


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("causal", [True, False])
def test_flex_attention_is_the_cpu_path(
    window: int | None, softcap: float | None, causal: bool
) -> None:
    batch = collate(row(), causal=causal)
    query, key, value = (x.detach() for x in heads(batch.size, 3, torch.float32))
    ours, _ = segment_attention(
        torch.nn.Module(),
        query,
        key,
        value,
        None,
        scaling=0.4,
        segments=batch.segments,
        sliding_window=window,
        softcap=softcap,
    )
    state = attention._Heads(query[0], key[0], value[0], 0.4, 0.0, window, softcap)
    assert gap(attention._flex(state, batch.segments).transpose(1, 2), ours) < 1e-5


CPU = torch.device("cpu")


def calls(segments: SegmentTable, padded_up_to: int = 0) -> list[tuple[int, int, int]]:
    """First segment, number of segments and longest of each call."""
    made = attention.plan_of(segments, padded_up_to, CPU)
    return [(call.first, call.count, call.length) for call in made.calls]


def test_neighbours_of_equal_length_share_a_call_as_they_lie() -> None:
    table = collate(builders.examples([12, 12, 12, 7, 12, 9, 9])).segments
    assert calls(table) == [(0, 3, 12), (3, 1, 7), (4, 1, 12), (5, 2, 9)]
    made = attention.plan_of(table, 0, CPU)
    assert made.sizes == (36, 7, 12, 18)
    assert all(call.take is None for call in made.calls)


def test_neighbours_of_nearly_equal_length_share_a_padded_call_where_calls_cost() -> None:
    table = collate(builders.examples([3, 38, 39, 40, 100, 101])).segments
    assert calls(table, 64) == [(0, 1, 3), (1, 3, 40), (4, 1, 100), (5, 1, 101)]
    kept = attention.plan_of(table, 64, CPU).calls[1].keep
    assert kept is not None
    assert len(kept) == 38 + 39 + 40


def test_a_segment_with_ancestors_or_children_has_a_call_of_its_own() -> None:
    # Four segments of length 3: two roots alone, then a parent and its child.
    table = SegmentTable((0, 3, 6, 9), (3, 3, 3, 3), (-1, -1, -1, 2), True)
    assert calls(table) == [(0, 2, 3), (2, 1, 3), (3, 1, 3)]


def test_short_answers_to_one_prompt_share_a_call() -> None:
    """Of lengths of their own; long ones do not, nor answers that were answered themselves."""
    short = collate([builders.tree((5, 4, 6, 1), (None, 0, 0, 0))]).segments
    assert calls(short) == [(0, 1, 5), (1, 3, 6)]
    long = collate([builders.tree((5, 200, 50, 7), (None, 0, 0, 0))]).segments
    assert calls(long) == [(0, 1, 5), (1, 2, 200), (3, 1, 7)]
    talk = collate([builders.tree((5, 4, 6, 3), (None, 0, 0, 1))]).segments
    assert calls(talk) == [(0, 1, 5), (1, 1, 4), (2, 1, 6), (3, 1, 3)]


@settings(max_examples=50, deadline=None)
@given(tables(), st.sampled_from([0, 4, 100]))
def test_calls_hold_every_segment_once_in_row_order(segments: SegmentTable, short: int) -> None:
    made = attention.plan_of(segments, short, CPU)
    covered = [i for c in made.calls for i in range(c.first, c.first + c.count)]
    assert covered == list(range(len(segments.lengths)))
    assert sum(made.sizes) == sum(segments.lengths)
    for call, size in zip(made.calls, made.sizes, strict=True):
        if segments.parents[call.first] < 0:
            assert call.count * call.length <= size * (1 + attention._WASTE)


def test_the_plan_is_made_once_a_batch() -> None:
    table = collate(row()).segments
    assert attention.plan_of(table, 0, CPU) is attention.plan_of(table, 0, CPU)


@pytest.mark.parametrize("lengths", [[6, 6, 6], [3, 17, 4, 16, 1]])
def test_an_encoder_sees_its_whole_segment(lengths: list[int]) -> None:
    batch = collate(builders.examples(lengths), causal=False)
    query, key, value = (x.detach() for x in heads(batch.size, 1))
    ours, _ = segment_attention(torch.nn.Module(), query, key, value, None, segments=batch.segments)
    cut = [x.split(lengths, 2) for x in (query, key, value)]
    theirs = [
        F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        for q, k, v in zip(*cut, strict=True)
    ]
    assert gap(ours, torch.cat(theirs, 2).transpose(1, 2)) < 1e-12


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_law_1_encoders_through_unchanged_models(architecture: str) -> None:
    """ModernBERT's window is narrower than the longer documents."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        architecture,
        vocab_size=builders.VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=0,
        **({"local_attention": 6} if architecture == "modernbert" else {}),
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(config, dtype=torch.float64).eval()
    made = builders.examples([3, 20, 17, 1])
    batch = collate(made, causal=False)
    with torch.no_grad():
        model.set_attn_implementation(attention.register())
        ours = model(
            input_ids=batch.tokens, position_ids=batch.positions, segments=batch.segments
        ).last_hidden_state[0]
        model.set_attn_implementation("sdpa")
        theirs = [
            model(input_ids=torch.from_numpy(e.segments[0].tokens)[None]).last_hidden_state[0]
            for e in made
        ]
    assert gap(ours, torch.cat(theirs)) < 1e-10


def test_dropout_follows_the_seed_and_only_then() -> None:
    batch = collate(row())
    query, key, value = (x.detach() for x in heads(batch.size, 1, torch.float32))

    def out(seed: int, dropout: float, softcap: float | None) -> Tensor:
        torch.manual_seed(seed)
        found, _ = segment_attention(
            torch.nn.Module(),
            query,
            key,
            value,
            None,
            dropout=dropout,
            segments=batch.segments,
            softcap=softcap,
        )
        return found

    for softcap in (None, 5.0):
        assert torch.equal(out(1, 0.5, softcap), out(1, 0.5, softcap))
        assert not torch.equal(out(1, 0.5, softcap), out(2, 0.5, softcap))
        assert torch.equal(out(1, 0.0, softcap), out(2, 0.0, softcap))
        # Dropped weights are made up for: the mean over many draws is the plain result.
        mean = torch.stack([out(seed, 0.3, softcap) for seed in range(400)]).mean(0)
        assert gap(mean, out(0, 0.0, softcap)) < 0.5


def test_a_mask_or_a_missing_table_is_a_mistake() -> None:
    query, key, value = heads(4, 0)
    table = collate([document(4)]).segments
    with pytest.raises(AssertionError, match="segment table"):
        segment_attention(torch.nn.Module(), query, key, value, None)
    with pytest.raises(AssertionError, match="mask"):
        segment_attention(torch.nn.Module(), query, key, value, torch.ones(4, 4), segments=table)
