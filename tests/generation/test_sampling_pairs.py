"""Answers of encoder-decoders and beam search: transformers' own, token for token, in a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import builders
import pairs
import pytest
import torch

from luthier.core.records import Turn
from luthier.generation.sampling import Sampler, Sampling
from luthier.models.encoder_decoder import EncoderDecoderModel
from luthier.models.language_model import CausalModel

SHORT = Sampling(max_new_tokens=9)


def sampler(name: str = "t5", **changes: Any) -> tuple[Sampler, Any, Any]:
    module, codec = pairs.model(name, **changes), pairs.codec(max_length=64)
    if name == "bart":  # now and then it ends by itself
        module.final_logits_bias[0, 0] = 0.3
    return sampler_of(module, codec), module, codec


def sampler_of(module: Any, codec: Any) -> Sampler:
    model = EncoderDecoderModel(module)
    return Sampler(model.generating, codec.tokenizer, codec.end_tokens, 64, codec.decoder_prompt)


def asked(codec: Any) -> list[list[int]]:
    return [codec.prompt((Turn("user", record.source),)) for record in pairs.records()]


def own(module: Any, prompt: list[int], **settings: Any) -> list[int]:
    """One prompt by ``module.generate`` and its own generation config."""
    module.set_attn_implementation("sdpa")
    with torch.no_grad():
        out = module.generate(torch.tensor([prompt]), max_new_tokens=9, **settings)
    found = out[0, 1:].tolist() if module.config.is_encoder_decoder else out[0, len(prompt) :]
    found = [int(token) for token in found]
    return found[: found.index(0)] if 0 in found else found


@pytest.mark.parametrize("name", ["t5", "bart", "m2m_100"])
@pytest.mark.parametrize(
    "search",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "length_penalty": 2.0},
        {"num_beams": 4, "length_penalty": -3.0, "early_stopping": True},
    ],
    ids=["greedy", "beams", "long", "short"],
)
def test_answers_are_transformers_own(name: str, search: dict[str, Any]) -> None:
    # BART's config would force its end token at the bound; our sampler has no such rule.
    made, module, codec = sampler(name, **({"forced_eos_token_id": None} if name == "bart" else {}))
    prompts = asked(codec)
    together = made.generate(prompts, replace(SHORT, **search))
    assert together == [own(module, prompt, **search) for prompt in prompts]
    assert any(together)
    if name == "bart" and search.get("length_penalty", 0) < 0:
        assert len({len(answer) for answer in together}) > 1


def test_the_searches_find_different_answers() -> None:
    """Else the parity above would say little: weights so sharp that beams change nothing."""
    made, _, codec = sampler("bart")
    greedy = made.generate(asked(codec), SHORT)
    beams = made.generate(asked(codec), replace(SHORT, num_beams=4))
    short = made.generate(asked(codec), replace(SHORT, num_beams=4, length_penalty=-3.0))
    assert greedy != beams
    assert beams != short


def test_a_beam_is_never_less_likely_than_the_greedy_answer() -> None:
    """Without a penalty on length, by the sum of log-probabilities, and better at least once."""
    made, module, codec = sampler("bart")

    def score(prompt: list[int], answer: list[int]) -> float:
        fed = torch.tensor([[1, *answer]])
        with torch.no_grad():
            out = module(input_ids=torch.tensor([prompt]), decoder_input_ids=fed).logits[0]
        wanted = torch.tensor([*answer, 0] if len(answer) < 9 else answer)
        logprobs = out[: len(wanted)].log_softmax(-1)
        return float(logprobs.gather(1, wanted[:, None]).sum())

    prompts = asked(codec)
    greedy = made.generate(prompts, SHORT)
    beams = made.generate(prompts, replace(SHORT, num_beams=6, length_penalty=0.0))
    gains = [score(p, b) - score(p, g) for p, b, g in zip(prompts, beams, greedy, strict=True)]
    assert max(gains) > 1e-3
    assert sum(gain > -1e-4 for gain in gains) >= len(gains) - 1


@pytest.mark.parametrize("beams", [1, 3])
def test_a_causal_model_is_searched_as_well(beams: int) -> None:
    codec = builders.codec()
    module = builders.talking(len(codec.tokenizer)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3.0 if parameter.ndim == 2 else 1.0)
    made = Sampler(CausalModel(module).generating, codec.tokenizer, [0], 128)
    prompts = [codec.prompt((Turn("user", r.source),)) for r in pairs.records()]
    found = made.generate(prompts, replace(SHORT, num_beams=beams))
    extra = {"eos_token_id": 0, "pad_token_id": 1, "do_sample": False, "num_beams": beams}
    assert found == [own(module, prompt, **extra) for prompt in prompts]


def test_draws_follow_the_seed() -> None:
    made, _, codec = sampler()
    warm = replace(SHORT, temperature=2.0, seed=3)
    first, again = (made.generate(asked(codec), warm) for _ in range(2))
    assert first == again
    assert first != made.generate(asked(codec), replace(warm, seed=4))


def test_the_encoder_runs_once() -> None:
    made, module, codec = sampler()
    runs = []
    module.get_encoder().register_forward_hook(lambda *_: runs.append(1))
    made.generate(asked(codec)[:2], replace(SHORT, num_beams=2))
    assert len(runs) == 1


def test_a_stream_is_the_answer() -> None:
    made, _, codec = sampler("bart")
    prompt = asked(codec)[1]
    assert "".join(made.stream(prompt, SHORT)) == made.text([prompt], SHORT)[0]
    with pytest.raises(AssertionError, match="no answer before its end"):
        list(made.stream(prompt, replace(SHORT, num_beams=2)))


def test_a_language_that_stands_before_the_answer_is_fed() -> None:
    """mBART-50, NLLB: the decoder begins with its start token and the target's language."""
    module, codec = pairs.model("mbart", forced_eos_token_id=None), pairs.codec(max_length=64)
    made = Sampler(
        EncoderDecoderModel(module).generating, codec.tokenizer, codec.end_tokens, 64, [1, 9]
    )
    prompts = asked(codec)
    found = made.generate(prompts, replace(SHORT, max_new_tokens=8, num_beams=2))
    theirs = [own(module, p, num_beams=2, forced_bos_token_id=9) for p in prompts]
    assert [[9, *answer] for answer in found] == theirs
