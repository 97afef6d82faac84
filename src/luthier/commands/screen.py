"""What every command's output shares: a console, headings, aligned pairs, faults."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from luthier.core.errors import Fault
    from luthier.data.check import Progress

#: Prose wider than this is hard to read, however wide the terminal.
_WIDEST = 100


def console(*, error: bool = False) -> Console:
    """A console that colours nothing of its own accord and leaves ``[brackets]`` alone."""
    from rich.console import Console

    made = Console(stderr=error, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        return made
    made.width = min(made.width, _WIDEST)
    return made


def colourful(made: Console) -> bool:
    """Whether colours reach the reader's eye."""
    return made.color_system is not None and not made.no_color


def heading(made: Console, text: str) -> None:
    """An empty line and a bold one."""
    made.print()
    made.print(text, style="bold")


def pairs(made: Console, rows: Sequence[tuple[str, str]], *, names: str = "dim") -> None:
    """Names on the left, aligned; what they say on the right, wrapped beside them."""
    from rich.text import Text

    wide = max((len(name) for name, _ in rows), default=0)
    indent = "\n" + " " * (wide + 4)
    for name, value in rows:
        lines = _wrapped(value, max(20, made.width - wide - 4))
        head = (f"  {name:<{wide}}  ", names) if value else (f"  {name}", names)
        made.print(Text.assemble(head, indent.join(lines)), soft_wrap=True)


def paragraph(made: Console, text: str, *, indent: int = 2, style: str = "") -> None:
    """Prose, wrapped between words, every line indented."""
    for line in _wrapped(text, max(20, made.width - indent)):
        made.print(" " * indent + line, style=style, soft_wrap=True)


def faults(found: Iterable[Fault]) -> None:
    """Each fault on standard error: ``error: place: message``, and its cure indented below.

    On a terminal lines are wrapped between words; elsewhere each fault is one line, for tools.
    """
    made = console(error=True)
    width = made.width if made.is_terminal else None
    for fault in found:
        _hanging(made, "error: ", "bold red", placed(fault), width)
        if fault.cure:
            _hanging(made, "  cure: ", "dim", fault.cure, width)


def placed(fault: Fault) -> str:
    """A fault's message after its place."""
    return f"{fault.place}: {fault.message}" if fault.place else fault.message


def complain(message: str, cure: str = "") -> None:
    """One fault without a place."""
    from luthier.core.errors import Fault

    faults([Fault(message, cure=cure)])


def notice(message: str) -> None:
    """A remark on standard error, beside what a command answers."""
    console(error=True).print(f"({message})", style="dim", soft_wrap=True)


def answer_only(text: str) -> None:
    """Plain text on standard output, unwrapped, for people and pipes alike."""
    sys.stdout.write(text + "\n")


@contextmanager
def passing(*, quiet: bool) -> Iterator[Progress]:
    """A bar for a pass over data, on standard error where that is a terminal."""
    made = console(error=True)
    if quiet or not made.is_terminal:
        from luthier.data.check import silent

        yield silent
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    parts = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*parts, console=made, transient=True) as bar:
        task = bar.add_task("reading", total=1.0)

        def moved(share: float, doing: str) -> None:
            bar.update(task, completed=share, description=doing)

        yield moved


def _hanging(made: Console, head: str, style: str, text: str, width: int | None) -> None:
    from rich.text import Text

    indent = " " * len(head) if len(head) < 10 else "  "
    lines = _wrapped(text, width - len(head)) if width else text.split("\n")
    made.print(Text.assemble((head, style), ("\n" + indent).join(lines)), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines broken between words; a line's own indent is kept on those it is broken into."""
    lines: list[str] = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(
            line, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
        ) or [""]
    return lines
