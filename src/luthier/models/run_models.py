"""The models of a run as objectives see them: the policy, its reference, companions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from luthier.core.contracts import LanguageModel, Method


class RunModels:
    """See :class:`luthier.core.contracts.Models`.

    Args:
        policy: the model that is trained.
        method: knows how to compute what the policy computed at step 0.
        companions: teacher, reward or value models by name.
    """

    def __init__(
        self,
        policy: LanguageModel,
        method: Method,
        companions: Mapping[str, LanguageModel] | None = None,
    ) -> None:
        self.policy = policy
        self.companions: Mapping[str, LanguageModel] = dict(companions or {})
        self._method = method

    @contextmanager
    def reference(self) -> Iterator[LanguageModel]:
        """The policy as it was at step 0: no dropout, no gradient."""
        module = self.policy.module
        training = module.training
        module.eval()
        try:
            with torch.no_grad(), self._method.reference(module):
                yield self.policy
        finally:
            module.train(training)
