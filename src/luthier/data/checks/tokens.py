"""What only the recipe's tokenizer, template and objective can show: a row in tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from luthier.core.contracts_tasks import Tasked
from luthier.core.errors import DataError, Fault, UserError
from luthier.core.findings import Code, Finding
from luthier.core.records import Example, Record
from luthier.data.checks import reading
from luthier.data.checks._base import TRAIN, Tokens
from luthier.data.checks._base import Check as Base
from luthier.data.length import Cut
from luthier.data.prepare import fitting

NOTHING = Code(
    "D030",
    "error",
    "no learned token left",
    "give the row an answer, raise data.max_length, or cut on the other side",
)
UNENDED = Code(
    "D031",
    "error",
    "the end-of-turn token is not learned",
    "take a template that writes it after answers, and a tokenizer that has one",
)
PADDED = Code(
    "D032",
    "error",
    "the end-of-turn token is masked because it is the padding token",
    "mask by position, or give the tokenizer a padding token of its own",
)
DOUBLED = Code(
    "D033",
    "error",
    "doubled beginning-of-text token",
    "take it out of the template: the tokenizer writes it",
)
SYSTEM = Code(
    "D034",
    "error",
    "a system turn, and a template that takes none",
    "data.system: merge (its text goes before the user's) or drop",
)
REWRITES = Code(
    "D035", "error", "a template that rewrites earlier turns", "objective.train_on: last_turn"
)
BEYOND = Code(
    "D036",
    "error",
    "a token id beyond the embedding",
    "take the tokenizer that the model came with, or enlarge its embedding",
)
LONG = Code(
    "D037",
    "error",
    "longer than the context",
    "data.overlong: left, right or drop; or a larger data.max_length",
)
OTHER = Code(
    "D038", "error", "a row that cannot be put into tokens", "mend the row or the template"
)
CUT = Code(
    "D039",
    "warning",
    "a share of the rows is cut",
    "raise data.max_length where the model allows it, or shorten the rows",
)

_FAULTS: Mapping[str, Code] = {
    "empty": reading.EMPTY,
    "no-target": NOTHING,
    "no_answer": NOTHING,
    "no_end_token": UNENDED,
    "doubled_bos": DOUBLED,
    "system_role": SYSTEM,
    "template_rewrites": REWRITES,
    "template_prompt": REWRITES,
}
#: What the check of labels has told already.
_TOLD = ("class",)


class Check(Base):
    """Encodes every record as training would; without a recipe there is nothing to look at."""

    codes: ClassVar[tuple[Code, ...]] = (
        NOTHING,
        UNENDED,
        PADDED,
        DOUBLED,
        SYSTEM,
        REWRITES,
        BEYOND,
        LONG,
        OTHER,
        CUT,
    )

    def close(self) -> Iterable[Finding]:
        """All records, once all of them are known."""
        if self.known.tokens is None or not self.known.records:
            return
        places = self.known.places
        everything = [record for _, record in self.known.records]
        trained = [record for n, record in self.known.records if places.split(n) == TRAIN]
        try:
            tokens = self.known.tokens(trained or everything)
        except DataError as error:  # labels that no objective can settle on
            for fault in error.faults:
                yield OTHER.at(fault.place or places.sources[0], fault.message, fault.cure)
            return
        yield from self._encoded(tokens)

    def _encoded(self, tokens: Tokens) -> Iterable[Finding]:
        cut, learned = Cut(), 0
        for _, record in self.known.records:
            try:
                example = tokens.objective.encode(record, tokens.codec)
            except UserError as error:
                new = [fault for fault in error.faults if fault.code not in _TOLD]
                yield from (_finding(fault, record) for fault in new)
                continue
            learned += sum(len(next(iter(t.values()))) for t in example.targets.values())
            yield from judged(example, tokens)
            found, lost = fitted(example, tokens)
            yield from found
            cut = cut + lost
        if touched := cut.examples + cut.dropped:
            yield CUT.at(
                self.known.places.sources[0],
                f"{touched:,} of {len(self.known.records):,} rows"
                f" ({touched / len(self.known.records):.1%}) do not fit into"
                f" {tokens.codec.max_length:,} tokens: {cut.targets:,} of {learned:,} learned"
                f" ones ({cut.targets / max(1, learned):.1%}) are lost",
            )


@dataclass(frozen=True)
class Judge:
    """:func:`judged` for :func:`luthier.data.prepare.encode`.

    Attributes:
        tokens: how the recipe makes them.
    """

    tokens: Tokens

    @property
    def name(self) -> str:
        """What decides, beside the tokens themselves."""
        return f"1 {self.tokens.embeddings}"

    def look(self, example: Example) -> Iterable[Finding]:
        """What an example's ids and targets show."""
        return judged(example, self.tokens)


def judged(example: Example, tokens: Tokens) -> Iterable[Finding]:
    """What an example's ids and targets show."""
    if isinstance(tokens.objective, Tasked):
        _, example = tokens.objective.own(example)
    codec = tokens.codec
    ids = np.concatenate([segment.tokens for segment in example.segments])
    if len(ids) and int(ids.max()) >= tokens.embeddings:
        message = f"token {ids.max()} is beyond the {tokens.embeddings:,} rows of the embedding"
        yield BEYOND.at(example.origin, message)
    bos = codec.tokenizer.bos_token_id
    if bos is not None and ids[:2].tolist() == [bos, bos]:
        yield DOUBLED.at(example.origin)
    ends = set(codec.end_tokens) & set(ids.tolist())
    table = example.targets.get("lm")
    if table is None or not codec.end_tokens or not len(table["token"]):
        return
    if not ends & set(table["token"].tolist()):
        padded = bool(ends) and ends == {codec.tokenizer.pad_token_id}
        yield (PADDED if padded else UNENDED).at(example.origin)


def fitted(example: Example, tokens: Tokens) -> tuple[list[Finding], Cut]:
    """What becomes of an example that is too long."""
    try:
        _, lost = fitting(example, tokens.objective, tokens.codec, tokens.overlong)
    except DataError as error:
        return [LONG.at(f.place, f.message, f.cure) for f in error.faults], Cut()
    if lost.dropped and tokens.overlong != "drop":
        message = f"nothing to learn is left of its {example.size:,} tokens after the cut"
        return [NOTHING.at(example.origin, message)], lost
    return [], lost


def _finding(fault: Fault, record: Record) -> Finding:
    """Of a fault that often names a key of the recipe where a row is wanted."""
    return _FAULTS.get(fault.code, OTHER).at(record.origin, fault.message, fault.cure)
