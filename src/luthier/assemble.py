"""From a recipe to the parts of its run: data, model, objective, method, plan."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from luthier import answers, companions
from luthier.codecs import check_streams, make_codec
from luthier.core import cache, kinds
from luthier.core.contracts import (
    POLICY_HEADS,
    Method,
    Objective,
    OnlineObjective,
    Reward,
    Settling,
)
from luthier.core.contracts_beside import Answered
from luthier.core.contracts_scores import Scoring
from luthier.core.contracts_tasks import Tasked, of_task
from luthier.core.contracts_text import Tokenized
from luthier.core.contracts_weights import QuantizedBase
from luthier.core.errors import RecipeError
from luthier.core.findings import Findings
from luthier.core.recipe import ModelSpec, Recipe, TokenizerSpec
from luthier.core.records import (
    Conversation,
    ConversationTree,
    Example,
    Preference,
    Ranking,
    Record,
    SourceTarget,
    Text,
    Thumb,
)
from luthier.core.workers import processes
from luthier.data import contents
from luthier.data.checks._base import Tokens
from luthier.data.checks.tokens import Judge
from luthier.data.mixture import balanced, drawing
from luthier.data.order import generator
from luthier.data.parts import Part
from luthier.data.prepare import Encoded, encode
from luthier.data.sides import ChangedError, known_parts
from luthier.data.sides import settle as settle_on
from luthier.data.template import TokenizerCodec
from luthier.data.vetting import settle, vet
from luthier.data_models import OpenedModels
from luthier.models.encoder_decoder import is_encoder_decoder
from luthier.models.load import (
    Loaded,
    from_scratch,
    known_head,
    load,
    locate,
    tokenizer_at,
)
from luthier.models.tokenizer import train_tokenizer
from luthier.objectives._pulled import Pulled
from luthier.retaining import Drawn, Retained, replayed, retained
from luthier.reward_models import open_rewards

Say = Callable[[str], None]

#: In the key of the generator that arranges held-out examples; no epoch is.
_HELD_OUT = 2**31


#: What the template path counts, in words.
TEMPLATE_EVENTS = {
    "special_text": "times text spelled a special token and stayed plain text",
    "system_merged": "system turns merged into the first user turn",
    "system_dropped": "system turns left out",
    "tool_as_user": "tool turns rendered as user turns",
    "tools_unseen": "declarations of tools that the template does not show",
    "calls_as_text": "turns whose calls are written as JSON, for the template knows none",
    "thinking_dropped": "thinking parts left out",
    "thinking_masked": "thinking parts read and not learned",
    "spurious_space": "answers where the tokenizer adds a space",
    "words_unseen": "words of which the tokenizer leaves nothing",
}


#: Kind of head -> what a model with it is, and the objective for it.
_OTHERS = {
    "classification": ("a classifier", "classification"),
    "token_classification": ("a classifier of tokens", "token_classification"),
    "embedding": ("a sentence encoder", "embedding, or classification"),
    "several": ("a trunk with several heads", "several, with its tasks"),
    "masked_lm": ("an encoder that guesses masked tokens", "masked_lm, or classification"),
}


@dataclass
class Parts:
    """Everything a run is made of, before anything is trained.

    Attributes:
        recipe: the resolved recipe.
        objective: what is optimised.
        method: which parameters are trained.
        loaded: model and tokenizer.
        codec: the one path from turns to tokens.
        train: training records and examples.
        validation: held-out ones, or ``None``.
        drawing: what an epoch draws, and its pools, where that is not every example once.
        retained: old rows that the run must not forget.
        companions: teachers and the like, without their weights.
        rewards: what answers earn, by name, of an objective that samples.
    """

    recipe: Recipe
    objective: Objective
    method: Method
    loaded: Loaded
    codec: TokenizerCodec
    train: tuple[Part, Encoded]
    validation: tuple[Part, Encoded] | None
    drawing: Drawn | None = None
    retained: Retained | None = None
    companions: Mapping[str, companions.Seen] = field(default_factory=dict)
    rewards: Mapping[str, Reward] = field(default_factory=dict)


def assemble(recipe: Recipe, say: Say, *, vetting: bool = True, verify: bool = False) -> Parts:
    """Reads the data, checks it, loads the model, encodes the examples.

    Args:
        recipe: of one run.
        say: takes a line for the user.
        vetting: whether the data is checked as ``data.check`` says.
        verify: read all rows though they are known; see :mod:`luthier.data.sides`.

    Raises:
        UserError: whatever of the three is wrong, with its place and cure.
    """
    try:
        return _assembled(recipe, say, vetting, verify)
    except ChangedError as error:
        say(f"begun anew: {error}")
        return _assembled(recipe, say, vetting, verify)


def _assembled(recipe: Recipe, say: Say, vetting: bool, verify: bool) -> Parts:
    objective: Objective = kinds.build("objectives", recipe.objective)
    method: Method = kinds.build("methods", recipe.method)
    models = OpenedModels(recipe.training.device)
    first, second = known_parts(
        recipe.data, objective, recipe.training.seed, say, models, verify=verify
    )
    if vetting:
        for sides in _by_task(objective, first, second):
            vetted(recipe, sides, say)
    recipe, objective = settled(recipe, objective, first)
    if recipe.data.balance is not None:
        balanced(objective)  # refuses before weights load
    seen = companions.look(recipe, objective)
    rewards = open_rewards(objective, recipe.training.device, say)
    if isinstance(objective, Answered):
        first = answers.answer(first, objective, recipe.training.device, say)
    loaded = load_model(recipe, objective, first, say)
    codec = make_codec(recipe, loaded)
    if isinstance(objective, Tokenized):
        objective = objective.with_codec(codec)
    for line in (*loaded.said, *codec.said):
        say(line)
    train, held = (
        (part, encoded(recipe, part, objective, loaded, codec, say if vetting else None))
        if part
        else None
        for part in (first, second)
    )
    assert train is not None
    for name, pair in (("train", train), ("validation", held)):
        if pair is not None:
            say(describe(name, pair[1].counts, noun(objective)))
    drawn = drawing(recipe.data, objective, train[0], train[1].examples)
    kept = retained(recipe, objective, codec, say)
    if kept and kept.replayed and recipe.retain:
        old = kept.replayed[1].examples
        joined, drawn = replayed(train[1].examples, drawn, old, recipe.retain.replay)
        train = (train[0], replace(train[1], examples=joined))
    for line in drawn[0].lines() if drawn else ():
        say(line)
    return Parts(recipe, objective, method, loaded, codec, train, held, drawn, kept, seen, rewards)


def settled(recipe: Recipe, objective: Objective, part: Part) -> tuple[Recipe, Objective]:
    """Both with what only the rows, or the models that exist, can say (a classifier's classes).

    Where the recipe asks for a pull towards the start, the objective has it from here on.

    Raises:
        UserError: no such model, or records that the objective cannot settle on.
    """
    if recipe.retain is not None and recipe.retain.kl:
        kept: Any = Pulled(objective, recipe.model.name, recipe.retain.kl)
        return recipe, kept
    if not isinstance(objective, Settling):
        return recipe, objective
    known = companions.labels_of(objective)
    head = None if known else known_head(recipe.model)
    if head is not None:
        known = head.labels
    if isinstance(objective, Tasked):  # it must see a row of each task, whatever is kept
        parts = {} if head is None else {each.name: each.labels for each in head.parts}
        made = cast("Settling", objective.knowing(parts)).settled(part.records, known)
    else:
        made = settle_on(objective, part, known)
    return recipe.model_copy(update={"objective": made.config}), made


def _by_task(
    objective: Objective, first: Part, second: Part | None
) -> Iterator[tuple[Part, Part | None]]:
    """Both sides; of several tasks each by itself, for a label of one says nothing to another."""
    if not isinstance(objective, Tasked):
        yield first, second
        return
    for name in objective.tasks:
        sides = [
            replace(
                part,
                records=tuple(of_task(part.records, name)),
                fingerprint=cache.key(part.fingerprint, "task", name),
            )
            if part
            else None
            for part in (first, second)
        ]
        if sides[0] is not None:
            yield sides[0], sides[1]


def vetted(recipe: Recipe, parts: tuple[Part, Part | None], say: Say) -> None:
    """Checks a run's records as ``data.check`` says; those that were made are left out.

    Raises:
        DataError: they have errors, and the recipe does not say to go on.
    """
    spec = recipe.data
    if spec.check != "off":
        share = float(spec.validation) if isinstance(spec.validation, int | float) else 0.0
        classes = tuple(getattr(recipe.objective, "classes", None) or ())
        found = vet(*parts, share, classes, processes(spec.workers))
        settle(found, spec.check, say)


def encoded(
    recipe: Recipe,
    part: Part,
    objective: Objective,
    loaded: Loaded,
    codec: TokenizerCodec,
    say: Say | None,
) -> Encoded:
    """One side in tokens, these checked as ``data.check`` says; unless ``say`` is ``None``.

    Raises:
        DataError: tokens have errors, and the recipe does not say to go on.
    """
    spec = recipe.data
    trunk: Any = loaded.model.trunk
    rows = int(trunk.get_input_embeddings().weight.shape[0])
    policy = objective.overlong if spec.overlong == "auto" else spec.overlong
    made = encode(part, spec, objective, codec, Judge(Tokens(objective, codec, rows, policy)))
    if say is not None and spec.check != "off":
        settle(Findings.of(made.counts["findings"]), spec.check, say)
    return made


def noun(objective: Objective) -> str:
    """What the targets of an objective are, where its data are described."""
    if isinstance(objective, OnlineObjective):
        return "of them learned yet: answers will be sampled"
    kinds_of_head = {head.kind for head in objective.heads}
    if "lm" in kinds_of_head:
        return "of them learned"
    if isinstance(objective, Scoring):
        return "answers"
    return "of them to be hidden in turn" if "masked_lm" in kinds_of_head else "labels"


def held_out(parts: Parts) -> Sequence[Example]:
    """The held-out examples as every measurement sees them: arranged once."""
    if parts.validation is None:
        return []
    return arranged_once(parts.objective, parts.validation[1].examples, parts.recipe.training.seed)


def arranged_once(
    objective: Objective, examples: Sequence[Example], seed: int
) -> Sequence[Example]:
    """Examples arranged by a generator of their own; as they are where nothing is to change."""
    first = list(examples[:1])
    if objective.arrange(first, generator(seed, _HELD_OUT)) is first:
        return examples
    return list(objective.arrange(list(examples), generator(seed, _HELD_OUT)))


def load_model(recipe: Recipe, objective: Objective, part: Part | None, say: Say) -> Loaded:
    """The recipe's model, pretrained or from scratch (with a tokenizer from ``part``'s text).

    Raises:
        RecipeError: a model without the head that the objective reads.
    """
    own = [head for head in objective.heads if head.kind not in POLICY_HEADS]
    kind = recipe.objective.kind
    if recipe.model.architecture is None:
        method = kinds.build("methods", recipe.method)
        loaded = load(
            recipe.model,
            head=own[0] if own else None,
            seed=recipe.training.seed,
            quantize=isinstance(method, QuantizedBase) and method.quantize_on_load,
        )
        if loaded.head is not None and not own:
            what, cure = _OTHERS.get(loaded.head.kind, _OTHERS["classification"])
            raise RecipeError(
                f"'{recipe.model.name}' is {what}, and '{kind}' learns with a language model",
                cure=f"name a language model, or set objective: {cure}",
            )
        check_streams(loaded, objective, recipe)
        return loaded
    if own:
        raise RecipeError(
            f"'{kind}' needs a pretrained model, and model.architecture starts from scratch",
            cure="pretrain one first (objective: language_modeling), or name one",
        )
    tokenizer = scratch_tokenizer(recipe.model, part, say)
    loaded = from_scratch(recipe.model, tokenizer, recipe.training.seed)
    check_streams(loaded, objective, recipe)
    return loaded


def scratch_tokenizer(spec: ModelSpec, part: Part | None, say: Say) -> Any:
    """The tokenizer of a model from scratch: one that exists, or one trained on the run's text."""
    from transformers import AutoTokenizer

    if isinstance(spec.tokenizer, str):
        return tokenizer_at(locate(spec.tokenizer, weights=False))
    settings = spec.tokenizer or TokenizerSpec()
    assert part is not None
    ends = is_encoder_decoder(spec)
    known = (part.fingerprint, settings.model_dump(), *(["ends"] if ends else []))
    folder = cache.place("tokenizers", cache.key(*known))
    if not (folder / "tokenizer.json").is_file():
        say(f"training a tokenizer of {settings.vocab_size:,} tokens on the training text")
        records = list(part.records)
        random.Random(0).shuffle(records)
        texts = (text for record in records[: settings.sample] for text in texts_of(record))
        with cache.made(folder) as whole:
            trained = train_tokenizer(texts, settings.vocab_size, ends=ends)
            trained.save_pretrained(whole)
    return AutoTokenizer.from_pretrained(folder)


def texts_of(record: Record) -> list[str]:
    """The texts of a record, for a tokenizer to learn from."""
    if isinstance(record, Text):
        return [record.text]
    if isinstance(record, Conversation):
        return [turn.content for turn in record.turns]
    if isinstance(record, ConversationTree):
        return [node.turn.content for node in record.nodes]
    if isinstance(record, SourceTarget):
        return [record.source, record.target]
    if isinstance(record, Preference | Ranking | Thumb):
        return [contents.prompt(record), *contents.answers(record)]
    return []


def describe(name: str, counts: dict[str, Any], noun: str = "of them learned") -> str:
    """One line on a side of the data, whatever was cut named; ``noun`` is what targets are."""
    line = (
        f"{name}: {counts['rows']:,} rows, {counts['examples']:,} examples, "
        f"{counts['tokens']:,} tokens, {counts['targets']:,} {noun}"
    )
    if made := sum(step["made"] for step in counts.get("augmented", {}).values()):
        line += f"; {made:,} of the rows made by data.augment"
    cut = counts["cut"]
    if cut["windows"]:
        line += f"; {cut['examples']:,} long documents divided into {cut['windows']:,} windows"
    if cut["tokens"] or cut["dropped"]:
        line += (
            f"; {cut['tokens']:,} tokens cut away ({cut['targets']:,} learned ones), "
            f"{cut['dropped']:,} examples dropped"
        )
    for event, number in counts["template"].items():
        line += f"; {number:,} {TEMPLATE_EVENTS.get(event, event)}"
    if counts["skipped"]:
        line += f"; {counts['skipped']:,} rows skipped"
    return line
