"""The moving average: its recursion, its place in the checkpoint, that it is the result (law 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import torch
from builders import gap
from torch import nn

from luthier.core.rundir import RunDir
from luthier.engine.average import Average
from luthier.engine.watch import Stop

from . import small


def test_it_is_the_recursion_written_out() -> None:
    weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    average, expected = Average({"w": weight}, 0.5), torch.zeros(2, dtype=torch.float64)
    for n in range(1, 30):
        with torch.no_grad():
            weight.fill_(float(n * n))
        average.update(n)
        decay = min(0.5, (n + 1) / (n + 10))
        expected = decay * expected + (1 - decay) * weight.detach()
    assert gap(average.values["w"], expected) < 1e-9


def test_while_swapped_the_model_computes_with_it() -> None:
    weight = nn.Parameter(torch.ones(1))
    average = Average({"w": weight}, 0.9)
    with torch.no_grad():
        weight.fill_(3.0)
    with average.swapped():
        assert weight.item() == 1.0
    assert weight.item() == 3.0
    average.take()
    assert weight.item() == 1.0


def averaged(folder: Path, **settings: Any) -> Any:
    held = builders.examples([8, 11], seed=7)
    given = {"ema": 0.9, "evaluate_every": 2, "save_every": 2, "learning_rate": 1e-2, **settings}
    return small.small_loop(folder, held=held, **given)


def test_it_is_evaluated_and_becomes_the_result(tmp_path: Path) -> None:
    kept = small.Kept()
    loop = averaged(tmp_path, trackers=[kept])
    loop.train()
    assert loop._average is not None
    assert all(torch.equal(loop._average.values[n], p) for n, p in loop.parameters.items())
    loss, _ = loop.validation_loss()
    assert loss == kept.of("validation")[-1]["loss"]
    plain = averaged(tmp_path / "plain", ema=None)
    plain.train()
    assert gap(small.weights(plain), small.weights(loop)) > 1e-4


def test_law_4_killed_and_resumed_is_never_killed(tmp_path: Path) -> None:
    whole = averaged(tmp_path / "whole")
    whole.train()
    first = averaged(tmp_path / "cut", stop=Stop(signal=15))
    assert first.train() == "stopped"
    second = averaged(tmp_path / "cut")
    [(_, folder)] = RunDir(tmp_path / "cut").saved()
    assert (folder / "average.safetensors").is_file()
    second.resume(folder)
    assert second.train() == "finished"
    ends = [small.weights(loop) for loop in (whole, second)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_run_stopped_early_keeps_the_best_average(tmp_path: Path) -> None:
    recipe = small.small_recipe(
        tmp_path / "run",
        ema=0.8,
        early_stopping={"patience": 1},
        evaluate_every=2,
        learning_rate=0.3,
        max_steps=40,
        keep=50,
    )
    outcome = small.fitted(recipe)
    assert outcome.status == "early"
    run = RunDir(tmp_path / "run")
    from safetensors.torch import load_file

    from luthier.engine.checkpoint import load_average, read_state

    newest = run.saved()[-1][1]
    best = read_state(newest).best
    assert best is not None
    kept = load_average(run.checkpoint(best[1]))
    assert kept is not None
    [file] = run.model.glob("*.safetensors")
    saved = load_file(file)
    assert all(torch.equal(saved[name], kept[name]) for name in saved)
