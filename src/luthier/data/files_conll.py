"""CoNLL column files: a word and its tag a line, a blank line after each sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from luthier.core.errors import Fault
from luthier.data.faults import FaultLog
from luthier.data.lines import Found, bad_utf8, physical_lines

_DOCUMENT = "-DOCSTART-"


def conll_rows(stream: IO[bytes], name: str, log: FaultLog) -> Iterator[Found]:
    """Sentences as ``tokens`` and ``tags``, at the line of their first word.

    The first column is the word and the last one its tag; columns are parted by tabs, or where
    a line has none by spaces. A line of white space ends a sentence. ``-DOCSTART-`` lines are no
    words: they are counted, and every sentence behind one has its number as ``document_number``.
    A sentence with a faulty line is left out whole, under the first fault.
    """
    sentence = _Sentence(name)
    documents, width = 0, 0
    for number, offset, raw in physical_lines(stream, name):
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            sentence.refuse(bad_utf8(error, name, number, offset))
            continue
        cells = line.split("\t") if "\t" in line else [each for each in line.split(" ") if each]
        if line.strip() and cells[0] != _DOCUMENT:
            width = width or len(cells)
            sentence.add(number, cells, width)
            continue
        yield from sentence.end(documents, log)
        sentence = _Sentence(name)
        documents += bool(cells and cells[0] == _DOCUMENT)
    yield from sentence.end(documents, log)


class _Sentence:
    """Words and tags in the making, or the first thing wrong with them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._line = 0
        self._tokens: list[str] = []
        self._tags: list[str] = []
        self._fault: Fault | None = None

    def refuse(self, fault: Fault) -> None:
        """Notes a fault; the first one counts."""
        self._fault = self._fault or fault

    def add(self, line: int, cells: list[str], width: int) -> None:
        """One word with its columns."""
        self._line = self._line or line
        place = f"{self._name}:{line}"
        if len(cells) != width or width < 2:
            seen = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
            wanted = f"the first line has {width}" if len(cells) != width else "a word and its tag"
            cure = "write the word, a tab and its tag; a blank line ends a sentence"
            self.refuse(Fault(f"{seen} where {wanted}", place, cure, "columns"))
        elif not cells[0].strip() or not cells[-1].strip():
            missing = "word" if cells[-1].strip() else "tag"
            cure = "write the word, a tab and its tag; O is the tag of no entity"
            self.refuse(Fault(f"the {missing} is empty", place, cure, "empty"))
        self._tokens.append(cells[0])
        self._tags.append(cells[-1].strip())

    def end(self, document: int, log: FaultLog) -> Iterator[Found]:
        """The row, if there is one."""
        if self._fault is not None:
            log.add(self._fault)
        elif self._tokens:
            row = {"tokens": self._tokens, "tags": self._tags}
            yield self._line, {**row, "document_number": document} if document else row
