"""The service of somebody else that knows more of an address than DNS does, behind one protocol."""

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

from reco.errors import ConfigError

AT_ONCE: Final = 8
TIMEOUT_S: Final = 10.0
MOST_BYTES: Final = 65_536  # of an answer
WORDS: Final = {
    "deliverable": True, "valid": True, "ok": True,
    "undeliverable": False, "invalid": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a verifier says: whether mail arrives (None: it does not know), and why."""

    deliverable: bool | None
    why: str = ""


class Verifier(Protocol):
    """Anything that knows whether an address takes mail. Never raises: no answer is no opinion."""

    async def verify(self, address: str) -> Opinion:
        """The opinion on one address."""


class HttpVerifier:
    """Asks `GET url`, which holds {address}; the answer is JSON with `result` and `reason`.

    `result` is deliverable, undeliverable, or anything else for "cannot tell": what Kickbox and
    its like answer. `url` may hold the key; it is not logged. Raises ConfigError without {address}.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, at_once: int = AT_ONCE) -> None:
        if not url.startswith(("https://", "http://")) or "{address}" not in url:
            raise ConfigError(
                "the address of the verifier cannot be used",
                "it must be a URL with {address} where the address goes",
                "set RECO_VERIFIER_URL=https://api.example/verify?key=…&email={address}",
            )
        self._url = url
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(at_once)

    async def verify(self, address: str) -> Opinion:
        """The opinion on one address; a service that is down has none."""
        async with self._free:
            return await asyncio.to_thread(self._ask, address)

    def _ask(self, address: str) -> Opinion:
        url = self._url.replace("{address}", quote(address, safe=""))
        try:
            with urllib.request.urlopen(url, timeout=self._timeout_s) as answer:
                said = json.loads(answer.read(MOST_BYTES))
            result, reason = str(said["result"]).lower(), str(said.get("reason") or "")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return Opinion(None, f"the verifier gives no answer ({type(error).__name__})")
        return Opinion(WORDS.get(result), reason.replace("_", " "))
