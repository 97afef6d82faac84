"""NEFTune: the paper's noise, of an example's own, while training only (laws 3 and 4)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import builders
import pairs
import pytest
import torch
from builders import gap
from torch import Tensor

from luthier.core import kinds
from luthier.core.errors import RecipeError
from luthier.data.batching import collate
from luthier.engine.neftune import check, noise
from luthier.models.encoder_decoder import EncoderDecoderModel
from luthier.models.language_model import CausalModel

from . import small

KEY = (0, 3)


def embedded(model: CausalModel, examples: Any, alpha: float | None, **layout: Any) -> Tensor:
    """What the layers read of the real tokens, ``[N, d]``."""
    seen: list[Tensor] = []
    table: Any = model.trunk.get_input_embeddings()
    batch = collate(examples, **layout)
    with noise(alpha, model, batch, examples, KEY):
        hook = table.register_forward_hook(lambda _m, _x, out: seen.append(out.detach()))
        model.hidden(batch)
        hook.remove()
    return seen[0].flatten(0, 1)[batch.index]


def test_its_size_is_the_papers() -> None:
    model = CausalModel(builders.tiny())
    example = builders.document(40)
    plain = embedded(model, [example], None)
    drawn = embedded(model, [example], 5.0) - plain
    bound = 5 / math.sqrt(40 * 32)
    assert 0.99 * bound < float(drawn.abs().max()) <= bound * 1.0001
    assert abs(float(drawn.mean())) < 0.05 * bound
    assert float(drawn.square().mean()) == pytest.approx(bound**2 / 3, rel=0.1)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_an_example_has_its_own_noise_whatever_lies_beside_it(layout: str) -> None:
    model = CausalModel(builders.tiny())
    examples = builders.examples([9, 4, 13])
    together = embedded(model, examples, 5.0, layout=layout)
    alone = torch.cat([embedded(model, [each], 5.0) for each in examples])
    assert torch.equal(together, alone)
    assert gap(together, embedded(model, examples, None)) > 0.01


@pytest.mark.parametrize("name", ["t5", "bart", "umt5"])
def test_an_encoder_reads_with_noise_and_a_decoder_without(name: str) -> None:
    """L counts the source; a neighbour changes nothing, packed or padded."""
    module = pairs.model(name)
    model, codec = EncoderDecoderModel(module), pairs.codec()
    objective: Any = kinds.build("objectives", kinds.config("objectives", "seq2seq"))
    examples = [objective.encode(record, codec) for record in pairs.records(3)]
    module.train()

    def seen(stack: Any, chosen: Any, alpha: float | None) -> Tensor:
        """What a stack's table gives of the real tokens."""
        outs: list[Tensor] = []
        batch = collate(chosen, **model.layout)
        with noise(alpha, model, batch, chosen, KEY):
            hook = stack.get_input_embeddings().register_forward_hook(
                lambda _m, _x, out: outs.append(out.detach())
            )
            model.hidden(batch)
            hook.remove()
        read = batch.source if stack is module.get_encoder() else batch
        assert read is not None
        return outs[0].flatten(0, 1)[read.index]

    encoder, decoder = module.get_encoder(), module.get_decoder()
    plain, noisy = seen(encoder, examples, None), seen(encoder, examples, 5.0)
    assert torch.equal(noisy, torch.cat([seen(encoder, [each], 5.0) for each in examples]))
    assert torch.equal(seen(decoder, examples, None), seen(decoder, examples, 5.0))
    first = len(examples[0].segments[0].tokens)
    bound = 5 / math.sqrt(first * plain.shape[1])
    assert 0.95 * bound < float((noisy - plain)[:first].abs().max()) <= bound * 1.0001


def test_each_step_draws_anew_and_evaluation_draws_nothing() -> None:
    model, example = CausalModel(builders.tiny()), builders.document(12)
    batch = collate([example])
    outs = []
    for step in (0, 0, 1):
        with noise(5.0, model, batch, [example], (0, step)):
            outs.append(model.hidden(batch).detach())
    assert torch.equal(outs[0], outs[1])
    assert gap(outs[0], outs[2]) > 1e-3
    model.module.eval()
    with noise(5.0, model, batch, [example], KEY):
        noisy = model.hidden(batch)
    assert torch.equal(noisy, model.hidden(batch))


def test_law_3_one_micro_batch_is_many(tmp_path: Path) -> None:
    ends = []
    for budget in (64, 21):
        loop = small.small_loop(
            tmp_path / str(budget),
            model=builders.tiny(dtype=torch.float64),
            budget=budget,
            neftune_alpha=5.0,
            optimizer="sgd",
        )
        loop.train()
        ends.append(small.weights(loop))
    assert gap(*ends) < 1e-10
    plain = small.small_loop(
        tmp_path / "plain", model=builders.tiny(dtype=torch.float64), optimizer="sgd"
    )
    plain.train()
    assert gap(small.weights(plain), ends[0]) > 1e-6


def test_a_frozen_trunk_is_refused() -> None:
    class Cached:
        pass

    with pytest.raises(RecipeError, match="no effect"):
        check(5.0, Cached())
    check(None, Cached())
    check(5.0, CausalModel(builders.tiny()))
