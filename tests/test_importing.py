"""``recipe import``: other trainers' configurations become recipes, and nothing is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier import cli
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.importing import imported

AXOLOTL = """
base_model: some/model
load_in_8bit: true
datasets:
  - path: rows.jsonl
    type: alpaca
val_set_size: 0.02
adapter: lora
sequence_len: 1024
sample_packing: true
lora_r: 8
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
wandb_project: mine
wandb_entity:
output_dir: ./out
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 2e-4
train_on_inputs: false
bf16: auto
gradient_checkpointing: true
early_stopping_patience: 5
warmup_steps: 20
evals_per_epoch: 4
weight_decay: 0.1
deepspeed: zero3.json
special_tokens:
  pad_token: <pad>
"""
FACTORY = """
model_name_or_path: some/model
stage: sft
do_train: true
finetuning_type: lora
lora_target: q_proj,v_proj
lora_rank: 32
dataset: mine
template: llama3
cutoff_len: 2048
max_samples: 1000
output_dir: saves/mine
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine_with_restarts
warmup_ratio: 0.1
bf16: true
val_size: 0.1
neftune_noise_alpha: 5
"""


def made(folder: Path, text: str) -> tuple[str, dict[str, Any]]:
    path = folder / "config.yml"
    path.write_text(text)
    said = imported(path)
    return said, yaml.safe_load(said)


def test_axolotl(tmp_path: Path) -> None:
    said, recipe = made(tmp_path, AXOLOTL)
    lora = {"kind": "lora", "targets": ["q_proj", "v_proj"], "rank": 8, "alpha": 16}
    assert recipe == {
        "data": {
            "train": "rows.jsonl",
            "format": "instruction",
            "validation": 0.02,
            "max_length": 1024,
        },
        "method": {**lora, "dropout": 0.05},
        "objective": "sft",
        "model": {"name": "some/model"},
        "training": {
            "epochs": 4,
            "learning_rate": 2e-4,
            "weight_decay": 0.1,
            "gradient_checkpointing": True,
            "batch_size": 8,
            "schedule": "cosine",
            "warmup": 20,
            "precision": "auto",
            "early_stopping": {"patience": 5},
            "trackers": ["wandb"],
        },
        "output": "./out",
    }
    head = said[: said.index("\ndata:")]
    for lost in ("deepspeed: zero3.json", "load_in_8bit: True", "special_tokens:"):
        assert lost in head
    assert "2 x 4" in head
    assert "sample_packing" in head.splitlines()[-1]


def test_axolotl_columns_sources_and_raw_text(tmp_path: Path) -> None:
    text = """
base_model: some/model
datasets:
  - path: owner/rows
    split: validation
    type: {field_instruction: question, field_output: reply, format: "{instruction}"}
  - {path: json, data_files: [a.json, b.json]}
"""
    said, recipe = made(tmp_path, text)
    columns = {"instruction": "question", "output": "reply"}
    assert recipe["data"]["mixture"] == [
        {"source": "owner/rows:validation", "columns": columns},
        {"source": ["a.json", "b.json"]},
    ]
    assert recipe["data"]["validation"] == 0
    assert recipe["method"] == "full"
    assert "datasets.format: {instruction}" in said
    raw = "base_model: m\ntrain_on_inputs: true\ndatasets: [{path: a.txt, type: completion}]\n"
    assert made(tmp_path, raw)[1]["objective"] == "language_modeling"
    whole = "base_model: m\ntrain_on_inputs: true\ndatasets: [{path: a.json}]\n"
    assert made(tmp_path, whole)[1]["objective"] == {"kind": "sft", "train_on": "all"}


def test_llama_factory(tmp_path: Path) -> None:
    listed = {
        "mine": {"file_name": "mine.json", "columns": {"prompt": "q", "response": "output"}},
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(listed))
    said, recipe = made(tmp_path, FACTORY)
    assert recipe["data"] == {
        "columns": {"instruction": "q"},
        "train": str(tmp_path / "data" / "mine.json"),
        "validation": 0.1,
        "max_length": 2048,
        "limit": 1000,
    }
    assert recipe["method"] == {"kind": "lora", "targets": ["q_proj", "v_proj"], "rank": 32}
    assert recipe["training"]["batch_size"] == 16
    assert recipe["training"]["precision"] == "bfloat16"
    assert recipe["training"]["warmup"] == 0.1
    assert "schedule" not in recipe["training"]
    for lost in ("lr_scheduler_type: cosine_with_restarts", "neftune_noise_alpha: 5"):
        assert lost in said
    recipes.load(recipe)


def test_data_sets_that_are_read_alike_are_one_list(tmp_path: Path) -> None:
    text = "base_model: m\ndatasets: [{path: a.json, type: alpaca}, {path: b.json, type: alpaca}]\n"
    data = made(tmp_path, text)[1]["data"]
    assert (data["train"], data["format"]) == (["a.json", "b.json"], "instruction")


def test_interleaved_data_sets_are_a_mixture(tmp_path: Path) -> None:
    """Its probabilities are shares of an epoch, which ends where theirs does."""
    (tmp_path / "data").mkdir()
    listed = {"mine": {"file_name": "mine.json", "columns": {"prompt": "q"}}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(listed))
    two = FACTORY.replace("dataset: mine", "dataset: mine, other.json")
    over = two + "mix_strategy: interleave_over\ninterleave_probs: 0.1,0.3\n"
    said, recipe = made(tmp_path, over)
    mine = {"source": str(tmp_path / "data" / "mine.json"), "share": 0.25}
    assert recipe["data"]["mixture"] == [
        {**mine, "columns": {"instruction": "q"}},
        {"source": "other.json", "share": pytest.approx(0.75)},
    ]
    assert recipe["data"]["epoch_length"] == "all_exhausted"
    assert "exactly these shares" in said
    recipes.load(recipe)
    under = made(tmp_path, two + "mix_strategy: interleave_under\n")[1]["data"]
    assert [entry["share"] for entry in under["mixture"]] == [0.5, 0.5]
    assert under["epoch_length"] == "first_exhausted"
    assert "interleave_probs: [0.1" in made(tmp_path, two + "interleave_probs: 0.1,0.3\n")[0]
    held = made(tmp_path, two + "eval_dataset: mine\n")[1]["data"]
    assert held["columns"] == {"instruction": "q"}
    assert [entry["columns"] for entry in held["mixture"]] == [{"instruction": "q"}, {}]


def test_a_data_set_that_is_not_listed_is_said(tmp_path: Path) -> None:
    said, recipe = made(tmp_path, FACTORY.replace("stage: sft", "stage: dpo"))
    assert "dataset: mine (not in" in said
    assert "stage: dpo (supervised here)" in said
    assert recipe["objective"] == "sft"


@pytest.mark.parametrize("config", [AXOLOTL, FACTORY], ids=["axolotl", "factory"])
def test_law_9_every_key_is_dealt_with(config: str, tmp_path: Path) -> None:
    """Whatever key there is besides is listed, whatever it says."""
    for extra in ("made_up: 3", "made_up: {a: [1, 2]}", "made_up: words\n"):
        assert "#   made_up: " in made(tmp_path, config + extra)[0]
    assert "made_up" not in made(tmp_path, config + "made_up: null")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b", "neither Axolotl's"),
        ("- a", "holds no keys"),
        ("a: [", "is no YAML"),
        ("base_model: m\nlearning_rate: fast\ndatasets: [{path: a.json}]", "learning_rate"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        made(tmp_path, text)
    with pytest.raises(RecipeError, match="cannot be read"):
        imported(tmp_path / "none.yml")


def test_the_command_writes_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yml"
    path.write_text(AXOLOTL)
    assert cli.run(["recipe", "import", str(path)]) == 0
    out = capsys.readouterr().out
    (tmp_path / "recipe.yaml").write_text(out)
    assert cli.run(["recipe", "check", str(tmp_path / "recipe.yaml")]) == 0
    path.write_text("a: b")
    assert cli.run(["recipe", "import", str(path)]) == 2
