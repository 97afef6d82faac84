"""Model and tokenizer from a hub id, a folder, a run or a peft adapter; safetensors only."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from luthier.core.contracts import Head
from luthier.core.errors import RecipeError, UserError, nearest
from luthier.core.recipe import ModelSpec
from luthier.core.rundir import RunDir
from luthier.models import adapters, new_tokens, quantized, worlds
from luthier.models.embedder import EmbeddingModel
from luthier.models.encoder_decoder import auto_class, language_model, tokens_of
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import CausalModel
from luthier.models.layers import student
from luthier.models.masked_lm import MaskedModel
from luthier.models.several import SeveralModel
from luthier.models.token_heads import TaggerModel
from luthier.ops import bottleneck
from luthier.ops.quantized import exact, nbytes, numel

BUILTIN = Path(__file__).resolve().parent / "builtin"
#: Beside the weights of a finished run: what plain transformers has no place for.
NOTE = "luthier.json"
#: In it, of an encoder-decoder: the template around its sources, and the languages.
PAIR = "pair"


@dataclass(frozen=True)
class Where:
    """Where a model name leads.

    Attributes:
        kind: ``hub``, ``folder`` (full weights) or ``adapter``.
        name: hub id or absolute path.
    """

    kind: Literal["hub", "folder", "adapter"]
    name: str


@dataclass
class Loaded:
    """A model ready for use.

    Attributes:
        model: the model with its head.
        tokenizer: the transformers tokenizer.
        name: what was asked for.
        said: what was decided on the way, for the user to read.
        new_tokens: what was added to the base's tokenizer.
    """

    model: CausalModel | ClassifierModel | TaggerModel | MaskedModel | EmbeddingModel | SeveralModel
    tokenizer: Any
    name: str
    said: list[str] = field(default_factory=list)
    new_tokens: list[str] = field(default_factory=list)

    @property
    def context(self) -> int:
        """Tokens that the architecture, or else the tokenizer, can take."""
        known = self.model.context
        return known or min(getattr(self.tokenizer, "model_max_length", 2048), 1_000_000)

    @property
    def head(self) -> Head | None:
        """The head beside the language model's, ``None`` of a language model."""
        return self.model.head


def locate(name: str, *, weights: bool = True) -> Where:
    """What a recipe's model name means, without loading anything.

    Args:
        name: as in a recipe; a run in stages means its last stage's model.
        weights: whether a folder must hold a model, or a tokenizer is enough.

    Raises:
        RecipeError: a builtin that does not exist, or a folder without a model.
    """
    if name.startswith("builtin:"):
        folder = BUILTIN / name.removeprefix("builtin:")
        known = [p.parent.name for p in BUILTIN.glob("*/config.json")]
        if folder.name not in known:
            raise RecipeError(f"unknown model '{name}': {nearest(folder.name, known)}")
        return Where("folder", str(folder))
    path = Path(name).expanduser()
    if path.is_dir():
        if not weights and (path / "tokenizer.json").is_file():
            return Where("folder", str(path.resolve()))
        return _folder(path.resolve())
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise RecipeError(
            f"no model folder '{name}'", cure="name a folder, a run, a hub id or builtin:nano"
        )
    return Where("hub", name)


def load(
    spec: ModelSpec | str,
    *,
    device: torch.device | None = None,
    adapter: bool = True,
    head: Head | None = None,
    seed: int = 0,
    quantize: bool | None = None,
) -> Loaded:
    """A pretrained model with its tokenizer, weights in float32.

    Args:
        spec: name, or the recipe's model part.
        device: where to put it; the CPU if unset.
        adapter: whether an adapter is put on its base; without it the base alone is loaded.
        head: a head that is wanted; if unset, the one that the model has.
        seed: of a fresh head's weights.
        quantize: whether the base's matrices are put into four bits; if unset, as the run that
            the name leads to was trained.

    Raises:
        UserError: not found, not reachable, pickled weights, or code nobody asked to run.
    """
    spec = ModelSpec(name=spec) if isinstance(spec, str) else spec
    where, base, options = _found(spec)
    own = _adapter_head(where) if where.kind == "adapter" else None
    if own is not None and head is not None and head.reads != own.reads:
        other = "classifies into other classes" if head.kind == own.kind else "has another head"
        raise RecipeError(
            f"the adapter '{spec.name}' {other}",
            cure="export it merged and start from that, or start from its base",
        )
    kept = read_note(Path(where.name)).get("quantized") if where.kind == "adapter" else None
    packed = kept is not None if quantize is None else quantize
    if quantize and kept is not None and kept["covers_rounding"]:
        raise RecipeError(
            f"'{spec.name}' began as what rounding took from its base, which cannot be continued",
            cure="luthier export it merged and start from that, or set method: lora",
        )
    module, said, found = _weights(base, options, head or own, seed, spec.dropout, packed)
    tokenizer = tokenizer_of(spec)
    own_tokens = read_note(Path(where.name)).get("new_tokens", []) if where is not base else []
    new_tokens.add(module, _tokenizer(base, options), own_tokens)  # their rows, as they began
    wanted = new_tokens.read(spec.new_tokens)
    said += new_tokens.add(module, tokenizer, wanted)
    added = [*own_tokens, *(token for token in wanted if token not in own_tokens)]
    if where.kind == "adapter" and adapter:
        module = adapters.put_on(module, where.name)
        if packed and kept is not None and kept["covers_rounding"]:
            quantized.keep_first_half(module)
    if spec.layers is not None:
        module = student(module, spec.layers)
        said.append(f"{module.config.num_hidden_layers} of the model's layers: {spec.layers}")
    module.to(device or torch.device("cpu"))
    if found is not None:
        headed = worlds.WORLDS[found.kind].model(module)
        headed.check()
        return Loaded(headed, tokenizer, spec.name or "", said, added)
    return Loaded(language_model(module), tokenizer, spec.name or "", said, added)


def known_head(spec: ModelSpec) -> Head | None:
    """The head beside the language model's that a pretrained model has; no weight is loaded.

    Raises:
        UserError: there is no such model.
    """
    if spec.name is None:
        return None
    where, base, options = _found(spec)
    if where.kind == "adapter":
        return _adapter_head(where)
    return worlds.kept(base.name, _config(base, options, None))


def _found(spec: ModelSpec) -> tuple[Where, Where, dict[str, Any]]:
    """Where a model lies, where its base does, and the options to load that with."""
    assert spec.name is not None
    where = locate(spec.name)
    base = base_of(Path(where.name)) if where.kind == "adapter" else where
    options = {
        "revision": spec.revision,
        "trust_remote_code": spec.trust_remote_code,
        "local_files_only": base.kind != "hub" or spec.offline,
    }
    return where, base, {k: v for k, v in options.items() if v is not None}


def tokenizer_at(where: Where) -> Any:
    """The tokenizer of a place.

    Raises:
        UserError: there is none, or it cannot be reached.
    """
    return _tokenizer(where, {"local_files_only": where.kind != "hub"})


def tokenizer_of(spec: ModelSpec) -> Any:
    """The tokenizer of a pretrained model: an adapter's own, or its base's.

    Raises:
        UserError: there is none, or it cannot be reached.
    """
    where, base, options = _found(spec)
    own = where.kind == "adapter" and (Path(where.name) / "tokenizer.json").exists()
    return _tokenizer(where if own else base, options)


def from_scratch(spec: ModelSpec, tokenizer: Any, seed: int) -> Loaded:
    """A model of an architecture with fresh weights.

    Raises:
        RecipeError: unknown architecture, or a setting that it does not have.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig

    assert spec.architecture is not None
    if spec.architecture not in CONFIG_MAPPING:
        close = nearest(spec.architecture, CONFIG_MAPPING)
        hint = close if close.startswith("did you mean") else "transformers has none of that name"
        raise RecipeError(f"unknown model.architecture '{spec.architecture}': {hint}")
    try:
        known = AutoConfig.for_model(spec.architecture)
        config = AutoConfig.for_model(
            spec.architecture, **{**tokens_of(tokenizer, known), **spec.config}
        )
    except (ValueError, KeyError, StrictDataclassError) as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise RecipeError(f"model.config of '{spec.architecture}': {reason}") from error
    for name in spec.config:
        if not hasattr(known, name):
            raise RecipeError(
                f"model.config.{name}: {spec.architecture} has no such setting, "
                f"{nearest(name, known.to_dict())}"
            )
    torch.manual_seed(seed)
    module = auto_class(config).from_config(config, dtype=torch.float32)
    return Loaded(language_model(module), tokenizer, f"{spec.architecture} from scratch")


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """``(trainable, total)`` parameters, tied ones once."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trainable, sum(numel(p) for p in module.parameters())


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all parameters, tied ones once; a model without weights counts as float32."""
    return sum(nbytes(p) for p in module.parameters())


def save_note(folder: Path, note: dict[str, Any]) -> None:
    """Writes what plain transformers has no place for: the base by name, the objective."""
    (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def read_note(folder: Path) -> dict[str, Any]:
    """What :func:`save_note` wrote; empty where there is none."""
    path = folder / NOTE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _folder(path: Path) -> Where:
    run = RunDir(path)
    if run.is_run and (stages := run.stages):
        if not stages[-1].finished:
            raise RecipeError(
                f"run '{path}' has not finished its last stage, '{stages[-1].path.name}'",
                cure=f"finish it: luthier train --resume {path}; or name the folder of a stage",
            )
        return _folder(stages[-1].path)
    if run.is_run:
        if not run.model.is_dir():
            raise RecipeError(
                f"run '{path}' has no model yet", cure=f"finish it: luthier train --resume {path}"
            )
        path = run.model
    if (path / "adapter_config.json").is_file() or (path / bottleneck.CONFIG).is_file():
        return Where("adapter", str(path))
    if (path / "config.json").is_file():
        return Where("folder", str(path))
    raise RecipeError(f"'{path}' holds no model: neither config.json nor adapter_config.json")


def base_of(adapter: Path) -> Where:
    """What an adapter stands on.

    Raises:
        UserError: it does not say.
    """
    note = read_note(adapter).get("base")
    if (adapter / bottleneck.CONFIG).is_file():
        config = bottleneck.read_config(adapter)
    else:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    name = note if note and note.startswith("builtin:") else config.get("base_model_name_or_path")
    if not name:
        raise UserError(f"adapter '{adapter}' does not say what its base model is")
    return locate(str(name))


def _config(where: Where, options: dict[str, Any], dropout: float | None) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(where.name, **options)
    except (OSError, ValueError) as error:
        raise _load_error(where, error) from error
    if dropout is not None:
        for name, value in config.to_dict().items():
            number = value is None or isinstance(value, int | float)
            if number and ("dropout" in name or name.endswith("_pdrop")):
                setattr(config, name, dropout)
    return config


def _weights(
    where: Where,
    options: dict[str, Any],
    head: Head | None,
    seed: int,
    dropout: float | None,
    packed: bool,
) -> tuple[nn.Module, list[str], Head | None]:
    """The module, what was decided on the way, and its head where it is no language model."""
    config = _config(where, options, dropout)
    head = head or worlds.kept(where.name, config)
    module: nn.Module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            if head is not None:
                build = worlds.WORLDS[head.kind].build
                module, said = build(where.name, head, options, config, seed)
                return (quantized.packed(module) if packed else module), said, head
            if packed:
                options = {**options, **quantized.options(config)}
            module, found = auto_class(config).from_pretrained(
                where.name,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise _load_error(where, error) from error
    if packed:
        exact(module)
    fresh = sorted(found["missing_keys"])
    said = [f"{len(fresh)} weights are not in the files and start fresh: {', '.join(fresh[:5])}"]
    return module, said if fresh else [], None


def _adapter_head(where: Where) -> Head | None:
    kept = read_note(Path(where.name)).get("head")
    return None if kept is None else Head.of(kept)


def _tokenizer(where: Where, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where.name, **options)
    except (OSError, ValueError) as error:
        raise _load_error(where, error) from error


def _load_error(where: Where, error: Exception) -> UserError:
    text = str(error)
    if "trust_remote_code" in text:
        cure = "set model.trust_remote_code: true if you trust its authors"
    elif "safetensors" in text and not isinstance(error, SafetensorError):
        cure = "only safetensors are loaded, never pickles: convert the weights first"
    elif where.kind == "hub":
        cure = "check the id and the network, or name a local folder or builtin:nano"
    else:
        cure = "is the folder complete? it needs config.json, model.safetensors, tokenizer.json"
    return UserError(f"cannot load '{where.name}': {adapters.first_line(error)}", cure=cure)
