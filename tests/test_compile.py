"""Template folders compile once, or fail with the author's file, line and variable."""

import json
import pickle
import re

import pytest

from reco.errors import NotFound, TemplateError
from render.compile import compile_template, template_folder
from render.renderer import Renderer
from render.views import sample_item, sample_recipient

PAGE = """<mjml lang="en">
  <mj-head><mj-title>{{ subject }}</mj-title></mj-head>
  <mj-body>
    <mj-section><mj-column>
BODY
    </mj-column></mj-section>
  </mj-body>
</mjml>
"""


@pytest.fixture
def folder(tmp_path):
    """A template folder; `folder(body, **files)` writes it."""

    def write(body="<mj-text>Hi</mj-text>", page=PAGE, **files):
        files = {"text.jinja": "Hi", "subject.jinja": "Hi", "preheader.jinja": "", **files}
        files["template.mjml"] = page.replace("BODY", body)
        for name, content in files.items():
            path = tmp_path / "mail" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        return tmp_path / "mail"

    return write


def page_of(folder, recipient=None, items=3, **context):
    """Compile and render the HTML of a folder."""
    compiled = compile_template(folder)
    picks = [sample_item(n) for n in range(1, items + 1)]
    rendered = Renderer(compiled).render(
        recipient or sample_recipient(), picks, compiled.sample() | context
    )
    return rendered.html


def error_of(folder):
    with pytest.raises(TemplateError) as caught:
        compile_template(folder)
    return str(caught.value)


def test_digest_shows_the_first_three_picks_and_the_name():
    html = page_of("digest", items=5)

    assert re.search(r"<h1[^>]*>Weekly digest for Ana</h1>", html)
    assert [f"Sample item {n} &lt;" in html for n in (1, 2, 3)] == [True] * 3
    assert html.count('src="https://images.example/sample.png"') == 3


def test_digest_greets_without_a_name():
    html = page_of("digest", sample_recipient(first_name=""))

    assert re.search(r"<h1[^>]*>Weekly digest</h1>", html)


@pytest.mark.parametrize(
    ("segment", "shown"),
    [
        ("educator", "Five suppers from what is in season"),
        ("buyer", "FRESH10"),
        ("", "Popular in the shop"),
        ("anything else", "Popular in the shop"),
    ],
)
def test_each_segment_has_its_own_block(segment, shown):
    html = page_of("digest", sample_recipient(segment))

    others = {"Five suppers from what is in season", "FRESH10", "Popular in the shop"} - {shown}
    assert shown in html
    assert not any(other in html for other in others)


def test_segments_of_a_template_are_known():
    assert compile_template("digest").segments == ("educator", "buyer")


def test_the_article_s_own_example_compiles(folder):
    html = page_of(
        folder(
            """<!-- Static header -->
            <mj-text>Weekly digest for {{ user.first_name }}</mj-text>
            {% for item in recommendations[:3] %}
            <mj-image src="{{ item.image_url }}" alt="{{ item.title }}" />
            <mj-text>{{ item.title }} - {{ item.price }} USD</mj-text>
            <mj-button href="{{ item.url }}?utm_content=reco">
              View
            </mj-button>
            {% endfor %}
            {% if user.segment == 'educator' %}
              {% include 'blocks/latest_article.mjml' %}
            {% elif user.segment == 'buyer' %}
              {% include 'blocks/discount_offer.mjml' %}
            {% else %}
              {% include 'blocks/popular_items.mjml' %}
            {% endif %}""",
            **{
                "blocks/latest_article.mjml": "<mj-text>ARTICLE</mj-text>",
                "blocks/discount_offer.mjml": "<mj-text>OFFER</mj-text>",
                "blocks/popular_items.mjml": "<mj-text>POPULAR</mj-text>",
            },
        ),
        sample_recipient("buyer"),
    )

    assert "Weekly digest for Ana" in html
    assert html.count('href="https://shop.example/items/2?utm_content=reco"') == 1
    assert "OFFER" in html
    assert "ARTICLE" not in html
    assert "POPULAR" not in html
    assert "Static header" not in html


def test_no_jinja_tag_is_lost_or_moved_by_inlining(folder):
    written = folder(
        """{% for item in recommendations %}{% if item.price %}
        <mj-text css-class="big">{{ item.item_id }}</mj-text>
        {% else %}<mj-text>free</mj-text>{% endif %}{% endfor %}
        <mj-table>{% for item in recommendations %}<tr class="big">
          {% if loop.first %}<td>{{ item.title }}</td>{% endif %}</tr>{% endfor %}</mj-table>""",
        PAGE.replace(
            "</mj-head>",
            '<mj-style inline="inline">.big { letter-spacing: 3px }</mj-style></mj-head>',
        ),
    )
    tags = re.findall(r"\{[{%].*?[}%]\}", (written / "template.mjml").read_text())

    compiled = compile_template(written).html.jinja

    body = compiled[compiled.index("<table") :]
    assert re.findall(r"\{[{%].*?[}%]\}", body) == [tag for tag in tags if "subject" not in tag]
    assert page_of(written).count("letter-spacing: 3px") == 6


def test_loops_in_a_wrapper_repeat_outlook_s_rows_too(folder):
    section = (
        "<mj-section><mj-column><mj-text>{{ item.item_id }}</mj-text></mj-column></mj-section>"
    )
    loop = "{% for item in recommendations %}" + section + "{% endfor %}"
    page = PAGE.replace("<mj-section><mj-column>", "<mj-wrapper>").replace(
        "</mj-column></mj-section>", "</mj-wrapper>"
    )
    styled = page.replace(
        "</mj-head>", '<mj-style inline="inline">p {margin: 0}</mj-style></mj-head>'
    )

    html = page_of(folder(loop, styled))

    shown = re.sub(r"<!--.*?-->", "", html, flags=re.DOTALL)
    outlook = re.sub(r"<!--\[if mso[^\]]*\]>|<!\[endif\]-->", "", html)
    for tag in ("table", "tr", "td", "div"):
        assert shown.count(f"<{tag} ") + shown.count(f"<{tag}>") == shown.count(f"</{tag}>")
        assert outlook.count(f"<{tag} ") + outlook.count(f"<{tag}>") == outlook.count(f"</{tag}>")


def test_a_comparison_may_use_the_less_than_sign(folder):
    html = page_of(
        folder(
            "{% if recommendations | length < 9 %}"
            '<mj-text align="{{ "left" }}">few</mj-text>{% endif %}'
        )
    )

    assert "few" in html


def test_media_queries_stay_and_nothing_remote_is_added():
    html = page_of("digest")

    assert "@media (prefers-color-scheme: dark)" in html
    assert "@media only screen and (max-width: 479px)" in html
    assert "<link" not in html
    assert "@import" not in html


def test_version_follows_the_content_of_every_file(folder):
    first = compile_template(folder(**{"blocks/unused.mjml": "a"})).version
    second = compile_template(folder(**{"blocks/unused.mjml": "b"})).version
    again = compile_template(folder(**{"blocks/unused.mjml": "b"})).version

    assert first != second
    assert second == again


def test_a_compiled_template_travels_between_processes():
    compiled = compile_template("digest")

    assert pickle.loads(pickle.dumps(compiled)) == compiled


def test_an_unknown_variable_is_named_with_file_line_and_a_suggestion(folder):
    message = error_of(folder("\n\n<mj-text>{{ first_nme }} {{ recomendations }}</mj-text>"))

    assert "template.mjml:7: unknown variable 'first_nme'" in message
    assert "unknown variable 'recomendations' (did you mean 'recommendations'?)" in message


def test_an_unknown_field_is_found_in_a_branch_that_no_sample_takes(folder):
    message = error_of(
        folder(
            "{% include 'blocks/a.mjml' %}",
            **{
                "blocks/a.mjml": "<mj-text>\n{% if 1 == 2 %}{{ user.frist_name }}{% endif %}"
                "</mj-text>"
            },
        )
    )

    assert (
        "blocks/a.mjml:2: unknown variable 'user.frist_name' (did you mean 'first_name'?)"
        in message
    )


def test_an_unknown_field_of_a_loop_variable_is_found_in_the_text_part(folder):
    message = error_of(
        folder(**{"text.jinja": "a\n{% for x in recommendations[:2] %}{{ x.prize }}{% endfor %}"})
    )

    assert "text.jinja:2: unknown variable 'x.prize' (did you mean 'price'?)" in message


def test_the_address_of_a_recipient_is_not_for_templates(folder):
    assert "unknown variable 'user.email'" in error_of(
        folder("<mj-text>{{ user.email }}</mj-text>")
    )


def test_variables_of_meta_yaml_are_known_down_to_their_fields(folder):
    meta = "variables:\n  shop: {name: Corner}\n"
    html = page_of(folder("<mj-text>{{ shop.name }}</mj-text>", **{"meta.yaml": meta}))
    message = error_of(folder("<mj-text>{{ shop.nam }}</mj-text>", **{"meta.yaml": meta}))

    assert "Corner" in html
    assert "unknown variable 'shop.nam' (did you mean 'name'?)" in message


@pytest.mark.parametrize("meta", ["variables: [1]", "nonsense: 1", "variables: {user: 1}", "a: ["])
def test_a_bad_meta_yaml_is_refused(folder, meta):
    assert "meta.yaml" in error_of(folder(**{"meta.yaml": meta}))


@pytest.mark.parametrize(
    "name", ["../outside.mjml", "/etc/passwd", "blocks/../../outside.mjml", "..\\\\x", "link.mjml"]
)
def test_includes_cannot_leave_the_folder(folder, name, tmp_path):
    (tmp_path / "outside.mjml").write_text("<mj-text>secret</mj-text>")
    written = folder("{% include '" + name + "' %}")
    (written / "link.mjml").symlink_to(tmp_path / "outside.mjml")

    message = error_of(written)

    assert "template.mjml:5: " in message
    assert "lies outside the template folder" in message


def test_mj_include_goes_through_the_same_jail(folder):
    inside = page_of(
        folder(
            '<mj-include path="b.mjml" />', **{"b.mjml": "<mj-text>{{ user.segment }}IN</mj-text>"}
        )
    )

    assert "IN" in inside
    assert "outside the template folder" in error_of(folder('<mj-include path="../b.mjml" />'))
    assert "takes a path" in error_of(folder('<mj-include path="b.css" type="css" />'))


def test_includes_cannot_go_round_in_a_circle(folder):
    message = error_of(folder("{% include 'a.mjml' %}", **{"a.mjml": "\n{% include 'a.mjml' %}"}))

    assert "a.mjml:2: includes go round in a circle" in message


@pytest.mark.parametrize(
    "tag",
    [
        "{% include name %}",
        "{% include ['a', 'b'] %}",
        "{% import 'a' as b %}",
        "{% extends 'a' %}",
    ],
)
def test_only_plain_includes_are_offered(folder, tag):
    assert "template.mjml:5: " in error_of(folder(tag))


def test_a_missing_block_is_named_with_those_that_exist(folder):
    message = error_of(folder("{% include 'blocks/x.mjml' %}", **{"blocks/y.mjml": "y"}))

    assert "there is no file 'blocks/x.mjml'" in message
    assert "blocks/y.mjml" in message


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("{% if user.segment %}", "template.mjml:"),
        ("\n{{ user.segment | nosuch }}", "template.mjml:6: "),
        ("\n{% for x in %}{% endfor %}", "template.mjml:6: "),
        ("\n{{ 'open }}", "template.mjml:6: "),
        ("\n<mj-text>a < b</mj-text>", "template.mjml:6: "),
        ("\n<mj-text>a", "template.mjml:6: "),
        ("\n<mj-text>a\n<br</mj-text>", "template.mjml:7: "),
        ("\n<mj-text>a</mj-txt>", "template.mjml:6: "),
        ("\n<mj-buton>a</mj-buton>", "template.mjml:6: there is no MJML tag <mj-buton>"),
    ],
)
def test_syntax_errors_name_file_and_line(folder, body, place):
    assert place in error_of(folder(body))


def test_a_tag_where_mjml_drops_it_is_an_error_not_a_silent_loss(folder):
    page = PAGE.replace("<mj-head>", "<mj-head>{% set a = 1 %}")

    assert "template.mjml:2: {% set a = 1 %} has no place" in error_of(folder(page=page))


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ user.__class__ }}",
        "{{ recommendations.__class__.__base__.__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ '{0.__class__}'.format(user) }}",
        "{{ '%s' | safe }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ range(10000000) | list }}",
        "{{ recommendations.append(1) }}",
    ],
)
def test_sandbox_escapes_are_refused(folder, escape):
    assert "template.mjml:5: " in error_of(folder(f"<mj-text>{escape}</mj-text>"))


def test_files_that_a_mail_needs_are_asked_for(folder):
    written = folder()
    (written / "text.jinja").unlink()

    assert "text.jinja missing" in error_of(written)


@pytest.mark.parametrize("name", ["no-such-template", "no/such/digest", "", ".", ".."])
def test_an_unknown_template_names_the_stock_ones(name):
    with pytest.raises(NotFound, match="stock template: digest"):
        template_folder(name)


@pytest.mark.parametrize("corpus", ["mjml_templates", "mjml_cases"])
def test_foreign_templates_compile_or_fail_clearly(folder, corpora, corpus):
    pages = [path.read_text() for path in sorted((corpora / corpus).rglob("*.mjml"))]
    for path in (corpora / corpus).glob("*.jsonl"):
        pages += [json.loads(line)["mjml"] for line in path.read_text().splitlines()]
    compiled = 0
    for page in pages:
        try:
            assert "<html" in compile_template(folder(page=page)).html.jinja
            compiled += 1
        except TemplateError as error:
            assert re.match(r"template\.mjml:\d+: ", str(error)), error  # noqa: PT017

    assert compiled > len(pages) / 2
