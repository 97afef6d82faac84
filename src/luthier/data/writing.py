"""Records back to rows, in the shape that their own format reads again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from luthier.core.errors import DataError
from luthier.core.marks import mark
from luthier.core.records import (
    Conversation,
    Labelled,
    Pair,
    Preference,
    Record,
    SourceTarget,
    Tagged,
    Text,
    Turn,
)
from luthier.core.rundir import write_text


def write_rows(path: Path, records: Iterable[Record]) -> None:
    """A JSON object a line; a row that was made says by what, in a further column.

    Raises:
        DataError: records that no format here writes.
    """
    rows = (json.dumps({**row_of(r), **_made(r)}, ensure_ascii=False) for r in records)
    write_text(path, "".join(f"{row}\n" for row in rows))


def row_of(record: Record) -> dict[str, Any]:
    """A record as a row; reading it gives the same record, at its new place.

    Raises:
        DataError: a record that no format here writes.
    """
    match record:
        case Text(text=text):
            return {"text": text}
        case Conversation(turns=turns):
            if not turns or turns[0].role != "tools":
                return {"messages": _messages(turns)}
            return {"messages": _messages(turns[1:]), "tools": json.loads(turns[0].content)}
        case Labelled(text=text, label=label, pair=pair):
            both = {"text": text} if pair is None else {"text": text, "text_pair": pair}
            return {**both, "label": list(label) if isinstance(label, tuple) else label}
        case Tagged(words=words, tags=tags):
            return {"tokens": list(words), "tags": list(tags)}
        case Pair(anchor=anchor, positive=positive, negatives=negatives):
            return {"anchor": anchor, "positive": positive, "negatives": list(negatives)}
        case SourceTarget(source=source, target=target):
            return {"source": source, "target": target}
        case Preference(prompt=prompt, chosen=chosen, rejected=rejected, margin=margin):
            sides = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            row: dict[str, Any] = {name: _messages(turns) for name, turns in sides.items()}
            return row if margin is None else {**row, "margin": margin}
    raise DataError(
        f"a {type(record).__name__} cannot be written as a row",
        str(record.origin),
        "leave --output out: the recipe itself can be trained on as it is",
        "write",
    )


def _made(record: Record) -> dict[str, str]:
    return {"made_by": kind} if (kind := mark(record.origin)) else {}


def _messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    return [_message(turn) for turn in turns]


def _message(turn: Turn) -> dict[str, Any]:
    said: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if not turn.calls:
        return said
    calls = json.loads(turn.calls)
    return {**said, **(calls if turn.role == "tool" else {"tool_calls": calls})}
