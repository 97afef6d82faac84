"""Records to examples that fit the model: encode, fit, cache."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from luthier.core import cache
from luthier.core.codec import Codec
from luthier.core.contracts import Objective, Uncoupled
from luthier.core.contracts_tasks import BY_TASK, Tasked, named
from luthier.core.contracts_text import Windowed
from luthier.core.errors import DataError, Fault, UserError
from luthier.core.findings import Finding, Findings
from luthier.core.recipe import DataSpec
from luthier.core.records import Example, Record
from luthier.data.length import Cut, fit
from luthier.data.parts import Part
from luthier.data.store import ExampleStore

#: Raised whenever the meaning of cached tokens changes.
_CACHE_VERSION = 3
_SHOWN = 10
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
    cut = Cut()
    faults: list[Fault] = []
    known, findings = Counter(codec.counts), Findings()

    def fitted() -> Iterator[Example]:
        nonlocal cut
        for example in _encoded(part.records, objective, codec, faults):
            for finding in judge.look(example) if judge else ():
                findings.add(finding)
            try:
                pieces, lost = fitting(example, objective, codec, policy)
            except DataError as error:
                faults.extend(error.faults)
                continue
            cut = cut + lost
            yield from pieces

    examples = ExampleStore.build(fitted())
    counts = {
        **_counts(part, examples),
        "skipped": part.skipped + _settle(faults, spec.malformed, "examples"),
        "policy": policy,
        "cut": asdict(cut),
        "template": dict(Counter(codec.counts) - known),
        "findings": findings.plain(),
    }
    if not len(examples):
        raise DataError("no example is left to learn from", code="no-rows")
    examples.save(folder, {COUNTS: json.dumps(counts)})
    cache.trim()
    return Encoded(examples, counts)


def _counts(part: Part, examples: ExampleStore) -> dict[str, Any]:
    return {
        "rows": len(part.records),
        "examples": len(examples),
        "tokens": examples.tokens,
        "targets": sum(examples.rows(head) for head in examples.heads),
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
    if isinstance(objective, Tasked):
        task = named(example.origin)
        inner, own = objective.own(example)
        pieces, cut = fitting(own, inner, codec, inner.overlong if policy == BY_TASK else policy)
        return [objective.among(piece, task) for piece in pieces], cut
    return fit(
        example,
        codec.max_length,
        policy,
        bos=codec.tokenizer.bos_token_id,
        independent=isinstance(objective, Uncoupled) and objective.independent_leaves,
        frame=codec.frame,
        cuts=objective.cuts if isinstance(objective, Windowed) else None,
    )


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


def _encoded(
    records: Sequence[Record], objective: Objective, codec: Codec, faults: list[Fault]
) -> Iterator[Example]:
    """Examples in order; tokenizers let go of Python's lock, so threads share the work."""

    def one(record: Record) -> Example | UserError:
        try:
            return objective.encode(record, codec)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        for result in _windowed(pool, one, records):
            if isinstance(result, UserError):
                faults.extend(result.faults)
            else:
                yield result


def _windowed(
    pool: ThreadPoolExecutor, work: Callable[[Record], Any], records: Iterable[Record]
) -> Iterator[Any]:
    """``pool.map`` that never holds more than a few results at once."""
    waiting = []
    for record in records:
        waiting.append(pool.submit(work, record))
        if len(waiting) >= 64:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


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
