"""``score``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def score(
    model: Annotated[str, typer.Argument(metavar="MODEL", hidden=True)],
    prompt: Annotated[str, typer.Option("--prompt", "-p", metavar="TEXT", help="What is asked.")],
    answer: Annotated[
        list[str] | None,
        typer.Option("--answer", "-a", metavar="TEXT", help="Else each line of standard input."),
    ] = None,
) -> None:
    """Say what answers to a prompt are worth, the best first.

    MODEL is a run, a folder or an adapter of objective reward or correctness: a number, or the
    probability that the answer is right.
    """
    from luthier.commands import screen
    from luthier.core.errors import RecipeError
    from luthier.quiet import hushed
    from luthier.score import Scorer

    piped = [] if answer or sys.stdin.isatty() else sys.stdin.read().splitlines()
    answers = answer or [line for line in piped if line.strip()]
    if not answers:
        raise RecipeError("no answer given", cure="--answer TEXT, or an answer a line")
    with hushed():
        scorer = Scorer.open(model)
        found = scorer.scores([prompt] * len(answers), answers)
    for value, text in sorted(zip(found, answers, strict=True), key=lambda each: -each[0]):
        screen.answer_only(f"{value:.4f}\t{text}")
    for line in scorer.notices:
        screen.notice(line)
