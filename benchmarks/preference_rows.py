"""The rows of the comparisons on preferences: hh-rlhf's helpful part, in text and in tokens.

Both systems get the same pairs, cut the same way: Luthier's own tokens, prompt and answers apart.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

FILE = "hh_rlhf_helpful_base/helpful-base.test.jsonl.gz"
#: Share of the rows that are measured on.
HELD = 0.2


def prepare(folder: Path, model: str, kind: str, longest: int, whole: bool) -> dict[str, Any]:
    """Writes ``train.jsonl`` and ``test.jsonl`` (rows), and the same with ``_tokens``.

    Args:
        folder: where to.
        model: whose tokens.
        kind: of the objective, with its settings as they come.
        longest: tokens that a prompt with an answer may have.
        whole: only pairs that fit as they are, with answers of one turn: of longer ones we learn
            what the assistant says, and TRL what the user says as well. Else prompts that are too
            long lose their beginning.

    Returns:
        What of the file was used, and what not.
    """
    from luthier.codecs import make_codec
    from luthier.core import kinds
    from luthier.core import recipe as recipes
    from luthier.core.contracts import Head
    from luthier.core.errors import DataError
    from luthier.data.formats.preference import Config, Format
    from luthier.data.prepare import fitting
    from luthier.data.sources import read
    from luthier.models.load import load

    source = Path(os.environ["LUTHIER_DATA"]) / FILE
    objective = kinds.build("objectives", kinds.config("objectives", kind))
    own: list[Head] = [head for head in objective.heads if head.kind != "lm"]
    loaded = load(model, head=own[0] if own else None)
    recipe = recipes.load(
        {"model": model, "objective": kind, "data": {"train": str(source), "max_length": longest}}
    )
    codec = make_codec(recipe, loaded)
    reader, used, refused, cut, talks = Format(Config()), [], 0, 0, 0
    for row in (row for each in read(str(source)) for row in each.rows):
        try:
            record: Any = reader.read(row)
            example = objective.encode(record, codec)
        except DataError:
            refused += 1
            continue
        pieces, lost = fitting(example, objective, codec, "left")
        cut += bool(lost)
        several = max(len(record.chosen), len(record.rejected)) > 1
        talks += several
        if not pieces or (whole and (lost or several)):
            continue
        used.append((_text(record), _tokens(pieces[0])))
    random.Random(0).shuffle(used)
    held = round(HELD * len(used))
    for name, rows in (("test", used[:held]), ("train", used[held:])):
        for suffix, place in (("", 0), ("_tokens", 1)):
            lines = "".join(json.dumps(row[place]) + "\n" for row in rows)
            (folder / f"{name}{suffix}.jsonl").write_text(lines, encoding="utf-8")
    return {
        "file": FILE,
        "train": len(used) - held,
        "test": held,
        "refused": refused,
        "too_long": cut,
        "of_several_turns": talks,
        "those_left_out": whole,
        "longest": longest,
    }


def tokens(folder: Path, name: str, count: int | None = None) -> list[dict[str, list[int]]]:
    """The pairs of a side in tokens."""
    text = (folder / f"{name}_tokens.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()[:count]]


def _text(record: Any) -> dict[str, Any]:
    def said(turns: Any) -> list[dict[str, str]]:
        return [{"role": turn.role, "content": turn.content} for turn in turns]

    return {name: said(getattr(record, name)) for name in ("prompt", "chosen", "rejected")}


def _tokens(example: Any) -> dict[str, list[int]]:
    """Of a tree the prompt and both answers; of an encoder's texts both, without a prompt."""
    parts = [segment.tokens.tolist() for segment in example.segments]
    prompt = parts if len(parts) == 3 else [[], *parts]
    return dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), prompt, strict=True))
