"""Where an online run's answers come from: its prompts, a generator on its weights, its rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from luthier.assemble import Parts
from luthier.core.contracts import OnlineObjective
from luthier.core.errors import RecipeError
from luthier.core.records import Example, Record
from luthier.data.order import Order, generator
from luthier.engine.backend import Backend
from luthier.generation.rollout import RolloutGenerator
from luthier.models.decoding import Decoding
from luthier.models.language_model import CausalModel
from luthier.models.plan import cached_bytes, free_memory

Say = Callable[[str], None]

#: Answers under way at most, and the share of the free memory that their keys and values may take.
_ROWS, _SHARE = 256, 0.2
#: Answers shown of a step.
_SHOWN = 4
#: In keys of generators: what is drawn for held-out prompts, and for prompts that replace others.
_HELD_OUT, _AGAIN = 2**31, 3


class PolicyRollouts:
    """See :class:`luthier.engine.online.Rollouts`.

    Args:
        parts: the run's, its method prepared.
        backend: arithmetic and device.
        order: which prompts each step takes.
        choices: learns how many answers are under way at once; a resumed run goes on with that.

    Raises:
        RecipeError: what cannot be sampled from, or has no meaning with samples.
    """

    def __init__(
        self, parts: Parts, backend: Backend, order: Order, choices: dict[str, Any]
    ) -> None:
        _check(parts)
        self._parts, self._backend, self._order = parts, backend, order
        assert isinstance(parts.objective, OnlineObjective)
        self._objective = parts.objective
        self._seed = parts.recipe.training.seed
        if "rollout_rows" not in choices:
            choices["rollout_rows"] = self._fitting()
        rows = int(choices["rollout_rows"])
        codec = parts.codec
        self._generator = RolloutGenerator(
            self._decoding, codec.decode, codec.end_tokens, lambda _: rows
        )

    def collect(self, step: int, rank: int, ranks: int) -> tuple[list[Example], int]:
        """This rank's prompts of a step with their answers, and how many were drawn for them."""
        mine = self._order.step(step)[rank::ranks]
        numbers = list(range(rank, rank + ranks * len(mine), ranks))
        every = self._answered(self._records, mine, numbers, (self._seed, step))
        objective, drawn = self._objective, len(mine)
        if not objective.redraws:
            return every, drawn
        kept = [example for example in every if objective.keeps(example)]
        for again in range(1, objective.redraws + 1):
            lacking = len(mine) - len(kept)
            if not lacking:
                break
            rng = generator(self._seed, step, rank, again, _AGAIN)
            others = rng.choice(self._order.count, lacking, replace=lacking > self._order.count)
            key = (self._seed, step, again)
            found = self._answered(self._records, others.tolist(), numbers[:lacking], key)
            drawn += lacking
            every += found
            kept += [example for example in found if objective.keeps(example)]
        return kept or every[:1], drawn

    def held_out(self, rank: int, ranks: int) -> list[Example]:
        """This rank's held-out prompts with an answer each; the same keys every time."""
        count = min(len(self._held), self._parts.recipe.evaluation.generate_rows)
        mine = list(range(rank, count, ranks))
        return self._answered(self._held, mine, mine, (self._seed, _HELD_OUT))

    def samples(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """The first answer of the first prompts of a step."""
        decode = self._parts.codec.decode
        return [
            {
                "prompt": decode(example.segments[0].tokens.tolist()).strip(),
                "answer": decode(example.segments[1].tokens.tolist()).strip(),
                "reward": round(float(example.targets["answer"]["reward"][0]), 6),
                "origin": str(example.origin),
            }
            for example in examples[:_SHOWN]
        ]

    def _answered(
        self,
        records: Sequence[Record],
        chosen: Sequence[int],
        numbers: Sequence[int],
        key: tuple[int, ...],
    ) -> list[Example]:
        """Answers to some records; each prompt's number in the step is part of its key."""
        if not chosen:
            return []
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return list(
            self._objective.collect(
                [records[i] for i in chosen],
                self._parts.codec,
                self._generator.numbered(numbers),
                self._parts.rewards,
                seed,
            )
        )

    @contextmanager
    def _decoding(self, rows: int, length: int) -> Iterator[Decoding]:
        model = self._parts.loaded.model
        assert isinstance(model, CausalModel)
        with self._backend.arithmetic():
            yield Decoding(model, rows, length)

    @cached_property
    def _records(self) -> list[Record]:
        """The training prompts, in the order of the examples; rows that were skipped are out."""
        part, encoded = self._parts.train
        known = {record.origin: record for record in part.records}
        return [known[encoded.examples.origin(i)] for i in range(len(encoded.examples))]

    @cached_property
    def _held(self) -> list[Record]:
        if self._parts.validation is None:
            return []
        part, encoded = self._parts.validation
        known = {record.origin: record for record in part.records}
        return [known[encoded.examples.origin(i)] for i in range(len(encoded.examples))]

    def _fitting(self) -> int:
        """Answers whose keys and values fit into memory."""
        parts = self._parts
        longest = max(int(parts.train[1].examples.sizes.max()), 1)
        length = longest + int(parts.objective.config.max_new_tokens)  # type: ignore[attr-defined]
        each = length * cached_bytes(parts.loaded.model.config)
        room = int(free_memory(self._backend.device) * _SHARE)
        return max(1, min(_ROWS, room // each))


def notices(parts: Parts) -> list[str]:
    """What a recipe asks for and a run that samples leaves out, in words."""
    module = parts.loaded.model.module
    config = parts.loaded.model.config
    own = (value for name, value in vars(config).items() if "dropout" in name or "pdrop" in name)
    layers = (layer.p for layer in module.modules() if isinstance(layer, nn.Dropout))
    if not any(isinstance(share, float) and share > 0 for share in (*own, *layers)):
        return []
    return ["dropout is off: with it, the policy would not be the one that sampled"]


def _check(parts: Parts) -> None:
    kind = parts.recipe.objective.kind
    if not isinstance(parts.loaded.model, CausalModel):
        raise RecipeError(f"'{kind}' samples from a decoder", code="pairing")
    if parts.loaded.model.layout.get("layout") == "padded":
        raise RecipeError(
            f"'{kind}' computes a prompt once for all of its answers, and this architecture cannot",
            cure="take a decoder such as Llama, Qwen, Gemma or GPT-2",
            code="pairing",
        )
    if parts.recipe.training.neftune_alpha is not None:
        raise RecipeError(
            f"training.neftune_alpha: noise would part the policy from its own samples ('{kind}')",
            cure="leave it out",
            code="pairing",
        )
    if parts.recipe.training.compile:
        raise RecipeError(
            f"training.compile: '{kind}' also decodes token by token, which compiled blocks do not",
            cure="leave it out",
            code="pairing",
        )
    if parts.recipe.retain is not None and (parts.recipe.retain.replay or parts.recipe.retain.kl):
        raise RecipeError(
            f"retain: old rows cannot be replayed beside sampled answers ('{kind}')",
            cure="leave retain.replay and retain.kl out; the objective's own pull is 'kl'",
            code="pairing",
        )
