"""What every part of a recipe shares: frozen, documented, unknown keys refused."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class RefusalError(ValueError):
    """Why a validator refuses a value, and what to do about it."""

    def __init__(self, reason: str, cure: str) -> None:
        self.cure = cure
        super().__init__(reason)


class Settings(BaseModel):
    """Base of the recipe's parts and of every kind's configuration.

    Frozen; unknown keys, infinite numbers and ``true`` in a number's place are refused; a field's
    docstring is its description in the JSON Schema.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts ``True`` as 1; a recipe that says ``epochs: yes`` means something else."""
        if isinstance(value, bool) and info.field_name is not None:
            types_ = set(leaves(cls.model_fields[info.field_name].annotation))
            if types_ & {int, float} and not types_ & {bool, Any}:
                raise ValueError(
                    "must be a number" if float in types_ else "must be a whole number"
                )
        return value


def leaves(annotation: Any) -> typing.Iterator[Any]:
    """The types of a union, ``Annotated`` unwrapped; containers are not entered."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from leaves(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from leaves(part)
    elif origin is None:
        yield annotation
