"""The clock as subscribers see it: a moment in each one's own time zone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import polars as pl

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment for n subscribers, local.

    seconds  float64 [n]  since local midnight
    weekday  float64 [n]  0 (Monday) .. 6
    """

    seconds: Doubles
    weekday: Doubles

    @classmethod
    def at(cls, when: datetime, timezones: Sequence[str | None], default: str = "UTC") -> "Moment":
        """`when` in each time zone (IANA name); one that is missing or unknown is `default`."""
        names, which = np.unique([name or default for name in timezones], return_inverse=True)
        local = [when.astimezone(_zone(str(name), default)) for name in names]
        seconds = [t.hour * 3600 + t.minute * 60 + t.second for t in local]
        return cls(
            np.array(seconds, np.float64)[which],
            np.array([t.weekday() for t in local], np.float64)[which],
        )

    @classmethod
    def each(cls, times: pl.Series, timezone: str | None, default: str = "UTC") -> "Moment":
        """Many moments (UTC) of one time zone, as `at` gives them one by one."""
        local = times.dt.convert_time_zone(_zone(timezone or default, default).key)
        parts = [part.cast(pl.Int64) for part in (local.dt.hour(), local.dt.minute())]
        seconds = parts[0] * 3600 + parts[1] * 60 + local.dt.second()
        weekday = local.dt.weekday() - 1  # of Polars, from 1
        return cls(seconds.cast(pl.Float64).to_numpy(), weekday.cast(pl.Float64).to_numpy())

    @property
    def hour(self) -> Doubles:
        """Hour of the day, 0..23."""
        return np.floor(self.seconds / 3600)

    @property
    def day_angle(self) -> Doubles:
        """Time of day as an angle; midnight is 0."""
        return self.seconds * (2 * np.pi / 86_400)

    @property
    def week_angle(self) -> Doubles:
        """Day of week as an angle; Monday is 0."""
        return self.weekday * (2 * np.pi / 7)


def _zone(name: str, default: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo(default)
