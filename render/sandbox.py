"""The Jinja2 environments of mails: sandboxed, strict, and errors that name the author's line."""

import re
from collections.abc import Mapping
from typing import Any, Final

import jinja2
from jinja2 import StrictUndefined, Template
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reco.errors import TemplateError
from render.formats import format_date, format_price
from render.sources import Written
from render.views import VIEW_FIELDS

_SAFE_LINK: Final = re.compile(
    r"(?:https?://|mailto:|tel:|data:image/png;base64,|#)", re.IGNORECASE
)
# Not offered: `safe` would undo the escaping, the others have no place in a mail.
_WITHHELD: Final = frozenset({"safe", "attr", "xmlattr", "tojson", "pprint"})


class MailEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox; of our own views exactly the declared fields can be read."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read an attribute."""
        shown = VIEW_FIELDS.get(type(obj))
        if shown is not None:
            return attr in shown
        return bool(super().is_safe_attribute(obj, attr, value))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`; the general way costs a microsecond, and a mail asks 50 times."""
        kind = type(obj)
        if attribute in VIEW_FIELDS.get(kind, ()):
            return getattr(obj, attribute)
        if kind is dict and attribute in obj:  # a key of meta.yaml may be named like a method
            return obj[attribute]
        return super().getattr(obj, attribute)


def link(url: str) -> str:
    """The address when it is a web, mail or phone link; else "#", which leads nowhere."""
    return url if _SAFE_LINK.match(url) else "#"


def environment(*, html: bool) -> MailEnvironment:
    """Environment of the HTML part, or of text, subject and preheader (which are not escaped)."""
    made = MailEnvironment(
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=not html,
        lstrip_blocks=not html,
        keep_trailing_newline=False,
        auto_reload=False,
        cache_size=0,
    )
    for name in _WITHHELD:
        del made.filters[name]
    made.filters |= {"link": link, "date": format_date, "money": format_price}
    made.globals = {"range": made.globals["range"]}
    return made


def template(env: MailEnvironment, source: str, written: Written) -> Template:
    """Jinja template of `source`; a syntax error names the line of `written`."""
    try:
        made = env.from_string(source)
    except jinja2.TemplateError as error:
        raise explain(error, written) from error
    made.globals = dict(made.globals)  # its ChainMap is merged anew, slowly, by every render
    return made


def render_written(env: MailEnvironment, written: Written, variables: Mapping[str, object]) -> str:
    """Render what the author wrote; raises TemplateError with file, line and variable."""
    try:
        return env.from_string(written.text).render(variables)
    except Exception as error:
        raise explain(error, written) from error


def explain(error: Exception, written: Written) -> TemplateError:
    """The error in the author's terms: file, line, variable, what to do."""
    place = written.place(_line(error))
    if isinstance(error, SecurityError):
        return TemplateError(f"{place}: {error}", "templates run in a sandbox", "remove it")
    if isinstance(error, UndefinedError):
        return TemplateError(
            f"{place}: {_views_named(str(error))}",
            "a mail with a hole in it must not be sent",
            "correct the name, or give it a value in meta.yaml or in the campaign's variables",
        )
    if isinstance(error, TemplateSyntaxError):
        return TemplateError(f"{place}: {error.message}", "the Jinja syntax is wrong there")
    return TemplateError(f"{place}: {error}", f"{type(error).__name__} while rendering")


def _line(error: Exception) -> int:
    if isinstance(error, TemplateSyntaxError):
        return int(error.lineno)
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _views_named(message: str) -> str:
    return message.replace("'render.views.", "'").replace("RecipientView object'", "user'")
