"""Masked language modelling from raw text to an encoder that can be tuned further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import encoders
import pytest
import torch
import yaml

import luthier
from luthier import cli
from luthier.core.contracts import Head
from luthier.core.errors import UserError
from luthier.export import export
from luthier.models.load import load
from luthier.models.masked_lm import MaskedModel

ARCHITECTURES = ("bert", "roberta", "distilbert", "modernbert")


def recipe(tmp_path: Path, model: Path, method: str = "full", **changes: Any) -> dict[str, Any]:
    texts = list(builders.SENTENCES) * 3
    held = [f"{text[: len(text) // 2]} again" for text in builders.SENTENCES]
    for side, rows in (("train", texts), ("held", held)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in rows)
        (tmp_path / f"{side}.jsonl").write_text(lines, encoding="utf-8")
    return {
        "model": str(model),
        "objective": "masked_lm",
        "method": method,
        "data": {
            "train": str(tmp_path / "train.jsonl"),
            "validation": str(tmp_path / "held.jsonl"),
            "check": "off",
        },
        "training": {
            "epochs": 12 if method == "full" else 30,
            "batch_size": 6,
            "learning_rate": 3e-3 if method == "full" else 5e-3,
            "precision": "float32",
            "threads": 1,
            "trackers": [],
        },
        "evaluation": {"samples": 3, "resamples": 100},
        "output": str(tmp_path / "run"),
        **changes,
    }


def headed(folder: Path, name: str = "bert", family: str = "wordpiece") -> Path:
    """A pretrained masked language model with its head."""
    encoders.guessing(name).save_pretrained(folder)
    encoders.tokenizer(family).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_folder_with_the_head_is_loaded_as_one(name: str, tmp_path: Path) -> None:
    loaded = load(str(headed(tmp_path, name)))
    assert isinstance(loaded.model, MaskedModel)
    assert loaded.head == Head("masked_lm")
    assert loaded.said == []
    base = loaded.model.base
    assert base.get_output_embeddings().weight is base.get_input_embeddings().weight


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_encoder_without_the_head_gets_a_fresh_one_and_that_is_said(
    name: str, tmp_path: Path
) -> None:
    folder = str(encoders.saved(tmp_path, name))
    one, two, other = (load(folder, head=Head("masked_lm"), seed=s) for s in (1, 1, 2))
    [said] = one.said
    assert "a fresh masked-language-model head" in said
    assert "tied to the embeddings" in said
    module: Any = one.model.module
    assert module.head_names
    for each in module.head_names:
        weights = [m.model.module.get_submodule(each).state_dict() for m in (one, two, other)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    matrices = [m.model.logits(torch.ones(1, 32)) for m in (one, other)]
    assert not torch.equal(*matrices)


@pytest.mark.parametrize(
    ("method", "name"),
    [("full", "bert"), ("full", "modernbert"), ("lora", "roberta"), ("lora", "distilbert")],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_raw_text_becomes_a_better_guesser(
    method: str, name: str, fresh: bool, tmp_path: Path
) -> None:
    family = "byte_level" if name == "roberta" else "wordpiece"
    make = encoders.saved if fresh else headed
    run = luthier.train(recipe(tmp_path, make(tmp_path / "base", name, family), method), quiet=True)
    figure = run.metrics["perplexity"]
    assert figure["after"] < (0.7 if method == "full" else 0.97) * figure["before"]
    assert len(run.samples) == 3
    for sample in run.samples:
        assert sample["reference"] != sample["prompt"]
        assert sample["after"]
    # The figures before and after are of the same masks.
    again = luthier.evaluate(run.path, quiet=True)
    assert again["metrics"] == run.metrics
    reloaded = load(str(run.path))
    assert isinstance(reloaded.model, MaskedModel)
    done = export(run.path, "merged", tmp_path / "merged", say=lambda _line: None)
    assert done.difference < 1e-4


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_cards_lines_load_it_with_plain_transformers_or_peft(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(tmp_path, encoders.saved(tmp_path / "base"), method)
    run = luthier.train(made | {"training": {"max_steps": 3, "trackers": []}}, quiet=True)
    if method == "lora":  # a fresh head's own matrices are in the adapter
        names = json.loads((run.path / "model" / "adapter_config.json").read_text())
        assert names["modules_to_save"]
    code = (run.path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "AutoModelForMaskedLM" in code
    monkeypatch.chdir(run.path)
    found: dict[str, Any] = {}
    exec(code, found)
    ids = found["tokenizer"]("the cat [MASK] on the mat", return_tensors="pt")
    ours: Any = load(str(run.path)).model.module.eval()
    ours.set_attn_implementation("sdpa")
    with torch.no_grad():
        plain, own = found["model"].eval()(**ids).logits, ours(**ids).logits
    assert builders.gap(plain, own) < 1e-5


def test_the_result_is_tuned_further_and_remembers_how_its_sentences_were_pooled(
    tmp_path: Path,
) -> None:
    base = encoders.saved(tmp_path / "base")
    (base / "1_Pooling").mkdir()
    said = '{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}'
    (base / "1_Pooling" / "config.json").write_text(said)
    rows = [{"text": f"{text} {n}", "label": str(n % 2)} for n, text in enumerate("abcdefgh" * 3)]
    classes = {"train": rows, "validation": 0.25, "format": "label", "check": "off"}
    stages = [
        {"objective": "masked_lm"},
        {"objective": "classification", "data": classes},
    ]
    made = recipe(tmp_path, base, training={"max_steps": 2, "trackers": []})
    run = luthier.train(made | {"stages": stages}, quiet=True)
    first, second = (stage.path for stage in run.folder.stages)
    assert load(str(second)).model.pooling == "mean"  # type: ignore[union-attr]
    config = json.loads((first / "model" / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]
    tagged = [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}] * 8
    tags = made | {
        "model": str(first),
        "objective": "token_classification",
        "data": {"train": tagged, "validation": 0, "check": "off"},
        "output": str(tmp_path / "tags"),
    }
    assert luthier.train(tags, quiet=True).finished


def test_masks_are_new_each_epoch_and_the_same_when_resumed(tmp_path: Path) -> None:
    made = recipe(tmp_path, headed(tmp_path / "base"))
    made["training"] |= {"epochs": 3, "log_every": 1, "schedule": "constant", "warmup": 0}
    whole = luthier.train(made, quiet=True)
    stopped = made | {"output": str(tmp_path / "other")}
    stopped["training"] = made["training"] | {"max_steps": 4}
    luthier.train(stopped, quiet=True)
    resumed = luthier.train(
        resume=tmp_path / "other", overrides=["training.max_steps=null"], quiet=True
    )
    losses = [
        [event["loss"] for event in run.events if event["kind"] == "step"]
        for run in (whole, resumed)
    ]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == len(losses[0])


def test_what_makes_no_sense_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = headed(tmp_path / "base")
    with pytest.raises(UserError, match="reads only the language-model head"):
        luthier.train(recipe(tmp_path, base, "head"), quiet=True)
    sft = recipe(tmp_path, base) | {
        "objective": "sft",
        "data": {
            "train": [{"prompt": f"{n}", "response": "b"} for n in range(20)],
            "check": "off",
        },
    }
    with pytest.raises(UserError, match="guesses masked tokens, and 'sft' learns with a language"):
        luthier.train(sft, quiet=True)
    with pytest.raises(UserError, match="has no masked-language-model head"):
        luthier.train(recipe(tmp_path, Path("builtin:nano")), quiet=True)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(tmp_path, base)))
    assert cli.run(["train", str(tmp_path / "recipe.yaml"), "training.max_steps=1"]) == 0
    assert "tune it" in capsys.readouterr().out
    assert cli.run(["generate", str(base), "--prompt", "a"]) == 2
    assert "fills in masked tokens" in capsys.readouterr().err
    with pytest.raises(UserError, match="neither talks nor labels"):
        luthier.open(str(base))
