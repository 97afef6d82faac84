"""Corpus BLEU: clipped n-gram precision of answers against references, as sacrebleu computes it."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from sacrebleu.metrics.bleu import BLEU, BLEUScore

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, divide

ORDER = 4


class Config(KindConfig):
    """Settings of BLEU."""

    kind: str = "bleu"
    tokenizer: Literal["13a", "zh", "char", "intl", "none"] = "13a"
    """Sacrebleu's: ``13a`` for languages with spaces, ``zh`` for Chinese, ``char`` for any script,
    ``intl`` for Unicode punctuation, ``none`` for text already split."""
    lowercase: bool = False
    """Whether case is ignored."""


class Metric:
    """BLEU over the whole corpus (Papineni et al. 2002), 0 to 100.

    ``BLEU = 100 min(1, exp(1 - r/c)) (p1 p2 p3 p4)^(1/4)`` with c and r the lengths of answers
    and references and p_n the clipped n-gram precisions; a precision of zero matches is
    ``1 / (2^k total)`` for the k-th such order (NIST smoothing, sacrebleu's default, Post 2018,
    arXiv:1804.08771). Departure: NaN, not 0, where neither answers nor references have a token.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"answers"})
    names: ClassVar[tuple[str, ...]] = ("bleu",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        settings = config or Config()
        # `effective_order` changes the sentence's score, which is not read, and not its counts;
        # without it sacrebleu warns that sentence scores need it.
        self._scorer = BLEU(
            tokenize=settings.tokenizer, lowercase=settings.lowercase, effective_order=True
        )
        self._rows = Rows({"bleu": 2 * ORDER + 2})

    def update(self, scored: Scored) -> None:
        """Adds one example; without an answer or a reference it counts for nothing."""
        if scored.answer is None or not scored.references:
            self._rows.add("bleu")
            return
        found: BLEUScore = self._scorer.sentence_score(scored.answer, list(scored.references))
        self._rows.add("bleu", *found.counts, *found.totals, found.sys_len, found.ref_len)

    def rows(self) -> dict[str, Array]:
        """``[correct 1..4, total 1..4, answer tokens, reference tokens]`` of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 10]`` to corpus BLEU ``[...]`` between 0 and 100."""
        assert name in self.names, name
        correct, total = totals[..., :ORDER], totals[..., ORDER : 2 * ORDER]
        answer, reference = totals[..., -2], totals[..., -1]
        missed = np.cumsum((correct == 0) & (total > 0), axis=-1)
        smoothed = divide(np.ones_like(total), total * 2.0**missed, 0.0)
        precisions = np.where(correct > 0, divide(correct, total, 0.0), smoothed)
        usable = np.any(correct > 0, axis=-1) & np.all(total > 0, axis=-1)
        logs = np.log(np.where(usable[..., None], precisions, 1.0)).mean(axis=-1)
        shortfall = np.minimum(0.0, 1.0 - divide(reference, answer, np.inf))
        with np.errstate(under="ignore"):
            score = np.where(usable, 100.0 * np.exp(logs + shortfall), 0.0)
        return np.where((answer == 0) & (reference == 0), np.nan, score)
