"""Three of the stages as Ray Serve runs them: thin coats on plain classes, with metrics.

The fourth, the Scorer, is a module of its own: only its replicas import torch.

Each call works in a thread, so that the replica keeps answering: one of asyncio's, which stay;
those that Serve starts for a plain method do not outlive its call.
"""

import asyncio

from reco.rules.caps import Caps
from reco.rules.contact import Contacts
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList
from serve.archive import Archive
from serve.assembling import MailMaker
from serve.chunks import (
    Assembled,
    FeatureChunk,
    PickedChunk,
    Recommended,
    Request,
    ScoredChunk,
)
from serve.contact import Contact
from serve.fresh import FreshSlates
from serve.metrics import Meters
from serve.past import Past
from serve.picking import Picker, unscored
from serve.reading import Reader
from serve.segments import Segments
from serve.shelf import Shelf
from serve.stores import Stores


class Features:
    """Profiles, consent, histories and fresh slates of a chunk."""

    def __init__(self, home: str) -> None:
        stores = self._stores = Stores(home)
        self._meters = Meters()
        self._reader = Reader(
            SubscriberStore(stores.reading),
            SuppressionList(stores.reading, stores.services.link_key),
            stores.online,
            FreshSlates(stores.redis),
            Segments(stores.catalogue),
            Past(stores.redis),
            Contact(Contacts(stores.redis)),
        )

    async def read(self, request: Request) -> FeatureChunk:
        """See serve.reading.Reader.read."""
        return await asyncio.to_thread(self._read, request)

    def _read(self, request: Request) -> FeatureChunk:
        chunk = self._reader.read(request)
        self._meters.stage("features", chunk.took_ms["features"], len(request.deliveries))
        self._meters.withheld([person.reason for person in chunk.withheld])
        return chunk


class Rules:
    """Rules, frequency caps and the fallback ladder."""

    def __init__(self, home: str) -> None:
        stores = self._stores = Stores(home)
        self._meters = Meters()
        shelf = Shelf(stores.lake, stores.catalogue)
        self._picker = Picker(stores.catalogue, stores.online, Caps(stores.redis), shelf)

    async def pick(
        self, chunk: FeatureChunk, scored: ScoredChunk | None, fallback: str = ""
    ) -> PickedChunk:
        """See serve.picking.Picker.pick; without a scored chunk `fallback` says why."""
        return await asyncio.to_thread(self._pick, chunk, scored or unscored(chunk, fallback))

    def _pick(self, chunk: FeatureChunk, scored: ScoredChunk) -> PickedChunk:
        picked = self._picker.pick(chunk, scored)
        self._meters.stage("rules", picked.took_ms["rules"], len(chunk.recipients))
        self._meters.picks(picked.slates)
        self._meters.fallback(picked.fallback, len(chunk.recipients))
        return picked


class Renderer:
    """Templates, links and MIME."""

    def __init__(self, home: str) -> None:
        stores = self._stores = Stores(home)
        self._meters = Meters()
        self._maker = MailMaker(stores.catalogue, stores.services, Archive(stores.lake))

    async def make(self, chunk: FeatureChunk, picked: PickedChunk) -> Assembled:
        """See serve.assembling.MailMaker.make."""
        return await asyncio.to_thread(self._make, chunk, picked)

    async def describe(self, chunk: FeatureChunk, picked: PickedChunk) -> Recommended:
        """See serve.assembling.MailMaker.describe."""
        return await asyncio.to_thread(self._maker.describe, chunk, picked)

    def _make(self, chunk: FeatureChunk, picked: PickedChunk) -> Assembled:
        assembled = self._maker.make(chunk, picked)
        self._meters.stage("renderer", assembled.took_ms["renderer"], len(chunk.recipients))
        self._meters.assembled(len(assembled))
        return assembled
