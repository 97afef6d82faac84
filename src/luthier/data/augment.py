"""Training rows made of training rows, as ``data.augment`` says: filtered, bounded, marked."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from luthier.core import kinds
from luthier.core.contracts_data import Augmenter, DataModels
from luthier.core.marks import marked
from luthier.core.recipe import DataSpec
from luthier.core.records import Record
from luthier.core.words import many
from luthier.data.contents import asked, whole
from luthier.data.similar import Similar

Say = Callable[[str], None]

_LEAK = "nearly the same as a validation row"
_KNOWN = {False: "nearly the same as another training row", True: "the same as another row"}


@dataclass(frozen=True)
class Grown:
    """What was made.

    Attributes:
        records: the made rows, marked, in the order of the steps.
        counts: of each step, what was made, what was not, and why.
        fingerprint: of their content.
    """

    records: tuple[Record, ...] = ()
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    fingerprint: str = ""


def grow(
    train: Sequence[Record],
    held: Sequence[Record],
    spec: DataSpec,
    seed: int,
    say: Say,
    models: DataModels | None,
) -> Grown:
    """Further rows to train on. Validation rows are compared with and never made of.

    Args:
        train: the training rows, all of them real.
        held: the validation rows.
        spec: its ``augment`` and ``augment_share``.
        seed: the run's.
        say: takes a line for the user.
        models: opens the generators that steps name.

    Raises:
        UserError: rows that a step makes nothing of, or a generator that does not answer.
    """
    steps: list[Augmenter] = [kinds.build("data/augmenters", each) for each in spec.augment]
    room = int(spec.augment_share * len(train) + 1e-9)
    shares = _shares([step.wanted(train) for step in steps], room)
    made: list[Record] = []
    counts: dict[str, dict[str, int]] = {}
    for number, (config, step, (wanted, count)) in enumerate(
        zip(spec.augment, steps, shares, strict=True), start=1
    ):
        if count < wanted:
            say(
                f"augment, {config.kind}: {count:,} rows are asked for, not {wanted:,}: "
                f"data.augment_share is {spec.augment_share:g}"
            )
        writer = None
        if step.generator is not None and count:
            assert models is not None, "nothing opens the generator"
            writer = models.writer(step.generator, lambda line: say(f"augment: {line}"))
        found = step.augment(train, count, seed, writer) if count else None
        new, dropped = _filtered(found.records if found else (), train, held, made, step.near)
        lost = {**(found.failed if found else {}), **dropped}
        say(_words(config.kind, len(new), lost))
        counts[f"{number} {config.kind}"] = {"made": len(new), **lost}
        made += [marked(record, config.kind) for record in new]
    content = hashlib.sha256()
    for record in made:  # what a generator says is not in the settings
        content.update(repr(record).encode("utf-8", "surrogatepass"))
    return Grown(tuple(made), counts, content.hexdigest())


def _words(kind: str, made: int, lost: dict[str, int]) -> str:
    why = "".join(f", {count:,} {reason}" for reason, count in lost.items())
    return f"augment, {kind}: {many(made, 'row')} made" + (f"; left out{why[1:]}" if why else "")


def _shares(wanted: Sequence[int], room: int) -> list[tuple[int, int]]:
    """What each step wants, and its part of the room, by largest remainder."""
    total = sum(wanted)
    if total <= room:
        return [(each, each) for each in wanted]
    exact = [each * room / total for each in wanted]
    given = [int(each) for each in exact]
    order = sorted(range(len(given)), key=lambda i: given[i] - exact[i])
    for index in order[: room - sum(given)]:
        given[index] += 1
    return list(zip(wanted, given, strict=True))


def _filtered(
    new: Sequence[Record],
    train: Sequence[Record],
    held: Sequence[Record],
    made: Sequence[Record],
    near: bool,
) -> tuple[list[Record], dict[str, int]]:
    """Without what a validation row says, and without what other rows say; and how many went.

    Args:
        new: the step's rows.
        train: the real ones.
        held: the validation rows.
        made: of earlier steps.
        near: whether nearly the same as another training row is what the step is for.
    """
    ways = [asked] if all(asked(record) == whole(record) for record in new) else [asked, whole]
    leaks = {i for text in ways for i in _echoes(new, held, text, near=True)}
    known = _echoes(new, [*train, *made], asked, among=True, near=not near) - leaks
    left = [record for i, record in enumerate(new) if i not in leaks and i not in known]
    lost = Counter({_LEAK: len(leaks), _KNOWN[near]: len(known)})
    return left, {why: count for why, count in lost.items() if count}


def _echoes(
    new: Sequence[Record],
    others: Sequence[Record],
    text: Callable[[Record], str],
    *,
    near: bool,
    among: bool = False,
) -> set[int]:
    """Which of the new rows say what others say, or (``among``) what an earlier new one says."""
    if not new or not (others or among):
        return set()
    base = len(others)
    group = np.repeat(np.array([0, 1], dtype=np.uint8), [base, len(new)])
    found: set[int] = set()
    with (
        tempfile.TemporaryDirectory(prefix="luthier-near-") as scratch,
        closing(Similar(Path(scratch))) as similar,
    ):
        for record in chain(others, new):
            similar.add(text(record))
        for pairs in chain(similar.equal(group), similar.near(group) if near else ()):
            for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
                if second >= base and (among or first < base):
                    found.add(second - base)
    return found
