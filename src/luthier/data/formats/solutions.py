"""A problem with many solutions, as a tree: the problem once, each solution an answer to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import ConversationTree, Node, Record, Row, Turn
from luthier.data.formats._fields import checked, need, nested, pick, text

_PROBLEMS = ("problem", "description", "question", "prompt")


class Config(KindConfig):
    """Settings of problems with solutions."""

    kind: str = "solutions"
    most: int | None = Field(default=None, ge=1)
    """Take at most so many solutions of a problem, the first ones; all if unset."""


class Format:
    """Rows with a problem and its solutions to a :class:`ConversationTree`.

    The solutions are a list of texts, an object that holds one under ``solution`` (AlphaCode's
    CodeContests), or such a list written as JSON text (APPS). Wrong solutions, tests and ratings
    in other columns are left.
    """

    records: ClassVar[tuple[type[Record], ...]] = (ConversationTree,)
    fields: ClassVar[tuple[str, ...]] = ("problem", "solutions")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the problem and of its solutions."""
        problem = pick(fields, _PROBLEMS)
        if problem is None or nested(fields[problem]) or _listed(fields.get("solutions")) is None:
            return None
        most = self.config.most
        said = f"; at most {most} of a problem" if most is not None else ""
        return f"problem='{problem}', solutions='solutions'{said}"

    def read(self, row: Row) -> Record:
        """The problem and its solutions."""
        problem = text(row, need(row, _PROBLEMS, "problem"), "problem")
        column = need(row, ("solutions",), "solutions")
        found = _listed(row.fields[column])
        if not found:
            raise DataError(
                f"'{column}' holds no list of solutions with something in it",
                str(row.origin),
                "write the solutions as a list of texts, or take the row out",
                "type" if found is None else "empty",
            )
        nodes = [Node(Turn("user", problem))]
        for index, item in enumerate(found[: self.config.most]):
            solution = checked(item, f"{column}[{index}]", "solution", row.origin)
            nodes.append(Node(Turn("assistant", solution), 0))
        return ConversationTree(row.origin, tuple(nodes))


def _listed(value: Any) -> list[Any] | None:
    """The list of solutions, in whatever it is wrapped."""
    if isinstance(value, Mapping):
        value = value.get("solution")
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return list(value) if isinstance(value, list | tuple) else None
