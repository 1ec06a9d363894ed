"""Every error that reco raises on purpose.

RecoError
├── ConfigError          a file, a mapping or a setting is wrong; nothing was started
│   └── TemplateError    a template does not compile or names an unknown variable
├── InputError           a table that was given cannot be imported
├── ServiceUnavailable   a store or server does not answer (also a ConnectionError); worth a retry
├── NotFound             a campaign, model, user or table does not exist (also a LookupError)
├── ModelMismatch        model and features were made by different definitions
├── Conflict             the ledger or registry is in another state than the caller believes
└── SendError            SMTP said no
    ├── SendDeferred     4xx or a lost connection before DATA: try again later
    ├── SendFailed       5xx: do not try again
    └── SendUncertain    the connection died after DATA began: nobody knows

Each message says what happened, why, and what to do. The facts are positional arguments, so that
every error survives pickling between Ray processes.
"""


class RecoError(Exception):
    """Base of all errors raised on purpose."""

    def __init__(self, what: str, why: str = "", todo: str = "") -> None:
        super().__init__(what, why, todo)
        self.what = what
        self.why = why
        self.todo = todo

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"why: {self.why}")
        if self.todo:
            parts.append(f"what to do: {self.todo}")
        return "\n  ".join(parts)


class ConfigError(RecoError, ValueError):
    """A file, a mapping or a setting is wrong."""


class TemplateError(ConfigError):
    """A template does not compile or names an unknown variable."""


class InputError(RecoError, ValueError):
    """A table that was given cannot be imported."""


class ServiceUnavailable(RecoError, ConnectionError):
    """A store or a server does not answer."""


class NotFound(RecoError, LookupError):
    """A campaign, model, user or table does not exist."""


class ModelMismatch(RecoError):
    """Model and features were made by different definitions."""


class Conflict(RecoError):
    """The stored state is not the one the caller believes."""


class SendError(RecoError):
    """SMTP said no."""


class SendDeferred(SendError):
    """4xx, or a connection lost before DATA: try again later."""


class SendFailed(SendError):
    """5xx: do not try again."""


class SendUncertain(SendError):
    """The connection died after DATA began: nobody knows whether the mail was accepted."""
