"""Axolotl's configuration (github.com/axolotl-ai-cloud/axolotl), by the keys of public ones."""

from __future__ import annotations

from typing import Any

from luthier.importing.sheet import SAME, Listed, Sheet

_SAME = {
    **SAME,
    "base_model": "model.name",
    "revision_of_model": "model.revision",
    "val_set_size": "data.validation",
    "sequence_len": "data.max_length",
    "num_epochs": "training.epochs",
    "cosine_min_lr_ratio": "training.min_rate",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "torch_compile": "training.compile",
}
_LORA = {
    "lora_r": "method.rank",
    "lora_alpha": "method.alpha",
    "lora_dropout": "method.dropout",
    "peft_use_rslora": "method.rslora",
    "peft_use_dora": "method.dora",
}
_ALWAYS = (
    "sample_packing",
    "eval_sample_packing",
    "pad_to_sequence_len",
    "flash_attention",
    "sdp_attention",
    "xformers_attention",
    "group_by_length",
    "dataset_prepared_path",
    "dataset_processes",
    "model_type",
    "tokenizer_type",
    "is_llama_derived_model",
    "strict",
    "debug",
    "local_rank",
    "ddp",
    "device_map",
    "tf32",
    "gradient_checkpointing_kwargs",
    "excess_length_strategy",
)
#: Names of data's shapes there, and of formats here; anything else is recognised.
_FORMATS = {"alpaca": "instruction", "completion": "text", "chat_template": "messages"}
_COLUMNS = {
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "field_system": "system",
    "field_messages": "messages",
    "field": "text",
}


def read(sheet: Sheet) -> Sheet:
    """Takes every key of an Axolotl configuration."""
    kind = _data(sheet)
    _method(sheet)
    if (learned := sheet.take("rl")) is not None:
        sheet.lacking("rl", learned, "supervised here")
    if kind == "language_modeling":
        sheet.take("train_on_inputs")
        sheet.put("objective", kind)
    else:
        whole = sheet.take("train_on_inputs", False)
        sheet.put("objective", {"kind": "sft", "train_on": "all"} if whole else "sft")
    sheet.moved(_SAME)
    sheet.batch("micro_batch_size", 1)
    sheet.schedule("lr_scheduler")
    sheet.warmup()
    sheet.precision()
    sheet.quantized(("load_in_4bit", "load_in_8bit"))
    _optimizer(sheet)
    if (patience := sheet.take("early_stopping_patience")) is not None:
        sheet.put("training.early_stopping", {"patience": patience})
    if (template := sheet.take("chat_template")) is not None:
        sheet.otherwise.append(f"chat_template {template}: the model's own template is used")
    for key in ("evals_per_epoch", "saves_per_epoch"):
        if (times := sheet.take(key)) is not None:
            sheet.otherwise.append(f"{key} {times}: both happen ten times a run")
    if sheet.take("wandb_project") is not None:
        sheet.put("training.trackers", ["wandb"])
    sheet.needless(_ALWAYS)
    sheet.rest()
    return sheet


def _method(sheet: Sheet) -> None:
    adapter = sheet.take("adapter")
    if adapter is None:
        sheet.put("method", "full")
        return
    if adapter != "lora":
        sheet.lacking("adapter", adapter, "lora in its place")
    sheet.put("method.kind", "lora")
    modules, linear = sheet.take("lora_target_modules"), sheet.take("lora_target_linear")
    if linear is None and modules is not None:
        sheet.put("method.targets", modules)
    sheet.moved(_LORA)


def _optimizer(sheet: Sheet) -> None:
    name = sheet.take("optimizer")
    if name is not None and not str(name).startswith("adamw"):
        sheet.lacking("optimizer", name, "adamw in its place")
    elif name is not None and "8bit" in str(name):
        sheet.otherwise.append(f"optimizer {name}: AdamW with moments in float32")
    first, second = sheet.take("adam_beta1"), sheet.take("adam_beta2")
    if first is not None or second is not None:
        sheet.put("training.betas", [first or 0.9, second or 0.999])
    sheet.needless(("adam_epsilon",))


def _data(sheet: Sheet) -> str:
    """The sources, and what is learned of them."""
    listed = [_listed(sheet, entry) for entry in sheet.take("datasets", [])]
    if listed:
        sheet.sources(listed)
    else:
        sheet.without.append("datasets: none was named; say data.train")
    held = [_sources(dict(e)) for e in sheet.take("test_datasets", []) if isinstance(e, dict)]
    if held:
        sheet.put("data.validation", [file for each in held for file in each])
        sheet.take("val_set_size")
    elif sheet.recipe.get("data", {}).get("validation") is None:
        sheet.put("data.validation", 0.0)  # nothing is held out there unless it is asked for
    raw = bool(listed) and all(one.format == "text" for one in listed)
    return "language_modeling" if raw else "sft"


def _listed(sheet: Sheet, entry: Any) -> Listed:
    """One data set; what has no equal here is said."""
    one = dict(entry) if isinstance(entry, dict) else {"path": entry}
    found = Listed(_sources(one))
    shape = one.pop("type", None)
    fields = {**one, **shape} if isinstance(shape, dict) else one
    for key, name in _COLUMNS.items():
        if (column := fields.pop(key, None)) is not None and column != name:
            found.columns[name] = str(column)
    if isinstance(shape, str):
        found.format = _FORMATS.get(shape.split(".")[0].split(":")[0], "")
        if shape not in _FORMATS:
            sheet.otherwise.append(f"type {shape}: the format is recognised and said")
    for key in ("ds_type", "name", "num_proc"):
        fields.pop(key, None)
    for key, value in fields.items():
        if key != "type" and value not in (None, "", False):
            sheet.lacking(f"datasets.{key}", value)
    return found


def _sources(entry: dict[str, Any]) -> list[str]:
    """Files, or a data set on the hub with its split."""
    path, files = str(entry.pop("path", "")), entry.pop("data_files", None)
    split = entry.pop("split", None)
    if files:
        named = [files] if isinstance(files, str) else list(files)
        return [
            file if "/" in file or path in ("json", "csv") else f"{path}/{file}" for file in named
        ]
    return [f"{path}:{split}"] if split and split != "train" else [path]
