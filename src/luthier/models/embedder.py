"""Sentence encoders: a plain trunk whose pooled state is the answer.

``R`` pooled segments, ``H`` hidden size. What is saved loads with plain transformers, and with
sentence-transformers, whose files lie beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from luthier.core.contracts import Head
from luthier.core.records import Batch
from luthier.models.headed import HeadedTrunk, World, architecture, is_encoder
from luthier.models.pooling import FILE, MODES, NOTE, pool, sentence_pooling

HEAD = "embedding"
#: How sentence-transformers put a model together.
_MODULES = "modules.json"
_PARTS = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))


class EmbeddingModel(HeadedTrunk):
    """A sentence encoder as objectives see it; see :class:`luthier.core.contracts.HeadedModel`.

    Args:
        module: a transformers model without a head, possibly under adapters.
    """

    @property
    def head(self) -> Head:
        """The head that it has none of."""
        return Head(HEAD, pooling=self.pooling)

    @property
    def labels(self) -> tuple[str, ...]:
        """It has no classes."""
        return ()

    @property
    def trunk(self) -> nn.Module:
        """All of it."""
        return cast("nn.Module", self.base)

    @property
    def pooling(self) -> str:
        """How a text becomes one vector."""
        return str(getattr(self.base.config, NOTE))

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        """These segments as one vector each: ``[R, H]``."""
        return pool(batch, hidden, segments, self.pooling)

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        """The vectors themselves."""
        assert head == HEAD, head
        return rows

    def check(self) -> None:
        """There is no head to be misunderstood."""


def kept(name: str, config: Any) -> Head | None:
    """The pooling that a folder comes with, if it is a sentence encoder."""
    headless = architecture(config).endswith("Model")
    if not headless or not (getattr(config, NOTE, None) or (Path(name) / FILE).is_file()):
        return None
    return Head(HEAD, pooling=sentence_pooling(name, {"local_files_only": True}, config))


def build(
    name: str, head: Head, options: dict[str, Any], config: Any, seed: int
) -> tuple[nn.Module, list[str]]:
    """A pretrained trunk that knows its pooling, and what was decided, in words.

    Raises:
        OSError, ValueError: as transformers raises them where there is nothing to load.
    """
    from transformers import AutoModel

    _prepared(name, head, config, options)
    torch.manual_seed(seed)
    trunk = AutoModel.from_pretrained(
        name, **{"use_safetensors": True, "config": config, "dtype": torch.float32, **options}
    )
    return _bare(trunk), [f"a text's vector is pooled: {getattr(config, NOTE)}"]


def empty(name: str, head: Head, config: Any, options: dict[str, Any]) -> nn.Module:
    """The same on torch's ``meta`` device, its weights unread."""
    from transformers import AutoModel

    _prepared(name, head, config, options)
    with torch.device("meta"):
        return _bare(AutoModel.from_config(config))


def save_beside(folder: Path, pooling: str, width: int, length: int, *, cosine: bool) -> None:
    """What sentence-transformers read beside the weights.

    Args:
        folder: holds the transformers model.
        pooling: how a text becomes one vector.
        width: its entries.
        length: tokens that a text may have.
        cosine: whether vectors are normalised.
    """
    parts = _PARTS if cosine else _PARTS[:2]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(parts)
    ]
    modes = {f"pooling_mode_{theirs}": ours == pooling for ours, theirs in MODES.items()}
    for path, content in (
        (_MODULES, modules),
        ("sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False}),
        (FILE, {"word_embedding_dimension": width, **modes}),
    ):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _prepared(name: str, head: Head, config: Any, options: dict[str, Any]) -> None:
    said = head.pooling or sentence_pooling(name, options, config)
    setattr(config, NOTE, said or ("mean" if is_encoder(config) else "last"))


def _bare(trunk: Any) -> nn.Module:
    """Without the layer that nothing would train, and its vectors do not come from."""
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None
    trunk.adapter_task = "FEATURE_EXTRACTION"
    return cast("nn.Module", trunk)


WORLD = World("", EmbeddingModel, kept, build, empty)
