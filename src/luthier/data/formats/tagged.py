"""Words with one tag each: tokens/tags, words/ner_tags, and CoNLL column files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, ClassVar, Literal

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError, Fault
from luthier.core.records import Origin, Record, Row, Tagged
from luthier.data.formats._fields import checked, need, pick, said
from luthier.data.formats._schemes import InvalidTagError, detect, entities, iob2

_WORDS = ("tokens", "words")
_TAGS = ("tags", "ner_tags")
#: Where the scheme of a file is noted in its rows; no column of data has such a name.
_SCHEME = "\0scheme"
#: Rows that the scheme is found from.
_SAMPLE = 10_000


class Config(KindConfig):
    """Settings of tagged words."""

    kind: str = "tagged"
    scheme: Literal["auto", "iob1", "iob2", "bioes", "bilou", "plain"] = "auto"
    """How tags mark spans; ``plain`` where they do not (parts of speech). ``auto``: the scheme in
    which most rows of the source are valid."""
    names: tuple[str, ...] = ()
    """What numbers in place of tags mean, in order."""


class Format:
    """Rows with a list of words and one of tags to :class:`Tagged`, the tags in IOB2.

    The scheme is that of the whole source: a row of another one is a fault, with the first word
    that does not fit.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Tagged,)
    fields: ClassVar[tuple[str, ...]] = ("tokens", "tags")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The two columns, both lists."""
        words, tags = pick(fields, _WORDS), pick(fields, _TAGS)
        if words is None or tags is None:
            return None
        if not all(isinstance(fields[name], list | tuple) for name in (words, tags)):
            return None
        found = f"tokens='{words}', tags='{tags}'"
        scheme = self._scheme([fields[tags]])
        return found if scheme in ("iob2", "plain") else f"{found}; {scheme.upper()} becomes IOB2"

    def gather(self, rows: Iterable[Row]) -> Iterator[Row | Fault]:
        """The same rows, each with the scheme of all."""
        every = iter(rows)
        first = list(islice(every, _SAMPLE))
        columns = [pick(row.fields, _TAGS) for row in first]
        scheme = self._scheme(
            row.fields[column]
            for row, column in zip(first, columns, strict=True)
            if column is not None
        )
        for row in chain(first, every):
            yield Row({**row.fields, _SCHEME: scheme}, row.origin)

    def read(self, row: Row) -> Record:
        """The words and tags of a row."""
        shown = Row({k: v for k, v in row.fields.items() if k != _SCHEME}, row.origin)
        columns = need(shown, _WORDS, "words"), need(shown, _TAGS, "tags")
        words = [
            checked(item, f"{columns[0]}[{i}]", "word", row.origin)
            for i, item in enumerate(_list(row, columns[0], "words"))
        ]
        listed = _list(row, columns[1], "tags")
        tags = [self._tag(item, f"{columns[1]}[{i}]", row) for i, item in enumerate(listed)]
        if len(words) != len(tags):
            raise DataError(
                f"'{columns[0]}' holds {len(words)} words and '{columns[1]}' {len(tags)} tags",
                str(row.origin),
                "give every word one tag",
                "tags",
            )
        scheme = row.fields.get(_SCHEME) or self._scheme([tags])
        return Tagged(row.origin, tuple(words), _converted(words, tags, scheme, row.origin))

    def _scheme(self, lists: Iterable[Any]) -> str:
        """What the settings say, or the scheme of most of these."""
        if self.config.scheme != "auto":
            return self.config.scheme
        return detect(
            [self._named(tag) for tag in tags] for tags in lists if isinstance(tags, list | tuple)
        )

    def _named(self, tag: Any) -> str:
        names = self.config.names
        if isinstance(tag, int) and not isinstance(tag, bool) and 0 <= tag < len(names):
            return names[tag]
        return tag if isinstance(tag, str) else ""

    def _tag(self, value: Any, place: str, row: Row) -> str:
        if not isinstance(value, int) or isinstance(value, bool):
            return checked(value, place, "tag", row.origin)
        if named := self._named(value):
            return named
        known = len(self.config.names)
        raise DataError(
            f"the tag in {place} is the number {value}, and "
            + (f"only {known} names are given" if known else "no names are given"),
            str(row.origin),
            "say what numbers mean: format: {kind: tagged, names: [O, B-PER, I-PER]}",
            "tag-name",
        )


def _list(row: Row, column: str, what: str) -> list[Any]:
    value = row.fields[column]
    if isinstance(value, list | tuple) and value:
        return list(value)
    found = "null" if value is None else "an empty list" if value == [] else said(value)
    raise DataError(
        f"the {what} in '{column}' are {found}, not a list with something in it",
        str(row.origin),
        "write one word or tag an item, or take the row out",
        "null" if value is None else "empty" if value == [] else "type",
    )


def _converted(words: list[str], tags: list[str], scheme: str, origin: Origin) -> tuple[str, ...]:
    if scheme == "plain":
        return tuple(tags)
    try:
        return iob2(entities(tags, scheme), len(tags))
    except InvalidTagError as error:
        at = error.index
        raise DataError(
            f"word {at + 1} ({words[at]!r}): the tag {tags[at]!r} {error} "
            f"(the tags of this source are {scheme.upper()})",
            str(origin),
            "mend the tag, or name the scheme: format: {kind: tagged, scheme: iob1}",
            "tag",
        ) from None
