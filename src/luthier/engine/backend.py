"""Devices, ranks, precision and every scaling of gradients; the only file that knows accelerate.

DDP and FSDP average gradients over ranks, accelerate's own backward divides by its accumulation
count, and averages of averages are wrong. Here each loss term is divided once by its weight over
the whole step, all micro-batches and ranks together, and the ranks' average is undone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16", "float16"]
T = TypeVar("T")


class Backend:
    """One process's place in the run.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: arithmetic of forward and backward; weights and their gradients are float32.
    """

    def __init__(self, device: str = "auto", precision: Precision = "float32") -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.ranks: int = self._accelerator.num_processes
        self.precision = precision
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as the ranks share it; itself where there is one rank."""
        wrapped = self._accelerator.prepare_model(module)
        assert isinstance(wrapped, nn.Module)
        return wrapped

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The run's precision, for forward passes."""
        if self.precision == "float32":
            yield
        else:
            with torch.autocast(self.device.type, getattr(torch, self.precision)):
                yield

    def totals(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Sums over all ranks; every rank gives the same names."""
        if self.ranks == 1:
            return dict(sums)
        names = sorted(sums)
        values = torch.tensor([sums[n] for n in names], dtype=torch.float64, device=self.device)
        total = self._accelerator.reduce(values, reduction="sum")
        return dict(zip(names, total.tolist(), strict=True))

    def sums(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors added over all ranks; every rank gives the same names and shapes."""
        if self.ranks == 1:
            return dict(figures)
        return {
            name: self._accelerator.reduce(figures[name], reduction="sum")
            for name in sorted(figures)
        }

    def gathered(self, mine: list[T]) -> list[list[T]]:
        """What every rank has, rank by rank; plain objects, not tensors on a device."""
        if self.ranks == 1:
            return [mine]
        from accelerate.utils import gather_object

        found: list[list[T]] = gather_object([mine])
        return found

    def agree(self, flag: bool) -> bool:
        """Whether any rank says so: what all do next is decided together."""
        return self.totals({"flag": float(flag)})["flag"] > 0

    def backward(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> None:
        """Adds one micro-batch's gradient.

        Args:
            terms: sums over the micro-batch.
            weights: each term's weight over the whole step, all ranks; a term of weight 0 adds
                nothing.
        """
        parts = [terms[n] / weights[n] if weights[n] else terms[n] * 0 for n in sorted(terms)]
        loss = sum(parts) * self.ranks
        assert isinstance(loss, Tensor)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    @contextmanager
    def accumulating(self, wrapped: nn.Module, *, last: bool) -> Iterator[None]:
        """Around a forward and backward pass: ranks exchange gradients on the last one only."""
        with nullcontext() if last else self._accelerator.no_sync(wrapped):
            yield

    def clip(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], bound: float | None
    ) -> Tensor:
        """Scales gradients to a global norm of at most ``bound``; returns the norm before."""
        self._scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if bound is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, bound, norm)
        return norm

    def update(self, optimizer: torch.optim.Optimizer, *, healthy: bool) -> None:
        """One optimizer update, or none where the gradient is not finite."""
        if healthy:
            self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def rescaling(self, loss: float, norm: float) -> bool:
        """Whether only float16's loss scale is too large for the norm; :meth:`update` mends it."""
        overflow = self._scaler.is_enabled() and math.isfinite(loss) and not math.isfinite(norm)
        return overflow and self._scaler.get_scale() > 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of this object."""
        return self._scaler.state_dict()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        if state:
            self._scaler.load_state_dict(dict(state))

    def barrier(self) -> None:
        """Waits for all ranks."""
        self._accelerator.wait_for_everyone()

    def memory(self) -> int:
        """Peak bytes that this process has used, on its device or else in main memory."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
