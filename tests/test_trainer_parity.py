"""The loss of every step is that of transformers' Trainer with the same settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import classifiers
import pytest
import torch
import torch.utils.data

import luthier
from luthier.data.order import epoch_order

ROWS = classifiers.labelled(12)
#: Does not divide the rows, so that each epoch ends with a smaller step.
BATCH = 5
EPOCHS = 5
RATE = 1e-2
SEED = 3


class Rows(torch.utils.data.Sampler[int]):
    """Luthier's order of the rows, epoch by epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return len(ROWS)

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(epoch_order(len(ROWS), SEED, self.epoch - 1).tolist())


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_each_step_has_the_loss_that_trainer_has(decay: float, tmp_path: Path) -> None:
    base = classifiers.saved(tmp_path / "base")
    ours, theirs = _luthier(base, tmp_path / "run", decay), _trainer(base, tmp_path / "t", decay)
    assert len(ours) == EPOCHS * 3
    assert ours[-1] < 0.8 * ours[0]  # something was learned, so that updates were compared
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_each_step_has_the_loss_that_trainer_has_with_weights_of_classes(tmp_path: Path) -> None:
    """Torch's weighted mean, though each of our steps is cut into several micro-batches."""
    base, weights = classifiers.saved(tmp_path / "base"), {"bad": 3.0, "fair": 1.0, "good": 0.25}
    ours = _luthier(base, tmp_path / "run", 0.0, token_budget=64, class_weights=weights)
    theirs = _trainer(base, tmp_path / "t", 0.0, [weights[name] for name in classifiers.NAMES])
    assert ours[-1] < 0.8 * ours[0]
    assert ours == pytest.approx(theirs, rel=1e-5)
    plain = _luthier(base, tmp_path / "plain", 0.0)
    assert ours != pytest.approx(plain, rel=1e-2)


def _luthier(
    base: Path,
    output: Path,
    decay: float,
    token_budget: int | str = "auto",
    **objective: Any,
) -> list[float]:
    recipe = {
        "model": {"name": str(base), "dropout": 0.0},
        # with BERT's own pooling, and so its own head
        "objective": {"kind": "classification", **objective},
        "method": "full",
        "data": {
            "train": [{"text": row.text, "label": row.label} for row in ROWS],
            "validation": 0,
        },
        "training": {
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "schedule": "linear",
            "warmup": 0,
            "betas": (0.9, 0.999),
            "weight_decay": decay,
            "clip_norm": 0.5,
            "precision": "float32",
            "device": "cpu",
            "threads": 1,
            "seed": SEED,
            "log_every": 1,
            "token_budget": token_budget,
            "trackers": [],
        },
        "output": str(output),
    }
    run = luthier.train(recipe, quiet=True)
    return [event["loss"] for event in run.events if event["kind"] == "step"]


def _trainer(
    base: Path, output: Path, decay: float, weights: list[float] | None = None
) -> list[float]:
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    losses: list[float] = []

    class Noted(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Rows:
            return Rows()

        def training_step(self, *args: Any, **named: Any) -> Any:
            loss = super().training_step(*args, **named)
            losses.append(float(loss))
            return loss

    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(SEED)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        weight_decay=decay,
        max_grad_norm=0.5,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=SEED,
    )
    names = classifiers.NAMES
    rows = [{**tokenizer(row.text), "labels": names.index(str(row.label))} for row in ROWS]
    own = None
    if weights is not None:
        mean = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights))

        def own(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
            return mean(outputs.logits, labels)

    Noted(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=own,
    ).train()
    return losses
