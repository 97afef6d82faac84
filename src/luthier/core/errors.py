"""Errors of a user's making: each names the place, the cause and the cure.

A programmer's mistake is an ``assert``; everything a person can cause by a recipe, a data file
or a command line is a :class:`UserError`, which the command line prints without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        message: the cause, in one sentence.
        place: where it stands: ``recipe.yaml:4:3``, ``train.jsonl:718`` or a command-line word.
        cure: what to do about it; empty where the message already says so.
        code: a short stable name that tools can match on.
    """

    message: str
    place: str = ""
    cure: str = ""
    code: str = ""

    def __str__(self) -> str:
        head = f"{self.place}: " if self.place else ""
        tail = f"\n  cure: {self.cure}" if self.cure else ""
        return f"{head}{self.message}{tail}"


class UserError(Exception):
    """A mistake the user can mend; printed without a traceback.

    Attributes:
        faults: everything found wrong, in the order found (never empty).
        exit_code: the process's exit status: 2 for usage and recipes, 74 for a full disk, 1 for
            everything else.
    """

    exit_code = 1

    def __init__(self, message: str, place: str = "", cure: str = "", code: str = "") -> None:
        self.faults: tuple[Fault, ...] = (Fault(message, place, cure, code),)
        super().__init__(str(self.faults[0]))

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> UserError:
        """Several faults as one error, so that a user mends them in one go."""
        error = cls.__new__(cls)
        error.faults = tuple(faults)
        assert error.faults, "an error without a fault"
        Exception.__init__(error, "\n".join(str(fault) for fault in error.faults))
        return error


class RecipeError(UserError):
    """The recipe or the command line is wrong; found before any weight loads."""

    exit_code = 2


class DataError(UserError):
    """A row, a file or a data set is wrong."""


class TrainingError(UserError):
    """A run had to stop: the message names the step and the last good checkpoint."""


class DiskFullError(TrainingError):
    """Something could not be written for want of room; what stood there before is whole."""

    exit_code = 74  # EX_IOERR of sysexits.h


def nearest(name: str, names: Iterable[str]) -> str:
    """``… did you mean 'x'?`` for a name that resembles a valid one, else the list of valid ones.

    >>> nearest("learning_rat", ["learning_rate", "epochs"])
    "did you mean 'learning_rate'?"
    """
    known = sorted(names)
    plain = {each.lower(): each for each in known}
    asked = name.lower().replace("-", "_")
    if match := difflib.get_close_matches(asked, plain, n=1, cutoff=0.6):
        return f"did you mean '{plain[match[0]]}'?"
    return "one of: " + ", ".join(known) if known else "nothing is known by that name"
