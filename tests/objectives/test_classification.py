"""Classification: transformers' own losses, classes from the rows, and rows that are refused."""

from __future__ import annotations

from typing import Any

import builders
import classifiers
import numpy as np
import pytest
import torch

from luthier.core import kinds
from luthier.core.errors import UserError
from luthier.core.records import Labelled, Origin
from luthier.data.batching import collate, empty_like
from luthier.data.length import fit
from luthier.models.heads import ClassifierModel
from luthier.models.run_models import RunModels
from luthier.objectives.classification import Config, Objective


def objective(**settings: Any) -> Objective:
    return Objective(Config(**settings))


def row(label: Any, text: str = "a film", line: int = 1, pair: str | None = None) -> Labelled:
    return Labelled(Origin("rows.csv", line), text, label, pair)


def rows(*labels: Any) -> list[Labelled]:
    return [
        row(label, classifiers.TEXTS[i % len(classifiers.TEXTS)], i + 1)
        for i, label in enumerate(labels)
    ]


CASES = {
    "single_label": ("bad", "good", "fair", "good"),
    "multi_label": (("bad",), ("good", "fair"), (), ("bad", "fair", "good")),
    "regression": (0.5, -2.0, 3.25, 1.0),
}


@pytest.mark.parametrize("problem", CASES)
def test_the_loss_is_transformers_own(problem: str) -> None:
    """Its mean over the batch is our sum over our weight."""
    records = rows(*CASES[problem])
    made: Any = objective().settled(records, ())
    assert made.config.problem_type == problem
    classes = len(made.config.classes)
    module = classifiers.own("bert", id2label=dict(enumerate(map(str, range(classes)))))
    kind = problem if problem == "regression" else f"{problem}_classification"
    module.config.problem_type = kind
    examples = [made.encode(record, builders.codec()) for record in records]
    batch = collate(examples, causal=False)
    models = RunModels(
        ClassifierModel(module), kinds.build("methods", kinds.config("methods", "full"))
    )
    with torch.no_grad():
        [(name, total)] = made.loss(models, batch).items()
        ours = float(total) / made.weights(batch)[name]
        padded = collate(examples, causal=False, layout="padded")
        module.set_attn_implementation("sdpa")
        theirs = module(
            input_ids=padded.tokens,
            attention_mask=padded.attention_mask,
            labels=batch.targets["classification"]["label"],
        ).loss
    assert ours == pytest.approx(float(theirs), rel=1e-5)


def test_label_smoothing_is_torchs_own() -> None:
    scores, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    made = objective(problem_type="single_label", label_smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(
        scores, labels, reduction="none", label_smoothing=0.1
    )
    assert torch.equal(made.losses(scores, labels), expected)
    with pytest.raises(UserError, match="label_smoothing has no meaning"):
        objective(label_smoothing=0.1).settled(rows(1.0, 2.0), ())


IMBALANCED = ("good", "bad", "bad", "fair", "bad", "bad", "good", "bad")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"class_weights": "inverse"}, [0.2, 1, 0.5]),
        ({"class_weights": "effective", "effective_beta": 0.0}, [1, 1, 1]),
        ({"class_weights": {"fair": 7}}, [1, 7, 1]),
    ],
)
def test_weights_of_classes_are_those_of_the_training_rows(
    settings: Any, expected: list[float]
) -> None:
    """They stand by name in the settled recipe, which settles to itself."""
    made: Any = objective(**settings).settled(rows(*IMBALANCED), ())
    found = made.config.class_weights
    assert list(found) == ["bad", "fair", "good"]
    scale = 1 if "fair" in str(settings) else 3 / sum(expected)
    assert list(found.values()) == pytest.approx([each * scale for each in expected])
    assert made.config.effective_beta is None
    assert made.settled(rows("good", "bad", "fair"), ()).config == made.config


def test_weights_of_several_labels_are_of_the_rows_that_have_one() -> None:
    records = rows(("bad",), ("bad", "good"), ("good",), (), ("good", "fair"))
    made: Any = objective(class_weights="inverse").settled(records, ())
    assert made.config.class_weights == pytest.approx({"bad": 1.5, "fair": 4, "good": 2 / 3})


@pytest.mark.parametrize("settings", [{"class_weights": "inverse"}, {"focal": 2.0}])
def test_weights_and_focal_loss_of_numbers_are_refused(settings: Any) -> None:
    with pytest.raises(UserError, match="have no meaning where labels are numbers"):
        objective(**settings).settled(rows(1.0, 2.0), ())


def test_a_weight_of_no_class_is_refused() -> None:
    with pytest.raises(UserError, match="'fare' is none of the 2 classes"):
        objective(class_weights={"fare": 2}).settled(rows("fair", "good"), ())
    with pytest.raises(ValueError, match="no meaning without class_weights: effective"):
        Config(effective_beta=0.9)
    with pytest.raises(ValueError, match="greater than 0"):
        Config(class_weights={"fair": 0})


def test_only_one_class_a_row_can_be_balanced() -> None:
    single: Any = objective().settled(rows("b", "a"), ())
    assert single.class_column == ("classification", "label")
    assert single.class_names == ("a", "b")
    several: Any = objective().settled(rows(("b",), ("a",)), ())
    assert several.class_column is None


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("b", "a", "b"), ("a", "b")),
        (("10", "9", "2"), ("2", "9", "10")),
        (("10", "x"), ("10", "x")),
        ((("b", "a"), ("c",)), ("a", "b", "c")),
    ],
)
def test_classes_are_those_of_the_rows_in_order(labels: Any, classes: tuple[str, ...]) -> None:
    assert objective().settled(rows(*labels), ()).config.classes == classes  # type: ignore[attr-defined]


def test_a_models_own_classes_are_kept_where_they_hold_all_rows() -> None:
    known = ("neutral", "negative", "positive")
    made: Any = objective().settled(rows("positive", "negative"), known)
    assert made.config.classes == known
    made = objective().settled(rows("positive", "angry"), known)
    assert made.config.classes == ("angry", "positive")
    made = objective(classes=("x", "positive", "angry")).settled(rows("angry"), known)
    assert made.config.classes == ("x", "positive", "angry")


def test_settling_twice_changes_nothing() -> None:
    records = rows("a", "b")
    once: Any = objective().settled(records, ())
    assert once.settled(records, ()).config == once.config


@pytest.mark.parametrize(
    ("labels", "settings", "said"),
    [
        (("a", "a"), {}, "same class, 'a'"),
        (("a", 1.5), {}, "different types: single_label at rows.csv:1, regression at rows.csv:2"),
        ((("a",), "b"), {}, "different types"),
    ],
)
def test_rows_that_cannot_be_told_apart_are_refused(labels: Any, settings: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        objective(**settings).settled(rows(*labels), ())


def test_a_row_of_an_unknown_class_is_refused_with_its_line() -> None:
    made: Any = objective().settled(rows("good", "bad"), ())
    with pytest.raises(UserError, match="class 'godo' is none of the 2 classes") as caught:
        made.encode(row("godo", line=7), builders.codec())
    assert "rows.csv:7" in str(caught.value)
    assert "did you mean 'good'" in str(caught.value)
    with pytest.raises(UserError, match="has 2 classes, where each has exactly one"):
        made.encode(row(("good", "bad")), builders.codec())
    numbers: Any = objective(problem_type="regression").settled(rows("1", "2.5"), ())
    [found] = numbers.encode(row("2.5"), builders.codec()).targets["classification"]["label"]
    assert found == 2.5
    with pytest.raises(UserError, match="'x' is no number"):
        numbers.encode(row("x"), builders.codec())


class Framed:
    """A tokenizer's frame around words that are numbers."""

    frame = frozenset({1, 2})

    def texts(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        first = [1, *map(int, text.split()), 2]
        second = [] if pair is None else [*map(int, pair.split()), 2]
        return first + second, [0] * len(first) + [1] * len(second)


def cut(text: str, pair: str | None, limit: int, policy: str) -> tuple[list[int], list[int]]:
    made = objective(problem_type="single_label", classes=("a", "b"))
    example = made.encode(row("a", text, pair=pair), Framed())  # type: ignore[arg-type]
    [short], lost = fit(example, limit, policy, frame=Framed.frame)
    assert short.size == min(limit, example.size)
    assert lost.tokens == example.size - short.size
    assert np.array_equal(short.targets["classification"]["label"], [0])
    types = short.segments[0].token_types
    assert types is not None
    return short.segments[0].tokens.tolist(), types.tolist()


def test_a_cut_keeps_the_frame_and_shortens_the_longest_text() -> None:
    assert cut("10 11 12 13", None, 4, "left") == ([1, 12, 13, 2], [0] * 4)
    assert cut("10 11 12 13", None, 4, "right") == ([1, 10, 11, 2], [0] * 4)
    long = cut("10 11 12 13 14", "20 21", 7, "right")
    assert long == ([1, 10, 11, 2, 20, 21, 2], [0, 0, 0, 0, 1, 1, 1])
    assert cut("10 11", "20 21", 7, "left")[0] == [1, 10, 11, 2, 20, 21, 2]
    assert (
        fit(
            objective(problem_type="single_label", classes=("a", "b")).encode(
                row("a", "10 11 12"),
                Framed(),  # type: ignore[arg-type]
            ),
            2,
            "right",
            frame=Framed.frame,
        )[1].dropped
        == 1
    )


@pytest.mark.parametrize(
    ("name", "problem", "settings"),
    [
        *((name, problem, {}) for name in classifiers.ENCODERS for problem in CASES),
        ("bert", "single_label", {"class_weights": "inverse", "label_smoothing": 0.1}),
        ("bert", "single_label", {"class_weights": {"bad": 5, "good": 0.1}, "focal": 2}),
        ("bert", "multi_label", {"class_weights": "effective", "focal": 0.5}),
    ],
)
def test_law_3_a_step_does_not_feel_its_micro_batches(
    problem: str, name: str, settings: Any
) -> None:
    """The gradient of a step over encoders, whole and cut in three, one of them empty."""
    records = rows(*CASES[problem])
    made: Any = objective(**settings).settled(records, ())
    model = ClassifierModel(
        classifiers.pooled(name, "mean", torch.float64, len(made.config.classes))
    )
    models = RunModels(model, kinds.build("methods", kinds.config("methods", "full")))
    examples = [made.encode(record, builders.codec()) for record in records]

    def gradient(cuts: Any) -> tuple[float, dict[str, torch.Tensor]]:
        model.module.zero_grad(set_to_none=True)
        batches = [collate(cut or [empty_like(examples[0])], **model.layout) for cut in cuts]
        weight = sum(made.weights(batch)["classification"] for batch in batches)
        total = 0.0
        for batch in batches:
            term = made.loss(models, batch)["classification"] / weight
            term.backward()
            total += float(term.detach())
        return total, builders.gradients(model.module)

    whole, cut = gradient([examples]), gradient([examples[:1], [], examples[1:]])
    assert whole[0] == pytest.approx(cut[0], abs=1e-12)
    assert builders.gap(whole[1], cut[1]) < 1e-10
