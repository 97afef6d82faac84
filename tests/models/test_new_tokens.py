"""New tokens: where their rows start, that they alone learn beside an adapter, that they stay."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from builders import gap
from tiny_runs import tiny_recipe

import luthier
from luthier.core.errors import RecipeError, UserError
from luthier.export import _golden, export
from luthier.methods import lora
from luthier.methods._peft import ROWS
from luthier.models import new_tokens
from luthier.models.load import load

NEW = ("<tool>", "</tool>")
KNOWN = 360


def grown(rows: int = KNOWN, **settings: Any) -> tuple[Any, Any, Any]:
    """A model with two new tokens, its tokenizer, and the same model before."""
    model, tokenizer = builders.talking(rows, **settings), builders.tokenizer()
    before = copy.deepcopy(model)
    new_tokens.add(model, tokenizer, NEW)
    return model, tokenizer, before


@pytest.mark.parametrize("tied", [True, False])
def test_a_row_starts_as_the_mean_of_its_pieces(tied: bool) -> None:
    model, tokenizer, before = grown(tie_word_embeddings=tied)
    assert tokenizer("a<tool>b", add_special_tokens=False).input_ids.count(KNOWN) == 1
    for table in ("get_input_embeddings", "get_output_embeddings"):
        rows, old = getattr(model, table)().weight, getattr(before, table)().weight
        assert rows.shape[0] == len(tokenizer) == KNOWN + 2
        assert torch.equal(rows[:KNOWN], old)
        for number, token in enumerate(NEW):
            spelt = builders.tokenizer()(token, add_special_tokens=False).input_ids
            assert len(spelt) > 1
            assert gap(rows[KNOWN + number], old[spelt].mean(0)) < 1e-6
    tie = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tie == tied
    assert model.config.vocab_size == KNOWN + 2


def test_a_padded_vocabulary_keeps_its_size() -> None:
    model, _, before = grown(rows=384)
    assert model.get_input_embeddings().weight.shape[0] == 384
    same = model.get_input_embeddings().weight == before.get_input_embeddings().weight
    assert same.all(1).logical_not().nonzero().flatten().tolist() == [KNOWN, KNOWN + 1]


def test_a_token_that_nothing_spelt_starts_as_the_mean_of_all() -> None:
    rows = torch.arange(12.0).view(4, 3)
    new_tokens._start(rows, [3], [[]])
    assert rows[3].tolist() == [3.0, 4.0, 5.0]


def test_what_is_known_is_said() -> None:
    model, tokenizer = builders.talking(KNOWN), builders.tokenizer()
    said = new_tokens.add(model, tokenizer, ["<|user|>", "<tool>"])
    assert said == [
        "the tokenizer knows <|user|> already: it is not new",
        "1 new token, from the mean of their pieces: <tool> (was 6)",
    ]
    assert new_tokens.add(model, tokenizer, ["<tool>"])[0].startswith("the tokenizer knows")


@pytest.mark.parametrize("tied", [True, False])
def test_beside_an_adapter_exactly_the_new_rows_learn(tied: bool, tmp_path: Path) -> None:
    model, _, _ = grown(tie_word_embeddings=tied)
    before = model.get_input_embeddings().weight.detach().clone()
    expected = scores(model)
    method = lora.Method(lora.Config(rank=2))
    module: Any = method.prepare(model)
    method.keep_start(module)
    assert torch.equal(scores(module), expected), "law 5"
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    rows = {n: p for n, p in trained.items() if ROWS in n}
    assert len(rows) == (1 if tied else 2)
    assert all(p.shape == (2, model.config.hidden_size) for p in rows.values())
    assert all(".lora_" in n for n in trained if n not in rows)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1)
    learned = scores(module)
    assert gap(learned, expected) > 1e-2
    with method.reference(module):
        assert torch.equal(scores(module), expected)
    method.save(module, tmp_path)
    again = method.load(grown(tie_word_embeddings=tied)[0], tmp_path)
    assert torch.equal(scores(again), learned)
    merged: Any = method.merge(copy.deepcopy(module))
    assert gap(scores(merged), learned) < 1e-5
    after = merged.get_input_embeddings().weight
    assert torch.equal(after[:KNOWN], before[:KNOWN])
    assert gap(after[KNOWN:], before[KNOWN:] + 0.1) < 1e-6


def scores(module: Any) -> torch.Tensor:
    return _golden.logits(module, [3, KNOWN, 12, KNOWN + 1, 40])


def calls() -> list[dict[str, str]]:
    """Answers that use the new tokens."""
    return [
        {"prompt": f"What is {a} plus {b}?", "response": f"<tool>{a}+{b}</tool>"}
        for a in range(8)
        for b in range(6)
    ]


@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_a_run_with_new_tokens_is_a_run_like_any(
    method: str, tiny_run: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path / "run", method=method)
    recipe["model"] = {"name": str(tiny_run), "new_tokens": list(NEW)}
    recipe["data"] = {"train": calls()}
    recipe["training"] = {**recipe["training"], "learning_rate": 1e-2, "max_steps": 20}
    said: list[str] = []
    run = luthier.train(recipe, quiet=True)
    assert run.metrics["perplexity"]["after"] < run.metrics["perplexity"]["before"]
    loaded = load(str(run.path))
    tool = loaded.tokenizer.convert_tokens_to_ids("<tool>")
    prompt = [3, tool, 60, tool + 1, 40]
    expected = _golden.logits(loaded.model.module, prompt)
    assert expected.shape[1] > tool
    export(run.path, "merged", tmp_path / "merged", say=said.append)
    merged = load(str(tmp_path / "merged"))
    assert merged.tokenizer.convert_tokens_to_ids("<tool>") == tool
    bound = 1.0 if method == "qlora" else 1e-4
    assert gap(_golden.logits(merged.model.module, prompt), expected) < bound
    if method == "lora":
        assert gap(_golden.logits(with_plain_peft(tiny_run, run.path), prompt), expected) < 1e-5
        again = {**recipe, "model": str(run.path), "output": str(tmp_path / "on")}
        on = luthier.train(again, ["training.max_steps=1"], quiet=True)
        assert gap(_golden.logits(load(str(on.path)).model.module, prompt), expected) > 1e-4


def with_plain_peft(base: Path, run: Path) -> Any:
    """As the page for other tools says."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    model = AutoModelForCausalLM.from_pretrained(base / "model")
    model.resize_token_embeddings(len(tokenizer))
    return PeftModel.from_pretrained(model, run / "model")


def test_a_method_that_trains_no_embeddings_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", method="head", objective="classification")
    recipe["model"] = {"name": str(tiny_run), "new_tokens": list(NEW)}
    recipe["data"] = {"train": [{"text": f"n {n}", "label": n % 2} for n in range(20)]}
    with pytest.raises(UserError, match="'head' trains no embeddings"):
        luthier.train(recipe, quiet=True)


def test_a_head_with_a_bias_is_refused() -> None:
    model, tokenizer = builders.tiny("phi", vocab_size=KNOWN), builders.tokenizer()
    new_tokens.add(model, tokenizer, NEW)
    with pytest.raises(RecipeError, match="output head has a bias"):
        lora.Method(lora.Config(rank=2)).prepare(model)


def test_tokens_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("<tool>\n\n</tool>\n")
    assert new_tokens.read(str(tmp_path / "t.txt")) == list(NEW)
    for given, reason in ((["a", "a"], "twice"), ([" "], "no token"), ("x.txt", "cannot be read")):
        with pytest.raises(RecipeError, match=reason):
            new_tokens.read(given)
