"""Metrics of the stream, exported as those of serve.metrics are."""

from collections import Counter as Counts
from typing import Final

from ray.util.metrics import Counter, Gauge

from reco.events.stream import Tally
from reco.features.verify import Verification

EVENTS: Final = "reco_stream_events"  # by result: new, duplicate, refused
REFUSED: Final = "reco_stream_refused"  # dead letters, by reason
LAG: Final = "reco_stream_lag"  # messages that wait, by consumer process
EARLY: Final = "reco_stream_early"  # events of sources whose clock is ahead of ours
AHEAD: Final = "reco_stream_ahead_seconds"  # by how much the farthest of the last batch is
SKEW: Final = "reco_feature_skew"  # largest difference between a served feature and the lake's
SKEWED: Final = "reco_feature_skew_users"  # users of the sample with a difference


class StreamMeters:
    """The metrics of one consumer."""

    def __init__(self) -> None:
        self._events = Counter(EVENTS, "Events processed", ("result",))
        self._refused = Counter(REFUSED, "Events that became dead letters", ("reason",))
        self._lag = Gauge(LAG, "Messages that wait for this consumer")
        self._early = Counter(EARLY, "Events more than a minute ahead of our clock")
        self._ahead = Gauge(AHEAD, "How far the last batch lies in the future")
        self._said: Counts[tuple[str, str]] = Counts()

    def report(self, tally: Tally, lag: int) -> None:
        """What has been done so far, and what waits."""
        now: Counts[tuple[str, str]] = Counts()
        now["result", "new"] = tally.new
        now["result", "duplicate"] = tally.duplicates
        now["result", "refused"] = tally.refused.total()
        now["early", ""] = tally.early
        now.update({("reason", reason): count for reason, count in tally.refused.items()})
        for (tag, value), count in (now - self._said).items():
            if tag == "early":
                self._early.inc(count)
            else:
                (self._events if tag == "result" else self._refused).inc(count, {tag: value})
        self._said = now
        self._lag.set(lag)
        self._ahead.set(tally.ahead_s)


class SkewMeter:
    """How far served features are from those of the lake."""

    def __init__(self) -> None:
        self._skew = Gauge(SKEW, "Largest difference of a served feature from the lake's")
        self._users = Gauge(SKEWED, "Users of the sample with a difference")

    def report(self, found: Verification) -> None:
        """One comparison."""
        self._skew.set(found.largest)
        self._users.set(found.differing)
