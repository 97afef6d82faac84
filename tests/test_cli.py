"""The command line: exit statuses, errors without tracebacks, help at once."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import TINY, sums

import luthier
from luthier import cli, ready
from luthier.commands import screen
from luthier.core import cache
from luthier.core.errors import Fault
from luthier.core.rundir import RunDir

COMMANDS = ("demo", "train", "inspect", "evaluate", "generate", "chat", "export", "list", "doctor")
HEAVY = ("torch", "transformers", "pydantic", "datasets", "numpy", "rich", "yaml")


def shell(*words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "luthier", *words], capture_output=True, text=True, **settings
    )


def write_recipe(folder: Path, **changes: Any) -> Path:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in sums()))
    recipe = {
        "model": TINY,
        "method": "full",
        "data": {"train": str(rows)},
        "training": {"max_steps": 3, "precision": "float32", "threads": 1, "trackers": []},
        "evaluation": {"samples": 1, "generate_rows": 1, "max_new_tokens": 4, "resamples": 100},
        "output": str(folder / "run"),
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def test_help_answers_at_once() -> None:
    """In processor time, for other programs may be busy; the best of three, as disks are cold."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = shell("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0
        assert "train" in done.stdout
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5


def test_nothing_heavy_is_imported_for_help() -> None:
    code = f"import sys, luthier.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "words",
    [[name] for name in COMMANDS]
    + [["recipe"], ["recipe", "schema"], ["recipe", "check"], ["recipe", "import"]]
    + [["data"], *(["data", word] for word in ("check", "codes", "show", "prepare"))]
    + [["cache"], ["cache", "clear"], ["cache", "trim"]],
    ids=" ".join,
)
def test_every_command_explains_itself(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: luthier {' '.join(words)}")
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("group", [[], ["data"], ["recipe"], ["cache"]], ids=" ".join)
def test_commands_in_an_overview_are_not_cut_short(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run([*group, "--help"])
    assert "..." not in capsys.readouterr().out.split("Commands:")[1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"luthier {luthier.__version__}\n"


def test_every_fault_of_a_recipe_is_told_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: builtin:nano\n"
        "objective: sftt\n"
        "training:\n"
        "  learning_rat: 1e-4\n"
        "  epochs: many\n"
        "data: {train: rows.jsonl}\n"
    )
    done = shell("train", str(recipe))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 3
    for place, words in (
        ("recipe.yaml:2:1: objective", "did you mean 'sft'?"),
        ("recipe.yaml:4:3: training.learning_rat", "did you mean 'learning_rate'?"),
        ("recipe.yaml:5:3: training.epochs", "many"),
    ):
        assert any(place in line and words in line for line in lines), (place, lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "did you mean 'train'"),
        (["train"], "no recipe given"),
        (["train", "supprt"], "did you mean 'support'?"),
        (["train", "training.epochs=5"], "no recipe given"),
        (["train", "support", "epochs"], "is no override"),
        (["train", "support", "training.epoch=5"], "did you mean 'epochs'?"),
        (["generate"], "missing argument 'MODEL'"),
        (["generate", "builtin:nano", "--temperature", "-1"], "temperature"),
        (["generate", "builtin:nano", "--raw", "--system", "x", "-p", "y"], "--raw"),
        (["generate", "builtin:nanoo", "-p", "x"], "did you mean 'nano'?"),
        (["list", "objective"], "did you mean 'objectives'?"),
        (["cache", "trim", "--to", "much"], "not a size"),
        (["train", "--resum", "x"], "--resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_exits_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert told.lower() in found.err.lower()
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    "words", [["evaluate", "/nowhere"], ["export", "/nowhere", "--to", "merged"]]
)
def test_a_run_that_is_not_there_exits_1(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 1
    assert "no folder '/nowhere'" in capsys.readouterr().err


def test_a_broken_row_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text() + '{"prompt": "x"\n')
    assert cli.run(["train", str(recipe)]) == 1
    assert f"rows.jsonl:{len(sums()) + 1}" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()


def raising(error: BaseException) -> Any:
    def train(*_: Any, **__: Any) -> None:
        raise error

    return train


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyboardInterrupt(), 130, ""),
        (ValueError("seven"), 70, "this is a bug in luthier"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 74, "luthier cache clear"),
        (OSError(errno.EACCES, "Permission denied", "/runs/x"), 1, "/runs/x: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file", "inner"), 70, "this is a bug"),
    ],
    ids=["interrupt", "bug", "disk full", "forbidden", "missing inside"],
)
def test_what_goes_wrong_while_training(
    error: BaseException,
    status: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(luthier, "train", raising(error))
    assert cli.run(["train", str(write_recipe(tmp_path))]) == status
    err = capsys.readouterr().err
    assert told in err
    assert ("Traceback" in err) == (status == 70)
    assert err or status == 130


def test_a_stopped_run_exits_75(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from luthier.run import Run

    monkeypatch.setattr(luthier, "train", lambda *_, **__: Run(RunDir(tmp_path / "unfinished")))
    assert cli.run(["train", str(write_recipe(tmp_path))]) == 75


def test_words_reach_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from luthier.run import Run

    seen: list[Any] = []

    def train(source: Any, overrides: Any, *, resume: Any, quiet: Any, **more: bool) -> Run:
        asked = [name for name, value in more.items() if value]
        seen.append((source, overrides, resume, quiet, asked))
        return Run(RunDir(tmp_path))

    monkeypatch.setattr(luthier, "train", train)
    recipe = write_recipe(tmp_path)
    cli.run(["train", str(recipe), "training.epochs=5", "output=x", "--quiet"])
    cli.run(["train", "--resume", "runs/x"])
    cli.run(["train", "--resume", "runs/x", "training.epochs=5", "--allow-inexact"])
    cli.run(["train", "support", "--verify"])
    place = ready.folder()
    assert place is not None
    assert seen == [
        (recipe, ["training.epochs=5", "output=x"], None, True, []),
        (None, [], "runs/x", False, []),
        (None, ["training.epochs=5"], "runs/x", False, ["allow_inexact"]),
        (place / "support.yaml", [], None, False, ["verify"]),
    ]


def test_recipe_check_prints_the_whole_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert cli.run(["recipe", "check", str(recipe), "training.batch_size=7"]) == 0
    plain = yaml.safe_load(capsys.readouterr().out)
    assert plain["training"]["batch_size"] == 7
    assert plain["training"]["schedule"] == "cosine"
    assert plain["model"]["architecture"] == "llama"


def test_recipe_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["recipe", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Luthier recipe"


def test_a_run_is_not_taken_for_a_recipe(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", str(tiny_run)]) == 2
    assert "is a run, not a recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    "what",
    ["objectives", "methods", "metrics", "rewards", "formats", "cleaners", "augmenters", "recipes"],
)
def test_list(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", what]) == 0
    out = capsys.readouterr().out
    known = {
        "objectives": "sft",
        "methods": "lora",
        "metrics": "perplexity",
        "rewards": "exact",
        "formats": "messages",
        "cleaners": "whitespace",
        "augmenters": "word_swap",
        "recipes": "support",
    }
    assert f"  {known[what]} " in out
    assert all(line == line.rstrip() and len(line) <= 80 for line in out.splitlines())


def test_list_without_a_word_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line and not line.startswith(" ")] == [
        "Objectives",
        "Methods",
        "Metrics",
        "Rewards",
        "Formats",
        "Cleaners",
        "Augmenters",
        "Combinations",
        "Recipes",
    ]


def test_every_ready_recipe_says_what_it_is_for() -> None:
    for name in ready.names():
        assert len(ready.summary(name)) > 10, name


def test_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        entry = cache.place("tokens", str(number))
        entry.mkdir()
        (entry / "data").write_bytes(bytes(1024))
        os.utime(entry, (number, number))
    assert cli.run(["cache"]) == 0
    assert "3 entries, 3.0 kB" in capsys.readouterr().out
    assert cli.run(["cache", "trim", "--to", "2kB"]) == 0
    assert "freed 1.0 kB" in capsys.readouterr().out
    assert not (tmp_path / "cache" / "tokens" / "0").exists()
    assert cli.run(["cache", "clear"]) == 0
    assert "freed 2.0 kB" in capsys.readouterr().out
    assert cli.run(["cache", "clear"]) == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor"]) == 0
    out = capsys.readouterr().out
    words = ("torch", "threads", "memory", "cache", "bfloat16", "tensorboard", luthier.__version__)
    assert [word for word in words if word not in out] == []
    assert "stands in the way" in out or "cure: " in out


def test_doctor_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from luthier import doctor

    monkeypatch.setattr(doctor, "_DISK", 2**60)
    monkeypatch.setattr(doctor, "_MEMORY", 2**60)
    assert cli.run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "little disk space is free" in out
    assert "little memory is free" in out
    assert out.count("cure: ") >= 2


def test_errors_stay_on_one_line_for_tools_and_wrap_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Fault("word " * 40, "recipe.yaml:4:3", "[red]do[/red] " * 20)
    screen.faults([fault])
    piped = capsys.readouterr().err.splitlines()
    assert [line[:8] for line in piped] == ["error: r", "  cure: "]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    screen.faults([fault])
    shown = capsys.readouterr().err
    assert "\x1b[" in shown
    assert "[red]do[/red]" in shown
    assert len(shown.splitlines()) > 6


@pytest.mark.slow
def test_a_signal_keeps_a_checkpoint_and_resume_ends_the_run(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, training={"max_steps": 4000, "log_every": 1, "trackers": [], "threads": 1}
    )
    words = [sys.executable, "-m", "luthier", "train", str(recipe)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("step      2"):
                run.send_signal(signal.SIGTERM)
                break
        rest, errors = run.communicate(timeout=120)
    assert run.returncode == 75, errors
    assert errors == ""
    assert f"luthier train --resume {tmp_path / 'run'}" in rest
    [(step, _)] = RunDir(tmp_path / "run").saved()
    done = shell("train", "--resume", str(tmp_path / "run"), f"training.max_steps={step + 2}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert RunDir(tmp_path / "run").finished
    assert "luthier chat" in done.stdout


def test_letters_that_a_stream_cannot_write_are_spelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"\\ud800": null}\n')
    assert cli.run(["train", str(recipe)]) == 1
    assert r"the columns: \ud800" in capsys.readouterr().err
