"""Source files as frames of bounded size: Parquet, CSV and JSON lines; text may be gzipped."""

import codecs
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from reco.errors import InputError
from reco.events.mapping import Mapping

BATCH_ROWS: Final = 250_000
BLOCK_BYTES: Final = 16 << 20  # of text, about 150,000 rows of a usual CSV
CSV_SUFFIXES: Final = (".csv", ".tsv", ".txt")
JSON_SUFFIXES: Final = (".jsonl", ".ndjson")


class Source:
    """One source file.

    read_bytes  how much of it was read, for progress
    torn        lines of a CSV that have too many or too few fields, as they stand there
    """

    def __init__(self, path: Path, mapping: Mapping) -> None:
        """Raises InputError when there is no such file."""
        if not path.is_file():
            raise InputError(f"{path} does not exist.", "", "Check the path.")
        self.path = path
        self.bytes = path.stat().st_size
        self.read_bytes = 0
        self.torn: list[str] = []
        self._mapping = mapping

    def batches(self) -> Iterator[pl.DataFrame]:
        """First its columns without a row, then its rows, in order; the columns of a CSV are text.

        Raises InputError when the file is empty, not what its name says, or names a column twice.
        """
        try:
            for i, batch in enumerate(self._records()):
                if i == 0:
                    self._check_header(batch.schema.names)
                if i == 0 or batch.num_rows:
                    yield pl.DataFrame(batch).cast({pl.Categorical: pl.String})
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            raise InputError(
                f"{self.path} cannot be read.",
                str(error).splitlines()[0],
                self._advice(),
            ) from error

    def _check_header(self, names: Sequence[str]) -> None:
        twice = sorted(name or "(empty)" for name, n in Counter(names).items() if n > 1)
        if twice:
            raise InputError(
                f"{self.path} has columns of the same name: {', '.join(twice)}.",
                f"Columns are: {', '.join(names)}.",
                "Give each column a name of its own in the first line of the file.",
            )

    def _advice(self) -> str:
        if _kind(self.path).endswith(CSV_SUFFIXES):
            return "Look at the file, and at `encoding` and `separator` of the mapping."
        return "Look whether the file is whole, and whether it is what its name says."

    def _records(self) -> Iterator[pa.RecordBatch | pa.Table]:
        name = _kind(self.path)
        if name.endswith(".parquet"):
            return self._parquet()
        if name.endswith(CSV_SUFFIXES):
            return self._csv()
        if name.endswith(JSON_SUFFIXES):
            return self._json()
        kinds = ", ".join((".parquet", *CSV_SUFFIXES, *JSON_SUFFIXES))
        raise InputError(
            f"{self.path} is of no kind that can be read.",
            f"Its name ends with none of {kinds} (text also with .gz).",
            "Rename or convert the file.",
        )

    def _parquet(self) -> Iterator[pa.RecordBatch | pa.Table]:
        with pq.ParquetFile(self.path) as file:
            rows = 0
            yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(BATCH_ROWS):
                rows += batch.num_rows
                self.read_bytes = self.bytes * rows // file.metadata.num_rows
                yield batch

    def _json(self) -> Iterator[pa.RecordBatch | pa.Table]:
        options = pyarrow.json.ReadOptions(block_size=BLOCK_BYTES)
        with pa.OSFile(str(self.path)) as file:
            reader = pyarrow.json.open_json(self._plain(file), read_options=options)
            yield reader.schema.empty_table()
            for batch in reader:
                self.read_bytes = self.bytes if file.closed else file.tell()
                yield batch

    def _csv(self) -> Iterator[pa.RecordBatch | pa.Table]:
        names = self._mapping.columns
        if names is None:
            with pa.OSFile(str(self.path)) as file:
                names = self._open_csv(file, {}).schema.names
        self.torn.clear()  # of the look at the header
        with pa.OSFile(str(self.path)) as file:
            reader = self._open_csv(file, dict.fromkeys(names, pa.string()))
            yield reader.schema.empty_table()
            for batch in reader:
                self.read_bytes = self.bytes if file.closed else file.tell()
                yield batch

    def _open_csv(
        self, file: pa.NativeFile, types: dict[str, pa.DataType]
    ) -> pyarrow.csv.CSVStreamingReader:
        mapping = self._mapping
        tabbed = mapping.separator == "," and ".tsv" in self.path.name.lower()
        return pyarrow.csv.open_csv(
            self._plain(file),
            read_options=pyarrow.csv.ReadOptions(
                block_size=BLOCK_BYTES,
                column_names=mapping.columns,
                encoding=_strict(mapping.encoding),
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if tabbed else mapping.separator,
                newlines_in_values=True,
                invalid_row_handler=self._tear,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types, null_values=mapping.null_values, strings_can_be_null=True
            ),
        )

    def _plain(self, file: pa.NativeFile) -> pa.NativeFile:
        gzipped = self.path.name.lower().endswith(".gz")
        return pa.CompressedInputStream(file, "gzip") if gzipped else file

    def _tear(self, row: pyarrow.csv.InvalidRow) -> str:
        self.torn.append(row.text)
        return "skip"


def _strict(encoding: str) -> str:
    """PyArrow takes UTF-8 unchecked and then cannot hand on a torn line that is none."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _kind(path: Path) -> str:
    """Its name without the sign of compression."""
    return path.name.lower().removesuffix(".gz")
