"""``luthier demo``: tune the bundled model on generated customer support, show before and after."""

from __future__ import annotations

import shutil
import textwrap
import time
from pathlib import Path
from typing import Any

import yaml

from luthier.core.errors import RecipeError
from luthier.core.recipe import load
from luthier.core.rundir import RunDir
from luthier.demo import preferences
from luthier.demo.support import write
from luthier.ready import ready_recipe
from luthier.run import Run, train

#: Questions that training never saw, answered by both models at the end.
SHOWN = 3
DEFAULT = "runs/demo"
WIDTH = 78


def run(output: str | None = None, quiet: bool = False) -> Run:
    """Makes the data, tunes, measures, and prints three questions answered by both models.

    Args:
        output: the run folder; an earlier demo in it is replaced, anything else refused.
        quiet: print nothing.

    Raises:
        RecipeError: the folder holds something that no demo made.
    """
    start = time.perf_counter()
    folder = Path(output or DEFAULT)
    data = folder.with_name(f"{folder.name}-data")
    _make_room(folder, data)
    files = write(data)
    preferences.write(data)  # for recipes/reward.yaml
    recipe = load(
        ready_recipe("demo"),
        [
            f"data.train={files['train']}",
            f"data.validation={files['test']}",
            f"output={folder}",
        ],
    )
    if not quiet:
        print(f"customer support for a shop: {_lines(files['train']):,} conversations in {data}/")
    done = train(recipe, quiet=quiet)
    if not quiet and done.finished:
        print(closing(done, time.perf_counter() - start))
    return done


def closing(done: Run, seconds: float) -> str:
    """Three questions answered by both models, the figures in a sentence, what to type next."""
    lines = ["", f"Questions that training never saw ({done.path}/samples.jsonl has more)"]
    for sample in _apart(done.samples, SHOWN):
        lines += ["", *_wrapped("customer", sample["prompt"])]
        lines += _wrapped("before", sample["before"] or "(nothing)")
        lines += _wrapped("after", sample["after"])
    perplexity, rouge = done.metrics["perplexity"], done.metrics["rouge_l"]
    lines += [
        "",
        f"Perplexity of the shop's answers fell from {perplexity['before']:,.0f} to "
        f"{perplexity['after']:.2f},",
        f"ROUGE-L of generated answers rose from {rouge['before']:.2f} to {rouge['after']:.2f}, "
        f"in {seconds:.0f} seconds.",
        "",
        "Next:",
        f"  luthier chat {done.path} --base        talk to it, beside the model it came from",
        f"  open {done.path}/report.html           the whole report",
        f"  luthier train {done.path}/recipe.yaml output=runs/mine data.train=your.jsonl",
    ]
    return "\n".join(lines)


def _make_room(folder: Path, data: Path) -> None:
    """Removes an earlier demo; refuses to touch anything else."""
    if not folder.exists():
        return
    run = RunDir(folder)
    if any(folder.iterdir()) and not (run.recipe.is_file() and _is_demo(run, data)):
        raise RecipeError(
            f"'{folder}' holds something else than a demo", cure="choose another: --output DIR"
        )
    shutil.rmtree(folder)


def _is_demo(run: RunDir, data: Path) -> bool:
    recipe: Any = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    train_file = recipe.get("data", {}).get("train")
    return isinstance(train_file, str) and Path(train_file).parent == data


def _lines(path: Path) -> int:
    with path.open(encoding="utf-8") as stream:
        return sum(1 for _ in stream)


def _apart(samples: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Samples spread over the list, so that their subjects differ."""
    short = [s for s in samples if "\n" not in s["prompt"]] or samples
    return [short[i * len(short) // count] for i in range(min(count, len(short)))]


def _wrapped(speaker: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"  {speaker:>8}  ",
        subsequent_indent=" " * 12,
        max_lines=4,
        placeholder=" …",
    )
