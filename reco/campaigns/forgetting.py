"""Upkeep of the decision records: one file a day and campaign, and what must leave, leaves.

Records that are too old, and those of people who are no subscribers any more; then configurations,
templates and catalogues that no record was made of. Readers may go on meanwhile.
"""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from reco.campaigns.decisions import DECISIONS, FOLDER, campaigns, files, put
from reco.campaigns.delivery import KEY_MARK
from reco.events.lake import Lake

GRACE: Final = timedelta(days=1)  # a sender's records of what was kept just now may be on their way


@dataclass(slots=True)
class Forgotten:
    """What the upkeep left, and what it took."""

    records: int = 0
    expired: int = 0
    erased: int = 0  # records of people who are no subscribers any more
    versions: int = 0  # configurations, templates and catalogues


def forget(
    lake: Lake,
    known: Callable[[Sequence[str]], set[str]],
    oldest: datetime | None = None,
) -> Forgotten:
    """Drop records written on a day before `oldest`, and of users whom `known` does not give back.

    A mail whose record is gone cannot be made again; the ledger still has its delivery.
    """
    done, made_of = Forgotten(), set[str]()
    for campaign_id in campaigns(lake):
        for day, paths in groupby(files(lake, campaign_id), _day):
            made_of |= _tidy_day(lake, campaign_id, day, list(paths), known, oldest, done)
    done.versions = _sweep(lake, made_of)
    return done


def _day(path: str) -> str:
    return path.rsplit("/", 1)[1][:8]


def _tidy_day(
    lake: Lake,
    campaign_id: str,
    day: str,
    paths: list[str],
    known: Callable[[Sequence[str]], set[str]],
    oldest: datetime | None,
    done: Forgotten,
) -> set[str]:
    """One file of what stays; gives what its mails were made of."""
    table = pa.concat_tables(
        [pq.read_table(path, filesystem=lake.filesystem, schema=DECISIONS) for path in paths]
    )
    frame = pl.DataFrame(table)
    if oldest is not None and day < f"{oldest.astimezone(UTC):%Y%m%d}":
        done.expired += len(frame)
        _delete(lake, paths)
        return set()
    users = frame["delivery"].str.split(KEY_MARK).list.first()
    stays = users.is_in(list(known(users.unique().to_list())))
    done.erased += int((~stays).sum())
    done.records += int(stays.sum())
    if len(paths) > 1 or not stays.all():
        if stays.any():
            name = f"{day}T235959-{uuid.uuid4().hex[:12]}.parquet"
            sink = pa.BufferOutputStream()
            pq.write_table(table.filter(stays.to_arrow()), sink, compression="zstd")
            put(lake, sink.getvalue(), "records", campaign_id, name)
        _delete(lake, paths)
    return set(frame["made_of"].filter(stays).unique())


def _sweep(lake: Lake, made_of: set[str]) -> int:
    """Delete what no record was made of; gives the number of files."""
    gone, used = 0, set[str]()
    for path, old in _kept(lake, "bundles"):
        if old and path.rsplit("/", 1)[1].removesuffix(".json") not in made_of:
            _delete(lake, [path])
            gone += 1
            continue
        with lake.filesystem.open_input_stream(path) as stream:
            bundle = json.loads(stream.read())
        used |= {bundle["template"], bundle["catalogue"]}
    for kind in ("templates", "catalogues"):
        for path, old in _kept(lake, kind):
            if old and path.rsplit("/", 1)[1].partition(".")[0] not in used:
                _delete(lake, [path])
                gone += 1
    return gone


def _kept(lake: Lake, kind: str) -> list[tuple[str, bool]]:
    """Files of a kind, and whether each is out of its GRACE."""
    selector = pyarrow.fs.FileSelector(lake.path(FOLDER, kind), allow_not_found=True)
    deadline = datetime.now(UTC) - GRACE
    return [
        (info.path, info.mtime is not None and info.mtime < deadline)
        for info in lake.filesystem.get_file_info(selector)
        if info.is_file and not info.base_name.startswith(".")
    ]


def _delete(lake: Lake, paths: Sequence[str]) -> None:
    for path in paths:
        lake.filesystem.delete_file(path)
