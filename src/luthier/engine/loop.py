"""The training loop: order, micro-batches, gradient, update; validation, checkpoints, stops.

One step is one optimizer update over ``batch_size`` examples, however many micro-batches memory
lets it take. The totals of every loss term's weight are known before the first forward pass, so
each gradient is divided once and the result does not depend on how the step was cut.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from luthier.core.contracts import Method, Objective, Watching
from luthier.core.recipe import TrainingSpec
from luthier.core.records import Batch, Example, Ints
from luthier.core.rundir import RunDir
from luthier.engine import checkpoint, memory, optim, rates
from luthier.engine.average import Average
from luthier.engine.backend import Backend
from luthier.engine.checkpoint import State
from luthier.engine.neftune import noise
from luthier.engine.recent import Recent, parted
from luthier.engine.statistics import informed
from luthier.engine.trackers import Tracker
from luthier.engine.watch import Stop, Trend, check_finite, exhausted, improved
from luthier.engine.writer import Writer

T = TypeVar("T")
#: Each loss term's weight and sum, in the order that a function says.
Figures = tuple[dict[str, float], dict[str, float]]
#: An update's loss, the means of the terms learned and watched, the gradient's norm, the rate.
Update = tuple[float, dict[str, float], dict[str, float], float, float]
#: Makes a batch of examples on the training device.
Collate = Callable[[Sequence[Example]], Batch]


@dataclass(frozen=True)
class Data:
    """What the loop reads: examples by index, and how steps and micro-batches are cut.

    Attributes:
        train: training examples.
        validation: held-out examples, possibly none.
        step: the examples of step n (from 0), and their epoch.
        total: steps of the run.
        per_epoch: steps of one epoch.
        cut: sizes in tokens and a token budget to micro-batches of indices, a multiple of ranks.
        longest: tokens of the longest example, below which no budget can go.
        collate: examples to a batch on the device.
        empty: an example of one token and no target like the one given.
        rows: chosen training examples as one batch without tokens, where the trunk is cached.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    step: Callable[[int], tuple[list[Example], int]]
    total: int
    per_epoch: int
    cut: Callable[[Sequence[int], int], list[list[int]]]
    longest: int
    collate: Collate
    empty: Callable[[Example], Example]
    rows: Callable[[Ints], Batch] | None = None


class Wrapped(nn.Module):
    """Trunk, head and loss inside one forward, so that DDP and FSDP see every call."""

    def __init__(self, module: nn.Module, objective: Objective, models: Any) -> None:
        super().__init__()
        self.module = module
        self._objective, self._models = objective, models

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Each loss term's sum over the batch."""
        return self._objective.loss(self._models, batch)


@dataclass
class Loop:
    """One run's training.

    Attributes:
        spec: the recipe's training part.
        run: the run folder.
        backend: device, ranks, precision.
        objective: what is optimised.
        method: which parameters are trained.
        models: what the objective sees.
        data: examples and how they are cut.
        peak: the peak learning rate.
        trackers: where figures go.
        stop: whether somebody asked the run to stop.
        state: where the run stands; a fresh one unless resumed. Its choices hold the token budget.
    """

    spec: TrainingSpec
    run: RunDir
    backend: Backend
    objective: Objective
    method: Method
    models: Any
    data: Data
    peak: float
    trackers: Sequence[Tracker]
    stop: Stop
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        module = self.models.policy.module
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        groups = rates.rated(self.method.param_groups(module), module, self.spec)
        self.optimizer = optim.make_optimizer(self.spec, groups, self.peak)
        self._average = Average(self.parameters, self.spec.ema)
        self.wrapped = self.backend.wrap(Wrapped(module, self.objective, self.models))
        total, saves = self.data.total, self.spec.save_every
        self._validate_every = every(self.spec.evaluate_every, total, self.data.per_epoch)
        self._save_every = self._validate_every if saves == "auto" else every(saves, total, total)
        self._divided: Any = partial(divided, self.objective)
        self._informed = partial(informed, self.objective, self.models, self.backend)
        self._trend, self._recent = Trend(), Recent()
        self._writer = Writer(self.run, self.spec.keep)

    def resume(self, folder: Path, *, moments: bool = True) -> None:
        """Continues from a checkpoint; without ``moments`` the optimizer begins afresh."""
        self.state, scaler = checkpoint.load(
            folder, self.parameters, self.optimizer, moments=moments
        )
        self._average.load(checkpoint.load_average(folder))
        self.backend.load_state(scaler)
        self._recent.load_state(self.state.recent)
        self._trend.load_state(self.state.trend)
        if self.backend.main:  # a kill may have come between a save and its retention
            best = self.state.best[1] if self.state.best else None
            checkpoint.retain(self.run, self.spec.keep, best)

    def train(self) -> Literal["finished", "early", "stopped"]:
        """Runs to the last step, an early stop, or a signal; every checkpoint is on disk then.

        A signal during the last step stops nothing here, and is still there for whoever goes on.

        Raises:
            TrainingError: loss or gradient not finite three times in a row, no memory or no room.
        """
        with self._writer:
            ended = self._train()
        if ended == "finished":
            self._average.take()
        self.backend.barrier()
        return ended

    def _train(self) -> Literal["finished", "early", "stopped"]:
        self.models.policy.module.train()
        rule = self.spec.early_stopping
        if exhausted(self.state, rule):  # it had decided, and the result was not kept
            return "early"
        while self.state.step < self.data.total:
            self._writer.check()
            self._step()
            done = self.state.step
            last = done == self.data.total
            if done % self.spec.log_every == 0 or last or done == 1:
                self._log_step()
            best = False
            if self.data.validation and (done % self._validate_every == 0 or last):
                best = self._validate()
            early = exhausted(self.state, rule)
            stopped = self.stop.together(self.backend) and not last
            wanted = best and rule is not None
            if done % self._save_every == 0 or last or early or stopped or wanted:
                self._save()
            if early or stopped:
                return "early" if early else "stopped"
        return "finished"

    def _step(self) -> None:
        start = time.perf_counter()
        examples, _ = self.data.step(self.state.step)
        figures = self._update(examples)
        self.state.step += 1
        seconds = time.perf_counter() - start
        self.state.seconds += seconds
        self._recent.add(*figures, sum(e.size for e in examples), seconds)

    def _update(self, examples: Sequence[Example]) -> Update:
        """One optimizer update."""
        state, backend = self.state, self.backend
        sizes = [e.size for e in examples]
        factor = optim.rate_factor(self.spec, state.step, self.data.total)
        rate = optim.set_rate(self.optimizer, self.peak, factor)
        weights, sums = self._within_memory(sizes, lambda: self._attempt(examples, sizes))
        with memory.fatal("in the optimizer's update"):
            norm = backend.clip(self.optimizer, list(self.parameters.values()), self.spec.clip_norm)
        # Taken together: every rank sees the same totals and the same norm.
        means = _means(backend.totals(sums), weights)
        learned, watched = self._divided(means)
        loss, norm_value = math.fsum(learned.values()), float(norm)
        origins = [e.origin for e in examples]
        rescaling = backend.rescaling(loss, norm_value)
        state.skipped += int(rescaling)
        healthy = not rescaling and check_finite(state, loss, norm_value, origins, self._last_saved)
        with memory.fatal("in the optimizer's update"):
            backend.update(self.optimizer, healthy=healthy)
        state.updates += 1
        if healthy:
            self._average.update(state.updates - state.skipped)
        state.tokens += sum(sizes)
        return loss, learned, watched, norm_value, rate

    def _attempt(self, examples: Sequence[Example], sizes: Sequence[int]) -> Figures:
        """A step's gradients, from nothing: whatever an attempt before it left is cleared."""
        backend, step = self.backend, self.state.step
        self.optimizer.zero_grad(set_to_none=True)
        cuts = self.data.cut(sizes, self.budget)
        mine = [self._chosen(examples, c) for c in cuts[backend.rank :: backend.ranks]]
        torch.manual_seed(_step_seed(self.spec.seed, step, backend.rank))
        return self._gradients(mine, len(examples))

    @property
    def budget(self) -> int:
        """Tokens of a micro-batch, as memory allows them."""
        return int(self.state.choices["token_budget"])

    def _within_memory(self, sizes: Sequence[int], work: Callable[[], T]) -> T:
        """Does ``work``, again with half the token budget where memory ran out in it."""

        def smaller(said: str) -> None:
            before, longest = self.budget, self.data.longest
            if self.backend.ranks > 1:
                raise memory.on_several_ranks(self.run.path, before, longest, said)
            budget = memory.halved(before, longest, self.data.cut, sizes, said)
            self.state.choices["token_budget"] = budget
            words = memory.smaller(self.state.step, before, budget)
            self._log({"kind": "warning", "message": words, "token_budget": budget})

        return memory.retried(work, smaller)

    def _gradients(self, chosen: Sequence[Sequence[Example]], count: int) -> Figures:
        """Of a step of ``count`` examples: each term's weight on all ranks, its sum on this one."""
        batches = list(self._informed(map(self.data.collate, chosen), count))
        alpha, key = self.spec.neftune_alpha, (self.spec.seed, self.state.step)
        mine: dict[str, float] = {}
        for batch in batches:
            _add(mine, self.objective.weights(batch))
        weights = self.backend.totals(mine)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with self.backend.accumulating(self.wrapped, last=last):
                noisy = noise(alpha, self.models.policy, batch, chosen[number], key)
                with noisy, self.backend.arithmetic():
                    terms = self.wrapped(batch)
                self.backend.backward(self._divided(terms)[0], weights)
            _add(sums, {name: term.detach() for name, term in terms.items()})
        return weights, {name: float(value) for name, value in sums.items()}

    def _chosen(self, examples: Sequence[Example], indices: Sequence[int]) -> list[Example]:
        return [examples[i] for i in indices] or [self.data.empty(examples[0])]

    def validation_loss(self) -> tuple[float, dict[str, float]]:
        """Mean of each term over the held-out examples, and the sum of those learned from."""
        module = self.models.policy.module
        module.eval()
        sizes = [e.size for e in self.data.validation]
        with self._average.swapped():
            sums, weights = self._within_memory(sizes, lambda: self._held_out(sizes))
        module.train()
        means = _means(self.backend.totals(sums), self.backend.totals(weights))
        return math.fsum(self._divided(means)[0].values()), means

    def _held_out(self, sizes: Sequence[int]) -> Figures:
        """Each term's sum and weight over this rank's part of the held-out examples."""
        sums: dict[str, float] = {}
        weights: dict[str, float] = {}
        held_out, backend = self.data.validation, self.backend
        cuts = self.data.cut(sizes, self.budget)
        with torch.no_grad(), backend.arithmetic():
            chosen = (self._chosen(held_out, i) for i in cuts[backend.rank :: backend.ranks])
            for batch in self._informed(map(self.data.collate, chosen), len(held_out)):
                _add(weights, self.objective.weights(batch))
                found = self.objective.loss(self.models, batch)
                _add(sums, {name: float(term) for name, term in found.items()})
        return sums, weights

    def _validate(self) -> bool:
        """Logs the validation loss; whether it is the best so far."""
        loss, means = self.validation_loss()
        self._log({"kind": "validation", "loss": loss, **parted(*self._divided(means))})
        warning = self._trend.add(self._recent.loss, loss)
        if warning:
            self._log({"kind": "warning", "message": warning})
        return improved(
            self.state,
            self.spec.early_stopping,
            loss if self._metric == "loss" else means[self._metric],
        )

    @property
    def _metric(self) -> str:
        return self.spec.early_stopping.metric if self.spec.early_stopping else "loss"

    def _save(self) -> None:
        self.state.recent, self.state.trend = self._recent.state(), self._trend.state()
        if self.backend.main:
            scaler = self.backend.state()
            average = self._average.values or None
            self._writer.save(self.state, self.parameters, self.optimizer, scaler, average)

    def _last_saved(self) -> Path | None:
        """The newest checkpoint, once it is written."""
        self._writer.wait()
        saved = self.run.saved()
        return saved[-1][1] if saved else None

    def _log_step(self) -> None:
        self._log(self._recent.line(self.state, self.data.per_epoch, self.backend.memory()))

    def _log(self, event: Mapping[str, Any]) -> None:
        if self.backend.main:
            for tracker in self.trackers:
                tracker.log({**event, "step": self.state.step})


def _add(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        into[name] = into[name] + value if name in into else value


def _means(sums: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    return {n: s / weights[n] if weights[n] else 0.0 for n, s in sums.items()}


def divided(objective: Objective, terms: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    """Terms that are learned from, and those that are only looked at."""
    watched = objective.watched if isinstance(objective, Watching) else frozenset()
    learned = {name: term for name, term in terms.items() if name not in watched}
    return learned, {name: term for name, term in terms.items() if name in watched}


def _step_seed(*key: int) -> int:
    """Of dropout: each step and rank has its own, whatever was drawn before it."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def every(setting: int | str, total: int, per_epoch: int) -> int:
    """Steps between events; ``auto`` is ten times a run, and at least once an epoch."""
    if isinstance(setting, int):
        return setting
    return max(1, min(math.ceil(total / 10), per_epoch))
