"""The Scorer as Ray Serve runs it: the only replicas that hold a model and import torch."""

import asyncio
from typing import Any

from serve.chunks import FeatureChunk, ScoredChunk
from serve.metrics import Meters
from serve.model import CurrentModel
from serve.occasions import Occasions
from serve.scoring import Scoring
from serve.shelf import Shelf
from serve.stores import Stores


class Scorer:
    """Candidates of a chunk. `user_config` swaps the model without a dropped request."""

    def __init__(self, home: str) -> None:
        stores = self._stores = Stores(home)
        self._meters = Meters()
        occasions = Occasions(stores.lake, stores.online, stores.catalogue)
        shelf = Shelf(stores.lake, stores.catalogue)
        self._scoring = Scoring(stores.catalogue, occasions=occasions, shelf=shelf)
        self._model = CurrentModel(stores.redis, stores.catalogue, self._scoring)

    def reconfigure(self, config: dict[str, Any]) -> None:
        """{"model": directory or null for the champion, "device": "cpu" or "cuda"}.

        Raises NotFound, ModelMismatch or ConfigError; the old model then stays.
        """
        self._model.configure(config)

    async def score(self, chunk: FeatureChunk) -> ScoredChunk:
        """See serve.scoring.Scoring.score."""
        return await asyncio.to_thread(self._score, chunk)

    def _score(self, chunk: FeatureChunk) -> ScoredChunk:
        self._model.refresh()
        scored = self._scoring.score(chunk)
        self._meters.stage("scorer", scored.took_ms["scorer"], len(chunk.recipients))
        return scored
