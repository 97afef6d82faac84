"""Records to examples that fit the model: encode, fit, cache."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from luthier.core import cache
from luthier.core.contracts import Objective, Uncoupled
from luthier.core.contracts_data import Sourced
from luthier.core.contracts_tasks import BY_TASK, Tasked, named
from luthier.core.contracts_text import Looking, Windowed
from luthier.core.errors import DataError, Fault, UserError
from luthier.core.findings import Finding, Findings
from luthier.core.garbage import set_aside, uncollected
from luthier.core.recipe import DataSpec
from luthier.core.records import Example, Record
from luthier.core.workers import processes, shared
from luthier.data.contents import characters
from luthier.data.length import Cut, fit
from luthier.data.length_pairs import fit_pair, source_frame
from luthier.data.parts import Part
from luthier.data.store import ExampleStore
from luthier.data.store_writer import StoreWriter

#: Raised whenever the meaning of cached tokens changes.
_CACHE_VERSION = 3
_SHOWN = 10
#: Records, and about so many characters of them, that are put into tokens in one piece.
_PIECE, _CHARACTERS = 512, 1 << 20
#: Beside a cached store: its counts.
COUNTS = "counts.json"


class Judge(Protocol):
    """Looks at examples as they are made."""

    @property
    def name(self) -> str:
        """Of what it looks for: another judge finds something else."""
        ...

    def look(self, example: Example) -> Iterable[Finding]:
        """What is wrong with an example."""
        ...


#: What every process is told: the objective, the codec, what becomes of longer ones, the judge.
_Told = tuple[Objective, Any, str, Judge | None]


@dataclass(frozen=True)
class Encoded:
    """Records in tokens, with everything that was cut or left out on the way."""

    examples: ExampleStore
    counts: dict[str, Any]


def encode(
    part: Part,
    spec: DataSpec,
    objective: Objective,
    codec: Any,
    judge: Judge | None = None,
) -> Encoded:
    """Records to examples that fit the model, from the cache where they were made before.

    ``judge`` looks at every example before it is cut; what it finds stands in the counts.

    Raises:
        DataError: a record without anything to learn, or too long under ``overlong: refuse``.
    """
    policy = objective.overlong if spec.overlong == "auto" else spec.overlong
    name = cache.key(_name(part, spec, objective, codec, policy), judge and judge.name)
    folder = cache.place("tokens", name)
    if (folder / COUNTS).is_file():
        counts = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        return Encoded(ExampleStore.load(folder), counts)
    with cache.made(folder) as whole:
        counts = _made_in(whole, part, spec, (objective, codec, policy, judge))
        (whole / COUNTS).write_text(json.dumps(counts), encoding="utf-8")
    examples = ExampleStore.load(folder)  # before there might be no room for it any more
    cache.trim()
    return Encoded(examples, counts)


def _made_in(folder: Path, part: Part, spec: DataSpec, told: _Told) -> dict[str, Any]:
    """Puts a side into tokens in a folder, a piece in memory at a time; what there is to say."""
    cut, faults, findings = Cut(), list[Fault](), Findings()
    events: Counter[str] = Counter()
    pieces = _pieces(part.records)
    with set_aside(), StoreWriter(folder) as writer:
        for made in shared(f"{__name__}:encoder", told, pieces, processes(spec.workers)):
            cut = cut + made.cut
            faults.extend(made.faults)
            events.update(made.events)
            for finding in made.findings:
                findings.add(finding)
            writer.add(made.examples)
        skipped = part.skipped + _settle(faults, spec.malformed, "examples")
        if not writer.count:
            raise DataError("no example is left to learn from", code="no-rows")
    return {
        **_counts(part, ExampleStore.load(folder)),
        "skipped": skipped,
        "policy": told[2],
        "cut": asdict(cut),
        "template": dict(events),
        "findings": findings.plain(),
    }


def _counts(part: Part, examples: ExampleStore) -> dict[str, Any]:
    spoken = "lm" in examples.heads  # other tables then say what its rows belong to
    return {
        "rows": len(part.records),
        "examples": len(examples),
        "tokens": examples.tokens,
        "targets": sum(
            examples.rows(head) for head in examples.heads if head == "lm" or not spoken
        ),
        "formats": list(part.formats),
        "fingerprint": part.fingerprint,
        "cleaned": {step: dict(counts) for step, counts in part.cleaned.items()},
        "augmented": {step: dict(counts) for step, counts in part.augmented.items()},
    }


def fitting(
    example: Example, objective: Objective, codec: Any, policy: str
) -> tuple[list[Example], Cut]:
    """An example as pieces that fit the model, and what was cut away; see :func:`fit`.

    Raises:
        DataError: it is too long, under ``overlong: refuse``.
    """
    return fitter(objective, codec, policy)(example)


def fitter(
    objective: Objective, codec: Any, policy: str
) -> Callable[[Example], tuple[list[Example], Cut]]:
    """:func:`fitting` of many examples, which asks the objective what it is only once."""
    if isinstance(objective, Tasked):
        return partial(_fitting_task, objective, codec, policy)
    if isinstance(objective, Sourced):
        bounds, around = objective.bounds, source_frame(codec)
        return lambda example: fit_pair(example, codec.max_length, policy, bounds, around)
    return partial(
        fit,
        limit=codec.max_length,
        policy=policy,
        bos=codec.tokenizer.bos_token_id,
        independent=isinstance(objective, Uncoupled) and objective.independent_leaves,
        frame=codec.frame,
        cuts=objective.cuts if isinstance(objective, Windowed) else None,
    )


def _fitting_task(
    objective: Tasked, codec: Any, policy: str, example: Example
) -> tuple[list[Example], Cut]:
    """An example of one task of several, as that task has it."""
    task = named(example.origin)
    inner, own = objective.own(example)
    pieces, cut = fitting(own, inner, codec, inner.overlong if policy == BY_TASK else policy)
    return [objective.among(piece, task) for piece in pieces], cut


def _name(part: Part, spec: DataSpec, objective: Objective, codec: Any, policy: str) -> str:
    """Hash of all that decides which examples records become."""
    return cache.key(
        _CACHE_VERSION,
        part.fingerprint,
        sorted(part.sources),  # examples name their rows
        objective.config.model_dump(mode="json"),
        _own_source(objective),
        codec.fingerprint(),
        codec.max_length,
        policy,
        spec.malformed,
    )


@dataclass(frozen=True)
class _Made:
    """A piece of the records in tokens, and what was noticed on the way."""

    examples: ExampleStore
    cut: Cut
    faults: list[Fault]
    findings: list[Finding]
    events: Counter[str]


def encoder(told: _Told) -> Callable[[Sequence[Record]], _Made]:
    """What puts a piece of the records into tokens, in any process."""
    objective, codec, policy, judge = told
    fitted_one = fitter(objective, codec, policy)
    looking = objective if isinstance(objective, Looking) else None

    def encode_piece(records: Sequence[Record]) -> _Made:
        known = Counter(codec.counts)
        if looking is not None:
            looking.look_ahead(records, codec)
        made = _Made(ExampleStore.build(()), Cut(), [], [], Counter())
        cut = Cut()

        def fitted() -> Iterator[Example]:
            nonlocal cut
            for record in records:
                try:
                    example = objective.encode(record, codec)
                    made.findings.extend(judge.look(example) if judge else ())
                    pieces, lost = fitted_one(example)
                except UserError as error:
                    made.faults.extend(error.faults)
                    continue
                if lost:
                    cut = cut + lost
                yield from pieces

        with uncollected():
            examples = ExampleStore.build(fitted())
        return replace(made, examples=examples, cut=cut, events=Counter(codec.counts) - known)

    return encode_piece


def _pieces(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Records in order, so many at a time."""
    waiting: list[Record] = []
    size = 0
    for record in records:
        waiting.append(record)
        size += characters(record)
        if len(waiting) >= _PIECE or size >= _CHARACTERS:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


def _own_source(objective: Objective) -> str:
    """The text of a user's own objective, whose tokens change when it does."""
    module = inspect.getmodule(type(objective))
    own = module is not None and not module.__name__.startswith("luthier.")
    return inspect.getsource(module) if own and module is not None else ""


def _settle(faults: list[Fault], malformed: str, noun: str) -> int:
    """Refuses faults, or counts them where the recipe says skip."""
    if not faults:
        return 0
    if malformed == "skip":
        return len(faults)
    shown = faults[:_SHOWN]
    if len(faults) > _SHOWN:
        shown.append(Fault(f"… and {len(faults) - _SHOWN:,} more {noun} like these"))
    raise DataError.of(shown)
