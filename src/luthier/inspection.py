"""What a recipe would do, found out without training: data, lengths, parameters, memory, steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from luthier.companions import check_room
from luthier.core import kinds
from luthier.core.contracts import Method, OnlineObjective
from luthier.core.contracts_beside import Solving
from luthier.core.contracts_weights import QuantizedBase
from luthier.core.errors import DataError, Fault, UserError
from luthier.core.recipe import Recipe
from luthier.core.records import Example
from luthier.data.length import Cut, learned_rows
from luthier.data.mixture import Drawing, grouping, planned
from luthier.data.order import Order, total_steps
from luthier.data.parts import Part
from luthier.data.prepare import fitting
from luthier.data.template import TokenizerCodec
from luthier.engine import probe, rates
from luthier.engine.backend import Backend
from luthier.feed import refuse_adapter
from luthier.models.load import Loaded, count_parameters
from luthier.models.outline import Part as ModelPart
from luthier.models.outline import outline
from luthier.models.plan import Plan, inner_size, make_plan
from luthier.ops.quantized import expected_bytes
from luthier.preview import Preview
from luthier.stages import previews

#: Rows whose lengths are measured unless every row is asked for.
MOST = 20_000


@dataclass
class Survey:
    """One side of the data, as training would see it.

    Attributes:
        records: how many there are.
        looked: how many of them were encoded, the first ones and an even draw of the others.
        drawn: which records these are, by their number.
        sizes: tokens of each of them, before anything is cut; 0 of those that cannot be encoded.
        lengths: the same, ascending, without the latter.
        targets: learned tokens of all of them.
        cut: what the recipe's choice for overlong examples costs.
        overlong: faults of examples too long under ``refuse``.
        faults: records that cannot be encoded at all.
        examples: how many examples training would get from those looked at.
        longest: tokens of the longest of these.
        shown: the first ones, as trained.
        groups: examples of each source of a mixture, or of each class to balance, by number.
    """

    records: int
    looked: int
    drawn: Sequence[int] = ()
    sizes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lengths: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    targets: int = 0
    cut: Cut = field(default_factory=Cut)
    overlong: list[Fault] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    examples: int = 0
    longest: int = 0
    shown: list[Example] = field(default_factory=list)
    groups: Counter[int] = field(default_factory=Counter)

    @property
    def expected(self) -> int:
        """Examples of the whole side, scaled up where only a draw was looked at."""
        return self._scaled(self.examples)

    @property
    def expected_groups(self) -> list[int]:
        """The same of each group."""
        return [self._scaled(self.groups[n]) for n in range(max(self.groups, default=-1) + 1)]

    def _scaled(self, count: int) -> int:
        return round(count * self.records / max(1, self.looked))

    def cost(self, policy: str, limit: int) -> str:
        """What the recipe's choice for overlong examples costs, in words."""
        cut = self.cut
        over = int((self.lengths > limit).sum())
        if not over:
            return "nothing is too long"
        if self.overlong:
            return f"{over:,} too long, and training would refuse them (data.overlong)"
        if cut.windows:
            return f"{cut.examples:,} too long, divided into {cut.windows:,} windows" + (
                f"; without anything to learn, and left out: {cut.tokens:,} tokens"
                if cut.tokens
                else "; nothing is lost"
            )
        done = [f"{cut.examples:,} shortened ({policy})"] if cut.examples else []
        done += [f"{cut.dropped:,} dropped"] if cut.dropped else []
        lost = f"{cut.tokens:,} tokens, {cut.targets:,} of them learned"
        return f"{over:,} too long, {' and '.join(done)}: {lost} (data.overlong)"


@dataclass
class Inspection:
    """Everything that is known about a run before it begins.

    Attributes:
        recipe: the resolved recipe.
        said: how data and template were understood.
        faults: what training would refuse in the files themselves.
        codec: turns to tokens and back.
        policy: what becomes of overlong examples.
        train: the training side.
        validation: the held-out side.
        trainable: parameters that are trained.
        total: all parameters.
        parts: the model as a tree, with what of it is trained.
        plan: memory, or why it does not suffice.
        device: where the run would happen.
        precision: in what arithmetic, and why.
        rate: the peak learning rate.
        rates: the peak rates by group and how much learns at each; empty where all are one.
        steps: optimizer steps, and how many an epoch; none where all rows are solved for at once.
        drawing: what an epoch draws, where that is not every example once.
    """

    recipe: Recipe
    said: list[str]
    faults: list[Fault]
    codec: TokenizerCodec
    policy: str
    train: Survey
    validation: Survey | None
    trainable: int
    total: int
    parts: list[ModelPart]
    plan: Plan | UserError
    device: str
    precision: tuple[str, str]
    rate: float
    rates: str
    steps: tuple[int, int]
    drawing: Drawing | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of a classifier's outputs; none of a language model."""
        return tuple(getattr(self.recipe.objective, "classes", None) or ())

    @property
    def refusals(self) -> list[Fault]:
        """Everything for which training would refuse to begin."""
        sides = [side for side in (self.train, self.validation) if side is not None]
        found = list(self.faults)
        for side in sides:
            found += side.overlong
            found += side.faults if self.recipe.data.malformed == "refuse" else []
        return found + (list(self.plan.faults) if isinstance(self.plan, UserError) else [])


def inspect(recipe: Recipe, *, rows: int = 3, everything: bool = False) -> list[Inspection]:
    """What training would do, one entry a stage.

    Args:
        recipe: what ``luthier train`` would run.
        rows: training examples to keep for showing.
        everything: measure every row, not :data:`MOST` of them.

    Raises:
        UserError: what leaves nothing to look at: no such file, no such model.
    """
    return [_inspect(seen, rows, everything) for seen in previews(recipe)]


def learned(example: Example) -> npt.NDArray[np.bool_]:
    """Which of an example's tokens are learned, in the order of its segments.

    Rows of the ``lm`` table stand before the tokens that they predict, those of others at them.
    """
    marks = np.zeros(example.size, dtype=bool)
    for name, table in example.targets.items():
        if name != "lm" and "position" in table:
            marks[table["position"]] = True
    starts = example.starts()
    ends = [start + len(s.tokens) for start, s in zip(starts, example.segments, strict=True)]
    children: dict[int, list[int]] = {}
    for start, segment in zip(starts, example.segments, strict=True):
        if segment.parent is not None:
            children.setdefault(ends[segment.parent] - 1, []).append(start)
    tokens = np.concatenate([segment.tokens for segment in example.segments])
    lm = example.targets.get("lm")
    if lm is None:
        return marks
    for position, token in zip(lm["position"].tolist(), lm["token"].tolist(), strict=True):
        nexts = children.get(position, []) if position + 1 in ends else [position + 1]
        for place in nexts:
            if tokens[place] == token:
                marks[place] = True
    return marks


def _inspect(seen: Preview, rows: int, everything: bool) -> Inspection:
    recipe, loaded = seen.recipe, seen.loaded
    most = None if everything else MOST
    train = survey(seen, seen.train, rows, most)
    validation = None if seen.held is None else survey(seen, seen.held, 0, most)
    method: Method = kinds.build("methods", recipe.method)
    with torch.device("meta"):
        module = method.prepare(loaded.model.module)
    trainable, total = count_parameters(module)
    config = loaded.model.config
    spec = recipe.training
    device = Backend(spec.device).device
    choice = probe.choose(spec, config.hidden_size, inner_size(config))
    longest = max(train.longest, validation.longest if validation else 0)
    if isinstance(seen.objective, OnlineObjective):
        longest = seen.objective.longest(longest)
    rate = method.default_rate if isinstance(spec.learning_rate, str) else spec.learning_rate
    drawing = _drawing(seen, train)
    solved = isinstance(method, Solving) and method.solve is not None
    return Inspection(
        recipe,
        seen.said,
        [*seen.faults, *_unfit(seen, module, longest, device)],
        seen.codec,
        seen.policy,
        train,
        validation,
        trainable,
        total,
        outline(module),
        _plan(
            recipe,
            loaded,
            (trainable, total, expected_bytes(module, packed=isinstance(method, QuantizedBase))),
            longest,
            device,
            choice["precision"],
        ),
        str(device),
        (choice["precision"], choice["because"]),
        rate,
        rates.described(rates.rated(method.param_groups(module), module, spec), rate),
        (0, 0) if solved else _steps(recipe, drawing.length if drawing else train.expected),
        drawing,
    )


def survey(seen: Preview, part: Part, rows: int = 0, most: int | None = MOST) -> Survey:
    """One side of the data put into tokens.

    Args:
        seen: what encodes it.
        part: its records.
        rows: training examples to keep for showing.
        most: measure no more records than these; ``None`` for all.
    """
    chosen = _drawn(len(part.records), rows, most)
    found = Survey(len(part.records), len(chosen), chosen)
    found.sizes = np.zeros(len(chosen), dtype=np.int64)
    group = grouping(seen.recipe.data, seen.objective, part)
    for place, index in enumerate(chosen):
        try:
            example = seen.objective.encode(part.records[index], seen.codec)
        except UserError as error:
            found.faults.extend(error.faults)
            continue
        found.sizes[place] = example.depth()
        found.targets += learned_rows(example)
        try:
            kept, lost = fitting(example, seen.objective, seen.codec, seen.policy)
        except DataError as error:
            found.overlong.extend(error.faults)
            continue
        found.cut = found.cut + lost
        found.examples += len(kept)
        found.longest = max([found.longest, *(each.size for each in kept)])
        found.groups.update(group(each) for each in kept if group)
        found.shown += kept[: rows - len(found.shown)]
    found.lengths = np.sort(found.sizes[found.sizes > 0])
    return found


def _unfit(
    seen: Preview, module: torch.nn.Module, longest: int, device: torch.device
) -> list[Fault]:
    """Why the models that this run brings together would be refused."""
    found: list[Fault] = []
    try:
        refuse_adapter(seen.recipe, module)
        for each in seen.companions.values():
            check_room(each, longest, device)
    except UserError as error:
        found.extend(error.faults)
    return found


def _drawn(count: int, first: int, most: int | None) -> Sequence[int]:
    if most is None or count <= most:
        return range(count)
    even = np.linspace(0, count - 1, most).astype(int).tolist()
    return sorted({*range(min(first, count)), *even})


def _plan(
    recipe: Recipe,
    loaded: Loaded,
    parameters: tuple[int, int, int],
    longest: int,
    device: torch.device,
    precision: str,
) -> Plan | UserError:
    trainable, total, weights = parameters
    budget = recipe.training.token_budget
    if isinstance(budget, int) and longest > budget:
        return DataError(
            f"the longest example has {longest:,} tokens, more than training.token_budget "
            f"({budget:,})",
            cure="raise training.token_budget, or lower data.max_length",
            code="over-budget",
        )
    try:
        return make_plan(
            loaded.model.config,
            total,
            trainable,
            longest=longest,
            device=device,
            budget=budget,
            sixteen_bit=precision != "float32",
            recompute=recipe.training.gradient_checkpointing,
            weights=weights,
            averaged=recipe.training.ema is not None,
        )
    except UserError as error:
        return error


def _drawing(seen: Preview, train: Survey) -> Drawing | None:
    """What an epoch draws, where that is not every example once."""
    if not train.groups:
        return None
    return planned(seen.recipe.data, seen.objective, train.expected_groups)


def _steps(recipe: Recipe, count: int) -> tuple[int, int]:
    """Of the run and of an epoch that draws so many examples."""
    spec = recipe.training
    if not count:
        return 0, 0
    order = Order(count, spec.batch_size, spec.seed)
    total = total_steps(count, spec.batch_size, spec.epochs, spec.max_steps)
    return total, order.per_epoch
