"""What a run must not forget: measured before and after, replayed, pulled back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from tiny_runs import sums, tiny_recipe

import luthier
from luthier.assemble import assemble
from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.data.batching import collate
from luthier.data.order import Order
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels
from luthier.objectives import sft
from luthier.objectives._pulled import START, Pulled

OLD = [{"text": f"the {n}th of the old stories is about number {n * n}"} for n in range(40)]


def recipe(folder: Path, retain: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    (folder / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in OLD))
    spec = {"rows": str(folder / "old.jsonl"), "objective": "language_modeling", **(retain or {})}
    data = {"train": sums(), "validation": 0.2}
    return {**tiny_recipe(folder / "run", data=data), "retain": spec, **changes}


def test_old_rows_are_measured_before_and_after(tmp_path: Path) -> None:
    run = luthier.train(recipe(tmp_path), quiet=True)
    found = run.evaluation["retained"]
    assert found["rows"] == 40
    figure = found["metrics"]["perplexity"]
    assert figure["before"] != figure["after"]
    assert figure["interval"][0] <= figure["difference"] <= figure["interval"][1]
    page = run.folder.report.read_text(encoding="utf-8")
    assert "What it could do before" in page
    assert "<p>40 rows of the old kind" in page
    assert run.metrics["perplexity"]["before"] != figure["before"]


def test_old_rows_are_measured_though_nothing_is_held_out(tmp_path: Path) -> None:
    data = {"train": sums(), "validation": 0}
    run = luthier.train(recipe(tmp_path, data=data), quiet=True)
    assert run.metrics == {}
    assert run.evaluation["retained"]["metrics"]["perplexity"]["after"] > 0


def test_replay_draws_its_share_of_every_epoch(tmp_path: Path) -> None:
    said: list[str] = []
    parts = assemble(recipes.load(recipe(tmp_path, {"replay": 0.25})), said.append)
    assert parts.retained
    assert parts.retained.replayed
    assert parts.drawing
    new, old = len(parts.train[0].records), len(parts.retained.replayed[0].records)
    assert (new, old, len(parts.retained.held[0].records)) == (51, 36, 4)
    drawing, pools = parts.drawing
    assert drawing.draws == (51, 17)
    store = parts.train[1].examples
    assert len(store) == new + old
    order = Order(len(store), 16, 0, pools)
    assert order.count == 68
    for epoch in range(3):
        drawn = np.concatenate([order.step(epoch * order.per_epoch + n) for n in range(5)])
        assert sorted(drawn[drawn < new]) == list(range(new))
        assert len(set(drawn[drawn >= new])) == 17
    names = {store.origin(int(i)).source for i in drawn if i >= new}
    assert names == {str(tmp_path / "old.jsonl")}
    text = parts.codec.decode(store[new].segments[0].tokens.tolist())
    assert "old stories" in text


def test_what_is_measured_is_never_replayed(tmp_path: Path) -> None:
    parts = assemble(recipes.load(recipe(tmp_path, {"replay": 0.5})), lambda _line: None)
    assert parts.retained
    assert parts.retained.replayed
    learned, held = parts.retained.replayed[0].records, parts.retained.held[0].records
    assert not {r.origin for r in learned} & {r.origin for r in held}


def test_replay_forgets_less(tmp_path: Path) -> None:
    """A tiny model taught the old rows first, then the new ones with and without them."""
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in OLD))
    base = tiny_recipe(
        tmp_path / "base",
        objective="language_modeling",
        data={"train": str(tmp_path / "old.jsonl"), "validation": 0},
    )
    base["training"] = {**base["training"], "max_steps": 60}
    luthier.train(base, quiet=True)
    after = {}
    for name, share in (("without", 0.0), ("with", 0.3)):
        changes = {"model": str(tmp_path / "base"), "output": str(tmp_path / name)}
        asked = recipe(tmp_path, {"replay": share}, **changes)
        asked["training"] = {**asked["training"], "max_steps": 40}
        figures = luthier.train(asked, quiet=True).evaluation["retained"]["metrics"]
        after[name] = figures["perplexity"]["after"] / figures["perplexity"]["before"]
    assert after["without"] > 1.5
    assert after["with"] < 0.8 * after["without"]


def test_changed_old_rows_end_a_resume(tmp_path: Path) -> None:
    asked = recipe(tmp_path, {"replay": 0.25})
    run = luthier.train(asked, quiet=True)
    rows = [*OLD[1:], {"text": "another one"}]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = {**asked, "training": {**asked["training"], "max_steps": 14}}
    with pytest.raises(RecipeError, match="retained rows"):
        luthier.train(again, resume=run.path, quiet=True)


def test_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    asked = recipe(tmp_path, {"objective": "classification"})
    with pytest.raises(RecipeError, match="reads another head"):
        assemble(recipes.load(asked), lambda _line: None)


def test_a_pull_keeps_the_model_near_its_start(tmp_path: Path) -> None:
    """Taught old rows, then new ones: the stronger the pull, the less of both changes."""
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in OLD))
    base = tiny_recipe(tmp_path / "base", data={"train": sums(), "validation": 0})
    luthier.train(base, quiet=True)
    learned, kept = [], []
    for pull in (0.0, 2.0):
        changes = {
            "model": str(tmp_path / "base"),
            "output": str(tmp_path / f"pull-{pull}"),
            "objective": "language_modeling",
            "data": {"train": str(tmp_path / "old.jsonl"), "validation": 0.2},
        }
        run = luthier.train(recipe(tmp_path, {"kl": pull}, **changes), quiet=True)
        after = run.evaluation["retained"]["metrics"]["perplexity"]
        kept.append(after["before"] / after["after"])
        learned.append(run.metrics["perplexity"]["after"])
        logged = [event for event in run.events if "loss" in event]
        assert any("kl" in str(event) for event in logged) == bool(pull)
    assert learned[0] < 0.9 * learned[1]
    assert kept[0] > kept[1]


def test_the_pull_is_nothing_at_the_start_and_its_gradient_too() -> None:
    model = builders.talking(400)
    policy = CausalModel(model.double().eval())
    objective = Pulled(sft.Objective(sft.Config()), "base", 1.0)
    codec = builders.codec()
    batch = collate([objective.encode(row, codec) for row in builders.conversations(3)])
    start = RunModels(
        policy, kinds.build("methods", kinds.config("methods", "full")), {START: policy}
    )
    table = {**batch.targets["lm"], **objective.columns(start, batch)["lm"]}
    batch = replace(batch, targets={"lm": table})
    terms = objective.loss(start, batch)
    assert abs(terms["kl"].item()) < 1e-10
    torch.autograd.backward(terms["kl"])
    assert all(p.grad is None or p.grad.abs().max() < 1e-8 for p in model.parameters())
    with torch.no_grad():
        model.lm_head.weight.add_(torch.randn_like(model.lm_head.weight) * 0.02)
    assert objective.loss(start, batch)["kl"].item() > 1e-4
    assert objective.weights(batch)["kl"] == objective.weights(batch)["nll"]


def test_a_pull_without_a_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a model from scratch has nothing to forget"):
        assemble(recipes.load(recipe(tmp_path, {"kl": 0.1})), lambda _line: None)
