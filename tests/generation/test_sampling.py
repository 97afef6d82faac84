"""Sampling: a batch answers as each prompt would alone, whatever the padding; stops and streams."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import builders
import pytest
import torch

from luthier.core.records import Turn
from luthier.generation.sampling import Sampler, Sampling
from luthier.models.language_model import CausalModel

QUESTIONS = ("hi", "tell me of number 3", "where is my order? it left the shop", "a", "press it")


@cache
def talker() -> tuple[CausalModel, Any]:
    """A random model that speaks the builders' vocabulary, its weights large enough to say
    something else after every prompt."""
    codec = builders.codec()
    module = builders.talking(len(codec.tokenizer), tie_word_embeddings=False)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
    return CausalModel(module), codec


def sampler(context: int = 128, end: list[int] | None = None, **tokens: Any) -> Sampler:
    model, codec = talker()
    tokenizer = builders.tokenizer()
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    return Sampler(model.generating, tokenizer, codec.end_tokens if end is None else end, context)


def prompts() -> list[list[int]]:
    _, codec = talker()
    return [codec.prompt((Turn("user", text),)) for text in QUESTIONS]


def unlike(answers: list[list[int]]) -> bool:
    return len({tuple(a) for a in answers}) == len(answers)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_batch_answers_as_each_prompt_alone(penalty: float) -> None:
    asked = Sampling(max_new_tokens=20, repetition_penalty=penalty)
    alone = [sampler().generate([p], asked)[0] for p in prompts()]
    assert sampler().generate(prompts(), asked) == alone
    assert unlike(alone), "a model that answers everything alike proves nothing"


def test_a_repetition_penalty_does_not_count_the_padding() -> None:
    """Padding is often the end token, which would become less likely in padded rows."""
    asked = Sampling(max_new_tokens=20, repetition_penalty=10.0)
    shortest = min(prompts(), key=len)
    [[likely, *_]] = sampler().generate([shortest], asked)
    assert likely not in shortest
    made = sampler(pad_token=builders.tokenizer().convert_ids_to_tokens(likely))
    assert made.generate(prompts(), asked) == [made.generate([p], asked)[0] for p in prompts()]


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "mistral", "gemma2"])
def test_left_padding_changes_nothing_in_other_architectures(architecture: str) -> None:
    model = CausalModel(builders.tiny(architecture))
    made = Sampler(model.generating, builders.tokenizer(), [0], 64)
    asked = Sampling(max_new_tokens=12, repetition_penalty=1.5)
    rows = [builders.tokens(n, n).tolist() for n in (3, 17, 8)]
    alone = [made.generate([row], asked)[0] for row in rows]
    assert made.generate(rows, asked) == alone
    assert unlike(alone)


def test_small_batches_answer_as_one_large_one() -> None:
    asked = Sampling(max_new_tokens=10)
    assert sampler().generate(prompts(), asked, tokens=60) == sampler().generate(prompts(), asked)


def test_the_end_token_ends_an_answer_and_is_left_out() -> None:
    free = sampler(end=[]).generate(prompts(), Sampling(max_new_tokens=16))
    end = free[0][5]
    ended = sampler(end=[end]).generate(prompts(), Sampling(max_new_tokens=16))
    cut = [row[: row.index(end)] if end in row else row for row in free]
    assert ended == cut
    assert len(ended[0]) < 16


def test_stop_strings_over_several_tokens_cut_where_they_begin() -> None:
    made, asked = sampler(end=[]), Sampling(max_new_tokens=24)
    [tokens] = made.generate(prompts()[:1], asked)
    [whole] = made.text(prompts()[:1], asked)
    tokenizer = builders.tokenizer()
    before, middle = tokenizer.decode(tokens[:6]), tokenizer.decode(tokens[6:9])
    stop = middle[:-1] if len(middle) > 3 else middle
    assert len(tokenizer(stop, add_special_tokens=False).input_ids) > 1
    asked = Sampling(max_new_tokens=24, stop=(stop, "never said"))
    [text] = made.text(prompts()[:1], asked)
    assert text == whole[: whole.index(stop)]
    assert len(made.generate(prompts()[:1], asked)[0]) <= 9, "sampling went on after the stop"
    assert text in before + middle


def test_a_stop_string_ends_its_own_row_only() -> None:
    made, asked = sampler(end=[]), Sampling(max_new_tokens=16)
    whole = made.text(prompts(), asked)
    stop = whole[2][4:9]
    stopped = made.text(prompts(), Sampling(max_new_tokens=16, stop=(stop,)))
    assert stopped == [text.split(stop)[0] for text in whole]
    assert stopped[2] != whole[2]
    assert any(a == b for a, b in zip(stopped, whole, strict=True))


def test_a_stop_string_must_be_in_the_answer() -> None:
    """Text that begins in the prompt stops nothing."""
    made = sampler(end=[])
    [whole] = made.text(prompts()[:1], Sampling(max_new_tokens=8))
    spelled = builders.tokenizer().decode(prompts()[0], skip_special_tokens=True)
    stop = spelled[-1] + whole[0]
    assert stop not in whole
    assert made.text(prompts()[:1], Sampling(max_new_tokens=8, stop=(stop,))) == [whole]


def test_seeds_reproduce_and_differ() -> None:
    def drawn(seed: int) -> list[list[int]]:
        asked = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.95, seed=seed)
        return sampler(end=[]).generate(prompts(), asked)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_sampling_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    sampler().generate(prompts()[:1], Sampling(max_new_tokens=3, temperature=1.0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_streaming_gives_the_same_text(temperature: float) -> None:
    for prompt in prompts():
        for stop in ((), ("o",), (" the", "in")):
            asked = Sampling(max_new_tokens=20, temperature=temperature, stop=stop)
            pieces = list(sampler().stream(prompt, asked))
            assert "".join(pieces) == sampler().text([prompt], asked)[0]


def test_streamed_pieces_hold_whole_characters() -> None:
    """A character of several tokens comes in one piece."""
    made = sampler()
    ids = builders.tokenizer()("naïve 日本 🙂 end", add_special_tokens=False).input_ids
    pieces = list(made._growing(iter(ids)))
    assert "".join(pieces) == "naïve 日本 🙂 end"
    assert len(pieces) > 5
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_reader_who_leaves_ends_the_sampling() -> None:
    made = sampler(end=[])
    stream = made.stream(prompts()[0], Sampling(max_new_tokens=100))
    next(stream)
    assert isinstance(stream, Iterator)
    stream.close()  # type: ignore[attr-defined]  # joins the thread: it would hang otherwise
    assert made.generate(prompts()[:1], Sampling(max_new_tokens=2))[0]


def test_what_fails_while_streaming_reaches_the_reader() -> None:
    with pytest.raises(IndexError):
        list(sampler().stream([10**6], Sampling(max_new_tokens=2)))


def test_a_prompt_longer_than_the_context_keeps_its_end() -> None:
    asked = Sampling(max_new_tokens=8)
    long = [*builders.tokens(100, 1).tolist(), *prompts()[1]]
    kept = long[-(40 - 8) :]
    assert sampler(context=40).generate([long], asked) == sampler().generate([kept], asked)
    assert sampler().generate([long], asked) != sampler().generate([kept], asked)


def test_an_answer_that_fills_the_context_is_a_programmers_mistake() -> None:
    with pytest.raises(AssertionError, match="whole context"):
        sampler(context=16).generate(prompts(), Sampling(max_new_tokens=16))


def test_the_models_own_preferences_are_set_aside() -> None:
    """A model's generation_config.json with forbidden tokens would make it answer unlike itself."""
    from transformers import GenerationConfig

    model, _ = talker()
    asked = Sampling(max_new_tokens=10)
    free = sampler(end=[]).generate(prompts(), asked)
    own = GenerationConfig(suppress_tokens=sorted({*free[0]}), no_repeat_ngram_size=1)
    kept, model.base.generation_config = model.base.generation_config, own
    try:
        assert sampler(end=[]).generate(prompts(), asked) == free
        assert model.base.generation_config is own
    finally:
        model.base.generation_config = kept


def test_no_prompts_no_answers() -> None:
    assert sampler().generate([], Sampling()) == []


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    logging.getLogger("transformers").propagate = True
    try:
        made = sampler()
        made.text(prompts(), Sampling(max_new_tokens=4, stop=("x",)))
        made.text(prompts(), Sampling(max_new_tokens=4, temperature=0.7, top_k=5, min_p=0.1))
    finally:
        logging.getLogger("transformers").propagate = False
    assert not caplog.records
