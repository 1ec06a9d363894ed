"""Last stage: picks become mails. Takes FeatureChunk and PickedChunk, gives Assembled.

What the mails of a campaign share is made once a process (serve.workshop). A mail that cannot be
rendered is one broken recipient, not a lost chunk. Runs without Ray.
"""

import time
from functools import lru_cache, partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from reco.campaigns.variants import Chosen, in_places
from reco.catalogue import Catalogue
from reco.embedded import Services
from reco.errors import RecoError
from reco.models.slates import Rung
from serve.archive import Archive, Keeping
from serve.chunks import (
    Assembled,
    FeatureChunk,
    Mode,
    PickedChunk,
    Recommended,
    Withheld,
)
from serve.gaps import bought_rows, repeat_gaps, titles_of
from serve.recording import records_of
from serve.rows import lines
from serve.workshop import Mail, Shown, Workshop

KEPT_CAMPAIGNS = 16


class MailMaker:
    """Renders and assembles chunks. Threads may share it."""

    def __init__(
        self, catalogue: Catalogue, services: Services, archive: Archive | None = None
    ) -> None:
        """With an archive, mails that are for sending come with their decision records."""
        self._catalogue = catalogue
        self._services = services
        self._archive = archive
        self._workshop = lru_cache(maxsize=KEPT_CAMPAIGNS)(self._open)

    def make(self, chunk: FeatureChunk, picked: PickedChunk) -> Assembled:
        """The mails of a chunk, and who got none.

        Raises NotFound or TemplateError when the campaign's template cannot be used at all.
        """
        started = time.perf_counter()
        workshop, kept = self._workshop(chunk.request.campaign)
        popular = workshop.popular(picked.popular)
        rows = self._catalogue.index.rows(picked.slates.items)
        gaps = repeat_gaps(chunk, picked.slates)
        bought = bought_rows(picked.slates, self._catalogue)
        curious = chunk.personal & (picked.slates.rungs > Rung.LIVE).all(axis=1)
        shown = list(map(Shown, rows, picked.slates.reasons, gaps, bought, curious.tolist()))
        mails: list[Mail] = []
        made: list[int] = []
        broken: list[Withheld] = []
        for i in range(len(chunk.recipients)):
            try:
                mails.append(workshop.mail(chunk.recipients, i, shown[i], chunk.now, popular))
            except RecoError as error:
                broken.append(Withheld(chunk.recipients.deliveries[i], error.what))
            else:
                made.append(i)
        sent = chunk.request.mode is Mode.SEND
        copy = [mail.copy for mail in mails]
        messages = [mail.message for mail in mails]
        facts = (messages, copy, gaps, bought, curious, self._catalogue)
        made_of = kept.made_of() if kept and sent else ""  # a check may be a day before the send
        records = records_of(chunk, picked, made_of, made, *facts) if made_of else None
        item_ids = self._item_ids(rows)
        render_ms = (time.perf_counter() - started) * 1e3
        recipients = chunk.recipients
        check = chunk.request.mode is Mode.CHECK
        return Assembled(
            deliveries=[recipients.deliveries[i] for i in made],
            arms=[recipients.arms[i] for i in made],
            addresses=[recipients.emails[i] for i in made],
            message_ids=[mail.message_id for mail in mails],
            messages=messages,
            slates=lines(picked.slates, made),
            item_ids=[item_ids[i] for i in made],
            titles=[self._titles(rows[i]) for i in made] if check else [],
            bought=[titles_of(bought[i], self._catalogue) for i in made] if check else [],
            withheld=chunk.withheld,
            broken=broken,
            model_version=picked.model_version,
            fallback=picked.fallback,
            took_ms=chunk.took_ms | picked.took_ms | {"renderer": render_ms},
            rendered=[mail.rendered for mail in mails] if check else [],
            lacking=[workshop.lacking(recipients, i) for i in made] if check else [],
            removed=picked.removed,
            copy=[
                chosen + _drawn(item_ids[i], picked.chances[i], recipients.segments[i])
                for chosen, i in zip(copy, made, strict=True)
            ],
            waiting=chunk.waiting,
            records=records,
            fates=picked.fates[made],
        )

    def _open(self, spec: bytes) -> tuple[Workshop, Keeping | None]:
        """What the mails of a campaign share, and where it is kept."""
        workshop = Workshop(spec, self._catalogue, self._services)
        if self._archive is None:
            return workshop, None
        shared = (workshop.template_version, self._catalogue, self._services)
        return workshop, Keeping(partial(self._archive.keep, spec, *shared))

    def describe(self, chunk: FeatureChunk, picked: PickedChunk) -> Recommended:
        """The slates of a chunk in words, without a mail."""
        rows = self._catalogue.index.rows(picked.slates.items)
        bought = bought_rows(picked.slates, self._catalogue)
        return Recommended(
            user_ids=chunk.recipients.user_ids,
            slates=picked.slates,
            item_ids=self._item_ids(rows),
            titles=[self._titles(line) for line in rows],
            bought=[titles_of(line, self._catalogue) for line in bought],
            model_version=picked.model_version,
            fallback=picked.fallback,
            took_ms=chunk.took_ms | picked.took_ms,
        )

    def _item_ids(self, rows: npt.NDArray[np.int32]) -> list[list[str]]:
        """Item ids of each line of rows [n, k], without the empty places."""
        filled = rows >= 0
        ids = iter(self._catalogue.item_ids[rows[filled]].tolist())
        return [list(islice(ids, count)) for count in filled.sum(axis=1).tolist()]

    def _titles(self, rows: npt.NDArray[np.int32]) -> list[str]:
        titles = self._catalogue.frame["title"]
        return [titles[row] or "" for row in rows.tolist() if row >= 0]


def _drawn(item_ids: list[str], chance: float, segment: str) -> tuple[Chosen, ...]:
    """The items of a mail that were drawn, for the log of chances."""
    return in_places(item_ids, float(chance), segment) if chance else ()
