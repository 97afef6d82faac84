"""LLaMA-Factory's configuration (github.com/hiyouga/LLaMA-Factory), by the keys of public ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier.importing.sheet import SAME, Sheet

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
    for key, path in (("dataset", "data.train"), ("eval_dataset", "data.validation")):
        names = sheet.take(key, [])
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",")]
        sources = [_source(sheet, name, known, folder) for name in names]
        if sources:
            sheet.put(path, sources[0] if len(sources) == 1 else sources)
    share = sheet.take("val_size", 0.0)
    if "validation" not in sheet.recipe.get("data", {}):
        sheet.put("data.validation", share)


def _source(sheet: Sheet, name: str, known: dict[str, Any], folder: Path) -> str:
    entry = known.get(name)
    if entry is None:
        if "." in name or "/" in name:
            return name
        sheet.without.append(
            f"dataset: {name} (not in {folder / 'dataset_info.json'}; say its file)"
        )
        return f"{name}.json"
    for theirs, ours in _COLUMNS.items():
        column = entry.get("columns", {}).get(theirs)
        if column is not None and column != ours:
            sheet.put(f"data.columns.{ours}", column)
    if "file_name" in entry:
        return str(folder / entry["file_name"])
    split = entry.get("split")
    hub = str(entry.get("hf_hub_url", name))
    return f"{hub}:{split}" if split and split != "train" else hub


def _known(path: Path) -> dict[str, Any]:
    """The data sets that a LLaMA-Factory folder lists, where it is there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
