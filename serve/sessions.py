"""Who may look at the console: a signed cookie for whoever knew the API key, and a token a form.

No state is kept: a session is its end and a signature, so any replica can check it.
"""

import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Final

COOKIE: Final = "reco_console"
LASTS_S: Final = 12 * 3600


class Sessions:
    """Opens and checks sessions under one API key; a new key ends them all."""

    def __init__(self, api_key: str) -> None:
        self._key = api_key.encode()

    def open(self, api_key: str) -> str | None:
        """Value of the cookie for whoever gives the key; None for anybody else."""
        if not secrets.compare_digest(api_key.encode(), self._key):
            return None
        text = f"{int(time.time()) + LASTS_S}.{secrets.token_urlsafe(12)}"
        return f"{text}.{self._sign('session', text)}"

    def valid(self, cookies: Mapping[str, str]) -> bool:
        """Whether the request of these cookies belongs to an open session."""
        text, _, signature = cookies.get(COOKIE, "").rpartition(".")
        if not secrets.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return False
        end = text.partition(".")[0]
        return end.isdigit() and int(end) > time.time()

    def form_token(self, cookies: Mapping[str, str]) -> str:
        """What a form must send back, so that no other site can send it."""
        return self._sign("form", cookies.get(COOKIE, ""))

    def form_is_ours(self, cookies: Mapping[str, str], token: str) -> bool:
        """Whether a form was made for this session."""
        return secrets.compare_digest(token.encode(), self.form_token(cookies).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self._key, f"console/{purpose}/{text}".encode(), "sha256").hex()
