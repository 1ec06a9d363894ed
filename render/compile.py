"""A template folder becomes one CompiledTemplate: MJML to HTML, CSS inlined, everything checked.

Done once a campaign; what remains for each recipient is plain Jinja. The folder holds
template.mjml, text.jinja, subject.jinja, preheader.jinja, meta.yaml (values of its own variables)
and any blocks that these include.
"""

from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reco.errors import NotFound, TemplateError
from render import sandbox, variables
from render.mjml import to_html
from render.renderer import Renderer
from render.sources import Written, folder_version, read_pieces, read_text
from render.template import CompiledTemplate, Part
from render.views import MADE, sample_item, sample_recipient

STOCK: Final = Path(__file__).parent / "templates"


class Meta(BaseModel):
    """meta.yaml: what the template is, and values for the names that only it uses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    variables: dict[str, object] = Field(default_factory=dict)


def template_folder(name: str | Path) -> Path:
    """Folder of a template: a path, or the name of one that comes with the package."""
    path = Path(name)
    stock_name = path.name if len(path.parts) == 1 else ""
    for folder in (path, STOCK / stock_name):
        if (folder / "template.mjml").is_file():
            return folder
    stock = sorted(p.parent.name for p in STOCK.glob("*/template.mjml"))
    raise NotFound(
        f"there is no template {str(name)!r}",
        "a template is a folder with a file template.mjml in it",
        f"give the path of one, or the name of a stock template: {', '.join(stock)}",
    )


def compile_template(template: str | Path, *, subject: str | None = None) -> CompiledTemplate:
    """Compile a folder and try it on sample recipients of every segment.

    `subject`, a Jinja line of the campaign's own, is taken instead of subject.jinja.
    Raises NotFound, or TemplateError with file, line and variable.
    """
    folder = template_folder(template)
    meta = _meta(folder)
    pieces = {name: read_pieces(folder, name) for name in _files(folder)}
    written = {name: Written.of(pieces[name]) for name in pieces}
    if subject is not None:
        written["subject.jinja"] = Written(subject, (("subject of the campaign", 1),))
    strict = sandbox.environment(html=True)
    known = variables.known_names(meta.variables)
    for source in written.values():
        sandbox.template(strict, source.text, source)
        variables.check(strict, source, known)
    parts = {name: Part(source.text, source) for name, source in written.items()}
    compiled = CompiledTemplate(
        name=folder.name,
        version=folder_version(folder),
        html=Part(to_html(pieces["template.mjml"]), written["template.mjml"]),
        text=parts["text.jinja"],
        subject=parts["subject.jinja"],
        preheader=parts["preheader.jinja"],
        defaults=meta.variables,
        segments=variables.segments(strict, written["template.mjml"]),
        printed=tuple(
            sorted({name for w in written.values() for name in variables.printed(strict, w)})
        ),
    )
    _try_out(compiled)
    return compiled


def _files(folder: Path) -> tuple[str, ...]:
    names = ("template.mjml", "text.jinja", "subject.jinja", "preheader.jinja")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise TemplateError(
            f"{folder}: {', '.join(missing)} missing",
            "a mail has an HTML part, a text part, a subject and a preheader",
            "write them, or copy them from the stock template 'digest'",
        )
    return names


def _meta(folder: Path) -> Meta:
    if not (folder / "meta.yaml").is_file():
        return Meta()
    try:
        meta = Meta.model_validate(yaml.safe_load(read_text(folder, "meta.yaml")) or {})
    except (yaml.YAMLError, ValidationError) as error:
        raise TemplateError("meta.yaml: cannot be read", str(error)) from error
    taken = sorted(meta.variables.keys() & {"user", "recommendations", *MADE})
    if taken:
        raise TemplateError(
            f"meta.yaml: the names {', '.join(taken)} are taken", todo="choose other names"
        )
    return meta


def _try_out(template: CompiledTemplate) -> None:
    """Render samples: each segment, with and without the names that may be empty."""
    renderer = Renderer(template)
    picks = [sample_item(number) for number in (1, 2, 3)]
    for segment in ("", *template.segments):
        for full in (True, False):
            recipient = sample_recipient(segment, "Ana" if full else "")
            renderer.render(recipient, picks, template.sample(full))
