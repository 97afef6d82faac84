"""A trunk run in two halves: its lowest blocks, whose output is kept, and the others on that.

``N`` tokens of a packed row, ``H`` hidden size. Both halves are the architecture's own forward
pass with some blocks handing on what they are given, so that positions, rotary angles, masks and
segment tables reach every block as they always do. Modules, names and parameters stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from luthier.ops.anatomy import blocks


class Halves:
    """See the module.

    Args:
        model: with its heads, possibly under adapters.
        depth: blocks of the lower half, at least one.
    """

    def __init__(self, model: nn.Module, depth: int) -> None:
        every = blocks(model)
        assert 0 < depth <= len(every), depth
        self._lower, self._upper = every[:depth], every[depth:]
        self._like: Tensor | None = None
        self._tuples = False

    @contextmanager
    def below(self) -> Iterator[list[Tensor]]:
        """While open, the upper blocks hand on; gets what the lower ones give, as they give it."""
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _given: Any, out: Any) -> None:
            self._tuples = isinstance(out, tuple)
            states = out[0] if self._tuples else out
            self._like = states.detach()[:0, :0]
            seen.append(states)

        handle = self._lower[-1].register_forward_hook(keep)
        try:
            with _replaced(self._upper, self._handing_on):
                yield seen
        finally:
            handle.remove()

    @contextmanager
    def above(self, states: Tensor, length: int) -> Iterator[None]:
        """While open, the lower blocks give these states in place of their own.

        Args:
            states: ``[N, H]``; none of a batch that stands for no work.
            length: tokens of the row, its filling included.
        """
        assert self._like is not None, "the lower half was never run"
        row = F.pad(states, (0, 0, 0, length - len(states)))[None].to(self._like.dtype)

        def give(*_given: Any, **_more: Any) -> Any:
            return (row,) if self._tuples else row

        with _replaced(self._lower[:-1], self._handing_on), _replaced(self._lower[-1:], give):
            yield

    def _handing_on(self, *given: Any, **more: Any) -> Any:
        states = given[0] if given else more["hidden_states"]
        return (states,) if self._tuples else states


@contextmanager
def _replaced(modules: Sequence[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Modules computing something else; what an instance had as its own comes back."""
    before = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = forward
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            if own is None:
                del module.forward
            else:
                module.forward = own
