"""A compiled template and a recipient give one mail, the same one each time."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.errors import ConfigError, TemplateError
from reco.models.slates import Reason
from render.compile import compile_template
from render.formats import format_date, format_price
from render.reasons import reason_sentence
from render.renderer import ItemView, RecipientView, Renderer
from render.views import sample_context, sample_item, sample_recipient

PICKS = [sample_item(n) for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def digest():
    return Renderer(compile_template("digest"), {"postal_address": "1 Road, 10115 Berlin"})


def mail(renderer, recipient=None, picks=PICKS, **context):
    return renderer.render(
        recipient or sample_recipient(),
        picks,
        {"unsubscribe_url": "https://shop.example/u/TOKEN", **context},
    )


@pytest.fixture
def renderer_of(tmp_path):
    """A renderer of a one-column template."""

    def make(body, subject="Hi", text="Hi"):
        page = "<mjml><mj-body><mj-section><mj-column>{}</mj-column></mj-section></mj-body></mjml>"
        (tmp_path / "template.mjml").write_text(page.format(body))
        (tmp_path / "subject.jinja").write_text(subject)
        (tmp_path / "text.jinja").write_text(text)
        (tmp_path / "preheader.jinja").write_text("")
        (tmp_path / "meta.yaml").write_text("variables: {things: [{n: 1}], word: ''}")
        return Renderer(compile_template(tmp_path))

    return make


def test_rendering_twice_gives_the_same_mail(digest):
    assert mail(digest) == mail(digest)


def test_names_and_titles_are_escaped_in_html_and_plain_elsewhere(digest):
    evil = ItemView(
        "1", 'A "b" <i>', "$1", 'https://x.example/"><script>', "https://x.example/?a=1&b=2"
    )

    rendered = mail(
        digest, RecipientView("u", "a@example.com", "<script>alert(1)</script>"), [evil]
    )

    assert "<script>" not in rendered.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in rendered.html
    assert 'href="https://x.example/?a=1&amp;b=2"' in rendered.html
    assert 'A "b" <i>' in rendered.text
    assert 'A "b" <i>' in rendered.preheader


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", " javascript:x", "vbscript:x", "//evil.example"]
)
def test_links_from_a_feed_cannot_run_code(digest, url):
    rendered = mail(digest, picks=[ItemView("1", "Title", "$1", url, url)])

    assert url.strip() not in rendered.html
    assert 'href="#"' in rendered.html


def test_the_pixel_is_there_only_with_consent(digest):
    assert "/o/T" in mail(digest, open_url="https://shop.example/o/T").html
    assert 'width="1"' not in mail(digest).html


def test_the_address_and_both_ways_out_are_in_both_parts(digest):
    rendered = mail(digest, preferences_url="https://shop.example/p/TOKEN")

    for part in (rendered.html, rendered.text):
        assert "1 Road, 10115 Berlin" in part
        assert "https://shop.example/u/TOKEN" in part
        assert "https://shop.example/p/TOKEN" in part


def test_the_mail_of_a_real_campaign_stays_below_gmail_s_clip(digest):
    rendered = mail(digest, **sample_context())

    assert len(rendered.html.encode()) < 60_000


def test_a_missing_value_names_file_line_and_variable():
    renderer = Renderer(compile_template("digest"))

    with pytest.raises(
        TemplateError, match=r"blocks/footer\.mjml:\d+: 'unsubscribe_url' is undefined"
    ):
        renderer.render(sample_recipient(), PICKS, {"postal_address": "x"})


@pytest.mark.parametrize(
    ("subject", "lacks"),
    [
        ("{{ user.first_name }}, your week", ["user.first_name"]),
        ("{{ user.first_name | upper ~ '!' }}", ["user.first_name"]),
        ("{{ user.first_name or 'You' }}, your week", []),
        ("{{ user.first_name | default('You', true) }}", []),
        ("{% if user.first_name %}{{ user.first_name }}{% endif %} your week", []),
        ("{% set name = user.first_name %}{{ name or 'You' }}", []),
    ],
)
def test_a_name_that_nobody_cares_for_leaves_a_hole_where_there_is_none(subject, lacks):
    renderer = Renderer(compile_template("digest", subject=subject))

    assert renderer.lacking(sample_recipient(first_name="")) == lacks
    assert renderer.lacking(sample_recipient()) == []


def test_an_error_with_real_data_names_the_author_s_line(renderer_of):
    renderer = renderer_of(
        "<mj-text>\n{{ things[0].n }}</mj-text>", text="a\n{{ 1 // things[0].n }}"
    )

    with pytest.raises(TemplateError, match=r"text\.jinja:2: .*zero"):
        mail(renderer, things=[{"n": 0}])
    with pytest.raises(TemplateError, match=r"template\.mjml:2: .*no attribute 'n'"):
        mail(renderer, things=[{"m": 1}])


def test_a_line_break_in_the_subject_is_refused(renderer_of):
    renderer = renderer_of("<mj-text>a</mj-text>", subject="New: {{ word }}!")

    assert mail(renderer, word="apples").subject == "New: apples!"
    for word in ("a\r\nBcc: x@example.com", "a\nb", "a\rb", "a\0b"):
        with pytest.raises(TemplateError, match=r"subject\.jinja:1: a line break in"):
            mail(renderer, word=word)


def test_an_unknown_variable_of_a_campaign_is_refused():
    with pytest.raises(ConfigError, match="no variables nonsense"):
        Renderer(compile_template("digest"), {"nonsense": 1})


def test_a_campaign_s_own_values_win_over_the_template_s_field_by_field():
    context = sample_context() | {"offer": {"code": "HALF"}}

    rendered = Renderer(compile_template("digest"), context).render(
        sample_recipient("buyer"), PICKS
    )

    assert "HALF" in rendered.html
    assert "FRESH10" not in rendered.html
    assert "10% off your next basket" in rendered.html


def test_a_campaign_may_bring_its_own_subject():
    compiled = compile_template("digest", subject="{{ user.first_name }}: 5 < 6 & more")

    assert Renderer(compiled, sample_context()).render(sample_recipient(), PICKS).subject == (
        "Ana: 5 < 6 & more"
    )
    with pytest.raises(TemplateError, match=r"subject of the campaign:1: unknown .*user\.naem"):
        compile_template("digest", subject="{{ user.naem }}")
    with pytest.raises(TemplateError, match="subject of the campaign:1: "):
        compile_template("digest", subject="{{ user.first_name")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_name_and_title_give_a_mail_or_a_refused_subject(digest, name, title):
    recipient = RecipientView("u", "a@example.com", name, "en", "buyer")
    try:
        rendered = mail(
            digest, recipient, [ItemView("1", title, "", "https://x.example", "https://x.example")]
        )
    except TemplateError as error:
        assert "line break" in str(error)  # noqa: PT017
    else:
        assert rendered.html.count("<h1") == 1


@pytest.mark.parametrize(
    ("price", "currency", "locale", "shown"),
    [
        (3.49, "USD", "en_US", "$3.49"),
        (1234.5, "EUR", "de-DE", "1.234,50\N{NO-BREAK SPACE}€"),
        (500, "JPY", "ja", "￥500"),
        (3.49, "USD", "no such locale", "$3.49"),
        (None, "USD", "en", ""),
        (float("nan"), "USD", "en", ""),
        (-1, "USD", "en", ""),
    ],
)
def test_prices_are_written_as_the_reader_writes_them(price, currency, locale, shown):
    assert format_price(price, currency, locale) == shown


def test_dates_are_written_as_the_reader_writes_them():
    moment = datetime(2017, 12, 4, 9, tzinfo=UTC)

    assert format_date(moment, "en") == "December 4, 2017"
    assert format_date(moment, "de") == "4. Dezember 2017"
    assert format_date(None) == ""


def test_every_reason_has_a_sentence():
    sentences = {reason: reason_sentence(reason) for reason in Reason}

    assert sentences.pop(Reason.NONE) == ""
    assert all(sentences.values())


@pytest.mark.parametrize(
    ("days", "shown"),
    [
        (14, "You buy this about every two weeks"),
        (30, "You buy this about once a month"),
        (300, "You buy this now and then"),
        (None, "You have bought this before"),
    ],
)
def test_a_repeat_says_how_often(days, shown):
    assert reason_sentence(Reason.REPEAT, gap_days=days) == shown


def test_a_category_is_named_without_shouting():
    assert reason_sentence(Reason.CATEGORY, "PRODUCE") == "Because you often buy produce"
    together = reason_sentence(Reason.BOUGHT_TOGETHER, bought="Green Tea, 20 ct")
    assert together == "Because you bought Green Tea, 20 ct"
