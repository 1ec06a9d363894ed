"""A mapping: the YAML that makes the tables of reco out of a shop's own export, without code.

Steps on every row, in this order: columns, join (with beside), cast, drop, derive, rename,
constants, values. Expressions are SQL over the columns of the source, as Polars reads it.
"""

import zoneinfo
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import polars as pl
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from reco.campaigns.yaml_config import read_config
from reco.errors import ConfigError

Kind = Literal["number", "text", "boolean", "time"]


def _sql(text: str) -> str:
    try:
        pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"is no SQL expression: {error}") from error
    return text


def _zone(name: str) -> str:
    if name not in zoneinfo.available_timezones():
        raise ValueError("is no time zone; expected a name such as Europe/London")
    return name


def _encoding(name: str) -> str:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError("is no encoding; expected a name such as utf-8 or latin-1") from None
    return name


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _source_text(value: object) -> str:
    # YAML reads a bare yes, no, on or null as a value of its own: what stood there is lost.
    if value is None or isinstance(value, bool):
        raise ValueError(f'must stand in quotes, such as "yes" or "null": YAML reads it as {value}')
    return str(value)


Sql = Annotated[str, AfterValidator(_sql)]
Text = Annotated[str, BeforeValidator(_text)]
SourceText = Annotated[str, BeforeValidator(_source_text)]


class Mapping(BaseModel):
    """What to do with the columns of a source. Without any key, names are taken as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: Literal["events", "items", "subscribers"] = Field(description="what the rows become")
    encoding: Annotated[str, AfterValidator(_encoding)] = Field("utf-8", description="of a CSV")
    separator: str = Field(",", min_length=1, max_length=1, description="between fields of a CSV")
    decimal_comma: bool = Field(False, description="numbers in text look like 1.234,50")
    columns: list[str] | None = Field(None, description="names for a CSV that has no header")
    null_values: list[SourceText] = Field([""], description="texts of a CSV that mean: no value")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", description="of times without an offset"
    )
    timestamp_format: str = Field(
        "auto",
        description="auto (ISO 8601 or epoch), epoch_s, epoch_ms, epoch_us, or a strftime format",
    )
    join: dict[str, str] = Field({}, description="file beside the source: column to join it on")
    beside: dict[str, dict[str, Sql]] = Field(
        {}, description="file of `join`: {new column: expression over all of its rows}"
    )
    cast: dict[str, Kind] = Field({}, description="source column: type, before expressions see it")
    drop: list[Sql] = Field([], description="rows for which one of these holds are left out")
    derive: dict[str, Sql] = Field({}, description="our column: expression")
    rename: dict[str, str] = Field({}, description="source column: our column")
    constants: dict[str, Text | None] = Field({}, description="our column: value of every row")
    values: dict[str, dict[SourceText, Text]] = Field(
        {}, description="our column: {value of the source: value that we write}"
    )
    ignore: list[str] = Field([], description="source columns that are not kept as attributes")
    _name: str = PrivateAttr("the mapping")

    @property
    def name(self) -> str:
        """The file it was read from."""
        return self._name

    @model_validator(mode="after")
    def _one_source_each(self) -> Self:
        targets = [*self.rename.values(), *self.derive, *self.constants]
        twice = sorted({target for target in targets if targets.count(target) > 1})
        if twice:
            raise ValueError(f"rename, derive and constants give {', '.join(twice)} more than once")
        if lone := sorted(set(self.beside) - set(self.join)):
            raise ValueError(f"beside: {', '.join(lone)} is no file of `join`")
        return self


def load_mapping(path: Path) -> Mapping:
    """The mapping in a YAML file; raises ConfigError with all mistakes at once."""
    mapping = read_config(path, Mapping)
    mapping._name = str(path)
    return mapping


def renamed(raw: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """The columns under our names, not yet of our types; `raw` fits the mapping."""
    taken = {*mapping.derive, *mapping.constants, *mapping.rename.values(), *mapping.rename}
    columns = [pl.col(source).alias(target) for source, target in mapping.rename.items()]
    columns += [pl.col(n) for n in raw.columns if n not in taken and n not in mapping.ignore]
    columns += [pl.lit(value).alias(name) for name, value in mapping.constants.items()]
    columns += [pl.sql_expr(sql).alias(name) for name, sql in mapping.derive.items()]
    frame = raw.select(columns)
    return frame.with_columns(
        pl.col(name).cast(pl.String).replace(table)
        for name, table in mapping.values.items()
        if name in frame.columns
    )


def check_names(columns: Sequence[str], mapping: Mapping) -> None:
    """Raises ConfigError with every key that names a column which the source has not."""
    used = {f"rename: {name}": {name} for name in mapping.rename}
    used |= {f"cast: {name}": {name} for name in mapping.cast}
    used |= {key: set(pl.sql_expr(sql).meta.root_names()) for key, sql in _expressions(mapping)}
    mistakes = [
        f"{key}: the source has no column {', '.join(sorted(names - set(columns)))}"
        for key, names in used.items()
        if names - set(columns)
    ]
    _refuse(mistakes, columns, mapping)


def check_expressions(cast: pl.DataFrame, mapping: Mapping) -> None:
    """Raises ConfigError with every expression that does not fit the types of its columns."""
    mistakes = [
        f"{key}: {fault}" for key, sql in _expressions(mapping) if (fault := _fault(cast, sql))
    ]
    _refuse(mistakes, cast.columns, mapping)


def _expressions(mapping: Mapping) -> list[tuple[str, str]]:
    derived = [(f"derive: {name}: {sql}", sql) for name, sql in mapping.derive.items()]
    return derived + [(f"drop: {sql}", sql) for sql in mapping.drop]


def _refuse(mistakes: Sequence[str], columns: Sequence[str], mapping: Mapping) -> None:
    if mistakes:
        raise ConfigError(
            f"{mapping.name} does not fit the file.",
            "\n       ".join(mistakes),
            f"Columns are: {', '.join(columns)}. "
            "Text becomes a number by `cast: {column: number}`.",
        )


def _fault(frame: pl.DataFrame, sql: str) -> str | None:
    try:
        frame.head(5).select(pl.sql_expr(sql))
    except pl.exceptions.PolarsError as error:
        return str(error).splitlines()[0]
    return None
