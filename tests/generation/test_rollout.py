"""Sampling for learning: what transformers would say, log-probabilities that hold, no idle rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import builders
import numpy as np
import pytest
import torch

from luthier.core import kinds
from luthier.core.records import Answer, causal_example
from luthier.data.batching import collate
from luthier.generation.choosing import Choice, draws
from luthier.generation.rollout import RolloutGenerator
from luthier.models.decoding import Decoding
from luthier.models.language_model import CausalModel

LENGTHS = (3, 17, 8, 1, 12)


def prompts() -> list[list[int]]:
    return [builders.tokens(n, n).tolist() for n in LENGTHS]


def model(architecture: str = "llama", **changes: Any) -> CausalModel:
    return CausalModel(builders.tiny(architecture, torch.float64, **changes))


class Counted(Decoding):
    """A decoder that keeps what it was asked for."""

    steps: list[int]
    prompts: int

    def advance(self, tokens: Any) -> Any:
        self.steps.append(len(tokens))
        return super().advance(tokens)

    def enter(self, prompts: Sequence[Sequence[int]], copies: int) -> Any:
        self.prompts += len(prompts)
        return super().enter(prompts, copies)


def generator(
    policy: CausalModel, rows: int = 64, end: Sequence[int] = (), seen: list[Any] | None = None
) -> RolloutGenerator:
    @contextmanager
    def decoding(count: int, length: int) -> Iterator[Decoding]:
        policy.module.eval()
        made = Counted(policy, count, length)
        made.steps, made.prompts = [], 0
        if seen is not None:
            seen.append(made)
        yield made

    def decode(tokens: Sequence[int]) -> str:
        return "".join(f"<{token}>" for token in tokens)

    return RolloutGenerator(decoding, decode, end, lambda _: rows)


def theirs(policy: CausalModel, prompt: list[int], new: int, end: int | None = None) -> list[int]:
    from transformers import GenerationConfig

    with policy.generating() as module, torch.no_grad():
        module.generation_config = GenerationConfig()
        config = GenerationConfig(
            max_new_tokens=new, do_sample=False, eos_token_id=end, pad_token_id=1
        )
        out = module.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            generation_config=config,
        )
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("rows", [2, 3, 64])
@pytest.mark.parametrize("architecture", builders.DECODERS)
def test_greedy_is_transformers_own_token_for_token(architecture: str, rows: int) -> None:
    policy = model(architecture)
    made = generator(policy, rows).sample(prompts(), 1, 0, max_new_tokens=14, temperature=0.0)
    expected = [theirs(policy, prompt, 14) for prompt in prompts()]
    assert [list(group[0].tokens) for group in made] == expected
    assert len({tuple(tokens) for tokens in expected}) >= len(expected) - 1


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "mistral"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_kept_logprobs_are_those_of_a_teacher_forced_forward(
    architecture: str, temperature: float
) -> None:
    policy = model(architecture)
    groups = generator(policy, 5).sample(
        prompts(), 3, 7, max_new_tokens=12, temperature=temperature, top_k=20, top_p=0.9
    )
    assert len({answer.tokens for group in groups for answer in group}) > 10
    for prompt, group in zip(prompts(), groups, strict=True):
        for answer in group:
            example = causal_example([(prompt, False), (answer.tokens, True)], builders.ORIGIN)
            batch = collate([example])
            with torch.no_grad():
                logits = policy.logits(policy.hidden(batch)[batch.targets["lm"]["position"]])
                said = (logits / temperature).log_softmax(-1)
            kept = torch.tensor(answer.logprobs, dtype=torch.float64)
            tokens = torch.tensor(answer.tokens)[:, None]
            # Norms of Llama compute in float32 whatever they are given.
            assert float((said.gather(1, tokens)[:, 0] - kept).abs().max()) < 1e-5


def test_kept_logprobs_hold_to_the_last_digit_where_arithmetic_does() -> None:
    policy = model("gpt2")
    groups = generator(policy, 4).sample(prompts(), 2, 3, max_new_tokens=10)
    for prompt, group in zip(prompts(), groups, strict=True):
        for answer in group:
            example = causal_example([(prompt, False), (answer.tokens, True)], builders.ORIGIN)
            batch = collate([example])
            with torch.no_grad():
                said, _ = policy.logprobs(batch, policy.hidden(batch))
            assert said.tolist() == pytest.approx(answer.logprobs, abs=1e-9)


def flat(groups: list[list[Answer]]) -> list[tuple[int, ...]]:
    return [answer.tokens for group in groups for answer in group]


def test_what_is_sampled_does_not_depend_on_what_is_beside_it() -> None:
    policy = model("gpt2")
    how = {"max_new_tokens": 9, "temperature": 1.3, "top_p": 0.95}
    whole = generator(policy, 64, [7, 50]).sample(prompts(), 3, 5, **how)
    for rows in (3, 4, 7, 8):  # groups enter while others are under way, or only when none is
        few = generator(policy, rows, [*range(30)]).sample(prompts(), 3, 5, **how)
        assert flat(few) == flat(generator(policy, 64, [*range(30)]).sample(prompts(), 3, 5, **how))
    first = generator(policy, 3, [7, 50]).sample(prompts()[:2], 3, 5, **how)
    assert flat(first) == flat(whole[:2])
    fewer = generator(policy, 64, [7, 50]).sample(prompts(), 2, 5, **how)
    assert [group[:2] for group in whole] == fewer
    assert flat(whole) != flat(generator(policy, 64, [7, 50]).sample(prompts(), 3, 6, **how))
    assert len(set(flat(whole))) > 12


def test_finished_rows_cost_nothing_and_a_prompt_is_computed_once() -> None:
    policy = model("gpt2")
    seen: list[Any] = []
    made = generator(policy, 6, range(60), seen=seen).sample(prompts(), 3, 1, max_new_tokens=20)
    answers = [answer for group in made for answer in group]
    assert {answer.ended for answer in answers} == {True, False} or len(answers) == 15
    [decoder] = seen
    assert sum(decoder.steps) == sum(len(answer.tokens) - 1 for answer in answers)
    assert decoder.prompts == len(LENGTHS)
    assert max(decoder.steps) <= 6


def test_an_answer_ends_with_its_end_token_or_its_stop_string() -> None:
    policy = model("gpt2")
    greedy = {"max_new_tokens": 14, "temperature": 0.0}
    [[plain]] = generator(policy).sample(prompts()[:1], 1, 0, **greedy)
    assert not plain.ended
    assert len(plain.tokens) == 14
    fifth = plain.tokens[4]
    place = plain.tokens.index(fifth) + 1
    [[ended]] = generator(policy, end=[fifth]).sample(prompts()[:1], 1, 0, **greedy)
    assert ended.ended
    assert ended.tokens == plain.tokens[:place]
    stop = f"<{plain.tokens[place - 2]}><{fifth}>" if place > 1 else f"<{fifth}>"
    [[stopped]] = generator(policy).sample(prompts()[:1], 1, 0, stop=[stop], **greedy)
    assert stopped.ended
    assert stopped.tokens == plain.tokens[: len(stopped.tokens)]
    assert len(stopped.tokens) <= place


def test_groups_are_told_when_they_are_whole() -> None:
    told: dict[int, Any] = {}
    made = generator(model("gpt2"), 4, range(40)).sample(
        prompts(), 2, 1, max_new_tokens=8, told=lambda n, group: told.__setitem__(n, list(group))
    )
    assert [told[n] for n in range(len(LENGTHS))] == made


def test_adapters_and_learned_prompts_are_on() -> None:
    for kind in ("lora", "prompt_tuning"):
        method = kinds.build("methods", kinds.config("methods", builders.settings("methods", kind)))
        torch.manual_seed(3)
        module = method.prepare(builders.tiny("llama", torch.float64))
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                torch.nn.init.normal_(parameter, std=0.3)
        policy = CausalModel(module.double())
        made = generator(policy, 3).sample(prompts(), 1, 0, max_new_tokens=8, temperature=0.0)
        assert [list(g[0].tokens) for g in made] == [theirs(policy, p, 8) for p in prompts()], kind


# The choice of a token


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.6},
        {"min_p": 0.3},
        {"top_k": 4, "top_p": 0.7},
        {"top_p": 0.8, "min_p": 0.2},
    ],
    ids=str,
)
def test_tokens_come_as_often_as_they_should(how: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 9, generator=generator, dtype=torch.float64) * 1.5
    count = 40_000
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens, _ = Choice(**how).choose(logits.expand(count, -1), grid)
    found = torch.bincount(tokens, minlength=9).double() / count
    assert found.numpy() == pytest.approx(expected(logits[0].numpy(), **how), abs=2e-4)


def expected(
    logits: Any, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Any:
    p = np.exp(logits / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    if top_k:
        p[order[top_k:]] = 0
        p /= p.sum()
    total, kept = 0.0, np.zeros(len(p), dtype=bool)
    for token in order:
        if total < top_p:
            kept[token] = True
        total += p[token]
    p = np.where(kept, p, 0)
    p = np.where(p >= min_p * p.max(), p, 0)
    return p / p.sum()


def test_a_nucleus_larger_than_what_is_looked_at_first_is_still_whole() -> None:
    logits = torch.zeros(1, 2000, dtype=torch.float64)
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    tokens, logprobs = Choice(top_p=0.9).choose(logits.expand(2000, -1), grid)
    assert abs(len(set(tokens.tolist())) - 1800) <= 1
    assert logprobs.tolist() == pytest.approx([-np.log(2000)] * 2000)


def test_draws_belong_to_their_key() -> None:
    first = draws(1, 2, 3, 5)
    assert first.tolist() == draws(1, 2, 3, 9)[:5].tolist()
    assert first.tolist() != draws(1, 3, 2, 5).tolist()
    assert 0 <= first.min() <= first.max() < 1


def test_the_last_draw_is_never_a_token_without_probability() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]])
    tokens, _ = Choice().choose(logits, torch.tensor([1.0 - 1e-17], dtype=torch.float64))
    assert tokens.tolist() == [1]
