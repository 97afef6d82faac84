"""Tokenizers built in code, and chat templates that imitate the families in the field."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

#: Untyped in transformers.
Fast: Any = PreTrainedTokenizerFast

CORPUS = [
    "Once upon a time there was a little girl who loved to read books in the garden.",
    "Hello! How are you today? I am fine, thank you. What is the capital of France? Paris.",
    "The quick brown fox jumps over the lazy dog. 0123456789 + - * / = ( ) [ ] { } < > | # : ; '",
    "user assistant system tool ### User: Assistant: System: [INST] [/INST] <<SYS>> Q: A: think",
    'abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ _ ! ? , . " $ % & @ ~ ^ `',
] * 4

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
)

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% endfor %}"
)

#: Leaves the thinking of turns before the last question out, as Qwen3 does.
QWEN3 = (
    "{% set ns = namespace(last=0) %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' and loop.index0 < ns.last and "
    "'</think>' in message['content'] %}"
    "{% set content = message['content'].split('</think>')[-1].lstrip('\\n') %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

QWEN3_MARKED = QWEN3.replace(
    "{{ '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}",
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ content + '<|im_end|>' }}{% endif %}{{ '\\n' }}",
)

#: Shows tools before the conversation, and calls after a turn's text, as Qwen2.5 does.
CALLING = (
    "{% if tools %}{{ '<|im_start|>system\\nTools:\\n' }}{% for tool in tools %}"
    "{{ tool | tojson + '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ '\\n<call>' + call.function.name + ' ' + "
    "call.function.arguments | tojson + '</call>' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

#: Writes no special token at all.
PLAIN = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

_BYTE_LEVEL = {
    "chatml": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "llama3": (
        "<|end_of_text|>",
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    "gemma": ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
}


@cache
def _byte_level(family: str) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(_BYTE_LEVEL[family]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    if family != "chatml":
        _add_bos(backend, _BYTE_LEVEL[family][1])
    return backend


def _add_bos(backend: Tokenizer, bos: str) -> None:
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos}:0 $A:0",
        pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
        special_tokens=[(bos, backend.token_to_id(bos))],
    )


@cache
def _legacy() -> Tokenizer:
    """As Llama 2: a space before every run of text, bytes for what is unknown."""
    base = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = _prepending()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=base, show_progress=False)
    trained.train_from_iterator(CORPUS, trainer)
    held = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in held["merges"]]
    backend = Tokenizer(
        models.BPE(held["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = _prepending()
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    _add_bos(backend, "<s>")
    return backend


def _prepending() -> Any:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


@cache
def _metaspace(scheme: str) -> Tokenizer:
    """Unigram over Metaspace; its own vocabulary holds the special tokens, as T5's does."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        initial_alphabet=["\n", "▁"],
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    _add_bos(backend, "<s>")
    return backend


def tokenizer(family: str, template: str | None = None) -> Any:
    """A fresh tokenizer: ``chatml``, ``llama3``, ``gemma`` (byte-level), ``legacy``,
    ``metaspace-always``, ``metaspace-first``; pad is eos."""
    if family in _BYTE_LEVEL:
        words = _BYTE_LEVEL[family]
        names = {"eos_token": words[0], "pad_token": words[0]}
        if family != "chatml":
            names["bos_token"] = words[1]
        made = Fast(tokenizer_object=_byte_level(family), **names)
    else:
        kind, _, scheme = family.partition("-")
        backend = _legacy() if kind == "legacy" else _metaspace(scheme)
        made = Fast(
            tokenizer_object=backend,
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
            pad_token="</s>",
        )
    made.chat_template = template
    return made
