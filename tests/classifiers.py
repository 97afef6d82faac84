"""Tiny classifiers of every kind that is supported, and rows for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import torch

from luthier.core.contracts import Head
from luthier.core.records import Labelled, Origin
from luthier.models.heads import ClassifierModel, PooledClassifier, head_modules

#: Architecture -> what it needs beside the common settings. Windows are smaller than the texts.
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "modernbert": {"local_attention": 6, "global_attn_every_n_layers": 2, "pad_token_id": 0},
}
NAMES = ("bad", "fair", "good")
TEXTS = (
    "a slow and empty film",
    "neither good nor bad, it passes",
    "what a joy from the first minute to the last one",
    "never again",
    "it was fine",
    "go and see it",
)


def config(name: str, classes: int = 3, **changes: Any) -> Any:
    """A small config with names for its classes."""
    from transformers import AutoConfig

    settings: dict[str, Any] = {
        "vocab_size": len(builders.tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "id2label": dict(enumerate(NAMES[:classes])),
        "label2id": {label: i for i, label in enumerate(NAMES[:classes])},
        **ENCODERS.get(name, {"num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0}),
    }
    if name == "distilbert":
        for each in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            settings.pop(each)
        settings.pop("intermediate_size")
    if name == "modernbert":
        for each in ("cls", "sep", "bos", "eos"):
            settings[f"{each}_token_id"] = 2
    made = AutoConfig.for_model(name, **{**settings, **changes})
    for key, value in made.to_dict().items():
        if "dropout" in key and (value is None or isinstance(value, float)):
            setattr(made, key, 0.0)
    return made


def own(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """An architecture's own classifier; weights large enough that everything matters."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    module = AutoModelForSequenceClassification.from_config(config(name, **changes), dtype=dtype)
    louder(module)
    module.head_names = head_modules(module, ())
    return module.eval()


def pooled(
    name: str, pooling: str, dtype: torch.dtype = torch.float32, classes: int = 3, **changes: Any
) -> Any:
    """A linear head on an architecture's trunk."""
    from transformers import AutoModel

    torch.manual_seed(0)
    trunk = AutoModel.from_config(config(name, classes, **changes), dtype=dtype)
    module = PooledClassifier(trunk, classes, pooling).to(dtype)
    louder(module)
    return module.eval()


def model(name: str, pooling: str | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """The classifier as objectives see it."""
    module = own(name, dtype) if pooling is None else pooled(name, pooling, dtype)
    return ClassifierModel(module)


def head() -> Head:
    """What :data:`NAMES` asks for."""
    return Head("classification", 3, None, NAMES, "single_label")


def labelled(count: int = 6) -> list[Labelled]:
    """Texts of different lengths with their classes."""
    return [
        Labelled(Origin("made.jsonl", i + 1), TEXTS[i % len(TEXTS)], NAMES[i % 3])
        for i in range(count)
    ]


def saved(folder: Path, name: str = "bert", **changes: Any) -> Path:
    """A pretrained encoder with its tokenizer, as a folder that a recipe can name."""
    from transformers import AutoModel

    torch.manual_seed(0)
    trunk = AutoModel.from_config(config(name, **changes))
    trunk.save_pretrained(folder)
    builders.tokenizer().save_pretrained(folder)
    return folder


def louder(module: Any) -> None:
    """Makes weights large enough for everything to matter."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
