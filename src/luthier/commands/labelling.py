"""What ``generate`` prints of models that label texts, each by the kind of its head."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from luthier.tag import Tagging

#: Colours of entities, by the order of their types' names.
_COLOURS = ("green", "blue", "magenta", "cyan", "yellow", "red")


def labelled(kind: str, model: str, texts: Sequence[str], second: str | None) -> None:
    """Classes, or entities.

    Args:
        kind: of the model's head.
        model: by name.
        texts: each by itself.
        second: the other text of a pair.

    Raises:
        RecipeError: a model that labels nothing, or a pair for one that reads single texts.
    """
    from luthier.core.errors import RecipeError

    ways = {
        "classification": _classified,
        "token_classification": _tagged,
        "several": _by_task,
    }
    if kind not in ways:
        raise RecipeError(
            f"'{model}' fills in masked tokens: it neither talks nor labels",
            cure="tune it further, with objective: classification or token_classification",
        )
    ways[kind](model, texts, second)


def _classified(model: str, texts: Sequence[str], second: str | None) -> None:
    """Classes and probabilities: the likeliest five of one text, a line for each of many."""
    from luthier.classify import Classifier
    from luthier.commands import screen

    asked: list[str | tuple[str, str]] = [
        text if second is None else (text, second) for text in texts
    ]
    classifier = Classifier.open(model)
    for found in classifier.predict(asked):
        if len(asked) > 1 or not found.probabilities:
            sure = max(found.probabilities.values(), default=None)
            screen.answer_only(found.label if sure is None else f"{found.label}\t{sure:.4f}")
            continue
        for name, share in list(found.probabilities.items())[:5]:
            screen.answer_only(f"{share:7.2%}  {name}")
    for line in classifier.notices:
        screen.notice(line)


def _tagged(model: str, texts: Sequence[str], second: str | None) -> None:
    """Every text with its entities: coloured on a terminal, else in brackets."""
    from luthier.commands import screen
    from luthier.core.errors import RecipeError
    from luthier.tag import Tagger

    if second is not None:
        raise RecipeError(f"--second is for classifiers of pairs, and '{model}' tags words")
    tagger = Tagger.open(model)
    made = screen.console()
    for found in tagger.predict(texts):
        if screen.colourful(made) and found.spans:
            made.print(painted(found, tagger.types), soft_wrap=True)
        else:
            screen.answer_only(str(found))
    for line in tagger.notices:
        screen.notice(line)


def _by_task(model: str, texts: Sequence[str], second: str | None) -> None:
    """What every task that labels says, a line each behind its name."""
    from luthier.classify import Prediction
    from luthier.commands import screen
    from luthier.core.errors import RecipeError
    from luthier.many import Tasks

    if second is not None:
        raise RecipeError(f"--second is for classifiers of pairs, and '{model}' has several tasks")
    tasks = Tasks.open(model)
    for answers in tasks.predict(texts):
        for name, found in answers.items():
            said = str(found)
            if isinstance(found, Prediction):
                share = max(found.probabilities.values(), default=None)
                said = found.label if share is None else f"{found.label}\t{share:.4f}"
            screen.answer_only(f"{name}: {said}")
    for name in tasks.silent:
        screen.notice(f"task '{name}' labels nothing")
    for line in tasks.notices:
        screen.notice(line)


def painted(found: Tagging, kinds: Sequence[str]) -> Text:
    """A text in which entities stand in colour, their types behind them."""
    from rich.text import Text

    text, at = Text(), 0
    for span in found.spans:
        colour = _COLOURS[kinds.index(span.type) % len(_COLOURS)]
        text.append(found.text[at : span.start])
        text.append(span.text, style=f"bold {colour}")
        text.append(f" {span.type}", style=f"dim {colour}")
        at = span.stop
    return text.append(found.text[at:])
