"""Heads that give every token a class: each architecture's own.

``R`` tokens, ``H`` hidden size, ``K`` classes. What is saved loads with plain transformers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from luthier.core.contracts import Head
from luthier.core.errors import RecipeError, UserError
from luthier.core.records import Batch
from luthier.models.headed import (
    HeadedTrunk,
    World,
    architecture,
    fresh,
    label_names,
    name_labels,
)

HEAD = "token_classification"


class TaggerModel(HeadedTrunk):
    """A token classifier as objectives see it; see :class:`luthier.core.contracts.HeadedModel`.

    Args:
        module: a transformers model for token classification, possibly under adapters.
    """

    #: What a row of its table is: a token.
    pooling = "token"

    @property
    def head(self) -> Head:
        """The head that it is."""
        return Head(HEAD, len(self.labels), None, self.labels)

    @property
    def trunk(self) -> nn.Module:
        """The blocks below the head."""
        return cast("nn.Module", self.base.base_model)

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        """The states ``[R, H]`` of chosen tokens; ``segments`` are their positions."""
        return hidden.index_select(0, segments)

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        """The head on tokens' states: ``[R, H] -> [R, K]``."""
        assert head == HEAD, head
        return own_head(self.base, rows)

    def check(self) -> None:
        """Compares our way to the logits with the architecture's own.

        Raises:
            UserError: they differ: this architecture's head is not understood.
        """
        if not self.agrees(lambda states: own_head(self.base, states)):
            raise UserError(
                f"the token classification head of '{self.config.model_type}' works in a way that "
                "is not known here",
                cure="take another architecture (BERT, RoBERTa, DistilBERT, ModernBERT, DeBERTa …)",
                code="head",
            )


def own_head(base: Any, rows: Tensor) -> Tensor:
    """An architecture's own head on hidden states ``[R, H]``."""
    if hasattr(base, "drop") and hasattr(base, "head"):  # ModernBERT
        return cast("Tensor", base.classifier(base.drop(base.head(rows))))
    rows = base.dropout(rows)
    return cast("Tensor", base.score(rows) if hasattr(base, "score") else base.classifier(rows))


def head_modules(base: Any, missing: Iterable[str]) -> tuple[str, ...]:
    """Names of the submodules that no pretraining made; ``missing`` weights of the checkpoint."""
    names = [name for name in ("score", "classifier") if hasattr(base, name)]
    if any(name.startswith("head.") for name in missing):
        names.insert(0, "head")
    return tuple(names)


def kept(_name: str, config: Any) -> Head | None:
    """The token classification head that a folder or a hub model comes with, if it has one."""
    if not architecture(config).endswith("ForTokenClassification"):
        return None
    labels = label_names(config)
    return Head(HEAD, len(labels), None, labels)


def build(
    name: str, head: Head, options: dict[str, Any], config: Any, seed: int
) -> tuple[nn.Module, list[str]]:
    """A pretrained trunk under a token classification head, and what was decided, in words.

    A head that the model comes with stays where its classes are the ones wanted.

    Raises:
        OSError, ValueError: as transformers raises them where there is nothing to load.
        RecipeError: an architecture that has no such head.
    """
    from transformers import AutoModelForTokenClassification

    old = kept(name, config)
    again = old is not None and old.labels == head.labels
    _prepared(name, head, config)
    torch.manual_seed(seed)
    module, found = AutoModelForTokenClassification.from_pretrained(
        name,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **{"use_safetensors": True, "config": config, "dtype": torch.float32, **options},
    )
    _mark(module, found["missing_keys"])
    if again:
        return module, []
    said = f"a fresh head of {len(head.labels):,} outputs, one row a word"
    if old is not None:
        said += "; the model's own head is another"
        for each in module.head_names:
            module.get_submodule(each).apply(lambda layer: fresh(layer, config))
    return module, [said]


def empty(name: str, head: Head, config: Any, _options: dict[str, Any]) -> nn.Module:
    """The same on torch's ``meta`` device, its weights unread."""
    from transformers import AutoModelForTokenClassification

    _prepared(name, head, config)
    with torch.device("meta"):
        module = AutoModelForTokenClassification.from_config(config)
    _mark(module, ())
    return cast("nn.Module", module)


def _mark(module: Any, missing: Iterable[str]) -> None:
    module.head_names = head_modules(module, missing)
    module.adapter_task = "TOKEN_CLS"


def _prepared(name: str, head: Head, config: Any) -> None:
    """Writes the classes into a config.

    Raises:
        RecipeError: an architecture without such a head.
    """
    from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING

    if type(config) not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        raise RecipeError(
            f"'{name}' ({config.model_type}) has no token classification head",
            cure="take an encoder (BERT, RoBERTa, ModernBERT …) or a decoder that has one",
        )
    name_labels(config, head.labels)


WORLD = World("TokenClassification", TaggerModel, kept, build, empty)
