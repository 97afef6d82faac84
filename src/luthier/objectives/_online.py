"""What every objective that learns from its own samples has in common.

A prompt becomes an example with ``G`` children, one an answer. Its table ``lm`` has a row for every
sampled token, its table ``answer`` one for every answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import Generator, Head, KindConfig, Models, Reward
from luthier.core.errors import DataError
from luthier.core.records import Batch, Example, Prompt, Record
from luthier.core.rewards import Rewards
from luthier.core.settings import RefusalError
from luthier.objectives._rollout import Rollout, correlation, grouped
from luthier.objectives._scoring import Scoring
from luthier.ops.advantages import kl_estimate
from luthier.ops.logprobs import sampled_statistics

#: Columns of ``answer`` whose means are logged.
_MEANS = ("reward", "length", "ended", "duplicate")


class OnlineConfig(KindConfig):
    """What every objective that samples is told."""

    rewards: Rewards = Field(examples=["repetition"])
    """What answers earn: ``exact``, or several with their weights in the sum,
    ``[{kind: exact, weight: 1}, {kind: length, most: 200, weight: 0.1}]``."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest sampled answer."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the draws, and of the distribution that is learned: the two must be one."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Smallest set of tokens with this probability to draw from; below 1 the answers are no longer
    the policy's own, which every step then learns a little wrongly."""
    top_k: int = Field(default=0, ge=0)
    """Likeliest tokens to draw from; 0 for all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw from tokens at least so likely, as a share of the likeliest."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer; they are learned, and left out of what rewards see."""
    missing_end_penalty: float = Field(default=0.0, ge=0)
    """Taken from the reward of an answer that did not end by itself."""
    kl_stop: float | None = Field(default=None, gt=0)
    """End the run where the mean divergence from the model at the start, in nats a token, passes
    this; never if unset."""

    def changed(self, name: str) -> bool:
        """Whether a setting is another than its default: a resolved recipe writes all of them."""
        field = type(self).model_fields.get(name)
        return field is not None and getattr(self, name) != field.get_default()

    @property
    def sampling(self) -> dict[str, Any]:
        """As a generator takes it."""
        names = ("max_new_tokens", "temperature", "top_p", "top_k", "min_p", "stop")
        return {name: getattr(self, name) for name in names}


class Repeated(OnlineConfig):
    """Of objectives that may learn from one rollout more than once."""

    inner_epochs: int = Field(default=1, ge=1)
    """Passes over the answers of a step."""
    mini_batches: int = Field(default=1, ge=1)
    """Optimizer updates in a pass, each on its share of the prompts."""

    @property
    def repeats(self) -> bool:
        """Whether a step has updates that see answers of an older policy."""
        return self.inner_epochs * self.mini_batches > 1

    @model_validator(mode="after")
    def _clip_counts(self) -> Repeated:
        for name in ("clip", "clip_high", "value_clip"):
            if self.changed(name) and not self.repeats:
                raise RefusalError(
                    f"'{name}' has no effect where each answer is learned from once: no ratio "
                    "is anything but 1",
                    "mini_batches or inner_epochs above 1",
                )
        return self


class OnlineObjective:
    """The part of :class:`luthier.core.contracts.OnlineObjective` in which they all agree."""

    records: ClassVar[tuple[type[Record], ...]] = (Prompt,)
    metrics: ClassVar[tuple[str, ...]] = ("reward",)
    overlong: ClassVar[str] = "refuse"
    inner_epochs = 1
    mini_batches = 1
    redraws = 0
    watched: frozenset[str] = frozenset()

    def __init__(self, config: Any) -> None:
        self.config = config
        self.needs_reference = config.kl_stop is not None
        #: Whether the steps ask what the policy said when it sampled.
        self.needs_old = False

    @property
    def answers(self) -> int:
        """``G``, answers to each prompt."""
        return int(self.config.answers)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head."""
        return (Head("lm"),)

    def longest(self, prompt: int) -> int:
        """Tokens, at most, of the example that a prompt of so many tokens becomes."""
        return prompt + self.answers * int(self.config.max_new_tokens)

    def encode(self, record: Record, codec: Codec) -> Example:
        """A prompt alone, with nothing to learn yet.

        Raises:
            DataError: it leaves no room for an answer.
        """
        assert isinstance(record, Prompt)
        tokens, new = codec.prompt(record.turns), self.config.max_new_tokens
        if len(tokens) + new > codec.max_length:
            raise DataError(
                f"a prompt of {len(tokens):,} tokens and an answer of up to {new:,} are more than "
                f"the {codec.max_length:,} that the model takes",
                str(record.origin),
                "a smaller objective.max_new_tokens, a shorter prompt, or data.malformed: skip",
                "long",
            )
        return grouped(tokens, [], {}, record)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def collect(
        self,
        records: Sequence[Record],
        codec: Codec,
        generator: Generator,
        rewards: Mapping[str, Reward],
        seed: int,
    ) -> Sequence[Example]:
        """Answers to each prompt, with what they earned."""
        asked = [record for record in records if isinstance(record, Prompt)]
        with Scoring(asked, codec, rewards, self.config) as scoring:
            prompts = [codec.prompt(record.turns) for record in asked]
            groups = generator.sample(
                prompts, self.answers, seed, told=scoring.told, **self.config.sampling
            )
            return [
                grouped(prompt, group, scoring.columns(number, group), record)
                for number, (record, prompt, group) in enumerate(
                    zip(asked, prompts, groups, strict=True)
                )
            ]

    def keeps(self, example: Example) -> bool:
        """Every group has something to teach, unless an objective knows better."""
        return True

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """What the policy said when it sampled, and what the model at the start says of it."""
        found: dict[str, Tensor] = {}
        if self.needs_old:
            with torch.no_grad():
                found["old_logprob"] = self.said(models.policy, batch)[0]
        if self.needs_reference:
            with models.reference() as reference:
                found["reference_logprob"] = self.said(reference, batch)[0]
        return {"lm": found} if found else {}

    def said(self, model: Any, batch: Batch, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``[R]`` of the sampled tokens, and the entropies ``[R]`` there."""
        hidden = model.hidden(batch) if hidden is None else hidden
        table = batch.targets["lm"]
        rows = hidden.index_select(0, table["position"])
        width = int(model.config.vocab_size)
        return sampled_statistics(
            model.logits, rows, table["token"], width, self.config.temperature
        )

    def credit(
        self, examples: Sequence[Example], memory: dict[str, float]
    ) -> tuple[Sequence[Example], dict[str, float]]:
        """Figures alone, where nothing follows from the whole rollout."""
        return examples, self.figures(Rollout.of(examples))

    def figures(self, rollout: Rollout) -> dict[str, float]:
        """What to log of a rollout: means over answers, and over tokens the divergence."""
        answers, tokens = rollout.answers, rollout.tokens
        names = [name for name in answers if name in _MEANS or name.startswith("reward_")]
        found = {name: float(answers[name].mean()) for name in names}
        found["unfinished"] = 1.0 - found.pop("ended")
        found["length_reward"] = correlation(answers["length"], answers["reward"])
        found["spread"] = rollout.spread()
        if "reference_logprob" in tokens:
            found["kl"] = float(kl_estimate(rollout.old, tokens["reference_logprob"], "k3").mean())
        if "old_logprob" in tokens:
            found["mismatch"] = float((rollout.old - tokens["sampled_logprob"]).abs().mean())
        return found

    def alarm(self, figures: Mapping[str, float]) -> str | None:
        """Whether the policy has run away from where it started."""
        bound = self.config.kl_stop
        if bound is None or figures["kl"] <= bound:
            return None
        return (
            f"the policy has left the model at the start: {figures['kl']:.3g} nats a token, more "
            f"than objective.kl_stop ({bound:g})"
        )
