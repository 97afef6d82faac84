"""Heads that are solved for: as scikit-learn's, calibrated, stopped and begun again, saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import classifiers
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_classify import recipe, rows

import luthier
from luthier import cli
from luthier.classify import Classifier
from luthier.core.errors import RecipeError
from luthier.engine import solver
from luthier.engine.watch import Stop
from luthier.methods import head as head_method
from luthier.models.load import load


def noisy() -> list[dict[str, Any]]:
    """Rows of which every fifth has another's label: nobody can be sure of them."""
    made = rows()
    for place in range(0, len(made), 5):
        made[place] = {**made[place], "label": made[(place + 20) % len(made)]["label"]}
    return made


def solved(tmp_path: Path, name: str = "bert", **changes: Any) -> dict[str, Any]:
    method = {"kind": "head", "solver": "lbfgs", **changes.pop("method", {})}
    values = recipe(tmp_path, "head", name, data={"train": noisy(), "validation": 0.25}, **changes)
    values["method"] = method
    for setting in ("epochs", "batch_size", "learning_rate"):
        del values["training"][setting]
    values["training"]["device"] = "cpu"
    return values


def head(path: Path) -> dict[str, torch.Tensor]:
    module: Any = load(str(path)).model.module
    return {n: p.detach().double() for n, p in module.classifier.named_parameters()}


def states_and_labels(values: dict[str, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Of the training rows, from the cache that the run left."""
    from luthier.core import cache

    found: dict[str, dict[int, Any]] = {"states": {}, "classification.label": {}}
    for entry in cache.entries():
        for name, arrays in found.items():
            if (file := entry.path / f"{name}.npy").is_file():
                arrays[len(np.load(file))] = np.load(file)
    most = max(found["states"])
    return found["states"][most], found["classification.label"][most]


def test_the_head_is_scikit_learns_logistic_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    values = solved(tmp_path, method={"calibrate": False, "l2": 1e-3})
    run = luthier.train(values, quiet=True)
    states, labels = states_and_labels(values)
    theirs = LogisticRegression(C=1 / (1e-3 * len(labels)), tol=1e-8, max_iter=10_000)
    theirs.fit(states.astype(np.float64), labels)
    ours = head(run.path)
    # Biases of a softmax are known up to one number for all.
    gap = np.abs(ours["weight"].numpy() - theirs.coef_).max()
    assert gap < 0.02 * np.abs(theirs.coef_).max()
    scores = torch.tensor(states).double() @ ours["weight"].T + ours["bias"]
    expected = theirs.predict_proba(states.astype(np.float64))
    assert np.abs(scores.softmax(-1).numpy() - expected).max() < 5e-3
    assert run.metrics["accuracy"]["after"] > run.metrics["accuracy"]["before"]


def test_calibration_changes_no_prediction_and_makes_them_honest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_method, "TOLERANCE", 1e-6)  # whatever start, one answer
    texts = [row["text"] for row in rows()]
    runs = []
    for calibrate in (True, False):
        values = solved(tmp_path, method={"calibrate": calibrate, "l2": 1e-5, "held": 0.3})
        values["output"] = str(tmp_path / f"run-{calibrate}")
        runs.append(luthier.train(values, quiet=True))
    said = [Classifier.open(str(run.path)).predict(texts) for run in runs]
    for warm, cold in zip(*said, strict=True):
        first, second, _ = cold.probabilities.values()
        assert warm.label == cold.label or first - second < 0.02
    [event] = [e for e in runs[0].events if e["kind"] == "solved"]
    assert not [e for e in runs[1].events if e["kind"] == "solved"]
    assert event["temperature"] > 1, "nearly unpenalised, and noisy: too sure of itself"
    assert event["calibration_error"]["after"] < event["calibration_error"]["before"]
    soft, sharp = (head(run.path)["weight"] for run in runs)
    assert (soft * event["temperature"] - sharp).abs().max() < 0.02 * sharp.abs().max()
    after, before = (run.metrics["log_loss"]["after"] for run in runs)
    assert after < before, "on rows that neither fit has seen"


def test_the_temperature_is_where_the_loss_is_least() -> None:
    from luthier.core import kinds
    from luthier.core.records import Batch, SegmentTable
    from luthier.engine.trunk_cache import CachedTrunk

    torch.manual_seed(0)
    model = classifiers.model("bert", "mean")
    states = 5 * torch.randn(60, 32)
    nothing = torch.zeros(0, dtype=torch.int64)
    table = {"segment": torch.arange(60), "label": torch.randint(3, (60,)), "state": states,
             "weight": torch.ones(60)}  # fmt: skip
    batch = Batch(
        nothing, nothing, SegmentTable((), (), ()), {"classification": table}, (), nothing
    )
    settings = {"kind": "classification", "classes": list(classifiers.NAMES),
                "problem_type": "single_label"}  # fmt: skip
    made: Any = solver.Solver.__new__(solver.Solver)
    made.objective = kinds.build("objectives", kinds.config("objectives", settings))
    made.models = type("M", (), {"policy": CachedTrunk(model, "classification")})()
    from luthier.engine.backend import Backend

    made.backend = Backend("cpu")
    factor, loss = made._temperature(batch)
    with torch.no_grad():
        scores = model.outputs("classification", states)
        grid = [
            float(torch.nn.functional.cross_entropy(scores / (factor * t), table["label"]))
            for t in (0.8, 0.97, 1.0, 1.03, 1.25)
        ]
    assert loss == pytest.approx(grid[2], abs=1e-5)
    assert min(grid) == grid[2]
    assert isinstance(made.models.policy, CachedTrunk)
    assert not isinstance(made.models.policy, solver.Tempered)


@pytest.mark.parametrize(("name", "pooling"), [("modernbert", "auto"), ("llama", "auto")])
def test_an_architectures_own_head_is_solved_for_and_scaled_too(
    name: str, pooling: str, tmp_path: Path
) -> None:
    values = solved(tmp_path, name)
    values["objective"] = {"kind": "classification", "pooling": pooling}
    run = luthier.train(values, quiet=True)
    assert run.metrics["accuracy"]["after"] > run.metrics["accuracy"]["before"]
    assert run.metrics["calibration_error"]["rows"] == run.evaluation["rows"]


def test_a_hidden_layer_is_saved_loaded_and_continued(tmp_path: Path) -> None:
    values = solved(tmp_path, method={"l2": 1e-3, "iterations": 60})
    values["objective"] = {"kind": "classification", "pooling": "mean", "hidden": 7}
    run = luthier.train(values, quiet=True)
    made = head(run.path)
    assert {n: tuple(p.shape) for n, p in made.items()} == {
        "0.weight": (7, 32), "0.bias": (7,), "2.weight": (3, 7), "2.bias": (3,),
    }  # fmt: skip
    said = Classifier.open(str(run.path)).predict(["joy joy"])[0]
    assert sum(said.probabilities.values()) == pytest.approx(1, abs=1e-5)
    for number, method in enumerate(("lora", "full")):
        more = recipe(tmp_path, method, output=str(tmp_path / f"more-{number}"))
        more["model"] = str(run.path)
        more["objective"] = {"kind": "classification", "pooling": "mean", "hidden": 7}
        more["training"] |= {"max_steps": 1, "learning_rate": 1e-9}
        again = luthier.train(more, quiet=True)
        kept = head(again.path)
        assert all(torch.allclose(kept[n], made[n], atol=1e-6) for n in made)
        [same] = Classifier.open(str(again.path)).predict(["joy joy"])
        assert same.probabilities == pytest.approx(said.probabilities, abs=1e-4)


def test_inspect_says_that_there_are_no_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    values = solved(tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in values["data"]["train"]))
    values["data"]["train"] = str(file)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    cli.run(["inspect", str(tmp_path / "recipe.yaml")])
    assert "L-BFGS over all rows at once" in capsys.readouterr().out


def test_several_strengths_are_tried_where_none_is_said(tmp_path: Path) -> None:
    run = luthier.train(solved(tmp_path, method={"l2": "auto"}), quiet=True)
    [event] = [e for e in run.events if e["kind"] == "solved"]
    assert event["l2"] in solver.STRENGTHS
    assert event["held"] > 0


def test_law_4_stopped_it_begins_again_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = solved(tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in values["data"]["train"]))
    values["data"]["train"] = str(file)
    whole = luthier.train({**values, "output": str(tmp_path / "whole")}, quiet=True)
    asked = []
    with monkeypatch.context() as patch:

        def together(*_: Any) -> bool:
            asked.append(1)
            return len(asked) == 2

        patch.setattr(Stop, "together", together)
        patch.setattr(Stop, "asked", property(lambda _self: len(asked) >= 2), raising=False)
        stopped = luthier.train(values, quiet=True)
    assert not stopped.finished
    again = luthier.train(resume=stopped.path, quiet=True)
    assert again.finished
    files = ("model.safetensors", "head.safetensors")
    ours, theirs = ([(r.path / "model" / f).read_bytes() for f in files] for r in (again, whole))
    assert ours == theirs


def test_numbers_are_solved_for_and_have_no_temperature(tmp_path: Path) -> None:
    values = solved(tmp_path)
    values["data"]["train"] = [
        {"text": row["text"], "label": float(n % 7)} for n, row in enumerate(rows())
    ]
    run = luthier.train(values, quiet=True)
    assert not [e for e in run.events if e["kind"] == "solved"]
    assert run.metrics["r2"]["after"] > run.metrics["r2"]["before"]


def test_settings_of_the_other_solver_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no meaning for steps"):
        luthier.train(solved(tmp_path, method={"solver": "steps", "l2": 0.1}), quiet=True)
