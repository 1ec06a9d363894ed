"""What a campaign may show, whatever the model thinks: the `rules` of its YAML."""

from typing import Literal

from pydantic import Field

from reco.campaigns.typed import Share, Strict, Values


class FrequencyCap(Strict):
    """The same item at most `times` in `days` to one subscriber, over all campaigns."""

    times: int = Field(gt=0)
    days: int = Field(gt=0, le=366)


class Promotion(Strict):
    """Items that the shop wants to sell, in a quota of mails; caps and blocklists hold for them."""

    items: tuple[str, ...] = Field(min_length=1, description="item ids, which take turns")
    share: Share = Field(1.0, description="of the model's mails")
    slots: int = Field(1, gt=0, le=24, description="the last places of such a mail")


class Rules(Strict):
    """What may not be shown, whatever the model thinks."""

    blocked_items: tuple[str, ...] = ()
    blocked_categories: tuple[str, ...] = ()
    blocked_brands: tuple[str, ...] = ()
    blocked_attributes: Values = Field(
        (), description="values of the shop's own columns: items with one of them are not shown"
    )
    max_per_category: int | None = Field(None, gt=0, description="picks of one category in a mail")
    frequency_cap: FrequencyCap | None = None
    category_cap: FrequencyCap | None = Field(
        None, description="mails that show a category, to one subscriber, over all campaigns"
    )
    promoted: Promotion | None = None
    seen: Literal["keep", "drop", "auto"] = Field(
        "auto", description="items bought before: grocers keep, others drop; auto asks the model"
    )
    diversity: Share = Field(0.0, description="weight of unlikeness to the picks above (MMR)")
