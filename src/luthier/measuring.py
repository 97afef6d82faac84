"""One model's scores on what a run holds out, whatever its head does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from luthier.assemble import Parts, arranged_once
from luthier.codecs import decoder_prompt
from luthier.core import kinds
from luthier.core.contracts import OnlineObjective
from luthier.core.contracts_scores import Scoring
from luthier.core.contracts_tasks import Tasked, named, of_task
from luthier.core.records import Example, Origin, Record, Scored
from luthier.evaluation.masking import score_masked
from luthier.evaluation.measure import (
    score_answers,
    score_classes,
    score_losses,
    text_examples,
)
from luthier.evaluation.preferring import score_preferences
from luthier.evaluation.questions import own_questions, questions, spoken
from luthier.evaluation.retrieving import score_retrieval
from luthier.evaluation.tagging import score_tags, score_texts, tagging_examples
from luthier.generation.sampling import Sampler, Sampling
from luthier.models.embedder import EmbeddingModel
from luthier.models.heads import ClassifierModel
from luthier.models.load import Loaded
from luthier.models.masked_lm import MaskedModel
from luthier.models.several import SeveralModel
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


def own_texts(parts: Parts, say: Say) -> list[Example]:
    """``evaluation.prompts`` as a classifier reads them; what is cut of them is said."""
    prompts = parts.recipe.evaluation.prompts
    if parts.loaded.head is None:
        return []
    scoring = isinstance(parts.objective, Scoring)
    if scoring or isinstance(parts.loaded.model, MaskedModel):
        if prompts:
            kind = "a reward model" if scoring else "a masked language model"
            say(f"evaluation.prompts: without effect, {kind} answers nothing")
        return []
    if isinstance(parts.loaded.model, SeveralModel):
        reads = {part.kind for part in parts.loaded.model.head.parts}
        _, notices = text_examples(prompts, parts.codec) if "classification" in reads else ([], [])
        for line in notices:
            say(f"evaluation.prompts: {line}")
        return []
    make = tagging_examples if isinstance(parts.loaded.model, TaggerModel) else text_examples
    own, notices = make(prompts, parts.codec)
    for line in notices:
        say(f"evaluation.prompts: {line}")
    return own


def measured(
    parts: Parts,
    loaded: Loaded,
    examples: Sequence[Example],
    records: Sequence[Record],
    own: Sequence[Example],
) -> Side:
    """A model's scores of the held-out examples, of the user's own texts and of old rows."""
    spec = parts.recipe.evaluation
    model = loaded.model
    if isinstance(model, SeveralModel):
        return _of_tasks(parts, model, examples, records)
    kept, known = _retained(parts)
    if isinstance(parts.objective, Scoring) and isinstance(model, ClassifierModel):
        shown = {record.origin: record for record in records}
        held = score_preferences(model, parts.objective, examples, shown)
        old = _old(parts, model, kept, lambda rows: score_classes(model, rows))
        return Side(held, [], [], old)
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
        alike = cosine(parts)
        held = score_retrieval(model, examples, parts.codec, cosine=alike)
        old = score_retrieval(model, kept, parts.codec, cosine=alike) if kept else []
        return Side(held, [], [], old)
    if isinstance(model, MaskedModel):
        held = score_masked(model, examples, parts.codec, spec.samples)
        return Side(held, [], [], score_losses(model, kept, parts.codec) if kept else [])
    if isinstance(parts.objective, Scoring):
        losses = score_preferences(model, parts.objective, examples, {})
    elif isinstance(parts.objective, OnlineObjective):  # its rows have no targets
        losses = []
    else:
        losses = score_losses(model, examples, parts.codec)
    old = _old(parts, model, kept, lambda rows: score_losses(model, rows, parts.codec))
    wanted = _wants_answers(parts)
    count = max(spec.generate_rows if wanted else 0, spec.samples)
    begins, ends = decoder_prompt(parts.codec), parts.codec.end_tokens
    sampler = Sampler(model.generating, loaded.tokenizer, ends, loaded.context, begins)
    new = min(spec.max_new_tokens, loaded.context // 2)
    sampling = Sampling(new, seed=parts.recipe.training.seed, **spec.generation)
    stop = tuple(getattr(parts.objective.config, "stop", ()))  # what ends a sampled answer
    if stop and not sampling.stop:
        sampling = replace(sampling, stop=stop)
    asked = questions(records, examples, parts.codec, count)
    answers = score_answers(sampler, asked, sampling)
    answers = rewarded(parts.objective, parts.rewards, records, answers)
    asked = own_questions(spec.prompts, parts.codec)
    return Side(losses, answers, score_answers(sampler, asked, sampling), old)


def _old(
    parts: Parts, model: Any, kept: list[Example], plain: Callable[[list[Example]], list[Scored]]
) -> list[Scored]:
    """The rows that the run must not forget: answers by their worth, others as they are."""
    if not kept or parts.retained is None:
        return []
    objective = parts.retained.objective
    if isinstance(objective, Scoring):
        return score_preferences(model, objective, kept, {})
    return plain(kept)


def _of_tasks(
    parts: Parts, model: SeveralModel, examples: Sequence[Example], records: Sequence[Record]
) -> Side:
    """Each task's rows by its own head, and every prompt answered by all that label."""
    objective, spec = parts.objective, parts.recipe.evaluation
    assert isinstance(objective, Tasked)
    held: list[Scored] = []
    for name in objective.tasks:
        mine = [objective.own(e)[1] for e in examples if named(e.origin) == name]
        if mine:
            held += _by_head(parts, model.view(name), mine, of_task(records, name))
    return Side(held, [], [_all_said(parts, model, n, t) for n, t in enumerate(spec.prompts, 1)])


def _by_head(
    parts: Parts, model: Any, examples: Sequence[Example], records: Sequence[Record]
) -> list[Scored]:
    if isinstance(model, ClassifierModel):
        texts = {record.origin: spoken(record) for record in records}
        return score_classes(model, examples, [texts[e.origin] for e in examples])
    if isinstance(model, TaggerModel):
        return score_tags(model, examples, records)
    if isinstance(model, MaskedModel):
        return score_masked(model, examples, parts.codec, parts.recipe.evaluation.samples)
    return score_losses(model, examples, parts.codec)


def _all_said(parts: Parts, model: SeveralModel, line: int, text: str) -> Scored:
    """What every head that labels says of a text, a line each."""
    said = []
    for part in model.head.parts:
        view = model.view(part.name)
        if isinstance(view, ClassifierModel):
            [found] = score_classes(view, text_examples([text], parts.codec)[0])
        elif isinstance(view, TaggerModel):
            [found] = score_texts(view, tagging_examples([text], parts.codec)[0], [text])
        else:
            continue
        said.append(f"{part.name}: {found.answer}")
    return Scored(Origin("prompt", line), prompt=text, answer="\n".join(said) or None)


def cosine(parts: Parts) -> bool:
    """Whether the lengths of vectors mean nothing."""
    return bool(getattr(parts.objective.config, "similarity", "cosine") == "cosine")


def _retained(parts: Parts) -> tuple[list[Example], Sequence[Record]]:
    """The old rows that are measured, in tokens and as they are; none where there are none."""
    if parts.retained is None:
        return [], ()
    part, encoded = parts.retained.held
    seed = parts.recipe.training.seed
    return list(arranged_once(parts.retained.objective, encoded.examples, seed)), part.records


def metric_configs(parts: Parts, objective: Any = None) -> list[Any]:
    """The metrics that the recipe names, or the objective's own, or a task's."""
    configs = parts.recipe.evaluation.metrics
    if configs is None:
        return [kinds.config("metrics", name) for name in (objective or parts.objective).metrics]
    return list(configs)


def _wants_answers(parts: Parts) -> bool:
    made = [kinds.build("metrics", config) for config in metric_configs(parts)]
    return any(metric.needs & {"answers", "rewards"} for metric in made)
