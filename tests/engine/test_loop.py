"""The loop: law 3, parity with a plain one, values that are not finite, stops, the best kept."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import torch.nn.functional as F
from builders import gap
from torch import Tensor, nn

from engine.small import LENGTHS, Kept, fitted, loss_lines, small_loop, small_recipe, weights
from luthier.core.errors import TrainingError
from luthier.core.records import Batch, Example, Segment
from luthier.data.batching import collate
from luthier.data.order import Order
from luthier.engine.checkpoint import State
from luthier.engine.loop import every
from luthier.engine.optim import rate_factor
from luthier.engine.watch import Stop, Trend
from luthier.objectives import language_modeling

TESTS = Path(__file__).resolve().parent.parent
LONGEST = max(LENGTHS)


def wide(architecture: str = "llama") -> Any:
    return builders.tiny(architecture, torch.float64)


# Law 3


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_law_3_a_step_does_not_depend_on_how_it_is_cut(
    optimizer: str, architecture: str, tmp_path: Path
) -> None:
    found = []
    for budget in (1000, 40, LONGEST):
        kept = Kept()
        loop = small_loop(
            tmp_path,
            model=wide(architecture),
            budget=budget,
            trackers=[kept],
            optimizer=optimizer,
            learning_rate=1e-2,
            held=builders.examples([8, 19], 7),
            evaluate_every=2,
        )
        cuts = len(loop.data.cut([e.size for e in loop.data.step(0)[0]], budget))
        assert (cuts == 1) == (budget == 1000)
        loop.train()
        steps = [(e["loss"], e["grad_norm"]) for e in kept.of("step")]
        held = [e["loss"] for e in kept.of("validation")]
        found.append((weights(loop), torch.tensor(steps), torch.tensor(held)))
    for cut in found[1:]:
        assert gap(cut[0], found[0][0]) < 1e-10
        assert gap(cut[1], found[0][1]) < 1e-10
        assert gap(cut[2], found[0][2]) < 1e-10
    assert gap(found[0][0], weights(small_loop(tmp_path, model=wide(architecture)))) > 1e-3


class Known(nn.Module):
    """A model whose loss for a token is the softplus of that token's parameter."""

    def __init__(self, nats: dict[int, float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, dtype=torch.float64))
        with torch.no_grad():
            for token, loss in nats.items():
                self.weight[token] = math.log(math.expm1(loss))


class KnownModel:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def hidden(self, batch: Batch) -> Tensor:
        return self.module.weight[batch.tokens[0]]  # type: ignore[index, operator]

    def nll(self, batch: Batch, hidden: Tensor, *, smoothing: float = 0.0) -> Tensor:
        table = batch.targets["lm"]
        return (F.softplus(hidden[table["position"]]) * table["weight"]).sum()


@pytest.mark.parametrize("budget", [100, 10])
def test_micro_batches_count_by_tokens_as_the_pitfall_demands(budget: int, tmp_path: Path) -> None:
    """One token of 2.51 nats beside nine of 2.05: 2.0938 a token, not 2.2792 a micro-batch."""
    kept, made = Kept(), []
    for token, count in ((1, 1), (2, 9)):
        table = {
            "position": torch.arange(count).numpy(),
            "token": torch.full((count,), token).numpy(),
            "weight": torch.ones(count).numpy(),
        }
        tokens = torch.full((count,), token).numpy()
        made.append(Example((Segment(tokens),), {"lm": table}, builders.ORIGIN))
    module = Known({1: 2.51095, 2: 2.04745})
    loop = small_loop(
        tmp_path, model=module, train=made, budget=budget, trackers=[kept], max_steps=1,
        optimizer="sgd", clip_norm=None, warmup=0.0, schedule="constant", learning_rate=1.0,
    )  # fmt: skip
    loop.models.policy = KnownModel(module)
    before = module.weight.detach().clone()
    loop.train()
    assert kept.of("step")[0]["loss"] == pytest.approx(2.0938, abs=5e-5)
    # d softplus = 1 - exp(-loss), a tenth of it for one token, nine tenths for nine.
    moved = (before - module.weight).detach()
    assert moved[1].item() == pytest.approx((1 - math.exp(-2.51095)) / 10, abs=1e-10)
    assert moved[2].item() == pytest.approx((1 - math.exp(-2.04745)) * 9 / 10, abs=1e-10)


@pytest.mark.slow
def test_law_3_on_two_ranks(tmp_path: Path) -> None:
    """An odd number of rows, so that a rank runs empty micro-batches; LoRA with dropout too."""
    environment = {
        **os.environ,
        "LUTHIER_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "src")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(TESTS / "engine" / "two_ranks.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]

    from safetensors.torch import load_file

    from engine import two_ranks

    for name, recipe in (
        ("full", two_ranks.full_recipe),
        ("freeze", two_ranks.freeze_recipe),
        ("online", two_ranks.online_grpo),
    ):
        alone = tmp_path / "alone" / name
        fitted(recipe(alone), wide=True)
        ours = load_file(alone / "model" / "model.safetensors")
        theirs = load_file(tmp_path / name / "model" / "model.safetensors")
        assert gap(ours, theirs) < 1e-10
        for a, b in zip(loss_lines(alone), loss_lines(tmp_path / name), strict=True):
            assert a["kind"] == b["kind"]
            assert a.get("loss", 0.0) == pytest.approx(b.get("loss", 0.0), abs=1e-10)
    assert list((tmp_path / "cache" / "trunks").glob("*/states.npy"))
    said = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    assert said["ranks"] == 2
    assert said["empty"] > 0, "no rank ever ran an empty micro-batch"
    assert said["resumed"] == said["whole"], "law 4 on two ranks, with dropout"
    assert said["stopped"] == ["stopped", "stopped"], "one rank heard the signal, both stopped"


# Parity


def test_a_whole_training_equals_a_plain_one(tmp_path: Path) -> None:
    """Plain transformers, torch's AdamW and clipping, an example at a time, no Luthier code."""
    settings: dict[str, Any] = {
        "learning_rate": 3e-3, "weight_decay": 0.1, "clip_norm": 0.5, "warmup": 2,
        "max_steps": 8, "batch_size": 3, "schedule": "linear",
    }  # fmt: skip
    kept = Kept()
    loop = small_loop(tmp_path, trackers=[kept], budget=30, **settings)
    loop.train()
    ours = kept.of("step")

    model = builders.tiny("llama")
    model.set_attn_implementation("sdpa")
    decaying = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=3e-3,
        betas=(0.9, 0.95),
    )
    made, order = builders.examples(LENGTHS), Order(len(LENGTHS), 3, 0)
    for step in range(8):
        rows = [torch.from_numpy(made[i].segments[0].tokens)[None] for i in order.step(step)]
        count = sum(row.shape[1] - 1 for row in rows)
        total = 0.0
        for row in rows:
            loss = model(input_ids=row, labels=row).loss * (row.shape[1] - 1) / count
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rate_factor(loop.spec, step, 8)
        optimizer.step()
        optimizer.zero_grad()
        assert ours[step]["loss"] == pytest.approx(total, abs=1e-5)
        assert ours[step]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
        assert ours[step]["learning_rate"] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert gap(weights(loop), dict(model.named_parameters())) < 1e-4


def test_validation_is_the_mean_over_all_held_out_tokens(tmp_path: Path) -> None:
    held = builders.examples([8, 19, 3], 7)
    loop = small_loop(tmp_path, held=held, budget=20)
    loss, terms = loop.validation_loss()
    model = builders.tiny("llama")
    model.set_attn_implementation("sdpa")
    nats, count = 0.0, 0
    with torch.no_grad():
        for example in held:
            row = torch.from_numpy(example.segments[0].tokens)[None]
            nats += float(model(input_ids=row, labels=row).loss) * (row.shape[1] - 1)
            count += row.shape[1] - 1
    assert loss == pytest.approx(nats / count, rel=1e-5)
    assert terms == {"nll": loss}
    assert loop.models.policy.module.training


# Values that are not finite


class Poisoned(language_modeling.Objective):
    """Its loss, or its gradient alone, is not finite in the chosen forward passes."""

    def __init__(self, bad: set[int], how: str = "loss") -> None:
        super().__init__(language_modeling.Config())
        self.bad, self.how, self.calls = bad, how, 0

    def loss(self, models: Any, batch: Batch) -> dict[str, Tensor]:
        terms = super().loss(models, batch)
        if self.calls in self.bad:
            if self.how == "loss":
                terms = {n: t * math.nan for n, t in terms.items()}
            else:  # 0 * sqrt'(0) is not finite, sqrt(0) is
                terms = {n: t + (t * 0).sqrt() for n, t in terms.items()}
        self.calls += 1
        return terms


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_step_that_is_not_finite_updates_nothing_and_is_counted(how: str, tmp_path: Path) -> None:
    kept = Kept()
    loop = small_loop(
        tmp_path, objective=Poisoned({1}, how), trackers=[kept], budget=1000, max_steps=3
    )
    loop._step()
    before = weights(loop)
    moments = {k: v["exp_avg"].clone() for k, v in loop.optimizer.state.items()}
    loop._step()
    assert gap(weights(loop), before) == 0
    for key, values in loop.optimizer.state.items():
        assert torch.equal(values["exp_avg"], moments[key])
    assert (loop.state.step, loop.state.skipped, loop.state.bad_in_a_row) == (2, 1, 1)
    loop.train()
    assert (loop.state.skipped, loop.state.bad_in_a_row) == (1, 0)
    assert gap(weights(loop), before) > 0
    assert kept.of("step")[-1]["skipped"] == 1


def test_what_is_not_finite_stands_in_the_log_as_it_was(tmp_path: Path) -> None:
    kept = Kept()
    small_loop(tmp_path, objective=Poisoned({1}), trackers=[kept], budget=1000).train()
    assert [math.isnan(e["loss"]) for e in kept.of("step")] == [False, True, False, False]


def test_three_in_a_row_stop_and_name_step_rows_and_checkpoint(tmp_path: Path) -> None:
    loop = small_loop(
        tmp_path, objective=Poisoned({3, 4, 5}), budget=1000, max_steps=9, save_every=2
    )
    with pytest.raises(TrainingError) as caught:
        loop.train()
    text = str(caught.value)
    assert "loss nan" in text
    assert "at step 6, 3 steps in a row" in text
    assert f"the last good checkpoint is {loop.run.checkpoint(4)}" in text
    for example in loop.data.step(5)[0]:
        assert str(example.origin) in text
    assert "learning_rate" in caught.value.faults[0].cure


def test_two_in_a_row_are_forgiven_as_often_as_they_come(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, objective=Poisoned({0, 1, 3, 4, 6, 7}), budget=1000, max_steps=9)
    assert loop.train() == "finished"
    assert loop.state.skipped == 6


def test_without_a_checkpoint_the_error_says_so(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, objective=Poisoned({0, 1, 2}), budget=1000, save_every=50)
    with pytest.raises(TrainingError, match="no checkpoint was written"):
        loop.train()


def test_float16s_loss_scale_finds_its_place_without_an_alarm(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, precision="float16", max_steps=3)
    loop.backend._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=10**6)  # type: ignore[attr-defined]
    before = weights(loop)
    for _ in range(40):
        loop._step()
        loop.state.step %= 3
    assert loop.state.skipped > 3
    assert loop.state.bad_in_a_row == 0
    assert gap(weights(loop), before) > 1e-3
    assert loop.backend._scaler.get_scale() < 2.0**40


# Validation, early stopping, checkpoints


class Scripted(language_modeling.Objective):
    """Its validation loss follows a script, whatever the model learns."""

    def __init__(self, figures: list[float]) -> None:
        super().__init__(language_modeling.Config())
        self.figures = iter(figures)

    def loss(self, models: Any, batch: Batch) -> dict[str, Tensor]:
        terms = super().loss(models, batch)
        if models.policy.module.training:
            return terms
        return {"nll": torch.tensor(next(self.figures) * self.weights(batch)["nll"])}


def scripted(tmp_path: Path, figures: list[float], **changes: Any) -> tuple[Any, Kept]:
    kept = Kept()
    settings = {"evaluate_every": 1, "max_steps": len(figures), "budget": 1000, **changes}
    loop = small_loop(
        tmp_path,
        objective=Scripted(figures),
        held=builders.examples([8]),
        trackers=[kept],
        **settings,
    )
    return loop, kept


def test_early_stopping_waits_and_keeps_the_best(tmp_path: Path) -> None:
    figures = [5.0, 4.0, 4.5, 3.0, 3.5, 3.4, 3.3, 1.0]
    loop, kept = scripted(tmp_path, figures, early_stopping={"patience": 3}, keep=1)
    assert loop.train() == "early"
    assert loop.state.step == 7
    assert loop.state.best == (pytest.approx(3.0), 4)
    assert [step for step, _ in loop.run.saved()] == [4, 7]
    assert [round(e["loss"], 2) for e in kept.of("validation")] == figures[:7]


def test_the_best_is_saved_though_saving_is_rarer_than_validating(tmp_path: Path) -> None:
    loop, _ = scripted(
        tmp_path, [5.0, 4.0, 4.5, 4.6, 4.7], early_stopping={"patience": 3}, save_every=100
    )
    assert loop.train() == "early"
    assert loop.run.checkpoint(2).is_dir()


def test_an_early_stop_is_remembered_by_a_run_killed_right_after(tmp_path: Path) -> None:
    rule = {"patience": 2}
    loop, _ = scripted(tmp_path, [2.0, 3.0, 3.0, 1.0, 1.0], early_stopping=rule)
    assert loop.train() == "early"
    again, kept = scripted(tmp_path, [1.0] * 5, early_stopping=rule)
    again.resume(again.run.checkpoint(3))
    assert again.train() == "early"
    assert kept.events == []


def test_an_improvement_must_be_as_large_as_was_asked(tmp_path: Path) -> None:
    rule = {"patience": 2, "min_delta": 0.5}
    loop, _ = scripted(tmp_path, [5.0, 4.9, 4.8, 1.0], early_stopping=rule)
    assert loop.train() == "early"
    assert loop.state.best == (pytest.approx(5.0), 1)


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    loop, kept = scripted(tmp_path, [math.nan, 4.0, math.nan, 3.0])
    assert loop.train() == "finished"
    assert loop.state.best == (pytest.approx(3.0), 4)
    assert [math.isnan(e["loss"]) for e in kept.of("validation")] == [True, False, True, False]


def test_without_a_rule_the_run_goes_on(tmp_path: Path) -> None:
    loop, _ = scripted(tmp_path, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert loop.train() == "finished"
    assert loop.state.best == (pytest.approx(1.0), 1)


def test_the_newest_and_the_best_are_retained(tmp_path: Path) -> None:
    loop, _ = scripted(tmp_path, [5.0, 1.0, 2.0, 2.0, 2.0, 2.0], keep=2)
    loop.train()
    assert [step for step, _ in loop.run.saved()] == [2, 5, 6]


def test_a_rising_validation_loss_is_warned_of_once(tmp_path: Path) -> None:
    loop, kept = scripted(
        tmp_path, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], batch_size=7, learning_rate=3e-3
    )
    loop.train()
    steps = [e["loss"] for e in kept.of("step")]
    assert steps[2] < steps[0], "the script needs a training loss that falls"
    (warning,) = kept.of("warning")
    assert warning["step"] == 3
    assert (
        "validation loss rises (1.0000 to 3.0000) while training loss falls" in warning["message"]
    )


def test_a_trend_needs_both_to_part() -> None:
    def said(*pairs: tuple[float, float]) -> list[bool]:
        trend = Trend()
        return [trend.add(*pair) is not None for pair in pairs]

    assert said((3, 1), (2, 2), (1, 3)) == [False, False, True]
    assert said((1, 1), (2, 2), (3, 3)) == [False] * 3
    assert said((3, 1), (2, 2), (1, 1.5)) == [False] * 3
    assert said((3, 3), (2, 2), (1, 1)) == [False] * 3


def test_a_trend_survives_a_checkpoint() -> None:
    first, second = Trend(), Trend()
    first.add(3, 1)
    first.add(2, 2)
    second.load_state(json.loads(json.dumps(first.state())))
    assert second.add(1, 3) == first.add(1, 3) is not None
    third = Trend()
    third.load_state(json.loads(json.dumps(second.state())))
    assert third.add(0.5, 4) is None


def test_a_stop_saves_between_two_steps(tmp_path: Path) -> None:
    stop = Stop()

    class AtTwo(Kept):
        def log(self, event: Any) -> None:
            if event["kind"] == "step" and event["step"] == 2:
                stop.signal = 15

    loop = small_loop(tmp_path, trackers=[AtTwo()], stop=stop, save_every=100)
    assert loop.train() == "stopped"
    assert [step for step, _ in loop.run.saved()] == [2]


def test_a_stop_at_the_last_step_is_the_end(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, stop=Stop(15), max_steps=1)
    assert loop.train() == "finished"


def test_steps_between_events() -> None:
    assert every(7, 100, 10) == 7
    assert every("auto", 100, 1000) == 10
    assert every("auto", 1000, 30) == 30
    assert every("auto", 3, 1) == 1


def test_log_lines_are_means_and_come_when_asked(tmp_path: Path) -> None:
    seen = {}
    for often in (1, 3):
        kept = Kept()
        loop = small_loop(tmp_path, trackers=[kept], log_every=often, max_steps=7)
        loop.train()
        seen[often] = kept.of("step")
    assert [e["step"] for e in seen[3]] == [1, 3, 6, 7]
    losses = [e["loss"] for e in seen[1]]
    assert seen[3][1]["loss"] == pytest.approx(sum(losses[1:3]) / 2)
    assert seen[3][2]["loss"] == pytest.approx(sum(losses[3:6]) / 3)
    assert (
        seen[3][-1]["tokens"]
        == loop.state.tokens
        == sum(e.size for i in range(7) for e in loop.data.step(i)[0])
    )


def test_what_a_run_needs_is_a_state_of_its_own(tmp_path: Path) -> None:
    assert State() == State()
    loop = small_loop(tmp_path)
    assert loop.state.step == 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_one_forward_pass_for_ddp_and_one_optimizer_for_what_is_trained(
    method: str, tmp_path: Path
) -> None:
    loop = small_loop(tmp_path, method=method)
    listed = {id(p) for g in loop.optimizer.param_groups for p in g["params"]}
    assert listed == {id(p) for p in loop.parameters.values()}
    terms = loop.wrapped(collate(builders.examples([5])))
    assert set(terms) == {"nll"}


def test_dropout_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    """Whatever drew from the global generator before: what a resumed run rests on."""
    found = []
    for noise in (1, 2):
        kept = Kept()
        loop = small_loop(
            tmp_path, model=builders.tiny("gpt2", resid_pdrop=0.2), trackers=[kept], max_steps=2
        )
        torch.manual_seed(noise)
        loop.train()
        found.append([e["loss"] for e in kept.of("step")])
    assert found[0] == found[1]


def test_a_recipes_fit_writes_its_environment_and_events(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, max_steps=2)
    assert fitted(recipe).status == "finished"
    environment = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))
    assert environment["ranks"] == 1
    assert [e["kind"] for e in loss_lines(tmp_path)] == ["step", "step", "validation"]
