"""What a sender works on stays its own: the leases of its claims are renewed until it is done.

Leases are short, so that what a dead sender held is soon taken over; a rate, the pace of a receiver
or a slow relay may make a claim take much longer than one lease.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from reco.campaigns.ledger import Ledger
from reco.errors import ServiceUnavailable

log = structlog.get_logger()

RENEWALS: Final = 3  # in the time of one lease: one or two may come too late


class Leases:
    """The leases of one campaign's claims; for one event loop."""

    def __init__(self, ledger: Ledger, campaign_id: str, lease_s: float) -> None:
        self._ledger = ledger
        self._campaign_id = campaign_id
        self._lease_s = lease_s

    @asynccontextmanager
    async def held(self, fence: int) -> AsyncIterator[None]:
        """Renew the lease of a claim until the block ends."""
        renewing = asyncio.create_task(self._renew(fence))
        try:
            yield
        finally:
            renewing.cancel()

    async def _renew(self, fence: int) -> None:
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS)
            try:
                await asyncio.to_thread(self._ledger.renew, self._campaign_id, fence, self._lease_s)
            except ServiceUnavailable as error:
                # Whoever uses the claim next hears of it too, and stops the sender.
                log.warning("a lease is not renewed", why=str(error))
