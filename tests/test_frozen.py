"""Runs with a partly frozen trunk: law 6 through the whole of ``fit``, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import classifiers
import numpy as np
import pairs
import pytest
import torch
from engine.small import fitted, parts_of, small_recipe

from luthier.core import cache
from luthier.core.records import Example
from luthier.core.rundir import RunDir, read_lines, write_lines
from luthier.engine import trunk_cache
from luthier.fit import fit
from luthier.models.halves import Halves

LAYERS = 3


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


def decoder(output: Path, method: Any = None, **training: Any) -> dict[str, Any]:
    """A Llama of three layers with dropout in its attention."""
    made = small_recipe(output, method or {"kind": "freeze", "last": 1}, **training)
    made["model"]["config"]["num_hidden_layers"] = LAYERS
    return made


def encoder(output: Path, method: Any = None, **training: Any) -> dict[str, Any]:
    """A BERT of three layers with dropout everywhere, on a file of labelled rows."""
    model = classifiers.saved(
        output.parent / "bert", num_hidden_layers=LAYERS, max_position_embeddings=128
    )
    rows = [
        {"text": text + " and again" * (i % 3), "label": classifiers.NAMES[i % 3]}
        for i, text in enumerate(classifiers.TEXTS * 3)
    ]
    made = decoder(output, method, **training)
    write_lines(output.parent / "rows.jsonl", rows)
    made["model"] = {"name": str(model), "dropout": 0.1}
    made["objective"] = "classification"
    made["data"] = {"train": str(output.parent / "rows.jsonl"), "validation": 0.3}
    return made


def pairing(output: Path, method: Any = None, **training: Any) -> dict[str, Any]:
    """A T5 of two layers a side with dropout everywhere, on sources and targets in memory."""
    made = decoder(output, method, **training)
    config: dict[str, Any] = {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 48, "num_layers": 2}
    config["dropout_rate"] = 0.1
    made["model"] = {"architecture": "t5", "config": config, "tokenizer": {"vocab_size": 300}}
    made["objective"] = "seq2seq"
    rows = [{"source": record.source, "target": record.target} for record in pairs.records(18)]
    made["data"] = {"train": rows, "validation": 0.3, "check": "off"}
    return made


def run(recipe: dict[str, Any], *, resumed: bool = False) -> tuple[list[str], list[Any]]:
    """What a run said, and its losses."""
    folder = RunDir(Path(recipe["output"]))
    folder.path.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    fit(parts_of(recipe), folder, {"threads": 1}, said.append, quiet=True, resumed=resumed)
    events = [e for e in read_lines(folder.events) if e["kind"] in ("step", "validation")]
    return said, [(e["kind"], e["step"], e["loss"]) for e in events]


def about(said: Sequence[str]) -> str:
    [line] = [line for line in said if "stay as they are" in line or "trunk stays" in line]
    return line


def same(one: list[Any], two: list[Any], bound: float = 1e-6) -> bool:
    assert [e[:2] for e in one] == [e[:2] for e in two]
    return bool(max(abs(a[2] - b[2]) for a, b in zip(one, two, strict=True)) < bound)


@pytest.mark.parametrize("kind", [decoder, encoder])
@pytest.mark.parametrize("method", [{"last": 1}, {"layers": 1}, {"layers": LAYERS}])
def test_law_6_kept_is_computed(
    kind: Any, method: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same losses in training and in validation, though rows meet other rows every epoch."""
    asked = {"kind": "freeze", **method}
    said, kept = run(kind(tmp_path / "kept", asked, log_every=1))
    assert "computed once and kept" in about(said)
    monkeypatch.setenv("LUTHIER_CACHE_BYTES", "1")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "elsewhere"))
    said, computed = run(kind(tmp_path / "computed", asked, log_every=1))
    assert "may hold 1 bytes" in about(said)
    assert same(kept, computed)
    assert kept[0][2] > kept[-3][2], "nothing was learned"


@pytest.mark.parametrize("layers", [2, 3])
def test_law_6_of_a_kept_encoder(
    layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"kind": "freeze", "layers": layers}
    said, kept = run(pairing(tmp_path / "kept", asked, log_every=1))
    assert f"the lowest {layers} of 4 layers, the encoder's first, stay" in about(said)
    assert "computed once and kept" in about(said)
    monkeypatch.setenv("LUTHIER_CACHE_BYTES", "1")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "elsewhere"))
    said, computed = run(pairing(tmp_path / "computed", asked, log_every=1))
    assert "may hold 1 bytes" in about(said)
    assert same(kept, computed)
    assert kept[0][2] > kept[-3][2], "nothing was learned"


def test_what_cannot_be_kept_of_an_encoder_decoder_is_said(tmp_path: Path) -> None:
    said, _ = run(pairing(tmp_path / "half", {"kind": "freeze", "layers": 1}))
    assert "computed at every step: of an encoder-decoder only a whole" in about(said)


@pytest.mark.parametrize("kind", [decoder, pairing])
def test_noise_below_kept_layers_is_never_lost(kind: Any, tmp_path: Path) -> None:
    asked = {"kind": "freeze", "layers": 2}
    said, noisy = run(kind(tmp_path / "noisy", asked, log_every=1, neftune_alpha=50.0))
    assert "computed at every step: training.neftune_alpha adds noise below them" in about(said)
    _, plain = run(kind(tmp_path / "plain", asked, log_every=1))
    assert not same(noisy, plain, 1e-4)


def test_the_lower_layers_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row passes them once, on a later run never."""
    seen: list[int] = []
    below = Halves.below

    def counted(self: Halves) -> Any:
        seen.append(1)
        return below(self)

    monkeypatch.setattr(Halves, "below", counted)
    run(decoder(tmp_path / "one"))
    first = len(seen)
    said, losses = run(decoder(tmp_path / "two"))
    assert "is there already" in about(said)
    assert len(seen) - first == 3, "the three calls that look for chance"
    assert first < 3 + 14
    assert losses == run(decoder(tmp_path / "three"))[1]


def test_rows_that_are_read_once_are_not_kept(tmp_path: Path) -> None:
    said, _ = run(decoder(tmp_path / "run", epochs=1, evaluate_every=99))
    assert "read once" in about(said)
    assert not list((cache.folder() / "trunks").glob("*/states.npy"))


def test_other_weights_and_another_depth_are_other_entries(tmp_path: Path) -> None:
    """A stale entry would be found here: the base changes below the frozen depth alone."""
    run(encoder(tmp_path / "one"))
    names = {e.path.name for e in cache.entries() if e.kind == "trunks"}
    run(encoder(tmp_path / "two", {"kind": "freeze", "layers": 1}))
    more = {e.path.name for e in cache.entries() if e.kind == "trunks"}
    assert len(more) == 2 * len(names) == 4
    recipe = encoder(tmp_path / "three")
    parts = parts_of(recipe)
    with torch.no_grad():
        parts.loaded.model.base.bert.encoder.layer[0].output.dense.bias.add_(0.3)
    folder = RunDir(tmp_path / "three")
    folder.path.mkdir()
    fit(parts, folder, {"threads": 1}, lambda line: None, quiet=True, resumed=False)
    assert len([e for e in cache.entries() if e.kind == "trunks"]) == 6


@pytest.mark.parametrize("pattern", ["layers.2", "layers.[01]"])
def test_a_pattern_that_is_no_prefix_is_not_kept(pattern: str, tmp_path: Path) -> None:
    """Trained embeddings lie below every layer, so that none has a fixed output."""
    said, _ = run(decoder(tmp_path / "run", {"kind": "freeze", "pattern": pattern}, max_steps=1))
    assert not [line for line in said if "stay" in line]
    prefix = {"kind": "freeze", "pattern": r"embed_tokens|layers\.[01]"}
    said, _ = run(decoder(tmp_path / "prefix", prefix))
    assert "lowest 2 of 3 layers" in about(said)


def test_an_objective_that_makes_new_examples_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks and mismatched pairs change what the frozen layers read."""

    def changed(self: Any, examples: Sequence[Example], rng: np.random.Generator) -> Any:
        return [replace(example) for example in examples]

    module = "luthier.objectives.sft.Objective.arrange"
    monkeypatch.setattr(module, changed)
    said, _ = run(decoder(tmp_path / "run", max_steps=2))
    assert "makes new examples in every epoch" in about(said)


def test_chance_in_the_frozen_layers_is_found_out(tmp_path: Path) -> None:
    """Noise on the embeddings that no setting names."""
    parts = parts_of(decoder(tmp_path / "run", max_steps=4))
    parts.loaded.model.base.get_input_embeddings().register_forward_hook(
        lambda module, _, out: out + torch.randn_like(out) if module.training else out
    )
    said: list[str] = []
    RunDir(tmp_path / "run").path.mkdir()
    fit(parts, RunDir(tmp_path / "run"), {"threads": 1}, said.append, quiet=True, resumed=False)
    assert "goes by chance" in about(said)


def test_pooled_states_are_those_of_their_pooling(tmp_path: Path) -> None:
    """The same weights, names and tokens, read in another way."""
    for pooling in ("mean", "last"):
        recipe = encoder(tmp_path / pooling, "head", max_steps=2)
        recipe["objective"] = {"kind": "classification", "pooling": pooling}
        run(recipe)
    assert len([e for e in cache.entries() if e.kind == "trunks"]) == 4


def test_killed_and_resumed_is_never_killed(tmp_path: Path) -> None:
    """Law 4 with kept states, also where the cache was emptied in between."""
    whole = decoder(tmp_path / "whole", save_every=4)
    fitted(whole)
    begun = decoder(tmp_path / "begun", save_every=4, max_steps=4, schedule="constant")
    straight = decoder(tmp_path / "straight", save_every=4, max_steps=8, schedule="constant")
    fitted(straight)
    fitted(begun)
    cache.clear()
    begun["training"]["max_steps"] = 8
    fitted(begun, resumed=True)

    def digest(name: str) -> str:
        return hashlib.sha256(
            (tmp_path / name / "model" / "model.safetensors").read_bytes()
        ).hexdigest()

    assert digest("begun") == digest("straight")
    assert digest("whole") != digest("straight")


def test_a_resumed_run_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = decoder(tmp_path / "run", max_steps=4)
    run(recipe)
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("LUTHIER_CACHE_BYTES", "1")
    recipe["training"]["max_steps"] = 6
    said, _ = run(recipe, resumed=True)
    assert any("inexact" in line for line in said)
    monkeypatch.delenv("LUTHIER_CACHE_BYTES")
    recipe["training"]["max_steps"] = 8
    said, _ = run(recipe, resumed=True)
    assert "computed at every step" in about(said)
    assert not any("inexact" in line for line in said)


def test_a_full_disk_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=100))
    monkeypatch.setattr(trunk_cache, "shutil", usage)
    said, _ = run(decoder(tmp_path / "run", max_steps=4))
    assert "100 bytes are free" in about(said)


def test_gradient_checkpointing_and_kept_states(tmp_path: Path) -> None:
    said, one = run(decoder(tmp_path / "one", max_steps=5, gradient_checkpointing=True))
    assert "kept" in about(said)
    _, two = run(decoder(tmp_path / "two", max_steps=5))
    assert same(one, two)


def test_method_head_is_the_whole_trunk(tmp_path: Path) -> None:
    said, _ = run(encoder(tmp_path / "run", "head"))
    assert about(said).startswith("the trunk stays as it is")
    assert "computed once and kept" in about(said)
