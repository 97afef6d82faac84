"""Real sets, where ``LUTHIER_DATA`` names their folder: what is known to be in them is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from luthier.data.check import Ask, check, sides

pytestmark = pytest.mark.skipif(
    not os.environ.get("LUTHIER_DATA"), reason="LUTHIER_DATA names no folder of real data sets"
)


@pytest.mark.parametrize(
    ("names", "totals"),
    [
        (
            ["banking77/train.csv", "banking77/test.csv"],
            {"D040": 11, "D041": 50, "D050": 11, "D051": 84},
        ),
        (["gsm8k/train.jsonl", "gsm8k/test.jsonl"], {}),
        (["dolly_small/dolly_hhrlhf_train_small.jsonl"], {"D051": 4, "D071": 1}),
    ],
    ids=["banking77", "gsm8k", "dolly"],
)
def test_what_real_sets_hold(names: list[str], totals: dict[str, int]) -> None:
    paths = [Path(os.environ["LUTHIER_DATA"], name) for name in names]
    if not all(path.exists() for path in paths):
        pytest.skip("LUTHIER_DATA holds no such set")
    found, known = sides([str(path) for path in paths])
    assert dict(check(Ask(found, known)).findings.totals) == totals
