"""What a report on data says, as plain figures; texts in it are cut short and masked."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.core.findings import Finding
from luthier.core.histogram import Bin
from luthier.core.words import many


@dataclass(frozen=True)
class Excerpt:
    """A row by its text.

    Attributes:
        place: ``train.csv:718``.
        text: its beginning and end, personal data masked; empty where it could not be understood.
        figure: what it stands out by: ``1,204 tokens``.
    """

    place: str
    text: str
    figure: str = ""


@dataclass(frozen=True)
class Source:
    """A file: its name, its split, how many rows it has, and how they were understood."""

    name: str
    split: str
    rows: int
    faulty: int
    format: str


@dataclass(frozen=True)
class Found:
    """All findings of one code.

    Attributes:
        code: ``D003``.
        severity: ``error`` or ``warning``.
        title: what is wrong, in a few words.
        total: how many there are.
        examples: the first ones, each with its cure.
    """

    code: str
    severity: str
    title: str
    total: int
    examples: tuple[Finding, ...]


@dataclass(frozen=True)
class Alike:
    """Rows that say the same or nearly: how many of one sort, and some of them with their text."""

    code: str
    title: str
    total: int
    examples: tuple[Excerpt, ...]


@dataclass(frozen=True)
class Lengths:
    """One side of the data in tokens.

    Attributes:
        side: ``train`` or ``validation``.
        rows: how many there are.
        looked: how many of them were measured.
        tokens: of all that were measured.
        median: half of them have at most so many.
        nine: nine in ten have at most so many.
        longest: of all.
        bins: the histogram; a range ends at the limit.
        over: examples longer than the limit.
        targets: what is learned, in all.
        lost: how much of that the recipe's policy loses.
        cost: what it does to those that are too long, in words.
    """

    side: str
    rows: int
    looked: int
    tokens: int
    median: int
    nine: int
    longest: int
    bins: tuple[Bin, ...]
    over: int
    targets: int
    lost: int
    cost: str


@dataclass(frozen=True)
class Label:
    """A label: rows that have it, on each side, and their share of all labelled rows.

    Attributes:
        name: of the label.
        train: rows to learn it from.
        held: rows to measure it with; ``None`` where nothing is held out.
        share: of all rows that have a label.
    """

    name: str
    train: int
    held: int | None
    share: float

    @property
    def rows(self) -> int:
        """On both sides."""
        return self.train + (self.held or 0)

    @property
    def lacks(self) -> str:
        """What the split needs and this label does not have; empty where it has it."""
        if not self.train:
            return "none to learn from"
        return "none to measure with" if self.held == 0 else ""


@dataclass(frozen=True)
class Labels:
    """How labels are shared out.

    Attributes:
        noun: what they are: ``classes``, ``entity types``.
        rows: rows that can have one.
        labels: the most frequent first.
    """

    noun: str
    rows: int
    labels: tuple[Label, ...]

    @property
    def ratio(self) -> float:
        """Rows of the most frequent label for each row of the rarest."""
        return self.labels[0].rows / self.labels[-1].rows

    @property
    def single(self) -> bool:
        """Whether every row has one label, so that always saying the most frequent is a rule."""
        return self.noun != "tags" and sum(each.rows for each in self.labels) == self.rows

    @property
    def lacking(self) -> tuple[Label, ...]:
        """Those that have fewer rows than the split needs."""
        return tuple(each for each in self.labels if each.lacks)


@dataclass(frozen=True)
class Numbers:
    """Labels that are numbers: how many, and from where to where they go."""

    rows: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Script:
    """Rows most of whose letters are of one script; the first of them."""

    name: str
    rows: int
    share: float
    first: Excerpt


@dataclass(frozen=True)
class Group:
    """Rows with one value in the named column.

    Attributes:
        name: the value; empty for rows that have none.
        rows: on both sides.
        held: rows that are held out.
        share: of all rows.
        mean: tokens a row, of those measured; ``None`` where none was.
        labels: its most frequent labels with their share of its rows.
    """

    name: str
    rows: int
    held: int
    share: float
    mean: float | None
    labels: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Gap:
    """The label whose share differs most between two groups."""

    label: str
    high: tuple[str, float]
    low: tuple[str, float]


@dataclass(frozen=True)
class Groups:
    """Rows by a named column, the largest group first; groups beyond those shown are counted."""

    column: str
    groups: tuple[Group, ...]
    more: int
    gap: Gap | None


@dataclass(frozen=True)
class Worst:
    """Rows that stand out by one thing; ``nothing`` says why there are none."""

    title: str
    rows: tuple[Excerpt, ...]
    nothing: str


@dataclass(frozen=True)
class DataReport:
    """Everything that the page says.

    Attributes:
        title: names of the files.
        recipe: model and objective, in a few words.
        errors: findings that refuse training.
        warnings: findings that do not.
        rows: of all files, faulty ones included.
        sources: one a file.
        found: by code, errors first.
        unread: why nothing beyond the findings is known; empty where it is.
        said: how data and template were understood.
        limit: tokens that fit.
        policy: what becomes of longer examples.
        learned: what targets are: ``learned tokens``, or ``labels``.
        lengths: one a side.
        labels: ``None`` where rows have none.
        scripts: the most frequent first.
        alike: duplicates and leaks.
        groups: ``None`` where no column was named.
        worst: of each kind.
    """

    title: str
    recipe: str
    errors: int
    warnings: int
    rows: int
    sources: tuple[Source, ...]
    found: tuple[Found, ...]
    unread: str
    said: tuple[str, ...] = ()
    limit: int = 0
    policy: str = ""
    learned: str = ""
    lengths: tuple[Lengths, ...] = ()
    labels: Labels | Numbers | None = None
    scripts: tuple[Script, ...] = ()
    alike: tuple[Alike, ...] = ()
    groups: Groups | None = None
    worst: tuple[Worst, ...] = ()

    @property
    def verdict(self) -> str:
        """What was found, in one line."""
        counts = f"{many(self.errors, 'error')} and {many(self.warnings, 'warning')}"
        return f"{counts} in {many(self.rows, 'row')}"
