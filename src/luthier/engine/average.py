"""An exponential moving average of what is trained, evaluated and kept in its place.

``a <- d a + (1 - d) w`` after every update (Polyak & Juditsky 1992; its exponential form as in
Tarvainen & Valpola 2017, arXiv 1703.01780). So that the first weights do not weigh for longer than
the run has lasted, ``d = min(decay, (n + 1) / (n + 10))`` after ``n`` updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """See the module.

    Args:
        parameters: name -> what is trained; the average starts as it stands.
        decay: d, of the recipe; where it is unset, there is no average and nothing here does
            anything.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float | None) -> None:
        self._parameters = {} if decay is None else parameters
        self._decay = decay
        self.values = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Takes the weights in, after so many updates."""
        if self._decay is None:
            return
        share = 1 - min(self._decay, (updates + 1) / (updates + 10))
        for name, value in self.values.items():
            value.lerp_(self._parameters[name].detach(), share)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """While open, the model computes with the average."""
        current = {name: p.data for name, p in self._parameters.items()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(current)

    @torch.no_grad()
    def take(self) -> None:
        """The weights become the average."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.values[name])

    @torch.no_grad()
    def load(self, kept: Mapping[str, Tensor] | None) -> None:
        """What a checkpoint kept; the weights as they stand where it kept none."""
        for name, value in self.values.items():
            value.copy_((self._parameters if kept is None else kept)[name])

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = values[name]
