"""Figures since the last log line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from luthier.engine.checkpoint import State


def parted(terms: Mapping[str, float], watched: Mapping[str, float]) -> dict[str, Any]:
    """Terms of a loss as an event has them; what is watched by itself, where there is any."""
    return {"terms": terms, **({"watched": watched} if watched else {})}


class Recent:
    """What the next log line will say; part of a checkpoint."""

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
        watched: Mapping[str, float],
        norm: float,
        rate: float,
        tokens: int,
        seconds: float,
    ) -> None:
        """Takes one step's figures."""
        self._losses.append(loss)
        self._terms, self._norm, self._rate = dict(terms), norm, rate
        self._watched = dict(watched)
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

    def line(self, state: State, per_epoch: int, memory: int) -> dict[str, Any]:
        """The log's next line, and a new beginning."""
        return {
            "kind": "step",
            "epoch": round(state.step / per_epoch, 4),
            "tokens": state.tokens,
            **self.figures(),
            "memory": memory,
            "seconds": round(state.seconds, 3),
            "skipped": state.skipped,
        }

    def figures(self) -> dict[str, Any]:
        """Mean loss and speed since the last line; the newest of everything else."""
        self.loss = math.fsum(self._losses) / len(self._losses)
        figures = {
            "loss": self.loss,
            **parted(self._terms, self._watched),
            "learning_rate": self._rate,
            "grad_norm": self._norm,
            "tokens_per_second": round(self._tokens / max(self._seconds, 1e-9), 1),
        }
        self._clear()
        return figures
