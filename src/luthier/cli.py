"""``luthier``: every command wired to its file, and every error to plain words.

Nothing heavy is imported here or by the command files: ``luthier --help`` answers at once.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from luthier import quiet
from luthier.commands import (
    caching,
    combining,
    data,
    demonstration,
    doctor,
    exporting,
    inspecting,
    listing,
    recipes,
    scoring,
    talk,
    training,
)
from luthier.core import disk
from luthier.core.errors import DiskFullError, UserError

#: What errors of the system a user can mend, and how.
_CURES = {
    errno.ENOSPC: "free some disk space; `luthier cache clear` deletes what can be made again",
    errno.EFBIG: "the system bounds the size of this process's files: ulimit -f, or the disk's own",
    errno.EDQUOT: "free some of your disk quota; `luthier cache clear` may help",
    errno.EACCES: "check who may write there, or choose another place: output=DIR",
    errno.EROFS: "choose another place: output=DIR",
}
_INTERRUPTED, _BUG = 130, 70

app = typer.Typer(
    name="luthier",
    help="Fine-tune a language model on your own rows, and prove that it got better.",
    epilog="Begin with `luthier demo`, or with a recipe: `luthier list recipes`.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        import luthier

        sys.stdout.write(f"luthier {luthier.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


app.command()(demonstration.demo)
app.command()(training.train)
app.command("inspect")(inspecting.inspect)
app.command()(training.evaluate)
app.command()(talk.generate)
app.command()(talk.chat)
app.command()(scoring.score)
app.command()(exporting.export)
app.command()(combining.combine)
app.command("list")(listing.listing)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipe")
app.add_typer(data.app, name="data")
app.command()(doctor.doctor)
app.add_typer(caching.app, name="cache")


def main(words: Sequence[str] | None = None) -> None:
    """Runs a command line and ends the process with its exit status."""
    sys.exit(run(words))


def run(words: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        words: without the program's name; the process's own if unset.

    Returns:
        0; 1 for data and runs, 2 for recipes and usage, 74 for a full disk, 75 for a run that a
        signal stopped, 130 after Ctrl-C, 70 for a bug of Luthier's.
    """
    quiet.prepare()
    _forgive_letters()
    from luthier.commands import screen

    try:
        code = app(args=words, prog_name="luthier", standalone_mode=False)
    except UserError as error:
        screen.faults(error.faults)
        return error.exit_code
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except OSError as error:
        if error.errno not in _CURES:
            return _bug()
        where = f"{error.filename}: " if error.filename else ""
        screen.complain(f"{where}{error.strerror}", _CURES[error.errno])
        return DiskFullError.exit_code if error.errno in disk.FULL else 1
    except Exception:
        return _bug()
    return code if isinstance(code, int) else 0


def _forgive_letters() -> None:
    r"""What a stream's encoding lacks is written as ``\u2026``: rows may hold any letter."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usage(error: typer.TyperException) -> int:
    """A wrong command line; a command without any words gets its help instead."""
    from luthier.commands import screen

    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error.format_message()}\n")
        return error.exit_code
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "luthier"
    message = error.format_message().rstrip(".").replace(". Did you", ", did you")
    screen.complain(message[:1].lower() + message[1:], f"`{path} --help` shows how")
    return error.exit_code


def _bug() -> int:
    import traceback

    from luthier.commands import screen

    traceback.print_exc()
    screen.complain(
        "this is a bug in luthier, not a mistake of yours",
        "please report it, with the lines above and the recipe",
    )
    return _BUG
