"""The saved result against the model it came from, on the same held-out rows."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

from luthier.assemble import Parts, arranged_once, held_out, load_model
from luthier.codecs import decoder_prompt, pair_note
from luthier.core import kinds
from luthier.core.contracts import Metric, OnlineObjective
from luthier.core.contracts_weights import QuantizedBase
from luthier.core.records import Example, Record, Scored
from luthier.core.rundir import RunDir, write_json, write_lines
from luthier.core.words import many
from luthier.data.streams import PairCodec
from luthier.engine.probe import prepare_host
from luthier.evaluation import card, report
from luthier.evaluation.classes import class_figures
from luthier.evaluation.masking import score_masked
from luthier.evaluation.measure import (
    likeliest,
    measure,
    score_answers,
    score_classes,
    score_losses,
    text_examples,
)
from luthier.evaluation.questions import own_questions, questions, spoken
from luthier.evaluation.retrieving import score_retrieval
from luthier.evaluation.statistics import compare
from luthier.evaluation.tagging import entity_figures, score_tags, score_texts, tagging_examples
from luthier.generation.sampling import Sampler, Sampling
from luthier.models.embedder import EmbeddingModel, save_beside
from luthier.models.heads import ClassifierModel
from luthier.models.load import PAIR, Loaded, load, save_note
from luthier.models.masked_lm import MaskedModel
from luthier.models.token_heads import TaggerModel
from luthier.reward_models import rewarded

Say = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """One model's scores: of every held-out example, every answered prompt, the user's own.

    And of the old rows that the run must not forget.
    """

    held: list[Scored]
    answers: list[Scored]
    own: list[Scored]
    old: list[Scored] = field(default_factory=list)

    @property
    def scored(self) -> list[Scored]:
        """All of them, in an order that both sides share."""
        return [*self.held, *self.answers]

    def of(self, files: AbstractSet[str]) -> Side:
        """Those of some files alone, the user's own left out."""
        held, answers = (
            [each for each in scored if each.origin.source in files]
            for scored in (self.held, self.answers)
        )
        return Side(held, answers, [])


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
        save_beside(temporary, loaded.model.pooling, width, length, cosine=_cosine(parts))
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
        own = _own_texts(parts, say)
        sides: dict[str, Side] = {}
        if recipe.evaluation.before:
            say(f"measuring the model before, on {len(records):,} held-out rows")
            loaded = load_model(recipe, parts.objective, parts.train[0], say)
            sides["before"] = _side(parts, loaded, examples, records, own)
            del loaded
            gc.collect()
        say("measuring the model after")
        sides["after"] = _side(parts, load(str(folder.path)), examples, records, own)
        figures = compared(recipe.evaluation, _metric_configs(parts), sides)
        apart, old = by_source(parts, sides), _forgotten(parts, sides)
        more = {"sources": apart, "retained": old}
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
            figures = compared(spec.evaluation, _metric_configs(parts), own)
            found[entry.name(number)] = {"rows": len(rows), "metrics": figures}
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


def _own_texts(parts: Parts, say: Say) -> list[Example]:
    """``evaluation.prompts`` as a classifier reads them; what is cut of them is said."""
    prompts = parts.recipe.evaluation.prompts
    if isinstance(parts.loaded.model, MaskedModel):
        if prompts:
            say("evaluation.prompts: without effect, a masked language model answers nothing")
        return []
    if parts.loaded.head is None:
        return []
    make = tagging_examples if isinstance(parts.loaded.model, TaggerModel) else text_examples
    own, notices = make(prompts, parts.codec)
    for line in notices:
        say(f"evaluation.prompts: {line}")
    return own


def _side(
    parts: Parts,
    loaded: Loaded,
    examples: Sequence[Example],
    records: Sequence[Record],
    own: Sequence[Example],
) -> Side:
    spec = parts.recipe.evaluation
    model = loaded.model
    kept, known = _retained(parts)
    if isinstance(model, ClassifierModel):
        texts = {record.origin: spoken(record) for record in records}
        held = score_classes(model, examples, [texts[e.origin] for e in examples])
        said = score_classes(model, own, spec.prompts) if own else []
        return Side(held, [], said, score_classes(model, kept) if kept else [])
    if isinstance(model, TaggerModel):
        held = score_tags(model, examples, records)
        said = score_texts(model, own, spec.prompts) if own else []
        return Side(held, [], said, score_tags(model, kept, known) if kept else [])
    if isinstance(model, EmbeddingModel):
        cosine = _cosine(parts)
        held = score_retrieval(model, examples, parts.codec, cosine=cosine)
        old = score_retrieval(model, kept, parts.codec, cosine=cosine) if kept else []
        return Side(held, [], [], old)
    if isinstance(model, MaskedModel):
        held = score_masked(model, examples, parts.codec, spec.samples)
        return Side(held, [], [], score_losses(model, kept, parts.codec) if kept else [])
    online = isinstance(parts.objective, OnlineObjective)  # its rows have no targets
    losses = [] if online else score_losses(model, examples, parts.codec)
    old = score_losses(model, kept, parts.codec) if kept else []
    wanted = _wants_answers(parts)
    count = max(spec.generate_rows if wanted else 0, spec.samples)
    begins, ends = decoder_prompt(parts.codec), parts.codec.end_tokens
    sampler = Sampler(model.generating, loaded.tokenizer, ends, loaded.context, begins)
    new = min(spec.max_new_tokens, loaded.context // 2)
    sampling = Sampling(new, num_beams=spec.num_beams, length_penalty=spec.length_penalty)
    sampling = replace(sampling, stop=tuple(getattr(parts.objective.config, "stop", ())))
    asked = questions(records, examples, parts.codec, count)
    answers = score_answers(sampler, asked, sampling)
    answers = rewarded(parts.objective, parts.rewards, records, answers)
    asked = own_questions(spec.prompts, parts.codec)
    return Side(losses, answers, score_answers(sampler, asked, sampling), old)


def _cosine(parts: Parts) -> bool:
    """Whether the lengths of vectors mean nothing."""
    return bool(getattr(parts.objective.config, "similarity", "cosine") == "cosine")


def _retained(parts: Parts) -> tuple[list[Example], Sequence[Record]]:
    """The old rows that are measured, in tokens and as they are; none where there are none."""
    if parts.retained is None:
        return [], ()
    part, encoded = parts.retained.held
    seed = parts.recipe.training.seed
    return list(arranged_once(parts.retained.objective, encoded.examples, seed)), part.records


def _metric_configs(parts: Parts) -> list[Any]:
    configs = parts.recipe.evaluation.metrics
    if configs is None:
        return [kinds.config("metrics", name) for name in parts.objective.metrics]
    return list(configs)


def _wants_answers(parts: Parts) -> bool:
    made = [kinds.build("metrics", config) for config in _metric_configs(parts)]
    return any(metric.needs & {"answers", "rewards"} for metric in made)


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
    model, earlier = parts.loaded.model, before.held if before else None
    if isinstance(model, ClassifierModel):
        said["classes"] = class_figures(model.labels, earlier, after.held)
    if isinstance(model, TaggerModel):
        said["entities"] = entity_figures(model.labels, earlier, after.held)
    write_json(folder.evaluation, said)
    write_lines(folder.scores, _score_lines(sides))
    write_lines(folder.samples, _samples(before, after, parts.recipe.evaluation.samples))


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
