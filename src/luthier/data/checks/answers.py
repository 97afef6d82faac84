"""One answer that stands after many prompts."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from luthier.core.findings import Code, Finding
from luthier.core.records import Conversation, SourceTarget
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Known, Seen
from luthier.data.contents import short_hash
from luthier.data.runs_sorted import Runs

REPEATED = Code(
    "D052",
    "warning",
    "one answer for many prompts",
    "a model learns to give it to any prompt: keep a few of them",
)
#: Prompts that share an answer before it is worth saying, and their share of the rows.
_PROMPTS, _SHARE = 10, 0.001
#: Shorter answers are classes by another name: yes, no, positive.
_WORDS = 4


class Check(Base):
    """See the module; conversations of several turns may well end alike, and are left out."""

    codes: ClassVar[tuple[Code, ...]] = (REPEATED,)

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._answers = Runs(known.scratch, "answers")
        self._rows = array("I")
        self._prompts = array("Q")
        self._keys = array("Q")

    @classmethod
    def digest(cls, rows: Sequence[Seen]) -> Any:
        """Rows with a single answer: their numbers, hashes of their answers and prompts."""
        numbers, answers, prompts = array("I"), array("Q"), array("Q")
        for seen in rows:
            if isinstance(seen.record, Conversation | SourceTarget) and len(seen.answers) == 1:
                answer = " ".join(seen.answers[0].lower().split())
                if answer.count(" ") + 1 >= _WORDS:
                    numbers.append(seen.number)
                    answers.append(short_hash(answer))
                    prompts.append(short_hash(seen.prompt))
        return numbers, answers, prompts

    def take(self, digest: Any) -> Iterable[tuple[int, Finding]]:
        """Notes them."""
        numbers, answers, prompts = digest
        self._rows.extend(numbers)
        self._keys.extend(answers)
        self._prompts.extend(prompts)
        if len(self._keys) >= 1 << 16:
            self._hand_on()
        return ()

    def close(self) -> Iterable[Finding]:
        """Answers with many different prompts, at the first row of each."""
        self._hand_on()
        rows = np.array(self._rows, dtype=np.int64)
        prompts = np.array(self._prompts, dtype=np.uint64)
        least = max(_PROMPTS, _SHARE * len(rows))
        for keys, numbers in self._answers.parts():
            starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
            sizes = np.diff(np.concatenate([starts, [len(keys)]]))
            for start, size in zip(starts[sizes >= least], sizes[sizes >= least], strict=True):
                shared = numbers[start : start + size]
                different = len(np.unique(prompts[shared]))
                if different >= least:
                    yield REPEATED.at(
                        self.known.places.at(int(rows[shared].min())),
                        f"{different:,} different prompts have this row's answer",
                    )

    def _hand_on(self) -> None:
        keys = np.array(self._keys, dtype=np.uint64)
        last = len(self._rows)
        self._answers.add(keys, np.arange(last - len(keys), last, dtype=np.uint32))
        self._keys = array("Q")
