"""Runs in stages: each starts from the one before, and the whole restarts from any of them."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

import luthier
from luthier import stages
from luthier.core import recipe as recipes
from luthier.core.errors import DataError, RecipeError, UserError
from luthier.core.rundir import RunDir, open_run
from luthier.engine.watch import Stop
from luthier.models.load import load, locate
from luthier.show import show

FIRST, SECOND = "1-language_modeling", "2-sft"
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = {**TINY, "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 96}


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Language modeling from scratch, then chat with LoRA, two steps each."""
    whole: dict[str, Any] = {
        "model": {"architecture": "llama", "config": SMALL, "tokenizer": {"vocab_size": 300}},
        "objective": "language_modeling",
        "method": "full",
        "data": {"train": str(folder / "text.jsonl"), "validation": 0.25},
        "training": {
            "max_steps": 4,
            "batch_size": 4,
            "save_every": 2,
            "learning_rate": 1e-2,
            "precision": "float32",
            "device": "cpu",
            "threads": 1,
            "trackers": [],
        },
        "evaluation": {"samples": 2, "generate_rows": 2, "max_new_tokens": 4, "resamples": 100},
        "output": str(folder / "run"),
        "stages": [
            {},
            {
                "objective": "sft",
                "method": {"kind": "lora", "rank": 2},
                "data": {"train": str(folder / "chat.jsonl")},
            },
        ],
    }
    return {**whole, **changes}


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def data(folder: Path) -> Path:
    """Rows of both stages on disk, as a resumed run must find them again."""
    folder.mkdir(parents=True, exist_ok=True)
    text = [{"text": f"number {i} comes before {i + 1}, and after {i - 1}"} for i in range(24)]
    chat = [{"prompt": f"after {i}?", "response": f"It is {i + 1}."} for i in range(24)]
    (folder / "text.jsonl").write_text(lines(text), encoding="utf-8")
    (folder / "chat.jsonl").write_text(lines(chat), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> luthier.Run:
    """A finished run of two stages, made without a network; not to be written to."""
    folder = data(tmp_path_factory.mktemp("staged"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _refuse)
        return luthier.train(recipe(folder), quiet=True)


def _refuse(*_args: object) -> None:
    raise AssertionError("somebody asked the network")


@pytest.fixture
def copy(whole: luthier.Run, tmp_path: Path) -> RunDir:
    """The finished run, to be spoilt; its rows and its first model stay where they were."""
    shutil.copytree(whole.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def weights(run: Path, stage: str) -> bytes:
    """The bytes of a stage's result."""
    (found,) = (run / stage / "model").glob("*.safetensors")
    return found.read_bytes()


@contextmanager
def stopping(patch: pytest.MonkeyPatch, stage: int) -> Iterator[None]:
    """As if a signal came at the first step of a stage."""
    begun = 0

    def signals() -> AbstractContextManager[Stop]:
        nonlocal begun
        begun += 1
        return nullcontext(Stop(15 if begun == stage else None))

    with patch.context() as inner:
        inner.setattr("luthier.fit.signals", signals)
        yield


def test_each_stage_is_a_run_of_its_own_and_the_whole_reads_like_one(whole: luthier.Run) -> None:
    assert whole.finished
    listed = sorted(p.name for p in whole.path.iterdir() if p.is_dir())
    assert listed == [FIRST, SECOND]
    for name in listed:
        inner = open_run(whole.path / name)
        assert inner.finished
        assert inner.report.is_file()
        assert inner.path == whole.path / name
    last = luthier.Run(RunDir(whole.path / SECOND))
    assert whole.metrics == last.metrics != {}
    assert [s["name"] for s in whole.evaluation["stages"]] == [FIRST, SECOND]
    assert len(whole.samples) == len(last.samples) == 2
    page = whole.folder.report.read_text(encoding="utf-8")
    assert f'href="{FIRST}/report.html"' in page
    assert f'href="{SECOND}/report.html"' in page
    assert json.loads(whole.folder.environment.read_text())["stages"] is True


def test_a_stage_starts_from_the_model_before_it(whole: luthier.Run) -> None:
    second = yaml.safe_load((whole.path / SECOND / "recipe.yaml").read_text())
    assert second["model"]["name"] == str(whole.path.resolve() / FIRST)
    assert second["output"] == str(whole.path / SECOND)
    assert second["stages"] == []
    assert second["training"]["max_steps"] == 4  # inherited
    base = load(str(whole.path / SECOND), adapter=False).model.module.state_dict()
    (file,) = (whole.path / FIRST / "model").glob("*.safetensors")
    for name, tensor in load_file(file).items():
        assert base[name].equal(tensor), name


def test_the_folder_of_the_whole_means_its_last_model(whole: luthier.Run) -> None:
    found = locate(str(whole.path))
    assert found.kind == "adapter"
    assert found.name == str(whole.path.resolve() / SECOND / "model")
    module: Any = load(str(whole.path)).model.module
    assert module.peft_config["default"].r == 2


def test_an_unfinished_whole_is_no_model_and_says_the_cure(copy: RunDir) -> None:
    copy.stages[1].card.unlink()
    with pytest.raises(RecipeError, match=r"not finished its last stage(.|\n)*--resume") as caught:
        locate(str(copy.path))
    assert str(copy.path) in str(caught.value)


def test_a_model_of_the_whole_outlives_the_stages_before(copy: RunDir) -> None:
    (copy.stages[1].model / "adapter_config.json").rename(copy.stages[1].model / "config.json")
    shutil.rmtree(copy.stages[0].path)
    assert locate(str(copy.path)).kind == "folder"


@pytest.mark.parametrize("stage", [1, 2])
def test_stopped_in_a_stage_and_resumed_is_never_stopped(
    whole: luthier.Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: int,
) -> None:
    folder = data(tmp_path)
    monkeypatch.chdir(tmp_path)
    with stopping(monkeypatch, stage):
        run = luthier.train(recipe(folder, output="run"))
    assert not run.finished
    assert not run.folder.card.exists()
    assert f"luthier train --resume {run.path}\n" in capsys.readouterr().out
    assert [s.finished for s in run.folder.stages] == [stage == 2, False]
    assert run.folder.stages[stage - 1].saved()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = luthier.train(resume="../run")
    assert again.finished
    for name in (FIRST, SECOND):
        assert weights(again.path, name) == weights(whole.path, name), name
    out = capsys.readouterr().out
    assert ("1-language_modeling, finished" in out) == (stage == 2)


def test_a_model_named_in_another_way_keeps_its_name(tmp_path: Path) -> None:
    """A relative name of an older run: the resumed recipe must be the very one it began with."""
    inner = RunDir(tmp_path / SECOND)
    spelled = tmp_path / "x" / ".." / FIRST
    inner.path.mkdir()
    (tmp_path / "x").mkdir()
    old = {"model": str(spelled), "data": {"train": "chat.jsonl"}}
    inner.recipe.write_text(yaml.safe_dump(old), encoding="utf-8")
    _, second = stages.plan(recipes.load(recipe(tmp_path)), RunDir(tmp_path))
    assert second.recipe.model.name == str(spelled)
    inner.recipe.unlink()
    _, second = stages.plan(recipes.load(recipe(tmp_path)), RunDir(tmp_path))
    assert second.recipe.model.name == str(tmp_path.resolve() / FIRST)


@pytest.mark.parametrize("left", ["rubbish", "a folder that broke off early"])
def test_a_stage_without_a_checkpoint_starts_afresh(
    whole: luthier.Run, copy: RunDir, left: str
) -> None:
    second = copy.stages[1]
    if left == "rubbish":
        shutil.rmtree(second.path)
        second.path.mkdir()
        second.events.write_text("half a li", encoding="utf-8")
    else:
        shutil.rmtree(second.checkpoints)
        shutil.rmtree(second.model)
        second.card.unlink()
    copy.environment.write_text('{"luthier": "0.0.1"}', encoding="utf-8")
    written = copy.stages[0].card.stat().st_mtime_ns
    assert luthier.train(resume=copy.path, quiet=True).finished
    assert weights(copy.path, SECOND) == weights(whole.path, SECOND)
    assert copy.stages[0].card.stat().st_mtime_ns == written
    assert json.loads(copy.environment.read_text()) == {"luthier": "0.0.1"}  # of the beginning


def test_a_stage_that_broke_while_it_was_measured_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("luthier.run.judge", _refuse)
        with pytest.raises(AssertionError):
            luthier.train(recipe(folder), quiet=True)
    run = RunDir(folder / "run")
    assert not run.finished
    kept = run.stages[0].saved()
    assert luthier.train(resume=run.path, quiet=True).finished
    assert run.stages[0].saved() == kept


def test_a_finished_whole_is_only_written_anew(
    copy: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luthier.run.fit", _refuse)
    copy.report.unlink()
    assert luthier.train(resume=copy.path).finished
    assert copy.report.is_file()
    assert "without effect" not in capsys.readouterr().out


def test_what_no_longer_has_an_effect_is_said(
    copy: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luthier.run.fit", _refuse)
    luthier.train(resume=copy.path, overrides=["training.max_steps=9"])
    out = capsys.readouterr().out
    assert out.count("it stays as it is: changed since, without effect: training\n") == 2


def test_no_stage_is_kept_that_is_older_than_its_start(copy: RunDir) -> None:
    shutil.rmtree(copy.stages[0].path)
    with pytest.raises(RecipeError, match=r"which it starts from, is not finished(.|\n)*remove"):
        luthier.train(resume=copy.path, quiet=True)
    assert copy.stages[1].finished  # nothing was thrown away


def test_a_fresh_run_takes_nobodys_folder(tmp_path: Path) -> None:
    folder = data(tmp_path)
    (folder / "run").mkdir()
    (folder / "run" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RecipeError, match="is not empty"):
        luthier.train(recipe(folder), quiet=True)
    assert [p.name for p in (folder / "run").iterdir()] == ["thesis.txt"]


def test_an_unfinished_whole_is_not_begun_again_but_continued(copy: RunDir) -> None:
    copy.card.unlink()
    values = recipe(copy.path.parent, output=str(copy.path))
    with pytest.raises(RecipeError, match=r"unfinished run(.|\n)*--resume"):
        luthier.train(values, quiet=True)


def test_a_later_stages_missing_file_shows_before_anything_is_trained(tmp_path: Path) -> None:
    folder = data(tmp_path)
    (folder / "chat.jsonl").unlink()
    with pytest.raises(DataError, match=r"chat\.jsonl"):
        luthier.train(recipe(folder), quiet=True)
    assert not (folder / "run").exists()


def test_the_first_of_two_ranks_alone_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rank of a launch: it trains every stage and writes nothing."""

    class Second:
        main = False
        waits = 0

        def __init__(self, _device: str) -> None: ...

        def barrier(self) -> None:
            Second.waits += 1

        def agree(self, flag: bool) -> bool:
            return flag

    monkeypatch.setattr(stages, "Backend", Second)
    folder = data(tmp_path)
    trained: list[str] = []
    said: list[str] = []

    def train_one(one: recipes.Recipe, inner: RunDir, again: bool) -> bool:
        trained.append(f"{one.objective.kind} {again}")
        for path in (inner.card, inner.model / "config.json"):  # what the first rank writes
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return True

    values = recipes.load(recipe(folder))
    stages.train_stages(
        values, RunDir(folder / "run"), said.append, train_one, lambda _: nullcontext()
    )
    assert trained == ["language_modeling False", "sft False"]
    assert sorted(p.name for p in (folder / "run").iterdir()) == [FIRST, SECOND]
    assert not said
    assert Second.waits >= 4


CHAT = {"objective": "sft", "method": {"kind": "lora", "rank": 2}}


def on_itself(whole: luthier.Run, folder: Path, second: dict[str, Any]) -> luthier.Run:
    """Two stages of chat on the first stage's model, on the same rows."""
    rows = str(data(folder) / "chat.jsonl")
    values = recipe(folder, model=str(whole.path / FIRST), stages=[{}, second], **CHAT)
    return luthier.train({**values, "data": {"train": rows, "validation": 0.25}}, quiet=True)


@pytest.mark.parametrize(
    ("second", "kind"), [({}, "adapter"), ({"method": "full"}, "folder")], ids=["lora", "full"]
)
def test_after_an_adapter_comes_the_same_adapter_or_a_merged_model(
    whole: luthier.Run, tmp_path: Path, second: dict[str, Any], kind: str
) -> None:
    run = on_itself(whole, tmp_path, second)
    first, last = run.evaluation["stages"]
    for name, figures in first["metrics"].items():
        # What the first stage ended with is what the second began with, adapter and all.
        assert last["metrics"][name]["before"] == pytest.approx(figures["after"], abs=1e-9)
    assert first["metrics"]["perplexity"]["before"] != first["metrics"]["perplexity"]["after"]
    assert last["metrics"]["perplexity"]["before"] != last["metrics"]["perplexity"]["after"]
    assert locate(str(run.path)).kind == kind
    samples = list(run.samples)
    assert all(isinstance(sample["start"], str) for sample in samples)
    if kind == "adapter":
        config = json.loads((run.path / SECOND / "model" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(whole.path.resolve() / FIRST / "model")
        assert config["r"] == 2


def test_an_adapter_of_another_shape_is_refused(whole: luthier.Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="adapter of another shape"):
        on_itself(whole, tmp_path, {"method": {"kind": "lora", "rank": 3}})


def test_a_stage_keeps_a_model_that_it_names(tmp_path: Path) -> None:
    values = recipes.load(recipe(tmp_path))
    own = {**values.stages[1], "model": {"name": "builtin:nano"}}
    planned = stages.plan(
        values.model_copy(update={"stages": (values.stages[0], own)}), RunDir(tmp_path)
    )
    assert [stage.recipe.model.name for stage in planned] == [None, "builtin:nano"]
    assert [stage.chained for stage in planned] == [False, False]


def test_a_stage_inherits_whether_its_models_code_may_run(tmp_path: Path) -> None:
    model = {"name": "some/model", "trust_remote_code": True, "offline": True, "dropout": 0.0}
    _, second = stages.plan(recipes.load(recipe(tmp_path, model=model)), RunDir(tmp_path))
    assert second.recipe.model.trust_remote_code
    assert second.recipe.model.offline
    assert second.recipe.model.dropout == 0
    assert second.recipe.model.revision is None


def test_a_stage_alone_has_the_model_that_it_continues(tmp_path: Path) -> None:
    """That of the nearest stage before it which brings one, not always the first's."""
    values = recipes.load(recipe(tmp_path))
    first, second = values.stages
    own = {**second, "model": {"name": "builtin:nano"}}
    three = values.model_copy(update={"stages": (first, own, second)})
    assert stages.alone(three, 1).model == values.model
    assert [stages.alone(three, number).model.name for number in (2, 3)] == ["builtin:nano"] * 2


def test_a_stage_is_looked_at_with_the_tokenizer_of_the_one_it_continues(tmp_path: Path) -> None:
    """The second stage's own text, which no tokenizer is trained on, would give other tokens."""
    data(tmp_path)
    whole = recipes.load(recipe(tmp_path))
    assert stages.begun_tokenizer(whole, 1) is None
    _, second = stages.previews(whole)
    made = stages.begun_tokenizer(whole, 2)
    assert made.get_vocab() == second.codec.tokenizer.get_vocab()
    asked = show(whole, stage=2).pieces
    example = second.objective.encode(second.train.records[0], second.codec)
    shown = [i for branch in asked[0] for token in branch.tokens for i in token.ids]
    assert shown == [int(t) for s in example.segments for t in s.tokens]
