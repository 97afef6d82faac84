"""Rows as a page quotes them: short, masked, by the shortest name of their file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

from luthier.core.marks import bare
from luthier.core.records import Record
from luthier.data.contents import answers, prompt
from luthier.data.personal import hidden
from luthier.data_report.figures import Excerpt

#: Characters of a row that are quoted, of its beginning and its end, and those looked at for it.
_QUOTED, _HEAD, _TAIL, _LOOKED = 280, 170, 100, 10_000


def said(record: Record) -> str:
    """All of a record's text, prompt first; labels are no part of it."""
    return "\n".join(part for part in (prompt(record), *answers(record)) if part)


def quoted(text: str) -> str:
    r"""A text in one line, its beginning and end where it is long, personal data masked.

    Many rows begin alike, with one instruction.

    >>> quoted("Ask  me:\nbob@corp.io")
    'Ask me: b…@…'
    """
    if len(text) > 2 * _LOOKED:
        text = f"{text[:_LOOKED]}\n{text[-_LOOKED:]}"
    line = " ".join(hidden(text).split())
    if len(line) <= _QUOTED:
        return line
    return f"{line[:_HEAD].rstrip()} … {line[-_TAIL:].lstrip()}"


class Texts:
    """Quotes rows of some files, whose folders are left out where their names tell them apart."""

    def __init__(self, files: Iterable[str]) -> None:
        names = list(dict.fromkeys(files))
        short = {name: PurePath(name).name or name for name in names}
        often = Counter(short.values())
        self._short = {name: s if often[s] == 1 else name for name, s in short.items()}

    def name(self, file: str) -> str:
        """A file's name; rows that were made of it keep their mark."""
        real = bare(file)
        return self._short.get(real, real) + file[len(real) :]

    def place(self, place: str) -> str:
        """A row's place, or a file's."""
        file, _, line = place.rpartition(":")
        return f"{self.name(file)}:{line}" if file and line.isdigit() else self.name(place)

    def excerpt(self, record: Record, figure: str = "", text: str | None = None) -> Excerpt:
        """A record by its text, or by another one."""
        place = self.place(str(record.origin))
        return Excerpt(place, quoted(said(record) if text is None else text), figure)

    def unread(self, place: str, figure: str) -> Excerpt:
        """A row that is no record."""
        return Excerpt(self.place(place), "", figure)
