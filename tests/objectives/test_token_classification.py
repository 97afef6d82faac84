"""Token classification: transformers' own loss, labels word by word, windows, classes."""

from __future__ import annotations

from typing import Any

import builders
import encoders
import numpy as np
import pytest
import torch
from encoders import ENTITIES, TAGS, WORDS

from luthier.core import kinds
from luthier.core.codec import joined
from luthier.core.errors import UserError
from luthier.core.records import Example, Origin, Tagged
from luthier.core.tags import entities
from luthier.data.batching import collate, empty_like
from luthier.data.length import fit
from luthier.models.run_models import RunModels
from luthier.objectives.token_classification import HEAD, Config, Objective

ARCHITECTURES = ("bert", "roberta", "distilbert", "modernbert", "llama")


def settled(**settings: Any) -> Any:
    known = settings.pop("known", ())
    return Objective(Config(**settings)).settled(encoders.sentences(), known)


def models(name: str = "bert", dtype: torch.dtype = torch.float64) -> RunModels:
    method = kinds.build("methods", kinds.config("methods", "full"))
    return RunModels(encoders.tagger(name, dtype), method)


def encoded(made: Any, family: str = "wordpiece", count: int = 5) -> list[Example]:
    codec = encoders.codec(family)
    return [made.encode(record, codec) for record in encoders.sentences(count)]


@pytest.mark.parametrize("labelling", ["first", "all"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_is_transformers_own_and_packed_is_padded(name: str, labelling: str) -> None:
    """Its mean over labelled tokens of a padded batch is our sum over our weight, and so are its
    gradients."""
    made, run = settled(labelling=labelling), models(name)
    policy: Any = run.policy
    family, pad = ("byte_level", 1) if name == "roberta" else ("wordpiece", 0)
    examples = encoded(made, family)
    batch = collate(examples, **policy.layout)
    weight = made.weights(batch)[HEAD]
    loss = made.loss(run, batch)[HEAD] / weight
    loss.backward()
    ours = builders.gradients(policy.module)
    policy.module.zero_grad(set_to_none=True)
    padded = collate(examples, layout="padded", pad_token=pad, **policy.layout)
    labels = torch.full(padded.tokens.shape, -100)
    for row, example in enumerate(examples):
        table = example.targets[HEAD]
        labels[row, table["position"]] = torch.tensor(table["label"])
    policy.module.set_attn_implementation("sdpa")
    theirs = policy.module(
        input_ids=padded.tokens, attention_mask=padded.attention_mask, labels=labels
    ).loss
    theirs.backward()
    close = 1e-6 if name == "llama" else 1e-9  # whose own loss is computed in float32
    assert loss.item() == pytest.approx(theirs.item(), rel=close)
    assert builders.gap(ours, builders.gradients(policy.module)) < close
    again = made.loss(run, padded)[HEAD] / weight
    assert again.item() == pytest.approx(loss.item(), rel=1e-7 if name == "llama" else 1e-9)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_law_1_a_neighbour_changes_nothing(name: str) -> None:
    made, run = settled(), models(name)
    policy: Any = run.policy
    examples = encoded(made)
    other = [examples[0], examples[3], examples[2]]

    def of(chosen: list[Example]) -> torch.Tensor:
        batch = collate(chosen, **policy.layout)
        with torch.no_grad():
            states = policy.pooled(batch, policy.hidden(batch), batch.targets[HEAD]["position"])
            return torch.as_tensor(policy.outputs(HEAD, states))

    one, two = of(examples[:3]), of(other)
    rows = len(examples[0].targets[HEAD]["word"])
    assert builders.gap(one[:rows], two[:rows]) < 1e-12
    assert one.shape != two.shape


def test_law_3_a_step_does_not_feel_its_micro_batches() -> None:
    made, run = settled(), models()
    policy: Any = run.policy
    examples = encoded(made)

    def gradient(cuts: list[list[Example]]) -> dict[str, torch.Tensor]:
        policy.module.zero_grad(set_to_none=True)
        batches = [collate(cut or [empty_like(examples[0])], **policy.layout) for cut in cuts]
        weight = sum(made.weights(batch)[HEAD] for batch in batches)
        for batch in batches:
            (made.loss(run, batch)[HEAD] / weight).backward()
        return builders.gradients(policy.module)

    whole, cut = gradient([examples]), gradient([examples[:1], [], examples[1:]])
    assert builders.gap(whole, cut) < 1e-10


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_first_labels_each_word_once_and_all_every_token(family: str) -> None:
    codec = encoders.codec(family)
    record = encoders.sentences(1)[0]
    aligned = codec.aligned(*joined(WORDS))
    first = settled().encode(record, codec).targets[HEAD]
    names = settled().config.classes
    assert first["word"].tolist() == sorted(set(first["word"].tolist()))
    for word, label in zip(first["word"].tolist(), first["label"].tolist(), strict=True):
        assert names[label] == ENTITIES[word]
    every = settled(labelling="all").encode(record, codec).targets[HEAD]
    assert set(first["position"]) < set(every["position"])
    for position, word, label in zip(every["position"], every["word"], every["label"], strict=True):
        head = position in first["position"]
        assert names[label] == (ENTITIES[word] if head else ENTITIES[word].replace("B-", "I-"))
    assert (aligned.owner >= 0).sum() == len(every["position"])


def test_bioes_is_learned_by_choice() -> None:
    made = settled(scheme="bioes", labelling="all")
    assert made.config.classes == (
        *("O", "B-LOC", "I-LOC", "E-LOC", "S-LOC"),
        *("B-PER", "I-PER", "E-PER", "S-PER"),
    )
    table = made.encode(encoders.sentences(1)[0], encoders.codec()).targets[HEAD]
    said = [made.config.classes[label] for label in table["label"]]
    by_word = {w: [s for s, x in zip(said, table["word"], strict=True) if x == w] for w in range(5)}
    assert by_word[0][0] == "S-PER"
    assert set(by_word[0][1:]) <= {"E-PER"}
    assert by_word[3][0] == "B-LOC"
    assert set(by_word[3][1:]) == {"I-LOC"}
    assert set(by_word[4]) == {"E-LOC"}


def test_tags_that_mark_nothing_are_learned_as_they_are() -> None:
    rows = [Tagged(Origin("a", 1), ("the", "cat", "sat"), ("DET", "NOUN", "VERB"))]
    made: Any = Objective(Config()).settled(rows, ())
    assert made.config.scheme == "plain"
    assert made.config.classes == ("DET", "NOUN", "VERB")
    table = made.encode(rows[0], encoders.codec()).targets[HEAD]
    assert table["label"].tolist() == [0, 1, 2]


def test_a_models_own_tags_are_kept_where_they_hold_all_entities() -> None:
    known = ("B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "O")
    assert settled(known=known).config.classes == known
    assert settled(known=known[:3]).config.classes == TAGS
    closed = (*(f"{p}-{k}" for k in ("PER", "LOC") for p in "SEIB"), "O")
    made = settled(known=closed)
    assert (made.config.classes, made.config.scheme) == (closed, "bioes")
    assert made.settled(encoders.sentences(), closed).config == made.config


def test_a_type_of_which_one_word_entities_alone_are_known_has_both_tags() -> None:
    """So that a longer one in validation is no unknown tag."""
    assert {"B-PER", "I-PER"} < set(settled().config.classes)
    assert "I-PER" not in ENTITIES


def test_an_entity_of_an_unknown_type_is_refused_with_its_line() -> None:
    made = settled()
    odd = Tagged(Origin("dev.conll", 7), ("in", "Rome"), ("O", "B-LOK"))
    with pytest.raises(UserError, match="word 'Rome': the tag 'B-LOK' is none") as caught:
        made.encode(odd, encoders.codec())
    assert "dev.conll:7" in str(caught.value)
    assert "did you mean 'B-LOC'" in str(caught.value)
    nothing = Tagged(Origin("dev.conll", 9), ("\u200b",), ("O",))
    with pytest.raises(UserError, match="leaves nothing of this sentence"):
        made.encode(nothing, encoders.codec())
    only = [Tagged(Origin("a", 1), ("a", "b"), ("O", "O"))]
    with pytest.raises(UserError, match="every word has the same tag, 'O'"):
        Objective(Config()).settled(only, ())


@pytest.mark.parametrize("family", encoders.FAMILIES)
@pytest.mark.parametrize("labelling", ["first", "all"])
@pytest.mark.parametrize("limit", [14, 17, 23])
def test_windows_keep_the_frame_every_label_and_every_entity(
    family: str, labelling: str, limit: int
) -> None:
    codec = encoders.codec(family)
    made = settled(labelling=labelling)
    record = Tagged(Origin("long", 1), WORDS * 3, ENTITIES * 3)
    example = made.encode(record, codec)
    assert example.size > limit
    found, lost = fit(example, limit, "window", frame=codec.frame, cuts=made.cuts)
    assert lost.windows == len(found) >= 2
    assert (lost.targets, lost.tokens) == (0, 0)
    whole = example.segments[0].tokens
    bodies = []
    table: dict[str, list[Any]] = {name: [] for name in example.targets[HEAD]}
    for window in found:
        tokens = window.segments[0].tokens
        assert len(tokens) <= limit
        assert (tokens[0], tokens[-1]) == (whole[0], whole[-1])
        bodies.append(tokens[1:-1])
        rows = window.targets[HEAD]
        for name, column in rows.items():
            table[name] += column.tolist()
        # Each row still stands at the token that it stood at.
        assert (tokens[rows["position"]] != whole[0]).all()
    assert np.array_equal(np.concatenate(bodies), whole[1:-1])
    for name in ("word", "label", "weight"):
        assert table[name] == example.targets[HEAD][name].tolist()
    entire = entities(ENTITIES * 3)
    for window in found:
        words = set(window.targets[HEAD]["word"].tolist())
        for each in entire:
            inside = words & set(range(each.start, each.stop))
            assert len(inside) in (0, each.stop - each.start)


@pytest.mark.parametrize("policy", ["left", "right"])
def test_a_cut_keeps_the_frame_and_the_labels_of_what_stays(policy: str) -> None:
    codec, made = encoders.codec(), settled()
    example = made.encode(encoders.sentences(1)[0], codec)
    [short], lost = fit(example, 12, policy, frame=codec.frame, cuts=made.cuts)
    whole, tokens = example.segments[0].tokens, short.segments[0].tokens
    assert (len(tokens), tokens[0], tokens[-1]) == (12, whole[0], whole[-1])
    rows, every = short.targets[HEAD], example.targets[HEAD]
    assert lost.targets == len(every["word"]) - len(rows["word"]) > 0
    spelled = dict(zip(every["word"].tolist(), whole[every["position"]].tolist(), strict=True))
    for word, position in zip(rows["word"].tolist(), rows["position"].tolist(), strict=True):
        assert tokens[position] == spelled[word]


@pytest.mark.parametrize(
    "settings", [{"label_smoothing": 0.1}, {"class_weights": "inverse"}, {"focal": 2.0}]
)
def test_other_losses_are_torchs_own_or_the_papers(settings: dict[str, Any]) -> None:
    made, run = settled(**settings), models()
    policy: Any = run.policy
    batch = collate(encoded(made), **policy.layout)
    table = batch.targets[HEAD]
    weights = torch.ones(len(TAGS), dtype=torch.float64)
    if "class_weights" in settings:
        counts = np.bincount(
            np.concatenate([e.targets[HEAD]["label"] for e in encoded(made, count=6)]), minlength=5
        )
        assert counts[0] > 20
        assert counts[TAGS.index("I-PER")] == 0
        known = counts > 0
        weights[known] = torch.tensor(1 / counts[known])
        weights[known] /= weights[known].mean()
    with torch.no_grad():
        states = policy.pooled(batch, policy.hidden(batch), table["position"])
        scores = policy.outputs(HEAD, states)
        expected = torch.nn.functional.cross_entropy(
            scores, table["label"], weights, label_smoothing=settings.get("label_smoothing", 0.0)
        )
        if "focal" in settings:
            right = scores.softmax(-1).gather(1, table["label"][:, None])[:, 0]
            expected = (-((1 - right) ** 2) * right.log()).mean()
        found = made.loss(run, batch)[HEAD] / made.weights(batch)[HEAD]
    assert float(found) == pytest.approx(float(expected), rel=1e-9)
