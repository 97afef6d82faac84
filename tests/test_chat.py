"""Talking to models: one template for training and asking, nothing cut without a word."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from luthier import cli
from luthier.chat import Chat
from luthier.core.errors import UserError
from luthier.core.records import Turn
from luthier.generation.sampling import Sampling
from luthier.models.language_model import CausalModel
from luthier.models.load import load

QUESTION = "What is 2 plus 3?"
SHORT = Sampling(max_new_tokens=12)


@pytest.fixture
def chat(tiny_run: Path) -> Chat:
    return Chat.open(str(tiny_run))


def test_an_answer_is_what_plain_transformers_answers(tiny_run: Path, chat: Chat) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_run / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_run / "model")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt"
    )
    rows = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    new = rows[0, prompt["input_ids"].shape[1] :]
    expected = tokenizer.decode(new, skip_special_tokens=True)
    assert chat.answer(QUESTION, max_new_tokens=12) == expected.strip()
    assert expected.strip()


def test_the_streamed_answer_is_the_answer(chat: Chat) -> None:
    streamed = "".join(chat.stream([Turn("user", QUESTION)], SHORT))
    assert streamed.strip() == chat.answer(QUESTION, max_new_tokens=12)


def test_many_prompts_are_answered_as_each_alone(chat: Chat) -> None:
    prompts = [QUESTION, "What is 7 plus 1? " * 3, "What?"]
    assert chat.answers(prompts, SHORT) == [chat.answers([p], SHORT)[0] for p in prompts]


def test_a_completion_has_no_template(tiny_run: Path, chat: Chat) -> None:
    loaded = load(str(tiny_run))
    assert isinstance(loaded.model, CausalModel)
    tokens = loaded.tokenizer("What is", add_special_tokens=False, return_tensors="pt")
    with loaded.model.generating() as module:
        rows = module.generate(**tokens, max_new_tokens=8, do_sample=False)
    new = rows[0, tokens["input_ids"].shape[1] :]
    expected = loaded.tokenizer.decode(new, skip_special_tokens=True)
    assert chat.complete("What is", max_new_tokens=8) == expected
    streamed = "".join(chat.stream_completion("What is", Sampling(max_new_tokens=8)))
    assert streamed == expected
    assert chat.complete("", max_new_tokens=3) is not None


class Overheard:
    """Stands in for the sampler, says nothing and keeps the prompts, as text."""

    def __init__(self, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[str] = []
        self._chat = chat
        monkeypatch.setattr(chat, "_sampler", self)

    def text(self, prompts: Sequence[Sequence[int]], _sampling: Sampling) -> list[str]:
        self.prompts += [self._chat._codec.decode(p, special=True) for p in prompts]
        return [""] * len(prompts)

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[str]:
        return iter(self.text([prompt], sampling))


def test_a_system_turn_changes_the_prompt(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Overheard(chat, monkeypatch)
    chat.answer("hi")
    chat.answer("hi", system="Be brief.")
    assert heard.prompts == [
        "<|user|>hi<|end|><|assistant|>",
        "<|system|>Be brief.<|end|><|user|>hi<|end|><|assistant|>",
    ]


def test_the_base_of_an_adapter_is_the_model_before(tiny_run: Path, tiny_lora_run: Path) -> None:
    base, before = Chat.open(str(tiny_lora_run), base=True), Chat.open(str(tiny_run))
    tuned = Chat.open(str(tiny_lora_run))
    prompts = [f"What is {n} plus {n}?" for n in range(6)]
    assert base.answers(prompts, SHORT) == before.answers(prompts, SHORT)
    assert tuned.answers(prompts, SHORT) != before.answers(prompts, SHORT)


def test_a_run_from_scratch_has_no_base(tiny_run: Path) -> None:
    with pytest.raises(UserError, match="began from scratch"):
        Chat.open(str(tiny_run), base=True)


def test_what_is_no_run_has_no_base(tiny_run: Path) -> None:
    with pytest.raises(UserError, match="neither a run nor an adapter"):
        Chat.open(str(tiny_run / "model"), base=True)


def test_a_runs_own_end_tokens_end_answers(tiny_run: Path, tmp_path: Path, chat: Chat) -> None:
    whole = chat.answer(QUESTION, max_new_tokens=12)
    [first, second, *_] = load(str(tiny_run)).tokenizer(whole).input_ids
    model = tmp_path / "model"
    shutil.copytree(tiny_run / "model", model)
    note = json.loads((model / "luthier.json").read_text())
    (model / "luthier.json").write_text(json.dumps({**note, "end_tokens": [second]}))
    ended = Chat.open(str(model)).answer(QUESTION, max_new_tokens=12)
    assert ended == load(str(tiny_run)).tokenizer.decode([first]).strip()
    assert ended != whole


def test_a_conversation_that_outgrew_the_context_loses_its_oldest_turns(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Overheard(chat, monkeypatch)
    old = [Turn("user", "an old question " * 4), Turn("assistant", "an old answer")]
    turns = [Turn("system", "Be brief."), *old, *old, Turn("user", "now?")]
    list(chat.stream(turns, Sampling(max_new_tokens=40)))
    [text] = heard.prompts
    assert text.startswith("<|system|>Be brief.<|end|><|user|>")
    assert text.endswith("<|user|>now?<|end|><|assistant|>")
    assert text.count("an old answer") < 2
    assert any("oldest" in line for line in chat.notices)


def test_a_prompt_that_is_cut_is_said(chat: Chat) -> None:
    chat.answer("word " * 200, max_new_tokens=8)
    assert any("lost its first" in line for line in chat.notices)


def test_a_long_answer_does_not_eat_the_prompt(chat: Chat) -> None:
    """The context is 128: an answer of 500 tokens is shortened, and the prompt stays whole."""
    assert chat.answer(QUESTION, max_new_tokens=500)
    assert any("an answer ends after" in line for line in chat.notices)
    assert not any("lost" in line for line in chat.notices)


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_chat_in_a_pipe(
    tiny_lora_run: Path,
    chat: Chat,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    piped(monkeypatch, f"{QUESTION}\n\n/reset\n{QUESTION}\n/quit\nnever asked\n")
    words = ["chat", str(tiny_lora_run), "--base", "--max-new-tokens", "12"]
    assert cli.run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6].strip() for line in lines] == ["tuned", "base", "tuned", "base"]
    assert lines[1] == f"base   {chat.answer(QUESTION, max_new_tokens=12)}"
    assert lines[:2] == lines[2:]


def test_chat_remembers_what_was_said(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[Turn]] = []
    real = Chat.stream

    def stream(self: Chat, turns: list[Turn], sampling: Sampling) -> object:
        seen.append(list(turns))
        return real(self, turns, sampling)

    monkeypatch.setattr(Chat, "stream", stream)
    piped(monkeypatch, "one\ntwo\n")
    assert cli.run(["chat", str(tiny_run), "--system", "Be kind.", "--max-new-tokens", "5"]) == 0
    assert [turn.role for turn in seen[1]] == ["system", "user", "assistant", "user"]
    assert seen[1][2].content in capsys.readouterr().out


def test_generate_answers_each_line(
    tiny_run: Path,
    chat: Chat,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    piped(monkeypatch, f"{QUESTION}\n\nWhat is 1 plus 1?\n")
    assert cli.run(["generate", str(tiny_run), "--max-new-tokens", "12"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == chat.answers([QUESTION, "What is 1 plus 1?"], SHORT)
    piped(monkeypatch, "\n")
    assert cli.run(["generate", str(tiny_run)]) == 2
    assert "no prompt given" in capsys.readouterr().err


def test_generate_raw_and_settings_without_effect(
    tiny_run: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", str(tiny_run), "-p", "What is", "--raw", "--max-new-tokens", "8"]
    assert cli.run([*words, "--top-p", "0.5"]) == 0
    found = capsys.readouterr()
    assert found.out == chat.complete("What is", max_new_tokens=8) + "\n"
    assert "--top-p without effect" in found.err


def test_draws_repeat_with_their_seed(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        words = ["generate", str(tiny_run), "-p", QUESTION, "--temperature", "2", "--seed", seed]
        words += ["--max-new-tokens", "16"]
        assert cli.run(words) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_a_run_answers(tiny_run: Path, chat: Chat) -> None:
    from luthier.core.rundir import open_run
    from luthier.run import Run

    run = Run(open_run(tiny_run))
    assert run.generate(QUESTION, max_new_tokens=12) == chat.answer(QUESTION, max_new_tokens=12)
