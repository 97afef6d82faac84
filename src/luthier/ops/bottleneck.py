"""Bottleneck adapters: small layers behind the sub-layers of frozen blocks.

``h + U f(D h)`` with ``D`` from ``H`` to ``H / reduction_factor`` and ``U`` back, on the output of
a sub-layer before the block adds it to its input; ``U`` begins at zero, so that the model begins as
it was. Behind attention and feed-forward: Houlsby et al. 2019, arXiv 1902.00751; behind the
feed-forward alone: Pfeiffer et al. 2021, arXiv 2005.00247. Departures: the adapter reads what the
sub-layer's last matrix gives, before dropout and before any norm that follows, and Pfeiffer's does
not read the block's norm in addition.

Several stand side by side on one model, by name; at most one of them computes. The base keeps its
modules and the names of its weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from luthier.core.errors import UserError, nearest
from luthier.ops import anatomy

CONFIG = "bottleneck_config.json"
WEIGHTS = "bottleneck.safetensors"
#: The name under which a run trains and saves its adapter.
DEFAULT = "default"
#: Attribute of a matrix that adapters sit on, and of a model that has some.
_SLOT, _OWN = "bottlenecks", "_bottlenecks"
_SUBLAYERS = ("attention", "cross_attention", "feed_forward")

Placement = Literal["pfeiffer", "houlsby"]
Activation = Literal["relu", "gelu", "silu", "tanh"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


@dataclass(frozen=True)
class Shape:
    """What an adapter looks like.

    Attributes:
        placement: ``pfeiffer`` (behind the feed-forward) or ``houlsby`` (behind attention too).
        reduction_factor: the hidden size over the bottleneck's width.
        activation: the nonlinearity ``f``.
        layer_norm: whether the bottleneck reads its input through a norm of its own.
    """

    placement: Placement = "pfeiffer"
    reduction_factor: float = 16.0
    activation: Activation = "gelu"
    layer_norm: bool = False

    @property
    def sublayers(self) -> tuple[str, ...]:
        """The sub-layers that have one, of those that a block has."""
        return _SUBLAYERS if self.placement == "houlsby" else _SUBLAYERS[-1:]


class Bottleneck(nn.Module):
    """One adapter behind one sub-layer: ``[..., H] -> [..., H]``."""

    def __init__(self, hidden: int, shape: Shape) -> None:
        super().__init__()
        width = max(1, round(hidden / shape.reduction_factor))
        self.norm = nn.LayerNorm(hidden) if shape.layer_norm else nn.Identity()
        self.down = nn.Linear(hidden, width)
        self.activation = _ACTIVATIONS[shape.activation]()
        self.up = nn.Linear(width, hidden)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor) -> Tensor:
        """The states, and what the bottleneck adds to them."""
        added: Tensor = self.up(self.activation(self.down(self.norm(states))))
        return states + added


class _Slot(nn.ModuleDict):
    """The adapters of one matrix by name, of which one computes or none."""

    active: str | None = None


def _adapted(matrix: nn.Module, _given: Any, out: Tensor) -> Tensor:
    slot = getattr(matrix, _SLOT)
    if slot.active is None:
        return out
    changed: Tensor = slot[slot.active](out)
    return changed


class Adapters:
    """The bottleneck adapters of a model.

    >>> adapters = Adapters.of(model)                        # doctest: +SKIP
    >>> adapters.load("runs/intents/model", "intents")       # doctest: +SKIP
    >>> adapters.load("runs/moods/model", "moods")           # doctest: +SKIP
    >>> adapters.activate("moods")                           # doctest: +SKIP

    Attributes:
        shapes: name -> what the adapter looks like.
        active: the one that computes, or ``None``.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = anatomy.unwrapped(model)
        self.shapes: dict[str, Shape] = {}
        self.active: str | None = None
        self._heads: dict[str, tuple[dict[str, Tensor], list[str]]] = {}

    @classmethod
    def of(cls, model: nn.Module) -> Adapters:
        """The adapters that a model has, possibly none yet."""
        inner = anatomy.unwrapped(model)
        if getattr(inner, _OWN, None) is None:
            setattr(inner, _OWN, cls(model))
        found: Adapters = getattr(inner, _OWN)
        return found

    def add(self, name: str, shape: Shape) -> None:
        """A fresh adapter, which computes nothing yet.

        Raises:
            UserError: a name that is taken or no name, or blocks that are not understood.
        """
        if name in self.shapes or not name or "." in name:
            taken = "is taken" if name in self.shapes else "must be letters without a dot"
            raise UserError(f"adapter '{name}': the name {taken}", code="adapter")
        hidden = int(self._model.config.get_text_config().hidden_size)
        found = [sublayers(block, hidden) for block in anatomy.blocks(self._model)]
        for matrices in found:
            for sublayer in shape.sublayers:
                if (matrix := matrices.get(sublayer)) is not None:
                    _slot(matrix)[name] = _fitting(matrix, hidden, shape)
        self.shapes[name] = shape

    def load(self, folder: str | Path, name: str = DEFAULT) -> None:
        """An adapter from a folder, and the head that was trained with it.

        Raises:
            UserError: there is none, or it belongs to another model.
        """
        folder = Path(folder)
        settings = read_config(folder)
        self.add(name, Shape(**settings["shape"]))
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as stream:
                tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
            head = {k: t for k, t in tensors.items() if not k.startswith("blocks.")}
            own = {k: t for k, t in tensors.items() if k.startswith("blocks.")}
            wanted = self._tensors(name)
            if own.keys() != wanted.keys():
                raise ValueError(f"it has {len(own)} tensors, and {len(wanted)} are wanted")
            with torch.no_grad():
                for key, tensor in own.items():
                    if tensor.shape != wanted[key].shape:
                        raise ValueError(f"{key} is {list(tensor.shape)}")
                    wanted[key].copy_(tensor)
            self._keep_head(name, head, settings["labels"])
        except (OSError, ValueError, RuntimeError) as error:
            self.remove(name)
            raise UserError(
                f"adapter '{folder}' does not fit its base: {str(error).splitlines()[0][:300]}",
                code="adapter",
            ) from error

    def save(self, folder: str | Path, name: str = DEFAULT) -> None:
        """An adapter and the model's own head: safetensors and a small JSON file."""
        config = self._model.config
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {**self._tensors(name), **self._head()}
        kept = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
        save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
        settings = {
            "format": 1,
            "base_model_name_or_path": config._name_or_path,
            "shape": asdict(self.shapes[name]),
            "labels": self._labels(),
        }
        (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def activate(self, name: str) -> None:
        """From now on this one computes, and the head that it was loaded with reads it.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self.shapes:
            raise UserError(f"no adapter '{name}': {nearest(name, self.shapes)}", code="adapter")
        head = {key: p.detach().clone() for key, p in self._head().items()}
        if head and self.active is not None:
            self._heads[self.active] = (head, self._labels())
        self._switch(name)
        if name in self._heads:
            tensors, labels = self._heads[name]
            with torch.no_grad():
                for key, parameter in self._head().items():
                    parameter.copy_(tensors[key])
            self._model.config.id2label = dict(enumerate(labels))
            self._model.config.label2id = {label: i for i, label in enumerate(labels)}

    def deactivate(self) -> None:
        """From now on the blocks compute what the base does; a head stays as it is."""
        self._switch(None)

    def remove(self, name: str) -> None:
        """Takes an adapter off."""
        if self.active == name:
            self.deactivate()
        del self.shapes[name]
        self._heads.pop(name, None)
        for slot in self._slots().values():
            if name in slot:
                del slot[name]

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """While open, none computes."""
        before = self.active
        self._switch(None)
        try:
            yield
        finally:
            self._switch(before)

    def parameters(self, name: str = DEFAULT) -> dict[str, nn.Parameter]:
        """An adapter's weights, named after their place: block, sub-layer, part."""
        return {
            f"{place}.{key}": parameter
            for place, slot in self._slots().items()
            if name in slot
            for key, parameter in slot[name].named_parameters()
        }

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return dict(self.parameters(name))

    def _switch(self, name: str | None) -> None:
        self.active = name
        for slot in self._slots().values():
            slot.active = name if name is not None and name in slot else None

    def _slots(self) -> dict[str, _Slot]:
        """Place -> the slot there."""
        hidden = int(self._model.config.get_text_config().hidden_size)
        return {
            f"blocks.{i}.{sublayer}": getattr(matrix, _SLOT)
            for i, block in enumerate(anatomy.blocks(self._model))
            for sublayer, matrix in sublayers(block, hidden).items()
            if hasattr(matrix, _SLOT)
        }

    def _head(self) -> dict[str, nn.Parameter]:
        """The parameters of a fresh head, by name; a pretrained one is the base's."""
        return {
            f"head.{part}.{key}": parameter
            for part in getattr(self._model, "head_names", ())
            for key, parameter in self._model.get_submodule(part).named_parameters()
        }

    def _labels(self) -> list[str]:
        names = self._model.config.id2label if self._head() else {}
        return [str(names[i]) for i in sorted(names)]

    def _keep_head(self, name: str, tensors: dict[str, Tensor], labels: list[str]) -> None:
        mine = {key: list(p.shape) for key, p in self._head().items()}
        theirs = {key: list(tensor.shape) for key, tensor in tensors.items()}
        if mine != theirs:
            raise ValueError(
                f"it was trained under a head of {len(labels)} outputs, and this model has "
                f"{len(self._labels())}"
            )
        if tensors:
            self._heads[name] = (tensors, labels)


def read_config(folder: Path) -> dict[str, Any]:
    """What the JSON file beside an adapter says.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        Shape(**settings["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{folder}' holds no bottleneck adapter that can be read: {error}", code="adapter"
        ) from error
    return settings


def has_adapters(model: nn.Module) -> bool:
    """Whether bottlenecks stand on a model."""
    found = getattr(anatomy.unwrapped(model), _OWN, None)
    return found is not None and bool(found.shapes)


def refuse(model: nn.Module) -> None:
    """For what can only go on from plain weights.

    Raises:
        UserError: the model has adapters, which cannot be added to its matrices.
    """
    if has_adapters(model):
        raise UserError(
            "the model has bottleneck adapters, and no matrix computes what their nonlinearity "
            "does: they cannot be merged",
            cure="go on with method: adapter, or start from the base; `luthier chat`, `generate` "
            "and the run's own folder take the adapter as it is",
            code="merge",
        )


def sublayers(block: nn.Module, hidden: int) -> dict[str, nn.Module]:
    """The output matrices of a block's attention, cross-attention and feed-forward part.

    The last matrix of each, as every block registers them: the one that comes back to the hidden
    size. A decoder that reads an encoder has two attentions, its own before the other.

    Raises:
        UserError: a block of another build: experts, a third attention, or not one of each.
    """
    matrices = {
        name: module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if f".{_SLOT}." not in f".{name}."
    }
    parts: dict[str, list[str]] = {}
    for name in matrices:
        parts.setdefault(_attention(name), []).append(name)
    inner = parts.pop("", [])
    strange = [name for name in matrices if "expert" in name.lower()]
    whole = 1 <= len(parts) <= 2 and all(len(names) <= 6 for names in parts.values())
    if strange or not whole or not 2 <= len(inner) <= 3:
        strange = strange or [*matrices]
    else:
        ends = [matrices[names[-1]] for names in (*parts.values(), inner)]
        kinds = _SUBLAYERS if len(parts) == 2 else (_SUBLAYERS[0], _SUBLAYERS[-1])
        if all(_out(matrix) == hidden for matrix in ends):
            return dict(zip(kinds, ends, strict=True))
    raise UserError(
        f"the blocks of '{type(block).__name__}' are not one attention and one feed-forward part "
        f"({', '.join((strange or [*matrices])[:6])}): where adapters belong is not known",
        cure="take method: lora, or freeze",
        code="architecture",
    )


def _attention(name: str) -> str:
    """The path to the attention that a matrix is of; empty of a feed-forward part's."""
    path = name.split(".")
    for end, part in enumerate(path, 1):
        if "attn" in part.lower() or "attention" in part.lower():
            return ".".join(path[:end])
    return ""


def _out(matrix: Any) -> int:
    return int(matrix.nf if hasattr(matrix, "nf") else matrix.out_features)


def _slot(matrix: nn.Module) -> _Slot:
    if not hasattr(matrix, _SLOT):
        setattr(matrix, _SLOT, _Slot())
        matrix.register_forward_hook(_adapted)
    slot: _Slot = getattr(matrix, _SLOT)
    return slot


def _fitting(matrix: nn.Module, hidden: int, shape: Shape) -> Bottleneck:
    """A fresh one on the matrix's device, in its arithmetic where that is a plain one."""
    weight: Any = matrix.weight
    dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
    return Bottleneck(hidden, shape).to(device=weight.device, dtype=dtype)
