"""A model's shape without its weights: enough to count parameters and to plan memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from luthier.core.contracts import Head
from luthier.core.errors import UserError
from luthier.core.recipe import ModelSpec
from luthier.models import heads, new_tokens
from luthier.models.encoder_decoder import auto_class, language_model
from luthier.models.layers import shortened
from luthier.models.load import Loaded, base_of, from_scratch, locate, tokenizer_of
from luthier.models.several import SeveralHeads
from luthier.models.worlds import WORLDS
from luthier.ops import bottleneck
from luthier.ops.quantized import peft


def skeleton(
    spec: ModelSpec, tokenizer: Any = None, seed: int = 0, head: Head | None = None
) -> Loaded:
    """The model on torch's ``meta`` device, with its real tokenizer; nothing large is read.

    Args:
        spec: the recipe's model part.
        tokenizer: of a model from scratch.
        seed: of a model from scratch.
        head: a head that is wanted.

    Raises:
        UserError: not found, or no model with the wanted head.
    """
    if spec.architecture is not None:
        with torch.device("meta"):
            return from_scratch(spec, tokenizer, seed)
    assert spec.name is not None
    where = locate(spec.name)
    base = base_of(Path(where.name)) if where.kind == "adapter" else where
    module = _empty(base.name, spec, head)
    if (Path(where.name) / bottleneck.CONFIG).is_file() and spec.layers is None:
        with torch.device("meta"):
            shape = bottleneck.Shape(**bottleneck.read_config(Path(where.name))["shape"])
            bottleneck.Adapters.of(module).add(bottleneck.DEFAULT, shape)
    elif where.kind == "adapter" and spec.layers is None:
        with torch.device("meta"):
            asked = peft().PeftConfig.from_pretrained(where.name)
            if isinstance(module, heads.PooledClassifier | SeveralHeads):
                module.trunk = peft().get_peft_model(module.trunk, asked)
            else:
                module = peft().get_peft_model(module, asked)
    known = tokenizer_of(spec)
    said = new_tokens.add(module, known, new_tokens.read(spec.new_tokens))
    model = language_model(module) if head is None else WORLDS[head.kind].model(module)
    return Loaded(model, known, spec.name, said)


def _empty(name: str, spec: ModelSpec, head: Head | None) -> Any:
    from transformers import AutoConfig

    options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
    if spec.revision is not None:
        options["revision"] = spec.revision
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=spec.offline, **options)
        if spec.layers is not None:
            config, _ = shortened(config, spec.layers)
        if head is not None:
            options["local_files_only"] = spec.offline
            return WORLDS[head.kind].empty(name, head, config, options)
        with torch.device("meta"):
            return auto_class(config).from_config(
                config, dtype=torch.float32, trust_remote_code=spec.trust_remote_code
            )
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0][:300]
        raise UserError(
            f"cannot read the configuration of '{name}': {first}",
            cure="check the name and the network, or name a local folder or builtin:nano",
        ) from error
