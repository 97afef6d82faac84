"""The saved result against the model it came from, on the same held-out rows."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Any

from luthier.assemble import Parts, held_out, load_model
from luthier.codecs import pair_note
from luthier.core import kinds
from luthier.core.contracts import FrozenColumns, Metric
from luthier.core.contracts_scores import Scoring
from luthier.core.contracts_tasks import Tasked, named
from luthier.core.contracts_weights import QuantizedBase
from luthier.core.records import Example, Record, Scored
from luthier.core.rundir import RunDir, write_json, write_lines
from luthier.core.words import many
from luthier.data.streams import PairCodec
from luthier.engine.probe import prepare_host
from luthier.evaluation import card, report
from luthier.evaluation.classes import class_figures
from luthier.evaluation.measure import likeliest, measure
from luthier.evaluation.preferring import with_columns
from luthier.evaluation.statistics import compare
from luthier.evaluation.tagging import entity_figures
from luthier.measuring import Side, cosine, measured, metric_configs, own_texts
from luthier.models.embedder import EmbeddingModel, save_beside
from luthier.models.heads import ClassifierModel
from luthier.models.load import PAIR, load, save_note
from luthier.models.several import SeveralModel
from luthier.models.token_heads import TaggerModel

Say = Callable[[str], None]


def save_result(parts: Parts, folder: RunDir) -> None:
    """Writes ``model/``: what was trained, tokenizer, template, generation config."""
    temporary = folder.path / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    loaded = parts.loaded
    note: dict[str, Any] = {
        "base": parts.recipe.model.name,
        "objective": parts.recipe.objective.kind,
        "method": parts.recipe.method.kind,
    }
    if isinstance(parts.method, QuantizedBase):
        note["quantized"] = {"kind": "nf4", "covers_rounding": parts.method.covers_rounding}
    if loaded.new_tokens:
        note["new_tokens"] = loaded.new_tokens
    if loaded.head is not None:
        note["head"] = asdict(loaded.head)
        loaded.model.base.config.pad_token_id = loaded.tokenizer.pad_token_id
        parts.method.save(loaded.model.module, temporary)
    else:
        note["end_tokens"] = parts.codec.end_tokens
        generation = loaded.model.base.generation_config
        generation.eos_token_id = parts.codec.end_tokens
        generation.pad_token_id = loaded.tokenizer.pad_token_id
        if isinstance(parts.codec, PairCodec):
            note[PAIR] = pair_note(parts.recipe)
            parts.codec.begin(generation)
        parts.method.save(loaded.model.module, temporary)
        generation.save_pretrained(temporary)
    if isinstance(loaded.model, EmbeddingModel) and (temporary / "config.json").is_file():
        width, length = int(loaded.model.config.hidden_size), parts.codec.max_length
        save_beside(temporary, loaded.model.pooling, width, length, cosine=cosine(parts))
    loaded.tokenizer.save_pretrained(temporary)
    save_note(temporary, note)
    shutil.rmtree(folder.model, ignore_errors=True)
    temporary.rename(folder.model)


def judge(folder: RunDir, parts: Parts, say: Say) -> None:
    """Measures before and after, writes figures, samples, report and card."""
    start = time.perf_counter()
    recipe = parts.recipe
    prepare_host(recipe.training.threads)
    if parts.validation or parts.retained:
        examples, records = _held_out(parts)
        own = own_texts(parts, say)
        sides: dict[str, Side] = {}
        objective: Any = parts.objective
        asked = isinstance(objective, FrozenColumns) and isinstance(objective, Scoring)
        if recipe.evaluation.before or asked:
            say(f"measuring the model before, on {len(records):,} held-out rows")
            loaded = load_model(recipe, parts.objective, parts.train[0], say)
            if asked:  # what answers are worth is said against this model
                examples = with_columns(loaded.model, objective, examples)
            if recipe.evaluation.before:
                sides["before"] = measured(parts, loaded, examples, records, own)
            del loaded
            gc.collect()
        say("measuring the model after")
        sides["after"] = measured(parts, load(str(folder.path)), examples, records, own)
        configs = [] if isinstance(parts.objective, Tasked) else metric_configs(parts)
        figures = compared(recipe.evaluation, configs, sides)
        apart, old = by_source(parts, sides), _forgotten(parts, sides)
        tasks = by_task(parts, sides)
        for name, task in tasks.items():
            figures |= {f"{name}.{metric}": each for metric, each in task["metrics"].items()}
        more = {"tasks": tasks, "sources": apart, "retained": old}
        _write(folder, parts, sides, figures, more, time.perf_counter() - start)
        for line in table(figures):
            say(line)
        for name, source in apart.items():
            say(f"of these, {many(source['rows'], 'row')} of {name}")
            for line in table(source["metrics"])[1:]:
                say(line)
        if old:
            say(f"on {old['rows']:,} old rows (retain):")
        for line in table(old["metrics"]) if old else ():
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


def by_source(parts: Parts, sides: Mapping[str, Side]) -> dict[str, dict[str, Any]]:
    """Rows and figures of each source of a mixture, where several are held out."""
    mixed = parts.validation[0].mixed if parts.validation else {}
    if len(set(mixed.values())) < 2:
        return {}
    spec = parts.recipe
    found: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(spec.data.mixture or ()):
        files = {file for file, place in mixed.items() if place == number}
        own = {name: side.of(files) for name, side in sides.items()}
        if rows := {scored.origin for scored in own["after"].held}:
            figures = compared(spec.evaluation, metric_configs(parts), own)
            found[entry.name(number)] = {"rows": len(rows), "metrics": figures}
    return found


def by_task(parts: Parts, sides: Mapping[str, Side]) -> dict[str, dict[str, Any]]:
    """Rows, figures and classes of each of several tasks."""
    objective, model = parts.objective, parts.loaded.model
    if not isinstance(objective, Tasked):
        return {}
    assert isinstance(model, SeveralModel)
    found: dict[str, dict[str, Any]] = {}
    for name, task in objective.tasks.items():
        files = {s.origin.source for s in sides["after"].held if named(s.origin) == name}
        own = {side: each.of(files) for side, each in sides.items()}
        rows = len({scored.origin for scored in own["after"].held})
        figures = compared(parts.recipe.evaluation, metric_configs(parts, task), own)
        found[name] = {"kind": task.config.kind, "rows": rows, "metrics": figures}
        if rows:
            before = own["before"].held if "before" in own else None
            found[name] |= _labels(model.view(name), before, own["after"].held)
    return found


def table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The figures as lines of text under 80 columns."""
    wide = max([14, *map(len, figures)]) + 1
    lines = [
        f"{'':<{wide}}{'before':>12}{'after':>12}   {'difference (95 % interval)':<28}{'p':>7}"
    ]
    for name, f in figures.items():
        if f["before"] is None or f["interval"] is None:
            lines.append(f"{name:<{wide}}{'':>12}{_short(f['after']):>12}")
            continue
        low, high = f["interval"]
        change = f"{_signed(f['difference'])} ({_signed(low)} to {_signed(high)})"
        lines.append(
            f"{name:<{wide}}{_short(f['before']):>12}{_short(f['after']):>12}   {change:<28}"
            f"{_p(f['p_value']):>7}"
        )
    return lines


def _forgotten(parts: Parts, sides: Mapping[str, Side]) -> dict[str, Any] | None:
    """The figures on old rows, before and after."""
    if parts.retained is None:
        return None
    configs = [kinds.config("metrics", name) for name in parts.retained.objective.metrics]
    old = {name: Side(side.old, [], []) for name, side in sides.items()}
    rows = len({scored.origin for scored in old["after"].held})
    return {"rows": rows, "metrics": compared(parts.recipe.evaluation, configs, old)}


def _held_out(parts: Parts) -> tuple[list[Example], list[Record]]:
    if parts.validation is None:
        return [], []
    part, _ = parts.validation
    limit = parts.recipe.evaluation.rows
    examples = held_out(parts)
    records = list(part.records[:limit])
    if limit is None:
        return list(examples), records
    kept = {record.origin for record in records}
    return [e for e in examples if e.origin in kept], records


def _write(
    folder: RunDir,
    parts: Parts,
    sides: Mapping[str, Side],
    figures: Mapping[str, Any],
    more: Mapping[str, Any],
    seconds: float,
) -> None:
    after, before = sides["after"], sides.get("before")
    rows = len({scored.origin for scored in after.held or after.answers})
    said: dict[str, Any] = {"rows": rows, "metrics": figures, "seconds": round(seconds, 1)}
    said |= {name: value for name, value in more.items() if value}
    if not isinstance(parts.objective, Scoring):
        said |= _labels(parts.loaded.model, before.held if before else None, after.held)
    write_json(folder.evaluation, said)
    write_lines(folder.scores, _score_lines(sides))
    write_lines(folder.samples, _samples(before, after, parts.recipe.evaluation.samples))


def _labels(model: Any, before: list[Scored] | None, after: list[Scored]) -> dict[str, Any]:
    """Figures class by class, or type by type."""
    if isinstance(model, ClassifierModel):
        return {"classes": class_figures(model.labels, before, after)}
    if isinstance(model, TaggerModel):
        return {"entities": entity_figures(model.labels, before, after)}
    return {}


def _samples(before: Side | None, after: Side, count: int) -> Iterator[dict[str, Any]]:
    """The user's own prompts, then answers or a classifier's first rows, side by side."""
    shown = [*after.own, *(after.answers or after.held[:count])]
    old: Sequence[Scored | None] = [None] * len(shown)
    if before is not None:
        old = [*before.own, *(before.answers or before.held[:count])]
    for a, b in zip(old, shown, strict=True):
        if b.answer is None:
            continue
        line: dict[str, Any] = {
            "prompt": b.prompt,
            "reference": b.references[0] if b.references else None,
            "before": a.answer if a else None,
            "after": b.answer,
            "origin": str(b.origin),
        }
        if b.probabilities is not None and not isinstance(b.label, float):
            line["before_probability"] = likeliest(a) if a else None
            line["after_probability"] = likeliest(b)
        yield line


def _score_lines(sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Per held-out example and model: summed loss, tokens, bytes, right tokens; or classes."""
    lines = []
    for name, side in sides.items():
        for item in side.held:
            line: dict[str, Any] = {"model": name, "origin": str(item.origin)}
            if item.probabilities is not None:
                line["label"] = item.references[0] if item.references else None
                line["predicted"] = item.answer
                line["probabilities"] = [round(float(p), 6) for p in item.probabilities]
            elif item.rank is not None:
                line["rank"] = item.rank
            elif item.scores is not None:
                line["scores"] = [round(float(score), 6) for score in item.scores]
            else:
                assert item.losses is not None
                assert item.correct is not None
                line["nll"] = float(item.losses.sum())
                line["tokens"] = len(item.losses)
                line["bytes"] = item.bytes
                line["correct"] = int(item.correct.sum())
            if item.said_spans is not None:
                line["entities"] = [list(astuple(each)) for each in item.spans or ()]
                line["predicted"] = [list(astuple(each)) for each in item.said_spans]
            lines.append(line)
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
