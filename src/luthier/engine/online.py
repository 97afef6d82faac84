"""Learning from samples: each step of the loop is a rollout, then optimizer updates on it.

A rollout is never part of a checkpoint: a run that was killed in the middle of one begins it again
from the same weights with the same keys, and draws the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from luthier.core.contracts import FrozenColumns, OnlineObjective
from luthier.core.errors import TrainingError
from luthier.core.records import Example
from luthier.engine import memory
from luthier.engine.checkpoint import State
from luthier.engine.loop import Loop, Update
from luthier.engine.recent import Recent
from luthier.engine.watch import improved


class Rollouts(Protocol):
    """Where a step's answers come from; the models are in evaluation mode when it is asked."""

    def collect(self, step: int, rank: int, ranks: int) -> tuple[list[Example], int]:
        """This rank's prompts of a step with their answers, and how many were drawn for them."""
        ...

    def held_out(self, rank: int, ranks: int) -> list[Example]:
        """This rank's held-out prompts with their answers; the same keys every time."""
        ...

    def samples(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Some answers as text, with what they earned."""
        ...


class RecentRollouts(Recent):
    """What the next log line will say, with the means of the rollouts' figures."""

    def __init__(self) -> None:
        super().__init__()
        self._figures: list[dict[str, float]] = []
        self._sampling, self._answers = 0.0, 0

    def roll(self, figures: Mapping[str, float], answers: int, seconds: float) -> None:
        """Takes one rollout's figures."""
        self._figures.append(dict(figures))
        self._sampling += seconds
        self._answers += answers

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of this object."""
        rolled = [self._figures, self._sampling, self._answers]
        return {**super().state(), "rolled": rolled}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        super().load_state(state)
        self._figures, self._sampling, self._answers = state.get("rolled", ([], 0.0, 0))

    def line(self, state: State, per_epoch: int, memory: int) -> dict[str, Any]:
        """The log's next line, and a new beginning."""
        names = self._figures[-1] if self._figures else ()
        means = {
            name: math.fsum(each[name] for each in self._figures if name in each)
            / sum(name in each for each in self._figures)
            for name in names
        }
        pace = round(self._answers / max(self._sampling, 1e-9), 2)
        self._figures, self._sampling, self._answers = [], 0.0, 0
        line = super().line(state, per_epoch, memory)
        return {**line, "rollout": means, "samples_per_second": pace}


@dataclass
class OnlineLoop(Loop):
    """The loop of an objective that samples; a step is a rollout with all of its updates.

    Attributes:
        rollouts: where a step's answers come from.
    """

    rollouts: Rollouts | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._recent: RecentRollouts = RecentRollouts()
        self._shown: list[dict[str, Any]] = []

    def _step(self) -> None:
        objective, step, seed = self.objective, self.state.step, self.spec.seed
        assert isinstance(objective, OnlineObjective)
        start = time.perf_counter()
        examples = self._rollout(step)
        found, sizes = [], []
        with self._still():
            for epoch in range(objective.inner_epochs):
                key = np.random.SeedSequence((seed, step, epoch))
                rng = np.random.Generator(np.random.Philox(key))
                order = rng.permutation(len(examples))
                for part in np.array_split(order, objective.mini_batches):
                    chosen = [examples[i] for i in part]
                    if chosen:
                        found.append(self._update(list(objective.arrange(chosen, rng))))
                        sizes.append(sum(example.size for example in chosen))
        self.state.step += 1
        seconds = time.perf_counter() - start
        self.state.seconds += seconds
        self._recent.add(*_mean(found), sum(sizes), seconds)
        self._shown = self.rollouts.samples(examples) if self.rollouts and self.backend.main else []

    def _rollout(self, step: int) -> list[Example]:
        """A step's prompts with their answers and everything that is fixed from now on.

        Raises:
            TrainingError: the objective will not go on.
        """
        objective, backend = self.objective, self.backend
        assert isinstance(objective, OnlineObjective)
        assert self.rollouts is not None
        start = time.perf_counter()
        with self._evaluating(), memory.fatal("while answers were sampled"):
            mine, drawn = self.rollouts.collect(step, backend.rank, backend.ranks)
            seconds = time.perf_counter() - start
            if isinstance(objective, FrozenColumns):
                mine = self._asked(objective, mine)
        examples = _interleaved(backend.gathered(mine))
        credited, figures = objective.credit(examples, self.state.memory)
        if objective.redraws:
            drawn = int(backend.totals({"drawn": float(drawn)})["drawn"])
            figures["kept"] = len(examples) / drawn
        answers = sum(len(example.targets["answer"]["segment"]) for example in examples)
        self._recent.roll(figures, answers, seconds)
        if (reason := objective.alarm(figures)) is not None:
            saved = self._last_saved()
            raise TrainingError(
                f"{reason}, at step {step + 1}",
                cure="a lower training.learning_rate, a stronger pull (objective.kl), fewer inner "
                f"epochs; the last checkpoint is {saved or 'not there yet'}",
                code="kl",
            )
        return list(credited)

    def _asked(self, objective: FrozenColumns, examples: list[Example]) -> list[Example]:
        """Examples with what models say of them, once."""
        made: list[Example] = list(examples)
        sizes = [example.size for example in examples]
        with torch.no_grad(), self.backend.arithmetic():
            for indices in self.data.cut(sizes, self.budget) if examples else ():
                if not indices:
                    continue
                batch = self.data.collate([examples[i] for i in indices])
                found = objective.columns(self.models, batch)
                for number, index in enumerate(indices):
                    made[index] = _with(examples[index], batch.targets, found, number)
        return made

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The policy without dropout and without a thought of gradients."""
        self.models.policy.module.eval()
        yield

    @contextmanager
    def _still(self) -> Iterator[None]:
        """The policy as it was when it sampled: dropout would part it from its own answers.

        Recomputing activations is all that is left of training mode, where the recipe asks for it.
        """
        policy = self.models.policy
        policy.module.eval()
        if self.spec.gradient_checkpointing:
            for block in policy.blocks:
                block.training = True  # of the block alone: its dropout layers stay still
        yield
        policy.module.eval()

    def validation_loss(self) -> tuple[float, dict[str, float]]:
        """What held-out prompts' answers earn: its negative as the loss, so that less is better."""
        assert self.rollouts is not None
        with (
            self._evaluating(),
            self._average.swapped(),
            memory.fatal("while answers were sampled"),
        ):
            mine = self.rollouts.held_out(self.backend.rank, self.backend.ranks)
        rewards = [r for e in mine for r in e.targets["answer"]["reward"].tolist()]
        totals = self.backend.totals({"sum": math.fsum(rewards), "count": float(len(rewards))})
        mean = totals["sum"] / max(1.0, totals["count"])
        return -mean, {"reward": mean}

    def _validate(self) -> bool:
        """Logs the mean reward on held-out prompts; whether it is the best so far."""
        loss, means = self.validation_loss()
        self._log({"kind": "validation", "loss": loss, "terms": means})
        return improved(self.state, self.spec.early_stopping, loss)

    def _log_step(self) -> None:
        super()._log_step()
        if self._shown:
            first = self._shown[0]
            words = f"{first['prompt']!r} -> {first['answer']!r} ({first['reward']:g})"
            self._log({"kind": "samples", "message": words, "samples": self._shown})


def _interleaved(parts: Sequence[Sequence[Example]]) -> list[Example]:
    """What the ranks have, in the order in which one rank would have it all."""
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def _mean(updates: Sequence[Update]) -> Update:
    """Of a step's updates the mean loss and terms; norm and rate of the last one.

    Nothing was learned where a rollout left nothing to learn from.
    """
    if not updates:
        return 0.0, {}, {}, 0.0, 0.0

    def means(place: int) -> dict[str, float]:
        terms: list[Any] = [update[place] for update in updates]
        return {n: math.fsum(each[n] for each in terms) / len(terms) for n in terms[0]}

    loss = math.fsum(update[0] for update in updates) / len(updates)
    return loss, means(1), means(2), *updates[-1][3:]


def _with(
    example: Example, tables: Mapping[str, Any], found: Mapping[str, Any], number: int
) -> Example:
    """The ``number``-th example of a batch with its rows of further columns."""
    targets = {head: dict(table) for head, table in example.targets.items()}
    for head, columns in found.items():
        mine = tables[head]["example"] == number
        for name, column in columns.items():
            wide = column[mine].detach()
            kind = torch.promote_types(wide.dtype, torch.float32)
            targets[head][name] = wide.to(kind).cpu().numpy()
    return replace(example, targets=targets)
