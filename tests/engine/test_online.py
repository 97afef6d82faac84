"""Learning from samples: a step is a rollout with its updates, resumed as if never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from builders import gap
from safetensors.torch import load_file

import luthier
from engine.online_runs import GRPO, online_recipe
from engine.small import fingerprint, fitted, loss_lines
from luthier.core import kinds
from luthier.core.contracts import OnlineObjective
from luthier.core.errors import TrainingError, UserError
from luthier.core.rundir import RunDir, read_lines
from luthier.engine import online
from luthier.engine.online import OnlineLoop

TESTS = Path(__file__).resolve().parent.parent
CLOCKS = ("samples_per_second",)
#: Every objective of the folder that samples.
ONLINE = [
    kind
    for kind in kinds.names("objectives")
    if hasattr(kinds.module("objectives", kind).Objective, "collect")
]


def steps(folder: Path) -> list[dict[str, Any]]:
    return [e for e in read_lines(RunDir(folder).events) if e["kind"] == "step"]


def lines(folder: Path) -> list[Any]:
    return [{k: v for k, v in e.items() if k not in CLOCKS} for e in loss_lines(folder)]


def acting_at(
    step: int, action: Callable[[], Any], patch: pytest.MonkeyPatch, *, within: bool = False
) -> None:
    """At the end of a step, or in it: after its rollout and its first update."""
    name = "_update" if within else "_step"
    plain = getattr(OnlineLoop, name)

    def acting(self: OnlineLoop, *args: Any) -> Any:
        found = plain(self, *args)
        if self.state.step == step:
            action()
        return found

    patch.setattr(OnlineLoop, name, acting)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_there_are_objectives_that_sample() -> None:
    assert {"grpo", "ppo", "rloo", "reinforce", "online_dpo", "best_of_n"} <= set(ONLINE)


@pytest.mark.parametrize("kind", ONLINE)
def test_a_whole_run(kind: str, tmp_path: Path) -> None:
    run = luthier.train(online_recipe(tmp_path / "run", kind, max_steps=2), quiet=True)
    assert run.finished
    [first, second] = steps(run.path)
    for event in (first, second):
        figures = event["rollout"]
        assert 0 <= figures["reward"] == pytest.approx(figures["reward_function"], abs=1e-6)
        assert {"length", "unfinished", "duplicate", "length_reward", "spread"} <= set(figures)
        assert event["samples_per_second"] > 0
        assert event["terms"]
    reward = run.metrics["reward"]
    assert 0 <= reward["before"] <= 1
    assert 0 <= reward["after"] <= 1
    assert run.samples[0]["after"] is not None
    shown = [e for e in run.events if e["kind"] == "samples"]
    assert len(shown) == 2
    assert shown[0]["samples"][0]["prompt"].startswith("tell me of number")
    page = run.folder.report.read_text(encoding="utf-8")
    assert "Reward" in page
    assert shown[-1]["samples"][0]["origin"] in page
    [saved] = run.folder.model.glob("*.safetensors")
    assert not any("value" in name for name in load_file(saved) if "proj" not in name)


@pytest.mark.parametrize("method", ["full", {"kind": "lora", "rank": 4}], ids=["full", "lora"])
def test_a_value_trunk_of_its_own_is_trained_and_not_saved(method: Any, tmp_path: Path) -> None:
    ppo = {"kind": "ppo", "value_trunk": "own", "value_weight": 1.0}
    recipe = {**online_recipe(tmp_path, ppo, max_steps=3), "method": method}
    moved: dict[str, float] = {}
    starts: dict[str, torch.Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:

        def look(self: OnlineLoop) -> None:
            for name, parameter in self.parameters.items():
                if "value_trunk" in name:
                    gone = parameter.detach() - starts.setdefault(name, parameter.detach().clone())
                    moved[name] = float(gone.abs().max())

        plain = OnlineLoop._step

        def stepping(self: OnlineLoop) -> None:
            look(self)
            plain(self)
            look(self)

        patch.setattr(OnlineLoop, "_step", stepping)
        fitted(recipe)
    assert moved
    assert max(moved.values()) > 0
    [saved] = RunDir(tmp_path).model.glob("*.safetensors")
    assert not any("value_trunk" in name for name in load_file(saved))


@pytest.mark.parametrize("kind", ["grpo", "ppo", "rloo", "reinforce", "best_of_n", "online_dpo"])
def test_rewards_rise(kind: str, tmp_path: Path) -> None:
    more = {"answers": 8} if kind != "online_dpo" else {"answers": 8, "beta": 0.5}
    recipe = online_recipe(tmp_path, {"kind": kind, **more}, max_steps=14, batch_size=6)
    recipe["data"]["validation"] = 0
    assert fitted(recipe).status == "finished"
    rewards = [event["rollout"]["reward"] for event in steps(tmp_path)]
    assert sum(rewards[-3:]) > 1.5 * sum(rewards[:3])


# Law 4


@pytest.mark.parametrize("objective", [GRPO, "ppo", "reinforce"], ids=str)
def test_law_4_stopped_and_resumed_is_never_stopped(objective: Any, tmp_path: Path) -> None:
    whole, again = (online_recipe(tmp_path / name, objective) for name in ("whole", "again"))
    assert fitted(whole).status == "finished"
    for number, step in enumerate((1, 4)):
        with pytest.MonkeyPatch.context() as patch:
            acting_at(step, terminate, patch)
            assert fitted(again, resumed=number > 0).status == "stopped"
        torch.manual_seed(number)  # whatever was drawn in between
    assert fitted(again, resumed=True).status == "finished"
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "whole")
    assert lines(tmp_path / "again") == lines(tmp_path / "whole")


def test_law_4_killed_in_the_middle_of_a_rollouts_updates(tmp_path: Path) -> None:
    """SIGKILL to a real process in step 5, after its first update: back to step 3's checkpoint."""
    script = (
        "import os, signal, sys, time, pytest\n"
        "from pathlib import Path\n"
        "from engine.online_runs import online_recipe\n"
        "from engine.small import fitted\n"
        "from engine.test_online import acting_at\n"
        "from luthier.core.rundir import RunDir\n"
        "def kill():\n"
        "    while not RunDir(Path(sys.argv[1])).saved():\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "with pytest.MonkeyPatch.context() as patch:\n"
        "    acting_at(4, kill, patch, within=True)\n"
        "    fitted(online_recipe(Path(sys.argv[1])))\n"
    )
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "again")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert [step for step, _ in RunDir(tmp_path / "again").saved()] == [3]
    assert fitted(online_recipe(tmp_path / "again"), resumed=True).status == "finished"
    assert fitted(online_recipe(tmp_path / "whole")).status == "finished"
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "whole")
    assert lines(tmp_path / "again") == lines(tmp_path / "whole")


def test_what_an_objective_remembers_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    fitted(online_recipe(tmp_path, "reinforce", max_steps=3))
    rest = json.loads((RunDir(tmp_path).checkpoint(3) / "state.json").read_text(encoding="utf-8"))
    assert rest["state"]["memory"]["baseline"] > 0
    assert rest["state"]["updates"] == 3
    assert rest["state"]["choices"]["rollout_rows"] >= 1


# Law 3


@pytest.mark.parametrize("objective", [GRPO, "ppo", "rloo", "online_dpo"], ids=str)
def test_law_3_a_rollouts_updates_do_not_feel_the_micro_batches(
    objective: Any, tmp_path: Path
) -> None:
    found = []
    for number, budget in enumerate((100, 4000)):
        recipe = online_recipe(tmp_path / str(number), objective, max_steps=1, token_budget=budget)
        fitted(recipe, wide=True)
        [file] = (tmp_path / str(number) / "model").glob("*.safetensors")
        found.append(load_file(file))
    # Llama's norms compute in float32 whatever they are given, and AdamW magnifies small gradients.
    assert gap(found[0], found[1]) < 1e-7


def test_the_policy_is_still_while_it_learns_from_its_own_answers(tmp_path: Path) -> None:
    """The model has dropout: with it, no ratio would be 1 at the first update."""
    grpo = {"kind": "grpo", "answers": 4, "mini_batches": 2, "clip": 1e-4}
    recipe = online_recipe(tmp_path, grpo, max_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        firsts: list[dict[str, float]] = []
        plain = OnlineLoop._update

        def watched(self: OnlineLoop, *args: Any) -> Any:
            found = plain(self, *args)
            firsts.append(found[2])
            return found

        patch.setattr(OnlineLoop, "_update", watched)
        fitted(recipe)
    assert firsts[0]["clipped"] == 0
    assert firsts[1]["clipped"] > 0.1
    assert steps(tmp_path)[0]["rollout"]["mismatch"] < 1e-5


def test_that_dropout_is_off_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    luthier.train(online_recipe(tmp_path / "with", max_steps=1))
    assert "dropout is off" in capsys.readouterr().out
    recipe = online_recipe(tmp_path / "without", max_steps=1)
    recipe["model"]["config"]["attention_dropout"] = 0.0
    luthier.train(recipe)
    assert "dropout is off" not in capsys.readouterr().out


# Stops, replacements, refusals


def test_a_policy_that_runs_away_ends_the_run(tmp_path: Path) -> None:
    wild = {"kind": "grpo", "answers": 4, "kl_stop": 0.02}
    with pytest.raises(TrainingError, match="kl_stop") as caught:
        fitted(online_recipe(tmp_path, wild, learning_rate=0.05))
    assert "checkpoint" in caught.value.faults[0].cure


def test_prompts_that_teach_nothing_are_replaced(tmp_path: Path) -> None:
    recipe = online_recipe(tmp_path, {"kind": "grpo", "answers": 2, "redraws": 3}, max_steps=3)
    recipe["objective"]["rewards"] = [{"kind": "pattern", "pattern": "e"}]
    drawn: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        plain = OnlineLoop._rollout

        def watched(self: OnlineLoop, step: int) -> Any:
            found = plain(self, step)
            drawn.extend(example.targets["answer"]["reward"] for example in found)
            return found

        patch.setattr(OnlineLoop, "_rollout", watched)
        fitted(recipe)
    assert len(drawn) > 3
    assert all(rewards.max() > rewards.min() for rewards in drawn)
    assert 0 < steps(tmp_path)[0]["rollout"]["kept"] < 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"neftune_alpha": 5}}, "neftune_alpha"),
        ({"training": {"compile": True}}, "compile"),
        ({"training": {"token_budget": 20}}, "tokens"),
        ({"training": {"early_stopping": {"metric": "policy"}}}, "policy"),
        ({"objective": {"kind": "grpo", "rewards": "exact", "max_new_tokens": 4}}, "right answer"),
        ({"objective": {"kind": "grpo", "rewards": "repetition", "max_new_tokens": 300}}, "prompt"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_makes_no_sense_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    recipe = online_recipe(tmp_path / "run", max_steps=1)
    for part, values in change.items():
        recipe[part] = values if part == "objective" else {**recipe[part], **values}
    with pytest.raises(UserError, match=said):
        fitted(recipe)


def test_a_reward_that_is_no_number_is_named(tmp_path: Path) -> None:
    recipe = online_recipe(tmp_path, max_steps=1)
    recipe["objective"]["rewards"] = [
        {"kind": "function", "function": "engine.test_online:nothing"}
    ]
    with pytest.raises(UserError, match="finite number"):
        fitted(recipe)


def nothing(prompt: str, answer: str, check: Any) -> float:
    return float("nan")


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    found = []
    for name, way in (("with", True), ("without", False)):
        recipe = online_recipe(tmp_path / name, max_steps=2, gradient_checkpointing=way)
        fitted(recipe)
        found.append(load_file(next((tmp_path / name / "model").glob("*.safetensors"))))
    assert gap(found[0], found[1]) < 1e-6


def test_an_online_objective_is_one_by_its_protocol() -> None:
    for kind in ONLINE:
        config = kinds.config("objectives", builders.settings("objectives", kind))
        assert isinstance(kinds.build("objectives", config), OnlineObjective)
    assert online.RecentRollouts().state()["rolled"] == [[], 0.0, 0]
