"""One mail at a time: a compiled template, a recipient and the picks become text and HTML.

Made once a campaign and replica; `render` is pure, so a retry gives the same mail.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import jinja2

from reco.errors import ConfigError, TemplateError
from render import sandbox
from render.template import CompiledTemplate, Part
from render.views import OPTIONAL, Interest, ItemView, RecipientView, Rendered

__all__ = ["Interest", "ItemView", "RecipientView", "Rendered", "Renderer"]

_BREAK: Final = re.compile(r"[\r\n\0]")


class Renderer:
    """Renders the mails of one campaign.

    `context` holds what is the same for all of its mails: postal_address, popular, sent_at and
    the template's own variables, of which it may set single fields.
    Raises ConfigError for a name that the template does not know.
    """

    def __init__(
        self, template: CompiledTemplate, context: Mapping[str, object] | None = None
    ) -> None:
        context = context or {}
        unknown = sorted(context.keys() - template.known())
        if unknown:
            raise ConfigError(
                f"template {template.name!r} has no variables {', '.join(unknown)}",
                f"it knows {', '.join(sorted(template.known()))}",
                "correct the names under `variables:`, or declare them in the template's meta.yaml",
            )
        self.template = template
        self._context = {**OPTIONAL, **_merged(template.defaults, context)}
        self._page, self._plain = sandbox.environment(html=True), sandbox.environment(html=False)
        self._html = self._compiled(self._page, template.html)
        self._text = self._compiled(self._plain, template.text)
        self._subject = self._compiled(self._plain, template.subject)
        self._preheader = self._compiled(self._plain, template.preheader)

    def render(
        self,
        recipient: RecipientView,
        recommendations: Sequence[ItemView],
        context: Mapping[str, object] | None = None,
    ) -> Rendered:
        """The mail of one recipient; `context` (unsubscribe_url, …) wins over the campaign's.

        Raises TemplateError with file, line and variable.
        """
        variables = {
            **self._context,
            **(context or {}),
            "user": recipient,
            "recommendations": recommendations,
        }
        subject = variables["subject"] = self._one_line(
            self._subject, self.template.subject, variables
        )
        preheader = variables["preheader"] = self._one_line(
            self._preheader, self.template.preheader, variables
        )
        try:
            html = self._html.render(variables)
            text = self._text.render(variables)
        except Exception as error:
            raise self._explained(error, variables) from error
        return Rendered(subject, preheader, html, text)

    def lacking(self, recipient: RecipientView) -> list[str]:
        """Variables that leave a hole in the mail of a recipient: printed, and empty."""
        return [f"user.{name}" for name in self.template.printed if not getattr(recipient, name)]

    def _one_line(self, made: jinja2.Template, part: Part, variables: Mapping[str, object]) -> str:
        try:
            line = made.render(variables).strip()
        except Exception as error:
            raise self._explained(error, variables) from error
        if _BREAK.search(line):
            raise TemplateError(
                f"{part.written.place(1)}: a line break in {line!r}",
                "a line break in a header would start another header",
                "write it on one line, and look for line breaks in titles and names",
            )
        return line

    def _explained(self, error: Exception, variables: Mapping[str, object]) -> TemplateError:
        """Render what the author wrote, part by part, to find the author's line."""
        template = self.template
        for env, part in (
            (self._plain, template.subject),
            (self._plain, template.preheader),
            (self._page, template.html),
            (self._plain, template.text),
        ):
            try:
                sandbox.render_written(env, part.written, variables)
            except TemplateError as explained:
                return explained
        return TemplateError(f"template {template.name!r} fails: {error}", type(error).__name__)

    @staticmethod
    def _compiled(env: sandbox.MailEnvironment, part: Part) -> jinja2.Template:
        return sandbox.template(env, part.jinja, part.written)


def _merged(defaults: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """`given` over `defaults`, field by field where both are mappings."""
    merged = {**defaults, **given}
    for name, value in given.items():
        default = defaults.get(name)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            merged[name] = {**default, **value}
    return merged
