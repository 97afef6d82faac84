"""From a recipe to the parts of its run: data, model, objective, method, plan."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from luthier.core import cache, kinds
from luthier.core.contracts import Method, Objective, Settling
from luthier.core.errors import RecipeError
from luthier.core.findings import Findings
from luthier.core.recipe import ModelSpec, Recipe, TokenizerSpec
from luthier.core.records import Conversation, ConversationTree, Record, Text
from luthier.data.checks._base import Tokens
from luthier.data.checks.tokens import Judge
from luthier.data.mixture import Drawing, balanced, drawing
from luthier.data.order import Pool
from luthier.data.parts import Part, read_parts
from luthier.data.prepare import Encoded, encode
from luthier.data.template import TokenizerCodec
from luthier.data.vetting import settle, vet
from luthier.models.load import (
    Loaded,
    from_scratch,
    known_head,
    load,
    locate,
    tokenizer_at,
)
from luthier.models.tokenizer import train_tokenizer

Say = Callable[[str], None]


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
    """

    recipe: Recipe
    objective: Objective
    method: Method
    loaded: Loaded
    codec: TokenizerCodec
    train: tuple[Part, Encoded]
    validation: tuple[Part, Encoded] | None
    drawing: tuple[Drawing, tuple[Pool, ...]] | None = None


def assemble(recipe: Recipe, say: Say, *, vetting: bool = True) -> Parts:
    """Reads the data, checks it, loads the model, encodes the examples.

    Args:
        recipe: of one run.
        say: takes a line for the user.
        vetting: whether the data is checked as ``data.check`` says.

    Raises:
        UserError: whatever of the three is wrong, with its place and cure.
    """
    objective: Objective = kinds.build("objectives", recipe.objective)
    method: Method = kinds.build("methods", recipe.method)
    parts = read_parts(recipe.data, objective, recipe.training.seed, say)
    if vetting:
        vetted(recipe, parts, say)
    if isinstance(objective, Settling):
        known = known_head(recipe.model)
        objective = objective.settled(parts[0].records, known.labels if known else ())
        recipe = recipe.model_copy(update={"objective": objective.config})
    if recipe.data.balance is not None:
        balanced(objective)  # refuses before weights load
    loaded = load_model(recipe, objective, parts[0], say)
    codec = make_codec(recipe, loaded)
    for line in (*loaded.said, *codec.said):
        say(line)
    train, held = (
        (part, encoded(recipe, part, objective, loaded, codec, say if vetting else None))
        if part
        else None
        for part in parts
    )
    assert train is not None
    for name, pair in (("train", train), ("validation", held)):
        if pair is not None:
            say(describe(name, pair[1].counts, "labels" if loaded.head else "of them learned"))
    drawn = drawing(recipe.data, objective, train[0], train[1].examples)
    for line in drawn[0].lines() if drawn else ():
        say(line)
    return Parts(recipe, objective, method, loaded, codec, train, held, drawn)


def vetted(recipe: Recipe, parts: tuple[Part, Part | None], say: Say) -> None:
    """Checks a run's records as ``data.check`` says.

    Raises:
        DataError: they have errors, and the recipe does not say to go on.
    """
    spec = recipe.data
    if spec.check != "off":
        share = float(spec.validation) if isinstance(spec.validation, int | float) else 0.0
        classes = tuple(getattr(recipe.objective, "classes", None) or ())
        settle(vet(*parts, share, classes), spec.check, say)


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


def load_model(recipe: Recipe, objective: Objective, part: Part | None, say: Say) -> Loaded:
    """The recipe's model, pretrained or from scratch (with a tokenizer from ``part``'s text).

    Raises:
        RecipeError: a model without the head that the objective reads.
    """
    own = [head for head in objective.heads if head.kind != "lm"]
    kind = recipe.objective.kind
    if recipe.model.architecture is None:
        loaded = load(recipe.model, head=own[0] if own else None, seed=recipe.training.seed)
        if loaded.head is not None and not own:
            raise RecipeError(
                f"'{recipe.model.name}' is a classifier, and '{kind}' learns with a language model",
                cure="name a language model, or set objective: classification",
            )
        return loaded
    if own:
        raise RecipeError(
            f"'{kind}' needs a pretrained model, and model.architecture starts from scratch",
            cure="pretrain one first (objective: language_modeling), or name one",
        )
    tokenizer = scratch_tokenizer(recipe.model, part, say)
    return from_scratch(recipe.model, tokenizer, recipe.training.seed)


def scratch_tokenizer(spec: ModelSpec, part: Part | None, say: Say) -> Any:
    """The tokenizer of a model from scratch: one that exists, or one trained on the run's text."""
    from transformers import AutoTokenizer

    if isinstance(spec.tokenizer, str):
        return tokenizer_at(locate(spec.tokenizer, weights=False))
    settings = spec.tokenizer or TokenizerSpec()
    assert part is not None
    folder = cache.place("tokenizers", cache.key(part.fingerprint, settings.model_dump()))
    if not (folder / "tokenizer.json").is_file():
        say(f"training a tokenizer of {settings.vocab_size:,} tokens on the training text")
        records = list(part.records)
        random.Random(0).shuffle(records)
        texts = (text for record in records[: settings.sample] for text in texts_of(record))
        with cache.made(folder) as whole:
            train_tokenizer(texts, settings.vocab_size).save_pretrained(whole)
    return AutoTokenizer.from_pretrained(folder)


def texts_of(record: Record) -> list[str]:
    """The texts of a record, for a tokenizer to learn from."""
    if isinstance(record, Text):
        return [record.text]
    if isinstance(record, Conversation):
        return [turn.content for turn in record.turns]
    if isinstance(record, ConversationTree):
        return [node.turn.content for node in record.nodes]
    return []


def make_codec(recipe: Recipe, loaded: Loaded) -> TokenizerCodec:
    """The codec of a recipe: its template, its bound on lengths."""
    limit = loaded.context
    if recipe.data.max_length is not None:
        limit = min(limit, recipe.data.max_length)
    return TokenizerCodec(
        loaded.tokenizer,
        template=recipe.data.template,
        system=recipe.data.system,
        thinking=recipe.data.thinking,
        max_length=limit,
    )


def describe(name: str, counts: dict[str, Any], noun: str = "of them learned") -> str:
    """One line on a side of the data, whatever was cut named; ``noun`` is what targets are."""
    line = (
        f"{name}: {counts['rows']:,} rows, {counts['examples']:,} examples, "
        f"{counts['tokens']:,} tokens, {counts['targets']:,} {noun}"
    )
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
