"""The address of an SMTP relay: smtp://user:password@host:port?starttls=auto, or smtps://…."""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib

from reco.errors import ConfigError, ServiceUnavailable

PORTS: Final = {"smtp": 25, "smtps": 465}
STARTTLS: Final = {"auto": None, "always": True, "never": False}
VERIFY: Final = {"yes": True, "no": False}
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
EXPECTED: Final = (
    "RECO_SMTP_URL looks like smtp://user:password@host:587?starttls=always or smtps://host:465; "
    "starttls is auto, always or never, verify is yes or no."
)


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail goes and how to log in; `str` shows no secret."""

    scheme: Literal["smtp", "smtps"]
    host: str
    port: int
    username: str | None
    password: str | None
    starttls: bool | None  # None: when the server offers it
    verify: bool  # the server's certificate

    @classmethod
    def of(cls, url: str) -> "Relay":
        """Parse an address. Raises ConfigError, never with the password in it."""
        try:
            parts = urlsplit(url)
            port, query = parts.port, parse_qs(parts.query, strict_parsing=bool(parts.query))
        except ValueError as error:
            raise ConfigError("The SMTP address cannot be read.", todo=EXPECTED) from error
        if parts.scheme not in PORTS or not parts.hostname or query.keys() - {"starttls", "verify"}:
            raise ConfigError("The SMTP address cannot be read.", todo=EXPECTED)
        scheme: Literal["smtp", "smtps"] = "smtps" if parts.scheme == "smtps" else "smtp"
        # On loopback there is nobody to hide from, and the handshake costs more than the mail.
        default = "never" if scheme == "smtps" or parts.hostname in LOOPBACK else "auto"
        try:
            starttls = STARTTLS[query.get("starttls", [default])[-1]]
            verify = VERIFY[query.get("verify", ["yes"])[-1]]
        except KeyError as error:
            raise ConfigError(f"The SMTP address has {error} in it.", todo=EXPECTED) from error
        return cls(
            scheme,
            parts.hostname,
            port or PORTS[scheme],
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
            starttls,
            verify,
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def client(self, local_hostname: str, timeout_s: float) -> aiosmtplib.SMTP:
        """A client for this relay, not yet connected."""
        return aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            username=self.username,
            password=self.password,
            local_hostname=local_hostname,
            timeout=timeout_s,
            use_tls=self.scheme == "smtps",
            start_tls=self.starttls,
            validate_certs=self.verify,
        )

    def unavailable(self, error: Exception) -> ServiceUnavailable:
        """Why a connection could not be made."""
        if isinstance(error, aiosmtplib.SMTPAuthenticationError):
            what, why = f"The SMTP relay {self} refuses to log in.", f"Reply {error.code}."
        else:
            what, why = f"The SMTP relay {self} does not answer.", str(error)
        return ServiceUnavailable(what, why, "Check RECO_SMTP_URL and the relay, then try again.")
