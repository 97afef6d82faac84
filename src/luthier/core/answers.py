"""What a model said when it was sampled from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model sampled after a prompt.

    Attributes:
        tokens: as sampled; the end-of-turn token is the last one of an answer that ended.
        ended: whether it ended by itself, not at the bound on new tokens.
        logprobs: of each token, by the distribution before anything was cut off from it.
    """

    tokens: tuple[int, ...]
    ended: bool
    logprobs: tuple[float, ...] = ()
