"""``generate`` and ``chat``."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from luthier.chat import Chat
    from luthier.core.records import Turn
    from luthier.generation.sampling import Sampling

Model = Annotated[str, typer.Argument(metavar="MODEL", hidden=True)]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="A system turn.")]
Length = Annotated[int, typer.Option(min=1, metavar="N", help="Longest answer, in tokens.")]
Temperature = Annotated[
    float, typer.Option(min=0.0, metavar="T", help="0 always takes the most likely token.")
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", min=0.0, max=1.0, metavar="P", help="Smallest set so probable."),
]
Beams = Annotated[int, typer.Option(min=1, metavar="N", help="Above 1: beam search.")]
Penalty = Annotated[
    float | None,
    typer.Option(
        "--length-penalty", metavar="P", help="Of beams; above 0 for longer.", show_default="1"
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Of the draws.", show_default="0")]


def generate(
    model: Model,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="Else each line of standard input."),
    ] = None,
    system: System = None,
    max_new_tokens: Length = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    seed: Seed = None,
    num_beams: Beams = 1,
    length_penalty: Penalty = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text; no chat template.")
    ] = False,
    second: Annotated[
        str | None,
        typer.Option("--second", metavar="TEXT", help="Of a pair, for a classifier of pairs."),
    ] = None,
) -> None:
    """Answer a prompt, or each line of standard input.

    MODEL is a run, a folder, an adapter, a hub id or a builtin, as builtin:nano. It is asked in
    its own chat template where it has one. A classifier answers with classes and probabilities, a
    token classifier with the text and the entities in it.
    """
    from luthier.core.errors import RecipeError

    if raw and system is not None:
        raise RecipeError("--system means nothing with --raw", cure="leave one of them out")
    prompts = [prompt] if prompt is not None else _lines()
    sampling = _sampling(max_new_tokens, temperature, top_p, seed)
    sampling = _searching(sampling, num_beams, length_penalty)

    from luthier.commands.labelling import labelled
    from luthier.commands.screen import notice
    from luthier.core.recipe import ModelSpec
    from luthier.models.load import known_head
    from luthier.quiet import hushed

    with hushed():
        if (head := known_head(ModelSpec(name=model))) is not None:
            if system is not None or raw or temperature or top_p is not None or num_beams > 1:
                notice("a classifier draws nothing: settings of sampling are without effect")
            labelled(head.kind, model, prompts, second)
            return
    if second is not None:
        raise RecipeError(f"--second is for classifiers, and '{model}' is a language model")
    _answered(model, prompts, system, sampling, raw=raw)


def chat(
    run: Model,
    base: Annotated[
        bool, typer.Option("--base", help="Let the model before tuning answer as well.")
    ] = False,
    system: System = None,
    max_new_tokens: Length = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    seed: Seed = None,
) -> None:
    """Talk to a model.

    MODEL is a run, a folder, an adapter, a hub id or a builtin. With --base the model before
    tuning answers beside it.

    /reset begins anew, /quit or Ctrl-D leaves.
    """
    sampling = _sampling(max_new_tokens, temperature, top_p, seed)

    from luthier.chat import Chat
    from luthier.commands import screen
    from luthier.core.errors import RecipeError
    from luthier.core.recipe import ModelSpec
    from luthier.models.load import known_head
    from luthier.quiet import hushed

    with hushed():
        if known_head(ModelSpec(name=run)) is not None:
            raise RecipeError(
                f"'{run}' is no language model: it does not talk",
                cure=f'luthier generate {run} --prompt "a text"',
            )
    made = screen.console()
    with hushed():
        voices = [_Voice("tuned" if base else "model", Chat.open(run), system)]
        if base:
            voices.append(_Voice("base", Chat.open(run, base=True), system))
        if sys.stdin.isatty():
            made.print("/reset begins anew, /quit leaves", style="dim")
        for said in _messages():
            if said == "/quit":
                break
            if said == "/reset":
                for voice in voices:
                    voice.reset()
                continue
            for voice in voices:
                voice.reply(made, said, sampling)


def _answered(
    model: str, prompts: list[str], system: str | None, sampling: Sampling, *, raw: bool
) -> None:
    """A language model's answers: streamed to a terminal, else one after the other."""
    from luthier.chat import Chat
    from luthier.commands import screen
    from luthier.quiet import hushed

    with hushed():
        chat = Chat.open(model)
        if not (raw or chat.has_template or system is not None):
            screen.notice("the model has no chat template: it continues the text, as with --raw")
            raw = True
        if len(prompts) == 1 and sys.stdout.isatty() and sampling.num_beams == 1:
            _spoken(_streamed(chat, prompts[0], system, sampling, raw))
        else:
            texts = (
                chat.completions(prompts, sampling)
                if raw
                else chat.answers(prompts, sampling, system=system)
            )
            for text in texts:
                screen.answer_only(text)
    for line in chat.notices:
        screen.notice(line)


class _Voice:
    """One model's side of a conversation."""

    def __init__(self, name: str, chat: Chat, system: str | None) -> None:
        self._name, self._chat, self._system = name, chat, system
        self._turns: list[Turn] = []
        self._noticed = 0
        self.reset()

    def reset(self) -> None:
        """Forgets what was said."""
        from luthier.core.records import Turn

        self._turns = [Turn("system", self._system)] if self._system is not None else []

    def reply(self, made: Console, said: str, sampling: Sampling) -> None:
        """Answers, as the words come; Ctrl-C ends the answer, not the conversation."""
        from luthier.commands import screen
        from luthier.core.records import Turn

        self._turns.append(Turn("user", said))
        made.print(f"{self._name:<6} ", style="dim" if self._name == "base" else "bold", end="")
        answer = _spoken(self._chat.stream(self._turns, sampling))
        self._turns.append(Turn("assistant", answer.strip()))
        for line in self._chat.notices[self._noticed :]:
            screen.notice(line)
        self._noticed = len(self._chat.notices)


def _spoken(pieces: Iterator[str]) -> str:
    """Writes pieces as they come; returns them together."""
    whole = ""
    try:
        for piece in pieces:
            # Templates often begin an answer with a space or a line break.
            shown = piece if whole.strip() else piece.lstrip()
            whole += piece
            sys.stdout.write(shown)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stdout.write(" …")
    sys.stdout.write("\n")
    sys.stdout.flush()
    return whole


def _streamed(
    chat: Chat, prompt: str, system: str | None, sampling: Sampling, raw: bool
) -> Iterator[str]:
    from luthier.core.records import Turn

    if raw:
        return chat.stream_completion(prompt, sampling)
    before = [] if system is None else [Turn("system", system)]
    return chat.stream([*before, Turn("user", prompt)], sampling)


def _messages() -> Iterator[str]:
    """What the user types, or the lines of a pipe; empty ones are passed over."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            if line.strip():
                yield line.strip()
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() its editing keys and history
    while True:
        try:
            line = input("you    ").strip()
        except EOFError:
            sys.stdout.write("\n")
            return
        if line:
            yield line


def _lines() -> list[str]:
    from luthier.core.errors import RecipeError

    lines = [] if sys.stdin.isatty() else [line.rstrip("\n") for line in sys.stdin]
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise RecipeError(
            "no prompt given", cure="--prompt TEXT, or a prompt a line on standard input"
        )
    return prompts


def _sampling(
    max_new_tokens: int, temperature: float, top_p: float | None, seed: int | None
) -> Sampling:
    from luthier.commands import screen
    from luthier.generation.sampling import Sampling

    given = [name for name, value in (("--top-p", top_p), ("--seed", seed)) if value is not None]
    if given and not temperature:
        screen.notice(f"{' and '.join(given)} without effect: nothing is drawn at --temperature 0")
    return Sampling(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=1.0 if top_p is None else top_p,
        seed=seed or 0,
    )


def _searching(sampling: Sampling, beams: int, penalty: float | None) -> Sampling:
    """The same by beam search, where that is asked for."""
    from luthier.core.errors import RecipeError

    if beams == 1 and penalty is not None:
        raise RecipeError("--length-penalty means nothing without --num-beams")
    if beams > 1 and sampling.temperature:
        raise RecipeError(
            "--num-beams searches for the likeliest answer, and --temperature draws one",
            cure="leave one of them out",
        )
    return replace(sampling, num_beams=beams, length_penalty=1.0 if penalty is None else penalty)
