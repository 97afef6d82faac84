"""Runs of encoder-decoders from rows to answers, and what plain transformers makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pairs
import pytest
import tiny_runs
import torch
from tiny_runs import tiny_recipe

import luthier
from luthier import cli
from luthier.chat import Chat
from luthier.core.errors import RecipeError, UserError
from luthier.export import export
from luthier.generation.sampling import Sampling
from luthier.inspection import inspect
from luthier.models.encoder_decoder import EncoderDecoderModel
from luthier.models.load import load, read_note
from luthier.show import show

WORDS = ("uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho")
ENGLISH = ("one", "two", "three", "four", "five", "six", "seven", "eight")
T5: dict[str, Any] = {
    "architecture": "t5",
    "config": {
        "d_model": 48,
        "d_kv": 12,
        "num_heads": 4,
        "d_ff": 96,
        "num_layers": 2,
        "dropout_rate": 0.0,
    },
    "tokenizer": {"vocab_size": 400},
}


def rows() -> list[dict[str, str]]:
    """Numbers two by two, in two languages."""
    return [
        {"source": f"{ENGLISH[a]} and {ENGLISH[b]}", "target": f"{WORDS[a]} y {WORDS[b]}"}
        for a in range(8)
        for b in range(8)
    ]


def written(folder: Path) -> Path:
    """The same in a file."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    return file


def recipe(output: Path, **changes: Any) -> dict[str, Any]:
    made = tiny_recipe(
        output,
        model=T5,
        objective="seq2seq",
        data={"train": rows(), "template": "translate: {source}"},
        **changes,
    )
    return {**made, "evaluation": {**made["evaluation"], "prompts": ["one and one"]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> luthier.Run:
    made = recipe(tmp_path_factory.mktemp("seq2seq") / "run")
    made["training"] |= {"epochs": 75, "max_steps": 300, "evaluate_every": 150}
    made["training"] |= {"batch_size": 16}
    made["evaluation"] |= {"num_beams": 2, "generate_rows": 6}
    return luthier.train(made, quiet=True)


def test_it_learns_and_is_judged_by_what_it_writes(run: luthier.Run) -> None:
    metrics = run.metrics
    assert {"perplexity", "token_accuracy", "rouge_1", "bleu", "chrf"} <= set(metrics)
    assert metrics["perplexity"]["after"] < 0.01 * metrics["perplexity"]["before"]
    assert metrics["chrf"]["after"] > metrics["chrf"]["before"] + 50
    first = run.samples[0]
    assert first["prompt"] == "one and one"
    assert first["before"] != first["after"]
    held = run.samples[1]
    assert held["reference"].split()[1] == "y"
    assert "y" in held["after"].split()
    card = run.folder.card.read_text(encoding="utf-8")
    assert "AutoModelForSeq2SeqLM" in card
    assert "reads a source as `translate: {source}`" in card


def test_plain_transformers_loads_it_and_answers_the_same(run: luthier.Run) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = run.folder.model
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = Chat.open(str(run.path))
    for row in rows()[:3]:
        given = tokenizer(f"translate: {row['source']}", return_tensors="pt")
        for beams in (1, 3):
            out = plain.generate(**given, max_new_tokens=12, num_beams=beams)
            theirs = tokenizer.decode(out[0], skip_special_tokens=True)
            assert chat.answer(row["source"], max_new_tokens=12, num_beams=beams) == theirs.strip()
    assert plain.config.decoder_start_token_id == tokenizer.pad_token_id
    assert plain.generation_config.decoder_start_token_id == tokenizer.pad_token_id
    assert tokenizer("a b").input_ids[-1] == tokenizer.eos_token_id


def test_many_answers_and_one_stream_agree(run: luthier.Run) -> None:
    chat = Chat.open(str(run.path))
    said = [row["source"] for row in rows()[10:14]]
    together = chat.answers(said, Sampling(max_new_tokens=12))
    assert together == [chat.answer(each, max_new_tokens=12) for each in said]
    from luthier.core.records import Turn

    streamed = "".join(chat.stream([Turn("user", said[0])], Sampling(max_new_tokens=12)))
    assert streamed.strip() == together[0]
    assert not chat.notices


def test_the_command_line_translates(run: luthier.Run, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["generate", str(run.path), "--prompt", "two and two", "--max-new-tokens", "12"]
    assert cli.run([*asked, "--num-beams", "3", "--length-penalty", "0.5"]) == 0
    found = capsys.readouterr().out.strip()
    chat = Chat.open(str(run.path))
    assert found == chat.answer("two and two", max_new_tokens=12, num_beams=3, length_penalty=0.5)
    assert cli.run([*asked, "--length-penalty", "0.5"]) != 0
    assert "means nothing without --num-beams" in capsys.readouterr().err
    assert cli.run([*asked, "--num-beams", "2", "--temperature", "0.5"]) != 0
    assert "--temperature draws one" in capsys.readouterr().err


def test_a_lora_adapter_on_it_loads_with_plain_peft_and_merges(
    run: luthier.Run, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForSeq2SeqLM
    from transformers import AutoModelForSeq2SeqLM

    made = recipe(tmp_path / "lora", method={"kind": "lora", "rank": 4})
    made["model"] = str(run.folder.model)
    made["training"] |= {"max_steps": 4, "learning_rate": 1e-2}
    done = luthier.train(made, quiet=True)
    adapted = AutoPeftModelForSeq2SeqLM.from_pretrained(done.folder.model)
    ours = load(str(done.path)).model
    assert isinstance(ours, EncoderDecoderModel)
    given = {"input_ids": torch.tensor([[9, 8, 7, 0]]), "decoder_input_ids": torch.tensor([[1, 5]])}
    with torch.no_grad(), ours.generating() as module:
        wanted = module(**given).logits
        assert torch.allclose(adapted(**given).logits, wanted, atol=1e-5)
    exported = export(done.path, "merged", tmp_path / "out", say=lambda _line: None)
    assert exported.difference <= 1e-4
    with torch.no_grad():
        plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
        assert torch.allclose(plain(**given).logits, wanted, atol=1e-4)
        base = AutoModelForSeq2SeqLM.from_pretrained(run.folder.model)
        assert (base(**given).logits - wanted).abs().max() > 1e-3
    assert read_note(tmp_path / "out")["pair"]["template"] == "translate: {source}"
    assert Chat.open(str(tmp_path / "out")).answer("one and two", max_new_tokens=9) == (
        Chat.open(str(done.path)).answer("one and two", max_new_tokens=9)
    )


def test_a_pretrained_folder_of_another_kind_runs(tmp_path: Path) -> None:
    """BART: learned positions, packed by position ids; a causal model on the very same rows."""
    model = pairs.saved(tmp_path / "bart", "bart")
    made = recipe(tmp_path / "run", method="full")
    made |= {"model": str(model)}
    made["training"] |= {"max_steps": 2}
    done = luthier.train(made, quiet=True)
    assert isinstance(load(str(done.path)).model, EncoderDecoderModel)
    causal = tiny_recipe(tmp_path / "causal", objective="seq2seq", data={"train": rows()})
    causal["training"] |= {"max_steps": 2}
    assert "bleu" in luthier.train(causal, quiet=True).metrics


@pytest.mark.parametrize("method", ["qlora", "ia3", "adapter", "freeze"])
def test_other_methods_run_and_answer(run: luthier.Run, tmp_path: Path, method: str) -> None:
    made = {**recipe(tmp_path / "run", method=method), "model": str(run.folder.model)}
    made["training"] |= {"max_steps": 2}
    done = luthier.train(made, quiet=True)
    loaded = load(str(done.path)).model
    assert isinstance(loaded, EncoderDecoderModel)
    assert Chat.open(str(done.path)).answer("two and five", max_new_tokens=9)


def test_padding_is_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = pairs.saved(tmp_path / "umt5", "umt5")
    made = {**recipe(tmp_path / "run"), "model": str(model)}
    made["training"] |= {"max_steps": 1}
    luthier.train(made)
    assert (
        "'umt5' cannot be packed: rows of nearly one length are padded" in capsys.readouterr().out
    )


def test_cut_sources_are_said_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [{**row, "source": row["source"] * (1 + 5 * (n < 8))} for n, row in enumerate(rows())]
    made = recipe(tmp_path / "run")
    made["objective"] = {"kind": "seq2seq", "max_source_length": 20}
    made["data"] |= {"train": long, "validation": 0}
    made["training"] |= {"max_steps": 1}
    done = luthier.train(made)
    counts = json.loads(done.folder.environment.read_text(encoding="utf-8"))["data"]["train"]
    assert counts["cut"]["examples"] == 8
    assert counts["cut"]["targets"] == 0
    assert (
        f"{counts['cut']['tokens']:,} tokens cut away (0 learned ones)" in capsys.readouterr().out
    )


def test_what_makes_no_sense_is_refused_before_any_step(tmp_path: Path) -> None:
    model = str(pairs.saved(tmp_path / "t5"))
    talk = {"train": tiny_runs.sums()}
    with pytest.raises(RecipeError, match="learns with a decoder alone"):
        luthier.train({**tiny_recipe(tmp_path / "a", data=talk), "model": model}, quiet=True)
    with pytest.raises(RecipeError, match="trains a fresh head"):
        luthier.train({**recipe(tmp_path / "b"), "method": "head"}, quiet=True)
    with pytest.raises(RecipeError, match="puts its tokens before what a decoder reads"):
        luthier.train({**recipe(tmp_path / "p"), "method": "prompt_tuning"}, quiet=True)
    idle = recipe(tmp_path / "c")
    idle["data"] |= {"system": "merge"}
    with pytest.raises(RecipeError, match=r"data\.system has no meaning for an encoder-decoder"):
        luthier.train(idle, quiet=True)
    spoken = recipe(tmp_path / "d")
    spoken["objective"] = {"kind": "seq2seq", "target_language": "es_XX"}
    with pytest.raises(RecipeError, match="knows no languages"):
        luthier.train(spoken, quiet=True)
    with pytest.raises(RecipeError, match="no effect without beams"):
        luthier.train({**recipe(tmp_path / "e"), "evaluation": {"length_penalty": 2.0}}, quiet=True)
    with pytest.raises(UserError, match="no place for a system turn"):
        Chat.open(model).answer("a", system="be brief")


def test_inspect_and_show_know_the_two_streams(tmp_path: Path) -> None:
    from luthier.core.recipe import load as read

    [found] = inspect(read(recipe(tmp_path / "run")))
    assert found.total > 10_000
    assert found.train.cost(found.policy, 64) == "nothing is too long"
    shown = show(read(recipe(tmp_path / "run")))
    [[source, target]] = shown.pieces
    assert (source.stream, target.stream) == ("source", "main")
    assert source.learned == 0
    assert target.learned > 0


def test_a_pull_towards_the_start_cuts_sources_as_well(run: luthier.Run, tmp_path: Path) -> None:
    """What wraps an objective keeps what it says of its sources; the start reads both streams."""
    made = recipe(tmp_path / "run")
    made["model"] = str(run.folder.model)
    made["objective"] = {"kind": "seq2seq", "max_source_length": 11}
    made["training"] |= {"max_steps": 2, "log_every": 1}
    made["retain"] = {"rows": str(written(tmp_path)), "kl": 0.5}
    done = luthier.train(made, quiet=True)
    counts = json.loads(done.folder.environment.read_text(encoding="utf-8"))["data"]["train"]
    assert counts["cut"]["examples"] > 0
    first = next(event for event in done.events if event["kind"] == "step")
    assert abs(first["terms"]["kl"]) < 1e-4, "at step 0 the model is where it began"


def test_killed_and_resumed_is_never_killed(tmp_path: Path) -> None:
    """Law 4, with dropout: both streams draw from one state."""
    made = recipe(tmp_path / "run")
    made["data"] |= {"train": str(written(tmp_path))}
    made["model"] = {**T5, "config": {**T5["config"], "dropout_rate": 0.1}}
    made["training"] |= {"max_steps": 6, "save_every": 3, "evaluate_every": 3}
    made["evaluation"] = {"samples": 0, "generate_rows": 0, "resamples": 100}
    run = luthier.train(made, quiet=True)
    weights = run.folder.model / "model.safetensors"
    whole = weights.read_bytes()
    shutil.rmtree(run.folder.checkpoint(6))
    shutil.rmtree(run.folder.model)
    run.folder.card.unlink()
    luthier.train(resume=run.path, quiet=True)
    assert weights.read_bytes() == whole
