"""What a campaign's mails share as text and headers: template, variables, sender, signature."""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from reco.campaigns.campaign import Campaign
from reco.campaigns.variants import SUBJECT
from reco.embedded import Services
from reco.errors import ConfigError
from render.compile import compile_template
from render.dkim import DkimSigner
from render.message import Sender
from render.renderer import Renderer
from render.template import CompiledTemplate
from render.views import sample_item, sample_recipient

SENDER_ID: Final = 15  # characters at most; Google wants 5 to 15, the same in every mail


def renderer_of(campaign: Campaign, copy: Mapping[str, str] | None = None) -> Renderer:
    """The campaign's template with its subject and variables, and `copy` instead of some of them.

    Raises NotFound, TemplateError, or ConfigError for a variable that the template does not have.
    """
    texts = dict(copy or {})
    subject = texts.pop(SUBJECT, campaign.subject)
    template = compile_template(campaign.template, subject=subject)
    context = {"postal_address": campaign.postal_address, "campaign_id": campaign.id}
    return Renderer(template, {**_variables(campaign, template), **texts, **context})


def try_template(campaign: Campaign) -> None:
    """Compile the template, with every arm of the campaign's copy, and see that it shows all picks.

    A pick that no reader sees would count as shown. Raises as renderer_of does, and ConfigError.
    """
    renderer = renderer_of(campaign)
    items = [sample_item(number) for number in range(1, campaign.picks + 1)]
    html = renderer.render(sample_recipient(), items, renderer.template.sample(full=False)).html
    shown = sum(bool(re.search(rf"{re.escape(item.url)}(?!\d)", html)) for item in items)
    if shown < campaign.picks:
        raise ConfigError(
            f"The template {campaign.template} shows {shown} of {campaign.picks} picks.",
            "The others would count as shown, and nobody would see them.",
            f"Set `picks: {shown}`, or let the template show more.",
        )
    for slot, texts in (campaign.variants.slots if campaign.variants else {}).items():
        for text in texts.values():
            renderer_of(campaign, {slot: text})


def sender_of(campaign: Campaign) -> Sender:
    """The headers that are the same in every mail."""
    list_id = list_header(campaign)
    return Sender(
        from_name=campaign.from_name,
        from_email=campaign.from_email,
        reply_to=campaign.reply_to or "",
        list_id=list_id if "<" in list_id else f"<{list_id}>",
        feedback_id=feedback_id(campaign),
        unsubscribe_email=campaign.unsubscribe_email or "",
    )


def list_header(campaign: Campaign) -> str:
    """Content of List-Id."""
    return campaign.list_id or f"{campaign.id}.{domain_of(campaign)}"


def feedback_id(campaign: Campaign) -> str:
    """Four fields by which Gmail counts complaints: campaign, list, kind of mail, sender."""
    mailing_list = list_header(campaign).rpartition("<")[2].rstrip(">")
    fields = (campaign.id, mailing_list, "marketing", sender_id(domain_of(campaign)))
    return ":".join(re.sub(r"[^A-Za-z0-9._-]+", "-", field) for field in fields)


def sender_id(domain: str) -> str:
    """The sender's name for Google: as many whole labels of the domain as fit, else its own one.

    A label that is too long has a short hash of the domain instead: cut, it could be another's.
    """
    labels = domain.split(".")
    ends = [".".join(labels[start:]) for start in range(len(labels) - 1)]
    own = labels[-2] if len(labels) > 1 else domain
    fits = [name for name in (*ends, own) if len(name) <= SENDER_ID]
    short = hashlib.blake2b(domain.encode(), digest_size=6).hexdigest()
    return (fits[0] if fits else short).ljust(5, "x")


def dkim_of(campaign: Campaign, services: Services) -> DkimSigner | None:
    """Who signs the mails, for the domain of their From; None where the relay does.

    Raises ConfigError when the key cannot be used.
    """
    if services.dkim_key is None:
        return None
    return DkimSigner(domain_of(campaign), services.dkim_selector, services.dkim_key)


def domain_of(campaign: Campaign) -> str:
    """Domain of the sender's address, in ASCII."""
    return campaign.from_email.rpartition("@")[2].encode("idna").decode()


def _variables(campaign: Campaign, template: CompiledTemplate) -> Mapping[str, object]:
    """The campaign's own; a template with a brand is told whose mail it is."""
    given = dict(campaign.variables)
    brand = template.defaults.get("brand")
    if isinstance(brand, Mapping):
        own = given.get("brand")
        known = {"name": campaign.from_name, "home_url": f"https://{domain_of(campaign)}/"}
        shared = {name: value for name, value in known.items() if name in brand}
        given["brand"] = {**shared, **own} if isinstance(own, Mapping) else own or shared
    return given
