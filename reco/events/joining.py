"""Files that lie beside a source and complete its rows, such as the orders of ordered products."""

from pathlib import Path

import polars as pl

from reco.errors import ConfigError, InputError
from reco.events.mapping import Mapping
from reco.events.reading import Source


class Joins:
    """The files of a mapping's `join`, held in memory; of equal keys the last row counts."""

    def __init__(self, mapping: Mapping, folder: Path) -> None:
        """Raises InputError for a file that cannot be read, ConfigError for one without the key."""
        self._name = mapping.name
        self._beside = {
            name: (column, self._read(folder / name, column, mapping))
            for name, column in mapping.join.items()
        }

    def widen(self, raw: pl.DataFrame) -> pl.DataFrame:
        """The rows with the columns of every file; null where a file knows nothing of the key."""
        for name, (column, beside) in self._beside.items():
            try:
                raw = raw.join(beside, on=column, how="left", maintain_order="left")
            except pl.exceptions.PolarsError as error:
                raise self._misfit(name, column, str(error).splitlines()[0]) from error
        return raw

    def _read(self, path: Path, column: str, mapping: Mapping) -> pl.DataFrame:
        # `columns` names those of the source; a file to join has a header.
        batches = list(Source(path, mapping.model_copy(update={"columns": None})).batches())
        frame = pl.concat(batches)
        if frame.is_empty():
            raise InputError(f"{path} has no rows to join.", "", "Check the file of `join`.")
        if column not in frame.columns:
            raise self._misfit(path.name, column, f"It has {', '.join(frame.columns)}.")
        frame = frame.unique(column, keep="last", maintain_order=True)
        added = mapping.beside.get(path.name, {})
        try:
            return frame.with_columns(pl.sql_expr(sql).alias(name) for name, sql in added.items())
        except pl.exceptions.PolarsError as error:
            raise ConfigError(
                f"{mapping.name}: beside: an expression over {path.name} fails.",
                str(error).splitlines()[0],
                f"Columns of the file are text: {', '.join(frame.columns)}.",
            ) from error

    def _misfit(self, name: str, column: str, why: str) -> ConfigError:
        return ConfigError(
            f"{self._name}: join: {name} cannot be joined on {column}.",
            why,
            "Name a column that both have, with values of one type.",
        )
