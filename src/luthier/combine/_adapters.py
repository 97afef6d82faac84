"""LoRA adapters on one base, summed: ``sum_i w_i s_i B_i A_i``, exactly, as one adapter.

The ranks lie side by side: ``A = [A_1; A_2 …]``, ``B = [w_1 s_1 B_1, w_2 s_2 B_2 …]``, scale 1.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from luthier.core.errors import RecipeError
from luthier.models.load import NOTE, read_note, save_note
from luthier.ops.quantized import peft

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_ROOT = "base_model.model."


def combine(
    folders: Sequence[Path], shares: Sequence[float], output: Path, say: Callable[[str], None]
) -> int:
    """Writes the sum of several adapters; returns how many matrices it changes.

    Raises:
        RecipeError: they are on different bases, or no plain low-rank updates.
    """
    configs = [json.loads((f / _CONFIG).read_text(encoding="utf-8")) for f in folders]
    _check_bases(folders, configs)
    layers: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for folder, config, share in zip(folders, configs, shares, strict=True):
        for name, (down, up) in _pairs(folder, config).items():
            scale = _scaling(config, name, len(down))
            layers.setdefault(name, []).append((down, share * scale * up))
    rank = max(sum(len(down) for down, _ in pairs) for pairs in layers.values())
    tensors = {}
    for name, pairs in layers.items():
        down, up = torch.cat([d for d, _ in pairs]), torch.cat([u for _, u in pairs], dim=1)
        missing = rank - len(down)
        tensors[f"{_ROOT}{name}.lora_A.weight"] = torch.cat(
            [down, down.new_zeros(missing, down.shape[1])]
        )
        tensors[f"{_ROOT}{name}.lora_B.weight"] = torch.cat(
            [up, up.new_zeros(len(up), missing)], dim=1
        )
    save_file(tensors, output / _WEIGHTS, metadata={"format": "pt"})
    made = {
        **configs[0],
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted(layers),
        "lora_dropout": 0.0,
    }
    (output / _CONFIG).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    _copy_rest(folders, shares, output, say)
    return len(layers)


def _check_bases(folders: Sequence[Path], configs: Sequence[dict[str, Any]]) -> None:
    bases = [
        str(read_note(folder).get("base") or config.get("base_model_name_or_path"))
        for folder, config in zip(folders, configs, strict=True)
    ]
    # A builtin's path depends on where the package lies; another base's note may be a run.
    roots = [str(config.get("base_model_name_or_path")) for config in configs]
    for number in range(1, len(folders)):
        if bases[number] != bases[0] and roots[number] != roots[0]:
            raise RecipeError(
                f"'{folders[0]}' is an adapter on '{bases[0]}', '{folders[number]}' on "
                f"'{bases[number]}': their changes cannot be summed",
                cure="luthier export each --to merged, and average those of one architecture",
            )


def _pairs(folder: Path, config: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """Matrix -> A and B.

    Raises:
        RecipeError: the adapter is not low-rank updates alone.
    """
    reason = ""
    if config.get("peft_type") != "LORA":
        reason = f"its kind is {config.get('peft_type')}"
    elif config.get("use_dora"):
        reason = "DoRA rescales the matrices, which is no sum"
    tensors = load_file(folder / _WEIGHTS)
    ends = (".lora_A.weight", ".lora_B.weight")
    if not reason and (others := sorted(k for k in tensors if not k.endswith(ends))):
        reason = f"it trained more than low-rank updates: {others[0].removeprefix(_ROOT)}"
    if not reason and (folder / "head.safetensors").is_file():
        reason = "it has a head of its own"
    if reason:
        raise RecipeError(
            f"adapter '{folder}' cannot be summed: {reason}",
            cure="luthier export each --to merged, and combine the full weights",
        )
    names = [k.removesuffix(ends[0]) for k in tensors if k.endswith(ends[0])]
    return {
        name.removeprefix(_ROOT): (
            tensors[f"{name}{ends[0]}"].float(),
            tensors[f"{name}{ends[1]}"].float(),
        )
        for name in names
    }


def _scaling(config: dict[str, Any], name: str, rank: int) -> float:
    """Alpha / r or alpha / sqrt(r), the pattern's where one means this matrix."""
    peft()
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    key = get_pattern_key(patterns.keys(), name)
    alpha = float(patterns.get(key, config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _copy_rest(
    folders: Sequence[Path], shares: Sequence[float], output: Path, say: Callable[[str], None]
) -> None:
    """Tokenizer and template of the first, and a note of what this is."""
    for path in sorted(folders[0].iterdir()):
        own = path.name in (NOTE, _WEIGHTS, _CONFIG, "README.md")
        if path.is_file() and not own:
            shutil.copyfile(path, output / path.name)
    (output / _WEIGHTS).chmod((output / _CONFIG).stat().st_mode)
    notes = [read_note(folder) for folder in folders]
    note = dict(notes[0])
    packed = [each.get("quantized") for each in notes]
    if packed != [packed[0]] * len(packed) or (packed[0] or {}).get("covers_rounding"):
        note.pop("quantized", None)
        say("the adapters were not all trained on the base as it is now: it is loaded in full")
    models = [{"model": str(f), "weight": s} for f, s in zip(folders, shares, strict=True)]
    save_note(output, {**note, "combined": {"kind": "sum", "models": models}})
