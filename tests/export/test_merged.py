"""Merged exports: plain transformers computes what the run's own model computes, or nothing is
kept (law 5)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier import cli
from luthier.chat import Chat
from luthier.core.errors import RecipeError, UserError
from luthier.export import export
from luthier.methods import lora
from luthier.models.load import load


def quietly(_line: str) -> None:
    pass


def tokens() -> torch.Tensor:
    return torch.tensor([[3, 77, 120, 5, 200, 41, 8, 160]])


def test_a_merged_adapter_loads_with_plain_transformers(
    tiny_lora_run: Path, tiny_run: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = export(tiny_lora_run, "merged", tmp_path / "out", say=quietly)
    assert done.difference <= 1e-4
    assert done.prompts > 1
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tuned = load(str(tiny_lora_run))
    base = load(str(tiny_run))
    with torch.no_grad(), tuned.model.generating() as adapted:
        expected = adapted(input_ids=tokens()).logits
        assert torch.allclose(plain(input_ids=tokens()).logits, expected, atol=1e-5)
        with base.model.generating() as before:
            moved = (before(input_ids=tokens()).logits - expected).abs().max()
    assert moved > 1e-3, "an adapter that changes nothing proves nothing"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == tuned.tokenizer.chat_template
    assert plain.generation_config.eos_token_id == [0, 6]


def test_the_runs_own_generation_config_goes_along(tiny_lora_run: Path, tmp_path: Path) -> None:
    """A base knows nothing of the end-of-turn token that the run learned."""
    run = shutil.copytree(tiny_lora_run, tmp_path / "run")
    config = run / "model" / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": [0, 6, 9]}))
    export(run, "merged", tmp_path / "out", say=quietly)
    exported = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert exported["eos_token_id"] == [0, 6, 9]


def test_the_export_answers_as_the_run(tiny_lora_run: Path, tmp_path: Path) -> None:
    export(tiny_lora_run, "merged", tmp_path / "out", say=quietly)
    for prompt in ("What is 2 plus 3?", "What is 7 plus 7?"):
        exported, tuned = Chat.open(str(tmp_path / "out")), Chat.open(str(tiny_lora_run))
        assert exported.answer(prompt, max_new_tokens=12) == tuned.answer(prompt, max_new_tokens=12)


def test_a_full_run_is_copied_and_compared_likewise(tiny_run: Path, tmp_path: Path) -> None:
    done = export(tiny_run, "merged", tmp_path / "out", say=quietly)
    assert done.difference == 0.0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not list((tmp_path / "out").glob("*.bin")), "a pickle"


@pytest.mark.parametrize("damage", ["shifted", "not finite"])
def test_a_corrupted_merge_is_refused_and_removed(
    damage: str, tiny_lora_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = lora.Method.merge

    def corrupted(self: lora.Method, model: torch.nn.Module) -> Any:
        merged: Any = merge(self, model)
        with torch.no_grad():
            weight = merged.get_decoder().layers[0].mlp.up_proj.weight
            weight[0] += float("nan") if damage == "not finite" else 1.0
        return merged

    monkeypatch.setattr(lora.Method, "merge", corrupted)
    with pytest.raises(UserError, match="refused: on") as caught:
        export(tiny_lora_run, "merged", tmp_path / "out", say=quietly)
    assert caught.value.faults[0].code == "export-differs"
    assert list(tmp_path.iterdir()) == []


def test_a_forgotten_merge_is_refused(
    tiny_lora_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base without its adapter is close to the run, and still not the run."""
    monkeypatch.setattr(lora.Method, "merge", lambda _self, model: model.unload())
    with pytest.raises(UserError, match="refused: on"):
        export(tiny_lora_run, "merged", tmp_path / "out", say=quietly)


def test_somebodys_files_are_left_alone(tiny_lora_run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is not empty"):
        export(tiny_lora_run, "merged", tmp_path / "out", say=quietly)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_an_unfinished_run_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    for name in ("recipe.yaml", "environment.json"):
        (tmp_path / name).write_text((tiny_run / name).read_text())
    with pytest.raises(UserError, match="is not finished"):
        export(tmp_path, "merged", say=quietly)


def test_the_command_prints_the_difference(
    tiny_lora_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(tiny_lora_run), "--to", "merged", "--output", str(tmp_path / "out")]
    assert cli.run(words) == 0
    assert "golden prompts (1e-04 is allowed)" in " ".join(capsys.readouterr().out.split())
    assert cli.run(words) == 2


def test_an_unknown_target_lists_what_exists(
    tiny_lora_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["export", str(tiny_lora_run), "--to", "gguf"]) == 2
    assert "one of: merged" in capsys.readouterr().err
