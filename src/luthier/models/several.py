"""One trunk under several heads, each what it would be alone.

A head is an architecture's own (or a linear one on pooled states), taken off the trunk that it came
with and put on the one that all share; what of a trunk only a head reads (BERT's pooler) goes with
the head. ``R`` rows, ``H`` hidden size.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from luthier.core.contracts import Head
from luthier.core.errors import RecipeError
from luthier.core.records import Batch
from luthier.models import heads, masked_lm, token_heads
from luthier.models.headed import World, is_encoder
from luthier.models.language_model import CausalModel
from luthier.models.trunk import TrunkModel
from luthier.ops.anatomy import unwrapped

HEAD = "several"
#: Beside the trunk: the heads' weights, and what they are.
WEIGHTS_FILE, HEADS_FILE = "heads.safetensors", "heads.json"
#: Behind a task's name in the names of weights, for modules have attributes of many names.
_SUFFIX = "_head"


def _language_model(
    name: str, _head: Head, options: dict[str, Any], config: Any, _seed: int
) -> tuple[nn.Module, list[str]]:
    from transformers import AutoModelForCausalLM

    given = {"use_safetensors": True, "config": config, "dtype": torch.float32, **options}
    return AutoModelForCausalLM.from_pretrained(name, **given), []


def _empty_language_model(
    name: str, _head: Head, config: Any, _options: dict[str, Any]
) -> nn.Module:
    from transformers import AutoModelForCausalLM

    if is_encoder(config):
        raise RecipeError(
            f"'{name}' ({config.model_type}) is an encoder: it has no language-model head",
            cure="kind: masked_lm for this task, or take a decoder",
        )
    with torch.device("meta"):
        return cast("nn.Module", AutoModelForCausalLM.from_config(config))


#: Heads that may stand side by side.
SINGLE: Mapping[str, World] = {
    "classification": heads.WORLD,
    token_heads.HEAD: token_heads.WORLD,
    masked_lm.HEAD: masked_lm.WORLD,
    "lm": World("CausalLM", CausalModel, lambda *_: None, _language_model, _empty_language_model),
}


class SeveralHeads(nn.Module):
    """A trunk, and heads on it.

    Args:
        made: what each head is, with its name, and a model for it. Their trunks hold the same
            weights; each is taken apart before the next is asked for, so that two trunks are in
            memory at most.

    Attributes:
        trunk: of one of them, with every other's head on it; adapters may sit on it.
        heads: what is left of the models, by name.
        head_names: submodules that no pretraining made.
    """

    head_names: tuple[str, ...]

    def __init__(self, made: Iterable[tuple[Head, nn.Module]]) -> None:
        super().__init__()
        parts: list[Head] = []
        names: list[str] = []
        for part, module in made:
            if not parts:
                self.trunk: nn.Module = unwrapped(_trunk_of(module))
                self.heads = nn.Module()
            parts.append(part)
            fresh = [name for name in getattr(module, "head_names", ()) if name]
            _taken_off(module)
            _put_on(module, self.trunk)
            self.heads.add_module(f"{part.name}{_SUFFIX}", module)
            own = [f"heads.{part.name}{_SUFFIX}.{name.rpartition('.')[2]}" for name in fresh]
            # Where a head is trained, what is random in training goes with it.
            names += [*own, f"heads.{part.name}{_SUFFIX}.dropout"] if own else []
        self.parts = tuple(parts)
        there = dict(self.named_modules())
        self.head_names = tuple(name for name in names if name in there)

    def head_of(self, name: str) -> Any:
        """A task's head: a model without its trunk."""
        return self.heads.get_submodule(f"{name}{_SUFFIX}")

    @property
    def config(self) -> Any:
        """The trunk's."""
        return unwrapped(self.trunk).config

    def set_attn_implementation(self, name: str) -> None:
        """As transformers' own models have it."""
        unwrapped(self.trunk).set_attn_implementation(name)

    def forward(self, **inputs: Any) -> Any:
        """The trunk's hidden states."""
        return self.trunk(**inputs)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """The trunk (weights or adapter) in its own format, the heads beside it."""
        cast("Any", self.trunk).save_pretrained(folder, **options)
        self.save_head(Path(folder))

    def save_head(self, folder: Path) -> None:
        """The heads alone, without what they share with the trunk or one another's matrices."""
        shared = {id(p) for p in self.trunk.parameters()}
        kept = {
            name: p.detach().cpu().contiguous()
            for name, p in self.heads.named_parameters()
            if id(p) not in shared
        }
        save_file(kept, folder / WEIGHTS_FILE)
        said = json.dumps([asdict(part) for part in self.parts], indent=2, ensure_ascii=False)
        (folder / HEADS_FILE).write_text(said + "\n", encoding="utf-8")

    def load_head(self, folder: Path) -> None:
        """The inverse of :meth:`save_head`; heads that the folder has otherwise stay as they are.

        Raises:
            ValueError: a head of the folder's does not fit.
        """
        old = {part.name: part for part in saved(folder)}
        mine = dict(self.heads.named_parameters())
        own = [f"{part.name}{_SUFFIX}." for part in self.parts if old.get(part.name) == part]
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as stream, torch.no_grad():
            for name in stream.keys():  # noqa: SIM118
                if any(name.startswith(each) for each in own):
                    tensor = stream.get_tensor(name)
                    if name not in mine or mine[name].shape != tensor.shape:
                        raise ValueError(f"{WEIGHTS_FILE}: '{name}' does not fit")
                    mine[name].copy_(tensor)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> SeveralHeads:
        """What :meth:`save_pretrained` wrote of a trunk with full weights."""
        from transformers import AutoConfig

        given = {"use_safetensors": True, "local_files_only": True}
        config = AutoConfig.from_pretrained(folder)
        head = Head(HEAD, parts=saved(Path(folder)))
        made, _ = build(str(folder), head, given, config, 0)
        assert isinstance(made, cls)
        return made.to(options.get("dtype", torch.float32))


def _trunk_of(module: Any) -> Any:
    return module.trunk if isinstance(module, heads.PooledClassifier) else module.base_model


def _taken_off(module: Any) -> None:
    """Takes a model's trunk away, and leaves it what only its head reads."""
    trunk = _trunk_of(module)
    pooler = getattr(trunk, "pooler", None)
    if pooler is not None:
        module.own_pooler = pooler
        trunk.pooler = None
        names = tuple(getattr(module, "head_names", ()))
        module.head_names = tuple(n.replace(f"{module.base_model_prefix}.", "") for n in names)
    del module._modules[_place(module)]


def _put_on(module: Any, trunk: nn.Module) -> None:
    """A head on a trunk, which is no part of it: whoever holds both has its weights once."""
    object.__setattr__(module, _place(module), trunk)
    output = getattr(module, "get_output_embeddings", lambda: None)()
    if output is not None and getattr(module.config, "tie_word_embeddings", False):
        output.weight = cast("Any", trunk).get_input_embeddings().weight


def _place(module: Any) -> str:
    pooled = isinstance(module, heads.PooledClassifier)
    return "trunk" if pooled else str(module.base_model_prefix)


class SeveralModel(TrunkModel):
    """A trunk with several heads as objectives see it.

    Args:
        module: a :class:`SeveralHeads`, its trunk possibly under adapters.
    """

    @property
    def head(self) -> Head:
        """All heads."""
        return Head(HEAD, parts=self.base.parts)

    @property
    def trunk(self) -> nn.Module:
        """The blocks below the heads."""
        return cast("nn.Module", unwrapped(self.base.trunk))

    @property
    def causal(self) -> bool:
        """Decoders are; encoders see a segment wholly."""
        return not is_encoder(self.config)

    def view(self, name: str) -> Any:
        """The model of one head alone, on the same trunk."""
        [part] = [each for each in self.base.parts if each.name == name]
        return SINGLE[part.kind].model(self.module, self.base.head_of(name))

    def heads(self, batch: Batch) -> Mapping[str, Any]:
        """Each head as a model of its own; the trunk runs once for all of them."""
        states = self.hidden(batch)
        made = {}
        for part in self.base.parts:
            made[part.name] = self.view(part.name)
            made[part.name].hidden = _Given(states)
        return made

    def check(self) -> None:
        """Each head was compared with the architecture's own when it was made."""

    def nll(self, batch: Batch, hidden: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Each head has its own."""
        raise AssertionError("ask a head")

    def logprobs(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Each head has its own."""
        raise AssertionError("ask a head")

    def logits(self, rows: Tensor) -> Tensor:
        """Each head has its own."""
        raise AssertionError("ask a head")


class _Given:
    """Hidden states that are known already."""

    def __init__(self, states: Tensor) -> None:
        self._states = states

    def __call__(self, _batch: Batch) -> Tensor:
        return self._states


def saved(folder: Path) -> tuple[Head, ...]:
    """The heads in a folder; none where there are none."""
    path = folder / HEADS_FILE
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return tuple(map(Head.of, found))


def kept(name: str, _config: Any) -> Head | None:
    """The heads that a folder comes with, if it has several."""
    parts = saved(Path(name))
    return Head(HEAD, parts=parts) if parts else None


def build(
    name: str, head: Head, options: dict[str, Any], config: Any, seed: int
) -> tuple[nn.Module, list[str]]:
    """A pretrained trunk under several heads, and what was decided, in words.

    A head that the folder comes with stays where it is the one wanted.

    Raises:
        OSError, ValueError: as transformers raises them where there is nothing to load.
        RecipeError: an architecture without one of the heads.
    """
    for part in head.parts:  # refuses before weights load
        SINGLE[part.kind].empty(name, part, copy.deepcopy(config), dict(options))
    folder = Path(name)
    old = {part.name: part for part in saved(folder)}
    said: list[str] = []

    def each() -> Iterator[tuple[Head, nn.Module]]:
        for number, part in enumerate(head.parts):
            world = SINGLE[part.kind]
            like = old.get(part.name)
            same = like is not None and _fits(like, part)
            wanted = like if same and like is not None else part
            given = dict(options), copy.deepcopy(config), seed + number
            module, words = world.build(name, wanted, *given)
            alone = world.model(module)
            if hasattr(alone, "check"):
                alone.check()
            said.extend([] if same else [f"{part.name}: {line}" for line in words])
            yield part if part.kind == "lm" else replace(alone.head, name=part.name), module

    made = SeveralHeads(each())
    if old:
        made.load_head(folder)
    return made, said


def _fits(old: Head, wanted: Head) -> bool:
    """Whether a head that there is can stand for one that is wanted."""
    return (
        (old.kind, old.labels) == (wanted.kind, wanted.labels)
        and wanted.pooling in (None, old.pooling)
        and wanted.hidden in (None, old.hidden)
        and wanted.problem_type in (None, old.problem_type)
    )


def empty(name: str, head: Head, config: Any, options: dict[str, Any]) -> nn.Module:
    """The same on torch's ``meta`` device, its weights unread."""

    def each() -> Iterator[tuple[Head, nn.Module]]:
        for part in head.parts:
            world = SINGLE[part.kind]
            module = world.empty(name, part, copy.deepcopy(config), dict(options))
            found = part if part.kind == "lm" else world.model(module).head
            yield replace(found, name=part.name), module

    return SeveralHeads(each())


WORLD = World("", SeveralModel, kept, build, empty)
