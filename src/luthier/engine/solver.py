"""A head on a frozen trunk, solved for with all rows at once instead of trained step by step.

``mean loss + l2 / 2 sum |W|^2`` over the head's matrices, by L-BFGS with a strong Wolfe line search
(Liu & Nocedal 1989) until the gradient is flat: convex, with one answer, for a linear head; to a
nearby minimum for a head with a hidden layer. Then all scores are divided by one number that makes
the probabilities of rows held out for it as honest as they can be (temperature scaling, Guo et al.
2017, arXiv 1706.04599); the number is worked into the head's last matrix, so that whoever loads
the result gets calibrated probabilities and no prediction changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from luthier.core.contracts import HeadedModel
from luthier.core.contracts_beside import Solve
from luthier.core.records import Batch, Ints
from luthier.engine.loop import Loop
from luthier.engine.trunk_cache import CachedTrunk
from luthier.ops.calibration import binned, expected_error

#: Strengths that ``l2: auto`` chooses from, the strongest first: each starts from the one before.
STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
#: Iterations between two looks at signals, and log lines.
_CHUNK = 10
#: Fewer rows than these hold nothing out.
_FEW = 20


@dataclass
class Solver(Loop):
    """See the module.

    Attributes:
        solve: how.
        rows: chosen rows of the trunk's activations as one batch without tokens.
    """

    solve: Solve = field(kw_only=True)
    rows: Callable[[Ints], Batch] = field(kw_only=True)

    def _train(self) -> Literal["finished", "early", "stopped"]:
        module, count = self.models.policy.module, len(self.data.train)
        module.eval()
        order = np.random.default_rng((self.spec.seed, count)).permutation(count)
        spare = round(count * self.solve.held) if count >= _FEW else 0
        fitted, held = np.sort(order[spare:]), np.sort(order[:spare])
        factor = 1.0
        l2 = self.solve.l2 if self.solve.l2 is not None else STRENGTHS[2]
        if spare and (self.solve.calibrate or self.solve.l2 is None):
            chosen = self._strength(self.rows(fitted), self.rows(held))
            if chosen is None:
                return "stopped"
            l2, factor = chosen
        if not self._fit(self.rows(np.arange(count)), l2):
            return "stopped"
        if factor != 1.0:
            _scale(module, 1 / factor)
        if self.data.validation:
            self._validate()
        self._save()
        return "finished"

    def _strength(self, fitted: Batch, held: Batch) -> tuple[float, float] | None:
        """The best strength, and the temperature that goes with it; ``None`` at a signal."""
        tried = STRENGTHS if self.solve.l2 is None else (self.solve.l2,)
        best: tuple[float, float, float, dict[str, Tensor]] | None = None
        for l2 in tried:
            if not self._fit(fitted, l2):
                return None
            factor, loss = self._temperature(held) if self.solve.calibrate else (1.0, 0.0)
            loss = loss if self.solve.calibrate else float(self._loss(held))
            if best is None or loss < best[0]:
                kept = {name: p.detach().clone() for name, p in self.parameters.items()}
                best = (loss, l2, factor, kept)
        assert best is not None
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(best[3][name])
        self._say_chosen(held, best[1], best[2])
        return best[1], best[2]

    def _fit(self, batch: Batch, l2: float) -> bool:
        """Minimises in place; false where a signal ended it."""
        parameters = list(self.parameters.values())
        optimizer = torch.optim.LBFGS(
            parameters,
            max_iter=_CHUNK,
            max_eval=4 * _CHUNK,
            tolerance_grad=self.solve.tolerance,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            optimizer.zero_grad()
            matrices = [p for p in parameters if p.ndim >= 2]
            loss = self._loss(batch) + l2 / 2 * torch.stack([(p**2).sum() for p in matrices]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        done = 0
        while done < self.solve.iterations:
            begun = time.perf_counter()
            loss = float(optimizer.step(closure))  # type: ignore[no-untyped-call]
            state = optimizer.state[parameters[0]]
            taken, done = state["n_iter"] - done, state["n_iter"]
            seconds = time.perf_counter() - begun
            self.state.step = min(self.state.step + taken, self.data.total)
            self.state.seconds += seconds
            norm = float(torch.stack([p.grad.norm() for p in parameters]).norm())
            means = {"loss": loss}
            self._recent.add(loss, means, {}, norm, 0.0, len(self.data.train) * taken, seconds)
            self._log_step()
            if self.stop.together(self.backend):
                return False
            if taken < _CHUNK:
                break
        return True

    def _loss(self, batch: Batch) -> Tensor:
        """The objective's terms, each over its weight."""
        with self.backend.arithmetic():
            terms = self.objective.loss(self.models, batch)
        weights = self.objective.weights(batch)
        means = [terms[n] / weights[n] for n in sorted(terms) if weights[n]]
        return torch.stack(means).sum()

    def _temperature(self, held: Batch) -> tuple[float, float]:
        """The number that the scores are best divided by, and the loss with it."""
        policy, exponent = self.models.policy, torch.zeros((), device=self.backend.device)
        exponent.requires_grad_()
        optimizer = torch.optim.LBFGS([exponent], max_iter=50, line_search_fn="strong_wolfe")
        self.models.policy = Tempered(policy, held, exponent)

        def closure() -> float:
            optimizer.zero_grad()
            loss = self._loss(held)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        try:
            optimizer.step(closure)  # type: ignore[no-untyped-call]
            with torch.no_grad():
                return float(exponent.exp()), float(self._loss(held))
        finally:
            self.models.policy = policy

    def _say_chosen(self, held: Batch, l2: float, factor: float) -> None:
        words = f"l2 {l2:g}"
        event: dict[str, Any] = {"kind": "solved", "l2": l2, "held": _count(held)}
        if self.solve.calibrate:
            event["temperature"] = factor
            words += f", temperature {factor:.3f}"
            [table] = held.targets.values()
            labels = table["label"]
            if labels.ndim == 1 and not labels.is_floating_point():
                scores = _scores(self.models.policy, held)
                errors = [_error(scores / t, labels) for t in (1.0, factor)]
                event["calibration_error"] = dict(zip(("before", "after"), errors, strict=True))
                words += f": calibration error {errors[0]:.4f} to {errors[1]:.4f}"
        event["message"] = f"{words}, on {_count(held):,} rows held out for it"
        self._log(event)


class Tempered(CachedTrunk):
    """A model whose scores are divided by ``e`` to a number that can be learned.

    Args:
        model: its head is run once.
        batch: the rows that will be asked for.
        exponent: a scalar.
    """

    def __init__(self, model: HeadedModel, batch: Batch, exponent: Tensor) -> None:
        [head] = batch.targets
        super().__init__(model, head)
        self._exponent, self._scores = exponent, _scores(model, batch)

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        """The softened scores of the batch."""
        return self._scores / self._exponent.exp()


def _scores(model: HeadedModel, batch: Batch) -> Tensor:
    [(head, table)] = batch.targets.items()
    with torch.no_grad():
        rows = model.pooled(batch, model.hidden(batch), table["segment"])
        return model.outputs(head, rows).float()


def _error(scores: Tensor, labels: Tensor) -> float:
    known = labels >= 0
    sure, said = scores[known].softmax(-1).max(-1)
    right = said == labels[known]
    return float(expected_error(binned(sure.cpu().numpy(), right.cpu().numpy())))


def _count(batch: Batch) -> int:
    [table] = batch.targets.values()
    return len(table["segment"])


def _scale(module: nn.Module, factor: float) -> None:
    """Multiplies what the head's last matrix gives."""
    names = getattr(module, "head_names", ())
    layers = [m for name in names for m in module.get_submodule(name).modules()]
    last = [m for m in layers if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(factor)
