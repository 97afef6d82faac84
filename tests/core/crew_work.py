"""Work for tests/core/test_workers.py, as other processes import it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any


def squares(told: int) -> Callable[[int], tuple[int, int]]:
    def work(piece: int) -> tuple[int, int]:
        time.sleep(0.03 * (piece % 3 == 0))  # later pieces are done before earlier ones
        return piece * piece + told, os.getpid()

    return work


def talking(_told: Any) -> Callable[[str], str]:
    def work(piece: str) -> str:
        print("to nobody", flush=True)
        os.write(1, b"at all")
        return piece * 3

    return work


def failing(_told: Any) -> Callable[[int], int]:
    def work(piece: int) -> int:
        if piece == 3:
            raise KeyError("three is wrong")
        return piece

    return work


def dying(how: int) -> Callable[[int], int]:
    def work(piece: int) -> int:
        if piece == 3:
            os.kill(os.getpid(), how) if how else os._exit(9)
        return piece

    return work


def slow(_told: Any) -> Callable[[int], int]:
    def work(piece: int) -> int:
        time.sleep(0.2)
        return os.getpid()

    return work
