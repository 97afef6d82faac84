"""Token classification step by step beside transformers' Trainer: the loss of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoders
import pytest
import torch
from test_trainer_parity import BATCH, EPOCHS, RATE, SEED, Rows

import luthier

SENTENCES = encoders.sentences(12)


@pytest.mark.parametrize("labelling", ["first", "all"])
def test_each_step_has_the_loss_that_trainer_has(labelling: str, tmp_path: Path) -> None:
    base = encoders.saved(tmp_path / "base")
    ours = _luthier(base, tmp_path / "run", labelling)
    theirs = _trainer(base, tmp_path / "trainer", labelling)
    assert len(ours) == EPOCHS * 3
    assert ours[-1] < 0.8 * ours[0]  # something was learned, so that updates were compared
    assert ours == pytest.approx(theirs, rel=1e-5)


def _luthier(base: Path, output: Path, labelling: str) -> list[float]:
    recipe = {
        "model": {"name": str(base), "dropout": 0.0},
        "objective": {"kind": "token_classification", "labelling": labelling},
        "method": "full",
        "data": {
            "train": [{"tokens": list(s.words), "tags": list(s.tags)} for s in SENTENCES],
            "validation": 0,
        },
        "training": {
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "schedule": "linear",
            "warmup": 0,
            "betas": (0.9, 0.999),
            "weight_decay": 0.1,
            "clip_norm": 0.5,
            "precision": "float32",
            "device": "cpu",
            "threads": 1,
            "seed": SEED,
            "log_every": 1,
            "trackers": [],
        },
        "output": str(output),
    }
    run = luthier.train(recipe, quiet=True)
    return [event["loss"] for event in run.events if event["kind"] == "step"]


def _trainer(base: Path, output: Path, labelling: str) -> list[float]:
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
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
    names = list(encoders.TAGS)
    torch.manual_seed(SEED)
    model = AutoModelForTokenClassification.from_pretrained(base, num_labels=len(names))
    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        weight_decay=0.1,
        max_grad_norm=0.5,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=SEED,
    )
    rows = []
    for sentence in SENTENCES:
        made = tokenizer(list(sentence.words), is_split_into_words=True)
        words = [-1 if word is None else word for word in made.word_ids()]
        labels = []
        for before, word in zip([-1, *words], words, strict=False):
            tag = "" if word < 0 else sentence.tags[word]
            if word == before and labelling == "all":
                tag = tag.replace("B-", "I-")
            wanted = word >= 0 and (word != before or labelling == "all")
            labels.append(names.index(tag) if wanted else -100)
        rows.append({**made, "labels": labels})
    Noted(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
    ).train()
    return losses
