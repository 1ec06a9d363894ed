"""What the compiler hands to the renderer: a template as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass

from render.sources import Written
from render.views import OPTIONAL, REQUIRED, sample_context


@dataclass(frozen=True, slots=True)
class Part:
    """One compiled part: `jinja` is rendered, `written` explains its errors."""

    jinja: str
    written: Written


@dataclass(frozen=True, slots=True)
class CompiledTemplate:
    """A template ready to render; plain data, so it travels between processes.

    `version` is a hash of all files; `defaults` the values of meta.yaml; `segments` the values of
    user.segment that the template tells apart; `printed` the fields of user that must not be empty.
    """

    name: str
    version: str
    html: Part
    text: Part
    subject: Part
    preheader: Part
    defaults: Mapping[str, object]
    segments: tuple[str, ...]
    printed: tuple[str, ...]

    def known(self) -> frozenset[str]:
        """Names that a campaign may set."""
        return frozenset((*REQUIRED, *OPTIONAL, *self.defaults))

    def sample(self, full: bool = True) -> dict[str, object]:
        """A context for trial renders; not `full`: names that may be empty are."""
        return {**sample_context(full), **self.defaults}
