"""The saved result against the model it came from, on the same held-out rows."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.assemble import Parts, load_model
from luthier.core import kinds
from luthier.core.contracts import Metric
from luthier.core.records import Example, Record, Scored
from luthier.core.rundir import RunDir, write_json, write_lines
from luthier.engine.probe import prepare_host
from luthier.evaluation import card, report
from luthier.evaluation.measure import measure, score_answers, score_losses
from luthier.evaluation.questions import questions
from luthier.evaluation.statistics import compare
from luthier.generation.sampling import Sampler, Sampling
from luthier.models.load import Loaded, load, save_note

Say = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """One model's scores: of every held-out example, of every answered prompt."""

    losses: list[Scored]
    answers: list[Scored]

    @property
    def scored(self) -> list[Scored]:
        """All of them, in an order that both sides share."""
        return [*self.losses, *self.answers]


def save_result(parts: Parts, folder: RunDir) -> None:
    """Writes ``model/``: what was trained, tokenizer, template, generation config."""
    temporary = folder.path / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    module = parts.loaded.model.module
    base = parts.loaded.model.base
    base.generation_config.eos_token_id = parts.codec.end_tokens
    base.generation_config.pad_token_id = parts.loaded.tokenizer.pad_token_id
    parts.method.save(module, temporary)
    base.generation_config.save_pretrained(temporary)
    parts.loaded.tokenizer.save_pretrained(temporary)
    note = {
        "base": parts.recipe.model.name,
        "objective": parts.recipe.objective.kind,
        "method": parts.recipe.method.kind,
        "end_tokens": parts.codec.end_tokens,
    }
    save_note(temporary, note)
    shutil.rmtree(folder.model, ignore_errors=True)
    temporary.rename(folder.model)


def judge(folder: RunDir, parts: Parts, say: Say) -> None:
    """Measures before and after, writes figures, samples, report and card."""
    start = time.perf_counter()
    recipe = parts.recipe
    prepare_host(recipe.training.threads)
    if parts.validation:
        examples, records = _held_out(parts)
        sides: dict[str, Side] = {}
        if recipe.evaluation.before:
            say(f"measuring the model before, on {len(records):,} held-out rows")
            sides["before"] = _side(
                parts, load_model(recipe, parts.train[0], say), examples, records
            )
            gc.collect()
        say("measuring the model after")
        sides["after"] = _side(parts, load(str(folder.path)), examples, records)
        figures = compared(recipe.evaluation, _metric_configs(parts), sides)
        _write(folder, sides, figures, len(records), time.perf_counter() - start)
        for line in table(figures):
            say(line)
    report.write(folder, finishing=True)
    card.write(folder)


def compared(
    spec: Any, configs: Sequence[Any], sides: Mapping[str, Side]
) -> dict[str, dict[str, Any]]:
    """Every metric's figures; without a model before, only ``after``."""
    figures: dict[str, dict[str, Any]] = {}
    for config in configs:
        made: dict[str, Metric] = {}
        for name, side in sides.items():
            made[name] = kinds.build("metrics", config)
            measure([made[name]], side.scored)
        if not any(len(rows) for rows in made["after"].rows().values()):
            continue
        if "before" not in made:
            made["before"] = made["after"]
        found = compare(made["before"], made["after"], resamples=spec.resamples)
        for name, figure in found.items():
            figures[name] = dict(figure)
            if "before" not in sides:
                for part in ("before", "difference", "interval", "p_value", "before_interval"):
                    figures[name][part] = None
    return figures


def table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The figures as lines of text under 80 columns."""
    lines = [f"{'':<16}{'before':>12}{'after':>12}   {'difference (95 % interval)':<28}{'p':>8}"]
    for name, f in figures.items():
        if f["before"] is None or f["interval"] is None:
            lines.append(f"{name:<16}{'':>12}{_short(f['after']):>12}")
            continue
        low, high = f["interval"]
        change = f"{_signed(f['difference'])} ({_signed(low)} to {_signed(high)})"
        lines.append(
            f"{name:<16}{_short(f['before']):>12}{_short(f['after']):>12}   {change:<28}"
            f"{_p(f['p_value']):>8}"
        )
    return lines


def _held_out(parts: Parts) -> tuple[list[Example], list[Record]]:
    assert parts.validation is not None
    part, encoded = parts.validation
    limit = parts.recipe.evaluation.rows
    examples = encoded.examples
    records = list(part.records[:limit])
    if limit is None:
        return list(examples), records
    kept = {record.origin for record in records}
    return [e for e in examples if e.origin in kept], records


def _side(
    parts: Parts, loaded: Loaded, examples: Sequence[Example], records: Sequence[Record]
) -> Side:
    spec = parts.recipe.evaluation
    losses = score_losses(loaded.model, examples, parts.codec)
    wanted = _wants_answers(parts)
    count = max(spec.generate_rows if wanted else 0, spec.samples)
    sampler = Sampler(
        loaded.model.generating, loaded.tokenizer, parts.codec.end_tokens, loaded.context
    )
    sampling = Sampling(max_new_tokens=min(spec.max_new_tokens, loaded.context // 2))
    asked = questions(records, examples, parts.codec, count)
    answers = score_answers(sampler, asked, sampling)
    return Side(losses, answers)


def _metric_configs(parts: Parts) -> list[Any]:
    configs = parts.recipe.evaluation.metrics
    if configs is None:
        return [kinds.config("metrics", name) for name in parts.objective.metrics]
    return list(configs)


def _wants_answers(parts: Parts) -> bool:
    made = [kinds.build("metrics", config) for config in _metric_configs(parts)]
    return any("answers" in metric.needs for metric in made)


def _write(
    folder: RunDir,
    sides: Mapping[str, Side],
    figures: Mapping[str, Any],
    rows: int,
    seconds: float,
) -> None:
    write_json(folder.evaluation, {"rows": rows, "metrics": figures, "seconds": round(seconds, 1)})
    write_lines(folder.scores, _score_lines(sides))
    after = sides["after"].answers
    before = sides["before"].answers if "before" in sides else [None] * len(after)
    write_lines(
        folder.samples,
        (
            {
                "prompt": b.prompt,
                "reference": b.references[0] if b.references else None,
                "before": a.answer if a else None,
                "after": b.answer,
                "origin": str(b.origin),
            }
            for a, b in zip(before, after, strict=True)
        ),
    )


def _score_lines(sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Per held-out example and model: summed loss, tokens, bytes, right tokens."""
    lines = []
    for name, side in sides.items():
        for item in side.losses:
            assert item.losses is not None
            assert item.correct is not None
            lines.append(
                {
                    "model": name,
                    "origin": str(item.origin),
                    "nll": float(item.losses.sum()),
                    "tokens": len(item.losses),
                    "bytes": item.bytes,
                    "correct": int(item.correct.sum()),
                }
            )
    return lines


def _short(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def _signed(value: float) -> str:
    return f"{value:+,.1f}" if abs(value) >= 100 else f"{value:+.3g}"


def _p(value: float | None) -> str:
    if value is None:
        return "—"
    return "< .001" if value < 0.001 else f"{value:.3f}"
