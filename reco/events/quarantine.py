"""Rows that cannot be imported: kept as they came, with the reason, and counted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow.parquet as pq

TORN = "wrong number of fields"


class Quarantine:
    """A Parquet file of refused source rows, there only after `keep`. Use it in a `with`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        self._draft = path.with_name(f".{path.name}.tmp")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        self._draft.unlink(missing_ok=True)

    def add(self, rows: pl.DataFrame, reasons: pl.Series) -> None:
        """Refuse the rows that have a reason."""
        bad = rows.with_columns(reasons.alias("reason")).filter(pl.col("reason").is_not_null())
        if bad.is_empty():
            return
        self.reasons.update(bad["reason"].to_list())
        table = bad.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._draft, table.schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))

    def add_torn(self, lines: Sequence[str], columns: Sequence[str]) -> None:
        """Refuse lines of a CSV that could not be split; each stands in the first column."""
        if lines:
            types = dict.fromkeys(columns, pl.String)
            rows = pl.DataFrame({columns[0]: list(lines)}, schema_overrides=types)
            empty = [pl.lit(None, pl.String).alias(name) for name in columns[1:]]
            self.add(rows.with_columns(empty), pl.Series([TORN] * len(lines)))

    def keep(self) -> Path | None:
        """Put the file in its place; None when no row was refused."""
        if self._writer is None:
            self.path.unlink(missing_ok=True)  # of an earlier import of the same file
            return None
        self._close()
        self._draft.replace(self.path)
        return self.path

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
