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
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from luthier.core.contracts import Method, Objective
from luthier.core.recipe import TrainingSpec
from luthier.core.records import Batch, Example
from luthier.core.rundir import RunDir
from luthier.engine import checkpoint, optim
from luthier.engine.backend import Backend
from luthier.engine.checkpoint import State
from luthier.engine.trackers import Tracker
from luthier.engine.watch import Stop, Trend, check_finite

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
        cut: sizes in tokens to micro-batches of indices, a multiple of ranks.
        collate: examples to a batch on the device.
        empty: an example of one token and no target like the one given.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    step: Callable[[int], tuple[list[Example], int]]
    total: int
    per_epoch: int
    cut: Callable[[Sequence[int]], list[list[int]]]
    collate: Collate
    empty: Callable[[Example], Example]


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
        state: where the run stands; a fresh one unless resumed.
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
        self.optimizer = optim.make_optimizer(
            self.spec, self.method.param_groups(module), self.peak
        )
        self.wrapped = self.backend.wrap(Wrapped(module, self.objective, self.models))
        total = self.data.total
        self._validate_every = every(self.spec.evaluate_every, total, self.data.per_epoch)
        automatic = self.spec.save_every == "auto"
        self._save_every = (
            self._validate_every if automatic else every(self.spec.save_every, total, total)
        )
        self._trend, self._recent = Trend(), _Recent()

    def resume(self, folder: Any) -> None:
        """Continues from a checkpoint."""
        self.state, scaler = checkpoint.load(folder, self.parameters, self.optimizer)
        self.backend.load_state(scaler)
        self._recent.load_state(self.state.recent)
        self._trend.load_state(self.state.trend)

    def train(self) -> Literal["finished", "early", "stopped"]:
        """Runs to the last step, an early stop, or a signal.

        Raises:
            TrainingError: loss or gradient not finite three times in a row.
        """
        self.models.policy.module.train()
        if self._exhausted:  # stopped after early stopping had decided, before the result was kept
            return "early"
        while self.state.step < self.data.total:
            self._step()
            done = self.state.step
            last = done == self.data.total
            if done % self.spec.log_every == 0 or last or done == 1:
                self._log_step()
            best = False
            if self.data.validation and (done % self._validate_every == 0 or last):
                best = self._validate()
            early = self._exhausted
            stopped = self.backend.agree(self.stop.asked) and not last
            wanted = best and self.spec.early_stopping is not None
            if done % self._save_every == 0 or last or early or stopped or wanted:
                self._save()
            if early or stopped:
                return "early" if early else "stopped"
        return "finished"

    def _step(self) -> None:
        start = time.perf_counter()
        state, backend = self.state, self.backend
        examples, _ = self.data.step(state.step)
        sizes = [e.size for e in examples]
        cuts = self.data.cut(sizes)
        batches = [self._batch(examples, c) for c in cuts[backend.rank :: backend.ranks]]
        torch.manual_seed(_step_seed(self.spec.seed, state.step, backend.rank))
        factor = optim.rate_factor(self.spec, state.step, self.data.total)
        rate = optim.set_rate(self.optimizer, self.peak, factor)
        weights, sums = self._gradients(batches)
        norm = backend.clip(self.optimizer, list(self.parameters.values()), self.spec.clip_norm)
        # Taken together: every rank sees the same totals and the same norm.
        means = {n: s / weights[n] if weights[n] else 0.0 for n, s in backend.totals(sums).items()}
        loss, norm_value = math.fsum(means.values()), float(norm)
        origins = [e.origin for e in examples]
        if backend.rescaling(loss, norm_value):
            state.skipped += 1
            healthy = False
        else:
            healthy = check_finite(state, loss, norm_value, origins, self.run)
        backend.update(self.optimizer, healthy=healthy)
        state.step += 1
        state.tokens += sum(sizes)
        seconds = time.perf_counter() - start
        state.seconds += seconds
        self._recent.add(loss, means, norm_value, rate, sum(sizes), seconds)

    def _gradients(self, batches: Sequence[Batch]) -> tuple[dict[str, float], dict[str, float]]:
        """Gradients of a step; returns each term's weight over all ranks and sum on this one."""
        mine: dict[str, float] = {}
        for batch in batches:
            for name, weight in self.objective.weights(batch).items():
                mine[name] = mine.get(name, 0.0) + weight
        weights = self.backend.totals(mine)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with self.backend.accumulating(self.wrapped, last=last):
                with self.backend.arithmetic():
                    terms = self.wrapped(batch)
                self.backend.backward(terms, weights)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach()
        return weights, {name: float(value) for name, value in sums.items()}

    def _batch(self, examples: Sequence[Example], indices: Sequence[int]) -> Batch:
        chosen = [examples[i] for i in indices] or [self.data.empty(examples[0])]
        return self.data.collate(chosen)

    def validation_loss(self) -> tuple[float, dict[str, float]]:
        """Mean of each term over the held-out examples, and their sum."""
        module = self.models.policy.module
        module.eval()
        sums: dict[str, float] = {}
        weights: dict[str, float] = {}
        held_out, backend = self.data.validation, self.backend
        cuts = self.data.cut([e.size for e in held_out])
        with torch.no_grad(), backend.arithmetic():
            for indices in cuts[backend.rank :: backend.ranks]:
                batch = self._batch(held_out, indices)
                for name, weight in self.objective.weights(batch).items():
                    weights[name] = weights.get(name, 0.0) + weight
                for name, term in self.objective.loss(self.models, batch).items():
                    sums[name] = sums.get(name, 0.0) + float(term)
        module.train()
        sums, weights = backend.totals(sums), backend.totals(weights)
        means = {n: s / weights[n] if weights[n] else 0.0 for n, s in sums.items()}
        return math.fsum(means.values()), means

    def _validate(self) -> bool:
        """Logs the validation loss; whether it is the best so far."""
        loss, means = self.validation_loss()
        self._log({"kind": "validation", "loss": loss, "terms": means})
        warning = self._trend.add(self._recent.loss, loss)
        if warning:
            self._log({"kind": "warning", "message": warning})
        return self._improved(loss if self._metric == "loss" else means[self._metric])

    @property
    def _metric(self) -> str:
        return self.spec.early_stopping.metric if self.spec.early_stopping else "loss"

    def _improved(self, figure: float) -> bool:
        state, rule = self.state, self.spec.early_stopping
        needed = rule.min_delta if rule else 0.0
        if math.isfinite(figure) and (state.best is None or figure < state.best[0] - needed):
            state.best, state.since_best = (figure, state.step), 0
            return True
        state.since_best += 1
        return False

    @property
    def _exhausted(self) -> bool:
        """Whether early stopping ends the run."""
        rule = self.spec.early_stopping
        return (
            rule is not None
            and self.state.best is not None
            and self.state.since_best >= rule.patience
        )

    def _save(self) -> None:
        self.state.recent, self.state.trend = self._recent.state(), self._trend.state()
        if self.backend.main:
            scaler = self.backend.state()
            checkpoint.save(self.run, self.state, self.parameters, self.optimizer, scaler)
            best = self.state.best[1] if self.state.best else None
            checkpoint.retain(self.run, self.spec.keep, best)
        self.backend.barrier()

    def _log_step(self) -> None:
        state = self.state
        figures = self._recent.figures()
        self._log(
            {
                "kind": "step",
                "epoch": round(state.step / self.data.per_epoch, 4),
                "tokens": state.tokens,
                **figures,
                "memory": self.backend.memory(),
                "seconds": round(state.seconds, 3),
                "skipped": state.skipped,
            }
        )

    def _log(self, event: Mapping[str, Any]) -> None:
        if self.backend.main:
            for tracker in self.trackers:
                tracker.log({**event, "step": self.state.step})


class _Recent:
    """Figures since the last log line."""

    def __init__(self) -> None:
        self.loss = math.nan
        self._clear()

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._tokens, self._seconds = 0, 0.0

    def add(
        self,
        loss: float,
        terms: Mapping[str, float],
        norm: float,
        rate: float,
        tokens: int,
        seconds: float,
    ) -> None:
        self._losses.append(loss)
        self._terms, self._norm, self._rate = dict(terms), norm, rate
        self._tokens += tokens
        self._seconds += seconds

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of this object."""
        return {
            "loss": self.loss,
            "losses": self._losses,
            "tokens": self._tokens,
            "seconds": self._seconds,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.loss = state.get("loss", math.nan)
        self._losses = list(state.get("losses", ()))
        self._tokens, self._seconds = state.get("tokens", 0), state.get("seconds", 0.0)

    def figures(self) -> dict[str, Any]:
        """Mean loss and speed since the last line; the newest of everything else."""
        self.loss = math.fsum(self._losses) / len(self._losses)
        figures = {
            "loss": self.loss,
            "terms": self._terms,
            "learning_rate": self._rate,
            "grad_norm": self._norm,
            "tokens_per_second": round(self._tokens / max(self._seconds, 1e-9), 1),
        }
        self._clear()
        return figures


def _step_seed(*key: int) -> int:
    """Of dropout: each step and rank has its own, whatever was drawn before it."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def every(setting: int | str, total: int, per_epoch: int) -> int:
    """Steps between events; ``auto`` is ten times a run, and at least once an epoch."""
    if isinstance(setting, int):
        return setting
    return max(1, min(math.ceil(total / 10), per_epoch))
