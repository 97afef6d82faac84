"""What answers earn: every reward asked, the slow ones while further answers are sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.core.codec import Codec
from luthier.core.contracts import Reward
from luthier.core.errors import UserError
from luthier.core.records import Answer, Prompt
from luthier.core.rewards import total, weights

Array = npt.NDArray[Any]
#: Answers that slow rewards are asked about at once.
_THREADS = 8


class Scoring:
    """Rewards of a rollout's answers; slow ones are asked from threads, group by group."""

    def __init__(
        self,
        asked: Sequence[Prompt],
        codec: Codec,
        rewards: Mapping[str, Reward],
        config: Any,
    ) -> None:
        self._asked, self._codec, self._rewards, self._config = asked, codec, rewards, config
        self._slow = {n: r for n, r in rewards.items() if getattr(r, "slow", False)}
        self._threads = ThreadPoolExecutor(_THREADS) if self._slow else None
        self._waiting: dict[tuple[int, str], Future[list[float]]] = {}

    def __enter__(self) -> Scoring:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def told(self, number: int, group: Sequence[Answer]) -> None:
        """A prompt's answers are all there, while others are still being sampled."""
        if self._threads is None:
            return
        texts = self._texts(group)
        for name, reward in self._slow.items():
            prompts = [self._asked[number]] * len(group)
            self._waiting[number, name] = self._threads.submit(reward.score, prompts, texts)

    def columns(self, number: int, group: Sequence[Answer]) -> dict[str, Array]:
        """What a prompt's answers earned, part by part and in sum."""
        texts, prompt = self._texts(group), self._asked[number]
        parts: dict[str, Array] = {}
        for name, reward in self._rewards.items():
            if name in self._slow and (number, name) not in self._waiting:
                self.told(number, group)  # a generator that tells nothing
            found = (
                self._waiting.pop((number, name)).result()
                if name in self._slow
                else reward.score([prompt] * len(group), texts)
            )
            parts[name] = _checked(found, len(group), name, prompt)
        factors = weights(self._config.rewards)
        earned = total(parts, {name: factors.get(name, 1.0) for name in parts})
        ended = np.array([answer.ended for answer in group])
        earned = earned - self._config.missing_end_penalty * ~ended
        several = [texts.count(text) > 1 for text in texts]
        return {
            "reward": np.asarray(earned, dtype=np.float32),
            "ended": ended.astype(np.float32),
            "length": np.array([len(answer.tokens) for answer in group], dtype=np.float32),
            "duplicate": np.array(several, dtype=np.float32),
            **{f"reward_{name}": values.astype(np.float32) for name, values in parts.items()},
        }

    def _texts(self, group: Sequence[Answer]) -> list[str]:
        """Answers as rewards see them: without special tokens, up to the stop string."""
        found = []
        for answer in group:
            text = self._codec.decode(answer.tokens)
            places = [at for stop in self._config.stop if (at := text.find(stop)) >= 0]
            found.append(text[: min(places)] if places else text)
        return found


def _checked(found: Sequence[float], count: int, name: str, prompt: Prompt) -> Array:
    """Rewards as numbers.

    Raises:
        UserError: too many, too few, or none at all.
    """
    values = np.asarray(found, dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        shown = np.array2string(values, threshold=8)
        raise UserError(
            f"reward '{name}' gave {shown} for {count} answers: a finite number each is wanted",
            str(prompt.origin),
            "mend what scores them",
            "reward",
        )
    return values
