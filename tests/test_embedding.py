"""Sentence encoders from rows to vectors: retrieval before and after, saved for others to load."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import builders
import classifiers
import numpy as np
import pytest
import torch
from engine.small import fingerprint

import luthier
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.core.records import Example, Origin, Segment
from luthier.embed import Embedder
from luthier.evaluation.retrieving import score_retrieval
from luthier.export import export
from luthier.inspection import inspect
from luthier.models.load import load

THINGS = ("rain", "boat", "fox", "green", "river", "shop", "name", "night")
#: Words of another kind: nothing is found by what two texts share.
OTHERS = ("please", "count", "once", "mat", "write", "two", "crossed", "we")


def rows() -> list[dict[str, Any]]:
    """What is said of a thing belongs to the question for it."""
    return [
        {
            "anchor": f"where is the {thing} {number}",
            "positive": f"{OTHERS[place]} {OTHERS[number]} {OTHERS[place]}",
            "negative": f"{OTHERS[(place + 1) % 8]} {OTHERS[number]}",
        }
        for place, thing in enumerate(THINGS)
        for number in range(6)
    ]


def recipe(tmp_path: Path, method: Any = "full", name: str = "bert") -> dict[str, Any]:
    base = tmp_path / "base"
    return {
        "model": str(base if base.exists() else classifiers.saved(base, name)),
        "objective": {"kind": "embedding", "pooling": "mean"},
        "method": method,
        "data": {"train": rows(), "validation": 0.25},
        "training": {
            "epochs": 6, "batch_size": 12, "precision": "float32", "threads": 1, "trackers": [],
            "learning_rate": 2e-2 if method == "lora" else 3e-3, "device": "cpu",
        },
        "evaluation": {"samples": 2, "resamples": 100},
        "output": str(tmp_path / "run"),
    }  # fmt: skip


@pytest.mark.parametrize(("method", "name"), [("full", "bert"), ("lora", "distilbert")])
def test_pairs_become_an_encoder_that_finds_them(method: str, name: str, tmp_path: Path) -> None:
    run = luthier.train(recipe(tmp_path, method, name), quiet=True)
    figures = run.metrics
    assert set(figures) == {"recall_1", "recall_5", "recall_10", "mrr", "ndcg_10"}
    assert figures["mrr"]["after"] > figures["mrr"]["before"] + 0.1
    assert figures["mrr"]["rows"] == run.evaluation["rows"]
    [first, _] = run.samples
    assert first["prompt"].startswith("where is the")
    assert first["after"]
    lines = [json.loads(line) for line in (run.path / "scores.jsonl").read_text().splitlines()]
    assert all(line["rank"] >= 1 for line in lines)
    made = Embedder.open(str(run.path)).embed([rows()[0]["anchor"], "a boat"])
    assert made.shape == (2, 32)
    assert np.linalg.norm(made, axis=1) == pytest.approx(1, abs=1e-5)
    assert isinstance(luthier.open(str(run.path)), Embedder)
    done = export(run.path, "merged", tmp_path / "merged", say=lambda _line: None)
    assert done.difference < 1e-4
    again = Embedder.open(str(tmp_path / "merged")).embed(["a boat"])
    assert np.abs(again[0] - made[1]).max() < 1e-5
    assert "vector" in (run.path / "README.md").read_text()
    [found] = inspect(recipes.load(recipe(tmp_path, method, name)))
    assert not found.refusals


def test_what_is_saved_loads_elsewhere_and_says_how_to_pool(tmp_path: Path) -> None:
    from transformers import AutoModel

    run = luthier.train(recipe(tmp_path), quiet=True)
    folder = run.path / "model"
    parts = json.loads((folder / "modules.json").read_text())
    assert [p["type"].rsplit(".", 1)[-1] for p in parts] == [
        "Transformer", "Pooling", "Normalize",
    ]  # fmt: skip
    said = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert said["pooling_mode_mean_tokens"]
    assert not said["pooling_mode_cls_token"]
    assert said["word_embedding_dimension"] == 32
    plain = AutoModel.from_pretrained(folder).eval()
    tokens = torch.tensor(builders.codec().texts("a boat")[0])[None]
    with torch.no_grad():
        theirs = plain(input_ids=tokens).last_hidden_state[0].mean(0)
    ours = Embedder.open(str(run.path)).embed(["a boat"], normalise=False)[0]
    assert np.abs(theirs.numpy() - ours).max() < 1e-5
    more = recipe(tmp_path)
    more |= {"model": str(run.path), "output": str(tmp_path / "more")}
    more["objective"] = "embedding"
    more["training"]["max_steps"] = 1
    assert luthier.train(more, quiet=True).metrics["mrr"]["before"] == pytest.approx(
        run.metrics["mrr"]["after"], abs=0.05
    )


def test_law_3_a_run_in_small_micro_batches_is_the_run(tmp_path: Path) -> None:
    losses = []
    for budget in ("auto", 64):
        values = recipe(tmp_path)
        values["output"] = str(tmp_path / f"run-{budget}")
        values["training"] |= {"token_budget": budget, "max_steps": 6, "log_every": 1}
        values["model"] = {"name": values["model"], "dropout": 0.0}
        run = luthier.train(values, quiet=True)
        losses.append([e["loss"] for e in run.events if e["kind"] in ("step", "validation")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_law_4_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.test_checkpoint import at_step, terminate

    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    values = recipe(tmp_path)
    values["data"]["train"] = str(file)
    values["training"]["max_steps"] = 5
    whole = luthier.train({**values, "output": str(tmp_path / "whole")}, quiet=True)
    with monkeypatch.context() as patch:
        at_step(2, terminate, patch)
        luthier.train(values, quiet=True)
    again = luthier.train(resume=values["output"], quiet=True)
    assert fingerprint(again.path) == fingerprint(whole.path)


def test_ranks_by_hand() -> None:
    """Vectors chosen so that every rank is known; equal ones are no help."""

    class Given:
        device = torch.device("cpu")
        module = torch.nn.Linear(1, 1)
        layout = MappingProxyType({"causal": False})

        def hidden(self, batch: Any) -> Any:
            return batch

        def pooled(self, batch: Any, _hidden: Any, segments: Any) -> Any:
            starts = torch.tensor(batch.segments.starts)
            return table[batch.tokens[0][starts[segments]]]

    table = torch.tensor([[1.0, 0], [0, 1], [0.9, 0.1], [0.5, 0.5], [0, 1], [0.2, 0.2]])

    def example(line: int, anchor: int, *others: int) -> Example:
        segments = tuple(Segment(np.array([t])) for t in (anchor, *others))
        names = np.array([anchor, *others])
        return Example(
            segments,
            {
                "embedding": {"segment": np.array([0]), "text": names[:1]},
                "candidate": {"segment": np.arange(1, len(names)), "text": names[1:]},
            },
            Origin("x", line),
        )

    class Codec:
        def decode(self, tokens: Any) -> str:
            return str(tokens[0])

    model: Any = Given()
    examples = [example(1, 0, 3, 2), example(2, 1, 4), example(3, 0, 2), example(4, 5, 1)]
    found = score_retrieval(model, examples, Codec(), cosine=False)
    # Of anchor 0: 2 (0.9), 3 (0.5); 2 is right as well, so that 3 is found first.
    assert [s.rank for s in found] == [1, 2, 1, 3]
    assert [s.answer for s in found] == ["2", "4", "2", "3"]
    assert found[0].references == ("3",)


def test_a_head_alone_has_nothing_to_learn_and_a_decoder_pools_its_last_token(
    tmp_path: Path,
) -> None:
    with pytest.raises(RecipeError, match="has none"):
        luthier.train(recipe(tmp_path, "head"), quiet=True)
    builders.talking(len(builders.tokenizer())).save_pretrained(tmp_path / "talker")
    builders.tokenizer().save_pretrained(tmp_path / "talker")
    values = recipe(tmp_path) | {"model": str(tmp_path / "talker"), "objective": "embedding"}
    values["training"]["max_steps"] = 2
    run = luthier.train(values, quiet=True)
    loaded = load(str(run.path))
    assert loaded.head is not None
    assert loaded.head.pooling == "last"
    assert run.metrics["mrr"]["after"] > 0
