"""The steps of ``data.clean``, in order, each counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luthier.core import kinds
from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Record


def clean(
    records: Sequence[Record],
    steps: Sequence[KindConfig],
    say: Callable[[str], None] = lambda _line: None,
) -> tuple[Sequence[Record], dict[str, dict[str, int]]]:
    """Records after every step, and what each step did.

    Raises:
        DataError: a step leaves nothing.
    """
    done: dict[str, dict[str, int]] = {}
    for number, config in enumerate(steps, start=1):
        made = kinds.build("data/cleaners", config).clean(records)
        if not made.records:
            raise DataError(
                f"data.clean: {config.kind} left none of {len(records):,} rows", code="no-rows"
            )
        say(f"clean, {config.kind}: {made.changed:,} rows changed, {made.dropped:,} dropped")
        for note in made.notes:
            say(f"clean, {config.kind}: {note}")
        done[f"{number} {config.kind}"] = {"changed": made.changed, "dropped": made.dropped}
        records = made.records
    return records, done
