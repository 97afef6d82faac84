"""Tokenizers of the families that encoders have, and tiny taggers and masked language models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import builders
import classifiers
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from luthier.core.records import Origin, Tagged
from luthier.data.template import TokenizerCodec
from luthier.models.masked_lm import MaskedModel
from luthier.models.several import SeveralHeads
from luthier.models.token_heads import TaggerModel, head_modules
from luthier.models.worlds import WORLDS

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
#: Words of every awkward kind: several tokens, accents, apart from a space, none at all.
WORDS = ("Zoë", "crossed", "the", "río", "Grande", "🙂", "twice", ",", "didn't", "she", "?")
ENTITIES = ("B-PER", "O", "O", "B-LOC", "I-LOC", "O", "O", "O", "O", "O", "O")
_SENTENCES = (*builders.SENTENCES, "Zoë crossed the río Grande twice, didn't she?")


@cache
def _wordpiece() -> Any:
    normal, cut = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = [
        word
        for sentence in _SENTENCES
        for word, _ in cut.pre_tokenize_str(normal.normalize_str(sentence))
    ]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *_pieces(words)][:150]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normal, cut
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(special)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def _pieces(words: Sequence[str]) -> list[str]:
    """Characters, then parts of words, the frequent first; the trainer would go by chance."""
    found = Counter(
        ("##" if begin else "") + word[begin:end]
        for word in words
        for begin in range(len(word))
        for end in range(begin + 1, len(word) + 1)
    )
    characters = {mark + c for word in words for c in word for mark in ("", "##")}
    parts = sorted(found.keys() - characters, key=lambda part: (-found[part], part))
    return [*sorted(characters), *parts]


@cache
def _byte_level() -> Any:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(_SENTENCES * 3, trainer)
    made.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return made


@cache
def _unigram() -> Any:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u200b", "")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(
        _SENTENCES * 3,
        UnigramTrainer(
            vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return made


_BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ROBERTA = {
    "bos": "<s>",
    "pad": "<pad>",
    "eos": "</s>",
    "unk": "<unk>",
    "cls": "<s>",
    "sep": "</s>",
    "mask": "<mask>",
}
FAMILIES = {
    "wordpiece": (_wordpiece, _BERT),
    "byte_level": (_byte_level, _ROBERTA),
    "unigram": (_unigram, _ROBERTA),
}


def tokenizer(family: str = "wordpiece") -> Any:
    """A fast tokenizer of a family; each caller gets its own."""
    from transformers import PreTrainedTokenizerFast

    made, special = FAMILIES[family]
    names = ["input_ids", "attention_mask"]
    if family == "wordpiece":
        names.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(made().to_str()),
        model_input_names=names,
        **{f"{name}_token": token for name, token in special.items()},
    )


def codec(family: str = "wordpiece", max_length: int = 64) -> TokenizerCodec:
    """The codec around :func:`tokenizer`."""
    return TokenizerCodec(tokenizer(family), max_length=max_length)


def sentences(count: int = 6) -> list[Tagged]:
    """Sentences with entities, of different lengths."""
    made = []
    for number in range(count):
        keep = len(WORDS) - number % 5
        made.append(Tagged(Origin("made.conll", number + 1), WORDS[:keep], ENTITIES[:keep]))
    return made


def _config(name: str, **changes: Any) -> Any:
    size = max(len(builders.tokenizer()), *(len(tokenizer(family)) for family in FAMILIES))
    return classifiers.config(name, vocab_size=size, **{"max_position_embeddings": 130, **changes})


def tagging(name: str, dtype: torch.dtype = torch.float32, tags: tuple[str, ...] = TAGS) -> Any:
    """An architecture's own token classifier."""
    from transformers import AutoModelForTokenClassification

    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(tags)), "label2id": {t: i for i, t in enumerate(tags)}}
    module = AutoModelForTokenClassification.from_config(_config(name, **labels), dtype=dtype)
    classifiers.louder(module)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    module.head_names = head_modules(module, ())
    module.adapter_task = "TOKEN_CLS"
    return module.eval()


def tagger(name: str = "bert", dtype: torch.dtype = torch.float32) -> TaggerModel:
    """The same as objectives see it."""
    return TaggerModel(tagging(name, dtype))


def guessing(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """An architecture's own masked language model."""
    from transformers import AutoModelForMaskedLM

    torch.manual_seed(0)
    module = AutoModelForMaskedLM.from_config(_config(name), dtype=dtype)
    classifiers.louder(module)
    module.adapter_task = "FEATURE_EXTRACTION"
    return module.eval()


def masked(name: str = "bert", dtype: torch.dtype = torch.float32) -> MaskedModel:
    """The same as objectives see it."""
    return MaskedModel(guessing(name, dtype))


def several(name: str, parts: Any, dtype: torch.dtype = torch.float32) -> SeveralHeads:
    """One trunk under an architecture's own heads, as a classifier and a tagger have them."""
    made = []
    for part in parts:
        labels = part.labels or TAGS
        if part.kind == "classification":
            found = classifiers.own(name, dtype, **vocabulary(), **_names(labels))
        else:
            found = tagging(name, dtype, labels)
        made.append(found)
    full = [
        replace(WORLDS[part.kind].model(module).head, name=part.name)
        for part, module in zip(parts, made, strict=True)
    ]
    return SeveralHeads(zip(full, made, strict=True)).eval()


def vocabulary() -> dict[str, int]:
    """Rows enough for every tokenizer here."""
    sizes = (len(tokenizer(family)) for family in FAMILIES)
    return {"vocab_size": max(len(builders.tokenizer()), *sizes)}


def _names(labels: Any) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {t: i for i, t in enumerate(labels)}}


def saved(folder: Path, name: str = "bert", family: str = "wordpiece", **changes: Any) -> Path:
    """A pretrained encoder without a head, with its tokenizer, that a recipe can name."""
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(_config(name, **changes)).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return folder


def embedding(name: str = "bert", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A sentence encoder; weights large enough that everything matters."""
    from transformers import AutoModel

    from luthier.models import embedder

    config = classifiers.config(name, **changes)
    config.sentence_pooling = "mean"
    torch.manual_seed(0)
    module: Any = embedder._bare(AutoModel.from_config(config, dtype=dtype))
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
    return module
