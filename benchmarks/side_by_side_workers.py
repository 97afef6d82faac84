"""What the processes of the comparisons share: a timed run of ours, a Trainer in our order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.utils.data

import luthier
import luthier.run as running
from luthier.data.order import epoch_order
from luthier.fit import fit


def trained(recipe: dict[str, Any]) -> tuple[luthier.Run, float]:
    """A run, and its seconds between the data and the saved result."""
    seconds = [0.0]

    def timed(*args: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        outcome = fit(*args, **named)
        seconds[0] += time.perf_counter() - begun
        return outcome

    running.fit = timed  # type: ignore[attr-defined]
    return luthier.train(recipe, quiet=True), seconds[0]


class Rows(torch.utils.data.Sampler[int]):
    """Luthier's order of the rows, epoch by epoch."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(epoch_order(self.count, self.seed, self.epoch - 1).tolist())


def trainer_of(
    job: dict[str, Any],
    model: Any,
    rows: Sequence[Any],
    tokenizer: Any,
    collator: Any,
    *,
    batch_size: int,
    rate: float,
    max_steps: int = -1,
) -> Any:
    """transformers' Trainer, its other settings as they come, that keeps the loss of each step."""
    from transformers import Trainer, TrainingArguments

    class Ordered(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Rows:
            return Rows(len(train_dataset or self.train_dataset), job["seed"])

        def training_step(self, *args: Any, **named: Any) -> Any:
            loss = super().training_step(*args, **named)
            self.losses.append(float(loss))
            return loss

    trainer = Ordered(
        model=model,
        args=TrainingArguments(
            output_dir=str(Path(job["folder"]) / "trainer"),
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=batch_size,
            max_steps=max_steps,
            learning_rate=rate,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=job["seed"],
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=collator,
    )
    trainer.losses = []
    return trainer


def set_dropout(config: Any, dropout: float | None) -> None:
    """Of a BERT; as it is where none is given."""
    if dropout is not None:
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            setattr(config, name, dropout)


def adapted(model: Any, rank: int | None, task: str) -> Any:
    """peft's LoRA on query and value; the model itself without a rank."""
    if rank is None:
        return model
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=["query", "value"], task_type=task
    )
    return get_peft_model(model, adapter)
