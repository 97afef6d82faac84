"""Classification heads: the architecture's own, or a linear layer on pooled states.

``R`` pooled segments, ``H`` hidden size, ``K`` classes.

Where an architecture classifies by itself with the wanted pooling (BERT's first token, a
decoder's last one), its own class is used, and what is saved loads with plain transformers.
Elsewhere (sentence encoders pool the mean) a linear layer stands on the plain trunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from luthier.core.contracts import Head
from luthier.core.errors import RecipeError, UserError
from luthier.core.records import Batch
from luthier.models.headed import HeadedTrunk, World, fresh, is_encoder
from luthier.models.pooling import pool, sentence_pooling
from luthier.ops.anatomy import unwrapped

#: The linear head of a :class:`PooledClassifier`, beside its trunk.
HEAD_FILE = "head.safetensors"


class PooledClassifier(nn.Module):
    """A trunk, and a linear layer on the pooled states of a segment.

    Args:
        trunk: a transformers model without a head.
        classes: outputs.
        pooling: ``mean``, ``first`` or ``last``.
        hidden: width of a layer between; ``None`` for none.

    Attributes:
        head_names: submodules that are the head.
    """

    head_names = ("classifier",)

    def __init__(
        self, trunk: nn.Module, classes: int, pooling: str, hidden: int | None = None
    ) -> None:
        super().__init__()
        config = cast("Any", trunk).config
        if getattr(trunk, "pooler", None) is not None:
            cast("Any", trunk).pooler = None  # nothing would train it
        self.trunk = trunk
        self.pooling = pooling
        self.dropout = nn.Dropout(_head_dropout(config))
        self.hidden = hidden
        self.classifier: nn.Module
        if hidden is None:
            self.classifier = nn.Linear(config.hidden_size, classes)
        else:
            layers = nn.Linear(config.hidden_size, hidden), nn.GELU(), nn.Linear(hidden, classes)
            self.classifier = nn.Sequential(*layers)
        self.classifier.apply(lambda layer: fresh(layer, config))

    @property
    def config(self) -> Any:
        """The trunk's config; its ``id2label`` names the classes."""
        return unwrapped(self.trunk).config

    def set_attn_implementation(self, name: str) -> None:
        """As transformers' own models have it."""
        unwrapped(self.trunk).set_attn_implementation(name)

    def forward(self, rows: Tensor) -> Tensor:
        """Pooled states to logits: ``[R, H] -> [R, K]``."""
        out: Tensor = self.classifier(self.dropout(rows))
        return out

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """The trunk (weights or adapter) in its own format, the head beside it."""
        cast("Any", self.trunk).save_pretrained(folder, **options)
        self.save_head(Path(folder))

    def save_head(self, folder: Path) -> None:
        """The linear layer alone."""
        tensors = {n: p.detach().cpu().contiguous() for n, p in self.classifier.named_parameters()}
        save_file(tensors, folder / HEAD_FILE, metadata={"pooling": self.pooling})

    def load_head(self, folder: Path) -> None:
        """The inverse of :meth:`save_head`."""
        with safe_open(folder / HEAD_FILE, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        self.classifier.load_state_dict(tensors)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> PooledClassifier:
        """What :meth:`save_pretrained` wrote of a trunk with full weights."""
        from transformers import AutoModel

        options = {"use_safetensors": True, **options}
        trunk = AutoModel.from_pretrained(folder, **options)
        with safe_open(Path(folder) / HEAD_FILE, framework="pt") as stream:
            first, last = ("bias",) * 2 if "bias" in stream.keys() else ("0.bias", "2.bias")  # noqa: SIM118
            inner, classes = (stream.get_slice(name).get_shape()[0] for name in (first, last))
        pooling = saved_pooling(Path(folder))
        assert pooling is not None
        hidden = inner if first != last else None
        made = cls(trunk, classes, pooling, hidden).to(next(trunk.parameters()).dtype)
        made.load_head(Path(folder))
        return made


class ClassifierModel(HeadedTrunk):
    """A classifier as objectives see it; see :class:`luthier.core.contracts.HeadedModel`.

    Args:
        module: a :class:`PooledClassifier`, or a transformers model for sequence classification,
            possibly under adapters.
    """

    @property
    def trunk(self) -> nn.Module:
        """The blocks below the head."""
        base = self.base
        if isinstance(base, PooledClassifier):
            return cast("nn.Module", unwrapped(base.trunk))
        return cast("nn.Module", base.base_model)

    @property
    def head(self) -> Head:
        """The classification head."""
        labels = self.labels
        hidden = getattr(self.base, "hidden", None)
        return Head("classification", len(labels), self.pooling, labels, self.problem_type, hidden)

    @property
    def pooling(self) -> str:
        """How a segment becomes one vector."""
        return str(getattr(self.base, "pooling", None) or native_pooling(self.config))

    @property
    def problem_type(self) -> str:
        """``single_label``, ``multi_label`` or ``regression``."""
        kind = self.base.config.problem_type or "single_label_classification"
        return str(kind).removesuffix("_classification")

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        """These segments as one vector each: ``[R, H]``."""
        return pool(batch, hidden, segments, self.pooling)

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        """The head on pooled states: ``[R, H] -> [R, K]``."""
        assert head == "classification", head
        base = self.base
        if isinstance(base, PooledClassifier):
            return cast("Tensor", base(rows))
        return own_head(base, rows)

    def check(self) -> None:
        """Compares our way to the logits with the architecture's own.

        Raises:
            UserError: they differ: this architecture's head is not understood.
        """
        base = self.base
        if isinstance(base, PooledClassifier):
            return

        def ours(states: Tensor) -> Tensor:
            rows = {"first": states[:1], "last": states[-1:], "mean": states.mean(0)[None]}
            return own_head(base, rows[self.pooling])

        if not self.agrees(ours):
            raise _not_understood(self.config.model_type)


def own_head(base: Any, rows: Tensor) -> Tensor:
    """An architecture's own head on pooled states ``[R, H]``, as sequences of one token."""
    if hasattr(base, "score"):  # decoders
        return cast("Tensor", base.score(rows))
    if hasattr(base, "pre_classifier"):  # DistilBERT
        rows = base.dropout(F.relu(base.pre_classifier(rows)))
        return cast("Tensor", base.classifier(rows))
    if hasattr(base, "drop") and hasattr(base, "head"):  # ModernBERT
        return cast("Tensor", base.classifier(base.drop(base.head(rows))))
    features = rows[:, None]
    pooler = getattr(base, "own_pooler", None) or getattr(base.base_model, "pooler", None)
    if pooler is not None:  # BERT
        return cast("Tensor", base.classifier(base.dropout(pooler(features))))
    return cast("Tensor", base.classifier(features))  # RoBERTa and its kin


def head_modules(base: Any, missing: Iterable[str]) -> tuple[str, ...]:
    """Names of the submodules that no pretraining made; ``missing`` weights of the checkpoint."""
    names = [n for n in ("score", "pre_classifier", "classifier") if hasattr(base, n)]
    pooler = f"{base.base_model_prefix}.pooler"
    if any(name.startswith(f"{pooler}.") for name in missing):
        names.insert(0, pooler)
    return tuple(names)


def native_pooling(config: Any) -> str:
    """How the architecture's own classification class pools."""
    named = getattr(config, "classifier_pooling", None)
    if named is not None:
        return "first" if named == "cls" else str(named)
    return "first" if is_encoder(config) else "last"


def kept(name: str, config: Any) -> Head | None:
    """The classification head that a folder or a hub model comes with, if it is a classifier."""
    named = (getattr(config, "architectures", None) or [""])[0]
    if not (named.endswith("ForSequenceClassification") or (Path(name) / HEAD_FILE).is_file()):
        return None
    labels = tuple(str(config.id2label[i]) for i in range(len(config.id2label)))
    kind = (config.problem_type or "single_label").removesuffix("_classification")
    return Head("classification", len(labels), None, labels, kind)


def build(
    name: str, head: Head, options: dict[str, Any], config: Any, seed: int
) -> tuple[nn.Module, list[str]]:
    """A pretrained trunk under a classification head, and what was decided, in words.

    A head that the model comes with stays where its classes are the ones wanted.

    Args:
        name: hub id or folder.
        head: the head wanted, its classes known.
        options: of ``from_pretrained``.
        config: the model's config, which learns the classes.
        seed: of a fresh head's weights.

    Raises:
        OSError, ValueError: as transformers raises them where there is nothing to load.
        RecipeError: an architecture that cannot classify.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    old = kept(name, config)
    again = old is not None and old.labels == head.labels
    pooling = _prepared(name, head, config, options)
    options = {"use_safetensors": True, "config": config, "dtype": torch.float32, **options}
    torch.manual_seed(seed)
    saved = saved_pooling(Path(name))
    if again and saved is not None and head.pooling in (None, saved):
        kept_one = PooledClassifier.from_pretrained(name, **options)
        if head.hidden in (None, kept_one.hidden):
            return kept_one, []
    own = pooling == native_pooling(config) and head.hidden is None
    again = again and saved is None and own
    said = [] if again else [f"a fresh head of {len(head.labels):,} outputs, pooling: {pooling}"]
    if not own:
        trunk = AutoModel.from_pretrained(name, **options)
        return PooledClassifier(trunk, len(head.labels), pooling, head.hidden), said
    module, found = AutoModelForSequenceClassification.from_pretrained(
        name, ignore_mismatched_sizes=True, output_loading_info=True, **options
    )
    module.head_names = head_modules(module, found["missing_keys"])
    if old is not None and not again:
        said = [f"{said[0]}; the model's own head is another"]
        for each in module.head_names:
            module.get_submodule(each).apply(lambda layer: fresh(layer, config))
    return module, said


def empty(name: str, head: Head, config: Any, options: dict[str, Any]) -> nn.Module:
    """The same on torch's ``meta`` device, its weights unread."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    pooling = _prepared(name, head, config, options)
    with torch.device("meta"):
        if pooling != native_pooling(config) or head.hidden is not None:
            trunk = AutoModel.from_config(config)
            return PooledClassifier(trunk, len(head.labels), pooling, head.hidden)
        module = AutoModelForSequenceClassification.from_config(config)
    module.head_names = head_modules(module, ())
    return cast("nn.Module", module)


def _prepared(name: str, head: Head, config: Any, options: dict[str, Any]) -> str:
    """Writes the classes into a config; returns the pooling.

    Raises:
        RecipeError: an architecture that cannot classify.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise RecipeError(
            f"'{name}' is an encoder-decoder ({config.model_type}), which no objective "
            "classifies with",
            cure="take an encoder (BERT, RoBERTa, ModernBERT …) or a decoder",
        )
    config.id2label = dict(enumerate(head.labels))
    config.label2id = {label: i for i, label in enumerate(head.labels)}
    kind = head.problem_type or "single_label"
    config.problem_type = kind if kind == "regression" else f"{kind}_classification"
    said = saved_pooling(Path(name)) or sentence_pooling(name, options, config)
    return head.pooling or said or native_pooling(config)


WORLD = World("SequenceClassification", ClassifierModel, kept, build, empty)


def saved_pooling(folder: Path) -> str | None:
    """The pooling of a linear head in a folder, ``None`` where there is none."""
    if not (folder / HEAD_FILE).is_file():
        return None
    with safe_open(folder / HEAD_FILE, framework="pt") as stream:
        return str(stream.metadata()["pooling"])


def _head_dropout(config: Any) -> float:
    for name in ("classifier_dropout", "hidden_dropout_prob", "seq_classif_dropout"):
        value = getattr(config, name, None)
        if value is not None:
            return float(value)
    return 0.0


def _not_understood(kind: str) -> UserError:
    return UserError(
        f"the classification head of '{kind}' works in a way that is not known here",
        cure="set objective.pooling (mean, first or last) to one that it does not use itself: "
        "a plain linear head then stands on its trunk",
        code="head",
    )
