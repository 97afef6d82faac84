"""Masked language modelling: transformers' own loss, and what is masked when."""

from __future__ import annotations

from typing import Any

import builders
import encoders
import numpy as np
import pytest
import torch

from luthier.core import kinds
from luthier.core.errors import UserError
from luthier.core.records import Example, Origin, Text
from luthier.data.batching import collate, empty_like
from luthier.data.length import fit
from luthier.data.order import generator
from luthier.models.run_models import RunModels
from luthier.objectives.masked_lm import HEAD, Config, Objective

ARCHITECTURES = ("bert", "roberta", "distilbert", "modernbert")
TEXT = " ".join((*builders.SENTENCES, "Zoë crossed the río Grande twice, didn't she?"))


def objective(family: str = "wordpiece", **settings: Any) -> Objective:
    return Objective(Config(**settings)).with_codec(encoders.codec(family))


def encoded(made: Objective, family: str = "wordpiece", texts: Any = None) -> list[Example]:
    texts = builders.SENTENCES if texts is None else texts
    codec = encoders.codec(family, 128)
    return [made.encode(Text(Origin("t", i + 1), t), codec) for i, t in enumerate(texts)]


def masked(made: Objective, examples: list[Example], seed: int = 0) -> list[Example]:
    return list(made.arrange(examples, generator(seed, 0)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_is_transformers_own_and_packed_is_padded(name: str) -> None:
    family, pad = ("byte_level", 1) if name == "roberta" else ("wordpiece", 0)
    made = objective(family)
    method = kinds.build("methods", kinds.config("methods", "full"))
    run = RunModels(encoders.masked(name, torch.float64), method)
    policy: Any = run.policy
    policy.check()
    examples = masked(made, encoded(made, family))
    batch = collate(examples, **policy.layout)
    loss = made.loss(run, batch)["nll"] / made.weights(batch)["nll"]
    loss.backward()
    ours = builders.gradients(policy.module)
    policy.module.zero_grad(set_to_none=True)
    padded = collate(examples, layout="padded", pad_token=pad, **policy.layout)
    labels = torch.full(padded.tokens.shape, -100)
    for row, example in enumerate(examples):
        table = example.targets[HEAD]
        labels[row, table["position"]] = torch.tensor(table["token"])
    policy.module.set_attn_implementation("sdpa")
    theirs = policy.module(
        input_ids=padded.tokens, attention_mask=padded.attention_mask, labels=labels
    ).loss
    theirs.backward()
    close = 1e-6 if name == "modernbert" else 1e-9  # whose own loss is computed in float32
    assert loss.item() == pytest.approx(theirs.item(), rel=close)
    assert builders.gap(ours, builders.gradients(policy.module)) < close
    again = made.loss(run, padded)["nll"] / made.weights(batch)["nll"]
    assert again.item() == pytest.approx(loss.item(), rel=1e-9)


def test_law_3_a_step_does_not_feel_its_micro_batches() -> None:
    made = objective()
    method = kinds.build("methods", kinds.config("methods", "full"))
    run = RunModels(encoders.masked("bert", torch.float64), method)
    policy: Any = run.policy
    examples = masked(made, encoded(made))

    def gradient(cuts: list[list[Example]]) -> dict[str, torch.Tensor]:
        policy.module.zero_grad(set_to_none=True)
        batches = [collate(cut or [empty_like(examples[0])], **policy.layout) for cut in cuts]
        weight = sum(made.weights(batch)["nll"] for batch in batches)
        for batch in batches:
            (made.loss(run, batch)["nll"] / weight).backward()
        return builders.gradients(policy.module)

    assert builders.gap(gradient([examples]), gradient([examples[:2], [], examples[2:]])) < 1e-10


@pytest.mark.parametrize("family", encoders.FAMILIES)
@pytest.mark.parametrize("whole_words", [False, True])
def test_masks_are_where_the_loss_is_and_nowhere_else(family: str, whole_words: bool) -> None:
    made = objective(family, whole_words=whole_words)
    codec = encoders.codec(family)
    special = set(codec.tokenizer.all_special_ids)
    for before, after in zip(
        encoded(made, family), masked(made, encoded(made, family)), strict=True
    ):
        old, new = before.segments[0].tokens, after.segments[0].tokens
        table = after.targets[HEAD]
        assert np.array_equal(table["token"], old[table["position"]])
        elsewhere = np.setdiff1d(np.arange(len(old)), table["position"])
        assert np.array_equal(old[elsewhere], new[elsewhere])
        assert not special & set(old[table["position"]].tolist())
        assert set(new[table["position"]].tolist()) & special <= {codec.mask_token}
        wanted = max(1, round(0.15 * len(before.targets[HEAD]["token"])))
        if not whole_words:
            assert len(table["token"]) == wanted
        assert len(np.unique(table["position"])) == len(table["position"]) > 0


def test_of_what_is_chosen_80_10_10() -> None:
    made = objective(mask_rate=0.5)
    examples = encoded(made, texts=[TEXT])
    counts = np.zeros(3)
    mask = encoders.codec().mask_token
    for seed in range(300):
        [after] = masked(made, examples, seed)
        table, new = after.targets[HEAD], after.segments[0].tokens
        found = new[table["position"]]
        counts += [
            (found == mask).sum(),
            ((found != mask) & (found != table["token"])).sum(),
            (found == table["token"]).sum(),
        ]
    shares = counts / counts.sum()
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)  # a random token may be the same


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_whole_words_are_chosen_whole(family: str) -> None:
    made = objective(family, whole_words=True, mask_rate=0.3)
    [example] = encoded(made, family, [TEXT])
    every = example.targets[HEAD]["word"]
    sizes = dict(zip(*np.unique(every, return_counts=True), strict=True))
    assert max(sizes.values()) > 2
    seen: set[int] = set()
    for seed in range(20):
        [after] = masked(made, [example], seed)
        words, counts = np.unique(after.targets[HEAD]["word"], return_counts=True)
        assert all(sizes[word] == count for word, count in zip(words, counts, strict=True))
        assert counts.sum() <= round(0.3 * len(every))
        seen |= set(words.tolist())
    assert len(seen) > 0.9 * len(sizes)


def test_masks_depend_on_the_generator_alone_and_change_with_it() -> None:
    made = objective()
    examples = encoded(made)

    def tokens(seed: int) -> list[int]:
        return [t for e in masked(made, examples, seed) for t in e.segments[0].tokens.tolist()]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)
    assert all(
        np.array_equal(a.segments[0].tokens, b.segments[0].tokens)
        for a, b in zip(examples, encoded(made), strict=True)
    ), "what was encoded is not touched"


def test_long_texts_become_windows_between_words() -> None:
    made, codec = objective(), encoders.codec()
    [example] = encoded(made, texts=[TEXT])
    found, lost = fit(example, 16, "window", frame=codec.frame, cuts=made.cuts)
    assert lost.windows == len(found) > 3
    whole = example.segments[0].tokens
    bodies = [window.segments[0].tokens for window in found]
    assert all((body[0], body[-1]) == (whole[0], whole[-1]) for body in bodies)
    assert np.array_equal(np.concatenate([body[1:-1] for body in bodies]), whole[1:-1])
    words = [set(window.targets[HEAD]["word"].tolist()) for window in found]
    assert sum(map(len, words)) == len(set.union(*words)), "no word is torn"
    for window in masked(made, found):
        table = window.targets[HEAD]
        assert len(table["token"]) >= 1


def test_a_repeated_token_at_a_cut_is_not_lost() -> None:
    """Rows speak of the tokens at which they stand, not of the next ones."""
    made, codec = objective(), encoders.codec()
    [example] = encoded(made, texts=["the the the the the the the the"])
    [short], _ = fit(example, 6, "right", frame=codec.frame, cuts=made.cuts)
    assert len(short.targets[HEAD]["token"]) == 4


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(UserError, match="no mask token"):
        Objective(Config()).with_codec(builders.codec())
    with pytest.raises(UserError, match="an empty document"):
        encoded(objective(), texts=["   "])
    with pytest.raises(ValueError, match="more than everything"):
        Config(mask_share=0.9, random_share=0.2)
