"""Full weights that load with plain transformers: an adapter is added to its base."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from luthier.core import kinds
from luthier.core.contracts import Method
from luthier.core.rundir import RunDir
from luthier.export import _golden
from luthier.models import embedder, heads, several
from luthier.models.load import PAIR, Loaded, read_note, save_note
from luthier.models.worlds import WORLDS

#: Merging in float32 rounds each weight once.
TOLERANCE = 1e-4


def write(run: RunDir, loaded: Loaded, folder: Path) -> None:
    """Weights in float32, tokenizer with its template, generation config, Luthier's note."""
    # Only the method counts: the rows of a run from memory, say, need not be there any more.
    plain = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    method: Method = kinds.build("methods", kinds.config("methods", plain["method"]))
    merged: Any = method.merge(loaded.model.module)
    merged.save_pretrained(folder, safe_serialization=True)
    loaded.tokenizer.save_pretrained(folder)
    own = run.model / "generation_config.json"
    if own.is_file():
        shutil.copyfile(own, folder / own.name)
    for weights in folder.glob("*.safetensors"):  # written for their owner alone
        weights.chmod((folder / "config.json").stat().st_mode)
    note = read_note(run.model)
    save_note(folder, {**note, "export": "merged"})


def logits(folder: Path, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """What plain transformers computes from the folder; a linear head on a trunk is ours."""
    import transformers

    if (folder / heads.HEAD_FILE).is_file():
        model = heads.ClassifierModel(heads.PooledClassifier.from_pretrained(folder))
        return [_golden.class_logits(model, prompt) for prompt in prompts]
    if several.saved(folder):
        many = several.SeveralModel(several.SeveralHeads.from_pretrained(folder))
        return [_golden.all_logits(many, prompt) for prompt in prompts]
    head = read_note(folder).get("head")
    if head is not None and head["kind"] == embedder.HEAD:
        trunk = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        return [_golden.class_logits(embedder.EmbeddingModel(trunk), p) for p in prompts]
    plain = "Seq2SeqLM" if PAIR in read_note(folder) else "CausalLM"
    task = plain if head is None else WORLDS[head["kind"]].auto
    module = getattr(transformers, f"AutoModelFor{task}").from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    if head is not None and head["kind"] == "classification":
        module.eval()
        with torch.no_grad():
            return [module(torch.tensor([list(p)])).logits.float() for p in prompts]
    return [_golden.logits(module, prompt) for prompt in prompts]
