"""A prompt and the right answer, against which sampled answers are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Prompt, Record, Row
from luthier.data.formats._fields import PROMPTS, checked, need, optional_text, pick
from luthier.data.formats._turns import prompt

_ANSWERS = ("answer", "ground_truth", "solution")
#: What GSM8K writes between the way to an answer and the answer.
_FINAL = "####"


class Config(KindConfig):
    """Settings of checkable prompts: none."""

    kind: str = "checkable"


class Format:
    """Rows with a prompt and its right answer to :class:`Prompt`.

    The answer is kept as ``answer`` of what is checked, and a column ``answer_type`` as ``type``.
    Of a worked answer that ends in ``#### 72`` (GSM8K) it is what stands behind the marks.
    Recognised by a column ``answer_type`` or ``ground_truth`` only: a question and its answer
    alone are what a model may learn to say.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Prompt,)
    fields: ClassVar[tuple[str, ...]] = ("prompt", "answer", "answer_type", "system")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the prompt, of the answer, and of the answer's type."""
        asked, answer = pick(fields, PROMPTS), pick(fields, _ANSWERS)
        if asked is None or answer is None:
            return None
        if "answer_type" in fields:
            return f"prompt='{asked}', answer='{answer}', answer_type='answer_type'"
        return f"prompt='{asked}', answer='{answer}'" if answer == "ground_truth" else None

    def read(self, row: Row) -> Record:
        """The prompt and what checks its answers."""
        column = need(row, _ANSWERS, "right answer")
        value = row.fields[column]
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        right = checked(value, f"'{column}'", "right answer", row.origin)
        if _FINAL in right:
            right = right.rpartition(_FINAL)[2]
            right = checked(right, f"'{column}' behind {_FINAL}", "right answer", row.origin)
        check = {"answer": right.strip()}
        if kind := optional_text(row, "answer_type", "answer's type"):
            check["type"] = kind
        return Prompt(row.origin, prompt(row), check)
