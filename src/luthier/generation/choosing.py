"""Which token comes next: temperature, what is cut off, and a draw that is keyed, not streamed.

``n`` answers, ``V`` vocabulary. A draw is a number ``u`` in [0, 1) that belongs to an answer and a
place in it; the token is where the cumulative distribution passes ``u``. So an answer depends on
its key and on the model, not on the answers that happen to be under way beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: Of the likeliest tokens, how many are looked at before all of them are sorted.
_FIRST = 512


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: likeliest tokens to choose from; 0 for all.
        top_p: smallest set of tokens with this probability (Holtzman et al. 2020,
            arXiv 1904.09751).
        min_p: tokens at least so likely, as a share of the likeliest (Nguyen et al. 2024,
            arXiv 2407.01082).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def choose(self, logits: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[n]`` and their log-probabilities ``[n]`` before anything was cut off.

        Args:
            logits: ``[n, V]``.
            draws: ``[n]``, each at least 0 and less than 1.
        """
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.temperature not in (0.0, 1.0):
            wide = wide / self.temperature
        logprobs = wide.log_softmax(-1)
        if self.temperature == 0.0:
            tokens = logprobs.argmax(-1)
        elif self.top_k or self.top_p < 1:
            tokens = self._among_likeliest(logprobs, draws)
        else:
            tokens = _drawn(self._likely_enough(logprobs.exp()), draws)
        return tokens, logprobs.gather(1, tokens[:, None])[:, 0]

    def _among_likeliest(self, logprobs: Tensor, draws: Tensor) -> Tensor:
        """Of the likeliest tokens only as many are sorted as may be needed."""
        width = logprobs.shape[-1]
        count = min(width, self.top_k or _FIRST)
        top = logprobs.topk(count, dim=-1)
        probabilities = top.values.exp()
        nucleus_is_in = bool((probabilities.sum(-1) >= self.top_p).all())
        if not self.top_k and not nucleus_is_in and count < width:
            top = logprobs.sort(dim=-1, descending=True, stable=True)  # type: ignore[assignment]
            probabilities = top.values.exp()
        if self.top_k:  # top_p is a share of what top_k leaves
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        before = probabilities.cumsum(-1) - probabilities
        kept = probabilities.masked_fill(before >= self.top_p, 0.0)
        places = _drawn(self._likely_enough(kept), draws)
        return top.indices.gather(1, places[:, None])[:, 0]

    def _likely_enough(self, probabilities: Tensor) -> Tensor:
        if not self.min_p:
            return probabilities
        least = probabilities.amax(-1, keepdim=True) * self.min_p
        return probabilities.masked_fill(probabilities < least, 0.0)


def _drawn(probabilities: Tensor, draws: Tensor) -> Tensor:
    """Where the cumulative distribution passes the draws; never a token without probability."""
    cumulative = probabilities.cumsum(-1)
    wanted = draws.to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, wanted, right=True)[:, 0]
    places = torch.arange(probabilities.shape[-1], device=probabilities.device)
    last = (places * (probabilities > 0)).amax(-1)  # where rounding leads past the end
    return torch.minimum(found, last)


def draws(seed: int, prompt: int, answer: int, count: int) -> npt.NDArray[np.float64]:
    """The draws of one answer: a function of its key alone."""
    key = np.random.SeedSequence((seed, prompt, answer))
    return np.random.Generator(np.random.Philox(key)).random(count)
