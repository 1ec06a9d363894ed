"""Conditions over profile fields and features, as data: what a campaign's YAML may ask.

Takes a frame with a column a field, gives a Polars expression; no SQL, no code in configuration.
"""

from collections.abc import Mapping, Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar = str | float | bool


class Condition(BaseModel):
    """A test of one field: `DE`, `[DE, AT]`, `{min: 3, max: 9}` or `{known: false}`.

    A value or a list stand for `any_of`. Bounds are inclusive. An unknown value passes only
    `{known: false}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    any_of: tuple[Scalar, ...] = Field((), description="one of these values")
    min: float | None = Field(None, description="at least")
    max: float | None = Field(None, description="at most")
    known: bool | None = Field(None, description="true: has a value; false: has none")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return value
        return {"any_of": value if isinstance(value, list | tuple) else [value]}

    @model_validator(mode="after")
    def _says_something(self) -> "Condition":
        if not self.any_of and self.min is None and self.max is None and self.known is None:
            raise ValueError("expected a value, a list of values, or min, max or known")
        return self

    def expression(self, column: pl.Expr) -> pl.Expr:
        """Whether the column meets the condition; never null."""
        tests = []
        if self.any_of:
            tests.append(_any_of(column, self.any_of))
        number = column.cast(pl.Float64, strict=False)
        if self.min is not None:
            tests.append(number >= self.min)
        if self.max is not None:
            tests.append(number <= self.max)
        if self.known is not None:
            tests.append(column.is_not_null() == self.known)
        return pl.all_horizontal(*(test.fill_null(value=False) for test in tests))


def matches(frame: pl.DataFrame, when: Mapping[str, Condition]) -> pl.Series:
    """Which rows meet every condition; a field that the frame lacks counts as unknown.

    Columns are named as the fields; `attributes.x` is the attribute x of a profile.
    """
    tests = [
        condition.expression(pl.col(field) if field in frame.columns else pl.lit(None))
        for field, condition in when.items()
    ]
    everyone = pl.repeat(True, pl.len(), dtype=pl.Boolean)
    return frame.select(pl.all_horizontal(everyone, *tests).alias("matches"))["matches"]


def _any_of(column: pl.Expr, values: Sequence[Scalar]) -> pl.Expr:
    """Numbers and texts are compared as what the configuration wrote."""
    if all(isinstance(value, bool) for value in values):
        return column.cast(pl.Boolean, strict=False).is_in(list(values))
    if all(isinstance(value, float) for value in values):
        return column.cast(pl.Float64, strict=False).is_in(list(values))
    return column.cast(pl.String, strict=False).is_in([str(value) for value in values])
