"""QLoRA: the base is quantised the same way wherever it is loaded, and never merged into."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import builders
import pairs
import pytest
import torch
from builders import gap
from tiny_runs import sums, tiny_recipe

import luthier
from luthier.core.errors import RecipeError, UserError
from luthier.export import _golden, export
from luthier.methods import lora, qlora
from luthier.models.load import count_parameters, load, weight_bytes
from luthier.ops import quantized

TOKENS = torch.tensor([[3, 77, 120, 5, 200, 41, 8, 160]])


def scores(module: Any) -> torch.Tensor:
    return _golden.logits(module, TOKENS[0].tolist())


@pytest.fixture(scope="module", params=["zero", "loftq"])
def run(request: pytest.FixtureRequest, tiny_run: Path, tmp_path_factory: Any) -> Path:
    """A finished run on the tiny model in four bits."""
    folder = tmp_path_factory.mktemp("qlora") / request.param
    method = {"kind": "qlora", "rank": 4, "start": request.param}
    recipe = tiny_recipe(folder, model=str(tiny_run), method=method)
    recipe["training"] = {**recipe["training"], "max_steps": 8, "learning_rate": 2e-2}
    return luthier.train(recipe, quiet=True).path


def losses(run: Path) -> list[float]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [e["loss"] for e in events if e["kind"] == "validation"]


def test_a_run_learns_and_loads_in_four_bits_or_in_full(run: Path, tiny_run: Path) -> None:
    found = losses(run)
    assert found[-1] < found[0]
    packed = load(str(run))
    assert quantized.holds_quantized(packed.model.module)
    assert not quantized.holds_quantized(load(str(run), quantize=False).model.module)
    full = load(str(tiny_run))
    assert not quantized.holds_quantized(full.model.module)
    trainable, total = count_parameters(packed.model.module)
    adapter = sum(p.numel() for n, p in packed.model.module.named_parameters() if "lora_" in n)
    assert total == count_parameters(full.model.module)[1] + adapter
    assert trainable == 0
    assert weight_bytes(packed.model.module) < 0.8 * weight_bytes(full.model.module)


def test_quantised_while_read_is_quantised_in_memory(tiny_run: Path) -> None:
    read = load(str(tiny_run), quantize=True).model.module
    memory = load(str(tiny_run)).model.module
    quantized.quantize(memory)
    names = {n for n, m in read.named_modules() if quantized.is_quantized(m)}
    assert names == {n for n, m in memory.named_modules() if quantized.is_quantized(m)}
    for name in names:
        one, two = (quantized.matrix_of(m.get_submodule(name)) for m in (read, memory))
        assert torch.equal(one, two)
    assert torch.equal(scores(read), scores(memory))


def test_what_is_loaded_is_what_was_trained(run: Path, tiny_run: Path) -> None:
    """The method's own way back, bit for bit; the run's, to float tolerance."""
    settings = json.loads((run / "model" / "luthier.json").read_text())["quantized"]
    start = "loftq" if settings["covers_rounding"] else "zero"
    method = qlora.Method(qlora.Config(rank=4, start=start))
    mine = method.load(load(str(tiny_run)).model.module, run / "model")
    assert gap(scores(mine), scores(load(str(run)).model.module)) < 1e-5
    checkpoint = max((run / "checkpoints").iterdir())
    from safetensors.torch import load_file

    kept = load_file(checkpoint / "weights.safetensors")
    trained = {n: p for n, p in mine.named_parameters() if p.requires_grad}
    assert set(trained) == set(kept)
    assert all(torch.equal(trained[name], kept[name]) for name in kept)


def test_law_5_the_distance_to_the_merged_model_is_said_and_bounded(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    done = export(run, "merged", tmp_path / "out", say=lambda _line: None)
    assert done.rounding is not None
    assert 0 < done.rounding.divergence < 0.05
    assert done.rounding.tokens > 20
    assert done.difference < 1e-4
    merged = load(str(tmp_path / "out")).model.module
    assert gap(scores(merged), scores(load(str(run), quantize=False).model.module)) < 1e-4
    assert 0 < gap(scores(merged), scores(load(str(run)).model.module)) < 1
    monkeypatch.setattr(_golden, "ROUNDING", done.rounding.divergence / 2)
    with pytest.raises(UserError, match="nats a token") as caught:
        export(run, "merged", tmp_path / "again", say=lambda _line: None)
    assert caught.value.faults[0].code == "export-differs"
    assert not (tmp_path / "again").exists()


def test_the_distance_is_kullbacks_and_leiblers() -> None:
    torch.manual_seed(0)
    one, two = torch.randn(2, 9, 13)
    found = _golden.distance([one[:4], one[4:]], [two[:4], two[4:]])
    expected = torch.nn.functional.kl_div(
        two.log_softmax(-1), one.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert abs(found.divergence - float(expected)) < 1e-6
    assert found.tokens == 9
    assert _golden.distance([one], [one]).agreement == 1.0


def test_loftq_starts_closer_to_the_base_in_full() -> None:
    full = builders.tiny()
    expected = scores_of(full)
    gaps = []
    for start in ("zero", "loftq"):
        method = qlora.Method(qlora.Config(rank=8, start=start))
        gaps.append(float((scores_of(method.prepare(builders.tiny())) - expected).norm()))
    assert gaps[1] < 0.8 * gaps[0]


def scores_of(module: Any) -> torch.Tensor:
    return _golden.logits(module, [3, 77, 20, 5, 41])


def test_a_run_that_covers_rounding_is_not_continued_in_four_bits(
    run: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path / "on", model=str(run), method={"kind": "qlora", "rank": 4})
    recipe["training"] = {**recipe["training"], "max_steps": 1}
    if run.name == "zero":
        assert luthier.train(recipe, quiet=True).finished
        return
    with pytest.raises(RecipeError, match="began as what rounding took"):
        luthier.train(recipe, quiet=True)


@pytest.mark.parametrize(
    "method", [{"kind": "qlora"}, {"kind": "qlora", "start": "loftq"}, {"start": "pissa"}]
)
def test_law_4_a_run_that_goes_on_is_one_that_never_stopped(
    method: dict[str, Any], tiny_run: Path, tmp_path: Path
) -> None:
    """The base is quantised, or its principal part taken out, anew with the same bits."""

    rows = tmp_path / "sums.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in sums()))

    def recipe(name: str, steps: int) -> dict[str, Any]:
        settings = {"kind": "lora", "rank": 4, "dropout": 0.1, **method}
        made = tiny_recipe(tmp_path / name, model=str(tiny_run), method=settings)
        made["data"] = {"train": str(rows)}
        made["training"] |= {"max_steps": steps, "schedule": "constant", "warmup": 0}
        made["training"] |= {"neftune_alpha": 5.0, "ema": 0.9, "epochs": 9}
        made["evaluation"] = {"samples": 0, "generate_rows": 0, "resamples": 100}
        return made

    whole = luthier.train(recipe("whole", 6), quiet=True).path
    first = luthier.train(recipe("parts", 3), quiet=True).path
    luthier.train(resume=first, overrides=["training.max_steps=6"], quiet=True)
    ends = [(run / "model" / "adapter_model.safetensors").read_bytes() for run in (whole, first)]
    assert ends[0] == ends[1]


def test_norms_embeddings_and_head_stay_float32(tiny_run: Path) -> None:
    module = qlora.Method(qlora.Config(rank=4)).prepare(load(str(tiny_run)).model.module)
    for name, parameter in module.named_parameters():
        packed = parameter.dtype == torch.uint8
        assert packed == name.endswith("base_layer.weight"), name
        assert packed or parameter.dtype == torch.float32


def test_gradients_reach_every_adapter_through_recomputed_layers() -> None:
    module: Any = qlora.Method(qlora.Config(rank=4)).prepare(builders.tiny())
    trunk = module.get_base_model().get_decoder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trunk.gradient_checkpointing_enable({"use_reentrant": False})
    trunk.enable_input_require_grads()
    module.train()
    module(input_ids=TOKENS % builders.VOCABULARY, use_cache=False).logits.square().sum().backward()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            assert float(parameter.grad.abs().max()) > 0, name


def test_dora_needs_rows_of_whole_blocks() -> None:
    with pytest.raises(RecipeError, match="a multiple of 64, and"):
        qlora.Method(qlora.Config(rank=4, dora=True)).prepare(builders.tiny())


def test_pissa_needs_the_matrices_in_full() -> None:
    with pytest.raises(ValueError, match="'zero' or 'loftq'"):
        qlora.Config(start="pissa")
    with pytest.raises(ValueError, match="take one"):
        lora.Config(start="pissa", dora=True)


def test_an_encoder_decoder_is_quantised_while_read_as_in_memory(tmp_path: Path) -> None:
    """T5's second feed-forward matrix stays in full on both ways."""
    plain = pairs.model("t5")
    plain.save_pretrained(tmp_path)
    pairs.tokenizer().save_pretrained(tmp_path)
    read = load(str(tmp_path), quantize=True).model.module
    quantized.quantize(plain)
    for module in (read, plain):
        packed = {n for n, m in module.named_modules() if quantized.is_quantized(m)}
        assert packed
        assert not any(name.endswith("wo") for name in packed)
    for name in packed:
        one, two = (quantized.matrix_of(m.get_submodule(name)) for m in (read, plain))
        assert torch.equal(one, two)
