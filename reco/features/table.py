"""Names and shapes of the feature tables in the lake."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from reco.events.lake import Lake
from reco.features.definitions import Feature
from reco.features.view import Floats


def table_name(as_of: datetime, kind: str) -> str:
    """Name of a feature table: "features/as_of=2017-12-04T000000/items"."""
    return f"features/as_of={as_of.astimezone(UTC):%Y-%m-%dT%H%M%S}/{kind}"


def users_name(as_of: datetime, bucket: int) -> str:
    """Name of the user table of one bucket of the lake."""
    return table_name(as_of, f"users/bucket={bucket:02d}")


def frame_of(values: Floats, features: Sequence[Feature[Any]]) -> pl.DataFrame:
    """Matrix [n, f] as a frame with the features' names; what is unknown (NaN) is null."""
    columns = np.ascontiguousarray(values.T)
    frame = pl.DataFrame({f.name: column for f, column in zip(features, columns, strict=True)})
    return frame.fill_nan(None)


def read_user_table(lake: Lake, as_of: datetime) -> pl.DataFrame:
    """user_id and USER_FEATURES of everybody, sorted by bucket and user_id; raises NotFound."""
    return pl.concat([lake.read_table(users_name(as_of, b)) for b in range(lake.buckets)])
