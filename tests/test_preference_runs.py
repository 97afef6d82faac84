"""Whole runs that learn from preferences: trained, measured, reported, asked."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import builders
import classifiers
import pytest
import torch

import luthier
from luthier.cli import run as command
from luthier.core import kinds
from luthier.core.errors import RecipeError
from luthier.core.records import Turn
from luthier.core.rundir import read_lines
from luthier.retaining import unmeasurable
from luthier.score import Scorer

KIND, RUDE = "thank you, it is on its way", "no idea"


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small language model with its tokenizer."""
    folder = tmp_path_factory.mktemp("speaker")
    tokenizer = builders.tokenizer()
    builders.talking(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def rows(count: int = 24) -> list[dict[str, Any]]:
    """The kind answer is preferred, whichever of them is longer."""
    made = []
    for number in range(count):
        longer = ", and have a good day" * (number % 3)
        made.append(
            {
                "prompt": f"where is order {number}?",
                "chosen": KIND + (longer if number % 2 else ""),
                "rejected": RUDE + ("" if number % 2 else longer * 2),
            }
        )
    return made


def recipe(model: str, folder: Path, objective: Any, **changes: Any) -> dict[str, Any]:
    return {
        "model": model,
        "objective": objective,
        "method": "full",
        "data": {"train": rows(), "validation": rows(8), "check": "off"},
        "training": {
            "max_steps": 20,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "precision": "float32",
            "threads": 1,
            "log_every": 1,
            "trackers": [],
        },
        "evaluation": {
            "resamples": 200,
            "samples": 2,
            "generate_rows": 2,
            "max_new_tokens": 6,
        },
        "output": str(folder),
        **changes,
    }


def train(*args: Any, **changes: Any) -> luthier.Run:
    return luthier.train(recipe(*args, **changes), quiet=True)


def steps(run: luthier.Run) -> list[dict[str, Any]]:
    return [event for event in run.events if event["kind"] == "step"]


def test_a_reward_model_learns_is_measured_and_scores(speaker: str, tmp_path: Path) -> None:
    run = train(speaker, tmp_path / "run", "reward")
    figures = run.metrics
    assert figures["preference_accuracy"]["after"] == 1.0
    assert figures["preference_accuracy"]["interval"]
    assert figures["preference_margin"]["after"] > 1
    assert figures["preference_log_loss"]["after"] < math.log(2)
    assert set(figures) >= {"preference_calibration_error", "length_correlation"}
    watched = steps(run)[-1]["watched"]
    assert watched["reward_accuracy"] == 1.0
    assert set(steps(run)[-1]["terms"]) == {"preference"}
    assert steps(run)[-1]["loss"] == pytest.approx(steps(run)[-1]["terms"]["preference"])
    page = run.folder.report.read_text(encoding="utf-8")
    assert "Preference accuracy" in page
    assert "Watched, and not learned from" in page
    lines = list(read_lines(run.folder.scores))
    assert all(len(line["scores"]) == 2 for line in lines)
    samples = list(read_lines(run.folder.samples))
    assert samples[0]["after"].startswith(KIND)

    scorer = luthier.open(str(run.path))
    assert isinstance(scorer, Scorer)
    asked = [row["prompt"] for row in rows(3) for _ in range(2)]
    said = [row[side] for row in rows(3) for side in ("chosen", "rejected")]
    found = scorer.scores(asked, said)
    assert all(better > worse for better, worse in zip(found[::2], found[1::2], strict=True))
    alone = [scorer.scores([a], [s])[0] for a, s in zip(asked, said, strict=True)]
    assert found == pytest.approx(alone, abs=1e-5)
    turns = scorer.scores([[Turn("user", asked[0])]], [said[0]])
    assert turns == pytest.approx(found[:1], abs=1e-5)
    kept = {line["origin"]: line["scores"] for line in lines if line["model"] == "after"}
    first = next(scores for origin, scores in kept.items() if origin.endswith(":1"))
    assert found[:2] == pytest.approx(first, abs=1e-4)


def test_plain_transformers_give_the_same_rewards(speaker: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = train(speaker, tmp_path / "run", "reward")
    model = AutoModelForSequenceClassification.from_pretrained(run.folder.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.folder.model)
    question = [{"role": "user", "content": "where is order 3?"}]
    said = tokenizer.apply_chat_template(
        [*question, {"role": "assistant", "content": KIND}], tokenize=False
    )
    ids = tokenizer(said.rstrip(), return_tensors="pt").input_ids
    with torch.no_grad():
        expected = float(model(input_ids=ids).logits)
    [found] = Scorer.open(str(run.path)).scores(["where is order 3?"], [KIND])
    assert found == pytest.approx(expected, abs=1e-5)


def test_score_on_the_command_line(
    speaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(speaker, tmp_path / "run", "reward")
    words = ["score", str(run.path), "-p", "where is order 3?", "-a", RUDE, "-a", KIND]
    assert command(words) == 0
    best, worst = capsys.readouterr().out.strip().splitlines()
    assert best.endswith(KIND)
    assert float(best.split("\t")[0]) > float(worst.split("\t")[0])
    assert command(["score", speaker, "-p", "a", "-a", "b"]) == 2
    assert "scores no answers" in capsys.readouterr().err


def test_a_prompt_too_long_for_a_scorer_loses_its_beginning(speaker: str, tmp_path: Path) -> None:
    run = train(speaker, tmp_path / "run", "reward", training={"max_steps": 1, "threads": 1})
    scorer = Scorer.open(str(run.path))
    [cut] = scorer.scores(["where is it? " * 200], ["here"])
    assert math.isfinite(cut)
    assert "lost its first" in scorer.notices[-1]


def test_a_reward_model_on_an_encoder(tmp_path: Path) -> None:
    model = classifiers.saved(tmp_path / "model", max_position_embeddings=128)
    run = train(str(model), tmp_path / "run", {"kind": "reward", "pooling": "mean"})
    assert run.metrics["preference_accuracy"]["after"] == 1.0
    scorer = Scorer.open(str(run.path))
    better, worse = scorer.scores(["where is order 2?"] * 2, [KIND, RUDE])
    assert better > worse


def test_the_head_alone_learns_on_a_frozen_trunk(speaker: str, tmp_path: Path) -> None:
    run = train(speaker, tmp_path / "run", "reward", method="head")
    losses = [event["terms"]["preference"] for event in steps(run)]
    assert losses[-1] < losses[0]
    with pytest.raises(RecipeError, match="compares answers of one prompt"):
        train(speaker, tmp_path / "two", "reward", method={"kind": "head", "solver": "lbfgs"})


@pytest.mark.parametrize("kind", ["dpo", "orpo", "simpo", "cpo"])
def test_a_policy_learns_which_answer_is_preferred(kind: str, speaker: str, tmp_path: Path) -> None:
    settings = {"kind": kind, "sft": 0.1} if kind == "cpo" else {"kind": kind}
    run = train(speaker, tmp_path / "run", settings)
    figures = run.metrics["preference_margin"]
    assert figures["after"] > figures["before"]
    assert figures["p_value"] < 0.1
    samples = list(read_lines(run.folder.samples))
    assert samples[0]["reference"].startswith(KIND), "the preferred answer is the reference"
    if kind == "dpo":
        assert figures["before"] == pytest.approx(0, abs=1e-5)
        assert run.metrics["preference_accuracy"]["before"] == pytest.approx(0.5, abs=0.5)
        assert steps(run)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_dpo_continues_an_adapter_from_that_adapter(speaker: str, tmp_path: Path) -> None:
    """At its start the adapter is the reference, not the base below it."""
    talks = [{"prompt": row["prompt"], "response": row["rejected"]} for row in rows()]
    learned = train(
        speaker,
        tmp_path / "sft",
        "sft",
        method={"kind": "lora", "rank": 4},
        data={"train": talks, "check": "off"},
    )
    adapter = {"kind": "lora", "rank": 4}
    plain = train(str(learned.path), tmp_path / "plain", "dpo", method=adapter)
    assert steps(plain)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert plain.metrics["preference_margin"]["before"] == pytest.approx(0, abs=1e-5)
    # Dropout on the adapter's input is off where the reference is asked, and on in the step: the
    # two would agree, and the loss be ln 2, if it were on, or off, in both.
    dropping = train(
        str(learned.path), tmp_path / "dropping", "dpo", method={**adapter, "dropout": 0.3}
    )
    assert abs(steps(dropping)[0]["loss"] - math.log(2)) > 1e-6
    first, second = (
        {line["origin"]: line["scores"] for line in read_lines(run.folder.scores)
         if line["model"] == "before"}
        for run in (plain, dropping)
    )  # fmt: skip
    assert first == second


@pytest.mark.parametrize("kind", ["kto", "correctness"])
def test_thumbs(kind: str, speaker: str, tmp_path: Path) -> None:
    thumbs = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows()
        for side in ("chosen", "rejected")
    ]
    data = {"train": thumbs, "validation": thumbs[:12], "check": "off"}
    run = train(speaker, tmp_path / "run", kind, data=data)
    if kind == "kto":
        assert run.metrics["thumb_gap"]["after"] > run.metrics["thumb_gap"]["before"]
        assert steps(run)[0]["loss"] == pytest.approx(0.5, abs=1e-4)
        assert set(steps(run)[-1]["watched"]) == {"liked_reward", "disliked_reward", "kl"}
        return
    assert run.metrics["accuracy"]["after"] == 1.0
    right, wrong = Scorer.open(str(run.path)).scores(["where is order 2?"] * 2, [KIND, RUDE])
    assert 1 >= right > 0.5 > wrong >= 0


def test_a_second_run_asks_the_reference_nothing(
    speaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Whatever the temperature of the preference: what was asked for does not depend on it."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    kept = []
    for number, beta in enumerate((0.1, 0.7)):
        train(speaker, tmp_path / f"run{number}", {"kind": "dpo", "beta": beta})
        kept.append(sorted(p for p in (tmp_path / "cache" / "columns").iterdir() if p.is_dir()))
    assert len(kept[0]) == 2
    assert kept[0] == kept[1]


def test_a_stopped_run_goes_on_as_if_it_never_was(speaker: str, tmp_path: Path) -> None:
    whole = train(speaker, tmp_path / "whole", "dpo")
    shorter = recipe(speaker, tmp_path / "parts", "dpo")
    shorter["training"] = {**shorter["training"], "max_steps": 20, "save_every": 7}
    luthier.train(shorter, quiet=True)
    again = tmp_path / "parts"
    shutil.rmtree(again / "model")
    for path in sorted((again / "checkpoints").iterdir())[1:]:
        shutil.rmtree(path)
    for name in ("README.md", "report.html", "evaluation.json"):
        (again / name).unlink()
    resumed = luthier.train(shorter, resume=again, quiet=True)
    assert steps(resumed)[-1]["loss"] == steps(whole)[-1]["loss"]


def test_stopping_early_goes_by_what_is_learned(speaker: str, tmp_path: Path) -> None:
    """Lower is better of a loss, and not of an accuracy that is only watched."""
    stop = {"patience": 1, "metric": "reward_accuracy"}
    asked = recipe(speaker, tmp_path / "run", "dpo")
    asked["training"] = {**asked["training"], "early_stopping": stop}
    with pytest.raises(RecipeError, match="reward_accuracy"):
        luthier.train(asked, quiet=True)


def test_old_pairs_have_no_start_to_be_held_against() -> None:
    dpo, orpo, sft = (
        kinds.build("objectives", kinds.config("objectives", kind))
        for kind in ("dpo", "orpo", "sft")
    )
    assert "own start" in unmeasurable(dpo, dpo)
    assert unmeasurable(dpo, sft) == ""
    assert unmeasurable(orpo, orpo) == ""


def test_inspect_and_show_read_preferences(
    speaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    for kind in ("reward", "dpo", "kto"):
        source = tmp_path / "rows.jsonl"
        if kind == "kto":
            source = tmp_path / "thumbs.jsonl"
            said = [
                {"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in rows()
            ]
            source.write_text("".join(json.dumps(r) + "\n" for r in said), encoding="utf-8")
        file = tmp_path / f"{kind}.yaml"
        file.write_text(
            f"{{model: {speaker}, objective: {kind}, method: lora, data: {{train: {source}}}}}"
        )
        for words in (
            ["inspect", str(file)],
            ["data", "show", str(file)],
            ["data", "check", str(file)],
        ):
            assert command(words) in (0, 1), words
            printed = capsys.readouterr()
            assert "this is a bug" not in printed.err, printed.err
