"""One answer that stands after many prompts."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import ClassVar

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
        self._keys: list[tuple[int, int]] = []

    def see(self, seen: Seen) -> Iterable[Finding]:
        """Takes the only answer of a row, and its prompt."""
        record, answers = seen.record, seen.answers
        if isinstance(record, Conversation | SourceTarget) and len(answers) == 1:
            answer = " ".join(answers[0].lower().split())
            if answer.count(" ") + 1 >= _WORDS:
                self._keys.append((short_hash(answer), len(self._rows)))
                self._rows.append(seen.number)
                self._prompts.append(short_hash(seen.prompt))
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
        keys = np.array([key for key, _ in self._keys], dtype=np.uint64)
        self._answers.add(keys, np.array([number for _, number in self._keys], dtype=np.uint32))
        self._keys = []
