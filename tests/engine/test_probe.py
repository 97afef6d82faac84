"""The probe: the recipe's word counts, else this machine's figures decide and are kept."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from luthier.core.recipe import TrainingSpec
from luthier.engine import probe


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_recipe_can_pin_the_precision(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_bfloat16_gain", lambda *_: pytest.fail("nothing to probe"))
    chosen = probe.choose(TrainingSpec(precision=precision), 64, 128)  # type: ignore[arg-type]
    assert chosen["precision"] == precision
    assert chosen["because"] == "the recipe says so"


@pytest.mark.parametrize(
    ("gain", "precision"), [(0.2, "float32"), (1.2, "float32"), (1.3, "bfloat16"), (4, "bfloat16")]
)
def test_bfloat16_on_a_cpu_must_be_clearly_faster(
    gain: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_bfloat16_gain", lambda *_: gain)
    chosen = probe.choose(TrainingSpec(device="cpu"), 64, 128)
    assert chosen["precision"] == precision
    assert chosen["bfloat16_speed"] == pytest.approx(gain)
    assert f"{gain:.1f} times" in chosen["because"]
    assert json.loads(json.dumps(chosen)) == chosen


def test_a_gpu_chooses_by_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for able, precision in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able: able)
        assert probe.choose(TrainingSpec(), 64, 128)["precision"] == precision


def test_the_figure_is_a_ratio_of_times() -> None:
    assert 0.001 < probe._bfloat16_gain(16, 32, rows=8) < 1000


def test_the_figure_is_not_moved_by_slow_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([6.0, 99.0, 4.0, 2.0, 99.0, 8.0] * 20)
    monkeypatch.setattr(probe, "_seconds", lambda action: next(times))
    assert probe._bfloat16_gain(16, 32, rows=8) == 2.0


def test_the_host_is_prepared_before_torch_starts_threads() -> None:
    code = (
        "import torch; from luthier.engine.probe import prepare_host;"
        "n = prepare_host(1); x = torch.tensor([1e-39]) * 0.5;"
        "print(n, torch.get_num_threads(), x.item())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["1", "1", "0.0"]


def test_large_tensors_ask_for_huge_pages_unless_the_user_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = (
        "import os; from luthier.engine.probe import prepare_host; prepare_host(1);"
        "print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    )
    for given, used in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
        if given is not None:
            monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", given)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == [used], done.stderr


def test_threads_are_the_physical_cores_this_process_may_use() -> None:
    import os

    assert 1 <= probe._physical_cores() <= (os.cpu_count() or 1)
