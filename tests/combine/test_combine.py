"""Combined models: averages, TIES by the paper's steps, adapters summed exactly; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from builders import gap
from safetensors.torch import load_file

from luthier import cli
from luthier.combine import _full, combine
from luthier.combine.ties import Combination, Config
from luthier.core.errors import RecipeError
from luthier.export import _golden
from luthier.methods import lora
from luthier.models.load import load, save_note

PROMPT = [3, 77, 120, 5, 200, 41]


def quietly(_line: str) -> None:
    pass


def nudged(seed: int, scale: float = 0.02, **settings: Any) -> Any:
    """A copy of the tiny Llama, tuned a little."""
    model = builders.talking(360, **settings)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=scale * (seed > 0))
    return model


def saved(model: Any, folder: Path, base: str | None = None) -> Path:
    model.save_pretrained(folder)
    builders.tokenizer().save_pretrained(folder)
    save_note(folder, {"base": base})
    return folder


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """A base, and two models tuned from it."""
    base = saved(nudged(0), tmp_path / "base")
    return [base, *(saved(nudged(n), tmp_path / f"m{n}", str(base)) for n in (1, 2))]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def test_an_average_is_one(three: list[Path], tmp_path: Path) -> None:
    done = combine(three[1:], tmp_path / "out", weights=[0.25, 0.75], say=quietly)
    one, two, out = (state(folder) for folder in (*three[1:], done.folder))
    assert done.tensors == len(out) == len(one)
    assert gap(out, {name: 0.25 * one[name] + 0.75 * two[name] for name in one}) < 1e-6
    loaded = load(str(done.folder))
    assert torch.isfinite(_golden.logits(loaded.model.module, PROMPT)).all()
    note = json.loads((done.folder / "luthier.json").read_text())
    assert [each["weight"] for each in note["combined"]["models"]] == [0.25, 0.75]
    even = combine(three[1:], tmp_path / "even", say=quietly)
    assert even.weights == (0.5, 0.5)


def test_a_result_of_several_files_is_the_same(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = combine(three[1:], tmp_path / "whole", say=quietly)
    monkeypatch.setattr(_full, "_SHARD", 20_000)
    parts = combine(three[1:], tmp_path / "parts", say=quietly)
    assert len(list(parts.folder.glob("model-*-of-*.safetensors"))) > 2
    assert gap(state(parts.folder), state(whole.folder)) == 0
    logits = [_golden.logits(load(str(x.folder)).model.module, PROMPT) for x in (whole, parts)]
    assert torch.equal(*logits)
    again = combine([parts.folder, three[1]], tmp_path / "again", say=quietly)
    assert again.tensors == whole.tensors


@pytest.mark.parametrize("keep", [0.2, 0.5, 1.0])
def test_ties_is_the_papers(keep: float, three: list[Path], tmp_path: Path) -> None:
    way = {"kind": "ties", "keep": keep, "scale": 0.7}
    done = combine(three[1:], tmp_path / "out", weights=[1, 3], method=way, say=quietly)
    base, one, two, out = (state(folder) for folder in (*three, done.folder))
    assert gap(out, written_out(base, [one, two], [1.0, 3.0], keep, 0.7)) < 1e-6


def written_out(
    base: dict[str, torch.Tensor],
    models: list[dict[str, torch.Tensor]],
    votes: list[float],
    keep: float,
    scale: float,
) -> dict[str, torch.Tensor]:
    """Trim, elect, merge on the whole vector, as the paper's three steps have it."""
    names = sorted(base)
    flat = [torch.cat([(m[n] - base[n]).flatten() for n in names]) for m in models]
    trimmed = []
    for change in flat:
        bound = change.abs().sort(descending=True).values[round(keep * len(change)) - 1]
        trimmed.append(torch.where(change.abs() >= bound, change, 0.0))
    sign = torch.stack([c * v for c, v in zip(trimmed, votes, strict=True)]).sum(0).sign()
    agrees = [(c.sign() == sign) & (c != 0) for c in trimmed]
    total = sum(c * v * a for c, v, a in zip(trimmed, votes, agrees, strict=True))
    weight = torch.stack([v * a for v, a in zip(votes, agrees, strict=True)]).sum(0)
    merged = scale * total / weight.clamp_min(1e-12)
    out, at = {}, 0
    for name in names:
        size = base[name].numel()
        out[name] = base[name] + merged[at : at + size].view(base[name].shape)
        at += size
    return out


def test_the_bound_of_what_is_kept_is_exact() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(37) * 1e-4, torch.randn(5, 8), torch.zeros(3)]
    values = torch.cat([p.flatten() for p in parts]).abs().sort(descending=True).values
    for kept in (1, 5, 44, 77, 80):
        way = Combination(Config(keep=kept / 80))
        way.survey(lambda _number: iter(parts), 1)
        assert way.bounds == [float(values[kept - 1])]


def adapter(folder: Path, seed: int, base: Path, **settings: Any) -> Path:
    method = lora.Method(lora.Config(**{"rank": 3, **settings}))
    module: Any = method.prepare(load(str(base)).model.module)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    folder.mkdir()
    method.save(module, folder)
    save_note(folder, {"base": str(base), "method": "lora"})
    return folder


def test_adapters_are_summed_exactly(three: list[Path], tmp_path: Path) -> None:
    """Whatever their ranks, scales and targets."""
    base = three[0]
    folders = [
        adapter(tmp_path / "a", 1, base, rank_pattern={"q_proj": 5}, alpha=7),
        adapter(
            tmp_path / "b", 2, base, rslora=True, targets="attention", alpha_pattern={"v_proj": 3.0}
        ),
    ]
    done = combine(folders, tmp_path / "out", weights=[0.5, -2.0], say=quietly)
    assert done.kind == "adapter"
    changes = []
    plain = state(base)
    for folder in (*folders, done.folder):
        merged = lora.Method(lora.Config()).merge(load(str(folder)).model.module)
        changes.append({n: p.detach() - plain[n] for n, p in merged.named_parameters()})
    one, two, out = changes
    assert gap(out, {name: 0.5 * one[name] - 2.0 * two[name] for name in one}) < 1e-5
    assert max(float(change.abs().max()) for change in out.values()) > 0.1


@pytest.mark.parametrize(
    ("settings", "reason"), [({"dora": True}, "no sum"), ({}, "their changes cannot be summed")]
)
def test_adapters_that_do_not_belong_together_are_refused(
    settings: dict[str, Any], reason: str, three: list[Path], tmp_path: Path
) -> None:
    folders = [
        adapter(tmp_path / "a", 1, three[0], **settings),
        adapter(tmp_path / "b", 2, three[0] if settings else three[1], **settings),
    ]
    with pytest.raises(RecipeError, match=reason):
        combine(folders, tmp_path / "out", say=quietly)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*.tmp"))


def test_models_that_do_not_belong_together_are_refused(three: list[Path], tmp_path: Path) -> None:
    small = saved(nudged(3, intermediate_size=24), tmp_path / "small")
    other = saved(nudged(4), tmp_path / "other", base="somebody/else")
    mixed = adapter(tmp_path / "a", 1, three[0])
    shuffled = saved(nudged(5), tmp_path / "shuffled", str(three[0]))
    text = json.loads((shuffled / "tokenizer.json").read_text())
    text["model"]["vocab"] = {k: 359 - v for k, v in text["model"]["vocab"].items()}
    (shuffled / "tokenizer.json").write_text(json.dumps(text))
    cases: Any = (
        ([three[1], small], {}, "intermediate_size is"),
        ([three[1], shuffled], {}, "tokens other numbers"),
        ([three[1], other], {"method": "ties"}, "different bases"),
        ([three[1], mixed], {}, "is an adapter"),
        ([mixed, mixed], {"method": "ties"}, "works on full weights"),
        ([three[1]], {}, "two models"),
        (three[1:], {"weights": [1.0, 1.0]}, "sum to 2"),
        (three[1:], {"weights": [1.0]}, "1 weights"),
        (three[1:], {"method": "ties", "weights": [1, 0]}, "is none"),
        (three[1:], {"method": {"kind": "average", "keep": 0.3}}, "'keep'"),
        (three[1:], {"method": "soup"}, "unknown"),
        (["somebody/model", three[1]], {}, "no folder here"),
    )
    for models, settings, reason in cases:
        with pytest.raises(RecipeError, match=reason):
            combine(models, tmp_path / "out", say=quietly, **settings)
    assert not (tmp_path / "out").exists()


def test_the_command(three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["combine", *map(str, three[1:]), "-o", str(tmp_path / "out"), "--method", "ties"]
    assert cli.run([*words, "--keep", "0.5", "--base", str(three[0])]) == 0
    assert "full weights" in capsys.readouterr().out
    assert cli.run(words) == 2
    assert "not empty" in capsys.readouterr().err
    words[words.index("-o") + 1] = str(tmp_path / "new")
    assert cli.run([*words, "--weights", "one,two"]) == 2
