"""LLaMA-Factory's configuration (github.com/hiyouga/LLaMA-Factory), by the keys of public ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luthier.importing.sheet import SAME, Listed, Sheet

_SAME = {
    **SAME,
    "model_name_or_path": "model.name",
    "model_revision": "model.revision",
    "cutoff_len": "data.max_length",
    "max_samples": "data.limit",
    "num_train_epochs": "training.epochs",
}
_LORA = {
    "lora_rank": "method.rank",
    "lora_alpha": "method.alpha",
    "lora_dropout": "method.dropout",
    "use_rslora": "method.rslora",
    "use_dora": "method.dora",
}
_ALWAYS = (
    "do_train",
    "do_eval",
    "packing",
    "neat_packing",
    "flash_attn",
    "overwrite_cache",
    "overwrite_output_dir",
    "preprocessing_num_workers",
    "dataloader_num_workers",
    "plot_loss",
    "ddp_timeout",
    "eval_strategy",
    "save_strategy",
    "evaluation_strategy",
    "per_device_eval_batch_size",
    "save_only_model",
    "include_num_input_tokens_seen",
    "model_type",
)
_OBJECTIVES = {"sft": "sft", "pt": "language_modeling"}
#: How an epoch ends there, and its length here.
_EPOCHS = {"interleave_under": "first_exhausted", "interleave_over": "all_exhausted"}
#: What it calls its columns, and what the formats here call them.
_COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "system": "system",
    "messages": "messages",
}


def read(sheet: Sheet) -> Sheet:
    """Takes every key of a LLaMA-Factory configuration."""
    stage = sheet.take("stage", "sft")
    objective: Any = _OBJECTIVES.get(stage, "sft")
    if stage not in _OBJECTIVES:
        sheet.lacking("stage", stage, "supervised here")
    if sheet.take("train_on_prompt") is not None:
        objective = {"kind": "sft", "train_on": "all"}
    if sheet.take("mask_history") is not None:
        objective = {"kind": "sft", "train_on": "last_turn"}
    sheet.put("objective", objective)
    _method(sheet)
    _data(sheet)
    sheet.moved(_SAME)
    sheet.batch("per_device_train_batch_size", 8)
    sheet.schedule("lr_scheduler_type")
    sheet.warmup()
    sheet.precision()
    sheet.quantized(("quantization_bit", "quantization_method"))
    optimizer = sheet.take("optim")
    if optimizer is not None and not str(optimizer).startswith("adamw"):
        sheet.lacking("optim", optimizer, "adamw in its place")
    if (template := sheet.take("template")) is not None:
        sheet.otherwise.append(f"template {template}: the model's own template is used")
    if sheet.take("disable_gradient_checkpointing") is None:
        sheet.otherwise.append(
            "gradient checkpointing is off unless asked for: training.gradient_checkpointing"
        )
    tracker = sheet.take("report_to")
    if tracker in ("wandb", "tensorboard", "mlflow"):
        sheet.put("training.trackers", [tracker])
    elif tracker is not None:
        sheet.lacking("report_to", tracker)
    sheet.needless(_ALWAYS)
    sheet.rest()
    return sheet


def _method(sheet: Sheet) -> None:
    kind = sheet.take("finetuning_type", "lora")
    if kind not in ("lora", "full"):
        sheet.lacking("finetuning_type", kind, "full in its place")
        kind = "full"
    if kind == "full":
        sheet.put("method", "full")
        return
    sheet.put("method.kind", "lora")
    targets = sheet.take("lora_target", "all")
    if targets != "all":
        names = targets.split(",") if isinstance(targets, str) else targets
        sheet.put("method.targets", [str(name).strip() for name in names])
    sheet.moved(_LORA)


def _data(sheet: Sheet) -> None:
    folder = sheet.folder / str(sheet.take("dataset_dir", "data"))
    known = _known(folder / "dataset_info.json")
    listed = [_source(sheet, name, known, folder) for name in _names(sheet, "dataset")]
    _interleaved(sheet, listed)
    held = [_source(sheet, name, known, folder) for name in _names(sheet, "eval_dataset")]
    if listed:
        sheet.sources(listed)
    if held:
        files = [file for one in held for file in one.files]
        sheet.put("data.validation", files[0] if len(files) == 1 else files)
        if not listed or "mixture" in sheet.recipe["data"]:
            sheet.reading(held[0])
            for entry in sheet.recipe["data"].get("mixture", []):
                entry.setdefault("columns", {})  # those are of the held-out rows
    share = sheet.take("val_size", 0.0)
    if "validation" not in sheet.recipe.get("data", {}):
        sheet.put("data.validation", share)


def _interleaved(sheet: Sheet, listed: Sequence[Listed]) -> None:
    """Shares of the data sets, where they are not read one after the other."""
    how, probabilities = sheet.take("mix_strategy", "concat"), sheet.take("interleave_probs")
    if isinstance(probabilities, str):
        probabilities = [float(each) for each in probabilities.split(",")]
    if len(listed) < 2:
        return
    if how not in _EPOCHS:
        if how != "concat":
            sheet.lacking("mix_strategy", how, "every row is seen once an epoch here")
        if probabilities is not None:
            sheet.lacking("interleave_probs", probabilities, "rows were not interleaved")
        return
    given = probabilities or [1.0] * len(listed)
    for one, share in zip(listed, given, strict=False):
        one.share = share / sum(given)
    sheet.put("data.epoch_length", _EPOCHS[how])
    sheet.otherwise.append("interleave_probs: each epoch draws exactly these shares")


def _names(sheet: Sheet, key: str) -> list[str]:
    names = sheet.take(key, [])
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else names


def _source(sheet: Sheet, name: str, known: dict[str, Any], folder: Path) -> Listed:
    entry = known.get(name)
    if entry is None:
        if "." in name or "/" in name:
            return Listed([name])
        sheet.without.append(
            f"dataset: {name} (not in {folder / 'dataset_info.json'}; say its file)"
        )
        return Listed([f"{name}.json"])
    columns = {ours: entry.get("columns", {}).get(theirs) for theirs, ours in _COLUMNS.items()}
    renames = {ours: column for ours, column in columns.items() if column not in (None, ours)}
    if "file_name" in entry:
        return Listed([str(folder / entry["file_name"])], columns=renames)
    split = entry.get("split")
    hub = str(entry.get("hf_hub_url", name))
    return Listed([f"{hub}:{split}" if split and split != "train" else hub], columns=renames)


def _known(path: Path) -> dict[str, Any]:
    """The data sets that a LLaMA-Factory folder lists, where it is there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
