"""The training set of a lake, as something to compare."""

import hashlib
from datetime import datetime

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.features.history import cutoff_day
from reco.features.items import ItemFacts
from reco.features.table import users_name
from reco.features.targets import strongest
from reco.features.view import Context
from reco.tables import type_code
from train import examples, features


def training_set(lake: Lake, as_of: datetime) -> dict[str, str]:
    """Hash of all that training would read as of a time: examples and user features, by bucket."""
    target = strongest(lake.manifest().types())
    example = examples.Job(lake, None, "compare", as_of, target, 4.0)
    feature = features.Job(lake, None, None, as_of, _context(lake, as_of))
    found = {}
    for bucket in range(lake.buckets):
        histories = examples.read_shard(lake, examples.write_shard(example, bucket, []).path)
        found[f"examples {bucket}"] = _hash(b"".join(histories.pack()))
        features.build_bucket(feature, bucket, [])
        table = lake.read_table(users_name(as_of, bucket))
        found[f"features {bucket}"] = _hash(table.write_csv().encode())
    return found


def _context(lake: Lake, as_of: datetime) -> Context:
    target = type_code(strongest(lake.manifest().types()))
    return Context(cutoff_day(as_of), ItemFacts.of(Catalogue.of(lake.items())), target)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
