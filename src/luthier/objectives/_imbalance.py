"""Settings for classes that are not equally frequent, shared by what tells classes apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from luthier.core.contracts import KindConfig
from luthier.core.errors import RecipeError, nearest
from luthier.ops.class_losses import effective_number, inverse_frequency, positive_weights

#: Of ``class_weights: effective``, where the recipe does not say.
BETA = 0.999

Weight = Annotated[float, Field(gt=0)]


class ImbalanceConfig(KindConfig):
    """How much rows of each class count."""

    class_weights: Literal["none", "inverse", "effective"] | dict[str, Weight] = "none"
    """What a row counts by its class: by inverse frequency, by the inverse effective number of
    samples (Cui et al. 2019, arXiv 1901.05555), or ``{name: weight}`` (1 where unnamed). The two
    are counted on the training rows and scaled to a mean of 1; of several labels a row they weigh
    the rows that have a class against those that have not."""
    effective_beta: float | None = Field(default=None, ge=0, lt=1)
    """Of ``class_weights: effective``; 0.999 if unset."""
    focal: float = Field(default=0.0, ge=0)
    """Gamma of the focal loss (Lin et al. 2017, arXiv 1708.02002): rows told well count less."""

    @model_validator(mode="after")
    def _beta_is_read(self) -> ImbalanceConfig:
        if self.effective_beta is not None and self.class_weights != "effective":
            raise ValueError("'effective_beta' has no meaning without class_weights: effective")
        return self

    @property
    def balances(self) -> bool:
        """Whether anything here asks for another loss than the plain one."""
        return self.class_weights != "none" or self.focal > 0

    def weights_of(self, classes: Sequence[str]) -> tuple[float, ...] | None:
        """The settled weights in the order of the classes."""
        assert not isinstance(self.class_weights, str) or self.class_weights == "none", "unsettled"
        if isinstance(self.class_weights, str):
            return None
        return tuple(self.class_weights.get(name, 1.0) for name in classes)


def settle(
    config: ImbalanceConfig, counts: Mapping[str, int], several: int | None = None
) -> dict[str, object]:
    """The settings that say the weights of every class, for a config's ``model_copy``.

    Args:
        config: as the recipe has it.
        counts: rows (or tokens) of every class, 0 of one that no row has.
        several: where a row may have several classes, how many rows there are.

    Raises:
        RecipeError: a weight for a class that does not exist.
    """
    asked, names = config.class_weights, list(counts)
    if asked == "none":
        return {}
    if not isinstance(asked, str):
        for name in asked:
            if name not in counts:
                raise RecipeError(
                    f"objective.class_weights: '{name}' is none of the {len(names)} classes",
                    cure=nearest(name, names),
                    code="class",
                )
        return {"class_weights": {name: asked.get(name, 1.0) for name in names}}
    beta = None
    if asked == "effective":
        beta = BETA if config.effective_beta is None else config.effective_beta
    numbers = list(counts.values())
    if several is not None:
        weights = positive_weights(numbers, several, beta)
    elif beta is None:
        weights = inverse_frequency(numbers)
    else:
        weights = effective_number(numbers, beta)
    return {"class_weights": dict(zip(names, weights, strict=True)), "effective_beta": None}
